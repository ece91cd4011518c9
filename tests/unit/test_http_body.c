/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * kvpin_http_body.h: every case of body_cases.h, at once, byte by byte and cut at every position,
 * against unreadable pages on both sides.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "body_cases.h"
#include "guarded.h"
#include "http_span.h"

#define CUT_BYTES_MAX 1200
#define CASES_NR      (sizeof(body_cases) / sizeof(body_cases[0]) + BODY_CASES_BUILT)

static struct kvpin_names names;
static struct guarded memory;
static struct http_case cases[CASES_NR];

/* Walks bytes [from, to) from a copy against the rear guard, until the message ends. */
static uint64_t walk(struct kvpin_body *b, const struct http_case *c, uint32_t from, uint32_t to)
{
	return kvpin_body_walk(b, guarded_rear(&memory, c->bytes + from, to - from), to - from);
}

static void run_case(const struct http_case *c)
{
	struct kvpin_body start, whole, b;
	struct kvpin_head h;
	uint32_t head = 0, end, cut, walked;

	if (!c->body_only) {
		http_case_init(c, &h);
		assert_int_equal(kvpin_head_parse(&h, &names, (const uint8_t *)c->bytes, c->len),
				 KVPIN_STEP_DONE);
		head = h.pos;
	}
	http_case_body(c, &h, &start);

	whole = start;
	walked = (uint32_t)walk(&whole, c, head, c->len);
	if (walked != c->walked || whole.state != c->body_state)
		print_error("input: %.*s\n", (int)(c->len < 200 ? c->len : 200), c->bytes);
	assert_int_equal(whole.error, c->error);
	assert_int_equal(whole.state, c->body_state);
	assert_int_equal(walked, c->walked);
	if (c->len <= CUT_BYTES_MAX) {
		assert_int_equal(whole.payload, c->payload);
		assert_int_equal(whole.events, c->events);
	}
	end = head + walked;

	b = start;
	kvpin_body_walk(&b, guarded_front(&memory, c->bytes + head, c->len - head), c->len - head);
	assert_memory_equal(&b, &whole, sizeof(b));

	b = start;
	for (cut = head; cut < end; cut++)
		assert_int_equal(walk(&b, c, cut, cut + 1), 1);
	assert_memory_equal(&b, &whole, sizeof(b));

	for (cut = head + 1; cut < end && c->len <= CUT_BYTES_MAX; cut++) {
		b = start;
		assert_int_equal(walk(&b, c, head, cut), cut - head);
		assert_int_equal(walk(&b, c, cut, c->len), end - cut);
		assert_memory_equal(&b, &whole, sizeof(b));
	}
	assert_int_equal(walk(&b, c, 0, 0), 0);
}

static void every_error_of_a_body_has_a_case(void **state)
{
	uint32_t error, i, seen[KVPIN_HTTP_NR] = {0};

	for (i = 0; i < CASES_NR; i++)
		seen[cases[i].error]++;
	for (error = KVPIN_HTTP_CHUNK_SIZE; error < KVPIN_HTTP_NR; error++)
		assert_true(seen[error] >= 2);
}

static void a_close_ends_only_what_lasts_until_the_close(void **state)
{
	struct kvpin_body b = {0};

	for (b.state = 0; b.state < KVPIN_BS_NR; b.state++) {
		int want = b.state == KVPIN_BS_DONE || b.state == KVPIN_BS_CLOSE ||
			   b.state == KVPIN_BS_TUNNEL;

		assert_int_equal(kvpin_body_ended(&b), want);
	}
}

static void a_huge_body_is_counted_in_one_step(void **state)
{
	struct kvpin_body b = {.state = KVPIN_BS_COUNTED, .left = 999999999999999999, .fresh = 1};

	assert_int_equal(kvpin_body_skip(&b, 'a', 999999999999999998), 999999999999999998);
	assert_int_equal(b.left, 1);
	assert_int_equal(kvpin_body_skip(&b, ':', UINT64_MAX), 1);
	assert_int_equal(b.state, KVPIN_BS_DONE);
	assert_int_equal(b.payload, 999999999999999999);
	assert_int_equal(b.events, 1);
}

static void a_refused_body_stays_refused(void **state)
{
	struct kvpin_body b = {.state = KVPIN_BS_SIZE};

	assert_int_equal(kvpin_body_step(&b, 'x'), KVPIN_STEP_BAD);
	assert_int_equal(kvpin_body_step(&b, '1'), KVPIN_STEP_BAD);
	assert_int_equal(b.error, KVPIN_HTTP_CHUNK_SIZE);
	assert_int_equal(kvpin_body_walk(&b, (const uint8_t *)"0\r\n\r\n", 5), 0);
}

/* Every window of up to seven bytes that can matter, in both states; the eighth goes with each. */
static void framing_between_chunks_is_taken_as_byte_by_byte(void **state)
{
	static const uint8_t kinds[] = {'0', '7', 'F', '\r', '\n', ';', ' '};
	static const uint8_t states[] = {KVPIN_BS_SIZE, KVPIN_BS_CHUNK_CR, KVPIN_BS_EXT};
	const uint32_t nr = sizeof(kinds), windows = 7 * 7 * 7 * 7 * 7 * 7 * 7;
	uint32_t lines = 0;

	for (uint32_t i = 0; i < 3 * windows; i++) {
		struct kvpin_body at_once = {.state = states[i / windows], .payload = 5, .line = 3};
		struct kvpin_body stepped = at_once;
		uint32_t n = i % windows, have = 1 + i % 8, taken;
		uint64_t w = 0;

		for (uint32_t k = 0; k < 8; k++, n /= nr)
			w |= (uint64_t)kinds[n % nr] << 8 * k;
		taken = kvpin_body_between(&at_once, w, have);
		assert_true(taken <= have);
		for (uint32_t k = 0; k < taken; k++)
			assert_int_equal(kvpin_body_step(&stepped, w >> 8 * k), KVPIN_STEP_MORE);
		if (at_once.state == KVPIN_BS_SIZE) {
			/* The line follows, and sets these. */
			stepped.left = at_once.left;
			stepped.line = at_once.line;
		}
		assert_memory_equal(&at_once, &stepped, sizeof(stepped));
		lines += at_once.state == KVPIN_BS_CHUNK;
	}
	assert_true(lines > 1000);
}

int main(void)
{
	static struct CMUnitTest tests[CASES_NR + 8];
	static struct http_span spans[CASES_NR];
	uint32_t nr, fixed;
	const struct CMUnitTest others[] = {
		cmocka_unit_test(every_error_of_a_body_has_a_case),
		cmocka_unit_test(a_close_ends_only_what_lasts_until_the_close),
		cmocka_unit_test(a_huge_body_is_counted_in_one_step),
		cmocka_unit_test(a_refused_body_stays_refused),
		cmocka_unit_test(framing_between_chunks_is_taken_as_byte_by_byte),
	};

	memcpy(cases, body_cases, sizeof(body_cases));
	body_cases_build(cases + sizeof(body_cases) / sizeof(body_cases[0]));
	http_case_names(&names);
	if (guarded_init(&memory))
		return 1;
	nr = http_span_tests(tests, spans, cases, CASES_NR, run_case);
	for (fixed = 0; fixed < sizeof(others) / sizeof(others[0]); fixed++)
		tests[nr++] = others[fixed];
	return _cmocka_run_group_tests("http_body", tests, nr, NULL, NULL);
}
