/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A worker's part of the splice path: the ring in which the program tells what became of an answer,
 * and the entries of connections that were closed but are not yet over.
 *
 * Happy path: a record names an entry and its serial number; the connection is looked at. Failures:
 * a full ring loses records; the program counts that, and a scan of all connections finds what they
 * were about. Close: entries still lingering are given up with the program itself.
 */
#include <stdlib.h>
#include <unistd.h>

#include "net/splice_private.h"

#define SCAN_MS 100
/* After our FIN: TIME_WAIT is 60 s (include/net/tcp.h), and the peer's last packets come in it. */
#define LINGER_MS 65000

struct lingering {
	struct list link;
	uint64_t until_ms;
	uint32_t entry;
};

/* ---- events ---- */

static void on_record(void *arg, const struct kvpin_splice_event *e)
{
	struct worker *w = arg;
	struct splice *sp = w->splice.splice;
	struct conn *c = e->server < sp->kern.nr_conns ? sp->conn[e->server] : NULL;

	/* By now the entry may be another's, or the answer back. */
	if (!c || c->worker != w || sp->kern.conns[e->server].serial != e->serial ||
	    c->state != CONN_SPLICE || !c->current || c->current->splice.entry != e->server + 1)
		return;
	if (e->kind == KVPIN_SPLICE_EVENT_BYTES)
		splice_follow(c, e);
	else
		splice_look(c);
	if (c->state != CONN_SPLICE)
		conn_on_steered(c);
}

static void on_ring(uv_poll_t *poll, int status, int events)
{
	struct worker *w = poll->data;

	kern_splice_consume(worker_splice(w), w->index, on_record, w);
}

static void entry_free(struct splice *sp, uint32_t entry)
{
	pthread_mutex_lock(&sp->lock);
	kern_splice_del(&sp->kern, entry);
	sp->free[sp->nr_free++] = entry;
	pthread_mutex_unlock(&sp->lock);
}

static void lingering_end(struct worker *w, uint64_t now_ms)
{
	struct splice_worker *sw = &w->splice;

	while (sw->lingering.next != &sw->lingering) {
		struct lingering *l = container_of(sw->lingering.next, struct lingering, link);

		if (l->until_ms > now_ms)
			return;
		entry_free(sw->splice, l->entry);
		list_del(&l->link);
		free(l);
	}
}

static void on_scan(uv_timer_t *timer)
{
	struct worker *w = timer->data;
	uint64_t lost = __atomic_load_n(&worker_splice(w)->config->ring_full, __ATOMIC_RELAXED);
	struct list *at, *next;

	lingering_end(w, uv_now(&w->loop));
	if (lost == w->splice.ring_full)
		return;
	w->splice.ring_full = lost;
	on_ring(&w->splice.ring.poll, 0, 0);
	list_for_each_safe (at, next, &w->conns) {
		struct conn *c = container_of(at, struct conn, link);

		if (c->state != CONN_SPLICE)
			continue;
		splice_look(c);
		if (c->state != CONN_SPLICE)
			conn_on_steered(c);
	}
}

/* ---- the end of sockets ---- */

void splice_leave(struct worker *w, struct splice_sock *s, bool reset)
{
	struct splice *sp = w->splice.splice;
	struct kvpin_splice_conn *k;
	struct lingering *l;
	uint32_t entry = s->entry - 1;

	if (!s->entry)
		return;
	s->entry = 0;
	sp->conn[entry] = NULL;
	k = &sp->kern.conns[entry];
	if (!reset && (k->off || k->ts_off)) {
		l = malloc(sizeof(*l));
		if (l) {
			__atomic_fetch_or(&k->flags, KVPIN_SPLICE_CLOSED, __ATOMIC_SEQ_CST);
			*l = (struct lingering){.until_ms = uv_now(&w->loop) + LINGER_MS,
						.entry = entry};
			list_add_tail(&w->splice.lingering, &l->link);
			return;
		}
	}
	entry_free(sp, entry);
}

/* ---- begin and end ---- */

int splice_worker_init(struct worker *w, struct splice *s)
{
	struct splice_worker *sw = &w->splice;
	int err;

	list_init(&sw->lingering);
	if (!s)
		return 0;
	err = sock_watch(&sw->ring, &w->loop, kern_splice_poll_fd(&s->kern, w->index), w, on_ring);
	if (err)
		return err;
	uv_timer_init(&w->loop, &sw->scan);
	sw->scan.data = w;
	uv_timer_start(&sw->scan, on_scan, SCAN_MS, SCAN_MS);
	sw->splice = s;
	return 0;
}

void splice_worker_stop(struct worker *w)
{
	struct splice_worker *sw = &w->splice;

	if (!sw->splice || sw->closing)
		return;
	sw->closing = true;
	lingering_end(w, UINT64_MAX);
	sock_close(&sw->ring, false, NULL);
	uv_close((uv_handle_t *)&sw->scan, NULL);
}
