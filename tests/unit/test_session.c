/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Pins. The table's source is included, so that an allocation can be made to fail and the length
 * of a bucket's chain can be looked at; everything else goes through the header.
 *
 * Figures are printed, never asserted: what is asserted of speed is how many entries an operation
 * touches.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
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
#include "core/session.c"
#undef calloc
#undef aligned_alloc

#include "kvpin_key.h"

#define TTL 1000
/* Load factor at most 1: of a million chains the longest has some 10 entries. */
#define CHAIN_MAX 16

static struct session_table *new_table(uint32_t max, uint64_t ttl_ms)
{
	struct session_table *t = session_table_new(max, ttl_ms, 0x5ec7e7);

	assert_non_null(t);
	return t;
}

/* Binds, and returns where the session was before. */
static uint32_t bind_to(struct session_table *t, uint64_t id, uint32_t backend, uint64_t now_ms)
{
	struct session_txn txn;

	session_begin(t, id, now_ms, &txn);
	session_commit(&txn, backend);
	return txn.session.backend;
}

static struct session look(struct session_table *t, uint64_t id, uint64_t now_ms)
{
	struct session_txn txn;
	bool found = session_begin(t, id, now_ms, &txn);

	session_abort(&txn);
	assert_int_equal(found, txn.session.backend != SESSION_NO_BACKEND);
	assert_true(txn.session.id == id);
	return txn.session;
}

static bool there(struct session_table *t, uint64_t id, uint64_t now_ms)
{
	return look(t, id, now_ms).backend != SESSION_NO_BACKEND;
}

static uint64_t random_id(uint64_t i)
{
	return XXH64(&i, sizeof(i), 42);
}

/* Per-server counts, total, and what a walk finds must be one. */
static void assert_consistent(struct session_table *t)
{
	uint32_t live[BACKENDS_MAX] = {0}, total = 0, i, b;

	for (i = 0; i < 1U << t->shard_bits; i++) {
		struct shard *sh = &t->shard[i];
		uint32_t at, ring = 0, chained = 0, given_back = 0;

		for (at = sh->entry[0].newer; at; at = sh->entry[at].newer) {
			assert_true(sh->entry[at].session.backend < BACKENDS_MAX);
			live[sh->entry[at].session.backend]++;
			ring++;
		}
		for (b = 0; b < 1U << t->bucket_bits; b++)
			for (at = sh->bucket[b]; at; at = sh->entry[at].chain)
				chained++;
		for (at = sh->free; at; at = sh->entry[at].chain)
			given_back++;
		assert_int_equal(ring, sh->count);
		assert_int_equal(chained, sh->count);
		assert_int_equal(given_back + sh->count, sh->used);
		assert_true(sh->used <= sh->room);
		total += ring;
	}
	assert_int_equal(session_total(t), total);
	for (b = 0; b < BACKENDS_MAX; b++)
		assert_int_equal(session_count(t, b), live[b]);
}

static uint32_t longest_chain(const struct session_table *t)
{
	uint32_t longest = 0, i, b, at;

	for (i = 0; i < 1U << t->shard_bits; i++) {
		for (b = 0; b < 1U << t->bucket_bits; b++) {
			uint32_t n = 0;

			for (at = t->shard[i].bucket[b]; at; at = t->shard[i].entry[at].chain)
				n++;
			longest = n > longest ? n : longest;
		}
	}
	return longest;
}

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

/* What the kernel would hold: by small id. */
#define MIRROR_MAX 3000
static struct {
	struct session pin[MIRROR_MAX]; /* backend is SESSION_NO_BACKEND: nothing */
	uint32_t gets, puts, dels;
} copy;

static bool mirror_get(void *arg, uint64_t id, struct session *out)
{
	assert_ptr_equal(arg, &copy);
	assert_true(id < MIRROR_MAX);
	copy.gets++;
	memset(out, 0x5a, sizeof(*out));
	out->turns = copy.pin[id].turns;
	out->last_used_ms = copy.pin[id].last_used_ms;
	out->backend = copy.pin[id].backend;
	return out->backend != SESSION_NO_BACKEND;
}

