/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What an intermediary must change in a message head (RFC 9110 7.6.1): hop-by-hop fields go, a
 * few of its own come. Works on a head that the strict parser has accepted.
 */
#ifndef NET_HEAD_EDIT_H
#define NET_HEAD_EDIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "kvpin_http_head.h"

/* What all Connection fields of a head say together. */
struct head_connection {
	bool close;
	bool keep_alive;
	bool upgrade;
};

/**
 * head_connection() - read the Connection fields
 * @h: a complete head; @head: its bytes
 */
struct head_connection head_connection(const struct kvpin_head *h, const uint8_t *head);

struct head_change {
	bool keep_upgrade;	     /* leave Upgrade, and Connection: upgrade */
	bool drop_transfer_encoding; /* the chunk framing is taken off the body */
	bool version_11;	     /* request of an HTTP/1.0 client */
	bool drop_expect;	     /* the expectation was met here */
	const char *insert;	     /* whole field lines with their CRLF, or "" */
};

/**
 * head_edit() - rewrite a head in place
 * @b: buffer whose data begins with the head; needs BUF_HEADROOM when the head grows
 * @h: the complete head; its h->pos is its length. Offsets in it are wrong afterwards.
 * @change: what to do besides removing hop-by-hop fields
 * @scratch: memory for a whole head plus BUF_HEADROOM
 *
 * Empty lines before a request line go too. Returns the new length; b->start has moved so that
 * the data still begins with the head. Never fails: h->pos is at most KVPIN_HEAD_BYTES_MAX and
 * the inserted text at most BUF_HEADROOM minus what "Connection: upgrade" takes.
 */
uint32_t head_edit(struct buf *b, const struct kvpin_head *h, const struct head_change *change,
		   uint8_t *scratch);

#endif
