/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A request's way to a server.
 *
 * Happy path: attempt_dispatch() has a server chosen and a connection to it, attempt_send() sends
 * what is there of the request, again and again as more comes; behind the last byte goes the
 * client's FIN, if there is one (attempt_pass_eof()).
 * Failures: a server that cannot be reached, or leaves before it answered, is reported and another
 * one tried as long as the request is still held whole; then the client is told.
 * The close is exchange.c's.
 */
#include "net/attempt.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "net/account.h"
#include "net/dispatch.h"
#include "net/exchange.h"
#include "net/relay.h"
#include "net/steer.h"
#include "net/upstream.h"
#include "net/worker.h"

/* Servers tried for one request before the client is told. */
#define ATTEMPTS_MAX 3

static uint32_t retry_after_s(const struct config *config)
{
	uint32_t ms = config->health.interval_ms * config->health.rise;

	return ms > 1000 ? (ms + 999) / 1000 : 1;
}

void attempt_send(struct conn *c)
{
	enum relay_end end = relay_send_request(c);

	if (end == RELAY_CONNECT_FAILED)
		attempt_again(c, BACKEND_CAUSE_REFUSED, errno);
	else
		attempt_pass_eof(c);
}

/* All of the request goes out from its beginning, and nothing of another connection counts. */
static void request_rewind(struct exchange *x)
{
	x->sent = 0;
	x->discard = false;
	x->server_reset = false;
	x->close_upstream = false;
}

static void attempt_short(struct conn *c, int err)
{
	worker_short(c->worker, "cannot connect to servers", err);
	exchange_reply(c, OUTCOME_UNREACHABLE, 503,
		       "The balancer is out of connections to model servers.", "out_of_connections",
		       1);
}

static void server_failed(struct conn *c, enum backend_cause cause, int err)
{
	struct balancer *b = c->worker->balancer;
	struct backend *backend = c->x->backend;

	if (cause == BACKEND_CAUSE_RESET)
		backend_report_carried(backend, steer_carried(c->worker, backend));
	if (backend_report_failure(&b->backends, backend, cause, balancer_now_ms()))
		LOG(WARN, "backend down", F_STR("backend", backend->name),
		    F_STR("cause", backend_cause_names[cause]), F_STR("error", strerror(err)));
	if (err == EHOSTUNREACH || err == EHOSTDOWN)
		backend_host_lost(&b->backends, backend);
	c->x->excluded |= 1ULL << backend->id;
}

/* A server has a free slot again about when one of its exchanges ends. */
static uint32_t retry_busy_s(const struct conn *c)
{
	const struct balancer *b = c->worker->balancer;
	uint32_t ms = b->backends.slot[c->worker->record.decision.backend].exchange_ms;

	return ms > 1000 ? (ms + 999) / 1000 : 1;
}

/* Returns whether the exchange has a server; if not, it waits, or the client is told why. */
static bool server_choose(struct conn *c)
{
	struct exchange *x = c->x;

	switch (dispatch_choose(c)) {
	case DISPATCH_GO:
		return true;
	case DISPATCH_WAIT:
		if (c->state != CONN_WAIT)
			conn_set_state(c, CONN_WAIT);
		return false;
	case DISPATCH_FULL:
		exchange_reply(c, OUTCOME_QUEUE_FULL, 503,
			       "All slots of the model server are busy, and its queue is full.",
			       "queue_full", retry_busy_s(c));
		return false;
	case DISPATCH_LATE:
		exchange_reply(c, OUTCOME_QUEUE_TIMEOUT, 504,
			       "All slots of the model server stayed busy for too long.",
			       "queue_timeout", retry_busy_s(c));
		return false;
	case DISPATCH_NOBODY:
		break;
	}
	exchange_reply(c, x->excluded ? OUTCOME_UNREACHABLE : OUTCOME_NO_SERVER, 503,
		       "No model server is available.", "no_server",
		       retry_after_s(c->worker->config));
	return false;
}

/* Choose a server, where none is chosen yet, and send what is there; again and again while servers
 * cannot be reached. */
