/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Decisions: the reasons one by one. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "core/decide.h"
#include "decide_case.h"
#include "kvpin_key.h"

static int begin(void **state)
{
	return decide_case_begin(state);
}

static struct backend_view *view(uint32_t id, uint32_t weight, uint32_t sessions, uint32_t inflight)
{
	struct backend_view *v = &in.view[in.nr_views++];
	char name[16];
	int len = snprintf(name, sizeof(name), "gpu%u", id);

	*v = (struct backend_view){
		.id = id,
		.state = BACKEND_UP,
		.weight = weight,
		.inflight = inflight,
		.sessions = sessions,
		.name_hash = XXH64(name, (size_t)len, 0),
	};
	return v;
}

static void a_live_pin_wins_over_any_load(void **state)
{
	view(0, 1, 0, 0);
	view(1, 1, 1000, 1000);
	in.pin = 1;
	assert_int_equal(decided(), 1);
	assert_int_equal(out.reason, DECIDE_PINNED);
	assert_int_equal(out.nr_candidates, 0);
}

static void each_way_to_lose_a_server_has_its_reason(void **state)
{
	struct backend_view *owner;

	view(0, 1, 5, 5);
	owner = view(1, 1, 0, 0);
	in.pin = 1;
	owner->state = BACKEND_DOWN;
	assert_int_equal(decided(), 0);
	assert_int_equal(out.reason, DECIDE_MOVED_DOWN);
	owner->state = BACKEND_REMOVED;
	assert_int_equal(decided(), 0);
	assert_int_equal(out.reason, DECIDE_MOVED_REMOVED);
	owner->state = BACKEND_UP;
	owner->weight = 0;
	assert_int_equal(decided(), 0);
	assert_int_equal(out.reason, DECIDE_MOVED_REMOVED);
	owner->weight = 1;
	in.excluded = 1 << 1;
	assert_int_equal(decided(), 0);
	assert_int_equal(out.reason, DECIDE_MOVED_FAILED);
	assert_int_equal(out.nr_candidates, 1);
	assert_int_equal(out.candidate[0].id, 0);
	in.excluded = 0;
	in.pin = 9; /* a slot that is free by now */
	decided();
	assert_int_equal(out.reason, DECIDE_MOVED_REMOVED);
}

static void a_server_that_failed_the_request_is_told_apart_from_one_that_is_down(void **state)
{
	view(0, 1, 0, 0);
	view(1, 1, 0, 0)->state = BACKEND_DOWN;
	in.pin = 1;
	in.excluded = 1 << 1;
	decided();
	assert_int_equal(out.reason, DECIDE_MOVED_FAILED);
}

static void nobody_eligible_is_no_server_whatever_the_pin_says(void **state)
{
	uint32_t placement;

	for (placement = 0; placement < PLACEMENT_NR; placement++) {
		begin(NULL);
		in.placement = placement;
		assert_int_equal(decided(), NOBODY);
		assert_int_equal(out.reason, DECIDE_NONE);
		view(0, 0, 0, 0);
		view(1, 1, 0, 0)->state = BACKEND_DOWN;
		view(2, 1, 0, 0)->state = BACKEND_REMOVED;
		view(63, 1, 0, 0);
		in.excluded = 1ULL << 63;
		in.pin = 1;
		assert_int_equal(decided(), NOBODY);
		assert_int_equal(out.reason, DECIDE_NONE);
		assert_int_equal(out.nr_candidates, 0);
		in.keyed = false;
		assert_int_equal(decided(), NOBODY);
		assert_int_equal(out.reason, DECIDE_NONE);
	}
}

static void hash_ignores_the_pin_and_the_load(void **state)
{
	uint32_t chosen;

	in.placement = PLACEMENT_HASH;
	view(0, 1, 0, 0);
	view(1, 1, 0, 0);
	chosen = decided();
	assert_int_equal(out.reason, DECIDE_HASHED);
	in.view[chosen].sessions = in.view[chosen].inflight = 1000000;
	in.pin = !chosen;
	assert_int_equal(decided(), chosen);
	assert_int_equal(out.reason, DECIDE_HASHED);
	assert_int_equal(out.nr_candidates, 2);
	in.view[chosen].state = BACKEND_DOWN;
	assert_int_equal(decided(), !chosen);
	assert_int_equal(out.reason, DECIDE_HASHED);
	assert_int_equal(out.nr_candidates, 1);
}

static void balanced_looks_at_sessions_then_inflight_then_rendezvous(void **state)
{
	uint32_t chosen;

	view(0, 2, 4, 0);
	view(1, 1, 1, 9);
	assert_int_equal(decided(), 1); /* 4/2 against 1/1 */
	assert_int_equal(out.reason, DECIDE_PLACED);
	in.view[0].sessions = 2; /* equal: 0/2 against 9/1 in flight */
	assert_int_equal(decided(), 0);
	in.view[0].inflight = 18;
	chosen = decided();
	assert_int_equal(chosen, out.candidate[0].rendezvous < out.candidate[1].rendezvous);
}

