/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The table of pins. Per shard: a mutex, an array of entries, chained buckets by index, and the
 * entries in order of last use, as a ring by index. Entry 0 is no pin but the ring's head, so
 * that index 0 says "none" everywhere and zeroed memory is a valid empty shard.
 *
 * The cap is split evenly over the shards, and ids are spread at random, so a shard fills up a
 * little before the table does: evictions begin at about 95 % of the cap (SHARD_ENTRIES_MIN is
 * what keeps it that close). A table below twice that number has one shard and an exact cap.
 *
 * With a mirror an entry's last use may be later than it says, and the ring's order with it. What
 * comes up at the old end is asked for first: if it was used, it is corrected and goes to the new
 * end, and that counts as work like a removal.
 *
 * Never reads a clock, never allocates after session_table_new(). The same invariants hold in
 * session_bulk.c.
 */
#include "core/session_private.h"

#include <assert.h>
#include <stdlib.h>

/* Enough that workers of a large host rarely meet on one lock. */
#define SHARDS_MAX 64
/* At this many entries the random spread over shards is within some 5 %. */
#define SHARD_ENTRIES_MIN 4096
/* Old pins that an insert removes at most: one keeps the number level, two make it shrink. */
#define TRIM_PER_INSERT 2
/* Old pins that an insert asks the mirror about at most, in search of one that was not used: each
 * is a system call under the lock. */
#define LOOKS_PER_INSERT 8
/* Pins looked at by a sweep under one hold of a lock: some tens of microseconds. */
#define SWEEP_PER_LOCK 64

/* SplitMix64's finaliser: any secret, also 0 or a small number, gives a multiplier with all bits
 * in play. */
static uint64_t secret_multiplier(uint64_t secret)
{
	uint64_t z = secret + 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return (z ^ (z >> 31)) | 1;
}

static uint32_t cap_share(uint32_t max, uint32_t nr_shards, uint32_t i)
{
	uint32_t share = max / nr_shards + (i < max % nr_shards);

	return share ? share : 1;
}

static uint32_t shard_bits_for(uint32_t max)
{
	uint32_t bits = 0;

	while ((1U << bits) < SHARDS_MAX && max >> (bits + 1) >= SHARD_ENTRIES_MIN)
		bits++;
	return bits;
}

/* At least as many buckets as entries; 2 at least, because a shift by 64 is undefined. */
static uint32_t bucket_bits_for(uint32_t entries)
{
	uint32_t bits = 1;

	while (bits < 31 && (1U << bits) < entries)
		bits++;
	return bits;
}

static int shard_init(struct shard *sh, uint32_t room, uint32_t bucket_bits)
{
	sh->entry = calloc((size_t)room + 1, sizeof(*sh->entry));
	sh->bucket = calloc((size_t)1 << bucket_bits, sizeof(*sh->bucket));
	if (!sh->entry || !sh->bucket || pthread_mutex_init(&sh->lock, NULL)) {
		free(sh->entry);
		free(sh->bucket);
		return -1;
	}
	sh->count = sh->used = sh->free = 0;
	sh->cap = sh->room = room;
	return 0;
}

static void shard_fini(struct shard *sh)
{
	pthread_mutex_destroy(&sh->lock);
	free(sh->entry);
	free(sh->bucket);
}

struct session_table *session_table_new(uint32_t max, uint64_t ttl_ms, uint64_t secret)
{
	uint32_t bits = shard_bits_for(max), nr = 1U << bits, i;
	struct session_table *t;

	if (!max)
		return NULL;
	t = aligned_alloc(CACHE_LINE, sizeof(*t) + nr * sizeof(t->shard[0]));
	if (!t)
		return NULL;
	t->multiplier = secret_multiplier(secret);
	t->mirror = (struct session_mirror){0};
	t->watch = (struct session_watch){0};
	t->shard_bits = bits;
	t->bucket_bits = bucket_bits_for(cap_share(max, nr, 0));
	atomic_init(&t->ttl_ms, ttl_ms);
	atomic_init(&t->evicted, 0);
	atomic_init(&t->sweep_at, 0);
	atomic_init(&t->total, 0);
	for (i = 0; i < BACKENDS_MAX; i++)
		atomic_init(&t->live[i], 0);
	for (i = 0; i < nr; i++) {
		if (shard_init(&t->shard[i], cap_share(max, nr, i), t->bucket_bits))
			goto undo;
	}
	return t;
undo:
	while (i--)
		shard_fini(&t->shard[i]);
	free(t);
	return NULL;
}

