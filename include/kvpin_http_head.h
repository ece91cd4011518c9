/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * HTTP/1.1 head parser (RFC 9112 sections 2 to 5), for requests and responses.
 *
 * Owns: deciding where a head ends and whether it is well formed; what the few fields say that
 * framing and affinity need is kvpin_http_fields.h's. It keeps offsets into the caller's buffer and
 * never copies.
 *
 * Strict on purpose: whatever two implementations could read in two ways is an error (bare CR or
 * LF, NUL and other controls, obs-fold, blanks before the colon, a repeated or non-digit
 * Content-Length, a transfer coding other than exactly "chunked", both at once, ...). A lenient
 * front and a lenient server disagree sooner or later, and that is request smuggling.
 *
 * Resumable at any byte: the caller keeps the head from its first byte in one buffer and calls
 * again with a larger length; bytes already seen are not read again. One kvpin_head_step() does
 * a bounded amount of work, so that BPF can drive it by bpf_loop() and the daemon by a plain loop.
 */
#ifndef KVPIN_HTTP_HEAD_H
#define KVPIN_HTTP_HEAD_H

#include "kvpin_http_fields.h"

/* A byte that no state wanted: name it. A CR is not called bare here: what follows it is unread,
 * and "GET /\r\n" lacks a version. */
static __always_inline int kvpin_head_unwanted(struct kvpin_head *h, __u8 c,
					       enum kvpin_http_error otherwise)
{
	if (c == '\n')
		return kvpin_head_bad(h, KVPIN_HTTP_BARE_LF);
	if (c != '\r' && (c < 0x20 || c == 0x7f))
		return kvpin_head_bad(h, KVPIN_HTTP_CONTROL);
	return kvpin_head_bad(h, otherwise);
}

/* The method's n bytes stand at h->start. */
static __always_inline void kvpin_head_method(struct kvpin_head *h, const __u8 *buf, __u32 len,
					      __u32 n)
{
	__u64 w = kvpin_low_bytes(kvpin_word_to(buf, h->start, len), n);

	if (n > 7)
		return;
	if (w == 0x54534f50)
		h->method = KVPIN_METHOD_POST;
	else if (w == 0x544547)
		h->method = KVPIN_METHOD_GET;
	else if (w == 0x44414548)
		h->method = KVPIN_METHOD_HEAD;
	else if (w == 0x534e4f4954504f)
		h->method = KVPIN_METHOD_OPTIONS;
	else if (w == 0x5443454e4e4f43)
		h->method = KVPIN_METHOD_CONNECT;
}

/* RFC 9112 3.2: has the target one of the forms that its method allows? */
static __always_inline int kvpin_target_good(const struct kvpin_head *h, const __u8 *buf,
					     __u32 len)
{
	__u8 c = kvpin_byte(buf, h->target_off);

	if (h->method == KVPIN_METHOD_CONNECT)
		return c != '/' && c != '*';
	if (c == '/')
		return 1;
	if (c == '*')
		return h->target_len == 1 && h->method == KVPIN_METHOD_OPTIONS;
	return kvpin_text_begins(buf, len, h->target_off, h->target_len, "http://") ||
	       kvpin_text_begins(buf, len, h->target_off, h->target_len, "https://");
}

/* "HTTP/1.0" or "HTTP/1.1": the eight bytes at off. */
static __always_inline int kvpin_head_version(struct kvpin_head *h, const __u8 *buf, __u32 off)
{
	__u64 w = kvpin_word(buf, off);

	if ((w & ~(1ULL << 56)) != 0x302e312f50545448ULL)
		return -1;
	h->minor = (w >> 56) & 1;
	return 0;
}

/* A byte that a step has taken leads to `next`; whether it goes on depends on what is there. */
#define KVPIN_TAKE(next)                                                                           \
	do {                                                                                       \
		h->state = (next);                                                                 \
		if (++pos >= len) {                                                                \
			h->pos = pos;                                                              \
			return KVPIN_STEP_MORE;                                                    \
		}                                                                                  \
		c = kvpin_byte(buf, pos);                                                          \
	} while (0)

/**
 * kvpin_head_step() - consume a bounded, non-empty piece of a head
 * @h: state from kvpin_head_init()
 * @names: known field names (kvpin_names_init() fills them)
 * @buf: the head from its first byte on
 * @len: bytes of it that are there; h->pos < len
 *
 * Returns KVPIN_STEP_MORE, or once and for all KVPIN_STEP_DONE (h->pos is the head's length) or
 * KVPIN_STEP_BAD (h->error; h->pos is behind the byte that was refused). Never reads at or
 * behind buf[len].
 *
 * The states of a field line follow each other in the switch and fall through while there are
 * bytes, so that a step usually takes a whole line: name, colon, value, CR LF, and the next
 * line's first byte. Each also starts where an earlier call ran out of bytes; what a state does
 * depends on the bytes before it only, never on where calls were cut.
 */
