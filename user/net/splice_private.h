/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the files of the splice path share among themselves. */
#ifndef NET_SPLICE_PRIVATE_H
#define NET_SPLICE_PRIVATE_H

#include <pthread.h>

#include "net/conn.h"
#include "net/splice.h"
#include "net/upstream.h"
#include "net/worker.h"

struct splice_device {
	int ifindex; /* 0: free */
	uint32_t users;
	uint64_t idle_ms; /* since when it has none */
};

struct splice {
	struct kern_splice kern;
	pthread_mutex_t lock; /* of the free entries, and of adding and removing keys */
	uint32_t nr_free;
	uint32_t *free;	    /* a stack, so that the memory in use stays warm */
	struct conn **conn; /* by entry: whose it is; the worker that has the connection writes */
	uint64_t serial;    /* the last one given */
	struct device_set fixed; /* devices of the start: never taken down while they exist */
	struct splice_device device[DEVICES_MAX]; /* how much the others are needed; under lock */
	int watch_fd;				  /* of links, addresses and routes; -1: none */
	uint32_t ticks;
	uint32_t *left;	  /* at the exit: entries of closed connections, ... */
	uint32_t nr_left; /* ... of all workers */
	uint32_t changes; /* grows when one of them changed: workers look where their peers are */
};

/** splice_device_use() - an entry is on that device; the caller holds the lock
 *
 * The program is attached there if it is not. Returns false, and nothing is counted, where it
 * cannot be.
 */
bool splice_device_use(struct splice *s, int ifindex);

/** splice_device_leave() - ... no more; the caller holds the lock */
void splice_device_leave(struct splice *s, int ifindex);

/** splice_sock_moved() - ways have changed: is the peer reached over another device now? */
void splice_sock_moved(struct worker *w, struct splice_sock *s, int fd, const struct addr *remote);

/** splice_addr_words() - an address and port as they stand in a connection's entry; IPv4 in IPv6
 * is IPv4 */
void splice_addr_words(const struct addr *a, __be32 words[4], __be16 *port);

/** splice_is_v4() - do its packets go by IPv4? */
static inline bool splice_is_v4(const struct addr *a)
{
	return a->sa.sa_family == AF_INET || IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr);
}

/** splice_refuse() - count why an answer stays with the relay; returns false */
bool splice_refuse(struct worker *w, enum kvpin_splice_refusal reason);

/**
 * splice_watch_route() - while an answer goes past, see to it that the client's ACKs find the
 * server
 *
 * What another host sends to 127.0.0.1, or in the name of an address of this host, finds its socket
 * only by the route that the socket remembers (tcp_v4_early_demux()), and every change of a route
 * on this host makes it forget; a packet of the daemon's own socket reminds it. So that one sends a
 * keepalive probe each second.
 */
void splice_watch_route(struct conn *c, bool on);

/**
 * splice_follow() - the framing of an answer that the program cannot follow any more
 * @e: a record of kind KVPIN_SPLICE_EVENT_BYTES; the bytes follow it
 */
void splice_follow(struct conn *c, const struct kvpin_splice_event *e);

static inline struct kern_splice *worker_splice(const struct worker *w)
{
	return &w->splice.splice->kern;
}

static inline struct kvpin_splice_conn *splice_kconn(const struct worker *w,
						     const struct splice_sock *s)
{
	return &worker_splice(w)->conns[s->entry - 1];
}

static inline uint64_t splice_word(const struct kvpin_splice_conn *server)
{
	return __atomic_load_n(&server->word, __ATOMIC_SEQ_CST);
}

static inline bool splice_taken(uint64_t word)
{
	return (word & (KVPIN_SPLICE_TAKEN | KVPIN_SPLICE_GIVING)) == KVPIN_SPLICE_TAKEN;
}

#endif
