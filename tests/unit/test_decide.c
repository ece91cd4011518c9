/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Decisions: the reasons one by one, properties over whole populations of sessions, and thousands
 * of random cases against tests/unit/decide_oracle.py, which was written from the documentation.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "core/decide.h"
#include "kvpin_key.h"
#include "oracle.h"

#define NOBODY SESSION_NO_BACKEND

static struct decide_input in;
static struct kvpin_decision out;

/* A request of session 1 without a pin; no servers. */
static int begin(void **state)
{
	memset(&in, 0, sizeof(in));
	in.keyed = true;
	in.session = 1;
	in.pin = NOBODY;
	in.placement = PLACEMENT_BALANCED;
	return 0;
}

static struct backend_view *view(uint32_t id, uint32_t weight, uint32_t sessions, uint32_t inflight)
{
	struct backend_view *v = &in.view[in.nr_views++];
	char name[16];
	int len = snprintf(name, sizeof(name), "gpu%u", id);

	*v = (struct backend_view){
		.id = id,
		.state = BACKEND_UP,
		.weight = weight,
		.inflight = inflight,
		.sessions = sessions,
		.name_hash = XXH64(name, (size_t)len, 0),
	};
	return v;
}

/* The output is filled with rubbish before, so that what is not set shows. */
static uint32_t decided(void)
{
	memset(&out, 0xa5, sizeof(out));
	decide(&in, &out);
	return out.backend;
}

static void a_live_pin_wins_over_any_load(void **state)
{
	view(0, 1, 0, 0);
	view(1, 1, 1000, 1000);
	in.pin = 1;
	assert_int_equal(decided(), 1);
	assert_int_equal(out.reason, DECIDE_PINNED);
	assert_int_equal(out.nr_candidates, 0);
}

static void each_way_to_lose_a_server_has_its_reason(void **state)
{
	struct backend_view *owner;

	view(0, 1, 5, 5);
	owner = view(1, 1, 0, 0);
	in.pin = 1;
	owner->state = BACKEND_DOWN;
	assert_int_equal(decided(), 0);
	assert_int_equal(out.reason, DECIDE_MOVED_DOWN);
	owner->state = BACKEND_REMOVED;
	assert_int_equal(decided(), 0);
	assert_int_equal(out.reason, DECIDE_MOVED_REMOVED);
	owner->state = BACKEND_UP;
	owner->weight = 0;
	assert_int_equal(decided(), 0);
	assert_int_equal(out.reason, DECIDE_MOVED_REMOVED);
	owner->weight = 1;
	in.excluded = 1 << 1;
	assert_int_equal(decided(), 0);
	assert_int_equal(out.reason, DECIDE_MOVED_FAILED);
	assert_int_equal(out.nr_candidates, 1);
	assert_int_equal(out.candidate[0].id, 0);
	in.excluded = 0;
	in.pin = 9; /* a slot that is free by now */
	decided();
	assert_int_equal(out.reason, DECIDE_MOVED_REMOVED);
}

static void a_server_that_failed_the_request_is_told_apart_from_one_that_is_down(void **state)
{
	view(0, 1, 0, 0);
	view(1, 1, 0, 0)->state = BACKEND_DOWN;
	in.pin = 1;
	in.excluded = 1 << 1;
	decided();
	assert_int_equal(out.reason, DECIDE_MOVED_FAILED);
}

static void nobody_eligible_is_no_server_whatever_the_pin_says(void **state)
{
	uint32_t placement;

	for (placement = 0; placement < PLACEMENT_NR; placement++) {
		begin(NULL);
		in.placement = placement;
		assert_int_equal(decided(), NOBODY);
		assert_int_equal(out.reason, DECIDE_NONE);
		view(0, 0, 0, 0);
		view(1, 1, 0, 0)->state = BACKEND_DOWN;
		view(2, 1, 0, 0)->state = BACKEND_REMOVED;
		view(63, 1, 0, 0);
		in.excluded = 1ULL << 63;
		in.pin = 1;
		assert_int_equal(decided(), NOBODY);
		assert_int_equal(out.reason, DECIDE_NONE);
		assert_int_equal(out.nr_candidates, 0);
		in.keyed = false;
		assert_int_equal(decided(), NOBODY);
		assert_int_equal(out.reason, DECIDE_NONE);
	}
}

