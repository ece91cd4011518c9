/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Taking one client connection back from the kernel.
 *
 * Happy path: steer_reclaim() stops the programs, waits until their queues are empty, and the relay
 * goes on with what is known of a running exchange. Failures: a client that takes nothing is left
 * to the timeouts of its state. Close: steer_settle() stops the programs, the books are the
 * daemon's again, steer_sock_close() does the rest.
 *
 * Order matters (tests/model/): the daemon sends to a socket again only when TCP has taken all that
 * was redirected into it; the ring's bytes come before those of recv().
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "net/conn.h"
#include "net/exchange.h"
#include "net/steer_private.h"
#include "net/tcp_probe.h"
#include "net/upstream.h"

/* How often a queue that a slow client leaves full is looked at. */
#define POLL_MIN_MS 1
#define POLL_MAX_MS 32
/* A verdict runs for microseconds; a CPU may be away for longer. */
#define WALKED_MS 2000

struct upstream *steer_running(const struct conn *c)
{
	uint32_t running = __atomic_load_n(&steer_kconn(c)->running, __ATOMIC_SEQ_CST);
	struct upstream *u = c->upstreams;

	while (u && (!running || u->steer.entry != running))
		u = u->next;
	return u;
}

uint64_t steer_active_ms(const struct conn *c)
{
	uint64_t last_ns = steer_kconn(c)->flow.last_ns;

	for (const struct upstream *u = c->upstreams; u; u = u->next)
		if (u->steer.entry && steer_kupstream(c->worker, &u->steer)->flow.last_ns > last_ns)
			last_ns = steer_kupstream(c->worker, &u->steer)->flow.last_ns;
	return last_ns / 1000000;
}

/* No verdict redirects this socket's bytes from here on, and none is still at it. */
static void sock_take(struct worker *w, struct steer_sock *s)
{
	struct kvpin_flow *flow = steer_flow(w, s);
	uint64_t word, until_ms = 0;

	if (!s->armed)
		return;
	s->armed = false;
	s->laned = true;
	do {
		word = word_get(flow);
		if (!(word & KVPIN_WORD_REDIRECT))
			return;
	} while (!word_change(flow, word, KVPIN_WORD_LANE | (word & KVPIN_WORD_POSITION)));
	word &= KVPIN_WORD_POSITION;
	while (__atomic_load_n(&flow->walked, __ATOMIC_SEQ_CST) < word) {
		uint64_t now_ms = balancer_now_ms();

		if (!until_ms)
			until_ms = now_ms + WALKED_MS;
		if (now_ms > until_ms) {
			LOG(ERROR, "a verdict did not end in time", F_UINT("position", word));
			break;
		}
		sched_yield();
	}
}

uint64_t steer_sock_behind(const struct worker *w, const struct steer_sock *s, int fd)
{
	const struct kvpin_flow *flow = steer_flow(w, s);
	uint64_t expected = s->taken + (flow->queued - s->queued), taken;
	struct tcp_probe p;

	if (flow->queued == s->queued || !tcp_probe(fd, &p) || p.state == TCP_PROBE_CLOSED)
		return 0;
	tcp_taken(fd, &p, &taken);
	return expected > taken ? expected - taken : 0;
}

static void hold_give_back(struct conn *c, bool wanted)
{
	struct kern *kern = worker_kern(c->worker);
	struct kvpin_conn *k = steer_kconn(c);
	uint32_t index = __atomic_exchange_n(&k->hold, 0, __ATOMIC_SEQ_CST);
	uint32_t len = k->bytes_up;

	if (!index--)
		return;
	if (wanted && !buf_reserve(&c->worker->pool, &c->in, len)) {
		memcpy(c->in.mem + c->in.end, kern->holds[index].bytes, len);
		c->in.end += len;
		c->x->ready = c->x->sent = len;
		c->x->held = true;
	}
	kern_hold_put(kern, index);
}

void steer_share_give_back(struct worker *w, struct kvpin_upstream *k)
{
	uint32_t share = __atomic_exchange_n(&k->share, 0, __ATOMIC_SEQ_CST);

	if (share)
		__atomic_fetch_sub(&worker_kern(w)->config->queued, share, __ATOMIC_SEQ_CST);
}

