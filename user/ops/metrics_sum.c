/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Adds up what the workers count and what the kernel programs count, less what former owners of a
 * slot had. Its result is what the exporter and the control socket show; it knows no text.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "net/splice.h"
#include "net/steer.h"
#include "ops/metrics.h"

/* Adding up treats a struct of counters as an array of them. */
#define NR_COUNTERS(type) (sizeof(type) / sizeof(_Atomic uint64_t))
_Static_assert(sizeof(struct worker_stats) % sizeof(_Atomic uint64_t) == 0, "only counters");
_Static_assert(sizeof(struct backend_stats) % sizeof(_Atomic uint64_t) == 0, "only counters");
_Static_assert(KVPIN_HIST_BUCKETS == HIST_BUCKETS_MAX + 1, "the kernel's buckets are the same");

static void counters_add(void *to, const void *from, size_t nr)
{
	_Atomic uint64_t *t = to;
	const _Atomic uint64_t *f = from;

	for (size_t i = 0; i < nr; i++)
		stat_add(&t[i], stat_get(&f[i]));
}

static void counters_sub(void *to, const void *from, size_t nr)
{
	_Atomic uint64_t *t = to;
	const _Atomic uint64_t *f = from;

	for (size_t i = 0; i < nr; i++)
		stat_add(&t[i], -stat_get(&f[i]));
}

/* ---- the kernel's ---- */

static int splice_read(struct metrics_kernel *k, const struct balancer *b)
{
	struct kern_splice *kern = b->splice ? splice_kern(b->splice) : NULL;
	int err;

	if (!kern)
		return 0;
	k->splice = true;
	err = kern_splice_refusals(kern, k->splice_refused);
	for (uint32_t slot = 0; !err && slot < atomic_load(&b->backends.nr); slot++)
		err = kern_splice_counters(kern, slot, &k->spliced[slot]);
	return err;
}

int metrics_kernel_read(struct metrics_kernel *k, const struct balancer *b)
{
	struct kern *kern = b->steer ? steer_kern(b->steer) : NULL;
	int err;

	memset(k, 0, sizeof(*k));
	err = splice_read(k, b);
	if (err || !kern)
		return err;
	k->available = true;
	k->queued = __atomic_load_n(&kern->config->queued, __ATOMIC_RELAXED);
	err = kern_refusals(kern, k->refused);
	for (uint32_t slot = 0; !err && slot < atomic_load(&b->backends.nr); slot++)
		err = kern_counters(kern, slot, &k->backend[slot]);
	return err;
}

/* The programs put what exceeds the last bound into the last bucket, however many bounds there
 * are. */
static void hist_of_kernel(struct hist *to, const struct hist_bounds *bounds, const __u64 *bucket,
			   uint64_t sum_ns)
{
	for (unsigned int i = 0; i < KVPIN_HIST_BUCKETS; i++)
		stat_add(&to->bucket[i < bounds->nr ? i : bounds->nr], bucket[i]);
	stat_add(&to->sum_ns, sum_ns);
}

static void backend_of_kernel(struct backend_stats *to, const struct kvpin_counters *k,
			      enum stat_path path)
{
	stat_add(&to->requests[path][OUTCOME_OK], k->requests);
	stat_add(&to->reuses, k->sent);
	stat_add(&to->turns[GUARD_TURN_WARM], k->untold);
	stat_add(&to->bytes_up[path], k->bytes_up);
	stat_add(&to->bytes_down[path], k->bytes_down);
	hist_of_kernel(&to->ttft[TURN_FIRST], &hist_ttft_bounds, k->ttft_first,
		       k->ttft_first_sum_ns);
	hist_of_kernel(&to->ttft[TURN_LATER], &hist_ttft_bounds, k->ttft, k->ttft_sum_ns);
	hist_of_kernel(&to->token_gap, &hist_token_gap_bounds, k->gap, k->gap_sum_ns);
}

/* ---- the base ---- */

static bool slot_configured(const struct balancer *b, uint32_t slot)
{
	uint32_t state = atomic_load(&b->backends.slot[slot].state);

	return state == BACKEND_UP || state == BACKEND_DOWN;
}

void metrics_base_set(struct metrics_base *base, const struct balancer *b,
		      const struct metrics_kernel *k)
{
	for (uint32_t slot = 0; slot < atomic_load(&b->backends.nr); slot++) {
		struct backend_stats *s = &base->backend[slot];

		if (slot_configured(b, slot))
			continue;
		memset(s, 0, sizeof(*s));
		for (unsigned int w = 0; w < b->nr_workers; w++)
			counters_add(s, &balancer_stats(b, w)->backend[slot],
				     NR_COUNTERS(struct backend_stats));
		backend_of_kernel(s, &k->backend[slot], STAT_PATH_STEER);
		backend_of_kernel(s, &k->spliced[slot], STAT_PATH_SPLICE);
	}
}

void metrics_base_take(struct metrics_base *base, const struct balancer *b)
{
	struct metrics_kernel k;
	int err = metrics_kernel_read(&k, b);

	if (err)
		LOG(WARN, "kernel counters not read: a new server may begin with a former one's",
		    F_STR("error", strerror(-err)));
	metrics_base_set(base, b, &k);
}

/* ---- the sum ---- */

void metrics_sum_of(struct metrics_sum *sum, const struct balancer *b,
		    const struct metrics_base *base, const struct metrics_kernel *k)
{
	struct worker_stats *all = &sum->all;

	memset(sum, 0, sizeof(*sum));
	sum->steer = k->available;
	sum->splice = k->splice;
	/* Added to and taken from in many places: for a moment it may be less than nothing. */
	sum->steer_queued = (int64_t)k->queued > 0 ? k->queued : 0;
	for (unsigned int w = 0; w < b->nr_workers; w++)
		counters_add(all, balancer_stats(b, w), NR_COUNTERS(struct worker_stats));
	for (int r = 0; r < KVPIN_REFUSED_NR; r++)
		stat_add(&all->refused[r], k->refused[r]);
	for (int r = 0; r < KVPIN_SPLICE_REFUSED_NR; r++)
		stat_add(&all->splice_refused[r], k->splice_refused[r]);
	for (uint32_t slot = 0; slot < atomic_load(&b->backends.nr); slot++) {
		backend_of_kernel(&all->backend[slot], &k->backend[slot], STAT_PATH_STEER);
		backend_of_kernel(&all->backend[slot], &k->spliced[slot], STAT_PATH_SPLICE);
		counters_sub(&all->backend[slot], &base->backend[slot],
			     NR_COUNTERS(struct backend_stats));
		if (!slot_configured(b, slot))
			continue;
		sum->configured[sum->nr_configured++] = slot;
	}
}

int metrics_sum_new(struct metrics_sum **out, const struct balancer *b,
		    const struct metrics_base *base)
{
	struct metrics_kernel k;
	struct metrics_sum *sum;
	int err = metrics_kernel_read(&k, b);

	*out = NULL;
	if (err)
		return err;
	sum = malloc(sizeof(*sum));
	if (!sum)
		return -ENOMEM;
	metrics_sum_of(sum, b, base, &k);
	*out = sum;
	return 0;
}

uint64_t metrics_requests(const struct metrics_sum *sum, uint32_t slot, enum stat_path path)
{
	uint64_t n = 0;

	for (int o = 0; o < OUTCOME_NR; o++)
		n += stat_get(&sum->all.backend[slot].requests[path][o]);
	return n;
}
