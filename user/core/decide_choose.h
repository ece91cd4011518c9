/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The part of the decision that compares servers with each other: which of those that may take a
 * request is the best for it. Pure, as decide() is. Who may take it, and whether a session leaves
 * its server at all, is decide.c's.
 */
#ifndef CORE_DECIDE_CHOOSE_H
#define CORE_DECIDE_CHOOSE_H

#include "core/decide.h"

/* The servers among which one request is placed, with what was found out about each. */
struct eligible {
	uint32_t nr;
	const struct backend_view *view[BACKENDS_MAX];
	const struct decide_candidate *score[BACKENDS_MAX];
};

/** eligible_add() - take the @i-th of @from too; @to has room for all there are */
static inline void eligible_add(struct eligible *to, const struct eligible *from, uint32_t i)
{
	to->score[to->nr] = from->score[i];
	to->view[to->nr++] = from->view[i];
}

/** eligible_least_crowded() - where all are full: those with the fewest requests per slot
 * @to: set
 * @from: at least one
 */
void eligible_least_crowded(struct eligible *to, const struct eligible *from);

/** eligible_cheapest() - leave those where the prefill is cheapest */
void eligible_cheapest(struct eligible *e);

/**
 * decide_choose_best() - the least loaded in the placement's eyes
 * @e: at least one
 * @placement: hash does not look at load
 *
 * Equal ones: the highest rendezvous score, then the lowest id.
 */
const struct backend_view *decide_choose_best(const struct eligible *e, enum placement placement);

/**
 * decide_choose() - the one that a request goes to
 * @all: the eligible ones
 * @e: those of them that have room; at least one
 * @out: reason and disturbed are set where the request follows its prefix
 */
const struct backend_view *decide_choose(const struct decide_input *in, const struct eligible *all,
					 const struct eligible *e, struct kvpin_decision *out);

#endif
