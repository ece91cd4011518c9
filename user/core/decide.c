/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The decision. decide() is pure: it reads only its input and writes only its output. Here:
 * what a pin says, what is known of the servers, whether a session leaves a full one; which one is
 * chosen is decide_choose.c's. Only the rendezvous score is a floating-point number.
 */
#include "core/decide.h"

#include <math.h>
#include <xxhash.h>

#include "core/decide_choose.h"
#include "core/decide_prefix.h"

const char *const decide_reason_names[DECIDE_REASON_NR] = {
#define DECIDE_X(id, text) [DECIDE_##id] = (text),
	DECIDE_REASONS(DECIDE_X)
#undef DECIDE_X
};

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

static const struct backend_view *view_of(const struct decide_input *in, uint32_t id)
{
	uint32_t i;

	for (i = 0; i < in->nr_views; i++)
		if (in->view[i].id == id)
			return &in->view[i];
	return NULL;
}

/* What the pin says: PINNED and @owner, or why there has to be a placement. */
static enum decide_reason pin_verdict(const struct decide_input *in,
				      const struct backend_view **owner)
{
	const struct backend_view *v;

	if (!in->keyed)
		return DECIDE_KEYLESS;
	if (in->guard.control)
		return DECIDE_CONTROL;
	if (in->placement == PLACEMENT_HASH)
		return DECIDE_HASHED;
	if (in->pin == SESSION_NO_BACKEND)
		return DECIDE_PLACED;
	/* First, because it stays true whatever others do to the server's state meanwhile. */
	if (view_excluded(in, in->pin))
		return DECIDE_MOVED_FAILED;
	v = view_of(in, in->pin);
	if (!v || v->state == BACKEND_REMOVED || !v->weight)
		return DECIDE_MOVED_REMOVED;
	if (v->state != BACKEND_UP)
		return DECIDE_MOVED_DOWN;
	if (v->draining && (v->drained || in->guard.idle_ms > v->drain_idle_ms))
		return DECIDE_MOVED_DRAIN;
	if (in->avoided >> in->pin & 1)
		return DECIDE_MOVED_AVOID;
	*owner = v;
	return DECIDE_PINNED;
}

/* ---- what is known of the servers ---- */

static bool view_eligible(const struct decide_input *in, const struct backend_view *v)
{
	return v->state == BACKEND_UP && v->weight && !v->draining && !view_excluded(in, v->id);
}

/* A slot that is free, and that nobody waits for. */
static bool view_free(const struct backend_view *v)
{
	return !v->slots || (uint64_t)v->inflight + v->queued < v->slots;
}

/* Means over all servers that have one, for those that have none yet. */
struct means {
	uint32_t exchange_ms;
	uint64_t rate;
};

static struct means means_of(const struct decide_input *in)
{
	uint64_t exchange = 0, rate = 0;
	uint32_t nr_exchange = 0, nr_rate = 0, i;

	for (i = 0; i < in->nr_views; i++) {
		const struct backend_view *v = &in->view[i];

		exchange += v->exchange_ms;
		nr_exchange += v->exchange_ms != 0;
		/* Far from overflow: 64 servers of less than 2^58 bytes a second. */
		rate += v->rate >> 6;
		nr_rate += v->rate != 0;
	}
	return (struct means){
		.exchange_ms = nr_exchange ? (uint32_t)(exchange / nr_exchange) : 0,
		.rate = nr_rate ? (rate / nr_rate) << 6 : 0,
	};
}

static uint32_t view_wait_ms(const struct backend_view *v, const struct means *m)
{
	return guard_wait_ms(v->slots, v->inflight, v->queued,
			     v->exchange_ms ? v->exchange_ms : m->exchange_ms);
}

/*
 * What staying costs in time. Of a wait that is late nothing is known any more but that, and it is
 * taken to last as long again: so the request gives up when it has waited for nothing about as long
 * as a prefill elsewhere takes, and loses at most twice what the better choice would have (the ski
 * rental problem).
 */
static uint32_t stay_ms(const struct decide_input *in, const struct backend_view *v,
			const struct means *m)
{
	uint32_t ms = view_wait_ms(v, m);

	return in->guard.late_ms && (ms == GUARD_UNKNOWN || ms < in->guard.late_ms)
		       ? in->guard.late_ms
		       : ms;
}

static uint32_t view_cold_ms(const struct decide_input *in, const struct backend_view *v,
			     const struct means *m)
{
	uint64_t rate = v->rate ? v->rate : m->rate, bytes = in->guard.context;

	if (!in->keyed && in->prefix.windows && bytes && rate) {
		bytes = decide_prefix_missing(in, v);
		if (!bytes)
			return 0;
	}
	return guard_cold_ms(bytes, rate);
}

