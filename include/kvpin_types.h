/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The one place where the two worlds differ: fixed-width types, inlining, and how a byte of a
 * head buffer is read. Everything else in include/ is written once against these names and is
 * compiled for the daemon and for BPF. Freestanding: no libc, no allocation.
 */
#ifndef KVPIN_TYPES_H
#define KVPIN_TYPES_H

#ifndef __VMLINUX_H__
#include <linux/types.h>
#endif

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "kvpin's word-wise scanning is written for little-endian machines"
#endif

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

/* Short fixed loops whose body must become straight-line code. */
#ifdef __clang__
#define KVPIN_UNROLL _Pragma("clang loop unroll(full)")
#else
#define KVPIN_UNROLL _Pragma("GCC unroll 24")
#endif

/*
 * Reading a head buffer. `i` is always below the length that the caller stated; the BPF verifier
 * cannot know that, so there the index is masked to the buffer's size. The buffer is map memory of
 * KVPIN_BPF_SCRATCH_BYTES, which has slack for a word read at the last index.
 *
 * kvpin_word() wants all eight bytes below len. kvpin_word_to() does not: what stands at and
 * behind buf[len] is unspecified in its result (zero, or in BPF whatever the scratch held), and
 * natively it is not read. Callers mask it, or ignore marks there.
 *
 * For words that follow each other kvpin_run_word() is kvpin_word_to(buf, i, len), i being k words
 * behind where kvpin_run() began, k a constant below 8: in BPF the index is masked once for all.
 */
#ifdef __bpf__
#ifndef KVPIN_BPF_HEAD_BYTES
#define KVPIN_BPF_HEAD_BYTES 4096
#endif
/* Words that a scan may read on from the last index. */
#define KVPIN_BPF_SLACK_BYTES 64
/* Behind the bytes and their slack stands one word through which indices go. */
#define KVPIN_BPF_SCRATCH_BYTES (KVPIN_BPF_HEAD_BYTES + KVPIN_BPF_SLACK_BYTES + 8)

/* Hides a value's origin from clang, which otherwise drops a check that it proves redundant but
 * that the verifier still needs. */
#define kvpin_opaque(v) asm volatile("" : "+r"(v))

/* Hides a value's origin from the verifier. An index must be "precise" for it, and so must all
 * values that it was computed from; then no two visits of a loop look alike, nothing is pruned,
 * and a million instructions do not suffice. What is loaded from a map has no origin. */
static __always_inline __u64 kvpin_forget(const __u8 *buf, __u64 v)
{
	volatile __u64 *cell =
		(volatile __u64 *)(buf + KVPIN_BPF_HEAD_BYTES + KVPIN_BPF_SLACK_BYTES);

	*cell = v;
	return *cell;
}

static __always_inline __u8 kvpin_byte(const __u8 *buf, __u32 i)
{
	return buf[kvpin_forget(buf, i) & (KVPIN_BPF_HEAD_BYTES - 1)];
}

static __always_inline __u64 kvpin_word(const __u8 *buf, __u32 i)
{
	return *(const __u64 *)(buf + (kvpin_forget(buf, i) & (KVPIN_BPF_HEAD_BYTES - 1)));
}

static __always_inline __u64 kvpin_word_to(const __u8 *buf, __u32 i, __u32 len)
{
	return kvpin_word(buf, i);
}

static __always_inline const __u8 *kvpin_run(const __u8 *buf, __u32 i)
{
	return buf + (kvpin_forget(buf, i) & (KVPIN_BPF_HEAD_BYTES - 1));
}

#define kvpin_run_word(run, k, buf, i, len) (*(const __u64 *)((run) + (k) * 8))
#else
#define kvpin_opaque(v)	       ((void)0)
#define kvpin_forget(buf, v) (v)

static __always_inline __u8 kvpin_byte(const __u8 *buf, __u32 i)
{
	return buf[i];
}

static __always_inline __u64 kvpin_word(const __u8 *buf, __u32 i)
{
	__u64 w;

	__builtin_memcpy(&w, buf + i, sizeof(w));
	return w;
}

static __always_inline __u64 kvpin_word_to(const __u8 *buf, __u32 i, __u32 len)
{
	__u64 w = 0;

	if (i + 8 <= len)
		return kvpin_word(buf, i);
	if (len >= 8)
		return kvpin_word(buf, len - 8) >> ((i + 8 - len) * 8);
	while (len > i)
		w = w << 8 | buf[--len];
	return w;
}

#define kvpin_run(buf, i)		    (buf)
#define kvpin_run_word(run, k, buf, i, len) ((void)(run), kvpin_word_to(buf, i, len))
#endif

#endif
