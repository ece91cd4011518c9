/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * HTTP/1.1 message framing (RFC 9112 sections 6 and 7): from a parsed head to "this message ends
 * here". Body bytes are only counted; of a chunked body the size lines and trailers are read.
 *
 * Owns: which of the framings applies, and the position in it. Never looks into a payload, but
 * for the one byte that tells a server-sent event from a comment ping.
 *
 * The walker is resumable at any byte. kvpin_body_skip() passes over counted bytes in one
 * addition, kvpin_body_between() over the usual framing between two chunks, kvpin_body_step() takes
 * one byte of any framing: the daemon drives them in kvpin_body_walk(), BPF by bpf_loop().
 */
#ifndef KVPIN_HTTP_BODY_H
#define KVPIN_HTTP_BODY_H

#include "kvpin_http_head.h"

/* A chunk-size line, its extensions included; the servers' own limits start at 4 KiB. */
#define KVPIN_CHUNK_LINE_MAX 1024
/* All trailers of one body. */
#define KVPIN_TRAILER_BYTES_MAX 8192
/* 15 digits cannot overflow 64 bits. */
#define KVPIN_CHUNK_DIGITS_MAX 15

enum kvpin_body_state {
	KVPIN_BS_DONE,	  /* complete; also: there is no body */
	KVPIN_BS_COUNTED, /* Content-Length: `left` bytes to go */
	KVPIN_BS_CLOSE,	  /* until the connection ends */
	KVPIN_BS_TUNNEL,  /* 101: no HTTP any more, both ways until closed */
	KVPIN_BS_SIZE,	  /* first digit of a chunk size */
	KVPIN_BS_SIZE_MORE,
	KVPIN_BS_EXT,
	KVPIN_BS_SIZE_LF,
	KVPIN_BS_CHUNK, /* `left` bytes of chunk payload to go */
	KVPIN_BS_CHUNK_CR,
	KVPIN_BS_CHUNK_LF,
	KVPIN_BS_TRAILER, /* first byte of a trailer line, or the final CR */
	KVPIN_BS_TRAILER_NAME,
	KVPIN_BS_TRAILER_VALUE,
	KVPIN_BS_TRAILER_LF,
	KVPIN_BS_END_LF,
	KVPIN_BS_BAD,
	KVPIN_BS_NR
};

struct kvpin_body {
	__u64 left;    /* counted bytes to go; while reading a size line: the size so far */
	__u64 payload; /* body bytes passed, framing left out */
	__u32 events;  /* chunks (or bodies) begun whose first byte is not a comment's ':' */
	__u16 line;    /* bytes of the current size line, or of all trailers */
	__u8 state;    /* enum kvpin_body_state */
	__u8 error;    /* enum kvpin_http_error, when KVPIN_BS_BAD */
	__u8 fresh;    /* the next payload byte begins a chunk */
	__u8 pad[7];
};

_Static_assert(sizeof(struct kvpin_body) == 32, "kvpin_body is map memory in BPF");

static __always_inline int kvpin_body_bad(struct kvpin_body *b, enum kvpin_http_error error)
{
	b->error = error;
	b->state = KVPIN_BS_BAD;
	return KVPIN_STEP_BAD;
}

/* Framing by the head's own fields, where its kind allows a body. */
static __always_inline void kvpin_body_by_fields(struct kvpin_body *b, const struct kvpin_head *h,
						 enum kvpin_body_state otherwise)
{
	b->fresh = 1;
	b->state = otherwise;
	if (h->flags & KVPIN_HEAD_CHUNKED) {
		b->state = KVPIN_BS_SIZE;
	} else if (h->flags & KVPIN_HEAD_LENGTH) {
		b->left = h->content_length;
		b->state = b->left ? KVPIN_BS_COUNTED : KVPIN_BS_DONE;
	}
}

/**
 * kvpin_body_of_request() - RFC 9112 6.3, requests: no framing field means no body
 * @b: framing state, owned by the caller; all of it is set
 * @h: a complete request head
 */
static __always_inline void kvpin_body_of_request(struct kvpin_body *b, const struct kvpin_head *h)
{
	__builtin_memset(b, 0, sizeof(*b));
	kvpin_body_by_fields(b, h, KVPIN_BS_DONE);
}

/**
 * kvpin_body_of_response() - RFC 9112 6.3, responses
 * @b: framing state, owned by the caller; all of it is set
 * @h: a complete response head
 * @method: of the request that it answers, an enum kvpin_method
 *
 * 1xx (but 101), 204, 304 and whatever answers HEAD have no body whatever their fields say, and
 * a 2xx to CONNECT begins a tunnel whatever they say.
 */
static __always_inline void kvpin_body_of_response(struct kvpin_body *b, const struct kvpin_head *h,
						   __u8 method)
{
	__builtin_memset(b, 0, sizeof(*b));
	if (h->status == 101 || (method == KVPIN_METHOD_CONNECT && h->status / 100 == 2))
		b->state = KVPIN_BS_TUNNEL;
	else if (h->status < 200 || h->status == 204 || h->status == 304 ||
		 method == KVPIN_METHOD_HEAD)
		b->state = KVPIN_BS_DONE;
	else
		kvpin_body_by_fields(b, h, KVPIN_BS_CLOSE);
}

