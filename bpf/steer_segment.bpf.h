/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a segment of a client and one of a server have in common: what is done before it is known to
 * be a request's or an answer's, the parsing of a head, and what is done at its end.
 */
#ifndef STEER_SEGMENT_BPF_H
#define STEER_SEGMENT_BPF_H

#include "flow.bpf.h"
#include "parse.bpf.h"

/* What every segment goes through first. True: it is to be redirected, if that is possible; @before
 * is the word as it was found. False: @verdict says all. */
static __always_inline int segment_redirects(struct __sk_buff *skb, const struct side *side,
					     __u64 *before, int *verdict)
{
	__u32 len;

	*verdict = SK_DROP;
	if (side->flow->broken || (skb->len && !segment_trim(skb, side)))
		return 0;
	len = skb->len;
	if (!len) {
		*verdict = verdict_fin(skb, side);
		return 0;
	}
	*before = __sync_fetch_and_add(&side->flow->word, (__u64)len);
	*verdict = SK_PASS;
	if (*before & KVPIN_WORD_LANE)
		*verdict = lane(skb, side, *before & KVPIN_WORD_POSITION);
	else if (*before & KVPIN_WORD_REDIRECT)
		return 1;
	return 0;
}

/* Gives the scratch back; with a reason the segment is handed up, else it goes to where
 * bpf_sk_redirect_hash() said. */
static __always_inline int segment_done(struct __sk_buff *skb, const struct side *side,
					struct scratch *s, __u64 before, __u32 reason)
{
	if (s)
		scratch_give(s);
	if (reason)
		return hand_up(skb, side, before, reason);
	__sync_lock_test_and_set(&side->flow->walked, (before & KVPIN_WORD_POSITION) + skb->len);
	return SK_PASS;
}

/* Parse the head at the segment's start into s->head. Sets how many bytes the scratch holds.
 * Returns an enum kvpin_step; KVPIN_STEP_BAD also when nothing could be read. */
static __always_inline int head_load(struct __sk_buff *skb, const struct kvpin_config *c,
				     struct scratch *s, enum kvpin_head_kind kind, __u32 *have)
{
	__u32 names_at = c->names_at;
	const struct kvpin_names *known = bpf_map_lookup_elem(&names, &names_at);

	*have = scratch_load(skb, s, 0, KVPIN_BPF_HEAD_BYTES);
	if (!known || !*have)
		return KVPIN_STEP_BAD;
	kvpin_head_init(&s->head, kind);
	s->head.limit_bytes = c->head_bytes;
	s->head.limit_fields = c->head_fields;
	return head_parse(&s->head, known, s->bytes, *have);
}

#endif
