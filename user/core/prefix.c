/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The prefix index. All nodes stand in one list by last use; a chain enters it with its first
 * window in front, so nodes of one chain are neighbours and move to the front together.
 *
 * `leaves` counts the distinct continuations below a node: it grows along the path when a chain
 * branches off from another, and shrinks when a branch goes. That is what tells a system prompt,
 * which hundreds of sessions continue in their own way, from one session's history.
 */
#include "core/prefix.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#define NONE UINT32_MAX
/* Nodes fetched ahead on the way from child to parent. */
#define AHEAD 12

struct node {
	uint64_t hash;
	uint64_t used_ms;
	uint32_t next;	       /* in its bucket; of a free one: the next free one */
	uint32_t parent;       /* NONE: the chain's first window */
	uint32_t newer, older; /* by last use */
	uint32_t children;
	uint32_t leaves; /* nodes without children at or below this one */
	uint32_t slot;	 /* the last server that was given it */
	uint32_t generation;
};

_Static_assert(sizeof(struct node) == 48, "a million of them");

/* What one server was given lately. */
struct weight {
	double sum; /* as of at_ms */
	uint64_t at_ms;
	uint32_t generation;
};

struct prefix_index {
	pthread_mutex_t lock;
	uint64_t ttl_ms, secret;
	uint32_t allocated, max, nr;
	uint32_t touched; /* nodes that were ever in use */
	uint32_t free;
	uint32_t newest, oldest;
	uint32_t mask;
	uint64_t sweep_ms; /* when the next sweep begins */
	struct weight weight[BACKENDS_MAX];
	uint32_t *bucket;
	struct node *node;
};

/* ---- the chain ---- */

uint32_t prefix_chain(const void *salt, size_t salt_len, const uint8_t *text, size_t len,
		      uint64_t *out, uint32_t max)
{
	uint64_t windows = len / PREFIX_WINDOW_BYTES;
	XXH64_state_t state;
	uint32_t i;

	for (i = 0; i < max && i < windows; i++) {
		XXH64_reset(&state, 0);
		if (i)
			XXH64_update(&state, &out[i - 1], sizeof(out[0]));
		else if (salt_len)
			XXH64_update(&state, salt, salt_len);
		XXH64_update(&state, text + (size_t)i * PREFIX_WINDOW_BYTES, PREFIX_WINDOW_BYTES);
		out[i] = XXH64_digest(&state);
	}
	return i;
}

/* ---- life ---- */

struct prefix_index *prefix_index_new(uint32_t max, uint64_t ttl_ms, uint64_t secret)
{
	struct prefix_index *p = calloc(1, sizeof(*p));
	uint32_t buckets = 1;

	if (!p)
		return NULL;
	while (buckets < max)
		buckets *= 2;
	p->mask = buckets - 1;
	p->bucket = malloc((size_t)buckets * sizeof(*p->bucket));
	p->node = malloc((size_t)max * sizeof(*p->node));
	if (!p->bucket || !p->node) {
		free(p->bucket);
		free(p->node);
		free(p);
		return NULL;
	}
	memset(p->bucket, 0xff, (size_t)buckets * sizeof(*p->bucket));
	p->allocated = p->max = max;
	p->ttl_ms = ttl_ms;
	p->secret = secret;
	p->free = p->newest = p->oldest = NONE;
	pthread_mutex_init(&p->lock, NULL);
	return p;
}

void prefix_index_free(struct prefix_index *p)
{
	if (!p)
		return;
	pthread_mutex_destroy(&p->lock);
	free(p->bucket);
	free(p->node);
	free(p);
}

uint32_t prefix_index_limits(struct prefix_index *p, uint32_t max, uint64_t ttl_ms)
{
	pthread_mutex_lock(&p->lock);
	p->ttl_ms = ttl_ms;
	p->max = max < p->allocated ? max : p->allocated;
	p->sweep_ms = 0;
	pthread_mutex_unlock(&p->lock);
	return max < p->allocated ? max : p->allocated;
}

/* ---- buckets ---- */

