/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Devices. Happy path: one question, one answer. Failures: -errno; nothing stays open. */
#include "kern/device.h"

#include <errno.h>
#include <ifaddrs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kern/netlink.h"

#define ANSWER_BYTES 4096

bool device_has(const struct device_set *set, int ifindex)
{
	for (unsigned int i = 0; i < set->nr; i++)
		if (set->ifindex[i] == ifindex)
			return true;
	return false;
}

bool device_add(struct device_set *set, int ifindex)
{
	if (device_has(set, ifindex))
		return true;
	if (set->nr == DEVICES_MAX)
		return false;
	set->ifindex[set->nr++] = ifindex;
	return true;
}

void device_remove(struct device_set *set, int ifindex)
{
	for (unsigned int i = 0; i < set->nr; i++)
		if (set->ifindex[i] == ifindex)
			set->ifindex[i--] = set->ifindex[--set->nr];
}

int device_watch_open(void)
{
	struct sockaddr_nl at = {
		.nl_family = AF_NETLINK,
		.nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR |
			     RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE,
	};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE), err;

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&at, sizeof(at))) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

bool device_watch_changed(int fd)
{
	char bytes[ANSWER_BYTES];
	bool changed = false;

	/* ENOBUFS: some were lost, so there were some. */
	while (recv(fd, bytes, sizeof(bytes), 0) >= 0 || errno == ENOBUFS)
		changed = true;
	return changed;
}

/* An IPv4 route may have an IPv6 gateway, which RTA_VIA names. */
static void answer_hop(const struct rtattr *a, int family, struct device_way *way)
{
	const struct rtvia *via = RTA_DATA(a);
	size_t bytes = RTA_PAYLOAD(a);
	const void *hop = via;

	if (a->rta_type == RTA_VIA) {
		if (bytes < sizeof(*via))
			return;
		family = via->rtvia_family;
		hop = via->rtvia_addr;
		bytes -= sizeof(*via);
	}
	if (bytes != (family == AF_INET6 ? 16 : 4))
		return;
	way->family = family;
	memcpy(way->hop, hop, bytes);
}

static int answer_way(const struct nlmsghdr *n, struct device_way *way)
{
	const struct rtmsg *route = NLMSG_DATA(n);
	int len = RTM_PAYLOAD(n);

	*way = (struct device_way){0};
	if (route->rtm_type == RTN_LOCAL) {
		way->ifindex = DEVICE_LOOPBACK;
		return 0;
	}
	for (struct rtattr *a = RTM_RTA(route); RTA_OK(a, len); a = RTA_NEXT(a, len)) {
		if (a->rta_type == RTA_OIF)
			way->ifindex = *(int *)RTA_DATA(a);
		else if (a->rta_type == RTA_GATEWAY || a->rta_type == RTA_VIA)
			answer_hop(a, route->rtm_family, way);
	}
	return way->ifindex > 0 ? 0 : -ENETUNREACH;
}

struct question {
	struct nlmsghdr n;
	struct rtmsg r;
	unsigned char attributes[3 * RTA_SPACE(16)];
};

static void ask_by(struct question *q, int type, const void *value, size_t bytes)
{
	struct rtattr *a = (struct rtattr *)((char *)q + NLMSG_ALIGN(q->n.nlmsg_len));

	a->rta_type = type;
	a->rta_len = RTA_LENGTH(bytes);
	memcpy(RTA_DATA(a), value, bytes);
	q->n.nlmsg_len = NLMSG_ALIGN(q->n.nlmsg_len) + RTA_SPACE(bytes);
}

static const void *ip_of(const struct addr *a)
{
	return a->sa.sa_family == AF_INET6 ? (const void *)&a->in6.sin6_addr : &a->in4.sin_addr;
}

static void question_write(struct question *q, const struct addr *to, const struct addr *from)
{
	bool v6 = to->sa.sa_family == AF_INET6;
	size_t bytes = v6 ? 16 : 4;

	memset(q, 0, sizeof(*q));
	q->n.nlmsg_type = RTM_GETROUTE;
	q->n.nlmsg_flags = NLM_F_REQUEST;
	q->n.nlmsg_len = NLMSG_LENGTH(sizeof(q->r));
	q->r.rtm_family = to->sa.sa_family;
	q->r.rtm_dst_len = bytes * 8;
	ask_by(q, RTA_DST, ip_of(to), bytes);
	if (from && from->sa.sa_family == to->sa.sa_family) {
		q->r.rtm_src_len = bytes * 8;
		ask_by(q, RTA_SRC, ip_of(from), bytes);
	}
	if (v6 && to->in6.sin6_scope_id)
		ask_by(q, RTA_OIF, &to->in6.sin6_scope_id, sizeof(to->in6.sin6_scope_id));
}

int device_towards(const struct addr *to, const struct addr *from, struct device_way *way)
{
	union netlink_answer answer;
	struct question ask;
	int err;

	question_write(&ask, to, from);
	err = netlink_ask(NETLINK_ROUTE, &ask.n, &answer);
	if (err)
		return err;
	return answer.n.nlmsg_type == RTM_NEWROUTE ? answer_way(&answer.n, way) : -EPROTO;
}

static bool is_ethernet(int fd, const char *name)
{
	struct ifreq r;

	memset(&r, 0, sizeof(r));
	memcpy(r.ifr_name, name, strnlen(name, sizeof(r.ifr_name) - 1));
	return ioctl(fd, SIOCGIFHWADDR, &r) == 0 && r.ifr_hwaddr.sa_family == ARPHRD_ETHER;
}

bool device_fits(int ifindex)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char name[IF_NAMESIZE];
	bool fits = fd >= 0 && if_indextoname((unsigned int)ifindex, name) && is_ethernet(fd, name);

	if (fd >= 0)
		close(fd);
	return fits;
}

static bool same_ip(const struct addr *a, const struct sockaddr *b)
{
	if (!b || b->sa_family != a->sa.sa_family)
		return false;
	if (b->sa_family == AF_INET)
		return ((const struct sockaddr_in *)b)->sin_addr.s_addr == a->in4.sin_addr.s_addr;
	return !memcmp(&((const struct sockaddr_in6 *)b)->sin6_addr, &a->in6.sin6_addr, 16);
}

int device_add_local(struct device_set *set, const struct addr *local)
{
	bool any = addr_is_any(local), full = !device_add(set, DEVICE_LOOPBACK);
	struct ifaddrs *list, *i;
	int fd, index;

	if (full)
		return -E2BIG;
	if (getifaddrs(&list))
		return -errno;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	for (i = list; i; i = i->ifa_next) {
		if (!(i->ifa_flags & IFF_UP) || (i->ifa_flags & IFF_LOOPBACK) ||
		    !(any || same_ip(local, i->ifa_addr)) || !is_ethernet(fd, i->ifa_name))
			continue;
		index = (int)if_nametoindex(i->ifa_name);
		if (index > 0 && !device_add(set, index))
			full = true;
	}
	if (fd >= 0)
		close(fd);
	freeifaddrs(list);
	return full ? -E2BIG : 0;
}
