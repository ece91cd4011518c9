/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The guard: its verdicts in words, random cases of each function and of decide() with slots,
 * queues and drains against tests/unit/guard_oracle.py, the pressure gauge and the report's
 * figures.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/decide.h"
#include "core/pressure.h"
#include "core/report.h"
#include "oracle.h"

#define ORACLE	     "tests/unit/guard_oracle.py"
#define ORACLE_SEED  20261121
#define ORACLE_CASES 4000
#define NOBODY	     SESSION_NO_BACKEND
#define TEST(name)   cmocka_unit_test_setup(name, begin)

static struct decide_input in;
static struct kvpin_decision out;

/* A session on server 0 of two with one slot each; both known to prefill 10,000 bytes a second and
 * to take 4 s for an exchange. */
static int begin(void **state)
{
	memset(&in, 0, sizeof(in));
	in.keyed = true;
	in.session = 1;
	in.pin = 0;
	in.guard.queue = 4;
	in.guard.context = 50000;
	in.nr_views = 2;
	for (uint32_t i = 0; i < 2; i++)
		in.view[i] = (struct backend_view){
			.id = i,
			.state = BACKEND_UP,
			.weight = 1,
			.slots = 1,
			.rate = 10000,
			.exchange_ms = 4000,
			.cheapest_ms = GUARD_UNKNOWN,
			.name_hash = 7 + i,
		};
	return 0;
}

static void decided(uint32_t backend, enum decide_reason reason, enum guard_verdict guard)
{
	memset(&out, 0xa5, sizeof(out));
	decide(&in, &out);
	assert_string_equal(guard_verdict_names[out.guard], guard_verdict_names[guard]);
	assert_string_equal(decide_reason_names[out.reason], decide_reason_names[reason]);
	assert_int_equal(out.backend, backend);
}

static void an_owner_with_a_free_slot_is_never_left(void **state)
{
	for (in.guard.busy = 0; in.guard.busy < GUARD_BUSY_NR; in.guard.busy++)
		for (uint32_t inflight = 0; inflight < 8; inflight++) {
			in.view[0].slots = 8;
			in.view[0].inflight = inflight;
			in.guard.abs = 1;
			decided(0, DECIDE_PINNED, GUARD_FREE);
		}
}

static void a_full_owner_is_left_only_where_the_wait_costs_more_than_the_prefill(void **state)
{
	in.view[0].inflight = 1;
	decided(0, DECIDE_PINNED, GUARD_WAIT); /* 4 s of waiting, 5 s of prefill */
	assert_int_equal(out.stay_ms, 4000);
	assert_int_equal(out.go_ms, 5000);
	in.guard.context = 30000;
	decided(1, DECIDE_MOVED_BUSY, GUARD_SPILL); /* 3 s of prefill */
	in.guard.busy = GUARD_PREFER_OWNER;
	decided(1, DECIDE_MOVED_BUSY, GUARD_SPILL);
	in.guard.context = 50000;
	decided(0, DECIDE_PINNED, GUARD_WAIT);
	in.guard.busy = GUARD_STICK;
	decided(0, DECIDE_PINNED, GUARD_OVER);
}

static void what_is_not_known_is_decided_by_the_policy(void **state)
{
	in.view[0].inflight = 1;
	in.view[0].rate = in.view[1].rate = 0;
	decided(1, DECIDE_MOVED_BUSY, GUARD_SPILL);
	in.guard.busy = GUARD_PREFER_OWNER;
	decided(0, DECIDE_PINNED, GUARD_WAIT);
}

static void a_server_never_observed_is_taken_to_be_like_the_others(void **state)
{
	in.view[0].inflight = 1;
	in.view[1].rate = 0;
	in.view[1].exchange_ms = 0;
	decided(0, DECIDE_PINNED, GUARD_WAIT);
	/* In units of 64 bytes a second. */
	assert_in_range(out.go_ms, 5000, 5050);
}

static void a_restarted_owner_has_nothing_to_lose(void **state)
{
	in.view[0].inflight = 1;
	in.guard.cold = true;
	decided(1, DECIDE_MOVED_BUSY, GUARD_SPILL);
	assert_int_equal(out.stay_ms, 9000);
}

