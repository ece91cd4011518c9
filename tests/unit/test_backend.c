/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The servers' slots and their states. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>
#include <cmocka.h>

#include "core/backend.h"
#include "core/session.h"

static struct backend_table t;
static struct config c;
static struct session_table *sessions;

static int begin(void **state)
{
	backend_table_init(&t, NULL);
	config_defaults(&c);
	sessions = session_table_new(1000, 1000000, 1);
	return sessions ? 0 : -1;
}

static int end(void **state)
{
	session_table_free(sessions);
	return 0;
}

/* "gpu0" at port 8000 and so on. */
static void want(const char *name, unsigned int port, uint32_t weight)
{
	struct backend_config *b = &c.backend[c.nr_backends++];
	char text[ADDR_TEXT_MAX];
	const char *why;

	memset(b, 0, sizeof(*b));
	snprintf(b->name, sizeof(b->name), "%s", name);
	snprintf(text, sizeof(text), "127.0.0.1:%u", port);
	assert_int_equal(addr_parse(text, &b->addr, &why), 0);
	b->weight = weight;
	b->slots = 2;
}

static void apply(uint64_t now_ms)
{
	assert_int_equal(backend_table_apply(&t, &c, sessions, now_ms), 0);
}

static void pin(uint64_t id, uint32_t backend)
{
	struct session_txn txn;

	session_begin(sessions, id, 0, &txn);
	session_commit(&txn, backend);
}

static void new_servers_take_slots_in_order_and_begin_up(void **state)
{
	struct backend *b;

	want("gpu0", 8000, 1);
	want("gpu1", 8001, 3);
	apply(50);
	assert_int_equal(t.nr, 2);
	b = backend_find(&t, "gpu1");
	assert_ptr_equal(b, &t.slot[1]);
	assert_int_equal(b->id, 1);
	assert_int_equal(b->state, BACKEND_UP);
	assert_int_equal(b->weight, 3);
	assert_int_equal(b->slots, 2);
	assert_int_equal(b->changed_ms, 50);
	assert_int_equal(addr_port(&b->addr), 8001);
	assert_true(b->name_hash == XXH64("gpu1", 4, 0));
	assert_null(backend_find(&t, "gpu2"));
	assert_int_equal(t.checked, 1);
	assert_int_equal(t.fall, 3);
}

static void a_server_that_stays_keeps_slot_state_and_counters(void **state)
{
	struct backend *b;

	want("gpu0", 8000, 1);
	want("gpu1", 8001, 1);
	apply(0);
	b = backend_find(&t, "gpu1");
	b->shared->inflight = 7;
	assert_true(backend_report_failure(&t, b, BACKEND_CAUSE_REFUSED, 10));
	/* Another order, another weight. */
	c.nr_backends = 0;
	want("gpu1", 8001, 5);
	want("gpu0", 8000, 1);
	apply(20);
	assert_ptr_equal(backend_find(&t, "gpu1"), b);
	assert_int_equal(b->state, BACKEND_DOWN);
	assert_int_equal(b->cause, BACKEND_CAUSE_REFUSED);
	assert_int_equal(b->changed_ms, 10);
	assert_int_equal(b->shared->inflight, 7);
	assert_int_equal(b->weight, 5);
	assert_int_equal(t.nr, 2);
}

static void another_address_under_the_same_name_is_another_server(void **state)
{
	struct backend *old;

	want("gpu0", 8000, 1);
	apply(0);
	old = backend_find(&t, "gpu0");
	old->shared->inflight = 1;
	c.nr_backends = 0;
	want("gpu0", 9000, 1);
	apply(5);
	assert_int_equal(old->state, BACKEND_REMOVED);
	assert_int_equal(old->changed_ms, 5);
	assert_ptr_not_equal(backend_find(&t, "gpu0"), old);
	assert_int_equal(addr_port(&backend_find(&t, "gpu0")->addr), 9000);
}

