/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * loop.c: one epoll loop and what happens by the clock: ramp, warm-up, pauses, stalls, the hold of
 * idle mode, the end. Happy path: warm-up, run, no connection is left. Failures: too many errors,
 * the deadline, a signal; each leaves the loop at once. Close: load_finish ends every connection.
 */
#include "load.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define EVENTS_MAX	 256
#define TICK_NS		 100000000u /* how often stalls are looked for */
#define IDLE_OPENING_MAX 64	    /* idle mode: connections in their first request at once */
#define FRAGMENT_WAIT_NS 1000000u   /* long enough that the peer has read the piece before */

static volatile sig_atomic_t stop_asked;

void load_stop(int signal_number)
{
	(void)signal_number;
	stop_asked = 1;
}

static void load_delays(struct load *l)
{
	struct conn *c;

	while ((c = delay_take(&l->fragment, l->now_ns))) {
		if (c->state == CONN_CLOSED)
			conn_recycle(c); /* answered early and closed */
		else if (c->state == CONN_OPEN && c->close_after)
			conn_next(c); /* answered early: the rest is not wanted */
		else if (c->state == CONN_OPEN)
			conn_pump(c);
	}
	while ((c = delay_take(&l->think, l->now_ns))) {
		if (c->state == CONN_CLOSED) {
			conn_recycle(c);
			continue;
		}
		if (c->state != CONN_OPEN)
			continue;
		conn_refill(c);
		if (c->pending_nr)
			conn_pump(c);
		else
			conn_end(c);
	}
}

static void load_begin_run(struct load *l)
{
	const struct opts *o = l->opts;

	stat_reset(l);
	l->phase = PHASE_RUN;
	l->stop_ns = o->seconds > 0 ? l->begin_ns + (uint64_t)(o->seconds * 1e9) : UINT64_MAX;
	l->deadline_ns = l->begin_ns + (uint64_t)(o->deadline_s * 1e9);
}

/* Warm-up: every connection had its request. load_start_conns lets them go on. */
static void load_unpark(struct load *l)
{
	load_begin_run(l);
	l->begun = 0;
	for (uint32_t i = 0; i < l->opts->connections; i++)
		l->conns[i].parked = false;
}

static void load_hold(struct load *l)
{
	l->phase = PHASE_HOLD;
	l->deadline_ns = l->now_ns + (uint64_t)(l->opts->hold_s * 1e9);
	for (uint32_t i = 0; i < l->opts->connections; i++)
		l->held += l->conns[i].state == CONN_OPEN;
	fprintf(stderr, "holding %u\n", l->held);
}

static void load_start_conns(struct load *l)
{
	const struct opts *o = l->opts;
	uint64_t due = o->connections;
	struct conn *c;

	if (o->ramp_ms > 0)
		due = (uint64_t)((double)(l->now_ns - l->begin_ns) / 1e6 / o->ramp_ms *
				 o->connections) +
		      1;
	while (l->begun < o->connections && l->begun < due) {
		if (o->mode == MODE_IDLE && l->begun - l->parked >= IDLE_OPENING_MAX)
			return;
		c = &l->conns[l->begun++];
		if (c->state == CONN_OPEN)
			conn_next(c);
		else
			conn_recycle(c);
	}
}

static void load_stalls(struct load *l)
{
	uint64_t stall_ns = (uint64_t)(l->opts->stall_s * 1e9);

	for (uint32_t i = 0; i < l->opts->connections; i++) {
		struct conn *c = &l->conns[i];

		if (c->pending_nr && c->state != CONN_ENDED &&
		    l->now_ns - c->progress_ns > stall_ns)
			conn_fail(c, ERR_STALL, 0);
	}
}

/* Whoever still waits at the deadline has stalled; everyone else just ends. */
static void load_finish(struct load *l)
{
	enum phase was = l->phase;

	l->phase = PHASE_END;
	l->end_ns = l->now_ns;
	cpu_read(l->opts, &l->cpu_end);
	for (uint32_t i = 0; i < l->opts->connections; i++) {
		struct conn *c = &l->conns[i];

		if (c->state == CONN_ENDED)
			continue;
		if (c->pending_nr && was != PHASE_HOLD && !l->interrupted && !l->gave_up)
			conn_charge(c, ERR_STALL, 0);
		conn_end(c);
	}
}

