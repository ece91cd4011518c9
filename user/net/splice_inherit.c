/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What dead daemons' streams are to this one's servers: requests in flight, which nobody dispatched
 * here and nobody settles. So they are not counted in and out one by one: each time it is found out
 * anew how many there are at which server. Then a stream that is forgotten, a server that is
 * removed and one that comes with the address leave nothing behind.
 */
#include <string.h>

#include "net/splice_private.h"

/* A server's address, as it stands in an entry. */
struct place {
	__be32 words[4];
	__be16 port;
	uint32_t slot;
};

struct counting {
	uint32_t nr;
	struct place place[BACKENDS_MAX];
	uint32_t running[BACKENDS_MAX];
};

/* Two slots may have one address; the work is done once, and for a server that is configured. */
static void places_add(struct counting *n, const struct balancer *b, bool removed)
{
	uint32_t nr = atomic_load_explicit(&b->backends.nr, memory_order_acquire);

	for (uint32_t i = 0; i < nr; i++) {
		const struct backend *at = &b->backends.slot[i];
		uint32_t state = atomic_load_explicit(&at->state, memory_order_acquire);

		if (state == BACKEND_FREE || (state == BACKEND_REMOVED) != removed)
			continue;
		splice_addr_words(&at->addr, n->place[n->nr].words, &n->place[n->nr].port);
		n->place[n->nr++].slot = i;
	}
}

static void count(void *arg, const struct kvpin_splice_conn *server)
{
	struct counting *n = arg;

	for (uint32_t i = 0; i < n->nr; i++) {
		const struct place *p = &n->place[i];

		if (p->port == server->remote_port &&
		    !memcmp(p->words, server->remote, sizeof(p->words))) {
			n->running[p->slot]++;
			return;
		}
	}
}

void splice_inherit(struct splice *s, struct balancer *b)
{
	struct counting n;

	memset(n.running, 0, sizeof(n.running));
	n.nr = 0;
	places_add(&n, b, false);
	places_add(&n, b, true);
	kern_splice_inherited(&s->kern, count, &n);
	for (uint32_t slot = 0; slot < BACKENDS_MAX; slot++)
		if (backend_inherit(&b->backends.slot[slot], n.running[slot]))
			wait_kick(b, slot);
}
