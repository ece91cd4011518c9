/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Servers compared with each other. Loads per weight are compared by exact cross multiplication, so
 * that equal shares are equal.
 */
#include "core/decide_choose.h"

#include "core/decide_prefix.h"

/* Sign of a/aw - b/bw. 32 x 32 bits do not overflow 64. */
static int per_weight_cmp(uint32_t a, uint32_t a_weight, uint32_t b, uint32_t b_weight)
{
	uint64_t left = (uint64_t)a * b_weight, right = (uint64_t)b * a_weight;

	return (left > right) - (left < right);
}

static int sessions_cmp(const struct backend_view *a, const struct backend_view *b)
{
	return per_weight_cmp(a->sessions, a->weight, b->sessions, b->weight);
}

static int inflight_cmp(const struct backend_view *a, const struct backend_view *b)
{
	return per_weight_cmp(a->inflight, a->weight, b->inflight, b->weight);
}

/* < 0 when a is less loaded in the placement's eyes; hash does not look at load. */
static int load_cmp(enum placement placement, const struct backend_view *a,
		    const struct backend_view *b)
{
	int differ;

	switch (placement) {
	case PLACEMENT_BALANCED:
		differ = sessions_cmp(a, b);
		return differ ? differ : inflight_cmp(a, b);
	case PLACEMENT_LEAST_INFLIGHT:
		differ = inflight_cmp(a, b);
		return differ ? differ : sessions_cmp(a, b);
	default:
		return 0;
	}
}

const struct backend_view *decide_choose_best(const struct eligible *e, enum placement placement)
{
	uint32_t best = 0, i;

	for (i = 1; i < e->nr; i++) {
		double mine = e->score[i]->rendezvous, its = e->score[best]->rendezvous;
		int differ = load_cmp(placement, e->view[i], e->view[best]);

		if (!differ && mine != its)
			differ = mine > its ? -1 : 1;
		if (differ < 0 || (!differ && e->view[i]->id < e->view[best]->id))
			best = i;
	}
	return e->view[best];
}

/* The lowest weight above @level, and how many weigh more than @level. */
static uint32_t weight_above(const struct eligible *e, uint32_t level, uint32_t *nr)
{
	uint32_t lowest = UINT32_MAX, i;

	*nr = 0;
	for (i = 0; i < e->nr; i++) {
		if (e->view[i]->weight <= level)
			continue;
		(*nr)++;
		if (e->view[i]->weight < lowest)
			lowest = e->view[i]->weight;
	}
	return lowest;
}

/* Interleaved rounds: the first visits all, the second those of weight 2 and more, and so on;
 * 3:1 gives a b a a, and equal weights alternate however large they are. Rounds that visit the
 * same servers are taken in one step. */
static const struct backend_view *choose_in_turn(const struct eligible *e, uint64_t turn)
{
	uint64_t left = e->view[0]->weight, visits;
	uint32_t level = 0, next, nr, i;

	for (i = 1; i < e->nr; i++)
		left += e->view[i]->weight;
	left = turn % left;
	for (;; level = next, left -= visits) {
		next = weight_above(e, level, &nr);
		visits = (uint64_t)(next - level) * nr;
		if (left < visits)
			break;
	}
	left %= nr;
	for (i = 0; e->view[i]->weight <= level || left--; i++)
		;
	return e->view[i];
}

static const struct backend_view *choose_keyless(const struct eligible *e, uint64_t turn)
{
	struct eligible least = {.nr = 1, .view = {e->view[0]}};
	uint32_t i;

	for (i = 1; i < e->nr; i++) {
		int differ = inflight_cmp(e->view[i], least.view[0]);

		if (differ > 0)
			continue;
		if (differ < 0)
			least.nr = 0;
		least.view[least.nr++] = e->view[i];
	}
	return choose_in_turn(&least, turn);
}

const struct backend_view *decide_choose(const struct decide_input *in, const struct eligible *all,
					 const struct eligible *e, struct kvpin_decision *out)
{
	if (!in->keyed && in->prefix.windows)
		return decide_prefix(in, all->view, all->nr, e->view, e->nr, out);
	if (in->placement == PLACEMENT_ROUND_ROBIN || (in->keyed && in->guard.control))
		return choose_in_turn(e, in->turn);
	if (!in->keyed)
		return choose_keyless(e, in->turn);
	return decide_choose_best(e, in->placement);
}

/* Sign of a's requests per slot less b's. */
static int crowd_cmp(const struct backend_view *a, const struct backend_view *b)
{
	/* 33 x 32 bits do not overflow 128. */
	unsigned __int128 left = ((unsigned __int128)a->inflight + a->queued) * b->slots;
	unsigned __int128 right = ((unsigned __int128)b->inflight + b->queued) * a->slots;

	return (left > right) - (left < right);
}

void eligible_least_crowded(struct eligible *to, const struct eligible *from)
{
	uint32_t i;

	to->nr = 0;
	for (i = 0; i < from->nr; i++) {
		int differ = to->nr ? crowd_cmp(from->view[i], to->view[0]) : 0;

		if (differ > 0)
			continue;
		if (differ < 0)
			to->nr = 0;
		eligible_add(to, from, i);
	}
}

void eligible_cheapest(struct eligible *e)
{
	uint32_t least = GUARD_UNKNOWN, kept = 0, i;

	for (i = 0; i < e->nr; i++)
		if (e->score[i]->cold_ms < least)
			least = e->score[i]->cold_ms;
	for (i = 0; i < e->nr; i++) {
		if (e->score[i]->cold_ms != least)
			continue;
		e->score[kept] = e->score[i];
		e->view[kept++] = e->view[i];
	}
	e->nr = kept;
}
