/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Decisions of a whole population of sessions, while servers die, return, are added and removed:
 * with a table of servers and one of sessions, and no network. What it costs is printed, never
 * asserted.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "core/decide.h"
#include "decide_case.h"
#include "kvpin_key.h"

/* A balancer without a network: what dispatch does, and nothing else. */
static struct backend_table backends;
static struct session_table *sessions;
static struct config config;
static uint64_t turn, now_ms;

static void world_begin(uint32_t nr_servers, enum placement placement)
{
	uint32_t i;

	backend_table_init(&backends, NULL);
	config_defaults(&config);
	config.placement = placement;
	config.nr_backends = nr_servers;
	for (i = 0; i < BACKENDS_MAX; i++) {
		struct backend_config *b = &config.backend[i];
		char text[ADDR_TEXT_MAX];
		const char *why;

		snprintf(b->name, sizeof(b->name), "gpu%u", i);
		snprintf(text, sizeof(text), "10.0.0.%u:80", i + 1);
		assert_int_equal(addr_parse(text, &b->addr, &why), 0);
		b->weight = 1;
	}
	sessions = session_table_new(200000, 3600000, 99);
	assert_non_null(sessions);
	turn = now_ms = 0;
	assert_int_equal(backend_table_apply(&backends, &config, sessions, now_ms), 0);
}

static void world_end(void)
{
	session_table_free(sessions);
}

static void world_reload(uint32_t nr_servers)
{
	config.nr_backends = nr_servers;
	assert_int_equal(backend_table_apply(&backends, &config, sessions, now_ms), 0);
}

static uint64_t id_of(uint32_t i)
{
	char key[32];
	int len = snprintf(key, sizeof(key), "conversation-%u", i);

	return kvpin_key_hash((const __u8 *)key, (__u64)len);
}

/* One request of session i: where does it go? */
static uint32_t request(uint32_t i)
{
	struct session_txn txn;

	decide_case_begin(NULL);
	in.placement = config.placement;
	in.session = id_of(i);
	in.turn = turn++;
	if (session_begin(sessions, in.session, now_ms, &txn))
		in.pin = txn.session.backend;
	decide_view(&in, &backends, sessions, now_ms);
	if (decided() == NOBODY)
		session_abort(&txn);
	else
		session_commit(&txn, out.backend);
	return out.backend;
}

#define POPULATION 2000

static uint32_t home[POPULATION];

static void everybody_speaks(void)
{
	uint32_t i;

	for (i = 0; i < POPULATION; i++)
		home[i] = request(i);
}

static void only_the_dead_servers_sessions_move(void **state)
{
	uint32_t placement, i, moved;

	for (placement = 0; placement < PLACEMENT_NR; placement++) {
		world_begin(4, placement);
		everybody_speaks();
		backend_report_failure(&backends, &backends.slot[2], BACKEND_CAUSE_REFUSED, 1);
		for (i = 0, moved = 0; i < POPULATION; i++) {
			uint32_t now = request(i);

			assert_int_not_equal(now, 2);
			assert_int_equal(now != home[i], home[i] == 2);
			moved += now != home[i];
		}
		assert_in_range(moved, POPULATION / 6, POPULATION / 3);
		world_end();
	}
}

static void a_server_that_returns_takes_none_of_the_pinned_sessions(void **state)
{
	uint32_t placement, i, fresh;

	for (placement = 0; placement < PLACEMENT_NR; placement++) {
		if (placement == PLACEMENT_HASH) /* keeps no pins: its sessions go home */
			continue;
		world_begin(4, placement);
		backend_report_failure(&backends, &backends.slot[1], BACKEND_CAUSE_REFUSED, 1);
		everybody_speaks();
		assert_true(backend_report_check(&backends.slot[1], true, 2, 3, 2));
		for (i = 0; i < POPULATION; i++) {
			assert_int_equal(request(i), home[i]);
			assert_int_equal(out.reason, DECIDE_PINNED);
		}
		/* New ones it does take. */
		for (i = 0, fresh = 0; i < 400; i++)
			fresh += request(POPULATION + i) == 1;
		assert_true(fresh >= 100);
		world_end();
	}
}

static void adding_a_server_moves_no_pinned_session(void **state)
{
	uint32_t placement, i;

	for (placement = 0; placement < PLACEMENT_NR; placement++) {
		if (placement == PLACEMENT_HASH)
			continue;
		world_begin(3, placement);
		everybody_speaks();
		world_reload(5);
		for (i = 0; i < POPULATION; i++)
			assert_int_equal(request(i), home[i]);
		world_end();
	}
}

static void under_hash_a_new_server_takes_its_share_and_nothing_else_moves(void **state)
{
	uint32_t i, moved = 0;

	world_begin(3, PLACEMENT_HASH);
	everybody_speaks();
	world_reload(4);
	for (i = 0; i < POPULATION; i++) {
		uint32_t now = request(i);

		assert_true(now == home[i] || now == 3);
		moved += now == 3;
	}
	assert_in_range(moved, POPULATION / 5, POPULATION / 3);
	/* It goes, and all are home again. */
	backend_report_failure(&backends, &backends.slot[3], BACKEND_CAUSE_REFUSED, 1);
	for (i = 0; i < POPULATION; i++)
		assert_int_equal(request(i), home[i]);
	world_end();
}

static void removed_and_weightless_servers_lose_their_sessions_one_by_one(void **state)
{
	uint32_t i;

	world_begin(3, PLACEMENT_BALANCED);
	everybody_speaks();
	config.backend[0].weight = 0;
	world_reload(2);
	for (i = 0; i < POPULATION; i++) {
		assert_int_equal(request(i), 1);
		assert_int_equal(out.reason, home[i] == 1 ? DECIDE_PINNED : DECIDE_MOVED_REMOVED);
	}
	assert_int_equal(session_count(sessions, 0), 0);
	assert_int_equal(session_count(sessions, 2), 0);
	world_end();
}

