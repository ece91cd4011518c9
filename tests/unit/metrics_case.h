/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The exporter over a fake balancer with two servers. Included by test programs, after cmocka.h.
 */
#ifndef UNIT_METRICS_CASE_H
#define UNIT_METRICS_CASE_H

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/decide.h"
#include "fake_balancer.h"
#include "ops/metrics.h"

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static struct metrics_kernel kernel; /* what the programs would have counted */

uint64_t balancer_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static inline void apply(void)
{
	metrics_base_set(&w.base, &w.b, &kernel);
	assert_int_equal(backend_table_apply(&w.b.backends, &w.c, w.b.sessions, 1000), 0);
}

static inline int setup(void **state)
{
	world_init(1000, 60000);
	memset(&kernel, 0, sizeof(kernel));
	config_add("gpu0", "127.0.0.1:8081");
	config_add("gpu1", "127.0.0.1:8082");
	apply();
	return 0;
}

static inline int teardown(void **state)
{
	world_fini();
	return 0;
}

static inline unsigned int count(const char *text, const char *what)
{
	unsigned int n = 0;

	for (const char *s = text; (s = strstr(s, what)); s++)
		n++;
	return n;
}

static inline void assert_line(const char *page, const char *line)
{
	char needle[512];

	snprintf(needle, sizeof(needle), "\n%s\n", line);
	if (!strstr(page, needle))
		fail_msg("missing: %s\nin\n%s", line, page);
}

static inline void fill(void)
{
	struct backend_stats *s0 = &w.stats[0].backend[0], *s1 = &w.stats[1].backend[0];
	struct session_txn txn;

	stat_add(&s0->requests[STAT_PATH_RELAY][OUTCOME_OK], 40);
	stat_add(&s1->requests[STAT_PATH_RELAY][OUTCOME_OK], 2);
	stat_add(&s1->requests[STAT_PATH_RELAY][OUTCOME_TRUNCATED], 1);
	stat_add(&w.stats[1].backend[STAT_NO_BACKEND].requests[STAT_PATH_RELAY][OUTCOME_NO_SERVER],
		 3);
	stat_add(&s0->bytes_up[STAT_PATH_RELAY], 1000);
	stat_add(&s0->bytes_down[STAT_PATH_RELAY], 5000000000);
	stat_add(&s1->connects, 7);
	stat_add(&s1->reuses, 35);
	stat_add(&s0->resends, 1);
	hist_add(&s0->ttft[TURN_FIRST], &hist_ttft_bounds, 4000000);
	hist_add(&s1->ttft[TURN_FIRST], &hist_ttft_bounds, 7000000);
	hist_add(&s1->ttft[TURN_FIRST], &hist_ttft_bounds, 500000000000);
	hist_add(&s1->token_gap, &hist_token_gap_bounds, 30000000);
	stat_add(&w.stats[0].moves[DECIDE_MOVED_DOWN], 5);
	stat_add(&w.stats[0].moves[DECIDE_PINNED], 99);
	stat_add(&w.stats[0].keyless[MISSING_BALANCE], 11);
	stat_add(&w.stats[1].long_keys, 12);
	stat_add(&w.stats[1].repeated_keys, 13);
	stat_add(&w.stats[0].http_errors[KVPIN_HTTP_BARE_LF], 14);
	stat_add(&w.stats[0].accepted, 15);
	stat_add(&w.stats[1].accepted, 15);
	stat_add(&w.stats[1].accept_pauses, 16);
	atomic_store(&w.b.connections, 17);
	atomic_store(&w.b.reloads, 18);
	w.b.backends.slot[0].shared->inflight = 3;
	backend_report_failure(&w.b.backends, &w.b.backends.slot[1], BACKEND_CAUSE_REFUSED, 2000);
	session_begin(w.b.sessions, 77, 1000, &txn);
	session_commit(&txn, 0);
}

#endif
