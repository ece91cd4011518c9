/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sessions: begin and commit, expiry, the cap, sweeps, lists, and random operations against a
 * simple model. An allocation can be made to fail.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static int fail_at = -1; /* this many allocations succeed; -1: all */

static void *failing_calloc(size_t nr, size_t size)
{
	if (fail_at >= 0 && fail_at-- == 0)
		return NULL;
	return calloc(nr, size);
}

static void *failing_aligned_alloc(size_t align, size_t size)
{
	if (fail_at >= 0 && fail_at-- == 0)
		return NULL;
	return aligned_alloc(align, size);
}

#define calloc	      failing_calloc
#define aligned_alloc failing_aligned_alloc
#include "session_case.h"
#undef calloc
#undef aligned_alloc

static void a_session_has_no_server_until_it_is_committed(void **state)
{
	struct session_table *t = new_table(100, TTL);
	struct session_txn txn;

	assert_false(session_begin(t, 7, 5, &txn));
	assert_int_equal(txn.session.backend, SESSION_NO_BACKEND);
	assert_int_equal(txn.session.turns, 0);
	session_commit(&txn, 3);
	assert_true(session_begin(t, 7, 6, &txn));
	assert_int_equal(txn.session.backend, 3);
	assert_int_equal(txn.session.created_ms, 5);
	assert_int_equal(txn.session.last_used_ms, 5);
	assert_int_equal(txn.session.turns, 1);
	session_abort(&txn);
	assert_int_equal(session_count(t, 3), 1);
	assert_int_equal(session_total(t), 1);
	session_table_free(t);
}

static void an_aborted_transaction_changes_nothing(void **state)
{
	struct session_table *t = new_table(100, TTL);
	struct session before;

	assert_false(there(t, 1, 0));
	assert_int_equal(session_total(t), 0);
	bind_to(t, 1, 2, 10);
	before = look(t, 1, 500);
	assert_int_equal(before.last_used_ms, 10);
	assert_int_equal(before.turns, 1);
	assert_true(there(t, 1, 10 + TTL));
	assert_false(there(t, 1, 11 + TTL)); /* looking did not prolong it */
	session_table_free(t);
}

static void a_move_takes_the_count_along_and_is_counted(void **state)
{
	struct session_table *t = new_table(100, TTL);
	struct session s;

	bind_to(t, 9, 0, 1);
	assert_int_equal(bind_to(t, 9, 0, 2), 0);
	assert_int_equal(bind_to(t, 9, 5, 3), 0);
	s = look(t, 9, 3);
	assert_int_equal(s.backend, 5);
	assert_int_equal(s.turns, 3);
	assert_int_equal(s.moves, 1);
	assert_int_equal(s.created_ms, 1);
	assert_int_equal(session_count(t, 0), 0);
	assert_int_equal(session_count(t, 5), 1);
	assert_consistent(t);
	session_table_free(t);
}

static void a_pin_as_old_as_its_ttl_lives_and_one_ms_later_is_gone(void **state)
{
	struct session_table *t = new_table(100, TTL);

	bind_to(t, 1, 0, 5000);
	assert_true(there(t, 1, 5000 + TTL));
	assert_false(there(t, 1, 5000 + TTL + 1));
	assert_int_equal(session_count(t, 0), 0);
	assert_int_equal(session_evicted(t), 0);
	/* The same with the sweep. */
	bind_to(t, 1, 0, 5000);
	assert_int_equal(session_sweep(t, 5000 + TTL, 1000), 0);
	assert_int_equal(session_sweep(t, 5000 + TTL + 1, 1000), 1);
	/* It comes back as a new session. */
	assert_int_equal(bind_to(t, 1, 4, 9000), SESSION_NO_BACKEND);
	assert_int_equal(look(t, 1, 9000).turns, 1);
	assert_int_equal(look(t, 1, 9000).moves, 0);
	assert_consistent(t);
	session_table_free(t);
}

static void use_restarts_the_ttl(void **state)
{
	struct session_table *t = new_table(100, TTL);
	uint64_t now_ms;

	bind_to(t, 1, 0, 0);
	for (now_ms = TTL; now_ms < 50 * TTL; now_ms += TTL)
		assert_int_equal(bind_to(t, 1, 0, now_ms), 0);
	assert_int_equal(look(t, 1, now_ms).turns, 50);
	session_table_free(t);
}