static void hash_ignores_the_pin_and_the_load(void **state)
{
	uint32_t chosen;

	in.placement = PLACEMENT_HASH;
	view(0, 1, 0, 0);
	view(1, 1, 0, 0);
	chosen = decided();
	assert_int_equal(out.reason, DECIDE_HASHED);
	in.view[chosen].sessions = in.view[chosen].inflight = 1000000;
	in.pin = !chosen;
	assert_int_equal(decided(), chosen);
	assert_int_equal(out.reason, DECIDE_HASHED);
	assert_int_equal(out.nr_candidates, 2);
	in.view[chosen].state = BACKEND_DOWN;
	assert_int_equal(decided(), !chosen);
	assert_int_equal(out.reason, DECIDE_HASHED);
	assert_int_equal(out.nr_candidates, 1);
}

static void balanced_looks_at_sessions_then_inflight_then_rendezvous(void **state)
{
	uint32_t chosen;

	view(0, 2, 4, 0);
	view(1, 1, 1, 9);
	assert_int_equal(decided(), 1); /* 4/2 against 1/1 */
	assert_int_equal(out.reason, DECIDE_PLACED);
	in.view[0].sessions = 2; /* equal: 0/2 against 9/1 in flight */
	assert_int_equal(decided(), 0);
	in.view[0].inflight = 18;
	chosen = decided();
	assert_int_equal(chosen, out.candidate[0].rendezvous < out.candidate[1].rendezvous);
}

static void least_inflight_looks_at_inflight_then_sessions(void **state)
{
	in.placement = PLACEMENT_LEAST_INFLIGHT;
	view(0, 1, 0, 3);
	view(1, 1, 100, 2);
	assert_int_equal(decided(), 1);
	in.view[0].inflight = 2;
	assert_int_equal(decided(), 0);
}

static void loads_by_weight_are_compared_exactly(void **state)
{
	/* As doubles, both quotients are the same number. */
	view(0, 255, UINT32_MAX, 0);
	view(1, 255, UINT32_MAX - 1, 0);
	assert_int_equal(decided(), 1);
	in.view[1] = in.view[0];
	in.view[1].id = 1;
	in.view[0].weight = 256;
	assert_int_equal(decided(), 0);
	/* The same server twice: even rendezvous is equal, so the lower id. */
	in.view[0].weight = 255;
	assert_int_equal(decided(), 0);
}

static void candidates_show_what_was_compared(void **state)
{
	view(3, 2, 5, 1);
	view(7, 4, 2, 2)->state = BACKEND_DOWN;
	view(9, 4, 2, 2);
	decided();
	assert_int_equal(out.nr_candidates, 2);
	assert_int_equal(out.candidate[0].id, 3);
	assert_int_equal(out.candidate[1].id, 9);
	assert_true(out.candidate[0].sessions_by_weight == 2.5);
	assert_true(out.candidate[1].inflight_by_weight == 0.5);
	assert_true(out.candidate[1].rendezvous ==
		    decide_rendezvous(in.session, in.view[2].name_hash, 4));
}

static void round_robin_visits_by_weight_in_interleaved_rounds(void **state)
{
	static const uint32_t expected[] = {0, 1, 2, 0, 1, 0};
	uint32_t i;

	in.placement = PLACEMENT_ROUND_ROBIN;
	view(0, 3, 99, 99);
	view(1, 2, 0, 0);
	view(2, 1, 0, 0);
	for (in.turn = 0; in.turn < 60; in.turn++)
		assert_int_equal(decided(), expected[in.turn % 6]);
	/* Equal weights alternate, however large. */
	for (i = 0; i < 3; i++)
		in.view[i].weight = 200;
	for (in.turn = 0; in.turn < 60; in.turn++)
		assert_int_equal(decided(), in.turn % 3);
	in.turn = UINT64_MAX;
	assert_int_equal(decided(), UINT64_MAX % 600 % 3);
}

