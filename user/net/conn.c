/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The life of a client connection: the only place where states change.
 *
 * Happy path: bytes come, a head completes, exchange.c carries the exchange, the next head is
 * looked for. Failures: the client's end is seen here; what has lasted too long is conn_clock.c's
 * to say, what is wanted of the sockets conn_events.c's, and what becomes of an exchange
 * exchange.c's.
 * Close: conn_close() is the one exit. It may be called anywhere; the memory lives until the loop
 * has closed the handles, so callers only look at c->state afterwards.
 */
#include "net/conn.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "net/conn_clock.h"
#include "net/conn_events.h"
#include "net/exchange.h"
#include "net/relay.h"
#include "net/tcp_probe.h"
#include "net/upstream.h"
#include "net/worker.h"

/* Read from a client at once while a head is awaited. */
#define HEAD_READ_BYTES (BUF_CLASS_BYTES(0) - BUF_HEADROOM)
static const char *const close_names[CONN_CLOSE_NR] = {
#define X(id, text) text,
	CONN_CLOSES(X)
#undef X
};

static void conn_run(struct conn *c);

/* ---- time ---- */

void conn_touch(struct conn *c)
{
	c->activity_ms = uv_now(&c->worker->loop);
}

static void on_timer(uv_timer_t *timer);

void conn_rearm(struct conn *c)
{
	uint64_t due = conn_clock_due_ms(c), now = uv_now(&c->worker->loop);

	/* Firing too early is harmless (on_timer() looks again) and spares an update per byte. */
	if (c->state == CONN_CLOSED || c->armed_ms <= due)
		return;
	c->armed_ms = due;
	/* At once is never: libuv runs a timer that sets itself so again before anything else. */
	uv_timer_start(&c->timer, on_timer, due > now ? due - now : 1, 0);
}

void conn_set_state(struct conn *c, enum conn_state state)
{
	c->state = state;
	conn_touch(c);
	if (state == CONN_LINGER)
		c->head_ms = c->activity_ms;
	conn_rearm(c);
}

