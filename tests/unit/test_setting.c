/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The settings and their values: there and back, bounds, names nearly right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "ops/suggest.h"
#include "ops/value.h"
#include "setting_case.h"

static void durations_come_back_as_written(void **state)
{
	static const struct {
		const char *text;
		uint64_t ms;
	} cases[] = {
		{"0", 0},	  {"1ms", 1},	   {"999ms", 999},	 {"1s", 1000},
		{"1500ms", 1500}, {"75s", 75000},  {"1m", 60000},	 {"15m", 900000},
		{"90m", 5400000}, {"1h", 3600000}, {"720h", 2592000000},
	};
	char text[VALUE_TEXT_MAX], why[VALUE_WHY_MAX];
	uint64_t ms;
	unsigned int i;

	for (i = 0; i < NR(cases); i++) {
		assert_int_equal(
			value_duration(cases[i].text, 0, UINT64_MAX, &ms, why, sizeof(why)), 0);
		assert_int_equal(ms, cases[i].ms);
		assert_string_equal(value_format_duration(ms, text), cases[i].text);
	}
	assert_int_equal(value_duration("0s", 0, 1, &ms, why, sizeof(why)), 0);
	assert_int_equal(value_duration("60s", 0, 60000, &ms, why, sizeof(why)), 0);
	assert_string_equal(value_format_duration(ms, text), "1m");
}

static void sizes_come_back_as_written(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} cases[] = {
		{"0", 0},	  {"1B", 1},	     {"1000B", 1000},
		{"1KiB", 1024},	  {"32KiB", 32768},  {"3KB", 3000},
		{"1MB", 1000000}, {"1MiB", 1048576}, {"64MiB", 67108864},
	};
	char text[VALUE_TEXT_MAX], why[VALUE_WHY_MAX], again[VALUE_TEXT_MAX];
	uint64_t bytes, same;
	unsigned int i;

	for (i = 0; i < NR(cases); i++) {
		assert_int_equal(value_size(cases[i].text, 0, UINT64_MAX, &bytes, why, sizeof(why)),
				 0);
		assert_int_equal(bytes, cases[i].bytes);
		value_format_size(bytes, text);
		assert_int_equal(value_size(text, 0, UINT64_MAX, &same, why, sizeof(why)), 0);
		assert_int_equal(same, bytes);
		assert_string_equal(value_format_size(same, again), text);
	}
}

static void every_setting_takes_its_example_and_its_own_text(void **state)
{
	char text[SETTING_TEXT_MAX], again[SETTING_TEXT_MAX], plain[64], why[VALUE_WHY_MAX];
	struct config c;
	unsigned int i;

	config_defaults(&c);
	for (i = 0; i < settings_nr; i++) {
		const struct setting *s = &settings[i];

		if (setting_is_list(s))
			continue;
		/* Examples are YAML: some are in quotes. */
		snprintf(plain, sizeof(plain), "%s",
			 s->example[0] == '"' ? s->example + 1 : s->example);
		plain[strcspn(plain, "\"")] = '\0';
		assert_int_equal(setting_set(s, &c, plain, why, sizeof(why)), 0);
		setting_format(s, &c, text);
		assert_int_equal(setting_set(s, &c, text, why, sizeof(why)), 0);
		assert_string_equal(setting_format(s, &c, again), text);
	}
}

static void every_setting_has_a_key_and_a_flag_of_its_own(void **state)
{
	unsigned int i, k;

	for (i = 0; i < settings_nr; i++) {
		assert_non_null(settings[i].help);
		assert_non_null(settings[i].arg);
		for (k = 0; k < i; k++) {
			/* But for the second flag of the list of keys. */
			if (settings[i].kind != SETTING_HEADER)
				assert_string_not_equal(settings[i].key, settings[k].key);
			assert_string_not_equal(settings[i].flag, settings[k].flag);
		}
	}
}

/* The parsers' bounds give better messages; they must not be narrower or wider than the whole's. */
static void bounds_agree_with_config_finish(void **state)
{
	char text[64], why[512], lists[] = "gpu0=127.0.0.1:8081";
	struct config c;
	unsigned int i, k;

	for (i = 0; i < settings_nr; i++) {
		const struct setting *s = &settings[i];

		if (s->kind != SETTING_DURATION && s->kind != SETTING_SIZE &&
		    s->kind != SETTING_COUNT)
			continue;
		for (k = 0; k < 2; k++) {
			uint64_t n = k ? s->max : s->min;

			config_defaults(&c);
			/* Its own rule, timeout <= interval, is not about bounds. */
			c.health.timeout_ms = 1;
			if (!strcmp(s->key, "health.timeout"))
				c.health.interval_ms = 3600000;
			assert_int_equal(
				setting_set(find("listen"), &c, "0.0.0.0:80", why, sizeof(why)), 0);
			assert_int_equal(setting_set(find("backends"), &c, lists, why, sizeof(why)),
					 0);
			snprintf(text, sizeof(text), "%llu%s", (unsigned long long)n,
				 s->kind == SETTING_DURATION ? "ms"
				 : s->kind == SETTING_SIZE   ? "B"
							     : "");
			assert_int_equal(setting_set(s, &c, text, why, sizeof(why)), 0);
			if (config_finish(&c, why, sizeof(why)))
				fail_msg("%s %s: %s", s->key, text, why);
		}
	}
}

static void near_names_are_found_and_far_ones_are_not(void **state)
{
	static const char *const names[] = {"status", "sessions", "backends", "run"};

	assert_string_equal(suggest_nearest("stauts", names, NR(names)), "status");
	assert_string_equal(suggest_nearest("session", names, NR(names)), "sessions");
	assert_string_equal(suggest_nearest("BACKEND", names, NR(names)), "backends");
	assert_string_equal(suggest_nearest("rum", names, NR(names)), "run");
	assert_null(suggest_nearest("xyz", names, NR(names)));
	assert_null(suggest_nearest("", names, NR(names)));
	assert_null(suggest_nearest("a-text-that-is-longer-than-any-name-could-ever-be", names,
				    NR(names)));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(durations_come_back_as_written),
		cmocka_unit_test(sizes_come_back_as_written),
		cmocka_unit_test(every_setting_takes_its_example_and_its_own_text),
		cmocka_unit_test(every_setting_has_a_key_and_a_flag_of_its_own),
		cmocka_unit_test(bounds_agree_with_config_finish),
		cmocka_unit_test(near_names_are_found_and_far_ones_are_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
