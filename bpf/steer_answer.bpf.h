/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A server's segment, which belongs to the answer that is due: its framing is followed to the byte,
 * it is aimed at the client, timed and counted; behind the last one the client may ask again.
 *
 * answer_steer() is the order of all this.
 */
#ifndef STEER_ANSWER_BPF_H
#define STEER_ANSWER_BPF_H

#include "hist.bpf.h"
#include "steer_request.bpf.h"

/* The answer's head, in the scratch from the segment's start on. Sets s->body. */
static __always_inline __u32 answer_head(struct __sk_buff *skb, const struct kvpin_config *c,
					 struct scratch *s, __u8 method, __u32 *have)
{
	struct kvpin_head *h = &s->head;
	int step = head_load(skb, c, s, KVPIN_RESPONSE, have);

	if (step == KVPIN_STEP_MORE)
		return KVPIN_REFUSED_ANSWER_SPLIT;
	if (step != KVPIN_STEP_DONE)
		return KVPIN_REFUSED_ANSWER_MALFORMED;
	if (h->status < 200)
		return KVPIN_REFUSED_ANSWER_INTERIM;
	if (h->flags & KVPIN_HEAD_CLOSE)
		return KVPIN_REFUSED_ANSWER_CLOSE;
	if (!h->minor ||
	    h->flags & (KVPIN_HEAD_CONNECTION_LIST | KVPIN_HEAD_HOP | KVPIN_HEAD_UPGRADE))
		return KVPIN_REFUSED_ANSWER_FIELDS;
	if (h->flags & KVPIN_HEAD_EVENT_STREAM && c->flags & KVPIN_CONFIG_SPLICE)
		return KVPIN_REFUSED_ANSWER_STREAM;
	kvpin_body_of_response(&s->body, h, method);
	if (s->body.state == KVPIN_BS_CLOSE || s->body.state == KVPIN_BS_TUNNEL)
		return KVPIN_REFUSED_ANSWER_CLOSE;
	if (s->body.state == KVPIN_BS_COUNTED && s->body.left > c->budget)
		return KVPIN_REFUSED_ANSWER_BULK;
	return KVPIN_REFUSED_NONE;
}

/* Aim the segment at the client, if not too much is queued towards it already. */
static __always_inline __u32 answer_aim(struct __sk_buff *skb, struct kvpin_config *c,
					const struct kvpin_conn *conn, struct kvpin_upstream *u,
					__u32 *write_seq)
{
	struct kvpin_sock_key key = {.client = conn->cookie, .role = KVPIN_ROLE_CLIENT};
	struct bpf_sock *sk = bpf_map_lookup_elem(&sockets, &key);
	__u32 queued = 0, reason = KVPIN_REFUSED_NONE;
	struct tcp_sock *tp;

	if (!sk)
		return KVPIN_REFUSED_TARGET;
	tp = bpf_skc_to_tcp_sock(sk);
	if ((sk->state != TCP_ESTABLISHED && sk->state != TCP_CLOSE_WAIT) || !tp) {
		reason = KVPIN_REFUSED_TARGET;
	} else {
		*write_seq = tp->write_seq;
		queued = flow_queued(&conn->flow, tp);
	}
	bpf_sk_release(sk);
	if (reason)
		return reason;
	if (queued != u->share) {
		__sync_fetch_and_add(&c->queued, (__u64)queued - u->share);
		u->share = queued;
	}
	if (queued > c->budget)
		return KVPIN_REFUSED_BUDGET;
	if (queued && c->queued > c->budget_all)
		return KVPIN_REFUSED_BUDGET_ALL;
	if (bpf_sk_redirect_hash(skb, &sockets, &key, 0) != SK_PASS)
		return KVPIN_REFUSED_TARGET;
	return KVPIN_REFUSED_NONE;
}

/* Has a body of unknown length turned out to be one for the splice path? */
static __always_inline int answer_long(const struct kvpin_config *c, const struct kvpin_upstream *u,
				       const struct kvpin_body *b)
{
	if (!(c->flags & KVPIN_CONFIG_SPLICE) || b->payload < c->long_bytes ||
	    u->flags & (KVPIN_ANSWER_STREAM | KVPIN_ANSWER_STAYS))
		return 0;
	return b->state != KVPIN_BS_DONE && b->state != KVPIN_BS_COUNTED;
}

/* First token and gaps between tokens, as answer_time() in user/net/relay.c has them. */
static __always_inline void answer_time(struct kvpin_upstream *u, struct kvpin_counters *n,
					__u64 started_ns, __u64 now)
{
	int stream = u->flags & KVPIN_ANSWER_STREAM;

	if (u->flags & KVPIN_ANSWER_TOKEN && (!stream || u->events == u->body.events))
		return;
	if (stream && !u->body.events)
		return;
	if (!(u->flags & KVPIN_ANSWER_TOKEN)) {
		u->flags |= KVPIN_ANSWER_TOKEN;
		u->ttft_ns = now - started_ns;
		if (u->flags & KVPIN_ANSWER_LATER) {
			hist(n->ttft, ttft_le_ns, u->ttft_ns);
			__sync_fetch_and_add(&n->ttft_sum_ns, u->ttft_ns);
		} else {
			hist(n->ttft_first, ttft_le_ns, u->ttft_ns);
			__sync_fetch_and_add(&n->ttft_first_sum_ns, u->ttft_ns);
		}
	} else {
		hist(n->gap, gap_le_ns, now - u->token_ns);
		__sync_fetch_and_add(&n->gap_sum_ns, now - u->token_ns);
	}
	u->token_ns = now;
	u->events = u->body.events;
}

