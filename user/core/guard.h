/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The cost-aware guard: what a wait costs, what a cold prefill costs, and whether a session should
 * leave a server that has no free slot for it. Pure functions of their arguments: no clock, no
 * table, no server. decide() asks them, net/ feeds them what it observed.
 *
 * Costs are estimates in milliseconds. What was never observed is GUARD_UNKNOWN, and no estimate is
 * made of it.
 */
#ifndef CORE_GUARD_H
#define CORE_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/config.h"

#define GUARD_UNKNOWN UINT32_MAX
/* Bytes of a chat body per token, roughly: English text with its JSON around it. */
#define GUARD_TOKEN_BYTES 4

#define GUARD_VERDICTS(X)                                                                          \
	X(NONE, "none")		  /* nothing to guard: no server, or no choice */                  \
	X(UNLIMITED, "unlimited") /* the server's slots are not known */                           \
	X(FREE, "free_slot")	  /* it has a free slot */                                         \
	X(SPILL, "spill")	  /* full: the session moves to a free slot elsewhere */           \
	X(WAIT, "wait")		  /* full: the request waits for a slot of it */                   \
	X(DISPLACE, "displace")	  /* ... and a waiting one that is cheaper to move goes instead */ \
	X(OVER, "over")		  /* full: sent all the same, the server queues it */              \
	X(REFUSE, "refuse")	  /* full, and so is its queue, or the wait is over: 503, 504 */   \
	X(THRESHOLD, "threshold") /* loaded beyond guard.abs or guard.rel: the session moves */

enum guard_verdict {
#define GUARD_X(id, text) GUARD_##id,
	GUARD_VERDICTS(GUARD_X)
#undef GUARD_X
		GUARD_VERDICT_NR
};

extern const char *const guard_verdict_names[GUARD_VERDICT_NR];

/**
 * guard_wait_ms() - expected time until a server has a slot for one more request
 * @slots: 0: not limited
 * @inflight: requests it works on, or has queued itself
 * @queued: requests that wait for it here, ahead of this one
 * @exchange_ms: mean duration of its exchanges; 0: not known
 *
 * 0 when a slot is free. Else so many exchanges must end first as there are requests above
 * slots - 1, and one ends every exchange_ms / slots. GUARD_UNKNOWN without a duration.
 */
uint32_t guard_wait_ms(uint32_t slots, uint32_t inflight, uint32_t queued, uint32_t exchange_ms);

/**
 * guard_cold_ms() - expected prefill of @bytes of context from nothing
 * @rate: bytes per second that the server prefills; 0: not known
 *
 * GUARD_UNKNOWN without a rate or without bytes; at least 1.
 */
uint32_t guard_cold_ms(uint64_t bytes, uint64_t rate);

/** guard_ewma() - @mean moved an eighth of the way to @sample; a mean of 0 is none yet. Never 0
 * for a sample that is not. */
uint64_t guard_ewma(uint64_t mean, uint64_t sample);

/**
 * guard_rate_sample() - bytes per second that a cold prefill showed
 * @ttft_ns: head complete to first token, waiting here not included
 *
 * Returns 0 when it says nothing: below GUARD_RATE_BYTES_MIN the fixed costs of a request outweigh
 * its prefill.
 */
#define GUARD_RATE_BYTES_MIN 2048
uint64_t guard_rate_sample(uint64_t bytes, uint64_t ttft_ns);

/* A full server and its alternatives, as guard_full() weighs them. */
struct guard_full {
	enum guard_busy busy;
	bool elsewhere;	  /* another eligible server has a free slot */
	uint32_t stay_ms; /* wait for this server, and a prefill if it is cold here as well */
	uint32_t go_ms;	  /* prefill there; GUARD_UNKNOWN as above */
	uint32_t
		cheapest_ms; /* prefill of the cheapest of those that wait; GUARD_UNKNOWN: nobody */
	bool room;	     /* in this server's queue */
	bool fresh;	     /* it has not waited at all: a slot may be about to be free, because
			      * the end of an answer is told a moment after the client has it */
	bool waited;	     /* for guard.wait already */
	bool go;	     /* somebody dearer wants the place: go if there is anywhere to go */
};

/**
 * guard_full() - what to do with a request whose server has no free slot
 *
 *	stick		OVER
 *	otherwise, in order:
 *	  a slot is free elsewhere, and @go or @waited: SPILL
 *	  a slot is free elsewhere, and moving is cheaper (go_ms < stay_ms), or nothing is known of
 *	  one of the two and the policy is prefer_idle_slot:
 *	    it is @fresh and there is room: WAIT, and the caller asks again in a few milliseconds
 *	    one that waits is cheaper to move: DISPLACE
 *	    else SPILL
 *	  it has waited, or the queue has no room:
 *	    prefer_idle_slot OVER, prefer_owning_slot_with_wait REFUSE
 *	  else WAIT
 */
enum guard_verdict guard_full(const struct guard_full *f);

/**
 * guard_over_threshold() - does a server have too many requests beside the least loaded one?
 * @inflight: of it; @least: of the least loaded
 * @abs: 0: off; over when inflight > least + abs
 * @rel_milli: 0: off; over when inflight > least * rel + 1
 */
bool guard_over_threshold(uint32_t inflight, uint32_t least, uint32_t abs, uint32_t rel_milli);

#define GUARD_TURNS(X)                                                                             \
	X(FIRST, "first")     /* of the session on this server: cold by nature */                  \
	X(WARM, "warm")	      /* what was there before was not computed again */                   \
	X(PARTIAL, "partial") /* some of it was */                                                 \
	X(COLD, "cold")	      /* most of it was */                                                 \
	X(UNKNOWN, "unknown") /* not streamed, or no prefill rate of this server is known yet */

enum guard_turn {
#define GUARD_X(id, text) GUARD_TURN_##id,
	GUARD_TURNS(GUARD_X)
#undef GUARD_X
		GUARD_TURN_NR
};

extern const char *const guard_turn_names[GUARD_TURN_NR];

/**
 * guard_classify() - was the turn's context still in the server's cache?
 * @first: the session was never on this server, or the server restarted since
 * @context: bytes of the session's context before the turn, by its ledger
 * @request: bytes of the request, which repeats the context
 * @ttft_ns: as above
 * @rate: bytes per second; 0: not known
 * @recomputed: set to the bytes of old context that were computed again, by estimate
 *
 * The prefill time stands for ttft * rate bytes. New bytes (request - context) had to be computed;
 * what was computed beyond them is old context computed again. Its share of the old context:
 * below 1/4 warm, below 3/4 partial, else cold. A TTFT below GUARD_WARM_NS is warm whatever the
 * rate.
 */
#define GUARD_WARM_NS 20000000ULL
enum guard_turn guard_classify(bool first, uint64_t context, uint64_t request, uint64_t ttft_ns,
			       uint64_t rate, uint64_t *recomputed);

/**
 * guard_control() - is the session in the experiment's control arm?
 * @milli: the arm's share of all sessions, in thousandths
 *
 * By XXH64 of the id's 8 bytes with seed GUARD_CONTROL_SEED: the same on every host, and
 * independent of where rendezvous puts it. The arm of a smaller share is part of that of a larger.
 */
#define GUARD_CONTROL_SEED 0x636f6e74726f6cULL /* "control" */
bool guard_control(uint64_t session, uint32_t milli);

#endif