static void a_ttl_of_zero_and_the_longest_one_work(void **state)
{
	struct session_table *t = new_table(100, 0);

	bind_to(t, 1, 0, 10);
	assert_true(there(t, 1, 10));
	assert_false(there(t, 1, 11));
	session_table_limits(t, 100, UINT64_MAX);
	bind_to(t, 1, 0, 10);
	assert_true(there(t, 1, UINT64_MAX));
	session_table_free(t);
}

static void a_clock_behind_the_last_use_expires_nothing_and_sets_nothing_back(void **state)
{
	struct session_table *t = new_table(100, TTL);

	bind_to(t, 1, 0, 5000);
	assert_true(there(t, 1, 10));
	bind_to(t, 1, 0, 4000);
	assert_int_equal(look(t, 1, 5000).last_used_ms, 5000);
	session_table_free(t);
}

static void at_the_cap_the_longest_unused_pin_goes(void **state)
{
	struct session_table *t = new_table(4, TTL);
	uint64_t id;

	for (id = 1; id <= 4; id++)
		bind_to(t, id, 0, id);
	bind_to(t, 1, 0, 5); /* now 2 is the longest unused */
	bind_to(t, 5, 1, 6);
	assert_false(there(t, 2, 6));
	bind_to(t, 6, 1, 7);
	assert_false(there(t, 3, 7));
	assert_true(there(t, 1, 7) && there(t, 4, 7) && there(t, 5, 7) && there(t, 6, 7));
	assert_int_equal(session_total(t), 4);
	assert_int_equal(session_evicted(t), 2);
	/* Looking is no use. */
	there(t, 4, 8);
	bind_to(t, 7, 1, 9);
	assert_false(there(t, 4, 9));
	/* Touching a pin at the cap evicts nobody. */
	bind_to(t, 7, 1, 10);
	assert_int_equal(session_evicted(t), 3);
	assert_consistent(t);
	session_table_free(t);
}

static void one_pin_is_the_smallest_table(void **state)
{
	struct session_table *t = new_table(1, TTL);

	bind_to(t, 1, 0, 0);
	bind_to(t, 2, 1, 0);
	assert_false(there(t, 1, 0));
	assert_true(there(t, 2, 0));
	assert_consistent(t);
	session_table_free(t);
	assert_null(session_table_new(0, TTL, 1));
	session_table_free(NULL);
}

static void an_insert_removes_a_bounded_number_of_expired_pins(void **state)
{
	struct session_table *t = new_table(1000, TTL);
	uint64_t id;

	for (id = 0; id < 500; id++)
		bind_to(t, id, 0, 0);
	for (id = 1000; id < 1010; id++) {
		uint32_t before = session_total(t);

		bind_to(t, id, 1, TTL + 1);
		assert_int_equal(session_total(t), before + 1 - TRIM_PER_INSERT);
	}
	assert_int_equal(session_evicted(t), 0); /* they had expired */
	/* A touch removes none. */
	bind_to(t, 1000, 1, TTL + 2);
	assert_int_equal(session_total(t), 500 + 10 - 10 * TRIM_PER_INSERT);
	assert_consistent(t);
	session_table_free(t);
}

static void the_caps_of_all_shards_add_up_to_the_cap(void **state)
{
	static const uint32_t max[] = {1,    2,	    63,	    64,	    4095,    4096,   8191,
				       8192, 10000, 262143, 262144, 1000000, 1000003};
	unsigned int i;

	for (i = 0; i < sizeof(max) / sizeof(max[0]); i++) {
		struct session_table *t = new_table(max[i], TTL);

		assert_int_equal(session_table_limits(t, max[i], TTL), max[i]);
		assert_int_equal(session_table_limits(t, UINT32_MAX, TTL), max[i]);
		assert_int_equal(1U << t->shard_bits > 1, max[i] >= 8192);
		assert_true(t->shard_bits <= 6);
		session_table_free(t);
	}
}

