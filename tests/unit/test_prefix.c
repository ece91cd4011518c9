/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The prefix index: its rules one by one, thousands of random operations against
 * tests/unit/prefix_oracle.py, and many threads at once.
 */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/prefix.h"
#include "oracle.h"

#define TTL_MS 1000

static struct prefix_index *p;
static struct prefix_match m;
static uint32_t generation[BACKENDS_MAX];

static int begin(void **state)
{
	memset(generation, 0, sizeof(generation));
	p = prefix_index_new(1024, TTL_MS, 42);
	return !p;
}

static int end(void **state)
{
	prefix_index_free(p);
	p = NULL;
	return 0;
}

/* A chain whose first @common hashes are all sessions', the rest session @s's own. */
static const uint64_t *chain_of(uint32_t s, uint32_t common, uint32_t nr)
{
	static uint64_t chain[PREFIX_WINDOWS_MAX];

	for (uint32_t i = 0; i < nr; i++)
		chain[i] = i < common ? 1000 + i : (uint64_t)(s + 1) << 32 | i;
	return chain;
}

static void insert(uint32_t s, uint32_t common, uint32_t nr, uint32_t slot, uint64_t now_ms)
{
	prefix_insert(p, chain_of(s, common, nr), nr, slot, generation[slot], now_ms);
}

static void look(uint32_t s, uint32_t common, uint32_t nr, uint64_t now_ms)
{
	memset(&m, 0xa5, sizeof(m));
	prefix_lookup(p, chain_of(s, common, nr), nr, generation, 8, now_ms, &m);
}

static void every_node_has_an_owner_and_the_last_writer_owns(void **state)
{
	insert(1, 3, 6, 2, 10);
	look(1, 3, 6, 10);
	assert_int_equal(m.windows, 6);
	assert_int_equal(m.depth[2], 6);
	look(2, 3, 6, 10); /* another one that shares three windows */
	assert_int_equal(m.depth[2], 3);
	insert(2, 3, 6, 5, 11);
	look(1, 3, 6, 11); /* the shared ones are the other's now, its own are not */
	assert_int_equal(m.depth[2], 6);
	assert_int_equal(m.depth[5], 3);
	look(3, 0, 6, 11);
	assert_int_equal(m.depth[2] + m.depth[5], 0);
	assert_int_equal(prefix_count(p), 9);
}

static void an_empty_chain_changes_nothing(void **state)
{
	prefix_insert(p, NULL, 0, 1, 0, 5);
	assert_int_equal(prefix_count(p), 0);
	look(1, 0, 0, 5);
	assert_int_equal(m.windows, 0);
	assert_int_equal(m.shared, 0);
}

static void an_age_equal_to_the_ttl_is_live(void **state)
{
	insert(1, 0, 4, 1, 100);
	look(1, 0, 4, 100 + TTL_MS);
	assert_int_equal(m.depth[1], 4);
	look(1, 0, 4, 100 + TTL_MS + 1);
	assert_int_equal(m.depth[1], 0);
	assert_int_equal(prefix_sweep(p, 100 + TTL_MS, 100), 0);
	/* The next sweep begins half a TTL later. */
	assert_int_equal(prefix_sweep(p, 101 + TTL_MS, 100), 0);
	assert_int_equal(prefix_sweep(p, 100 + TTL_MS + TTL_MS / 2, 100), 4);
	assert_int_equal(prefix_count(p), 0);
}

static void a_sweep_does_bounded_work_and_goes_on(void **state)
{
	for (uint32_t s = 0; s < 10; s++)
		insert(s, 0, 10, 1, 0);
	assert_int_equal(prefix_sweep(p, 5000, 30), 30);
	assert_int_equal(prefix_sweep(p, 5000, 30), 30);
	assert_int_equal(prefix_sweep(p, 5001, 100), 40);
	assert_int_equal(prefix_sweep(p, 5002, 100), 0);
}

static void at_the_cap_the_longest_unused_goes_leaf_first(void **state)
{
	uint32_t s;

	for (s = 0; s < 128; s++)
		insert(s, 0, 8, 1, s);
	assert_int_equal(prefix_count(p), 1024);
	insert(1, 0, 8, 1, 200); /* used again: session 0 is the oldest, then 2 */
	insert(500, 0, 12, 1, 201);
	assert_int_equal(prefix_count(p), 1024);
	look(0, 0, 8, 201);
	assert_int_equal(m.depth[1], 0);
	look(2, 0, 8, 201);
	assert_int_equal(m.depth[1], 4);
	look(1, 0, 8, 201);
	assert_int_equal(m.depth[1], 8);
	look(500, 0, 12, 201);
	assert_int_equal(m.depth[1], 12);
}

