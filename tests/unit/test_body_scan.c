/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The JSON scanner and what is made of a body: grammar case by case, every cut of the bytes, and
 * thousands of random bodies against tests/unit/body_oracle.py.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/body_scan.h"
#include "kvpin_key.h"
#include "oracle.h"

#define WINDOWS 8

/* ---- the scanner: its events, written down ---- */

static char events[4096];
static size_t nr_events;

static void note(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	nr_events +=
		(size_t)vsnprintf(events + nr_events, sizeof(events) - nr_events, format, args);
	va_end(args);
}

static void on_name(struct json_scan *s, void *arg, const uint8_t *name, size_t len)
{
	note("%.*s:", (int)len, (const char *)name);
}

static bool on_begin(struct json_scan *s, void *arg, enum json_kind kind)
{
	static const char *const marks[] = {"{", "[", "'", "", "null"};

	note("%s", marks[kind]);
	return true;
}

static void on_text(struct json_scan *s, void *arg, const uint8_t *text, size_t len)
{
	note("%.*s", (int)len, (const char *)text);
}

static void on_end(struct json_scan *s, void *arg, enum json_kind kind)
{
	static const char *const marks[] = {"}", "]", "'", ";", ";"};

	note("%s", marks[kind]);
}

static const struct json_handler handler = {on_name, on_begin, on_text, on_end};

/* In pieces of @step bytes. */
static enum json_result scan(const char *text, size_t step)
{
	enum json_result result = JSON_MORE;
	size_t len = strlen(text), at;
	struct json_scan s;

	nr_events = 0;
	events[0] = 0;
	json_scan_init(&s);
	for (at = 0; at < len; at += step) {
		size_t n = len - at < step ? len - at : step;
		uint8_t *exact = malloc(n); /* a byte behind it is seen by ASan */

		memcpy(exact, text + at, n);
		result = json_scan_feed(&s, &handler, NULL, exact, n);
		free(exact);
	}
	return result;
}

