/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One decision by hand: what goes into decide() and what comes out, for the test programs that ask
 * it directly. Included by test programs, after cmocka.h.
 */
#ifndef UNIT_DECIDE_CASE_H
#define UNIT_DECIDE_CASE_H

#include <stdio.h>
#include <string.h>

#include "core/decide.h"

#define NOBODY SESSION_NO_BACKEND

static struct decide_input in;
static struct kvpin_decision out;

/* A request of session 1 without a pin; no servers. */
static inline int decide_case_begin(void **state)
{
	memset(&in, 0, sizeof(in));
	in.keyed = true;
	in.session = 1;
	in.pin = NOBODY;
	in.placement = PLACEMENT_BALANCED;
	return 0;
}

/* Two servers with one slot each and a queue of 4; both known to prefill 10,000 bytes a second and
 * to take 4 s for an exchange. 50,000 bytes are asked for. */
static inline void decide_case_two_servers(void)
{
	in.guard.queue = 4;
	in.guard.context = 50000;
	in.nr_views = 2;
	for (uint32_t i = 0; i < 2; i++)
		in.view[i] = (struct backend_view){
			.id = i,
			.state = BACKEND_UP,
			.weight = 1,
			.slots = 1,
			.rate = 10000,
			.exchange_ms = 4000,
			.cheapest_ms = GUARD_UNKNOWN,
			.name_hash = 7 + i,
			.name = i ? "b" : "a",
		};
}

/* The output is filled with rubbish before, so that what is not set shows. */
static inline uint32_t decided(void)
{
	memset(&out, 0xa5, sizeof(out));
	decide(&in, &out);
	return out.backend;
}

static inline void assert_decided(uint32_t backend, enum decide_reason reason,
				  enum guard_verdict guard)
{
	decided();
	assert_string_equal(guard_verdict_names[out.guard], guard_verdict_names[guard]);
	assert_string_equal(decide_reason_names[out.reason], decide_reason_names[reason]);
	assert_int_equal(out.backend, backend);
}

#endif
