/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What all workers share of the steer path: the loaded kernel side, its free entries, and the
 * configuration that the programs see. Opened before the workers start, closed after they ended.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hist.h"
#include "net/account.h"
#include "net/steer_private.h"
#include "net/turn.h"

/* A client keeps connections to a server or two; one that has more does without for the rest. */
#define UPSTREAMS_PER_CONN 2

static int entries_init(struct steer_entries *e, uint32_t nr)
{
	e->entry = malloc(nr * sizeof(*e->entry));
	if (!e->entry)
		return -ENOMEM;
	/* The lowest are taken first. */
	for (e->nr = 0; e->nr < nr; e->nr++)
		e->entry[e->nr] = nr - 1 - e->nr;
	return 0;
}

uint32_t steer_entry_take(struct steer *s, struct steer_entries *e)
{
	uint32_t entry = UINT32_MAX;

	pthread_mutex_lock(&s->lock);
	if (e->nr)
		entry = e->entry[--e->nr];
	pthread_mutex_unlock(&s->lock);
	return entry;
}

void steer_entry_give(struct steer *s, struct steer_entries *e, uint32_t entry)
{
	pthread_mutex_lock(&s->lock);
	e->entry[e->nr++] = entry;
	pthread_mutex_unlock(&s->lock);
}

bool steer_refuse(struct worker *w, enum kvpin_refusal reason)
{
	stat_add(&w->stats->refused[reason], 1);
	return false;
}