void conn_quickack(struct conn *c)
{
	int on = 1;

	setsockopt(c->sock.fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
}

static void conn_want(struct conn *c)
{
	if (c->state == CONN_CLOSED)
		return;
	sock_want(&c->sock, conn_events_client(c));
	if (c->current)
		sock_want(&c->current->sock, conn_events_upstream(c));
	conn_rearm(c);
}

/* The client gets no further answer here: close, but let it read what it was sent. */
static void conn_finish(struct conn *c, enum conn_close reason)
{
	/* Unread bytes would make close() send a RST, which can destroy the answer on its way. */
	if (c->client_eof || ((!c->x || c->x->request_body.state == KVPIN_BS_DONE) &&
			      buf_len(&c->in) == 0 && !sock_unread(c->sock.fd))) {
		conn_close(c, reason);
		return;
	}
	c->close_reason = reason;
	shutdown(c->sock.fd, SHUT_WR);
	buf_release(&c->worker->pool, &c->in);
	conn_set_state(c, CONN_LINGER);
}

/* Both messages are complete, or an answer of our own went out: on to the next request. */
void conn_next(struct conn *c)
{
	if (c->close_after || c->worker->draining) {
		conn_finish(c, c->worker->draining ? CONN_CLOSE_DRAIN : CONN_CLOSE_DONE);
		return;
	}
	exchange_end(c);
	steer_answered(c);
	c->head_ms = uv_now(&c->worker->loop);
	conn_set_state(c, CONN_HEAD);
}

static void reply_progress(struct conn *c)
{
	enum relay_end end = relay_flush(c);

	if (end == RELAY_CLIENT_GONE) {
		conn_close(c, CONN_CLOSE_CLIENT_GONE);
	} else if (end == RELAY_DONE) {
		if (!c->close_after)
			buf_consume(&c->worker->pool, &c->in, c->x->ready);
		conn_next(c);
	}
}

/* A broken answer is done with when the client has acknowledged all that it was sent. */
static void break_progress(struct conn *c)
{
	int unsent = 0, err = 0;
	socklen_t len = sizeof(err);

	/* With nothing to send, only asking tells that the client has reset. */
	getsockopt(c->sock.fd, SOL_SOCKET, SO_ERROR, &err, &len);
	if (err || relay_flush(c) == RELAY_CLIENT_GONE) {
		conn_close(c, c->close_reason);
		return;
	}
	if (ioctl(c->sock.fd, SIOCOUTQ, &unsent) == 0 && unsent != c->break_unsent)
		conn_touch(c);
	c->break_unsent = unsent;
	if (c->x->out_ready || unsent)
		return;
	conn_close(c, c->close_reason);
}

/* Parse what is there of a head. Returns false when more bytes are needed. */
static bool head_progress(struct conn *c)
{
	if (!c->x && exchange_begin(c)) {
		conn_close(c, CONN_CLOSE_NO_MEMORY);
		return false;
	}
	switch (kvpin_head_parse(&c->x->request, &c->worker->config->names, buf_data(&c->in),
				 buf_len(&c->in))) {
	case KVPIN_STEP_DONE:
		exchange_start(c);
		return true;
	case KVPIN_STEP_BAD:
		exchange_refuse(c);
		return true;
	default:
		conn_quickack(c);
		return false;
	}
}

/* ---- reading ---- */

static void head_read(struct conn *c)
{
	uint32_t had = buf_len(&c->in);
	ssize_t n;

	if (buf_reserve(&c->worker->pool, &c->in, had ? HEAD_READ_BYTES / 4 : HEAD_READ_BYTES)) {
		conn_close(c, CONN_CLOSE_NO_MEMORY);
		return;
	}
	n = steer_recv(c->worker, &c->steer.sock, c->sock.fd, c->in.mem + c->in.end,
		       buf_room(&c->in));
	if (n > 0) {
		conn_touch(c);
		if (!had)
			c->head_ms = c->activity_ms;
		c->in.end += n;
		return;
	}
	if (!had)
		buf_release(&c->worker->pool, &c->in);
	if (n == 0)
		c->client_eof = true;
	else if (errno != EAGAIN && errno != EINTR)
		conn_close(c, CONN_CLOSE_CLIENT_GONE);
}

/* Throw away what still comes, until the client's FIN. */
static void linger_read(struct conn *c)
{
	ssize_t n = steer_recv(c->worker, &c->steer.sock, c->sock.fd, c->worker->edit,
			       sizeof(c->worker->edit));

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		conn_close(c, c->close_reason);
}

/* Bytes from the ring make no socket readable. Returns true when some were taken. */
static bool ring_read(struct conn *c)
{
	if ((c->state == CONN_EXCHANGE || c->state == CONN_TUNNEL) && c->current &&
	    steer_waiting(&c->current->steer) && (conn_events_upstream(c) & UV_READABLE)) {
		exchange_answer(c);
		return true;
	}
	if (!steer_waiting(&c->steer.sock) || !(conn_events_client(c) & UV_READABLE))
		return false;
	if (c->state == CONN_HEAD)
		head_read(c);
	else if (c->state == CONN_EXCHANGE || c->state == CONN_TUNNEL)
		exchange_client_readable(c);
	else
		linger_read(c);
	return true;
}

/* Take the requests that are in the buffer one after the other, as far as they go. */
static void conn_run(struct conn *c)
{
	for (;;) {
		if (c->state == CONN_REPLY)
			reply_progress(c);
		else if (c->state == CONN_BREAK)
			break_progress(c);
		if (c->state == CONN_HEAD && buf_len(&c->in) && head_progress(c))
			continue;
		if (ring_read(c))
			continue;
		if (c->state == CONN_HEAD && c->client_eof)
			conn_close(c, CONN_CLOSE_CLIENT_GONE);
		else if (c->state == CONN_HEAD && !buf_len(&c->in))
			steer_between(c);
		break;
	}
	conn_want(c);
}

/* ---- client events ---- */

/* UV_PRIORITIZED: the client has reset, or, of no use to anybody, sent an urgent byte. */
static bool client_reset(struct conn *c)
{
	struct tcp_probe p;

	if (!tcp_probe(c->sock.fd, &p) || p.state == TCP_PROBE_CLOSED)
		return true;
	c->client_urgent = true;
	return false;
}

static void on_client_event(uv_poll_t *poll, int status, int events)
{
	struct conn *c = poll->data;

	if (status >= 0 && events & UV_PRIORITIZED && client_reset(c)) {
		sock_want(&c->sock, 0);
		status = -ECONNRESET;
	}
	if (status < 0) {
		/* EPOLLERR: libuv has stopped the watcher. Of an idle or finished connection
		 * that is the end; else recv() and send() find out. */
		c->sock.events = 0;
		events = UV_READABLE | UV_WRITABLE;
		if (c->state == CONN_EXCHANGE || c->state == CONN_TUNNEL || c->state == CONN_WAIT) {
			exchange_abort(c, CONN_CLOSE_CLIENT_GONE);
			return;
		}
	}
	switch (c->state) {
	case CONN_HEAD:
		head_read(c);
		break;
	case CONN_EXCHANGE:
	case CONN_TUNNEL:
		if (events & UV_DISCONNECT)
			c->client_rdhup = true;
		if ((events & UV_READABLE) && !c->client_eof)
			exchange_client_readable(c);
		if ((events & UV_WRITABLE) &&
		    (c->state == CONN_EXCHANGE || c->state == CONN_TUNNEL) && c->x->out_ready)
			exchange_answer(c);
		break;
	case CONN_WAIT:
		/* A FIN now is a client that gave up: nothing of an answer is under way. */
		exchange_abort(c, CONN_CLOSE_CLIENT_GONE);
		return;
	case CONN_STEER:
	case CONN_RECLAIM:
		if (status < 0) {
			conn_close(c, CONN_CLOSE_CLIENT_GONE);
			break;
		}
		if (events & UV_DISCONNECT)
			c->client_rdhup = true;
		if (c->state == CONN_STEER)
			steer_reclaim(c);
		conn_on_steered(c);
		return;
	case CONN_SPLICE:
		if (status < 0) {
			conn_close(c, CONN_CLOSE_CLIENT_GONE);
			break;
		}
		if (events & UV_DISCONNECT) {
			c->client_rdhup = true;
			splice_client_ended(c);
		}
		break;
	case CONN_LINGER:
		linger_read(c);
		break;
	default: /* CONN_REPLY, CONN_BREAK: conn_run() goes on */
		break;
	}
	conn_run(c);
}

/* ---- upstream events ---- */

void conn_on_upstream_ready(struct conn *c)
{
	exchange_server_writable(c);
	conn_run(c);
}

void conn_on_upstream_readable(struct conn *c)
{
	if (c->state == CONN_SPLICE)
		splice_server_ended(c);
	else
		exchange_answer(c);
	conn_run(c);
}

void conn_on_connect_failed(struct conn *c, int err)
{
	exchange_connect_failed(c, err);
	conn_run(c);
}

void conn_on_upstream_lost(struct conn *c)
{
	exchange_server_lost(c);
}

void conn_on_slot(struct conn *c)
{
	exchange_slot(c);
	conn_run(c);
}

void conn_on_review(struct conn *c)
{
	exchange_review(c);
	conn_run(c);
}

void conn_on_steered(struct conn *c)
{
	/* What was passed up is most often a head. */
	if (c->state == CONN_HEAD && !c->client_eof)
		head_read(c);
	conn_run(c);
}

/* ---- timeouts ---- */

static void on_timer(uv_timer_t *timer)
{
	struct conn *c = timer->data;

	c->armed_ms = UINT64_MAX;
	if (conn_clock_polls(c) || uv_now(&c->worker->loop) >= conn_clock_due_ms(c))
		conn_clock_expire(c);
	conn_run(c);
	conn_rearm(c);
}

/* ---- begin and end ---- */

static void on_handle_closed(uv_handle_t *handle)
{
	struct conn *c = handle->data;

	if (--c->handles)
		return;
	exchange_end(c);
	free(c);
}

void conn_new(struct worker *w, int fd, const struct addr *peer)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (!c || sock_open(&c->sock, &w->loop, fd, c, on_client_event)) {
		free(c);
		close(fd);
		return;
	}
	c->worker = w;
	c->peer = *peer;
	uv_timer_init(&w->loop, &c->timer);
	c->timer.data = c;
	c->handles = 2;
	c->armed_ms = UINT64_MAX;
	list_add_tail(&w->conns, &c->link);
	list_init(&c->steer.todo);
	atomic_fetch_add(&w->balancer->connections, 1);
	stat_add(&w->stats->accepted, 1);
	stat_add(&w->stats->open, 1);
	conn_set_state(c, CONN_HEAD);
	splice_accepted(c);
	/* The first request is often there already. */
	head_read(c);
	conn_run(c);
}

