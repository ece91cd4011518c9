/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The answer's framing at tc: where does it end, when did tokens come, and what must not go past
 * the daemon. The parser is that of include/; bpf_loop() drives it over what is not one whole
 * chunk.
 *
 * Packets are walked in order. One that is ahead of its turn cannot be: from then on the daemon
 * follows the framing, from copies in its ring; they are forwarded all the same, since a client
 * that does not see them cannot tell the server what is missing.
 */
#ifndef SPLICE_WALK_BPF_H
#define SPLICE_WALK_BPF_H

#include "hist.bpf.h"
#include "kvpin_http_body.h"
#include "packet.bpf.h"
#include "splice_maps.bpf.h"

/* A chunk takes about three turns; a packet has 64 KiB at most, or 512 KiB by BIG TCP
 * (GSO_MAX_SIZE).
 */
#define WALK_TURNS_MAX 16384
#define COPY_TURNS_MAX (524288 / KVPIN_SPLICE_COPY_BYTES + 1)

/* The daemon says that it is alive ten times a second. */
#define DEAD_NS 5000000000LL

/* Of 1 to `most` bytes, a power of two: nothing else, so that the verifier knows it too; before 6.8
 * it does not conclude that from a comparison with 0. */
#define SPLICE_BYTES(n, most)                                                                      \
	do {                                                                                       \
		kvpin_opaque(n);                                                                   \
		(n) = (((n)-1) & ((most)-1)) + 1;                                                  \
	} while (0)

enum { FRAMING_DROP, FRAMING_FORWARD };

static __always_inline void splice_count(__u32 reason)
{
	__u64 *count = bpf_map_lookup_elem(&splice_refusals, &reason);

	if (count)
		__sync_fetch_and_add(count, 1);
}

/* A dead daemon takes nothing out of its ring, and ends no connection; its streams run to their
 * end. Rare: apart from the hot code. */
static __noinline int daemon_dead(__u64 now)
{
	__u32 zero = 0;
	struct kvpin_splice_config *config = bpf_map_lookup_elem(&splice_config, &zero);

	return !config || (__s64)(now - config->alive_ns) > DEAD_NS;
}

/* Will nobody here end the client's connection when the server ends its own? */
static __always_inline int is_orphan(const struct kvpin_splice_conn *u, __u64 now)
{
	return (u->flags & KVPIN_SPLICE_ORPHAN) || daemon_dead(now);
}

static __always_inline void *splice_ring(const struct kvpin_splice_conn *u)
{
	__u32 worker = u->worker;

	return bpf_map_lookup_elem(&splice_rings, &worker);
}

/* Rare: apart from the hot code. */
static __noinline int splice_event(const struct kvpin_splice_conn *u, __u32 entry, __u32 kind)
{
	void *ring = splice_ring(u);
	struct kvpin_splice_config *config;
	struct kvpin_splice_event *e;
	__u32 zero = 0;

	e = ring ? bpf_ringbuf_reserve(ring, sizeof(*e), 0) : NULL;
	if (!e) {
		config = bpf_map_lookup_elem(&splice_config, &zero);
		if (config)
			__sync_fetch_and_add(&config->ring_full, 1);
		return 0;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->serial = u->serial;
	e->server = entry;
	e->kind = kind;
	bpf_ringbuf_submit(e, 0);
	return 0;
}

/* ---- times ---- */

/* Payload came; @token: an event began, or the answer's kind has none. */
static __always_inline void splice_times(struct kvpin_splice_conn *u, int token, __u64 fresh)
{
	__u32 backend = u->backend, i;
	struct kvpin_counters *n = bpf_map_lookup_elem(&splice_counters, &backend);
	int first = !(u->flags & KVPIN_SPLICE_TOKEN);
	__u64 now;

	if (!n)
		return;
	n->bytes_down += fresh;
	if (!token || (!first && !(u->flags & KVPIN_SPLICE_STREAM)))
		return;
	now = bpf_ktime_get_ns();
	if (first) {
		__sync_fetch_and_or(&u->flags, KVPIN_SPLICE_TOKEN);
		u->ttft_ns = now - u->started_ns;
		if (u->flags & KVPIN_SPLICE_LATER) {
			hist(n->ttft, ttft_le_ns, u->ttft_ns);
			n->ttft_sum_ns += u->ttft_ns;
		} else {
			hist(n->ttft_first, ttft_le_ns, u->ttft_ns);
			n->ttft_first_sum_ns += u->ttft_ns;
		}
	} else {
		/* Nothing else on this CPU counts meanwhile: no atomic operation. */
		i = hist_bucket(gap_le_ns, now - u->token_ns);
		if (i < KVPIN_HIST_BUCKETS)
			n->gap[i]++;
		n->gap_sum_ns += now - u->token_ns;
	}
	u->token_ns = now;
}

/* ---- the end, and the cut ---- */

/*
 * From here on nothing more goes past: what was forwarded so far is the end for this path, and the
 * relay goes on behind it, with what the server sends again. If the client lacks some of what was
 * forwarded, and the server sends that together with what is behind it, neither can pass: the
 * daemon sees whether the client gets it after all.
 */
static __noinline int splice_cut(struct kvpin_splice_conn *u, const struct kvpin_splice_conn *c,
				 __u32 entry, __u8 reason)
{
	if (u->flags & KVPIN_SPLICE_INSEPARABLE)
		return 0;
	if (u->flags & KVPIN_SPLICE_CUT) {
		__sync_fetch_and_or(&u->flags, KVPIN_SPLICE_INSEPARABLE);
		splice_event(u, entry, KVPIN_SPLICE_EVENT_CUT);
		return 0;
	}
	u->reason = reason;
	__sync_fetch_and_or(&u->flags, KVPIN_SPLICE_CUT);
	/* Sequentially consistent against the client's ACKs. */
	__sync_lock_test_and_set(&u->end, c->sent > u->to ? c->sent : u->to);
	splice_count(reason);
	splice_event(u, entry, KVPIN_SPLICE_EVENT_CUT);
	return 0;
}

/* ---- chunks ---- */

/* In map memory: the verifier would follow every value of it on the stack. */
struct walk {
	struct kvpin_body body;
	__u64 window; /* the next `have` bytes */
	__u32 at, end;
	__u32 have;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct walk);
} splice_walks SEC(".maps");

