/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a server's /props says of its slots; the asking is tests/integ/test_slots.py's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "ops/props.h"

static uint32_t slots_of(const char *body)
{
	return props_parse(body, strlen(body));
}

static void total_slots_is_read_and_nothing_else_is_believed(void **state)
{
	assert_int_equal(slots_of("{\"total_slots\":4,\"model_path\":\"m\"}"), 4);
	assert_int_equal(slots_of("{\"default_generation_settings\":{\"total_slots\":9}}"), 0);
	assert_int_equal(slots_of("{\"total_slots\":0}"), 0);
	assert_int_equal(slots_of("{\"total_slots\":-1}"), 0);
	assert_int_equal(slots_of("{\"total_slots\":1025}"), 0);
	assert_int_equal(slots_of("{\"total_slots\":\"4\"}"), 0);
	assert_int_equal(slots_of("[4]"), 0);
	assert_int_equal(slots_of("{\"total_slots\":4"), 0);
	assert_int_equal(slots_of(""), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(total_slots_is_read_and_nothing_else_is_believed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