static void least_inflight_looks_at_inflight_then_sessions(void **state)
{
	in.placement = PLACEMENT_LEAST_INFLIGHT;
	view(0, 1, 0, 3);
	view(1, 1, 100, 2);
	assert_int_equal(decided(), 1);
	in.view[0].inflight = 2;
	assert_int_equal(decided(), 0);
}

static void loads_by_weight_are_compared_exactly(void **state)
{
	/* As doubles, both quotients are the same number. */
	view(0, 255, UINT32_MAX, 0);
	view(1, 255, UINT32_MAX - 1, 0);
	assert_int_equal(decided(), 1);
	in.view[1] = in.view[0];
	in.view[1].id = 1;
	in.view[0].weight = 256;
	assert_int_equal(decided(), 0);
	/* The same server twice: even rendezvous is equal, so the lower id. */
	in.view[0].weight = 255;
	assert_int_equal(decided(), 0);
}

static void candidates_show_what_was_compared(void **state)
{
	view(3, 2, 5, 1);
	view(7, 4, 2, 2)->state = BACKEND_DOWN;
	view(9, 4, 2, 2);
	decided();
	assert_int_equal(out.nr_candidates, 2);
	assert_int_equal(out.candidate[0].id, 3);
	assert_int_equal(out.candidate[1].id, 9);
	assert_true(out.candidate[0].sessions_by_weight == 2.5);
	assert_true(out.candidate[1].inflight_by_weight == 0.5);
	assert_true(out.candidate[1].rendezvous ==
		    decide_rendezvous(in.session, in.view[2].name_hash, 4));
}

static void round_robin_visits_by_weight_in_interleaved_rounds(void **state)
{
	static const uint32_t expected[] = {0, 1, 2, 0, 1, 0};
	uint32_t i;

	in.placement = PLACEMENT_ROUND_ROBIN;
	view(0, 3, 99, 99);
	view(1, 2, 0, 0);
	view(2, 1, 0, 0);
	for (in.turn = 0; in.turn < 60; in.turn++)
		assert_int_equal(decided(), expected[in.turn % 6]);
	/* Equal weights alternate, however large. */
	for (i = 0; i < 3; i++)
		in.view[i].weight = 200;
	for (in.turn = 0; in.turn < 60; in.turn++)
		assert_int_equal(decided(), in.turn % 3);
	in.turn = UINT64_MAX;
	assert_int_equal(decided(), UINT64_MAX % 600 % 3);
}

static void round_robin_keeps_pinned_sessions(void **state)
{
	in.placement = PLACEMENT_ROUND_ROBIN;
	view(0, 1, 0, 0);
	view(1, 1, 0, 0);
	in.pin = 1;
	for (in.turn = 0; in.turn < 4; in.turn++)
		assert_int_equal(decided(), 1);
}

static void keyless_requests_take_the_idlest_and_equal_ones_in_turn(void **state)
{
	uint32_t placement;

	for (placement = 0; placement < PLACEMENT_ROUND_ROBIN; placement++) {
		begin(NULL);
		in.keyed = false;
		in.placement = placement;
		in.pin = 2; /* no key: nobody may look at it */
		view(0, 1, 500, 1);
		view(1, 1, 0, 1);
		view(2, 1, 0, 2);
		for (in.turn = 0; in.turn < 10; in.turn++) {
			assert_int_equal(decided(), in.turn % 2);
			assert_int_equal(out.reason, DECIDE_KEYLESS);
			assert_int_equal(out.nr_candidates, 3);
			assert_true(out.candidate[0].rendezvous == 0);
		}
		in.view[2].weight = 4; /* 2/4 is the least */
		assert_int_equal(decided(), 2);
	}
	in.placement = PLACEMENT_ROUND_ROBIN;
	in.view[2].weight = 1;
	for (in.turn = 0; in.turn < 9; in.turn++) {
		assert_int_equal(decided(), in.turn % 3);
		assert_int_equal(out.reason, DECIDE_KEYLESS);
	}
}

static void a_sidecar_avoids_its_parents_server_while_there_is_another(void **state)
{
	view(0, 1, 0, 0);
	view(1, 1, 9, 9);
	in.avoided = 1 << 0;
	assert_int_equal(decided(), 1);
	assert_int_equal(out.reason, DECIDE_PLACED);
	in.pin = 0;
	assert_int_equal(decided(), 1);
	assert_int_equal(out.reason, DECIDE_MOVED_AVOID);
	in.view[1].state = BACKEND_DOWN;
	assert_int_equal(decided(), 0);
	assert_int_equal(out.reason, DECIDE_PINNED);
	in.pin = NOBODY;
	assert_int_equal(decided(), 0);
	assert_int_equal(out.reason, DECIDE_PLACED);
	in.keyed = false;
	assert_int_equal(decided(), 0);
	assert_int_equal(out.reason, DECIDE_KEYLESS);
}

