/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where a session's key may stand in a request, and how it is read: the ordered sources of
 * affinity.keys, and those of them that the head and the connection tell. What the body tells is
 * core/body_scan.h's.
 *
 * One text is one session, whichever header, cookie, query parameter or JSON field it came in, so
 * that a client may change its way of saying it. A client address is hashed apart: it is never
 * the same session as a text.
 */
#ifndef CORE_KEY_H
#define CORE_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "kvpin_http_head.h"

/* KVPIN_KEY_BYTES of kvpin_key.h, which this cannot include: it compiles another xxhash in. */
#define KEY_PADDED_BYTES 256

enum key_kind {
	KEY_HEADER,
	KEY_COOKIE,
	KEY_QUERY,
	KEY_JSON,   /* a member of the body, by its dotted path */
	KEY_PREFIX, /* no session: the prompt's head leads to a server that holds it */
	KEY_CLIENT_IP,
	KEY_KIND_NR
};

extern const char *const key_kind_names[KEY_KIND_NR];

#define KEYS_MAX     16
#define KEY_NAME_MAX 96 /* with the terminating zero */
/* Levels of a JSON path. */
#define KEY_PATH_MAX 8
#define KEY_NONE     UINT32_MAX

struct key_source {
	enum key_kind kind;
	char name[KEY_NAME_MAX]; /* header, cookie, parameter, path; else empty */
	uint32_t rank;		 /* of a header among the headers; derived */
};

/* {preset: agents}: headers in which agents and routers name their sessions today. */
extern const char *const key_agents[];
extern const unsigned int key_agents_nr;

/* A key's text as it comes in pieces; the session's id is what kvpin_key_hash() makes of all. */
struct key_text {
	uint64_t len;
	bool zero; /* a zero byte came: padding could not be told from the text */
	uint8_t first[KEY_PADDED_BYTES];
	uint64_t more[11]; /* XXH64_state_t, of texts that are longer */
};

void key_text_begin(struct key_text *t);
void key_text_add(struct key_text *t, const void *text, size_t len);

/** key_text_end() - the text is complete; false: empty or with a zero byte, so there is no key */
bool key_text_end(struct key_text *t, uint64_t *id);

/* A key that was found. */
struct key_found {
	uint32_t at; /* index of its source; KEY_NONE: no key */
	uint64_t id;
	bool is_long;  /* over KEY_PADDED_BYTES: hashed whole */
	bool repeated; /* there were several: the first won */
};

/**
 * key_of_head() - the first source that head and connection satisfy
 * @keys, @nr: sources in order; those of the body are passed over
 * @h, @head: a complete request head and its bytes, not yet edited
 * @peer: the client
 *
 * Returns true when there is one; @out is set in any case.
 */
bool key_of_head(const struct key_source *keys, unsigned int nr, const struct kvpin_head *h,
		 const uint8_t *head, const struct addr *peer, struct key_found *out);

/** key_of_cookie() - RFC 6265 5.4: a pair of the Cookie fields; quotes around the value go */
bool key_of_cookie(const uint8_t *head, size_t len, const char *name, struct key_found *out);

/** key_of_query() - a parameter of a request target, %XX and '+' resolved */
bool key_of_query(const uint8_t *target, size_t len, const char *name, struct key_found *out);

/** key_of_addr() - the client's address without its port; an IPv4-mapped one is the IPv4 one */
uint64_t key_of_addr(const struct addr *peer);

/* Room for any source's name and its kind. */
#define KEY_DESCRIPTION_MAX (KEY_NAME_MAX + 16)

/** key_describe() - a source for people: "header X-Session-Id" */
void key_describe(const struct key_source *k, char text[KEY_DESCRIPTION_MAX]);

/** key_header_value() - the first field of that name that is not empty; @name in any case
 * @out: of @len bytes within @head; returns NULL when there is none */
const uint8_t *key_header_value(const uint8_t *head, size_t bytes, const char *name, size_t *len);

#endif
