/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* For each state of a connection which events there are to wait for; conn_clock.c has how long. */
#include "net/conn_events.h"

#include "net/conn.h"
#include "net/exchange.h"
#include "net/upstream.h"

/*
 * How the client's end is heard of where its bytes are not read. Behind its FIN only a RST is still
 * to come, and whatever else is asked for would be reported again and again from then on. epoll
 * reports errors unasked, but libuv only where something is asked: urgent data, which nobody sends.
 */
static int client_end(const struct conn *c)
{
	if (!c->client_rdhup && !c->client_eof)
		return UV_DISCONNECT;
	/* Both sides of a tunnel have ended: that is EPOLLHUP, without a RST. */
	if (c->state == CONN_TUNNEL && c->x->answer_body.state == KVPIN_BS_DONE)
		return 0;
	return c->client_urgent ? 0 : UV_PRIORITIZED;
}

int conn_events_client(const struct conn *c)
{
	int events = 0;

	switch (c->state) {
	case CONN_HEAD:
		return c->client_eof ? 0 : UV_READABLE;
	case CONN_EXCHANGE:
	case CONN_TUNNEL:
		if (c->x->out_ready)
			events |= UV_WRITABLE;
		if (exchange_reads_client(c))
			return events | UV_READABLE;
		return events | client_end(c);
	case CONN_WAIT:
	case CONN_STEER:
	case CONN_RECLAIM:
	case CONN_SPLICE:
		return client_end(c);
	case CONN_REPLY:
		return UV_WRITABLE;
	case CONN_LINGER:
		return UV_READABLE;
	case CONN_BREAK:
		return c->x->out_ready ? UV_WRITABLE : 0;
	default:
		return 0;
	}
}

int conn_events_upstream(const struct conn *c)
{
	const struct exchange *x = c->x;
	int events = 0;

	if (c->current->connecting)
		return UV_WRITABLE;
	if (c->state == CONN_SPLICE)
		return c->splice.ended ? 0 : UV_DISCONNECT;
	if (!x->out_ready && !(x->head_done && x->answer_body.state == KVPIN_BS_DONE))
		events |= UV_READABLE;
	if (x->sent < x->ready && !x->discard)
		events |= UV_WRITABLE;
	return events;
}
