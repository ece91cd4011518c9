/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How long a connection's state may last. conn.c owns the timer and asks.
 */
#ifndef NET_CONN_CLOCK_H
#define NET_CONN_CLOCK_H

#include "net/conn.h"

/** conn_clock_due_ms() - when the current state has lasted too long, or is to be looked at; on the
 * loop's clock, UINT64_MAX: never */
uint64_t conn_clock_due_ms(const struct conn *c);

/** conn_clock_polls() - is that time counted from now, to look at what nothing announces? */
bool conn_clock_polls(const struct conn *c);

/** conn_clock_expire() - that time has come; where conn_clock_polls() it may also be early: it is
 * only looked at then. The state may be another one afterwards, CONN_CLOSED included */
void conn_clock_expire(struct conn *c);

#endif