/* States in which bytes are only counted. */
static __always_inline int kvpin_body_counts(const struct kvpin_body *b)
{
	return b->state == KVPIN_BS_CHUNK || b->state == KVPIN_BS_COUNTED ||
	       b->state == KVPIN_BS_CLOSE || b->state == KVPIN_BS_TUNNEL;
}

/**
 * kvpin_body_skip() - pass over counted bytes
 * @b: framing state for which kvpin_body_counts() holds
 * @first: the first of the bytes (only looked at where a chunk or body begins)
 * @avail: bytes that are there, not 0
 *
 * Returns how many of them belong to the counted run (1 to avail).
 */
static __always_inline __u64 kvpin_body_skip(struct kvpin_body *b, __u8 first, __u64 avail)
{
	__u64 n = avail;

	if (b->fresh) {
		b->fresh = 0;
		/* A line that begins with ':' is a comment: llama-server's ping in a prefill. */
		if (first != ':')
			b->events++;
	}
	if (b->state == KVPIN_BS_CHUNK || b->state == KVPIN_BS_COUNTED) {
		if (n > b->left)
			n = b->left;
		b->left -= n;
		if (!b->left)
			b->state = b->state == KVPIN_BS_CHUNK ? KVPIN_BS_CHUNK_CR : KVPIN_BS_DONE;
	}
	b->payload += n;
	return n;
}

