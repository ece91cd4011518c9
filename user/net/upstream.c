/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Upstream connections. Happy path: upstream_get() connects, the first send goes out at once (on
 * loopback the handshake is done by then), upstream_keep() leaves it idle for the next request.
 * Failures: connect errors surface in upstream_get(), in the first send, or as an event while
 * connecting. Close: an event on an idle one means that the server closed it; it is dropped, and
 * what the kernel had not yet told is found by the next request, which is sent again.
 */
#include "net/upstream.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>

#include "net/worker.h"

static void on_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void upstream_close(struct upstream *u, bool reset)
{
	struct conn *c = u->conn;
	struct upstream **at = &c->upstreams;

	while (*at != u)
		at = &(*at)->next;
	*at = u->next;
	if (c->current == u)
		c->current = NULL;
	steer_upstream_leave(u);
	steer_sock_close(c, &u->steer, &u->sock, reset, on_closed);
	splice_leave(c->worker, &u->splice, reset);
}

void upstream_ended(struct upstream *u)
{
	if (steer_upstream_ended(u))
		upstream_close(u, false);
	else
		conn_on_steered(u->conn);
}

static void on_event(uv_poll_t *poll, int status, int events)
{
	struct upstream *u = poll->data;
	struct conn *c = u->conn;

	if (status < 0) {
		/* EPOLLERR: libuv has stopped the watcher; recv() and send() tell the cause. */
		u->sock.events = 0;
		events = UV_READABLE | UV_WRITABLE;
	}
	if (c->current != u) {
		upstream_ended(u);
		return;
	}
	if (u->connecting) {
		int err = 0;
		socklen_t len = sizeof(err);

		getsockopt(u->sock.fd, SOL_SOCKET, SO_ERROR, &err, &len);
		if (err) {
			conn_on_connect_failed(c, err);
			return;
		}
		upstream_connected(u);
	}
	if (events & UV_WRITABLE)
		conn_on_upstream_ready(c);
	if ((events & (UV_READABLE | UV_DISCONNECT)) && c->current == u && c->state != CONN_CLOSED)
		conn_on_upstream_readable(c);
}

void upstream_connected(struct upstream *u)
{
	u->connecting = false;
}

static int upstream_connect(struct upstream *u)
{
	int fd, err, on = 1, segment = splice_segment_bytes(u->conn);

	fd = socket(u->addr.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
	if (fd < 0)
		return -errno;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	/* Only makes it smaller. */
	if (segment)
		setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof(segment));
	if (connect(fd, &u->addr.sa, u->addr.len) == 0) {
		u->connecting = false;
	} else if (errno == EINPROGRESS) {
		u->connecting = true;
	} else {
		err = -errno;
		close(fd);
		return err;
	}
	err = sock_open(&u->sock, &u->conn->worker->loop, fd, u, on_event);
	if (err)
		close(fd);
	else
		splice_connecting(u, fd);
	return err;
}

int upstream_get(struct conn *c, const struct backend *backend, bool fresh)
{
	struct backend_stats *stats = &c->worker->stats->backend[backend->id];
	uint32_t epoch = __atomic_load_n(&backend->shared->epoch, __ATOMIC_RELAXED);
	struct upstream *u, **at;
	bool taken;
	int err;

	for (at = &c->upstreams; (u = *at); at = &u->next)
		if (addr_equal(&u->addr, &backend->addr) && u->slot == backend->id)
			break;
	taken = !u || steer_upstream_take(u);
	/* One from before a restart may be kept open by somebody between, and the kernel steers
	 * nothing to it.
	 * Bytes on an idle connection answer nothing that was asked: the next request must not get
	 * them as its answer. */
	if (u && (fresh || !taken || u->epoch != epoch || u->steer.once ||
		  sock_unread(u->sock.fd) || steer_waiting(&u->steer))) {
		upstream_close(u, false);
		u = NULL;
	}
	if (u) {
		/* To the front: the next request most likely wants the same one. */
		*at = u->next;
		u->next = c->upstreams;
		c->upstreams = u;
		c->current = u;
		stat_add(&stats->reuses, 1);
		return 0;
	}
	u = calloc(1, sizeof(*u));
	if (!u)
		return -ENOMEM;
	u->conn = c;
	u->addr = backend->addr;
	u->slot = backend->id;
	u->epoch = epoch;
	err = upstream_connect(u);
	if (err) {
		free(u);
		return err;
	}
	u->next = c->upstreams;
	c->upstreams = u;
	c->current = u;
	stat_add(&stats->connects, 1);
	return 0;
}

void upstream_keep(struct conn *c)
{
	c->current->used = true;
	sock_want(&c->current->sock, UV_READABLE);
	c->current = NULL;
}

void upstream_drop(struct conn *c, bool reset)
{
	if (c->current)
		upstream_close(c->current, reset);
}

void upstream_drop_all(struct conn *c)
{
	while (c->upstreams)
		upstream_close(c->upstreams, true);
}
