/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Decisions: thousands of random cases against tests/unit/decide_oracle.py, which was written from
 * the documentation. */
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
#include "decide_case.h"
#include "kvpin_key.h"
#include "oracle.h"

#define ORACLE	     "tests/unit/decide_oracle.py"
#define ORACLE_CASES 8000
#define ORACLE_SEED  20240607

static void assert_close(double is, double should)
{
	/* Two libm calls may differ in the last bit. */
	if (!(fabs(is - should) <= 1e-12 * fabs(should)))
		fail_msg("%a instead of %a", is, should);
}

static void read_key(void)
{
	const char *hex = oracle_word();
	size_t len = strlen(hex) / 2, i;
	__u8 key[512];

	for (i = 0; i < len; i++) {
		unsigned int byte;

		assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
		key[i] = (__u8)byte;
	}
	in.session = kvpin_key_hash(key, len);
	assert_true(in.session == oracle_number());
}

static void read_case(const char *placed)
{
	uint32_t i;

	decide_case_begin(NULL);
	for (i = 0; i < PLACEMENT_NR && strcmp(placement_names[i], placed); i++)
		;
	assert_true(i < PLACEMENT_NR);
	in.placement = i;
	in.keyed = oracle_number();
	read_key();
	in.turn = oracle_number();
	in.excluded = oracle_number();
	in.avoided = oracle_number();
	in.pin = (uint32_t)oracle_number();
	in.nr_views = (uint32_t)oracle_number();
	for (i = 0; i < in.nr_views; i++) {
		struct backend_view *v = &in.view[i];
		const char *name;

		v->id = (uint32_t)oracle_number();
		v->state = (uint32_t)oracle_number();
		v->weight = (uint32_t)oracle_number();
		v->inflight = (uint32_t)oracle_number();
		v->sessions = (uint32_t)oracle_number();
		name = oracle_word();
		v->name = name;
		v->name_hash = XXH64(name, strlen(name), 0);
		assert_true(v->name_hash == oracle_number());
		in.prefix.depth[v->id] = (uint32_t)oracle_number();
		in.prefix.weight[v->id] = strtod(oracle_word(), NULL);
	}
	in.prefix.windows = (uint32_t)oracle_number();
	in.prefix.shared = (uint32_t)oracle_number();
	in.prefix.min_match = strtod(oracle_word(), NULL);
	in.prefix.guard_abs = (uint32_t)oracle_number();
	in.prefix.guard_rel = strtod(oracle_word(), NULL);
}

static void compare_decision(void)
{
	uint32_t i;

	decided();
	assert_int_equal(out.backend, oracle_number());
	assert_int_equal(out.reason, oracle_index(decide_reason_names, DECIDE_REASON_NR));
	assert_int_equal(out.disturbed, oracle_number());
	assert_int_equal(out.nr_candidates, oracle_number());
	for (i = 0; i < out.nr_candidates; i++) {
		assert_int_equal(out.candidate[i].id, oracle_number());
		assert_close(out.candidate[i].sessions_by_weight, strtod(oracle_word(), NULL));
		assert_close(out.candidate[i].inflight_by_weight, strtod(oracle_word(), NULL));
		assert_close(out.candidate[i].rendezvous, strtod(oracle_word(), NULL));
	}
}

static uint32_t reasons_seen[DECIDE_REASON_NR];

static void compare_line(const char *first)
{
	read_case(first);
	compare_decision();
	reasons_seen[out.reason]++;
}

static void thousands_of_random_cases_agree_with_the_oracle(void **state)
{
	char args[32];
	uint32_t i;
	long cases;

	snprintf(args, sizeof(args), "%d %d", ORACLE_SEED, ORACLE_CASES);
	memset(reasons_seen, 0, sizeof(reasons_seen));
	cases = oracle_run("decide_oracle.py", args, compare_line);
	if (cases < 0) {
		print_message("[ SKIP     ] python3-xxhash is not installed\n");
		skip();
	}
	assert_int_equal(cases, ORACLE_CASES);
	/* The guard's reasons are tests/unit/test_guard_oracle.c's. */
	for (i = 0; i < DECIDE_REASON_NR; i++)
		assert_true(reasons_seen[i] >= 50 || i == DECIDE_CONTROL ||
			    i == DECIDE_MOVED_DRAIN || i == DECIDE_MOVED_BUSY ||
			    i == DECIDE_MOVED_GUARD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(thousands_of_random_cases_agree_with_the_oracle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
