/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A client's segment that must be one whole request: its head is parsed, its session's server
 * looked up, a slot taken, a copy held, and the segment aimed at the connection with that server.
 *
 * request_steer() is the order of all this. What fails gives back what was taken, and says why.
 */
#ifndef STEER_REQUEST_BPF_H
#define STEER_REQUEST_BPF_H

#include "steer_segment.bpf.h"

struct request {
	struct kvpin_session *pin;
	struct kvpin_backend *backend;
	struct kvpin_upstream *u;
	__u32 entry; /* of u */
	__u64 session;
};

/* Is the scratch's head that of a request that can go on as it is? */
static __always_inline __u32 request_head(struct __sk_buff *skb, const struct kvpin_config *c,
					  struct scratch *s)
{
	struct kvpin_head *h = &s->head;
	__u32 have, end;
	int step = head_load(skb, c, s, KVPIN_REQUEST, &have);

	if (step == KVPIN_STEP_MORE)
		return KVPIN_REFUSED_SPLIT;
	if (step != KVPIN_STEP_DONE || h->start)
		return KVPIN_REFUSED_MALFORMED;
	if (!h->minor)
		return KVPIN_REFUSED_VERSION;
	if (h->method == KVPIN_METHOD_CONNECT)
		return KVPIN_REFUSED_METHOD;
	if (h->flags & KVPIN_HEAD_UPGRADE)
		return KVPIN_REFUSED_UPGRADE;
	if (h->flags & (KVPIN_HEAD_CLOSE | KVPIN_HEAD_CONNECTION_LIST))
		return KVPIN_REFUSED_CONNECTION;
	if (h->flags & KVPIN_HEAD_HOP)
		return KVPIN_REFUSED_HOP;
	if (h->flags & KVPIN_HEAD_EXPECT)
		return KVPIN_REFUSED_EXPECT;
	if (h->key_rank == KVPIN_KEY_NONE)
		return KVPIN_REFUSED_KEYLESS;
	if (h->key_len > KVPIN_KEY_BYTES || h->flags & KVPIN_HEAD_KEY_REPEATED)
		return KVPIN_REFUSED_KEY;

	kvpin_body_of_request(&s->body, h);
	end = h->pos;
	if (s->body.state == KVPIN_BS_COUNTED) {
		if (s->body.left > KVPIN_HOLD_BYTES)
			return KVPIN_REFUSED_LARGE;
		end += s->body.left;
	} else if (s->body.state != KVPIN_BS_DONE) {
		end = body_walk(skb, s, end, have);
		if (s->body.state == KVPIN_BS_BAD)
			return KVPIN_REFUSED_MALFORMED;
		if (s->body.state != KVPIN_BS_DONE)
			return KVPIN_REFUSED_SPLIT;
	}
	if (end > skb->len)
		return end > KVPIN_HOLD_BYTES ? KVPIN_REFUSED_LARGE : KVPIN_REFUSED_SPLIT;
	return end < skb->len ? KVPIN_REFUSED_TWO : KVPIN_REFUSED_NONE;
}

/* The pinned server, and an open connection to it with nothing under way. */
static __always_inline __u32 request_owner(const struct kvpin_conn *conn, __u32 slot,
					   struct request *r)
{
	struct kvpin_session *pin = bpf_map_lookup_elem(&sessions, &r->session);
	struct kvpin_backend *b;
	__u32 at;

	if (!pin)
		return KVPIN_REFUSED_NO_PIN;
	at = pin->backend;
	b = bpf_map_lookup_elem(&backends, &at);
	if (!b || b->state != KVPIN_BACKEND_UP || !b->weight)
		return KVPIN_REFUSED_BACKEND;
	if (b->drain_idle_ms &&
	    bpf_ktime_get_ns() > pin->last_used_ns + b->drain_idle_ms * 1000000ULL)
		return KVPIN_REFUSED_BACKEND;
	/* A hint that spares the rest; request_take() decides. */
	if (b->slots && b->inflight + b->waiting >= b->slots)
		return KVPIN_REFUSED_SLOTS;
	r->pin = pin;
	r->backend = b;
	kvpin_opaque(at);
	if (at >= KVPIN_BACKENDS_MAX || !conn->upstream[at])
		return KVPIN_REFUSED_NO_UPSTREAM;
	r->entry = conn->upstream[at] - 1;
	r->u = bpf_map_lookup_elem(&upstreams, &r->entry);
	if (!r->u || r->u->conn != slot || r->u->backend != at || r->u->epoch != b->epoch ||
	    r->u->phase != KVPIN_PHASE_IDLE || !(r->u->flow.word & KVPIN_WORD_REDIRECT))
		return KVPIN_REFUSED_NO_UPSTREAM;
	return KVPIN_REFUSED_NONE;
}

/* Count the request in flight, if there is a slot for it: one atomic step, as backend_take() does
 * it. For a moment the count may be one too high, and somebody else's request goes up needlessly.
 */
static __always_inline int request_take(struct kvpin_backend *b)
{
	__u32 slots = b->slots, before = __sync_fetch_and_add(&b->inflight, 1);

	if (!slots || before < slots)
		return 1;
	__sync_fetch_and_add(&b->inflight, -1);
	return 0;
}

