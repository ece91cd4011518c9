/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The books of turns. Means are kept by whoever comes: a sample lost in a race is no loss. */
#include "net/turn.h"

#include "net/worker.h"

#define NS_PER_MS 1000000ULL

/* One turn, on whichever path. */
struct turn {
	struct backend *backend;
	uint64_t session;
	bool keyed;
	bool later;	 /* of its session */
	bool first_here; /* nothing cached at this server */
	bool stream;	 /* else the first byte comes after the last token: no prefill time */
	bool over;	 /* waited in the server's own queue: its TTFT says nothing */
	bool control;
	uint64_t context; /* before it */
	uint64_t request; /* bytes */
	uint64_t ttft_ns; /* without the wait here */
};

static void arm_add(struct worker *w, const struct turn *t, uint64_t recomputed)
{
	struct arm_stats *arm = &w->stats->arm[t->control ? REPORT_CONTROL : REPORT_AFFINITY];
	uint64_t us = t->ttft_ns / 1000;

	stat_add(&arm->turns, 1);
	stat_add(&arm->sum_us, us);
	stat_add(&arm->sum_sq, us / 100 * (us / 100));
	stat_add(&arm->recomputed, recomputed);
	stat_add(&arm->bucket[report_bucket((double)us / 1000)], 1);
}

static void rate_add(struct backend *b, uint64_t request, uint64_t ttft_ns)
{
	uint64_t sample = guard_rate_sample(request, ttft_ns);

	if (sample)
		b->rate = guard_ewma(b->rate, sample);
}

static void exchange_ms_add(struct backend *b, uint64_t ns)
{
	uint64_t ms = ns / NS_PER_MS;

	if (ms < UINT32_MAX)
		b->exchange_ms = (uint32_t)guard_ewma(b->exchange_ms, ms ? ms : 1);
}

static enum guard_turn turn_add(struct worker *w, const struct turn *t)
{
	enum guard_turn class = GUARD_TURN_UNKNOWN;
	uint64_t recomputed = 0;

	/* A prompt without a session is no turn, but it may tell the rate. */
	if (!t->keyed) {
		if (t->first_here && !t->over && t->stream)
			rate_add(t->backend, t->request, t->ttft_ns);
		return class;
	}
	if (!t->over && t->stream)
		class = guard_classify(t->first_here, t->context, t->request, t->ttft_ns,
				       t->backend->rate, &recomputed);
	if (t->first_here && !t->over && t->stream)
		rate_add(t->backend, t->request, t->ttft_ns);
	/* A move costs the whole context; the first turn of a session is nobody's fault. */
	if (t->first_here && t->later)
		recomputed = t->context;
	stat_add(&w->stats->backend[t->backend->id].turns[class], 1);
	if (t->later)
		arm_add(w, t, recomputed);
	return class;
}

static void turn_note(struct worker *w, const struct turn *t, enum guard_turn class)
{
	uint32_t cold;

	if (!t->keyed)
		return;
	cold = session_note(w->balancer->sessions, t->session, t->backend->id, class, t->request,
			    (uint32_t)((t->ttft_ns + NS_PER_MS - 1) / NS_PER_MS));
	if (class == GUARD_TURN_COLD && cold == TURN_STREAK)
		stat_add(&w->stats->backend[t->backend->id].cold_streaks, 1);
}

void turn_first_token(struct conn *c)
{
	struct exchange *x = c->x;
	const struct turn t = {
		.backend = x->backend,
		.session = x->session,
		.keyed = x->keyed,
		.later = x->later_turn,
		.first_here = x->first_here,
		.stream = x->answer.flags & KVPIN_HEAD_EVENT_STREAM,
		.over = x->over,
		.control = x->control,
		.context = x->context,
		.request = x->request_body.payload,
		.ttft_ns = x->ttft_ns - x->wait_ns,
	};

	/* An error answer computed nothing. */
	if (x->status < 200 || x->status > 299)
		return;
	turn_note(c->worker, &t, turn_add(c->worker, &t));
}

void turn_done(struct conn *c)
{
	struct exchange *x = c->x;

	if (x->status < 200 || x->status > 299 || !x->sent_ns)
		return;
	exchange_ms_add(x->backend, balancer_now_ns() - x->sent_ns);
}

void turn_steered(struct conn *c, const struct kvpin_event *e)
{
	struct worker *w = c->worker;
	struct balancer *b = w->balancer;
	const uint64_t wait_ns = e->wait_ms * NS_PER_MS;
	const struct turn t = {
		.backend = &b->backends.slot[e->backend],
		.session = e->session,
		.keyed = e->keyed,
		.later = e->flags & KVPIN_ANSWER_LATER,
		.first_here = e->flags & KVPIN_ANSWER_FIRST_HERE,
		.stream = e->flags & KVPIN_ANSWER_STREAM,
		.over = e->flags & KVPIN_ANSWER_OVER,
		.control = e->keyed && guard_control(e->session, w->config->experiment_milli),
		.context = e->context,
		.request = e->bytes_up,
		.ttft_ns = e->ttft_ns > wait_ns ? e->ttft_ns - wait_ns : 0,
	};

	if (e->status < 200 || e->status > 299)
		return;
	if (e->ended_ns > e->started_ns + wait_ns)
		exchange_ms_add(t.backend, e->ended_ns - e->started_ns - wait_ns);
	/* A first token that was the relay's has been counted. */
	if (e->ttft_ns && !(e->flags & KVPIN_ANSWER_COUNTED))
		turn_note(w, &t, turn_add(w, &t));
}
