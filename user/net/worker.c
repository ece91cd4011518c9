/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Workers: accept, and the messages of the main thread (new configuration, drain, stop).
 *
 * Happy path: the listener is readable, connections are accepted in bounded batches. Failures: at
 * the connection limit or out of descriptors the listeners rest for a moment and the kernel's
 * queue holds the clients. Close: stop closes every connection, then every handle, and the loop
 * ends by itself.
 */
#include "net/worker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "net/conn.h"

/* Connections accepted per event, so that a burst does not starve the open ones. A listener
 * begins with one, which spares the accept() that finds nothing, and doubles while there are
 * more. */
#define ACCEPT_BATCH_MAX 32
/* How long the listeners rest when nothing can be accepted. */
#define ACCEPT_PAUSE_MS 20

/* At the limit every client meets it. */
#define SHORT_SAY_MS 1000

void worker_short(struct worker *w, const char *what, int err)
{
	uint64_t now_ms = uv_now(&w->loop);

	if (now_ms < w->short_ms)
		return;
	w->short_ms = now_ms + SHORT_SAY_MS;
	LOG(WARN, what, F_STR("error", strerror(err)),
	    F_STR("fix", err == EADDRNOTAVAIL
				 ? "more local ports: net.ipv4.ip_local_port_range, or more servers"
				 : "lower limits.connections, or raise the limit of descriptors "
				   "(ulimit -Hn, LimitNOFILE=)"));
}

static void listeners_want(struct worker *w, int events)
{
	for (unsigned int i = 0; i < w->nr_listen; i++)
		sock_want(&w->listen[i], events);
}

static void on_accept_pause(uv_timer_t *timer)
{
	struct worker *w = timer->data;

	if (!w->draining)
		listeners_want(w, UV_READABLE);
}

static void accept_rest(struct worker *w)
{
	stat_add(&w->stats->accept_pauses, 1);
	listeners_want(w, 0);
	uv_timer_start(&w->accept_pause, on_accept_pause, ACCEPT_PAUSE_MS, 0);
}

/* Returns false when there is nothing (more) to accept. */
static bool accept_one(struct worker *w, int listen_fd)
{
	struct addr peer = {.len = sizeof(peer.in6)};
	int fd = accept4(listen_fd, &peer.sa, &peer.len, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd >= 0) {
		/* What servers, logs and keys are told is the client's own address. */
		addr_unmap(&peer);
		conn_new(w, fd, &peer);
		return true;
	}
	switch (errno) {
	case EAGAIN:
		return false;
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
	case ENOMEM:
		worker_short(w, "cannot accept", errno);
		accept_rest(w);
		return false;
	default:
		/* ECONNABORTED and the pending network errors of accept(2): the next one. */
		return true;
	}
}

static void on_listener(uv_poll_t *poll, int status, int events)
{
	struct worker *w = poll->data;
	struct sock *s = container_of(poll, struct sock, poll);

	for (unsigned int i = 0; i < w->accept_batch; i++) {
		if (atomic_load_explicit(&w->balancer->connections, memory_order_relaxed) >=
		    w->config->limit.connections) {
			accept_rest(w);
			return;
		}
		if (!accept_one(w, s->fd)) {
			w->accept_batch = 1;
			return;
		}
	}
	if (w->accept_batch < ACCEPT_BATCH_MAX)
		w->accept_batch *= 2;
}

static void listeners_close(struct worker *w)
{
	uv_timer_stop(&w->accept_pause);
	for (unsigned int i = 0; i < w->nr_listen; i++) {
		/* What the kernel has already accepted for us would be reset with the listener. */
		while (accept_one(w, w->listen[i].fd))
			;
		sock_close(&w->listen[i], false, NULL);
	}
	w->nr_listen = 0;
}

static void worker_drain(struct worker *w)
{
	struct list *at, *next;

	if (w->draining)
		return;
	listeners_close(w);
	atomic_store(&w->closed, true);
	w->draining = true;
	list_for_each_safe (at, next, &w->conns)
		conn_drain(container_of(at, struct conn, link));
}

