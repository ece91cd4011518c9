/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The table's inside, for the two files that are it: session.c (life, transactions, expiry) and
 * session_bulk.c (what comes from elsewhere, and lists). All of a shard is under its lock.
 */
#ifndef CORE_SESSION_PRIVATE_H
#define CORE_SESSION_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/session.h"

#define CACHE_LINE 64

struct entry {
	struct session session; /* backend is SESSION_NO_BACKEND while the entry is free */
	uint32_t chain;		/* next in the bucket, or in the free list */
	uint32_t newer, older;	/* ring by last use */
	uint32_t stamp;		/* session_stamp() of its server's choice; 0: not known */
};

_Static_assert(sizeof(struct entry) == 64, "what the README says a session costs");

struct shard {
	pthread_mutex_t lock;
	struct entry *entry;
	uint32_t *bucket;
	uint32_t count; /* pins */
	uint32_t cap;	/* most pins now */
	uint32_t room;	/* most pins that memory was allocated for */
	uint32_t used;	/* entries 1 to used were ever taken: memory behind is untouched */
	uint32_t free;	/* chain of those given back */
} __attribute__((aligned(CACHE_LINE)));

struct session_table {
	uint64_t multiplier;	      /* odd, secret */
	struct session_mirror mirror; /* get is NULL: none */
	struct session_watch watch;   /* changed is NULL: nobody */
	uint32_t shard_bits, bucket_bits;
	_Atomic uint64_t ttl_ms;
	_Atomic uint64_t evicted;
	_Atomic uint32_t sweep_at; /* shard where the next sweep begins */
	_Atomic uint32_t total;
	_Atomic uint32_t live[BACKENDS_MAX];
	struct shard shard[];
};

/* Multiply-shift hashing (Dietzfelbinger): ids are public (seed 0), the multiplier is not, and
 * two ids share a bucket with a chance of at most 2 in the number of buckets. The product's top
 * bits choose the shard, the next ones the bucket. */
static inline uint64_t id_mix(const struct session_table *t, uint64_t id)
{
	return id * t->multiplier;
}

static inline uint32_t mix_shard(const struct session_table *t, uint64_t mix)
{
	return (uint32_t)(mix >> 1 >> (63 - t->shard_bits));
}

static inline uint32_t *mix_bucket(const struct session_table *t, const struct shard *sh,
				   uint64_t mix)
{
	return &sh->bucket[mix << t->shard_bits >> (64 - t->bucket_bits)];
}

/* Workers' clocks may be some milliseconds apart: a pin "of the future" is fresh. */
static inline bool pin_expired(const struct session_table *t, const struct session *s,
			       uint64_t now_ms)
{
	return now_ms > s->last_used_ms &&
	       now_ms - s->last_used_ms > atomic_load_explicit(&t->ttl_ms, memory_order_relaxed);
}

static inline void ring_unlink(struct shard *sh, uint32_t i)
{
	struct entry *e = &sh->entry[i];

	sh->entry[e->newer].older = e->older;
	sh->entry[e->older].newer = e->newer;
}

/* The head's older neighbour is the latest used pin, its newer one the longest unused. */
static inline void ring_push(struct shard *sh, uint32_t i)
{
	struct entry *e = &sh->entry[i], *head = &sh->entry[0];

	e->newer = 0;
	e->older = head->older;
	sh->entry[head->older].newer = i;
	head->older = i;
}

static inline void mirror_put(const struct session_table *t, const struct session *s)
{
	if (t->mirror.put)
		t->mirror.put(t->mirror.arg, s);
}

static inline void live_add(struct session_table *t, uint32_t backend)
{
	atomic_fetch_add_explicit(&t->live[backend], 1, memory_order_relaxed);
}

static inline void live_sub(struct session_table *t, uint32_t backend)
{
	atomic_fetch_sub_explicit(&t->live[backend], 1, memory_order_relaxed);
}

static inline uint32_t entry_find(const struct session_table *t, const struct shard *sh,
				  uint64_t id)
{
	uint32_t i = *mix_bucket(t, sh, id_mix(t, id));

	while (i && sh->entry[i].session.id != id)
		i = sh->entry[i].chain;
	return i;
}

static inline void entry_move(struct session_table *t, struct entry *e, uint32_t backend,
			      uint32_t stamp)
{
	live_sub(t, e->session.backend);
	live_add(t, backend);
	e->session.backend = backend;
	e->stamp = stamp;
}

/** session_mirror_merge() - take over what the mirror knows better, but for the server, which the
 * table decides; true when the pin was used later than recorded */
bool session_mirror_merge(const struct session_table *t, struct session *s);

/** session_entry_merge() - the same for an entry, which goes to the ring's new end then */
bool session_entry_merge(const struct session_table *t, struct shard *sh, uint32_t i);

/** session_entry_insert() - the caller made room: count < cap <= room */
void session_entry_insert(struct session_table *t, struct shard *sh, const struct session *s,
			  uint32_t stamp);

/** session_entry_remove() - out of the table, the ring and the mirror */
void session_entry_remove(struct session_table *t, struct shard *sh, uint32_t i);

#endif
