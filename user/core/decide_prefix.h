/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The part of the decision that follows a prompt's head to the server that holds it. Pure, as
 * decide() is, which calls it at one place.
 */
#ifndef CORE_DECIDE_PREFIX_H
#define CORE_DECIDE_PREFIX_H

#include "core/decide.h"

/**
 * decide_prefix() - choose among the servers that can take the request
 * @in: in->prefix.windows is not 0
 * @all, @nr_all: the eligible ones
 * @view, @nr: the candidates: those of them that have room; at least one
 * @out: reason and disturbed are set
 *
 * Returns the chosen candidate.
 *
 * A candidate is within the load guard iff
 *	inflight <= min + guard_abs  and  inflight <= min * guard_rel + 1  (guard_rel 0: only abs)
 * where min is the least of all candidates. The request is hot iff, of the eligible servers' depths
 * beyond the shared windows, the greatest covers at least min_match of the windows beyond them.
 *   hot, its owner a candidate within the guard	the owner: PREFIX
 *   hot, its owner without room or outside	of those within, the one with the longest depth;
 *						if none has any, as when cold: PREFIX_GUARDED
 *   cold	of those within, the lowest recency weight by server weight, ties by name:
 *		PREFIX_COLD
 */
const struct backend_view *decide_prefix(const struct decide_input *in,
					 const struct backend_view *const *all, uint32_t nr_all,
					 const struct backend_view *const *view, uint32_t nr,
					 struct kvpin_decision *out);

/**
 * decide_prefix_owner() - the owner that decide_prefix() would prefer if only it had room
 * @all, @nr_all: the eligible servers
 * @view, @nr: the candidates that the load guard compares with; at least one
 *
 * Returns the hot owner where it is within the load guard, else NULL.
 */
const struct backend_view *decide_prefix_owner(const struct decide_input *in,
					       const struct backend_view *const *all,
					       uint32_t nr_all,
					       const struct backend_view *const *view, uint32_t nr);

/**
 * decide_prefix_missing() - bytes of a request that a server has to prefill
 * @in: guard.context is the request's size; prefix.windows is not 0
 *
 * All but the share of the windows that it holds; what most sessions share is held everywhere.
 */
uint64_t decide_prefix_missing(const struct decide_input *in, const struct backend_view *v);

#endif
