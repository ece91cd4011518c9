/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The relay path.
 *
 * Request: in buffer = bytes sent and held, bytes ready, bytes not yet walked (there only when
 * the request is complete: then they are the next one's). Answer: out buffer = bytes ready, then
 * an unfinished head.
 *
 * Failures are told by the side that sees them: a send error towards the server only stops the
 * sending, because the server may have answered before it closed (413 in mid-upload).
 */
#include "net/relay.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "net/dispatch.h"
#include "net/head_edit.h"
#include "net/turn.h"
#include "net/upstream.h"
#include "net/worker.h"

/* Bytes asked for at once. 64 KiB stays in the L2 cache between recv() and send(). */
#define RELAY_READ_BYTES (BUF_CLASS_BYTES(1) - BUF_HEADROOM)
/* ... and where little is expected. */
#define RELAY_FIRST_READ_BYTES (BUF_CLASS_BYTES(0) - BUF_HEADROOM)
/* ... and to complete a head that did not come in one piece. */
#define RELAY_HEAD_MORE_BYTES 4096
_Static_assert(HOLD_BYTES_MAX <= BUF_BYTES_MAX - 2 * RELAY_READ_BYTES,
	       "a held request and pipelined ones behind it fit a buffer");
/* Reads per event, so that one fast transfer does not starve the worker's other connections. */
#define RELAY_ROUNDS 16
/* Only the beginning of a request is acknowledged at once: a client that sends head and body
 * apart waits for that ACK, an upload does not. */
#define RELAY_QUICKACK_BYTES (64 * 1024)

static bool would_block(int err)
{
	return err == EAGAIN || err == EWOULDBLOCK || err == EINTR;
}

/* ---- request ---- */

enum relay_end relay_walk_request(struct conn *c)
{
	struct exchange *x = c->x;
	uint32_t fresh = buf_len(&c->in) - x->ready;

	if (fresh)
		x->ready += kvpin_body_walk(&x->request_body, buf_data(&c->in) + x->ready, fresh);
	if (x->request_body.state == KVPIN_BS_BAD)
		return RELAY_BAD_REQUEST;
	return x->request_body.state == KVPIN_BS_DONE ? RELAY_DONE : RELAY_WAIT;
}

/* Bytes that were sent are needed no more. */
static void request_forget_sent(struct conn *c)
{
	struct exchange *x = c->x;

	buf_consume(&c->worker->pool, &c->in, x->sent);
	x->ready -= x->sent;
	x->sent = 0;
}

/* An answer has begun: the request will not be sent again. */
static void request_release_hold(struct conn *c)
{
	c->x->held = false;
	request_forget_sent(c);
}

static uint32_t request_room(const struct conn *c)
{
	const struct exchange *x = c->x;
	uint32_t limit = x->held ? c->worker->config->limit.hold_bytes : RELAY_READ_BYTES;
	uint32_t len = buf_len(&c->in);

	return len < limit ? limit - len : 0;
}

bool relay_request_open(const struct conn *c)
{
	return !c->client_eof && c->x->request_body.state != KVPIN_BS_DONE && request_room(c);
}

enum relay_end relay_read_request(struct conn *c)
{
	struct exchange *x = c->x;
	struct buf_pool *pool = &c->worker->pool;
	enum relay_end end;
	uint32_t room;
	ssize_t n;

	room = request_room(c);
	if (!room)
		return RELAY_WAIT;
	if (room > RELAY_READ_BYTES)
		room = RELAY_READ_BYTES;
	if (x->request_body.state == KVPIN_BS_COUNTED && room > x->request_body.left)
		room = x->request_body.left;
	if (buf_reserve(pool, &c->in, room))
		return RELAY_NO_MEMORY;
	n = steer_recv(c->worker, &c->steer.sock, c->sock.fd, c->in.mem + c->in.end, room);
	if (n < 0)
		return would_block(errno) ? RELAY_WAIT : RELAY_CLIENT_GONE;
	if (n == 0) {
		c->client_eof = true;
		return c->state == CONN_TUNNEL ? RELAY_WAIT : RELAY_CLIENT_EOF;
	}
	/* Bytes of the client do not give a server that cannot be reached more time. */
	if (!c->current || !c->current->connecting)
		conn_touch(c);
	c->in.end += n;
	end = relay_walk_request(c);
	if (end == RELAY_WAIT && x->request_body.payload < RELAY_QUICKACK_BYTES)
		conn_quickack(c);
	if (x->discard && !x->held) {
		x->sent = x->ready;
		request_forget_sent(c);
	}
	return end;
}

enum relay_end relay_send_request(struct conn *c)
{
	struct exchange *x = c->x;
	struct upstream *u = c->current;
	struct backend_stats *stats;
	ssize_t n;

	while (u && !x->discard && x->sent < x->ready) {
		n = send(u->sock.fd, buf_data(&c->in) + x->sent, x->ready - x->sent, MSG_NOSIGNAL);
		if (n < 0) {
			if (would_block(errno))
				return RELAY_WAIT;
			if (u->connecting)
				return RELAY_CONNECT_FAILED;
			x->discard = true;
			/* The error is told once, here: recv() will say 0, as if it were a FIN. A
			 * RST behind a FIN (EPIPE) takes nothing from the answer. */
			x->server_reset = errno != EPIPE;
			break;
		}
		upstream_connected(u);
		conn_touch(c);
		x->sent += n;
		x->bytes_up += n;
		stats = &c->worker->stats->backend[x->backend->id];
		stat_add(&stats->bytes_up[STAT_PATH_RELAY], n);
	}
	if (!x->held)
		request_forget_sent(c);
	else if (x->sent && x->request_body.state != KVPIN_BS_DONE && !request_room(c))
		/* Too large to hold; dispatch has put it on a fresh connection. */
		request_release_hold(c);
	return x->request_body.state == KVPIN_BS_DONE ? RELAY_DONE : RELAY_WAIT;
}

/* ---- answer ---- */

enum relay_end relay_flush(struct conn *c)
{
	struct exchange *x = c->x;
	uint32_t apart;
	ssize_t n;

	while (x->out_ready) {
		/* Of a corked socket the last byte waits only if nothing fills its segment. */
		apart = c->splice.holding && x->out_ready > 1;
		n = send(c->sock.fd, buf_data(&c->out), x->out_ready - apart,
			 MSG_NOSIGNAL | (apart ? MSG_EOR : 0));
		if (n < 0)
			return would_block(errno) ? RELAY_WAIT : RELAY_CLIENT_GONE;
		conn_touch(c);
		if (x->head_done)
			x->head_sent = true;
		x->out_ready -= n;
		x->bytes_down += n;
		if (x->backend)
			stat_add(&c->worker->stats->backend[x->backend->id]
					  .bytes_down[STAT_PATH_RELAY],
				 n);
		buf_consume(&c->worker->pool, &c->out, n);
	}
	return RELAY_DONE;
}

/* First token and gaps between tokens. Of an event stream a comment is no token; of any other
 * answer the first byte counts, and there are no gaps. */
static void answer_time(struct conn *c)
{
	struct exchange *x = c->x;
	struct backend_stats *stats = &c->worker->stats->backend[x->backend->id];
	bool stream = x->answer.flags & KVPIN_HEAD_EVENT_STREAM;
	uint64_t now_ns;

	if (x->token_seen && (!stream || x->events == x->answer_body.events))
		return;
	if (stream && !x->answer_body.events)
		return;
	now_ns = balancer_now_ns();
	if (!x->token_seen) {
		x->token_seen = true;
		x->ttft_ns = now_ns - x->started_ns;
		hist_add(&stats->ttft[x->later_turn ? TURN_LATER : TURN_FIRST], &hist_ttft_bounds,
			 x->ttft_ns);
		turn_first_token(c);
	} else {
		hist_add(&stats->token_gap, &hist_token_gap_bounds, now_ns - x->token_ns);
	}
	x->token_ns = now_ns;
	x->events = x->answer_body.events;
}

/* Walk the body bytes behind out_ready; with plain_body the chunk framing is squeezed out. */
static enum relay_end answer_walk(struct conn *c)
{
	struct exchange *x = c->x;
	struct kvpin_body *body = &x->answer_body;
	uint8_t *at = buf_data(&c->out) + x->out_ready;
	uint32_t len = buf_len(&c->out) - x->out_ready, pos = 0, kept = 0;

	/* Without chunks an event's beginning is not known; a read stands for it. */
	if (body->state == KVPIN_BS_COUNTED || body->state == KVPIN_BS_CLOSE)
		body->fresh = 1;
	if (!x->plain_body) {
		kept = pos = kvpin_body_walk(body, at, len);
	} else {
		while (pos < len && body->state != KVPIN_BS_DONE && body->state != KVPIN_BS_BAD) {
			uint32_t n;

			if (!kvpin_body_counts(body)) {
				kvpin_body_step(body, at[pos++]);
				continue;
			}
			n = kvpin_body_skip(body, at[pos], len - pos);
			memmove(at + kept, at + pos, n);
			kept += n;
			pos += n;
		}
	}
	if (body->state == KVPIN_BS_DONE && pos < len)
		/* Bytes behind the end answer nothing that was asked: not to be trusted. */
		x->close_upstream = true;
	c->out.end = c->out.start + x->out_ready + kept;
	x->out_ready += kept;
	if (!buf_len(&c->out))
		buf_release(&c->worker->pool, &c->out);
	return body->state == KVPIN_BS_BAD ? RELAY_BAD_ANSWER : RELAY_WAIT;
}

static void server_answered(struct conn *c)
{
	struct backend_table *table = &c->worker->balancer->backends;
	struct backend *b = c->x->backend;

	backend_report_success(b);
	if (backend_revive(table, b, balancer_now_ms()))
		LOG(INFO, "backend up", F_STR("backend", b->name), F_STR("cause", "answered"));
}

/* The fields that this proxy adds to an answer; "" when none. */
static const char *answer_fields(const struct conn *c, uint16_t status, char *text, size_t bytes)
{
	const struct exchange *x = c->x;
	int n = 0;

	*text = '\0';
	if (c->close_after && status != 101)
		n = snprintf(text, bytes, "Connection: close\r\n");
	if (x->generated[0])
		snprintf(text + n, bytes - n, "%s: %s\r\n",
			 c->worker->config->affinity.generate_header, x->generated);
	return text;
}

/* The final answer's head, or a 1xx before it, is complete at the buffer's front. */
static enum relay_end answer_head(struct conn *c)
{
	struct exchange *x = c->x;
	const struct kvpin_head *h = &x->answer;
	struct head_change change = {.insert = ""};
	struct head_connection said = head_connection(h, buf_data(&c->out));
	bool interim = h->status < 200 && h->status != 101;
	char fields[BUF_HEADROOM / 2];
	uint32_t len;

	kvpin_body_of_response(&x->answer_body, h, x->request.method);
	if (h->status == 101 && !x->upgrade)
		return RELAY_BAD_ANSWER;
	change.keep_upgrade = h->status == 101;
	if (!interim) {
		x->status = h->status;
		x->head_done = true;
		if (said.close || !h->minor || x->answer_body.state == KVPIN_BS_CLOSE)
			x->close_upstream = true;
		if (x->answer_body.state == KVPIN_BS_CLOSE)
			c->close_after = true;
		/* Refused in the middle of a body: what still comes of it is not worth reading. */
		if (h->status >= 400 && x->request_body.state != KVPIN_BS_DONE)
			c->close_after = true;
		if (c->worker->draining)
			c->close_after = true;
		if (!x->request.minor && (h->flags & KVPIN_HEAD_CHUNKED)) {
			change.drop_transfer_encoding = true;
			x->plain_body = x->answer_body.state != KVPIN_BS_DONE;
		}
		change.insert = answer_fields(c, h->status, fields, sizeof(fields));
		server_answered(c);
	}
	/* RFC 9112 2.3: a proxy speaks its own version. */
	buf_data(&c->out)[h->start + sizeof("HTTP/1.") - 1] = '1';
	len = head_edit(&c->out, h, &change, c->worker->edit);
	if (interim && !x->request.minor) {
		/* An HTTP/1.0 client knows no interim answers (RFC 9110 15.2). */
		buf_consume(&c->worker->pool, &c->out, len);
		len = 0;
	}
	x->out_ready = len;
	if (interim)
		kvpin_head_init(&x->answer, KVPIN_RESPONSE);
	return RELAY_WAIT;
}

/* Make of the bytes in the out buffer what can be made. */
static enum relay_end answer_process(struct conn *c)
{
	struct exchange *x = c->x;
	enum relay_end end;
	int step;

	while (!x->head_done) {
		/* head_edit() wants the head at the front. */
		if (x->out_ready || !buf_len(&c->out))
			return RELAY_WAIT;
		step = kvpin_head_parse(&x->answer, &c->worker->config->names, buf_data(&c->out),
					buf_len(&c->out));
		if (step == KVPIN_STEP_BAD)
			return RELAY_BAD_ANSWER;
		if (step == KVPIN_STEP_MORE)
			return RELAY_WAIT;
		end = answer_head(c);
		if (end != RELAY_WAIT)
			return end;
		if (!x->head_done) {
			end = relay_flush(c);
			if (end != RELAY_DONE)
				return end;
		}
	}
	end = answer_walk(c);
	if (end == RELAY_WAIT)
		answer_time(c);
	if (x->answer_body.state == KVPIN_BS_DONE)
		dispatch_answered(c);
	return end;
}

/* The server's side of the connection has ended, by FIN (err 0) or otherwise. */
static enum relay_end answer_ended(struct conn *c, int err)
{
	struct exchange *x = c->x;

	x->close_upstream = true;
	if (!x->answered)
		return RELAY_SERVER_LOST;
	if (err || x->server_reset || !x->head_done || !kvpin_body_ended(&x->answer_body))
		return RELAY_TRUNCATED;
	x->answer_body.state = KVPIN_BS_DONE;
	return RELAY_DONE;
}

enum relay_end relay_answer(struct conn *c)
{
	struct exchange *x = c->x;
	enum relay_end end;
	uint32_t room;
	ssize_t n;

	for (int round = 0; round < RELAY_ROUNDS; round++) {
		end = relay_flush(c);
		if (end != RELAY_DONE)
			return end;
		if (x->head_done && x->answer_body.state == KVPIN_BS_DONE)
			return RELAY_DONE;
		if (!x->head_done && buf_len(&c->out)) {
			/* What was read behind a 1xx that the client's socket did not take. */
			end = answer_process(c);
			if (end != RELAY_WAIT)
				return end;
			if (x->out_ready)
				continue;
		}
		room = x->bytes_down > RELAY_FIRST_READ_BYTES ? RELAY_READ_BYTES
							      : RELAY_FIRST_READ_BYTES;
		if (buf_len(&c->out))
			room = RELAY_HEAD_MORE_BYTES;
		if (buf_reserve(&c->worker->pool, &c->out, room))
			return RELAY_NO_MEMORY;
		n = steer_recv(c->worker, &c->current->steer, c->current->sock.fd,
			       c->out.mem + c->out.end, buf_room(&c->out));
		if (n <= 0) {
			int err = n ? errno : 0;

			if (!buf_len(&c->out))
				buf_release(&c->worker->pool, &c->out);
			if (would_block(err))
				return RELAY_WAIT;
			return answer_ended(c, err);
		}
		conn_touch(c);
		if (!x->answered) {
			x->answered = true;
			request_release_hold(c);
		}
		room = buf_room(&c->out) - n;
		c->out.end += n;
		end = answer_process(c);
		if (end != RELAY_WAIT)
			return end;
		if (room) {
			/* The socket is empty for now: spare the recv() that would say so. */
			end = relay_flush(c);
			if (end == RELAY_DONE &&
			    !(x->head_done && x->answer_body.state == KVPIN_BS_DONE))
				end = RELAY_WAIT;
			return end;
		}
	}
	/* An answer that ended with nothing more to pass on makes no socket ready. */
	return x->head_done && x->answer_body.state == KVPIN_BS_DONE && !x->out_ready ? RELAY_DONE
										      : RELAY_WAIT;
}