/* Nobody outside may aim at one bucket. */
static uint32_t *bucket_of(const struct prefix_index *p, uint64_t hash)
{
	hash = (hash ^ p->secret) * 0x9e3779b97f4a7c15ULL;
	hash = (hash ^ hash >> 32) * 0xd6e8feb86659fd93ULL;
	return &p->bucket[(hash >> 32) & p->mask];
}

static uint32_t node_find(const struct prefix_index *p, uint64_t hash, uint32_t parent)
{
	uint32_t i = *bucket_of(p, hash);

	/* Another parent: 64 bits that are equal by chance. */
	while (i != NONE && (p->node[i].hash != hash || p->node[i].parent != parent))
		i = p->node[i].next;
	return i;
}

static bool node_expired(const struct prefix_index *p, const struct node *n, uint64_t now_ms)
{
	return now_ms > n->used_ms && now_ms - n->used_ms > p->ttl_ms;
}

/* The same whatever the parent: all but certainly the one, for a hash covers all before it. */
static uint32_t node_of_hash(const struct prefix_index *p, uint64_t hash)
{
	uint32_t i = *bucket_of(p, hash);

	while (i != NONE && p->node[i].hash != hash)
		i = p->node[i].next;
	return i;
}

/* Window by window, certain in any case. */
static uint32_t path_find_slowly(const struct prefix_index *p, const uint64_t *chain, uint32_t nr,
				 uint32_t *path)
{
	uint32_t i;

	for (i = 0; i < nr; i++) {
		path[i] = node_find(p, chain[i], i ? path[i - 1] : NONE);
		if (path[i] == NONE)
			break;
	}
	return i;
}

/* The nodes of a chain, as far as they are there; returns how many. Where one is, all before it
 * are: so the last is found by halving, and the others from child to parent, which mostly are
 * neighbours in memory. In a large index each node that is looked up by its hash costs two cache
 * misses; 64 of them would be three microseconds. */
static uint32_t path_find(const struct prefix_index *p, const uint64_t *chain, uint32_t nr,
			  uint32_t *path)
{
	uint32_t there = 0, absent = nr + 1, probe = nr, last = NONE, at, i;

	if (!nr || node_of_hash(p, chain[0]) == NONE)
		return 0;
	while (absent - there > 1) {
		i = node_of_hash(p, chain[probe - 1]);
		if (i != NONE) {
			there = probe;
			last = i;
		} else {
			absent = probe;
		}
		probe = there + (absent - there) / 2;
	}
	for (at = there, i = last; at-- && i != NONE; i = p->node[i].parent) {
		/* A chain's nodes were mostly taken one after the other. */
		__builtin_prefetch(&p->node[i > AHEAD ? i - AHEAD : 0]);
		if (p->node[i].hash != chain[at])
			break;
		path[at] = i;
	}
	/* Else two hashes of 64 bits were equal by chance. */
	if (at == UINT32_MAX && i == NONE)
		return there;
	return path_find_slowly(p, chain, nr, path);
}

/* ---- weights ---- */

/* What one window still counts after so long; neighbours mostly have the same age. */
struct decay {
	uint64_t age_ms;
	double factor;
};

static double decay(struct decay *d, uint64_t age_ms)
{
	if (age_ms != d->age_ms || d->factor == 0) {
		d->age_ms = age_ms;
		d->factor = exp2(-(double)age_ms / PREFIX_HALF_LIFE_MS);
	}
	return d->factor;
}

static uint64_t since(uint64_t then_ms, uint64_t now_ms)
{
	return now_ms > then_ms ? now_ms - then_ms : 0;
}

static double weight_now(const struct weight *w, uint64_t now_ms)
{
	return w->sum * exp2(-(double)since(w->at_ms, now_ms) / PREFIX_HALF_LIFE_MS);
}

static void weight_add(struct prefix_index *p, uint32_t slot, uint32_t generation, double what,
		       uint64_t now_ms)
{
	struct weight *w = &p->weight[slot];

	if (w->generation != generation) {
		/* What the former process was given is lost, and a late word of it is none. */
		if (what < 0 || (int32_t)(generation - w->generation) < 0)
			return;
		*w = (struct weight){.generation = generation, .at_ms = now_ms};
	}
	if (w->at_ms != now_ms) {
		w->sum = weight_now(w, now_ms);
		w->at_ms = now_ms;
	}
	/* Differences of many small numbers end near zero, not at it. */
	w->sum = w->sum + what > 0 ? w->sum + what : 0;
}

