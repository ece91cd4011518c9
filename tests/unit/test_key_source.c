/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Keys out of heads: cookies, query parameters, addresses, the order of sources. Every text stands
 * against unreadable memory. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "core/config.h"
#include "core/config_keys.h"
#include "core/key.h"
#include "guarded.h"
#include "kvpin_key.h"

static struct guarded memory;

static uint64_t id_of(const char *key, size_t len)
{
	return kvpin_key_hash((const __u8 *)key, len);
}

static void a_text_in_pieces_is_the_key_hashed_whole(void **state)
{
	char text[1000];
	struct key_text t;
	size_t len, step, at;
	uint64_t id;

	for (at = 0; at < sizeof(text); at++)
		text[at] = (char)(at * 7 % 251 + 1);
	for (len = 1; len < sizeof(text); len += len < 300 ? 1 : 97) {
		for (step = 1; step < 400; step = step * 3 + 1) {
			key_text_begin(&t);
			for (at = 0; at < len; at += step)
				key_text_add(&t, text + at, len - at < step ? len - at : step);
			assert_true(key_text_end(&t, &id));
			assert_true(id == id_of(text, len));
		}
	}
	key_text_begin(&t);
	assert_false(key_text_end(&t, &id));
	key_text_add(&t, "a\0b", 3);
	assert_false(key_text_end(&t, &id));
}

static struct key_found found;

static bool cookie(const char *fields)
{
	char head[1024];
	size_t len = (size_t)snprintf(head, sizeof(head), "GET / HTTP/1.1\r\n%s\r\n", fields);

	return key_of_cookie(guarded_rear(&memory, (uint8_t *)head, len), len, "sid", &found);
}

static void assert_cookie(const char *fields, const char *key, bool repeated)
{
	assert_int_equal(cookie(fields), key != NULL);
	if (key)
		assert_true(found.id == id_of(key, strlen(key)));
	assert_int_equal(found.repeated, repeated);
}

static void cookies_are_found_among_others(void **state)
{
	assert_cookie("Cookie: sid=abc\r\n", "abc", false);
	assert_cookie("cOOKIE:sid=abc\r\n", "abc", false);
	assert_cookie("Cookie: a=b; sid=abc; c=d\r\n", "abc", false);
	assert_cookie("Cookie: a=b;sid=abc;c\r\n", "abc", false);
	assert_cookie("Cookie: sid=\"a b\"\t\r\n", "a b", false);
	assert_cookie("Cookie: sid=a=b==\r\n", "a=b==", false);
	assert_cookie("Cookie: sid=\"\r\n", "\"", false);
	assert_cookie("X: y\r\nCookie: a=b\r\nCookie: sid=abc\r\n", "abc", false);
	assert_cookie("Cookie: sid=; sid=abc\r\n", "abc", false); /* an empty one is none */
	assert_cookie("Cookie: sid=a; sid=b\r\n", "a", true);
	assert_cookie("Cookie: sid=a\r\nCookie: sid=a\r\n", "a", true);
}

static void what_only_looks_like_the_cookie_is_none(void **state)
{
	assert_cookie("", NULL, false);
	assert_cookie("Cookie:\r\n", NULL, false);
	assert_cookie("Cookie: sid\r\n", NULL, false);
	assert_cookie("Cookie: sid=\r\n", NULL, false);
	assert_cookie("Cookie: sid=\"\"\r\n", NULL, false);
	assert_cookie("Cookie: SID=abc; xsid=abc; sid2=abc; ;;\r\n", NULL, false);
	assert_cookie("Cookie2: sid=abc\r\nX-Cookie: sid=abc\r\n", NULL, false);
	assert_cookie("X: Cookie: sid=abc\r\n", NULL, false);
}

static void assert_query(const char *target, const char *name, const char *key, bool repeated)
{
	size_t len = strlen(target);

	assert_int_equal(key_of_query(guarded_rear(&memory, (const uint8_t *)target, len), len,
				      name, &found),
			 key != NULL);
	if (key)
		assert_true(found.id == id_of(key, strlen(key)));
	assert_int_equal(found.repeated, repeated);
}

