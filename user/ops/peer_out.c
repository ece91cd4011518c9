/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Telling one peer.
 *
 * Happy path: connect, the secret, its answer; then the whole table, page by page, then changes as
 * they come, and from time to time those pins that were used meanwhile. One write is under way at
 * most, so a slow peer costs one batch of memory; what it missed is told from the ring of changes,
 * or, when that has run over, by the whole table again. Failures: whatever breaks, the connection
 * is closed and made anew PEER_RETRY_MS later.
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "ops/peers_private.h"

#define PAGE 64

void peer_out_init(struct peers *p, struct peer_out *o, const struct addr *addr)
{
	*o = (struct peer_out){.peers = p, .addr = *addr};
	addr_format(addr, o->text);
}

static void on_freed(uv_handle_t *handle)
{
	free(handle);
}

void peer_out_down(struct peer_out *o, const char *why)
{
	bool was_up = o->state == PEER_OUT_UP;

	if (o->state == PEER_OUT_DOWN)
		return;
	o->state = PEER_OUT_DOWN;
	o->since_ms = uv_now(&o->peers->loop);
	atomic_store(&o->up, false);
	atomic_fetch_add(&o->failures, 1);
	/* Writes and connects under way end with UV_ECANCELED before the handle is freed. */
	uv_close((uv_handle_t *)o->tcp, on_freed);
	o->tcp = NULL;
	if (was_up || !o->said)
		LOG(WARN, "peer is away", F_STR("peer", o->text), F_STR("error", why));
	o->said = true;
}

/* ---- what is told ---- */

static uint32_t put_server(const struct backend *b, char *to)
{
	struct peer_record r = {.kind = PEER_SERVER, .tag = b->name_hash};

	memcpy(r.name, b->name, sizeof(r.name));
	addr_format(&b->addr, r.address);
	return peer_format(&r, to);
}

static uint32_t put_servers(struct peer_out *o, char *to)
{
	const struct peers *p = o->peers;
	uint32_t len = 0;

	o->reloads = atomic_load(&p->balancer->reloads);
	for (uint32_t i = 0; i < atomic_load(&p->balancer->backends.nr); i++)
		if (atomic_load(&p->balancer->backends.slot[i].state) != BACKEND_FREE)
			len += put_server(&p->balancer->backends.slot[i], to + len);
	return len;
}

static uint32_t put_pin(struct peer_out *o, const struct session *s, uint32_t stamp,
			uint64_t now_ms, char *to)
{
	const struct backend *b = &o->peers->balancer->backends.slot[s->backend];
	struct peer_record r = {
		.kind = PEER_PIN,
		.tag = b->name_hash,
		.pin = *s,
		.stamp = stamp,
		.lost = s->generation != backend_generation(b),
	};

	r.pin.last_used_ms = now_ms > s->last_used_ms ? now_ms - s->last_used_ms : 0;
	r.pin.created_ms = now_ms > s->created_ms ? now_ms - s->created_ms : 0;
	atomic_fetch_add(&o->sent, 1);
	return peer_format(&r, to);
}

/* Everything from here on: a peer that was away, or too slow. */
static void walk_all(struct peer_out *o)
{
	struct peers *p = o->peers;

	pthread_mutex_lock(&p->mutex);
	o->at = p->changes;
	pthread_mutex_unlock(&p->mutex);
	o->walking = o->full = true;
	o->cursor = 0;
	o->walk_ms = balancer_now_ms();
}

