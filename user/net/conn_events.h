/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a connection wants to hear of its sockets. Only reads the connection: back-pressure is that
 * a side is not listened to while the other one's bytes are not out.
 */
#ifndef NET_CONN_EVENTS_H
#define NET_CONN_EVENTS_H

struct conn;

/** conn_events_client() - of the client's socket: enum uv_poll_event; not for CONN_CLOSED */
int conn_events_client(const struct conn *c);

/** conn_events_upstream() - of the current upstream's; there is one */
int conn_events_upstream(const struct conn *c);

#endif
