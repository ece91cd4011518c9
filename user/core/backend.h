/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Live state of the servers: one slot per server in a fixed table, for the life of the process.
 * A slot's number is the server's id everywhere (pins, masks, metrics, later BPF maps). It is
 * given to another server only when nothing refers to it any more: not configured, nothing in
 * flight, no session pinned.
 *
 * Counters are atomics; a slot's identity (name, address) changes only under apply, which the
 * main thread calls while no worker can be using the slot.
 */
#ifndef CORE_BACKEND_H
#define CORE_BACKEND_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/config.h"
#include "kvpin_abi.h"

_Static_assert(BACKENDS_MAX == KVPIN_BACKENDS_MAX, "a slot is the same for the kernel");
_Static_assert(BACKEND_NAME_MAX == KVPIN_BACKEND_NAME_MAX, "and so is its name");

enum backend_state {
	BACKEND_FREE, /* slot not in use */
	BACKEND_UP,
	BACKEND_DOWN,	 /* takes nothing; its sessions move when they next speak */
	BACKEND_REMOVED, /* no longer configured; finishes what is in flight */
	BACKEND_STATE_NR
};

extern const char *const backend_state_names[BACKEND_STATE_NR];

/* Why a server is thought down. */
enum backend_cause {
	BACKEND_CAUSE_NONE,
	BACKEND_CAUSE_REFUSED, /* connect refused, unreachable or timed out */
	BACKEND_CAUSE_RESET,   /* connection lost before the first byte of an answer */
	BACKEND_CAUSE_CHECK,   /* the active check failed */
	BACKEND_CAUSE_NR
};

extern const char *const backend_cause_names[BACKEND_CAUSE_NR];

struct backend {
	uint32_t id; /* its slot */
	char name[BACKEND_NAME_MAX];
	uint64_t name_hash; /* XXH64 of the name: rendezvous seed */
	struct addr addr;
	_Atomic uint32_t state; /* enum backend_state */
	_Atomic uint32_t cause; /* enum backend_cause, while down */
	_Atomic uint32_t weight;
	_Atomic uint32_t slots;
	struct kvpin_backend *shared; /* in flight, and a copy of the rest for the kernel */
	/* Of its cache: grows when what it held must be thought lost. Not the epoch of its slot
	 * (kvpin_abi.h), which grows when that is given to another server. */
	_Atomic uint32_t generation;
	_Atomic uint32_t resets;      /* consecutive BACKEND_CAUSE_RESET reports */
	_Atomic uint64_t carried;     /* what backend_report_carried() was told last */
	_Atomic uint64_t retry_ms;    /* without active checks: when it may be tried again */
	_Atomic uint64_t changed_ms;  /* last change of state */
	_Atomic uint32_t exchange_ms; /* mean duration of its exchanges; 0: not known yet */
	_Atomic uint64_t rate;	      /* bytes per second of cold prefill; 0: not known yet */
	_Atomic uint64_t drain_ms;    /* deadline of its drain, monotonic; 0: not drained */
	_Atomic bool drain_over;      /* ... which has passed */
	_Atomic uint64_t restarts;    /* that were noticed, by backend_report_restart() */
	_Atomic bool refused;	      /* the last check was refused: it was told of once */
	_Atomic bool slots_auto;      /* slots are what the server says */
	_Atomic uint32_t good, bad;   /* consecutive results of the check, since the last change */
	_Atomic bool checked;	      /* a first result is in */
	_Atomic uint32_t inherited;   /* of those in flight, what backend_inherit() was told last */
};

struct backend_table {
	struct backend slot[BACKENDS_MAX];
	_Atomic uint32_t nr;	  /* slots 0 to nr - 1 were ever used */
	_Atomic uint32_t checked; /* active checks decide who comes back */
	_Atomic uint32_t fall;	  /* consecutive resets that take a server down */
	struct kvpin_backend *shared;
	struct kvpin_backend own[BACKENDS_MAX]; /* where no kernel path shares it */
};

/**
 * backend_state_now() - the state as a request meets it, enum backend_state; any thread
 *
 * Where nobody checks, a server that is down counts as up again once it may be tried: only a
 * request can find out that it is back.
 */
static inline uint32_t backend_state_now(const struct backend_table *t, const struct backend *b,
					 uint64_t now_ms)
{
	uint32_t state = atomic_load_explicit(&b->state, memory_order_acquire);

	if (state == BACKEND_DOWN && !atomic_load_explicit(&t->checked, memory_order_relaxed) &&
	    now_ms >= atomic_load_explicit(&b->retry_ms, memory_order_relaxed))
		return BACKEND_UP;
	return state;
}

/** backend_inflight() - requests dispatched and not yet answered, on all paths; any thread */
static inline uint32_t backend_inflight(const struct backend *b)
{
	return __atomic_load_n(&b->shared->inflight, __ATOMIC_RELAXED);
}

/** backend_queued() - requests that wait here for one of its slots; any thread */
static inline uint32_t backend_queued(const struct backend *b)
{
	return __atomic_load_n(&b->shared->waiting, __ATOMIC_RELAXED);
}

/** backend_generation() - of its cache, as pins remember it: another one means that what it held is
 * gone; any thread */
static inline uint16_t backend_generation(const struct backend *b)
{
	return (uint16_t)atomic_load_explicit(&b->generation, memory_order_relaxed);
}

/** backend_inflight_add() - @n is 1 or -1; any thread */
static inline void backend_inflight_add(struct backend *b, int n)
{
	__atomic_fetch_add(&b->shared->inflight, n, __ATOMIC_RELAXED);
}