static __always_inline int kvpin_head_step(struct kvpin_head *h, const struct kvpin_names *names,
					   const __u8 *buf, __u32 len)
{
	__u32 pos = h->pos, i;
	__u64 w;
	__u8 c = kvpin_byte(buf, pos);
	int error;

	switch (h->state) {
	case KVPIN_HS_NAME:
		pos = kvpin_scan(buf, len, pos, KVPIN_SCAN_NAME, KVPIN_NAME_SCAN_WORDS);
		if (pos >= len)
			break;
		c = kvpin_byte(buf, pos);
		if (c != ':') {
			h->pos = pos + 1;
			if (kvpin_is_tchar(c))
				return KVPIN_STEP_MORE;
			return kvpin_head_unwanted(h, c, KVPIN_HTTP_FIELD_NAME);
		}
		h->field = kvpin_names_find(names, buf, len, h->mark, pos - h->mark);
		KVPIN_TAKE(KVPIN_HS_BLANKS);
		/* fall through */
	case KVPIN_HS_BLANKS:
		if (c == ' ' || c == '\t')
			KVPIN_TAKE(KVPIN_HS_BLANKS);
		if (c == ' ' || c == '\t')
			break;
		h->mark = pos;
		h->state = KVPIN_HS_VALUE;
		/* fall through */
	case KVPIN_HS_VALUE:
	case KVPIN_HS_REASON:
		pos = kvpin_scan(buf, len, pos, KVPIN_SCAN_TEXT, KVPIN_TEXT_SCAN_WORDS);
		if (pos >= len)
			break;
		c = kvpin_byte(buf, pos);
		if (c != '\r') {
			h->pos = pos + 1;
			if (c == '\t' || (c >= 0x20 && c != 0x7f))
				return KVPIN_STEP_MORE;
			return kvpin_head_unwanted(h, c, KVPIN_HTTP_CONTROL);
		}
		if (h->state == KVPIN_HS_REASON) {
			h->target_len = pos - h->target_off;
		} else if (h->field != KVPIN_FIELD_OTHER) {
			error = kvpin_head_value(h, buf, len, h->mark, pos);
			if (error) {
				h->pos = pos + 1;
				return kvpin_head_bad(h, error);
			}
		}
		KVPIN_TAKE(KVPIN_HS_LINE_LF);
		/* fall through */
	case KVPIN_HS_LINE_LF:
		if (c != '\n') {
			h->pos = pos + 1;
			return kvpin_head_bad(h, KVPIN_HTTP_BARE_CR);
		}
		KVPIN_TAKE(KVPIN_HS_LINE);
		/* fall through */
	case KVPIN_HS_LINE:
		if (c != '\r') {
			h->pos = pos + 1;
			if (c == ' ' || c == '\t')
				return kvpin_head_bad(h, KVPIN_HTTP_OBS_FOLD);
			if (!kvpin_is_tchar(c))
				return kvpin_head_unwanted(h, c, KVPIN_HTTP_FIELD_NAME);
			if (h->fields >= h->limit_fields)
				return kvpin_head_bad(h, KVPIN_HTTP_FIELDS);
			h->fields++;
			h->mark = pos;
			h->state = KVPIN_HS_NAME;
			return KVPIN_STEP_MORE;
		}
		KVPIN_TAKE(KVPIN_HS_END_LF);
		/* fall through */
	case KVPIN_HS_END_LF:
		h->pos = pos + 1;
		if (c != '\n')
			return kvpin_head_bad(h, KVPIN_HTTP_BARE_CR);
		return kvpin_head_finish(h);

	case KVPIN_HS_START:
		if (h->kind == KVPIN_RESPONSE) {
			h->start = pos;
			h->state = KVPIN_HS_STATUS;
			return KVPIN_STEP_MORE;
		}
		if (c == '\r') {
			h->pos = pos + 1;
			if (h->empty_lines >= KVPIN_EMPTY_LINES_MAX)
				return kvpin_head_bad(h, KVPIN_HTTP_METHOD);
			h->empty_lines++;
			h->state = KVPIN_HS_START_LF;
			return KVPIN_STEP_MORE;
		}
		h->start = pos;
		h->state = KVPIN_HS_METHOD;
		/* fall through */
	case KVPIN_HS_METHOD:
		pos = kvpin_scan(buf, len, pos, KVPIN_SCAN_NAME, KVPIN_METHOD_BYTES_MAX / 8);
		if (pos > h->start + KVPIN_METHOD_BYTES_MAX)
			pos = h->start + KVPIN_METHOD_BYTES_MAX;
		if (pos >= len)
			break;
		c = kvpin_byte(buf, pos);
		if (c != ' ' || pos == h->start) {
			h->pos = pos + 1;
			if (!kvpin_is_tchar(c) || pos - h->start >= KVPIN_METHOD_BYTES_MAX)
				return kvpin_head_unwanted(h, c, KVPIN_HTTP_METHOD);
			return KVPIN_STEP_MORE;
		}
		kvpin_head_method(h, buf, len, pos - h->start);
		h->target_off = pos + 1;
		KVPIN_TAKE(KVPIN_HS_TARGET);
		/* fall through */
	case KVPIN_HS_TARGET:
		pos = kvpin_scan(buf, len, pos, KVPIN_SCAN_URI, KVPIN_TEXT_SCAN_WORDS);
		if (pos >= len)
			break;
		c = kvpin_byte(buf, pos);
		if (c > 0x20 && c < 0x7f && c != '#')
			break;
		h->target_len = pos - h->target_off;
		if (c != ' ' || !h->target_len || !kvpin_target_good(h, buf, len)) {
			h->pos = pos + 1;
			return kvpin_head_unwanted(h, c, KVPIN_HTTP_TARGET);
		}
		h->mark = pos + 1;
		KVPIN_TAKE(KVPIN_HS_VERSION);
		/* fall through */
	case KVPIN_HS_VERSION:
		for (i = 0; i < 8 && pos - h->mark < 8; i++) {
			if (c <= 0x20 || c >= 0x7f) {
				h->pos = pos + 1;
				return kvpin_head_unwanted(h, c, KVPIN_HTTP_VERSION);
			}
			KVPIN_TAKE(KVPIN_HS_VERSION);
		}
		h->pos = pos + 1;
		if (c != '\r' || kvpin_head_version(h, buf, h->mark))
			return kvpin_head_unwanted(h, c, KVPIN_HTTP_VERSION);
		h->state = KVPIN_HS_LINE_LF;
		return KVPIN_STEP_MORE;

	case KVPIN_HS_STATUS:
		/* "HTTP/1.1 200" is twelve bytes; then a blank, or at once the line's end. */
		for (i = 0; i < 12 && pos - h->start < 12; i++) {
			if (c < 0x20 || c >= 0x7f) {
				h->pos = pos + 1;
				return kvpin_head_unwanted(h, c, KVPIN_HTTP_STATUS);
			}
			KVPIN_TAKE(KVPIN_HS_STATUS);
		}
		h->pos = pos + 1;
		if (kvpin_head_version(h, buf, h->start))
			return kvpin_head_bad(h, KVPIN_HTTP_VERSION);
		/* Bytes 8 to 11: blank and three digits. */
		w = kvpin_word(buf, h->start + 5) >> 24;
		if ((w & 0xff) != ' ' || ((w >> 8) & 0xff) < '1' || ((w >> 8) & 0xff) > '9' ||
		    ((w >> 16) & 0xff) < '0' || ((w >> 16) & 0xff) > '9' ||
		    ((w >> 24) & 0xff) < '0' || ((w >> 24) & 0xff) > '9')
			return kvpin_head_bad(h, KVPIN_HTTP_STATUS);
		h->status = (((w >> 8) & 0xf) * 10 + ((w >> 16) & 0xf)) * 10 + ((w >> 24) & 0xf);
		h->target_off = pos + 1;
		if (c == ' ')
			h->state = KVPIN_HS_REASON;
		else if (c == '\r')
			h->state = KVPIN_HS_LINE_LF;
		else
			return kvpin_head_unwanted(h, c, KVPIN_HTTP_STATUS);
		return KVPIN_STEP_MORE;

	case KVPIN_HS_START_LF:
		h->pos = pos + 1;
		if (c != '\n')
			return kvpin_head_bad(h, KVPIN_HTTP_BARE_CR);
		h->state = KVPIN_HS_START;
		return KVPIN_STEP_MORE;

	case KVPIN_HS_DONE:
		return KVPIN_STEP_DONE;
	default:
		return KVPIN_STEP_BAD;
	}
	h->pos = pos;
	return KVPIN_STEP_MORE;
}
#undef KVPIN_TAKE

