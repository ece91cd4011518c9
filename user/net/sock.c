/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Sockets in the event loop. */
#include "net/sock.h"

#include <errno.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

int sock_open(struct sock *s, uv_loop_t *loop, int fd, void *owner, uv_poll_cb on_event)
{
	int err = uv_poll_init(loop, &s->poll, fd);

	if (err)
		return err;
	s->poll.data = owner;
	s->on_event = on_event;
	s->fd = fd;
	s->events = 0;
	return 0;
}

void sock_want(struct sock *s, int events)
{
	if (s->events == events || s->fd < 0)
		return;
	s->events = events;
	if (events)
		uv_poll_start(&s->poll, events, s->on_event);
	else
		uv_poll_stop(&s->poll);
}

int sock_watch(struct sock *s, uv_loop_t *loop, int fd, void *owner, uv_poll_cb on_event)
{
	int err;

	fd = dup(fd);
	if (fd < 0)
		return -errno;
	err = sock_open(s, loop, fd, owner, on_event);
	if (err) {
		close(fd);
		return err;
	}
	sock_want(s, UV_READABLE);
	return 0;
}

bool sock_unread(int fd)
{
	int bytes = 0;

	return ioctl(fd, SIOCINQ, &bytes) == 0 && bytes > 0;
}

/* SO_LINGER{1,0} */
static void sock_reset_on_close(int fd)
{
	struct linger rst = {.l_onoff = 1, .l_linger = 0};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &rst, sizeof(rst));
}

void sock_close(struct sock *s, bool reset, uv_close_cb on_close)
{
	uv_close((uv_handle_t *)&s->poll, on_close);
	if (reset)
		sock_reset_on_close(s->fd);
	close(s->fd);
	s->fd = -1;
}
