/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The head parser of include/ driven by bpf_loop(): one driver for the verdicts and for the test
 * that compares it with the native build (tests/bpf). */
#ifndef HEAD_PARSE_BPF_H
#define HEAD_PARSE_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "kvpin_http_head.h"

/* Every step takes a byte or more, but for the first of a response. */
#define HEAD_TURNS_MAX (KVPIN_BPF_HEAD_BYTES + 1)

struct head_loop {
	struct kvpin_head *h;
	const struct kvpin_names *names;
	const __u8 *buf;
	__u32 len;
	int step;
};

static long head_turn(__u32 turn, struct head_loop *l)
{
	if (l->h->pos >= l->len)
		return 1;
	l->step = kvpin_head_step(l->h, l->names, l->buf, l->len);
	return l->step != KVPIN_STEP_MORE;
}

/* kvpin_head_parse(); @buf is a scratch of KVPIN_BPF_SCRATCH_BYTES in map memory. */
static __always_inline int head_parse(struct kvpin_head *h, const struct kvpin_names *names,
				      const __u8 *buf, __u32 len)
{
	struct head_loop l = {
		.h = h,
		.names = names,
		.buf = buf,
		.len = len < h->limit_bytes ? len : h->limit_bytes,
		.step = KVPIN_STEP_MORE,
	};

	bpf_loop(HEAD_TURNS_MAX, head_turn, &l, 0);
	return kvpin_head_settle(h, l.step);
}

#endif
