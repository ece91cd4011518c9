/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Reading text eight bytes at a time: character classes, scans to the next byte that matters,
 * comparisons whatever the case. Knows nothing of HTTP's structure and keeps no state.
 */
#ifndef KVPIN_HTTP_TEXT_H
#define KVPIN_HTTP_TEXT_H

#include "kvpin_types.h"

/* Longest head that is ever read. */
#define KVPIN_HEAD_BYTES_MAX (32 * 1024)

/* Words that one step scans at most: bounds a step for the verifier, which walks every turn of
 * these loops. Natively there is no reason to stop. */
#ifdef __bpf__
#define KVPIN_NAME_SCAN_WORDS 4
#define KVPIN_TEXT_SCAN_WORDS 8
#define KVPIN_SCAN_UNROLL     KVPIN_UNROLL
#else
#define KVPIN_NAME_SCAN_WORDS KVPIN_HEAD_BYTES_MAX
#define KVPIN_TEXT_SCAN_WORDS KVPIN_HEAD_BYTES_MAX
#define KVPIN_SCAN_UNROLL
#endif

#define KVPIN_ONES  0x0101010101010101ULL
#define KVPIN_HIGHS 0x8080808080808080ULL
#define KVPIN_CASE  0x2020202020202020ULL

/* Bytes of w below n (n <= 128): high bits set; exact for the lowest such byte (Mycroft). */
#define KVPIN_LESS(w, n) (((w) - KVPIN_ONES * (n)) & ~(w) & KVPIN_HIGHS)
#define KVPIN_EQUAL(w, c) KVPIN_LESS((w) ^ (KVPIN_ONES * (c)), 1)
/* Bytes of w from a to z (both ASCII), exact for every byte; w has no byte above 0x7f. */
#define KVPIN_BETWEEN(w, a, z)                                                                     \
	(((w) + KVPIN_ONES * (0x80 - (a))) & ~((w) + KVPIN_ONES * (0x7f - (z))) & KVPIN_HIGHS)

/* The low n bytes of w (n <= 8). */
static __always_inline __u64 kvpin_low_bytes(__u64 w, __u32 n)
{
	return n >= 8 ? w : w & ((1ULL << (n * 8)) - 1);
}

/* Where the lowest byte marked in a KVPIN_LESS/KVPIN_EQUAL mask stands; mask != 0. BPF has no
 * count-trailing-zeros instruction, so the isolated bit is multiplied into the top byte. */
static __always_inline __u32 kvpin_mark_index(__u64 mask)
{
#ifdef __bpf__
	__u64 below = (mask & -mask) - 1;

	/* below: 0x7f.. with 8k+7 ones; its bytes hold 1 each in the lowest k after masking. */
	return (((below & KVPIN_ONES) * KVPIN_ONES) >> 56) - 1;
#else
	return (__u32)__builtin_ctzll(mask) >> 3;
#endif
}

/* RFC 9110 5.6.2 tchar, as a bitmap over the 128 ASCII codes. */
static __always_inline int kvpin_is_tchar(__u8 c)
{
	const __u64 low = 0x03ff6cfa00000000ULL;  /* !#$%&'*+-. 0-9 */
	const __u64 high = 0x57ffffffc7fffffeULL; /* A-Z ^_` a-z | ~ */

	if (c & 0x80)
		return 0;
	return ((c & 0x40 ? high : low) >> (c & 0x3f)) & 1;
}

/* What a scan passes over; see kvpin_scan_mark(). */
enum kvpin_scan {
	KVPIN_SCAN_NAME,
	KVPIN_SCAN_TEXT,
	KVPIN_SCAN_URI,
};

/* Marks the bytes of w that end a scan; exact for the lowest one. */
static __always_inline __u64 kvpin_scan_mark(__u64 w, enum kvpin_scan what)
{
	__u64 ascii, good;

	switch (what) {
	case KVPIN_SCAN_NAME:
		/* Letters, digits and '-' pass. Other tchars are rare: callers take them singly. */
		ascii = w & ~KVPIN_HIGHS;
		good = KVPIN_BETWEEN(ascii | KVPIN_CASE, 'a', 'z') |
		       KVPIN_BETWEEN(ascii, '0', '9') | KVPIN_BETWEEN(ascii, '-', '-');
		return (~good | w) & KVPIN_HIGHS;
	case KVPIN_SCAN_TEXT:
		/* Controls end it. HTAB is one, though allowed: rare, so callers take it singly. */
		return KVPIN_LESS(w, 0x20) | KVPIN_EQUAL(w, 0x7f);
	default:
		/* No blanks, no controls, nothing above 0x7e; and no '#', for a request target has
		 * no fragment: some servers cut one off, others do not. */
		return KVPIN_LESS(w, 0x21) | KVPIN_EQUAL(w, '#') | KVPIN_EQUAL(w, 0x7f) |
		       (w & KVPIN_HIGHS);
	}
}

/* From pos over bytes that need no second look. Returns where it stopped: at a marked byte, at
 * len, or between words when its share is used up, so callers look at that byte again. */
static __always_inline __u32 kvpin_scan(const __u8 *buf, __u32 len, __u32 pos,
					enum kvpin_scan what, __u32 words)
{
	const __u8 *run = kvpin_run(buf, pos);
	__u32 i;

	KVPIN_SCAN_UNROLL
	for (i = 0; i < KVPIN_TEXT_SCAN_WORDS; i++) {
		__u64 mark;

		if (i >= words || pos >= len)
			break;
		mark = kvpin_scan_mark(kvpin_run_word(run, i, buf, pos, len), what);
		if (mark) {
			pos += kvpin_mark_index(mark);
			break;
		}
		pos += 8;
	}
	return kvpin_forget(buf, pos < len ? pos : len);
}

/* Does the text at off (n bytes) equal the lower-case ASCII literal, whatever its case? */
#define kvpin_text_is(buf, len, off, n, literal)                                                   \
	((n) == sizeof(literal) - 1 && kvpin_text_begins(buf, len, off, n, literal))

/* ... or begin with it? Literals up to 24 bytes of letters, '-', '/' and ':', for which OR 0x20
 * is an exact case fold where no controls are; compared as words, so the compiler folds the
 * literal into constants. */
static __always_inline int kvpin_text_begins_(const __u8 *buf, __u32 len, __u32 off, __u32 n,
					      const char *literal, __u32 size)
{
	__u64 differ = 0;
	__u32 i, k;

	if (n < size)
		return 0;
	KVPIN_UNROLL
	for (i = 0; i < 3; i++) {
		__u64 want = 0;

		if (i * 8 >= size)
			break;
		KVPIN_UNROLL
		for (k = 0; k < 8; k++)
			if (i * 8 + k < size)
				want |= (__u64)(literal[i * 8 + k] | 0x20) << (k * 8);
		differ |= want ^ kvpin_low_bytes(kvpin_word_to(buf, off + i * 8, len) | KVPIN_CASE,
						 size - i * 8);
	}
	return !differ;
}
#define kvpin_text_begins(buf, len, off, n, literal)                                               \
	kvpin_text_begins_(buf, len, off, n, literal, sizeof(literal) - 1)

#endif
