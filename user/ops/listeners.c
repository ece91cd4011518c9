/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One dump of each family's listeners by NETLINK_SOCK_DIAG, and the choice among them.
 *
 * Happy path: request, messages until NLMSG_DONE. Failures: an error message, or silence for
 * ANSWER_MS, end the read with an error; the next request has another number, so a late rest of
 * this answer is passed over.
 */
#include "ops/listeners.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "kern/device.h"

/* The kernel fills a message while it is asked for it: it does not wait for anybody. */
#define ANSWER_MS     200
#define MESSAGE_BYTES 32768

int listeners_open(void)
{
	struct timeval patience = {.tv_usec = ANSWER_MS * 1000};
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	return fd;
}

void listeners_fini(struct listeners *l)
{
	free(l->one);
	*l = (struct listeners){0};
}

static int ask(int fd, int family, uint32_t seq)
{
	struct {
		struct nlmsghdr head;
		struct inet_diag_req_v2 req;
	} m = {
		.head = {.nlmsg_len = sizeof(m),
			 .nlmsg_type = SOCK_DIAG_BY_FAMILY,
			 .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
			 .nlmsg_seq = seq},
		.req = {.sdiag_family = (uint8_t)family,
			.sdiag_protocol = IPPROTO_TCP,
			.idiag_states = 1U << TCP_LISTEN},
	};

	return send(fd, &m, sizeof(m), 0) < 0 ? -errno : 0;
}

static int listener_add(struct listeners *l, const struct inet_diag_msg *d, size_t bytes)
{
	struct listener *one;
	int left = (int)(bytes - NLMSG_ALIGN(sizeof(*d)));

	if (l->nr == l->room) {
		uint32_t room = l->room ? 2 * l->room : 64;
		struct listener *more = realloc(l->one, room * sizeof(*more));

		if (!more)
			return -ENOMEM;
		l->one = more;
		l->room = room;
	}
	one = &l->one[l->nr++];
	*one = (struct listener){
		.cookie = d->id.idiag_cookie[0] | (uint64_t)d->id.idiag_cookie[1] << 32,
	};
	if (d->idiag_family == AF_INET6) {
		one->addr.len = sizeof(one->addr.in6);
		one->addr.in6.sin6_family = AF_INET6;
		one->addr.in6.sin6_port = d->id.idiag_sport;
		memcpy(&one->addr.in6.sin6_addr, d->id.idiag_src, 16);
	} else {
		one->addr.len = sizeof(one->addr.in4);
		one->addr.in4.sin_family = AF_INET;
		one->addr.in4.sin_port = d->id.idiag_sport;
		memcpy(&one->addr.in4.sin_addr, d->id.idiag_src, 4);
	}
	for (const struct rtattr *a = (const void *)((const char *)d + NLMSG_ALIGN(sizeof(*d)));
	     RTA_OK(a, left); a = RTA_NEXT(a, left))
		if (a->rta_type == INET_DIAG_SKV6ONLY)
			one->v6only = *(const uint8_t *)RTA_DATA(a);
	return 0;
}

/* One message's parts. Returns 1 at the end, 0 when more is to come, or -errno. */
static int take(struct listeners *l, const struct nlmsghdr *m, int bytes, uint32_t seq)
{
	for (; NLMSG_OK(m, (unsigned int)bytes); m = NLMSG_NEXT(m, bytes)) {
		int err = 0;

		if (m->nlmsg_seq != seq)
			continue;
		if (m->nlmsg_type == NLMSG_DONE)
			return 1;
		if (m->nlmsg_type == NLMSG_ERROR)
			err = m->nlmsg_len < NLMSG_LENGTH(sizeof(struct nlmsgerr))
				      ? -EPROTO
				      : ((const struct nlmsgerr *)NLMSG_DATA(m))->error;
		else if (m->nlmsg_len >= NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
			err = listener_add(l, NLMSG_DATA(m), m->nlmsg_len - NLMSG_HDRLEN);
		if (err)
			return err;
	}
	return 0;
}

static int dump(int fd, int family, uint32_t seq, char *buf, struct listeners *l)
{
	int err = ask(fd, family, seq);

	while (!err) {
		ssize_t n = recv(fd, buf, MESSAGE_BYTES, 0);

		if (n < 0)
			return errno == EINTR ? -EAGAIN : -errno;
		err = take(l, (const struct nlmsghdr *)buf, (int)n, seq);
	}
	return err < 0 ? err : 0;
}

int listeners_read(int fd, struct listeners *l)
{
	static _Atomic uint32_t running;
	char *buf = malloc(MESSAGE_BYTES);
	int err;

	if (!buf)
		return -ENOMEM;
	l->nr = 0;
	err = dump(fd, AF_INET, ++running, buf, l);
	if (!err)
		err = dump(fd, AF_INET6, ++running, buf, l);
	/* A kernel without IPv6 knows no such handler. */
	if (err == -ENOENT || err == -EAFNOSUPPORT)
		err = 0;
	free(buf);
	return err;
}

bool listeners_local(const struct addr *addr)
{
	struct device_way way;

	/* Not by bind(): with ip_nonlocal_bind, which hosts that share an address have on, it takes
	 * every one. */
	return !device_towards(addr, NULL, &way) && way.ifindex == DEVICE_LOOPBACK;
}

/* How the kernel prefers this listener for a connection to @addr; 0: it gets none. */
static int preference(const struct listener *one, const struct addr *addr, bool local)
{
	const struct in6_addr *in6 = &one->addr.in6.sin6_addr;

	if (addr_port(&one->addr) != addr_port(addr))
		return 0;
	if (addr_equal(&one->addr, addr))
		return 4;
	if (!local)
		return 0;
	if (one->addr.sa.sa_family == addr->sa.sa_family)
		return addr_is_any(&one->addr) ? 2 : 0;
	if (one->addr.sa.sa_family != AF_INET6 || one->v6only)
		return 0;
	if (IN6_IS_ADDR_V4MAPPED(in6) && !memcmp(&in6->s6_addr[12], &addr->in4.sin_addr, 4))
		return 3;
	return IN6_IS_ADDR_UNSPECIFIED(in6) ? 1 : 0;
}

static int cookie_cmp(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

uint32_t listeners_of(const struct listeners *l, const struct addr *addr, bool local,
		      uint64_t cookie[LISTENERS_GROUP_MAX])
{
	uint32_t nr = 0;
	int best = 1;

	for (uint32_t i = 0; i < l->nr; i++) {
		int p = preference(&l->one[i], addr, local);

		if (p > best)
			nr = 0;
		if (p < best)
			continue;
		best = p;
		if (nr < LISTENERS_GROUP_MAX)
			cookie[nr] = l->one[i].cookie;
		nr++;
	}
	if (nr > LISTENERS_GROUP_MAX)
		return 0;
	qsort(cookie, nr, sizeof(*cookie), cookie_cmp);
	return nr;
}
