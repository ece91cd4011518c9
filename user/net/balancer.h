/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The balancer: what all workers share, and the workers' life. Everything outside net/ talks to
 * the data side through this header.
 *
 * Threads: the main thread (signals, reload, drain), the workers (one event loop each, all
 * connections of a client stay on one), the health checker, the exporter's and the control
 * socket's threads, which only read atomics and call the functions marked "any thread".
 */
#ifndef NET_BALANCER_H
#define NET_BALANCER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/backend.h"
#include "core/config.h"
#include "core/prefix.h"
#include "core/pressure.h"
#include "core/session.h"
#include "net/stats.h"
#include "net/wait.h"

struct peers;
struct worker;
struct retired;
struct splice;
struct steer;

struct balancer {
	_Atomic(const struct config *) config; /* published; see balancer_config() */
	struct retired *retired;	       /* replaced ones, until nobody reads them */
	struct addr listen[LISTEN_MAX];	       /* where the listeners really are */
	struct backend_table backends;
	struct session_table *sessions;
	_Atomic(struct prefix_index *) prefix; /* NULL until a configuration asks for it */
	struct steer
		*steer; /* set before balancer_init(), outlives the balancer; NULL: relay only */
	struct splice *splice; /* likewise */
	struct peers *peers;   /* ops/'s, carried for those who show figures; NULL: none */
	struct worker *worker[WORKERS_MAX];
	unsigned int nr_workers;
	struct wait_queues wait;
	struct pressure pressure;
	_Atomic uint64_t turn;	      /* round robin's running number */
	_Atomic uint32_t connections; /* clients, all workers */
	_Atomic bool draining;
	uint64_t started_ms; /* monotonic */
	_Atomic uint64_t reloads;
};

/** balancer_now_ms(), balancer_now_ns() - CLOCK_MONOTONIC, the clock of all timestamps here */
uint64_t balancer_now_ms(void);
uint64_t balancer_now_ns(void);

/** balancer_stamp() - session_stamp() of this moment */
uint32_t balancer_stamp(void);

/**
 * balancer_init() - the tables of servers and pins, without anybody who uses them yet
 * @b: zeroed, owned by the caller, alive until balancer_fini() returns
 * @c: finished configuration, from malloc(); the balancer owns it on success
 * @why: on failure says which step failed
 *
 * Between init and start is the time to put pins back and to set up what mirrors them.
 *
 * Returns 0 or -errno; on failure nothing is left and @c is still the caller's.
 */
int balancer_init(struct balancer *b, struct config *c, char *why, unsigned int why_bytes);

/**
 * balancer_listen() - bind the listeners; makes no thread
 * @why: on failure says which address failed
 *
 * What needs a privilege is done by then. Returns 0 or -errno; on failure nobody listens, and
 * balancer_fini() is still due.
 */
int balancer_listen(struct balancer *b, char *why, unsigned int why_bytes);

/**
 * balancer_start() - start the workers
 * @why: on failure says which step failed
 *
 * Returns 0 or -errno; on failure nothing is left running, and balancer_fini() is still due.
 */
int balancer_start(struct balancer *b, char *why, unsigned int why_bytes);

/**
 * balancer_reload() - publish a new configuration without dropping a connection
 * @c: finished, from malloc(); the balancer owns it on success
 * @why: on failure the reason; on success a note about caps that need a restart to grow, or empty
 *
 * Main thread only. Returns 0 or -errno; on failure the old one stays in force and @c is the
 * caller's.
 */
int balancer_reload(struct balancer *b, struct config *c, char *why, unsigned int why_bytes);

/**
 * balancer_config() - the configuration in force; any thread
 *
 * An old configuration is freed once all workers left it and a grace of some seconds has passed,
 * so a reader in another thread may use the pointer for a moment but must not keep it.
 */
const struct config *balancer_config(const struct balancer *b);

/* Reload and tick may give a slot to another server: the caller keeps readers of names and
 * addresses in other threads out meanwhile (user/ops/daemon.c has the lock). Workers are safe,
 * because a slot changes hands only when nothing of theirs refers to it. */

/** balancer_drain() - stop accepting, close idle connections, let exchanges finish; main thread */
void balancer_drain(struct balancer *b);

/** balancer_idle() - is a drain over: every listener closed, every client connection ended? */
bool balancer_idle(const struct balancer *b);

/** balancer_halt() - cut what is left and end the workers; the tables stay; main thread */
void balancer_halt(struct balancer *b);

/** balancer_fini() - free all, halting first where that was not done; main thread */
void balancer_fini(struct balancer *b);

/** balancer_tick() - housekeeping, about ten times a second from the main thread: expires pins
 * with bounded work, frees old configurations, frees slots of removed servers */
void balancer_tick(struct balancer *b);

/** balancer_stats() - one worker's counters, for readers in any thread */
const struct worker_stats *balancer_stats(const struct balancer *b, unsigned int worker);

/** balancer_listen_addr() - where listener @i really listens (port 0 is replaced) */
struct addr balancer_listen_addr(const struct balancer *b, unsigned int i);

#endif
