/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A table of sessions to look into: its source is included, so that the length of a bucket's chain
 * and the books of a shard can be seen. Included by test programs, after cmocka.h.
 */
#ifndef UNIT_SESSION_CASE_H
#define UNIT_SESSION_CASE_H

#include "core/session.c"
#include "kvpin_key.h"

#define TTL 1000
/* Load factor at most 1: of a million chains the longest has some 10 entries. */
#define CHAIN_MAX 16

static inline struct session_table *new_table(uint32_t max, uint64_t ttl_ms)
{
	struct session_table *t = session_table_new(max, ttl_ms, 0x5ec7e7);

	assert_non_null(t);
	return t;
}

/* Binds, and returns where the session was before. */
static inline uint32_t bind_to(struct session_table *t, uint64_t id, uint32_t backend,
			       uint64_t now_ms)
{
	struct session_txn txn;

	session_begin(t, id, now_ms, &txn);
	session_commit(&txn, backend);
	return txn.session.backend;
}

static inline struct session look(struct session_table *t, uint64_t id, uint64_t now_ms)
{
	struct session_txn txn;
	bool found = session_begin(t, id, now_ms, &txn);

	session_abort(&txn);
	assert_int_equal(found, txn.session.backend != SESSION_NO_BACKEND);
	assert_true(txn.session.id == id);
	return txn.session;
}

static inline bool there(struct session_table *t, uint64_t id, uint64_t now_ms)
{
	return look(t, id, now_ms).backend != SESSION_NO_BACKEND;
}

static inline uint64_t random_id(uint64_t i)
{
	return XXH64(&i, sizeof(i), 42);
}

/* Per-server counts, total, and what a walk finds must be one. */
static inline void assert_consistent(struct session_table *t)
{
	uint32_t live[BACKENDS_MAX] = {0}, total = 0, i, b;

	for (i = 0; i < 1U << t->shard_bits; i++) {
		struct shard *sh = &t->shard[i];
		uint32_t at, ring = 0, chained = 0, given_back = 0;

		for (at = sh->entry[0].newer; at; at = sh->entry[at].newer) {
			assert_true(sh->entry[at].session.backend < BACKENDS_MAX);
			live[sh->entry[at].session.backend]++;
			ring++;
		}
		for (b = 0; b < 1U << t->bucket_bits; b++)
			for (at = sh->bucket[b]; at; at = sh->entry[at].chain)
				chained++;
		for (at = sh->free; at; at = sh->entry[at].chain)
			given_back++;
		assert_int_equal(ring, sh->count);
		assert_int_equal(chained, sh->count);
		assert_int_equal(given_back + sh->count, sh->used);
		assert_true(sh->used <= sh->room);
		total += ring;
	}
	assert_int_equal(session_total(t), total);
	for (b = 0; b < BACKENDS_MAX; b++)
		assert_int_equal(session_count(t, b), live[b]);
}

static inline uint32_t longest_chain(const struct session_table *t)
{
	uint32_t longest = 0, i, b, at;

	for (i = 0; i < 1U << t->shard_bits; i++) {
		for (b = 0; b < 1U << t->bucket_bits; b++) {
			uint32_t n = 0;

			for (at = t->shard[i].bucket[b]; at; at = t->shard[i].entry[at].chain)
				n++;
			longest = n > longest ? n : longest;
		}
	}
	return longest;
}

#endif
