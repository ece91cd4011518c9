/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The books of exchanges. */
#ifndef NET_ACCOUNT_H
#define NET_ACCOUNT_H

#include "net/conn.h"

/**
 * account_exchange() - count how the exchange ended, and log it where that is asked for
 * @c: its exchange still has its server, if it has one
 *
 * Only the first call for an exchange counts.
 */
void account_exchange(struct conn *c, enum stat_outcome outcome);

/**
 * account_steered() - log an exchange that the kernel carried to its end, where that is asked for
 * @e: KVPIN_EVENT_DONE; the kernel has counted it
 */
void account_steered(struct conn *c, const struct kvpin_event *e);

#endif