static void the_cap_is_exact_below_8192_and_within_five_percent_above(void **state)
{
	static const uint32_t max[] = {100, 8191, 8192, 20000, 262144};
	unsigned int i, n;

	for (i = 0; i < sizeof(max) / sizeof(max[0]); i++) {
		struct session_table *t = new_table(max[i], TTL);
		uint32_t sure = max[i] < 8192 ? max[i] : max[i] / 100 * 95;

		for (n = 0; n < sure; n++)
			bind_to(t, random_id(n), 0, 0);
		assert_int_equal(session_evicted(t), 0);
		for (; n < 2 * max[i]; n++) {
			bind_to(t, random_id(n), 0, 0);
			assert_true(session_total(t) <= max[i]);
		}
		assert_int_equal(session_total(t), max[i]);
		session_table_free(t);
	}
}

static void a_lowered_cap_is_reached_by_inserts_and_sweeps(void **state)
{
	struct session_table *t = new_table(1000, TTL);
	uint64_t id;

	for (id = 0; id < 1000; id++)
		bind_to(t, id, 0, id);
	assert_int_equal(session_table_limits(t, 100, TTL), 100);
	assert_int_equal(session_total(t), 1000);
	bind_to(t, 5000, 0, 1000); /* goes down already, by a bounded number */
	assert_int_equal(session_total(t), 1001 - TRIM_PER_INSERT);
	assert_int_equal(session_sweep(t, 1000, 10), 10);
	while (session_sweep(t, 1000, 100))
		;
	assert_int_equal(session_total(t), 100);
	assert_true(there(t, 5000, 1000) && there(t, 999, 1000) && there(t, 901, 1000));
	assert_false(there(t, 900, 1000));
	/* Up again, but not over what there is memory for. */
	assert_int_equal(session_table_limits(t, 5000, TTL), 1000);
	for (id = 0; id < 3000; id++)
		bind_to(t, id, 0, 1001);
	assert_int_equal(session_total(t), 1000);
	assert_consistent(t);
	session_table_free(t);
}

static void a_new_ttl_holds_for_old_pins(void **state)
{
	struct session_table *t = new_table(100, TTL);

	bind_to(t, 1, 0, 0);
	session_table_limits(t, 100, 10);
	assert_true(there(t, 1, 10));
	session_table_limits(t, 100, 5 * TTL);
	assert_true(there(t, 1, 5 * TTL));
	session_table_limits(t, 100, 10);
	assert_false(there(t, 1, 11));
	session_table_free(t);
}

static void a_sweep_looks_at_no_more_than_its_budget_and_finds_all_in_time(void **state)
{
	struct session_table *t = new_table(300000, TTL);
	uint32_t left = 50000, i, rounds = 0;

	for (i = 0; i < left; i++)
		bind_to(t, random_id(i), i % 5, 0);
	while (left) {
		uint32_t gone = session_sweep(t, TTL + 1, 100);

		assert_true(gone <= 100);
		left -= gone;
		assert_int_equal(session_total(t), left);
		assert_true(rounds++ < 2000);
	}
	/* With nothing to do, too: here the budget is locks taken. */
	rounds = t->sweep_at;
	assert_int_equal(session_sweep(t, TTL + 1, 10), 0);
	assert_int_equal(t->sweep_at - rounds, 10);
	assert_int_equal(session_sweep(t, TTL + 1, 100), 0);
	assert_int_equal(t->sweep_at - rounds, 10 + 64);
	assert_int_equal(session_sweep(t, TTL + 1, 0), 0);
	assert_consistent(t);
	session_table_free(t);
}

static int id_cmp(const void *a, const void *b)
{
	const struct session *x = a, *y = b;

	return (x->id > y->id) - (x->id < y->id);
}

