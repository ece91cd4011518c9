/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The steer path as a connection sees it: hand a client connection over to the kernel programs,
 * take it back (reclaim), and keep the books of both (bpf/steer.bpf.c is the other half, the
 * protocol stands in include/kvpin_abi.h).
 *
 * A connection is handed over whole, both directions at once, where the relay holds nothing of it:
 * between two exchanges, or within an answer whose head has been relayed. It is taken back when the
 * kernel passes something up, when a socket ends, and when the daemon wants to close or drain. Then
 * everything that the kernel knows of a running exchange becomes a struct exchange again, and the
 * relay goes on as if it had moved the bytes itself.
 */
#ifndef NET_STEER_H
#define NET_STEER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#include "base/list.h"
#include "core/session.h"
#include "kern/kern.h"
#include "net/sock.h"

struct backend;
struct balancer;
struct config;
struct conn;
struct upstream;
struct worker;

/* All workers': the kernel side, and which of its entries are free. */
struct steer;

/* A socket that the kernel may steer, client's or server's. Zeroed: it is in no map. */
struct steer_sock {
	uint32_t entry;		    /* 1 + its entry in conns or upstreams; 0: in no map */
	uint32_t role;		    /* KVPIN_ROLE_CLIENT, or the server's slot */
	uint64_t cookie;	    /* its own */
	uint64_t client;	    /* the client socket's */
	uint64_t received;	    /* bytes that the daemon has taken from the socket */
	uint64_t taken;		    /* bytes for it that TCP had taken when it was handed over */
	uint64_t queued;	    /* flow.queued then */
	bool armed;		    /* handed over */
	bool laned;		    /* taken back: bytes of the ring come before those of recv() */
	bool once;		    /* server's: not for another request */
	bool draining;		    /* server's: no verdict any more, its queue still drains */
	uint32_t lane_at, lane_len; /* bytes from the ring */
	uint8_t *lane;		    /* NULL when there are none */
};

/* What a client connection keeps for this path. */
struct steer_conn {
	struct steer_sock sock;
	struct list todo; /* worker: events came */
	bool in_todo;
	bool overrun;	     /* sent more ahead than is held for it */
	bool pipelines;	     /* sent a request before it had the answer: stays with the relay */
	bool asked;	     /* has had an answer */
	bool asked_again;    /* ... and another one */
	uint8_t passed;	     /* requests or answers passed up in a row */
	bool answer_passed;  /* the last one steered came back for its answer */
	uint32_t skipped;    /* hand-overs left out because of that */
	uint32_t slow;	     /* times that a budget was exceeded in this exchange */
	uint64_t slow_ms;    /* the last time */
	uint64_t redirected; /* of the client's bytes, when last looked at */
	uint32_t poll_ms;    /* reclaimed: how often the queues are looked at */
	uint64_t drained;    /* reclaiming: bytes taken, when last looked at */
};

/* A worker's part. */
struct steer_worker {
	struct steer *steer; /* NULL: there is only the relay */
	struct sock ring;
	uv_timer_t soon, scan;
	struct list todo;
	struct list grave; /* descriptors that wait to be closed */
	uv_timer_t grave_timer;
	uint64_t ring_full;
	bool closing;
};

/**
 * steer_open() - load the kernel side
 * @out: set on success; steer_close() frees it
 * @config: sizes and limits
 * @uid, @gid: who shall own the pins; 0: whoever opens
 * @why: on failure the reason
 *
 * Returns 0 or -errno as kern_open().
 */
int steer_open(struct steer **out, const struct config *config, uid_t uid, gid_t gid, char *why,
	       size_t why_bytes);
void steer_close(struct steer *s);

/** steer_kern() - for what only reads: exporter, control */
struct kern *steer_kern(struct steer *s);

/** steer_carried() - answers of that server which the programs have carried to their end, ever; 0
 * without them. A system call. */
uint64_t steer_carried(const struct worker *w, const struct backend *backend);

/** steer_mirror() - the kernel's map of pins as the session table's mirror */
struct session_mirror steer_mirror(struct steer *s);

