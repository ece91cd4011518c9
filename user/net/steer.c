/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Handing one client connection over to the kernel.
 *
 * Happy path: steer_between() or steer_within() hand over, the kernel carries exchange after
 * exchange, the daemon sleeps. The sockets enter the maps at their first hand-over: within an
 * answer that goes on, or when the client has asked twice. To enter and to leave costs about as
 * much as the relay of a small exchange, and who asked once may never ask again; who asked twice
 * mostly does. Failures: a gate that says no leaves the connection with the relay, the reason is
 * counted. Close: steer_reclaim.c.
 *
 * Order matters (tests/model/): within an answer the client's word changes before the server's.
 */
#include "net/steer.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "net/conn.h"
#include "net/exchange.h"
#include "net/steer_private.h"
#include "net/tcp_probe.h"
#include "net/upstream.h"

/* After this many requests in a row that were passed up, hand over only every so many times. */
#define PASSED_MAX   8
#define PASSED_EVERY 16
/* After a budget was exceeded the relay keeps the answer this long, twice as long each time. */
#define SLOW_MS	       50
#define SLOW_DOUBLINGS 6

/* ---- entering the maps ---- */

static uint64_t sock_cookie(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len);
	return cookie;
}

static bool client_enter(struct conn *c)
{
	struct worker *w = c->worker;
	struct steer *st = w->steer.steer;
	struct steer_sock *s = &c->steer.sock;
	struct kvpin_sock_key key = {.role = KVPIN_ROLE_CLIENT};
	struct kvpin_sock_ref ref;
	struct kvpin_conn *k;
	uint32_t slot;
	int err;

	if (s->entry)
		return true;
	slot = steer_entry_take(st, &st->conns);
	if (slot == UINT32_MAX)
		return steer_refuse(w, KVPIN_REFUSED_NO_SLOT);
	s->cookie = s->client = key.client = sock_cookie(c->sock.fd);
	s->role = KVPIN_ROLE_CLIENT;
	k = &st->kern.conns[slot];
	memset(k, 0, sizeof(*k));
	k->cookie = s->cookie;
	k->worker = w->index;
	ref = (struct kvpin_sock_ref){.conn = slot};
	err = kern_sock_add(&st->kern, c->sock.fd, &key, s->cookie, &ref);
	if (err) {
		steer_entry_give(st, &st->conns, slot);
		return steer_refuse(w, err == -EOPNOTSUPP ? KVPIN_REFUSED_NOT_ESTABLISHED
							  : KVPIN_REFUSED_MAP);
	}
	s->entry = slot + 1;
	st->conn[slot] = c;
	return true;
}

static bool upstream_enter(struct conn *c, struct upstream *u)
{
	struct worker *w = c->worker;
	struct steer *st = w->steer.steer;
	struct steer_sock *s = &u->steer;
	struct kvpin_sock_key key = {.client = c->steer.sock.cookie, .role = u->slot};
	struct kvpin_sock_ref ref = {.conn = c->steer.sock.entry - 1};
	struct kvpin_upstream *k;
	uint32_t entry;
	int err;

	if (s->entry)
		return true;
	entry = steer_entry_take(st, &st->upstreams);
	if (entry == UINT32_MAX)
		return steer_refuse(w, KVPIN_REFUSED_NO_SLOT);
	s->cookie = sock_cookie(u->sock.fd);
	s->client = key.client;
	s->role = u->slot;
	k = &st->kern.upstreams[entry];
	memset(k, 0, sizeof(*k));
	k->conn = ref.conn;
	k->backend = u->slot;
	k->epoch = u->epoch;
	ref.upstream = entry + 1;
	err = kern_sock_add(&st->kern, u->sock.fd, &key, s->cookie, &ref);
	if (err) {
		steer_entry_give(st, &st->upstreams, entry);
		return steer_refuse(w, err == -EOPNOTSUPP ? KVPIN_REFUSED_NOT_ESTABLISHED
							  : KVPIN_REFUSED_MAP);
	}
	s->entry = entry + 1;
	return true;
}

/* ---- hand-over ---- */