static void eligible_fill(struct eligible *e, const struct decide_input *in, uint64_t avoided,
			  const struct means *m, struct kvpin_decision *out)
{
	uint32_t i;

	e->nr = 0;
	for (i = 0; i < in->nr_views; i++) {
		const struct backend_view *v = &in->view[i];

		if (!view_eligible(in, v) || avoided >> v->id & 1)
			continue;
		out->candidate[e->nr] = (struct decide_candidate){
			.id = v->id,
			.sessions_by_weight = (double)v->sessions / v->weight,
			.inflight_by_weight = (double)v->inflight / v->weight,
			.rendezvous =
				in->keyed ? decide_rendezvous(in->session, v->name_hash, v->weight)
					  : 0,
			.slots = v->slots,
			.inflight = v->inflight,
			.queued = v->queued,
			.wait_ms = view_wait_ms(v, m),
			.cold_ms = view_cold_ms(in, v, m),
		};
		e->score[e->nr] = &out->candidate[e->nr];
		e->view[e->nr++] = v;
	}
	out->nr_candidates = e->nr;
}

/* Those with a free slot; @but: not this one, or NULL. */
static void eligible_free(struct eligible *to, const struct eligible *from,
			  const struct backend_view *but)
{
	uint32_t i;

	to->nr = 0;
	for (i = 0; i < from->nr; i++)
		if (from->view[i] != but && view_free(from->view[i]))
			eligible_add(to, from, i);
}

/* ---- placement ---- */

static bool view_room(const struct decide_input *in, const struct backend_view *v)
{
	return v->queued < in->guard.queue;
}

static uint32_t sum_ms(uint32_t a, uint32_t b)
{
	if (a == GUARD_UNKNOWN || b == GUARD_UNKNOWN)
		return GUARD_UNKNOWN;
	return a < GUARD_UNKNOWN - 1 - b ? a + b : GUARD_UNKNOWN - 1;
}

/* A full owner, as long as nobody else is known to have room. */
static struct guard_full full_of(const struct decide_input *in, const struct backend_view *owner,
				 const struct means *m)
{
	return (struct guard_full){
		.busy = in->guard.busy,
		.stay_ms = stay_ms(in, owner, m),
		.go_ms = GUARD_UNKNOWN,
		.cheapest_ms = owner->cheapest_ms ? owner->cheapest_ms : GUARD_UNKNOWN,
		.room = view_room(in, owner),
		.fresh = in->guard.fresh,
		.waited = in->guard.waited,
		.go = in->guard.go,
	};
}

static void weigh(const struct guard_full *full, struct kvpin_decision *out)
{
	out->guard = guard_full(full);
	out->stay_ms = full->stay_ms;
	out->go_ms = full->go_ms;
}

/*
 * A prompt whose owner is full, where requests are to wait for their owner: the wait and what is
 * still to be prefilled there, against what a free one has to prefill. False: it is placed like any
 * other.
 */
static bool prefix_waits(const struct decide_input *in, const struct eligible *e,
			 const struct eligible *some, const struct means *m,
			 struct kvpin_decision *out)
{
	const struct backend_view *owner, *other = NULL;
	struct guard_full full;

	if (in->keyed || !in->prefix.windows || in->guard.busy != GUARD_PREFER_OWNER)
		return false;
	owner = decide_prefix_owner(in, e->view, e->nr, some->nr ? some->view : e->view,
				    some->nr ? some->nr : e->nr);
	if (!owner || view_free(owner) || !view_room(in, owner))
		return false;
	full = full_of(in, owner, m);
	full.stay_ms = sum_ms(full.stay_ms, view_cold_ms(in, owner, m));
	if (some->nr) {
		other = decide_choose(in, e, some, out);
		full.elsewhere = true;
		full.go_ms = view_cold_ms(in, other, m);
	}
	weigh(&full, out);
	if (out->guard == GUARD_SPILL) {
		out->backend = other->id;
		return true;
	}
	out->backend = owner->id;
	out->reason = DECIDE_PREFIX;
	out->disturbed = SESSION_NO_BACKEND;
	return true;
}

/* Nobody's session, or one that lost its server: where to? */
static void place(const struct decide_input *in, const struct eligible *e, const struct means *m,
		  struct kvpin_decision *out)
{
	const struct backend_view *v;
	struct guard_full full = {
		.busy = in->guard.busy,
		.stay_ms = GUARD_UNKNOWN,
		.go_ms = GUARD_UNKNOWN,
		.cheapest_ms = GUARD_UNKNOWN,
		.waited = in->guard.waited,
	};
	struct eligible some;

