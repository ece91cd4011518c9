/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What balancers tell each other: lines there and back, and tables that hear the same things in any
 * order come to the same end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "core/peer_record.h"

#define TTL_MS 60000
#define NOW_MS 1000000

static const uint64_t rank[BACKENDS_MAX] = {5, 9, 7};

static void stamps_compare_like_serial_numbers(void **state)
{
	assert_int_equal(session_stamp_cmp(7, 7), 0);
	assert_true(session_stamp_cmp(8, 7) > 0);
	assert_true(session_stamp_cmp(5, UINT32_MAX - 5) > 0); /* it ran over */
	assert_true(session_stamp_cmp(UINT32_MAX - 5, 5) < 0);
	assert_true(session_stamp_cmp(0, 1) < 0);
	assert_true(session_stamp_cmp(UINT32_MAX, 0) > 0);
	assert_int_equal(session_stamp_cmp(0, 0), 0);
	assert_int_equal(session_stamp(0), 1);
	assert_int_equal(session_stamp((uint64_t)1 << 32 | 70), 429496736);
	assert_int_equal(session_stamp(10ULL << 32), 1);
}

static struct session_table *table(void)
{
	return session_table_new(100, TTL_MS, 1);
}

static enum session_merged merge(struct session_table *t, uint64_t id, uint32_t backend,
				 uint32_t stamp, uint64_t used_ms)
{
	const struct session s = {
		.id = id,
		.backend = backend,
		.last_used_ms = used_ms,
		.created_ms = used_ms,
		.turns = 3,
		.context = (uint32_t)used_ms,
	};

	return session_merge(t, &s, stamp, rank, NOW_MS);
}

static uint32_t where(struct session_table *t, uint64_t id)
{
	struct session s;
	uint32_t stamp;

	return session_peek(t, id, NOW_MS, &s, &stamp) ? s.backend : SESSION_NO_BACKEND;
}

static void bind_to(struct session_table *t, uint64_t id, uint32_t backend, uint32_t stamp)
{
	struct session_txn txn;

	session_begin(t, id, NOW_MS, &txn);
	txn.stamp = stamp;
	session_commit(&txn, backend);
}

static void the_later_choice_wins(void **state)
{
	struct session_table *t = table();

	assert_int_equal(merge(t, 1, 0, 100, NOW_MS), SESSION_MERGED_NEW);
	assert_int_equal(merge(t, 1, 1, 99, NOW_MS), SESSION_MERGED_KEPT);
	assert_int_equal(where(t, 1), 0);
	assert_int_equal(merge(t, 1, 2, 101, NOW_MS), SESSION_MERGED_MOVED);
	assert_int_equal(where(t, 1), 2);
	/* Of one moment: the server of the greater rank, whoever asks. */
	assert_int_equal(merge(t, 1, 0, 101, NOW_MS), SESSION_MERGED_KEPT);
	assert_int_equal(merge(t, 1, 1, 101, NOW_MS), SESSION_MERGED_MOVED);
	assert_int_equal(where(t, 1), 1);
	assert_int_equal(session_count(t, 1), 1);
	assert_int_equal(session_count(t, 0) + session_count(t, 2), 0);
	session_table_free(t);
}

static void one_server_keeps_the_later_use(void **state)
{
	struct session_table *t = table();
	struct session s;
	uint32_t stamp;

	merge(t, 1, 0, 100, NOW_MS - 500);
	assert_int_equal(merge(t, 1, 0, 100, NOW_MS - 900), SESSION_MERGED_NOTHING);
	session_peek(t, 1, NOW_MS, &s, &stamp);
	assert_int_equal(s.last_used_ms, NOW_MS - 500);
	assert_int_equal(merge(t, 1, 0, 120, NOW_MS - 100), SESSION_MERGED_USE);
	session_peek(t, 1, NOW_MS, &s, &stamp);
	assert_int_equal(s.last_used_ms, NOW_MS - 100);
	assert_int_equal(s.context, NOW_MS - 100);
	assert_int_equal(stamp, 120);
	/* It expired there. */
	assert_int_equal(merge(t, 2, 0, 100, NOW_MS - TTL_MS - 1), SESSION_MERGED_NOTHING);
	assert_int_equal(session_total(t), 1);
	session_table_free(t);
}

static void a_removal_undoes_what_was_chosen_before(void **state)
{
	struct session_table *t = table();

	bind_to(t, 1, 0, 100);
	assert_false(session_merge_gone(t, 1, 99));
	assert_int_equal(where(t, 1), 0);
	assert_true(session_merge_gone(t, 1, 100));
	assert_int_equal(where(t, 1), SESSION_NO_BACKEND);
	assert_false(session_merge_gone(t, 1, 100));
	session_table_free(t);
}