static void parameters_are_found_and_resolved(void **state)
{
	assert_query("/x?id=abc", "id", "abc", false);
	assert_query("/x?a=b&id=abc&c", "id", "abc", false);
	assert_query("/x?%69%64=a%2Fb+c%26", "id", "a/b c&", false);
	assert_query("/x?id=100%", "id", "100%", false);
	assert_query("/x?id=%4", "id", "%4", false);
	assert_query("/x?id=%zz%41", "id", "%zzA", false);
	assert_query("/x?id=%c3%bc", "id", "\u00fc", false);
	assert_query("http://h/x?id=abc?d=e", "id", "abc?d=e", false);
	assert_query("/x?id=&id=b", "id", "b", false);
	assert_query("/x?id=a&id=b", "id", "a", true);
	assert_query("/?a+b=c", "a b", "c", false);
}

static void what_only_looks_like_the_parameter_is_none(void **state)
{
	assert_query("/id=abc", "id", NULL, false);
	assert_query("/x?", "id", NULL, false);
	assert_query("/x?id", "id", NULL, false);
	assert_query("/x?id=", "id", NULL, false);
	assert_query("/x?ID=a&xid=a&id2=a&i=a&&=a", "id", NULL, false);
	assert_query("/x?id=a%00b", "id", NULL, false);
}

static struct addr addr(const char *text)
{
	const char *why;
	struct addr a;

	assert_int_equal(addr_parse(text, &a, &why), 0);
	return a;
}

static void an_address_is_one_client_whatever_the_port_and_never_a_text(void **state)
{
	struct addr a = addr("10.1.2.3:1"), b = addr("10.1.2.3:2"), c = addr("10.1.2.4:1");
	struct addr mapped = addr("[::ffff:10.1.2.3]:9"), d = addr("[2001:db8::1]:1");

	assert_true(key_of_addr(&a) == key_of_addr(&b));
	assert_true(key_of_addr(&a) == key_of_addr(&mapped));
	assert_true(key_of_addr(&a) != key_of_addr(&c));
	assert_true(key_of_addr(&a) != key_of_addr(&d));
	assert_true(key_of_addr(&a) != id_of("10.1.2.3", 8));
	assert_true(key_of_addr(&a) != id_of((const char *)&a.in4.sin_addr, 4));
}

/* ---- the order ---- */

static struct config config;

static void source(enum key_kind kind, const char *name)
{
	struct key_source *s = &config.key[config.nr_keys++];

	*s = (struct key_source){.kind = kind};
	strcpy(s->name, name);
}

static void finish(void)
{
	char why[256];

	if (config_keys_finish(&config, why, sizeof(why)))
		fail_msg("%s", why);
}

/* Which source does this head satisfy? */
static uint32_t first_of(const char *text)
{
	struct addr peer = addr("127.0.0.1:1");
	struct kvpin_head h;
	size_t len = strlen(text);
	const uint8_t *head = guarded_rear(&memory, (const uint8_t *)text, len);

	kvpin_head_init(&h, KVPIN_REQUEST);
	assert_int_equal(kvpin_head_parse(&h, &config.names, head, len), KVPIN_STEP_DONE);
	key_of_head(config.key, config.nr_keys, &h, head, &peer, &found);
	return found.at;
}

