/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * kvpin_http_head.h: every case of head_cases.h, at once, byte by byte and cut at every position,
 * against unreadable pages on both sides.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "guarded.h"
#include "head_cases.h"
#include "http_span.h"

/* Longer inputs are not cut everywhere: the test would take minutes and tell nothing new. */
#define CUT_BYTES_MAX 1200

#define CASES_NR (sizeof(head_cases) / sizeof(head_cases[0]) + HEAD_CASES_BUILT)

static struct kvpin_names names;
static struct guarded memory;
static struct http_case cases[CASES_NR];

static void expect(const struct http_case *c, const struct kvpin_head *h, int step)
{
	int want = c->error ? KVPIN_STEP_BAD : c->partial ? KVPIN_STEP_MORE : KVPIN_STEP_DONE;

	if (h->error != c->error || step != want)
		print_error("input: %.*s\n", (int)(c->len < 300 ? c->len : 300), c->bytes);
	assert_int_equal(h->error, c->error);
	assert_int_equal(step, want);
	assert_true(h->pos <= c->len);
	if (want != KVPIN_STEP_DONE)
		return;
	assert_int_equal(h->pos, c->head_len ? c->head_len : c->len);
	assert_int_equal(h->method, c->method);
	assert_int_equal(h->minor, c->minor);
	assert_int_equal(h->status, c->status);
	assert_int_equal(h->fields, c->fields);
	assert_int_equal(h->flags, c->flags);
	assert_int_equal(h->content_length, c->content_length);
	assert_int_equal(h->key_rank, c->key ? c->key_rank : KVPIN_KEY_NONE);
	assert_int_equal(h->key_len, c->key ? strlen(c->key) : 0);
	if (c->key)
		assert_memory_equal(c->bytes + h->key_off, c->key, h->key_len);
	if (c->target) {
		assert_int_equal(h->target_len, strlen(c->target));
		assert_memory_equal(c->bytes + h->target_off, c->target, h->target_len);
	}
}

/* Every parse must end alike, in all fields. */
static void expect_same(const struct http_case *c, const struct kvpin_head *h,
			const struct kvpin_head *whole, uint32_t cut)
{
	if (memcmp(h, whole, sizeof(*h)))
		print_error("cut at %u: %.*s\n", cut, (int)c->len, c->bytes);
	assert_memory_equal(h, whole, sizeof(*h));
}

static void run_case(const struct http_case *c)
{
	struct kvpin_head whole, h;
	uint32_t cut;
	int step;

	http_case_init(c, &whole);
	step = kvpin_head_parse(&whole, &names, guarded_rear(&memory, c->bytes, c->len), c->len);
	expect(c, &whole, step);

	http_case_init(c, &h);
	kvpin_head_parse(&h, &names, guarded_front(&memory, c->bytes, c->len), c->len);
	expect_same(c, &h, &whole, c->len);

	http_case_init(c, &h);
	for (cut = 1; cut <= c->len; cut++) {
		const uint8_t *at = c->len <= CUT_BYTES_MAX ? guarded_rear(&memory, c->bytes, cut)
							    : (const uint8_t *)c->bytes;

		if (kvpin_head_parse(&h, &names, at, cut) != KVPIN_STEP_MORE)
			break;
		assert_int_equal(h.pos, cut);
	}
	expect_same(c, &h, &whole, 1);

	for (cut = 1; cut < c->len && c->len <= CUT_BYTES_MAX; cut++) {
		http_case_init(c, &h);
		step = kvpin_head_parse(&h, &names, guarded_rear(&memory, c->bytes, cut), cut);
		if (step == KVPIN_STEP_MORE)
			kvpin_head_parse(&h, &names, guarded_rear(&memory, c->bytes, c->len),
					 c->len);
		expect_same(c, &h, &whole, cut);
	}
}

