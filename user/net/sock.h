/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A TCP socket in a worker's event loop: descriptor, uv_poll_t, and the events wanted. Changing
 * the wanted events costs system calls, so sock_want() does nothing when they stay the same.
 */
#ifndef NET_SOCK_H
#define NET_SOCK_H

#include <stdbool.h>
#include <uv.h>

struct sock {
	uv_poll_t poll; /* poll.data: the owner */
	uv_poll_cb on_event;
	int fd;	    /* -1 when closed */
	int events; /* wanted: UV_READABLE, UV_WRITABLE, UV_DISCONNECT */
};

/**
 * sock_open() - take a descriptor into the loop; no events yet
 * @s: embedded in its owner
 * @fd: nonblocking socket; owned by @s on success, by the caller on failure
 * @owner: what the callback finds in poll->data
 *
 * Returns 0 or -errno.
 */
int sock_open(struct sock *s, uv_loop_t *loop, int fd, void *owner, uv_poll_cb on_event);

/** sock_watch() - report what comes in at @fd, which stays the caller's: a duplicate is taken into
 * the loop. Returns 0 or -errno. */
int sock_watch(struct sock *s, uv_loop_t *loop, int fd, void *owner, uv_poll_cb on_event);

/** sock_want() - which events are to be reported; 0 for none */
void sock_want(struct sock *s, int events);

/** sock_close() - leave the loop and close the descriptor; @on_close (may free the owner) is
 * called from the loop later. @reset: with a RST instead of a FIN. */
void sock_close(struct sock *s, bool reset, uv_close_cb on_close);

/** sock_unread() - has the kernel bytes that nobody has read? A FIN does not count */
bool sock_unread(int fd);

#endif
