/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who listens on this host: the TCP listeners of this network namespace as the kernel lists them
 * (sock_diag(7)), and which of them a connection to an address would reach. A socket's cookie is
 * given once and never again, so another cookie is another socket.
 *
 * Needs no privilege.
 */
#ifndef OPS_LISTENERS_H
#define OPS_LISTENERS_H

#include <stdint.h>

#include "base/addr.h"

struct listener {
	struct addr addr;
	uint64_t cookie;
	bool v6only; /* of an IPv6 one */
};

/* All of them; zeroed at first. */
struct listeners {
	struct listener *one;
	uint32_t nr, room;
};

/** listeners_open() - the socket to ask through; the caller closes it; -errno when there is none */
int listeners_open(void);

/**
 * listeners_read() - ask for all TCP listeners of the namespace in which @fd was opened
 * @l: replaced; freed by listeners_fini()
 *
 * The kernel answers at once. Listeners that come and go meanwhile may be missing or be there
 * twice: what was missed once has to be missed again. Returns 0 or -errno.
 */
int listeners_read(int fd, struct listeners *l);
void listeners_fini(struct listeners *l);

/* One server's group (SO_REUSEPORT) at most; a larger one is not looked at. */
#define LISTENERS_GROUP_MAX 64

/**
 * listeners_of() - the sockets that a connection to @addr can reach
 * @local: is @addr an address of this host? Then wildcards count too
 * @cookie: room for LISTENERS_GROUP_MAX; set in ascending order
 *
 * As the kernel chooses (inet_lookup_listener(), net/ipv4/inet_hashtables.c): the exact address
 * before a wildcard, the family's own wildcard before IPv6's that takes both.
 *
 * Returns how many; 0 also when there are too many.
 */
uint32_t listeners_of(const struct listeners *l, const struct addr *addr, bool local,
		      uint64_t cookie[LISTENERS_GROUP_MAX]);

/** listeners_local() - does this host have that address? Asks for the route to it */
bool listeners_local(const struct addr *addr);

#endif