	eligible_free(&some, e, NULL);
	if (prefix_waits(in, e, &some, m, out))
		return;
	if (some.nr) {
		v = decide_choose(in, e, &some, out);
		out->guard = v->slots ? GUARD_FREE : GUARD_UNLIMITED;
	} else {
		eligible_least_crowded(&some, e);
		v = decide_choose(in, e, &some, out);
		full.room = view_room(in, v);
		out->guard = guard_full(&full);
	}
	out->backend = v->id;
}

/* ---- a server that is full, or too loaded ---- */

static void owner_full(const struct decide_input *in, const struct eligible *e,
		       const struct means *m, const struct backend_view *owner,
		       struct kvpin_decision *out)
{
	struct guard_full full = full_of(in, owner, m);
	struct eligible some;

	if (in->guard.cold)
		full.stay_ms = sum_ms(full.stay_ms, view_cold_ms(in, owner, m));
	eligible_free(&some, e, owner);
	if (some.nr) {
		eligible_cheapest(&some);
		full.elsewhere = true;
		full.go_ms = some.score[0]->cold_ms;
	}
	weigh(&full, out);
	out->backend = owner->id;
	if (out->guard == GUARD_SPILL) {
		out->backend = decide_choose(in, e, &some, out)->id;
		out->reason = DECIDE_MOVED_BUSY;
	}
}

/* The near-minimum set: those whose requests are within the thresholds. */
static bool over_threshold(const struct decide_input *in, const struct backend_view *v)
{
	uint32_t least = v->inflight, i;

	if ((!in->guard.abs && !in->guard.rel_milli) || v->slots)
		return false;
	for (i = 0; i < in->nr_views; i++)
		if (view_eligible(in, &in->view[i]) && in->view[i].inflight < least)
			least = in->view[i].inflight;
	return guard_over_threshold(v->inflight, least, in->guard.abs, in->guard.rel_milli);
}

static void owner_loaded(const struct decide_input *in, const struct eligible *e,
			 struct kvpin_decision *out)
{
	struct eligible some = {.nr = 0};
	uint32_t i;

	for (i = 0; i < e->nr; i++)
		if (!over_threshold(in, e->view[i]) && view_free(e->view[i]))
			eligible_add(&some, e, i);
	/* All that are within are full: better where it is. */
	out->backend = some.nr ? decide_choose(in, e, &some, out)->id : in->pin;
	out->guard = some.nr ? GUARD_THRESHOLD : GUARD_UNLIMITED;
	if (some.nr)
		out->reason = DECIDE_MOVED_GUARD;
}

/* Nothing keeps the session from its server. */
static bool owner_keeps(const struct decide_input *in, const struct backend_view *owner,
			struct kvpin_decision *out)
{
	if (!owner || !view_free(owner) || over_threshold(in, owner))
		return false;
	out->backend = owner->id;
	out->guard = owner->slots ? GUARD_FREE : GUARD_UNLIMITED;
	return true;
}

void decide(const struct decide_input *in, struct kvpin_decision *out)
{
	const struct backend_view *owner = NULL;
	struct eligible e;
	struct means m;

	out->nr_candidates = 0;
	out->guard = GUARD_NONE;
	out->disturbed = SESSION_NO_BACKEND;
	out->stay_ms = out->go_ms = GUARD_UNKNOWN;
	out->reason = pin_verdict(in, &owner);
	if (owner_keeps(in, owner, out))
		return;
	m = means_of(in);
	eligible_fill(&e, in, in->avoided, &m, out);
	if (!owner && !e.nr && in->avoided) {
		/* There is nobody else. */
		if (out->reason == DECIDE_MOVED_AVOID) {
			owner = view_of(in, in->pin);
			out->reason = DECIDE_PINNED;
			if (owner_keeps(in, owner, out))
				return;
		}
		eligible_fill(&e, in, 0, &m, out);
	}
	if (!owner && !e.nr) {
		out->reason = DECIDE_NONE;
		out->backend = SESSION_NO_BACKEND;
		return;
	}
	if (out->reason == DECIDE_HASHED) {
		owner = decide_choose_best(&e, PLACEMENT_HASH);
		if (view_free(owner))
			owner = NULL;
	}
	if (!owner)
		place(in, &e, &m, out);
	else if (view_free(owner))
		owner_loaded(in, &e, out);
	else
		owner_full(in, &e, &m, owner, out);
}
