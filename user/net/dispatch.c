/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Pin or prefix, decision. */
#include "net/dispatch.h"

#include <pthread.h>

#include "core/body_scan.h"
#include "net/keys.h"
#include "net/worker.h"

/* Serialises placements: pick and count are one step for all workers. Held for about a
 * microsecond, and never by requests whose session is pinned. Taken inside a shard's lock. */
static pthread_mutex_t placement_lock = PTHREAD_MUTEX_INITIALIZER;

/* A slot that was free when it was chosen may be the kernel's a moment later; after so many times
 * the request is sent all the same, and the server queues it. */
#define TAKE_TRIES 8

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
static void prefix_bind(struct worker *w, const struct exchange *x, uint32_t slot)
{
	struct balancer *b = w->balancer;
	struct prefix_index *index = atomic_load(&b->prefix);
	uint32_t generation[BACKENDS_MAX];
	uint64_t now_ms = balancer_now_ms();

	if (!x->chain || !index)
		return;
	backend_generations(&b->backends, generation);
	prefix_insert(index, x->chain->hash, x->chain->nr, slot, generation[slot], now_ms);
	prefix_insert(index, x->chain->plain, x->chain->nr_plain, slot, generation[slot], now_ms);
}

/* A decision about a request that prefix routing has decided; @first: the first one about it. Those
 * that follow count only where they send it away from its owner after all. */
static void prefix_decided(struct conn *c, bool first, uint64_t now_ms)
{
	const struct kvpin_decision *d = &c->worker->record.decision;
	const struct prefix_match *m = &c->worker->decide_in.prefix;
	struct worker_stats *stats = c->worker->stats;

	if (d->reason != DECIDE_PREFIX && d->reason != DECIDE_PREFIX_GUARDED &&
	    d->reason != DECIDE_PREFIX_COLD)
		return;
	if (first)
		stat_add(&stats->prefixes[d->reason], 1);
	c->x->later_turn = d->reason == DECIDE_PREFIX;
	/* Nothing of it is held there: its TTFT tells the server's rate. */
	c->x->first_here = d->reason == DECIDE_PREFIX_COLD && !m->shared && !m->depth[d->backend];
	if (d->disturbed == SESSION_NO_BACKEND || c->x->disturbed)
		return;
	c->x->disturbed = true;
	stat_add(&stats->backend[d->disturbed].forced, 1);
	pressure_add(&c->worker->balancer->pressure, now_ms);
}

/* What a server without this session's cache has to prefill: the request repeats the context. */
static uint64_t request_bytes(const struct exchange *x)
{
	const struct kvpin_body *body = &x->request_body;

	return body->payload + (body->state == KVPIN_BS_COUNTED ? body->left : 0);
}

static void input_session(struct conn *c, const struct session_txn *txn, uint64_t now_ms)
{
	struct decide_input *in = &c->worker->decide_in;
	const struct session *s = &txn->session;
	struct exchange *x = c->x;

	in->pin = s->backend;
	if (!x->bound) {
		x->later_turn = true;
		x->context = s->context;
	}
	in->guard.cold = s->generation !=
			 backend_generation(&c->worker->balancer->backends.slot[s->backend]);
	in->guard.idle_ms = now_ms > s->last_used_ms ? (uint32_t)(now_ms - s->last_used_ms) : 0;
}

static void input_begin(struct conn *c)
{
	const struct config *config = c->worker->config;
	struct decide_input *in = &c->worker->decide_in;
	struct exchange *x = c->x;
	uint64_t bytes = request_bytes(x);

	in->keyed = x->keyed;
	in->session = x->session;
	in->pin = SESSION_NO_BACKEND;
	in->excluded = x->excluded;
	in->avoided = avoided(x, c->worker->balancer);
	in->prefix.windows = 0;
	in->turn = 0;
	x->control = x->keyed && guard_control(x->session, config->experiment_milli);
	in->guard = (struct decide_guard){
		.context = bytes > x->context ? bytes : x->context,
		.fresh = !x->waits_ns && !x->wait_ns,
		.waited = x->waited,
		.go = c->wait.waits && c->wait.go,
		.late_ms = wait_late_ms(c),
		.control = x->control,
	};
	decide_configure(in, config);
}

