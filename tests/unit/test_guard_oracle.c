/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The guard: random cases of each function, and of decide() with slots, queues and drains, against
 * tests/unit/guard_oracle.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "core/decide.h"
#include "decide_case.h"
#include "oracle.h"

#define ORACLE_SEED  20261121
#define ORACLE_CASES 4000

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
	assert_int_equal(decided(), oracle_number());
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_cases_agree_with_the_oracle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
