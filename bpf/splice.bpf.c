/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The splice path: while an answer streams, the server's packets go to the client and the client's
 * ACKs to the server, past the daemon's two sockets; afterwards both connections are ordinary ones
 * again, their sequence numbers shifted by what went past. Runs at tc, on the devices that lead to
 * clients and servers (on lo at egress only: there every packet passes once).
 *
 * Happy path: splice_packet() finds whose packet it is; server_in() forwards the answer,
 * client_in() the ACKs, and the one that acknowledges the end gives the pair back. Failures: a
 * packet that must not go past is dropped and the pair given back before it (splice_walk.bpf.h);
 * the server sends it again, to the socket. Close: a server's FIN or RST always goes to its socket
 * and never to the client: the daemon ends the client's connection as the answer deserves.
 *
 * Several CPUs may be here with packets of one pair. What they decide by is changed by atomic
 * operations only; timestamps are not, and are kept monotone where they go out.
 */
#include "packet_write.bpf.h"
#include "splice_find.bpf.h"
#include "splice_icmp.bpf.h"
#include "splice_walk.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Milliseconds, too long by 6 in a million: a division takes longer than the rest of the line. */
#define MS_OF(ns) ((__u32)(((ns) >> 12) * 17180 >> 22))
/* How exactly a successor learns when this was last of use. */
#define USED_NS 1000000000LL
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

/* ---- packets of the client ---- */

/* What of a client's packet is the server's: the ACK, and the client's end. */
static __always_inline void to_server(struct rewrite *r, const struct packet *p,
				      struct kvpin_splice_conn *u, __u64 acked, __u32 passed_fin,
				      __u32 clear)
{
	__u32 win = p->win << (u->client_wscale & 15) >> (u->server_wscale & 15);

	__builtin_memset(r, 0, sizeof(*r));
	r->seq = u->request_end + passed_fin;
	r->ack = (__u32)(u->from + (acked > u->to ? acked - u->to : 0));
	r->win = win > 65535 ? 65535 : win;
	r->clear = clear;
	r->sack_add = (__u32)(u->from - u->to);
	r->tsval_add = u->ts_up;
	r->tsecr_add = -u->ts_down;
	r->has_floor = u->has_ts & 2;
	r->ts_floor = u->ts_out;
	r->no_sack = u->flags & KVPIN_SPLICE_NO_SACK;
}

static __always_inline void to_client_socket(struct rewrite *r, const struct packet *p,
					     const struct kvpin_splice_conn *c, __u32 off,
					     __u32 ack)
{
	rewrite_begin(r, p);
	r->ack = ack - off;
	r->sack_add = -off;
	r->tsecr_add = -c->ts_off;
}

/* What an ACK of the wire is to the socket, whose own bytes end at c->to: none of those that went
 * past behind it was its own. */
static __always_inline __u32 broken_ack(const struct kvpin_splice_conn *c, __u32 ack)
{
	__u32 to = c->to, own_end = to - c->off_taken, local = ack - c->off;

	if (!after(ack, to))
		return ack - c->off_taken;
	return after(own_end, local) ? own_end : local;
}

__noinline int client_in(struct __sk_buff *skb, struct packet *p, struct work *k,
			 struct kvpin_splice_conn *c)
{
	__u32 fin, rst, ms, peer, server, pass_fin = 0, passed_fin = 0, off, clear;
	__u64 before, acked, progress = 0, word = 0, end, room_end;
	int local, onward, done, verdict;
	struct kvpin_splice_conn *u = NULL;
	struct tcp_head *h;
	struct rewrite *r;

	if (!p || !k || !c)
		return TC_ACT_UNSPEC;
	h = &k->head;
	r = &k->rewrite;
	fin = p->bits & WORD_FIN;
	rst = p->bits & WORD_RST;
	ms = MS_OF(p->now);
	peer = c->peer;
	server = peer - 1;
	before = c->acked;
	if (p->len)
		seq_raise(&c->received, p->seq + p->len, 0);
	if (p->bits & WORD_ACK)
		progress = seq_raise(&c->acked, p->ack, c->sent);
	ts_heard(c, h, ms);
	if (peer)
		u = bpf_map_lookup_elem(&splice_conns, &server);
	if (u && u->peer == p->entry + 1)
		word = u->word;
	if (is_giving(word))
		return TC_ACT_SHOT;
	if (!u || !is_taken(word)) {
		off = c->off;
		if (!off && !c->ts_off)
			return TC_ACT_UNSPEC;
		to_client_socket(r, p, c, off, p->ack);
		if (c->flags & KVPIN_SPLICE_BROKEN)
			r->ack = broken_ack(c, p->ack);
		packet_rewrite(skb, p, h, r);
		return TC_ACT_UNSPEC;
	}

