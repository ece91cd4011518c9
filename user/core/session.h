/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Pins: which server holds which session. A hash table in shards, each under its own lock, with
 * entries allocated once for the configured maximum; the memory is touched as pins come.
 *
 * Every operation is O(1): an insert expires or evicts a bounded number of old entries of its
 * shard, which lie in order of last use. Makes no system call but for its locks; the clock is the
 * caller's.
 */
#ifndef CORE_SESSION_H
#define CORE_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "core/config.h"
#include "core/guard.h"

#define SESSION_NO_BACKEND UINT32_MAX

struct session_table;

/*
 * What is known of one session. A hundred million of them may be kept: 48 bytes, and 64 with what
 * the table needs for itself. The last five members are the ledger: what its server has cached of
 * it, and whether that was of use.
 */
struct session {
	uint64_t id;	       /* kvpin_key_hash() of its key */
	uint64_t last_used_ms; /* monotonic */
	uint64_t created_ms;
	uint32_t backend; /* slot */
	uint32_t turns;	  /* requests dispatched, this one not counted */
	uint32_t moves;	  /* times it changed server */
	uint32_t context; /* bytes of its latest request, which repeats the conversation: about what
			   * the server has cached, four to a token. UINT32_MAX at most */
	uint32_t prefill_ms; /* of the latest turn: head complete to first token */
	uint16_t generation; /* of the server's cache when it was dispatched there last: another one
			      * now means that what it held is gone */
	uint8_t cold;	     /* cold turns in a row, the latest included; 255 at most */
	uint8_t control : 1; /* in the experiment's control arm: the kernel never hears of it */
	uint8_t turn : 7;    /* enum guard_turn of the latest turn */
};

_Static_assert(sizeof(struct session) == 48, "64 bytes for each session with the table's own");

/*
 * A copy of the pins elsewhere that is used without the table hearing of it: the kernel's map.
 * The table says what is pinned where; the mirror may know of later use. Its functions are called
 * under the shard's lock, by several threads at once, and must not call back.
 */
struct session_mirror {
	void *arg;
	/* What is there now: turns, last_used_ms, backend, context; the rest of @out is not read.
	 * False: nothing. */
	bool (*get)(void *arg, uint64_t id, struct session *out);
	void (*put)(void *arg, const struct session *s); /* new, moved, used or adopted */
	void (*del)(void *arg, uint64_t id);		 /* expired or evicted */
};

/**
 * session_table_new() - an empty table
 * @max: most pins at once (at least 1)
 * @ttl_ms: a pin unused for more than this is gone (strictly more)
 * @secret: mixed into the bucket choice, so that nobody outside can aim at one bucket
 *
 * The cap is split evenly over the shards (one shard below 8192 pins, 64 from 262144 on), so a
 * table with several begins to evict when it is about 95 % full.
 *
 * Returns the table, owned by the caller (session_table_free()), or NULL.
 */
struct session_table *session_table_new(uint32_t max, uint64_t ttl_ms, uint64_t secret);
void session_table_free(struct session_table *t);

/**
 * session_table_mirror() - keep a mirror from now on; before other threads use the table
 * @m: all three functions are set; copied. NULL: none (default)
 *
 * With a mirror each operation on a pin costs a get, and a change a put or del. Pins that are in
 * the table already are not put.
 */
void session_table_mirror(struct session_table *t, const struct session_mirror *m);

/*
 * Somebody who wants to hear where sessions are put: the other balancers of a group. Called under
 * the shard's lock, by several threads at once, when a session gets a server, changes it, or is
 * forgotten by hand; not when a pin expires, nor for what session_merge() does.
 */
struct session_watch {
	void *arg;
	void (*changed)(void *arg, uint64_t id, uint32_t stamp, bool gone);
};

/** session_table_watch() - from now on; before other threads use the table; NULL: nobody */
void session_table_watch(struct session_table *t, const struct session_watch *w);

/**
 * session_stamp() - when a session got its server, on a clock that several hosts share
 * @real_ms: CLOCK_REALTIME
 *
 * Units of 10 ms modulo 2^32, as session_stamp_cmp() compares them: right for stamps that are less
 * than 248 days apart. Never 0, which is a stamp that nobody knows any more.
 */
uint32_t session_stamp(uint64_t real_ms);

/** session_stamp_cmp() - below, at or above 0: @a is older than, as old as, younger than @b; 0 is
 * older than any other */
int session_stamp_cmp(uint32_t a, uint32_t b);

enum session_merged {
	SESSION_MERGED_NOTHING, /* known, or no room for it */
	SESSION_MERGED_NEW,
	SESSION_MERGED_USE,   /* it was used there later than here */
	SESSION_MERGED_MOVED, /* another server, and the other's choice is the younger */
	SESSION_MERGED_KEPT   /* another server, and this one's choice is */
};

/**
 * session_merge() - what another balancer knows of a session
 * @s: on the table's clock and with the table's slot; its moves are the other's
 * @stamp: of its server's choice
 * @rank: of each slot's server, the same number on all hosts: of two choices with one stamp the
 *        server with the greater one wins, so that all come to the same end whoever hears first
 *
 * Last writer wins where servers differ; where they are the same the later use counts. At the cap
 * it takes the place of the shard's longest unused pin, if that is older. The order of expiry is
 * that of the calls, so a pin may outlive its TTL by one more where its use here is older than
 * others'.
 */
