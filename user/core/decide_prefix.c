/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Prefix routing's choice: reads its input, writes the decision, keeps nothing. */
#include "core/decide_prefix.h"

#include <string.h>

static uint32_t least_inflight(const struct backend_view *const *view, uint32_t nr)
{
	uint32_t least = view[0]->inflight, i;

	for (i = 1; i < nr; i++)
		if (view[i]->inflight < least)
			least = view[i]->inflight;
	return least;
}

static bool within_guard(const struct prefix_match *m, uint32_t inflight, uint32_t least)
{
	return inflight <= (uint64_t)least + m->guard_abs &&
	       (m->guard_rel == 0 || inflight <= least * m->guard_rel + 1);
}

/* Windows that count towards a match: those beyond what most sessions share. */
static uint32_t depth_of(const struct prefix_match *m, const struct backend_view *v)
{
	return m->depth[v->id] > m->shared ? m->depth[v->id] - m->shared : 0;
}

static const struct backend_view *deepest(const struct prefix_match *m,
					  const struct backend_view *const *view, uint32_t nr)
{
	const struct backend_view *best = NULL;
	uint32_t i;

	for (i = 0; i < nr; i++)
		if (depth_of(m, view[i]) > (best ? depth_of(m, best) : 0))
			best = view[i];
	return best;
}

/* Negative: a goes before b. */
static int cold_cmp(const struct prefix_match *m, const struct backend_view *a,
		    const struct backend_view *b)
{
	double left = m->weight[a->id] * b->weight, right = m->weight[b->id] * a->weight;

	if (left != right)
		return left < right ? -1 : 1;
	return strcmp(a->name, b->name);
}

static const struct backend_view *coldest(const struct prefix_match *m,
					  const struct backend_view *const *view, uint32_t nr)
{
	const struct backend_view *best = view[0];
	uint32_t i;

	for (i = 1; i < nr; i++)
		if (cold_cmp(m, view[i], best) < 0)
			best = view[i];
	return best;
}

static bool hot(const struct prefix_match *m, const struct backend_view *owner)
{
	return owner && m->windows > m->shared &&
	       depth_of(m, owner) >= m->min_match * (m->windows - m->shared);
}

const struct backend_view *decide_prefix(const struct decide_input *in,
					 const struct backend_view *const *all, uint32_t nr_all,
					 const struct backend_view *const *view, uint32_t nr,
					 struct kvpin_decision *out)
{
	const struct prefix_match *m = &in->prefix;
	const struct backend_view *within[BACKENDS_MAX], *owner, *chosen = NULL;
	uint32_t least = least_inflight(view, nr), nr_within = 0, i;

	/* The least loaded one is always within. */
	within[0] = view[0];
	for (i = 0; i < nr; i++)
		if (within_guard(m, view[i]->inflight, least))
			within[nr_within++] = view[i];
	owner = deepest(m, all, nr_all);
	out->reason = DECIDE_PREFIX_COLD;
	if (hot(m, owner)) {
		chosen = deepest(m, within, nr_within);
		out->reason = chosen == owner ? DECIDE_PREFIX : DECIDE_PREFIX_GUARDED;
		if (chosen != owner)
			out->disturbed = owner->id;
	}
	if (!chosen)
		chosen = coldest(m, within, nr_within);
	return chosen;
}

const struct backend_view *decide_prefix_owner(const struct decide_input *in,
					       const struct backend_view *const *all,
					       uint32_t nr_all,
					       const struct backend_view *const *view, uint32_t nr)
{
	const struct prefix_match *m = &in->prefix;
	const struct backend_view *owner = deepest(m, all, nr_all);

	if (!hot(m, owner) || !within_guard(m, owner->inflight, least_inflight(view, nr)))
		return NULL;
	return owner;
}

uint64_t decide_prefix_missing(const struct decide_input *in, const struct backend_view *v)
{
	const struct prefix_match *m = &in->prefix;
	uint32_t held = m->depth[v->id] > m->shared ? m->depth[v->id] : m->shared;

	/* 64 bits of a size times 9 bits of windows. */
	return (uint64_t)((unsigned __int128)in->guard.context * (m->windows - held) / m->windows);
}
