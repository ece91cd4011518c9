/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What user/kern/selftest*.c tries on the running kernel: a small verdict that uses everything the
 * steer path builds on. Owns its maps; shares nothing with the steer programs, so that it also says
 * something when those do not load.
 *
 * A socket with a route is a source: its bytes are counted in `word` and passed, redirected to the
 * route's socket, or copied to the ring and dropped, as the word's upper bits say. A socket without
 * one is a target only. One source is under test at a time; the counters are its.
 */
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#define SOCKETS_MAX   512
#define RING_BYTES    (1 << 20)
#define WORD_REDIRECT (1ULL << 63)
#define WORD_COPY     (1ULL << 62)
#define WORD_POSITION (WORD_COPY - 1)
/* A segment longer than both together is not copied whole, and the test says so. */
#define CHUNK_BYTES 4096
#define CHUNKS_MAX  64

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* include/linux/tcp.h */
struct tcp_sock {
	__u32 write_seq;
};

/* include/net/sock.h */
struct sock {
	void *sk_user_data;
};

/* include/linux/skbuff.h */
struct sk_buff_head {
	__u32 qlen;
};

/* include/linux/skmsg.h */
struct sk_psock {
	struct sk_buff_head ingress_skb;
};

#pragma clang attribute pop

/* Flag bits in sk_user_data (include/net/sock.h). */
#define SK_USER_DATA_BITS 7UL

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, SOCKETS_MAX);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");

/* A second map that gets a program: a socket must not be in both. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} others SEC(".maps");

/* A source's cookie -> its target's key in `sockets`. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SOCKETS_MAX);
	__type(key, __u64);
	__type(value, __u32);
} routes SEC(".maps");

/* Each record: __u64 position, then the bytes that stand there. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} ring SEC(".maps");

struct record {
	__u64 position;
	__u8 bytes[CHUNK_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct record);
} scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} stages SEC(".maps");

/* Written by the test before it starts. */
__u32 pass_every; /* after so many redirected segments the program goes back to PASS; 0: never */
__u32 drop_fin;

__u64 word; /* REDIRECT or COPY, and how many bytes were seen */
__u64 redirected;
__u32 runs, fins;
__u32 since_pass;
/* All of these stay 0 when all is well. */
__u32 no_tail_call, no_target, no_tcp_sock, not_copied;
/* Of the target, at the latest redirect: its write_seq, and the most segments seen waiting. */
__u32 target_seq, target_queue_max;

struct copy {
	struct __sk_buff *skb;
	struct record *record;
	__u64 position;
	__u32 done;
};

static long copy_chunk(__u32 i, struct copy *c)
{
	__u32 left = c->skb->len - c->done, n = left;

	if (!n)
		return 1;
	if (n > CHUNK_BYTES)
		n = CHUNK_BYTES;
	/* clang would otherwise compare a copy of n that the verifier does not connect with it. */
	asm volatile("" : "+r"(n));
	if (n < 1 || n > CHUNK_BYTES)
		return 1;
	c->record->position = c->position + c->done;
	if (bpf_skb_load_bytes(c->skb, c->done, c->record->bytes, n))
		return 1;
	if (bpf_ringbuf_output(&ring, c->record, sizeof(c->record->position) + n, 0))
		return 1;
	c->done += n;
	return 0;
}

static void copy_out(struct __sk_buff *skb, __u64 position)
{
	struct copy c = {.skb = skb, .position = position};
	__u32 zero = 0;

	c.record = bpf_map_lookup_elem(&scratch, &zero);
	if (c.record)
		bpf_loop(CHUNKS_MAX, copy_chunk, &c, 0);
	if (c.done != skb->len)
		not_copied++;
}

/* Looks into the target as the budget of the steer path does. */
static void look_at(struct bpf_sock *target)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(target);
	struct sk_psock *psock;
	void *user_data = NULL;
	__u32 qlen = 0;

	if (!tp) {
		no_tcp_sock++;
		return;
	}
	target_seq = tp->write_seq;
	bpf_core_read(&user_data, sizeof(user_data), &((struct sock *)tp)->sk_user_data);
	psock = (struct sk_psock *)((unsigned long)user_data & ~SK_USER_DATA_BITS);
	if (psock && !bpf_core_read(&qlen, sizeof(qlen), &psock->ingress_skb.qlen) &&
	    qlen > target_queue_max)
		target_queue_max = qlen;
}

SEC("sk_skb")
int selftest_move(struct __sk_buff *skb)
{
	__u64 cookie = bpf_get_socket_cookie(skb), w;
	struct bpf_sock *target;
	__u32 *route, key;

	route = bpf_map_lookup_elem(&routes, &cookie);
	if (!route)
		return SK_PASS;
	key = *route;
	runs++;
	if (!skb->len) {
		fins++;
		return drop_fin ? SK_DROP : SK_PASS;
	}
	w = __sync_fetch_and_add(&word, skb->len);
	if (w & WORD_COPY) {
		copy_out(skb, w & WORD_POSITION);
		return SK_DROP;
	}
	if (!(w & WORD_REDIRECT))
		return SK_PASS;
	target = bpf_map_lookup_elem(&sockets, &key);
	if (!target) {
		no_target++;
		return SK_PASS;
	}
	look_at(target);
	bpf_sk_release(target);
	if (pass_every && ++since_pass > pass_every) {
		since_pass = 0;
		__sync_fetch_and_and(&word, ~WORD_REDIRECT);
		return SK_PASS;
	}
	__sync_fetch_and_add(&redirected, skb->len);
	return bpf_sk_redirect_hash(skb, &sockets, &key, 0);
}

SEC("sk_skb")
int selftest_verdict(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &stages, 0);
	no_tail_call++;
	return SK_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
