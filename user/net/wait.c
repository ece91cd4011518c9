/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The queues for slots.
 *
 * Happy path: wait_join(), an exchange elsewhere ends, wait_kick() counts the slot for the head and
 * wakes its worker, wait_worker_run() tells the connection, wait_taken() makes the slot its own.
 * Failures: a server that goes down, or loses its limit, is noticed by the review: each waiting
 * request is decided anew every REVIEW_MS, the cheapest to move first.
 * Close: wait_leave(), whatever happened meanwhile; a slot that was handed over goes to the next.
 *
 * The lock is taken inside a session's shard and the placement lock, and holds for a walk of one
 * queue at most.
 */
#include "net/wait.h"

#include <stdlib.h>

#include "net/conn.h"
#include "net/worker.h"

/* The kernel's requests end without a word to those that wait: so long a slot may stay idle. */
#define WAIT_POLL_MS 5
#define REVIEW_MS    50
/* A request that would rather move waits for so long: the slot that its session has just left may
 * not be counted free yet. Nothing beside a cold prefill. */
#define GRACE_MS 5

static void on_timer(uv_timer_t *timer);

static struct conn *conn_of(struct waiter *at)
{
	return container_of(at, struct conn, wait);
}

void wait_queues_init(struct wait_queues *q)
{
	pthread_mutex_init(&q->lock, NULL);
	for (unsigned int i = 0; i < BACKENDS_MAX; i++)
		list_init(&q->queue[i]);
}

void wait_queues_fini(struct wait_queues *q)
{
	pthread_mutex_destroy(&q->lock);
}

/* ---- under the lock ---- */

static void queue_remove(struct balancer *b, struct waiter *at)
{
	list_del(&at->link);
	at->queued = false;
	__atomic_fetch_sub(&b->backends.slot[at->slot].shared->waiting, 1, __ATOMIC_RELAXED);
}

/* Free slots go to the first of the queue. */
static void queue_grant(struct balancer *b, uint32_t slot)
{
	struct list *queue = &b->wait.queue[slot];

	while (queue->next != queue && backend_take(&b->backends.slot[slot])) {
		struct waiter *at = container_of(queue->next, struct waiter, link);

		queue_remove(b, at);
		at->granted = true;
		worker_wake(at->worker);
	}
}

static struct waiter *queue_cheapest(struct list *queue, const struct waiter *but)
{
	struct waiter *best = NULL;

	for (struct list *l = queue->next; l != queue; l = l->next) {
		struct waiter *at = container_of(l, struct waiter, link);

		if (at != but && !at->go && (!best || at->cold_ms < best->cold_ms))
			best = at;
	}
	return best;
}

/* ---- */

void wait_kick(struct balancer *b, uint32_t slot)
{
	if (!backend_queued(&b->backends.slot[slot]))
		return;
	pthread_mutex_lock(&b->wait.lock);
	queue_grant(b, slot);
	pthread_mutex_unlock(&b->wait.lock);
}

void wait_join(struct conn *c, uint32_t slot, uint32_t cold_ms, uint32_t expected_ms)
{
	struct balancer *b = c->worker->balancer;
	struct wait_worker *ww = &c->worker->wait;
	struct waiter *at = &c->wait;

	if (!at->waits) {
		at->waits = at->soon = true;
		at->since_ms = uv_now(&c->worker->loop);
		at->expected_ms = expected_ms;
		at->worker = c->worker;
		list_add_tail(&ww->mine, &at->mine);
		if (!uv_is_active((uv_handle_t *)&ww->timer))
			uv_timer_start(&ww->timer, on_timer, WAIT_POLL_MS, WAIT_POLL_MS);
	}
	pthread_mutex_lock(&b->wait.lock);
	at->slot = slot;
	at->cold_ms = cold_ms;
	at->queued = true;
	at->granted = at->go = false;
	list_add_tail(&b->wait.queue[slot], &at->link);
	__atomic_fetch_add(&b->backends.slot[slot].shared->waiting, 1, __ATOMIC_RELAXED);
	queue_grant(b, slot);
	pthread_mutex_unlock(&b->wait.lock);
}

uint32_t wait_late_ms(const struct conn *c)
{
	uint64_t now_ms = uv_now(&c->worker->loop);
	uint64_t due_ms = c->wait.since_ms + c->wait.expected_ms;

	return c->wait.waits && now_ms > due_ms ? (uint32_t)(now_ms - due_ms) : 0;
}

static void waiter_end(struct waiter *at)
{
	at->waits = false;
	list_del(&at->mine);
}

void wait_leave(struct conn *c)
{
	struct balancer *b = c->worker->balancer;
	struct waiter *at = &c->wait;

	if (!at->waits)
		return;
	pthread_mutex_lock(&b->wait.lock);
	if (at->queued)
		queue_remove(b, at);
	if (at->granted) {
		at->granted = false;
		backend_inflight_add(&b->backends.slot[at->slot], -1);
		queue_grant(b, at->slot);
	}
	pthread_mutex_unlock(&b->wait.lock);
	waiter_end(at);
}

