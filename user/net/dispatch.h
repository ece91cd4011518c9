/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From a session (net/keys.h) to a chosen server: pin or prefix, decision, in-flight count. Nothing
 * here touches a socket.
 */
#ifndef NET_DISPATCH_H
#define NET_DISPATCH_H

#include <stdbool.h>

#include "net/conn.h"

/**
 * dispatch_choose() - decide, bind the session, count in flight
 * @c: its exchange has no server; x.excluded are left out
 *
 * The session is bound here, at dispatch and not at the answer, under its shard's lock, so that
 * parallel first requests of one session agree; new placements are serialised, so that parallel
 * first requests of many sessions spread. Returns false when no server is eligible.
 */
bool dispatch_choose(struct conn *c);

/** dispatch_release() - the exchange leaves its server (done, failed, or the client is gone) */
void dispatch_release(struct conn *c);

#endif
