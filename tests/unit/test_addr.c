/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Addresses as text. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/addr.h"

static struct addr parsed(const char *text)
{
	const char *why = NULL;
	struct addr a;

	if (addr_parse(text, &a, &why))
		fail_msg("%s: %s", text, why);
	return a;
}

static void accepted_addresses_print_as_written(void **state)
{
	static const char *const texts[] = {
		"127.0.0.1:8080",      "0.0.0.0:0", "255.255.255.255:65535", "[::1]:8080",
		"[2001:db8::1:2]:443", "[::]:9464", "[::ffff:10.0.0.1]:80",
	};
	char text[ADDR_TEXT_MAX];
	unsigned int i;

	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct addr a = parsed(texts[i]);

		assert_ptr_equal(addr_format(&a, text), text);
		assert_string_equal(text, texts[i]);
	}
}

static void localhost_is_the_ipv4_loopback(void **state)
{
	struct addr a = parsed("localhost:80"), b = parsed("127.0.0.1:80");

	assert_true(addr_equal(&a, &b));
	assert_int_equal(a.len, sizeof(struct sockaddr_in));
}

static void star_is_a_wildcard_that_can_be_bound(void **state)
{
	struct addr a = parsed("*:0");
	int fd = socket(a.sa.sa_family, SOCK_STREAM, 0);

	assert_true(addr_is_any(&a));
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, &a.sa, a.len), 0);
	assert_int_equal(close(fd), 0);
}

static void ambiguous_or_malformed_text_is_refused_with_a_reason(void **state)
{
	static const char *const texts[] = {
		"",
		"8080",
		":8080",
		"127.0.0.1",
		"127.0.0.1:",
		"127.0.0.1:+80",
		"127.0.0.1: 80",
		"127.0.0.1:80 ",
		"127.0.0.1:65536",
		"127.0.0.1:99999999999999999999",
		"127.0.0.1:-1",
		"127.0.0.1:0x50",
		"127.1:80",
		"127.0.0.01:80",
		"1.2.3.4.5:80",
		"256.1.1.1:80",
		"::1:8080",
		"::1",
		"[::1]",
		"[::1]8080",
		"[::1:8080",
		"::1]:8080",
		"[127.0.0.1]:80",
		"[fe80::1%lo]:80",
		"[]:80",
		"[:80",
		"]:80",
		"example.com:80",
		"LOCALHOST:80",
		" 127.0.0.1:80",
		"**:80",
		"127.0.0.1:80:80",
		"[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]:80",
	};
	struct addr before, a;
	unsigned int i;

	memset(&before, 0x5a, sizeof(before));
	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		const char *why = NULL;

		a = before;
		if (addr_parse(texts[i], &a, &why) != -EINVAL)
			fail_msg("\"%s\" was taken", texts[i]);
		assert_non_null(why);
		/* Set on success only. */
		assert_memory_equal(&a, &before, sizeof(a));
	}
}

static void equality_looks_at_family_address_and_port(void **state)
{
	struct addr a = parsed("10.0.0.1:80"), same = parsed("10.0.0.1:80");
	struct addr port = parsed("10.0.0.1:81"), host = parsed("10.0.0.2:80");
	struct addr mapped = parsed("[::ffff:10.0.0.1]:80"), none = {0};

	assert_true(addr_equal(&a, &same));
	assert_false(addr_equal(&a, &port));
	assert_false(addr_equal(&a, &host));
	assert_false(addr_equal(&a, &mapped));
	assert_true(addr_equal(&mapped, &mapped));
	assert_false(addr_equal(&none, &none));
	assert_int_equal(addr_port(&a), 80);
	assert_int_equal(addr_port(&mapped), 80);
	assert_int_equal(addr_port(&none), 0);
}

static void loopback_and_wildcard_are_recognised_in_both_families(void **state)
{
	static const struct {
		const char *text;
		bool loopback, any;
	} rows[] = {
		{"127.0.0.1:1", true, false},
		{"127.9.9.9:1", true, false},
		{"128.0.0.1:1", false, false},
		{"0.0.0.0:1", false, true},
		{"[::1]:1", true, false},
		{"[::]:1", false, true},
		{"[::ffff:127.0.0.1]:1", true, false},
		{"[::ffff:10.0.0.1]:1", false, false},
		{"[2001:db8::1]:1", false, false},
	};
	unsigned int i;

	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct addr a = parsed(rows[i].text);

		assert_int_equal(addr_is_loopback(&a), rows[i].loopback);
		assert_int_equal(addr_is_any(&a), rows[i].any);
	}
}

static void a_mapped_ipv4_address_becomes_what_it_is(void **state)
{
	static const char *const rows[][2] = {
		{"[::ffff:10.0.0.1]:8080", "10.0.0.1:8080"},
		{"10.0.0.1:8080", "10.0.0.1:8080"},
		{"[::1]:8080", "[::1]:8080"},
		{"[64:ff9b::a00:1]:8080", "[64:ff9b::a00:1]:8080"},
	};
	char text[ADDR_TEXT_MAX];

	for (unsigned int i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct addr a = parsed(rows[i][0]), same = parsed(rows[i][1]);

		addr_unmap(&a);
		assert_string_equal(addr_format(&a, text), rows[i][1]);
		assert_true(addr_equal(&a, &same));
		assert_int_equal(a.len, same.len);
	}
}

static void an_unset_address_prints_as_a_dash(void **state)
{
	struct addr none = {0};
	char text[ADDR_TEXT_MAX];

	assert_string_equal(addr_format(&none, text), "-");
	assert_false(addr_is_loopback(&none));
	assert_false(addr_is_any(&none));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepted_addresses_print_as_written),
		cmocka_unit_test(localhost_is_the_ipv4_loopback),
		cmocka_unit_test(star_is_a_wildcard_that_can_be_bound),
		cmocka_unit_test(ambiguous_or_malformed_text_is_refused_with_a_reason),
		cmocka_unit_test(equality_looks_at_family_address_and_port),
		cmocka_unit_test(loopback_and_wildcard_are_recognised_in_both_families),
		cmocka_unit_test(a_mapped_ipv4_address_becomes_what_it_is),
		cmocka_unit_test(an_unset_address_prints_as_a_dash),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