/**
 * kvpin_head_settle() - what a driver returns: its last step, or that the head is over its limit
 * @h: state; the driver took steps until h->pos was min(bytes there, h->limit_bytes)
 * @step: the last step's result, KVPIN_STEP_MORE when none was taken
 */
static __always_inline int kvpin_head_settle(struct kvpin_head *h, int step)
{
	if (step != KVPIN_STEP_MORE || h->pos < h->limit_bytes)
		return step;
	return kvpin_head_bad(h, h->state == KVPIN_HS_TARGET ? KVPIN_HTTP_TARGET_LONG
							     : KVPIN_HTTP_HEAD_LARGE);
}

/**
 * kvpin_head_parse() - consume all that is there (the daemon's driver)
 * @h: state from kvpin_head_init(); h->limit_bytes and h->limit_fields may be lowered before
 * @names: known field names
 * @buf: the head from its first byte on
 * @len: bytes of it that are there
 *
 * Returns KVPIN_STEP_DONE, KVPIN_STEP_BAD, or KVPIN_STEP_MORE when more bytes are wanted.
 */
static inline int kvpin_head_parse(struct kvpin_head *h, const struct kvpin_names *names,
				   const __u8 *buf, __u32 len)
{
	__u32 end = len < h->limit_bytes ? len : h->limit_bytes;
	int step = KVPIN_STEP_MORE;

	while (h->pos < end && step == KVPIN_STEP_MORE)
		step = kvpin_head_step(h, names, buf, end);
	return kvpin_head_settle(h, step);
}


#endif