static void mirror_set(void *arg, const struct session *s)
{
	assert_ptr_equal(arg, &copy);
	assert_true(s->id < MIRROR_MAX);
	copy.puts++;
	copy.pin[s->id] = *s;
}

static void mirror_del(void *arg, uint64_t id)
{
	assert_ptr_equal(arg, &copy);
	assert_true(id < MIRROR_MAX && copy.pin[id].backend != SESSION_NO_BACKEND);
	copy.dels++;
	copy.pin[id].backend = SESSION_NO_BACKEND;
}

static const struct session_mirror mirror = {
	.arg = &copy,
	.get = mirror_get,
	.put = mirror_set,
	.del = mirror_del,
};

static struct session_table *mirrored_table(uint32_t max)
{
	struct session_table *t = new_table(max, TTL);
	uint32_t i;

	memset(&copy, 0, sizeof(copy));
	for (i = 0; i < MIRROR_MAX; i++)
		copy.pin[i].backend = SESSION_NO_BACKEND;
	session_table_mirror(t, &mirror);
	return t;
}

/* The kernel uses a pin, and the table does not hear of it. */
static void use_there(uint64_t id, uint64_t now_ms)
{
	assert_true(copy.pin[id].backend != SESSION_NO_BACKEND);
	copy.pin[id].turns++;
	copy.pin[id].last_used_ms = now_ms;
}

static void assert_mirrored(struct session_table *t)
{
	uint32_t i, n = 0;

	for (i = 0; i < MIRROR_MAX; i++)
		n += copy.pin[i].backend != SESSION_NO_BACKEND;
	assert_int_equal(n, session_total(t));
	assert_consistent(t);
}

static void a_commit_a_touch_and_a_move_are_put_into_the_mirror(void **state)
{
	struct session_table *t = mirrored_table(100);
	struct session_txn txn;
	const struct session *there = &copy.pin[7];

	bind_to(t, 7, 3, 10);
	assert_int_equal(copy.puts, 1);
	assert_int_equal(there->backend, 3);
	assert_int_equal(there->turns, 1);
	assert_int_equal(there->last_used_ms, 10);
	bind_to(t, 7, 3, 20);
	assert_int_equal(there->turns, 2);
	assert_int_equal(there->last_used_ms, 20);
	bind_to(t, 7, 4, 30);
	assert_int_equal(there->backend, 4);
	assert_int_equal(there->moves, 1);
	session_begin(t, 7, 40, &txn);
	txn.again = true;
	session_commit(&txn, 5);
	assert_int_equal(there->backend, 5);
	assert_int_equal(there->turns, 3);
	assert_int_equal(copy.puts, 4);
	/* Looking and an abort put nothing. */
	look(t, 7, 50);
	assert_false(session_begin(t, 8, 50, &txn));
	session_abort(&txn);
	assert_int_equal(copy.puts, 4);
	assert_mirrored(t);
	session_table_free(t);
	assert_int_equal(copy.dels, 0); /* the mirror outlives the table */
}

static void what_was_used_there_is_found_with_its_turns_and_its_time(void **state)
{
	struct session_table *t = mirrored_table(100);
	struct session s;

	bind_to(t, 1, 0, 0);
	use_there(1, TTL);
	use_there(1, TTL + 500);
	s = look(t, 1, 2 * TTL); /* by its own time it would be gone */
	assert_int_equal(s.backend, 0);
	assert_int_equal(s.turns, 3);
	assert_int_equal(s.last_used_ms, TTL + 500);
	assert_int_equal(s.created_ms, 0);
	bind_to(t, 1, 0, 2 * TTL);
	assert_int_equal(copy.pin[1].turns, 4);
	/* An older idea changes nothing, and the table's server stands. */
	copy.pin[1] = (struct session){.id = 1, .backend = 9, .turns = 1, .last_used_ms = 5};
	s = look(t, 1, 2 * TTL);
	assert_int_equal(s.backend, 0);
	assert_int_equal(s.turns, 4);
	assert_int_equal(s.last_used_ms, 2 * TTL);
	/* Nothing there: the table's own word. */
	copy.pin[1].backend = SESSION_NO_BACKEND;
	assert_true(there(t, 1, 3 * TTL));
	session_table_free(t);
}

