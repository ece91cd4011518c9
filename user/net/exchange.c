/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One request and its answer: the beginning, an answer of our own, the break, the end. Its way to
 * a server is attempt.c's.
 *
 * Happy path: exchange_start() has a complete head, a server is chosen, the request goes out, the
 * answer comes back, exchange_done() settles.
 * Failures: the relay reports how its part ended; exchange_trouble() turns that into another
 * attempt, an error answer, a broken-off answer, or the end of the connection.
 * Close: by conn_close(), after the exchange was settled: counted once, its server left.
 */
#include "net/exchange.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "net/account.h"
#include "net/attempt.h"
#include "net/dispatch.h"
#include "net/head_edit.h"
#include "net/keys.h"
#include "net/relay.h"
#include "net/reply.h"
#include "net/turn.h"
#include "net/upstream.h"
#include "net/worker.h"

/* Of pipelined requests, bytes taken in while an earlier answer is under way. */
#define READ_AHEAD_BYTES (16 * 1024)

/* ---- the end of an exchange ---- */

/* The exchange is over: count it once, leave its server. */
void exchange_settle(struct conn *c, enum stat_outcome outcome)
{
	account_exchange(c, outcome);
	splice_unhold(c);
	dispatch_release(c);
}

int exchange_begin(struct conn *c)
{
	c->x = calloc(1, sizeof(*c->x));
	if (!c->x)
		return -ENOMEM;
	kvpin_head_init(&c->x->request, KVPIN_REQUEST);
	kvpin_head_init(&c->x->answer, KVPIN_RESPONSE);
	c->x->request.limit_bytes = c->worker->config->limit.head_bytes;
	c->x->request.limit_fields = c->worker->config->limit.head_fields;
	c->counted = false;
	return 0;
}

void exchange_end(struct conn *c)
{
	if (c->x)
		keys_free(c->x);
	free(c->x);
	c->x = NULL;
}

void exchange_abort(struct conn *c, enum conn_close reason)
{
	account_exchange(c, OUTCOME_CLIENT_ABORT);
	conn_close(c, reason);
}

static void exchange_done(struct conn *c)
{
	struct exchange *x = c->x;
	bool whole = x->request_body.state == KVPIN_BS_DONE && x->sent == x->ready;

	turn_done(c);
	exchange_settle(c, OUTCOME_OK);
	if (whole && !x->close_upstream && !x->discard && !c->eof_passed)
		upstream_keep(c);
	else
		upstream_drop(c, !whole);
	if (!whole)
		c->close_after = true;
	else
		buf_consume(&c->worker->pool, &c->in, x->ready);
	x->ready = x->sent = 0;
	conn_next(c);
}

/* ---- answers of our own ---- */

void exchange_reply(struct conn *c, enum stat_outcome outcome, unsigned int status,
		    const char *message, const char *code, uint32_t retry_after_s)
{
	struct exchange *x = c->x;

	/* Without the request's end the next one's beginning is not known. */
	if (x->request_body.state != KVPIN_BS_DONE || outcome == OUTCOME_REFUSED ||
	    !x->request.minor || c->worker->draining)
		c->close_after = true;
	if (reply_error(c, status, message, code, retry_after_s)) {
		conn_close(c, CONN_CLOSE_NO_MEMORY);
		return;
	}
	exchange_settle(c, outcome);
	upstream_drop(c, true);
	wait_leave(c);
	conn_set_state(c, CONN_REPLY);
}

/* ---- a slot ---- */

void exchange_slot(struct conn *c)
{
	uint32_t slot = c->wait.slot;

	if (!wait_taken(c))
		return;
	dispatch_sent(c, slot);
	attempt_dispatch(c);
}

void exchange_review(struct conn *c)
{
	attempt_dispatch(c);
}

/* ---- trouble ---- */

/* The answer broke off. The client gets what came, and then a RST: never a clean end. */
static void exchange_break(struct conn *c, enum stat_outcome outcome)
{
	struct exchange *x = c->x;

	exchange_settle(c, outcome);
	upstream_drop(c, true);
	if (x->out_ready < buf_len(&c->out))
		c->out.end = c->out.start + x->out_ready;
	c->close_reason = CONN_CLOSE_BROKEN_ANSWER;
	conn_set_state(c, CONN_BREAK);
}

