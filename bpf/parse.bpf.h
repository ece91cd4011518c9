/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The parser of include/ over a segment: bytes are copied to a scratch buffer, because a segment
 * on loopback has no linear bytes, and bpf_loop() drives the steps.
 *
 * Scratch buffers: a verdict usually runs in softirq, but also in process context with bottom
 * halves enabled (__release_sock() of a socket that was in use when the segment came), where a
 * softirq on the same CPU may run another one. So each CPU has several, taken by a bit mask.
 */
#ifndef PARSE_BPF_H
#define PARSE_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "head_parse.bpf.h"
#include "kvpin_http_body.h"
#include "kvpin_key.h"

#define SCRATCHES 4
/* Bytes loaded at once to read framing between chunks. */
#define WALK_WINDOW_BYTES 256
/* Chunks take about ten turns each; beyond this a segment is handed up. */
#define WALK_TURNS_MAX 16384

struct scratch {
	__u8 bytes[KVPIN_BPF_SCRATCH_BYTES];
	__u8 key[KVPIN_KEY_BYTES];
	struct kvpin_head head;
	struct kvpin_body body;
	__u32 bit;
	__u32 pad[3];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCHES);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

/* Bits of the scratches in use. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} scratch_use SEC(".maps");

static __always_inline struct scratch *scratch_take(void)
{
	__u32 zero = 0, i;
	__u32 *use = bpf_map_lookup_elem(&scratch_use, &zero);

	if (!use)
		return NULL;
	for (i = 0; i < SCRATCHES; i++) {
		struct scratch *s;
		__u32 key = i;

		if (__sync_fetch_and_or(use, 1U << i) & 1U << i)
			continue;
		s = bpf_map_lookup_elem(&scratches, &key);
		if (s)
			s->bit = 1U << i;
		return s;
	}
	return NULL;
}

static __always_inline void scratch_give(struct scratch *s)
{
	__u32 zero = 0;
	__u32 *use = bpf_map_lookup_elem(&scratch_use, &zero);

	if (use)
		__sync_fetch_and_and(use, ~s->bit);
}

/* Copy up to `want` bytes of the segment from `pos` on into the scratch; returns how many. */
static __always_inline __u32 scratch_load(struct __sk_buff *skb, struct scratch *s, __u32 pos,
					  __u32 want)
{
	__u64 n = skb->len - pos;

	if (n > want)
		n = want;
	kvpin_opaque(n);
	if (n < 1 || n > KVPIN_BPF_HEAD_BYTES)
		return 0;
	if (bpf_skb_load_bytes(skb, pos, s->bytes, n))
		return 0;
	return n;
}

struct walk_loop {
	struct __sk_buff *skb;
	struct scratch *s;
	__u32 pos;
	__u32 len;
	__u32 from; /* the scratch holds [from, to) of the segment */
	__u32 to;
};

static long walk_turn(__u32 turn, struct walk_loop *l)
{
	struct scratch *s = l->s;
	struct kvpin_body *b = &s->body;
	__u32 pos = l->pos;
	__u8 c = 0;

	if (pos >= l->len || b->state == KVPIN_BS_DONE || b->state == KVPIN_BS_BAD)
		return 1;
	if (!kvpin_body_counts(b) || b->fresh) {
		if (pos < l->from || pos >= l->to) {
			__u32 n = scratch_load(l->skb, s, pos, WALK_WINDOW_BYTES);

			if (!n) {
				kvpin_body_bad(b, KVPIN_HTTP_NONE);
				return 1;
			}
			l->from = pos;
			l->to = pos + n;
		}
		c = kvpin_byte(s->bytes, pos - l->from);
	}
	if (kvpin_body_counts(b)) {
		l->pos = pos + (__u32)kvpin_body_skip(b, c, l->len - pos);
	} else {
		l->pos = pos + 1;
		kvpin_body_step(b, c);
	}
	return 0;
}

/*
 * kvpin_body_walk() of s->body over the segment from `pos` on, of which the scratch holds the first
 * `have` bytes. Returns the position it got to: short of the segment's length when the message
 * ended, is malformed (s->body.state), or has too many chunks.
 */
static __always_inline __u32 body_walk(struct __sk_buff *skb, struct scratch *s, __u32 pos,
				       __u32 have)
{
	struct walk_loop l = {
		.skb = skb, .s = s, .pos = pos, .len = skb->len, .from = 0, .to = have};

	bpf_loop(WALK_TURNS_MAX, walk_turn, &l, 0);
	return l.pos;
}

/* The session's id; the key stands in the segment at s->head.key_off and has 1 to 256 bytes. */
static __always_inline int key_hash(struct __sk_buff *skb, struct scratch *s, __u64 *id)
{
	__u64 len = s->head.key_len;

	kvpin_opaque(len);
	if (len < 1 || len > KVPIN_KEY_BYTES)
		return -1;
	__builtin_memset(s->key, 0, sizeof(s->key));
	if (bpf_skb_load_bytes(skb, s->head.key_off, s->key, len))
		return -1;
	*id = kvpin_key_hash_padded(s->key);
	return 0;
}

#endif