static void a_lowered_cap_is_reached_by_sweeping(void **state)
{
	for (uint32_t s = 0; s < 100; s++)
		insert(s, 0, 10, 1, s);
	assert_int_equal(prefix_index_limits(p, 2000, TTL_MS), 1024);
	assert_int_equal(prefix_index_limits(p, 600, TTL_MS), 600);
	assert_int_equal(prefix_sweep(p, 100, 10000), 400);
	assert_int_equal(prefix_count(p), 600);
}

static void a_lost_cache_takes_all_of_its_servers_nodes_at_once(void **state)
{
	insert(1, 2, 6, 3, 0);
	insert(2, 2, 6, 4, 0);
	generation[4]++;
	look(2, 2, 6, 0);
	assert_int_equal(m.depth[3], 0);
	assert_int_equal(m.depth[4], 0);
	assert_true(m.weight[4] == 0);
	assert_true(fabs(m.weight[3] - 4) < 1e-9); /* two of its six were taken over */
	look(1, 2, 6, 0);
	assert_int_equal(m.depth[3], 6);
	/* It is given its own again. */
	insert(2, 2, 6, 4, 1);
	look(2, 2, 6, 1);
	assert_int_equal(m.depth[4], 6);
	assert_true(fabs(m.weight[4] - 6) < 1e-9);
}

static void weights_halve_in_two_minutes(void **state)
{
	insert(1, 0, 8, 1, 0);
	prefix_index_limits(p, 1024, 10 * PREFIX_HALF_LIFE_MS);
	look(9, 0, 1, 0);
	assert_true(fabs(m.weight[1] - 8) < 1e-9);
	look(9, 0, 1, PREFIX_HALF_LIFE_MS);
	assert_true(fabs(m.weight[1] - 4) < 1e-9);
	insert(2, 0, 2, 1, PREFIX_HALF_LIFE_MS);
	look(9, 0, 1, 2 * PREFIX_HALF_LIFE_MS);
	assert_true(fabs(m.weight[1] - 3) < 1e-9);
	insert(1, 0, 8, 2, 2 * PREFIX_HALF_LIFE_MS); /* taken over */
	look(9, 0, 1, 2 * PREFIX_HALF_LIFE_MS);
	assert_true(fabs(m.weight[1] - 1) < 1e-9);
	assert_true(fabs(m.weight[2] - 8) < 1e-9);
}

static void windows_with_many_continuations_are_shared_and_one_sessions_turns_are_not(void **state)
{
	uint32_t s, turn;

	/* One long conversation never shares anything with itself. */
	for (turn = 1; turn <= 20; turn++) {
		insert(100, 32, 32 + turn, 1, turn);
		look(100, 32, 32 + turn, turn);
		assert_int_equal(m.shared, 0);
	}
	for (s = 0; s < 6; s++)
		insert(s, 32, 36, s, 30);
	look(1, 32, 36, 30);
	assert_int_equal(m.shared, 0);
	insert(7, 32, 36, 6, 30); /* the eighth continuation */
	look(1, 32, 36, 30);
	assert_int_equal(m.shared, 32);
	assert_int_equal(m.depth[1], 36);
	assert_int_equal(m.depth[6], 0); /* what is shared tells of nobody */
	/* They go, and it is one session's again. */
	insert(100, 32, 52, 1, 30 + TTL_MS);
	assert_true(prefix_sweep(p, 31 + TTL_MS, 1000) > 0);
	look(100, 32, 52, 31 + TTL_MS);
	assert_int_equal(m.shared, 0);
	assert_int_equal(m.depth[1], 52);
}

static void one_session_in_two_hundred_finds_its_own(void **state)
{
	uint32_t s;

	for (s = 0; s < 120; s++)
		insert(s, 32, 36, s % 4, 10);
	for (s = 0; s < 120; s++) {
		look(s, 32, 40, 10);
		assert_int_equal(m.shared, 32);
		assert_int_equal(m.depth[s % 4], 36);
	}
}

/* ---- the oracle ---- */

static uint32_t nr_insert, nr_lookup, nr_hit, nr_shared, nr_chain;

static uint32_t read_chain(uint64_t *chain)
{
	uint32_t nr = (uint32_t)oracle_number();

	for (uint32_t i = 0; i < nr; i++)
		chain[i] = oracle_number();
	return nr;
}

static void compare_chain(void)
{
	uint64_t expected[64], got[64];
	static uint8_t text[20000];
	uint8_t salt[256];
	size_t salt_len = oracle_bytes(salt, sizeof(salt)), len = oracle_bytes(text, sizeof(text));
	uint32_t nr = read_chain(expected);

	assert_int_equal(prefix_chain(salt, salt_len, text, len, got, 64), nr);
	assert_memory_equal(got, expected, nr * sizeof(got[0]));
	nr_chain++;
}