/* Is it too late for an answer of our own? Whole interim answers do not count. */
static bool answer_begun(const struct exchange *x)
{
	return x->head_sent || (x->bytes_down && x->out_ready);
}

/* The server's answer cannot go on: a break, or 502 where that is still possible. */
static void exchange_broken(struct conn *c, enum stat_outcome outcome)
{
	if (answer_begun(c->x))
		exchange_break(c, outcome);
	else
		exchange_reply(c, outcome, 502,
			       "The model server's answer was malformed or broke off.",
			       "bad_answer", 0);
}

static void exchange_trouble(struct conn *c, enum relay_end end)
{
	struct exchange *x = c->x;

	switch (end) {
	case RELAY_WAIT:
	case RELAY_DONE:
		break;
	case RELAY_CLIENT_GONE:
	case RELAY_CLIENT_EOF:
		exchange_abort(c, CONN_CLOSE_CLIENT_GONE);
		break;
	case RELAY_BAD_REQUEST:
		x->request.error = x->request_body.error;
		stat_add(&c->worker->stats->http_errors[x->request.error], 1);
		c->close_reason = CONN_CLOSE_BAD_REQUEST;
		if (answer_begun(x))
			exchange_break(c, OUTCOME_REFUSED);
		else
			exchange_reply(c, OUTCOME_REFUSED, 400, "The request body is malformed.",
				       stat_http_error_names[x->request.error], 0);
		break;
	case RELAY_CONNECT_FAILED:
		attempt_again(c, BACKEND_CAUSE_REFUSED, errno);
		break;
	case RELAY_SERVER_LOST:
		attempt_again(c, BACKEND_CAUSE_RESET, ECONNRESET);
		break;
	case RELAY_TRUNCATED:
		/* A server that stops when it is told of the client's FIN breaks nothing. */
		exchange_broken(c, c->eof_passed ? OUTCOME_CLIENT_ABORT : OUTCOME_TRUNCATED);
		break;
	case RELAY_BAD_ANSWER:
		exchange_broken(c, OUTCOME_BAD_ANSWER);
		break;
	case RELAY_NO_MEMORY:
		exchange_abort(c, CONN_CLOSE_NO_MEMORY);
		break;
	}
}

/* ---- a new request ---- */

/* Does what the client sent begin with this, as far as it came? */
static bool head_begins(const struct conn *c, const char *text, unsigned int bytes)
{
	return buf_len(&c->in) >= bytes && !memcmp(buf_data(&c->in), text, bytes);
}

void exchange_refuse(struct conn *c)
{
	const char *message = "The request is malformed.";
	enum kvpin_http_error error = c->x->request.error;

	/* What clients and proxies speak by mistake. Refused in any case: only the words differ. */
	if (head_begins(c, "PRI *", 5)) {
		error = c->x->request.error = KVPIN_HTTP_VERSION;
		message = "HTTP/2 is not spoken here, use HTTP/1.1.";
	} else if (head_begins(c, "\x16", 1)) {
		message = "TLS is not spoken here, use http and not https.";
	}
	stat_add(&c->worker->stats->http_errors[error], 1);
	c->close_reason = CONN_CLOSE_BAD_REQUEST;
	exchange_reply(c, OUTCOME_REFUSED, reply_status_of(error), message,
		       stat_http_error_names[error], 0);
}

/* The fields that this proxy adds to a request; "" when none. */
static const char *added_fields(const struct conn *c, char *text, size_t bytes)
{
	char peer[ADDR_TEXT_MAX];
	int n = 0;

	*text = '\0';
	if (!(c->x->request.flags & KVPIN_HEAD_HOST)) {
		struct addr local = {.len = sizeof(local.in6)};

		getsockname(c->sock.fd, &local.sa, &local.len);
		addr_unmap(&local);
		n = snprintf(text, bytes, "Host: %s\r\n", addr_format(&local, peer));
	}
	if (c->worker->config->forwarded_for) {
		const void *ip = c->peer.sa.sa_family == AF_INET
					 ? (const void *)&c->peer.in4.sin_addr
					 : (const void *)&c->peer.in6.sin6_addr;

		uv_inet_ntop(c->peer.sa.sa_family, ip, peer, sizeof(peer));
		snprintf(text + n, bytes - n, "X-Forwarded-For: %s\r\n", peer);
	}
	return text;
}

