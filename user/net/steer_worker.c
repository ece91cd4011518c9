/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A worker's part of the steer path: the ring in which the kernel announces what it passes up, and
 * the grave in which sockets wait to be closed.
 *
 * Happy path: the ring becomes readable, its records are noted on their connections, then each of
 * these is looked at once. Failures: a full ring loses announcements; the programs count that, and
 * a scan of all connections finds what they were about.
 * Close: the loop runs until the grave is empty.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "net/account.h"
#include "net/conn.h"
#include "net/steer_private.h"
#include "net/tcp_probe.h"
#include "net/upstream.h"

/* A socket is closed this long after it left the maps (KERNEL.md, sock_map_destroy recursion). */
#define GRAVE_MS 20
#define SCAN_MS	 100
/* Bytes that a client may send ahead while its answer is being taken, and a server unasked. */
#define LANE_BYTES_MAX (512 * 1024)
/* An answer that comes before its request was taken may fill the ring; then upstream_drain() has
 * stopped it. */

struct grave {
	struct list link;
	uint64_t due_ms;
	int fd;
	uint32_t role;
	uint32_t entry; /* 1 + entry */
};

static void on_soon(uv_timer_t *timer);

/* ---- events ---- */

static struct conn *conn_of(struct worker *w, const struct kvpin_event *e)
{
	struct steer *st = w->steer.steer;
	struct conn *c = e->conn < st->kern.nr_conns ? st->conn[e->conn] : NULL;

	return c && c->worker == w && c->steer.sock.cookie == e->cookie ? c : NULL;
}

static struct steer_sock *sock_of(struct conn *c, uint32_t upstream)
{
	if (!upstream)
		return &c->steer.sock;
	for (struct upstream *u = c->upstreams; u; u = u->next)
		if (u->steer.entry == upstream)
			return &u->steer;
	return NULL;
}

void steer_todo(struct conn *c)
{
	struct steer_worker *sw = &c->worker->steer;

	if (c->steer.in_todo)
		return;
	c->steer.in_todo = true;
	list_add_tail(&sw->todo, &c->steer.todo);
	uv_timer_start(&sw->soon, on_soon, 0, 0);
}

bool steer_lane_add(const struct worker *w, struct steer_sock *s, const void *bytes, uint32_t len)
{
	uint32_t max = LANE_BYTES_MAX;
	uint8_t *more = NULL;

	if (s->role != KVPIN_ROLE_CLIENT)
		max += w->config->steer.ring_bytes;
	if (s->lane_len + len <= max)
		more = realloc(s->lane, s->lane_len + len);
	if (!more)
		return false;
	memcpy(more + s->lane_len, bytes, len);
	s->lane = more;
	s->lane_len += len;
	s->received += len;
	return true;
}

static void passed_up(struct conn *c, const struct kvpin_event *e)
{
	switch (e->reason) {
	case KVPIN_REFUSED_OVERLAP: /* flow.broken tells, also when the event was lost */
		break;
	case KVPIN_REFUSED_PIPELINED:
		c->steer.pipelines = true;
		break;
	case KVPIN_REFUSED_ANSWER_STREAM:
	case KVPIN_REFUSED_ANSWER_LONG:
		break;
	case KVPIN_REFUSED_BUDGET:
	case KVPIN_REFUSED_BUDGET_ALL:
		c->steer.slow++;
		c->steer.slow_ms = uv_now(&c->worker->loop);
		break;
	default:
		/* An answer that must be edited makes its request no cheaper either. */
		if (c->steer.passed < UINT8_MAX)
			c->steer.passed++;
		c->steer.answer_passed |= e->upstream != 0;
	}
}

static void on_record(void *arg, const struct kvpin_event *e)
{
	struct worker *w = arg;
	struct conn *c = conn_of(w, e);
	struct steer_sock *s;

	if (!c)
		return;
	switch (e->kind) {
	case KVPIN_EVENT_LANE:
		s = sock_of(c, e->upstream);
		if (!s)
			return;
		/* Bytes that are gone: the connection must not seem whole. */
		if (!steer_lane_add(w, s, e + 1, e->len))
			c->steer.overrun = true;
		break;
	case KVPIN_EVENT_UP:
		passed_up(c, e);
		break;
	case KVPIN_EVENT_DONE:
		account_steered(c, e);
		break;
	}
	steer_todo(c);
}

