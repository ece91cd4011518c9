/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One socket as a source and as a target: the hand-over word, the way up to the daemon, and what is
 * queued. The protocol stands in include/kvpin_abi.h; tests/model/ has its proof.
 */
#ifndef FLOW_BPF_H
#define FLOW_BPF_H

#include "kernel.bpf.h"
#include "steer_maps.bpf.h"

/* Whose segment is it? */
struct side {
	struct kvpin_flow *flow;
	__u64 cookie;	/* of the client's socket */
	__u32 conn;	/* slot */
	__u32 upstream; /* 1 + entry; 0: the client's */
	__u32 worker;
	const volatile __u32 *busy; /* conn.running, or the upstream's phase */
};

/* Can nobody redirect into this socket now? Only this socket's program begins requests, and no
 * further one begins before an answer's end. To be asked after the word was read: what the daemon
 * prepared before it set REDIRECT must be seen (tests/model/). */
static __always_inline int side_quiet(const struct side *side)
{
	return side->upstream ? *side->busy != KVPIN_PHASE_IDLE : !*side->busy;
}

static __always_inline void refused(__u32 reason)
{
	__u64 *count = bpf_map_lookup_elem(&refusals, &reason);

	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline void ring_lost(void)
{
	__u32 zero = 0;
	struct kvpin_config *c = bpf_map_lookup_elem(&config, &zero);

	refused(KVPIN_REFUSED_RING);
	if (c)
		__sync_fetch_and_add(&c->ring_full, 1);
}

static __always_inline void event_fill(struct kvpin_event *e, const struct side *side, __u16 kind,
				       __u16 reason, __u32 len, __u64 position)
{
	__builtin_memset(e, 0, sizeof(*e));
	e->cookie = side->cookie;
	e->conn = side->conn;
	e->upstream = side->upstream;
	e->kind = kind;
	e->reason = reason;
	e->len = len;
	e->position = position;
}

static __always_inline void event_up(const struct side *side, __u32 reason, __u64 position)
{
	void *ring = bpf_map_lookup_elem(&rings, &side->worker);
	struct kvpin_event *e;

	e = ring ? bpf_ringbuf_reserve(ring, sizeof(*e), 0) : NULL;
	if (!e) {
		ring_lost();
		return;
	}
	event_fill(e, side, KVPIN_EVENT_UP, reason, 0, position);
	bpf_ringbuf_submit(e, 0);
}

/* Copies the segment into the ring. Returns 0, or -1 when there is no room. */
#define LANE_RECORD(name, bytes_max)                                                               \
	static __always_inline int name(struct __sk_buff *skb, const struct side *side,            \
					__u64 position, __u64 len)                                 \
	{                                                                                          \
		void *ring = bpf_map_lookup_elem(&rings, &side->worker);                           \
		struct kvpin_event *e;                                                             \
                                                                                                   \
		if (!ring)                                                                         \
			return -1;                                                                 \
		e = bpf_ringbuf_reserve(ring, sizeof(*e) + (bytes_max), 0);                        \
		if (!e)                                                                            \
			return -1;                                                                 \
		kvpin_opaque(len);                                                                 \
		if (len < 1 || len > (bytes_max) || bpf_skb_load_bytes(skb, 0, e + 1, len)) {      \
			bpf_ringbuf_discard(e, 0);                                                 \
			return -1;                                                                 \
		}                                                                                  \
		event_fill(e, side, KVPIN_EVENT_LANE, 0, len, position);                           \
		bpf_ringbuf_submit(e, 0);                                                          \
		return 0;                                                                          \
	}

/* Records have fixed sizes for the verifier; a few, so that the ring holds many. */
LANE_RECORD(lane_small, KVPIN_LANE_SMALL_BYTES)
LANE_RECORD(lane_medium, KVPIN_LANE_MEDIUM_BYTES)
LANE_RECORD(lane_large, KVPIN_LANE_BYTES)

static __always_inline struct tcp_sock *tcp_of(struct bpf_sock *sk)
{
	return sk ? bpf_skc_to_tcp_sock(sk) : NULL;
}

/* Most that bpf_skb_adjust_room() takes off at once. */
#define TRIM_BYTES 4095
/* A segment that TCP has coalesced (tcp_try_coalesce()) can be longer than 64 KiB: 17 fragments of
 * 32 KiB at most. */
#define TRIM_TURNS 160

struct trim_loop {
	struct __sk_buff *skb;
	__s32 left;
};

static long trim_turn(__u32 turn, struct trim_loop *l)
{
	__s32 n = l->left < TRIM_BYTES ? l->left : TRIM_BYTES;

	if (n <= 0 || bpf_skb_adjust_room(l->skb, -n, 0, 0))
		return 1;
	l->left -= n;
	return 0;
}

/*
 * A retransmitted segment may begin with bytes that were received before; TCP queues it whole
 * (tcp_data_queue(), "partial packet") and lets recvmsg() skip them, but a verdict gets all of it.
 * Takes them off; of a segment in which only the FIN is new nothing else is left. False: that
 * failed, for want of memory. The stream is broken then and the daemon ends the connection.
 */
static __always_inline int segment_trim(struct __sk_buff *skb, const struct side *side)
{
	__u32 seq = segment_seq(skb), end = seq + skb->len, next = end;
	struct kvpin_flow *flow = side->flow;
	struct trim_loop l = {.skb = skb};
	struct tcp_sock *tp;
	__s32 twice = 0;

	if (flow->next_known) {
		next = flow->next_seq;
		/* Or clang loads it and the other one in one place. */
		kvpin_opaque(next);
		twice = next - seq;
	} else {
		tp = tcp_of(skb->sk);
		if (tp)
			twice = tp->copied_seq - seq;
	}
	if (twice > 0) {
		refused(KVPIN_REFUSED_OVERLAP);
		l.left = twice < (__s32)skb->len ? twice : (__s32)skb->len;
		bpf_loop(TRIM_TURNS, trim_turn, &l, 0);
		if (l.left) {
			flow->broken = 1;
			event_up(side, KVPIN_REFUSED_OVERLAP, l.left);
			return 0;
		}
	}
	if (!flow->next_known || (__s32)(end - next) > 0)
		flow->next_seq = end;
	flow->next_known = 1;
	return 1;
}

/* Bytes redirected into a socket that its TCP has not yet taken. */
static __always_inline __u32 flow_queued(const struct kvpin_flow *flow, struct tcp_sock *tp)
{
	__s32 behind;

	if (!flow->seq_known)
		return 0;
	behind = flow->seq - tp->write_seq;
	return behind > 0 ? behind : 0;
}

/* May a segment of this socket be passed? Not while its own queue holds data, or may get some. TCP
 * having taken all is not enough: the worker dequeues a segment only after that. */
static __always_inline int may_pass(struct __sk_buff *skb, const struct kvpin_flow *flow, int quiet)
{
	struct tcp_sock *tp = tcp_of(skb->sk);

	return quiet && tp && !flow_queued(flow, tp) && !psock_queue_len(tp);
}

/* The socket is in LANE mode: to the daemon by the ring, or, when that is not possible, by PASS. */
static __always_inline int lane(struct __sk_buff *skb, const struct side *side, __u64 position)
{
	__u32 len = skb->len;
	int err;

	if (may_pass(skb, side->flow, side->flow->may_leave)) {
		__sync_fetch_and_and(&side->flow->word, ~KVPIN_WORD_LANE);
		return SK_PASS;
	}
	if (len <= KVPIN_LANE_SMALL_BYTES)
		err = lane_small(skb, side, position, len);
	else if (len <= KVPIN_LANE_MEDIUM_BYTES)
		err = lane_medium(skb, side, position, len);
	else
		err = lane_large(skb, side, position, len);
	if (!err)
		return SK_DROP;
	__sync_fetch_and_and(&side->flow->word, ~KVPIN_WORD_LANE);
	if (len > KVPIN_LANE_BYTES)
		refused(KVPIN_REFUSED_LANE);
	else
		ring_lost();
	return SK_PASS;
}

/* A redirect of `len` bytes into the socket follows. */
static __always_inline void flow_queue(struct kvpin_flow *flow, __u32 write_seq, __u32 len)
{
	if (!flow->seq_known) {
		flow->seq = write_seq;
		flow->seq_known = 1;
	}
	flow->seq += len;
	flow->queued += len;
}

/* The daemon takes over from this segment on. `before` is the word as the verdict found it. */
static __always_inline int hand_up(struct __sk_buff *skb, const struct side *side, __u64 before,
				   __u32 reason)
{
	struct kvpin_flow *flow = side->flow;
	__u64 position = before & KVPIN_WORD_POSITION, now;
	int pass = may_pass(skb, flow, side_quiet(side)), verdict = SK_PASS;

	refused(reason);
	if (!pass)
		__sync_fetch_and_or(&flow->word, KVPIN_WORD_LANE);
	now = __sync_fetch_and_and(&flow->word, ~KVPIN_WORD_REDIRECT);
	/* The daemon may have put the flow into LANE meanwhile: then this segment goes there too.
	 */
	if (now & KVPIN_WORD_LANE)
		verdict = lane(skb, side, position);
	/* It waits for this. */
	__sync_lock_test_and_set(&flow->walked, position + skb->len);
	/* Last: when the daemon looks, all of the above must be there to see. */
	event_up(side, reason, position);
	return verdict;
}

/* A bare FIN is never redirected. Where it may not be passed either it is dropped: its socket has
 * been told already (tcp_fin()), and recv() returns 0 once all before it was read. */
static __always_inline int verdict_fin(struct __sk_buff *skb, const struct side *side)
{
	__u64 word = side->flow->word;

	if (!(word & (KVPIN_WORD_REDIRECT | KVPIN_WORD_LANE)))
		return SK_PASS;
	return may_pass(skb, side->flow, side_quiet(side) || side->flow->may_leave) ? SK_PASS
										    : SK_DROP;
}

#endif
