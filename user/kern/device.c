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

static int answer_device(const struct nlmsghdr *n)
{
	const struct rtmsg *route = NLMSG_DATA(n);
	int len = RTM_PAYLOAD(n);

	if (route->rtm_type == RTN_LOCAL)
		return DEVICE_LOOPBACK;
	for (struct rtattr *a = RTM_RTA(route); RTA_OK(a, len); a = RTA_NEXT(a, len))
		if (a->rta_type == RTA_OIF)
			return *(int *)RTA_DATA(a);
	return -ENETUNREACH;
}

int device_towards(const struct addr *to)
{
	struct {
		struct nlmsghdr n;
		struct rtmsg r;
		struct rtattr a;
		unsigned char address[16];
	} ask = {
		.n = {.nlmsg_type = RTM_GETROUTE, .nlmsg_flags = NLM_F_REQUEST},
		.r = {.rtm_family = to->sa.sa_family},
	};
	union {
		struct nlmsghdr n;
		char bytes[ANSWER_BYTES];
	} answer;
	bool v6 = to->sa.sa_family == AF_INET6;
	size_t bytes = v6 ? 16 : 4;
	ssize_t len;
	int fd, rc;

	ask.r.rtm_dst_len = bytes * 8;
	ask.a.rta_type = RTA_DST;
	ask.a.rta_len = RTA_LENGTH(bytes);
	ask.n.nlmsg_len = NLMSG_LENGTH(sizeof(ask.r)) + RTA_LENGTH(bytes);
	memcpy(ask.address, v6 ? (const void *)&to->in6.sin6_addr : &to->in4.sin_addr, bytes);
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (fd < 0)
		return -errno;
	rc = -EIO;
	len = send(fd, &ask, ask.n.nlmsg_len, 0);
	if (len == (ssize_t)ask.n.nlmsg_len)
		len = recv(fd, &answer, sizeof(answer), 0);
	else if (len >= 0)
		len = 0; /* the question went out in part: there is no answer */
	if (len < 0)
		rc = -errno;
	else if (!NLMSG_OK(&answer.n, len))
		rc = -EPROTO;
	else if (answer.n.nlmsg_type == NLMSG_ERROR)
		rc = ((struct nlmsgerr *)NLMSG_DATA(&answer.n))->error;
	else if (answer.n.nlmsg_type == RTM_NEWROUTE)
		rc = answer_device(&answer.n);
	close(fd);
	return rc ? rc : -EPROTO;
}

static bool is_ethernet(int fd, const char *name)
{
	struct ifreq r;

	memset(&r, 0, sizeof(r));
	strncpy(r.ifr_name, name, sizeof(r.ifr_name) - 1);
	return ioctl(fd, SIOCGIFHWADDR, &r) == 0 && r.ifr_hwaddr.sa_family == ARPHRD_ETHER;
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
