/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Pin or prefix, decision. */
#include "net/dispatch.h"

#include <pthread.h>

#include "core/body_scan.h"
#include "net/worker.h"

/* Serialises placements: pick and count are one step for all workers. Held for about a
 * microsecond, and never by requests whose session is pinned. Taken inside a shard's lock. */
static pthread_mutex_t placement_lock = PTHREAD_MUTEX_INITIALIZER;

/* The pin of the session that this request shall keep away from, as a set. */
static uint64_t avoided(const struct exchange *x, struct balancer *b)
{
	uint64_t slots = 0;
	struct session_txn txn;

	/* A call that is its own parent would drive the session away from its cache. */
	if (!x->avoids || (x->keyed && x->session == x->parent))
		return 0;
	if (session_begin(b->sessions, x->parent, balancer_now_ms(), &txn))
		slots = 1ULL << txn.session.backend;
	session_abort(&txn);
	return slots;
}

/* What the prefix index knows of the request, for decide(). */
static void prefix_ask(struct worker *w, const struct exchange *x)
{
	const struct affinity_config *a = &w->config->affinity;
	struct balancer *b = w->balancer;
	struct prefix_match *m = &w->decide_in.prefix;
	struct prefix_index *index = atomic_load(&b->prefix);
	uint32_t generation[BACKENDS_MAX];

	m->windows = 0;
	if (!x->chain || !index)
		return;
	backend_generations(&b->backends, generation);
	prefix_lookup(index, x->chain->hash, x->chain->nr, generation, a->prefix.common,
		      balancer_now_ms(), m);
	m->min_match = a->prefix.min_match;
	m->guard_abs = a->prefix.guard_abs;
	m->guard_rel = a->prefix.guard_rel;
}

/* Bound at dispatch: parallel requests with one head agree. */
static void prefix_bind(struct worker *w, struct exchange *x)
{
	const struct kvpin_decision *d = &w->decision;
	struct balancer *b = w->balancer;
	struct prefix_index *index = atomic_load(&b->prefix);
	uint32_t generation[BACKENDS_MAX];
	uint64_t now_ms = balancer_now_ms();

	if (!x->chain || !index)
		return;
	backend_generations(&b->backends, generation);
	prefix_insert(index, x->chain->hash, x->chain->nr, d->backend, generation[d->backend],
		      now_ms);
	prefix_insert(index, x->chain->plain, x->chain->nr_plain, d->backend,
		      generation[d->backend], now_ms);
	if (x->attempts > 1)
		return;
	stat_add(&w->stats->prefixes[d->reason], 1);
	if (d->disturbed != SESSION_NO_BACKEND)
		stat_add(&w->stats->backend[d->disturbed].disturbed, 1);
	if (d->reason == DECIDE_PREFIX)
		x->later_turn = true;
}

static void dispatch_decide(struct worker *w)
{
	struct balancer *b = w->balancer;

	decide_view(&w->decide_in, &b->backends, b->sessions, balancer_now_ms());
	decide(&w->decide_in, &w->decision);
}

bool dispatch_choose(struct conn *c)
{
	struct exchange *x = c->x;
	struct worker *w = c->worker;
	struct balancer *b = w->balancer;
	struct decide_input *in = &w->decide_in;
	struct kvpin_decision *d = &w->decision;
	struct session_txn txn;
	bool placing;

	in->keyed = x->keyed;
	in->session = x->session;
	in->pin = SESSION_NO_BACKEND;
	in->excluded = x->excluded;
	in->avoided = avoided(x, b);
	in->prefix.windows = 0;
	in->placement = w->config->placement;
	in->turn = 0;
	if (x->keyed && session_begin(b->sessions, x->session, balancer_now_ms(), &txn)) {
		in->pin = txn.session.backend;
		if (!x->attempts)
			x->later_turn = true;
	} else if (x->keyed && !x->attempts && x->key.at != KEY_NONE) {
		stat_add(&w->stats->first_turns, 1);
	}
	dispatch_decide(w);
	placing = d->reason != DECIDE_PINNED;
	if (placing) {
		pthread_mutex_lock(&placement_lock);
		if (in->placement == PLACEMENT_ROUND_ROBIN || !in->keyed)
			in->turn = atomic_fetch_add(&b->turn, 1);
		prefix_ask(w, x);
		dispatch_decide(w);
	}
	x->reason = d->reason;
	x->attempts++;
	if (d->backend != SESSION_NO_BACKEND) {
		x->backend = &b->backends.slot[d->backend];
		backend_inflight_add(x->backend, 1);
		prefix_bind(w, x);
		if (x->keyed) {
			txn.again = x->attempts > 1;
			session_commit(&txn, d->backend);
		}
		if (in->pin != SESSION_NO_BACKEND && in->pin != d->backend)
			stat_add(&w->stats->moves[d->reason], 1);
	} else if (x->keyed) {
		session_abort(&txn);
	}
	if (placing)
		pthread_mutex_unlock(&placement_lock);
	return d->backend != SESSION_NO_BACKEND;
}

void dispatch_release(struct conn *c)
{
	struct exchange *x = c->x;

	if (!x->backend)
		return;
	backend_inflight_add(x->backend, -1);
	x->backend = NULL;
}
