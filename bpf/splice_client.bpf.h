/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets of a connection to a client. Those that come from it: while the pair is taken, their ACKs
 * go to the server, and the one that acknowledges the end gives the pair back. Those that its
 * socket sends: shifted behind what went past.
 */
#ifndef SPLICE_CLIENT_BPF_H
#define SPLICE_CLIENT_BPF_H

#include "packet_write.bpf.h"
#include "splice_pair.bpf.h"
#include "splice_walk.bpf.h"

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

/* The server's entry while an answer goes past, or NULL; @word: its, or 0 where it is not this
 * client's any more. */
static __always_inline struct kvpin_splice_conn *
server_of(const struct kvpin_splice_conn *c, const struct packet *p, __u32 *server, __u64 *word)
{
	struct kvpin_splice_conn *u = NULL;
	__u32 peer = c->peer;

	*server = peer - 1;
	if (peer)
		u = bpf_map_lookup_elem(&splice_conns, server);
	*word = 0;
	if (u && u->peer == p->entry + 1)
		*word = u->word;
	return u;
}

__noinline int client_in(struct __sk_buff *skb, struct packet *p, struct work *k,
			 struct kvpin_splice_conn *c)
{
	__u32 fin, rst, ms, server, pass_fin = 0, passed_fin = 0, here, off, clear;
	__u64 before, acked, progress = 0, word, end, room_end;
	int local, onward, done, verdict, ahead;
	struct kvpin_splice_conn *u;
	struct tcp_head *h;
	struct rewrite *r;

	if (!p || !k || !c)
		return TC_ACT_UNSPEC;
	h = &k->head;
	r = &k->rewrite;
	fin = p->bits & WORD_FIN;
	rst = p->bits & WORD_RST;
	ms = MS_OF(p->now);
	before = c->acked;
	if (p->len)
		seq_raise(&c->received, p->seq + p->len, 0);
	ahead = (p->bits & WORD_ACK) && c->sent && after(p->ack, (__u32)c->sent);
	if ((p->bits & WORD_ACK) && !ahead)
		progress = seq_raise(&c->acked, p->ack, c->sent);
	ts_heard(c, h, ms);
	u = server_of(c, p, &server, &word);
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
	/* Who only knows addresses and ports acknowledges what nobody has sent. */
	if (ahead)
		return TC_ACT_SHOT;

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
	/* A FIN or RST counts where the client's next byte is: of any other the socket here asks
	 * the client, or keeps it for behind what was lost, and who only knows addresses and ports
	 * ends nothing (RFC 9293 3.10.7.4). */
	here = p->seq == (__u32)(c->ack_win >> 32);
	if (!done && fin && here && !(u->flags & KVPIN_SPLICE_NO_FIN))
		pass_fin = WORD_FIN;
	off = done ? c->off_taken + (__u32)(end - u->to) : c->off_taken;
	local = p->len || fin || rst || done || before < u->to || (c->flags & KVPIN_SPLICE_PROBE);
	/* A keepalive probe begins before what was acknowledged: the socket here answers it, the
	 * server, to which all of the client's packets are plain ACKs, would not. */
	local = local || p->seq + 1 == (__u32)(c->ack_win >> 32);
	onward = done || acked >= u->to || pass_fin || rst;
	if (rst && !here)
		onward = 0;
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
	/* The server says nothing to it. */
	if (rst)
		answer_over(u);
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
	__u32 server, off, twice = 0;
	struct kvpin_splice_conn *u;
	__u64 word;
	struct tcp_head *h;
	struct rewrite *r;

	if (!p || !k || !c)
		return TC_ACT_UNSPEC;
	h = &k->head;
	r = &k->rewrite;
	if (p->bits & WORD_ACK)
		c->ack_win = (__u64)p->ack << 32 | p->win;
	u = server_of(c, p, &server, &word);
	if (is_giving(word))
		return TC_ACT_SHOT;
	rewrite_begin(r, p);
	if (is_taken(word) && (p->bits & WORD_FIN) && !p->len && u->end && c->acked >= u->end &&
	    giving_begin(u, word)) {
		/* A dead daemon's socket ends here, again and again, and by now the answer has
		 * ended too: the client had acknowledged it before the server's FIN said so. */
		giving_end(u, c);
		word = 0;
	}
	if (is_taken(word)) {
		/* Only a dead daemon's socket ends here; the stream runs on. */
		if (p->bits & (WORD_RST | WORD_FIN))
			__sync_fetch_and_or(&u->flags, KVPIN_SPLICE_ORPHAN);
		if ((p->bits & WORD_RST) || ((p->bits & WORD_FIN) && !p->len))
			return TC_ACT_SHOT;
		r->clear = WORD_FIN;
		off = c->off_taken;
		r->seq = p->seq + off;
		if (p->len) {
			seq_raise(&c->sent, r->seq + p->len, c->acked);
			/* The ACK of these is what a server waits for that was told of no room.
			 * What comes twice is acknowledged at once (RFC 9293 3.10.7.4), not in 40
			 * ms. */
			twice = u->hold_ns > p->now && r->seq + p->len == (__u32)u->to;
		} else if (r->seq == (__u32)u->to - 1 && c->acked >= u->to) {
			/* A keepalive probe wants to be answered. */
			__sync_fetch_and_or(&c->flags, KVPIN_SPLICE_PROBE);
			r->seq = (__u32)c->sent - 1;
		} else if (r->seq == (__u32)u->to) {
			/* Not behind the client's window, where it would not take it. */
			r->seq = (__u32)(c->sent < u->room_end ? c->sent : u->room_end);
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
	if (twice)
		packet_copy_out(skb);
	return TC_ACT_UNSPEC;
}

#endif
