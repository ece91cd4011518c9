/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Histograms. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/hist.h"

static const struct hist_bounds *const all_bounds[] = {&hist_ttft_bounds, &hist_token_gap_bounds};

static uint64_t total(const struct hist *h)
{
	uint64_t n = 0;
	unsigned int i;

	for (i = 0; i <= HIST_BUCKETS_MAX; i++)
		n += stat_get(&h->bucket[i]);
	return n;
}

static void bounds_ascend_and_agree_with_their_labels(void **state)
{
	unsigned int b, i;

	for (b = 0; b < 2; b++) {
		const struct hist_bounds *bounds = all_bounds[b];

		assert_in_range(bounds->nr, 1, HIST_BUCKETS_MAX);
		for (i = 0; i < bounds->nr; i++) {
			char *end;
			double seconds = strtod(bounds->le_text[i], &end);

			assert_int_equal(*end, 0);
			assert_int_equal((uint64_t)(seconds * 1e6 + 0.5) * 1000, bounds->le_ns[i]);
			if (i)
				assert_true(bounds->le_ns[i] > bounds->le_ns[i - 1]);
		}
	}
	assert_string_equal(hist_ttft_bounds.le_text[0], "0.005");
	assert_string_equal(hist_ttft_bounds.le_text[hist_ttft_bounds.nr - 1], "120");
	assert_string_equal(hist_token_gap_bounds.le_text[0], "0.001");
	assert_string_equal(hist_token_gap_bounds.le_text[hist_token_gap_bounds.nr - 1], "2");
}

static void a_sample_at_a_bound_counts_below_it(void **state)
{
	unsigned int b, i;

	for (b = 0; b < 2; b++) {
		const struct hist_bounds *bounds = all_bounds[b];

		for (i = 0; i < bounds->nr; i++) {
			struct hist h = {0};

			hist_add(&h, bounds, bounds->le_ns[i]);
			assert_int_equal(stat_get(&h.bucket[i]), 1);
			hist_add(&h, bounds, bounds->le_ns[i] + 1);
			assert_int_equal(stat_get(&h.bucket[i + 1]), 1);
			assert_int_equal(total(&h), 2);
			assert_int_equal(stat_get(&h.sum_ns), 2 * bounds->le_ns[i] + 1);
		}
	}
}

static void extremes_land_in_the_first_and_the_infinite_bucket(void **state)
{
	struct hist h = {0};

	hist_add(&h, &hist_ttft_bounds, 0);
	hist_add(&h, &hist_ttft_bounds, UINT64_MAX);
	assert_int_equal(stat_get(&h.bucket[0]), 1);
	assert_int_equal(stat_get(&h.bucket[hist_ttft_bounds.nr]), 1);
}

static void merging_adds_every_bucket_and_the_sum(void **state)
{
	struct hist a = {0}, b = {0}, both = {0}, merged = {0};
	unsigned int i;

	for (i = 0; i < 500; i++) {
		uint64_t ns = (uint64_t)i * i * 1000003;

		hist_add(i % 3 ? &a : &b, &hist_ttft_bounds, ns);
		hist_add(&both, &hist_ttft_bounds, ns);
	}
	hist_merge(&merged, &a);
	hist_merge(&merged, &b);
	assert_memory_equal(&merged, &both, sizeof(both));
}

#define WRITTEN 200000

static void *writer(void *arg)
{
	unsigned int i;

	for (i = 0; i < WRITTEN; i++)
		hist_add(arg, &hist_token_gap_bounds, i);
	return NULL;
}

static void a_reader_beside_the_writer_never_sees_a_count_go_back(void **state)
{
	struct hist h = {0};
	uint64_t seen = 0;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, writer, &h), 0);
	while (seen < WRITTEN) {
		struct hist copy = {0};
		uint64_t n;

		hist_merge(&copy, &h);
		n = total(&copy);
		assert_true(n >= seen);
		seen = n;
	}
	pthread_join(thread, NULL);
	assert_int_equal(total(&h), WRITTEN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bounds_ascend_and_agree_with_their_labels),
		cmocka_unit_test(a_sample_at_a_bound_counts_below_it),
		cmocka_unit_test(extremes_land_in_the_first_and_the_infinite_bucket),
		cmocka_unit_test(merging_adds_every_bucket_and_the_sum),
		cmocka_unit_test(a_reader_beside_the_writer_never_sees_a_count_go_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
