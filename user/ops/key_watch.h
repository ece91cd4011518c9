/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Do the clients name their sessions? Without keys, or with a new one for every request, affinity
 * does nothing and nobody notices. Looks at the counters from time to time, warns in the log (at
 * most every ten minutes), and keeps a sentence for `kvpin status`. Changes nothing else.
 */
#ifndef OPS_KEY_WATCH_H
#define OPS_KEY_WATCH_H

#include <stdatomic.h>
#include <stdint.h>

#include "net/balancer.h"

enum key_advice {
	KEY_ADVICE_KEYLESS, /* most requests have no key */
	KEY_ADVICE_ONCE,    /* keys are never seen twice */
	KEY_ADVICE_NR
};

/* Counters, all of them growing only. */
struct key_counts {
	uint64_t keyless;
	uint64_t requests; /* with a key, without, and by prefix */
	uint64_t keyed;	   /* with a key of their own */
	uint64_t first;	   /* ... that was new */
};

/* Zeroed at first; one thread writes. */
struct key_watch {
	struct key_counts since[KEY_ADVICE_NR]; /* as they were when the window began */
	uint64_t said_ms[KEY_ADVICE_NR];	/* last warning; 0: never */
	uint64_t next_ms;
	_Atomic uint32_t advice; /* set of enum key_advice */
};

/** key_watch_judge() - look at counters; @now_ms: monotonic. Warns, and sets w->advice */
void key_watch_judge(struct key_watch *w, const struct key_counts *c, uint64_t now_ms);

/** key_watch_tick() - the same with the balancer's counters, about once a second; main thread */
void key_watch_tick(struct key_watch *w, const struct balancer *b);

/** key_watch_text() - a sentence for people, "" when all is well; any thread */
const char *key_watch_text(const struct key_watch *w);

#endif