static void a_pin_found_expired_in_both_goes_from_both(void **state)
{
	struct session_table *t = mirrored_table(100);

	bind_to(t, 1, 0, 0);
	use_there(1, 10);
	assert_true(there(t, 1, 10 + TTL));
	assert_false(there(t, 1, 11 + TTL));
	assert_int_equal(copy.dels, 1);
	assert_mirrored(t);
	session_table_free(t);
}

static void a_sweep_keeps_what_was_used_there_and_deletes_the_others_there_too(void **state)
{
	struct session_table *t = mirrored_table(1000);
	uint32_t id;

	for (id = 0; id < 1000; id++)
		bind_to(t, id, 0, id / 10);
	for (id = 0; id < 1000; id += 2)
		use_there(id, TTL);
	assert_int_equal(session_sweep(t, TTL + 200, 5000), 500);
	assert_int_equal(copy.dels, 500);
	assert_int_equal(session_evicted(t), 0);
	assert_mirrored(t);
	for (id = 0; id < 1000; id++)
		assert_int_equal(there(t, id, TTL + 200), id % 2 == 0);
	/* And they go in their turn. */
	assert_int_equal(session_sweep(t, 2 * TTL, 5000), 0);
	assert_int_equal(session_sweep(t, 2 * TTL + 1, 5000), 500);
	assert_mirrored(t);
	session_table_free(t);
}

static void used_there_but_too_long_ago_does_not_save_a_pin(void **state)
{
	struct session_table *t = mirrored_table(10);

	bind_to(t, 1, 0, 0);
	use_there(1, 50);
	assert_int_equal(session_sweep(t, TTL + 51, 10), 1);
	assert_int_equal(session_evicted(t), 0);
	assert_mirrored(t);
	session_table_free(t);
}

static void a_sweep_asks_the_mirror_no_more_often_than_its_budget(void **state)
{
	struct session_table *t = mirrored_table(2000);
	uint32_t id, rounds;

	for (id = 0; id < 2000; id++)
		bind_to(t, id, 0, 0);
	for (id = 0; id < 2000; id++)
		use_there(id, TTL); /* all are alive */
	for (rounds = 0; rounds < 20; rounds++) {
		copy.gets = 0;
		assert_int_equal(session_sweep(t, TTL + 1, 100), 0);
		assert_int_equal(copy.gets, 100);
	}
	/* All were corrected: nothing is left to ask. */
	copy.gets = 0;
	assert_int_equal(session_sweep(t, TTL + 1, 100), 0);
	assert_int_equal(copy.gets, 0);
	assert_int_equal(session_total(t), 2000);
	assert_mirrored(t);
	session_table_free(t);
}

static void at_the_cap_a_pin_used_there_stays_and_an_unused_one_goes(void **state)
{
	struct session_table *t = mirrored_table(10);
	uint32_t id;

	for (id = 1; id <= 10; id++)
		bind_to(t, id, 0, id);
	use_there(1, 20);
	use_there(2, 21);
	bind_to(t, 11, 0, 30);
	assert_true(there(t, 1, 30) && there(t, 2, 30) && there(t, 11, 30));
	assert_false(there(t, 3, 30));
	assert_int_equal(session_evicted(t), 1);
	assert_int_equal(copy.dels, 1);
	assert_mirrored(t);
	session_table_free(t);
}

static void an_insert_has_room_when_all_were_used_there_and_asks_a_few_only(void **state)
{
	struct session_table *t = mirrored_table(1000);
	uint32_t id, round;

	for (id = 0; id < 1000; id++)
		bind_to(t, id, 0, 0);
	for (round = 0; round < 1000; round++) {
		for (id = 0; id < 1000 + round; id++)
			if (copy.pin[id].backend != SESSION_NO_BACKEND)
				use_there(id, 100 + round + id % 5);
		copy.gets = 0;
		bind_to(t, 1000 + round, 1, 100 + round);
		assert_true(copy.gets <= LOOKS_PER_INSERT);
		assert_int_equal(session_total(t), 1000);
		assert_int_equal(session_evicted(t), round + 1);
	}
	assert_mirrored(t);
	session_table_free(t);
}

