/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The parser of include/ as the kernel sees it, in the shape that a verdict program uses: bytes
 * of one skb are copied to a per-CPU scratch, the state stands in map memory, bpf_loop() drives
 * the steps. test_parser_bpf.c runs it by BPF_PROG_TEST_RUN and compares with the native build.
 *
 * A tc program, because sk_skb programs have no test run; the helpers are the same.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "head_parse.bpf.h"
#include "parser_shared.h"
#include "kvpin_key.h"

/* Every step takes a byte or more, but for the first of a response. */
#define STEPS_MAX (PARSER_INPUT_BYTES + 1)

struct scratch {
	__u8 bytes[KVPIN_BPF_SCRATCH_BYTES];
	__u8 key[KVPIN_KEY_BYTES];
};

#define ONE_SLOT(map_name, map_type, value_type)                                                   \
	struct {                                                                                   \
		__uint(type, map_type);                                                            \
		__uint(max_entries, 1);                                                            \
		__type(key, __u32);                                                                \
		__type(value, value_type);                                                         \
	} map_name SEC(".maps")

struct input {
	__u8 bytes[PARSER_INPUT_BYTES];
};

ONE_SLOT(names_map, BPF_MAP_TYPE_ARRAY, struct kvpin_names);
ONE_SLOT(orders, BPF_MAP_TYPE_ARRAY, struct parser_order);
ONE_SLOT(inputs, BPF_MAP_TYPE_ARRAY, struct input);
ONE_SLOT(results, BPF_MAP_TYPE_ARRAY, struct parser_result);
ONE_SLOT(scratches, BPF_MAP_TYPE_PERCPU_ARRAY, struct scratch);

struct body_loop {
	struct kvpin_body *b;
	const __u8 *buf;
	__u32 pos;
	__u32 len;
};

static long body_turn(__u32 turn, struct body_loop *l)
{
	struct kvpin_body *b = l->b;
	__u8 c;

	if (l->pos >= l->len || b->state == KVPIN_BS_DONE || b->state == KVPIN_BS_BAD)
		return 1;
	c = kvpin_byte(l->buf, l->pos);
	if (kvpin_body_counts(b)) {
		l->pos += (__u32)kvpin_body_skip(b, c, l->len - l->pos);
	} else {
		l->pos++;
		kvpin_body_step(b, c);
	}
	return 0;
}

static __always_inline __u32 body_walk(struct kvpin_body *b, const __u8 *buf, __u32 pos, __u32 len)
{
	struct body_loop l = {.b = b, .buf = buf, .pos = pos, .len = len};

	bpf_loop(STEPS_MAX, body_turn, &l, 0);
	return l.pos;
}

static __always_inline void key_hash(struct __sk_buff *skb, const struct parser_order *order,
				     struct scratch *s, struct parser_result *r)
{
	__u64 len = r->head.key_len;
	__u32 off = r->head.key_off;

	if (r->head.key_rank == KVPIN_KEY_NONE)
		return;
	kvpin_opaque(len);
	if (len < 1 || len > KVPIN_KEY_BYTES)
		return;
	__builtin_memset(s->key, 0, sizeof(s->key));
	if (order->from_map) {
		if (bpf_probe_read_kernel(s->key, len,
					  s->bytes + (off & (KVPIN_BPF_HEAD_BYTES - 1))))
			return;
	} else if (bpf_skb_load_bytes(skb, PARSER_L2_BYTES + off, s->key, len)) {
		return;
	}
	r->key_hash = kvpin_key_hash_padded(s->key);
}

static __always_inline int head_run(struct __sk_buff *skb, const struct kvpin_names *names,
				    const struct parser_order *order, struct scratch *s,
				    struct parser_result *r)
{
	kvpin_head_init(&r->head, order->kind);
	if (order->limit_bytes) {
		r->head.limit_bytes = order->limit_bytes;
		r->head.limit_fields = order->limit_fields;
	}
	r->step = KVPIN_STEP_MORE;
	if (order->cut)
		r->step = head_parse(&r->head, names, s->bytes, order->cut);
	if (r->step == KVPIN_STEP_MORE)
		r->step = head_parse(&r->head, names, s->bytes, order->len);
	if (r->step != KVPIN_STEP_DONE)
		return 0;
	key_hash(skb, order, s, r);
	if (order->kind == KVPIN_REQUEST)
		kvpin_body_of_request(&r->body, &r->head);
	else
		kvpin_body_of_response(&r->body, &r->head, order->method);
	if (!order->head_only)
		r->walked = body_walk(&r->body, s->bytes, r->head.pos, order->len) - r->head.pos;
	return 0;
}

/* Returns 0 (the result map tells all), or 1 when a lookup or a copy failed. */
SEC("tc")
int parser(struct __sk_buff *skb)
{
	__u32 zero = 0, body_from = 0;
	const struct kvpin_names *names = bpf_map_lookup_elem(&names_map, &zero);
	const struct parser_order *order = bpf_map_lookup_elem(&orders, &zero);
	const struct input *in = bpf_map_lookup_elem(&inputs, &zero);
	struct parser_result *r = bpf_map_lookup_elem(&results, &zero);
	struct scratch *s = bpf_map_lookup_elem(&scratches, &zero);
	__u64 len;

	if (!names || !order || !in || !r || !s)
		return 1;
	len = order->len;
	kvpin_opaque(len);
	if (len < 1 || len > PARSER_INPUT_BYTES)
		return 1;
	if (order->from_map) {
		if (bpf_probe_read_kernel(s->bytes, len, in->bytes))
			return 1;
	} else if (bpf_skb_load_bytes(skb, PARSER_L2_BYTES, s->bytes, len)) {
		return 1;
	}
	r->key_hash = 0;
	r->walked = 0;
	if (!order->body_only)
		return head_run(skb, names, order, s, r);

	__builtin_memset(&r->body, 0, sizeof(r->body));
	r->body.state = KVPIN_BS_SIZE;
	r->body.fresh = 1;
	if (order->cut)
		body_from = body_walk(&r->body, s->bytes, 0, order->cut);
	r->walked = body_walk(&r->body, s->bytes, body_from, order->len);
	return 0;
}

/* bpf_probe_read_kernel() is for GPL-compatible programs. */
char _license[] SEC("license") = "Dual BSD/GPL";
