/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Listening to peers.
 *
 * Happy path: the secret, our answer, then lines, each through session_merge(). A reload may give
 * slots other servers: what the peer's tags stand for is then forgotten by ending the connection;
 * it comes back and tells everything. Failures: a stranger, a wrong secret, a line that is none,
 * silence: the connection is closed.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "ops/peers_private.h"

/* Two for each peer: one that is dead may not be noticed yet when the next one comes. */
#define IN_MAX (2 * PEERS_MAX)

static void on_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void in_close(struct peer_in *in)
{
	struct peers *p = in->peers;
	struct peer_in **at = &p->in;

	if (uv_is_closing((uv_handle_t *)&in->tcp))
		return;
	while (*at != in)
		at = &(*at)->next;
	*at = in->next;
	p->nr_in--;
	uv_close((uv_handle_t *)&in->tcp, on_closed);
}

static void in_refuse(struct peer_in *in, const char *why)
{
	struct sockaddr_storage from = {0};
	int len = sizeof(from);
	char text[ADDR_TEXT_MAX];
	struct addr addr = {0};

	uv_tcp_getpeername(&in->tcp, (struct sockaddr *)&from, &len);
	memcpy(&addr.in6, &from, sizeof(addr.in6));
	addr.len = (socklen_t)len;
	/* A peer with another secret tries every second: the first time is enough. */
	if (!atomic_fetch_add(&in->peers->refused, 1))
		LOG(WARN, "refused a peer", F_STR("peer", addr_format(&addr, text)),
		    F_STR("reason", why));
	in_close(in);
}

/* ---- lines ---- */

static uint32_t slot_of(const struct peer_in *in, uint64_t tag)
{
	for (unsigned int i = 0; i < in->nr_tags; i++)
		if (in->tag[i].tag == tag)
			return in->tag[i].slot;
	return SESSION_NO_BACKEND;
}

static void take_server(struct peer_in *in, const struct peer_record *r)
{
	const struct backend *b = backend_find(&in->peers->balancer->backends, r->name);
	unsigned int i = 0;

	while (i < in->nr_tags && in->tag[i].tag != r->tag)
		i++;
	if (i == BACKENDS_MAX)
		return;
	if (i == in->nr_tags)
		in->nr_tags++;
	in->tag[i].tag = r->tag;
	in->tag[i].slot = b && peer_same_server(&b->addr, r->address) ? b->id : SESSION_NO_BACKEND;
}

static void take_pin(struct peer_in *in, const struct peer_record *r)
{
	struct peers *p = in->peers;
	struct balancer *b = p->balancer;
	uint64_t now_ms = balancer_now_ms(), rank[BACKENDS_MAX];
	struct session s = r->pin;
	enum session_merged done;

	atomic_fetch_add(&p->received, 1);
	s.backend = slot_of(in, r->tag);
	if (s.backend == SESSION_NO_BACKEND) {
		atomic_fetch_add(&p->unknown, 1);
		return;
	}
	for (uint32_t i = 0; i < BACKENDS_MAX; i++)
		rank[i] = b->backends.slot[i].name_hash;
	s.last_used_ms = s.last_used_ms < now_ms ? now_ms - s.last_used_ms : 0;
	s.created_ms = s.created_ms < now_ms ? now_ms - s.created_ms : 0;
	s.generation = (uint16_t)(backend_generation(&b->backends.slot[s.backend]) - r->lost);
	s.control = guard_control(s.id, balancer_config(b)->experiment_milli);
	done = session_merge(b->sessions, &s, r->stamp, rank, now_ms);
	if (done == SESSION_MERGED_MOVED || done == SESSION_MERGED_KEPT)
		atomic_fetch_add(&p->conflicts, 1);
	if (done != SESSION_MERGED_NOTHING && done != SESSION_MERGED_KEPT)
		atomic_fetch_add(&p->merged, 1);
}

/* Returns false when the connection was closed. */
static bool take_line(struct peer_in *in, const char *line)
{
	struct peer_record r;

	if (!peer_parse(line, &r)) {
		in_refuse(in, "it does not speak as this version does");
		return false;
	}
	if (r.kind == PEER_SERVER)
		take_server(in, &r);
	else if (r.kind == PEER_PIN)
		take_pin(in, &r);
	else if (r.kind == PEER_GONE)
		session_merge_gone(in->peers->balancer->sessions, r.pin.id, r.stamp);
	return true;
}

