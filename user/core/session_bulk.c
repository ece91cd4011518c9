/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What goes into the table and out of it other than by requests: pins of a former process, pins of
 * other balancers, lists for people and files.
 */
#include <stdlib.h>

#include "core/session_private.h"

#define LIST_PER_LOCK	       1024
#define LIST_PER_LOCK_MIRRORED 64

/* Where there is room, or where it is younger than the shard's longest unused pin. */
static bool entry_adopt(struct session_table *t, struct shard *sh, const struct session *s,
			uint32_t stamp)
{
	if (sh->count >= sh->cap) {
		uint32_t oldest = sh->entry[0].newer;

		if (sh->entry[oldest].session.last_used_ms >= s->last_used_ms)
			return false;
		session_entry_remove(t, sh, oldest);
	}
	session_entry_insert(t, sh, s, stamp);
	mirror_put(t, s);
	return true;
}

bool session_adopt(struct session_table *t, const struct session *s)
{
	struct shard *sh = &t->shard[mix_shard(t, id_mix(t, s->id))];
	bool taken;

	if (s->backend >= BACKENDS_MAX)
		return false;
	pthread_mutex_lock(&sh->lock);
	taken = !entry_find(t, sh, s->id) && entry_adopt(t, sh, s, 0);
	pthread_mutex_unlock(&sh->lock);
	return taken;
}

/* ---- other balancers ---- */

uint32_t session_stamp(uint64_t real_ms)
{
	uint32_t stamp = (uint32_t)(real_ms / 10);

	return stamp ? stamp : 1;
}

int session_stamp_cmp(uint32_t a, uint32_t b)
{
	int32_t differ = (int32_t)(a - b);

	if (!a || !b)
		return (a != 0) - (b != 0);
	return (differ > 0) - (differ < 0);
}

/* Of two that hold the same session at one server. */
static enum session_merged entry_use(struct session_table *t, struct shard *sh, uint32_t i,
				     const struct session *s, uint32_t stamp)
{
	struct entry *e = &sh->entry[i];
	bool later = s->last_used_ms > e->session.last_used_ms;

	if (session_stamp_cmp(stamp, e->stamp) > 0)
		e->stamp = stamp;
	if (s->turns > e->session.turns)
		e->session.turns = s->turns;
	if (!later)
		return SESSION_MERGED_NOTHING;
	e->session.last_used_ms = s->last_used_ms;
	e->session.generation = s->generation;
	if (s->context)
		e->session.context = s->context;
	ring_unlink(sh, i);
	ring_push(sh, i);
	return SESSION_MERGED_USE;
}

static enum session_merged entry_conflict(struct session_table *t, struct shard *sh, uint32_t i,
					  const struct session *s, uint32_t stamp,
					  const uint64_t rank[BACKENDS_MAX])
{
	struct entry *e = &sh->entry[i];
	int differ = session_stamp_cmp(stamp, e->stamp);

	if (differ < 0 || (!differ && rank[s->backend] <= rank[e->session.backend]))
		return SESSION_MERGED_KEPT;
	entry_move(t, e, s->backend, stamp);
	e->session.moves = s->moves;
	e->session.generation = s->generation;
	e->session.cold = s->cold;
	entry_use(t, sh, i, s, stamp);
	return SESSION_MERGED_MOVED;
}

enum session_merged session_merge(struct session_table *t, const struct session *s, uint32_t stamp,
				  const uint64_t rank[BACKENDS_MAX], uint64_t now_ms)
{
	struct shard *sh = &t->shard[mix_shard(t, id_mix(t, s->id))];
	enum session_merged done = SESSION_MERGED_NOTHING;
	uint32_t i;

	if (s->backend >= BACKENDS_MAX || pin_expired(t, s, now_ms))
		return done;
	pthread_mutex_lock(&sh->lock);
	i = entry_find(t, sh, s->id);
	if (i) {
		session_entry_merge(t, sh, i);
		if (pin_expired(t, &sh->entry[i].session, now_ms)) {
			session_entry_remove(t, sh, i);
			i = 0;
		}
	}
	if (!i)
		done = entry_adopt(t, sh, s, stamp) ? SESSION_MERGED_NEW : done;
	else if (sh->entry[i].session.backend == s->backend)
		done = entry_use(t, sh, i, s, stamp);
	else
		done = entry_conflict(t, sh, i, s, stamp, rank);
	if (done == SESSION_MERGED_USE || done == SESSION_MERGED_MOVED)
		mirror_put(t, &sh->entry[i].session);
	pthread_mutex_unlock(&sh->lock);
	return done;
}

bool session_merge_gone(struct session_table *t, uint64_t id, uint32_t stamp)
{
	struct shard *sh = &t->shard[mix_shard(t, id_mix(t, id))];
	bool gone;
	uint32_t i;

	pthread_mutex_lock(&sh->lock);
	i = entry_find(t, sh, id);
	gone = i && session_stamp_cmp(sh->entry[i].stamp, stamp) <= 0;
	if (gone)
		session_entry_remove(t, sh, i);
	pthread_mutex_unlock(&sh->lock);
	return gone;
}

bool session_peek(struct session_table *t, uint64_t id, uint64_t now_ms, struct session *out,
		  uint32_t *stamp)
{
	struct shard *sh = &t->shard[mix_shard(t, id_mix(t, id))];
	bool found;
	uint32_t i;

	pthread_mutex_lock(&sh->lock);
	i = entry_find(t, sh, id);
	*out = sh->entry[i].session;
	*stamp = sh->entry[i].stamp;
	if (i)
		session_mirror_merge(t, out);
	found = i && !pin_expired(t, out, now_ms);
	pthread_mutex_unlock(&sh->lock);
	return found;
}

/* ---- */

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

/* Copies from entry *at on; sets *at to the next one, or to 0 behind the shard's last. */
static uint32_t shard_list(struct session_table *t, struct shard *sh, uint64_t now_ms, uint32_t *at,
			   struct session *out, uint32_t *stamp, uint32_t max)
{
	uint32_t most = t->mirror.get ? LIST_PER_LOCK_MIRRORED : LIST_PER_LOCK;
	uint32_t i = *at, looked = 0, n = 0;

	pthread_mutex_lock(&sh->lock);
	for (; i <= sh->used && n < max && looked < most; i++, looked++) {
		if (sh->entry[i].session.backend == SESSION_NO_BACKEND)
			continue;
		/* Only the copy is corrected: looking must not change the ring's order. */
		out[n] = sh->entry[i].session;
		if (stamp)
			stamp[n] = sh->entry[i].stamp;
		session_mirror_merge(t, &out[n]);
		n += !pin_expired(t, &out[n], now_ms);
	}
	*at = i <= sh->used ? i : 0;
	pthread_mutex_unlock(&sh->lock);
	return n;
}

/* The cursor is shard << 32 | entry; 0 at the entry means the shard's first. */
uint32_t session_list_stamped(struct session_table *t, uint64_t now_ms, uint64_t *cursor,
			      struct session *out, uint32_t *stamp, uint32_t max)
{
	uint32_t nr = 1U << t->shard_bits, n = 0;
	uint64_t shard = *cursor >> 32;
	uint32_t at = (uint32_t)*cursor;

	while (n < max && shard < nr) {
		if (!at)
			at = 1;
		n += shard_list(t, &t->shard[shard], now_ms, &at, out + n, stamp ? stamp + n : NULL,
				max - n);
		if (!at)
			shard++;
	}
	*cursor = shard < nr ? shard << 32 | at : UINT64_MAX;
	return n;
}
