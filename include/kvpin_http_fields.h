/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a head of HTTP/1.1 says (RFC 9112 sections 2 to 6): the result of a parse, the reasons to
 * refuse one, and the fields that framing and affinity need. The lines are kvpin_http_head.h's.
 *
 * Works on one complete value at a time, out of the caller's buffer, and never copies.
 */
#ifndef KVPIN_HTTP_FIELDS_H
#define KVPIN_HTTP_FIELDS_H

#include "kvpin_http_names.h"

/* Why a head or a body was refused; the text is the log's and the metric label's. */
#define KVPIN_HTTP_ERRORS(X)                                                                       \
	X(NONE, "none")                                                                            \
	X(METHOD, "bad_method")                                                                    \
	X(TARGET, "bad_target")                                                                    \
	X(TARGET_LONG, "target_too_long")                                                          \
	X(VERSION, "bad_version")                                                                  \
	X(STATUS, "bad_status_line")                                                               \
	X(BARE_CR, "bare_cr")                                                                      \
	X(BARE_LF, "bare_lf")                                                                      \
	X(CONTROL, "control_byte")                                                                 \
	X(OBS_FOLD, "obs_fold")                                                                    \
	X(FIELD_NAME, "bad_field_name")                                                            \
	X(BLANKS, "too_many_blanks")                                                               \
	X(HEAD_LARGE, "head_too_large")                                                            \
	X(FIELDS, "too_many_fields")                                                               \
	X(HOST, "bad_host")                                                                        \
	X(CONTENT_LENGTH, "bad_content_length")                                                    \
	X(CONTENT_LENGTH_REPEATED, "repeated_content_length")                                      \
	X(TRANSFER_ENCODING, "bad_transfer_encoding")                                              \
	X(LENGTH_AND_CHUNKED, "content_length_and_chunked")                                        \
	X(CHUNK_SIZE, "bad_chunk_size")                                                            \
	X(CHUNK_EXT, "bad_chunk_extension")                                                        \
	X(CHUNK_END, "bad_chunk_end")                                                              \
	X(TRAILER, "bad_trailer")

enum kvpin_http_error {
#define KVPIN_X(id, text) KVPIN_HTTP_##id,
	KVPIN_HTTP_ERRORS(KVPIN_X)
#undef KVPIN_X
	KVPIN_HTTP_NR
};

enum kvpin_head_kind {
	KVPIN_REQUEST,
	KVPIN_RESPONSE,
};

enum kvpin_method {
	KVPIN_METHOD_OTHER,
	KVPIN_METHOD_GET,
	KVPIN_METHOD_HEAD,
	KVPIN_METHOD_POST,
	KVPIN_METHOD_CONNECT,
	KVPIN_METHOD_OPTIONS,
};

/* What the head said. */
enum kvpin_head_flag {
	KVPIN_HEAD_HOST = 1 << 0,
	KVPIN_HEAD_LENGTH = 1 << 1,	   /* content_length is valid */
	KVPIN_HEAD_CHUNKED = 1 << 2,	   /* Transfer-Encoding: chunked */
	KVPIN_HEAD_CLOSE = 1 << 3,	   /* Connection: close, alone in its field */
	KVPIN_HEAD_KEEP_ALIVE = 1 << 4,	   /* Connection: keep-alive, alone in its field */
	KVPIN_HEAD_CONNECTION_LIST = 1 << 5, /* a Connection field with anything else in it */
	KVPIN_HEAD_HOP = 1 << 6,	   /* Keep-Alive, Proxy-Connection or TE present */
	KVPIN_HEAD_UPGRADE = 1 << 7,
	KVPIN_HEAD_EXPECT = 1 << 8,
	KVPIN_HEAD_EVENT_STREAM = 1 << 9,  /* Content-Type: text/event-stream */
	KVPIN_HEAD_KEY_REPEATED = 1 << 10, /* the winning session header stands there twice */
};

/* Limits of one parse. */
#define KVPIN_HEAD_FIELDS_MAX 100
/* Blanks tolerated behind the value of a field that the parser acts on. */
#define KVPIN_BLANKS_MAX 16
/* Empty lines tolerated before a request line (RFC 9112 2.2 asks for at least one). */
#define KVPIN_EMPTY_LINES_MAX 4
#define KVPIN_METHOD_BYTES_MAX 32
/* 18 digits cannot overflow, and an exbibyte is enough for a body. */
#define KVPIN_LENGTH_DIGITS_MAX 18
/* A DNS name has at most 253 characters; with ":65535" it fits. */
#define KVPIN_HOST_BYTES_MAX 264

