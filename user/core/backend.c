/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The servers' live state. Every change of state is a compare-and-swap from the state that it was
 * decided on, so a late report never brings a removed server back.
 *
 *	FREE --apply--> UP --failure, check--> DOWN
 *	 ^               ^ <--check, revive---- |
 *	 |               |                      |
 *	 |    apply: configured again    apply: configured no more (from UP too)
 *	 |               |                      v
 *	 +----reap---------------------- REMOVED
 *
 * Logs nothing: the callers do, by the returned bool.
 */
#include "core/backend.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "core/session.h"

/* Without active checks a server that failed is tried again by a live request after this long: a
 * refused connect costs that request little, and a server that is back is soon used (README). */
#define BACKEND_RETRY_MS 1000

const char *const backend_state_names[BACKEND_STATE_NR] = {
	[BACKEND_FREE] = "free",
	[BACKEND_UP] = "up",
	[BACKEND_DOWN] = "down",
	[BACKEND_REMOVED] = "removed",
};

const char *const backend_cause_names[BACKEND_CAUSE_NR] = {
	[BACKEND_CAUSE_NONE] = "none",
	[BACKEND_CAUSE_REFUSED] = "refused",
	[BACKEND_CAUSE_RESET] = "reset",
	[BACKEND_CAUSE_CHECK] = "check",
};

_Static_assert((int)BACKEND_UP == KVPIN_BACKEND_UP, "the kernel steers to these");

void backend_table_init(struct backend_table *t, struct kvpin_backend *shared)
{
	uint32_t i;

	memset(t, 0, sizeof(*t));
	t->shared = shared ? shared : t->own;
	for (i = 0; i < BACKENDS_MAX; i++) {
		t->slot[i].id = i;
		t->slot[i].shared = &t->shared[i];
	}
}

static uint32_t state_get(const struct backend *b)
{
	return atomic_load_explicit(&b->state, memory_order_acquire);
}

/* The one place where a server's cache is written off; whoever remembered what it held compares
 * generations. */
static void cache_lost(struct backend *b)
{
	atomic_fetch_add_explicit(&b->generation, 1, memory_order_relaxed);
}

/* Let the kernel see the state. Two threads may change it at once: the last look counts. */
static void state_share(struct backend *b)
{
	uint32_t state;

	do {
		state = state_get(b);
		__atomic_store_n(&b->shared->state, state, __ATOMIC_SEQ_CST);
	} while (state_get(b) != state);
}

static void state_set(struct backend *b, uint32_t state)
{
	if (state != BACKEND_UP)
		cache_lost(b);
	atomic_store_explicit(&b->state, state, memory_order_release);
	state_share(b);
}

static bool state_change(struct backend *b, uint32_t from, uint32_t to)
{
	if (!atomic_compare_exchange_strong(&b->state, &from, to))
		return false;
	if (to != BACKEND_UP)
		cache_lost(b);
	state_share(b);
	return true;
}

void backend_generations(const struct backend_table *t, uint32_t generation[BACKENDS_MAX])
{
	for (uint32_t i = 0; i < BACKENDS_MAX; i++)
		generation[i] = atomic_load_explicit(&t->slot[i].generation, memory_order_relaxed);
}

void backend_host_lost(struct backend_table *t, const struct backend *b)
{
	uint32_t nr = atomic_load_explicit(&t->nr, memory_order_acquire), i;

	for (i = 0; i < nr; i++)
		if (state_get(&t->slot[i]) != BACKEND_FREE &&
		    addr_same_host(&t->slot[i].addr, &b->addr))
			cache_lost(&t->slot[i]);
}

static bool backend_configured(const struct backend *b)
{
	uint32_t state = state_get(b);

	return state == BACKEND_UP || state == BACKEND_DOWN;
}

_Static_assert(ADDR_TEXT_MAX <= KVPIN_BACKEND_ADDR_MAX, "addr_format() writes there");

static bool backend_is(const struct backend *b, const struct backend_config *bc)
{
	return state_get(b) != BACKEND_FREE && !strcmp(b->name, bc->name) &&
	       addr_equal(&b->addr, &bc->addr);
}

static struct backend *slot_of(struct backend_table *t, const struct backend_config *bc)
{
	uint32_t i;

	for (i = 0; i < t->nr; i++)
		if (backend_is(&t->slot[i], bc))
			return &t->slot[i];
	return NULL;
}

static bool config_has(const struct config *c, const struct backend *b)
{
	unsigned int i;

	for (i = 0; i < c->nr_backends; i++)
		if (backend_is(b, &c->backend[i]))
			return true;
	return false;
}

