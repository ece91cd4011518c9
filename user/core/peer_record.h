/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What one balancer tells another, line by line: which servers it has, where sessions are, which
 * were forgotten. Pure: text to records and back.
 *
 *	s TAG NAME ADDRESS				a server; TAG stands for it below
 *	p ID TAG STAMP IDLE AGE TURNS MOVES CONTEXT COLD CACHE	a pin
 *	d ID STAMP					a pin that was forgotten by hand
 *	.						nothing new
 *
 * ID and TAG are 16 hex digits, IDLE and AGE milliseconds since the last use and the first, CONTEXT
 * bytes, CACHE "kept" or "lost". Times are ages, so that the clocks need not agree; the stamp
 * (session_stamp()) alone is absolute.
 */
#ifndef CORE_PEER_RECORD_H
#define CORE_PEER_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/config.h"
#include "core/session.h"

/* The first line of a connection, with a blank and the secret behind it, and its answer. */
#define PEER_HELLO  "kvpin-peer 1"
#define PEER_ANSWER "ok\n"

/* Longest line, its newline and a terminating zero included. */
#define PEER_LINE_MAX 192

enum peer_kind { PEER_SERVER, PEER_PIN, PEER_GONE, PEER_BEAT };

struct peer_record {
	enum peer_kind kind;
	uint64_t tag;
	char name[BACKEND_NAME_MAX]; /* of a server */
	char address[ADDR_TEXT_MAX];
	struct session pin; /* its id, also of one that is gone; last_used_ms and created_ms are
			     * ages, backend and generation are not set */
	uint32_t stamp;
	bool lost; /* its cache */
};

/** peer_format() - one line; @text: PEER_LINE_MAX bytes; returns its length */
uint32_t peer_format(const struct peer_record *r, char *text);

/** peer_parse() - strict; @line ends in a newline and a zero; false: it is no such line */
bool peer_parse(const char *line, struct peer_record *r);

/**
 * peer_same_server() - is a server of another host the one here that bears its name?
 *
 * The same address; or one of them is a loopback address and the other is not: a server that stands
 * on one of the two hosts, seen from itself and from the other.
 */
bool peer_same_server(const struct addr *here, const char *there);

/** peer_secret_equal() - takes the same time wherever they differ */
bool peer_secret_equal(const char *a, const char *b);

#endif