/* Has the daemon consumed all that came up? Sets what sock_arm() needs. */
static bool sock_ready(struct worker *w, struct steer_sock *s, int fd, uint64_t *word)
{
	const struct kvpin_flow *flow = steer_flow(w, s);
	struct tcp_probe p;

	/* Read first: bytes that come after this change the word. */
	*word = word_get(flow);
	if (!tcp_probe(fd, &p) || p.state != TCP_PROBE_ESTABLISHED)
		return steer_refuse(w, KVPIN_REFUSED_NOT_ESTABLISHED);
	if (steer_waiting(s) || p.received != s->received + flow->redirected)
		return steer_refuse(w, KVPIN_REFUSED_UNREAD);
	if (!tcp_taken(fd, &p, &s->taken))
		return steer_refuse(w, KVPIN_REFUSED_RACED);
	s->queued = flow->queued;
	return true;
}

static bool sock_arm(struct worker *w, struct steer_sock *s, uint64_t word)
{
	struct kvpin_flow *flow = steer_flow(w, s);
	uint32_t may_leave = flow->may_leave;

	flow->seq_known = 0;
	flow->may_leave = 0;
	flow->walked = word & KVPIN_WORD_POSITION;
	if (!word_change(flow, word, KVPIN_WORD_REDIRECT | (word & KVPIN_WORD_POSITION))) {
		/* Or a socket in LANE would stay there: the ring has no back-pressure. */
		flow->may_leave = may_leave;
		return steer_refuse(w, KVPIN_REFUSED_RACED);
	}
	s->armed = true;
	s->laned = false;
	return true;
}

/* What both kinds of hand-over want of the client's connection. */
static bool client_gate(struct conn *c)
{
	struct worker *w = c->worker;

	if (w->draining || c->client_eof || c->client_rdhup)
		return steer_refuse(w, KVPIN_REFUSED_NOT_ESTABLISHED);
	if (c->steer.pipelines)
		return steer_refuse(w, KVPIN_REFUSED_PIPELINES);
	if (buf_len(&c->in) || steer_waiting(&c->steer.sock))
		return steer_refuse(w, KVPIN_REFUSED_UNREAD);
	return client_enter(c);
}

/* Requests that were all passed up cost more than they would have in the relay. */
static bool passed_gate(struct conn *c)
{
	struct steer_conn *s = &c->steer;
	uint64_t redirected = steer_kconn(c)->flow.redirected;

	if (redirected != s->redirected) {
		s->redirected = redirected;
		if (!s->answer_passed)
			s->passed = 0;
	}
	s->answer_passed = false;
	if (s->passed < PASSED_MAX || ++s->skipped % PASSED_EVERY == 0)
		return true;
	return steer_refuse(c->worker, KVPIN_REFUSED_PASSED);
}

static bool upstream_arm_idle(struct conn *c, struct upstream *u)
{
	struct worker *w = c->worker;
	struct kvpin_upstream *k;
	uint64_t word;

	if (u->steer.armed)
		return true;
	if (u->connecting || u->steer.once || !upstream_enter(c, u) ||
	    !sock_ready(w, &u->steer, u->sock.fd, &word))
		return false;
	k = steer_kupstream(w, &u->steer);
	k->phase = KVPIN_PHASE_IDLE;
	if (!sock_arm(w, &u->steer, word))
		return false;
	__atomic_store_n(&steer_kconn(c)->upstream[u->slot], u->steer.entry, __ATOMIC_SEQ_CST);
	sock_want(&u->sock, UV_DISCONNECT);
	return true;
}

void steer_answered(struct conn *c)
{
	c->steer.asked_again = c->steer.asked;
	c->steer.asked = true;
}

bool steer_between(struct conn *c)
{
	struct worker *w = c->worker;
	struct kvpin_conn *k;
	unsigned int armed = 0;
	uint64_t word;

	if (!w->steer.steer || !c->upstreams)
		return false;
	if (!c->steer.sock.entry && !c->steer.asked_again)
		return false;
	if (!client_gate(c) || !passed_gate(c))
		return false;
	if (!(worker_kern(w)->config->flags & KVPIN_CONFIG_REQUESTS))
		return steer_refuse(w, KVPIN_REFUSED_OFF);
	for (struct upstream *u = c->upstreams; u; u = u->next)
		armed += upstream_arm_idle(c, u);
	if (!armed || !sock_ready(w, &c->steer.sock, c->sock.fd, &word))
		return false;
	k = steer_kconn(c);
	k->tell = 0;
	if (!sock_arm(w, &c->steer.sock, word))
		return false;
	c->steer.slow = 0;
	stat_add(&w->stats->handed_over, 1);
	conn_set_state(c, CONN_STEER);
	return true;
}

static bool can_splice(const struct conn *c)
{
	return c->worker->steer.steer->splice && c->splice.sock.entry && c->current->splice.entry;
}

