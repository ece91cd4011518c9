/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The control socket's answer for `kvpin top`: per server what it does now and what was counted
 * since the start, histograms as they are, so that whoever asks again can tell what came between;
 * and the sessions that spoke last.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "ops/control_private.h"

/* Sessions told, and pins looked at for them: more would hold requests up. */
#define HOT_NR	 100
#define HOT_LOOK 20000
#define PAGE	 256

static json_t *hist_json(const struct hist *h, const struct hist_bounds *bounds)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i <= bounds->nr; i++)
		json_array_append_new(list, json_integer((json_int_t)stat_get(&h->bucket[i])));
	return list;
}

static json_t *bounds_json(const struct hist_bounds *bounds)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < bounds->nr; i++)
		json_array_append_new(list, json_real((double)bounds->le_ns[i] / 1e6));
	return list;
}

static json_t *server_json(const struct balancer *b, const struct metrics_sum *sum, uint32_t slot)
{
	const struct backend_stats *s = &sum->all.backend[slot];
	const struct backend *k = &b->backends.slot[slot];
	json_t *o = json_object();
	uint64_t requests = 0, tokens = 0;
	struct hist ttft = {0};

	for (int path = 0; path < STAT_PATH_NR; path++)
		requests += metrics_requests(sum, slot, path);
	for (int t = 0; t < TURN_NR; t++)
		hist_merge(&ttft, &s->ttft[t]);
	for (unsigned int i = 0; i <= HIST_BUCKETS_MAX; i++)
		tokens += stat_get(&s->token_gap.bucket[i]);
	control_put_str(o, "name", k->name);
	control_put_str(o, "state", control_state_text(k));
	control_put_int(o, "inflight", backend_inflight(k));
	control_put_int(o, "slots", atomic_load(&k->slots));
	control_put_int(o, "waiting", backend_queued(k));
	control_put_int(o, "sessions", session_count(b->sessions, slot));
	control_put_int(o, "requests", requests);
	control_put_int(o, "tokens", tokens);
	control_put_int(o, "turns_warm", stat_get(&s->turns[GUARD_TURN_WARM]));
	control_put_int(o, "turns_partial", stat_get(&s->turns[GUARD_TURN_PARTIAL]));
	control_put_int(o, "turns_cold", stat_get(&s->turns[GUARD_TURN_COLD]));
	json_object_set_new(o, "ttft", hist_json(&ttft, &hist_ttft_bounds));
	return o;
}

static int latest_cmp(const void *a, const void *b)
{
	const struct session *x = a, *y = b;

	return (x->last_used_ms < y->last_used_ms) - (x->last_used_ms > y->last_used_ms);
}

/* Room for HOT_NR + PAGE; the HOT_NR used last are in front. Returns how many. */
static uint32_t hottest(const struct balancer *b, struct session *hot)
{
	uint64_t cursor = 0, now_ms = balancer_now_ms();
	uint32_t nr = 0, looked = 0, got;

	while (cursor != UINT64_MAX && looked < HOT_LOOK) {
		got = session_list(b->sessions, now_ms, &cursor, hot + nr, PAGE);
		looked += got;
		nr += got;
		qsort(hot, nr, sizeof(*hot), latest_cmp);
		nr = nr < HOT_NR ? nr : HOT_NR;
	}
	return nr;
}

static json_t *sessions_json(const struct balancer *b)
{
	struct session *hot = malloc((HOT_NR + PAGE) * sizeof(*hot));
	uint64_t now_ms = balancer_now_ms();
	json_t *list = json_array();
	uint32_t nr = hot ? hottest(b, hot) : 0;

	for (uint32_t i = 0; i < nr; i++)
		json_array_append_new(list, control_session_json(b, &hot[i], now_ms));
	free(hot);
	return list;
}

enum MHD_Result control_top(const struct control_view *v, struct MHD_Connection *conn)
{
	const struct control_params *p = &v->p;
	const struct balancer *b = p->balancer;
	json_t *body, *list;
	struct metrics_sum *sum;
	int err;

	pthread_rwlock_rdlock(p->lock);
	err = metrics_sum_new(&sum, b, p->base);
	if (err) {
		pthread_rwlock_unlock(p->lock);
		return control_reply_error(conn, MHD_HTTP_INTERNAL_SERVER_ERROR,
					   "the counters cannot be read");
	}
	body = json_object();
	control_put_int(body, "at_ms", balancer_now_ms());
	control_put_int(body, "uptime_ms", balancer_now_ms() - b->started_ms);
	control_put_int(body, "connections", atomic_load(&b->connections));
	control_put_int(body, "sessions_total", session_total(b->sessions));
	control_put_int(body, "pressure",
			pressure_get(&p->balancer->pressure, balancer_now_ms(), NULL));
	json_object_set_new(body, "ttft_le_ms", bounds_json(&hist_ttft_bounds));
	list = json_array();
	for (uint32_t slot = 0; slot < atomic_load(&b->backends.nr); slot++)
		if (atomic_load(&b->backends.slot[slot].state) != BACKEND_FREE)
			json_array_append_new(list, server_json(b, sum, slot));
	json_object_set_new(body, "backends", list);
	json_object_set_new(body, "sessions", sessions_json(b));
	pthread_rwlock_unlock(p->lock);
	free(sum);
	return control_reply(conn, MHD_HTTP_OK, body);
}