static void a_slot_is_reused_only_when_nothing_refers_to_it(void **state)
{
	struct session_txn txn;

	want("gpu0", 8000, 1);
	apply(0);
	t.slot[0].shared->inflight = 1;
	c.nr_backends = 0;
	want("gpu1", 8001, 1);
	apply(1);
	assert_int_equal(backend_find(&t, "gpu1")->id, 1);
	assert_int_equal(t.slot[0].state, BACKEND_REMOVED);
	assert_int_equal(backend_table_reap(&t, sessions), 0); /* the request in flight */
	pin(77, 0);
	t.slot[0].shared->inflight = 0;
	assert_int_equal(backend_table_reap(&t, sessions), 0); /* the pin */
	session_begin(sessions, 77, 0, &txn);
	session_commit(&txn, 1);
	assert_int_equal(backend_table_reap(&t, sessions), 1);
	assert_int_equal(t.slot[0].state, BACKEND_FREE);
	want("gpu2", 8002, 1);
	apply(2);
	assert_int_equal(backend_find(&t, "gpu2")->id, 0);
	assert_int_equal(t.nr, 2);
}

static void a_reused_slot_remembers_nothing_of_the_server_before(void **state)
{
	struct backend *b = &t.slot[0];

	c.health.path[0] = 0;
	want("old", 8000, 1);
	apply(0);
	backend_report_check(b, false, 2, 3, 1);
	backend_report_failure(&t, b, BACKEND_CAUSE_REFUSED, 2);
	c.nr_backends = 0;
	want("other", 8001, 1);
	apply(3);
	c.nr_backends = 0;
	want("new", 8000, 1);
	apply(4);
	assert_ptr_equal(backend_find(&t, "new"), b);
	assert_int_equal(b->state, BACKEND_UP);
	assert_int_equal(b->cause, BACKEND_CAUSE_NONE);
	assert_int_equal(b->resets, 0);
	assert_int_equal(b->bad, 0);
	assert_int_equal(b->retry_ms, 0);
	assert_false(b->checked);
}

static void a_removed_server_that_is_configured_again_gets_its_sessions_back(void **state)
{
	want("gpu0", 8000, 1);
	want("gpu1", 8001, 1);
	apply(0);
	pin(1, 1);
	c.nr_backends = 1;
	apply(1);
	assert_int_equal(t.slot[1].state, BACKEND_REMOVED);
	assert_null(backend_find(&t, "gpu1"));
	want("gpu1", 8001, 1);
	apply(2);
	assert_int_equal(t.slot[1].state, BACKEND_UP);
	assert_int_equal(session_count(sessions, 1), 1);
}

static void too_many_servers_change_nothing(void **state)
{
	static struct backend_table before;
	char name[16];
	unsigned int i;

	for (i = 0; i < BACKENDS_MAX; i++) {
		snprintf(name, sizeof(name), "gpu%u", i);
		want(name, 8000 + i, 1);
	}
	apply(0);
	t.slot[5].shared->inflight = 1; /* so its slot cannot be had */
	memcpy(&before, &t, sizeof(t));
	c.nr_backends = 0;
	for (i = 0; i < BACKENDS_MAX; i++) {
		snprintf(name, sizeof(name), "gpu%u", i == 5 ? 99 : i);
		want(name, 8000 + i, 9);
	}
	assert_int_equal(backend_table_apply(&t, &c, sessions, 1), -ENOSPC);
	assert_memory_equal(&before, &t, sizeof(t));
	/* Without it the rest is taken, and it goes. */
	memmove(&c.backend[5], &c.backend[6], (BACKENDS_MAX - 6) * sizeof(c.backend[0]));
	c.nr_backends--;
	apply(2);
	assert_int_equal(t.slot[5].state, BACKEND_REMOVED);
}

static void a_refused_connection_takes_a_server_down_at_once_and_is_told_once(void **state)
{
	struct backend *b = &t.slot[0];

	want("gpu0", 8000, 1);
	apply(0);
	assert_true(backend_report_failure(&t, b, BACKEND_CAUSE_REFUSED, 9));
	assert_int_equal(b->state, BACKEND_DOWN);
	assert_int_equal(b->cause, BACKEND_CAUSE_REFUSED);
	assert_int_equal(b->changed_ms, 9);
	assert_false(backend_report_failure(&t, b, BACKEND_CAUSE_REFUSED, 10));
	assert_int_equal(b->changed_ms, 9);
}