static void dispatch_decide(struct conn *c, uint64_t now_ms)
{
	struct worker *w = c->worker;
	struct balancer *b = w->balancer;

	decide_view(&w->decide_in, &b->backends, b->sessions, now_ms);
	wait_view(b, c, &w->decide_in);
	decide(&w->decide_in, &w->record.decision);
}

static bool decision_sends(const struct kvpin_decision *d)
{
	return d->backend != SESSION_NO_BACKEND && d->guard != GUARD_WAIT &&
	       d->guard != GUARD_DISPLACE && d->guard != GUARD_REFUSE;
}

/* Decide, and count in flight what is to be sent, in one step: if the slot is gone by then, decide
 * anew. */
static void dispatch_take(struct conn *c, uint64_t now_ms)
{
	struct worker *w = c->worker;
	struct kvpin_decision *d = &w->record.decision;

	for (int tries = 0;; tries++) {
		struct backend *b;

		dispatch_decide(c, now_ms);
		if (!decision_sends(d))
			return;
		b = &w->balancer->backends.slot[d->backend];
		if (backend_take(b))
			return;
		if (d->guard == GUARD_OVER || tries == TAKE_TRIES) {
			backend_inflight_add(b, 1);
			return;
		}
	}
}

/* @s: the session as it was found, or NULL: the request has no key. */
static void dispatch_record(struct conn *c, const struct session *s)
{
	struct worker *w = c->worker;
	const struct exchange *x = c->x;
	struct explain_record *r = &w->record;

	r->at_ns = balancer_now_ns();
	r->session = x->session;
	r->context = w->decide_in.guard.context;
	r->pin = w->decide_in.pin;
	r->turns = s ? s->turns : 0;
	r->idle_ms = w->decide_in.guard.idle_ms;
	r->keyed = s;
	r->cold = w->decide_in.guard.cold;
	r->steered = false;
	r->attempt = x->attempts + 1;
	keys_source(c, r->source);
	explain_add(w->explain, r);
}

/* The session belongs to that server from here on, whether the request waits or goes. */
static void dispatch_bind(struct conn *c, struct session_txn *txn)
{
	struct exchange *x = c->x;
	struct worker *w = c->worker;
	const struct kvpin_decision *d = &w->record.decision;
	const struct decide_input *in = &w->decide_in;
	const struct backend *b = &w->balancer->backends.slot[d->backend];
	bool moved = in->pin != SESSION_NO_BACKEND && in->pin != d->backend;

	if (moved) {
		stat_add(&w->stats->moves[d->reason], 1);
		/* A new session that found an idle slot while it waited leaves no cache behind. */
		if (x->later_turn &&
		    (d->reason == DECIDE_MOVED_BUSY || d->reason == DECIDE_MOVED_GUARD)) {
			stat_add(&w->stats->backend[in->pin].forced, 1);
			pressure_add(&w->balancer->pressure, txn->now_ms);
		}
	}
	if (!x->bound || moved)
		x->first_here = moved || in->pin == SESSION_NO_BACKEND || in->guard.cold;
	txn->again = x->bound;
	txn->generation = backend_generation(b);
	txn->control = x->control;
	txn->context = request_bytes(x);
	txn->stamp = balancer_stamp();
	x->bound = true;
	session_commit(txn, d->backend);
}

/* Without a server, or without a place in a queue: what the client is told. */
static enum dispatch dispatch_refused(const struct conn *c)
{
	if (c->worker->record.decision.backend == SESSION_NO_BACKEND)
		return DISPATCH_NOBODY;
	return c->x->waited ? DISPATCH_LATE : DISPATCH_FULL;
}

/* Into the queue, or it stays there where it is. */
static enum dispatch dispatch_wait(struct conn *c)
{
	struct worker *w = c->worker;
	const struct kvpin_decision *d = &w->record.decision;
	uint32_t cold_ms = GUARD_UNKNOWN;

	if (!c->x->waits_ns)
		c->x->waits_ns = balancer_now_ns();
	if (c->wait.waits && c->wait.slot == d->backend)
		return DISPATCH_WAIT;
	for (uint32_t i = 0; i < d->nr_candidates; i++)
		if (d->candidate[i].id == d->backend)
			cold_ms = d->candidate[i].cold_ms;
	/* What its owner has to prefill is not what another has to. */
	if (d->reason == DECIDE_PREFIX)
		cold_ms = d->go_ms;
	wait_leave(c);
	wait_join(c, d->backend, cold_ms, d->stay_ms == GUARD_UNKNOWN ? 0 : d->stay_ms);
	return DISPATCH_WAIT;
}

