/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Active checks: one thread asks every configured server for the health path and reports what
 * comes through backend_report_check(). It asks for nothing else: llama-server's /slots and
 * /metrics wait in its task queue and hold requests up (TESTGROUND.md).
 */
#ifndef OPS_HEALTH_H
#define OPS_HEALTH_H

#include <pthread.h>

#include "net/balancer.h"

struct health;

/**
 * health_start() - start checking by the configuration in force
 * @b: outlives health_stop(); so does @lock
 * @lock: held for reading while slots are read or reported to; whoever changes slots or frees
 *        configurations holds it for writing
 * @why: on failure says what failed
 *
 * With checks off the thread sleeps. Main thread, because of curl_global_init(). Returns NULL on
 * failure.
 */
struct health *health_start(struct balancer *b, pthread_rwlock_t *lock, char *why,
			    unsigned int why_bytes);

/** health_reload() - the configuration changed: look at it again; never waits; any thread */
void health_reload(struct health *h);

/** health_stop() - cut running checks, end the thread, free; NULL is accepted */
void health_stop(struct health *h);

#endif
