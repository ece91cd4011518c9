/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The decision. decide() is pure: it reads only its input and writes only its output. Loads per
 * weight are compared by exact cross multiplication, so that equal shares are equal; only the
 * rendezvous score is a floating-point number.
 */
#include "core/decide.h"

#include <math.h>
#include <xxhash.h>

#include "core/decide_prefix.h"

const char *const decide_reason_names[DECIDE_REASON_NR] = {
#define DECIDE_X(id, text) [DECIDE_##id] = (text),
	DECIDE_REASONS(DECIDE_X)
#undef DECIDE_X
};

/* The servers among which one request is placed. */
struct eligible {
	uint32_t nr;
	const struct backend_view *view[BACKENDS_MAX];
};

void decide_view(struct decide_input *in, const struct backend_table *backends,
		 const struct session_table *sessions, uint64_t now_ms)
{
	uint32_t nr = atomic_load_explicit(&backends->nr, memory_order_acquire), i;
	bool checked = atomic_load_explicit(&backends->checked, memory_order_relaxed);

	in->nr_views = 0;
	for (i = 0; i < nr; i++) {
		const struct backend *b = &backends->slot[i];
		struct backend_view *v = &in->view[in->nr_views];

		/* Acquire: name_hash was written before the slot was put to use. */
		v->state = atomic_load_explicit(&b->state, memory_order_acquire);
		if (v->state == BACKEND_FREE)
			continue;
		/* Nobody else would find out that it is back. */
		if (v->state == BACKEND_DOWN && !checked &&
		    now_ms >= atomic_load_explicit(&b->retry_ms, memory_order_relaxed))
			v->state = BACKEND_UP;
		v->id = i;
		v->weight = atomic_load_explicit(&b->weight, memory_order_relaxed);
		v->inflight = backend_inflight(b);
		v->sessions = session_count(sessions, i);
		/* Of a removed one it is not needed, and its slot may just be given away. */
		v->name_hash = v->state == BACKEND_REMOVED ? 0 : b->name_hash;
		v->name = b->name;
		in->nr_views++;
	}
}

double decide_rendezvous(uint64_t session, uint64_t name_hash, uint32_t weight)
{
	uint64_t h = XXH64(&session, sizeof(session), name_hash);

	/* 52 bits and a half: exact in a double, and never 0 or 1. */
	return weight / -log(((double)(h >> 12) + 0.5) * 0x1p-52);
}

static bool view_excluded(const struct decide_input *in, uint32_t id)
{
	return in->excluded >> id & 1;
}

/* What the pin says: PINNED, or why there has to be a placement. */
static enum decide_reason pin_verdict(const struct decide_input *in)
{
	const struct backend_view *owner = NULL;
	uint32_t i;

	if (!in->keyed)
		return DECIDE_KEYLESS;
	if (in->placement == PLACEMENT_HASH)
		return DECIDE_HASHED;
	if (in->pin == SESSION_NO_BACKEND)
		return DECIDE_PLACED;
	/* First, because it stays true whatever others do to the server's state meanwhile. */
	if (view_excluded(in, in->pin))
		return DECIDE_MOVED_FAILED;
	for (i = 0; i < in->nr_views && !owner; i++)
		if (in->view[i].id == in->pin)
			owner = &in->view[i];
	if (!owner || owner->state == BACKEND_REMOVED || !owner->weight)
		return DECIDE_MOVED_REMOVED;
	if (owner->state != BACKEND_UP)
		return DECIDE_MOVED_DOWN;
	return in->avoided >> in->pin & 1 ? DECIDE_MOVED_AVOID : DECIDE_PINNED;
}

static void eligible_fill(struct eligible *e, const struct decide_input *in, uint64_t avoided,
			  struct kvpin_decision *out)
{
	uint32_t i;

	e->nr = 0;
	for (i = 0; i < in->nr_views; i++) {
		const struct backend_view *v = &in->view[i];

		if (v->state != BACKEND_UP || !v->weight || view_excluded(in, v->id) ||
		    avoided >> v->id & 1)
			continue;
		out->candidate[e->nr] = (struct decide_candidate){
			.id = v->id,
			.sessions_by_weight = (double)v->sessions / v->weight,
			.inflight_by_weight = (double)v->inflight / v->weight,
			.rendezvous =
				in->keyed ? decide_rendezvous(in->session, v->name_hash, v->weight)
					  : 0,
		};
		e->view[e->nr++] = v;
	}
	out->nr_candidates = e->nr;
}

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

static uint32_t choose_best(const struct eligible *e, enum placement placement,
			    const struct decide_candidate *scores)
{
	uint32_t best = 0, i;

	for (i = 1; i < e->nr; i++) {
		int differ = load_cmp(placement, e->view[i], e->view[best]);

		if (!differ && scores[i].rendezvous != scores[best].rendezvous)
			differ = scores[i].rendezvous > scores[best].rendezvous ? -1 : 1;
		if (differ < 0 || (!differ && e->view[i]->id < e->view[best]->id))
			best = i;
	}
	return e->view[best]->id;
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
static uint32_t choose_in_turn(const struct eligible *e, uint64_t turn)
{
	uint32_t level = 0, next, nr, i;
	uint64_t left = 0, visits;

	for (i = 0; i < e->nr; i++)
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
	return e->view[i]->id;
}

static uint32_t choose_keyless(const struct eligible *e, uint64_t turn)
{
	struct eligible least = {.nr = 0};
	uint32_t i;

	for (i = 0; i < e->nr; i++) {
		int differ = least.nr ? inflight_cmp(e->view[i], least.view[0]) : 0;

		if (differ > 0)
			continue;
		if (differ < 0)
			least.nr = 0;
		least.view[least.nr++] = e->view[i];
	}
	return choose_in_turn(&least, turn);
}

void decide(const struct decide_input *in, struct kvpin_decision *out)
{
	struct eligible e;

	out->nr_candidates = 0;
	out->disturbed = SESSION_NO_BACKEND;
	out->reason = pin_verdict(in);
	if (out->reason == DECIDE_PINNED) {
		out->backend = in->pin;
		return;
	}
	eligible_fill(&e, in, in->avoided, out);
	if (!e.nr && in->avoided) {
		if (out->reason == DECIDE_MOVED_AVOID) {
			out->reason = DECIDE_PINNED;
			out->backend = in->pin;
			return;
		}
		eligible_fill(&e, in, 0, out);
	}
	if (!e.nr) {
		out->reason = DECIDE_NONE;
		out->backend = SESSION_NO_BACKEND;
	} else if (!in->keyed && in->prefix.windows) {
		decide_prefix(in, e.view, e.nr, out);
	} else if (in->placement == PLACEMENT_ROUND_ROBIN) {
		out->backend = choose_in_turn(&e, in->turn);
	} else if (!in->keyed) {
		out->backend = choose_keyless(&e, in->turn);
	} else {
		out->backend = choose_best(&e, in->placement, out->candidate);
	}
}
