/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The maps of the splice path. Sizes of 1 stand for what the loader sets (user/kern/kern_splice.c);
 * include/ABI.md describes each map.
 */
#ifndef SPLICE_MAPS_BPF_H
#define SPLICE_MAPS_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "kvpin_splice_abi.h"

/* Set by the loader: of the buckets, and of the packets that pass once more. */
const volatile __u64 hash_times[2];
const volatile __u32 buckets_mask;
const volatile __u32 passed_mark = KVPIN_SPLICE_MARK | 1;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct kvpin_splice_config);
} splice_config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* a power of two */
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct kvpin_splice_bucket);
} splice_buckets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct kvpin_splice_conn);
} splice_conns SEC(".maps");

/* Steer's `backends`, or the same where steer is not: the requests in flight. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KVPIN_BACKENDS_MAX);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct kvpin_backend);
} splice_backends SEC(".maps");

/* By server: what went past the daemon. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, KVPIN_BACKENDS_MAX);
	__type(key, __u32);
	__type(value, struct kvpin_counters);
} splice_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, KVPIN_SPLICE_REFUSED_NR);
	__type(key, __u32);
	__type(value, __u64);
} splice_refusals SEC(".maps");

struct splice_ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
};

/* One event ring per worker. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct splice_ring);
} splice_rings SEC(".maps");

#endif