static void resets_take_a_server_down_only_when_they_repeat(void **state)
{
	struct backend *b = &t.slot[0];

	want("gpu0", 8000, 1);
	apply(0);
	assert_false(backend_report_failure(&t, b, BACKEND_CAUSE_RESET, 1));
	assert_false(backend_report_failure(&t, b, BACKEND_CAUSE_RESET, 1));
	backend_report_success(b);
	assert_false(backend_report_failure(&t, b, BACKEND_CAUSE_RESET, 2));
	assert_false(backend_report_failure(&t, b, BACKEND_CAUSE_RESET, 2));
	assert_int_equal(b->state, BACKEND_UP);
	assert_true(backend_report_failure(&t, b, BACKEND_CAUSE_RESET, 2));
	assert_int_equal(b->cause, BACKEND_CAUSE_RESET);
}

static void answers_that_the_kernel_carried_are_successes_too(void **state)
{
	struct backend *b = &t.slot[0];

	want("gpu0", 8000, 1);
	apply(0);
	for (uint64_t carried = 0; carried < 9; carried++) {
		backend_report_carried(b, carried);
		assert_false(backend_report_failure(&t, b, BACKEND_CAUSE_RESET, 1));
	}
	backend_report_carried(b, 8);
	assert_false(backend_report_failure(&t, b, BACKEND_CAUSE_RESET, 1));
	backend_report_carried(b, 8);
	assert_true(backend_report_failure(&t, b, BACKEND_CAUSE_RESET, 1));
}

static void the_very_first_check_decides_alone(void **state)
{
	want("gpu0", 8000, 1);
	want("gpu1", 8001, 1);
	apply(0);
	assert_true(backend_report_check(&t.slot[0], false, 2, 3, 1));
	assert_int_equal(t.slot[0].state, BACKEND_DOWN);
	assert_int_equal(t.slot[0].cause, BACKEND_CAUSE_CHECK);
	/* Down by a refused connect before its first check. */
	backend_report_failure(&t, &t.slot[1], BACKEND_CAUSE_REFUSED, 1);
	assert_true(backend_report_check(&t.slot[1], true, 2, 3, 2));
	assert_int_equal(t.slot[1].state, BACKEND_UP);
	assert_int_equal(t.slot[1].cause, BACKEND_CAUSE_NONE);
}

static void rise_and_fall_count_consecutive_checks(void **state)
{
	struct backend *b = &t.slot[0];

	want("gpu0", 8000, 1);
	apply(0);
	assert_false(backend_report_check(b, true, 2, 3, 1));
	assert_false(backend_report_check(b, false, 2, 3, 2));
	assert_false(backend_report_check(b, false, 2, 3, 3));
	assert_false(backend_report_check(b, true, 2, 3, 4)); /* breaks the run */
	assert_false(backend_report_check(b, false, 2, 3, 5));
	assert_false(backend_report_check(b, false, 2, 3, 6));
	assert_true(backend_report_check(b, false, 2, 3, 7));
	assert_false(backend_report_check(b, false, 2, 3, 8));
	assert_false(backend_report_check(b, true, 2, 3, 9));
	assert_false(backend_report_check(b, false, 2, 3, 10));
	assert_false(backend_report_check(b, true, 2, 3, 11));
	assert_true(backend_report_check(b, true, 2, 3, 12));
	assert_int_equal(b->changed_ms, 12);
}

static void good_checks_from_before_a_failure_do_not_bring_a_server_back(void **state)
{
	struct backend *b = &t.slot[0];
	unsigned int i;

	want("gpu0", 8000, 1);
	apply(0);
	for (i = 0; i < 100; i++)
		backend_report_check(b, true, 2, 3, i);
	backend_report_failure(&t, b, BACKEND_CAUSE_REFUSED, 200);
	assert_false(backend_report_check(b, true, 2, 3, 201));
	assert_true(backend_report_check(b, true, 2, 3, 202));
}

static void reports_about_a_removed_server_change_nothing(void **state)
{
	struct backend *b = &t.slot[0];

	want("gpu0", 8000, 1);
	apply(0);
	b->shared->inflight = 1;
	c.nr_backends = 0;
	want("gpu1", 8001, 1);
	apply(1);
	assert_false(backend_report_failure(&t, b, BACKEND_CAUSE_REFUSED, 2));
	assert_false(backend_report_check(b, true, 1, 1, 2));
	assert_false(backend_report_check(b, false, 1, 1, 2));
	t.checked = 0;
	assert_false(backend_revive(&t, b, 2));
	assert_int_equal(b->state, BACKEND_REMOVED);
}