	acked = seq_near(c->acked, p->ack);
	if (progress)
		u->last_ns = p->now;
	room_end = acked + ((__u64)p->win << (u->client_wscale & 15));
	if (room_end > u->room_end)
		u->room_end = room_end;
	end = u->end;
	/* What an ACK on another CPU brought up counts too. */
	done = end && c->acked >= end && !rst;
	if (p->len)
		__sync_fetch_and_or(&u->flags, KVPIN_SPLICE_NO_FIN);
	if (u->flags & KVPIN_SPLICE_CLIENT_FIN)
		passed_fin = 1;
	if (done && !giving_begin(u, word)) {
		/* Somebody else does it, or nobody got through: then the daemon will. */
		splice_event(u, server, KVPIN_SPLICE_EVENT_BACK);
		return TC_ACT_SHOT;
	}
	if (!done && fin && !(u->flags & KVPIN_SPLICE_NO_FIN))
		pass_fin = WORD_FIN;
	off = done ? c->off_taken + (__u32)(end - u->to) : c->off_taken;
	local = p->len || fin || rst || done || before < u->to || (c->flags & KVPIN_SPLICE_PROBE);
	/* A keepalive probe begins before what was acknowledged: the socket here answers it, the
	 * server, to which all of the client's packets are plain ACKs, would not. */
	local = local || p->seq + 1 == (__u32)(c->ack_win >> 32);
	onward = done || acked >= u->to || pass_fin || rst;
	if (!local && !onward)
		local = 1;

	if (local) {
		/* The socket must not see more acknowledged than it has sent. */
		to_client_socket(r, p, c, off, !done && acked > u->to ? (__u32)u->to : p->ack);
		if (!still_taken(u, word))
			return TC_ACT_SHOT;
		packet_rewrite(skb, p, h, r);
		__sync_fetch_and_and(&c->flags, ~KVPIN_SPLICE_PROBE);
		if (!onward)
			return TC_ACT_UNSPEC;
		packet_copy_in(skb);
	}
	if (pass_fin)
		passed_fin = 0;
	clear = pass_fin ? WORD_PSH : WORD_FIN | WORD_PSH;
	to_server(r, p, u, acked, passed_fin, clear);
	/* From here on the server's own socket takes what comes, and its window is not the
	 * client's. The next request could not tell: it acknowledges nothing new. */
	if (done && r->win > (u->ack_win & 0xffff))
		r->win = u->ack_win & 0xffff;
	if (!still_taken(u, word))
		return TC_ACT_SHOT;
	if (pass_fin || rst)
		__sync_fetch_and_or(&u->flags, KVPIN_SPLICE_CLIENT_FIN);
	head_build(h, r);
	ts_passed(u, h, ms);
	u->told_server = r->ack;
	verdict = TC_ACT_SHOT;
	if (!p->len) {
		packet_write_to(skb, p, h, u);
		verdict = packet_send(skb, u);
	} else if (!packet_write_bare(skb, p, h, u)) {
		verdict = packet_send(skb, u);
	}
	/* Last: the daemon may begin the next answer at once. */
	if (!done)
		return verdict;
	giving_end(u, c);
	splice_event(u, server, KVPIN_SPLICE_EVENT_BACK);
	return verdict;
}

__noinline int client_out(struct __sk_buff *skb, struct packet *p, struct work *k,
			  struct kvpin_splice_conn *c)
{
	struct kvpin_splice_conn *u = NULL;
	__u32 peer, server, off;
	__u64 word = 0;
	struct tcp_head *h;
	struct rewrite *r;

