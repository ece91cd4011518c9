/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Other balancers in front of the same servers: each tells the others, over a TCP connection of its
 * own to each, where sessions are; what it is told goes through session_merge(). One thread with
 * one event loop; workers only leave a note (peers_attach()'s watch).
 *
 * The peers are trusted: who knows the secret and comes from one of peers.to's addresses can put
 * sessions anywhere. Nothing is encrypted. core/peer_record.h has the lines.
 */
#ifndef OPS_PEERS_H
#define OPS_PEERS_H

#include <pthread.h>
#include <stdio.h>

#include "net/balancer.h"

struct peers;

/**
 * peers_open() - read the secret, bind the listener; before privileges are dropped
 * @out: NULL where the configuration names no peers
 * @why: on failure says what failed
 *
 * Returns 0 or -errno.
 */
int peers_open(struct peers **out, const struct config *c, char *why, unsigned int why_bytes);

/** peers_attach() - hear of new and moved pins from now on; before the workers start; NULL is fine
 */
void peers_attach(struct peers *p, struct balancer *b);

/**
 * peers_serve() - start the thread
 * @lock: held for reading where slots' names and addresses are read and pins are told
 *
 * Returns 0 or -errno with a text in @why; NULL is fine.
 */
int peers_serve(struct peers *p, pthread_rwlock_t *lock, char *why, unsigned int why_bytes);

/** peers_stop() - end the thread; before the balancer's tables go; NULL is fine */
void peers_stop(struct peers *p);

/* What the exporter and `kvpin status` show of one of peers.to. */
struct peer_stats {
	struct addr addr;
	uint64_t up;	   /* 1: told of everything but the latest; else 0 */
	uint64_t sent;	   /* pins */
	uint64_t failures; /* connections that could not be made, or broke */
};

struct peers_stats {
	unsigned int nr;
	struct peer_stats peer[PEERS_MAX];
	uint64_t received;  /* pins, known ones included */
	uint64_t merged;    /* of them: new, moved or used later */
	uint64_t conflicts; /* of them: on another server than here */
	uint64_t unknown;   /* of them: on a server that is not configured here */
	uint64_t refused;   /* connections: a wrong secret, a stranger, another version */
};

/** peers_stats() - any thread; all 0 for NULL */
void peers_stats(const struct peers *p, struct peers_stats *out);

/** peers_render() - their metrics as Prometheus text; nothing for NULL */
void peers_render(const struct peers *p, FILE *out);

#endif