enum session_merged session_merge(struct session_table *t, const struct session *s, uint32_t stamp,
				  const uint64_t rank[BACKENDS_MAX], uint64_t now_ms);

/** session_merge_gone() - it was forgotten by hand elsewhere at @stamp: forget it, unless it got
 * its server later; returns whether it went */
bool session_merge_gone(struct session_table *t, uint64_t id, uint32_t stamp);

/** session_peek() - a live pin and its stamp, as they are; no use of it */
bool session_peek(struct session_table *t, uint64_t id, uint64_t now_ms, struct session *out,
		  uint32_t *stamp);

/**
 * session_adopt() - put a pin back as it was before a restart
 * @s: last_used_ms and created_ms on the table's clock; whether it has expired is not looked at
 *
 * What is pinned already stays as it is. At the cap it takes the place of the shard's longest
 * unused pin, if that is older. Call it from the longest unused pin to the latest used
 * one (session_adopt_all() does): the order of the calls becomes the order of expiry.
 *
 * Returns true when it was taken.
 */
bool session_adopt(struct session_table *t, const struct session *s);

/** session_adopt_all() - session_adopt() for each of @s, which is sorted by last use for it;
 * returns how many were taken and are still there */
uint32_t session_adopt_all(struct session_table *t, struct session *s, uint32_t nr);

/** session_table_limits() - new TTL and cap from a reload; the cap only up to the one allocated,
 * and at least one pin a shard; returns the cap in force. What is over a lowered cap goes by and
 * by, with inserts and sweeps. */
uint32_t session_table_limits(struct session_table *t, uint32_t max, uint64_t ttl_ms);

/* A transaction on one session: holds its shard's lock from begin to commit or abort, so that
 * parallel first requests of one session agree. Keep it short: no system call in between. */
struct session_txn {
	struct session_table *table;
	struct session session; /* as found; backend is SESSION_NO_BACKEND when there is no pin */
	uint32_t shard;
	uint32_t entry;
	uint64_t now_ms;
	bool again; /* set it before the commit: the same request once more, not another turn */
	uint16_t generation; /* set it before the commit: of the server's cache */
	bool control;	     /* set it before the commit */
	uint64_t context;    /* set it before the commit: bytes of the request; 0: not known */
	uint32_t stamp;	     /* set it before the commit, and before forgetting: session_stamp() */
};

/**
 * session_begin() - look a session up and lock it
 * @t: table
 * @id: kvpin_key_hash() of the key
 * @now_ms: monotonic
 * @txn: set; must be ended by session_commit() or session_abort()
 *
 * Returns true when a live pin was found.
 */
bool session_begin(struct session_table *t, uint64_t id, uint64_t now_ms, struct session_txn *txn);

/**
 * session_commit() - bind the session to a server, mark it used, count the turn
 * @backend: slot
 *
 * Creates, touches or moves the pin. At the cap the longest unused pin of the shard goes; with a
 * mirror, the longest unused one of the first few.
 */
void session_commit(struct session_txn *txn, uint32_t backend);

/** session_forget() - end a transaction and remove the pin; returns whether there was one */
bool session_forget(struct session_txn *txn);

/**
 * session_note() - write a turn into the session's ledger
 * @backend: where it was; nothing is written when the session has moved since, or is gone
 * @turn, @context, @prefill_ms: as in struct session; @prefill_ms 0: no token came
 *
 * Does not count as use. Returns the cold turns in a row, this one included; 0 where nothing was
 * written.
 */
uint32_t session_note(struct session_table *t, uint64_t id, uint32_t backend, enum guard_turn turn,
		      uint64_t context, uint32_t prefill_ms);

/** session_abort() - end a transaction and change nothing */
void session_abort(struct session_txn *txn);

/**
 * session_sweep() - remove expired pins, and what is over a lowered cap
 * @budget: entries looked at, at most; with a mirror, those it keeps alive included
 *
 * Returns how many went. The caller repeats it from a timer.
 */
uint32_t session_sweep(struct session_table *t, uint64_t now_ms, uint32_t budget);

/** session_count() - pins of one server, expired ones that nobody removed yet included; any
 * thread */
uint32_t session_count(const struct session_table *t, uint32_t backend);

/** session_total() - all pins */
uint32_t session_total(const struct session_table *t);

/** session_evicted() - pins that fell to the cap before their TTL, since start */
uint64_t session_evicted(const struct session_table *t);

/**
 * session_list() - copy pins out, for people
 * @cursor: 0 at first; updated, so that a next call goes on; UINT64_MAX at the end
 * @out: room for @max entries
 * @stamp: room for @max, or NULL
 *
 * Locks one shard at a time. Returns the number of entries set.
 */
uint32_t session_list_stamped(struct session_table *t, uint64_t now_ms, uint64_t *cursor,
			      struct session *out, uint32_t *stamp, uint32_t max);

/** session_list() - the same without stamps */
static inline uint32_t session_list(struct session_table *t, uint64_t now_ms, uint64_t *cursor,
				    struct session *out, uint32_t max)
{
	return session_list_stamped(t, now_ms, cursor, out, NULL, max);
}

#endif
