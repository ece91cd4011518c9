/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One TCP packet at a tc hook: read its head, build another one (packet_write.bpf.h puts it in its
 * place). Never decides anything. Each helper call costs as much as all the arithmetic here, so the
 * heads are read in place.
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

#include "kernel.bpf.h"
#include "kvpin_splice_abi.h"

#define LOOPBACK_IFINDEX 1
#define HEAD_WORDS	 15
#define HEAD_BYTES	 60
/* What nearly all packets have: no options, or timestamps alone. */
#define BARE_BYTES 20
#define TS_BYTES   32
/* IPv4: TTL, protocol, checksum and addresses; IPv6: addresses. Both begin here. */
#define ADDRESSES_AT  (ETH_HLEN + 8)
#define ADDRESS_WORDS 8
#define ADDRESS_V4    5
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
	__u32 ip_check; /* IPv4: the word with the checksum, as it came */
	__u32 l4;	/* where the TCP head begins */
	__u32 head;	/* its bytes */
	__u32 jumbo;	/* bytes of a jumbo head before it */
	__u32 len;	/* payload */
	__u32 seq, ack, win;
	__u32 bits; /* WORD_* */
	__u32 v6;
	__u32 other; /* no TCP, but ICMP perhaps */
	/* ns, of the last tick: a fifth of the price of the exact time; behind what the daemon may
	 * just have written */
	__u64 now;
	__u32 entry; /* of the connection that it belongs to */
	__u32 token; /* an event of the answer begins in it */
	__u64 at;    /* seq, extended */
};

/* A TCP head as it came and as it goes on; network order; only the words of `bytes` count. */
struct tcp_head {
	__u32 old[HEAD_WORDS];
	/* What is written stands together: addresses (IPv4: from ADDRESS_V4 on), TCP head. */
	__u32 address[ADDRESS_WORDS];
	__u32 new[HEAD_WORDS];
	__u32 bytes;
	__u32 plain;		    /* no options, or timestamps in the usual layout */
	__u32 has_ts, tsval, tsecr; /* as it came */
	__u32 ts_sent;		    /* TSval as it goes on */
	__u32 odd;		    /* options that are not understood */
};

_Static_assert(__builtin_offsetof(struct tcp_head, new) ==
		       __builtin_offsetof(struct tcp_head, address) + ADDRESS_WORDS * 4,
	       "no gap");

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
	struct packet packet;
	__u64 used_ns; /* when this CPU last wrote that the program is of use */
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

/* Options in another layout than the usual ones. */
__noinline int head_build_options(struct tcp_head *h, struct rewrite *r)
{
	if (!h || !r)
		return 0;
#pragma unroll
	for (int i = 5; i < HEAD_WORDS; i++)
		h->new[i] = h->old[i];
	head_options(h, r);
	return 0;
}

static __always_inline void head_build(struct tcp_head *h, struct rewrite *r)
{
	__u32 w = bpf_ntohl(h->old[3]), v;

	h->new[0] = h->old[0];
	h->new[1] = bpf_htonl(r->seq);
	h->new[2] = w &WORD_ACK ? bpf_htonl(r->ack) : h->old[2];
	h->new[3] = bpf_htonl(((w & 0xffff0000) & ~r->clear) | (r->win & 0xffff));
	h->new[4] = h->old[4];
	if (!h->plain) {
		head_build_options(h, r);
	} else if (h->has_ts && r->no_ts) {
		h->new[5] = h->new[6] = h->new[7] = OPTION_NOPS;
	} else if (h->has_ts) {
		v = h->tsval + r->tsval_add;
		if (r->has_floor && !after(v, r->ts_floor))
			v = r->ts_floor;
		h->ts_sent = v;
		h->new[5] = h->old[5];
		h->new[6] = bpf_htonl(v);
		h->new[7] = h->tsecr ? bpf_htonl(h->tsecr + r->tsecr_add) : 0;
	}
}

/* ---- reading ---- */

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

static __always_inline int packet_read_v4(struct packet *p, void *data, void *end,
					  struct tcphdr **t, __u32 *total)
{
	struct iphdr *ip = data + ETH_HLEN;

	*t = (void *)(ip + 1);
	if ((void *)(*t + 1) <= end)
		p->other = ip->protocol == IPPROTO_ICMP;
	if ((void *)(*t + 1) > end || ip->protocol != IPPROTO_TCP || ip->ihl != 5 ||
	    (ip->frag_off & bpf_htons(0x3fff)))
		return -1;
	p->key.from[0] = ip->saddr;
	p->key.to[0] = ip->daddr;
	p->ip_check = *(__u32 *)&ip->ttl;
	*total = bpf_ntohs(ip->tot_len);
	return 0;
}