	if (!p || !k || !c)
		return TC_ACT_UNSPEC;
	h = &k->head;
	r = &k->rewrite;
	peer = c->peer;
	server = peer - 1;
	if (p->bits & WORD_ACK)
		c->ack_win = (__u64)p->ack << 32 | p->win;
	if (peer)
		u = bpf_map_lookup_elem(&splice_conns, &server);
	if (u && u->peer == p->entry + 1)
		word = u->word;
	if (is_giving(word))
		return TC_ACT_SHOT;
	rewrite_begin(r, p);
	if (is_taken(word)) {
		/* Only a dead daemon's socket ends here; the stream runs on. */
		if ((p->bits & WORD_RST) || ((p->bits & WORD_FIN) && !p->len))
			return TC_ACT_SHOT;
		r->clear = WORD_FIN;
		off = c->off_taken;
		r->seq = p->seq + off;
		if (p->len) {
			seq_raise(&c->sent, r->seq + p->len, c->acked);
		} else if (r->seq == (__u32)u->to - 1 && c->acked >= u->to) {
			/* A keepalive probe wants to be answered. */
			__sync_fetch_and_or(&c->flags, KVPIN_SPLICE_PROBE);
			r->seq = (__u32)c->sent - 1;
		} else if (r->seq == (__u32)u->to) {
			r->seq = (__u32)c->sent;
		}
	} else {
		off = c->off;
		if ((c->flags & KVPIN_SPLICE_BROKEN) && after(c->to, p->seq + c->off_taken))
			off = c->off_taken;
		r->seq = p->seq + off;
		seq_raise(&c->sent, r->seq + p->len + fin_sent(c, p), c->acked);
	}
	r->tsval_add = ts_shift(c, h, MS_OF(p->now));
	if (off || c->ts_off || r->seq != p->seq || (p->bits & r->clear))
		packet_rewrite(skb, p, h, r);
	return TC_ACT_UNSPEC;
}

/* ---- packets of the server ---- */

/* Tells the server that behind what it has sent there is no room: what of that was lost it may send
 * again, but nothing new. */
static __always_inline void hold(struct rewrite *r, const struct kvpin_splice_conn *u)
{
	__u32 room = (__u32)u->received - r->ack;

	if (after(r->ack, (__u32)u->received))
		room = 0;
	room >>= u->server_wscale & 15;
	if (r->win > room)
		r->win = room;
}

/* What a server's packet is to its own socket: it brings nothing new but the server's end. */
static __always_inline void to_server_socket(struct rewrite *r, const struct packet *p,
					     const struct kvpin_splice_conn *u, __u32 seq)
{
	rewrite_begin(r, p);
	r->seq = seq;
	if (after(p->ack, u->request_end))
		r->ack = u->request_end;
	r->tsecr_add = -u->ts_off;
}

/* The pair is not taken. */
static __always_inline int server_in_back(struct __sk_buff *skb, struct packet *p, struct work *k,
					  struct kvpin_splice_conn *u, __u32 off)
{
	int clamp = (u->flags & KVPIN_SPLICE_CLIENT_FIN) && after(p->ack, u->request_end);
	struct rewrite *r = &k->rewrite;

	if (!off && !u->ts_off && !clamp)
		return TC_ACT_UNSPEC;
	rewrite_begin(r, p);
	r->seq = p->seq - off;
	/* The server acknowledges a FIN that its socket here never sent. */
	if (clamp)
		r->ack = u->request_end;
	r->tsecr_add = -u->ts_off;
	packet_rewrite(skb, p, &k->head, r);
	return TC_ACT_UNSPEC;
}

__noinline int server_in(struct __sk_buff *skb, struct packet *p, struct work *k,
			 struct kvpin_splice_conn *u)
{
	__u64 word, at, fresh = 0, ack_win, end;
	struct kvpin_splice_conn *c;
	__u32 fin, ms, client;
	struct tcp_head *h;
	struct rewrite *r;

	if (!p || !k || !u)
		return TC_ACT_UNSPEC;
	h = &k->head;
	r = &k->rewrite;
	fin = p->bits & WORD_FIN;
	ms = MS_OF(p->now);
	/* Before the word: when the daemon's swap succeeds it has seen what it read here. */
	if (p->len && u->received)
		fresh = seq_raise(&u->received, p->seq + p->len, 0);
	if (p->bits & WORD_ACK)
		seq_raise(&u->acked, p->ack, u->sent);
	ts_heard(u, h, ms);
	word = __sync_fetch_and_add(&u->word, 1);
	client = u->peer - 1;
	c = bpf_map_lookup_elem(&splice_conns, &client);
	if (is_giving(word))
		return TC_ACT_SHOT;
	if (!c || !is_taken(word))
		return server_in_back(skb, p, k, u, u->off);

