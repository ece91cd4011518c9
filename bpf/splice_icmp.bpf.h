/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * "Packet too big" (RFC 1191, RFC 8201) about what went to a client: the socket here believes only
 * numbers that it has sent, and while an answer goes past it, it is the server that must send less
 * at once. The message's quotation is rewritten for either, as a NAT does.
 *
 * Nothing else is touched: a message that is not about a connection of ours, or whose layout is not
 * the usual one, passes.
 */
#ifndef SPLICE_ICMP_BPF_H
#define SPLICE_ICMP_BPF_H

#include "packet_write.bpf.h"
#include "splice_find.bpf.h"

#define ICMP_BYTES    8
#define ICMP_CHECK_AT 2
#define ICMP_UNREACH  3
#define ICMP_TOO_BIG  4 /* code of ICMP_UNREACH */
#define ICMP6_TOO_BIG 2
#define QUOTED_TCP    8	 /* ports and sequence number are quoted for certain */
#define QUOTED_WORDS  12 /* an IPv6 head and that */

/* The quoted packet's heads: as they came, and as they go on. */
struct quotation {
	__u32 old[QUOTED_WORDS], new[QUOTED_WORDS];
	__u32 l4;    /* of the message */
	__u32 at;    /* of the quotation */
	__u32 bytes; /* of it: the IP head and QUOTED_TCP */
	__u32 v6;
	__u32 seq;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct quotation);
} splice_quotations SEC(".maps");

/* Returns 0, or -1 for any other packet. */
static __always_inline int icmp_read(struct __sk_buff *skb, struct quotation *q,
				     struct kvpin_splice_key *key)
{
	__u8 head[ICMP_BYTES], kind[2];

	__builtin_memset(q, 0, sizeof(*q));
	q->v6 = skb->protocol == bpf_htons(ETH_P_IPV6);
	q->l4 = ETH_HLEN + (q->v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	q->at = q->l4 + ICMP_BYTES;
	/* The head's length (IPv4: without options), and its protocol. */
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &kind[0], 1) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + (q->v6 ? 6 : 9), &kind[1], 1) ||
	    bpf_skb_load_bytes(skb, q->l4, head, sizeof(head)))
		return -1;
	if (q->v6) {
		if (kind[1] != IPPROTO_ICMPV6 || head[0] != ICMP6_TOO_BIG ||
		    bpf_skb_load_bytes(skb, q->at, q->old, sizeof(q->old)))
			return -1;
		q->bytes = sizeof(struct ipv6hdr) + QUOTED_TCP;
		if ((bpf_ntohl(q->old[1]) >> 8 & 0xff) != IPPROTO_TCP)
			return -1;
		__builtin_memcpy(key->from, &q->old[2], 16);
		__builtin_memcpy(key->to, &q->old[6], 16);
		key->from_port = (__be16)q->old[10];
		key->to_port = (__be16)(q->old[10] >> 16);
		q->seq = bpf_ntohl(q->old[11]);
	} else {
		if (kind[0] != 0x45 || kind[1] != IPPROTO_ICMP || head[0] != ICMP_UNREACH ||
		    head[1] != ICMP_TOO_BIG ||
		    bpf_skb_load_bytes(skb, q->at, q->old, sizeof(struct iphdr) + QUOTED_TCP))
			return -1;
		q->bytes = sizeof(struct iphdr) + QUOTED_TCP;
		if (bpf_ntohl(q->old[0]) >> 24 != 0x45 ||
		    (bpf_ntohl(q->old[2]) >> 16 & 0xff) != IPPROTO_TCP)
			return -1;
		key->from[0] = q->old[3];
		key->to[0] = q->old[4];
		key->from_port = (__be16)q->old[5];
		key->to_port = (__be16)(q->old[5] >> 16);
		q->seq = bpf_ntohl(q->old[6]);
	}
	__builtin_memcpy(q->new, q->old, sizeof(q->new));
	return 0;
}

/* The message's checksum follows; @outer: what else of what it covers was changed. */
static __always_inline void icmp_write(struct __sk_buff *skb, struct quotation *q, __u32 outer)
{
	__s64 diff = bpf_csum_diff(q->old, sizeof(q->old), q->new, sizeof(q->new), outer);

	if (q->v6)
		bpf_skb_store_bytes(skb, q->at, q->new, sizeof(q->new), 0);
	else
		bpf_skb_store_bytes(skb, q->at, q->new, sizeof(struct iphdr) + QUOTED_TCP, 0);
	bpf_l4_csum_replace(skb, q->l4 + ICMP_CHECK_AT, 0, (__u32)diff, 0);
	__builtin_memcpy(q->old, q->new, sizeof(q->old));
}

