/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One number out of a page, whole and byte by byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "ops/start_metric.h"

#define NAME "process_start_time_seconds"

static void found(const char *page, const char *value)
{
	struct start_metric s = {0};

	start_metric_add(&s, NAME, page, strlen(page));
	assert_string_equal(s.value, value);
	s = (struct start_metric){0};
	for (const char *c = page; *c; c++)
		start_metric_add(&s, NAME, c, 1);
	assert_string_equal(s.value, value);
}

static void the_sample_is_found_and_nothing_else_is(void **state)
{
	found("", "");
	found(NAME " 1.76e+09\n", "1.76e+09");
	found("# HELP " NAME " Start.\n# TYPE " NAME " gauge\n" NAME " 17.5\nother 3\n", "17.5");
	found(NAME "{pid=\"1\"} 7 123\r\n", "7");
	found(NAME " 7\r\n", "7");
	found(NAME " 1\n" NAME " 2\n", "1"); /* the first counts */
	found(NAME "_total 3\nx" NAME " 3\n", "");
	found(NAME " 3", ""); /* it was cut, perhaps within the number */
	found(NAME "\n" NAME " \n" NAME "{x 3\n", "");
	found(NAME " 1234567890123456789012345678901234567890\n", "");
}

static void a_long_line_is_passed_over_whole(void **state)
{
	char page[3 * START_LINE_MAX];

	memset(page, 'x', sizeof(page));
	/* What follows in the same line is no line. */
	strcpy(page + 2 * START_LINE_MAX, NAME " 3\n" NAME " 4\n");
	found(page, "4");
	/* Exactly too long, and the longest that counts. */
	memset(page, ' ', sizeof(page));
	memcpy(page, NAME, strlen(NAME));
	strcpy(page + START_LINE_MAX - 1, "3\n");
	found(page, "");
	strcpy(page + START_LINE_MAX - 2, "3\n");
	found(page, "3");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_sample_is_found_and_nothing_else_is),
		cmocka_unit_test(a_long_line_is_passed_over_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
