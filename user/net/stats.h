/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a worker counts. Each worker has its own and is the only writer; the exporter adds them
 * up. Labels come from the tables here, so that log text and metric label are one.
 */
#ifndef NET_STATS_H
#define NET_STATS_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/hist.h"
#include "core/config.h"
#include "core/decide.h"
#include "core/report.h"
#include "kvpin_abi.h"
#include "kvpin_splice_abi.h"

/* How an exchange ended. */
#define STAT_OUTCOMES(X)                                                                           \
	X(OK, "ok")			/* the answer went out whole */                            \
	X(CLIENT_ABORT, "client_abort") /* the client left first */                                \
	X(TRUNCATED, "truncated")	/* the server's answer broke off: passed on as a break */  \
	X(BAD_ANSWER, "bad_answer")	/* the server's answer was malformed: 502 or a break */    \
	X(UNREACHABLE, "unreachable")	/* no connection, or lost before an answer: 502, 503 */    \
	X(NO_SERVER, "no_server")	/* nobody eligible: 503 */                                 \
	X(QUEUE_FULL, "queue_full")	/* no free slot, and no room to wait for one: 503 */       \
	X(QUEUE_TIMEOUT, "queue_timeout") /* no free slot came in time: 504 */                     \
	X(TIMEOUT, "timeout")		  /* no byte moved for too long: 408, 504 or a break */    \
	X(REFUSED, "refused")	/* the client's request was malformed or too large: 4xx */         \
	X(SHUTDOWN, "shutdown") /* the drain deadline cut it */

enum stat_outcome {
#define STAT_X(id, text) OUTCOME_##id,
	STAT_OUTCOMES(STAT_X)
#undef STAT_X
		OUTCOME_NR
};

extern const char *const stat_outcome_names[OUTCOME_NR];

/* The data paths that can carry an exchange's bytes. */
enum stat_path {
	STAT_PATH_RELAY,
	STAT_PATH_STEER,  /* counted by the kernel: see kern_counters() */
	STAT_PATH_SPLICE, /* bytes and times are the kernel's: see kern_splice_counters() */
	STAT_PATH_NR
};

extern const char *const stat_path_names[STAT_PATH_NR];
extern const char *const stat_refusal_names[KVPIN_REFUSED_NR];
extern const char *const stat_splice_refusal_names[KVPIN_SPLICE_REFUSED_NR];
extern const char *const stat_http_error_names[KVPIN_HTTP_NR];

enum stat_turn { TURN_FIRST, TURN_LATER, TURN_NR };

/* Requests that reached no server (no_server, refused) are counted under this pseudo slot, whose
 * backend label is empty. */
#define STAT_NO_BACKEND BACKENDS_MAX

/* Both structs hold _Atomic uint64_t and nothing else: the exporter adds them up as arrays. */
struct backend_stats {
	_Atomic uint64_t requests[STAT_PATH_NR][OUTCOME_NR];
	_Atomic uint64_t bytes_up[STAT_PATH_NR];   /* towards the server */
	_Atomic uint64_t bytes_down[STAT_PATH_NR]; /* towards the client */
	_Atomic uint64_t connects;		   /* upstream connections opened */
	_Atomic uint64_t reuses;		   /* requests that went over an open one */
	_Atomic uint64_t resends;		   /* requests sent again on another connection */
	struct hist ttft[TURN_NR];		   /* head complete to first token, or byte */
	struct hist token_gap;
	_Atomic uint64_t turns[GUARD_TURN_NR]; /* kvpin_turns_total */
	_Atomic uint64_t cold_streaks;	       /* sessions that had two cold ones in a row */
	_Atomic uint64_t
		forced; /* sessions that had to leave it, though alive: full, or the guard */
	_Atomic uint64_t waits; /* requests that waited for a slot of it */
	_Atomic uint64_t wait_ns;
};

/* One arm of the experiment; later turns. The sums are in units that do not overflow. */
struct arm_stats {
	_Atomic uint64_t turns;
	_Atomic uint64_t sum_us;
	_Atomic uint64_t sum_sq;     /* of TTFT in tenths of a ms */
	_Atomic uint64_t recomputed; /* bytes of context, by estimate */
	_Atomic uint64_t bucket[REPORT_BUCKETS];
};

struct worker_stats {
	struct arm_stats arm[REPORT_ARM_NR];
	struct backend_stats backend[BACKENDS_MAX + 1];
	_Atomic uint64_t moves[DECIDE_REASON_NR]; /* kvpin_session_moves_total */
	_Atomic uint64_t keys[KEY_KIND_NR];	  /* requests by what named their session */
	_Atomic uint64_t keyless[MISSING_NR];	  /* requests without a key, by fallback */
	_Atomic uint64_t first_turns;		  /* keys that were new, later turns not counted */
	_Atomic uint64_t prefixes[DECIDE_REASON_NR]; /* requests by prefix, by how it went */
	_Atomic uint64_t long_keys;		     /* keys over KVPIN_KEY_BYTES */
	_Atomic uint64_t repeated_keys;		     /* keys more than once in a head */
	_Atomic uint64_t http_errors[KVPIN_HTTP_NR]; /* malformed requests, by reason */
	_Atomic uint64_t accepted;		     /* client connections */
	_Atomic uint64_t accept_pauses; /* at limit.connections, or out of descriptors */
	_Atomic uint64_t open;		/* client connections now */
	_Atomic uint64_t handed_over;	/* connections given to the kernel */
	_Atomic uint64_t reclaimed;	/* ... and taken back */
	_Atomic uint64_t refused[KVPIN_REFUSED_NR]; /* not handed over, by reason */
	_Atomic uint64_t spliced;		    /* answers given to the splice path */
	_Atomic uint64_t splice_back;		    /* ... and come back */
	_Atomic uint64_t splice_refused[KVPIN_SPLICE_REFUSED_NR];
};

#endif
