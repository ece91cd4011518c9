/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The guard: its verdicts by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/decide.h"
#include "decide_case.h"

#define TEST(name) cmocka_unit_test_setup(name, begin)

/* Session 1 is server 0's. */
static int begin(void **state)
{
	decide_case_begin(state);
	decide_case_two_servers();
	in.pin = 0;
	return 0;
}

static void an_owner_with_a_free_slot_is_never_left(void **state)
{
	for (in.guard.busy = 0; in.guard.busy < GUARD_BUSY_NR; in.guard.busy++)
		for (uint32_t inflight = 0; inflight < 8; inflight++) {
			in.view[0].slots = 8;
			in.view[0].inflight = inflight;
			in.guard.abs = 1;
			assert_decided(0, DECIDE_PINNED, GUARD_FREE);
		}
}

static void a_full_owner_is_left_only_where_the_wait_costs_more_than_the_prefill(void **state)
{
	in.view[0].inflight = 1;
	assert_decided(0, DECIDE_PINNED, GUARD_WAIT); /* 4 s of waiting, 5 s of prefill */
	assert_int_equal(out.stay_ms, 4000);
	assert_int_equal(out.go_ms, 5000);
	in.guard.context = 30000;
	assert_decided(1, DECIDE_MOVED_BUSY, GUARD_SPILL); /* 3 s of prefill */
	in.guard.busy = GUARD_PREFER_OWNER;
	assert_decided(1, DECIDE_MOVED_BUSY, GUARD_SPILL);
	in.guard.context = 50000;
	assert_decided(0, DECIDE_PINNED, GUARD_WAIT);
	in.guard.busy = GUARD_STICK;
	assert_decided(0, DECIDE_PINNED, GUARD_OVER);
}

static void what_is_not_known_is_decided_by_the_policy(void **state)
{
	in.view[0].inflight = 1;
	in.view[0].rate = in.view[1].rate = 0;
	assert_decided(1, DECIDE_MOVED_BUSY, GUARD_SPILL);
	in.guard.busy = GUARD_PREFER_OWNER;
	assert_decided(0, DECIDE_PINNED, GUARD_WAIT);
}

static void a_server_never_observed_is_taken_to_be_like_the_others(void **state)
{
	in.view[0].inflight = 1;
	in.view[1].rate = 0;
	in.view[1].exchange_ms = 0;
	assert_decided(0, DECIDE_PINNED, GUARD_WAIT);
	/* In units of 64 bytes a second. */
	assert_in_range(out.go_ms, 5000, 5050);
}

static void a_restarted_owner_has_nothing_to_lose(void **state)
{
	in.view[0].inflight = 1;
	in.guard.cold = true;
	assert_decided(1, DECIDE_MOVED_BUSY, GUARD_SPILL);
	assert_int_equal(out.stay_ms, 9000);
}

static void the_end_of_a_wait_depends_on_the_policy(void **state)
{
	in.view[0].inflight = in.view[1].inflight = 1;
	in.guard.waited = true;
	assert_decided(0, DECIDE_PINNED, GUARD_OVER);
	in.guard.busy = GUARD_PREFER_OWNER;
	assert_decided(0, DECIDE_PINNED, GUARD_REFUSE);
	in.view[1].inflight = 0; /* better there than nowhere */
	assert_decided(1, DECIDE_MOVED_BUSY, GUARD_SPILL);
}

static void a_wait_that_is_late_is_taken_to_last_as_long_again(void **state)
{
	in.view[0].inflight = 1;
	assert_decided(0, DECIDE_PINNED, GUARD_WAIT);
	assert_true(out.stay_ms < out.go_ms);
	in.guard.late_ms = out.go_ms;
	assert_decided(0, DECIDE_PINNED, GUARD_WAIT);
	in.guard.late_ms++;
	assert_decided(1, DECIDE_MOVED_BUSY, GUARD_SPILL);
	assert_int_equal(out.stay_ms, in.guard.late_ms);
	/* Also where nothing was known of the wait, and the owner is preferred. */
	in.view[0].exchange_ms = in.view[1].exchange_ms = 0;
	in.guard.busy = GUARD_PREFER_OWNER;
	assert_decided(1, DECIDE_MOVED_BUSY, GUARD_SPILL);
	in.guard.late_ms = 0;
	assert_decided(0, DECIDE_PINNED, GUARD_WAIT);
}

static void a_full_queue_depends_on_the_policy_too(void **state)
{
	in.view[0].inflight = in.view[1].inflight = 1;
	in.view[0].queued = in.guard.queue;
	assert_decided(0, DECIDE_PINNED, GUARD_OVER);
	in.guard.busy = GUARD_PREFER_OWNER;
	assert_decided(0, DECIDE_PINNED, GUARD_REFUSE);
}

static void a_request_that_has_just_come_waits_a_moment_before_it_moves(void **state)
{
	in.view[0].inflight = 1;
	in.guard.context = 30000;
	in.guard.fresh = true;
	assert_decided(0, DECIDE_PINNED, GUARD_WAIT);
	in.guard.queue = 0;
	assert_decided(1, DECIDE_MOVED_BUSY, GUARD_SPILL);
}

static void those_who_wait_come_before_those_who_arrive(void **state)
{
	in.view[0].queued = 1; /* a slot became free this moment, and is theirs */
	assert_decided(0, DECIDE_PINNED, GUARD_WAIT);
}

