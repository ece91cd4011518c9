/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whose packet is it? By the table that the daemon keeps (include/kvpin_splice_abi.h). What every
 * packet of a stranger costs stands here too: one hash, one bucket.
 */
#ifndef SPLICE_FIND_BPF_H
#define SPLICE_FIND_BPF_H

#include "packet.bpf.h"
#include "splice_maps.bpf.h"

static __always_inline int same_ip(const __be32 a[4], const __be32 b[4])
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

/* Is it a packet of this connection's? Then which way does it go? */
static __always_inline int conn_has(const struct kvpin_splice_conn *x,
				    const struct kvpin_splice_key *key, __u32 *direction)
{
	if (key->to_port == x->local_port && key->from_port == x->remote_port &&
	    same_ip(key->to, x->local) && same_ip(key->from, x->remote)) {
		*direction = KVPIN_SPLICE_IN;
		return 1;
	}
	*direction = KVPIN_SPLICE_OUT;
	return key->from_port == x->local_port && key->to_port == x->remote_port &&
	       same_ip(key->from, x->local) && same_ip(key->to, x->remote);
}

/*
 * References that were found last, by hash. A hint and no more, because the entry itself says whose
 * it is, and whether it is anybody's: the buckets are spread over so many pages that nearly every
 * look there misses caches and TLB (200 ns of a packet's 450, 200 connections, in a guest).
 */
#define HINTS 4096
__u32 hints[HINTS];

static __always_inline struct kvpin_splice_conn *conn_by_ref(struct packet *p, __u32 ref, __u32 tag,
							     __u32 *direction)
{
	struct kvpin_splice_conn *x;

	if (!(ref & KVPIN_SPLICE_REF_ENTRY) || ((ref ^ tag) & ~KVPIN_SPLICE_REF_ENTRY))
		return NULL;
	p->entry = (ref & KVPIN_SPLICE_REF_ENTRY) - 1;
	x = bpf_map_lookup_elem(&splice_conns, &p->entry);
	return x && conn_has(x, &p->key, direction) && !(x->flags & KVPIN_SPLICE_OVER) ? x : NULL;
}

/* Sets p->entry. */
static __always_inline struct kvpin_splice_conn *conn_find(struct packet *p, __u32 *direction)
{
	const struct kvpin_splice_hash secret = {{hash_times[0], hash_times[1]}};
	__u64 hash = kvpin_splice_hash(&secret, &p->key);
	__u32 nr = (__u32)hash & buckets_mask, tag = kvpin_splice_ref(hash, -1);
	__u32 *hint = &hints[hash & (HINTS - 1)];
	struct kvpin_splice_bucket *bucket;
	struct kvpin_splice_conn *x;

	x = conn_by_ref(p, *hint, tag, direction);
	if (x)
		return x;
	bucket = bpf_map_lookup_elem(&splice_buckets, &nr);
	if (!bucket)
		return NULL;
#pragma clang loop unroll(disable)
	for (int i = 0; i < KVPIN_SPLICE_BUCKET_REFS; i++) {
		__u32 ref = bucket->ref[i];

		x = conn_by_ref(p, ref, tag, direction);
		if (x) {
			*hint = ref;
			return x;
		}
	}
	return NULL;
}

#endif
