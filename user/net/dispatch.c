/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Session key, pin, decision. */
#include "net/dispatch.h"

#include <pthread.h>

#include "kvpin_key.h"
#include "net/worker.h"

/* Serialises placements: pick and count are one step for all workers. Held for about a
 * microsecond, and never by requests whose session is pinned. Taken inside a shard's lock. */
static pthread_mutex_t placement_lock = PTHREAD_MUTEX_INITIALIZER;

void dispatch_key(struct conn *c)
{
	struct exchange *x = c->x;
	struct worker_stats *stats = c->worker->stats;
	const struct kvpin_head *h = &x->request;

	x->keyed = h->key_rank != KVPIN_KEY_NONE;
	if (!x->keyed) {
		stat_add(&stats->keyless, 1);
		return;
	}
	if (h->key_len > KVPIN_KEY_BYTES)
		stat_add(&stats->long_keys, 1);
	if (h->flags & KVPIN_HEAD_KEY_REPEATED)
		stat_add(&stats->repeated_keys, 1);
	x->session = kvpin_key_hash(buf_data(&c->in) + h->key_off, h->key_len);
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
	in->placement = w->config->placement;
	in->turn = 0;
	if (x->keyed && session_begin(b->sessions, x->session, balancer_now_ms(), &txn)) {
		in->pin = txn.session.backend;
		if (!x->attempts)
			x->later_turn = true;
	}
	dispatch_decide(w);
	placing = d->reason != DECIDE_PINNED;
	if (placing) {
		pthread_mutex_lock(&placement_lock);
		if (in->placement == PLACEMENT_ROUND_ROBIN || !in->keyed)
			in->turn = atomic_fetch_add(&b->turn, 1);
		dispatch_decide(w);
	}
	x->reason = d->reason;
	x->attempts++;
	if (d->backend != SESSION_NO_BACKEND) {
		x->backend = &b->backends.slot[d->backend];
		backend_inflight_add(x->backend, 1);
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