static void on_answered(uv_write_t *write, int status)
{
}

static bool take_hello(struct peer_in *in, const char *line)
{
	char want[sizeof(PEER_HELLO) + PEER_SECRET_MAX + 2];
	uv_buf_t answer = uv_buf_init((char *)PEER_ANSWER, sizeof(PEER_ANSWER) - 1);

	snprintf(want, sizeof(want), "%s %s\n", PEER_HELLO, in->peers->secret);
	if (!peer_secret_equal(want, line)) {
		in_refuse(in, "another secret, or another version");
		return false;
	}
	in->known = true;
	uv_write(&in->write, (uv_stream_t *)&in->tcp, &answer, 1, on_answered);
	return true;
}

static void take_lines(struct peer_in *in)
{
	char *at = in->buf, *end = in->buf + in->len, *newline, line[PEER_LINE_MAX];

	while ((newline = memchr(at, '\n', (size_t)(end - at)))) {
		size_t len = (size_t)(newline + 1 - at);

		if (len >= sizeof(line)) {
			in_refuse(in, "a line without an end");
			return;
		}
		memcpy(line, at, len);
		line[len] = '\0';
		at += len;
		if (!(in->known ? take_line(in, line) : take_hello(in, line)))
			return;
	}
	in->len = (size_t)(end - at);
	memmove(in->buf, at, in->len);
	if (in->len >= sizeof(line))
		in_refuse(in, "a line without an end");
}

static void on_room(uv_handle_t *handle, size_t want, uv_buf_t *buf)
{
	struct peer_in *in = handle->data;

	*buf = uv_buf_init(in->buf + in->len, (unsigned int)(sizeof(in->buf) - in->len));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct peer_in *in = stream->data;
	struct peers *p = in->peers;
	bool stale;

	if (!n)
		return;
	if (n < 0) {
		in_close(in);
		return;
	}
	in->heard_ms = uv_now(&p->loop);
	in->len += (size_t)n;
	pthread_rwlock_rdlock(p->lock);
	stale = in->reloads != atomic_load(&p->balancer->reloads);
	if (!stale)
		take_lines(in);
	pthread_rwlock_unlock(p->lock);
	if (stale)
		in_close(in);
}

/* ---- connections ---- */

static bool is_peer(const struct peers *p, const struct addr *addr)
{
	for (unsigned int i = 0; i < p->nr_out; i++)
		if (addr_same_host(&p->out[i].addr, addr))
			return true;
	return false;
}

void peer_in_accept(struct peers *p)
{
	struct peer_in *in = calloc(1, sizeof(*in));
	struct addr from = {.len = sizeof(from.in6)};
	int len = sizeof(from.in6);

	if (!in)
		return;
	in->peers = p;
	in->heard_ms = uv_now(&p->loop);
	in->reloads = atomic_load(&p->balancer->reloads);
	uv_tcp_init(&p->loop, &in->tcp);
	in->tcp.data = in;
	in->next = p->in;
	p->in = in;
	p->nr_in++;
	if (uv_accept((uv_stream_t *)&p->listener, (uv_stream_t *)&in->tcp) ||
	    uv_tcp_getpeername(&in->tcp, &from.sa, &len)) {
		in_close(in);
		return;
	}
	from.len = (socklen_t)len;
	addr_unmap(&from);
	if (!is_peer(p, &from)) {
		in_refuse(in, "none of peers.to is at this address");
		return;
	}
	if (p->nr_in > IN_MAX) {
		in_refuse(in, "too many connections");
		return;
	}
	uv_read_start((uv_stream_t *)&in->tcp, on_room, on_read);
}

void peer_in_tick(struct peers *p, uint64_t now_ms)
{
	struct peer_in *in, *next;

	for (in = p->in; in; in = next) {
		next = in->next;
		if (now_ms >= in->heard_ms + PEER_SILENCE_MS)
			in_close(in);
	}
}

void peer_in_close_all(struct peers *p)
{
	while (p->in)
		in_close(p->in);
}