void conn_close(struct conn *c, enum conn_close reason)
{
	struct worker *w = c->worker;
	/* A broken answer never ends in a FIN, whatever ends the wait for its ACKs. */
	bool reset = c->reset_client || c->state == CONN_BREAK;

	if (c->state == CONN_CLOSED)
		return;
	if (c->state == CONN_STEER || c->state == CONN_RECLAIM)
		steer_settle(c);
	else if (c->state == CONN_SPLICE)
		splice_settle(c);
	if (c->x && c->x->backend) {
		/* An answer under way must not look complete because of our end. */
		reset |= c->x->head_sent;
		exchange_settle(c, reason == CONN_CLOSE_STOP ? OUTCOME_SHUTDOWN
							     : OUTCOME_CLIENT_ABORT);
	}
	wait_leave(c);
	c->state = CONN_CLOSED;
	c->close_reason = reason;
	LOG(DEBUG, "connection closed", F_STR("reason", close_names[reason]));
	buf_release(&w->pool, &c->in);
	buf_release(&w->pool, &c->out);
	upstream_drop_all(c);
	list_del(&c->link);
	list_del(&c->steer.todo);
	atomic_fetch_sub(&w->balancer->connections, 1);
	stat_add(&w->stats->open, -1);
	uv_close((uv_handle_t *)&c->timer, on_handle_closed);
	steer_sock_close(c, &c->steer.sock, &c->sock, reset, on_handle_closed);
	splice_leave(w, &c->splice.sock, reset);
}

void conn_drain(struct conn *c)
{
	if (c->state == CONN_STEER) {
		steer_reclaim(c);
		conn_on_steered(c);
	}
	if (c->state != CONN_HEAD || buf_len(&c->in))
		return;
	/* A request that has arrived but was not yet looked at is served. */
	head_read(c);
	if (c->state == CONN_HEAD && !buf_len(&c->in))
		conn_close(c, CONN_CLOSE_DRAIN);
	else
		conn_run(c);
}
