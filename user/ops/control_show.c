/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the control socket shows: the daemon's state, its servers, its sessions. Reads under the
 * daemon's lock and changes nothing.
 */
#include <errno.h>
#include <inttypes.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/splice.h"
#include "ops/control_private.h"
#include "ops/key_watch.h"
#include "ops/peers.h"

/* Sessions copied out at once. */
#define CONTROL_BATCH 256

static void put_seconds(json_t *object, const char *key, uint64_t then_ms, uint64_t now_ms)
{
	uint64_t ms = now_ms > then_ms ? now_ms - then_ms : 0;

	json_object_set_new(object, key, json_real((double)ms / 1000));
}

static enum MHD_Result reply_uncounted(struct MHD_Connection *conn, int err)
{
	char why[CONTROL_TEXT_MAX];

	snprintf(why, sizeof(why), "the counters cannot be read: %s", strerror(-err));
	return control_reply_error(conn, MHD_HTTP_INTERNAL_SERVER_ERROR, why);
}

static void put_requests(json_t *object, const uint64_t *requests)
{
	char key[32];

	for (int path = 0; path < STAT_PATH_NR; path++) {
		snprintf(key, sizeof(key), "requests_%s", stat_path_names[path]);
		control_put_int(object, key, requests[path]);
	}
}

/* Why a kernel path passed up or was not taken: the most frequent reasons first, and none that
 * never was. */
static json_t *refused_json(const _Atomic uint64_t *count, const char *const *name, int nr)
{
	json_t *o = json_object();
	uint64_t n[64] = {0};

	for (int r = 0; r < nr; r++)
		n[r] = stat_get(&count[r]);
	for (;;) {
		int most = 0;

		for (int r = 1; r < nr; r++)
			if (n[r] > n[most])
				most = r;
		if (!n[most])
			return o;
		control_put_int(o, name[most], n[most]);
		n[most] = 0;
	}
}
_Static_assert(KVPIN_REFUSED_NR <= 64 && KVPIN_SPLICE_REFUSED_NR <= 64, "refused_json()'s room");

/* Devices that the splice path's program is attached to. */
static json_t *devices_json(const struct balancer *b)
{
	json_t *list = json_array();
	struct device_set set = {0};
	char name[IF_NAMESIZE];

	if (b->splice)
		splice_devices(b->splice, &set);
	for (unsigned int i = 0; i < set.nr; i++) {
		bool there = if_indextoname((unsigned int)set.ifindex[i], name);

		json_array_append_new(list, json_string(there ? name : "gone"));
	}
	return list;
}

/* Numbers by name; those that are 0 are left out. */
static json_t *counts_json(const char *const *names, unsigned int nr, const _Atomic uint64_t *n)
{
	json_t *o = json_object();

	for (unsigned int i = 0; i < nr; i++)
		if (stat_get(&n[i]))
			control_put_int(o, names[i], stat_get(&n[i]));
	return o;
}

/* Other balancers: "10.0.0.2:7946 up", or "away". */
static json_t *peers_json(const struct balancer *b)
{
	char text[ADDR_TEXT_MAX], entry[ADDR_TEXT_MAX + 8];
	json_t *list = json_array();
	struct peers_stats stats;

	peers_stats(b->peers, &stats);
	for (unsigned int i = 0; i < stats.nr; i++) {
		snprintf(entry, sizeof(entry), "%s %s", addr_format(&stats.peer[i].addr, text),
			 stats.peer[i].up ? "up" : "away");
		json_array_append_new(list, json_string(entry));
	}
	return list;
}

static void put_steer(json_t *o, const struct metrics_sum *sum)
{
	control_put_int(o, "path_handed_over", stat_get(&sum->all.handed_over));
	control_put_int(o, "path_taken_back", stat_get(&sum->all.reclaimed));
	json_object_set_new(o, "path_refused",
			    refused_json(sum->all.refused, stat_refusal_names, KVPIN_REFUSED_NR));
}

