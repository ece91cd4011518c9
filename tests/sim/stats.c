/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the server saw: counters, requests per endpoint and per session key. Owns the session map
 * (open addressing, capped; keys beyond the cap are counted as one number).
 */
#include <stdlib.h>
#include <string.h>

#include "model.h"

#define SESSIONS_MAX   10000
#define SESSIONS_TABLE 16384 /* a power of two above the cap */
#define ENDPOINTS_MAX  64

struct stats stats;
static uint64_t per_endpoint[ENDPOINTS_MAX + 1];
static uint64_t sessions_nr, sessions_over;
static struct session {
	char *key;
	uint64_t requests;
} * sessions;

static void session_count(const char *key)
{
	uint64_t i = XXH64(key, strlen(key), 0);

	if (!sessions)
		sessions = xalloc(SESSIONS_TABLE * sizeof(*sessions));
	for (;; i++) {
		struct session *s = &sessions[i & (SESSIONS_TABLE - 1)];

		if (!s->key && sessions_nr >= SESSIONS_MAX) {
			sessions_over++;
			return;
		}
		if (!s->key) {
			s->key = xstrdup(key);
			sessions_nr++;
		}
		if (!strcmp(s->key, key)) {
			s->requests++;
			return;
		}
	}
}

void stats_request(const struct request *r)
{
	stats.requests++;
	per_endpoint[r->ep ? endpoint_index(r->ep) : ENDPOINTS_MAX]++;
	if (r->session_id)
		session_count(r->session_id);
}

static void stats_zero(void)
{
	memset(&stats, 0, sizeof(stats));
	memset(per_endpoint, 0, sizeof(per_endpoint));
	for (unsigned i = 0; sessions && i < SESSIONS_TABLE; i++)
		free(sessions[i].key);
	free(sessions);
	sessions = NULL;
	sessions_nr = sessions_over = 0;
}

void stats_fini(void)
{
	stats_zero();
}

void stats_answer(struct conn *c)
{
	struct buf b = {0};
	bool comma = false;

	buf_printf(&b,
		   "{\"system_fingerprint\":\"%s\",\"connections_total\":%llu,"
		   "\"connections_open\":%llu,\"requests\":%llu,\"bad_requests\":%llu,"
		   "\"bytes_in\":%llu,\"bytes_out\":%llu,",
		   opt.name, (unsigned long long)stats.connections, (unsigned long long)conns_open,
		   (unsigned long long)stats.requests, (unsigned long long)stats.bad_requests,
		   (unsigned long long)stats.bytes_in, (unsigned long long)stats.bytes_out);
	buf_printf(&b,
		   "\"aborts\":%llu,\"aborts_queued\":%llu,\"aborts_prefill\":%llu,"
		   "\"aborts_decode\":%llu,\"aborts_hang\":%llu,\"last_abort_after_ms\":%.3f,"
		   "\"last_abort_notice_ms\":%.3f,",
		   (unsigned long long)stats.aborts, (unsigned long long)stats.aborts_queued,
		   (unsigned long long)stats.aborts_prefill,
		   (unsigned long long)stats.aborts_decode, (unsigned long long)stats.aborts_hang,
		   stats.last_abort_after_ns / 1e6, stats.last_abort_notice_ns / 1e6);
	buf_printf(&b,
		   "\"slots\":%u,\"slots_busy\":%u,\"queued\":%u,\"model_requests\":%llu,"
		   "\"prompt_tokens\":%llu,\"cached_tokens\":%llu,\"predicted_tokens\":%llu,"
		   "\"endpoints\":{",
		   opt.slots, model_busy(), model_queued(), (unsigned long long)totals.requests,
		   (unsigned long long)totals.prompt_tokens,
		   (unsigned long long)totals.cached_tokens,
		   (unsigned long long)totals.predicted_tokens);
	for (unsigned i = 0; i < endpoints_nr; i++) {
		if (!per_endpoint[i])
			continue;
		buf_printf(&b, "%s\"%s\":%llu", comma ? "," : "", endpoints[i].path,
			   (unsigned long long)per_endpoint[i]);
		comma = true;
	}
	buf_printf(&b, "%s\"other\":%llu},\"sessions_over\":%llu,\"sessions\":{", comma ? "," : "",
		   (unsigned long long)per_endpoint[ENDPOINTS_MAX],
		   (unsigned long long)sessions_over);
	comma = false;
	for (unsigned i = 0; sessions && i < SESSIONS_TABLE; i++) {
		if (!sessions[i].key)
			continue;
		if (comma)
			buf_lit(&b, ",");
		comma = true;
		buf_json(&b, sessions[i].key, strlen(sessions[i].key));
		buf_printf(&b, ":%llu", (unsigned long long)sessions[i].requests);
	}
	buf_lit(&b, "}}");
	answer_json(c, 200, b.p, b.len);
	buf_free(&b);
}

void stats_clear(struct conn *c)
{
	static const char done[] = "{\"ok\":true}";

	stats_zero();
	memset(&totals, 0, sizeof(totals));
	answer_json(c, 200, done, sizeof(done) - 1);
}