/* Nothing of the past counts for a server that is new, or that comes back. */
static void backend_forget(struct backend *b, uint64_t now_ms)
{
	b->cause = BACKEND_CAUSE_NONE;
	b->resets = 0;
	b->retry_ms = 0;
	b->changed_ms = now_ms;
	b->good = 0;
	b->bad = 0;
	b->checked = false;
	b->refused = false;
	b->restarts = 0;
	b->exchange_ms = 0;
	b->rate = 0;
	backend_undrain(b);
}

/* The kernel's weight is 0 once a drain is over: it steers nothing there. */
static void weight_share(struct backend *b)
{
	bool over = b->drain_over;

	__atomic_store_n(&b->shared->weight, over ? 0 : b->weight, __ATOMIC_RELAXED);
}

static void backend_settle(struct backend *b, const struct backend_config *bc, uint64_t now_ms)
{
	b->weight = bc->weight;
	weight_share(b);
	/* What the server said stays true over a reload. */
	if (!bc->slots_auto || !b->slots_auto)
		b->slots = bc->slots;
	b->slots_auto = bc->slots_auto;
	__atomic_store_n(&b->shared->slots, b->slots, __ATOMIC_RELAXED);
	if (backend_configured(b))
		return;
	backend_forget(b, now_ms);
	state_set(b, BACKEND_UP);
}

static struct backend *slot_take(struct backend_table *t, const struct backend_config *bc)
{
	struct backend *b = t->slot;

	while (state_get(b) != BACKEND_FREE)
		b++;
	memcpy(b->name, bc->name, sizeof(b->name));
	b->name_hash = XXH64(bc->name, strlen(bc->name), 0);
	b->addr = bc->addr;
	memcpy(b->shared->name, b->name, sizeof(b->name));
	addr_format(&b->addr, b->shared->address);
	__atomic_fetch_add(&b->shared->epoch, 1, __ATOMIC_RELAXED);
	if (b->id >= t->nr)
		atomic_store_explicit(&t->nr, b->id + 1, memory_order_release);
	return b;
}

static void backend_remove(struct backend *b, uint64_t now_ms)
{
	state_set(b, BACKEND_REMOVED);
	b->changed_ms = now_ms;
}

uint32_t backend_table_reap(struct backend_table *t, const struct session_table *sessions)
{
	uint32_t freed = 0, i;

	for (i = 0; i < t->nr; i++) {
		struct backend *b = &t->slot[i];

		if (state_get(b) != BACKEND_REMOVED || backend_inflight(b) ||
		    session_count(sessions, i))
			continue;
		state_set(b, BACKEND_FREE);
		freed++;
	}
	return freed;
}

static bool slots_suffice(struct backend_table *t, const struct config *c)
{
	uint32_t unused = 0, wanted = 0, i;

	for (i = 0; i < BACKENDS_MAX; i++)
		unused += state_get(&t->slot[i]) == BACKEND_FREE;
	for (i = 0; i < c->nr_backends; i++)
		wanted += !slot_of(t, &c->backend[i]);
	return wanted <= unused;
}

int backend_table_apply(struct backend_table *t, const struct config *c,
			const struct session_table *sessions, uint64_t now_ms)
{
	bool check = config_checks(c);
	uint32_t i;

	backend_table_reap(t, sessions);
	if (!slots_suffice(t, c))
		return -ENOSPC;
	for (i = 0; i < c->nr_backends; i++) {
		struct backend *b = slot_of(t, &c->backend[i]);

		if (!b)
			b = slot_take(t, &c->backend[i]);
		backend_settle(b, &c->backend[i], now_ms);
		/* Results from before checks were off say nothing of today. */
		if (check && !t->checked)
			b->checked = false;
	}
	/* Last: there is never a moment without a server. */
	for (i = 0; i < t->nr; i++)
		if (backend_configured(&t->slot[i]) && !config_has(c, &t->slot[i]))
			backend_remove(&t->slot[i], now_ms);
	t->checked = check;
	t->fall = c->health.fall;
	return 0;
}

struct backend *backend_find(struct backend_table *t, const char *name)
{
	uint32_t nr = atomic_load_explicit(&t->nr, memory_order_acquire), i;

	for (i = 0; i < nr; i++)
		if (backend_configured(&t->slot[i]) && !strcmp(t->slot[i].name, name))
			return &t->slot[i];
	return NULL;
}

static bool backend_go_down(struct backend *b, enum backend_cause cause, uint64_t now_ms)
{
	/* Before the state: a checker that sees DOWN counts good results from here on. */
	b->good = 0;
	b->bad = 0;
	if (!state_change(b, BACKEND_UP, BACKEND_DOWN))
		return false;
	b->cause = cause;
	b->changed_ms = now_ms;
	return true;
}