static uint32_t put_changes(struct peer_out *o, char *to, uint32_t room)
{
	struct peers *p = o->peers;
	uint64_t now_ms = balancer_now_ms();
	struct peer_change page[PAGE];
	uint32_t len = 0, nr;

	do {
		pthread_mutex_lock(&p->mutex);
		nr = p->changes - o->at < PAGE ? (uint32_t)(p->changes - o->at) : PAGE;
		if (p->changes - o->at > PEER_CHANGES) {
			pthread_mutex_unlock(&p->mutex);
			walk_all(o);
			return len;
		}
		for (uint32_t i = 0; i < nr; i++)
			page[i] = p->change[(o->at + i) % PEER_CHANGES];
		pthread_mutex_unlock(&p->mutex);
		o->at += nr;
		for (uint32_t i = 0; i < nr; i++) {
			struct peer_record r = {.kind = PEER_GONE, .stamp = page[i].stamp};
			struct session s;
			uint32_t stamp;

			r.pin.id = page[i].id;
			if (session_peek(p->balancer->sessions, page[i].id, now_ms, &s, &stamp))
				len += put_pin(o, &s, stamp, now_ms, to + len);
			else if (page[i].gone)
				len += peer_format(&r, to + len);
		}
	} while (nr == PAGE && room - len > PAGE * PEER_LINE_MAX);
	return len;
}

/* Does the peer know all servers that a pin can be on now? Under the lock. */
static bool servers_told(const struct peer_out *o)
{
	return o->reloads == atomic_load(&o->peers->balancer->reloads);
}

/* A page of the walk, under the lock for no longer: a table may have a million pins. */
static uint32_t put_page(struct peer_out *o, char *to)
{
	struct peers *p = o->peers;
	uint64_t now_ms = balancer_now_ms();
	struct session page[PAGE];
	uint32_t stamp[PAGE], len = 0, nr;

	pthread_rwlock_rdlock(p->lock);
	nr = servers_told(o) ? session_list_stamped(p->balancer->sessions, now_ms, &o->cursor, page,
						    stamp, PAGE)
			     : 0;
	for (uint32_t i = 0; i < nr; i++)
		if (o->full || page[i].last_used_ms >= o->last_walk_ms)
			len += put_pin(o, &page[i], stamp[i], now_ms, to + len);
	pthread_rwlock_unlock(p->lock);
	return len;
}

static uint32_t put_walk(struct peer_out *o, char *to, uint32_t room)
{
	uint32_t len = 0;

	while (o->walking && servers_told(o) && room - len > PAGE * PEER_LINE_MAX) {
		len += put_page(o, to + len);
		if (o->cursor != UINT64_MAX)
			continue;
		o->walking = o->full = false;
		o->last_walk_ms = o->walk_ms;
		atomic_store(&o->up, true);
	}
	return len;
}

static void walk_again(struct peer_out *o)
{
	uint64_t ttl_ms = balancer_config(o->peers->balancer)->session_ttl_ms / 4;
	uint64_t every_ms = ttl_ms < PEER_REFRESH_MS ? ttl_ms : PEER_REFRESH_MS;
	uint64_t now_ms = balancer_now_ms();

	if (o->walking || now_ms < o->walk_ms + every_ms)
		return;
	o->walking = true;
	o->cursor = 0;
	o->walk_ms = now_ms;
}

/* ---- the connection ---- */

static void on_written(uv_write_t *write, int status)
{
	struct peer_out *o = write->data;

	o->writing = false;
	if (status && status != UV_ECANCELED)
		peer_out_down(o, uv_strerror(status));
}

static void send_batch(struct peer_out *o, uint32_t len)
{
	uv_buf_t buf = uv_buf_init(o->batch, len);
	int err;

	o->write.data = o;
	o->since_ms = uv_now(&o->peers->loop);
	err = uv_write(&o->write, (uv_stream_t *)o->tcp, &buf, 1, on_written);
	o->writing = !err;
	if (err)
		peer_out_down(o, uv_strerror(err));
}

static void tell(struct peer_out *o, uint64_t now_ms)
{
	struct peers *p = o->peers;
	uint32_t len = 0;

	/* A reload gives new servers their slots, and requests, a while before it counts itself:
	 * their pins must not be told before the servers are. */
	pthread_rwlock_rdlock(p->lock);
	if (!servers_told(o) || (o->walking && !o->cursor))
		len = put_servers(o, o->batch);
	len += put_changes(o, o->batch + len, PEER_BATCH_BYTES - len);
	pthread_rwlock_unlock(p->lock);
	walk_again(o);
	len += put_walk(o, o->batch + len, PEER_BATCH_BYTES - len);
	if (!len && now_ms >= o->since_ms + PEER_BEAT_MS) {
		const struct peer_record beat = {.kind = PEER_BEAT};

		len = peer_format(&beat, o->batch);
	}
	if (len)
		send_batch(o, len);
}

