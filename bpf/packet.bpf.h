/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One TCP packet at a tc hook: read its head, write another one in its place, keep its checksums
 * right. Never decides anything.
 *
 * Checksums are always changed by the difference to the head as it came (`old`), because a packet
 * is written more than once when a copy of it goes elsewhere.
 */
#ifndef PACKET_BPF_H
#define PACKET_BPF_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "kvpin_splice_abi.h"

#define LOOPBACK_IFINDEX 1
#define HEAD_WORDS	 15
#define HEAD_BYTES	 60
/* Bits of the fourth word of a TCP head, in host order. */
#define WORD_FIN 0x00010000U
#define WORD_SYN 0x00020000U
#define WORD_RST 0x00040000U
#define WORD_PSH 0x00080000U
#define WORD_ACK 0x00100000U
#define CHECK_AT 16
/* Words of TCP options as practically every stack lays them out (RFC 7323 appendix A). */
#define OPTION_TS	0x0101080aU
#define OPTION_SACK	0x01010500U
#define OPTION_NOPS	0x01010101U
#define OPTION_NOPS_EOL 0x01010100U

/* What IPv6 puts between the heads of a packet longer than 64 KiB (RFC 2675; BIG TCP, up to Linux
 * 6.19 or so): nothing but the length. */
struct jumbo_head {
	__u8 nexthdr, hdrlen;
	__u8 type, len;
	__be32 bytes;
};
#define JUMBO_TYPE 0xc2

struct packet {
	struct kvpin_splice_key key;
	__u32 l3, l4; /* where the heads begin */
	__u32 jumbo;  /* bytes of a jumbo head before l4 */
	__u32 head;   /* bytes of the TCP head */
	__u32 len;    /* payload */
	__u32 seq, ack, win;
	__u32 bits; /* WORD_* */
	__u32 v6;
	__u32 other; /* no TCP, but ICMP perhaps */
	__u64 now;   /* ns */
	__u32 entry; /* of the connection that it belongs to */
	__u32 token; /* an event of the answer begins in it */
	__u64 at;    /* seq, extended */
};

/* A TCP head as it came and as it goes on; network order; unused words are zero. */
struct tcp_head {
	__u32 old[HEAD_WORDS], new[HEAD_WORDS];
	__u32 bytes;
	__u32 has_ts, tsval, tsecr; /* as it came */
	__u32 ts_sent;		    /* TSval as it goes on */
	__u32 odd;		    /* options that are not understood */
};

/* What is to be different in the new head. All numbers are absolute but where it says add. */
struct rewrite {
	__u32 seq, ack, win;
	__u32 clear; /* WORD_* */
	__u32 sack_add, tsval_add, tsecr_add;
	__u32 ts_floor, has_floor; /* TSval never goes below */
	__u32 no_ts, no_sack;	   /* options that the receiver does not want: NOPs instead */
};

/* Too large for the stack, which has 512 bytes for a program and all that it calls. One a CPU is
 * enough: hooks run with bottom halves disabled. */
struct work {
	struct tcp_head head;
	struct rewrite rewrite;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct work);
} splice_works SEC(".maps");

static __always_inline int after(__u32 a, __u32 b)
{
	return (__s32)(a - b) > 0;
}

/* Walks the options; a global function, so that the verifier looks at it once. */
__noinline int head_options(struct tcp_head *h, struct rewrite *r)
{
	enum { AT_OPTION, AT_SACK_MAX = 8, AT_TSVAL, AT_TSECR, AT_END };
	__u32 state = AT_OPTION;

	if (!h || !r)
		return 0;
#pragma unroll
	for (int i = 5; i < HEAD_WORDS; i++) {
		__u32 w = bpf_ntohl(h->old[i]), v;

		if ((__u32)i * 4 >= h->bytes)
			break;
		if (state == AT_OPTION) {
			if (w == OPTION_TS) {
				state = AT_TSVAL;
				if (r->no_ts)
					h->new[i] = OPTION_NOPS;
			} else if ((w & 0xffffff00) == OPTION_SACK) {
				state = ((w & 0xff) - 2) >> 2;
				if (state > AT_SACK_MAX)
					state = AT_END;
				if (r->no_sack)
					h->new[i] = OPTION_NOPS;
			} else if (w != OPTION_NOPS && w != OPTION_NOPS_EOL) {
				h->odd = 1;
				state = AT_END;
			}
		} else if (state == AT_TSVAL) {
			h->has_ts = 1;
			h->tsval = w;
			v = w + r->tsval_add;
			if (r->has_floor && !after(v, r->ts_floor))
				v = r->ts_floor;
			h->ts_sent = v;
			h->new[i] = r->no_ts ? OPTION_NOPS : bpf_htonl(v);
			state = AT_TSECR;
		} else if (state == AT_TSECR) {
			h->tsecr = w;
			v = w ? bpf_htonl(w + r->tsecr_add) : 0;
			h->new[i] = r->no_ts ? OPTION_NOPS : v;
			state = AT_OPTION;
		} else if (state <= AT_SACK_MAX) {
			h->new[i] = r->no_sack ? OPTION_NOPS : bpf_htonl(w + r->sack_add);
			state--;
		}
	}
	return 0;
}