/* ---- the list by last use ---- */

/* Cut the run out: @first is its newest node, @last its oldest. */
static void run_cut(struct prefix_index *p, uint32_t first, uint32_t last)
{
	uint32_t newer = p->node[first].newer, older = p->node[last].older;

	*(newer == NONE ? &p->newest : &p->node[newer].older) = older;
	*(older == NONE ? &p->oldest : &p->node[older].newer) = newer;
}

static void run_to_front(struct prefix_index *p, uint32_t first, uint32_t last)
{
	if (p->newest == first)
		return;
	run_cut(p, first, last);
	p->node[first].newer = NONE;
	p->node[last].older = p->newest;
	*(p->newest == NONE ? &p->oldest : &p->node[p->newest].newer) = last;
	p->newest = first;
}

/* Into the list behind its parent, or in front of all. */
static void list_enter(struct prefix_index *p, uint32_t i, uint32_t parent)
{
	uint32_t older = parent == NONE ? p->newest : p->node[parent].older;

	p->node[i].newer = parent;
	p->node[i].older = older;
	*(parent == NONE ? &p->newest : &p->node[parent].older) = i;
	*(older == NONE ? &p->oldest : &p->node[older].newer) = i;
}

/* The path's nodes to the front, the first window foremost: deepest run first. */
static void path_to_front(struct prefix_index *p, const uint32_t *path, uint32_t nr)
{
	while (nr) {
		uint32_t last = nr - 1, first = last;

		while (first && p->node[path[first]].newer == path[first - 1])
			first--;
		run_to_front(p, path[first], path[last]);
		nr = first;
	}
}

/* ---- nodes ---- */

static void leaves_add(struct prefix_index *p, uint32_t i, int n)
{
	for (; i != NONE; i = p->node[i].parent)
		p->node[i].leaves += n;
}

/* Of a node without children. Returns its parent. */
static uint32_t node_remove(struct prefix_index *p, uint32_t i, uint64_t now_ms)
{
	struct node *n = &p->node[i];
	uint32_t *at = bucket_of(p, n->hash), parent = n->parent;

	while (*at != i)
		at = &p->node[*at].next;
	*at = n->next;
	run_cut(p, i, i);
	weight_add(p, n->slot, n->generation,
		   -exp2(-(double)since(n->used_ms, now_ms) / PREFIX_HALF_LIFE_MS), now_ms);
	n->next = p->free;
	p->free = i;
	p->nr--;
	if (parent != NONE && --p->node[parent].children)
		leaves_add(p, parent, -1);
	return parent;
}

/* Does it tell nobody anything any more? */
static bool node_empty(const struct prefix_index *p, uint32_t i, uint64_t now_ms)
{
	const struct node *n = &p->node[i];

	return !n->children &&
	       (node_expired(p, n, now_ms) || n->generation != p->weight[n->slot].generation);
}

/* The longest unused leaf, and the ancestors that it leaves empty. */
static void evict(struct prefix_index *p, uint64_t now_ms)
{
	uint32_t i = p->oldest;

	do
		i = node_remove(p, i, now_ms);
	while (i != NONE && node_empty(p, i, now_ms));
}

static uint32_t node_take(struct prefix_index *p)
{
	uint32_t i = p->free;

	if (i == NONE)
		return p->touched++;
	p->free = p->node[i].next;
	return i;
}

static uint32_t node_add(struct prefix_index *p, uint64_t hash, uint32_t parent)
{
	uint32_t i = node_take(p), *bucket = bucket_of(p, hash);

	p->node[i] = (struct node){.hash = hash, .next = *bucket, .parent = parent, .leaves = 1};
	*bucket = i;
	/* A first child continues what was a leaf; a second one is another continuation. */
	if (parent != NONE && p->node[parent].children++)
		leaves_add(p, parent, 1);
	list_enter(p, i, parent);
	p->nr++;
	return i;
}

