/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The new head of a TCP packet into its place, its checksums right, and the packet on its way.
 *
 * Checksums are made in the program, and one store writes all that changes: the IP header's
 * addresses and the TCP head are neighbours. Checksums are always changed by the difference to the
 * head as it came (`old`), because a packet is written more than once when a copy of it goes
 * elsewhere.
 */
#ifndef PACKET_WRITE_BPF_H
#define PACKET_WRITE_BPF_H

#include "packet.bpf.h"
#include "splice_maps.bpf.h"

/* AF_INET, AF_INET6: include/linux/socket.h, which is no header for programs. */
#define FAMILY_V4 2
#define FAMILY_V6 10

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
#ifndef KERNEL_WITHOUT_CAST
static __always_inline int packet_partial(struct __sk_buff *skb, const struct packet *p)
{
	struct sk_buff *kskb = bpf_cast_to_kern_ctx(skb);

	return BPF_CORE_READ_BITFIELD(kskb, ip_summed) == CHECKSUM_PARTIAL;
}
#else
static __always_inline int packet_partial(struct __sk_buff *skb, const struct packet *p)
{
	__u16 before = 0, now = 0;

	/* Where nobody says so, bpf_l4_csum_replace() shows it: then it leaves the field alone. */
	bpf_skb_load_bytes(skb, p->l4 + CHECK_AT, &before, 2);
	bpf_l4_csum_replace(skb, p->l4 + CHECK_AT, 0, 1, 0);
	bpf_skb_load_bytes(skb, p->l4 + CHECK_AT, &now, 2);
	bpf_skb_store_bytes(skb, p->l4 + CHECK_AT, &before, 2, 0);
	return before == now;
}
#endif

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

/* clang would make one comparison of the two, from which the verifier of 6.1 learns no lower bound.
 */
static __always_inline void head_store(struct __sk_buff *skb, const struct packet *p,
				       struct tcp_head *h, __u64 bytes)
{
	kvpin_opaque(bytes);
	if (bytes < BARE_BYTES)
		return;
	kvpin_opaque(bytes);
	if (bytes <= HEAD_BYTES)
		bpf_skb_store_bytes(skb, p->l4, h->new, bytes, BPF_F_RECOMPUTE_CSUM);
}

/* The new TCP head into the packet. */
static __always_inline void packet_write(struct __sk_buff *skb, const struct packet *p,
					 struct tcp_head *h)
{
	__u64 bytes = h->bytes;

	if (!packet_partial(skb, p))
		head_check(h, ~sum_fold((__u16)~h->old[4] + head_change(h)));
	head_store(skb, p, h, bytes);
}

/* ... and the addresses in front of it. */
static __always_inline void packet_store_all(struct __sk_buff *skb, const struct packet *p,
					     struct tcp_head *h)
{
	__u64 bytes =
		p->v6 ? h->bytes + ADDRESS_WORDS * 4 : h->bytes + (ADDRESS_WORDS - ADDRESS_V4) * 4;
	void *from = h;

	if (p->jumbo) { /* between the two */
		bpf_skb_store_bytes(skb, ADDRESSES_AT, h->address, sizeof(h->address),
				    BPF_F_RECOMPUTE_CSUM);
		head_store(skb, p, h, h->bytes);
		return;
	}
	/* Two checks, and hidden from each other, as in head_store(). */
	kvpin_opaque(bytes);
	if (bytes < BARE_BYTES)
		return;
	kvpin_opaque(bytes);
	if (bytes > HEAD_BYTES + ADDRESS_WORDS * 4)
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

	/* The client's next ACK will do. */
	if (p->jumbo || bpf_skb_change_tail(skb, p->l4 + h->bytes, 0))
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
		skb->mark = passed_mark;
	bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS);
	skb->mark = mark;
}

/* The same packet once more, on its way out. */
static __always_inline void packet_copy_out(struct __sk_buff *skb)
{
	__u32 mark = skb->mark;

	skb->mark = passed_mark;
	bpf_clone_redirect(skb, skb->ifindex, 0);
	skb->mark = mark;
}

/* Out to the peer of the connection `to`. */
static __always_inline int packet_send(struct __sk_buff *skb, const struct kvpin_splice_conn *to)
{
	struct bpf_redir_neigh hop = {};
	__u8 macs[12] = {};

	if (to->ifindex == LOOPBACK_IFINDEX) {
		if (skb->ifindex == LOOPBACK_IFINDEX)
			return TC_ACT_UNSPEC;
		/* lo takes what has its own address, which is zero, for its own. */
		bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0);
		return bpf_redirect(LOOPBACK_IFINDEX, BPF_F_INGRESS);
	}
	skb->mark = passed_mark;
	/* The daemon has asked for the route; the kernel would for each packet. */
	hop.nh_family = to->hop_family;
	if (to->hop_family) {
		__builtin_memcpy(hop.ipv6_nh, to->hop, sizeof(hop.ipv6_nh));
	} else {
		hop.nh_family = skb->protocol == bpf_htons(ETH_P_IPV6) ? FAMILY_V6 : FAMILY_V4;
		__builtin_memcpy(hop.ipv6_nh, to->remote, sizeof(hop.ipv6_nh));
	}
	return bpf_redirect_neigh(to->ifindex, &hop, sizeof(hop), 0);
}

#endif