static void when_all_were_used_there_the_longest_unused_of_those_asked_goes(void **state)
{
	struct session_table *t = mirrored_table(5);
	uint32_t id;

	for (id = 1; id <= 5; id++)
		bind_to(t, id, 0, id);
	for (id = 1; id <= 5; id++)
		use_there(id, id == 4 ? 10 : 20);
	bind_to(t, 6, 0, 30);
	assert_false(there(t, 4, 30));
	assert_int_equal(session_total(t), 5);
	assert_mirrored(t);
	session_table_free(t);
}

static void a_lowered_cap_is_reached_although_all_are_used_there(void **state)
{
	struct session_table *t = mirrored_table(1000);
	uint32_t id, rounds = 0;

	for (id = 0; id < 1000; id++)
		bind_to(t, id, 0, 0);
	session_table_limits(t, 900, TTL);
	while (session_total(t) > 900) {
		for (id = 0; id < 1000; id++)
			if (copy.pin[id].backend != SESSION_NO_BACKEND)
				use_there(id, rounds);
		session_sweep(t, rounds, 1000);
		assert_true(rounds++ < 100);
	}
	assert_mirrored(t);
	session_table_free(t);
}

static void a_list_shows_what_the_mirror_knows_and_changes_nothing(void **state)
{
	struct session_table *t = mirrored_table(1000);
	struct session *all = calloc(1000, sizeof(*all));
	uint64_t cursor = 0;
	uint32_t id, n = 0;

	for (id = 0; id < 300; id++)
		bind_to(t, id, 0, id);
	for (id = 0; id < 300; id += 3)
		use_there(id, TTL);
	while (cursor != UINT64_MAX)
		n += session_list(t, TTL + 300, &cursor, all + n, 7);
	assert_int_equal(n, 100); /* the others have expired */
	for (id = 0; id < n; id++) {
		assert_int_equal(all[id].id % 3, 0);
		assert_int_equal(all[id].turns, 2);
		assert_int_equal(all[id].last_used_ms, TTL);
	}
	assert_int_equal(session_total(t), 300);
	assert_int_equal(t->shard[0].entry[1].session.turns, 1);
	assert_int_equal(t->shard[0].entry[t->shard[0].entry[0].newer].session.id, 0);
	assert_int_equal(copy.dels, 0);
	assert_mirrored(t);
	free(all);
	session_table_free(t);
}

static void without_a_mirror_nobody_is_asked(void **state)
{
	struct session_table *t = mirrored_table(10);
	struct session out[10];
	uint64_t cursor = 0;
	uint32_t id;

	session_table_mirror(t, NULL);
	for (id = 0; id < 20; id++)
		bind_to(t, id, 0, id);
	session_list(t, 30, &cursor, out, 10);
	session_sweep(t, 3 * TTL, 100);
	assert_int_equal(copy.gets + copy.puts + copy.dels, 0);
	session_table_free(t);
}

static void an_adopted_pin_is_as_it_was_and_a_present_one_stays(void **state)
{
	struct session_table *t = mirrored_table(10);
	struct session s = {
		.id = 5,
		.last_used_ms = 100,
		.created_ms = 20,
		.backend = 2,
		.turns = 7,
		.moves = 1,
	};
	struct session found;

	assert_true(session_adopt(t, &s));
	assert_int_equal(copy.pin[5].turns, 7);
	found = look(t, 5, 100 + TTL);
	assert_int_equal(found.backend, 2);
	assert_int_equal(found.last_used_ms, 100);
	assert_int_equal(found.created_ms, 20);
	assert_int_equal(found.turns, 7);
	assert_int_equal(found.moves, 1);
	assert_int_equal(session_count(t, 2), 1);
	s.backend = 3;
	s.last_used_ms = 500;
	assert_false(session_adopt(t, &s));
	assert_int_equal(look(t, 5, 500).backend, 2);
	assert_int_equal(look(t, 5, 500).last_used_ms, 100);
	s = (struct session){.id = 6, .backend = BACKENDS_MAX};
	assert_false(session_adopt(t, &s));
	/* It goes like any other. */
	assert_int_equal(session_sweep(t, 101 + TTL, 10), 1);
	assert_mirrored(t);
	session_table_free(t);
}

