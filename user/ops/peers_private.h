/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the files of the peers share: peers.c (life), peer_out.c (telling), peer_in.c (listening).
 */
#ifndef OPS_PEERS_PRIVATE_H
#define OPS_PEERS_PRIVATE_H

#include <uv.h>

#include "core/peer_record.h"
#include "ops/peers.h"

#define PEER_SECRET_MAX 128
/* Changes that are remembered for peers that are slow or away; more, and they are told everything.
 */
#define PEER_CHANGES 65536
/* Told at a time, at most every PEER_TICK_MS: 5 MB a second, 50,000 pins. */
#define PEER_BATCH_BYTES (256 * 1024)
#define PEER_TICK_MS	 50
#define PEER_BEAT_MS	 1000
/* A peer that is silent or does not take what is sent for so long is away. */
#define PEER_SILENCE_MS 10000
#define PEER_RETRY_MS	1000
/* How often uses are told; a pin that is used at one host only must not expire at the others. */
#define PEER_REFRESH_MS 60000

struct peer_change {
	uint64_t id;
	uint32_t stamp;
	bool gone;
};

enum peer_out_state { PEER_OUT_DOWN, PEER_OUT_CONNECTING, PEER_OUT_HELLO, PEER_OUT_UP };

/* One of peers.to. */
struct peer_out {
	struct peers *peers;
	struct addr addr;
	char text[ADDR_TEXT_MAX];
	enum peer_out_state state;
	bool said;     /* that it is away */
	uv_tcp_t *tcp; /* of its own memory: it may close while the next one opens */
	uv_connect_t connect;
	uv_write_t write;
	bool writing;
	uint64_t since_ms;  /* of the state, and of the last write */
	uint64_t at;	    /* changes told */
	bool walking, full; /* through the table: all pins, or those used since walk_ms */
	uint64_t cursor, walk_ms, last_walk_ms, reloads;
	char in[8];
	char *batch;
	_Atomic bool up;
	_Atomic uint64_t sent, failures;
};

/* A connection from one of them. */
struct peer_in {
	struct peers *peers;
	uv_tcp_t tcp;
	uv_write_t write;
	uint64_t heard_ms;
	bool known;	  /* said the secret */
	uint64_t reloads; /* the slots below are of this configuration */
	unsigned int nr_tags;
	struct {
		uint64_t tag;
		uint32_t slot;
	} tag[BACKENDS_MAX];
	struct peer_in *next;
	size_t len;
	char buf[16384];
};

struct peers {
	struct balancer *balancer;
	pthread_rwlock_t *lock;
	char secret[PEER_SECRET_MAX];
	struct addr listen;
	int fd; /* -1: none, or the loop's */
	pthread_t thread;
	bool running;
	uv_loop_t loop;
	uv_async_t stop;
	uv_timer_t tick;
	uv_tcp_t listener;
	unsigned int nr_out, nr_in;
	struct peer_out out[PEERS_MAX];
	struct peer_in *in;

	pthread_mutex_t mutex; /* the two below; a leaf */
	struct peer_change *change;
	uint64_t changes;

	_Atomic uint64_t received, merged, conflicts, unknown, refused;
};

/* peer_out.c: all by the loop's thread. */
void peer_out_init(struct peers *p, struct peer_out *o, const struct addr *addr);
void peer_out_tick(struct peer_out *o, uint64_t now_ms);
void peer_out_down(struct peer_out *o, const char *why);

/* peer_in.c: likewise. */
void peer_in_accept(struct peers *p);
void peer_in_tick(struct peers *p, uint64_t now_ms);
void peer_in_close_all(struct peers *p);

#endif