/**
 * backend_blameless() - did a connect fail because this host lacks descriptors, ports or memory?
 * @err: errno of socket(), connect() or what surrounds them
 *
 * That says nothing of the server, and to take servers out for it would move all their sessions.
 */
bool backend_blameless(int err);

/**
 * backend_take() - count one more request in flight if there is a free slot, in one step
 *
 * The kernel programs count in the same way. Returns false, and counts nothing, when all slots are
 * taken. Any thread.
 */
bool backend_take(struct backend *b);

/**
 * backend_inherit() - so many requests that a dead kvpin had sent there still run
 * @nr: all of them; they count as in flight from now on, instead of as many as were told before
 *
 * Returns true when they have become fewer: a slot may be free. Main thread.
 */
bool backend_inherit(struct backend *b, uint32_t nr);

struct session_table;

/* In the functions below: t is the table, b one of its servers, now_ms the monotonic time. */

/**
 * backend_table_init() - an empty table; @t owned by the caller
 * @shared: BACKENDS_MAX zeroed entries of a map that the kernel reads, alive as long as the table;
 *          NULL: none
 */
void backend_table_init(struct backend_table *t, struct kvpin_backend *shared);

/**
 * backend_table_apply() - make the table mirror a configuration
 * @t: table
 * @c: the configuration to be published
 * @sessions: tells which slots still have pins
 * @now_ms: monotonic
 *
 * A server is the same when name and address are: it keeps slot, counters and state. New ones
 * begin UP (the first check decides at once); missing ones become REMOVED. All or nothing.
 *
 * Returns 0, or -ENOSPC when the slots do not suffice.
 */
int backend_table_apply(struct backend_table *t, const struct config *c,
			const struct session_table *sessions, uint64_t now_ms);

/**
 * backend_table_reap() - free the slots of removed servers that nothing refers to any more
 *
 * Under the same rule as backend_table_apply(), which calls it too. Returns how many.
 */
uint32_t backend_table_reap(struct backend_table *t, const struct session_table *sessions);

/** backend_find() - the configured server of that name, or NULL */
struct backend *backend_find(struct backend_table *t, const char *name);

/**
 * backend_report_failure() - a worker could not reach the server, or lost it before an answer
 * @b: server
 * @cause: BACKEND_CAUSE_REFUSED takes it down at once; BACKEND_CAUSE_RESET when it repeats
 * @now_ms: monotonic
 *
 * Returns true when this report took the server down (the caller logs it).
 */
bool backend_report_failure(struct backend_table *t, struct backend *b, enum backend_cause cause,
			    uint64_t now_ms);

/** backend_generations() - of all slots' caches; what was remembered of an older one is void */
void backend_generations(const struct backend_table *t, uint32_t generation[BACKENDS_MAX]);

/** backend_host_lost() - the host of @b cannot be reached: all its servers' caches are gone */
void backend_host_lost(struct backend_table *t, const struct backend *b);

/** backend_report_success() - an answer began: forgets earlier resets */
void backend_report_success(struct backend *b);

/**
 * backend_report_carried() - forgets earlier resets if the kernel has carried answers since
 * @answers: that it carried to their end, ever; any number that grows with them
 *
 * The daemon does not see those answers, so nobody calls backend_report_success() for them. Call it
 * right before a BACKEND_CAUSE_RESET is reported.
 */
void backend_report_carried(struct backend *b, uint64_t answers);

/**
 * backend_revive() - an answer began: without active checks that brings a server back
 *
 * Call it beside backend_report_success(): until then a server that is down stays so by name,
 * although decide_view() has let requests try it since retry_ms. Returns true when this call
 * brought it back (the caller logs it).
 */
bool backend_revive(struct backend_table *t, struct backend *b, uint64_t now_ms);

/**
 * backend_report_check() - one result of the active check
 * @b: server
 * @ok: the check's result
 * @rise, @fall: consecutive results that change the verdict; the very first decides alone
 * @now_ms: monotonic
 *
 * Returns true when the state changed (the caller logs it). Only the checker's thread calls it.
 */
bool backend_report_check(struct backend *b, bool ok, uint32_t rise, uint32_t fall,
			  uint64_t now_ms);

/**
 * backend_drain() - take the server's sessions away from it by and by; any thread
 * @deadline_ms: monotonic; from then on it keeps no session
 * @idle_ms: a session silent for longer than this does not come back to it
 *
 * It takes no new session from now on. Until undone, also over a reload.
 */
void backend_drain(struct backend *b, uint64_t deadline_ms, uint32_t idle_ms);

/** backend_undrain() - back to work; any thread */
void backend_undrain(struct backend *b);

/** backend_drain_tick() - a drain whose deadline has passed: let the kernel know; any thread */
void backend_drain_tick(struct backend *b, uint64_t now_ms);

/** backend_set_slots() - what the server itself said; nothing unless it is asked (slots: auto) */
void backend_set_slots(struct backend *b, uint32_t slots);

/** backend_report_refused() - a check met a closed port: whoever listens there next has an empty
 * cache. Before backend_report_check(), which ends the run of such checks */
void backend_report_refused(struct backend *b);

/**
 * backend_report_restart() - another process listens there now
 * @generation: of the cache when the former one was seen last: if it has grown since, the loss is
 *              known already, and sessions that spoke meanwhile are not made cold again
 */
void backend_report_restart(struct backend *b, uint32_t generation);

#endif