struct kvpin_head {
	__u32 pos;	  /* bytes consumed; the head's length once parsing is done */
	__u32 start;	  /* where the start line begins (behind tolerated empty lines) */
	__u32 limit_bytes;
	__u16 limit_fields;
	__u16 fields;	  /* fields seen */
	__u8 state;	  /* enum kvpin_head_state */
	__u8 kind;	  /* enum kvpin_head_kind */
	__u8 error;	  /* enum kvpin_http_error */
	__u8 method;	  /* enum kvpin_method */
	__u8 minor;	  /* HTTP/1.minor, 0 or 1 */
	__u8 field;	  /* enum kvpin_field of the line being read */
	__u8 key_rank;	  /* index of the winning session header, or KVPIN_KEY_NONE */
	__u8 empty_lines;
	__u16 status;	  /* response */
	__u16 pad;
	__u32 flags;	  /* enum kvpin_head_flag */
	__u32 mark;	  /* where the token being read began */
	__u32 target_off; /* request: target; response: reason phrase */
	__u32 target_len;
	__u32 key_off;	  /* the session key's bytes, blanks trimmed */
	__u32 key_len;
	__u32 pad2;
	__u64 content_length;
};

_Static_assert(sizeof(struct kvpin_head) == 64, "kvpin_head is map memory in BPF");

enum kvpin_head_state {
	KVPIN_HS_START,
	KVPIN_HS_START_LF,
	KVPIN_HS_METHOD,
	KVPIN_HS_TARGET,
	KVPIN_HS_VERSION,
	KVPIN_HS_STATUS,
	KVPIN_HS_REASON,
	KVPIN_HS_LINE_LF,
	KVPIN_HS_LINE,
	KVPIN_HS_NAME,
	KVPIN_HS_BLANKS,
	KVPIN_HS_VALUE,
	KVPIN_HS_END_LF,
	KVPIN_HS_DONE,
	KVPIN_HS_BAD,
};

enum kvpin_step {
	KVPIN_STEP_MORE, /* go on */
	KVPIN_STEP_DONE,
	KVPIN_STEP_BAD,	 /* h->error says why */
};

/**
 * kvpin_head_init() - begin a head
 * @h: state, owned by the caller; every field is set
 * @kind: KVPIN_REQUEST or KVPIN_RESPONSE
 */
static __always_inline void kvpin_head_init(struct kvpin_head *h, enum kvpin_head_kind kind)
{
	__builtin_memset(h, 0, sizeof(*h));
	h->kind = kind;
	h->key_rank = KVPIN_KEY_NONE;
	h->limit_bytes = KVPIN_HEAD_BYTES_MAX;
	h->limit_fields = KVPIN_HEAD_FIELDS_MAX;
}

static __always_inline int kvpin_head_bad(struct kvpin_head *h, enum kvpin_http_error error)
{
	h->error = error;
	h->state = KVPIN_HS_BAD;
	return KVPIN_STEP_BAD;
}

/* Content-Length: digits only, at most 18, once (RFC 9112 6.3 lets a recipient refuse a list of
 * equal values; this one does). */
static __always_inline int kvpin_head_length(struct kvpin_head *h, const __u8 *buf, __u32 off,
					     __u32 n)
{
	__u64 v = 0;
	__u32 i;

	if (h->flags & KVPIN_HEAD_LENGTH)
		return KVPIN_HTTP_CONTENT_LENGTH_REPEATED;
	if (!n || n > KVPIN_LENGTH_DIGITS_MAX)
		return KVPIN_HTTP_CONTENT_LENGTH;
	for (i = 0; i < KVPIN_LENGTH_DIGITS_MAX && i < n; i++) {
		__u8 digit = kvpin_byte(buf, off + i) - '0';

		if (digit > 9)
			return KVPIN_HTTP_CONTENT_LENGTH;
		v = v * 10 + digit;
	}
	h->content_length = v;
	h->flags |= KVPIN_HEAD_LENGTH;
	return KVPIN_HTTP_NONE;
}

/* RFC 9112 3.2 wants a Host of a URI's characters; it may be empty. */
static __always_inline int kvpin_host_good(const __u8 *buf, __u32 off, __u32 end)
{
	__u32 i;

	for (i = 0; i < KVPIN_HOST_BYTES_MAX / 8; i++) {
		__u64 mark;

		if (off >= end)
			return 1;
		mark = kvpin_scan_mark(kvpin_word_to(buf, off, end), KVPIN_SCAN_URI);
		if (mark && off + kvpin_mark_index(mark) < end)
			return 0;
		off += 8;
	}
	return off >= end;
}

