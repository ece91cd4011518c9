/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One question to the kernel by netlink, and its answer. */
#ifndef KERN_NETLINK_H
#define KERN_NETLINK_H

#include <linux/netlink.h>

/* The first message of any answer that is asked for here. */
union netlink_answer {
	struct nlmsghdr n;
	char bytes[8192];
};

/**
 * netlink_ask() - ask, and read the first message of the answer
 * @protocol: NETLINK_ROUTE, NETLINK_XFRM
 * @ask: a whole message
 *
 * Blocks for some microseconds. Returns 0, or -errno: also the kernel's own, from an NLMSG_ERROR.
 */
int netlink_ask(int protocol, const struct nlmsghdr *ask, union netlink_answer *answer);

#endif