static __always_inline int packet_read_v6(struct packet *p, void *data, void *end,
					  struct tcphdr **t, __u32 *total)
{
	struct ipv6hdr *ip6 = data + ETH_HLEN;

	*t = (void *)(ip6 + 1);
	if ((void *)(*t + 1) > end)
		return -1;
	p->other = ip6->nexthdr == IPPROTO_ICMPV6;
	if (ip6->nexthdr != IPPROTO_TCP && ip6->nexthdr != IPPROTO_HOPOPTS)
		return -1;
	__builtin_memcpy(p->key.from, &ip6->saddr, sizeof(p->key.from));
	__builtin_memcpy(p->key.to, &ip6->daddr, sizeof(p->key.to));
	if (ip6->nexthdr == IPPROTO_HOPOPTS)
		return 1;
	*total = bpf_ntohs(ip6->payload_len);
	/* BIG TCP: the field cannot hold it. */
	if (*total)
		*total += sizeof(*ip6);
	return 0;
}

/* Reads the heads, but for the TCP head's numbers. Returns 0, or -1 for what is none of ours. */
static __always_inline int packet_read(struct __sk_buff *skb, struct packet *p)
{
	__u32 need, total = 0, bytes;
	struct tcphdr *t = NULL;
	void *data, *end;
	int err;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		p->l4 = ETH_HLEN + sizeof(struct iphdr);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		p->l4 = ETH_HLEN + sizeof(struct ipv6hdr);
		p->v6 = 1;
	} else {
		return -1;
	}
	need = p->l4 + sizeof(struct tcphdr);
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if ((__u64)end - (__u64)data < need) {
		if (skb->len < need || bpf_skb_pull_data(skb, need))
			return -1;
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
	}
	err = p->v6 ? packet_read_v6(p, data, end, &t, &total)
		    : packet_read_v4(p, data, end, &t, &total);
	if (err)
		return err < 0 ? -1 : packet_read_jumbo(skb, p);
	if (!total)
		total = skb->len - ETH_HLEN;
	p->key.from_port = t->source;
	p->key.to_port = t->dest;
	bytes = t->doff * 4;
	if (bytes < sizeof(*t) || total < p->l4 - ETH_HLEN + bytes)
		return -1;
	p->len = total - (p->l4 - ETH_HLEN) - bytes;
	p->head = bytes;
	return 0;
}

/* A head in the usual layout, where it can be read in place; else -1. */
static __always_inline int head_read_plain(struct __sk_buff *skb, const struct packet *p,
					   struct tcp_head *h)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 *w = data + ETH_HLEN + (p->v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));

	if ((void *)w + BARE_BYTES > end)
		return -1;
#pragma unroll
	for (int i = 0; i < BARE_BYTES / 4; i++)
		h->old[i] = w[i];
	h->has_ts = 0;
	if (p->head == BARE_BYTES)
		return 0;
	if (p->head != TS_BYTES || (void *)w + TS_BYTES > end || w[5] != bpf_htonl(OPTION_TS))
		return -1;
	h->old[5] = w[5];
	h->old[6] = w[6];
	h->old[7] = w[7];
	h->has_ts = 1;
	h->tsval = bpf_ntohl(w[6]);
	h->tsecr = bpf_ntohl(w[7]);
	return 0;
}

static __always_inline int head_read_any(struct __sk_buff *skb, const struct packet *p,
					 struct work *k)
{
	struct tcp_head *h = &k->head;
	__u64 bytes = p->head;

	__builtin_memset(h, 0, sizeof(*h));
	__builtin_memset(&k->rewrite, 0, sizeof(k->rewrite));
	h->bytes = bytes;
	kvpin_opaque(bytes);
	if (bytes < BARE_BYTES || bytes > HEAD_BYTES ||
	    bpf_skb_load_bytes(skb, p->l4, h->old, bytes))
		return -1;
	head_options(h, &k->rewrite);
	return 0;
}

/* The TCP head into h->old, and what most want to know of it. */
static __always_inline int packet_read_tcp(struct __sk_buff *skb, struct packet *p, struct work *k)
{
	struct tcp_head *h = &k->head;
	__u32 w;

	h->bytes = p->head;
	h->plain = !p->jumbo && !head_read_plain(skb, p, h);
	h->odd = 0;
	if (!h->plain && head_read_any(skb, p, k))
		return -1;
	p->seq = bpf_ntohl(h->old[1]);
	p->ack = bpf_ntohl(h->old[2]);
	w = bpf_ntohl(h->old[3]);
	p->bits = w & 0x00ff0000;
	p->win = w & 0xffff;
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

#endif
