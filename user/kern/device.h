/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which network device leads where, and to whom there, asked of the kernel by rtnetlink. */
#ifndef KERN_DEVICE_H
#define KERN_DEVICE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/addr.h"

#define DEVICE_LOOPBACK 1 /* lo is always the first */
#define DEVICES_MAX	32

struct device_set {
	unsigned int nr;
	int ifindex[DEVICES_MAX];
};

/** device_add() - put a device into the set, once; false when the set is full */
bool device_add(struct device_set *set, int ifindex);

/** device_remove() - take it out, if it is in */
void device_remove(struct device_set *set, int ifindex);

/** device_fits() - is there such a device, and do its packets begin with an Ethernet head? */
bool device_fits(int ifindex);

/** device_watch_open() - a nonblocking descriptor that hears of changed links, addresses and
 * routes; or -errno. The caller closes it. */
int device_watch_open(void);

/** device_watch_changed() - has anything changed since the last call? */
bool device_watch_changed(int fd);

/** device_has() - is it in the set? */
bool device_has(const struct device_set *set, int ifindex);

/* The way of packets to an address. */
struct device_way {
	int ifindex;
	int family;	       /* of `hop`; 0: none, the address itself is on the link */
	unsigned char hop[16]; /* the gateway; of an IPv4 one the first four bytes */
};

/**
 * device_towards() - over which device packets to an address leave, and to which gateway
 * @to: IPv4 or IPv6; a scope id names the device of a link-local one
 * @from: the address that they come from, for routing by it; NULL: any
 * @way: set on success
 *
 * An address of this host is reached over lo. A few microseconds. Returns 0 or -errno.
 */
int device_towards(const struct addr *to, const struct addr *from, struct device_way *way);

/**
 * device_add_local() - the device that has the address; for the wildcard address, all that are up
 * @set: added to; lo is always among them
 *
 * Only devices whose packets begin with an Ethernet head, and lo. Returns 0 or -errno.
 */
int device_add_local(struct device_set *set, const struct addr *local);

#endif