/**
 * steer_adopt() - put the pins back that a daemon left in the kernel which did not end cleanly
 * @b: initialised; its servers tell which pins still have one
 *
 * Returns how many were taken.
 */
uint32_t steer_adopt(struct steer *s, struct balancer *b);

/** steer_beside_splice() - event streams are for the splice path, where that can take them; from
 * here on, and in each steer_configure() */
void steer_beside_splice(struct steer *s);

/** steer_configure() - publish a configuration to the programs: start and reload, main thread */
void steer_configure(struct steer *s, const struct config *config);

/** steer_worker_init() - events of this worker's connections; 0 or -errno */
int steer_worker_init(struct worker *w, struct steer *s);

/** steer_worker_stop() - the worker's connections are closed: bury them, then end the handles */
void steer_worker_stop(struct worker *w);

/** steer_answered() - an answer is out, the connection stays */
void steer_answered(struct conn *c);

/**
 * steer_between() - hand over between two exchanges
 * @c: in CONN_HEAD, nothing of a request there
 *
 * Returns true when the kernel has it: c->state is CONN_STEER. False: the relay goes on, the reason
 * is counted; but for one that has asked for one answer only, which may be all that it wants.
 */
bool steer_between(struct conn *c);

/** steer_within() - hand over within an answer; @c: in CONN_EXCHANGE, relay_answer() waits */
bool steer_within(struct conn *c);

/** steer_reclaim() - take the connection back; from CONN_STEER. c->state becomes CONN_RECLAIM until
 * the kernel's queues are empty, then CONN_EXCHANGE or CONN_HEAD, perhaps at once. */
void steer_reclaim(struct conn *c);

/** steer_reclaim_poll() - CONN_RECLAIM: look again; true when the state changed */
bool steer_reclaim_poll(struct conn *c);

/** steer_poll_later() - nothing has moved: wait twice as long for the next look, within limits */
void steer_poll_later(struct conn *c);

/** steer_settle() - the connection is to be closed in CONN_STEER or CONN_RECLAIM: take what it was
 * doing back, as far as the books need it */
void steer_settle(struct conn *c);

/** steer_active_ms() - when the kernel last moved a byte of this connection; monotonic */
uint64_t steer_active_ms(const struct conn *c);

/** steer_running() - the upstream whose exchange the kernel carries, or NULL */
struct upstream *steer_running(const struct conn *c);

/** steer_upstream_take() - an idle upstream is to be used by the relay. False: it may not, because
 * bytes of an earlier request, answered before it was whole, still wait in the kernel's queue */
bool steer_upstream_take(struct upstream *u);

/** steer_upstream_owed() - do bytes of a request still wait in the kernel's queue to the server?
 * Behind them there is nothing to send, and no FIN. */
bool steer_upstream_owed(const struct upstream *u);

/** steer_upstream_ended() - an idle armed upstream ended: may it be dropped? False: the kernel has
 * just begun an exchange on it, the connection was reclaimed */
bool steer_upstream_ended(struct upstream *u);

/** steer_upstream_leave() - the upstream is about to be closed: no request goes there any more */
void steer_upstream_leave(struct upstream *u);

/** steer_recv() - recv() of a socket that may be in the maps; as recv(2) */
ssize_t steer_recv(struct worker *w, struct steer_sock *s, int fd, void *buf, size_t room);

/** steer_received() - bytes that the socket has given to the daemon or to the programs */
uint64_t steer_received(const struct worker *w, const struct steer_sock *s);

/** steer_waiting() - has the socket bytes from the ring? They announce themselves only once. */
static inline bool steer_waiting(const struct steer_sock *s)
{
	return s->lane_len > s->lane_at;
}

/**
 * steer_sock_close() - sock_close() for a socket that may be in the maps
 * @c: its client connection; @s: its part here
 *
 * A socket in the maps is taken out, ended as its peer shall see it, and closed 20 ms later
 * (KERNEL.md: sock_map_destroy recursion).
 */
void steer_sock_close(struct conn *c, struct steer_sock *s, struct sock *sock, bool reset,
		      uv_close_cb on_close);

#endif