/* Four idle servers, and a request with so many windows and no key. */
static void prefix_begin(uint32_t windows)
{
	static const char *const names[] = {"d", "c", "b", "a"};
	uint32_t i;

	begin(NULL);
	in.keyed = false;
	for (i = 0; i < 4; i++)
		view(i, 1, 0, 0)->name = names[i];
	in.prefix = (struct prefix_match){
		.windows = windows, .min_match = 0.3, .guard_abs = 2, .guard_rel = 1.5};
}

static void a_hot_prefix_goes_to_its_owner_from_the_ratio_on(void **state)
{
	prefix_begin(10);
	in.prefix.depth[1] = 3;
	in.prefix.weight[1] = 1000;
	assert_int_equal(decided(), 1);
	assert_int_equal(out.reason, DECIDE_PREFIX);
	assert_int_equal(out.disturbed, NOBODY);
	in.prefix.depth[1] = 2;
	assert_int_equal(decided(), 3); /* the idlest caches are equal: by name */
	assert_int_equal(out.reason, DECIDE_PREFIX_COLD);
	in.prefix.depth[2] = 7;
	assert_int_equal(decided(), 2);
	in.excluded = 1 << 2; /* the deepest of those that can be had */
	in.prefix.depth[1] = 3;
	assert_int_equal(decided(), 1);
	assert_int_equal(out.reason, DECIDE_PREFIX);
}

static void what_most_sessions_share_does_not_make_a_prefix_hot(void **state)
{
	prefix_begin(34);
	in.prefix.shared = 32;
	in.prefix.depth[1] = 32;
	in.prefix.weight[3] = 1;
	assert_int_equal(decided(), 2);
	assert_int_equal(out.reason, DECIDE_PREFIX_COLD);
	in.prefix.depth[1] = 33;
	assert_int_equal(decided(), 1);
	assert_int_equal(out.reason, DECIDE_PREFIX);
	in.prefix.windows = in.prefix.shared = 33;
	assert_int_equal(decided(), 2);
	assert_int_equal(out.reason, DECIDE_PREFIX_COLD);
}

static void the_guard_moves_a_hot_prefix_to_the_longest_one_near_the_minimum(void **state)
{
	prefix_begin(10);
	in.prefix.depth[0] = 9;
	in.prefix.depth[1] = 5;
	in.view[0].inflight = 1; /* 0 + 2, and 0 * 1.5 + 1 */
	assert_int_equal(decided(), 0);
	assert_int_equal(out.reason, DECIDE_PREFIX);
	in.view[0].inflight = 2;
	assert_int_equal(decided(), 1);
	assert_int_equal(out.reason, DECIDE_PREFIX_GUARDED);
	assert_int_equal(out.disturbed, 0);
	in.prefix.depth[1] = 0;
	assert_int_equal(decided(), 3);
	assert_int_equal(out.reason, DECIDE_PREFIX_GUARDED);
	in.prefix.guard_rel = 0;
	assert_int_equal(decided(), 0);
	in.view[0].inflight = 3;
	assert_int_equal(decided(), 3);
	/* Traffic without anything in common never disturbs anybody. */
	in.prefix.depth[0] = 0;
	assert_int_equal(decided(), 3);
	assert_int_equal(out.reason, DECIDE_PREFIX_COLD);
	assert_int_equal(out.disturbed, NOBODY);
}

static void a_hot_prefix_whose_owner_is_full_goes_elsewhere_and_is_counted(void **state)
{
	uint32_t i;

	prefix_begin(10);
	in.prefix.depth[0] = 9;
	in.prefix.depth[1] = 5;
	for (i = 0; i < 4; i++)
		in.view[i].slots = 1;
	assert_int_equal(decided(), 0);
	assert_int_equal(out.reason, DECIDE_PREFIX);
	in.view[0].inflight = 1;
	assert_int_equal(decided(), 1); /* the longest one among those with a free slot */
	assert_int_equal(out.reason, DECIDE_PREFIX_GUARDED);
	assert_int_equal(out.disturbed, 0);
	in.prefix.depth[1] = 0;
	assert_int_equal(decided(), 3);
	assert_int_equal(out.reason, DECIDE_PREFIX_GUARDED);
	assert_int_equal(out.disturbed, 0);
	in.prefix.depth[0] = 2; /* cold: nobody was disturbed */
	assert_int_equal(decided(), 3);
	assert_int_equal(out.reason, DECIDE_PREFIX_COLD);
	assert_int_equal(out.disturbed, NOBODY);
}