static void a_list_in_pages_has_every_live_pin_once(void **state)
{
	static const uint32_t pages[] = {1, 7, 1000, 20000};
	struct session_table *t = new_table(20000, TTL);
	struct session *all = calloc(40000, sizeof(*all));
	uint32_t p, i;

	for (i = 0; i < 5000; i++)
		bind_to(t, random_id(i), 0, TTL / 2);
	there(t, random_id(17), 2 * TTL); /* removed: a hole */
	for (i = 5000; i < 10000; i++)
		bind_to(t, random_id(i), 1, TTL);
	for (p = 0; p < sizeof(pages) / sizeof(pages[0]); p++) {
		uint64_t cursor = 0;
		uint32_t n = 0, page;

		do {
			page = session_list(t, 2 * TTL, &cursor, all + n, pages[p]);
			assert_true(page <= pages[p]);
			n += page;
		} while (cursor != UINT64_MAX);
		assert_int_equal(n, 5000); /* the others had expired */
		qsort(all, n, sizeof(*all), id_cmp);
		for (i = 0; i < n; i++) {
			assert_int_equal(all[i].backend, 1);
			assert_true(!i || all[i].id != all[i - 1].id);
		}
		assert_int_equal(session_list(t, 2 * TTL, &cursor, all, 10), 0);
		assert_true(cursor == UINT64_MAX);
	}
	free(all);
	session_table_free(t);
}

static void a_list_repeats_no_pin_while_others_come_and_go(void **state)
{
	struct session_table *t = new_table(20000, TTL);
	struct session *all = calloc(40000, sizeof(*all));
	uint32_t n = 0, i, old = 0;
	uint64_t cursor = 0, fresh = 50000;

	for (i = 0; i < 5000; i++)
		bind_to(t, random_id(i), 0, 0);
	while (cursor != UINT64_MAX) {
		n += session_list(t, 1, &cursor, all + n, 100);
		for (i = 0; i < 50; i++)
			bind_to(t, random_id(fresh++), 1, 1);
	}
	qsort(all, n, sizeof(*all), id_cmp);
	for (i = 0; i < n; i++) {
		assert_true(!i || all[i].id != all[i - 1].id);
		old += all[i].backend == 0;
	}
	assert_int_equal(old, 5000); /* who was there all the time is in it */
	free(all);
	session_table_free(t);
}

/* Keys as they are, counted ids, ids that differ only at the top, and only in the middle. */
static void chains_stay_short_for_ids_of_any_pattern(void **state)
{
	static const uint64_t secrets[] = {0, 1, 0x8000000000000000, UINT64_MAX, 0x123456789};
	unsigned int s, pattern;

	for (s = 0; s < sizeof(secrets) / sizeof(secrets[0]); s++) {
		for (pattern = 0; pattern < 4; pattern++) {
			struct session_table *t = session_table_new(20000, TTL, secrets[s]);
			uint64_t i;

			assert_non_null(t);
			for (i = 0; i < 16000; i++) {
				char key[32];
				int len = snprintf(key, sizeof(key), "session-%u", (unsigned int)i);
				uint64_t id[] = {i, i << 48, i << 20,
						 kvpin_key_hash((const __u8 *)key, (__u64)len)};

				bind_to(t, id[pattern], 0, 0);
			}
			assert_true(longest_chain(t) <= CHAIN_MAX);
			session_table_free(t);
		}
	}
}

static void another_secret_is_another_order_of_buckets(void **state)
{
	struct session_table *a = session_table_new(1 << 20, TTL, 1);
	struct session_table *b = session_table_new(1 << 20, TTL, 2);
	uint32_t same = 0, i;

	for (i = 0; i < 10000; i++)
		same += mix_shard(a, id_mix(a, random_id(i))) ==
			mix_shard(b, id_mix(b, random_id(i)));
	assert_in_range(same, 50, 400); /* of 64 shards: 156 by chance */
	session_table_free(a);
	session_table_free(b);
}

static void a_failing_allocation_leaves_no_table_and_no_leak(void **state)
{
	struct session_table *t = NULL;
	int n;

	/* 1 + 2 per shard; ASan would tell what was not freed. */
	for (n = 0; !t; n++) {
		assert_true(n < 1000);
		fail_at = n;
		t = session_table_new(300000, TTL, 1);
	}
	fail_at = -1;
	assert_int_equal(n - 1, 1 + 2 * 64);
	session_table_free(t);
}

/* An independent idea of the table: an array in order of last use, ideal expiry. */
#define MODEL_MAX 20
static struct session model[MODEL_MAX];
static uint32_t model_nr;

static struct session *model_find(uint64_t id, uint64_t now_ms)
{
	uint32_t i, kept = 0;

	for (i = 0; i < model_nr; i++)
		if (now_ms - model[i].last_used_ms <= TTL)
			model[kept++] = model[i];
	model_nr = kept;
	for (i = 0; i < model_nr; i++)
		if (model[i].id == id)
			return &model[i];
	return NULL;
}