static void worker_stop(struct worker *w)
{
	struct list *at, *next;

	worker_drain(w);
	list_for_each_safe (at, next, &w->conns)
		conn_close(container_of(at, struct conn, link), CONN_CLOSE_STOP);
	steer_worker_stop(w);
	wait_worker_stop(w);
	splice_worker_stop(w);
	uv_close((uv_handle_t *)&w->accept_pause, NULL);
	uv_close((uv_handle_t *)&w->wake, NULL);
}

static void on_wake(uv_async_t *async)
{
	struct worker *w = async->data;

	w->config = atomic_load(&w->balancer->config);
	atomic_store(&w->seen, w->config);
	wait_worker_run(w);
	if (atomic_load(&w->drain))
		worker_drain(w);
	if (atomic_load(&w->stop))
		worker_stop(w);
}

static void worker_main(void *arg)
{
	struct worker *w = arg;

	uv_run(&w->loop, UV_RUN_DEFAULT);
}

int worker_new(struct balancer *b, unsigned int index, const int *fds, unsigned int nr_fds,
	       struct worker **out)
{
	struct worker *w = calloc(1, sizeof(*w));
	int err = -ENOMEM;

	if (!w)
		return -ENOMEM;
	w->stats = calloc(1, sizeof(*w->stats));
	w->explain = explain_ring_new();
	if (!w->stats || !w->explain)
		goto err_loop;
	err = uv_loop_init(&w->loop);
	if (err)
		goto err_loop;
	w->balancer = b;
	w->index = index;
	w->config = atomic_load(&b->config);
	atomic_store(&w->seen, w->config);
	w->accept_batch = 1;
	list_init(&w->conns);
	uv_async_init(&w->loop, &w->wake, on_wake);
	w->wake.data = w;
	wait_worker_init(w);
	uv_timer_init(&w->loop, &w->accept_pause);
	w->accept_pause.data = w;
	for (unsigned int i = 0; i < nr_fds; i++) {
		err = sock_open(&w->listen[i], &w->loop, fds[i], w, on_listener);
		if (err)
			goto err_listen;
		w->nr_listen++;
	}
	err = steer_worker_init(w, b->steer);
	if (err)
		goto err_listen;
	err = splice_worker_init(w, b->splice);
	if (err)
		goto err_steer;
	listeners_want(w, UV_READABLE);
	*out = w;
	return 0;

err_steer:
	steer_worker_stop(w);
err_listen:
	/* The descriptors stay the caller's: only the handles go. */
	for (unsigned int i = 0; i < w->nr_listen; i++)
		uv_close((uv_handle_t *)&w->listen[i].poll, NULL);
	wait_worker_stop(w);
	uv_close((uv_handle_t *)&w->accept_pause, NULL);
	uv_close((uv_handle_t *)&w->wake, NULL);
	uv_run(&w->loop, UV_RUN_DEFAULT);
	uv_loop_close(&w->loop);
err_loop:
	explain_ring_free(w->explain);
	free(w->stats);
	free(w);
	return err;
}

int worker_start(struct worker *w)
{
	int err = uv_thread_create(&w->thread, worker_main, w);

	w->started = !err;
	return err;
}

void worker_wake(struct worker *w)
{
	uv_async_send(&w->wake);
}

void worker_free(struct worker *w)
{
	if (!w)
		return;
	if (w->started) {
		uv_thread_join(&w->thread);
	} else {
		/* Never ran: let its loop see the stop here. */
		atomic_store(&w->stop, true);
		uv_async_send(&w->wake);
		uv_run(&w->loop, UV_RUN_DEFAULT);
	}
	uv_loop_close(&w->loop);
	buf_pool_fini(&w->pool);
	explain_ring_free(w->explain);
	free(w->stats);
	free(w);
}
