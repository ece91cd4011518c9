/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Decisions in JSON and in words. Says what decide() said; works nothing out. */
#include "ops/explain_json.h"

#include <inttypes.h>
#include <stdio.h>

#include "ops/control_private.h"

static void put_ms(json_t *o, const char *key, uint32_t ms)
{
	json_object_set_new(o, key, ms == GUARD_UNKNOWN ? json_null() : json_integer(ms));
}

/* What the reason means, as a sentence's end. Without a default: the compiler misses a new one. */
static const char *reason_text(enum decide_reason reason)
{
	switch (reason) {
	case DECIDE_PINNED:
		return "the session's server";
	case DECIDE_PLACED:
		return "a new session";
	case DECIDE_HASHED:
		return "placement hash: no pins";
	case DECIDE_MOVED_DOWN:
		return "the session's server is down";
	case DECIDE_MOVED_REMOVED:
		return "the session's server is configured no more, or has weight 0";
	case DECIDE_MOVED_FAILED:
		return "the session's server failed this very request";
	case DECIDE_MOVED_AVOID:
		return "a sidecar call keeps away from its parent's server";
	case DECIDE_MOVED_DRAIN:
		return "the session's server is being drained";
	case DECIDE_MOVED_BUSY:
		return "the session's server had no free slot";
	case DECIDE_MOVED_GUARD:
		return "the session's server was over guard.abs or guard.rel";
	case DECIDE_CONTROL:
		return "in the experiment's control arm: servers in turn";
	case DECIDE_PREFIX:
		return "the server that holds the longest part of the prompt";
	case DECIDE_PREFIX_GUARDED:
		return "the server that holds most of the prompt is too busy";
	case DECIDE_PREFIX_COLD:
		return "nobody holds enough of the prompt: who was given the least lately";
	case DECIDE_KEYLESS:
		return "no session key";
	case DECIDE_NONE:
		return "no server is eligible";
	case DECIDE_REASON_NR:
		break;
	}
	return "";
}

static const char *guard_text(enum guard_verdict guard)
{
	switch (guard) {
	case GUARD_UNLIMITED:
		return "its slots are not known";
	case GUARD_FREE:
		return "it has a free slot";
	case GUARD_SPILL:
		return "moving is cheaper than waiting, or one of the two is not known";
	case GUARD_WAIT:
		return "the request waits for a slot";
	case GUARD_DISPLACE:
		return "the request waits, and a cheaper one of its server's queue moves";
	case GUARD_OVER:
		return "sent to the full server, which queues it";
	case GUARD_REFUSE:
		return "no room in the queue, or the wait is over: 503 or 504";
	case GUARD_THRESHOLD:
		return "another server has fewer requests in flight";
	case GUARD_NONE:
	case GUARD_VERDICT_NR:
		break;
	}
	return "";
}

static json_t *candidate_json(const struct explain_record *r, const struct decide_candidate *c,
			      const char *name)
{
	json_t *o = json_object();

	control_put_str(o, "backend", name);
	control_put_bool(o, "chosen", c->id == r->decision.backend);
	control_put_int(o, "slots", c->slots);
	control_put_int(o, "inflight", c->inflight);
	control_put_int(o, "waiting", c->queued);
	control_put_real(o, "sessions_by_weight", c->sessions_by_weight);
	control_put_real(o, "inflight_by_weight", c->inflight_by_weight);
	control_put_real(o, "rendezvous", c->rendezvous);
	put_ms(o, "wait_ms", c->wait_ms);
	put_ms(o, "cold_ms", c->cold_ms);
	return o;
}

json_t *explain_json(const struct explain_record *r, const char *(*name)(void *arg, uint32_t slot),
		     void *arg, uint64_t now_ns)
{
	const struct kvpin_decision *d = &r->decision;
	json_t *o = json_object(), *list = json_array();
	bool pinned = r->pin != SESSION_NO_BACKEND;
	char id[17] = "";

	if (r->keyed)
		snprintf(id, sizeof(id), "%016" PRIx64, r->session);
	control_put_real(o, "age_s", (double)(now_ns > r->at_ns ? now_ns - r->at_ns : 0) / 1e9);
	control_put_str(o, "session", id);
	control_put_str(o, "key_source", r->source);
	control_put_int(o, "attempt", r->attempt);
	control_put_bool(o, "steered", r->steered);
	control_put_str(o, "pin", pinned ? name(arg, r->pin) : "");
	control_put_bool(o, "pin_cold", pinned && r->cold);
	control_put_int(o, "turns", r->turns);
	control_put_real(o, "idle_s", (double)r->idle_ms / 1000);
	control_put_int(o, "context_tokens", r->context / GUARD_TOKEN_BYTES);
	control_put_str(o, "backend",
			d->backend != SESSION_NO_BACKEND ? name(arg, d->backend) : "");
	control_put_str(o, "reason", decide_reason_names[d->reason]);
	control_put_str(o, "reason_text", reason_text(d->reason));
	control_put_str(o, "guard", guard_verdict_names[d->guard]);
	control_put_str(o, "guard_text", guard_text(d->guard));
	put_ms(o, "stay_ms", d->stay_ms);
	put_ms(o, "go_ms", d->go_ms);
	for (uint32_t i = 0; i < d->nr_candidates; i++)
		json_array_append_new(
			list, candidate_json(r, &d->candidate[i], name(arg, d->candidate[i].id)));
	json_object_set_new(o, "candidates", list);
	return o;
}