static void compare_lookup(void)
{
	uint64_t now_ms = oracle_number(), chain[64];
	uint32_t common = (uint32_t)oracle_number(), nr = read_chain(chain), i;

	for (i = 0; i < 8; i++)
		generation[i] = (uint32_t)oracle_number();
	prefix_lookup(p, chain, nr, generation, common, now_ms, &m);
	assert_int_equal(m.windows, nr);
	assert_int_equal(m.shared, oracle_number());
	nr_shared += m.shared > 0;
	for (i = 0; i < 8; i++) {
		assert_int_equal(m.depth[i], oracle_number());
		nr_hit += m.depth[i] > 0;
	}
	for (i = 0; i < 8; i++)
		assert_true(fabs(m.weight[i] - strtod(oracle_word(), NULL)) < 1e-6);
	nr_lookup++;
}

static void take_line(const char *first)
{
	uint64_t now_ms, chain[64];
	uint32_t slot, of, nr;

	switch (*first) {
	case 'C':
		compare_chain();
		break;
	case 'N':
		prefix_index_free(p);
		nr = (uint32_t)oracle_number();
		p = prefix_index_new(nr, oracle_number(), 7);
		assert_non_null(p);
		break;
	case 'I':
		now_ms = oracle_number();
		slot = (uint32_t)oracle_number();
		of = (uint32_t)oracle_number();
		nr = read_chain(chain);
		prefix_insert(p, chain, nr, slot, of, now_ms);
		assert_int_equal(prefix_count(p), oracle_number());
		nr_insert++;
		break;
	case 'L':
		compare_lookup();
		break;
	case 'S':
		now_ms = oracle_number();
		assert_int_equal(prefix_sweep(p, now_ms, UINT32_MAX), oracle_number());
		assert_int_equal(prefix_count(p), oracle_number());
		break;
	default:
		fail_msg("the oracle says %s", first);
	}
}

static void thousands_of_random_operations_agree_with_the_oracle(void **state)
{
	if (oracle_run("prefix_oracle.py", "7 6000", take_line) < 0) {
		print_message("[ SKIP     ] python3-xxhash is not installed\n");
		skip();
	}
	assert_true(nr_insert > 1000 && nr_lookup > 1000 && nr_hit > 500 && nr_shared > 100 &&
		    nr_chain > 50);
}

/* ---- threads ---- */

static void *worker(void *arg)
{
	uint32_t slot = (uint32_t)(uintptr_t)arg, own[BACKENDS_MAX] = {0};
	struct prefix_match found;
	uint64_t chain[24];

	for (uint32_t i = 0; i < 20000; i++) {
		for (uint32_t k = 0; k < 24; k++)
			chain[k] = k < 8 ? k + 1 : (uint64_t)(i % 300 + 1) << 32 | k;
		prefix_lookup(p, chain, 24, own, 8, i / 10, &found);
		for (uint32_t s = 0; s < BACKENDS_MAX; s++)
			if (found.depth[s] > 24)
				return "a depth beyond the chain";
		prefix_insert(p, chain, 24, slot, 0, i / 10);
		if (i % 1000 == 0)
			prefix_sweep(p, i / 10, 100);
	}
	return NULL;
}

static void many_threads_at_once_leave_it_whole(void **state)
{
	pthread_t thread[4];
	double weight = 0;

	for (uintptr_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, worker, (void *)i), 0);
	for (int i = 0; i < 4; i++) {
		void *complaint;

		pthread_join(thread[i], &complaint);
		assert_null(complaint);
	}
	assert_true(prefix_count(p) <= 1024);
	look(1, 0, 1, 2000);
	for (int i = 0; i < 4; i++)
		weight += m.weight[i];
	assert_true(weight > 0 && weight < 1025);
	assert_int_equal(prefix_sweep(p, 1000000, UINT32_MAX), 1024);
	assert_int_equal(prefix_count(p), 0);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, end)
	const struct CMUnitTest tests[] = {
		CASE(every_node_has_an_owner_and_the_last_writer_owns),
		CASE(an_empty_chain_changes_nothing),
		CASE(an_age_equal_to_the_ttl_is_live),
		CASE(a_sweep_does_bounded_work_and_goes_on),
		CASE(at_the_cap_the_longest_unused_goes_leaf_first),
		CASE(a_lowered_cap_is_reached_by_sweeping),
		CASE(a_lost_cache_takes_all_of_its_servers_nodes_at_once),
		CASE(weights_halve_in_two_minutes),
		CASE(windows_with_many_continuations_are_shared_and_one_sessions_turns_are_not),
		CASE(one_session_in_two_hundred_finds_its_own),
		CASE(thousands_of_random_operations_agree_with_the_oracle),
		CASE(many_threads_at_once_leave_it_whole),
	};

	return cmocka_run_group_tests_name("prefix", tests, NULL, NULL);
}