static void put_splice(json_t *o, const struct metrics_sum *sum, const struct balancer *b)
{
	uint64_t inherited = 0;

	control_put_int(o, "splice_taken", stat_get(&sum->all.spliced));
	control_put_int(o, "splice_back", stat_get(&sum->all.splice_back));
	json_object_set_new(o, "splice_refused",
			    refused_json(sum->all.splice_refused, stat_splice_refusal_names,
					 KVPIN_SPLICE_REFUSED_NR));
	json_object_set_new(o, "splice_devices", devices_json(b));
	for (uint32_t slot = 0; slot < BACKENDS_MAX; slot++)
		inherited += atomic_load(&b->backends.slot[slot].inherited);
	control_put_int(o, "splice_inherited", inherited);
}

static const char *path_in_use(const struct metrics_sum *sum)
{
	if (sum->steer && sum->splice)
		return "steer, splice";
	return stat_path_names[sum->splice  ? STAT_PATH_SPLICE
			       : sum->steer ? STAT_PATH_STEER
					    : STAT_PATH_RELAY];
}

/* Under the lock. */
static json_t *status_json(const struct control_view *v, const struct metrics_sum *sum)
{
	const struct balancer *b = v->p.balancer;
	uint64_t requests[STAT_PATH_NR] = {0};
	json_t *o = json_object(), *listen = json_array();
	char text[ADDR_TEXT_MAX];

	for (uint32_t slot = 0; slot <= STAT_NO_BACKEND; slot++)
		for (int p = 0; p < STAT_PATH_NR; p++)
			requests[p] += metrics_requests(sum, slot, p);
	for (unsigned int i = 0; i < v->nr_listen; i++)
		json_array_append_new(listen, json_string(addr_format(&v->listen[i], text)));
	control_put_str(o, "version", KVPIN_VERSION);
	control_put_int(o, "pid", getpid());
	put_seconds(o, "uptime_s", b->started_ms, balancer_now_ms());
	control_put_bool(o, "draining", atomic_load(&b->draining));
	control_put_str(o, "path", path_mode_names[balancer_config(b)->path]);
	control_put_str(o, "path_in_use", path_in_use(sum));
	control_put_int(o, "workers", b->nr_workers);
	json_object_set_new(o, "listen", listen);
	control_put_int(o, "connections", atomic_load(&b->connections));
	control_put_int(o, "sessions", session_total(b->sessions));
	json_object_set_new(o, "keys", counts_json(key_kind_names, KEY_KIND_NR, sum->all.keys));
	json_object_set_new(o, "keyless", counts_json(missing_names, MISSING_NR, sum->all.keyless));
	json_object_set_new(o, "peers", peers_json(b));
	control_put_str(o, "advice", key_watch_text(v->p.watch));
	put_requests(o, requests);
	put_steer(o, sum);
	put_splice(o, sum, b);
	control_put_int(o, "steer_queued_bytes", sum->steer_queued);
	control_put_int(o, "config_reloads", atomic_load(&b->reloads));
	return o;
}

enum MHD_Result control_status(const struct control_view *v, struct MHD_Connection *conn)
{
	struct metrics_sum *sum;
	json_t *body = NULL;
	int err;

	pthread_rwlock_rdlock(v->p.lock);
	err = metrics_sum_new(&sum, v->p.balancer, v->p.base);
	if (!err)
		body = status_json(v, sum);
	pthread_rwlock_unlock(v->p.lock);
	free(sum);
	return err ? reply_uncounted(conn, err) : control_reply(conn, MHD_HTTP_OK, body);
}

