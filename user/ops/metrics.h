/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The exporter: Prometheus text of what the workers count, and the two probes. It reads atomics
 * and never changes anything; no session id ever becomes a label.
 *
 * GET /metrics, /healthz (the process lives), /readyz (a request would find a server).
 */
#ifndef OPS_METRICS_H
#define OPS_METRICS_H

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>

#include "base/addr.h"
#include "net/balancer.h"

/*
 * Workers' counters belong to slots and only ever grow; a slot may be given to another server.
 * So the counters' values from before the present server are kept here and subtracted.
 */
struct metrics_base {
	struct backend_stats backend[BACKENDS_MAX];
};

/**
 * metrics_base_take() - note the counters of all slots that a reload may give away
 * @base: zeroed once; changed only under the write lock
 *
 * To be called immediately before each balancer_reload().
 */
void metrics_base_take(struct metrics_base *base, const struct balancer *b);

/** metrics_requests() - requests of a slot's present server, all paths and outcomes */
uint64_t metrics_requests(const struct metrics_base *base, const struct balancer *b, uint32_t slot);

/**
 * metrics_render() - kvpin_*, the page but for process_*
 * @out: text is appended; the caller checks ferror()
 *
 * The caller holds the read lock. Returns 0 or -ENOMEM.
 */
int metrics_render(const struct balancer *b, const struct metrics_base *base, FILE *out);

/** metrics_render_process() - the customary process_*; what /proc does not tell is left out */
void metrics_render_process(FILE *out);

/** metrics_ready() - NULL when a request would find a server, else a static reason; any thread */
const char *metrics_ready(const struct balancer *b);

struct metrics;

/**
 * metrics_open() - bind and listen; who connects waits until metrics_serve()
 * @why: on failure says what failed
 *
 * Apart from metrics_serve(), so that an address in use is found before the first client of the
 * balancer is accepted. Returns NULL on failure.
 */
struct metrics *metrics_open(const struct addr *addr, char *why, unsigned int why_bytes);

/**
 * metrics_serve() - answer, from a thread of its own
 * @base: as above
 * @lock: held for reading while a page is made; whoever changes slots or frees configurations
 *        holds it for writing
 *
 * All pointers stay the caller's and must outlive metrics_stop(). Returns 0 or -errno with @why;
 * metrics_stop() is due in either case.
 */
int metrics_serve(struct metrics *m, const struct balancer *b, const struct metrics_base *base,
		  pthread_rwlock_t *lock, char *why, unsigned int why_bytes);

/** metrics_addr() - where it really listens (port 0 is replaced) */
struct addr metrics_addr(const struct metrics *m);

/** metrics_stop() - end the thread, close, free; NULL is accepted */
void metrics_stop(struct metrics *m);

#endif
