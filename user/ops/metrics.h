/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The exporter: Prometheus text of what the workers and the kernel programs count, and the two
 * probes. It reads atomics and maps and never changes anything; no session id ever becomes a label.
 *
 * GET /metrics, /healthz (the process lives), /readyz (a request would find a server).
 */
#ifndef OPS_METRICS_H
#define OPS_METRICS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/addr.h"
#include "net/balancer.h"

/*
 * Counters, the workers' and the kernel's, belong to slots and only ever grow; a slot may be given
 * to another server. So the counters' values from before the present server are kept here and
 * subtracted: nobody has to clear a counter that a program on another CPU may be adding to.
 */
struct metrics_base {
	struct backend_stats backend[BACKENDS_MAX];
};

/* What the kernel programs counted, as plain numbers. */
struct metrics_kernel {
	bool available;	 /* false: there is only the relay, and all else is zero */
	uint64_t queued; /* bytes redirected to clients that their TCP has not taken */
	uint64_t refused[KVPIN_REFUSED_NR];
	struct kvpin_counters backend[BACKENDS_MAX]; /* by slot */
	bool splice;	 /* is the splice path there? Else its numbers are zero too */
	uint64_t splice_refused[KVPIN_SPLICE_REFUSED_NR];
	struct kvpin_counters spliced[BACKENDS_MAX]; /* by slot; requests are the workers' */
};

/* All that was counted, of the present servers. */
struct metrics_sum {
	bool steer, splice; /* is the path there? */
	uint64_t steer_queued;
	unsigned int nr_configured;
	uint32_t configured[BACKENDS_MAX]; /* slots that are configured now */
	struct worker_stats all; /* as if one worker had counted it, what the kernel did too */
};

/** metrics_kernel_read() - fill @k; on failure some of it. Returns 0 or -errno */
int metrics_kernel_read(struct metrics_kernel *k, const struct balancer *b);

/**
 * metrics_base_take() - note the counters of all slots that a reload may give away
 * @base: zeroed once; changed only under the write lock
 *
 * To be called immediately before each balancer_reload().
 */
void metrics_base_take(struct metrics_base *base, const struct balancer *b);

/** metrics_base_set() - the same with the kernel's numbers at hand */
void metrics_base_set(struct metrics_base *base, const struct balancer *b,
		      const struct metrics_kernel *k);

/**
 * metrics_sum_new() - add up
 * @out: to be given to free(); NULL on failure
 *
 * The caller holds the read lock. Returns 0, -ENOMEM, or another -errno when the kernel's counters
 * cannot be read: a page without them would look as if all counters had been reset.
 */
int metrics_sum_new(struct metrics_sum **out, const struct balancer *b,
		    const struct metrics_base *base);

/** metrics_sum_of() - the same with the kernel's numbers at hand; @sum: all of it is set */
void metrics_sum_of(struct metrics_sum *sum, const struct balancer *b,
		    const struct metrics_base *base, const struct metrics_kernel *k);

/** metrics_requests() - requests of a slot's present server that one path ended */
uint64_t metrics_requests(const struct metrics_sum *sum, uint32_t slot, enum stat_path path);

/**
 * metrics_render() - kvpin_*, the page but for process_*
 * @out: text is appended; the caller checks ferror()
 *
 * The caller holds the read lock since it made @sum.
 */
void metrics_render(const struct balancer *b, const struct metrics_sum *sum, FILE *out);

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
