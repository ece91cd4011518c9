/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A pair of connections of the splice path, as the program changes it: extended sequence numbers,
 * timestamps, the word, and how a pair is given back.
 *
 * Several CPUs may be here with packets of one pair. What they decide by is changed by atomic
 * operations only; timestamps are not, and are kept monotone where they go out.
 */
#ifndef SPLICE_PAIR_BPF_H
#define SPLICE_PAIR_BPF_H

#include "packet.bpf.h"
#include "splice_maps.bpf.h"

/* Milliseconds, too long by 6 in a million: a division takes longer than the rest of the line. */
#define MS_OF(ns) ((__u32)(((ns) >> 12) * 17180 >> 22))
/* Another CPU must get in between each time for a try to fail. */
#define RAISE_TRIES 8

/* ---- extended sequence numbers ---- */

static __always_inline __u64 seq_near(__u64 near, __u32 seq)
{
	return near + (__s64)(__s32)(seq - (__u32)near);
}

static __always_inline __u64 seq_after(__u64 was, __u32 seq, __u64 near)
{
	return was || near ? seq_near(was ? was : near, seq) : 1ULL << 32 | seq;
}

/* Another CPU got in between. Apart from the hot code, which stands in fewer cache lines so. */
static __noinline __u64 seq_raise_again(__u64 *at, __u32 seq, __u64 near)
{
	__u64 was, is;

#pragma unroll
	for (int i = 0; i < RAISE_TRIES; i++) {
		was = *at;
		is = seq_after(was, seq, near);
		if (was && is <= was)
			return 0;
		if (__sync_val_compare_and_swap(at, was, is) == was)
			return was ? is - was : 0;
	}
	return 0;
}

/* Brings *at up to seq; returns by how much. The first one makes it known; @near: a number of the
 * same space, or 0. */
static __always_inline __u64 seq_raise(__u64 *at, __u32 seq, __u64 near)
{
	__u64 was = *at, is = seq_after(was, seq, near);

	if (was && is <= was)
		return 0;
	if (__sync_val_compare_and_swap(at, was, is) == was)
		return was ? is - was : 0;
	return seq_raise_again(at, seq, near);
}

/* ---- one connection ---- */

/* What the socket puts into its timestamps must not be less than what went past it. */
static __always_inline __u32 ts_shift(struct kvpin_splice_conn *x, const struct tcp_head *h,
				      __u32 ms)
{
	__u32 ts = h->tsval + x->ts_off;

	if (!h->has_ts)
		return 0;
	if ((x->has_ts & 2) && after(x->ts_out, ts)) {
		x->ts_off += x->ts_out - ts;
		ts = x->ts_out;
	}
	x->ts_out = ts;
	x->ts_out_ms = ms;
	x->has_ts |= 2;
	return x->ts_off;
}

static __always_inline void ts_heard(struct kvpin_splice_conn *x, const struct tcp_head *h,
				     __u32 ms)
{
	if (!h->has_ts)
		return;
	x->ts_in = h->tsval;
	x->ts_in_ms = ms;
	x->has_ts |= 1;
}

/* A packet that is passed on in place of one of the socket's. */
static __always_inline void ts_passed(struct kvpin_splice_conn *to, const struct tcp_head *h,
				      __u32 ms)
{
	if (!h->has_ts)
		return;
	to->ts_out = h->ts_sent;
	to->ts_out_ms = ms;
	to->has_ts |= 2;
}

/* Do the packets go past the sockets while the pair's word is `word`? */
static __always_inline int is_taken(__u64 word)
{
	return (word & (KVPIN_SPLICE_TAKEN | KVPIN_SPLICE_GIVING)) == KVPIN_SPLICE_TAKEN;
}

/* ... and are they about to be given back? What comes in that moment, TCP sends again. */
static __always_inline int is_giving(__u64 word)
{
	return (word & KVPIN_SPLICE_TAKEN) && (word & KVPIN_SPLICE_GIVING);
}

/* Does what was read of the description since `word` belong to that turn? */
static __always_inline int still_taken(const struct kvpin_splice_conn *u, __u64 word)
{
	__u64 now = *(const volatile __u64 *)&u->word;

	return !((now ^ word) & (KVPIN_SPLICE_TAKEN | KVPIN_SPLICE_TURN));
}

/* A FIN has a number of its own. */
static __always_inline __u32 fin_sent(struct kvpin_splice_conn *x, const struct packet *p)
{
	if (!(p->bits & WORD_FIN))
		return 0;
	__sync_fetch_and_or(&x->flags, KVPIN_SPLICE_FIN_SENT);
	return 1;
}

/* ---- giving back ---- */

/* Returns 1 for the one who does it, of the daemon and all CPUs. */
static __noinline int giving_begin(struct kvpin_splice_conn *u, __u64 word)
{
	__u64 now;

#pragma unroll
	for (int i = 0; i < RAISE_TRIES; i++) {
		now = *(volatile __u64 *)&u->word;
		if (!is_taken(now) || ((now ^ word) & KVPIN_SPLICE_TURN))
			return 0;
		if (__sync_val_compare_and_swap(&u->word, now, now | KVPIN_SPLICE_GIVING) == now)
			return 1;
	}
	return 0;
}

static __always_inline void giving_end(struct kvpin_splice_conn *u, struct kvpin_splice_conn *c)
{
	__u32 past = u->end - u->to;

	u->off = u->off_taken + past;
	c->off = c->off_taken + past;
	__sync_fetch_and_and(&u->word, ~(KVPIN_SPLICE_TAKEN | KVPIN_SPLICE_GIVING));
}

/* The server has sent all of its answer: its slot is free. Like the daemon, once. */
static __always_inline void answer_over(struct kvpin_splice_conn *u)
{
	__u32 backend = u->backend;
	struct kvpin_backend *b = bpf_map_lookup_elem(&splice_backends, &backend);

	if (b && __sync_lock_test_and_set(&u->counted, 0))
		__sync_fetch_and_add(&b->inflight, -1);
}

#endif