static void the_end_of_a_wait_depends_on_the_policy(void **state)
{
	in.view[0].inflight = in.view[1].inflight = 1;
	in.guard.waited = true;
	decided(0, DECIDE_PINNED, GUARD_OVER);
	in.guard.busy = GUARD_PREFER_OWNER;
	decided(0, DECIDE_PINNED, GUARD_REFUSE);
	in.view[1].inflight = 0; /* better there than nowhere */
	decided(1, DECIDE_MOVED_BUSY, GUARD_SPILL);
}

static void a_wait_that_is_late_is_taken_to_last_as_long_again(void **state)
{
	in.view[0].inflight = 1;
	decided(0, DECIDE_PINNED, GUARD_WAIT);
	assert_true(out.stay_ms < out.go_ms);
	in.guard.late_ms = out.go_ms;
	decided(0, DECIDE_PINNED, GUARD_WAIT);
	in.guard.late_ms++;
	decided(1, DECIDE_MOVED_BUSY, GUARD_SPILL);
	assert_int_equal(out.stay_ms, in.guard.late_ms);
	/* Also where nothing was known of the wait, and the owner is preferred. */
	in.view[0].exchange_ms = in.view[1].exchange_ms = 0;
	in.guard.busy = GUARD_PREFER_OWNER;
	decided(1, DECIDE_MOVED_BUSY, GUARD_SPILL);
	in.guard.late_ms = 0;
	decided(0, DECIDE_PINNED, GUARD_WAIT);
}

static void a_full_queue_depends_on_the_policy_too(void **state)
{
	in.view[0].inflight = in.view[1].inflight = 1;
	in.view[0].queued = in.guard.queue;
	decided(0, DECIDE_PINNED, GUARD_OVER);
	in.guard.busy = GUARD_PREFER_OWNER;
	decided(0, DECIDE_PINNED, GUARD_REFUSE);
}

static void a_request_that_has_just_come_waits_a_moment_before_it_moves(void **state)
{
	in.view[0].inflight = 1;
	in.guard.context = 30000;
	in.guard.fresh = true;
	decided(0, DECIDE_PINNED, GUARD_WAIT);
	in.guard.queue = 0;
	decided(1, DECIDE_MOVED_BUSY, GUARD_SPILL);
}

static void those_who_wait_come_before_those_who_arrive(void **state)
{
	in.view[0].queued = 1; /* a slot became free this moment, and is theirs */
	decided(0, DECIDE_PINNED, GUARD_WAIT);
}

static void the_cheapest_moves(void **state)
{
	in.view[0].inflight = 1;
	in.view[0].queued = 1;
	in.view[0].cheapest_ms = 100;
	decided(0, DECIDE_PINNED, GUARD_DISPLACE);
	in.view[0].cheapest_ms = 6000; /* this one is */
	decided(1, DECIDE_MOVED_BUSY, GUARD_SPILL);
	in.guard.context = 200000;
	in.guard.go = true; /* somebody dearer has asked */
	decided(1, DECIDE_MOVED_BUSY, GUARD_SPILL);
}

static void a_new_session_takes_a_free_slot_before_the_placement_is_asked(void **state)
{
	in.pin = NOBODY;
	in.view[0].inflight = 1;
	in.view[1].sessions = 1000;
	decided(1, DECIDE_PLACED, GUARD_FREE);
	in.view[1].inflight = 2; /* all are full: the least crowded */
	decided(0, DECIDE_PLACED, GUARD_WAIT);
	in.guard.busy = GUARD_STICK;
	decided(0, DECIDE_PLACED, GUARD_OVER);
}

static void a_slower_server_is_the_last_choice_of_a_spill(void **state)
{
	in.nr_views = 3;
	in.view[2] = in.view[1];
	in.view[2].id = 2;
	in.view[0].inflight = 1;
	in.guard.context = 30000;
	in.view[1].rate = 9000;
	decided(2, DECIDE_MOVED_BUSY, GUARD_SPILL);
	in.view[1].rate = 11000;
	decided(1, DECIDE_MOVED_BUSY, GUARD_SPILL);
}

