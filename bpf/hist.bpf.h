/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Histograms of times, for all programs that take them; the buckets are struct kvpin_counters'. */
#ifndef HIST_BPF_H
#define HIST_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "kvpin_abi.h"

/* Upper bounds of the buckets, set by the loader. */
const volatile __u64 ttft_le_ns[KVPIN_HIST_BUCKETS - 1];
const volatile __u64 gap_le_ns[KVPIN_HIST_BUCKETS - 1];

static __always_inline __u32 hist_bucket(const volatile __u64 *le_ns, __u64 ns)
{
	__u32 i;

	for (i = 0; i < KVPIN_HIST_BUCKETS - 1; i++)
		if (ns <= le_ns[i])
			break;
	return i;
}

static __always_inline void hist(__u64 *bucket, const volatile __u64 *le_ns, __u64 ns)
{
	__u32 i = hist_bucket(le_ns, ns);

	if (i < KVPIN_HIST_BUCKETS)
		__sync_fetch_and_add(&bucket[i], 1);
}

#endif