enum dispatch dispatch_choose(struct conn *c)
{
	struct exchange *x = c->x;
	struct worker *w = c->worker;
	struct balancer *b = w->balancer;
	struct decide_input *in = &w->decide_in;
	struct kvpin_decision *d = &w->record.decision;
	uint64_t now_ms = balancer_now_ms();
	enum dispatch done = DISPATCH_GO;
	struct session_txn txn;
	bool keyed = x->keyed, first = !x->attempts && !x->waits_ns, again = x->waits_ns;
	bool placing, displace;
	uint32_t waited_at = c->wait.waits ? c->wait.slot : SESSION_NO_BACKEND;

	input_begin(c);
	if (keyed && session_begin(b->sessions, x->session, now_ms, &txn))
		input_session(c, &txn, now_ms);
	else if (keyed && first && x->key.at != KEY_NONE)
		stat_add(&w->stats->first_turns, 1);
	dispatch_decide(c, now_ms);
	/* A pinned session's slot needs no lock to be taken. */
	placing = d->reason != DECIDE_PINNED || !decision_sends(d) ||
		  (d->guard != GUARD_OVER && !backend_take(&b->backends.slot[d->backend]));
	if (placing) {
		pthread_mutex_lock(&placement_lock);
		if (in->placement == PLACEMENT_ROUND_ROBIN || !in->keyed || in->guard.control)
			in->turn = atomic_fetch_add(&b->turn, 1);
		prefix_ask(w, x);
		dispatch_take(c, now_ms);
	} else if (d->guard == GUARD_OVER) {
		backend_inflight_add(&b->backends.slot[d->backend], 1);
	}
	x->reason = d->reason;
	displace = d->guard == GUARD_DISPLACE;
	if (!decision_sends(d))
		done = d->backend == SESSION_NO_BACKEND || d->guard == GUARD_REFUSE
			       ? dispatch_refused(c)
			       : dispatch_wait(c);
	/* A review that changes nothing is no news. */
	again = again && done == DISPATCH_WAIT && d->backend == (keyed ? in->pin : waited_at);
	if (!again)
		dispatch_record(c, keyed ? &txn.session : NULL);
	if (done == DISPATCH_GO || (first && done == DISPATCH_WAIT))
		prefix_decided(c, first, now_ms);
	if (done == DISPATCH_GO) {
		wait_leave(c);
		dispatch_sent(c, d->backend);
		x->over = d->guard == GUARD_OVER;
	}
	if (keyed && !again && (done == DISPATCH_GO || done == DISPATCH_WAIT))
		dispatch_bind(c, &txn);
	else if (keyed)
		session_abort(&txn);
	if (placing)
		pthread_mutex_unlock(&placement_lock);
	if (displace)
		wait_displace(b, d->backend, d->go_ms);
	return done;
}

void dispatch_sent(struct conn *c, uint32_t slot)
{
	struct exchange *x = c->x;
	uint64_t now_ns = balancer_now_ns();

	x->backend = &c->worker->balancer->backends.slot[slot];
	x->attempts++;
	x->over = false;
	x->counted_out = false;
	x->sent_ns = now_ns;
	prefix_bind(c->worker, x, slot);
	if (!x->waits_ns)
		return;
	x->wait_ns += now_ns - x->waits_ns;
	stat_add(&c->worker->stats->backend[slot].waits, 1);
	stat_add(&c->worker->stats->backend[slot].wait_ns, now_ns - x->waits_ns);
	x->waits_ns = 0;
}

void dispatch_answered(struct conn *c)
{
	struct exchange *x = c->x;

	if (x->counted_out)
		return;
	x->counted_out = true;
	backend_inflight_add(x->backend, -1);
	wait_kick(c->worker->balancer, x->backend->id);
}

void dispatch_release(struct conn *c)
{
	if (!c->x->backend)
		return;
	dispatch_answered(c);
	c->x->backend = NULL;
}
