/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The steer path: verdicts on the sockets of clients and servers (sockmap, DESIGN.md section 2).
 *
 * A segment of a client whose word says REDIRECT must be one whole request and goes to its
 * session's server (steer_request.bpf.h). A segment of a server belongs to the answer that is due
 * and goes to the client (steer_answer.bpf.h). Bodies are only counted.
 *
 * Whatever is not certain goes up to the daemon from that segment on, with a reason (hand_up()).
 * Nothing here ever waits, and nothing is decided here: a session without a pin goes up.
 *
 * Concurrency: a socket's verdict runs under its lock, so there is one at a time per socket. The
 * client's and the server's run side by side; they share conn->running and conn->hold (taken by
 * exchange) and the target side of the flows (written by the other socket's verdict).
 */
#include "steer_answer.bpf.h"
#include "steer_request.bpf.h"

SEC("sk_skb")
int steer_request(struct __sk_buff *skb)
{
	__u32 slot = skb->priority, reason;
	struct kvpin_conn *conn = bpf_map_lookup_elem(&conns, &slot);
	struct side side = {.conn = slot};
	struct scratch *s;
	__u64 before;
	int verdict;

	if (!conn)
		return SK_PASS;
	side.flow = &conn->flow;
	side.cookie = conn->cookie;
	side.worker = conn->worker;
	side.busy = &conn->running;
	if (!segment_redirects(skb, &side, &before, &verdict))
		return verdict;
	s = scratch_take();
	reason = s ? request_steer(skb, conn, slot, s) : KVPIN_REFUSED_OFF;
	return segment_done(skb, &side, s, before, reason);
}

SEC("sk_skb")
int steer_answer(struct __sk_buff *skb)
{
	__u32 entry = skb->priority, slot, reason;
	struct kvpin_upstream *u = bpf_map_lookup_elem(&upstreams, &entry);
	struct side side = {.upstream = entry + 1};
	struct kvpin_conn *conn;
	struct scratch *s;
	__u64 before;
	int verdict;

	if (!u)
		return SK_PASS;
	slot = u->conn;
	conn = bpf_map_lookup_elem(&conns, &slot);
	if (!conn)
		return SK_PASS;
	side.flow = &u->flow;
	side.conn = slot;
	side.cookie = conn->cookie;
	side.worker = conn->worker;
	side.busy = &u->phase;
	if (!segment_redirects(skb, &side, &before, &verdict))
		return verdict;
	s = scratch_take();
	reason = s ? answer_steer(skb, &side, conn, u, s) : KVPIN_REFUSED_OFF;
	return segment_done(skb, &side, s, before, reason);
}

/*
 * What is attached to the sockhash: finds out whose segment it is and goes on in the array of
 * verdicts, because sockets keep the program they were inserted under, and an upgrade replaces
 * what the array holds.
 */
SEC("sk_skb")
int steer_verdict(struct __sk_buff *skb)
{
	__u64 cookie = bpf_get_socket_cookie(skb);
	struct kvpin_sock_ref *ref = bpf_map_lookup_elem(&cookies, &cookie);

	if (!ref)
		return SK_PASS;
	if (ref->upstream) {
		skb->priority = ref->upstream - 1;
		bpf_tail_call(skb, &verdicts, KVPIN_VERDICT_ANSWER);
	} else {
		skb->priority = ref->conn;
		bpf_tail_call(skb, &verdicts, KVPIN_VERDICT_REQUEST);
	}
	return SK_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
