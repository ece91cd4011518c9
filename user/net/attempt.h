/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Getting a request to a server, and to another one when that fails. exchange.c calls; after any
 * of these c->state may be another one, CONN_CLOSED included.
 */
#ifndef NET_ATTEMPT_H
#define NET_ATTEMPT_H

#include "net/conn.h"

/** attempt_dispatch() - choose a server, where none is chosen yet, and send what is there; again
 * and again while servers cannot be reached. Without one the request waits, or is answered here */
void attempt_dispatch(struct conn *c);

/** attempt_send() - the current upstream can take bytes, or more of the request came */
void attempt_send(struct conn *c);

/**
 * attempt_again() - the server that this exchange was on is gone, and nothing of an answer came
 * @cause: what its health is told
 * @err: errno, for the log
 */
void attempt_again(struct conn *c, enum backend_cause cause, int err);

/**
 * attempt_pass_eof() - tell the server of the client's FIN, if it is time
 *
 * The FIN came while its answer is under way: a half-close or the prelude of an abort. The server
 * is told exactly that, and decides. Whole requests still in the buffer come first.
 */
void attempt_pass_eof(struct conn *c);

/** attempt_more_follows() - behind the client's FIN: has it asked for more than this? What is no
 * whole head never will be one: an empty line behind a body, or a request that its client gave up
 */
bool attempt_more_follows(const struct conn *c);

/** attempt_eof_waits() - does the client's FIN wait behind bytes in the kernel's queue to the
 * server? Nothing announces that they have been taken: attempt_pass_eof() again and again */
bool attempt_eof_waits(const struct conn *c);

/** attempt_end_tunnel() - a tunnel ends when both sides have; else nothing happens */
void attempt_end_tunnel(struct conn *c);

#endif
