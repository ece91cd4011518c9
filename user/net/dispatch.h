/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From a session (net/keys.h) to a chosen server: pin or prefix, decision, in-flight count. Nothing
 * here touches a socket.
 */
#ifndef NET_DISPATCH_H
#define NET_DISPATCH_H

#include <stdbool.h>

#include "net/conn.h"

/* What becomes of the request. */
enum dispatch {
	DISPATCH_GO,	 /* x.backend is its server, counted in flight there */
	DISPATCH_WAIT,	 /* it has a place in a server's queue (net/wait.h) */
	DISPATCH_FULL,	 /* no slot, no room in the queue */
	DISPATCH_LATE,	 /* it waited, and no slot came */
	DISPATCH_NOBODY, /* no server is eligible */
};

/**
 * dispatch_choose() - decide, bind the session, count in flight
 * @c: its exchange has no server; x.excluded are left out. It may wait already: then this decides
 *     anew, and a decision to wait for the same server changes nothing
 *
 * The session is bound here, at dispatch and not at the answer, under its shard's lock, so that
 * parallel first requests of one session agree; new placements are serialised, so that parallel
 * first requests of many sessions spread. A session is bound when its request begins to wait too.
 */
enum dispatch dispatch_choose(struct conn *c);

/** dispatch_sent() - the request goes to server @slot, where it is counted in flight */
void dispatch_sent(struct conn *c, uint32_t slot);

/** dispatch_release() - the exchange leaves its server (done, failed, or the client is gone) */
void dispatch_release(struct conn *c);

#endif