static void every_error_of_a_head_has_a_case(void **state)
{
	uint32_t error, i, seen[KVPIN_HTTP_NR] = {0};

	for (i = 0; i < CASES_NR; i++)
		seen[cases[i].error]++;
	for (error = 0; error < KVPIN_HTTP_CHUNK_SIZE; error++)
		if (seen[error] < 2)
			fail_msg("error %u has %u cases", error, seen[error]);
}

static void every_byte_in_every_place_is_judged_alike_however_it_is_cut(void **state)
{
	static const char good[] = "PUT /a HTTP/1.1\r\nHost: a\r\nTE: b\r\n\r\n";
	struct http_case c = {.len = sizeof(good) - 1};
	char bytes[sizeof(good)];
	uint32_t at, value;

	for (at = 0; at < c.len; at++) {
		for (value = 0; value < 256; value++) {
			struct kvpin_head whole, h;
			uint32_t cut = 1;

			memcpy(bytes, good, sizeof(good));
			bytes[at] = (char)value;
			c.bytes = bytes;
			http_case_init(&c, &whole);
			kvpin_head_parse(&whole, &names, guarded_rear(&memory, bytes, c.len),
					 c.len);
			http_case_init(&c, &h);
			while (cut <= c.len && kvpin_head_parse(&h, &names, (uint8_t *)bytes,
								cut) == KVPIN_STEP_MORE)
				cut++;
			expect_same(&c, &h, &whole, 1);
		}
	}
}

static void exactly_the_tchars_are_tchars(void **state)
{
	uint32_t c;

	for (c = 0; c < 256; c++) {
		int want = c && c < 128 &&
			   strchr("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
				  "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
				  (int)c) != NULL;

		assert_int_equal(kvpin_is_tchar((uint8_t)c), want);
	}
}

/* The scans' word arithmetic, for each byte in each place among passed and stopping neighbours. */
static void marks_are_exact_for_the_lowest_byte(void **state)
{
	static const uint8_t neighbours[] = {'a', '-', '9', 0x7e, 0x80, 0xff, 0x00, 0x7f, ' ', '#'};
	uint32_t what, value, place, n, low;

	for (what = KVPIN_SCAN_NAME; what <= KVPIN_SCAN_URI; what++)
		for (value = 0; value < 256; value++)
			for (place = 0; place < 8; place++)
				for (n = 0; n < sizeof(neighbours); n++) {
					uint64_t w = KVPIN_ONES * 'a', mark;
					int alnum = (value >= '0' && value <= '9') ||
						    (value >= 'a' && value <= 'z') ||
						    (value >= 'A' && value <= 'Z');
					int pass = what == KVPIN_SCAN_NAME ? alnum || value == '-'
						   : what == KVPIN_SCAN_TEXT
							   ? value >= 0x20 && value != 0x7f
							   : value > 0x20 && value < 0x7f &&
								     value != '#';

					for (low = place; low < 8; low++)
						((uint8_t *)&w)[low] = neighbours[n];
					((uint8_t *)&w)[place] = (uint8_t)value;
					mark = kvpin_scan_mark(w, what);
					if (pass)
						assert_true(!mark ||
							    kvpin_mark_index(mark) > place);
					else
						assert_int_equal(kvpin_mark_index(mark), place);
				}
}