static void round_robin_keeps_pinned_sessions(void **state)
{
	in.placement = PLACEMENT_ROUND_ROBIN;
	view(0, 1, 0, 0);
	view(1, 1, 0, 0);
	in.pin = 1;
	for (in.turn = 0; in.turn < 4; in.turn++)
		assert_int_equal(decided(), 1);
}

static void keyless_requests_take_the_idlest_and_equal_ones_in_turn(void **state)
{
	uint32_t placement;

	for (placement = 0; placement < PLACEMENT_ROUND_ROBIN; placement++) {
		begin(NULL);
		in.keyed = false;
		in.placement = placement;
		in.pin = 2; /* no key: nobody may look at it */
		view(0, 1, 500, 1);
		view(1, 1, 0, 1);
		view(2, 1, 0, 2);
		for (in.turn = 0; in.turn < 10; in.turn++) {
			assert_int_equal(decided(), in.turn % 2);
			assert_int_equal(out.reason, DECIDE_KEYLESS);
			assert_int_equal(out.nr_candidates, 3);
			assert_true(out.candidate[0].rendezvous == 0);
		}
		in.view[2].weight = 4; /* 2/4 is the least */
		assert_int_equal(decided(), 2);
	}
	in.placement = PLACEMENT_ROUND_ROBIN;
	in.view[2].weight = 1;
	for (in.turn = 0; in.turn < 9; in.turn++) {
		assert_int_equal(decided(), in.turn % 3);
		assert_int_equal(out.reason, DECIDE_KEYLESS);
	}
}

static void a_sidecar_avoids_its_parents_server_while_there_is_another(void **state)
{
	view(0, 1, 0, 0);
	view(1, 1, 9, 9);
	in.avoided = 1 << 0;
	assert_int_equal(decided(), 1);
	assert_int_equal(out.reason, DECIDE_PLACED);
	in.pin = 0;
	assert_int_equal(decided(), 1);
	assert_int_equal(out.reason, DECIDE_MOVED_AVOID);
	in.view[1].state = BACKEND_DOWN;
	assert_int_equal(decided(), 0);
	assert_int_equal(out.reason, DECIDE_PINNED);
	in.pin = NOBODY;
	assert_int_equal(decided(), 0);
	assert_int_equal(out.reason, DECIDE_PLACED);
	in.keyed = false;
	assert_int_equal(decided(), 0);
	assert_int_equal(out.reason, DECIDE_KEYLESS);
}

/* Four idle servers, and a request with so many windows and no key. */
static void prefix_begin(uint32_t windows)
{
	static const char *const names[] = {"d", "c", "b", "a"};
	uint32_t i;

	begin(NULL);
	in.keyed = false;
	for (i = 0; i < 4; i++)
		view(i, 1, 0, 0)->name = names[i];
	in.prefix = (struct prefix_match){
		.windows = windows, .min_match = 0.3, .guard_abs = 2, .guard_rel = 1.5};
}

static void a_hot_prefix_goes_to_its_owner_from_the_ratio_on(void **state)
{
	prefix_begin(10);
	in.prefix.depth[1] = 3;
	in.prefix.weight[1] = 1000;
	assert_int_equal(decided(), 1);
	assert_int_equal(out.reason, DECIDE_PREFIX);
	assert_int_equal(out.disturbed, NOBODY);
	in.prefix.depth[1] = 2;
	assert_int_equal(decided(), 3); /* the idlest caches are equal: by name */
	assert_int_equal(out.reason, DECIDE_PREFIX_COLD);
	in.prefix.depth[2] = 7;
	assert_int_equal(decided(), 2);
	in.excluded = 1 << 2; /* the deepest of those that can be had */
	in.prefix.depth[1] = 3;
	assert_int_equal(decided(), 1);
	assert_int_equal(out.reason, DECIDE_PREFIX);
}

