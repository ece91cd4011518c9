/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The exchange's side of a client connection: conn.c calls these on events; after any of them
 * c->state may be another one, CONN_CLOSED included.
 *
 * Where another data path comes in: an answer can be handed over when the relay holds nothing of
 * the exchange, that is when the request is out and relay_answer() waits with x->out_ready at 0. A
 * path is given the framing and the byte counts of struct exchange, and gives them back settled, so
 * that the relay goes on as if it had moved the bytes itself (net/steer.h).
 */
#ifndef NET_EXCHANGE_H
#define NET_EXCHANGE_H

#include <stdbool.h>

#include "net/conn.h"

/** exchange_begin() - bytes of a head are there: sets c->x; 0 or -ENOMEM */
int exchange_begin(struct conn *c);

/** exchange_end() - free c->x, which may be NULL; what it held must have been settled */
void exchange_end(struct conn *c);

/** exchange_start() - the head is complete: judge it, choose a server, send what is there */
void exchange_start(struct conn *c);

/** exchange_refuse() - the head is malformed (x.request.error) */
void exchange_refuse(struct conn *c);

/** exchange_client_readable() - more of the request, pipelined requests, or the client's FIN */
void exchange_client_readable(struct conn *c);

/** exchange_asks_more() - the client's FIN has come while the answer to all of its request is under
 * way: is another whole one in front of it? Reads what is. After that c->state may be CONN_CLOSED
 */
bool exchange_asks_more(struct conn *c);

/** exchange_reads_client() - is there room for what the client sends next? */
bool exchange_reads_client(const struct conn *c);

/** exchange_server_writable() - the current upstream can take bytes */
void exchange_server_writable(struct conn *c);

/** exchange_answer() - the current upstream has something, or the client can take bytes again */
void exchange_answer(struct conn *c);

/** exchange_connect_failed() - no connection to the chosen server came about; @err: errno */
void exchange_connect_failed(struct conn *c, int err);

/** exchange_server_lost() - there is no current upstream any more, and nothing of an answer came */
void exchange_server_lost(struct conn *c);

/** exchange_timeout() - nothing moved for too long in CONN_EXCHANGE */
void exchange_timeout(struct conn *c);

/** exchange_truncated() - no more of the answer can come, in CONN_EXCHANGE: break it off */
void exchange_truncated(struct conn *c);

/** exchange_slot() - CONN_WAIT: a slot was handed over: send */
void exchange_slot(struct conn *c);

/** exchange_review() - CONN_WAIT: decide anew */
void exchange_review(struct conn *c);

/** exchange_wait_over() - CONN_WAIT has lasted for guard.wait */
void exchange_wait_over(struct conn *c);

/** exchange_head_timeout() - a head took too long to complete */
void exchange_head_timeout(struct conn *c);

/** exchange_settle() - count the outcome (once) and leave the server */
void exchange_settle(struct conn *c, enum stat_outcome outcome);

/**
 * exchange_reply() - answer it here instead of a server: settle, drop the server's connection, wait
 * for no slot any more, send
 * @status, @message, @code, @retry_after_s: as reply_error() takes them
 */
void exchange_reply(struct conn *c, enum stat_outcome outcome, unsigned int status,
		    const char *message, const char *code, uint32_t retry_after_s);

/** exchange_abort() - the client left: settle and close */
void exchange_abort(struct conn *c, enum conn_close reason);

#endif
