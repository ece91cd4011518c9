/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Sessions that the kernel uses too: what the table asks its mirror for, and what it puts there;
 * and sessions adopted from elsewhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "session_case.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
