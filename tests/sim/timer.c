/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Deadlines in nanoseconds: one timerfd, one binary heap. libuv's own timers count milliseconds,
 * too coarse for /sse gaps. Owns the heap's array; a `struct timer` belongs to whoever embeds it
 * and must be stopped before it is freed.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "sim.h"

static struct timer **heap;
static unsigned heap_nr, heap_cap;
static int tfd = -1;
static uint64_t armed_ns;
static bool running;
static uv_poll_t tpoll;

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + ts.tv_nsec;
}

static void heap_set(unsigned i, struct timer *t)
{
	heap[i] = t;
	t->pos = i + 1;
}

static void heap_up(unsigned i, struct timer *t)
{
	while (i && heap[(i - 1) / 2]->due_ns > t->due_ns) {
		heap_set(i, heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	heap_set(i, t);
}

static void heap_down(unsigned i, struct timer *t)
{
	unsigned k;

	while ((k = 2 * i + 1) < heap_nr) {
		if (k + 1 < heap_nr && heap[k + 1]->due_ns < heap[k]->due_ns)
			k++;
		if (heap[k]->due_ns >= t->due_ns)
			break;
		heap_set(i, heap[k]);
		i = k;
	}
	heap_set(i, t);
}

static void timer_program(void)
{
	uint64_t due_ns = heap_nr ? heap[0]->due_ns : 0;
	struct itimerspec its = {0};

	if (running || due_ns == armed_ns)
		return;
	/* A later deadline than programmed costs one idle wake-up; an earlier one must be set. */
	if (armed_ns && (!due_ns || due_ns > armed_ns))
		return;
	its.it_value.tv_sec = due_ns / 1000000000u;
	its.it_value.tv_nsec = due_ns % 1000000000u;
	timerfd_settime(tfd, TFD_TIMER_ABSTIME, &its, NULL);
	armed_ns = due_ns;
}

void timer_stop(struct timer *t)
{
	unsigned i = t->pos - 1;
	struct timer *last;

	if (!t->pos)
		return;
	t->pos = 0;
	last = heap[--heap_nr];
	if (last == t)
		return;
	if (i && heap[(i - 1) / 2]->due_ns > last->due_ns)
		heap_up(i, last);
	else
		heap_down(i, last);
}

void timer_arm(struct timer *t, uint64_t due_ns)
{
	timer_stop(t);
	if (heap_nr == heap_cap) {
		heap_cap = heap_cap ? heap_cap * 2 : 256;
		heap = realloc(heap, heap_cap * sizeof(*heap));
		if (!heap)
			abort();
	}
	t->due_ns = due_ns ? due_ns : 1;
	heap_up(heap_nr++, t);
	timer_program();
}

static void timer_on_poll(uv_poll_t *p, int status, int events)
{
	uint64_t ticks, now = now_ns();

	if (read(tfd, &ticks, sizeof(ticks)) < 0 && errno != EAGAIN)
		return;
	armed_ns = 0;
	running = true;
	while (heap_nr && heap[0]->due_ns <= now) {
		struct timer *t = heap[0];

		timer_stop(t);
		t->fn(t);
	}
	running = false;
	timer_program();
}

int timer_loop_init(uv_loop_t *loop)
{
	tfd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (tfd < 0)
		return -errno;
	uv_poll_init(loop, &tpoll, tfd);
	uv_poll_start(&tpoll, UV_READABLE, timer_on_poll);
	return 0;
}

static void timer_closed(uv_handle_t *h)
{
	close(tfd);
	tfd = -1;
}

void timer_loop_close(void)
{
	uv_close((uv_handle_t *)&tpoll, timer_closed);
}

void timer_fini(void)
{
	free(heap);
	heap = NULL;
	heap_nr = heap_cap = 0;
}