static void a_drained_server_keeps_its_sessions_until_they_are_silent(void **state)
{
	in.view[0].draining = true;
	in.view[0].drain_idle_ms = 1000;
	in.guard.idle_ms = 1000;
	decided(0, DECIDE_PINNED, GUARD_FREE);
	in.guard.idle_ms = 1001;
	decided(1, DECIDE_MOVED_DRAIN, GUARD_FREE);
	in.guard.idle_ms = 0;
	in.view[0].drained = true;
	decided(1, DECIDE_MOVED_DRAIN, GUARD_FREE);
	in.pin = NOBODY;
	in.view[0].drained = false;
	in.view[1].sessions = 100;
	decided(1, DECIDE_PLACED, GUARD_FREE);
	in.view[1].state = BACKEND_DOWN;
	decided(NOBODY, DECIDE_NONE, GUARD_NONE);
}

static void thresholds_hold_where_slots_are_not_known(void **state)
{
	in.view[0].slots = in.view[1].slots = 0;
	in.view[0].inflight = 3;
	decided(0, DECIDE_PINNED, GUARD_UNLIMITED);
	in.guard.abs = 2;
	decided(1, DECIDE_MOVED_GUARD, GUARD_THRESHOLD);
	in.view[1].inflight = 1;
	decided(0, DECIDE_PINNED, GUARD_UNLIMITED);
	in.guard.rel_milli = 1500;
	decided(1, DECIDE_MOVED_GUARD, GUARD_THRESHOLD);
	in.guard.rel_milli = 2000;
	decided(0, DECIDE_PINNED, GUARD_UNLIMITED);
}

