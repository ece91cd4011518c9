/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The steer path: verdicts on the sockets of clients and servers (sockmap, DESIGN.md section 2).
 *
 * A segment of a client whose word says REDIRECT must be one whole request. Its head is parsed, its
 * session's server looked up, and the segment goes to the connection with that server. A segment
 * of a server belongs to the answer that is due; its framing is followed to the byte, and it goes
 * to the client. Bodies are only counted.
 *
 * Whatever is not certain goes up to the daemon from that segment on, with a reason (hand_up()).
 * Nothing here ever waits, and nothing is decided here: a session without a pin goes up.
 *
 * Concurrency: a socket's verdict runs under its lock, so there is one at a time per socket. The
 * client's and the server's run side by side; they share conn->running and conn->hold (taken by
 * exchange) and the target side of the flows (written by the other socket's verdict).
 */
#include "flow.bpf.h"
#include "hist.bpf.h"
#include "parse.bpf.h"

/* include/net/tcp_states.h */
#define TCP_ESTABLISHED 1
#define TCP_CLOSE_WAIT	8

/* ---- both ---- */

/* What every segment goes through first. True: it is to be redirected, if that is possible; @before
 * is the word as it was found. False: @verdict says all. */
static __always_inline int segment_redirects(struct __sk_buff *skb, const struct side *side,
					     __u64 *before, int *verdict)
{
	__u32 len;

	*verdict = SK_DROP;
	if (side->flow->broken || (skb->len && !segment_trim(skb, side)))
		return 0;
	len = skb->len;
	if (!len) {
		*verdict = verdict_fin(skb, side);
		return 0;
	}
	*before = __sync_fetch_and_add(&side->flow->word, (__u64)len);
	*verdict = SK_PASS;
	if (*before & KVPIN_WORD_LANE)
		*verdict = lane(skb, side, *before & KVPIN_WORD_POSITION);
	else if (*before & KVPIN_WORD_REDIRECT)
		return 1;
	return 0;
}

/* Gives the scratch back; with a reason the segment is handed up, else it goes to where
 * bpf_sk_redirect_hash() said. */
static __always_inline int segment_done(struct __sk_buff *skb, const struct side *side,
					struct scratch *s, __u64 before, __u32 reason)
{
	if (s)
		scratch_give(s);
	if (reason)
		return hand_up(skb, side, before, reason);
	__sync_lock_test_and_set(&side->flow->walked, (before & KVPIN_WORD_POSITION) + skb->len);
	return SK_PASS;
}

/* Parse the head at the segment's start into s->head. Sets how many bytes the scratch holds.
 * Returns an enum kvpin_step; KVPIN_STEP_BAD also when nothing could be read. */
static __always_inline int head_load(struct __sk_buff *skb, const struct kvpin_config *c,
				     struct scratch *s, enum kvpin_head_kind kind, __u32 *have)
{
	__u32 names_at = c->names_at;
	const struct kvpin_names *known = bpf_map_lookup_elem(&names, &names_at);

	*have = scratch_load(skb, s, 0, KVPIN_BPF_HEAD_BYTES);
	if (!known || !*have)
		return KVPIN_STEP_BAD;
	kvpin_head_init(&s->head, kind);
	s->head.limit_bytes = c->head_bytes;
	s->head.limit_fields = c->head_fields;
	return head_parse(&s->head, known, s->bytes, *have);
}

/* ---- requests ---- */

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

SEC("sk_skb")
int steer_request(struct __sk_buff *skb)
{
	__u32 slot = skb->priority, reason;
	struct kvpin_conn *conn = bpf_map_lookup_elem(&conns, &slot);
	struct side side = {.conn = slot};
	struct scratch *s;
	__u64 before;
	int verdict;

	if (!conn)
		return SK_PASS;
	side.flow = &conn->flow;
	side.cookie = conn->cookie;
	side.worker = conn->worker;
	side.busy = &conn->running;
	if (!segment_redirects(skb, &side, &before, &verdict))
		return verdict;
	s = scratch_take();
	reason = s ? request_steer(skb, conn, slot, s) : KVPIN_REFUSED_OFF;
	return segment_done(skb, &side, s, before, reason);
}

/* ---- answers ---- */

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
	if (!e) {
		ring_lost();
		return NULL;
	}
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

	b = bpf_map_lookup_elem(&backends, &at);
	u->phase = KVPIN_PHASE_IDLE;
	if (u->share) {
		__sync_fetch_and_sub(&c->queued, (__u64)u->share);
		u->share = 0;
	}
	if (answer_told(c, conn, u, b))
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
	/* Last: whoever waits for the slot finds it free. */
	if (e)
		bpf_ringbuf_submit(e, 0);
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

SEC("sk_skb")
int steer_answer(struct __sk_buff *skb)
{
	__u32 entry = skb->priority, slot, reason;
	struct kvpin_upstream *u = bpf_map_lookup_elem(&upstreams, &entry);
	struct side side = {.upstream = entry + 1};
	struct kvpin_conn *conn;
	struct scratch *s;
	__u64 before;
	int verdict;

	if (!u)
		return SK_PASS;
	slot = u->conn;
	conn = bpf_map_lookup_elem(&conns, &slot);
	if (!conn)
		return SK_PASS;
	side.flow = &u->flow;
	side.conn = slot;
	side.cookie = conn->cookie;
	side.worker = conn->worker;
	side.busy = &u->phase;
	if (!segment_redirects(skb, &side, &before, &verdict))
		return verdict;
	s = scratch_take();
	reason = s ? answer_steer(skb, &side, conn, u, s) : KVPIN_REFUSED_OFF;
	return segment_done(skb, &side, s, before, reason);
}

/*
 * What is attached to the sockhash: finds out whose segment it is and goes on in the array of
 * verdicts, because sockets keep the program they were inserted under, and an upgrade replaces
 * what the array holds.
 */
SEC("sk_skb")
int steer_verdict(struct __sk_buff *skb)
{
	__u64 cookie = bpf_get_socket_cookie(skb);
	struct kvpin_sock_ref *ref = bpf_map_lookup_elem(&cookies, &cookie);

	if (!ref)
		return SK_PASS;
	if (ref->upstream) {
		skb->priority = ref->upstream - 1;
		bpf_tail_call(skb, &verdicts, KVPIN_VERDICT_ANSWER);
	} else {
		skb->priority = ref->conn;
		bpf_tail_call(skb, &verdicts, KVPIN_VERDICT_REQUEST);
	}
	return SK_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
