/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the files of the steer path share among themselves. */
#ifndef NET_STEER_PRIVATE_H
#define NET_STEER_PRIVATE_H

#include <pthread.h>

#include "net/steer.h"
#include "net/worker.h"

/* Free entries of one of the arrays; a stack, so that the memory in use stays warm. */
struct steer_entries {
	uint32_t nr;
	uint32_t *entry;
};

struct steer {
	struct kern kern;
	pthread_mutex_t lock; /* of the two stacks */
	bool splice;	      /* event streams are the splice path's */
	struct steer_entries conns, upstreams;
	struct conn **conn; /* by slot; an entry belongs to the worker that has the connection */
};

/** steer_entry_take() - returns an entry, or UINT32_MAX when there is none */
uint32_t steer_entry_take(struct steer *s, struct steer_entries *e);
void steer_entry_give(struct steer *s, struct steer_entries *e, uint32_t entry);

/** steer_refuse() - count why the daemon did not hand over; returns false */
bool steer_refuse(struct worker *w, enum kvpin_refusal reason);

static inline struct kern *worker_kern(const struct worker *w)
{
	return &w->steer.steer->kern;
}

static inline struct kvpin_conn *steer_kconn(const struct conn *c)
{
	return &worker_kern(c->worker)->conns[c->steer.sock.entry - 1];
}

static inline struct kvpin_upstream *steer_kupstream(const struct worker *w,
						     const struct steer_sock *s)
{
	return &worker_kern(w)->upstreams[s->entry - 1];
}

static inline struct kvpin_flow *steer_flow(const struct worker *w, const struct steer_sock *s)
{
	if (s->role == KVPIN_ROLE_CLIENT)
		return &worker_kern(w)->conns[s->entry - 1].flow;
	return &steer_kupstream(w, s)->flow;
}

/* The hand-over word. */
static inline uint64_t word_get(const struct kvpin_flow *flow)
{
	return __atomic_load_n(&flow->word, __ATOMIC_SEQ_CST);
}

static inline bool word_change(struct kvpin_flow *flow, uint64_t from, uint64_t to)
{
	return __atomic_compare_exchange_n(&flow->word, &from, to, false, __ATOMIC_SEQ_CST,
					   __ATOMIC_SEQ_CST);
}

/** steer_share_give_back() - what the connection has in config.queued is queued no more */
void steer_share_give_back(struct worker *w, struct kvpin_upstream *k);

/** steer_todo() - look at the connection once the events are in */
void steer_todo(struct conn *c);

/** steer_lane_add() - bytes that come before whatever recv() will give; counts them as received.
 * False: too many, or no memory */
bool steer_lane_add(const struct worker *w, struct steer_sock *s, const void *bytes, uint32_t len);

/** steer_sock_behind() - bytes redirected into the socket that TCP has not taken; 0 for a dead one
 */
uint64_t steer_sock_behind(const struct worker *w, const struct steer_sock *s, int fd);

/** steer_consume() - take what the worker's ring has */
void steer_consume(struct worker *w);

#endif
