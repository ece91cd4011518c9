/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A worker: one thread, one event loop, its listeners (SO_REUSEPORT) and its client connections.
 * A connection never leaves its worker, so nothing in it is locked.
 */
#ifndef NET_WORKER_H
#define NET_WORKER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <uv.h>

#include "base/addr.h"
#include "base/buf.h"
#include "base/list.h"
#include "core/config.h"
#include "core/decide.h"
#include "net/balancer.h"
#include "net/explain.h"
#include "net/sock.h"
#include "net/stats.h"
#include "net/splice.h"
#include "net/steer.h"

struct worker {
	struct balancer *balancer;
	unsigned int index;
	const struct config *config;	     /* as this worker sees it; swapped between events */
	_Atomic(const struct config *) seen; /* the same, for the main thread */
	uv_thread_t thread;
	bool started;
	uv_loop_t loop;
	uv_async_t wake;
	_Atomic bool drain, stop; /* asked for by the main thread */
	_Atomic bool closed;	  /* so it was: the listeners, and their last client is counted */
	bool draining;
	unsigned int nr_listen;
	struct sock listen[LISTEN_MAX];
	unsigned int accept_batch;
	uv_timer_t accept_pause; /* out of descriptors: try again a little later */
	uint64_t short_ms;	 /* when worker_short() may speak again */
	struct list conns;
	struct wait_worker wait;
	struct explain_ring *explain;
	struct steer_worker steer;
	struct splice_worker splice;
	struct buf_pool pool;
	struct decide_input decide_in; /* scratch, too large for a stack frame on the hot path */
	struct explain_record record;  /* the latest decision, kept as such */
	uint8_t edit[KVPIN_HEAD_BYTES_MAX + BUF_HEADROOM]; /* scratch of head_edit */
	struct worker_stats *stats;
};

/**
 * worker_new() - a worker with its loop and listeners, not yet running
 * @b: balancer; @index: its place there
 * @fds: listening sockets, owned by the worker on success, by the caller on failure
 *
 * Returns 0 and sets @out, or -errno.
 */
int worker_new(struct balancer *b, unsigned int index, const int *fds, unsigned int nr_fds,
	       struct worker **out);

/** worker_start() - run it in a thread of its own; 0 or -errno */
int worker_start(struct worker *w);

/** worker_wake() - make it look at drain, stop and the published configuration; any thread */
void worker_wake(struct worker *w);

/** worker_short() - log that this host has not enough for @what, at most once a second */
void worker_short(struct worker *w, const char *what, int err);

/** worker_free() - wait for the thread (stop must be set) and free all; NULL is fine */
void worker_free(struct worker *w);

#endif