/* Returns a record that is to be submitted, or NULL. */
static __always_inline struct kvpin_event *event_done(const struct side *side,
						      const struct kvpin_conn *conn,
						      const struct kvpin_upstream *u, __u64 now)
{
	void *ring = bpf_map_lookup_elem(&rings, &side->worker);
	struct kvpin_event *e;

	e = ring ? bpf_ringbuf_reserve(ring, sizeof(*e), 0) : NULL;
	if (!e)
		return NULL;
	event_fill(e, side, KVPIN_EVENT_DONE, 0, 0, 0);
	e->started_ns = conn->started_ns;
	e->ended_ns = now;
	e->ttft_ns = u->ttft_ns;
	e->session = conn->session;
	e->keyed = conn->keyed;
	e->flags = u->flags;
	e->bytes_up = conn->bytes_up;
	e->bytes_down = u->bytes_down;
	e->backend = u->backend;
	e->status = u->status;
	e->context = conn->context;
	e->wait_ms = conn->wait_ms;
	return e;
}

/* Does the daemon want to hear of this exchange? */
static __always_inline int answer_told(const struct kvpin_config *c, const struct kvpin_conn *conn,
				       const struct kvpin_upstream *u,
				       const struct kvpin_backend *b)
{
	const __u32 first = KVPIN_ANSWER_FIRST_HERE | KVPIN_ANSWER_COUNTED;

	if (conn->tell || c->flags & KVPIN_CONFIG_EVENTS || (b && b->slots))
		return 1;
	return u->ttft_ns > c->slow_ns || (u->flags & first) == KVPIN_ANSWER_FIRST_HERE;
}

/* The answer is complete: its last segment is on its way. */
static __always_inline void answer_done(const struct side *side, struct kvpin_config *c,
					struct kvpin_conn *conn, struct kvpin_upstream *u,
					struct kvpin_counters *n, __u64 now)
{
	const __u32 quiet = KVPIN_ANSWER_LATER | KVPIN_ANSWER_STREAM | KVPIN_ANSWER_COUNTED;
	struct kvpin_event *e = NULL;
	struct kvpin_backend *b;
	__u32 at = u->backend, running;
	int told;

	b = bpf_map_lookup_elem(&backends, &at);
	u->phase = KVPIN_PHASE_IDLE;
	if (u->share) {
		__sync_fetch_and_sub(&c->queued, (__u64)u->share);
		u->share = 0;
	}
	told = answer_told(c, conn, u, b);
	if (told)
		e = event_done(side, conn, u, now);
	else if ((u->flags & quiet) == (KVPIN_ANSWER_LATER | KVPIN_ANSWER_STREAM))
		__sync_fetch_and_add(&n->untold, 1);
	/* From here on the client's next request may be looked at. */
	running = __sync_lock_test_and_set(&conn->running, 0);
	/* 0: the daemon has settled it. */
	if (running) {
		__sync_fetch_and_add(&n->requests, 1);
		if (b)
			__sync_fetch_and_add(&b->inflight, -1);
	}
	/* Last: whoever waits for the slot finds it free, and the scan for lost events that the
	 * answer is over. */
	if (e)
		bpf_ringbuf_submit(e, 0);
	else if (told)
		ring_lost();
}

static __always_inline __u32 answer_steer(struct __sk_buff *skb, const struct side *side,
					  struct kvpin_conn *conn, struct kvpin_upstream *u,
					  struct scratch *s)
{
	__u32 zero = 0, reason, write_seq = 0, pos = 0, have = 0, len = skb->len, at = u->backend;
	struct kvpin_config *c = bpf_map_lookup_elem(&config, &zero);
	struct kvpin_counters *n = bpf_map_lookup_elem(&counters, &at);
	__u64 now = bpf_ktime_get_ns();
	int head = u->phase == KVPIN_PHASE_AWAIT;

	if (!c || !n)
		return KVPIN_REFUSED_OFF;
	if (u->phase == KVPIN_PHASE_IDLE)
		return KVPIN_REFUSED_UNASKED;
	if (head) {
		reason = answer_head(skb, c, s, u->method, &have);
		if (reason)
			return reason;
		pos = s->head.pos;
	} else {
		s->body = u->body;
		/* Without chunks an event's beginning is not known; a segment stands for it. */
		if (s->body.state == KVPIN_BS_COUNTED || s->body.state == KVPIN_BS_CLOSE)
			s->body.fresh = 1;
	}
	pos = body_walk(skb, s, pos, have);
	if (s->body.state == KVPIN_BS_BAD)
		return KVPIN_REFUSED_ANSWER_MALFORMED;
	if (pos < len)
		return s->body.state == KVPIN_BS_DONE ? KVPIN_REFUSED_TRAILING
						      : KVPIN_REFUSED_CHUNKS;
	if (answer_long(c, u, &s->body))
		return KVPIN_REFUSED_ANSWER_LONG;
	reason = answer_aim(skb, c, conn, u, &write_seq);
	if (reason)
		return reason;

	flow_queue(&conn->flow, write_seq, len);
	u->flow.redirected += len;
	u->flow.last_ns = now;
	u->bytes_down += len;
	u->body = s->body;
	__sync_fetch_and_add(&n->bytes_down, len);
	if (head) {
		u->phase = KVPIN_PHASE_BODY;
		u->status = s->head.status;
		if (s->head.flags & KVPIN_HEAD_EVENT_STREAM)
			u->flags |= KVPIN_ANSWER_STREAM;
		hold_release(conn);
	}
	answer_time(u, n, conn->started_ns, now);
	if (u->body.state == KVPIN_BS_DONE)
		answer_done(side, c, conn, u, n, now);
	return KVPIN_REFUSED_NONE;
}

#endif
