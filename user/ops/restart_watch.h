/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Did a server of this host restart, though no request and no check met it dead? Looks from time to
 * time whose sockets listen on the servers' addresses; a socket that is gone while another listens
 * is another process, with an empty cache: backend_report_restart().
 *
 * Says nothing of servers whose listener is not seen: those of other hosts and of other network
 * namespaces. A listener that somebody else holds open (socket activation, a parent process that
 * makes new workers) stays the same socket over a restart, and nothing is noticed.
 */
#ifndef OPS_RESTART_WATCH_H
#define OPS_RESTART_WATCH_H

#include "net/balancer.h"
#include "ops/listeners.h"

/* The sockets of one server when they were seen last. */
struct restart_seen {
	uint64_t name_hash; /* with addr: whose; 0: nobody's */
	struct addr addr;
	uint32_t generation; /* of its cache then */
	uint32_t nr;
	uint64_t cookie[LISTENERS_GROUP_MAX];
};

/* Zeroed by restart_watch_init(); one thread uses it. */
struct restart_watch {
	int fd; /* -1: the kernel lists no sockets */
	uint64_t next_ms;
	struct listeners listeners;
	struct restart_seen seen[BACKENDS_MAX];
};

/** restart_watch_init() - ends with restart_watch_fini(). Without sock_diag it warns and does
 * nothing from then on */
void restart_watch_init(struct restart_watch *w);
void restart_watch_fini(struct restart_watch *w);

/** restart_watch_expect() - whose sockets a former kvpin saw; before the first tick */
void restart_watch_expect(struct restart_watch *w, const struct backend *b, const uint64_t *cookie,
			  uint32_t nr);

/** restart_watch_seen() - what was seen of a server, or NULL */
const struct restart_seen *restart_watch_seen(const struct restart_watch *w,
					      const struct backend *b);

/** restart_watch_tick() - look: at the first call, and then four times a second; main thread */
void restart_watch_tick(struct restart_watch *w, struct balancer *b);

/**
 * restart_gone() - compare what listens now with what was seen
 * @cookie, @nr: now, as listeners_of() gives them
 *
 * Returns true when one that was there is gone and another is there. Nobody there: no verdict. More
 * of them than before: no restart.
 */
bool restart_gone(const struct restart_seen *s, const uint64_t *cookie, uint32_t nr);

#endif