static void texts_are_told_as_they_are_however_they_are_cut(void **state)
{
	static const char *const cases[][2] = {
		{"{}", "{}"},
		{" [ ] ", "[]"},
		{"{\"a\":1,\"b\":[true,false,null]}", "{a:1;b:[true;false;null;]}"},
		{"[\"\",\"x\\ny\\\"\\\\\\/\\b\\f\\r\\t\"]", "['''x\ny\"\\/\b\f\r\t']"},
		{"[\"\\u0041\\u00e4\\u20ac\\ud83d\\ude00\"]", "['A\u00e4\u20ac\U0001f600']"},
		{"[\"\\ud83dx\",\"\\ude00\",\"\\ud83d\\ud83d\\ude00\",\"\\ud83d\"]",
		 "['\ufffdx''\ufffd''\ufffd\U0001f600''\ufffd']"},
		{"[\"\\ud83d\\n\"]", "['\ufffd\n']"},
		{"[-0,0.5,-1.25e+10,1E5,123456789012345678901234567890]",
		 "[-0;0.5;-1.25e+10;1E5;123456789012345678901234567890;]"},
		{"{\"\\u006eame\":{\"deep\":[[{\"x\":\"y\"}]]}}", "{name:{deep:[[{x:'y'}]]}}"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (size_t step = 1; step < 40; step++) {
			assert_int_equal(scan(cases[i][0], step), JSON_DONE);
			assert_string_equal(events, cases[i][1]);
		}
}

static void what_is_not_json_is_refused_for_good(void **state)
{
	static const char *const cases[] = {
		"}",
		"{]",
		"[}",
		"[1 2]",
		"[,1]",
		"[1,]",
		"{\"a\"}",
		"{\"a\":}",
		"{a:1}",
		"{\"a\":1,}",
		"[01]",
		"[1.]",
		"[.5]",
		"[1e]",
		"[-]",
		"[+1]",
		"[tru]",
		"[nul]",
		"[NaN]",
		"[True]",
		"[\"\n\"]",
		"[\"0123456789012\t45\"]",
		"[\"\\x\"]",
		"[\"\\u00g0\"]",
		"['a']",
		"{\"a\":1 \"b\":2}",
		"[1;2]",
		"{1:2}",
		"[1111111111111111111111111111111111111111111111111111111111111111111]",
		"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(scan(cases[i], 1), JSON_BAD);
		assert_int_equal(scan(cases[i], 1000), JSON_BAD);
	}
	/* 64 deep is not too deep, and unfinished is not bad. */
	assert_int_equal(scan(cases[sizeof(cases) / sizeof(cases[0]) - 1] + 1, 3), JSON_MORE);
	assert_int_equal(scan("{\"a", 1), JSON_MORE);
}

/* ---- bodies ---- */

static const struct key_source sources[] = {
	{.kind = KEY_HEADER, .name = "X-A"},
	{.kind = KEY_JSON, .name = "metadata.session_id"},
	{.kind = KEY_JSON, .name = "user"},
	{.kind = KEY_PREFIX},
};

static const struct key_source prefix_only[] = {{.kind = KEY_PREFIX}};

static struct body_scan *body_of(const char *text, size_t len, unsigned int nr, size_t step,
				 size_t *used)
{
	struct body_scan *s = body_scan_new(sources, nr, WINDOWS);
	bool enough = false;
	size_t at;

	assert_non_null(s);
	for (at = 0; at < len && !enough; at += step)
		enough = body_scan_feed(s, (const uint8_t *)text + at,
					len - at < step ? len - at : step);
	*used = at;
	body_scan_finish(s);
	return s;
}

static uint64_t id_of(const char *key)
{
	return kvpin_key_hash((const __u8 *)key, strlen(key));
}

static void assert_field(const char *body, uint32_t source, const char *key)
{
	for (size_t step = 1; step < 30; step++) {
		size_t used;
		struct body_scan *s = body_of(body, strlen(body), 3, step, &used);

		assert_int_equal(s->found.at, key ? source : KEY_NONE);
		if (key)
			assert_true(s->found.id == id_of(key));
		free(s);
	}
}

static void fields_are_found_by_their_path_and_their_order(void **state)
{
	assert_field("{\"user\":\"u\",\"metadata\":{\"session_id\":\"s\"}}", 1, "s");
	assert_field("{\"user\":\"u\",\"metadata\":{\"other\":\"s\"}}", 2, "u");
	assert_field("{\"metadata\":{\"x\":{\"session_id\":\"no\"}},\"user\":17}", 2, "17");
	assert_field("{\"x\":{\"user\":\"no\"},\"session_id\":\"no\"}", 0, NULL);
	assert_field("{\"metadata\":[{\"session_id\":\"no\"}],\"user\":[\"no\"]}", 0, NULL);
	assert_field("{\"metadata\":{\"session_id\":null},\"user\":\"\"}", 0, NULL);
	assert_field("{\"user\":\"a\\u0000b\"}", 0, NULL);
	assert_field("{\"user\":\"a\",\"user\":\"b\"}", 2, "a");
	assert_field("{\"user\":\"\",\"user\":\"b\"}", 2, "b");
	assert_field("[{\"user\":\"no\"}]", 0, NULL);
	assert_field("{\"user\":\"u\"", 2, "u"); /* cut off behind it */
	assert_field("{\"user\":\"u", 0, NULL);
	assert_field("{\"user\":\"u\" oops", 2, "u");
	assert_field("not json", 0, NULL);
}

static void no_more_is_read_than_the_decision_needs(void **state)
{
	static char text[100000];
	size_t used, head;
	struct body_scan *s;

	head = (size_t)sprintf(text, "{\"metadata\":{\"session_id\":\"k\"},\"pad\":\"");
	memset(text + head, 'x', sizeof(text) - head);
	s = body_of(text, sizeof(text), 3, 10, &used);
	assert_int_equal(s->found.at, 1);
	assert_true(used <= head + 10);
	free(s);
	/* The second source's key is not enough: the first's may come. */
	head = (size_t)sprintf(text, "{\"user\":\"k\",\"pad\":\"");
	memset(text + head, 'x', sizeof(text) - head);
	s = body_of(text, sizeof(text), 3, 10, &used);
	assert_int_equal(s->found.at, 2);
	assert_int_equal(used, sizeof(text));
	free(s);
}

static void a_prompt_is_read_until_the_windows_are_full_and_the_model_known(void **state)
{
	static char text[100000];
	struct body_scan *s = body_scan_new(prefix_only, 1, WINDOWS);
	struct body_chain chain;
	size_t head = (size_t)sprintf(text, "{\"model\":\"m\",\"prompt\":\"");

	memset(text + head, 'x', sizeof(text) - head);
	assert_false(body_scan_feed(s, (uint8_t *)text, head + WINDOWS * 256 - 1));
	assert_true(body_scan_feed(s, (uint8_t *)text + head + WINDOWS * 256 - 1, 1));
	assert_true(body_scan_chain(s, WINDOWS, &chain));
	assert_int_equal(chain.nr, WINDOWS);
	assert_int_equal(chain.nr_plain, 0);
	free(s);
}

static void assert_same_prompt(const char *a, const char *b)
{
	struct body_scan *s = body_scan_new(prefix_only, 1, WINDOWS);
	struct body_scan *t = body_scan_new(prefix_only, 1, WINDOWS);

	body_scan_feed(s, (const uint8_t *)a, strlen(a));
	body_scan_feed(t, (const uint8_t *)b, strlen(b));
	assert_true(s->len > 0);
	assert_int_equal(s->len, t->len);
	assert_memory_equal(s->prompt, t->prompt, s->len);
	free(s);
	free(t);
}

static void the_first_role_counts_and_what_comes_behind_the_messages_does_not(void **state)
{
	const char *plain = "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}";

	assert_same_prompt(plain, "{\"messages\":[{\"role\":\"user\",\"role\":\"tool\",\"content\":"
				  "\"hi\"}]}");
	assert_same_prompt(plain, "{\"messages\":[{\"content\":\"hi\",\"role\":\"user\"}],"
				  "\"system\":\"late\",\"prompt\":\"late\",\"input\":\"late\"}");
	assert_same_prompt(plain, "{\"input\":\"hi\"}");
}

/* Such a message is complete when it ends: what follows is not waited for. */
static void a_full_prompt_whose_role_never_comes_ends_with_its_message(void **state)
{
	static char text[8192];
	struct body_scan *s = body_scan_new(prefix_only, 1, WINDOWS);
	int head = sprintf(text, "{\"model\":\"m\",\"messages\":[{\"content\":\"%03000d\"", 0);

	assert_false(body_scan_feed(s, (uint8_t *)text, head));
	assert_true(body_scan_feed(s, (const uint8_t *)"}", 1));
	free(s);
}

static uint32_t nr_bodies, nr_found, nr_chains, nr_plains;

static void compare_chains(const struct body_chain *c)
{
	uint32_t nr = (uint32_t)oracle_number(), i;

	assert_int_equal(c->nr, nr);
	for (i = 0; i < nr; i++)
		assert_true(c->hash[i] == oracle_number());
	nr_chains += nr > 1;
	nr = (uint32_t)oracle_number();
	assert_int_equal(c->nr_plain, nr);
	for (i = 0; i < nr; i++)
		assert_true(c->plain[i] == oracle_number());
	nr_plains += nr > 1;
}

static void take_body(const char *first)
{
	static uint8_t text[200000];
	size_t len = oracle_bytes(text, sizeof(text)), used;
	const char *found = oracle_word();
	uint64_t id = oracle_number();
	size_t step = 1 + nr_bodies % 7 * 37;
	struct body_scan *s = body_of((char *)text, len, 4, step, &used);
	struct body_chain chain;

	assert_string_equal(first, "B");
	nr_bodies++;
	if (*found != '-') {
		assert_int_equal(s->found.at, 1 + *found - '0');
		assert_true(s->found.id == id);
		nr_found++;
	} else {
		assert_int_equal(s->found.at, KEY_NONE);
		body_scan_chain(s, WINDOWS, &chain);
		compare_chains(&chain);
	}
	free(s);
}

static void thousands_of_random_bodies_agree_with_the_oracle(void **state)
{
	long lines = oracle_run("body_oracle.py", "11 3000", take_body);

	if (lines < 0) {
		print_message("[ SKIP     ] python3-xxhash is not installed\n");
		skip();
	}
	assert_int_equal(lines, 3000);
	assert_true(nr_found > 300 && nr_chains > 300 && nr_plains > 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts_are_told_as_they_are_however_they_are_cut),
		cmocka_unit_test(what_is_not_json_is_refused_for_good),
		cmocka_unit_test(fields_are_found_by_their_path_and_their_order),
		cmocka_unit_test(no_more_is_read_than_the_decision_needs),
		cmocka_unit_test(a_prompt_is_read_until_the_windows_are_full_and_the_model_known),
		cmocka_unit_test(the_first_role_counts_and_what_comes_behind_the_messages_does_not),
		cmocka_unit_test(a_full_prompt_whose_role_never_comes_ends_with_its_message),
		cmocka_unit_test(thousands_of_random_bodies_agree_with_the_oracle),
	};

	return cmocka_run_group_tests_name("body_scan", tests, NULL, NULL);
}