/* The exchange that the kernel carried, as the relay wants it. @entry: of its upstream. */
static int exchange_rebuild(struct conn *c, uint32_t entry, bool wanted)
{
	struct balancer *b = c->worker->balancer;
	const struct kvpin_conn *k = steer_kconn(c);
	const struct kvpin_upstream *ku = &worker_kern(c->worker)->upstreams[entry - 1];
	struct exchange *x;

	if (exchange_begin(c))
		return -ENOMEM;
	x = c->x;
	x->request.method = ku->method;
	x->request.minor = 1;
	x->request_body.state = KVPIN_BS_DONE;
	x->keyed = k->keyed;
	x->session = k->session;
	x->later_turn = ku->flags & KVPIN_ANSWER_LATER;
	x->first_here = ku->flags & KVPIN_ANSWER_FIRST_HERE;
	x->over = ku->flags & KVPIN_ANSWER_OVER;
	x->bound = true;
	x->context = k->context;
	x->wait_ns = k->wait_ms * 1000000ULL;
	x->request_body.payload = k->bytes_up;
	x->sent_ns = k->started_ns + x->wait_ns;
	x->control = x->keyed && guard_control(x->session, c->worker->config->experiment_milli);
	x->reason = DECIDE_PINNED;
	x->attempts = 1;
	x->backend = &b->backends.slot[ku->backend];
	x->started_ns = k->started_ns;
	x->bytes_up = k->bytes_up;
	x->bytes_down = ku->bytes_down;
	x->ttft_ns = ku->ttft_ns;
	x->token_ns = ku->token_ns;
	x->token_seen = ku->flags & KVPIN_ANSWER_TOKEN;
	x->events = ku->events;
	if (ku->phase == KVPIN_PHASE_BODY) {
		x->answered = x->head_done = x->head_sent = true;
		x->status = x->answer.status = ku->status;
		x->answer_body = ku->body;
		if (ku->flags & KVPIN_ANSWER_STREAM)
			x->answer.flags |= KVPIN_HEAD_EVENT_STREAM;
	}
	hold_give_back(c, wanted && !x->answered);
	return 0;
}

/* One whose answer ended in the moment when it was taken is idle, and was not listened to. */
static void upstreams_watch(struct conn *c)
{
	for (struct upstream *u = c->upstreams; u; u = u->next)
		if (!u->steer.armed)
			sock_want(&u->sock, UV_READABLE);
}

/* All queues are empty: the relay goes on. */
static void steer_resume(struct conn *c)
{
	struct kvpin_conn *k = steer_kconn(c);
	struct upstream *u = steer_running(c);
	uint32_t running = __atomic_exchange_n(&k->running, 0, __ATOMIC_SEQ_CST);
	uint64_t active_ms = steer_active_ms(c);

	if (active_ms < c->activity_ms)
		active_ms = c->activity_ms;
	stat_add(&c->worker->stats->reclaimed, 1);
	if (u)
		steer_share_give_back(c->worker, steer_kupstream(c->worker, &u->steer));
	if (!running) {
		upstreams_watch(c);
		conn_next(c);
	} else if (exchange_rebuild(c, running, true)) {
		conn_close(c, CONN_CLOSE_NO_MEMORY);
	} else {
		c->current = u;
		if (u)
			c->x->close_upstream = u->steer.once;
		conn_set_state(c, CONN_EXCHANGE);
	}
	if (c->state == CONN_HEAD || c->state == CONN_EXCHANGE) {
		/* The clocks go on as if nothing had happened. */
		c->activity_ms = active_ms;
		conn_rearm(c);
	}
	if (running && !u && c->state == CONN_EXCHANGE)
		conn_on_upstream_lost(c);
}

void steer_poll_later(struct conn *c)
{
	if (c->steer.poll_ms < POLL_MAX_MS)
		c->steer.poll_ms *= 2;
}

bool steer_reclaim_poll(struct conn *c)
{
	struct worker *w = c->worker;
	const struct upstream *u = steer_running(c);
	uint64_t behind = steer_sock_behind(w, &c->steer.sock, c->sock.fd);

	if (u && !u->steer.draining)
		behind += steer_sock_behind(w, &u->steer, u->sock.fd);
	if (!behind) {
		steer_resume(c);
		return true;
	}
	if (behind != c->steer.drained) {
		conn_touch(c);
		c->steer.poll_ms = POLL_MIN_MS;
	} else {
		steer_poll_later(c);
	}
	c->steer.drained = behind;
	return false;
}

/*
 * A server may answer before it has taken the request, and never take the rest. Waiting for its
 * queue to drain would be in vain then, and meanwhile the answer would come by the ring, without
 * back-pressure, for PASS is not allowed on such a socket and would leave the answer behind the
 * request. Without a verdict, but still in a map, which keeps the queue alive, it is read like any
 * other socket. Not one that has left LANE because the ring was full: what was passed then is
 * behind the request, and what is received now would come before it.
 */
static void upstream_drain(struct upstream *u)
{
	struct worker *w = u->conn->worker;
	struct steer_sock *s = &u->steer;
	struct kvpin_flow *flow = steer_flow(w, s);
	struct kvpin_sock_key key = {.client = s->client, .role = s->role};
	struct tcp_probe p;

	if (s->draining || !(word_get(flow) & KVPIN_WORD_LANE) ||
	    !steer_sock_behind(w, s, u->sock.fd) ||
	    kern_sock_drain(worker_kern(w), u->sock.fd, &key))
		return;
	s->draining = s->once = true;
	/* Takes the socket's lock: no verdict runs behind it. */
	tcp_probe(u->sock.fd, &p);
	if (!(__atomic_fetch_and(&flow->word, ~KVPIN_WORD_LANE, __ATOMIC_SEQ_CST) &
	      KVPIN_WORD_LANE)) {
		u->conn->steer.overrun = true;
		steer_todo(u->conn);
	}
}

bool steer_upstream_owed(const struct upstream *u)
{
	return u->steer.draining && steer_sock_behind(u->conn->worker, &u->steer, u->sock.fd) > 0;
}