void session_table_free(struct session_table *t)
{
	uint32_t i;

	if (!t)
		return;
	for (i = 0; i < 1U << t->shard_bits; i++)
		shard_fini(&t->shard[i]);
	free(t);
}

void session_table_mirror(struct session_table *t, const struct session_mirror *m)
{
	t->mirror = m ? *m : (struct session_mirror){0};
}

void session_table_watch(struct session_table *t, const struct session_watch *w)
{
	t->watch = w ? *w : (struct session_watch){0};
}

static void watch_tell(const struct session_table *t, uint64_t id, uint32_t stamp, bool gone)
{
	if (t->watch.changed)
		t->watch.changed(t->watch.arg, id, stamp, gone);
}

uint32_t session_table_limits(struct session_table *t, uint32_t max, uint64_t ttl_ms)
{
	uint32_t nr = 1U << t->shard_bits, total = 0, i;

	atomic_store_explicit(&t->ttl_ms, ttl_ms, memory_order_relaxed);
	for (i = 0; i < nr; i++) {
		struct shard *sh = &t->shard[i];
		uint32_t share = cap_share(max, nr, i);

		pthread_mutex_lock(&sh->lock);
		sh->cap = share < sh->room ? share : sh->room;
		total += sh->cap;
		pthread_mutex_unlock(&sh->lock);
	}
	return total;
}

/* Takes over what the mirror knows better. Its server is not: the table decides that one. Returns
 * true when the pin was used later than recorded. */
bool session_mirror_merge(const struct session_table *t, struct session *s)
{
	struct session seen;

	if (!t->mirror.get || !t->mirror.get(t->mirror.arg, s->id, &seen))
		return false;
	if (seen.turns > s->turns)
		s->turns = seen.turns;
	if (seen.last_used_ms <= s->last_used_ms)
		return false;
	if (seen.context)
		s->context = seen.context;
	s->last_used_ms = seen.last_used_ms;
	return true;
}

bool session_entry_merge(const struct session_table *t, struct shard *sh, uint32_t i)
{
	if (!session_mirror_merge(t, &sh->entry[i].session))
		return false;
	ring_unlink(sh, i);
	ring_push(sh, i);
	return true;
}

void session_entry_remove(struct session_table *t, struct shard *sh, uint32_t i)
{
	struct entry *e = &sh->entry[i];
	uint32_t *link = mix_bucket(t, sh, id_mix(t, e->session.id));

	if (t->mirror.del)
		t->mirror.del(t->mirror.arg, e->session.id);
	while (*link != i)
		link = &sh->entry[*link].chain;
	*link = e->chain;
	ring_unlink(sh, i);
	live_sub(t, e->session.backend);
	atomic_fetch_sub_explicit(&t->total, 1, memory_order_relaxed);
	e->session.backend = SESSION_NO_BACKEND;
	e->chain = sh->free;
	sh->free = i;
	sh->count--;
}

/* What one call of shard_trim() may do, and did. */
struct trim {
	uint32_t keep;	/* pins over this number go too */
	uint32_t most;	/* pins removed at most */
	uint32_t looks; /* pins removed or kept alive by the mirror at most; at least most */
	uint32_t gone, looked;
};

/* Removes a pin that expired or has to make room. */
static void entry_drop(struct session_table *t, struct shard *sh, uint32_t i, uint64_t now_ms)
{
	if (!pin_expired(t, &sh->entry[i].session, now_ms))
		atomic_fetch_add_explicit(&t->evicted, 1, memory_order_relaxed);
	session_entry_remove(t, sh, i);
}