static void at_the_cap_the_younger_use_stays(void **state)
{
	struct session_table *t = table();

	for (uint64_t id = 0; id < 100; id++)
		merge(t, id, 0, 1, NOW_MS - 1000 + id);
	assert_int_equal(merge(t, 1000, 0, 1, NOW_MS - 2000), SESSION_MERGED_NOTHING);
	assert_int_equal(merge(t, 1000, 0, 1, NOW_MS), SESSION_MERGED_NEW);
	assert_int_equal(where(t, 0), SESSION_NO_BACKEND);
	assert_int_equal(session_total(t), 100);
	session_table_free(t);
}

/* Two hosts' clocks, or two choices within one tick of them. */
static void a_choice_that_knows_the_former_one_is_later(void **state)
{
	struct session_table *t = table();
	struct session s;
	uint32_t stamp;

	merge(t, 1, 1, 100, NOW_MS);
	bind_to(t, 1, 0, 100);
	session_peek(t, 1, NOW_MS, &s, &stamp);
	assert_int_equal(stamp, 101);
	bind_to(t, 1, 2, 50);
	session_peek(t, 1, NOW_MS, &s, &stamp);
	assert_int_equal(stamp, 102);
	assert_int_equal(merge(t, 1, 1, 101, NOW_MS), SESSION_MERGED_KEPT);
	merge(t, 1, 1, UINT32_MAX, NOW_MS);
	bind_to(t, 1, 0, UINT32_MAX);
	session_peek(t, 1, NOW_MS, &s, &stamp);
	assert_int_not_equal(stamp, 0);
	session_table_free(t);
}

/* Every balancer hears every choice, each in an order of its own: all end with the same owners. */
static void tables_that_hear_the_same_in_any_order_agree(void **state)
{
	enum { TABLES = 4, IDS = 50, EVENTS = 1000 };
	static struct {
		uint64_t id;
		uint32_t backend, stamp;
	} event[EVENTS];
	struct session_table *t[TABLES];

	srand(20261121);
	for (int i = 0; i < EVENTS; i++) {
		event[i].id = (uint64_t)rand() % IDS;
		event[i].backend = (uint32_t)rand() % 3;
		event[i].stamp = 1 + (uint32_t)rand() % 20; /* many of one moment */
	}
	for (int k = 0; k < TABLES; k++) {
		t[k] = table();
		for (int i = EVENTS - 1; i > 0; i--) {
			int j = rand() % (i + 1);
			typeof(event[0]) other = event[i];

			event[i] = event[j];
			event[j] = other;
		}
		for (int i = 0; i < EVENTS; i++)
			merge(t[k], event[i].id, event[i].backend, event[i].stamp, NOW_MS);
	}
	for (uint64_t id = 0; id < IDS; id++)
		for (int k = 1; k < TABLES; k++)
			assert_int_equal(where(t[k], id), where(t[0], id));
	for (int k = 0; k < TABLES; k++)
		session_table_free(t[k]);
}

static struct {
	uint64_t id;
	uint32_t stamp;
	int nr, gone;
} told;

static void on_change(void *arg, uint64_t id, uint32_t stamp, bool gone)
{
	assert_ptr_equal(arg, &told);
	told.id = id;
	told.stamp = stamp;
	told.nr++;
	told.gone += gone;
}

static void the_watch_hears_of_choices_and_not_of_uses_nor_of_merges(void **state)
{
	const struct session_watch watch = {.arg = &told, .changed = on_change};
	struct session_table *t = table();
	struct session_txn txn;

	session_table_watch(t, &watch);
	bind_to(t, 7, 0, 100);
	assert_int_equal(told.nr, 1);
	assert_int_equal(told.id, 7);
	assert_int_equal(told.stamp, 100);
	bind_to(t, 7, 0, 101); /* another turn */
	merge(t, 7, 0, 102, NOW_MS);
	merge(t, 7, 1, 103, NOW_MS);
	merge(t, 8, 1, 103, NOW_MS);
	session_merge_gone(t, 8, 104);
	assert_int_equal(told.nr, 1);
	bind_to(t, 7, 2, 105);
	assert_int_equal(told.nr, 2);
	session_begin(t, 7, NOW_MS, &txn);
	txn.stamp = 106;
	session_forget(&txn);
	assert_int_equal(told.nr, 3);
	assert_int_equal(told.gone, 1);
	assert_int_equal(told.stamp, 106);
	session_table_watch(t, NULL);
	bind_to(t, 9, 2, 105);
	assert_int_equal(told.nr, 3);
	session_table_free(t);
}

/* ---- lines ---- */

