/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * HTTP/1.1 head parser (RFC 9112 sections 2 to 5), for requests and responses.
 *
 * Owns: deciding where a head ends, whether it is well formed, and what the few fields say that
 * framing and affinity need. It keeps offsets into the caller's buffer and never copies.
 *
 * Strict on purpose: whatever two implementations could read in two ways is an error (bare CR or
 * LF, NUL and other controls, obs-fold, blanks before the colon, a repeated or non-digit
 * Content-Length, a transfer coding other than exactly "chunked", both at once, ...). A lenient
 * front and a lenient server disagree sooner or later, and that is request smuggling.
 *
 * Resumable at any byte: the caller keeps the head from its first byte in one buffer and calls
 * again with a larger length; bytes already seen are not read again. One kvpin_head_step() does
 * a bounded amount of work, so that BPF can drive it by bpf_loop() and the daemon by a plain loop.
 * (Over 500 lines because the state machine is one function and its helpers serve nothing else.)
 */
#ifndef KVPIN_HTTP_HEAD_H
#define KVPIN_HTTP_HEAD_H

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
