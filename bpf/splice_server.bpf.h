/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets of a connection to a server. Those that come from it: while the pair is taken, the answer
 * goes to the client; a FIN or RST goes to the socket and not to the client, because the daemon
 * ends the client's connection as the answer deserves. One that is dead does not: then both go
 * to the client too. Those that its socket sends: the requests, and what keeps the server at bay.
 */
#ifndef SPLICE_SERVER_BPF_H
#define SPLICE_SERVER_BPF_H

#include "packet_write.bpf.h"
#include "splice_pair.bpf.h"
#include "splice_walk.bpf.h"

/* Tells the server of no room behind `end`, in its numbers. */
static __always_inline void room_until(struct rewrite *r, const struct kvpin_splice_conn *u,
				       __u32 end)
{
	__u32 room = end - r->ack;

	if (after(r->ack, end))
		room = 0;
	room >>= u->server_wscale & 15;
	if (r->win > room)
		r->win = room;
}

/* What it has sent and was lost it may send again, but nothing new. */
static __always_inline void hold(struct rewrite *r, const struct kvpin_splice_conn *u)
{
	room_until(r, u, (__u32)u->received);
}

/* The same, in the server's numbers, as behind what the client has said it has room for. */
static __always_inline __u32 room_end_of(const struct kvpin_splice_conn *u)
{
	return (__u32)(u->from + (u->room_end - u->to));
}

/* What a server's packet is to its own socket: it brings nothing new but the server's end. */
static __always_inline void to_server_socket(struct rewrite *r, const struct packet *p,
					     const struct kvpin_splice_conn *u, __u32 seq)
{
	rewrite_begin(r, p);
	r->seq = seq;
	if (after(p->ack, (__u32)u->sent))
		r->ack = (__u32)u->sent;
	r->tsecr_add = -u->ts_off;
}

/* Does a RST stand between what the server was told has come and what it may have sent, by the
 * client's window or before that by the socket's? No socket here knows what went past it, so who
 * only knows addresses and ports is kept off here. */
static __always_inline int reset_fits(const struct kvpin_splice_conn *u, __u32 seq)
{
	__u32 own_end =
		(u->ack_win >> 32) + ((__u32)(u->ack_win & 0xffff) << (u->server_wscale & 15));

	/* A FIN stands before it. */
	return !after(u->told_server, seq) &&
	       (!after(seq, room_end_of(u) + 1) || !after(seq, own_end + 1));
}

/* The pair is not taken. */
static __always_inline int server_in_back(struct __sk_buff *skb, struct packet *p, struct work *k,
					  struct kvpin_splice_conn *u, __u32 off)
{
	int clamp = (u->flags & KVPIN_SPLICE_CLIENT_FIN) && after(p->ack, (__u32)u->sent);
	struct rewrite *r = &k->rewrite;

	if (!off && !u->ts_off && !clamp)
		return TC_ACT_UNSPEC;
	rewrite_begin(r, p);
	r->seq = p->seq - off;
	/* The server acknowledges a FIN that its socket here has not sent, or not yet. */
	if (clamp)
		r->ack = (__u32)u->sent;
	r->tsecr_add = -u->ts_off;
	packet_rewrite(skb, p, &k->head, r);
	return TC_ACT_UNSPEC;
}

__noinline int server_in(struct __sk_buff *skb, struct packet *p, struct work *k,
			 struct kvpin_splice_conn *u)
{
	__u64 word, at, fresh = 0, ack_win, end;
	struct kvpin_splice_conn *c;
	__u32 fin, ms, client, pass_fin = 0;
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
	if (c->acked < u->to) {
		/* The client has not yet all that its socket here sends: what the server repeats of
		 * that is for the server's own socket, and must not overtake it. */
		if (!(p->bits & (WORD_RST | WORD_FIN)) && at <= u->from) {
			if (at + p->len <= u->from)
				return server_in_back(skb, p, k, u, u->off_taken);
			if (at < u->from)
				return TC_ACT_SHOT;
		}
		/* Sent while only the socket's window counted. A client that had to throw it away
		 * might leave a RST that comes soon behind it without the answer it needs: Linux
		 * answers two packets beyond its window in half a second at most
		 * (tcp_invalid_ratelimit). */
		if (p->len && u->to + (at + p->len - u->from) > u->room_end)
			return TC_ACT_SHOT;
	}
	if (p->bits & WORD_RST) {
		if (!reset_fits(u, p->seq))
			return TC_ACT_SHOT;
		__sync_fetch_and_or(&u->flags, KVPIN_SPLICE_SERVER_RST);
		answer_over(u);
		to_server_socket(r, p, u, (__u32)u->from - u->off_taken + !!u->fin);
		if (!still_taken(u, word))
			return TC_ACT_SHOT;
		packet_rewrite(skb, p, h, r);
		/* One that lacks bytes of its socket here gets those first; when it has
		 * acknowledged them the server is asked, and says it again. */
		if (p->len || c->acked < u->to || !is_orphan(u, p->now))
			return TC_ACT_UNSPEC;
		/* Where it does not stand at the client's next byte, the client asks the server
		 * (RFC 9293 3.10.7.4), whose answer comes here too and does. */
		packet_copy_in(skb);
		goto onward;
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
		pass_fin = is_orphan(u, p->now);
		answer_over(u);
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
		if (!p->len && !pass_fin)
			return TC_ACT_UNSPEC;
		packet_copy_in(skb);
	}
onward:
	ack_win = c->ack_win;
	__builtin_memset(r, 0, sizeof(*r));
	r->seq = (__u32)(u->to + (at - u->from));
	r->ack = ack_win >> 32;
	r->win = ack_win & 0xffff;
	r->clear = pass_fin ? 0 : WORD_FIN;
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
	if (!(p->bits & WORD_RST))
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
	__u32 off, client, fin;
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
		/* The client acknowledges; the socket only repeats itself, or probes. Its end is
		 * the client's if the daemon has said so, or else a dead daemon's. */
		fin = (p->bits & WORD_FIN) && (u->flags & KVPIN_SPLICE_CLIENT_FIN);
		if ((p->bits & WORD_RST) || ((p->bits & WORD_FIN) && !fin)) {
			__sync_fetch_and_or(&u->flags, KVPIN_SPLICE_ORPHAN);
			return TC_ACT_SHOT;
		}
		if (fin)
			seq_raise(&u->sent, p->seq + fin_sent(u, p), u->acked);
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
			/* A FIN, or a probe: the socket wants to see the answer. */
			if (p->seq != (__u32)u->sent - 1)
				return TC_ACT_SHOT;
			room_until(r, u, room_end_of(u));
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

#endif
