/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* When clients are told that they do not name their sessions, and how often. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/log.h"
#include "ops/key_watch.h"

static struct key_watch w;
static struct key_counts c;
static uint64_t now_ms;

static int begin(void **state)
{
	memset(&w, 0, sizeof(w));
	memset(&c, 0, sizeof(c));
	now_ms = 1;
	log_setup(LOG_ERROR, LOG_LOGFMT);
	return 0;
}

/* So many requests more, of which these. */
static const char *after(uint64_t keyless, uint64_t keyed, uint64_t first)
{
	c.keyless += keyless;
	c.keyed += keyed;
	c.requests += keyless + keyed;
	c.first += first;
	now_ms += 1000;
	key_watch_judge(&w, &c, now_ms);
	return key_watch_text(&w);
}

static void a_majority_without_keys_is_told_and_forgotten_when_it_ends(void **state)
{
	assert_string_equal(after(99, 0, 0), ""); /* too few to say */
	assert_string_not_equal(after(1, 0, 0), "");
	assert_string_not_equal(after(51, 49, 5), "");
	assert_string_equal(after(50, 50, 5), "");
	assert_string_equal(after(0, 1000, 5), "");
}

static void keys_that_never_come_back_are_told(void **state)
{
	assert_string_equal(after(0, 499, 499), "");
	assert_string_equal(after(0, 1, 1), "no session key is ever seen twice");
	assert_string_equal(after(0, 500, 490), ""); /* somebody does come back */
	assert_string_not_equal(after(0, 500, 499), "");
}

static void a_warning_is_repeated_after_ten_minutes_only(void **state)
{
	uint64_t said;

	after(200, 0, 0);
	said = w.said_ms[KEY_ADVICE_KEYLESS];
	assert_int_equal(said, now_ms);
	after(200, 0, 0);
	assert_int_equal(w.said_ms[KEY_ADVICE_KEYLESS], said);
	now_ms += 10 * 60 * 1000;
	after(200, 0, 0);
	assert_int_equal(w.said_ms[KEY_ADVICE_KEYLESS], now_ms);
	assert_int_equal(w.said_ms[KEY_ADVICE_ONCE], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_majority_without_keys_is_told_and_forgotten_when_it_ends,
				       begin),
		cmocka_unit_test_setup(keys_that_never_come_back_are_told, begin),
		cmocka_unit_test_setup(a_warning_is_repeated_after_ten_minutes_only, begin),
	};

	return cmocka_run_group_tests_name("key_watch", tests, NULL, NULL);
}
