/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Connections to servers. Each belongs to one client connection, at most one per server, and is
 * never shared between clients: a framing mistake must not become a leak between tenants.
 */
#ifndef NET_UPSTREAM_H
#define NET_UPSTREAM_H

#include <stdbool.h>

#include "base/addr.h"
#include "net/conn.h"
#include "net/sock.h"
#include "net/splice.h"

struct upstream {
	struct conn *conn;
	struct upstream *next;
	struct sock sock;
	struct addr addr; /* of the server; a slot may get another server, an address does not */
	uint32_t slot;	  /* of the server, in the table of backends */
	uint32_t epoch;	  /* of the slot when this was connected */
	struct steer_sock steer;
	struct splice_sock splice;
	bool connecting;
	bool used; /* carried an exchange before: the server may close it at any moment */
};

/**
 * upstream_get() - make c->current a connection to a server
 * @c: connection without a current upstream
 * @backend: the server
 * @fresh: do not reuse an open one
 *
 * Reuses, or connects without waiting: c->current->connecting then tells. Returns 0 or -errno of
 * socket() or connect().
 */
int upstream_get(struct conn *c, const struct backend *backend, bool fresh);

/** upstream_connected() - bytes went through or writability was told: no longer connecting */
void upstream_connected(struct upstream *u);

/** upstream_ended() - an idle one is of no use any more (the server's end, or bytes unasked) */
void upstream_ended(struct upstream *u);

/** upstream_keep() - the exchange is over; keep c->current for the client's next request */
void upstream_keep(struct conn *c);

/** upstream_drop() - close c->current, if any; @reset: with a RST, so that a server that works
 * on the request notices at once */
void upstream_drop(struct conn *c, bool reset);

/** upstream_drop_all() - close every upstream of a closing client connection, with a RST: one in
 * use must be noticed at once, an idle one would leave its port in TIME_WAIT, and 28,000 of these
 * stop all further connects */
void upstream_drop_all(struct conn *c);

#endif
