/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One input to the HTTP parser and what is expected of it. The tables in head_cases.h and
 * body_cases.h are run natively by the unit tests, in the kernel by tests/bpf, and are written
 * out for the differential by tests/fuzz/parse-one.
 */
#ifndef HTTP_CASE_H
#define HTTP_CASE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvpin_http_body.h"
#include "kvpin_http_head.h"

#define BYTES(literal) .bytes = (literal), .len = sizeof(literal) - 1

/* What is not stated about an accepted head is expected to be absent: zero, no flag, no key. */
struct http_case {
	const char *name; /* a sentence; consecutive cases of one name are one test */
	const char *bytes;
	uint32_t len;
	uint32_t limit_bytes;  /* 0: the parser's own */
	uint16_t limit_fields; /* with limit_bytes */
	uint8_t kind;	       /* enum kvpin_head_kind */
	uint8_t answers;       /* method that a response answers */
	uint8_t body_only;     /* a chunked body from its first byte on */
	uint8_t partial;       /* more bytes are wanted */

	uint8_t error; /* of the head, or else of the body */
	uint8_t method;
	uint8_t minor;
	uint16_t status;
	uint16_t fields;
	uint32_t flags;
	uint32_t head_len;  /* 0: all of it */
	const char *target; /* or reason; NULL: not compared */
	const char *key;
	uint8_t key_rank;
	uint64_t content_length;

	uint8_t body_state; /* enum kvpin_body_state, where the input ends */
	uint32_t walked;    /* bytes of the body, framing included */
	uint64_t payload;
	uint32_t events;
};

/* The longest name that can be looked for. */
#define NAME_48 "x-a-name-of-exactly-forty-eight-characters-00001"

/* The configuration of all tests: five session headers, in this order. */
static inline void http_case_names(struct kvpin_names *names)
{
	static const char *const keys[] = {"X-LB-Hash", "x-session-id", "session_id", NAME_48,
					   "X-Conversation-Id"};
	uint32_t i;

	kvpin_names_init(names);
	for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		kvpin_names_add(names, keys[i], (uint32_t)strlen(keys[i]), KVPIN_FIELD_KEY0 + i);
}

static inline void http_case_init(const struct http_case *c, struct kvpin_head *h)
{
	kvpin_head_init(h, c->kind);
	if (c->limit_bytes) {
		h->limit_bytes = c->limit_bytes;
		h->limit_fields = c->limit_fields;
	}
}

static inline void http_case_body(const struct http_case *c, const struct kvpin_head *h,
				  struct kvpin_body *b)
{
	if (c->body_only) {
		memset(b, 0, sizeof(*b));
		b->state = KVPIN_BS_SIZE;
		b->fresh = 1;
	} else if (c->kind == KVPIN_REQUEST) {
		kvpin_body_of_request(b, h);
	} else {
		kvpin_body_of_response(b, h, c->answers);
	}
}

/* before, `count` times `repeated`, behind; the caller frees nothing: tests are short-lived. */
static inline struct http_case http_case_built(struct http_case c, const char *before,
					       const char *repeated, uint32_t count,
					       const char *behind)
{
	size_t a = strlen(before), r = strlen(repeated), z = strlen(behind);
	char *bytes = malloc(a + r * count + z + 1), *to = bytes;

	if (!bytes)
		abort();
	to = mempcpy(to, before, a);
	while (count--)
		to = mempcpy(to, repeated, r);
	to = mempcpy(to, behind, z);
	c.bytes = bytes;
	c.len = (uint32_t)(to - bytes);
	return c;
}

#endif
