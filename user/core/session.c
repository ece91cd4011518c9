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
 * Never reads a clock, never allocates after session_table_new() but to sort. Longer than other
 * files, because all of it keeps the same few invariants of a shard under its lock.
 */
#include "core/session.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
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
/* Pins looked at by sweep and list under one hold of a lock: some tens of microseconds. */
#define SWEEP_PER_LOCK	       64
#define LIST_PER_LOCK	       1024
#define LIST_PER_LOCK_MIRRORED 64
#define CACHE_LINE	       64

struct entry {
	struct session session; /* backend is SESSION_NO_BACKEND while the entry is free */
	uint32_t chain;		/* next in the bucket, or in the free list */
	uint32_t newer, older;	/* ring by last use */
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
	uint32_t shard_bits, bucket_bits;
	_Atomic uint64_t ttl_ms;
	_Atomic uint64_t evicted;
	_Atomic uint32_t sweep_at; /* shard where the next sweep begins */
	_Atomic uint32_t total;
	_Atomic uint32_t live[BACKENDS_MAX];
	struct shard shard[];
};

/* SplitMix64's finaliser: any secret, also 0 or a small number, gives a multiplier with all bits
 * in play. */
static uint64_t secret_multiplier(uint64_t secret)
{
	uint64_t z = secret + 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return (z ^ (z >> 31)) | 1;
}

/* Multiply-shift hashing (Dietzfelbinger): ids are public (seed 0), the multiplier is not, and
 * two ids share a bucket with a chance of at most 2 in the number of buckets. The product's top
 * bits choose the shard, the next ones the bucket. */
static uint64_t id_mix(const struct session_table *t, uint64_t id)
{
	return id * t->multiplier;
}

static uint32_t mix_shard(const struct session_table *t, uint64_t mix)
{
	return (uint32_t)(mix >> 1 >> (63 - t->shard_bits));
}