static bool backend_go_up(struct backend *b, uint64_t now_ms)
{
	b->resets = 0;
	if (!state_change(b, BACKEND_DOWN, BACKEND_UP))
		return false;
	b->cause = BACKEND_CAUSE_NONE;
	b->changed_ms = now_ms;
	return true;
}

bool backend_report_failure(struct backend_table *t, struct backend *b, enum backend_cause cause,
			    uint64_t now_ms)
{
	if (cause == BACKEND_CAUSE_RESET && ++b->resets < t->fall)
		return false;
	b->retry_ms = now_ms + BACKEND_RETRY_MS;
	if (state_get(b) != BACKEND_UP)
		return false;
	return backend_go_down(b, cause, now_ms);
}

void backend_report_success(struct backend *b)
{
	/* Reads first: this runs for every answer, and the line is shared by all workers. */
	if (atomic_load_explicit(&b->resets, memory_order_relaxed))
		b->resets = 0;
}

void backend_report_carried(struct backend *b, uint64_t answers)
{
	if (atomic_exchange(&b->carried, answers) != answers)
		b->resets = 0;
}

bool backend_revive(struct backend_table *t, struct backend *b, uint64_t now_ms)
{
	if (state_get(b) != BACKEND_DOWN || t->checked)
		return false;
	return backend_go_up(b, now_ms);
}

bool backend_report_check(struct backend *b, bool ok, uint32_t rise, uint32_t fall, uint64_t now_ms)
{
	/* Read before counting: see backend_go_down(). */
	uint32_t state = state_get(b), run;
	bool first;

	if (state != BACKEND_UP && state != BACKEND_DOWN)
		return false;
	first = !atomic_exchange(&b->checked, true);
	if (ok) {
		b->refused = false;
		b->bad = 0;
		run = ++b->good;
		return state == BACKEND_DOWN && (first || run >= rise) && backend_go_up(b, now_ms);
	}
	b->good = 0;
	run = ++b->bad;
	return state == BACKEND_UP && (first || run >= fall) &&
	       backend_go_down(b, BACKEND_CAUSE_CHECK, now_ms);
}

bool backend_blameless(int err)
{
	return err == EMFILE || err == ENFILE || err == ENOBUFS || err == ENOMEM || err == ENOSPC ||
	       err == EADDRNOTAVAIL;
}

bool backend_take(struct backend *b)
{
	uint32_t slots = atomic_load_explicit(&b->slots, memory_order_relaxed);
	uint32_t inflight = backend_inflight(b);

	do {
		if (slots && inflight >= slots)
			return false;
	} while (!__atomic_compare_exchange_n(&b->shared->inflight, &inflight, inflight + 1, true,
					      __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	return true;
}

bool backend_inherit(struct backend *b, uint32_t nr)
{
	uint32_t was = atomic_exchange_explicit(&b->inherited, nr, memory_order_relaxed);

	if (nr != was)
		backend_inflight_add(b, (int)(nr - was));
	return nr < was;
}

void backend_drain(struct backend *b, uint64_t deadline_ms, uint32_t idle_ms)
{
	b->drain_over = false;
	b->drain_ms = deadline_ms;
	weight_share(b);
	__atomic_store_n(&b->shared->drain_idle_ms, idle_ms, __ATOMIC_RELAXED);
}

void backend_undrain(struct backend *b)
{
	b->drain_ms = 0;
	b->drain_over = false;
	weight_share(b);
	__atomic_store_n(&b->shared->drain_idle_ms, 0, __ATOMIC_RELAXED);
}

void backend_drain_tick(struct backend *b, uint64_t now_ms)
{
	uint64_t deadline_ms = b->drain_ms;

	if (!deadline_ms || now_ms < deadline_ms || b->drain_over)
		return;
	b->drain_over = true;
	weight_share(b);
}

void backend_set_slots(struct backend *b, uint32_t slots)
{
	if (!b->slots_auto)
		return;
	b->slots = slots;
	__atomic_store_n(&b->shared->slots, slots, __ATOMIC_RELAXED);
}

void backend_report_refused(struct backend *b)
{
	if (!atomic_exchange(&b->refused, true))
		cache_lost(b);
}

void backend_report_restart(struct backend *b, uint32_t generation)
{
	b->restarts++;
	/* Connections from before lead nowhere, or to somebody who keeps them open for it. */
	__atomic_fetch_add(&b->shared->epoch, 1, __ATOMIC_RELAXED);
	atomic_compare_exchange_strong(&b->generation, &generation, generation + 1);
}