__noinline int head_build(struct tcp_head *h, struct rewrite *r)
{
	__u32 w;

	if (!h || !r)
		return 0;
#pragma unroll
	for (int i = 0; i < HEAD_WORDS; i++)
		h->new[i] = h->old[i];
	h->new[1] = bpf_htonl(r->seq);
	w = bpf_ntohl(h->old[3]);
	if (w & WORD_ACK)
		h->new[2] = bpf_htonl(r->ack);
	h->new[3] = bpf_htonl(((w & 0xffff0000) & ~r->clear) | (r->win & 0xffff));
	head_options(h, r);
	return 0;
}

/* The rest of packet_read() for a packet with a jumbo head at p->l4. */
static __noinline int packet_read_jumbo(struct __sk_buff *skb, struct packet *p)
{
	struct jumbo_head jumbo;
	struct tcphdr t;
	__u32 bytes;

	if (bpf_skb_load_bytes(skb, p->l4, &jumbo, sizeof(jumbo)) || jumbo.hdrlen ||
	    jumbo.nexthdr != IPPROTO_TCP || jumbo.type != JUMBO_TYPE ||
	    bpf_skb_load_bytes(skb, p->l4 + sizeof(jumbo), &t, sizeof(t)))
		return -1;
	p->jumbo = sizeof(jumbo);
	p->l4 += sizeof(jumbo);
	p->key.from_port = t.source;
	p->key.to_port = t.dest;
	bytes = t.doff * 4;
	if (bytes < sizeof(t) || skb->len < p->l4 + bytes)
		return -1;
	p->len = skb->len - p->l4 - bytes;
	p->head = bytes;
	return 0;
}

/* Reads the heads. Returns 0, or -1 for what is none of ours. */
static __always_inline int packet_read(struct __sk_buff *skb, struct packet *p)
{
	void *data, *end;
	struct tcphdr *t;
	__u32 need, total;
	__u64 bytes;

	p->l3 = ETH_HLEN;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		p->l4 = ETH_HLEN + sizeof(struct iphdr);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		p->l4 = ETH_HLEN + sizeof(struct ipv6hdr);
		p->v6 = 1;
	} else {
		return -1;
	}
	need = p->l4 + sizeof(struct tcphdr);
	if (skb->len < need)
		return -1;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if (data + ETH_HLEN + sizeof(struct ipv6hdr) + sizeof(struct tcphdr) > end) {
		if (bpf_skb_pull_data(skb, need))
			return -1;
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
	}
	if (p->v6) {
		struct ipv6hdr *ip6 = data + ETH_HLEN;

		t = (void *)(ip6 + 1);
		if ((void *)(t + 1) > end)
			return -1;
		__builtin_memcpy(p->key.from, &ip6->saddr, sizeof(p->key.from));
		__builtin_memcpy(p->key.to, &ip6->daddr, sizeof(p->key.to));
		if (ip6->nexthdr == IPPROTO_HOPOPTS)
			return packet_read_jumbo(skb, p);
		if (ip6->nexthdr != IPPROTO_TCP) {
			p->other = ip6->nexthdr == IPPROTO_ICMPV6;
			return -1;
		}
		total = bpf_ntohs(ip6->payload_len);
		/* BIG TCP: the field cannot hold it. */
		total = total ? total + sizeof(*ip6) : skb->len - ETH_HLEN;
	} else {
		struct iphdr *ip = data + ETH_HLEN;

		t = (void *)(ip + 1);
		if ((void *)(t + 1) <= end)
			p->other = ip->protocol == IPPROTO_ICMP;
		if ((void *)(t + 1) > end || ip->protocol != IPPROTO_TCP || ip->ihl != 5 ||
		    (ip->frag_off & bpf_htons(0x3fff)))
			return -1;
		p->key.from[0] = ip->saddr;
		p->key.to[0] = ip->daddr;
		total = bpf_ntohs(ip->tot_len);
		if (!total)
			total = skb->len - ETH_HLEN;
	}
	p->key.from_port = t->source;
	p->key.to_port = t->dest;
	bytes = t->doff * 4;
	if (bytes < sizeof(*t) || total < p->l4 - ETH_HLEN + bytes)
		return -1;
	p->len = total - (p->l4 - ETH_HLEN) - bytes;
	p->head = bytes;
	return 0;
}

