/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a turn showed: was its session's context still cached, how fast does the server prefill,
 * how long do its exchanges take. Feeds the guard's estimates, the session's ledger, the metrics
 * and the experiment. Decides nothing.
 */
#ifndef NET_TURN_H
#define NET_TURN_H

#include "net/conn.h"

/** turn_first_token() - x.ttft_ns is known: class, prefill rate, arm */
void turn_first_token(struct conn *c);

/** turn_done() - the answer is complete: duration, ledger; the exchange still has its server */
void turn_done(struct conn *c);

/** turn_steered() - both of it, for an exchange that the kernel carried and told of */
void turn_steered(struct conn *c, const struct kvpin_event *e);

/* Of what the kernel carries to servers without known slots, only first tokens later than this are
 * told of: an earlier one is no cold prefill worth the name. */
#define TURN_SLOW_NS 100000000ULL
/* Cold turns in a row that make a streak: one may be chance. */
#define TURN_STREAK 2

#endif
