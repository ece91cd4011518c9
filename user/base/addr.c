/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Reads and prints socket addresses. Strict: what could be read in two ways (an IPv6 address
 * without brackets, a port with a sign or a blank) is refused. Never asks a name server; the one
 * system call is the probe for IPv6 that "*" needs.
 */
#include "base/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PORT_DIGITS_MAX 5

static int port_parse(const char *text, in_port_t *port)
{
	unsigned int value = 0, i;

	for (i = 0; text[i]; i++) {
		if (i >= PORT_DIGITS_MAX || text[i] < '0' || text[i] > '9')
			return -EINVAL;
		value = value * 10 + (unsigned int)(text[i] - '0');
	}
	if (!i || value > UINT16_MAX)
		return -EINVAL;
	*port = htons((uint16_t)value);
	return 0;
}

static void addr_set4(struct addr *addr, struct in_addr host, in_port_t port)
{
	addr->len = sizeof(addr->in4);
	addr->in4.sin_family = AF_INET;
	addr->in4.sin_addr = host;
	addr->in4.sin_port = port;
}

static void addr_set6(struct addr *addr, struct in6_addr host, in_port_t port)
{
	addr->len = sizeof(addr->in6);
	addr->in6.sin6_family = AF_INET6;
	addr->in6.sin6_addr = host;
	addr->in6.sin6_port = port;
}

/* A kernel booted with ipv6.disable=1 has no such sockets; with only the sysctl set, binding to
 * the dual-stack wildcard still works. */
static bool ipv6_there(void)
{
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return false;
	close(fd);
	return true;
}

static void addr_set_any(struct addr *addr, in_port_t port)
{
	if (ipv6_there())
		addr_set6(addr, in6addr_any, port);
	else
		addr_set4(addr, (struct in_addr){.s_addr = htonl(INADDR_ANY)}, port);
}

static int host6_parse(const char *host, in_port_t port, struct addr *addr, const char **why)
{
	struct in6_addr in6;

	if (inet_pton(AF_INET6, host, &in6) != 1) {
		*why = "not an IPv6 address between the brackets; wanted e.g. [::1]:8080";
		return -EINVAL;
	}
	addr_set6(addr, in6, port);
	return 0;
}

static int host_parse(const char *host, in_port_t port, struct addr *addr, const char **why)
{
	struct in_addr in4;

	if (!strcmp(host, "*")) {
		addr_set_any(addr, port);
		return 0;
	}
	if (!strcmp(host, "localhost"))
		host = "127.0.0.1";
	if (strchr(host, ':')) {
		*why = "an IPv6 address needs brackets; wanted e.g. [::1]:8080";
		return -EINVAL;
	}
	if (inet_pton(AF_INET, host, &in4) != 1) {
		*why = "not a numeric address (names are not looked up); wanted e.g. "
		       "127.0.0.1:8080";
		return -EINVAL;
	}
	addr_set4(addr, in4, port);
	return 0;
}

int addr_parse(const char *text, struct addr *addr, const char **why)
{
	const char *colon = strrchr(text, ':');
	char host[ADDR_TEXT_MAX];
	struct addr found;
	in_port_t port;
	size_t n;
	int err;

	if (!colon || strchr(colon, ']')) {
		*why = "no port; wanted HOST:PORT, e.g. 127.0.0.1:8080";
		return -EINVAL;
	}
	if (port_parse(colon + 1, &port)) {
		*why = "not a port behind the last colon; wanted a number up to 65535";
		return -EINVAL;
	}
	n = (size_t)(colon - text);
	if (!n) {
		*why = "no address before the port; wanted e.g. 127.0.0.1:8080, or *:8080 for all";
		return -EINVAL;
	}
	if (n >= sizeof(host)) {
		*why = "too long for an address; wanted e.g. 127.0.0.1:8080";
		return -EINVAL;
	}
	memcpy(host, text, n);
	host[n] = 0;
	memset(&found, 0, sizeof(found));
	if (host[0] == '[' && host[n - 1] == ']') {
		host[n - 1] = 0;
		err = host6_parse(host + 1, port, &found, why);
	} else {
		err = host_parse(host, port, &found, why);
	}
	if (!err)
		*addr = found;
	return err;
}

const char *addr_format(const struct addr *addr, char *text)
{
	char host[INET6_ADDRSTRLEN] = "";

	switch (addr->sa.sa_family) {
	case AF_INET:
		inet_ntop(AF_INET, &addr->in4.sin_addr, host, sizeof(host));
		snprintf(text, ADDR_TEXT_MAX, "%s:%u", host, addr_port(addr));
		break;
	case AF_INET6:
		inet_ntop(AF_INET6, &addr->in6.sin6_addr, host, sizeof(host));
		snprintf(text, ADDR_TEXT_MAX, "[%s]:%u", host, addr_port(addr));
		break;
	default:
		snprintf(text, ADDR_TEXT_MAX, "-");
	}
	return text;
}

bool addr_same_host(const struct addr *a, const struct addr *b)
{
	if (a->sa.sa_family != b->sa.sa_family)
		return false;
	switch (a->sa.sa_family) {
	case AF_INET:
		return a->in4.sin_addr.s_addr == b->in4.sin_addr.s_addr;
	case AF_INET6:
		return a->in6.sin6_scope_id == b->in6.sin6_scope_id &&
		       IN6_ARE_ADDR_EQUAL(&a->in6.sin6_addr, &b->in6.sin6_addr);
	default:
		return false;
	}
}

bool addr_equal(const struct addr *a, const struct addr *b)
{
	return addr_same_host(a, b) && addr_port(a) == addr_port(b);
}

void addr_unmap(struct addr *addr)
{
	const struct in6_addr *in6 = &addr->in6.sin6_addr;
	struct addr plain = {0};
	struct in_addr host;

	if (addr->sa.sa_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(in6))
		return;
	memcpy(&host, in6->s6_addr + 12, sizeof(host));
	addr_set4(&plain, host, addr->in6.sin6_port);
	*addr = plain;
}

unsigned int addr_port(const struct addr *addr)
{
	switch (addr->sa.sa_family) {
	case AF_INET:
		return ntohs(addr->in4.sin_port);
	case AF_INET6:
		return ntohs(addr->in6.sin6_port);
	default:
		return 0;
	}
}

bool addr_is_loopback(const struct addr *addr)
{
	const struct in6_addr *in6 = &addr->in6.sin6_addr;

	switch (addr->sa.sa_family) {
	case AF_INET:
		return ntohl(addr->in4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
	case AF_INET6:
		return IN6_IS_ADDR_LOOPBACK(in6) ||
		       (IN6_IS_ADDR_V4MAPPED(in6) && in6->s6_addr[12] == IN_LOOPBACKNET);
	default:
		return false;
	}
}

bool addr_is_any(const struct addr *addr)
{
	switch (addr->sa.sa_family) {
	case AF_INET:
		return addr->in4.sin_addr.s_addr == htonl(INADDR_ANY);
	case AF_INET6:
		return IN6_IS_ADDR_UNSPECIFIED(&addr->in6.sin6_addr);
	default:
		return false;
	}
}

const char *addr_bind_hint(int err)
{
	switch (err) {
	case EADDRINUSE:
		return " (`ss -ltnp` shows by whom; stop that one, or choose another port)";
	case EADDRNOTAVAIL:
		return " (no device of this host has that address; `ip address` shows them)";
	case EACCES:
		return " (this port is for root and CAP_NET_BIND_SERVICE; choose one from 1024 on)";
	default:
		return "";
	}
}