void attempt_dispatch(struct conn *c)
{
	struct exchange *x = c->x;
	const struct config *config = c->worker->config;
	bool fresh;
	int err;

	/* A request that cannot be held whole must not go over a connection that the server may
	 * be closing right now: it could not be sent again. */
	fresh = x->request_body.state != KVPIN_BS_DONE &&
		(x->request_body.state != KVPIN_BS_COUNTED ||
		 x->request_body.left + x->ready > config->limit.hold_bytes);
	for (;;) {
		if (x->attempts >= ATTEMPTS_MAX && !x->backend) {
			exchange_reply(c, OUTCOME_UNREACHABLE, 502,
				       "The model server could not be reached.",
				       "server_unreachable", 0);
			return;
		}
		if (!x->backend && !server_choose(c))
			return;
		x->held = true;
		request_rewind(x);
		conn_set_state(c, CONN_EXCHANGE);
		err = upstream_get(c, x->backend, fresh);
		if (!err)
			break;
		if (backend_blameless(-err)) {
			attempt_short(c, -err);
			return;
		}
		server_failed(c, BACKEND_CAUSE_REFUSED, -err);
		dispatch_release(c);
	}
	attempt_send(c);
}

/* The server that this exchange was on is gone and nothing of an answer came. */
void attempt_again(struct conn *c, enum backend_cause cause, int err)
{
	struct exchange *x = c->x;
	bool reused = c->current && c->current->used;

	upstream_drop(c, false);
	if (c->eof_passed) {
		/* The server saw the client's FIN and closed: that is its answer. */
		account_exchange(c, OUTCOME_CLIENT_ABORT);
		conn_close(c, CONN_CLOSE_CLIENT_GONE);
		return;
	}
	if (cause == BACKEND_CAUSE_RESET && reused && x->held) {
		/* An idle connection that the server had closed: the same server again. */
		stat_add(&c->worker->stats->backend[x->backend->id].resends, 1);
		request_rewind(x);
		err = -upstream_get(c, x->backend, true);
		if (!err) {
			conn_touch(c);
			conn_rearm(c);
			attempt_send(c);
			return;
		}
		cause = BACKEND_CAUSE_REFUSED;
	}
	if (cause == BACKEND_CAUSE_REFUSED && backend_blameless(err)) {
		attempt_short(c, err);
		return;
	}
	server_failed(c, cause, err);
	if (!x->held) {
		exchange_reply(c, OUTCOME_UNREACHABLE, 502,
			       "The model server closed the connection before it answered.",
			       "server_lost", 0);
		return;
	}
	if (cause == BACKEND_CAUSE_RESET)
		stat_add(&c->worker->stats->backend[x->backend->id].resends, 1);
	dispatch_release(c);
	attempt_dispatch(c);
}

/* A tunnel ends when both sides have. */
void attempt_end_tunnel(struct conn *c)
{
	if (c->x->answer_body.state != KVPIN_BS_DONE || !c->eof_passed)
		return;
	exchange_settle(c, OUTCOME_OK);
	/* A RST would destroy what the server has not yet read. */
	upstream_drop(c, false);
	conn_close(c, CONN_CLOSE_DONE);
}

bool attempt_more_follows(const struct conn *c)
{
	const struct config *config = c->worker->config;
	uint32_t ready = c->x->ready;
	struct kvpin_head head;

	if (buf_len(&c->in) <= ready || c->x->upgrade)
		return buf_len(&c->in) > ready;
	kvpin_head_init(&head, KVPIN_REQUEST);
	head.limit_bytes = config->limit.head_bytes;
	head.limit_fields = config->limit.head_fields;
	return kvpin_head_parse(&head, &config->names, buf_data(&c->in) + ready,
				buf_len(&c->in) - ready) == KVPIN_STEP_DONE;
}

/* The client's FIN came while its answer is under way: a half-close or the prelude of an abort.
 * The server is told exactly that, and decides. Requests still in the buffer come first. */
void attempt_pass_eof(struct conn *c)
{
	struct exchange *x = c->x;
	/* A tunnel's server that takes nothing any more is owed nothing. */
	bool owed = x->sent < x->ready && !(x->discard && c->state == CONN_TUNNEL);

	if (c->eof_passed || !c->client_eof || owed || !c->current || c->current->connecting ||
	    (c->state != CONN_EXCHANGE && c->state != CONN_TUNNEL) ||
	    steer_upstream_owed(c->current) || attempt_more_follows(c))
		return;
	c->eof_passed = true;
	shutdown(c->current->sock.fd, SHUT_WR);
	if (c->state == CONN_TUNNEL)
		attempt_end_tunnel(c);
}

bool attempt_eof_waits(const struct conn *c)
{
	/* Not whether bytes are still owed: they may be taken between two looks. */
	return c->client_eof && !c->eof_passed && c->current && c->current->steer.draining;
}
