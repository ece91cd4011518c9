/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A worker's latest decisions, for people who ask why a request went where it went. A ring that its
 * worker writes and the control socket's thread reads; the lock is nearly always free. Decisions
 * come from decide() as they are: nothing is worked out again here.
 */
#ifndef NET_EXPLAIN_H
#define NET_EXPLAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "core/decide.h"
#include "core/key.h"

/* Decisions kept per worker; 3 KiB each, touched as they come. */
#define EXPLAIN_RING	   256

struct explain_record {
	uint64_t at_ns; /* monotonic */
	uint64_t session;
	uint64_t context; /* bytes that a cold server would prefill */
	uint32_t pin;	  /* slot, or SESSION_NO_BACKEND */
	uint32_t turns;	  /* of the session, before this one */
	uint32_t idle_ms;
	bool keyed;
	bool cold;			 /* the pin's server has nothing of it cached any more */
	bool steered;			 /* found by the kernel program, not by decide() */
	uint8_t attempt;		 /* 1: the first */
	char source[KEY_DESCRIPTION_MAX]; /* where the key was found; empty without one */
	struct kvpin_decision decision;
};

struct explain_ring;

struct explain_ring *explain_ring_new(void);
void explain_ring_free(struct explain_ring *r);

/** explain_add() - keep a copy; of the candidates those that there are; the worker's thread */
void explain_add(struct explain_ring *r, const struct explain_record *record);

/**
 * explain_read() - copy the latest ones, newest first
 * @session: only that one's; NULL: all
 * @out: room for @max
 *
 * Any thread. Returns how many.
 */
uint32_t explain_read(struct explain_ring *r, const uint64_t *session, struct explain_record *out,
		      uint32_t max);

#endif