void steer_consume(struct worker *w)
{
	kern_ring_consume(worker_kern(w), w->index, on_record, w);
}

static bool redirects(struct worker *w, const struct steer_sock *s)
{
	return word_get(steer_flow(w, s)) & KVPIN_WORD_REDIRECT;
}

/* Is there a socket whose bytes cannot be told from those that came before? */
static bool conn_broken(const struct conn *c)
{
	struct worker *w = c->worker;

	if (c->steer.sock.entry && steer_flow(w, &c->steer.sock)->broken)
		return true;
	for (const struct upstream *u = c->upstreams; u; u = u->next)
		if (u->steer.entry && steer_flow(w, &u->steer)->broken)
			return true;
	return false;
}

/* Something happened to this connection: what? */
static void conn_look(struct conn *c)
{
	struct worker *w = c->worker;
	struct upstream *u, *next, *running;
	bool back;

	if (conn_broken(c)) {
		LOG(ERROR, "no memory to take off bytes that came twice: connection reset");
		c->steer.overrun = true;
	}
	if (c->steer.overrun) {
		c->reset_client = true;
		conn_close(c, CONN_CLOSE_OVERRUN);
		return;
	}
	running = steer_running(c);
	for (u = c->upstreams; u; u = next) {
		next = u->next;
		/* An idle server spoke unasked. */
		if (u != running && u != c->current && u->steer.armed && !redirects(w, &u->steer))
			upstream_ended(u);
		if (c->state == CONN_CLOSED)
			return;
	}
	if (c->state == CONN_STEER) {
		running = steer_running(c);
		back = !redirects(w, &c->steer.sock) ||
		       (running && !redirects(w, &running->steer)) ||
		       (!running && steer_kconn(c)->tell);
		if (back)
			steer_reclaim(c);
	}
	conn_on_steered(c);
}

static void look_all(struct worker *w)
{
	struct steer_worker *sw = &w->steer;

	while (sw->todo.next != &sw->todo) {
		struct conn *c = container_of(sw->todo.next, struct conn, steer.todo);

		list_del(&c->steer.todo);
		c->steer.in_todo = false;
		conn_look(c);
	}
}

static void on_ring(uv_poll_t *poll, int status, int events)
{
	struct worker *w = poll->data;

	steer_consume(w);
	look_all(w);
}

static void on_soon(uv_timer_t *timer)
{
	look_all(timer->data);
}

/* Were announcements lost? */
static void on_scan(uv_timer_t *timer)
{
	struct worker *w = timer->data;
	uint64_t lost = __atomic_load_n(&worker_kern(w)->config->ring_full, __ATOMIC_RELAXED);
	struct list *at;

	if (lost == w->steer.ring_full)
		return;
	w->steer.ring_full = lost;
	steer_consume(w);
	for (at = w->conns.next; at != &w->conns; at = at->next) {
		struct conn *c = container_of(at, struct conn, link);

		if (c->steer.sock.entry)
			steer_todo(c);
	}
}

/* ---- the end of sockets ---- */

/*
 * A verdict still writes into an entry that it has found, however long it was held up; the 20 ms
 * say nothing about that. It runs under its socket's lock. The entry's own socket was locked by
 * sock_end(), after it had left the maps. A server's entry is also written by the verdict of its
 * client, which may have found it before steer_upstream_leave() (tests/model/entry.pml): TCP_INFO
 * takes that one's lock.
 */
static void verdict_wait(const struct conn *c)
{
	struct tcp_probe p;

	tcp_probe(c->sock.fd, &p);
}

static void upstream_entry_give(struct worker *w, uint32_t entry)
{
	struct steer *st = w->steer.steer;
	struct kvpin_upstream *k = &st->kern.upstreams[entry];
	struct conn *c = st->conn[k->conn];

	if (c && c->worker == w) {
		verdict_wait(c);
		/* A request that was aimed at it in the moment when it left the maps. */
		if (c->state == CONN_STEER && steer_kconn(c)->running == entry + 1) {
			steer_reclaim(c);
			conn_on_steered(c);
		}
	}
	/* Its answer may even have been begun. */
	steer_share_give_back(w, k);
	steer_entry_give(st, &st->upstreams, entry);
}

