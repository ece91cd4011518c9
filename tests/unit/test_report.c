/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The gauge of forced moves, and the figures of the experiment's report. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/pressure.h"
#include "core/report.h"

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
		cmocka_unit_test(pressure_is_a_minute_long),
		cmocka_unit_test(pressure_that_was_acted_on_is_gone_and_new_one_shows),
		cmocka_unit_test(a_report_has_the_figures_of_its_samples),
		cmocka_unit_test(a_report_of_few_turns_is_not_sure_of_anything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
