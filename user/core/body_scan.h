/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a request's body says that the decision needs: JSON fields that name its session, the
 * model, and the head of its prompt in a canonical form. It is fed the payload as it comes and
 * tells when more would change nothing; the body itself is never kept.
 *
 * Canonical form: for each message the byte 0x1e, its role, 0x1f, its text. A message's text is
 * its `content`: the string, or of an array (and what is nested in it) the strings and those under
 * `text`, `content`, `url` and `data`, one after the other. So two requests with equal first turns
 * have equal first bytes, whatever follows; and markers such as cache_control change nothing.
 * `messages` and `input` hold the messages (a string is one message of the user); `system` and
 * `instructions` are a message of the system where they stand before those, else they are left
 * out. `prompt`, if it is a string, stands for itself.
 */
#ifndef CORE_BODY_SCAN_H
#define CORE_BODY_SCAN_H

#include <stdbool.h>
#include <stdint.h>

#include "core/json_scan.h"
#include "core/key.h"
#include "core/prefix.h"
#include "kvpin_http_body.h"

/* Of a model's name; a longer one is cut. */
#define BODY_MODEL_MAX 256

/* Two chains of one prompt. */
struct body_chain {
	uint32_t nr;	   /* salted with the model */
	uint32_t nr_plain; /* without; only where the model came behind the prompt, so that a later
			    * turn, whose head ends before the model, still finds it */
	uint64_t hash[PREFIX_WINDOWS_MAX];
	uint64_t plain[PREFIX_WINDOWS_MAX];
};

struct body_path {
	uint32_t source; /* its index among the sources */
	uint8_t nr, matched;
	uint8_t at[KEY_PATH_MAX], len[KEY_PATH_MAX]; /* of each level's name in text[] */
	char text[KEY_NAME_MAX];
};

enum body_section {
	BODY_OTHER,
	BODY_MODEL,
	BODY_SYSTEM,
	BODY_MESSAGES,
	BODY_PROMPT,
};

struct body_scan {
	struct json_scan json;
	bool over; /* no more bytes, or none that would be understood */

	/* Fields. */
	unsigned int nr_paths;
	struct body_path path[KEYS_MAX];
	uint32_t capturing; /* index in path[]; KEY_NONE: none */
	struct key_text text;
	struct key_found found;

	/* Prompt. */
	uint32_t prefix_at; /* index of its source; KEY_NONE: not wanted */
	uint8_t section, member;
	bool leaf;	   /* the member's text counts */
	bool taking;	   /* the string that is being read is a prompt's text */
	bool begun, whole; /* of the prompt */
	bool role_known, role_taking;
	bool model_taking, model_known, model_late;
	uint32_t message_at; /* where the present message begins */
	uint32_t role_len;
	uint32_t room, len;
	uint32_t model_len;
	uint8_t model[BODY_MODEL_MAX];
	uint8_t prompt[]; /* the first `room` bytes of the canonical form */
};

/**
 * body_scan_new() - begin a body
 * @keys, @nr: sources in order; copied as far as they are needed
 * @windows: of the chain at most
 *
 * Returns the scan, owned by the caller (free()), or NULL.
 */
struct body_scan *body_scan_new(const struct key_source *keys, unsigned int nr, uint32_t windows);

/**
 * body_scan_feed() - take the next payload bytes
 *
 * Returns true when nothing that follows can change what is known.
 */
bool body_scan_feed(struct body_scan *s, const uint8_t *at, size_t len);

/**
 * body_scan_walk() - body_scan_feed() for bytes that stand in their message's framing
 * @b: where the framing stands; goes along
 * @at, @len: what there is of the message from there on
 * @max: payload bytes that are looked at
 *
 * Returns how many bytes were taken; @enough is set as body_scan_feed() returns, and when @max or
 * the end of the message was reached.
 */
size_t body_scan_walk(struct body_scan *s, struct kvpin_body *b, const uint8_t *at, size_t len,
		      uint64_t max, bool *enough);

/** body_scan_finish() - nothing more comes, or nothing more is waited for */
void body_scan_finish(struct body_scan *s);

/**
 * body_scan_chain() - the prompt's chains
 * @windows: as in body_scan_new()
 * @out: set
 *
 * Returns false when there is none.
 */
bool body_scan_chain(const struct body_scan *s, uint32_t windows, struct body_chain *out);

#endif