static void put_counts(json_t *object, const struct metrics_sum *sum, uint32_t slot)
{
	const struct backend_stats *s = &sum->all.backend[slot];
	uint64_t requests[STAT_PATH_NR], all = 0, up = 0, down = 0;

	for (int path = 0; path < STAT_PATH_NR; path++) {
		requests[path] = metrics_requests(sum, slot, path);
		all += requests[path];
		up += stat_get(&s->bytes_up[path]);
		down += stat_get(&s->bytes_down[path]);
	}
	control_put_int(object, "requests", all);
	put_requests(object, requests);
	control_put_int(object, "requests_kernel", all - requests[STAT_PATH_RELAY]);
	control_put_int(object, "bytes_up", up);
	control_put_int(object, "bytes_down", down);
}

const char *control_state_text(const struct backend *s)
{
	uint32_t state = atomic_load(&s->state);

	if (state != BACKEND_UP || !atomic_load(&s->drain_ms))
		return backend_state_names[state];
	return atomic_load(&s->drain_over) ? "drained" : "draining";
}

static json_t *backend_json(const struct control_view *v, const struct metrics_sum *sum,
			    uint32_t slot)
{
	const struct backend *s = &v->p.balancer->backends.slot[slot];
	uint32_t state = atomic_load(&s->state);
	uint32_t cause = state == BACKEND_DOWN ? atomic_load(&s->cause) : BACKEND_CAUSE_NONE;
	json_t *o = json_object();
	char text[ADDR_TEXT_MAX];

	control_put_str(o, "name", s->name);
	control_put_str(o, "address", addr_format(&s->addr, text));
	control_put_str(o, "state", control_state_text(s));
	control_put_str(o, "cause", backend_cause_names[cause]);
	control_put_int(o, "weight", atomic_load(&s->weight));
	control_put_int(o, "slots", atomic_load(&s->slots));
	control_put_bool(o, "slots_auto", atomic_load(&s->slots_auto));
	control_put_int(o, "inflight", backend_inflight(s));
	control_put_int(o, "inherited", atomic_load(&s->inherited));
	control_put_int(o, "waiting", backend_queued(s));
	control_put_int(o, "exchange_ms", atomic_load(&s->exchange_ms));
	control_put_int(o, "prefill_tokens_per_s", atomic_load(&s->rate) / GUARD_TOKEN_BYTES);
	control_put_int(o, "sessions", session_count(v->p.balancer->sessions, slot));
	control_put_int(o, "restarts", atomic_load(&s->restarts));
	put_counts(o, sum, slot);
	put_seconds(o, "state_for_s", atomic_load(&s->changed_ms), balancer_now_ms());
	return o;
}

enum MHD_Result control_backends(const struct control_view *v, struct MHD_Connection *conn)
{
	const struct balancer *b = v->p.balancer;
	struct metrics_sum *sum;
	json_t *body, *list;
	int err;

	pthread_rwlock_rdlock(v->p.lock);
	err = metrics_sum_new(&sum, b, v->p.base);
	if (err) {
		pthread_rwlock_unlock(v->p.lock);
		return reply_uncounted(conn, err);
	}
	list = json_array();
	for (uint32_t slot = 0; slot < atomic_load(&b->backends.nr); slot++)
		if (atomic_load(&b->backends.slot[slot].state) != BACKEND_FREE)
			json_array_append_new(list, backend_json(v, sum, slot));
	pthread_rwlock_unlock(v->p.lock);
	free(sum);
	body = json_object();
	json_object_set_new(body, "backends", list);
	return control_reply(conn, MHD_HTTP_OK, body);
}

json_t *control_session_json(const struct balancer *b, const struct session *s, uint64_t now_ms)
{
	json_t *o = json_object();
	char id[17];

	snprintf(id, sizeof(id), "%016" PRIx64, s->id);
	control_put_str(o, "session", id);
	control_put_str(o, "backend", b->backends.slot[s->backend].name);
	control_put_int(o, "turns", s->turns);
	control_put_int(o, "moves", s->moves);
	control_put_int(o, "context_tokens", s->context / GUARD_TOKEN_BYTES);
	control_put_str(o, "cache",
			s->generation == backend_generation(&b->backends.slot[s->backend])
				? "kept"
				: "lost");
	control_put_str(o, "last_turn", s->prefill_ms ? guard_turn_names[s->turn] : "");
	control_put_int(o, "cold_streak", s->cold);
	put_seconds(o, "age_s", s->created_ms, now_ms);
	put_seconds(o, "idle_s", s->last_used_ms, now_ms);
	return o;
}