static void records_come_back(void **state)
{
	struct peer_record in = {0}, out;
	char text[PEER_LINE_MAX];
	uint32_t len;

	in.kind = PEER_SERVER;
	in.tag = 0xfedcba9876543210;
	memset(in.name, 'n', sizeof(in.name) - 1);
	memset(in.address, 'a', sizeof(in.address) - 1);
	len = peer_format(&in, text);
	assert_int_equal(len, strlen(text));
	assert_true(peer_parse(text, &out));
	assert_string_equal(out.name, in.name);
	assert_string_equal(out.address, in.address);
	assert_int_equal(out.tag, in.tag);

	memset(&in, 0, sizeof(in));
	in.kind = PEER_PIN;
	in.tag = UINT64_MAX;
	in.stamp = UINT32_MAX;
	in.lost = true;
	in.pin.id = UINT64_MAX;
	in.pin.last_used_ms = INT64_MAX;
	in.pin.created_ms = INT64_MAX;
	in.pin.turns = in.pin.moves = in.pin.context = UINT32_MAX;
	in.pin.cold = UINT8_MAX;
	/* The longest of all lines. */
	assert_in_range(peer_format(&in, text), 1, PEER_LINE_MAX - 1);
	assert_true(peer_parse(text, &out));
	assert_memory_equal(&out, &in, sizeof(in));

	memset(&in, 0, sizeof(in));
	in.kind = PEER_GONE;
	in.pin.id = 0xaa;
	in.stamp = 3;
	peer_format(&in, text);
	assert_string_equal(text, "d 00000000000000aa 3\n");
	assert_true(peer_parse(text, &out));
	assert_memory_equal(&out, &in, sizeof(in));
	in = (struct peer_record){.kind = PEER_BEAT};
	peer_format(&in, text);
	assert_true(peer_parse(text, &out));
	assert_int_equal(out.kind, PEER_BEAT);
}

#define HEX "00000000000000aa"

static void what_is_no_record_is_refused(void **state)
{
	static const char *const bad[] = {
		"",
		"\n",
		".",
		". \n",
		"..\n",
		"x " HEX "\n",
		"d\n",
		"d " HEX "\n",
		"d " HEX " \n",
		"d " HEX " 3",
		"d " HEX " 3 \n",
		"d " HEX " 3\n\n",
		"d " HEX " -3\n",
		"d 0000000000000aa 3\n",
		"d 00000000000000AA 3\n",
		"d  " HEX " 3\n",
		"s " HEX " a\n",
		"s " HEX " a  b\n",
		"s " HEX " a b c\n",
		"s " HEX " a b",
		"s " HEX " nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn b\n",
		"p " HEX " " HEX " 1 2 3 4 5 6 7 keep\n",
		"p " HEX " " HEX " 1 2 3 4 5 6 256 kept\n",
		"p " HEX " " HEX " 1 2 3 4 5 6 7\n",
		"p " HEX " " HEX " 1 2 3 4 5 6 7 kept \n",
		"p " HEX " " HEX " 1 9223372036854775808 3 4 5 6 7 kept\n",
		"p " HEX " " HEX " 1 99999999999999999999 3 4 5 6 7 kept\n",
		"p " HEX " " HEX " 4294967296 2 3 4 5 6 7 kept\n",
	};
	struct peer_record r;

	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(peer_parse(bad[i], &r));
	assert_true(peer_parse("p " HEX " " HEX " 1 2 3 4 5 6 7 kept\n", &r));
}

static void a_server_is_the_same_by_its_address_or_by_its_host(void **state)
{
	struct addr far, near;
	const char *why;

	addr_parse("10.0.0.5:8081", &far, &why);
	addr_parse("127.0.0.1:8081", &near, &why);
	assert_true(peer_same_server(&far, "10.0.0.5:8081"));
	assert_false(peer_same_server(&far, "10.0.0.5:8082"));
	assert_false(peer_same_server(&far, "10.0.0.6:8081"));
	assert_true(peer_same_server(&far, "127.0.0.1:8081")); /* it stands on that host */
	assert_true(peer_same_server(&near, "[2001:db8::1]:9"));
	assert_true(peer_same_server(&near, "127.0.0.1:8081"));
	assert_false(peer_same_server(&near, "127.0.0.1:8082"));
	assert_false(peer_same_server(&near, "somewhere"));
}

static void secrets_are_equal_or_not(void **state)
{
	assert_true(peer_secret_equal("abc", "abc"));
	assert_true(peer_secret_equal("", ""));
	assert_false(peer_secret_equal("abc", "abd"));
	assert_false(peer_secret_equal("abc", "abcabc"));
	assert_false(peer_secret_equal("abcabc", "abc"));
	assert_false(peer_secret_equal("abc", ""));
	assert_false(peer_secret_equal("", "abc"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stamps_compare_like_serial_numbers),
		cmocka_unit_test(the_later_choice_wins),
		cmocka_unit_test(one_server_keeps_the_later_use),
		cmocka_unit_test(a_removal_undoes_what_was_chosen_before),
		cmocka_unit_test(at_the_cap_the_younger_use_stays),
		cmocka_unit_test(a_choice_that_knows_the_former_one_is_later),
		cmocka_unit_test(tables_that_hear_the_same_in_any_order_agree),
		cmocka_unit_test(the_watch_hears_of_choices_and_not_of_uses_nor_of_merges),
		cmocka_unit_test(records_come_back),
		cmocka_unit_test(what_is_no_record_is_refused),
		cmocka_unit_test(a_server_is_the_same_by_its_address_or_by_its_host),
		cmocka_unit_test(secrets_are_equal_or_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