/* The client waits for leave to send the body that the decision needs. It is given here, and the
 * server is not asked again: it gets the request with its body. */
static void send_continue(struct conn *c)
{
	static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
	const uint32_t len = sizeof(text) - 1;

	if (buf_reserve(&c->worker->pool, &c->out, len)) {
		exchange_abort(c, CONN_CLOSE_NO_MEMORY);
		return;
	}
	memcpy(c->out.mem + c->out.end, text, len);
	c->out.end += len;
	c->x->out_ready += len;
	if (relay_flush(c) == RELAY_CLIENT_GONE)
		exchange_abort(c, CONN_CLOSE_CLIENT_GONE);
}

/* The session is looked for in the body: dispatch once enough of it is there, or all that can be
 * held. */
static void exchange_await(struct conn *c)
{
	if (keys_body(c) || !relay_request_open(c)) {
		keys_settle(c);
		attempt_dispatch(c);
	}
}

/* The body begins to be awaited; @expects: the client waits for leave to send it. */
static void await_begin(struct conn *c, bool expects)
{
	struct exchange *x = c->x;

	/* No byte of it has gone anywhere. */
	x->held = true;
	conn_set_state(c, CONN_EXCHANGE);
	if (expects && buf_len(&c->in) == x->ready && !x->request_body.payload)
		send_continue(c);
	if (c->state == CONN_EXCHANGE)
		exchange_await(c);
}

/* A complete head: judge it, edit it, send it on its way. */
void exchange_start(struct conn *c)
{
	struct exchange *x = c->x;
	struct head_connection said;
	struct head_change change = {0};
	char fields[BUF_HEADROOM / 2];
	bool body;

	x->started_ns = balancer_now_ns();
	kvpin_body_of_request(&x->request_body, &x->request);
	said = head_connection(&x->request, buf_data(&c->in));
	/* Persistence of HTTP/1.0 is not offered: every answer to it ends the connection. */
	c->close_after = said.close || !x->request.minor;
	if (x->request.method == KVPIN_METHOD_CONNECT) {
		exchange_reply(c, OUTCOME_REFUSED, 501, "CONNECT is not supported.",
			       "connect_not_supported", 0);
		return;
	}
	body = keys_begin(c);
	x->upgrade = said.upgrade && (x->request.flags & KVPIN_HEAD_UPGRADE) && x->request.minor;
	change.keep_upgrade = x->upgrade;
	change.version_11 = !x->request.minor;
	change.insert = added_fields(c, fields, sizeof(fields));
	change.drop_expect = body && keys_expects(c);
	x->ready = head_edit(&c->in, &x->request, &change, c->worker->edit);
	if (body && keys_wait(c)) {
		exchange_abort(c, CONN_CLOSE_NO_MEMORY);
		return;
	}
	switch (relay_walk_request(c)) {
	case RELAY_BAD_REQUEST:
		exchange_trouble(c, RELAY_BAD_REQUEST);
		return;
	case RELAY_WAIT:
		/* A client without TCP_NODELAY sends its body when the head is acknowledged. */
		conn_quickack(c);
		break;
	default:
		break;
	}
	if (body) {
		await_begin(c, change.drop_expect);
		return;
	}
	keys_settle(c);
	attempt_dispatch(c);
}

/* ---- events ---- */

/* While an answer is under way: pipelined requests, or the client's end. */
static void read_ahead(struct conn *c)
{
	ssize_t n;

	if (buf_reserve(&c->worker->pool, &c->in, READ_AHEAD_BYTES / 4)) {
		exchange_abort(c, CONN_CLOSE_NO_MEMORY);
		return;
	}
	n = steer_recv(c->worker, &c->steer.sock, c->sock.fd, c->in.mem + c->in.end,
		       buf_room(&c->in));
	if (n > 0)
		c->in.end += n;
	else if (!buf_len(&c->in))
		buf_release(&c->worker->pool, &c->in);
	if (n == 0)
		c->client_eof = true;
	else if (n < 0 && errno != EAGAIN && errno != EINTR)
		exchange_abort(c, CONN_CLOSE_CLIENT_GONE);
}

