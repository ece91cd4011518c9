/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sessions under many threads, and what an operation costs. Figures are printed, never asserted:
 * what is asserted of speed is how many entries an operation touches.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <cmocka.h>

#include "session_case.h"

#define THREADS	      6
#define SHARED_IDS    20000
#define STRESS_ROUNDS 60000

static struct session_table *shared;
static pthread_barrier_t barrier;
static uint8_t agreed[THREADS][SHARED_IDS];

static void *first_requester(void *arg)
{
	uint32_t self = (uint32_t)(uintptr_t)arg, i;

	pthread_barrier_wait(&barrier);
	for (i = 0; i < SHARED_IDS; i++) {
		struct session_txn txn;
		uint32_t backend = self;

		if (session_begin(shared, random_id(i), 1, &txn))
			backend = txn.session.backend;
		session_commit(&txn, backend);
		agreed[self][i] = (uint8_t)backend;
	}
	return NULL;
}

static void run_threads(void *(*body)(void *))
{
	pthread_t thread[THREADS];
	void *complaint;
	uintptr_t i;

	pthread_barrier_init(&barrier, NULL, THREADS);
	for (i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, body, (void *)i), 0);
	for (i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(thread[i], &complaint), 0);
		if (complaint)
			fail_msg("%s", (const char *)complaint);
	}
	pthread_barrier_destroy(&barrier);
}

static void parallel_first_requests_of_one_session_agree(void **state)
{
	uint32_t i, k;

	shared = new_table(300000, TTL);
	run_threads(first_requester);
	for (i = 0; i < SHARED_IDS; i++) {
		struct session s = look(shared, random_id(i), 1);

		for (k = 0; k < THREADS; k++)
			assert_int_equal(agreed[k][i], s.backend);
		assert_int_equal(s.turns, THREADS);
		assert_int_equal(s.moves, 0);
	}
	assert_int_equal(session_total(shared), SHARED_IDS);
	assert_consistent(shared);
	session_table_free(shared);
}

static _Atomic uint64_t stress_clock;

static void *stress_worker(void *arg)
{
	unsigned int seed = (unsigned int)(uintptr_t)arg + 1, i;
	struct session page[64];
	uint64_t cursor = 0;

	pthread_barrier_wait(&barrier);
	for (i = 0; i < STRESS_ROUNDS; i++) {
		uint64_t now_ms = atomic_fetch_add(&stress_clock, 1) / 64;
		uint64_t id = random_id((uint64_t)rand_r(&seed) % 30000);
		struct session_txn txn;

		session_begin(shared, id, now_ms, &txn);
		if (rand_r(&seed) % 8)
			session_commit(&txn, (uint32_t)rand_r(&seed) % 8);
		else
			session_abort(&txn);
		if (i % 64 == 0)
			session_sweep(shared, now_ms, 50);
		if (i % 128 == 0)
			session_list(shared, now_ms, &cursor, page, 64);
		if (cursor == UINT64_MAX)
			cursor = 0;
		if (i % 1024 == 0)
			session_table_limits(shared, 5000 + (uint32_t)rand_r(&seed) % 10000, TTL);
		if (session_total(shared) > 20000)
			return "over the cap";
	}
	return NULL;
}

static void counts_add_up_after_a_storm_of_everything(void **state)
{
	uint32_t sum = 0, i;

	shared = new_table(20000, TTL);
	run_threads(stress_worker);
	for (i = 0; i < BACKENDS_MAX; i++)
		sum += session_count(shared, i);
	assert_int_equal(sum, session_total(shared));
	assert_true(sum > 0);
	assert_consistent(shared);
	/* And down to nothing. */
	while (session_sweep(shared, UINT64_MAX, 1000))
		;
	assert_int_equal(session_total(shared), 0);
	assert_consistent(shared);
	session_table_free(shared);
}

static double now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

/* Many rounds over few pins, or one over many: 1 million operations each. */
static void measure(uint32_t pins)
{
	struct session_table *t = new_table(pins + pins / 4 + 1000, TTL);
	uint32_t rounds = 1000000 / pins, r, i;
	double start, insert = 0, touch = 0, expire = 0, miss;
	uint64_t now_ms = 0;

	for (r = 0; r < rounds; r++, now_ms += 3 * TTL) {
		start = now_ns();
		for (i = 0; i < pins; i++)
			bind_to(t, random_id(i), i & 7, now_ms);
		insert += now_ns() - start;
		assert_int_equal(session_total(t), pins);
		start = now_ns();
		for (i = 0; i < pins; i++)
			bind_to(t, random_id((uint64_t)i * 7919 % pins), i & 7, now_ms + 1);
		touch += now_ns() - start;
		if (!r) {
			assert_true(longest_chain(t) <= CHAIN_MAX);
			assert_int_equal(session_evicted(t), 0);
		}
		start = now_ns();
		for (i = 0; session_total(t); i++)
			session_sweep(t, now_ms + 2 * TTL, 1000);
		expire += now_ns() - start;
		/* Each call but the last ones of a shard does its whole budget. */
		assert_true(i <= pins / 500 + 2);
	}
	start = now_ns();
	for (i = 0; i < pins; i++)
		look(t, random_id(i), now_ms);
	miss = now_ns() - start;
	print_message("[   FIGURE ] %7u pins: insert %.0f, begin+commit of a pin %.0f, miss %.0f, "
		      "expire %.0f ns\n",
		      pins, insert / (rounds * pins), touch / (rounds * pins), miss / pins,
		      expire / (rounds * pins));
	session_table_free(t);
}

static void work_per_operation_is_bounded_up_to_a_million_pins(void **state)
{
	measure(1000);
	measure(100000);
	measure(1000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parallel_first_requests_of_one_session_agree),
		cmocka_unit_test(counts_add_up_after_a_storm_of_everything),
		cmocka_unit_test(work_per_operation_is_bounded_up_to_a_million_pins),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
