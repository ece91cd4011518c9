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
 * the server sends it again, to the socket. Close: a server's FIN or RST goes to its socket and not
 * to the client: the daemon ends the client's connection as the answer deserves. One that is dead
 * does not: then they go to the client too.
 */
#include "splice_client.bpf.h"
#include "splice_find.bpf.h"
#include "splice_icmp.bpf.h"
#include "splice_server.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* How exactly a successor learns when this was last of use. */
#define USED_NS 1000000000ULL

/* Once a second: apart from the hot code. */
static __noinline int used_note(struct work *k, __u64 now)
{
	__u32 zero = 0;
	struct kvpin_splice_config *config = bpf_map_lookup_elem(&splice_config, &zero);

	k->used_ns = now;
	if (config)
		config->used_ns = now;
	return 0;
}

SEC("tc")
int splice_packet(struct __sk_buff *skb)
{
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
	/* In the name of an address of this host: the stack will not have it either. */
	if (x->ifindex == LOOPBACK_IFINDEX && skb->ifindex != LOOPBACK_IFINDEX)
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
	if (p->now - k->used_ns > USED_NS)
		used_note(k, p->now);
	if (x->role == KVPIN_SPLICE_CLIENT)
		return direction == KVPIN_SPLICE_IN ? client_in(skb, p, k, x)
						    : client_out(skb, p, k, x);
	return direction == KVPIN_SPLICE_IN ? server_in(skb, p, k, x) : server_out(skb, p, k, x);
}
