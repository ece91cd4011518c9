/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Requests that wait for a free slot of one server: a queue per server, first in first out over all
 * workers. Owns who waits where, and hands over slots: whoever finds one free counts it in flight
 * for the queue's head and wakes that one's worker.
 *
 * Never decides whether to wait (core/guard.h) and never changes a connection's state.
 *
 * Slots become free by the daemon, which says so (wait_kick()), and by the kernel, which does not
 * always: while a worker has somebody waiting, it looks every WAIT_POLL_MS.
 */
#ifndef NET_WAIT_H
#define NET_WAIT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/list.h"
#include "core/config.h"
#include "core/decide.h"

struct balancer;
struct conn;
struct worker;

/* A connection's place; all but the last five under the queues' lock. */
struct waiter {
	struct list link; /* in the server's queue */
	struct worker *worker;
	uint32_t slot;
	uint32_t cold_ms; /* what moving it costs; GUARD_UNKNOWN */
	bool queued;
	bool granted; /* a slot is counted in flight for it */
	bool go;      /* asked to move, if it can */
	struct list mine; /* of its worker */
	bool waits;	  /* in that list; the owner's thread only */
	bool soon;	  /* to be decided anew GRACE_MS after since_ms */
	uint64_t since_ms;
	uint32_t expected_ms; /* wait that was expected then */
};

struct wait_queues {
	pthread_mutex_t lock;
	struct list queue[BACKENDS_MAX];
};

/* A worker's part. */
struct wait_worker {
	struct list mine; /* waiter.mine */
	uv_timer_t timer;
	uint64_t review_ms;
};

void wait_queues_init(struct wait_queues *q);
void wait_queues_fini(struct wait_queues *q);
void wait_worker_init(struct worker *w);

/** wait_worker_stop() - close the timer; nobody of the worker waits any more */
void wait_worker_stop(struct worker *w);

/**
 * wait_join() - take a place at the end of a server's queue
 * @c: does not wait yet
 * @slot: server
 * @cold_ms: what moving the session would cost
 * @expected_ms: how long it will wait, as far as one can tell; 0: one cannot
 *
 * A slot that is free already is handed over at once. The worker hears of a slot in
 * wait_worker_run().
 */
void wait_join(struct conn *c, uint32_t slot, uint32_t cold_ms, uint32_t expected_ms);

/** wait_late_ms() - how much longer than was expected it has waited; 0 when it does not wait */
uint32_t wait_late_ms(const struct conn *c);

/** wait_leave() - give the place up, and a slot that was handed over; fine when it does not wait */
void wait_leave(struct conn *c);

/** wait_taken() - was a slot handed over? Then the place is given up, and the slot is the caller's,
 * counted in flight */
bool wait_taken(struct conn *c);

/** wait_kick() - a slot of that server may be free: hand it over; any thread, cheap when nobody
 * waits */
void wait_kick(struct balancer *b, uint32_t slot);

/** wait_displace() - ask the cheapest of a server's queue to move, if it is cheaper than @below_ms */
void wait_displace(struct balancer *b, uint32_t slot, uint32_t below_ms);

/** wait_view() - complete decide()'s view by what only the queues know: the cheapest that waits,
 * and, for one that waits itself, how many are ahead of it */
void wait_view(struct balancer *b, struct conn *c, struct decide_input *in);

/** wait_worker_run() - tell the worker's connections that have been handed a slot (conn_on_slot())
 * or were asked to move (conn_on_review()) */
void wait_worker_run(struct worker *w);

#endif
