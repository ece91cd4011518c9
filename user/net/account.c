/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The books of exchanges: outcome counters and the request log. Changes nothing else. */
#include "net/account.h"

#include "base/log.h"
#include "net/turn.h"
#include "net/worker.h"

static void log_request(const struct conn *c, const struct exchange *x, enum stat_outcome outcome,
			uint64_t ended_ns)
{
	char client[ADDR_TEXT_MAX];
	struct log_field field[20];
	unsigned int n = 0;

	if (!c->worker->config->log.requests)
		return;
	field[n++] = F_STR("client", addr_format(&c->peer, client));
	field[n++] = F_STR("outcome", stat_outcome_names[outcome]);
	field[n++] = F_UINT("status", x->status);
	if (x->attempts) {
		field[n++] = F_STR("reason", decide_reason_names[x->reason]);
		field[n++] = F_STR("backend", x->backend ? x->backend->name : "");
		field[n++] = F_STR("path", stat_path_names[x->path]);
		field[n++] = F_STR("turn", x->later_turn ? "later" : "first");
		field[n++] = F_UINT("attempts", x->attempts);
	}
	if (x->keyed || x->chain)
		field[n++] =
			F_STR("key", x->generated[0] ? "generated" : key_kind_names[x->key_kind]);
	if (x->keyed && log_enabled(LOG_DEBUG))
		field[n++] = F_HEX("session", x->session);
	if (x->request.error)
		field[n++] = F_STR("error", stat_http_error_names[x->request.error]);
	if (x->ttft_ns)
		field[n++] = F_DBL("ttft_ms", x->ttft_ns / 1e6);
	if (x->started_ns)
		field[n++] = F_DBL("total_ms", (ended_ns - x->started_ns) / 1e6);
	field[n++] = F_UINT("bytes_up", x->bytes_up);
	field[n++] = F_UINT("bytes_down", x->bytes_down);
	field[n] = (struct log_field){0};
	log_write(LOG_INFO, "request", field);
}

/* A decision that the kernel program made: it found a pin, and its server had a free slot. */
static void explain_steered(struct conn *c, const struct kvpin_event *e)
{
	struct worker *w = c->worker;
	const struct backend *b = &w->balancer->backends.slot[e->backend];
	struct explain_record *r = &w->record;

	if (e->flags & KVPIN_ANSWER_DAEMON)
		return;
	*r = (struct explain_record){
		.at_ns = e->started_ns,
		.session = e->session,
		.context = e->context > e->bytes_up ? e->context : e->bytes_up,
		.pin = e->backend,
		.keyed = e->keyed,
		.steered = true,
		.attempt = 1,
		.source = "header",
		.decision = {.backend = e->backend,
			     .reason = DECIDE_PINNED,
			     .guard = atomic_load(&b->slots) ? GUARD_FREE : GUARD_UNLIMITED,
			     .stay_ms = GUARD_UNKNOWN,
			     .go_ms = GUARD_UNKNOWN},
	};
	explain_add(w->explain, r);
}

void account_steered(struct conn *c, const struct kvpin_event *e)
{
	const struct worker *w = c->worker;
	const struct exchange x = {
		.status = e->status,
		.attempts = 1,
		.reason = DECIDE_PINNED,
		.backend = &w->balancer->backends.slot[e->backend],
		.path = STAT_PATH_STEER,
		.later_turn = e->flags & KVPIN_ANSWER_LATER,
		.keyed = e->keyed,
		.session = e->session,
		.ttft_ns = e->ttft_ns,
		.started_ns = e->started_ns,
		.bytes_up = e->bytes_up,
		.bytes_down = e->bytes_down,
	};

	explain_steered(c, e);
	turn_steered(c, e);
	log_request(c, &x, OUTCOME_OK, e->ended_ns);
	wait_kick(w->balancer, e->backend);
}

void account_exchange(struct conn *c, enum stat_outcome outcome)
{
	unsigned int slot = c->x->backend ? c->x->backend->id : STAT_NO_BACKEND;

	if (c->counted)
		return;
	c->counted = true;
	stat_add(&c->worker->stats->backend[slot].requests[c->x->path][outcome], 1);
	log_request(c, c->x, outcome, c->worker->config->log.requests ? balancer_now_ns() : 0);
}