static void upstream_take(struct upstream *u)
{
	sock_take(u->conn->worker, &u->steer);
	upstream_drain(u);
}

void steer_reclaim(struct conn *c)
{
	struct worker *w = c->worker;
	uint64_t activity_ms = c->activity_ms;
	struct upstream *u = steer_running(c);

	if (u)
		upstream_take(u);
	sock_take(w, &c->steer.sock);
	/* A request may have got in before the client's word was taken. */
	if (!u && (u = steer_running(c)))
		upstream_take(u);
	/* Neither gets any more. The ring has no back-pressure: a server that goes on must find its
	 * way to recv() at once, not only when the client has taken what is queued. */
	if (u) {
		steer_flow(w, &u->steer)->may_leave = 1;
		sock_want(&u->sock, 0);
	}
	steer_flow(w, &c->steer.sock)->may_leave = 1;
	c->steer.poll_ms = POLL_MIN_MS;
	c->steer.drained = 0;
	conn_set_state(c, CONN_RECLAIM);
	c->activity_ms = activity_ms;
	steer_reclaim_poll(c);
}

void steer_settle(struct conn *c)
{
	struct kvpin_conn *k = steer_kconn(c);
	struct upstream *u;
	uint32_t running;

	for (u = c->upstreams; u; u = u->next)
		sock_take(c->worker, &u->steer);
	sock_take(c->worker, &c->steer.sock);
	/* What is still queued dies with the socket's map entry: no clean end then. */
	if (steer_sock_behind(c->worker, &c->steer.sock, c->sock.fd))
		c->reset_client = true;
	running = __atomic_exchange_n(&k->running, 0, __ATOMIC_SEQ_CST);
	if (running && !c->x && exchange_rebuild(c, running, false))
		backend_inflight_add(
			&c->worker->balancer->backends
				 .slot[worker_kern(c->worker)->upstreams[running - 1].backend],
			-1);
	hold_give_back(c, false);
}

bool steer_upstream_take(struct upstream *u)
{
	struct worker *w = u->conn->worker;

	if (!u->steer.armed)
		return true;
	__atomic_store_n(&steer_kconn(u->conn)->upstream[u->slot], 0, __ATOMIC_SEQ_CST);
	sock_take(w, &u->steer);
	steer_flow(w, &u->steer)->may_leave = 1;
	return !steer_sock_behind(w, &u->steer, u->sock.fd);
}

void steer_upstream_leave(struct upstream *u)
{
	struct kvpin_conn *k;

	if (!u->steer.entry)
		return;
	steer_share_give_back(u->conn->worker, steer_kupstream(u->conn->worker, &u->steer));
	if (!u->conn->steer.sock.entry)
		return;
	k = steer_kconn(u->conn);
	if (k->upstream[u->slot] == u->steer.entry)
		__atomic_store_n(&k->upstream[u->slot], 0, __ATOMIC_SEQ_CST);
}

bool steer_upstream_ended(struct upstream *u)
{
	struct conn *c = u->conn;

	if (c->state != CONN_STEER)
		return c->current != u && (c->state != CONN_RECLAIM || steer_running(c) != u);
	__atomic_store_n(&steer_kconn(c)->upstream[u->slot], 0, __ATOMIC_SEQ_CST);
	if (steer_running(c) != u)
		return true;
	steer_reclaim(c);
	return false;
}

/* ---- reading ---- */

uint64_t steer_received(const struct worker *w, const struct steer_sock *s)
{
	return s->received + (s->entry ? steer_flow(w, s)->redirected : 0);
}

static ssize_t lane_read(struct steer_sock *s, void *buf, size_t room)
{
	uint32_t n = s->lane_len - s->lane_at;

	if (n > room)
		n = room;
	memcpy(buf, s->lane + s->lane_at, n);
	s->lane_at += n;
	if (s->lane_at == s->lane_len) {
		free(s->lane);
		s->lane = NULL;
		s->lane_at = s->lane_len = 0;
	}
	return n;
}

ssize_t steer_recv(struct worker *w, struct steer_sock *s, int fd, void *buf, size_t room)
{
	bool lane = false;
	ssize_t n;

	if (s->laned) {
		/* What is in the ring came before what recv() has; once the word has left LANE,
		 * the ring gets no more. */
		lane = word_get(steer_flow(w, s)) & KVPIN_WORD_LANE;
		steer_consume(w);
		s->laned = lane;
	}
	if (steer_waiting(s))
		return lane_read(s, buf, room);
	n = recv(fd, buf, room, 0);
	if (!n && lane) {
		/* Bytes that came right before the FIN went into the ring behind that look. */
		steer_consume(w);
		if (steer_waiting(s))
			return lane_read(s, buf, room);
	}
	if (n <= 0)
		return n;
	if (lane) {
		/* It left LANE just now; its last bytes in the ring come before these. */
		steer_consume(w);
		if (steer_waiting(s)) {
			if (!steer_lane_add(w, s, buf, n)) {
				errno = ENOMEM;
				return -1;
			}
			return lane_read(s, buf, room);
		}
	}
	s->received += n;
	return n;
}