static void a_pin_of_a_removed_server_returns_to_it_when_it_is_configured_again(void **state)
{
	uint32_t i;

	world_begin(3, PLACEMENT_BALANCED);
	everybody_speaks();
	world_reload(2);
	world_reload(3);
	for (i = 0; i < POPULATION; i++)
		assert_int_equal(request(i), home[i]);
	world_end();
}

static void balanced_spreads_to_within_one_session(void **state)
{
	static const uint32_t servers[] = {2, 4, 8}, populations[] = {16, 200, 100000};
	uint32_t s, p, i;

	for (s = 0; s < 3; s++) {
		for (p = 0; p < 3; p++) {
			uint32_t least = UINT32_MAX, most = 0;

			world_begin(servers[s], PLACEMENT_BALANCED);
			for (i = 0; i < populations[p]; i++)
				request(i);
			for (i = 0; i < servers[s]; i++) {
				uint32_t n = session_count(sessions, i);

				least = n < least ? n : least;
				most = n > most ? n : most;
			}
			assert_true(most - least <= 1);
			assert_int_equal(session_total(sessions), populations[p]);
			world_end();
		}
	}
}

static void balanced_shares_by_weight(void **state)
{
	uint32_t i;

	world_begin(3, PLACEMENT_BALANCED);
	config.backend[1].weight = 2;
	config.backend[2].weight = 5;
	world_reload(3);
	for (i = 0; i < 8000; i++)
		request(i);
	assert_in_range(session_count(sessions, 0), 999, 1001);
	assert_in_range(session_count(sessions, 1), 1998, 2002);
	assert_in_range(session_count(sessions, 2), 4995, 5005);
	world_end();
}

static void the_view_has_every_slot_in_use_and_nothing_else(void **state)
{
	world_begin(4, PLACEMENT_BALANCED);
	backends.slot[3].shared->inflight = 6;
	backends.slot[3].weight = 9;
	request(1);
	world_reload(3);
	decide_view(&in, &backends, sessions, 0);
	assert_int_equal(in.nr_views, 4);
	assert_int_equal(in.view[3].state, BACKEND_REMOVED);
	assert_int_equal(in.view[3].inflight, 6);
	assert_int_equal(in.view[3].weight, 9);
	assert_int_equal(in.view[0].sessions + in.view[1].sessions + in.view[2].sessions +
				 in.view[3].sessions,
			 1);
	assert_true(in.view[2].name_hash == XXH64("gpu2", 4, 0));
	backends.slot[1].state = BACKEND_FREE;
	decide_view(&in, &backends, sessions, 0);
	assert_int_equal(in.nr_views, 3);
	assert_int_equal(in.view[1].id, 2);
	world_end();
}

static void without_checks_a_down_server_is_tried_again_after_a_while(void **state)
{
	struct backend *b = &backends.slot[0];

	world_begin(1, PLACEMENT_BALANCED);
	backend_report_failure(&backends, b, BACKEND_CAUSE_REFUSED, 100);
	/* With checks only they bring it back. */
	decide_view(&in, &backends, sessions, 1000000);
	assert_int_equal(in.view[0].state, BACKEND_DOWN);
	config.health.interval_ms = 0;
	world_reload(1);
	decide_view(&in, &backends, sessions, b->retry_ms - 1);
	assert_int_equal(in.view[0].state, BACKEND_DOWN);
	decide_view(&in, &backends, sessions, b->retry_ms);
	assert_int_equal(in.view[0].state, BACKEND_UP);
	world_end();
}

static double now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static double measure(uint32_t rounds, bool with_view)
{
	double start = now_ns();
	uint32_t i;

	for (i = 0; i < rounds; i++) {
		in.session += 0x9e3779b97f4a7c15ULL;
		if (with_view)
			decide_view(&in, &backends, sessions, now_ms);
		decide(&in, &out);
	}
	return (now_ns() - start) / rounds;
}

static void figures_are_printed(void **state)
{
	static const uint32_t servers[] = {2, 8};
	uint32_t s;

	for (s = 0; s < 2; s++) {
		double pinned, placed, viewed;

		world_begin(servers[s], PLACEMENT_BALANCED);
		decide_case_begin(NULL);
		decide_view(&in, &backends, sessions, now_ms);
		placed = measure(200000, false);
		viewed = measure(200000, true);
		in.pin = servers[s] - 1;
		pinned = measure(200000, false);
		print_message("[   FIGURE ] %u servers: decide() placing %.0f, with decide_view() "
			      "%.0f, pinned %.0f ns\n",
			      servers[s], placed, viewed, pinned);
		world_end();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_the_dead_servers_sessions_move),
		cmocka_unit_test(a_server_that_returns_takes_none_of_the_pinned_sessions),
		cmocka_unit_test(adding_a_server_moves_no_pinned_session),
		cmocka_unit_test(under_hash_a_new_server_takes_its_share_and_nothing_else_moves),
		cmocka_unit_test(removed_and_weightless_servers_lose_their_sessions_one_by_one),
		cmocka_unit_test(
			a_pin_of_a_removed_server_returns_to_it_when_it_is_configured_again),
		cmocka_unit_test(balanced_spreads_to_within_one_session),
		cmocka_unit_test(balanced_shares_by_weight),
		cmocka_unit_test(the_view_has_every_slot_in_use_and_nothing_else),
		cmocka_unit_test(without_checks_a_down_server_is_tried_again_after_a_while),
		cmocka_unit_test(figures_are_printed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
