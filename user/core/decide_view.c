/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a decision is made from: a snapshot of the servers, and the settings. Here shared state is
 * read, so that decide() need not.
 */
#include "core/decide.h"

static void view_guard(struct backend_view *v, const struct backend *b, uint64_t now_ms)
{
	uint64_t drain_ms = atomic_load_explicit(&b->drain_ms, memory_order_relaxed);

	v->slots = atomic_load_explicit(&b->slots, memory_order_relaxed);
	v->queued = backend_queued(b);
	v->cheapest_ms = GUARD_UNKNOWN;
	v->exchange_ms = atomic_load_explicit(&b->exchange_ms, memory_order_relaxed);
	v->rate = atomic_load_explicit(&b->rate, memory_order_relaxed);
	v->draining = drain_ms;
	v->drained = drain_ms && now_ms >= drain_ms;
	v->drain_idle_ms = __atomic_load_n(&b->shared->drain_idle_ms, __ATOMIC_RELAXED);
}

void decide_view(struct decide_input *in, const struct backend_table *backends,
		 const struct session_table *sessions, uint64_t now_ms)
{
	uint32_t nr = atomic_load_explicit(&backends->nr, memory_order_acquire), i;

	in->nr_views = 0;
	for (i = 0; i < nr; i++) {
		const struct backend *b = &backends->slot[i];
		struct backend_view *v = &in->view[in->nr_views];

		/* Acquire: name_hash was written before the slot was put to use. */
		v->state = backend_state_now(backends, b, now_ms);
		if (v->state == BACKEND_FREE)
			continue;
		v->id = i;
		v->weight = atomic_load_explicit(&b->weight, memory_order_relaxed);
		v->inflight = backend_inflight(b);
		v->sessions = session_count(sessions, i);
		view_guard(v, b, now_ms);
		/* Of a removed one it is not needed, and its slot may just be given away. */
		v->name_hash = v->state == BACKEND_REMOVED ? 0 : b->name_hash;
		v->name = b->name;
		in->nr_views++;
	}
}

void decide_configure(struct decide_input *in, const struct config *config)
{
	in->placement = config->placement;
	in->guard.busy = config->guard.busy;
	in->guard.queue = config->guard.queue;
	in->guard.abs = config->guard.abs;
	in->guard.rel_milli = config->guard.rel_milli;
}