/*
 * From the longest unused on: what expired goes, and what is over the number to keep. When the
 * mirror kept all of them alive and there are still too many, the longest unused of those looked
 * at goes: a full shard has room afterwards.
 */
static void shard_trim(struct session_table *t, struct shard *sh, uint64_t now_ms,
		       struct trim *trim)
{
	uint64_t victim_ms = UINT64_MAX;
	uint32_t victim = 0, first = 0;

	while (trim->gone < trim->most && trim->looked < trim->looks && sh->count) {
		uint32_t oldest = sh->entry[0].newer;
		const struct session *s = &sh->entry[oldest].session;

		if (sh->count <= trim->keep && !pin_expired(t, s, now_ms))
			return;
		if (oldest == first)
			break; /* the whole ring was used */
		trim->looked++;
		if (session_entry_merge(t, sh, oldest) && !pin_expired(t, s, now_ms)) {
			if (s->last_used_ms < victim_ms) {
				victim_ms = s->last_used_ms;
				victim = oldest;
			}
			first = first ? first : oldest;
			continue;
		}
		entry_drop(t, sh, oldest, now_ms);
		trim->gone++;
	}
	if (victim && !trim->gone && sh->count > trim->keep) {
		entry_drop(t, sh, victim, now_ms);
		trim->gone++;
	}
}

/* The caller made room: count < cap <= room. */
void session_entry_insert(struct session_table *t, struct shard *sh, const struct session *s,
			  uint32_t stamp)
{
	uint32_t *bucket = mix_bucket(t, sh, id_mix(t, s->id));
	uint32_t i = sh->free;

	if (i)
		sh->free = sh->entry[i].chain;
	else
		i = ++sh->used;
	sh->entry[i].session = *s;
	sh->entry[i].stamp = stamp;
	sh->entry[i].chain = *bucket;
	*bucket = i;
	ring_push(sh, i);
	sh->count++;
	live_add(t, s->backend);
	atomic_fetch_add_explicit(&t->total, 1, memory_order_relaxed);
}

bool session_begin(struct session_table *t, uint64_t id, uint64_t now_ms, struct session_txn *txn)
{
	uint32_t at = mix_shard(t, id_mix(t, id));
	struct shard *sh = &t->shard[at];
	uint32_t i;

	pthread_mutex_lock(&sh->lock);
	i = entry_find(t, sh, id);
	if (i) {
		session_entry_merge(t, sh, i);
		if (pin_expired(t, &sh->entry[i].session, now_ms)) {
			session_entry_remove(t, sh, i);
			i = 0;
		}
	}
	txn->table = t;
	txn->shard = at;
	txn->entry = i;
	txn->now_ms = now_ms;
	txn->again = false;
	txn->generation = 0;
	txn->control = false;
	txn->context = 0;
	txn->stamp = 0;
	if (i)
		txn->session = sh->entry[i].session;
	else
		txn->session = (struct session){.id = id, .backend = SESSION_NO_BACKEND};
	return i;
}

static uint32_t context_of(uint64_t bytes)
{
	return bytes < UINT32_MAX ? (uint32_t)bytes : UINT32_MAX;
}

/* A choice that knows of the former one is later than that, whatever the clocks say. */
static uint32_t stamp_after(uint32_t former, uint32_t now)
{
	if (session_stamp_cmp(now, former) > 0)
		return now;
	return former + 1 ? former + 1 : 1;
}

static void entry_touch(const struct session_txn *txn, struct shard *sh, uint32_t i,
			uint32_t backend)
{
	struct session_table *t = txn->table;
	struct session *s = &sh->entry[i].session;
	uint64_t now_ms = txn->now_ms;

	if (s->backend != backend) {
		uint32_t stamp = stamp_after(sh->entry[i].stamp, txn->stamp);

		entry_move(t, &sh->entry[i], backend, stamp);
		s->moves++;
		watch_tell(t, s->id, stamp, false);
	}
	s->generation = txn->generation;
	s->control = txn->control;
	if (txn->context)
		s->context = context_of(txn->context);
	if (now_ms > s->last_used_ms)
		s->last_used_ms = now_ms;
	ring_unlink(sh, i);
	ring_push(sh, i);
}