static void a_key_outranks_a_prefix(void **state)
{
	prefix_begin(10);
	in.prefix.depth[1] = 10;
	in.keyed = true;
	in.pin = 2;
	assert_int_equal(decided(), 2);
	in.pin = NOBODY;
	decided();
	assert_int_equal(out.reason, DECIDE_PLACED);
}

static void the_same_input_gives_the_same_decision(void **state)
{
	struct kvpin_decision first;
	struct decide_input copy;
	uint32_t i;

	for (i = 0; i < 8; i++)
		view(i, i % 3, i * 7 % 4, i * 5 % 3);
	memcpy(&copy, &in, sizeof(in));
	for (in.placement = 0; in.placement < PLACEMENT_NR; in.placement++) {
		copy.placement = in.placement;
		memset(&out, 0, sizeof(out));
		decide(&in, &out);
		first = out;
		for (i = 0; i < 100; i++) {
			memset(&out, 0, sizeof(out));
			decide(&in, &out);
			assert_memory_equal(&out, &first, sizeof(out));
		}
		assert_memory_equal(&in, &copy, sizeof(in)); /* and nothing is written to */
	}
}

static void rendezvous_scores_are_finite_and_share_by_weight(void **state)
{
	static const uint32_t weights[] = {1, 2, 5};
	uint32_t won[3] = {0}, i;
	uint64_t id;

	in.placement = PLACEMENT_HASH;
	for (i = 0; i < 3; i++)
		view(i, weights[i], 0, 0);
	for (id = 0; id < 80000; id++) {
		in.session = kvpin_key_hash((const __u8 *)&id, sizeof(id));
		won[decided()]++;
		for (i = 0; i < 3; i++)
			assert_true(isfinite(out.candidate[i].rendezvous) &&
				    out.candidate[i].rendezvous > 0);
	}
	/* Five standard deviations of a binomial share. */
	for (i = 0; i < 3; i++) {
		double p = weights[i] / 8., off = won[i] - 80000 * p;

		assert_true(fabs(off) < 5 * sqrt(80000 * p * (1 - p)));
	}
}

static void reason_names_are_metric_labels(void **state)
{
	uint32_t i;

	assert_string_equal(decide_reason_names[DECIDE_PINNED], "pinned");
	assert_string_equal(decide_reason_names[DECIDE_NONE], "no_server");
	for (i = 0; i < DECIDE_REASON_NR; i++)
		assert_int_equal(strspn(decide_reason_names[i], "abcdefghijklmnopqrstuvwxyz_"),
				 strlen(decide_reason_names[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_live_pin_wins_over_any_load, begin),
		cmocka_unit_test_setup(each_way_to_lose_a_server_has_its_reason, begin),
		cmocka_unit_test_setup(
			a_server_that_failed_the_request_is_told_apart_from_one_that_is_down,
			begin),
		cmocka_unit_test_setup(nobody_eligible_is_no_server_whatever_the_pin_says, begin),
		cmocka_unit_test_setup(hash_ignores_the_pin_and_the_load, begin),
		cmocka_unit_test_setup(balanced_looks_at_sessions_then_inflight_then_rendezvous,
				       begin),
		cmocka_unit_test_setup(least_inflight_looks_at_inflight_then_sessions, begin),
		cmocka_unit_test_setup(loads_by_weight_are_compared_exactly, begin),
		cmocka_unit_test_setup(candidates_show_what_was_compared, begin),
		cmocka_unit_test_setup(round_robin_visits_by_weight_in_interleaved_rounds, begin),
		cmocka_unit_test_setup(round_robin_keeps_pinned_sessions, begin),
		cmocka_unit_test_setup(keyless_requests_take_the_idlest_and_equal_ones_in_turn,
				       begin),
		cmocka_unit_test_setup(a_sidecar_avoids_its_parents_server_while_there_is_another,
				       begin),
		cmocka_unit_test(a_hot_prefix_goes_to_its_owner_from_the_ratio_on),
		cmocka_unit_test(what_most_sessions_share_does_not_make_a_prefix_hot),
		cmocka_unit_test(the_guard_moves_a_hot_prefix_to_the_longest_one_near_the_minimum),
		cmocka_unit_test(a_hot_prefix_whose_owner_is_full_goes_elsewhere_and_is_counted),
		cmocka_unit_test(a_key_outranks_a_prefix),
		cmocka_unit_test_setup(the_same_input_gives_the_same_decision, begin),
		cmocka_unit_test_setup(rendezvous_scores_are_finite_and_share_by_weight, begin),
		cmocka_unit_test(reason_names_are_metric_labels),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