static __always_inline void quote_seq(struct quotation *q, __u32 seq)
{
	q->new[q->v6 ? 11 : 6] = bpf_htonl(seq);
}

/* As if the server had sent the quoted packet to the socket here, and somebody on its way had
 * complained to it. A server on this host gets it as it came, from outside: routing refuses what
 * says that it is from 127.0.0.1. */
static __always_inline void icmp_to_server(struct __sk_buff *skb, struct quotation *q,
					   const struct kvpin_splice_conn *u)
{
	int here = u->ifindex == LOOPBACK_IFINDEX;
	__be32 was[8], is[8];
	__s64 diff = 0;

	if (q->v6) {
		__builtin_memcpy(&q->new[2], u->remote, 16);
		__builtin_memcpy(&q->new[6], u->local, 16);
		q->new[10] = (__u32)u->remote_port | (__u32)u->local_port << 16;
		if (!here) {
			bpf_skb_load_bytes(skb, ETH_HLEN + 8, was, 32);
			__builtin_memcpy(is, u->local, 16);
			__builtin_memcpy(is + 4, u->remote, 16);
			diff = bpf_csum_diff(was, 32, is, 32, 0);
			bpf_skb_store_bytes(skb, ETH_HLEN + 8, is, 32, 0);
		}
		icmp_write(skb, q, (__u32)diff);
		return;
	}
	q->new[3] = u->remote[0];
	q->new[4] = u->local[0];
	q->new[5] = (__u32)u->remote_port | (__u32)u->local_port << 16;
	/* The quoted head's own checksum, the upper half of the third word. */
	diff = bpf_csum_diff(&q->old[3], 8, &q->new[3], 8, ~(q->old[2] >> 16) & 0xffff);
	q->new[2] = (q->old[2] & 0xffff) | (~sum_fold((__u32)diff) & 0xffff) << 16;
	icmp_write(skb, q, 0);
	if (here)
		return;
	bpf_skb_load_bytes(skb, ETH_HLEN + 12, was, 8);
	is[0] = u->local[0];
	is[1] = u->remote[0];
	diff = bpf_csum_diff(was, 8, is, 8, 0);
	bpf_skb_store_bytes(skb, ETH_HLEN + 12, is, 8, 0);
	bpf_l3_csum_replace(skb, ETH_HLEN + 10, 0, (__u32)diff, 0);
}

/* A packet that is no TCP. A global function: the verifier looks at it apart. */
__noinline int splice_icmp(struct __sk_buff *skb)
{
	struct kvpin_splice_conn *c, *u = NULL;
	__u32 zero = 0, server, direction;
	struct packet p = {};
	struct quotation *q;
	__u64 word = 0;

	q = bpf_map_lookup_elem(&splice_quotations, &zero);
	if (!q || icmp_read(skb, q, &p.key))
		return TC_ACT_UNSPEC;
	c = conn_find(&p, &direction);
	if (!c || direction != KVPIN_SPLICE_OUT || c->role != KVPIN_SPLICE_CLIENT)
		return TC_ACT_UNSPEC;
	server = c->peer - 1;
	if (c->peer)
		u = bpf_map_lookup_elem(&splice_conns, &server);
	if (u && u->peer == p.entry + 1)
		word = u->word;
	if (!u || !(word & KVPIN_SPLICE_TAKEN)) {
		if (c->off) {
			quote_seq(q, q->seq - c->off);
			icmp_write(skb, q, 0);
		}
		return TC_ACT_UNSPEC;
	}
	/* The socket has nothing under way: all that it believes is its next number. So that the
	 * next answer is not taken when the server may send more at once than the way takes. */
	quote_seq(q, (__u32)u->to - c->off_taken);
	icmp_write(skb, q, 0);
	packet_copy_in(skb);
	quote_seq(q, (__u32)(u->from + (q->seq - (__u32)u->to)));
	icmp_to_server(skb, q, u);
	return u->ifindex == LOOPBACK_IFINDEX ? TC_ACT_UNSPEC : packet_send(skb, u);
}

#endif
