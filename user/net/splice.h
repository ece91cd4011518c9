/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The splice path as a connection sees it: hand an answer under way over to the program at tc, and
 * go on when it comes back (bpf/splice.bpf.c is the other half; the protocol stands in
 * include/kvpin_splice_abi.h).
 *
 * One exchange is handed over at a time, and only its answer: the request has gone out by relay,
 * the answer's head too. While it streams c->x stays, c->state is CONN_SPLICE, and neither socket
 * is read or written; what the client sends meanwhile waits in its socket. Then the bytes that went
 * past are added to the exchange as if the relay had moved them.
 */
#ifndef NET_SPLICE_H
#define NET_SPLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/list.h"
#include "kern/kern_splice.h"
#include "net/sock.h"

struct addr;
struct balancer;
struct config;
struct conn;
struct upstream;
struct worker;

/* All workers': the kernel side, and which of its entries are free. */
struct splice;

/* A socket whose packets the program looks at. Zeroed: it is none. */
struct splice_sock {
	uint32_t entry; /* 1 + its entry; 0: none */
};

struct splice_copy;

/* What a client connection keeps for this path. */
struct splice_conn {
	struct splice_sock sock;
	struct splice_copy *copies; /* answer bytes that came ahead of their turn */
	uint32_t copies_bytes;
	bool ended;	  /* the server's socket has ended: the client may still have to take */
	bool broken;	  /* bytes went past that should not have */
	bool lacking;	  /* what the client lacks may not be forwarded any more */
	int keepalive_s;  /* of the socket to the server, before splice_watch_route() */
	uint32_t poll_ms; /* how often the client's ACKs are looked at when ended or lacking */
	uint64_t acked;	  /* ... when last looked at */
	bool based;	  /* `base` is known */
	uint32_t base;	  /* local number of the first byte to the client */
	uint32_t misses;  /* times in a row that the stream did not pause */
	bool holding;	  /* the server is told to pause, and the client's socket is corked */
	uint64_t hold_ms; /* since when, or since the client's socket last was full; else: not again
			   * before */
};

/* A worker's part. */
struct splice_worker {
	struct splice *splice; /* NULL: there is only the relay */
	struct sock ring;
	uv_timer_t scan;
	struct list lingering; /* entries of closed connections */
	uint64_t ring_full;
	uint32_t changes; /* of ways, when last looked at */
	bool closing;
};

/**
 * splice_open() - load the kernel side and attach it
 * @out: set on success; splice_close() frees it
 * @config: sizes, listeners and servers, which tell the devices
 * @backends_fd: steer's map of what is in flight; -1: there is none
 * @uid, @gid: who shall own the pins; 0: whoever opens
 * @why: on failure the reason
 *
 * Returns 0 or -errno.
 */
int splice_open(struct splice **out, const struct config *config, int backends_fd, uid_t uid,
		gid_t gid, char *why, size_t why_bytes);
void splice_close(struct splice *s);

/** splice_tick() - about ten times a second from the main thread */
void splice_tick(struct splice *s, const struct config *config);

/**
 * splice_inherit() - count what keeps servers busy for the clients of dead daemons
 *
 * Their streams go on without a daemon; until they end they are requests in flight at the servers
 * with those addresses. To be called before the first request, and behind each splice_tick().
 */
void splice_inherit(struct splice *s, struct balancer *b);

/** splice_kern() - for what only reads: exporter, control */
struct kern_splice *splice_kern(struct splice *s);

/** splice_devices() - those that the program is attached to now; workers change them */
void splice_devices(struct splice *s, struct device_set *devices);

/** splice_worker_init() - events of this worker's connections; 0 or -errno */
int splice_worker_init(struct worker *w, struct splice *s);

/** splice_worker_stop() - the worker's connections are closed: end the handles */
void splice_worker_stop(struct worker *w);

/** splice_accepted() - a client connection is new */
void splice_accepted(struct conn *c);

/**
 * splice_connecting() - a connection to a server has an address, and nothing was sent over it yet
 * @u: its conn's client must be known to the program too, else nothing happens
 */
void splice_connecting(struct upstream *u, int fd);

/** splice_segment_bytes() - what the server's segments may hold at most so that the client's device
 * takes them; 0: whatever it likes */
uint32_t splice_segment_bytes(const struct conn *c);

/**
 * splice_within() - hand the answer over
 * @c: in CONN_EXCHANGE, relay_answer() waits
 *
 * Returns true when the program has it: c->state is CONN_SPLICE. False: the relay goes on; the
 * reason is counted where the answer was one for this path.
 */
bool splice_within(struct conn *c);

/** splice_unhold() - the server need not pause any more: the exchange ends */
void splice_unhold(struct conn *c);

/** splice_look() - CONN_SPLICE: is it back, or to be taken back? After that c->state may be any. */
void splice_look(struct conn *c);

/**
 * splice_client_ended() - CONN_SPLICE: the client's FIN has come to its socket
 *
 * The server is told at once, and decides, as attempt_pass_eof() does; unless requests wait in
 * front of it.
 */
void splice_client_ended(struct conn *c);

/** splice_server_ended() - CONN_SPLICE: the server's socket has an end or an error */
void splice_server_ended(struct conn *c);

/** splice_timeout() - CONN_SPLICE: the timer fired */
void splice_timeout(struct conn *c);

/** splice_due_ms() - CONN_SPLICE: when the timer is to fire */
uint64_t splice_due_ms(const struct conn *c);

/** splice_settle() - the connection is to be closed in CONN_SPLICE: take the books back */
void splice_settle(struct conn *c);

/**
 * splice_leave() - the socket was closed
 * @reset: with a RST: nothing of the connection is left
 *
 * After a FIN the program goes on to translate what the two TCPs still have to say to each other.
 */
void splice_leave(struct worker *w, struct splice_sock *s, bool reset);

#endif