static void names_are_added_once_and_only_good_ones(void **state)
{
	struct kvpin_names n;
	uint32_t i;
	char name[] = "x-aa";

	kvpin_names_init(&n);
	assert_int_equal(n.nr, 10);
	assert_int_equal(kvpin_names_add(&n, "", 0, KVPIN_FIELD_KEY0), -1);
	assert_int_equal(kvpin_names_add(&n, NAME_48 "1", 49, KVPIN_FIELD_KEY0), -1);
	assert_int_equal(kvpin_names_add(&n, "HOST", 4, KVPIN_FIELD_KEY0), -1);
	assert_int_equal(kvpin_names_add(&n, "a b", 3, KVPIN_FIELD_KEY0), -1);
	assert_int_equal(kvpin_names_add(&n, "a:", 2, KVPIN_FIELD_KEY0), -1);
	assert_int_equal(kvpin_names_add(&n, "a^b", 3, KVPIN_FIELD_KEY0), -1);
	assert_int_equal(kvpin_names_add(&n, "a~b", 3, KVPIN_FIELD_KEY0), -1);
	assert_int_equal(kvpin_names_add(&n, "a|b", 3, KVPIN_FIELD_KEY0), -1);
	assert_int_equal(kvpin_names_add(&n, "a`b", 3, KVPIN_FIELD_KEY0), -1);
	assert_int_equal(kvpin_names_add(&n, "a.b", 3, KVPIN_FIELD_KEY0), -1);
	assert_int_equal(kvpin_names_add(&n, "a\303", 2, KVPIN_FIELD_KEY0), -1);
	assert_int_equal(kvpin_names_add(&n, "a_b", 3, KVPIN_FIELD_NR), -1);
	assert_int_equal(n.nr, 10);
	assert_int_equal(kvpin_names_add(&n, NAME_48, 48, KVPIN_FIELD_KEY0), 0);
	for (i = 11; i < KVPIN_FIELD_NR; i++) {
		name[3] = (char)('a' + i);
		assert_int_equal(kvpin_names_add(&n, name, 4, KVPIN_FIELD_KEY0 + 1), 0);
	}
	assert_int_equal(kvpin_names_add(&n, "x-zz", 4, KVPIN_FIELD_KEY0), -1);
	for (i = 11; i < KVPIN_FIELD_NR; i++) {
		name[3] = (char)('A' + i);
		assert_int_equal(kvpin_names_find(&n, (uint8_t *)name, 4, 0, 4),
				 KVPIN_FIELD_KEY0 + 1);
	}
	assert_int_equal(kvpin_names_find(&n, (const uint8_t *)"HOST", 4, 0, 4), KVPIN_FIELD_HOST);
}

static void a_finished_head_stays_finished(void **state)
{
	static const char two[] = TWO_IN_ONE TWO_IN_ONE;
	struct kvpin_head h, before;

	kvpin_head_init(&h, KVPIN_REQUEST);
	assert_int_equal(kvpin_head_parse(&h, &names, (const uint8_t *)two, sizeof(two) - 1),
			 KVPIN_STEP_DONE);
	before = h;
	assert_int_equal(kvpin_head_step(&h, &names, (const uint8_t *)two, sizeof(two) - 1),
			 KVPIN_STEP_DONE);
	assert_memory_equal(&h, &before, sizeof(h));
	h.state = KVPIN_HS_BAD;
	assert_int_equal(kvpin_head_step(&h, &names, (const uint8_t *)two, sizeof(two) - 1),
			 KVPIN_STEP_BAD);
}

int main(void)
{
	static struct CMUnitTest tests[CASES_NR + 8];
	static struct http_span spans[CASES_NR];
	uint32_t nr, fixed;
	const struct CMUnitTest others[] = {
		cmocka_unit_test(every_error_of_a_head_has_a_case),
		cmocka_unit_test(every_byte_in_every_place_is_judged_alike_however_it_is_cut),
		cmocka_unit_test(exactly_the_tchars_are_tchars),
		cmocka_unit_test(marks_are_exact_for_the_lowest_byte),
		cmocka_unit_test(names_are_added_once_and_only_good_ones),
		cmocka_unit_test(a_finished_head_stays_finished),
	};

	memcpy(cases, head_cases, sizeof(head_cases));
	head_cases_build(cases + sizeof(head_cases) / sizeof(head_cases[0]));
	http_case_names(&names);
	if (guarded_init(&memory))
		return 1;
	nr = http_span_tests(tests, spans, cases, CASES_NR, run_case);
	for (fixed = 0; fixed < sizeof(others) / sizeof(others[0]); fixed++)
		tests[nr++] = others[fixed];
	/* The group's count is taken from the array's size, so the call is spelled out. */
	return _cmocka_run_group_tests("http_head", tests, nr, NULL, NULL);
}