/* The TCP head into h->old, and what most want to know of it. */
static __always_inline int packet_read_tcp(struct __sk_buff *skb, struct packet *p, struct work *k)
{
	struct tcp_head *h = &k->head;
	__u64 bytes = p->head;
	__u32 w;

	__builtin_memset(k, 0, sizeof(*k));
	h->bytes = bytes;
	kvpin_opaque(bytes);
	if (bytes < 20 || bytes > HEAD_BYTES || bpf_skb_load_bytes(skb, p->l4, h->old, bytes))
		return -1;
	p->seq = bpf_ntohl(h->old[1]);
	p->ack = bpf_ntohl(h->old[2]);
	w = bpf_ntohl(h->old[3]);
	p->bits = w & 0x00ff0000;
	p->win = w & 0xffff;
	head_options(h, &k->rewrite);
	return 0;
}

/* A rewrite that changes nothing. */
static __always_inline void rewrite_begin(struct rewrite *r, const struct packet *p)
{
	__builtin_memset(r, 0, sizeof(*r));
	r->seq = p->seq;
	r->ack = p->ack;
	r->win = p->win;
}

static __always_inline void head_store(struct __sk_buff *skb, const struct packet *p,
				       struct tcp_head *h, __u64 flags)
{
	__u64 bytes = h->bytes;

	kvpin_opaque(bytes);
	if (bytes < 20 || bytes > HEAD_BYTES)
		return;
	bpf_skb_store_bytes(skb, p->l4, h->new, bytes, flags);
}

/* Puts h->new in place; its check field is still that of h->old. */
static __always_inline void packet_write_head(struct __sk_buff *skb, const struct packet *p,
					      struct tcp_head *h)
{
	__s64 diff = bpf_csum_diff((__be32 *)h->old, HEAD_BYTES, (__be32 *)h->new, HEAD_BYTES, 0);

	head_store(skb, p, h, 0);
	bpf_l4_csum_replace(skb, p->l4 + CHECK_AT, 0, (__u32)diff, 0);
}

static __always_inline void packet_rewrite(struct __sk_buff *skb, const struct packet *p,
					   struct tcp_head *h, struct rewrite *r)
{
	head_build(h, r);
	packet_write_head(skb, p, h);
}

/* The ports are a part of the TCP head. */
static __always_inline void head_address(struct tcp_head *h, const struct kvpin_splice_conn *to)
{
	h->new[0] = (__u32)to->local_port | (__u32)to->remote_port << 16;
}

/* Addresses of a packet that the connection `to` would send; checksums follow. */
static __always_inline void packet_address(struct __sk_buff *skb, const struct packet *p,
					   const struct kvpin_splice_conn *to)
{
	__be32 was[8], is[8];
	__s64 diff;

	if (p->v6) {
		__builtin_memcpy(was, p->key.from, 16);
		__builtin_memcpy(was + 4, p->key.to, 16);
		__builtin_memcpy(is, to->local, 16);
		__builtin_memcpy(is + 4, to->remote, 16);
		diff = bpf_csum_diff(was, 32, is, 32, 0);
		bpf_skb_store_bytes(skb, p->l3 + 8, is, 32, 0);
	} else {
		was[0] = p->key.from[0];
		was[1] = p->key.to[0];
		is[0] = to->local[0];
		is[1] = to->remote[0];
		diff = bpf_csum_diff(was, 8, is, 8, 0);
		bpf_skb_store_bytes(skb, p->l3 + 12, is, 8, 0);
		bpf_l3_csum_replace(skb, p->l3 + 10, 0, (__u32)diff, 0);
	}
	bpf_l4_csum_replace(skb, p->l4 + CHECK_AT, 0, (__u32)diff, BPF_F_PSEUDO_HDR);
}

