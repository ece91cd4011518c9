/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Fixed-bucket histograms in Prometheus' sense. One thread writes (plain relaxed stores), any
 * thread reads; a reader may see a sample in its bucket a moment before it is in the sum.
 */
#ifndef BASE_HIST_H
#define BASE_HIST_H

#include <stdatomic.h>
#include <stdint.h>

#define HIST_BUCKETS_MAX 20

/* Upper bounds in nanoseconds, ascending; the +Inf bucket is implied. */
struct hist_bounds {
	unsigned int nr;
	uint64_t le_ns[HIST_BUCKETS_MAX];
	const char *le_text[HIST_BUCKETS_MAX]; /* the same in seconds, as the label prints */
};

extern const struct hist_bounds hist_ttft_bounds;      /* .005 s to 120 s */
extern const struct hist_bounds hist_token_gap_bounds; /* .001 s to 2 s */

struct hist {
	_Atomic uint64_t bucket[HIST_BUCKETS_MAX + 1]; /* not cumulative; [bounds->nr] is +Inf */
	_Atomic uint64_t sum_ns;
};

/* What only one thread writes needs no locked instruction. */
static inline void stat_add(_Atomic uint64_t *v, uint64_t n)
{
	atomic_store_explicit(v, atomic_load_explicit(v, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

static inline uint64_t stat_get(const _Atomic uint64_t *v)
{
	return atomic_load_explicit(v, memory_order_relaxed);
}

/** hist_add() - one sample of @ns nanoseconds; by the one writing thread */
void hist_add(struct hist *h, const struct hist_bounds *bounds, uint64_t ns);

/** hist_merge() - add @from to @to, which nobody else uses */
void hist_merge(struct hist *to, const struct hist *from);

#endif