static uint32_t *mix_bucket(const struct session_table *t, const struct shard *sh, uint64_t mix)
{
	return &sh->bucket[mix << t->shard_bits >> (64 - t->bucket_bits)];
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

/* Workers' clocks may be some milliseconds apart: a pin "of the future" is fresh. */
static bool pin_expired(const struct session_table *t, const struct session *s, uint64_t now_ms)
{
	return now_ms > s->last_used_ms &&
	       now_ms - s->last_used_ms > atomic_load_explicit(&t->ttl_ms, memory_order_relaxed);
}

static void ring_unlink(struct shard *sh, uint32_t i)
{
	struct entry *e = &sh->entry[i];

	sh->entry[e->newer].older = e->older;
	sh->entry[e->older].newer = e->newer;
}

/* The head's older neighbour is the latest used pin, its newer one the longest unused. */
static void ring_push(struct shard *sh, uint32_t i)
{
	struct entry *e = &sh->entry[i], *head = &sh->entry[0];

	e->newer = 0;
	e->older = head->older;
	sh->entry[head->older].newer = i;
	head->older = i;
}

/* Takes over what the mirror knows better. Its server is not: the table decides that one. Returns
 * true when the pin was used later than recorded. */
static bool mirror_merge(const struct session_table *t, struct session *s)
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

static bool entry_merge(const struct session_table *t, struct shard *sh, uint32_t i)
{
	if (!mirror_merge(t, &sh->entry[i].session))
		return false;
	ring_unlink(sh, i);
	ring_push(sh, i);
	return true;
}

static void mirror_put(const struct session_table *t, const struct session *s)
{
	if (t->mirror.put)
		t->mirror.put(t->mirror.arg, s);
}

static void live_add(struct session_table *t, uint32_t backend)
{
	atomic_fetch_add_explicit(&t->live[backend], 1, memory_order_relaxed);
}

static void live_sub(struct session_table *t, uint32_t backend)
{
	atomic_fetch_sub_explicit(&t->live[backend], 1, memory_order_relaxed);
}

static uint32_t entry_find(const struct session_table *t, const struct shard *sh, uint64_t id)
{
	uint32_t i = *mix_bucket(t, sh, id_mix(t, id));

	while (i && sh->entry[i].session.id != id)
		i = sh->entry[i].chain;
	return i;
}

static void entry_remove(struct session_table *t, struct shard *sh, uint32_t i)
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
	entry_remove(t, sh, i);
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
		if (entry_merge(t, sh, oldest) && !pin_expired(t, s, now_ms)) {
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
static void entry_insert(struct session_table *t, struct shard *sh, const struct session *s)
{
	uint32_t *bucket = mix_bucket(t, sh, id_mix(t, s->id));
	uint32_t i = sh->free;

	if (i)
		sh->free = sh->entry[i].chain;
	else
		i = ++sh->used;
	sh->entry[i].session = *s;
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
		entry_merge(t, sh, i);
		if (pin_expired(t, &sh->entry[i].session, now_ms)) {
			entry_remove(t, sh, i);
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

static void entry_touch(const struct session_txn *txn, struct shard *sh, uint32_t i,
			uint32_t backend)
{
	struct session_table *t = txn->table;
	struct session *s = &sh->entry[i].session;
	uint64_t now_ms = txn->now_ms;

	if (s->backend != backend) {
		live_sub(t, s->backend);
		live_add(t, backend);
		s->backend = backend;
		s->moves++;
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
		entry_insert(t, sh, &s);
		mirror_put(t, &s);
	}
	pthread_mutex_unlock(&sh->lock);
}

bool session_forget(struct session_txn *txn)
{
	struct shard *sh = &txn->table->shard[txn->shard];

	if (txn->entry)
		entry_remove(txn->table, sh, txn->entry);
	pthread_mutex_unlock(&sh->lock);
	return txn->entry;
}

void session_note(struct session_table *t, uint64_t id, uint32_t backend, enum guard_turn turn,
		  uint64_t context, uint32_t prefill_ms)
{
	struct shard *sh = &t->shard[mix_shard(t, id_mix(t, id))];
	struct session *s;
	uint32_t i;

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
	}
	pthread_mutex_unlock(&sh->lock);
}

void session_abort(struct session_txn *txn)
{
	pthread_mutex_unlock(&txn->table->shard[txn->shard].lock);
}

bool session_adopt(struct session_table *t, const struct session *s)
{
	struct shard *sh = &t->shard[mix_shard(t, id_mix(t, s->id))];
	bool taken = false;

	if (s->backend >= BACKENDS_MAX)
		return false;
	pthread_mutex_lock(&sh->lock);
	if (entry_find(t, sh, s->id))
		goto out;
	if (sh->count >= sh->cap) {
		uint32_t oldest = sh->entry[0].newer;

		if (sh->entry[oldest].session.last_used_ms >= s->last_used_ms)
			goto out;
		entry_remove(t, sh, oldest);
	}
	entry_insert(t, sh, s);
	mirror_put(t, s);
	taken = true;
out:
	pthread_mutex_unlock(&sh->lock);
	return taken;
}

static int last_used_cmp(const void *a, const void *b)
{
	const struct session *x = a, *y = b;

	return (x->last_used_ms > y->last_used_ms) - (x->last_used_ms < y->last_used_ms);
}

uint32_t session_adopt_all(struct session_table *t, struct session *s, uint32_t nr)
{
	uint32_t before = session_total(t), i;

	if (nr)
		qsort(s, nr, sizeof(*s), last_used_cmp);
	for (i = 0; i < nr; i++)
		session_adopt(t, &s[i]);
	return session_total(t) - before;
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

/* Copies from entry *at on; sets *at to the next one, or to 0 behind the shard's last. */
static uint32_t shard_list(struct session_table *t, struct shard *sh, uint64_t now_ms, uint32_t *at,
			   struct session *out, uint32_t max)
{
	uint32_t most = t->mirror.get ? LIST_PER_LOCK_MIRRORED : LIST_PER_LOCK;
	uint32_t i = *at, looked = 0, n = 0;

	pthread_mutex_lock(&sh->lock);
	for (; i <= sh->used && n < max && looked < most; i++, looked++) {
		if (sh->entry[i].session.backend == SESSION_NO_BACKEND)
			continue;
		/* Only the copy is corrected: looking must not change the ring's order. */
		out[n] = sh->entry[i].session;
		mirror_merge(t, &out[n]);
		n += !pin_expired(t, &out[n], now_ms);
	}
	*at = i <= sh->used ? i : 0;
	pthread_mutex_unlock(&sh->lock);
	return n;
}

/* The cursor is shard << 32 | entry; 0 at the entry means the shard's first. */
uint32_t session_list(struct session_table *t, uint64_t now_ms, uint64_t *cursor,
		      struct session *out, uint32_t max)
{
	uint32_t nr = 1U << t->shard_bits, n = 0;
	uint64_t shard = *cursor >> 32;
	uint32_t at = (uint32_t)*cursor;

	while (n < max && shard < nr) {
		if (!at)
			at = 1;
		n += shard_list(t, &t->shard[shard], now_ms, &at, out + n, max - n);
		if (!at)
			shard++;
	}
	*cursor = shard < nr ? shard << 32 | at : UINT64_MAX;
	return n;
}