	at = seq_near(u->received, p->seq);
	p->at = at;
	/* The client has not yet all that its socket here sends: what the server repeats of that is
	 * for the server's own socket, and must not overtake it. */
	if (c->acked < u->to && !(p->bits & (WORD_RST | WORD_FIN)) && at <= u->from) {
		if (at + p->len <= u->from)
			return server_in_back(skb, p, k, u, u->off_taken);
		if (at < u->from)
			return TC_ACT_SHOT;
	}
	/* Sent while only the socket's window counted. A client that had to throw it away might
	 * leave a RST that comes soon behind it without the answer it needs: Linux answers two
	 * packets beyond its window in half a second at most (tcp_invalid_ratelimit). */
	if (c->acked < u->to && p->len && u->to + (at + p->len - u->from) > u->room_end)
		return TC_ACT_SHOT;
	if (p->bits & WORD_RST) {
		__sync_fetch_and_or(&u->flags, KVPIN_SPLICE_SERVER_RST);
		to_server_socket(r, p, u, (__u32)u->from - u->off_taken + !!u->fin);
		if (!still_taken(u, word))
			return TC_ACT_SHOT;
		packet_rewrite(skb, p, h, r);
		return TC_ACT_UNSPEC;
	}
	if (p->len) {
		if (splice_framing(skb, p, h, u, c) == FRAMING_DROP)
			return TC_ACT_SHOT;
		if (fresh) {
			splice_times(u, p->token, fresh);
			u->last_ns = p->now;
		}
	}
	if (fin) {
		u->fin = at + p->len;
		__sync_fetch_and_or(&u->flags, KVPIN_SPLICE_SERVER_FIN);
		if (u->framing == KVPIN_SPLICE_CLOSE && !u->end)
			__sync_lock_test_and_set(&u->end, u->to + (u->fin - u->from));
	}
	end = u->end;
	if (end && u->counted && !(u->flags & KVPIN_SPLICE_CUT) &&
	    u->received >= u->from + (end - u->to))
		answer_over(u);
	if (fin || (!p->len && (u->flags & KVPIN_SPLICE_PROBE))) {
		__sync_fetch_and_and(&u->flags, ~KVPIN_SPLICE_PROBE);
		/* Bytes that it has already had, and behind them perhaps the FIN. */
		to_server_socket(r, p, u, (__u32)u->from - u->off_taken - p->len);
		if (!still_taken(u, word))
			return TC_ACT_SHOT;
		packet_rewrite(skb, p, h, r);
		if (!p->len)
			return TC_ACT_UNSPEC;
		packet_copy_in(skb);
	}
	ack_win = c->ack_win;
	__builtin_memset(r, 0, sizeof(*r));
	r->seq = (__u32)(u->to + (at - u->from));
	r->ack = ack_win >> 32;
	r->win = ack_win & 0xffff;
	r->clear = WORD_FIN;
	r->tsval_add = u->ts_down;
	r->tsecr_add = -u->ts_up;
	r->has_floor = c->has_ts & 2;
	r->ts_floor = c->ts_out;
	r->no_ts = u->flags & KVPIN_SPLICE_NO_TS;
	if (!still_taken(u, word))
		return TC_ACT_SHOT;
	head_build(h, r);
	if (!r->no_ts)
		ts_passed(c, h, ms);
	seq_raise(&c->sent, r->seq + p->len, c->acked);
	packet_write_to(skb, p, h, c);
	return packet_send(skb, c);
}

__noinline int server_out(struct __sk_buff *skb, struct packet *p, struct work *k,
			  struct kvpin_splice_conn *u)
{
	struct kvpin_splice_conn *c;
	struct tcp_head *h;
	struct rewrite *r;
	__u32 off, client;
	__u64 word;