/* The value of a known field is complete: bytes [off, end), leading blanks already gone. */
static __always_inline int kvpin_head_value(struct kvpin_head *h, const __u8 *buf, __u32 len,
					    __u32 off, __u32 end)
{
	__u32 i, n;

	for (i = 0; i <= KVPIN_BLANKS_MAX && end > off; i++) {
		__u8 c = kvpin_byte(buf, end - 1);

		if (c != ' ' && c != '\t')
			break;
		if (i == KVPIN_BLANKS_MAX)
			return KVPIN_HTTP_BLANKS;
		end--;
	}
	end = kvpin_forget(buf, end);
	n = end - off;
	switch (h->field) {
	case KVPIN_FIELD_HOST:
		if (h->kind == KVPIN_REQUEST &&
		    (h->flags & KVPIN_HEAD_HOST || !kvpin_host_good(buf, off, end)))
			return KVPIN_HTTP_HOST;
		h->flags |= KVPIN_HEAD_HOST;
		break;
	case KVPIN_FIELD_CONTENT_LENGTH:
		return kvpin_head_length(h, buf, off, n);
	case KVPIN_FIELD_TRANSFER_ENCODING:
		if (h->flags & KVPIN_HEAD_CHUNKED || !kvpin_text_is(buf, len, off, n, "chunked"))
			return KVPIN_HTTP_TRANSFER_ENCODING;
		h->flags |= KVPIN_HEAD_CHUNKED;
		break;
	case KVPIN_FIELD_CONTENT_TYPE:
		if (kvpin_text_begins(buf, len, off, n, "text/event-stream") &&
		    !kvpin_is_tchar(kvpin_byte(buf, off + sizeof("text/event-stream") - 1)))
			h->flags |= KVPIN_HEAD_EVENT_STREAM;
		break;
	case KVPIN_FIELD_EXPECT:
		h->flags |= KVPIN_HEAD_EXPECT;
		break;
	case KVPIN_FIELD_CONNECTION:
		if (kvpin_text_is(buf, len, off, n, "close"))
			h->flags |= KVPIN_HEAD_CLOSE;
		else if (kvpin_text_is(buf, len, off, n, "keep-alive"))
			h->flags |= KVPIN_HEAD_KEEP_ALIVE;
		else
			h->flags |= KVPIN_HEAD_CONNECTION_LIST;
		break;
	case KVPIN_FIELD_KEEP_ALIVE:
	case KVPIN_FIELD_PROXY_CONNECTION:
	case KVPIN_FIELD_TE:
		h->flags |= KVPIN_HEAD_HOP;
		break;
	case KVPIN_FIELD_UPGRADE:
		h->flags |= KVPIN_HEAD_UPGRADE;
		break;
	case KVPIN_FIELD_OTHER:
		break;
	default: {
		/* A session header; an empty one counts as absent. The first in the operator's
		 * order wins, and of a repeated one the first in the head. */
		__u8 rank = h->field - KVPIN_FIELD_KEY0;

		if (!n || rank > h->key_rank)
			break;
		if (rank == h->key_rank) {
			h->flags |= KVPIN_HEAD_KEY_REPEATED;
			break;
		}
		h->flags &= ~KVPIN_HEAD_KEY_REPEATED;
		h->key_rank = rank;
		h->key_off = off;
		h->key_len = n;
	}
	}
	return KVPIN_HTTP_NONE;
}

/* The whole head is there: what only all fields together can tell. */
static __always_inline int kvpin_head_finish(struct kvpin_head *h)
{
	if ((h->flags & KVPIN_HEAD_LENGTH) && (h->flags & KVPIN_HEAD_CHUNKED))
		return kvpin_head_bad(h, KVPIN_HTTP_LENGTH_AND_CHUNKED);
	/* RFC 9112 6.1: chunked in an HTTP/1.0 message means faulty framing. */
	if ((h->flags & KVPIN_HEAD_CHUNKED) && !h->minor)
		return kvpin_head_bad(h, KVPIN_HTTP_TRANSFER_ENCODING);
	/* RFC 9112 3.2: an HTTP/1.1 request has exactly one Host. */
	if (h->kind == KVPIN_REQUEST && h->minor && !(h->flags & KVPIN_HEAD_HOST))
		return kvpin_head_bad(h, KVPIN_HTTP_HOST);
	h->state = KVPIN_HS_DONE;
	return KVPIN_STEP_DONE;
}

#endif
