/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Pressure: how often a session had to leave a server that was alive and would have had its cache,
 * because of full slots or the guard; in the last minute. An autoscaler's signal: traffic of new
 * sessions alone never raises it. It goes down by itself as the minute passes, and to zero when
 * somebody says that he has acted on it.
 *
 * Reads no clock. Any thread.
 */
#ifndef CORE_PRESSURE_H
#define CORE_PRESSURE_H

#include <pthread.h>
#include <stdint.h>

#define PRESSURE_WINDOW_S 60

struct pressure {
	pthread_mutex_t lock;
	uint64_t second[PRESSURE_WINDOW_S]; /* which one a bucket is about */
	uint32_t count[PRESSURE_WINDOW_S];
	uint64_t total; /* since the start */
};

void pressure_init(struct pressure *p);
void pressure_fini(struct pressure *p);

/** pressure_add() - one forced move */
void pressure_add(struct pressure *p, uint64_t now_ms);

/** pressure_get() - forced moves of the last PRESSURE_WINDOW_S seconds, acknowledged ones left out;
 * @total: all since the start, or NULL */
uint32_t pressure_get(const struct pressure *p, uint64_t now_ms, uint64_t *total);

/** pressure_ack() - acted on: the gauge is 0 now; returns what it was */
uint32_t pressure_ack(struct pressure *p, uint64_t now_ms);

#endif