static __always_inline __u32 csum_fold(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum & 0xffff;
}

/*
 * Cuts the payload off and puts a new head (h->new, addresses of `to`) in place. Its checksum is
 * made from nothing: of the old one the payload cannot be taken off.
 *
 * Whether a driver or the receiver's stack still has to complete a checksum (CHECKSUM_PARTIAL, then
 * the field holds the pseudo header's sum) is not told to programs; but then
 * bpf_l4_csum_replace() leaves the field alone.
 */
static __always_inline int packet_write_bare(struct __sk_buff *skb, struct packet *p,
					     struct tcp_head *h, const struct kvpin_splice_conn *to)
{
	__u16 before = 0, now = 0, check;
	__be32 pseudo[10] = {};
	__be16 was, is;
	__u64 sum;

	/* The client's next ACK will do. */
	if (p->jumbo || bpf_skb_change_tail(skb, p->l4 + h->bytes, 0))
		return -1;
	if (p->v6) {
		is = bpf_htons((__u16)h->bytes);
		bpf_skb_store_bytes(skb, p->l3 + 4, &is, 2, 0);
		__builtin_memcpy(pseudo, to->local, 16);
		__builtin_memcpy(pseudo + 4, to->remote, 16);
	} else {
		is = bpf_htons((__u16)(h->bytes + sizeof(struct iphdr)));
		bpf_skb_load_bytes(skb, p->l3 + 2, &was, 2);
		bpf_l3_csum_replace(skb, p->l3 + 10, was, is, 2);
		bpf_skb_store_bytes(skb, p->l3 + 2, &is, 2, 0);
		pseudo[0] = to->local[0];
		pseudo[1] = to->remote[0];
	}
	pseudo[8] = bpf_htonl(h->bytes);
	pseudo[9] = bpf_htonl(IPPROTO_TCP);
	bpf_skb_load_bytes(skb, p->l4 + CHECK_AT, &before, 2);
	bpf_l4_csum_replace(skb, p->l4 + CHECK_AT, 0, 1, 0);
	bpf_skb_load_bytes(skb, p->l4 + CHECK_AT, &now, 2);
	packet_address(skb, p, to);
	h->new[4] &= bpf_htonl(0x0000ffff);
	sum = (__u32)bpf_csum_diff(NULL, 0, pseudo, sizeof(pseudo), 0);
	if (before == now)
		check = csum_fold(sum);
	else
		check = ~csum_fold(
			(__u32)bpf_csum_diff(NULL, 0, (__be32 *)h->new, HEAD_BYTES, (__u32)sum));
	h->new[4] |= check;
	head_store(skb, p, h, BPF_F_RECOMPUTE_CSUM);
	p->len = 0;
	return 0;
}

/* A copy to the socket that the packet would have reached. */
static __always_inline void packet_copy_in(struct __sk_buff *skb)
{
	__u32 mark = skb->mark;

	/* The ingress hook of the device sees the copy again; lo has none. */
	if (skb->ifindex != LOOPBACK_IFINDEX)
		skb->mark = KVPIN_SPLICE_MARK;
	bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS);
	skb->mark = mark;
}

/* Out to the peer of the connection `to`. */
static __always_inline int packet_send(struct __sk_buff *skb, const struct kvpin_splice_conn *to)
{
	__u8 macs[12] = {};

	if (to->ifindex == LOOPBACK_IFINDEX) {
		if (skb->ifindex == LOOPBACK_IFINDEX)
			return TC_ACT_UNSPEC;
		/* lo takes what has its own address, which is zero, for its own. */
		bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0);
		return bpf_redirect(LOOPBACK_IFINDEX, BPF_F_INGRESS);
	}
	skb->mark = KVPIN_SPLICE_MARK;
	return bpf_redirect_neigh(to->ifindex, NULL, 0, 0);
}

#endif
