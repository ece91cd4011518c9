/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which server holds the head of this prompt? A prompt becomes a chain of hashes, one for each
 * window of 256 bytes, each of them covering all before it; a radix index knows for every node
 * that was seen which server got it last. A node is found by its hash alone, so the tree is a hash
 * table whose nodes know their parents.
 *
 * A node counts while it is not older than the TTL (age == TTL counts) and while its server has
 * not lost its cache since (struct backend's generation). Ancestors are always at least as fresh
 * as what is below them, so the longest unused node is always a leaf.
 *
 * Safe for all threads: one lock, held for a microsecond or so. The clock is the caller's.
 */
#ifndef CORE_PREFIX_H
#define CORE_PREFIX_H

#include <stdint.h>

#include "core/config.h"

/* Bytes of a window. Smaller ones cost more nodes; larger ones end the match earlier. */
#define PREFIX_WINDOW_BYTES 256
/* Windows of a chain at most; the default is 64: the first 16 KiB tell sessions apart. */
#define PREFIX_WINDOWS_MAX PREFIX_WINDOWS_LIMIT

/* What the index says of one request, and by which rules it is used; part of decide()'s input. */
struct prefix_match {
	uint32_t windows; /* of the request; 0: it has no chain, or nothing is to be looked up */
	uint32_t shared;  /* leading windows that most sessions have in common: they do not count */
	uint32_t depth[BACKENDS_MAX]; /* windows up to the last that the slot owns; 0: none */
	double weight[BACKENDS_MAX];  /* what the slot was given lately: each window counts half
				       * after PREFIX_HALF_LIFE_MS */
	double min_match;	      /* hot from this share of the windows that count */
	uint32_t guard_abs;	      /* load guard: see decide_prefix() */
	double guard_rel;
};

#define PREFIX_HALF_LIFE_MS 120000

/**
 * prefix_chain() - the hashes of a prompt's windows
 * @salt, @salt_len: the model's name
 * @text, @len: the prompt from its first byte
 * @out: room for @max hashes
 *
 * h0 = XXH64(salt, window 0), hi = XXH64(h(i-1) as 8 little-endian bytes, window i), seed 0, the
 * two parts one after the other. Windows are [0,256), [256,512), ...; what does not fill one is no
 * part of the chain, for the next turn will change it. Returns how many.
 */
uint32_t prefix_chain(const void *salt, size_t salt_len, const uint8_t *text, size_t len,
		      uint64_t *out, uint32_t max);

struct prefix_index;

/**
 * prefix_index_new() - an empty index
 * @max: most nodes, at least 2 * PREFIX_WINDOWS_MAX; memory is touched as they come (56 bytes each)
 * @ttl_ms: strictly more than this since its last use, and a node counts no more
 * @secret: mixed into the choice of buckets
 *
 * Returns the index, owned by the caller (prefix_index_free()), or NULL.
 */
struct prefix_index *prefix_index_new(uint32_t max, uint64_t ttl_ms, uint64_t secret);
void prefix_index_free(struct prefix_index *p);

/** prefix_index_limits() - new TTL and cap from a reload; the cap only up to the one allocated;
 * returns the cap in force */
uint32_t prefix_index_limits(struct prefix_index *p, uint32_t max, uint64_t ttl_ms);

/**
 * prefix_lookup() - what is known of a chain
 * @p: index
 * @chain, @nr: of prefix_chain()
 * @generation: of each slot's cache now
 * @common: a node with so many distinct continuations or more is shared by most; 0: none is
 * @now_ms: monotonic
 * @out: windows, shared, depth and weight are set. Within the shared windows no depth is told.
 */
void prefix_lookup(struct prefix_index *p, const uint64_t *chain, uint32_t nr,
		   const uint32_t generation[BACKENDS_MAX], uint32_t common, uint64_t now_ms,
		   struct prefix_match *out);

/**
 * prefix_insert() - a server was given this chain: it owns every node of it
 * @slot, @generation: the server, and of its cache
 *
 * At the cap the longest unused nodes go, and ancestors that are then empty of use. An empty chain
 * changes nothing.
 */
void prefix_insert(struct prefix_index *p, const uint64_t *chain, uint32_t nr, uint32_t slot,
		   uint32_t generation, uint64_t now_ms);

/**
 * prefix_sweep() - remove nodes that are too old
 * @budget: nodes removed at most
 *
 * Begins anew every TTL / 2, and goes on from call to call until nothing is left to remove.
 * Returns how many went.
 */
uint32_t prefix_sweep(struct prefix_index *p, uint64_t now_ms, uint32_t budget);

/** prefix_count() - nodes now; any thread */
uint32_t prefix_count(struct prefix_index *p);

#endif
