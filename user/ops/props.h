/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * `slots: auto`: asks a server how many requests it works on at once: total_slots of llama-server's
 * /props. One thread, one question at a time: when the server comes up, and once a minute, because
 * such questions wait in the server's task queue (TESTGROUND.md).
 */
#ifndef OPS_PROPS_H
#define OPS_PROPS_H

#include <pthread.h>

#include "net/balancer.h"

struct props;

/**
 * props_start() - start asking by the configuration in force
 * @b: outlives props_stop(); so does @lock, as in health_start(), which has been called
 * @why: on failure says what failed
 *
 * Without a server of `slots: auto` the thread only sleeps. Returns NULL on failure.
 */
struct props *props_start(struct balancer *b, pthread_rwlock_t *lock, char *why,
			  unsigned int why_bytes);

/** props_reload() - the configuration changed: look at it again; never waits; any thread */
void props_reload(struct props *p);

/** props_stop() - end the thread, free; NULL is accepted */
void props_stop(struct props *p);

/** props_parse() - total_slots of the answer's body; 0 when it says nothing of use */
uint32_t props_parse(const char *body, size_t len);

#endif
