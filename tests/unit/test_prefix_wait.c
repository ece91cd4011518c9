/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A prompt whose owner is full, where requests are to wait for their owner: the wait against the
 * prefill of what is missing elsewhere, by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/decide.h"
#include "decide_case.h"

#define TEST(name) cmocka_unit_test_setup(name, begin)

/* A prompt without a key, 60 of whose 64 windows server 0 holds; its slot is taken. */
static int begin(void **state)
{
	decide_case_begin(state);
	decide_case_two_servers();
	in.keyed = false;
	in.guard.busy = GUARD_PREFER_OWNER;
	in.view[0].inflight = 1;
	in.prefix.windows = 64;
	in.prefix.depth[0] = 60;
	in.prefix.min_match = 0.3;
	in.prefix.guard_abs = 2;
	in.prefix.guard_rel = 1.5;
	return 0;
}

/* Whoever is not served by the owner is told to have disturbed it. */
static void assert_waited(uint32_t backend, enum decide_reason reason, enum guard_verdict guard)
{
	assert_decided(backend, reason, guard);
	assert_int_equal(out.disturbed, reason == DECIDE_PREFIX_GUARDED ? 0 : NOBODY);
}

static void a_prompt_waits_for_its_owner_where_that_is_cheaper(void **state)
{
	assert_waited(0, DECIDE_PREFIX, GUARD_WAIT);
	assert_int_equal(out.stay_ms, 4000 + 312); /* 4 of 64 windows are missing: 3,125 bytes */
	assert_int_equal(out.go_ms, 5000);
	in.guard.context = 40000;
	assert_waited(1, DECIDE_PREFIX_GUARDED, GUARD_SPILL);
	assert_int_equal(out.stay_ms, 4000 + 250);
	assert_int_equal(out.go_ms, 4000);
}

static void what_the_other_holds_makes_going_cheaper(void **state)
{
	in.prefix.depth[1] = 32;
	assert_waited(1, DECIDE_PREFIX_GUARDED, GUARD_SPILL);
	assert_int_equal(out.go_ms, 2500);
	/* What all share is held there too. */
	in.prefix.depth[1] = 0;
	in.prefix.shared = 32;
	assert_waited(1, DECIDE_PREFIX_GUARDED, GUARD_SPILL);
	assert_int_equal(out.go_ms, 2500);
}

static void a_prompt_that_is_held_whole_has_nothing_to_prefill(void **state)
{
	in.prefix.depth[0] = 64;
	assert_waited(0, DECIDE_PREFIX, GUARD_WAIT);
	assert_int_equal(out.stay_ms, 4000);
}

static void a_free_owner_is_not_waited_for(void **state)
{
	in.view[0].inflight = 0;
	assert_waited(0, DECIDE_PREFIX, GUARD_FREE);
}

static void other_policies_go_at_once(void **state)
{
	in.guard.busy = GUARD_PREFER_IDLE;
	assert_waited(1, DECIDE_PREFIX_GUARDED, GUARD_FREE);
}

static void a_cold_prompt_waits_for_nobody_while_there_is_a_free_slot(void **state)
{
	in.prefix.depth[0] = 10; /* of 64: below min_match */
	assert_waited(1, DECIDE_PREFIX_COLD, GUARD_FREE);
}

static void an_owner_outside_of_the_load_guard_is_not_waited_for(void **state)
{
	in.view[0].slots = in.view[0].inflight = 4;
	assert_waited(1, DECIDE_PREFIX_GUARDED, GUARD_FREE);
	in.prefix.guard_abs = 4;
	in.prefix.guard_rel = 0;
	assert_waited(0, DECIDE_PREFIX, GUARD_WAIT);
}

static void a_full_queue_is_no_place_to_wait(void **state)
{
	in.view[0].queued = in.guard.queue;
	assert_waited(1, DECIDE_PREFIX_GUARDED, GUARD_FREE);
}

static void when_all_are_full_the_owner_is_the_one_to_wait_for(void **state)
{
	in.view[1].inflight = 1;
	assert_waited(0, DECIDE_PREFIX, GUARD_WAIT);
	in.view[0].queued = 3; /* the other's queue is shorter, but it would have to prefill */
	assert_waited(0, DECIDE_PREFIX, GUARD_WAIT);
	in.guard.waited = true;
	assert_waited(0, DECIDE_PREFIX, GUARD_REFUSE);
}

static void who_has_waited_goes_where_there_is_room(void **state)
{
	in.guard.waited = true;
	assert_waited(1, DECIDE_PREFIX_GUARDED, GUARD_SPILL);
	in.guard.waited = false;
	in.guard.go = true;
	assert_waited(1, DECIDE_PREFIX_GUARDED, GUARD_SPILL);
}

static void the_cheapest_moves(void **state)
{
	in.guard.context = 40000;
	in.view[0].queued = 1;
	in.view[0].cheapest_ms = 100;
	assert_waited(0, DECIDE_PREFIX, GUARD_DISPLACE);
	in.view[0].cheapest_ms = 4000;
	assert_waited(1, DECIDE_PREFIX_GUARDED, GUARD_SPILL);
}

static void what_is_not_known_is_waited_for(void **state)
{
	in.view[0].rate = in.view[1].rate = 0;
	assert_waited(0, DECIDE_PREFIX, GUARD_WAIT);
	assert_int_equal(out.go_ms, GUARD_UNKNOWN);
}

static void a_session_is_not_concerned(void **state)
{
	in.keyed = true;
	in.pin = 0;
	assert_waited(0, DECIDE_PINNED, GUARD_WAIT);
	assert_int_equal(out.stay_ms, 4000);
	assert_int_equal(out.go_ms, 5000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_prompt_waits_for_its_owner_where_that_is_cheaper),
		TEST(what_the_other_holds_makes_going_cheaper),
		TEST(a_prompt_that_is_held_whole_has_nothing_to_prefill),
		TEST(a_free_owner_is_not_waited_for),
		TEST(other_policies_go_at_once),
		TEST(a_cold_prompt_waits_for_nobody_while_there_is_a_free_slot),
		TEST(an_owner_outside_of_the_load_guard_is_not_waited_for),
		TEST(a_full_queue_is_no_place_to_wait),
		TEST(when_all_are_full_the_owner_is_the_one_to_wait_for),
		TEST(who_has_waited_goes_where_there_is_room),
		TEST(the_cheapest_moves),
		TEST(what_is_not_known_is_waited_for),
		TEST(a_session_is_not_concerned),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