bool wait_taken(struct conn *c)
{
	struct balancer *b = c->worker->balancer;
	bool granted;

	pthread_mutex_lock(&b->wait.lock);
	granted = c->wait.granted;
	c->wait.granted = false;
	pthread_mutex_unlock(&b->wait.lock);
	if (granted)
		waiter_end(&c->wait);
	return granted;
}

void wait_displace(struct balancer *b, uint32_t slot, uint32_t below_ms)
{
	struct waiter *at;

	pthread_mutex_lock(&b->wait.lock);
	at = queue_cheapest(&b->wait.queue[slot], NULL);
	if (at && at->cold_ms < below_ms) {
		at->go = true;
		worker_wake(at->worker);
	}
	pthread_mutex_unlock(&b->wait.lock);
}

static uint32_t queue_ahead(const struct list *queue, const struct waiter *of)
{
	uint32_t n = 0;

	for (const struct list *l = queue->next; l != queue && l != &of->link; l = l->next)
		n++;
	return n;
}

void wait_view(struct balancer *b, struct conn *c, struct decide_input *in)
{
	struct waiter *cheapest;

	for (uint32_t i = 0; i < in->nr_views; i++) {
		struct backend_view *v = &in->view[i];

		if (!v->queued)
			continue;
		pthread_mutex_lock(&b->wait.lock);
		cheapest = queue_cheapest(&b->wait.queue[v->id], &c->wait);
		v->cheapest_ms = cheapest ? cheapest->cold_ms : GUARD_UNKNOWN;
		if (c->wait.queued && c->wait.slot == v->id)
			v->queued = queue_ahead(&b->wait.queue[v->id], &c->wait);
		pthread_mutex_unlock(&b->wait.lock);
	}
}

/* ---- a worker's ---- */

static int cold_cmp(const void *a, const void *b)
{
	const struct conn *const *x = a, *const *y = b;

	return ((*x)->wait.cold_ms > (*y)->wait.cold_ms) -
	       ((*x)->wait.cold_ms < (*y)->wait.cold_ms);
}

/*
 * Calls @tell for each connection that waits at the moment of the call. It may end any of them:
 * a connection's memory stays until the loop runs on.
 */
static void mine_tell(struct worker *w, bool by_cost, void (*tell)(struct conn *c))
{
	struct conn **c;
	unsigned int nr = 0, room = 0, i;
	struct list *l;

	for (l = w->wait.mine.next; l != &w->wait.mine; l = l->next)
		room++;
	c = room ? malloc(room * sizeof(*c)) : NULL;
	if (!c)
		return;
	for (l = w->wait.mine.next; l != &w->wait.mine; l = l->next)
		c[nr++] = conn_of(container_of(l, struct waiter, mine));
	if (by_cost)
		qsort(c, nr, sizeof(*c), cold_cmp);
	for (i = 0; i < nr; i++)
		if (c[i]->wait.waits)
			tell(c[i]);
	free(c);
}

static void tell_granted(struct conn *c)
{
	struct wait_queues *q = &c->worker->balancer->wait;
	bool granted, go;

	pthread_mutex_lock(&q->lock);
	granted = c->wait.granted;
	go = c->wait.go;
	pthread_mutex_unlock(&q->lock);
	if (granted)
		conn_on_slot(c);
	else if (go)
		conn_on_review(c);
}

void wait_worker_run(struct worker *w)
{
	mine_tell(w, false, tell_granted);
}

static void tell_soon(struct conn *c)
{
	if (!c->wait.soon || uv_now(&c->worker->loop) < c->wait.since_ms + GRACE_MS)
		return;
	c->wait.soon = false;
	conn_on_review(c);
}

static void on_timer(uv_timer_t *timer)
{
	struct worker *w = timer->data;
	uint64_t now_ms = uv_now(&w->loop);

	for (struct list *l = w->wait.mine.next; l != &w->wait.mine; l = l->next)
		wait_kick(w->balancer, container_of(l, struct waiter, mine)->slot);
	wait_worker_run(w);
	mine_tell(w, true, tell_soon);
	if (now_ms >= w->wait.review_ms) {
		w->wait.review_ms = now_ms + REVIEW_MS;
		mine_tell(w, true, conn_on_review);
	}
	if (w->wait.mine.next == &w->wait.mine)
		uv_timer_stop(timer);
}

void wait_worker_init(struct worker *w)
{
	list_init(&w->wait.mine);
	uv_timer_init(&w->loop, &w->wait.timer);
	w->wait.timer.data = w;
}

void wait_worker_stop(struct worker *w)
{
	uv_close((uv_handle_t *)&w->wait.timer, NULL);
}