static void on_room(uv_handle_t *handle, size_t want, uv_buf_t *buf)
{
	struct peer_out *o = handle->data;

	*buf = uv_buf_init(o->in, sizeof(PEER_ANSWER) - 1);
}

/* It says one thing only. */
static void on_answer(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct peer_out *o = stream->data;

	if (!n)
		return;
	if (n < 0 || o->state != PEER_OUT_HELLO || n != sizeof(PEER_ANSWER) - 1 ||
	    memcmp(buf->base, PEER_ANSWER, n)) {
		peer_out_down(o, o->state == PEER_OUT_HELLO
					 ? "it refuses us: another secret, another version, or its "
					   "peers.to does not name this host"
					 : "the connection broke");
		return;
	}
	o->state = PEER_OUT_UP;
	o->said = false;
	walk_all(o);
	LOG(INFO, "peer is there", F_STR("peer", o->text));
}

static void on_connected(uv_connect_t *connect, int status)
{
	struct peer_out *o = connect->data;
	unsigned int silence_ms = PEER_SILENCE_MS;
	uv_os_fd_t fd;

	if (status == UV_ECANCELED)
		return;
	if (status) {
		peer_out_down(o, uv_strerror(status));
		return;
	}
	o->state = PEER_OUT_HELLO;
	uv_tcp_nodelay(o->tcp, 1);
	if (!uv_fileno((uv_handle_t *)o->tcp, &fd))
		setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence_ms, sizeof(silence_ms));
	uv_read_start((uv_stream_t *)o->tcp, on_room, on_answer);
	send_batch(o, (uint32_t)snprintf(o->batch, PEER_BATCH_BYTES, "%s %s\n", PEER_HELLO,
					 o->peers->secret));
}

/* The peer knows us by the address that we listen on. */
static void bind_source(const struct peer_out *o)
{
	struct addr source = o->peers->listen;

	if (source.sa.sa_family != o->addr.sa.sa_family || addr_is_any(&source))
		return;
	if (source.sa.sa_family == AF_INET6)
		source.in6.sin6_port = 0;
	else
		source.in4.sin_port = 0;
	uv_tcp_bind(o->tcp, &source.sa, 0);
}

static void dial(struct peer_out *o)
{
	int err = UV_ENOMEM;

	o->since_ms = uv_now(&o->peers->loop);
	if (!o->batch)
		o->batch = malloc(PEER_BATCH_BYTES);
	/* The former write's request is still the loop's. */
	if (o->writing || !o->batch)
		return;
	o->tcp = malloc(sizeof(*o->tcp));
	if (!o->tcp)
		return;
	uv_tcp_init(&o->peers->loop, o->tcp);
	o->tcp->data = o;
	bind_source(o);
	o->connect.data = o;
	o->state = PEER_OUT_CONNECTING;
	err = uv_tcp_connect(&o->connect, o->tcp, &o->addr.sa, on_connected);
	if (err)
		peer_out_down(o, uv_strerror(err));
}

void peer_out_tick(struct peer_out *o, uint64_t now_ms)
{
	switch (o->state) {
	case PEER_OUT_DOWN:
		if (!o->since_ms || now_ms >= o->since_ms + PEER_RETRY_MS)
			dial(o);
		break;
	case PEER_OUT_UP:
		if (!o->writing)
			tell(o, now_ms);
		else if (now_ms >= o->since_ms + PEER_SILENCE_MS)
			peer_out_down(o, "it does not take what it is told");
		break;
	default:
		if (now_ms >= o->since_ms + PEER_SILENCE_MS)
			peer_out_down(o, "no answer");
		break;
	}
}