static __always_inline int kvpin_hex_digit(__u8 c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

static __always_inline int kvpin_body_line_long(struct kvpin_body *b, __u32 limit)
{
	return ++b->line > limit;
}

/**
 * kvpin_body_step() - take one byte of chunked framing (RFC 9112 7.1)
 * @b: framing state, in none of the states that kvpin_body_counts() names
 * @c: the byte
 *
 * Returns KVPIN_STEP_MORE, KVPIN_STEP_DONE when the byte was the message's last, or
 * KVPIN_STEP_BAD (b->error).
 *
 * Extensions are let through but may hold no control byte; blanks around a size, which some
 * parsers strip and others refuse, are refused.
 */
static __always_inline int kvpin_body_step(struct kvpin_body *b, __u8 c)
{
	int digit;

	switch (b->state) {
	case KVPIN_BS_SIZE:
		b->left = 0;
		b->line = 0;
		digit = kvpin_hex_digit(c);
		if (digit < 0)
			return kvpin_body_bad(b, KVPIN_HTTP_CHUNK_SIZE);
		b->left = digit;
		b->line = 1;
		b->state = KVPIN_BS_SIZE_MORE;
		return KVPIN_STEP_MORE;

	case KVPIN_BS_SIZE_MORE:
		digit = kvpin_hex_digit(c);
		if (digit >= 0) {
			if (kvpin_body_line_long(b, KVPIN_CHUNK_DIGITS_MAX))
				return kvpin_body_bad(b, KVPIN_HTTP_CHUNK_SIZE);
			b->left = b->left << 4 | digit;
			return KVPIN_STEP_MORE;
		}
		if (c == '\r')
			b->state = KVPIN_BS_SIZE_LF;
		else if (c == ';')
			b->state = KVPIN_BS_EXT;
		else
			return kvpin_body_bad(b, KVPIN_HTTP_CHUNK_SIZE);
		return KVPIN_STEP_MORE;

	case KVPIN_BS_EXT:
		if (c == '\r') {
			b->state = KVPIN_BS_SIZE_LF;
			return KVPIN_STEP_MORE;
		}
		if ((c < 0x20 && c != '\t') || c == 0x7f ||
		    kvpin_body_line_long(b, KVPIN_CHUNK_LINE_MAX))
			return kvpin_body_bad(b, KVPIN_HTTP_CHUNK_EXT);
		return KVPIN_STEP_MORE;

	case KVPIN_BS_SIZE_LF:
		if (c != '\n')
			return kvpin_body_bad(b, KVPIN_HTTP_CHUNK_SIZE);
		b->line = 0;
		b->fresh = 1;
		b->state = b->left ? KVPIN_BS_CHUNK : KVPIN_BS_TRAILER;
		return KVPIN_STEP_MORE;

	case KVPIN_BS_CHUNK_CR:
		if (c != '\r')
			return kvpin_body_bad(b, KVPIN_HTTP_CHUNK_END);
		b->state = KVPIN_BS_CHUNK_LF;
		return KVPIN_STEP_MORE;

	case KVPIN_BS_CHUNK_LF:
		if (c != '\n')
			return kvpin_body_bad(b, KVPIN_HTTP_CHUNK_END);
		b->state = KVPIN_BS_SIZE;
		return KVPIN_STEP_MORE;

	case KVPIN_BS_TRAILER:
		if (c == '\r') {
			b->state = KVPIN_BS_END_LF;
			return KVPIN_STEP_MORE;
		}
		if (!kvpin_is_tchar(c) || kvpin_body_line_long(b, KVPIN_TRAILER_BYTES_MAX))
			return kvpin_body_bad(b, KVPIN_HTTP_TRAILER);
		b->state = KVPIN_BS_TRAILER_NAME;
		return KVPIN_STEP_MORE;

	case KVPIN_BS_TRAILER_NAME:
		if ((c != ':' && !kvpin_is_tchar(c)) ||
		    kvpin_body_line_long(b, KVPIN_TRAILER_BYTES_MAX))
			return kvpin_body_bad(b, KVPIN_HTTP_TRAILER);
		if (c == ':')
			b->state = KVPIN_BS_TRAILER_VALUE;
		return KVPIN_STEP_MORE;

	case KVPIN_BS_TRAILER_VALUE:
		if (c == '\r') {
			b->state = KVPIN_BS_TRAILER_LF;
			return KVPIN_STEP_MORE;
		}
		if ((c < 0x20 && c != '\t') || c == 0x7f ||
		    kvpin_body_line_long(b, KVPIN_TRAILER_BYTES_MAX))
			return kvpin_body_bad(b, KVPIN_HTTP_TRAILER);
		return KVPIN_STEP_MORE;

	case KVPIN_BS_TRAILER_LF:
		if (c != '\n')
			return kvpin_body_bad(b, KVPIN_HTTP_TRAILER);
		b->state = KVPIN_BS_TRAILER;
		return KVPIN_STEP_MORE;

	case KVPIN_BS_END_LF:
		if (c != '\n')
			return kvpin_body_bad(b, KVPIN_HTTP_CHUNK_END);
		b->state = KVPIN_BS_DONE;
		return KVPIN_STEP_DONE;

	case KVPIN_BS_DONE:
		return KVPIN_STEP_DONE;
	default:
		return KVPIN_STEP_BAD;
	}
}

/* Digits of a size line that kvpin_body_between() takes; a longer one goes byte by byte. */
#define KVPIN_BETWEEN_DIGITS 4

/**
 * kvpin_body_between() - take the framing between two chunks' payloads at once
 * @b: framing state, in none of the states that kvpin_body_counts() names
 * @w: the next @have bytes (at most 8), the first of them lowest
 *
 * Same result as that many calls of kvpin_body_step(). Returns how many bytes it took; 0: not in a
 * state, or not a line, for which it is: then kvpin_body_step() goes on, and says what is wrong.
 */
static __always_inline __u32 kvpin_body_between(struct kvpin_body *b, __u64 w, __u32 have)
{
	__u32 taken = 0, digits = 0;
	__u64 size = 0;

	if (b->state == KVPIN_BS_CHUNK_CR) {
		if (have < 2 || (w & 0xffff) != 0x0a0d)
			return 0;
		b->state = KVPIN_BS_SIZE;
		taken = 2;
		w >>= 16;
	}
	if (b->state != KVPIN_BS_SIZE)
		return taken;
	KVPIN_UNROLL
	for (int i = 0; i < KVPIN_BETWEEN_DIGITS; i++) {
		int digit = kvpin_hex_digit(w & 0xff);

		if (digit < 0)
			break;
		size = size << 4 | digit;
		digits++;
		w >>= 8;
	}
	/* The last chunk's line is followed by trailers. */
	if (!size || taken + digits + 2 > have || (w & 0xffff) != 0x0a0d)
		return taken;
	b->left = size;
	b->line = 0;
	b->fresh = 1;
	b->state = KVPIN_BS_CHUNK;
	return taken + digits + 2;
}

/**
 * kvpin_body_walk() - pass over what of a message is there (the daemon's driver)
 * @b: framing state
 * @buf: bytes that follow those passed before
 * @len: how many there are
 *
 * Returns how many of them belong to the message: all of them unless it ends among them
 * (b->state is KVPIN_BS_DONE) or is malformed (KVPIN_BS_BAD; the count includes the bad byte).
 */
static inline __u64 kvpin_body_walk(struct kvpin_body *b, const __u8 *buf, __u64 len)
{
	__u64 pos = 0, n;

	while (pos < len && b->state != KVPIN_BS_DONE && b->state != KVPIN_BS_BAD) {
		if (kvpin_body_counts(b)) {
			pos += kvpin_body_skip(b, buf[pos], len - pos);
			continue;
		}
		n = len - pos >= 8 ? kvpin_body_between(b, kvpin_word(buf, pos), 8) : 0;
		pos += n;
		if (!n)
			kvpin_body_step(b, buf[pos++]);
	}
	return pos;
}

/**
 * kvpin_body_ended() - is the message complete if the sender's side of the connection ends now?
 * @b: framing state
 */
static __always_inline int kvpin_body_ended(const struct kvpin_body *b)
{
	return b->state == KVPIN_BS_DONE || b->state == KVPIN_BS_CLOSE ||
	       b->state == KVPIN_BS_TUNNEL;
}

#endif
