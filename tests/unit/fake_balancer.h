/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A balancer for those who only look at one: a table of servers, a real session table and two
 * workers' counters, set by hand. Stands for net/balancer.c; the clock is the test's own.
 */
#ifndef FAKE_BALANCER_H
#define FAKE_BALANCER_H

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "net/balancer.h"
#include "ops/metrics.h"

#define WORKERS 2

static struct world {
	struct balancer b;
	struct config c;
	struct worker_stats stats[WORKERS];
	struct metrics_base base;
	pthread_rwlock_t lock;
} w;

const struct config *balancer_config(const struct balancer *b)
{
	return atomic_load(&b->config);
}

const struct worker_stats *balancer_stats(const struct balancer *b, unsigned int worker)
{
	return &w.stats[worker];
}

static struct addr addr_of(const char *text)
{
	struct addr addr;
	const char *why;

	assert_int_equal(addr_parse(text, &addr, &why), 0);
	return addr;
}

static void config_add(const char *name, const char *address)
{
	struct backend_config *bc = &w.c.backend[w.c.nr_backends++];

	snprintf(bc->name, sizeof(bc->name), "%s", name);
	bc->addr = addr_of(address);
	bc->weight = 1;
	bc->slots = 4;
}

/* No server is in the table yet. */
static void world_init(uint32_t sessions, uint64_t ttl_ms)
{
	memset(&w, 0, sizeof(w));
	config_defaults(&w.c);
	backend_table_init(&w.b.backends, NULL);
	w.b.sessions = session_table_new(sessions, ttl_ms, 1);
	w.b.nr_workers = WORKERS;
	atomic_store(&w.b.config, &w.c);
	pthread_rwlock_init(&w.lock, NULL);
}

static void world_fini(void)
{
	session_table_free(w.b.sessions);
	pthread_rwlock_destroy(&w.lock);
}

#endif