struct walk_loop {
	struct __sk_buff *skb;
	struct walk *walk;
};

static long walk_turn(__u32 turn, struct walk_loop *loop)
{
	struct walk *l = loop->walk;
	struct kvpin_body *b = &l->body;
	__u64 n;

	if (l->at >= l->end || b->state == KVPIN_BS_DONE || b->state == KVPIN_BS_BAD)
		return 1;
	if ((!kvpin_body_counts(b) || b->fresh) && !l->have) {
		n = l->end - l->at;
		if (n > sizeof(l->window))
			n = sizeof(l->window);
		SPLICE_BYTES(n, sizeof(l->window));
		l->window = 0;
		if (bpf_skb_load_bytes(loop->skb, l->at, &l->window, n)) {
			kvpin_body_bad(b, KVPIN_HTTP_NONE);
			return 1;
		}
		l->have = n;
	}
	if (kvpin_body_counts(b)) {
		n = kvpin_body_skip(b, (__u8)l->window, l->end - l->at);
	} else {
		n = kvpin_body_between(b, l->window, l->have);
		if (!n) {
			n = 1;
			kvpin_body_step(b, (__u8)l->window);
		}
	}
	l->at += n;
	if (n < l->have) {
		l->window >>= n * 8;
		l->have -= n;
	} else {
		l->have = 0;
	}
	return 0;
}

/* A packet that is one whole chunk, as nearly every token's is: the same as the walk below. Returns
 * 0 where it is not. */
static __always_inline int walk_chunk(struct __sk_buff *skb, const struct packet *p, __u32 payload,
				      struct kvpin_body *body)
{
	struct kvpin_body b = *body;
	__u64 window = 0;
	__u16 end = 0;
	__u32 n;

	if (b.state != KVPIN_BS_SIZE || p->len < sizeof(window) ||
	    bpf_skb_load_bytes(skb, payload, &window, sizeof(window)))
		return 0;
	n = kvpin_body_between(&b, window, sizeof(window));
	if (b.state != KVPIN_BS_CHUNK || n + b.left + sizeof(end) != p->len ||
	    bpf_skb_load_bytes(skb, payload + p->len - sizeof(end), &end, sizeof(end)))
		return 0;
	kvpin_body_skip(&b, window >> n * 8, b.left);
	kvpin_body_between(&b, end, sizeof(end));
	if (b.state != KVPIN_BS_SIZE)
		return 0;
	*body = b;
	return 1;
}

static __always_inline int walked(struct packet *p, struct kvpin_splice_conn *u)
{
	p->token = u->body.events != u->events;
	u->events = u->body.events;
	u->walked = p->at + p->len;
	if (u->body.state == KVPIN_BS_DONE)
		__sync_lock_test_and_set(&u->end, u->to + (u->walked - u->from));
	return FRAMING_FORWARD;
}

/* The caller holds u->lock; the packet begins at or before u->walked and ends behind it. */
static __always_inline int splice_walk(struct __sk_buff *skb, struct packet *p,
				       const struct tcp_head *h, struct kvpin_splice_conn *u,
				       const struct kvpin_splice_conn *c)
{
	__u32 payload = p->l4 + h->bytes, skip = u->walked - p->at;
	struct walk_loop loop = {.skb = skb};
	__u32 zero = 0;
	struct walk *l;

	if (!skip && walk_chunk(skb, p, payload, &u->body))
		return walked(p, u);
	l = bpf_map_lookup_elem(&splice_walks, &zero);
	if (!l)
		return FRAMING_DROP;
	l->body = u->body;
	l->at = payload + skip;
	l->end = payload + p->len;
	l->have = 0;
	loop.walk = l;
	bpf_loop(WALK_TURNS_MAX, walk_turn, &loop, 0);
	if (l->at < l->end || l->body.state == KVPIN_BS_BAD) {
		/* As if this packet had not come: the relay sees it again. */
		if (l->body.state == KVPIN_BS_DONE)
			splice_cut(u, c, p->entry, KVPIN_SPLICE_REFUSED_BEHIND_END);
		else if (l->body.state == KVPIN_BS_BAD)
			splice_cut(u, c, p->entry, KVPIN_SPLICE_REFUSED_MALFORMED);
		else
			splice_cut(u, c, p->entry, KVPIN_SPLICE_REFUSED_CHUNKS);
		return FRAMING_DROP;
	}
	u->body = l->body;
	return walked(p, u);
}