static bool answer_gate(struct conn *c)
{
	const struct exchange *x = c->x;
	const struct kvpin_body *body = &x->answer_body;
	struct worker *w = c->worker;
	struct steer_conn *s = &c->steer;
	unsigned int doublings = s->slow < SLOW_DOUBLINGS ? s->slow : SLOW_DOUBLINGS;

	if (x->request_body.state != KVPIN_BS_DONE || x->sent != x->ready || x->discard ||
	    c->eof_passed || x->server_reset || !x->head_sent || x->out_ready || buf_len(&c->out) ||
	    x->plain_body || body->state == KVPIN_BS_DONE || body->state == KVPIN_BS_BAD ||
	    body->state == KVPIN_BS_TUNNEL || c->current->steer.draining)
		return false;
	if (x->answer.flags & KVPIN_HEAD_EVENT_STREAM && can_splice(c))
		return steer_refuse(w, KVPIN_REFUSED_ANSWER_STREAM);
	if (body->state != KVPIN_BS_COUNTED && body->payload >= w->config->splice.body_bytes &&
	    can_splice(c))
		return steer_refuse(w, KVPIN_REFUSED_ANSWER_LONG);
	if (body->state == KVPIN_BS_COUNTED && body->left > worker_kern(w)->config->budget)
		return steer_refuse(w, KVPIN_REFUSED_ANSWER_BULK);
	if (s->slow && uv_now(&w->loop) < s->slow_ms + ((uint64_t)SLOW_MS << doublings))
		return steer_refuse(w, KVPIN_REFUSED_BUDGET);
	return true;
}

static void answer_describe(struct conn *c, struct upstream *u)
{
	const struct exchange *x = c->x;
	struct kvpin_conn *k = steer_kconn(c);
	struct kvpin_upstream *ku = steer_kupstream(c->worker, &u->steer);

	ku->phase = KVPIN_PHASE_BODY;
	ku->body = x->answer_body;
	ku->flags = (x->answer.flags & KVPIN_HEAD_EVENT_STREAM ? KVPIN_ANSWER_STREAM : 0) |
		    (x->token_seen ? KVPIN_ANSWER_TOKEN : 0) |
		    (x->later_turn ? KVPIN_ANSWER_LATER : 0) |
		    (x->first_here ? KVPIN_ANSWER_FIRST_HERE : 0) |
		    (x->over ? KVPIN_ANSWER_OVER : 0) | KVPIN_ANSWER_DAEMON |
		    (x->token_seen ? KVPIN_ANSWER_COUNTED : 0) |
		    (can_splice(c) ? 0 : KVPIN_ANSWER_STAYS);
	ku->method = x->request.method;
	ku->status = x->status;
	ku->token_ns = x->token_ns;
	ku->ttft_ns = x->ttft_ns;
	ku->bytes_down = x->bytes_down;
	ku->events = x->events;
	k->started_ns = x->started_ns;
	k->session = x->session;
	k->keyed = x->keyed;
	k->bytes_up = x->bytes_up;
	k->context = (uint32_t)x->context;
	k->wait_ms = (uint32_t)(x->wait_ns / 1000000);
	k->tell = c->close_after;
	k->hold = 0;
	__atomic_store_n(&k->running, u->steer.entry, __ATOMIC_SEQ_CST);
}

bool steer_within(struct conn *c)
{
	struct worker *w = c->worker;
	struct upstream *u = c->current;
	uint64_t client_word, server_word;

	if (!w->steer.steer || !answer_gate(c) || !client_gate(c) || !upstream_enter(c, u) ||
	    !sock_ready(w, &u->steer, u->sock.fd, &server_word) ||
	    !sock_ready(w, &c->steer.sock, c->sock.fd, &client_word))
		return false;
	u->used = true;
	u->steer.once = c->x->close_upstream;
	answer_describe(c, u);
	if (!sock_arm(w, &c->steer.sock, client_word)) {
		steer_kconn(c)->running = 0;
		return false;
	}
	stat_add(&w->stats->handed_over, 1);
	/* In flight until the kernel, or we again, say otherwise. */
	c->x->backend = NULL;
	exchange_end(c);
	c->current = NULL;
	conn_set_state(c, CONN_STEER);
	if (!u->steer.once)
		__atomic_store_n(&steer_kconn(c)->upstream[u->slot], u->steer.entry,
				 __ATOMIC_SEQ_CST);
	sock_want(&u->sock, UV_DISCONNECT);
	if (!sock_arm(w, &u->steer, server_word))
		steer_reclaim(c);
	return true;
}