/* Which slots bear that name: one, or more for a while after its address changed. Under the
 * lock. */
static uint64_t slots_named(const struct balancer *b, const char *name)
{
	uint64_t mask = 0;

	for (uint32_t slot = 0; slot < atomic_load(&b->backends.nr); slot++)
		if (atomic_load(&b->backends.slot[slot].state) != BACKEND_FREE &&
		    !strcmp(b->backends.slot[slot].name, name))
			mask |= 1ULL << slot;
	return mask;
}

/* Appends up to @limit sessions of the slots in @slots; returns whether there were more. */
static bool sessions_list(const struct balancer *b, uint64_t slots, uint32_t limit, json_t *list)
{
	struct session batch[CONTROL_BATCH];
	uint64_t cursor = 0, now_ms = balancer_now_ms();
	uint32_t nr;

	do {
		nr = session_list(b->sessions, now_ms, &cursor, batch, CONTROL_BATCH);
		for (uint32_t i = 0; i < nr; i++) {
			if (batch[i].backend >= BACKENDS_MAX || !(slots & 1ULL << batch[i].backend))
				continue;
			if (!limit--)
				return true;
			json_array_append_new(list, control_session_json(b, &batch[i], now_ms));
		}
	} while (cursor != UINT64_MAX);
	return false;
}

/* Digits only; returns 0 or -EINVAL. */
static int limit_parse(const char *text, uint32_t *limit)
{
	unsigned long n;
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	n = strtoul(text, &end, 10);
	if (errno || *end || n > CONTROL_SESSIONS_MAX)
		return -EINVAL;
	*limit = n;
	return 0;
}

enum MHD_Result control_sessions(const struct control_view *v, struct MHD_Connection *conn)
{
	const char *limit_text = MHD_lookup_connection_value(conn, MHD_GET_ARGUMENT_KIND, "limit");
	const char *name = MHD_lookup_connection_value(conn, MHD_GET_ARGUMENT_KIND, "backend");
	const struct balancer *b = v->p.balancer;
	uint32_t limit = CONTROL_SESSIONS_DEFAULT;
	uint64_t slots = ~0ULL, total = 0;
	char why[CONTROL_TEXT_MAX];
	bool truncated;
	json_t *body, *list;

	if (limit_text && limit_parse(limit_text, &limit)) {
		snprintf(why, sizeof(why), "limit: wanted a number from 0 to %d",
			 CONTROL_SESSIONS_MAX);
		return control_reply_error(conn, MHD_HTTP_BAD_REQUEST, why);
	}
	pthread_rwlock_rdlock(v->p.lock);
	if (name)
		slots = slots_named(b, name);
	if (!slots) {
		pthread_rwlock_unlock(v->p.lock);
		snprintf(why, sizeof(why), "no backend is called \"%.100s\"", name);
		return control_reply_error(conn, MHD_HTTP_NOT_FOUND, why);
	}
	list = json_array();
	for (uint32_t slot = 0; name && slot < BACKENDS_MAX; slot++)
		if (slots & 1ULL << slot)
			total += session_count(b->sessions, slot);
	if (!name)
		total = session_total(b->sessions);
	truncated = sessions_list(b, slots, limit, list);
	pthread_rwlock_unlock(v->p.lock);
	body = json_object();
	control_put_int(body, "total", total);
	json_object_set_new(body, "sessions", list);
	control_put_bool(body, "truncated", truncated);
	return control_reply(conn, MHD_HTTP_OK, body);
}
