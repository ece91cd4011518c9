/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The relay path: the daemon moves the bytes of an exchange with recv() and send(). It is the
 * floor under every other path: whatever another path cannot be sure of comes back here.
 *
 * Never decides anything: it reports how a direction ended, conn.c acts. Bounded memory: what one
 * side does not take is not read from the other.
 */
#ifndef NET_RELAY_H
#define NET_RELAY_H

#include <stdbool.h>

#include "net/conn.h"

enum relay_end {
	RELAY_WAIT,	      /* goes on when a socket is ready again */
	RELAY_DONE,	      /* this direction is complete, all of it passed on */
	RELAY_CLIENT_GONE,    /* the client's socket failed */
	RELAY_CLIENT_EOF,     /* the client's FIN, within a request */
	RELAY_BAD_REQUEST,    /* malformed chunk framing; x.request_body.error */
	RELAY_CONNECT_FAILED, /* the server was never reached */
	RELAY_SERVER_LOST,    /* the server's connection ended before a byte of an answer */
	RELAY_TRUNCATED,      /* ... within the answer */
	RELAY_BAD_ANSWER,     /* malformed; x.answer.error or x.answer_body.error */
	RELAY_NO_MEMORY,
};

/**
 * relay_read_request() - take what the client has sent of the current request
 *
 * Returns RELAY_WAIT, RELAY_DONE (the framing is complete; not: all sent), RELAY_CLIENT_GONE,
 * RELAY_CLIENT_EOF, RELAY_BAD_REQUEST or RELAY_NO_MEMORY.
 */
enum relay_end relay_read_request(struct conn *c);

/**
 * relay_walk_request() - account for bytes of the request that are in the in buffer already
 *
 * Returns RELAY_WAIT, RELAY_DONE or RELAY_BAD_REQUEST.
 */
enum relay_end relay_walk_request(struct conn *c);

/**
 * relay_send_request() - pass on what is there of the request
 *
 * Returns RELAY_WAIT, RELAY_DONE (all of the request was sent or is unwanted) or
 * RELAY_CONNECT_FAILED. A server that closed its receiving side is no failure here: it may have
 * answered already, and reading tells.
 */
enum relay_end relay_send_request(struct conn *c);

/**
 * relay_answer() - take what the server has sent and pass it on
 *
 * Returns RELAY_WAIT, RELAY_DONE (the whole answer is in the client's socket), or any of
 * RELAY_CLIENT_GONE, RELAY_SERVER_LOST, RELAY_TRUNCATED, RELAY_BAD_ANSWER, RELAY_NO_MEMORY.
 */
enum relay_end relay_answer(struct conn *c);

/**
 * relay_flush() - pass on what is ready in the out buffer
 *
 * Returns RELAY_DONE (nothing ready is left), RELAY_WAIT or RELAY_CLIENT_GONE.
 */
enum relay_end relay_flush(struct conn *c);

/** relay_request_open() - is more of the request wanted from the client, and is there room? */
bool relay_request_open(const struct conn *c);

#endif
