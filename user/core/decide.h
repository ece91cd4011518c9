/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The decision: which server takes a request. One pure function; logs, metrics, explain and
 * tests read the struct that it fills, there is no second decision path.
 */
#ifndef CORE_DECIDE_H
#define CORE_DECIDE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/backend.h"
#include "core/config.h"
#include "core/prefix.h"
#include "core/session.h"

#define DECIDE_REASONS(X)                                                                          \
	X(PINNED, "pinned")		  /* the session's server, alive */                        \
	X(PLACED, "placed")		  /* a new session */                                      \
	X(HASHED, "hashed")		  /* placement hash: no pin consulted */                   \
	X(MOVED_DOWN, "moved_down")	  /* its server is down */                                 \
	X(MOVED_REMOVED, "moved_removed") /* its server is configured no more, or has weight 0 */  \
	X(MOVED_FAILED, "moved_failed")	  /* its server failed this very request */                \
	X(MOVED_AVOID, "moved_avoid")	  /* a sidecar call whose server became its parent's */    \
	X(PREFIX, "prefix")		  /* no session: to the owner of the prompt's head */      \
	X(PREFIX_GUARDED, "prefix_guarded") /* ... who is too busy */                              \
	X(PREFIX_COLD, "prefix_cold")	    /* ... whom nobody is known to be */                   \
	X(KEYLESS, "keyless")		    /* no session key */                                   \
	X(NONE, "no_server")		    /* nobody is eligible: 503 */

enum decide_reason {
#define DECIDE_X(id, text) DECIDE_##id,
	DECIDE_REASONS(DECIDE_X)
#undef DECIDE_X
		DECIDE_REASON_NR
};

extern const char *const decide_reason_names[DECIDE_REASON_NR];

/* One server as decide() sees it: a snapshot. */
struct backend_view {
	uint32_t id;
	uint32_t state; /* enum backend_state */
	uint32_t weight;
	uint32_t inflight;
	uint32_t sessions;
	uint64_t name_hash;
	const char *name; /* of the slot; valid as long as the snapshot is */
};

struct decide_input {
	bool keyed;
	uint64_t session;  /* id, when keyed */
	uint32_t pin;	   /* slot, or SESSION_NO_BACKEND */
	uint64_t excluded; /* slots that already failed this request */
	uint64_t avoided;  /* slots to be used only where there is no other */
	uint64_t turn;	   /* round robin's running number */
	enum placement placement;
	uint32_t nr_views;
	struct backend_view view[BACKENDS_MAX];
	struct prefix_match prefix; /* of a request that is not keyed */
};

struct decide_candidate {
	uint32_t id;
	double sessions_by_weight;
	double inflight_by_weight;
	double rendezvous; /* higher wins; 0 without a key */
};

struct kvpin_decision {
	uint32_t backend; /* slot, or SESSION_NO_BACKEND */
	enum decide_reason reason;
	uint32_t disturbed;	/* slot of the hot owner that the load guard passed over, or
				 * SESSION_NO_BACKEND */
	uint32_t nr_candidates; /* 0 when a live pin settled it */
	struct decide_candidate candidate[BACKENDS_MAX];
};

/**
 * decide_view() - take the snapshot
 * @in: view and nr_views are set: every slot that is not free
 */
void decide_view(struct decide_input *in, const struct backend_table *backends,
		 const struct session_table *sessions, uint64_t now_ms);

/**
 * decide() - choose
 * @in: everything that the choice depends on
 * @out: all of it is set (of the candidates the first nr_candidates)
 *
 * In order: a live pin wins. Else placement among the servers that are up, have weight and did
 * not fail this request:
 *   balanced        fewest sessions by weight, then fewest in flight by weight, then rendezvous
 *   least-inflight  fewest in flight by weight, then fewest sessions by weight, then rendezvous
 *   hash            weighted rendezvous alone, pins ignored
 *   round-robin     @turn counts through the servers, each as often as its weight, in rounds: the
 *                   first round visits all, the second those of weight 2 and more, and so on, each
 *                   in the order of ids; then it begins anew
 * Without a key: round-robin where that is the placement, else fewest in flight by weight, equal
 * ones in turn, counted as round-robin counts.
 *
 * Without a key but with windows of a prompt: decide_prefix(), whatever the placement.
 *
 * Avoided servers are no candidates while there are others; a pin to one of them is left then
 * (MOVED_AVOID).
 *
 * Loads by weight are compared exactly, not as the doubles that the candidates show; what is equal
 * to the end goes to the lower id. Of several reasons to leave a pin the first of these is given:
 * MOVED_FAILED, MOVED_REMOVED, MOVED_DOWN, MOVED_AVOID.
 */
void decide(const struct decide_input *in, struct kvpin_decision *out);

/**
 * decide_rendezvous() - weighted rendezvous score (Schindelhauer and Schomaker)
 * @session: id
 * @name_hash: of the server
 * @weight: of the server, not 0
 *
 * w / -ln(u), u in (0,1) from h = XXH64 of the id's 8 little-endian bytes with seed @name_hash:
 * u = (h / 4096 rounded down + 0.5) / 2^52.
 */
double decide_rendezvous(uint64_t session, uint64_t name_hash, uint32_t weight);

#endif