static void what_most_sessions_share_does_not_make_a_prefix_hot(void **state)
{
	prefix_begin(34);
	in.prefix.shared = 32;
	in.prefix.depth[1] = 32;
	in.prefix.weight[3] = 1;
	assert_int_equal(decided(), 2);
	assert_int_equal(out.reason, DECIDE_PREFIX_COLD);
	in.prefix.depth[1] = 33;
	assert_int_equal(decided(), 1);
	assert_int_equal(out.reason, DECIDE_PREFIX);
	in.prefix.windows = in.prefix.shared = 33;
	assert_int_equal(decided(), 2);
	assert_int_equal(out.reason, DECIDE_PREFIX_COLD);
}

static void the_guard_moves_a_hot_prefix_to_the_longest_one_near_the_minimum(void **state)
{
	prefix_begin(10);
	in.prefix.depth[0] = 9;
	in.prefix.depth[1] = 5;
	in.view[0].inflight = 1; /* 0 + 2, and 0 * 1.5 + 1 */
	assert_int_equal(decided(), 0);
	assert_int_equal(out.reason, DECIDE_PREFIX);
	in.view[0].inflight = 2;
	assert_int_equal(decided(), 1);
	assert_int_equal(out.reason, DECIDE_PREFIX_GUARDED);
	assert_int_equal(out.disturbed, 0);
	in.prefix.depth[1] = 0;
	assert_int_equal(decided(), 3);
	assert_int_equal(out.reason, DECIDE_PREFIX_GUARDED);
	in.prefix.guard_rel = 0;
	assert_int_equal(decided(), 0);
	in.view[0].inflight = 3;
	assert_int_equal(decided(), 3);
	/* Traffic without anything in common never disturbs anybody. */
	in.prefix.depth[0] = 0;
	assert_int_equal(decided(), 3);
	assert_int_equal(out.reason, DECIDE_PREFIX_COLD);
	assert_int_equal(out.disturbed, NOBODY);
}

static void a_hot_prefix_whose_owner_is_full_goes_elsewhere_and_is_counted(void **state)
{
	uint32_t i;

	prefix_begin(10);
	in.prefix.depth[0] = 9;
	in.prefix.depth[1] = 5;
	for (i = 0; i < 4; i++)
		in.view[i].slots = 1;
	assert_int_equal(decided(), 0);
	assert_int_equal(out.reason, DECIDE_PREFIX);
	in.view[0].inflight = 1;
	assert_int_equal(decided(), 1); /* the longest one among those with a free slot */
	assert_int_equal(out.reason, DECIDE_PREFIX_GUARDED);
	assert_int_equal(out.disturbed, 0);
	in.prefix.depth[1] = 0;
	assert_int_equal(decided(), 3);
	assert_int_equal(out.reason, DECIDE_PREFIX_GUARDED);
	assert_int_equal(out.disturbed, 0);
	in.prefix.depth[0] = 2; /* cold: nobody was disturbed */
	assert_int_equal(decided(), 3);
	assert_int_equal(out.reason, DECIDE_PREFIX_COLD);
	assert_int_equal(out.disturbed, NOBODY);
}

static void a_key_outranks_a_prefix(void **state)
{
	prefix_begin(10);
	in.prefix.depth[1] = 10;
	in.keyed = true;
	in.pin = 2;
	assert_int_equal(decided(), 2);
	in.pin = NOBODY;
	decided();
	assert_int_equal(out.reason, DECIDE_PLACED);
}

static void the_same_input_gives_the_same_decision(void **state)
{
	struct kvpin_decision first;
	struct decide_input copy;
	uint32_t i;

	for (i = 0; i < 8; i++)
		view(i, i % 3, i * 7 % 4, i * 5 % 3);
	memcpy(&copy, &in, sizeof(in));
	for (in.placement = 0; in.placement < PLACEMENT_NR; in.placement++) {
		copy.placement = in.placement;
		memset(&out, 0, sizeof(out));
		decide(&in, &out);
		first = out;
		for (i = 0; i < 100; i++) {
			memset(&out, 0, sizeof(out));
			decide(&in, &out);
			assert_memory_equal(&out, &first, sizeof(out));
		}
		assert_memory_equal(&in, &copy, sizeof(in)); /* and nothing is written to */
	}
}