static void node_own(struct node *n, uint32_t slot, uint32_t generation, uint64_t now_ms)
{
	n->slot = slot;
	n->generation = generation;
	n->used_ms = now_ms;
}

/* ---- what others call ---- */

static void lookup(const struct prefix_index *p, const uint64_t *chain, uint32_t nr,
		   const uint32_t *generation, uint32_t common, uint64_t now_ms,
		   struct prefix_match *out)
{
	uint32_t path[PREFIX_WINDOWS_MAX], depth = path_find(p, chain, nr, path), i;

	for (i = 0; i < depth && !node_expired(p, &p->node[path[i]], now_ms); i++) {
		const struct node *n = &p->node[path[i]];

		if (common && n->leaves >= common)
			out->shared = i + 1;
		else if (n->generation == generation[n->slot])
			out->depth[n->slot] = i + 1;
	}
	for (i = 0; i < BACKENDS_MAX; i++)
		if (p->weight[i].sum > 0 && p->weight[i].generation == generation[i])
			out->weight[i] = weight_now(&p->weight[i], now_ms);
}

void prefix_lookup(struct prefix_index *p, const uint64_t *chain, uint32_t nr,
		   const uint32_t generation[BACKENDS_MAX], uint32_t common, uint64_t now_ms,
		   struct prefix_match *out)
{
	if (nr > PREFIX_WINDOWS_MAX)
		nr = PREFIX_WINDOWS_MAX;
	out->windows = nr;
	out->shared = 0;
	memset(out->depth, 0, sizeof(out->depth));
	memset(out->weight, 0, sizeof(out->weight));
	pthread_mutex_lock(&p->lock);
	lookup(p, chain, nr, generation, common, now_ms, out);
	pthread_mutex_unlock(&p->lock);
}

static void insert(struct prefix_index *p, const uint64_t *chain, uint32_t nr, uint32_t slot,
		   uint32_t generation, uint64_t now_ms)
{
	uint32_t path[PREFIX_WINDOWS_MAX], depth = path_find(p, chain, nr, path), i;
	struct decay memo = {0};

	/* First: it tells which generation of the server's cache is the present one. */
	weight_add(p, slot, generation, nr, now_ms);
	path_to_front(p, path, depth);
	for (i = 0; i < depth; i++) {
		struct node *n = &p->node[path[i]];

		weight_add(p, n->slot, n->generation, -decay(&memo, since(n->used_ms, now_ms)),
			   now_ms);
		node_own(n, slot, generation, now_ms);
	}
	for (; i < nr; i++) {
		/* The path itself is in front and shorter than the cap: never its own victim. */
		while (p->nr >= p->max)
			evict(p, now_ms);
		path[i] = node_add(p, chain[i], i ? path[i - 1] : NONE);
		node_own(&p->node[path[i]], slot, generation, now_ms);
	}
}

void prefix_insert(struct prefix_index *p, const uint64_t *chain, uint32_t nr, uint32_t slot,
		   uint32_t generation, uint64_t now_ms)
{
	if (!nr)
		return;
	if (nr > PREFIX_WINDOWS_MAX)
		nr = PREFIX_WINDOWS_MAX;
	pthread_mutex_lock(&p->lock);
	insert(p, chain, nr, slot, generation, now_ms);
	pthread_mutex_unlock(&p->lock);
}

uint32_t prefix_sweep(struct prefix_index *p, uint64_t now_ms, uint32_t budget)
{
	uint32_t gone = 0;

	pthread_mutex_lock(&p->lock);
	if (now_ms >= p->sweep_ms) {
		while (gone < budget && p->oldest != NONE &&
		       (p->nr > p->max || node_expired(p, &p->node[p->oldest], now_ms))) {
			node_remove(p, p->oldest, now_ms);
			gone++;
		}
		if (gone < budget)
			p->sweep_ms = now_ms + p->ttl_ms / 2;
	}
	pthread_mutex_unlock(&p->lock);
	return gone;
}

uint32_t prefix_count(struct prefix_index *p)
{
	uint32_t nr;

	pthread_mutex_lock(&p->lock);
	nr = p->nr;
	pthread_mutex_unlock(&p->lock);
	return nr;
}
