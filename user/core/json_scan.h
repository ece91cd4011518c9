/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A streaming JSON scanner (RFC 8259): bytes go in as they come, events come out; nothing is kept
 * but a name, a number and one bit per level. It reads the head of a request's body while the rest
 * is still on its way, which a parser that builds a tree cannot do.
 *
 * Strict in the grammar; UTF-8 is passed on unchecked. Pure: no allocation, no system call.
 */
#ifndef CORE_JSON_SCAN_H
#define CORE_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Deeper is refused. Chat bodies are five or six deep. */
#define JSON_DEPTH_MAX 64
/* A longer name is cut here: it is none that anybody looks for. */
#define JSON_NAME_MAX 128
/* A number of more characters is refused. */
#define JSON_LITERAL_MAX 64

enum json_kind {
	JSON_KIND_OBJECT,
	JSON_KIND_ARRAY,
	JSON_KIND_STRING,
	JSON_KIND_LITERAL, /* a number, true, false */
	JSON_KIND_NULL,
};

enum json_result {
	JSON_MORE, /* all bytes were taken, the value goes on */
	JSON_DONE, /* the outermost value is complete; bytes behind it were not looked at */
	JSON_STOP, /* a handler asked for it */
	JSON_BAD,
};

struct json_scan;

/* Handlers may read s->depth: how many containers are open, a container that begins not counted,
 * one that ends no more. They may set s->stop. */
struct json_handler {
	/* A member's name is complete: @len bytes, escapes resolved. */
	void (*name)(struct json_scan *s, void *arg, const uint8_t *name, size_t len);
	/* A value begins. Of a string: returns whether its text is wanted. */
	bool (*begin)(struct json_scan *s, void *arg, enum json_kind kind);
	/* A piece of a wanted string, escapes resolved, or all of a literal. */
	void (*text)(struct json_scan *s, void *arg, const uint8_t *text, size_t len);
	void (*end)(struct json_scan *s, void *arg, enum json_kind kind);
};

struct json_scan {
	uint64_t objects; /* bit n: level n is an object, not an array */
	uint8_t depth;
	uint8_t state;
	bool stop;
	bool in_name; /* the string is a member's name */
	bool wanted;
	uint8_t digits;		     /* of \uXXXX, still to come */
	uint16_t code;		     /* of \uXXXX so far */
	uint16_t high;		     /* a high surrogate that waits for its other half; 0: none */
	uint16_t text_len;	     /* in text[] */
	uint8_t text[JSON_NAME_MAX]; /* a name, or a literal */
};

/** json_scan_init() - begin a text; @s: all of it is set */
void json_scan_init(struct json_scan *s);

/**
 * json_scan_feed() - take the next bytes
 * @s: state
 * @h, @arg: who is told
 * @at, @len: bytes that follow those fed before; any cut will do
 *
 * After JSON_DONE, JSON_STOP or JSON_BAD every further call returns the same. A lone surrogate
 * becomes U+FFFD.
 */
enum json_result json_scan_feed(struct json_scan *s, const struct json_handler *h, void *arg,
				const uint8_t *at, size_t len);

/** json_scan_in_array() - is the innermost open container an array? */
static inline bool json_scan_in_array(const struct json_scan *s)
{
	return s->depth && !(s->objects >> (s->depth - 1) & 1);
}

#endif