static void the_cheapest_moves(void **state)
{
	in.view[0].inflight = 1;
	in.view[0].queued = 1;
	in.view[0].cheapest_ms = 100;
	assert_decided(0, DECIDE_PINNED, GUARD_DISPLACE);
	in.view[0].cheapest_ms = 6000; /* this one is */
	assert_decided(1, DECIDE_MOVED_BUSY, GUARD_SPILL);
	in.guard.context = 200000;
	in.guard.go = true; /* somebody dearer has asked */
	assert_decided(1, DECIDE_MOVED_BUSY, GUARD_SPILL);
}

static void a_new_session_takes_a_free_slot_before_the_placement_is_asked(void **state)
{
	in.pin = NOBODY;
	in.view[0].inflight = 1;
	in.view[1].sessions = 1000;
	assert_decided(1, DECIDE_PLACED, GUARD_FREE);
	in.view[1].inflight = 2; /* all are full: the least crowded */
	assert_decided(0, DECIDE_PLACED, GUARD_WAIT);
	in.guard.busy = GUARD_STICK;
	assert_decided(0, DECIDE_PLACED, GUARD_OVER);
}

static void a_slower_server_is_the_last_choice_of_a_spill(void **state)
{
	in.nr_views = 3;
	in.view[2] = in.view[1];
	in.view[2].id = 2;
	in.view[0].inflight = 1;
	in.guard.context = 30000;
	in.view[1].rate = 9000;
	assert_decided(2, DECIDE_MOVED_BUSY, GUARD_SPILL);
	in.view[1].rate = 11000;
	assert_decided(1, DECIDE_MOVED_BUSY, GUARD_SPILL);
}

static void a_drained_server_keeps_its_sessions_until_they_are_silent(void **state)
{
	in.view[0].draining = true;
	in.view[0].drain_idle_ms = 1000;
	in.guard.idle_ms = 1000;
	assert_decided(0, DECIDE_PINNED, GUARD_FREE);
	in.guard.idle_ms = 1001;
	assert_decided(1, DECIDE_MOVED_DRAIN, GUARD_FREE);
	in.guard.idle_ms = 0;
	in.view[0].drained = true;
	assert_decided(1, DECIDE_MOVED_DRAIN, GUARD_FREE);
	in.pin = NOBODY;
	in.view[0].drained = false;
	in.view[1].sessions = 100;
	assert_decided(1, DECIDE_PLACED, GUARD_FREE);
	in.view[1].state = BACKEND_DOWN;
	assert_decided(NOBODY, DECIDE_NONE, GUARD_NONE);
}

static void thresholds_hold_where_slots_are_not_known(void **state)
{
	in.view[0].slots = in.view[1].slots = 0;
	in.view[0].inflight = 3;
	assert_decided(0, DECIDE_PINNED, GUARD_UNLIMITED);
	in.guard.abs = 2;
	assert_decided(1, DECIDE_MOVED_GUARD, GUARD_THRESHOLD);
	in.view[1].inflight = 1;
	assert_decided(0, DECIDE_PINNED, GUARD_UNLIMITED);
	in.guard.rel_milli = 1500;
	assert_decided(1, DECIDE_MOVED_GUARD, GUARD_THRESHOLD);
	in.guard.rel_milli = 2000;
	assert_decided(0, DECIDE_PINNED, GUARD_UNLIMITED);
}

static void the_control_arm_takes_turns_and_is_a_steady_share_of_sessions(void **state)
{
	uint32_t in_arm = 0, lost = 0;

	in.guard.control = true;
	for (in.turn = 0; in.turn < 6; in.turn++)
		assert_decided(in.turn % 2, DECIDE_CONTROL, GUARD_FREE);
	for (uint64_t s = 0; s < 100000; s++) {
		uint64_t id = s * 0x9e3779b97f4a7c15ULL;
		bool tenth = guard_control(id, 100);

		in_arm += tenth;
		lost += tenth && !guard_control(id, 300);
		assert_false(guard_control(id, 0));
	}
	assert_in_range(in_arm, 9600, 10400);
	assert_int_equal(lost, 0);
}

static void a_mean_reaches_its_samples_from_both_sides(void **state)
{
	uint64_t mean = guard_ewma(0, 1000);

	assert_int_equal(mean, 1000);
	for (int i = 0; i < 100; i++)
		mean = guard_ewma(mean, 10);
	assert_int_equal(mean, 10);
	for (int i = 0; i < 100; i++)
		mean = guard_ewma(mean, 1000);
	assert_int_equal(mean, 1000);
	assert_in_range(guard_ewma(1000, 2000), 1100, 1200);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_owner_with_a_free_slot_is_never_left),
		TEST(a_full_owner_is_left_only_where_the_wait_costs_more_than_the_prefill),
		TEST(what_is_not_known_is_decided_by_the_policy),
		TEST(a_server_never_observed_is_taken_to_be_like_the_others),
		TEST(a_restarted_owner_has_nothing_to_lose),
		TEST(the_end_of_a_wait_depends_on_the_policy),
		TEST(a_wait_that_is_late_is_taken_to_last_as_long_again),
		TEST(a_full_queue_depends_on_the_policy_too),
		TEST(a_request_that_has_just_come_waits_a_moment_before_it_moves),
		TEST(those_who_wait_come_before_those_who_arrive),
		TEST(the_cheapest_moves),
		TEST(a_new_session_takes_a_free_slot_before_the_placement_is_asked),
		TEST(a_slower_server_is_the_last_choice_of_a_spill),
		TEST(a_drained_server_keeps_its_sessions_until_they_are_silent),
		TEST(thresholds_hold_where_slots_are_not_known),
		TEST(the_control_arm_takes_turns_and_is_a_steady_share_of_sessions),
		TEST(a_mean_reaches_its_samples_from_both_sides),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