	if (!p || !k || !u)
		return TC_ACT_UNSPEC;
	h = &k->head;
	r = &k->rewrite;
	word = u->word;
	if (is_giving(word))
		return TC_ACT_SHOT;
	rewrite_begin(r, p);
	if (is_taken(word)) {
		/* The client acknowledges; the socket only repeats itself, or probes. */
		if (p->bits & (WORD_FIN | WORD_RST))
			return TC_ACT_SHOT;
		client = u->peer - 1;
		c = bpf_map_lookup_elem(&splice_conns, &client);
		r->ack = u->told_server;
		if (c && c->acked < u->to) {
			/* Until then nobody else tells the server that its bytes have come. */
			if (after(p->ack + u->off_taken, r->ack))
				r->ack = p->ack + u->off_taken;
			u->told_server = r->ack;
			hold(r, u);
		} else if (!p->len) {
			if (p->seq != u->request_end - 1)
				return TC_ACT_SHOT;
			__sync_fetch_and_or(&u->flags, KVPIN_SPLICE_PROBE);
		}
	} else {
		off = u->off;
		seq_raise(&u->sent, p->seq + p->len + fin_sent(u, p), u->acked);
		if (!u->received && (p->bits & WORD_ACK)) {
			u->base = p->ack;
			seq_raise(&u->received, p->ack, 0);
		}
		r->ack = p->ack + off;
		r->sack_add = off;
		u->told_server = r->ack;
		u->ack_win = (__u64)r->ack << 32 | p->win;
		if (u->hold_ns > p->now)
			hold(r, u);
	}
	r->tsval_add = ts_shift(u, h, MS_OF(p->now));
	if (r->ack != p->ack || u->ts_off || r->win != p->win)
		packet_rewrite(skb, p, h, r);
	return TC_ACT_UNSPEC;
}

/* ---- all ---- */

SEC("tc")
int splice_packet(struct __sk_buff *skb)
{
	struct kvpin_splice_config *config;
	struct kvpin_splice_conn *x;
	__u32 direction = 0, zero = 0, mark;
	struct packet *p;
	struct work *k;

	mark = skb->mark;
	if (mark == passed_mark) {
		skb->mark = 0;
		return TC_ACT_UNSPEC;
	}
	k = bpf_map_lookup_elem(&splice_works, &zero);
	if (!k)
		return TC_ACT_UNSPEC;
	/* Not on the stack, of which 6.1 has too little for all calls together. */
	p = &k->packet;
	__builtin_memset(p, 0, sizeof(*p));
	if (packet_read(skb, p))
		return p->other ? splice_icmp(skb) : TC_ACT_UNSPEC;
	x = conn_find(p, &direction);
	if (!x || packet_read_tcp(skb, p, k))
		return TC_ACT_UNSPEC;
	if (skb->ifindex == LOOPBACK_IFINDEX) {
		if (direction == KVPIN_SPLICE_OUT && !mark) {
			skb->mark = KVPIN_SPLICE_MARK;
		} else if (direction == KVPIN_SPLICE_IN && mark == KVPIN_SPLICE_MARK) {
			__sync_fetch_and_or(&x->flags, KVPIN_SPLICE_CHAINED);
			skb->mark = 0;
		}
	}
	if (p->bits & WORD_SYN) {
		/* A new connection with the addresses and ports of one that was closed; not a late
		 * or repeated SYN of one that lives. */
		if (!(p->bits & WORD_ACK) && (x->flags & KVPIN_SPLICE_CLOSED))
			__sync_fetch_and_or(&x->flags, KVPIN_SPLICE_OVER);
		return TC_ACT_UNSPEC;
	}
	if (p->bits & WORD_RST)
		__sync_fetch_and_or(&x->flags, KVPIN_SPLICE_RESET);
	if (k->head.odd)
		__sync_fetch_and_or(&x->flags, KVPIN_SPLICE_ODD_OPTIONS);
	p->now = bpf_ktime_get_coarse_ns();
	config = bpf_map_lookup_elem(&splice_config, &zero);
	if (config && (__s64)(p->now - config->used_ns) > USED_NS)
		config->used_ns = p->now;
	if (x->role == KVPIN_SPLICE_CLIENT)
		return direction == KVPIN_SPLICE_IN ? client_in(skb, p, k, x)
						    : client_out(skb, p, k, x);
	return direction == KVPIN_SPLICE_IN ? server_in(skb, p, k, x) : server_out(skb, p, k, x);
}