static void steer_free(struct steer *s)
{
	free(s->conns.entry);
	free(s->upstreams.entry);
	free(s->conn);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

int steer_open(struct steer **out, const struct config *config, uid_t uid, gid_t gid, char *why,
	       size_t why_bytes)
{
	const struct kern_params params = {
		.pin_dir = config->steer.pin,
		.conns = config->limit.connections,
		.upstreams = UPSTREAMS_PER_CONN * config->limit.connections,
		.sessions = config->session_max,
		.holds = config->steer.holds,
		.workers = config->workers,
		.ring_bytes = config->steer.ring_bytes,
		.uid = uid,
		.gid = gid,
		.ttft_le_ns = hist_ttft_bounds.le_ns,
		.gap_le_ns = hist_token_gap_bounds.le_ns,
	};
	struct steer *s = calloc(1, sizeof(*s));
	int err = -ENOMEM;

	if (!s)
		goto no_memory;
	pthread_mutex_init(&s->lock, NULL);
	s->conn = calloc(params.conns, sizeof(*s->conn));
	if (!s->conn || entries_init(&s->conns, params.conns) ||
	    entries_init(&s->upstreams, params.upstreams)) {
		steer_free(s);
		goto no_memory;
	}
	err = kern_open(&s->kern, &params, why, why_bytes);
	if (err) {
		steer_free(s);
		return err;
	}
	steer_configure(s, config);
	*out = s;
	return 0;
no_memory:
	snprintf(why, why_bytes, "steer: out of memory");
	return err;
}

void steer_close(struct steer *s)
{
	if (!s)
		return;
	kern_close(&s->kern);
	steer_free(s);
}

struct kern *steer_kern(struct steer *s)
{
	return &s->kern;
}

uint64_t steer_carried(const struct worker *w, const struct backend *backend)
{
	struct kvpin_counters sum;

	if (!w->steer.steer || kern_counters(worker_kern(w), backend->id, &sum))
		return 0;
	return sum.requests;
}

/* ---- pins ---- */

#define NS_PER_MS 1000000ULL

static bool pin_get(void *arg, uint64_t id, struct session *out)
{
	struct kvpin_session k;

	if (kern_session_get(arg, id, &k))
		return false;
	*out = (struct session){
		.id = id,
		.last_used_ms = k.last_used_ns / NS_PER_MS,
		.created_ms = k.created_ns / NS_PER_MS,
		.backend = k.backend,
		.turns = k.turns,
		.moves = k.moves,
		.context = k.context,
	};
	return true;
}

static void pin_put(void *arg, const struct session *s)
{
	const struct kvpin_session k = {
		.backend = s->backend,
		.turns = s->turns,
		.moves = s->moves,
		.context = s->context,
		.last_used_ns = s->last_used_ms * NS_PER_MS,
		.created_ns = s->created_ms * NS_PER_MS,
	};

	/* The control arm takes turns, which is the daemon's to count. */
	if (s->control) {
		kern_session_del(arg, s->id);
		return;
	}
	/* A full map: this session's requests are passed up, with the reason. */
	kern_session_put(arg, s->id, &k);
}

static void pin_del(void *arg, uint64_t id)
{
	kern_session_del(arg, id);
}

struct session_mirror steer_mirror(struct steer *s)
{
	return (struct session_mirror){
		.arg = &s->kern, .get = pin_get, .put = pin_put, .del = pin_del};
}

/* Pins as they are collected: the kernel's map is read whole before anything is put anywhere. */
struct adoption {
	struct balancer *b;
	struct session *pin;
	uint32_t nr, room;
};

static void pin_collect(void *arg, uint64_t id, const struct kvpin_session *k, const char *name,
			const char *address)
{
	struct adoption *a = arg;
	const struct backend *b = backend_find(&a->b->backends, name);
	char text[ADDR_TEXT_MAX];

	if (!b || strcmp(addr_format(&b->addr, text), address))
		return;
	if (a->nr == a->room) {
		uint32_t room = a->room ? 2 * a->room : 1024;
		struct session *more = realloc(a->pin, room * sizeof(*more));

		if (!more)
			return;
		a->pin = more;
		a->room = room;
	}
	a->pin[a->nr++] = (struct session){
		.id = id,
		.last_used_ms = k->last_used_ns / NS_PER_MS,
		.created_ms = k->created_ns / NS_PER_MS,
		.backend = b->id,
		.turns = k->turns,
		.moves = k->moves,
		.context = k->context,
		.generation = backend_generation(b),
	};
}

uint32_t steer_adopt(struct steer *s, struct balancer *b)
{
	struct adoption a = {.b = b};
	uint32_t taken;

	kern_adopt(&s->kern, pin_collect, &a);
	taken = session_adopt_all(b->sessions, a.pin, a.nr);
	free(a.pin);
	return taken;
}

void steer_beside_splice(struct steer *s)
{
	s->splice = true;
	__atomic_fetch_or(&s->kern.config->flags, KVPIN_CONFIG_SPLICE, __ATOMIC_SEQ_CST);
}

/* guard.abs and guard.rel can move a session of a server whose slots are not known, and `auto` is
 * not known until the server has said so. */
static bool thresholds(const struct config *c)
{
	unsigned int i;

	for (i = 0; (c->guard.abs || c->guard.rel_milli) && i < c->nr_backends; i++)
		if (!c->backend[i].slots)
			return true;
	return false;
}

void steer_configure(struct steer *s, const struct config *config)
{
	struct kvpin_config *k = s->kern.config;
	uint32_t flags = 0, head_bytes = config->limit.head_bytes;

	/* What the kernel cannot do to a request: add a field, leave its pin, compare loads, or
	 * read a key that stands elsewhere than in a header. */
	if (!config->forwarded_for && config->placement != PLACEMENT_HASH &&
	    config_keys_in_head(config) && !thresholds(config))
		flags |= KVPIN_CONFIG_REQUESTS;
	if (config->log.requests || config->experiment_milli)
		flags |= KVPIN_CONFIG_EVENTS;
	if (s->splice)
		flags |= KVPIN_CONFIG_SPLICE;
	k->slow_ns = TURN_SLOW_NS;
	k->long_bytes = config->splice.body_bytes;
	k->budget = config->steer.budget_bytes;
	k->budget_all = config->steer.budget_all_bytes;
	k->head_bytes = head_bytes;
	k->head_fields = config->limit.head_fields;
	kern_names_set(&s->kern, &config->names);
	__atomic_store_n(&k->flags, flags, __ATOMIC_SEQ_CST);
}
