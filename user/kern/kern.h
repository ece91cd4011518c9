/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel side as the daemon holds it: loaded programs, maps, and their pins. Everything about
 * libbpf stays in this room; what the maps mean stands in include/kvpin_abi.h and include/ABI.md.
 *
 * Happy path: kern_open() loads, pins and attaches; the data side reads and writes the mapped
 * arrays without system calls; kern_close() takes all of it down.
 * Failures: a reason as text and a negative errno; nothing is left behind.
 */
#ifndef KERN_KERN_H
#define KERN_KERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "kern/rings.h"
#include "kvpin_abi.h"

struct kern_params {
	const char *pin_dir; /* e.g. /sys/fs/bpf/kvpin; created 0700 */
	uint32_t conns;	     /* client connections that can be steered at once */
	uint32_t upstreams;  /* connections to servers of those */
	uint32_t sessions;   /* pins */
	uint32_t holds;	     /* requests whose answer has not begun */
	uint32_t workers;    /* rings */
	uint32_t ring_bytes; /* of each; a power of two */
	/* Who gets the pins: whom privilege_drop() makes of root. 0: whoever opens. */
	uid_t uid;
	gid_t gid;
	const uint64_t *ttft_le_ns, *gap_le_ns; /* KVPIN_HIST_BUCKETS - 1 upper bounds each */
};

struct kern_private;

/* One per process. The arrays are mapped shared memory that the programs write too. */
struct kern {
	struct kern_private *private;
	struct kvpin_conn *conns;
	struct kvpin_upstream *upstreams;
	struct kvpin_backend *backends; /* KVPIN_BACKENDS_MAX */
	struct kvpin_config *config;
	struct kvpin_hold *holds;
	uint32_t nr_conns, nr_upstreams, nr_holds;
	int sockets_fd, draining_fd, cookies_fd, sessions_fd, free_holds_fd;
	struct kern_rings rings;
};

/**
 * kern_open() - load the programs, create and pin the maps, attach
 * @k: zeroed, owned by the caller; filled on success
 * @p: sizes; nothing of it is kept
 * @why: on failure a text that names the step and the fix
 * @why_bytes: room in @why
 *
 * Needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON. Pins are made in a directory of their own, which is
 * renamed to @p->pin_dir once all is there; a lock on that directory tells a living daemon from a
 * dead one. Of a dead one the sessions are read (kern_adopt()), then its pins are removed.
 *
 * Returns 0; -EBUSY when another daemon holds the directory, -EPERM without the privileges,
 * -EOPNOTSUPP when the kernel lacks something, or another -errno. On failure nothing is left.
 */
int kern_open(struct kern *k, const struct kern_params *p, char *why, size_t why_bytes);

/** kern_close() - detach, remove the pins, unmap; @k may be zeroed. No socket may be in the maps.
 */
void kern_close(struct kern *k);

/** kern_sock_add() - put a socket into the sockhash and the cookies map
 * @fd: an ESTABLISHED TCP socket
 * @key: where it stands in the sockhash
 * @cookie: its own cookie; @ref: what the programs find by it
 *
 * Returns 0 or -errno (-EOPNOTSUPP: not ESTABLISHED; -E2BIG: the map is full). */
int kern_sock_add(struct kern *k, int fd, const struct kvpin_sock_key *key, uint64_t cookie,
		  const struct kvpin_sock_ref *ref);

/** kern_sock_del() - take it out again; by the thread that added it */
void kern_sock_del(struct kern *k, const struct kvpin_sock_key *key, uint64_t cookie);

/** kern_sock_drain() - what is queued into it goes on to drain, but no verdict gets what it
 * receives from here on, but for one that is running
 * @fd, @key: as in kern_sock_add(); its reference stays
 *
 * Returns 0 or -errno: it stays as it was. */
int kern_sock_drain(struct kern *k, int fd, const struct kvpin_sock_key *key);

/** kern_sock_drained() - beside kern_sock_del(), for one that is draining */
void kern_sock_drained(struct kern *k, const struct kvpin_sock_key *key);

/** kern_names_set() - publish known field names: written to the unused set, then switched */
int kern_names_set(struct kern *k, const struct kvpin_names *names);

/** kern_hold_put() - give a hold buffer back to the programs; @index: 0 to nr_holds - 1 */
void kern_hold_put(struct kern *k, uint32_t index);

/** kern_counters() - add one server's counters of all CPUs up; any thread */
int kern_counters(struct kern *k, uint32_t backend, struct kvpin_counters *out);

/** kern_refusals() - how often the programs passed up, by enum kvpin_refusal; any thread
 * @out: KVPIN_REFUSED_NR numbers */
int kern_refusals(struct kern *k, uint64_t *out);

/* Pins of sessions in the kernel. Any thread. Return 0 or -errno (-ENOENT, -E2BIG). */
int kern_session_get(struct kern *k, uint64_t id, struct kvpin_session *out);
int kern_session_put(struct kern *k, uint64_t id, const struct kvpin_session *s);
int kern_session_del(struct kern *k, uint64_t id);

/**
 * kern_adopt() - the pins that a daemon which did not end cleanly left behind
 * @each: called for every pin; @name and @address: of its server then
 *
 * Call it once after kern_open(). Returns how many there were. Afterwards the old map is gone.
 */
uint32_t kern_adopt(struct kern *k,
		    void (*each)(void *arg, uint64_t id, const struct kvpin_session *s,
				 const char *name, const char *address),
		    void *arg);

/** kern_backends_fd() - the map behind k->backends, for another program; valid until kern_close()
 */
int kern_backends_fd(const struct kern *k);

/** kern_ring_poll_fd() - readable when worker @w has events */
int kern_ring_poll_fd(const struct kern *k, uint32_t w);

/**
 * kern_ring_consume() - take all events of worker @w
 * @each: gets each record: @e, with e->len bytes behind it for KVPIN_EVENT_LANE
 *
 * Only the worker's own thread calls it. Returns the number of events, or -errno.
 */
int kern_ring_consume(struct kern *k, uint32_t w,
		      void (*each)(void *arg, const struct kvpin_event *e), void *arg);

#endif
