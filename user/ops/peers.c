/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The peers' life: secret, listener, thread, the ring of changes, figures.
 *
 * The close: peers_stop() wakes the loop, which closes what there is and ends; changes that nobody
 * was told of are told when this balancer is back, out of its sessions' file.
 */
#include "ops/peers.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "ops/peers_private.h"

#define BACKLOG 16

static int secret_read(struct peers *p, const char *path, char *why, unsigned int why_bytes)
{
	FILE *f = fopen(path, "re");
	int err = f ? 0 : -errno;

	if (f && !fgets(p->secret, sizeof(p->secret), f))
		p->secret[0] = '\0';
	if (f)
		fclose(f);
	p->secret[strcspn(p->secret, "\r\n")] = '\0';
	if (err) {
		snprintf(why, why_bytes,
			 "peers.secret: cannot read %s: %s (make it readable for who starts "
			 "kvpin)",
			 path, strerror(-err));
		return err;
	}
	for (const char *c = p->secret; *c; c++)
		if (!isgraph((unsigned char)*c))
			err = -EINVAL;
	if (err || strlen(p->secret) < 8 || strlen(p->secret) == sizeof(p->secret) - 1) {
		snprintf(why, why_bytes,
			 "peers.secret: the first line of %s must have 8 to %zu characters, "
			 "without blanks",
			 path, sizeof(p->secret) - 2);
		return -EINVAL;
	}
	return 0;
}

static int listen_open(struct peers *p, const struct addr *addr, char *why, unsigned int why_bytes)
{
	char text[ADDR_TEXT_MAX];
	int on = 1, err;

	p->listen = *addr;
	p->fd = socket(addr->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
	if (p->fd >= 0) {
		setsockopt(p->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		if (!bind(p->fd, &addr->sa, addr->len) && !listen(p->fd, BACKLOG))
			return 0;
	}
	err = -errno;
	snprintf(why, why_bytes, "peers.listen: cannot listen on %s: %s%s", addr_format(addr, text),
		 strerror(-err), addr_bind_hint(-err));
	return err;
}

static void peers_free(struct peers *p)
{
	if (p->fd >= 0)
		close(p->fd);
	for (unsigned int i = 0; i < p->nr_out; i++)
		free(p->out[i].batch);
	pthread_mutex_destroy(&p->mutex);
	free(p->change);
	free(p);
}

int peers_open(struct peers **out, const struct config *c, char *why, unsigned int why_bytes)
{
	struct peers *p;
	int err;

	*out = NULL;
	if (!config_peers(c))
		return 0;
	p = calloc(1, sizeof(*p));
	if (p)
		p->change = calloc(PEER_CHANGES, sizeof(*p->change));
	if (!p || !p->change) {
		free(p);
		snprintf(why, why_bytes, "peers: out of memory");
		return -ENOMEM;
	}
	p->fd = -1;
	pthread_mutex_init(&p->mutex, NULL);
	for (unsigned int i = 0; i < c->peers.to.nr; i++)
		peer_out_init(p, &p->out[p->nr_out++], &c->peers.to.one[i]);
	err = secret_read(p, c->peers.secret, why, why_bytes);
	if (!err && c->peers.listen.nr)
		err = listen_open(p, &c->peers.listen.one[0], why, why_bytes);
	if (err) {
		peers_free(p);
		return err;
	}
	*out = p;
	return 0;
}

/* Under a shard's lock. */
static void on_change(void *arg, uint64_t id, uint32_t stamp, bool gone)
{
	struct peers *p = arg;

	pthread_mutex_lock(&p->mutex);
	p->change[p->changes++ % PEER_CHANGES] =
		(struct peer_change){.id = id, .stamp = stamp, .gone = gone};
	pthread_mutex_unlock(&p->mutex);
}

void peers_attach(struct peers *p, struct balancer *b)
{
	const struct session_watch watch = {.arg = p, .changed = on_change};

	if (!p)
		return;
	p->balancer = b;
	session_table_watch(b->sessions, &watch);
}

static void on_tick(uv_timer_t *timer)
{
	struct peers *p = timer->data;
	uint64_t now_ms = uv_now(&p->loop);

	for (unsigned int i = 0; i < p->nr_out; i++)
		peer_out_tick(&p->out[i], now_ms);
	peer_in_tick(p, now_ms);
}

static void on_connection(uv_stream_t *listener, int status)
{
	if (!status)
		peer_in_accept(listener->data);
}

static void on_stop(uv_async_t *async)
{
	struct peers *p = async->data;

	uv_close((uv_handle_t *)&p->stop, NULL);
	uv_close((uv_handle_t *)&p->tick, NULL);
	uv_close((uv_handle_t *)&p->listener, NULL);
	peer_in_close_all(p);
	for (unsigned int i = 0; i < p->nr_out; i++) {
		p->out[i].said = true;
		peer_out_down(&p->out[i], "kvpin ends");
	}
}

static void *peers_thread(void *arg)
{
	struct peers *p = arg;

	uv_run(&p->loop, UV_RUN_DEFAULT);
	return NULL;
}

int peers_serve(struct peers *p, pthread_rwlock_t *lock, char *why, unsigned int why_bytes)
{
	int err;

	if (!p)
		return 0;
	p->lock = lock;
	err = uv_loop_init(&p->loop);
	if (err)
		goto out;
	uv_async_init(&p->loop, &p->stop, on_stop);
	uv_timer_init(&p->loop, &p->tick);
	uv_tcp_init(&p->loop, &p->listener);
	p->stop.data = p->tick.data = p->listener.data = p;
	uv_timer_start(&p->tick, on_tick, 0, PEER_TICK_MS);
	if (p->fd >= 0) {
		err = uv_tcp_open(&p->listener, p->fd);
		if (!err)
			p->fd = -1;
		if (!err)
			err = uv_listen((uv_stream_t *)&p->listener, BACKLOG, on_connection);
	}
	if (!err)
		err = -pthread_create(&p->thread, NULL, peers_thread, p);
	p->running = !err;
	if (err) {
		on_stop(&p->stop);
		uv_run(&p->loop, UV_RUN_DEFAULT);
		uv_loop_close(&p->loop);
	}
out:
	if (err)
		snprintf(why, why_bytes, "peers: cannot start: %s", uv_strerror(err));
	return err;
}

void peers_stop(struct peers *p)
{
	if (!p)
		return;
	if (p->running) {
		uv_async_send(&p->stop);
		pthread_join(p->thread, NULL);
		uv_loop_close(&p->loop);
	}
	if (p->balancer)
		session_table_watch(p->balancer->sessions, NULL);
	peers_free(p);
}

void peers_stats(const struct peers *p, struct peers_stats *out)
{
	*out = (struct peers_stats){0};
	if (!p)
		return;
	out->nr = p->nr_out;
	for (unsigned int i = 0; i < p->nr_out; i++)
		out->peer[i] = (struct peer_stats){
			.addr = p->out[i].addr,
			.up = atomic_load(&p->out[i].up),
			.sent = atomic_load(&p->out[i].sent),
			.failures = atomic_load(&p->out[i].failures),
		};
	out->received = atomic_load(&p->received);
	out->merged = atomic_load(&p->merged);
	out->conflicts = atomic_load(&p->conflicts);
	out->unknown = atomic_load(&p->unknown);
	out->refused = atomic_load(&p->refused);
}
