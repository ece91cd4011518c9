/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Socket addresses as operators write them: "127.0.0.1:8080", "[::1]:8080", "*:8080" (all
 * addresses, IPv6 dual-stack where there is IPv6). Numeric only: kvpin never asks a name server.
 */
#ifndef BASE_ADDR_H
#define BASE_ADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

#define ADDR_TEXT_MAX 64

/* Not a sockaddr_storage: every connection has one or two, and 128 bytes add up. */
struct addr {
	socklen_t len;
	union {
		struct sockaddr sa;
		struct sockaddr_in in4;
		struct sockaddr_in6 in6;
	};
};

/**
 * addr_parse() - text to address
 * @text: HOST:PORT, [V6]:PORT, *:PORT; "localhost" is 127.0.0.1
 * @addr: set on success
 * @why: on failure set to a static text that says what is wrong and what is wanted
 *
 * Returns 0 or -EINVAL.
 */
int addr_parse(const char *text, struct addr *addr, const char **why);

/** addr_format() - address to text; @text holds ADDR_TEXT_MAX bytes; returns @text */
const char *addr_format(const struct addr *addr, char *text);

/** addr_equal() - same family, address and port? */
bool addr_equal(const struct addr *a, const struct addr *b);

/** addr_same_host() - same family and address, whatever the port? */
bool addr_same_host(const struct addr *a, const struct addr *b);

/** addr_unmap() - an IPv4 peer of an IPv6 socket (RFC 4291 2.5.5.2) becomes what it is; others stay
 */
void addr_unmap(struct addr *addr);

/** addr_port() - port in host order */
unsigned int addr_port(const struct addr *addr);

/** addr_is_loopback() - is only this host reachable under it? */
bool addr_is_loopback(const struct addr *addr);

/** addr_bind_hint() - what to do when nobody can listen there; @err: errno; " (...)" or "" */
const char *addr_bind_hint(int err);

/** addr_is_any() - is it a wildcard: good to listen on, no server's address? */
bool addr_is_any(const struct addr *addr);

#endif