static void model_commit(uint64_t id, uint32_t backend, uint64_t now_ms)
{
	struct session *found = model_find(id, now_ms), s = {.id = id, .created_ms = now_ms};
	uint32_t at = 0;

	if (found) {
		s = *found;
		s.moves += s.backend != backend;
		at = (uint32_t)(found - model);
	}
	if (found || model_nr == MODEL_MAX) /* else the longest unused: the first */
		memmove(model + at, model + at + 1, (--model_nr - at) * sizeof(s));
	s.backend = backend;
	s.turns++;
	s.last_used_ms = now_ms;
	model[model_nr++] = s;
}

static void random_operations_agree_with_a_simple_model(void **state)
{
	struct session_table *t = new_table(MODEL_MAX, TTL);
	uint64_t now_ms = 0;
	unsigned int seed = 3, i;

	model_nr = 0;
	for (i = 0; i < 200000; i++) {
		uint64_t id = (uint64_t)rand_r(&seed) % 40;
		uint32_t backend = (uint32_t)rand_r(&seed) % 4;
		struct session_txn txn;
		struct session *expected;
		bool found;

		now_ms += rand_r(&seed) % 1000 ? rand_r(&seed) % (TTL / 10) : 2 * TTL;
		expected = model_find(id, now_ms);
		found = session_begin(t, id, now_ms, &txn);
		assert_int_equal(found, !!expected);
		if (found) {
			assert_int_equal(txn.session.backend, expected->backend);
			assert_int_equal(txn.session.turns, expected->turns);
			assert_int_equal(txn.session.moves, expected->moves);
			assert_int_equal(txn.session.created_ms, expected->created_ms);
			assert_int_equal(txn.session.last_used_ms, expected->last_used_ms);
		}
		switch (rand_r(&seed) % 8) {
		case 0:
			session_abort(&txn);
			break;
		case 1:
			session_abort(&txn);
			session_sweep(t, now_ms, (uint32_t)rand_r(&seed) % 4);
			break;
		default:
			session_commit(&txn, backend);
			model_commit(id, backend, now_ms);
		}
		assert_true(session_total(t) >= model_nr && session_total(t) <= MODEL_MAX);
		if (i % 1000 == 0)
			assert_consistent(t);
	}
	assert_true(session_evicted(t) > 0);
	session_table_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_session_has_no_server_until_it_is_committed),
		cmocka_unit_test(an_aborted_transaction_changes_nothing),
		cmocka_unit_test(a_move_takes_the_count_along_and_is_counted),
		cmocka_unit_test(a_pin_as_old_as_its_ttl_lives_and_one_ms_later_is_gone),
		cmocka_unit_test(use_restarts_the_ttl),
		cmocka_unit_test(a_ttl_of_zero_and_the_longest_one_work),
		cmocka_unit_test(a_clock_behind_the_last_use_expires_nothing_and_sets_nothing_back),
		cmocka_unit_test(at_the_cap_the_longest_unused_pin_goes),
		cmocka_unit_test(one_pin_is_the_smallest_table),
		cmocka_unit_test(an_insert_removes_a_bounded_number_of_expired_pins),
		cmocka_unit_test(the_caps_of_all_shards_add_up_to_the_cap),
		cmocka_unit_test(the_cap_is_exact_below_8192_and_within_five_percent_above),
		cmocka_unit_test(a_lowered_cap_is_reached_by_inserts_and_sweeps),
		cmocka_unit_test(a_new_ttl_holds_for_old_pins),
		cmocka_unit_test(a_sweep_looks_at_no_more_than_its_budget_and_finds_all_in_time),
		cmocka_unit_test(a_list_in_pages_has_every_live_pin_once),
		cmocka_unit_test(a_list_repeats_no_pin_while_others_come_and_go),
		cmocka_unit_test(chains_stay_short_for_ids_of_any_pattern),
		cmocka_unit_test(another_secret_is_another_order_of_buckets),
		cmocka_unit_test(a_failing_allocation_leaves_no_table_and_no_leak),
		cmocka_unit_test(random_operations_agree_with_a_simple_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