void session_commit(struct session_txn *txn, uint32_t backend)
{
	struct session_table *t = txn->table;
	struct shard *sh = &t->shard[txn->shard];

	assert(backend < BACKENDS_MAX);
	if (txn->entry) {
		struct session *s = &sh->entry[txn->entry].session;

		entry_touch(txn, sh, txn->entry, backend);
		s->turns += !txn->again;
		mirror_put(t, s);
	} else {
		struct session s = {
			.id = txn->session.id,
			.last_used_ms = txn->now_ms,
			.created_ms = txn->now_ms,
			.backend = backend,
			.turns = 1,
			.generation = txn->generation,
			.control = txn->control,
			.context = context_of(txn->context),
		};
		struct trim trim = {
			.keep = sh->cap - 1,
			.most = TRIM_PER_INSERT,
			.looks = LOOKS_PER_INSERT,
		};

		shard_trim(t, sh, txn->now_ms, &trim);
		session_entry_insert(t, sh, &s, txn->stamp);
		mirror_put(t, &s);
		watch_tell(t, s.id, txn->stamp, false);
	}
	pthread_mutex_unlock(&sh->lock);
}

bool session_forget(struct session_txn *txn)
{
	struct shard *sh = &txn->table->shard[txn->shard];

	if (txn->entry) {
		uint32_t stamp = stamp_after(sh->entry[txn->entry].stamp, txn->stamp);

		session_entry_remove(txn->table, sh, txn->entry);
		watch_tell(txn->table, txn->session.id, stamp, true);
	}
	pthread_mutex_unlock(&sh->lock);
	return txn->entry;
}

uint32_t session_note(struct session_table *t, uint64_t id, uint32_t backend, enum guard_turn turn,
		      uint64_t context, uint32_t prefill_ms)
{
	struct shard *sh = &t->shard[mix_shard(t, id_mix(t, id))];
	struct session *s;
	uint32_t i, cold = 0;

	pthread_mutex_lock(&sh->lock);
	i = entry_find(t, sh, id);
	s = &sh->entry[i].session;
	if (i && s->backend == backend) {
		s->turn = turn;
		if (context)
			s->context = context_of(context);
		s->prefill_ms = prefill_ms;
		if (turn != GUARD_TURN_COLD)
			s->cold = 0;
		else if (s->cold < UINT8_MAX)
			s->cold++;
		cold = s->cold;
	}
	pthread_mutex_unlock(&sh->lock);
	return cold;
}

void session_abort(struct session_txn *txn)
{
	pthread_mutex_unlock(&txn->table->shard[txn->shard].lock);
}

uint32_t session_sweep(struct session_table *t, uint64_t now_ms, uint32_t budget)
{
	uint32_t nr = 1U << t->shard_bits, idle = 0, total = 0;

	/* Until the budget is used up or a whole round found nothing. */
	while (budget && idle < nr) {
		uint32_t at = atomic_fetch_add_explicit(&t->sweep_at, 1, memory_order_relaxed);
		struct shard *sh = &t->shard[at % nr];
		uint32_t share = budget < SWEEP_PER_LOCK ? budget : SWEEP_PER_LOCK;
		struct trim trim = {.most = share, .looks = share};

		pthread_mutex_lock(&sh->lock);
		trim.keep = sh->cap;
		shard_trim(t, sh, now_ms, &trim);
		pthread_mutex_unlock(&sh->lock);
		/* Fewer than asked for: one more was looked at, and stayed. */
		budget -= trim.looked < share ? trim.looked + 1 : trim.looked;
		idle = trim.looked ? 0 : idle + 1;
		total += trim.gone;
	}
	return total;
}

uint32_t session_count(const struct session_table *t, uint32_t backend)
{
	return atomic_load_explicit(&t->live[backend], memory_order_relaxed);
}

uint32_t session_total(const struct session_table *t)
{
	return atomic_load_explicit(&t->total, memory_order_relaxed);
}

uint64_t session_evicted(const struct session_table *t)
{
	return atomic_load_explicit(&t->evicted, memory_order_relaxed);
}
