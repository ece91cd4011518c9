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
#include "core/guard.h"
#include "core/session.h"

#define DECIDE_REASONS(X)                                                                          \
	X(PINNED, "pinned")		  /* the session's server, alive */                        \
	X(PLACED, "placed")		  /* a new session */                                      \
	X(HASHED, "hashed")		  /* placement hash: no pin consulted */                   \
	X(MOVED_DOWN, "moved_down")	  /* its server is down */                                 \
	X(MOVED_REMOVED, "moved_removed") /* its server is configured no more, or has weight 0 */  \
	X(MOVED_FAILED, "moved_failed")	  /* its server failed this very request */                \
	X(MOVED_AVOID, "moved_avoid")	  /* a sidecar call whose server became its parent's */    \
	X(MOVED_DRAIN, "moved_drain")	  /* its server is being drained */                        \
	X(MOVED_BUSY, "moved_busy")	  /* its server had no free slot */                        \
	X(MOVED_GUARD, "moved_guard")	  /* its server was over guard.abs or guard.rel */         \
	X(CONTROL, "control")		  /* in the experiment's control arm: round robin */       \
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
	const char *name;	/* of the slot; valid as long as the snapshot is */
	uint32_t slots;		/* 0: not known */
	uint32_t queued;	/* requests that wait here for it, ahead of this one */
	uint32_t cheapest_ms;	/* prefill of the cheapest of them; GUARD_UNKNOWN or 0: nobody */
	uint32_t exchange_ms;	/* mean duration of its exchanges; 0: not known */
	uint64_t rate;		/* bytes per second of cold prefill; 0: not known */
	uint32_t drain_idle_ms; /* being drained: sessions silent for longer leave it */
	bool draining;		/* takes no new session */
	bool drained;		/* ... and keeps none any more */
};

/* What the guard wants to know of the request. */
struct decide_guard {
	enum guard_busy busy;
	uint32_t queue;		 /* most requests that wait for one server */
	uint32_t abs, rel_milli; /* thresholds; 0: off */
	uint64_t context; /* bytes that a server without this session's cache has to prefill */
	bool cold;	  /* nothing of it is cached at the pin's server either */
	uint32_t idle_ms; /* since the session's last request */
	bool fresh;	  /* it has not waited yet */
	bool waited;	  /* for guard.wait already */
	bool go;	  /* displaced: see guard_full() */
	bool control;	  /* in the control arm */
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
	struct decide_guard guard;
	struct backend_view view[BACKENDS_MAX];
	struct prefix_match prefix; /* of a request that is not keyed */
};

struct decide_candidate {
	uint32_t id;
	double sessions_by_weight;
	double inflight_by_weight;
	double rendezvous; /* higher wins; 0 without a key */
	uint32_t slots, inflight, queued;
	uint32_t wait_ms; /* until it has a free slot; GUARD_UNKNOWN */
	uint32_t cold_ms; /* prefill there: of all, or of what it does not hold of a prompt;
			   * GUARD_UNKNOWN */
};

struct kvpin_decision {
	uint32_t backend; /* slot, or SESSION_NO_BACKEND */
	enum decide_reason reason;
	uint32_t disturbed; /* slot of the hot owner that the load guard passed over, or
			     * SESSION_NO_BACKEND */
	enum guard_verdict guard;
	uint32_t stay_ms, go_ms; /* what the guard weighed, when it had to; else GUARD_UNKNOWN */
	uint32_t nr_candidates;	 /* 0 when a live pin settled it */
	struct decide_candidate candidate[BACKENDS_MAX];
};

/**
 * decide_view() - take the snapshot
 * @in: view and nr_views are set: every slot that is not free; cheapest_ms is the caller's
 */
void decide_view(struct decide_input *in, const struct backend_table *backends,
		 const struct session_table *sessions, uint64_t now_ms);

/** decide_configure() - what the configuration says; the rest of @in->guard is the caller's */
void decide_configure(struct decide_input *in, const struct config *config);

/**
 * decide() - choose
 * @in: everything that the choice depends on
 * @out: all of it is set (of the candidates the first nr_candidates)
 *
 * In order: the control arm takes all servers in turn. A live pin wins while its server has a free
 * slot, or is not known to be full; a server that is drained keeps a session until that is silent
 * for drain_idle_ms, or the drain is over. Without known slots the thresholds hold: a server above
 * them loses the session to the best placement among those below. When the pin's server is full,
 * guard_full() says what becomes of it: a slot elsewhere is the one where the prefill is cheapest,
 * equal ones by placement; what was never observed of a server is taken to be the others' mean.
 *
 * Else placement among the servers that are up, have weight, are not drained, did not fail this
 * request, and have a free slot:
 *   balanced        fewest sessions by weight, then fewest in flight by weight, then rendezvous
 *   least-inflight  fewest in flight by weight, then fewest sessions by weight, then rendezvous
 *   hash            weighted rendezvous alone, pins ignored
 *   round-robin     @turn counts through the servers, each as often as its weight, in rounds: the
 *                   first round visits all, the second those of weight 2 and more, and so on, each
 *                   in the order of ids; then it begins anew
 * When all of them are full, the one with the fewest requests per slot, in flight and waiting,
 * equal ones by placement; the request waits for it, or is sent all the same, as guard_full() says.
 * With placement hash the rendezvous' first choice counts as the pin's server. The caller does what
 * @out->guard says: WAIT, DISPLACE and REFUSE are not to be sent to @out->backend now.
 *
 * Without a key: round-robin where that is the placement, else fewest in flight by weight, equal
 * ones in turn, counted as round-robin counts.
 *
 * Without a key but with windows of a prompt: decide_prefix(), whatever the placement. Where
 * requests are to wait for their owner (GUARD_PREFER_OWNER) and the hot owner is within the load
 * guard but full, with room in its queue, guard_full() weighs the wait and the prefill of what it
 * does not hold against the prefill at the free one that decide_prefix() would choose.
 *
 * Avoided servers are no candidates while there are others; a pin to one of them is left then
 * (MOVED_AVOID).
 *
 * Loads by weight are compared exactly, not as the doubles that the candidates show; what is equal
 * to the end goes to the lower id. Of several reasons to leave a pin the first of these is given:
 * MOVED_FAILED, MOVED_REMOVED, MOVED_DOWN, MOVED_DRAIN, MOVED_AVOID.
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
