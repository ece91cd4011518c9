/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sockets that the program at tc knows, from their first packet on.
 *
 * Happy path: a connection to a client or to a server takes an entry, with its addresses and the
 * way to its peer; when ways change it is looked whether that one did. Failures: a connection that
 * gets no entry stays with the relay; the reason is counted. Close: splice_leave(), in
 * splice_worker.c.
 */
#include <string.h>
#include <sys/socket.h>

#include "net/splice_private.h"

void splice_addr_words(const struct addr *a, __be32 words[4], __be16 *port)
{
	memset(words, 0, 16);
	*port = a->sa.sa_family == AF_INET ? a->in4.sin_port : a->in6.sin6_port;
	if (a->sa.sa_family == AF_INET)
		words[0] = a->in4.sin_addr.s_addr;
	else if (IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr))
		memcpy(words, a->in6.sin6_addr.s6_addr + 12, 4);
	else
		memcpy(words, a->in6.sin6_addr.s6_addr, 16);
}

static int way_of(const struct addr *local, const struct addr *remote, struct device_way *way)
{
	struct addr from = *local, to = *remote;
	__be32 l[4], r[4];
	__be16 port;

	addr_unmap(&from);
	addr_unmap(&to);
	splice_addr_words(&from, l, &port);
	splice_addr_words(&to, r, &port);
	if (!memcmp(l, r, sizeof(l)) ||
	    (to.sa.sa_family == AF_INET && (ntohl(r[0]) >> 24) == IN_LOOPBACKNET)) {
		*way = (struct device_way){.ifindex = DEVICE_LOOPBACK};
		return 0;
	}
	return device_towards(&to, &from, way);
}

static bool sock_enter(struct conn *c, struct splice_sock *s, int fd, const struct addr *remote,
		       enum kvpin_splice_role role, uint32_t backend)
{
	struct addr local = {.len = sizeof(local.in6)};
	struct worker *w = c->worker;
	struct splice *sp = w->splice.splice;
	struct kvpin_splice_conn *k;
	uint32_t entry = UINT32_MAX;
	struct device_way way;
	uint64_t turn;
	int err;

	if (getsockname(fd, &local.sa, &local.len))
		return splice_refuse(w, KVPIN_SPLICE_REFUSED_ENDING);
	if (way_of(&local, remote, &way))
		return splice_refuse(w, KVPIN_SPLICE_REFUSED_DEVICE);
	pthread_mutex_lock(&sp->lock);
	if (!sp->nr_free || !splice_device_use(sp, way.ifindex)) {
		bool full = !sp->nr_free;

		pthread_mutex_unlock(&sp->lock);
		return splice_refuse(w, full ? KVPIN_SPLICE_REFUSED_NO_SLOT
					     : KVPIN_SPLICE_REFUSED_DEVICE);
	}
	entry = sp->free[--sp->nr_free];
	k = &sp->kern.conns[entry];
	/* Turns go on from one owner of the entry to the next. */
	turn = (splice_word(k) + KVPIN_SPLICE_TURN_1) & KVPIN_SPLICE_TURN;
	memset(k, 0, sizeof(*k));
	__atomic_store_n(&k->flags, KVPIN_SPLICE_OVER, __ATOMIC_SEQ_CST);
	k->word = turn;
	k->serial = ++sp->serial;
	k->role = role;
	k->worker = w->index;
	k->backend = backend;
	kern_splice_way_set(k, &way);
	splice_addr_words(&local, k->local, &k->local_port);
	splice_addr_words(remote, k->remote, &k->remote_port);
	err = kern_splice_add(&sp->kern, entry);
	if (err) {
		sp->free[sp->nr_free++] = entry;
		splice_device_leave(sp, way.ifindex);
	} else {
		sp->conn[entry] = c;
	}
	pthread_mutex_unlock(&sp->lock);
	if (err)
		return splice_refuse(w, KVPIN_SPLICE_REFUSED_MAP);
	s->entry = entry + 1;
	return true;
}

void splice_sock_moved(struct worker *w, struct splice_sock *s, int fd, const struct addr *remote)
{
	struct addr local = {.len = sizeof(local.in6)};
	struct splice *sp = w->splice.splice;
	struct kvpin_splice_conn *k;
	struct device_way way;
	int was;

	if (!s->entry || getsockname(fd, &local.sa, &local.len))
		return;
	k = splice_kconn(w, s);
	if (way_of(&local, remote, &way))
		return;
	was = (int)k->ifindex;
	if (was == way.ifindex && k->hop_family == way.family &&
	    !memcmp(k->hop, way.hop, sizeof(k->hop)))
		return;
	pthread_mutex_lock(&sp->lock);
	if (was == way.ifindex) {
		kern_splice_way_set(k, &way);
	} else if (splice_device_use(sp, way.ifindex)) {
		splice_device_leave(sp, was);
		kern_splice_way_set(k, &way);
	}
	pthread_mutex_unlock(&sp->lock);
}

void splice_accepted(struct conn *c)
{
	if (c->worker->splice.splice)
		sock_enter(c, &c->splice.sock, c->sock.fd, &c->peer, KVPIN_SPLICE_CLIENT, 0);
}

void splice_connecting(struct upstream *u, int fd)
{
	struct conn *c = u->conn;

	if (!c->worker->splice.splice || !c->splice.sock.entry)
		return;
	if (splice_is_v4(&c->peer) != splice_is_v4(&u->addr)) {
		splice_refuse(c->worker, KVPIN_SPLICE_REFUSED_FAMILY);
		return;
	}
	sock_enter(c, &u->splice, fd, &u->addr, KVPIN_SPLICE_SERVER, u->slot);
}