static void rendezvous_scores_are_finite_and_share_by_weight(void **state)
{
	static const uint32_t weights[] = {1, 2, 5};
	uint32_t won[3] = {0}, i;
	uint64_t id;

	in.placement = PLACEMENT_HASH;
	for (i = 0; i < 3; i++)
		view(i, weights[i], 0, 0);
	for (id = 0; id < 80000; id++) {
		in.session = kvpin_key_hash((const __u8 *)&id, sizeof(id));
		won[decided()]++;
		for (i = 0; i < 3; i++)
			assert_true(isfinite(out.candidate[i].rendezvous) &&
				    out.candidate[i].rendezvous > 0);
	}
	/* Five standard deviations of a binomial share. */
	for (i = 0; i < 3; i++) {
		double p = weights[i] / 8., off = won[i] - 80000 * p;

		assert_true(fabs(off) < 5 * sqrt(80000 * p * (1 - p)));
	}
}

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

	begin(NULL);
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

static void reason_names_are_metric_labels(void **state)
{
	uint32_t i;

	assert_string_equal(decide_reason_names[DECIDE_PINNED], "pinned");
	assert_string_equal(decide_reason_names[DECIDE_NONE], "no_server");
	for (i = 0; i < DECIDE_REASON_NR; i++)
		assert_int_equal(strspn(decide_reason_names[i], "abcdefghijklmnopqrstuvwxyz_"),
				 strlen(decide_reason_names[i]));
}

/* ---- the oracle ---- */

#define ORACLE	     "tests/unit/decide_oracle.py"
#define ORACLE_CASES 8000
#define ORACLE_SEED  20240607

static void assert_close(double is, double should)
{
	/* Two libm calls may differ in the last bit. */
	if (!(fabs(is - should) <= 1e-12 * fabs(should)))
		fail_msg("%a instead of %a", is, should);
}

static void read_key(void)
{
	const char *hex = oracle_word();
	size_t len = strlen(hex) / 2, i;
	__u8 key[512];

	for (i = 0; i < len; i++) {
		unsigned int byte;

		assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
		key[i] = (__u8)byte;
	}
	in.session = kvpin_key_hash(key, len);
	assert_true(in.session == oracle_number());
}

static void read_case(const char *placed)
{
	uint32_t i;

	begin(NULL);
	for (i = 0; i < PLACEMENT_NR && strcmp(placement_names[i], placed); i++)
		;
	assert_true(i < PLACEMENT_NR);
	in.placement = i;
	in.keyed = oracle_number();
	read_key();
	in.turn = oracle_number();
	in.excluded = oracle_number();
	in.avoided = oracle_number();
	in.pin = (uint32_t)oracle_number();
	in.nr_views = (uint32_t)oracle_number();
	for (i = 0; i < in.nr_views; i++) {
		struct backend_view *v = &in.view[i];
		const char *name;

		v->id = (uint32_t)oracle_number();
		v->state = (uint32_t)oracle_number();
		v->weight = (uint32_t)oracle_number();
		v->inflight = (uint32_t)oracle_number();
		v->sessions = (uint32_t)oracle_number();
		name = oracle_word();
		v->name = name;
		v->name_hash = XXH64(name, strlen(name), 0);
		assert_true(v->name_hash == oracle_number());
		in.prefix.depth[v->id] = (uint32_t)oracle_number();
		in.prefix.weight[v->id] = strtod(oracle_word(), NULL);
	}
	in.prefix.windows = (uint32_t)oracle_number();
	in.prefix.shared = (uint32_t)oracle_number();
	in.prefix.min_match = strtod(oracle_word(), NULL);
	in.prefix.guard_abs = (uint32_t)oracle_number();
	in.prefix.guard_rel = strtod(oracle_word(), NULL);
}