static int load_timeout_ms(const struct load *l)
{
	uint64_t next = l->now_ns + TICK_NS;

	if (l->think.first && l->think.first->delay_until_ns < next)
		next = l->think.first->delay_until_ns;
	if (l->fragment.first && l->fragment.first->delay_until_ns < next)
		next = l->fragment.first->delay_until_ns;
	if (l->opts->ramp_ms > 0 && l->begun < l->opts->connections)
		next = l->now_ns;
	return next <= l->now_ns ? 1 : (int)((next - l->now_ns + 999999) / 1000000);
}

static void load_phase(struct load *l)
{
	if (l->parked < l->opts->connections)
		return;
	l->parked = 0;
	if (l->phase == PHASE_WARM)
		load_unpark(l);
	else if (l->opts->mode == MODE_IDLE)
		load_hold(l);
}

static int load_init(struct load *l)
{
	const struct opts *o = l->opts;
	int r = pattern_init(l);

	if (r)
		return r;
	l->conns = calloc(o->connections, sizeof(*l->conns));
	l->session_server = calloc(o->sessions > o->connections ? o->sessions : o->connections, 1);
	if (!l->conns || !l->session_server)
		return -ENOMEM;
	for (uint32_t i = 0; i < o->connections; i++) {
		struct conn *c = &l->conns[i];

		c->load = l;
		c->index = i;
		c->fd = -1;
		c->out = malloc(OUT_BYTES);
		c->pending = calloc(o->pipeline, sizeof(*c->pending));
		if (!c->out || !c->pending)
			return -ENOMEM;
	}
	l->live = o->connections;
	l->rng = o->seed * 0x9e3779b97f4a7c15ull | 1;
	l->think.last = &l->think.first;
	l->think.delay_ns = (uint64_t)(o->think_ms * 1e6);
	l->fragment.last = &l->fragment.first;
	l->fragment.delay_ns = FRAGMENT_WAIT_NS;
	send_init(l);
	l->body_xxh64 = body_xxh64(l, o->body_max_bytes);
	l->body_xxh64_known = true;
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	return l->epoll_fd < 0 ? -errno : 0;
}

static void load_fini(struct load *l)
{
	for (uint32_t i = 0; l->conns && i < l->opts->connections; i++) {
		free(l->conns[i].out);
		free(l->conns[i].pending);
	}
	free(l->conns);
	free(l->session_server);
	free((void *)(uintptr_t)l->pattern);
	if (l->epoll_fd >= 0)
		close(l->epoll_fd);
}

int load_run(struct load *l)
{
	struct epoll_event ev[EVENTS_MAX];
	uint64_t tick_ns;
	int n, r;

	l->epoll_fd = -1;
	r = load_init(l);
	if (r)
		goto out;
	load_begin_run(l);
	if (l->opts->warmup)
		l->phase = PHASE_WARM;
	tick_ns = l->now_ns;
	while (l->live) {
		load_phase(l);
		load_start_conns(l);
		n = epoll_wait(l->epoll_fd, ev, EVENTS_MAX, load_timeout_ms(l));
		l->now_ns = clock_ns();
		if (n < 0 && errno != EINTR) {
			r = -errno;
			goto out;
		}
		for (int i = 0; i < n; i++) {
			struct conn *c = &l->conns[(uint32_t)ev[i].data.u64];

			if (c->generation == ev[i].data.u64 >> 32 && c->fd >= 0)
				conn_event(c, ev[i].events);
		}
		load_delays(l);
		if (stop_asked)
			l->interrupted = true;
		if (l->now_ns >= l->deadline_ns || l->interrupted || l->gave_up)
			break;
		if (l->now_ns - tick_ns >= TICK_NS) {
			tick_ns = l->now_ns;
			load_stalls(l);
		}
	}
	load_finish(l);
out:
	load_fini(l);
	return r;
}