static void the_operators_order_decides_among_all_kinds(void **state)
{
	config_defaults(&config);
	config.nr_keys = 0;
	source(KEY_HEADER, "X-A");
	source(KEY_COOKIE, "sid");
	source(KEY_JSON, "user");
	source(KEY_HEADER, "X-B");
	source(KEY_QUERY, "q");
	finish();
	assert_int_equal(first_of("GET /?q=1 HTTP/1.1\r\nHost: h\r\nX-B: b\r\nCookie: sid=c\r\n"
				  "X-A: a\r\n\r\n"), 0);
	assert_int_equal(first_of("GET /?q=1 HTTP/1.1\r\nHost: h\r\nX-B: b\r\nCookie: sid=c\r\n"
				  "X-A: \r\n\r\n"), 1);
	assert_int_equal(first_of("GET /?q=1 HTTP/1.1\r\nHost: h\r\nX-B: b\r\n\r\n"), 3);
	assert_int_equal(first_of("GET /?q=1 HTTP/1.1\r\nHost: h\r\n\r\n"), 4);
	assert_int_equal(first_of("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), KEY_NONE);
	source(KEY_CLIENT_IP, "");
	finish();
	assert_int_equal(first_of("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), 5);
}

static void the_kernel_may_look_up_what_headers_alone_decide(void **state)
{
	config_defaults(&config);
	finish();
	assert_true(config_keys_in_head(&config));
	source(KEY_JSON, "user");
	source(KEY_PREFIX, "");
	finish();
	assert_true(config_keys_in_head(&config)); /* a header outranks them all */
	config_defaults(&config);
	config.nr_keys = 0;
	source(KEY_COOKIE, "sid");
	finish();
	assert_false(config_keys_in_head(&config));
	source(KEY_HEADER, "X-A");
	finish();
	assert_false(config_keys_in_head(&config));
	config_defaults(&config);
	strcpy(config.affinity.parent, "X-Parent");
	finish();
	assert_true(config_keys_in_head(&config));
	assert_string_equal(config.key[0].name, "X-Parent");
	config_defaults(&config);
	strcpy(config.affinity.parent, "X-Parent");
	config.affinity.sidecar = SIDECAR_AVOID;
	finish();
	assert_false(config_keys_in_head(&config));
	assert_string_equal(config.key[0].name, "X-LB-Hash");
}

static void assert_refused(const char *part)
{
	char why[256] = "";

	assert_int_equal(config_keys_finish(&config, why, sizeof(why)), -EINVAL);
	if (!strstr(why, part))
		fail_msg("\"%s\" is not in: %s", part, why);
}

static void orders_that_make_no_sense_are_refused(void **state)
{
	config_defaults(&config);
	source(KEY_PREFIX, "");
	source(KEY_COOKIE, "sid");
	assert_refused("move prefix behind");
	config_defaults(&config);
	source(KEY_CLIENT_IP, "");
	source(KEY_PREFIX, "");
	assert_refused("move it to the end");
	config_defaults(&config);
	source(KEY_PREFIX, "");
	source(KEY_CLIENT_IP, "");
	finish();
	config.affinity.prefix.min_match = 1.01;
	assert_refused("prefix.min_match is 1.01; it must be from 0 to 1");
	config.affinity.prefix.min_match = __builtin_nan("");
	assert_refused("prefix.min_match");
	config.affinity.prefix.min_match = 0;
	config.affinity.prefix.guard_rel = 0.99;
	assert_refused("prefix.rel is 0.99; it must be 0 (off) or from 1");
	config.affinity.prefix.guard_rel = 0;
	finish();
	config_defaults(&config);
	strcpy(config.affinity.parent, "X-Session-Id");
	config.affinity.sidecar = SIDECAR_AVOID;
	assert_refused("affinity.parent: X-Session-Id is in affinity.keys too");
	config_defaults(&config);
	strcpy(config.affinity.generate_header, "Content-Length");
	assert_refused("affinity.generate_header");
}

static void a_generated_key_is_honoured_behind_the_other_headers(void **state)
{
	config_defaults(&config);
	config.nr_keys = 0;
	source(KEY_HEADER, "X-A");
	source(KEY_PREFIX, "");
	config.affinity.missing = MISSING_GENERATE;
	finish();
	assert_int_equal(config.nr_keys, 3);
	assert_string_equal(config.key[1].name, "X-Session-Id");
	assert_int_equal(config.key[2].kind, KEY_PREFIX);
	finish(); /* once is enough */
	assert_int_equal(config.nr_keys, 3);
	config.nr_keys = 0;
	finish(); /* no affinity stays none */
	assert_int_equal(config.nr_keys, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_text_in_pieces_is_the_key_hashed_whole),
		cmocka_unit_test(cookies_are_found_among_others),
		cmocka_unit_test(what_only_looks_like_the_cookie_is_none),
		cmocka_unit_test(parameters_are_found_and_resolved),
		cmocka_unit_test(what_only_looks_like_the_parameter_is_none),
		cmocka_unit_test(an_address_is_one_client_whatever_the_port_and_never_a_text),
		cmocka_unit_test(the_operators_order_decides_among_all_kinds),
		cmocka_unit_test(the_kernel_may_look_up_what_headers_alone_decide),
		cmocka_unit_test(orders_that_make_no_sense_are_refused),
		cmocka_unit_test(a_generated_key_is_honoured_behind_the_other_headers),
	};

	if (guarded_init(&memory))
		return 1;
	return cmocka_run_group_tests_name("key_source", tests, NULL, NULL);
}