static void with_checks_an_answer_does_not_bring_a_server_back(void **state)
{
	struct backend *b = &t.slot[0];

	want("gpu0", 8000, 1);
	apply(0);
	backend_report_failure(&t, b, BACKEND_CAUSE_REFUSED, 1);
	assert_false(backend_revive(&t, b, 2));
	assert_int_equal(b->state, BACKEND_DOWN);
}

static void without_checks_an_answer_brings_a_server_back(void **state)
{
	struct backend *b = &t.slot[0];

	c.health.path[0] = 0;
	want("gpu0", 8000, 1);
	apply(0);
	assert_int_equal(t.checked, 0);
	assert_true(backend_report_failure(&t, b, BACKEND_CAUSE_REFUSED, 1));
	assert_true(b->retry_ms > 1);
	assert_true(backend_revive(&t, b, 2));
	assert_int_equal(b->state, BACKEND_UP);
	assert_int_equal(b->changed_ms, 2);
	assert_false(backend_revive(&t, b, 3));
}

static void without_checks_each_failed_retry_puts_the_next_one_off(void **state)
{
	struct backend *b = &t.slot[0];
	uint64_t first;

	c.health.interval_ms = 0;
	want("gpu0", 8000, 1);
	apply(0);
	assert_int_equal(t.checked, 0);
	backend_report_failure(&t, b, BACKEND_CAUSE_REFUSED, 1000);
	first = b->retry_ms;
	assert_int_equal(first, 2000);
	assert_false(backend_report_failure(&t, b, BACKEND_CAUSE_REFUSED, first + 1));
	assert_int_equal(b->retry_ms, 2 * first + 1 - 1000);
}

static void checks_that_come_on_again_decide_at_once(void **state)
{
	struct backend *b = &t.slot[0];

	want("gpu0", 8000, 1);
	apply(0);
	backend_report_check(b, true, 2, 3, 1);
	c.health.interval_ms = 0;
	apply(2);
	backend_report_failure(&t, b, BACKEND_CAUSE_REFUSED, 3);
	c.health.interval_ms = 2000;
	apply(4);
	assert_true(backend_report_check(b, true, 2, 3, 5));
	assert_int_equal(b->state, BACKEND_UP);
}

static void whatever_ends_a_server_writes_its_cache_off_and_nothing_else_does(void **state)
{
	uint32_t before[BACKENDS_MAX], now[BACKENDS_MAX];
	struct backend *b = t.slot;
	const char *why;

	want("gpu0", 8000, 1);
	want("gpu1", 8001, 1);
	want("far", 8002, 1);
	assert_int_equal(addr_parse("10.9.9.9:8002", &c.backend[2].addr, &why), 0);
	apply(0);
	backend_generations(&t, before);
	/* A reload that keeps them, an answer, a reset that does not repeat: nothing is lost. */
	apply(1);
	backend_report_success(&b[0]);
	backend_report_failure(&t, &b[1], BACKEND_CAUSE_RESET, 1);
	backend_generations(&t, now);
	assert_memory_equal(now, before, sizeof(now));
	/* Down, and up again: written off once. */
	assert_true(backend_report_failure(&t, &b[0], BACKEND_CAUSE_REFUSED, 2));
	assert_false(backend_report_failure(&t, &b[0], BACKEND_CAUSE_REFUSED, 3));
	assert_true(backend_report_check(&b[0], true, 1, 1, 4));
	backend_generations(&t, now);
	assert_int_equal(now[0], before[0] + 1);
	assert_int_equal(now[1], before[1]);
	/* Removed by a reload. */
	c.nr_backends = 1;
	apply(5);
	backend_generations(&t, now);
	assert_int_equal(now[0], before[0] + 1);
	assert_true(now[1] > before[1]);
	assert_true(now[2] > before[2]);
}

static void a_lost_host_takes_the_caches_of_all_its_servers(void **state)
{
	uint32_t before[BACKENDS_MAX], now[BACKENDS_MAX];
	const char *why;

	want("gpu0", 8000, 1);
	want("gpu1", 8001, 1);
	want("far", 8002, 1);
	assert_int_equal(addr_parse("10.9.9.9:8002", &c.backend[2].addr, &why), 0);
	apply(0);
	backend_generations(&t, before);
	backend_host_lost(&t, &t.slot[1]);
	backend_generations(&t, now);
	assert_int_equal(now[0], before[0] + 1);
	assert_int_equal(now[1], before[1] + 1);
	assert_int_equal(now[2], before[2]);
	assert_int_equal(now[3], before[3]); /* no server */
}