/* Copy the request, so that the daemon can send it again. Returns 1 + index, or 0. */
static __always_inline __u32 request_hold(struct __sk_buff *skb)
{
	struct kvpin_hold *hold;
	__u64 len = skb->len;
	__u32 index;

	if (bpf_map_pop_elem(&free_holds, &index))
		return 0;
	hold = bpf_map_lookup_elem(&holds, &index);
	kvpin_opaque(len);
	if (hold && len >= 1 && len <= KVPIN_HOLD_BYTES &&
	    !bpf_skb_load_bytes(skb, 0, hold->bytes, len))
		return index + 1;
	bpf_map_push_elem(&free_holds, &index, 0);
	return 0;
}

static __always_inline void hold_release(struct kvpin_conn *conn)
{
	__u32 index;

	if (!conn->hold)
		return;
	index = __sync_lock_test_and_set(&conn->hold, 0);
	if (!index--)
		return;
	bpf_map_push_elem(&free_holds, &index, 0);
}

/* Aim the segment at the server's connection. */
static __always_inline __u32 request_aim(struct __sk_buff *skb, const struct kvpin_conn *conn,
					 struct kvpin_upstream *u, __u32 *write_seq)
{
	struct kvpin_sock_key key = {.client = conn->cookie, .role = u->backend};
	struct bpf_sock *sk = bpf_map_lookup_elem(&sockets, &key);
	__u32 reason = KVPIN_REFUSED_NONE;
	struct tcp_sock *tp;

	if (!sk)
		return KVPIN_REFUSED_TARGET;
	tp = bpf_skc_to_tcp_sock(sk);
	if (sk->state != TCP_ESTABLISHED || !tp)
		reason = KVPIN_REFUSED_NO_UPSTREAM;
	else
		*write_seq = tp->write_seq;
	bpf_sk_release(sk);
	if (reason)
		return reason;
	if (bpf_sk_redirect_hash(skb, &sockets, &key, 0) != SK_PASS)
		return KVPIN_REFUSED_TARGET;
	return KVPIN_REFUSED_NONE;
}

static __always_inline void request_count(const struct request *r, __u32 len, __u64 now)
{
	__u32 at = r->u->backend;
	struct kvpin_counters *n = bpf_map_lookup_elem(&counters, &at);

	if (n) {
		__sync_fetch_and_add(&n->sent, 1);
		__sync_fetch_and_add(&n->bytes_up, len);
	}
	r->pin->last_used_ns = now;
	__sync_fetch_and_add(&r->pin->turns, 1);
}

/* Returns a reason to hand the segment up, or KVPIN_REFUSED_NONE: it was aimed at the server. */
static __always_inline __u32 request_steer(struct __sk_buff *skb, struct kvpin_conn *conn,
					   __u32 slot, struct scratch *s)
{
	__u32 zero = 0, reason, write_seq = 0, hold, len = skb->len;
	struct kvpin_config *c = bpf_map_lookup_elem(&config, &zero);
	struct request r = {};
	struct tcp_sock *tp;
	__u64 now;

	if (!c || !(c->flags & KVPIN_CONFIG_REQUESTS))
		return KVPIN_REFUSED_OFF;
	/* A client that has had the whole answer speaks when its socket's queue is empty. */
	tp = tcp_of(skb->sk);
	if (conn->running || !tp || flow_queued(&conn->flow, tp))
		return KVPIN_REFUSED_PIPELINED;
	if (len > KVPIN_HOLD_BYTES)
		return KVPIN_REFUSED_LARGE;
	reason = request_head(skb, c, s);
	if (reason)
		return reason;
	if (key_hash(skb, s, &r.session))
		return KVPIN_REFUSED_KEY;
	reason = request_owner(conn, slot, &r);
	if (reason)
		return reason;
	if (!request_take(r.backend))
		return KVPIN_REFUSED_SLOTS;
	hold = request_hold(skb);
	if (!hold) {
		__sync_fetch_and_add(&r.backend->inflight, -1);
		return KVPIN_REFUSED_NO_HOLD;
	}
	reason = request_aim(skb, conn, r.u, &write_seq);
	if (reason) {
		__u32 index = hold - 1;

		__sync_fetch_and_add(&r.backend->inflight, -1);
		bpf_map_push_elem(&free_holds, &index, 0);
		return reason;
	}
	now = bpf_ktime_get_ns();
	flow_queue(&r.u->flow, write_seq, len);
	r.u->flags = KVPIN_ANSWER_LATER;
	r.u->method = s->head.method;
	r.u->status = 0;
	r.u->bytes_down = 0;
	r.u->ttft_ns = 0;
	r.u->events = 0;
	r.u->phase = KVPIN_PHASE_AWAIT;
	conn->hold = hold;
	conn->started_ns = now;
	conn->session = r.session;
	conn->bytes_up = len;
	conn->keyed = 1;
	conn->context = r.pin->context;
	conn->wait_ms = 0;
	r.pin->context = len;
	conn->flow.redirected += len;
	conn->flow.last_ns = now;
	request_count(&r, len, now);
	__sync_lock_test_and_set(&conn->running, r.entry + 1);
	return KVPIN_REFUSED_NONE;
}

#endif