/* ---- copies for the daemon ---- */

struct copy {
	struct __sk_buff *skb;
	const struct kvpin_splice_conn *u;
	void *ring;
	__u64 at; /* sequence number */
	__u32 pos, end, entry;
	__u32 pad;
};

static long copy_turn(__u32 turn, struct copy *k)
{
	struct kvpin_splice_event *e;
	__u64 n = k->end - k->pos;

	if (k->pos >= k->end)
		return 1;
	e = bpf_ringbuf_reserve(k->ring, sizeof(*e) + KVPIN_SPLICE_COPY_BYTES, 0);
	if (!e)
		return 1;
	if (n > KVPIN_SPLICE_COPY_BYTES)
		n = KVPIN_SPLICE_COPY_BYTES;
	SPLICE_BYTES(n, KVPIN_SPLICE_COPY_BYTES);
	if (bpf_skb_load_bytes(k->skb, k->pos, e + 1, n)) {
		bpf_ringbuf_discard(e, 0);
		return 1;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->serial = k->u->serial;
	e->server = k->entry;
	e->kind = KVPIN_SPLICE_EVENT_BYTES;
	e->at = k->at;
	e->len = n;
	bpf_ringbuf_submit(e, 0);
	k->pos += n;
	k->at += n;
	return 0;
}

static __noinline int splice_copy(struct __sk_buff *skb, const struct packet *p,
				  const struct tcp_head *h, const struct kvpin_splice_conn *u)
{
	struct copy k = {.skb = skb, .u = u, .at = p->at, .entry = p->entry};
	struct kvpin_splice_config *config;
	__u32 zero = 0;

	k.pos = p->l4 + h->bytes;
	k.end = k.pos + p->len;
	k.ring = splice_ring(u);
	if (!k.ring)
		return FRAMING_DROP;
	bpf_loop(COPY_TURNS_MAX, copy_turn, &k, 0);
	if (k.pos >= k.end)
		return FRAMING_FORWARD;
	if (daemon_dead(p->now))
		return FRAMING_FORWARD;
	/* Not one byte may pass that the daemon did not see: the server has to send it again. */
	config = bpf_map_lookup_elem(&splice_config, &zero);
	if (config)
		__sync_fetch_and_add(&config->dropped, 1);
	return FRAMING_DROP;
}

/* ---- both ---- */

/* May the payload, which begins at p->at, go past the daemon? A global function: the verifier looks
 * at it apart from its callers. */
__noinline int splice_framing(struct __sk_buff *skb, struct packet *p, struct tcp_head *h,
			      struct kvpin_splice_conn *u, struct kvpin_splice_conn *c)
{
	__u64 end, behind;
	int verdict;

	if (!p || !h || !u || !c)
		return FRAMING_DROP;
	behind = p->at + p->len;
	end = u->end;
	p->token = 1;
	if (end) {
		__u64 stop = u->from + (end - u->to);

		if (behind <= stop)
			return FRAMING_FORWARD;
		if (p->at < stop)
			splice_cut(u, c, p->entry, KVPIN_SPLICE_REFUSED_BEHIND_END);
		else if (!(u->flags & KVPIN_SPLICE_CUT))
			__sync_fetch_and_or(&u->flags, KVPIN_SPLICE_BEHIND);
		return FRAMING_DROP;
	}
	if (u->framing == KVPIN_SPLICE_CLOSE)
		return FRAMING_FORWARD;
	if (u->framing == KVPIN_SPLICE_CHUNKED) {
		if (behind <= u->walked) {
			p->token = 0;
			return FRAMING_FORWARD;
		}
		if (p->at <= u->walked && !__sync_val_compare_and_swap(&u->lock, 0, 1)) {
			verdict = -1;
			if (u->framing == KVPIN_SPLICE_CHUNKED && behind > u->walked)
				verdict = splice_walk(skb, p, h, u, c);
			__sync_lock_test_and_set(&u->lock, 0);
			if (verdict >= 0)
				return verdict;
		}
		if (u->framing == KVPIN_SPLICE_CHUNKED) {
			u->framing = KVPIN_SPLICE_DAEMON;
			splice_count(KVPIN_SPLICE_REFUSED_ORDER);
		}
	}
	return splice_copy(skb, p, h, u);
}

#endif
