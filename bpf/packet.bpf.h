/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One TCP packet at a tc hook: read its head, write another one in its place, keep its checksums
 * right. Never decides anything.
 *
 * Each helper call costs as much as all the arithmetic here. So the heads are read in place, the
 * checksums are made in the program, and one store writes all that changes: the IP header's
 * addresses and the TCP head are neighbours. Checksums are always changed by the difference to the
 * head as it came (`old`), because a packet is written more than once when a copy of it goes
 * elsewhere.
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

struct packet {
	struct kvpin_splice_key key;
	__u32 ip_check; /* IPv4: the word with the checksum, as it came */
	__u32 l4;	/* where the TCP head begins */
	__u32 head;	/* its bytes */
	__u32 len;	/* payload */
	__u32 seq, ack, win;
	__u32 bits; /* WORD_* */
	__u32 v6;
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

static __always_inline int packet_read_v4(struct packet *p, void *data, void *end,
					  struct tcphdr **t, __u32 *total)
{
	struct iphdr *ip = data + ETH_HLEN;

	*t = (void *)(ip + 1);
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
	if ((void *)(*t + 1) > end || ip6->nexthdr != IPPROTO_TCP)
		return -1;
	__builtin_memcpy(p->key.from, &ip6->saddr, sizeof(p->key.from));
	__builtin_memcpy(p->key.to, &ip6->daddr, sizeof(p->key.to));
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
		return -1;
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

	__builtin_memset(k, 0, sizeof(*k));
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
	h->plain = !head_read_plain(skb, p, h);
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

/* ---- checksums: sums of 32-bit words in the packet's own byte order (RFC 1071 2(B)) ---- */

static __always_inline __u32 sum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum & 0xffff;
}

/* The difference that a word's change makes. */
static __always_inline __u64 sum_change(__u32 was, __u32 is)
{
	return (__u64)(__u32)~was + is;
}

/* Of options in an unusual layout; unused words are zero in both heads. */
__noinline __u32 options_change(struct tcp_head *h)
{
	__u64 sum = 0;

	if (!h)
		return 0;
#pragma unroll
	for (int i = 5; i < HEAD_WORDS; i++)
		sum += sum_change(h->old[i], h->new[i]);
	return sum_fold(sum);
}

/* Of the whole TCP head, without the word that holds the checksum: that one stays. */
static __always_inline __u64 head_change(struct tcp_head *h)
{
	__u64 sum = sum_change(h->old[0], h->new[0]) + sum_change(h->old[1], h->new[1]) +
		    sum_change(h->old[2], h->new[2]) + sum_change(h->old[3], h->new[3]);

	if (!h->plain)
		return sum + options_change(h);
	if (h->has_ts)
		sum += sum_change(h->old[5], h->new[5]) + sum_change(h->old[6], h->new[6]) +
		       sum_change(h->old[7], h->new[7]);
	return sum;
}

/* Does a driver or the receiver's stack still have to complete the TCP checksum? Then the field
 * holds the pseudo header's sum alone. */
static __always_inline int packet_partial(struct __sk_buff *skb, const struct packet *p)
{
	__u16 before = 0, now = 0;
	struct sk_buff *kskb;

	if (kernel_has_cast()) {
		kskb = bpf_cast_to_kern_ctx(skb);
		return BPF_CORE_READ_BITFIELD(kskb, ip_summed) == CHECKSUM_PARTIAL;
	}
	/* Where nobody says so, bpf_l4_csum_replace() shows it: then it leaves the field alone. */
	bpf_skb_load_bytes(skb, p->l4 + CHECK_AT, &before, 2);
	bpf_l4_csum_replace(skb, p->l4 + CHECK_AT, 0, 1, 0);
	bpf_skb_load_bytes(skb, p->l4 + CHECK_AT, &now, 2);
	bpf_skb_store_bytes(skb, p->l4 + CHECK_AT, &before, 2, 0);
	return before == now;
}

/* ---- writing ---- */

/* Puts new addresses in front of h->new: those of a packet that `to` would send. Returns the change
 * of the sums that they are in. */
static __always_inline __u64 head_address(struct tcp_head *h, const struct packet *p,
					  const struct kvpin_splice_conn *to)
{
	__u32 check;
	__u64 sum;

	/* The ports are a part of the TCP head. */
	h->new[0] = (__u32)to->local_port | (__u32)to->remote_port << 16;
	if (!p->v6) {
		h->address[6] = to->local[0];
		h->address[7] = to->remote[0];
		sum = sum_change(p->key.from[0], to->local[0]) +
		      sum_change(p->key.to[0], to->remote[0]);
		check = sum_fold((~p->ip_check >> 16) + sum);
		h->address[ADDRESS_V4] = (p->ip_check & 0xffff) | ~check << 16;
		return sum;
	}
	sum = 0;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		h->address[i] = to->local[i];
		h->address[4 + i] = to->remote[i];
		sum += sum_change(p->key.from[i], to->local[i]) +
		       sum_change(p->key.to[i], to->remote[i]);
	}
	return sum;
}