static void of_more_pins_than_the_cap_the_latest_used_are_adopted(void **state)
{
	struct session_table *t = mirrored_table(100);
	struct session *s = calloc(300, sizeof(*s));
	uint32_t i;

	/* In an order of no meaning. */
	for (i = 0; i < 300; i++)
		s[i] = (struct session){.id = i, .last_used_ms = i * 7 % 300, .backend = i % 4};
	assert_int_equal(session_adopt_all(t, s, 300), 100);
	for (i = 0; i < 300; i++)
		assert_int_equal(there(t, i, 300), i * 7 % 300 >= 200);
	assert_int_equal(session_evicted(t), 0);
	assert_mirrored(t);
	/* The longest unused goes first. */
	bind_to(t, 1000, 0, 300);
	assert_int_equal(session_sweep(t, 202 + TTL, 1000), 1);
	assert_int_equal(session_total(t), 99);
	assert_int_equal(session_adopt_all(t, NULL, 0), 0);
	free(s);
	session_table_free(t);
}

static void random_use_on_both_sides_loses_no_live_pin(void **state)
{
	enum { IDS = 60 };
	struct session_table *t = mirrored_table(IDS); /* nothing falls to the cap */
	uint64_t now_ms = 0, used[IDS];
	uint32_t turns[IDS] = {0};
	unsigned int seed = 11, i;

	for (i = 0; i < 200000; i++) {
		uint64_t id = (uint64_t)rand_r(&seed) % IDS;
		bool alive = turns[id] && now_ms - used[id] <= TTL;

		switch (rand_r(&seed) % 4) {
		case 0:
			bind_to(t, id, 1, now_ms);
			turns[id] = alive ? turns[id] + 1 : 1;
			used[id] = now_ms;
			break;
		case 1:
			if (!alive)
				break;
			use_there(id, now_ms);
			turns[id]++;
			used[id] = now_ms;
			break;
		case 2:
			session_sweep(t, now_ms, (uint32_t)rand_r(&seed) % 4);
			break;
		default:
			assert_int_equal(there(t, id, now_ms), alive);
			if (alive)
				assert_int_equal(look(t, id, now_ms).turns, turns[id]);
		}
		now_ms += (uint64_t)rand_r(&seed) % (TTL / 15);
		if (i % 1000 == 0)
			assert_mirrored(t);
	}
	assert_int_equal(session_evicted(t), 0);
	session_table_free(t);
}

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
		cmocka_unit_test(a_commit_a_touch_and_a_move_are_put_into_the_mirror),
		cmocka_unit_test(what_was_used_there_is_found_with_its_turns_and_its_time),
		cmocka_unit_test(a_pin_found_expired_in_both_goes_from_both),
		cmocka_unit_test(
			a_sweep_keeps_what_was_used_there_and_deletes_the_others_there_too),
		cmocka_unit_test(used_there_but_too_long_ago_does_not_save_a_pin),
		cmocka_unit_test(a_sweep_asks_the_mirror_no_more_often_than_its_budget),
		cmocka_unit_test(at_the_cap_a_pin_used_there_stays_and_an_unused_one_goes),
		cmocka_unit_test(an_insert_has_room_when_all_were_used_there_and_asks_a_few_only),
		cmocka_unit_test(when_all_were_used_there_the_longest_unused_of_those_asked_goes),
		cmocka_unit_test(a_lowered_cap_is_reached_although_all_are_used_there),
		cmocka_unit_test(a_list_shows_what_the_mirror_knows_and_changes_nothing),
		cmocka_unit_test(without_a_mirror_nobody_is_asked),
		cmocka_unit_test(an_adopted_pin_is_as_it_was_and_a_present_one_stays),
		cmocka_unit_test(of_more_pins_than_the_cap_the_latest_used_are_adopted),
		cmocka_unit_test(random_use_on_both_sides_loses_no_live_pin),
		cmocka_unit_test(parallel_first_requests_of_one_session_agree),
		cmocka_unit_test(counts_add_up_after_a_storm_of_everything),
		cmocka_unit_test(work_per_operation_is_bounded_up_to_a_million_pins),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