bool exchange_asks_more(struct conn *c)
{
	while (sock_unread(c->sock.fd) || steer_waiting(&c->steer.sock)) {
		uint32_t had = buf_len(&c->in);

		if (!exchange_reads_client(c))
			return true;
		read_ahead(c);
		if (c->state == CONN_CLOSED)
			return false;
		/* Never again and again for bytes that the kernel counts and does not give. */
		if (buf_len(&c->in) == had)
			break;
	}
	return attempt_more_follows(c);
}

void exchange_client_readable(struct conn *c)
{
	enum relay_end end;

	if (c->x->request_body.state == KVPIN_BS_DONE) {
		read_ahead(c);
	} else {
		end = relay_read_request(c);
		if (c->x->wait && (end == RELAY_WAIT || end == RELAY_DONE))
			exchange_await(c);
		else if (end == RELAY_WAIT || end == RELAY_DONE)
			attempt_send(c);
		else
			exchange_trouble(c, end);
	}
	attempt_pass_eof(c);
}

void exchange_answer(struct conn *c)
{
	struct exchange *x = c->x;
	enum relay_end end;
	bool held;

	/* Only the 100 of send_continue() can be there. */
	if (x->wait) {
		if (relay_flush(c) == RELAY_CLIENT_GONE)
			exchange_abort(c, CONN_CLOSE_CLIENT_GONE);
		return;
	}
	end = relay_answer(c);

	/* All of a tunnel's answer may have come in one go, its end included. */
	if (x->head_done && x->status == 101 && c->state == CONN_EXCHANGE &&
	    (end == RELAY_WAIT || end == RELAY_DONE)) {
		x->request_body.state = KVPIN_BS_TUNNEL;
		conn_set_state(c, CONN_TUNNEL);
		if (relay_walk_request(c) == RELAY_WAIT)
			attempt_send(c);
		if (c->state != CONN_TUNNEL)
			return;
	}
	if (end == RELAY_DONE && c->state == CONN_TUNNEL) {
		/* The server's FIN: pass it on; the client may still speak. */
		shutdown(c->sock.fd, SHUT_WR);
		attempt_end_tunnel(c);
	} else if (end == RELAY_DONE) {
		exchange_done(c);
	} else if (end == RELAY_WAIT && c->state == CONN_EXCHANGE) {
		held = c->splice.holding;
		if (!splice_within(c) && !held)
			steer_within(c);
	} else {
		exchange_trouble(c, end);
	}
}

void exchange_server_writable(struct conn *c)
{
	attempt_send(c);
}

void exchange_connect_failed(struct conn *c, int err)
{
	attempt_again(c, BACKEND_CAUSE_REFUSED, err);
}

void exchange_server_lost(struct conn *c)
{
	attempt_again(c, BACKEND_CAUSE_RESET, ECONNRESET);
}

void exchange_head_timeout(struct conn *c)
{
	c->close_after = true;
	exchange_reply(c, OUTCOME_TIMEOUT, 408, "The request head took too long.", "head_timeout",
		       0);
}

void exchange_wait_over(struct conn *c)
{
	c->x->waited = true;
	attempt_dispatch(c);
}

void exchange_timeout(struct conn *c)
{
	if (c->current && c->current->connecting)
		attempt_again(c, BACKEND_CAUSE_REFUSED, ETIMEDOUT);
	else if (answer_begun(c->x))
		exchange_break(c, OUTCOME_TIMEOUT);
	else if (relay_request_open(c))
		exchange_reply(c, OUTCOME_TIMEOUT, 408, "The request body took too long.",
			       "body_timeout", 0);
	else
		exchange_reply(c, OUTCOME_TIMEOUT, 504, "The model server did not answer.",
			       "server_timeout", 0);
}

void exchange_truncated(struct conn *c)
{
	exchange_broken(c, OUTCOME_TRUNCATED);
}

bool exchange_reads_client(const struct conn *c)
{
	if (c->client_eof)
		return false;
	if (c->x->request_body.state == KVPIN_BS_DONE)
		return buf_len(&c->in) - c->x->ready < READ_AHEAD_BYTES &&
		       buf_len(&c->in) <= BUF_BYTES_MAX - READ_AHEAD_BYTES / 4;
	return relay_request_open(c);
}