static void compare_decision(void)
{
	uint32_t i;

	decided();
	assert_int_equal(out.backend, oracle_number());
	assert_int_equal(out.reason, oracle_index(decide_reason_names, DECIDE_REASON_NR));
	assert_int_equal(out.disturbed, oracle_number());
	assert_int_equal(out.nr_candidates, oracle_number());
	for (i = 0; i < out.nr_candidates; i++) {
		assert_int_equal(out.candidate[i].id, oracle_number());
		assert_close(out.candidate[i].sessions_by_weight, strtod(oracle_word(), NULL));
		assert_close(out.candidate[i].inflight_by_weight, strtod(oracle_word(), NULL));
		assert_close(out.candidate[i].rendezvous, strtod(oracle_word(), NULL));
	}
}

static uint32_t reasons_seen[DECIDE_REASON_NR];

static void compare_line(const char *first)
{
	read_case(first);
	compare_decision();
	reasons_seen[out.reason]++;
}

static void thousands_of_random_cases_agree_with_the_oracle(void **state)
{
	char args[32];
	uint32_t i;
	long cases;

	snprintf(args, sizeof(args), "%d %d", ORACLE_SEED, ORACLE_CASES);
	memset(reasons_seen, 0, sizeof(reasons_seen));
	cases = oracle_run("decide_oracle.py", args, compare_line);
	if (cases < 0) {
		print_message("[ SKIP     ] python3-xxhash is not installed\n");
		skip();
	}
	assert_int_equal(cases, ORACLE_CASES);
	/* The guard's reasons are tests/unit/test_guard.c's. */
	for (i = 0; i < DECIDE_REASON_NR; i++)
		assert_true(reasons_seen[i] >= 50 || i == DECIDE_CONTROL ||
			    i == DECIDE_MOVED_DRAIN || i == DECIDE_MOVED_BUSY ||
			    i == DECIDE_MOVED_GUARD);
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
		begin(NULL);
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
		cmocka_unit_test_setup(a_live_pin_wins_over_any_load, begin),
		cmocka_unit_test_setup(each_way_to_lose_a_server_has_its_reason, begin),
		cmocka_unit_test_setup(
			a_server_that_failed_the_request_is_told_apart_from_one_that_is_down,
			begin),
		cmocka_unit_test_setup(nobody_eligible_is_no_server_whatever_the_pin_says, begin),
		cmocka_unit_test_setup(hash_ignores_the_pin_and_the_load, begin),
		cmocka_unit_test_setup(balanced_looks_at_sessions_then_inflight_then_rendezvous,
				       begin),
		cmocka_unit_test_setup(least_inflight_looks_at_inflight_then_sessions, begin),
		cmocka_unit_test_setup(loads_by_weight_are_compared_exactly, begin),
		cmocka_unit_test_setup(candidates_show_what_was_compared, begin),
		cmocka_unit_test_setup(round_robin_visits_by_weight_in_interleaved_rounds, begin),
		cmocka_unit_test_setup(round_robin_keeps_pinned_sessions, begin),
		cmocka_unit_test_setup(keyless_requests_take_the_idlest_and_equal_ones_in_turn,
				       begin),
		cmocka_unit_test_setup(a_sidecar_avoids_its_parents_server_while_there_is_another,
				       begin),
		cmocka_unit_test(a_hot_prefix_goes_to_its_owner_from_the_ratio_on),
		cmocka_unit_test(what_most_sessions_share_does_not_make_a_prefix_hot),
		cmocka_unit_test(the_guard_moves_a_hot_prefix_to_the_longest_one_near_the_minimum),
		cmocka_unit_test(a_hot_prefix_whose_owner_is_full_goes_elsewhere_and_is_counted),
		cmocka_unit_test(a_key_outranks_a_prefix),
		cmocka_unit_test_setup(the_same_input_gives_the_same_decision, begin),
		cmocka_unit_test_setup(rendezvous_scores_are_finite_and_share_by_weight, begin),
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
		cmocka_unit_test(reason_names_are_metric_labels),
		cmocka_unit_test(thousands_of_random_cases_agree_with_the_oracle),
		cmocka_unit_test(figures_are_printed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