static void the_control_arm_takes_turns_and_is_a_steady_share_of_sessions(void **state)
{
	uint32_t in_arm = 0, lost = 0;

	in.guard.control = true;
	for (in.turn = 0; in.turn < 6; in.turn++)
		decided(in.turn % 2, DECIDE_CONTROL, GUARD_FREE);
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

/* ---- the oracle ---- */

static void compare_wait(void)
{
	uint32_t a[4];

	for (int i = 0; i < 4; i++)
		a[i] = (uint32_t)oracle_number();
	assert_int_equal(guard_wait_ms(a[0], a[1], a[2], a[3]), oracle_number());
}

static void compare_cold(void)
{
	uint64_t bytes = oracle_number(), rate = oracle_number();

	assert_int_equal(guard_cold_ms(bytes, rate), oracle_number());
}

static void compare_rate(void)
{
	uint64_t bytes = oracle_number(), ns = oracle_number();

	assert_int_equal(guard_rate_sample(bytes, ns), oracle_number());
}

static uint32_t turns_seen[GUARD_TURN_NR], verdicts_seen[GUARD_VERDICT_NR],
	decisions_seen[GUARD_VERDICT_NR], reasons_seen[DECIDE_REASON_NR];

static void compare_turn(void)
{
	uint64_t a[5], again;
	enum guard_turn turn;

	for (int i = 0; i < 5; i++)
		a[i] = oracle_number();
	turn = guard_classify(a[0], a[1], a[2], a[3], a[4], &again);
	assert_string_equal(guard_turn_names[turn], oracle_word());
	assert_int_equal(again, oracle_number());
	turns_seen[turn]++;
}

static void compare_over(void)
{
	uint32_t a[4];

	for (int i = 0; i < 4; i++)
		a[i] = (uint32_t)oracle_number();
	assert_int_equal(guard_over_threshold(a[0], a[1], a[2], a[3]), oracle_number());
}

static void compare_arm(void)
{
	uint64_t session = oracle_number(), milli = oracle_number();

	assert_int_equal(guard_control(session, (uint32_t)milli), oracle_number());
}

static void compare_full(void)
{
	struct guard_full f = {.busy = oracle_index(guard_busy_names, GUARD_BUSY_NR)};
	enum guard_verdict verdict;

	f.elsewhere = oracle_number();
	f.stay_ms = (uint32_t)oracle_number();
	f.go_ms = (uint32_t)oracle_number();
	f.cheapest_ms = (uint32_t)oracle_number();
	f.room = oracle_number();
	f.fresh = oracle_number();
	f.waited = oracle_number();
	f.go = oracle_number();
	verdict = guard_full(&f);
	assert_string_equal(guard_verdict_names[verdict], oracle_word());
	verdicts_seen[verdict]++;
}

static void read_view(struct backend_view *v)
{
	*v = (struct backend_view){.id = (uint32_t)oracle_number()};
	v->state = (uint32_t)oracle_number();
	v->weight = (uint32_t)oracle_number();
	v->inflight = (uint32_t)oracle_number();
	v->sessions = (uint32_t)oracle_number();
	v->name_hash = oracle_number();
	v->slots = (uint32_t)oracle_number();
	v->queued = (uint32_t)oracle_number();
	v->cheapest_ms = (uint32_t)oracle_number();
	v->exchange_ms = (uint32_t)oracle_number();
	v->rate = oracle_number();
	v->drain_idle_ms = (uint32_t)oracle_number();
	v->draining = oracle_number();
	v->drained = oracle_number();
}

static void compare_decide(void)
{
	in = (struct decide_input){.placement = oracle_index(placement_names, PLACEMENT_NR)};
	in.keyed = oracle_number();
	in.session = oracle_number();
	in.turn = oracle_number();
	in.excluded = oracle_number();
	in.pin = (uint32_t)oracle_number();
	in.guard.busy = oracle_index(guard_busy_names, GUARD_BUSY_NR);
	in.guard.queue = (uint32_t)oracle_number();
	in.guard.abs = (uint32_t)oracle_number();
	in.guard.rel_milli = (uint32_t)oracle_number();
	in.guard.context = oracle_number();
	in.guard.cold = oracle_number();
	in.guard.idle_ms = (uint32_t)oracle_number();
	in.guard.fresh = oracle_number();
	in.guard.waited = oracle_number();
	in.guard.go = oracle_number();
	in.guard.late_ms = (uint32_t)oracle_number();
	in.guard.control = oracle_number();
	in.nr_views = (uint32_t)oracle_number();
	for (uint32_t i = 0; i < in.nr_views; i++)
		read_view(&in.view[i]);
	memset(&out, 0xa5, sizeof(out));
	decide(&in, &out);
	assert_int_equal(out.backend, oracle_number());
	assert_string_equal(decide_reason_names[out.reason], oracle_word());
	assert_string_equal(guard_verdict_names[out.guard], oracle_word());
	assert_int_equal(out.stay_ms, oracle_number());
	assert_int_equal(out.go_ms, oracle_number());
	decisions_seen[out.guard]++;
	reasons_seen[out.reason]++;
}

static const struct {
	const char *name;
	void (*compare)(void);
} kinds[] = {
	{"wait", compare_wait}, {"cold", compare_cold},	    {"rate", compare_rate},
	{"turn", compare_turn}, {"over", compare_over},	    {"arm", compare_arm},
	{"full", compare_full}, {"decide", compare_decide},
};

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static void compare_line(const char *kind)
{
	for (size_t i = 0; i < KINDS; i++)
		if (!strcmp(kind, kinds[i].name)) {
			kinds[i].compare();
			return;
		}
	fail_msg("the oracle says %s", kind);
}

static void random_cases_agree_with_the_oracle(void **state)
{
	char args[32];
	long lines;

	snprintf(args, sizeof(args), "%d %d", ORACLE_SEED, ORACLE_CASES);
	lines = oracle_run("guard_oracle.py", args, compare_line);
	if (lines < 0) {
		print_message("[ SKIP     ] python3-xxhash is not installed\n");
		skip();
	}
	assert_int_equal(lines, ORACLE_CASES * KINDS);
	for (int i = 0; i < GUARD_TURN_NR; i++)
		assert_true(turns_seen[i] >= 50);
	for (int i = GUARD_SPILL; i <= GUARD_REFUSE; i++)
		assert_true(verdicts_seen[i] >= 30);
	for (int i = 0; i < GUARD_VERDICT_NR; i++)
		assert_true(decisions_seen[i] >= 4);
	assert_true(reasons_seen[DECIDE_MOVED_DRAIN] >= 50 &&
		    reasons_seen[DECIDE_MOVED_BUSY] >= 50 &&
		    reasons_seen[DECIDE_MOVED_GUARD] >= 5 && reasons_seen[DECIDE_CONTROL] >= 50);
}

/* ---- pressure, report ---- */

static void pressure_is_a_minute_long(void **state)
{
	struct pressure p;
	uint64_t total;

	pressure_init(&p);
	assert_int_equal(pressure_get(&p, 1000000, &total), 0);
	pressure_add(&p, 1000000);
	pressure_add(&p, 1000999);
	pressure_add(&p, 1030000);
	assert_int_equal(pressure_get(&p, 1030000, &total), 3);
	assert_int_equal(pressure_get(&p, 1059999, &total), 3);
	assert_int_equal(pressure_get(&p, 1060000, &total), 1);
	assert_int_equal(pressure_get(&p, 1090000, &total), 0);
	assert_int_equal(total, 3);
	/* The same bucket, minutes later. */
	pressure_add(&p, 1000000 + 600000);
	assert_int_equal(pressure_get(&p, 1600000, &total), 1);
	pressure_fini(&p);
}

static void pressure_that_was_acted_on_is_gone_and_new_one_shows(void **state)
{
	struct pressure p;
	uint64_t total;

	pressure_init(&p);
	pressure_add(&p, 5000);
	pressure_add(&p, 6000);
	assert_int_equal(pressure_ack(&p, 6000), 2);
	assert_int_equal(pressure_get(&p, 6000, NULL), 0);
	pressure_add(&p, 6000);
	assert_int_equal(pressure_get(&p, 7000, &total), 1);
	assert_int_equal(total, 3);
	pressure_fini(&p);
}

static void count_add(struct report_count *c, double ms)
{
	c->turns++;
	c->sum_ms += ms;
	c->sum_sq_ms += ms * ms;
	c->bucket[report_bucket(ms)]++;
}

static void a_report_has_the_figures_of_its_samples(void **state)
{
	struct report_count a = {0}, b = {0};
	struct report_figures f;
	struct report_gain g;

	for (int i = 1; i <= 1000; i++) {
		count_add(&a, i);
		count_add(&b, 2 * i);
	}
	f = report_figures(&a);
	assert_true(fabs(f.mean_ms - 500.5) < 1e-6);
	assert_true(fabs(f.p50_ms - 500) < 50);
	assert_true(fabs(f.p90_ms - 900) < 90);
	g = report_gain(&a, &b);
	assert_true(g.known);
	assert_true(fabs(g.ms - 500.5) < 1e-6);
	/* The means' variances are 1000 * 1001 / 12 / 1000 and four times that: by hand. */
	assert_true(fabs((g.high_ms - g.low_ms) / 2 - 1.959964 * sqrt(5 * 83.4166667)) < 1e-3);
	assert_true(fabs((g.high_ms + g.low_ms) / 2 - g.ms) < 1e-6);
}

static void a_report_of_few_turns_is_not_sure_of_anything(void **state)
{
	struct report_count a = {0}, b = {0};

	assert_false(report_gain(&a, &b).known);
	assert_true(report_figures(&a).p90_ms == 0);
	for (int i = 0; i < REPORT_TURNS_MIN; i++) {
		count_add(&a, 1 + i);
		if (i)
			count_add(&b, 100 + i);
	}
	assert_false(report_gain(&a, &b).known);
	count_add(&b, 100);
	assert_true(report_gain(&a, &b).known);
	/* The edges of the scale. */
	assert_int_equal(report_bucket(0), 0);
	assert_int_equal(report_bucket(1e12), REPORT_BUCKETS - 1);
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
		TEST(random_cases_agree_with_the_oracle),
		TEST(pressure_is_a_minute_long),
		TEST(pressure_that_was_acted_on_is_gone_and_new_one_shows),
		TEST(a_report_has_the_figures_of_its_samples),
		TEST(a_report_of_few_turns_is_not_sure_of_anything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