static void what_a_dead_kvpin_left_is_in_flight_until_it_ends(void **state)
{
	struct backend *b = &t.slot[0];

	want("a", 1, 1);
	c.backend[0].slots = 3;
	apply(0);
	assert_true(backend_take(b));
	assert_false(backend_inherit(b, 2));
	assert_int_equal(backend_inflight(b), 3);
	assert_false(backend_take(b));
	assert_false(backend_inherit(b, 2));
	assert_int_equal(backend_inflight(b), 3);
	/* More than there are slots: they were sent there. */
	assert_false(backend_inherit(b, 5));
	assert_int_equal(backend_inflight(b), 6);
	assert_true(backend_inherit(b, 1));
	assert_true(backend_take(b));
	backend_inflight_add(b, -2);
	assert_true(backend_inherit(b, 0));
	assert_int_equal(backend_inflight(b), 0);
}

static void names_cover_every_state_and_cause(void **state)
{
	unsigned int i;

	for (i = 0; i < BACKEND_STATE_NR; i++)
		assert_non_null(backend_state_names[i]);
	for (i = 0; i < BACKEND_CAUSE_NR; i++)
		assert_non_null(backend_cause_names[i]);
}

#define THREADS 4
#define ROUNDS	20000

static _Atomic unsigned int downs, ups;

static void *failing_worker(void *arg)
{
	unsigned int i;

	for (i = 0; i < ROUNDS; i++) {
		enum backend_cause cause = i % 2 ? BACKEND_CAUSE_RESET : BACKEND_CAUSE_REFUSED;

		downs += backend_report_failure(&t, &t.slot[0], cause, i);
		if (i % 7 == 0)
			backend_report_success(&t.slot[0]);
		if (i % 5 == 0)
			ups += backend_revive(&t, &t.slot[0], i);
	}
	return NULL;
}

static void reports_of_many_threads_tell_each_change_exactly_once(void **state)
{
	pthread_t thread[THREADS];
	unsigned int i;

	want("gpu0", 8000, 1);
	c.health.path[0] = 0;
	apply(0);
	downs = ups = 0;
	for (i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, failing_worker, NULL), 0);
	/* This thread is the checker. */
	for (i = 0; i < ROUNDS; i++) {
		bool ok = i % 3, changed = backend_report_check(&t.slot[0], ok, 1, 1, i);

		ups += ok && changed;
		downs += !ok && changed;
	}
	for (i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	assert_true(downs > 0);
	assert_int_equal(downs - ups, t.slot[0].state == BACKEND_DOWN);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(new_servers_take_slots_in_order_and_begin_up),
		TEST(a_server_that_stays_keeps_slot_state_and_counters),
		TEST(another_address_under_the_same_name_is_another_server),
		TEST(a_slot_is_reused_only_when_nothing_refers_to_it),
		TEST(a_reused_slot_remembers_nothing_of_the_server_before),
		TEST(a_removed_server_that_is_configured_again_gets_its_sessions_back),
		TEST(too_many_servers_change_nothing),
		TEST(a_refused_connection_takes_a_server_down_at_once_and_is_told_once),
		TEST(resets_take_a_server_down_only_when_they_repeat),
		TEST(answers_that_the_kernel_carried_are_successes_too),
		TEST(the_very_first_check_decides_alone),
		TEST(rise_and_fall_count_consecutive_checks),
		TEST(good_checks_from_before_a_failure_do_not_bring_a_server_back),
		TEST(reports_about_a_removed_server_change_nothing),
		TEST(with_checks_an_answer_does_not_bring_a_server_back),
		TEST(without_checks_an_answer_brings_a_server_back),
		TEST(without_checks_each_failed_retry_puts_the_next_one_off),
		TEST(checks_that_come_on_again_decide_at_once),
		TEST(whatever_ends_a_server_writes_its_cache_off_and_nothing_else_does),
		TEST(a_lost_host_takes_the_caches_of_all_its_servers),
		TEST(what_a_dead_kvpin_left_is_in_flight_until_it_ends),
		TEST(names_cover_every_state_and_cause),
		TEST(reports_of_many_threads_tell_each_change_exactly_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