static __always_inline void head_check(struct tcp_head *h, __u32 check)
{
	h->new[4] = (h->new[4] & 0xffff0000) | (check & 0xffff);
}

/* The new TCP head into the packet. */
static __always_inline void packet_write(struct __sk_buff *skb, const struct packet *p,
					 struct tcp_head *h)
{
	__u64 bytes = h->bytes;

	if (!packet_partial(skb, p))
		head_check(h, ~sum_fold((__u16)~h->old[4] + head_change(h)));
	kvpin_opaque(bytes);
	if (bytes >= BARE_BYTES && bytes <= HEAD_BYTES)
		bpf_skb_store_bytes(skb, p->l4, h->new, bytes, BPF_F_RECOMPUTE_CSUM);
}

/* ... and the addresses in front of it. */
static __always_inline void packet_store_all(struct __sk_buff *skb, const struct packet *p,
					     struct tcp_head *h)
{
	__u64 bytes =
		p->v6 ? h->bytes + ADDRESS_WORDS * 4 : h->bytes + (ADDRESS_WORDS - ADDRESS_V4) * 4;
	void *from = h;

	kvpin_opaque(bytes);
	if (bytes < BARE_BYTES || bytes > HEAD_BYTES + ADDRESS_WORDS * 4)
		return;
	from += __builtin_offsetof(struct tcp_head, address);
	if (p->v6)
		bpf_skb_store_bytes(skb, ADDRESSES_AT, from, bytes, BPF_F_RECOMPUTE_CSUM);
	else if (bytes <= HEAD_BYTES + (ADDRESS_WORDS - ADDRESS_V4) * 4)
		bpf_skb_store_bytes(skb, ADDRESSES_AT, from + ADDRESS_V4 * 4, bytes,
				    BPF_F_RECOMPUTE_CSUM);
}

/* Not inlined: it is wanted in many places, none of them of a spliced answer. */
static __noinline int packet_rewrite(struct __sk_buff *skb, const struct packet *p,
				     struct tcp_head *h, struct rewrite *r)
{
	head_build(h, r);
	packet_write(skb, p, h);
	return 0;
}

/* The new TCP head, and the addresses of a packet that the connection `to` would send. */
static __always_inline void packet_write_to(struct __sk_buff *skb, const struct packet *p,
					    struct tcp_head *h, const struct kvpin_splice_conn *to)
{
	__u64 sum = head_address(h, p, to);

	if (packet_partial(skb, p))
		head_check(h, sum_fold((h->old[4] & 0xffff) + sum));
	else
		head_check(h, ~sum_fold((__u16)~h->old[4] + head_change(h) + sum));
	packet_store_all(skb, p, h);
}

/* Corrects the IP header's length. */
static __always_inline void packet_shorten(struct __sk_buff *skb, struct packet *p, __u32 bytes)
{
	__be16 was = 0, is = bpf_htons((__u16)bytes);
	__u32 check;

	if (p->v6) {
		bpf_skb_store_bytes(skb, ETH_HLEN + 4, &is, 2, BPF_F_RECOMPUTE_CSUM);
		return;
	}
	is = bpf_htons((__u16)(bytes + sizeof(struct iphdr)));
	bpf_skb_load_bytes(skb, ETH_HLEN + 2, &was, 2);
	bpf_skb_store_bytes(skb, ETH_HLEN + 2, &is, 2, BPF_F_RECOMPUTE_CSUM);
	check = sum_fold((~p->ip_check >> 16) + sum_change(was, is));
	p->ip_check = (p->ip_check & 0xffff) | ~check << 16;
}

/*
 * Cuts the payload off and puts a new head (h->new, addresses of `to`) in place. Its checksum is
 * made from nothing: of the old one the payload cannot be taken off.
 */
static __always_inline int packet_write_bare(struct __sk_buff *skb, struct packet *p,
					     struct tcp_head *h, const struct kvpin_splice_conn *to)
{
	__u64 sum;

	if (bpf_skb_change_tail(skb, p->l4 + h->bytes, 0))
		return -1;
	packet_shorten(skb, p, h->bytes);
	head_address(h, p, to);
	sum = (__u64)bpf_htonl(h->bytes) + bpf_htonl(IPPROTO_TCP);
#pragma unroll
	for (int i = 0; i < 4; i++)
		sum += (__u64)to->local[i] + to->remote[i];
	head_check(h, 0);
	if (packet_partial(skb, p)) {
		head_check(h, sum_fold(sum));
	} else {
#pragma unroll
		for (int i = 0; i < HEAD_WORDS; i++)
			if ((__u32)i * 4 < h->bytes)
				sum += h->new[i];
		head_check(h, ~sum_fold(sum));
	}
	packet_store_all(skb, p, h);
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