static void grave_open(struct worker *w, struct grave *g)
{
	uint32_t entry = g->entry - 1;

	close(g->fd);
	if (g->role == KVPIN_ROLE_CLIENT)
		steer_entry_give(w->steer.steer, &w->steer.steer->conns, entry);
	else
		upstream_entry_give(w, entry);
	list_del(&g->link);
	free(g);
}

static void on_grave(uv_timer_t *timer)
{
	struct worker *w = timer->data;
	struct steer_worker *sw = &w->steer;
	uint64_t now_ms = uv_now(&w->loop);

	while (sw->grave.next != &sw->grave) {
		struct grave *g = container_of(sw->grave.next, struct grave, link);

		if (g->due_ms > now_ms) {
			uv_timer_start(timer, on_grave, g->due_ms - now_ms, 0);
			return;
		}
		grave_open(w, g);
	}
	if (sw->closing)
		uv_close((uv_handle_t *)timer, NULL);
}

/* The peer sees the end now; the descriptor lives a little longer. Both calls take the socket's
 * lock: no verdict of it runs afterwards. */
static void sock_end(int fd, bool reset)
{
	const struct sockaddr none = {.sa_family = AF_UNSPEC};

	/* tcp_disconnect() sends the RST at once. */
	if (!reset || connect(fd, &none, sizeof(none)))
		shutdown(fd, SHUT_WR);
}

void steer_sock_close(struct conn *c, struct steer_sock *s, struct sock *sock, bool reset,
		      uv_close_cb on_close)
{
	struct worker *w = c->worker;
	struct steer_worker *sw = &w->steer;
	struct kvpin_sock_key key = {.client = s->client, .role = s->role};
	struct grave *g;

	free(s->lane);
	s->lane = NULL;
	s->lane_at = s->lane_len = 0;
	if (!s->entry) {
		sock_close(sock, reset, on_close);
		return;
	}
	if (s->draining) {
		/* No clean end behind a part of a request. */
		reset |= steer_sock_behind(w, s, sock->fd) > 0;
		kern_sock_drained(worker_kern(w), &key);
		s->draining = false;
	}
	kern_sock_del(worker_kern(w), &key, s->cookie);
	if (s->role == KVPIN_ROLE_CLIENT)
		sw->steer->conn[s->entry - 1] = NULL;
	g = malloc(sizeof(*g));
	uv_close((uv_handle_t *)&sock->poll, on_close);
	sock_end(sock->fd, reset);
	if (!g) {
		/* Better a descriptor and an entry lost than a socket closed too early. */
		LOG(ERROR, "out of memory: a socket stays open");
	} else {
		*g = (struct grave){.due_ms = uv_now(&w->loop) + GRAVE_MS + 1,
				    .fd = sock->fd,
				    .role = s->role,
				    .entry = s->entry};
		list_add_tail(&sw->grave, &g->link);
		if (!uv_is_active((uv_handle_t *)&sw->grave_timer))
			uv_timer_start(&sw->grave_timer, on_grave, GRAVE_MS + 1, 0);
	}
	sock->fd = -1;
	s->entry = 0;
}

/* ---- begin and end ---- */

int steer_worker_init(struct worker *w, struct steer *s)
{
	struct steer_worker *sw = &w->steer;
	int err;

	list_init(&sw->todo);
	list_init(&sw->grave);
	if (!s)
		return 0;
	err = sock_watch(&sw->ring, &w->loop, kern_ring_poll_fd(&s->kern, w->index), w, on_ring);
	if (err)
		return err;
	uv_timer_init(&w->loop, &sw->soon);
	uv_timer_init(&w->loop, &sw->scan);
	uv_timer_init(&w->loop, &sw->grave_timer);
	sw->soon.data = sw->scan.data = sw->grave_timer.data = w;
	uv_timer_start(&sw->scan, on_scan, SCAN_MS, SCAN_MS);
	sw->steer = s;
	return 0;
}

void steer_worker_stop(struct worker *w)
{
	struct steer_worker *sw = &w->steer;

	if (!sw->steer || sw->closing)
		return;
	sw->closing = true;
	sock_close(&sw->ring, false, NULL);
	uv_close((uv_handle_t *)&sw->soon, NULL);
	uv_close((uv_handle_t *)&sw->scan, NULL);
	if (sw->grave.next == &sw->grave)
		uv_close((uv_handle_t *)&sw->grave_timer, NULL);
}
