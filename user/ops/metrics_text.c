/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The exporter's page: writes what metrics_sum.c added up as Prometheus text. Knows nothing of
 * HTTP, changes nothing.
 *
 * Only configured servers have series: a server whose address changed lives in two slots for a
 * while, and two series of one name would spoil the whole page.
 */
#include "ops/metrics.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "core/decide.h"
#include "ops/peers.h"

/* One page in the making. */
struct page {
	FILE *out;
	const struct balancer *balancer;
	const struct metrics_sum *sum;
	const struct worker_stats *all; /* of the sum */
	unsigned int nr_servers;
	struct {
		uint32_t slot;
		char label[2 * BACKEND_NAME_MAX]; /* escaped */
	} server[BACKENDS_MAX];
};

/* Backslash, quote and newline are all that the text format escapes. */
static void label_escape(char *to, const char *from)
{
	for (; *from; from++) {
		if (*from == '\\' || *from == '"' || *from == '\n')
			*to++ = '\\';
		*to++ = *from == '\n' ? 'n' : *from;
	}
	*to = '\0';
}

static void family(const struct page *p, const char *name, const char *type, const char *help)
{
	fprintf(p->out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void plain(const struct page *p, const char *name, const char *type, const char *help,
		  uint64_t value)
{
	family(p, name, type, help);
	fprintf(p->out, "%s %" PRIu64 "\n", name, value);
}

static void requests_series(const struct page *p, uint32_t slot, const char *label)
{
	const struct backend_stats *s = &p->all->backend[slot];

	for (int path = 0; path < STAT_PATH_NR; path++)
		for (int o = 0; o < OUTCOME_NR; o++)
			fprintf(p->out,
				"kvpin_requests_total{backend=\"%s\",path=\"%s\",outcome=\"%s\"} "
				"%" PRIu64 "\n",
				label, stat_path_names[path], stat_outcome_names[o],
				stat_get(&s->requests[path][o]));
}

static void render_requests(const struct page *p)
{
	family(p, "kvpin_requests_total", "counter",
	       "Requests by server, data path and outcome; no server chosen: backend is empty.");
	for (unsigned int i = 0; i < p->nr_servers; i++)
		requests_series(p, p->server[i].slot, p->server[i].label);
	requests_series(p, STAT_NO_BACKEND, "");
}

enum backend_gauge {
	GAUGE_UP,
	GAUGE_INFLIGHT,
	GAUGE_SLOTS,
	GAUGE_SESSIONS,
	GAUGE_WAITING,
	GAUGE_PREFILL,
	GAUGE_DRAINING,
	GAUGE_INHERITED,
	GAUGE_NR
};

static const struct {
	const char *name, *help;
} backend_gauges[GAUGE_NR] = {
	[GAUGE_UP] = {"kvpin_backend_up", "Whether the server is thought able to serve."},
	[GAUGE_INFLIGHT] = {"kvpin_backend_inflight", "Requests that the server works on now."},
	[GAUGE_SLOTS] = {"kvpin_backend_slots",
			 "Requests that the server works on at once; 0: not known."},
	[GAUGE_SESSIONS] = {"kvpin_sessions", "Sessions pinned to the server."},
	[GAUGE_WAITING] = {"kvpin_backend_waiting", "Requests that wait for a slot of the server."},
	[GAUGE_PREFILL] =
		{"kvpin_backend_prefill_bytes_per_second",
		 "Request bytes that the server prefills in a second, by its cold turns; 0: "
		 "not known."},
	[GAUGE_DRAINING] = {"kvpin_backend_draining", "Whether the server is being drained."},
	[GAUGE_INHERITED] = {"kvpin_splice_inherited",
			     "Streams of a kvpin that was killed, among the requests that the "
			     "server works on."},
};

static uint64_t backend_gauge(const struct balancer *b, uint32_t slot, enum backend_gauge which)
{
	const struct backend *s = &b->backends.slot[slot];

	switch (which) {
	case GAUGE_UP:
		return atomic_load(&s->state) == BACKEND_UP;
	case GAUGE_INFLIGHT:
		return backend_inflight(s);
	case GAUGE_SLOTS:
		return atomic_load(&s->slots);
	case GAUGE_WAITING:
		return backend_queued(s);
	case GAUGE_PREFILL:
		return atomic_load(&s->rate);
	case GAUGE_DRAINING:
		return atomic_load(&s->drain_ms) != 0;
	case GAUGE_INHERITED:
		return atomic_load(&s->inherited);
	default:
		return session_count(b->sessions, slot);
	}
}

static void render_gauges(const struct page *p)
{
	for (int g = 0; g < GAUGE_NR; g++) {
		family(p, backend_gauges[g].name, "gauge", backend_gauges[g].help);
		for (unsigned int i = 0; i < p->nr_servers; i++)
			fprintf(p->out, "%s{backend=\"%s\"} %" PRIu64 "\n", backend_gauges[g].name,
				p->server[i].label,
				backend_gauge(p->balancer, p->server[i].slot, g));
	}
}

static void bytes_series(const struct page *p, unsigned int i, const char *direction,
			 const _Atomic uint64_t *bytes)
{
	for (int path = 0; path < STAT_PATH_NR; path++)
		fprintf(p->out,
			"kvpin_bytes_total{backend=\"%s\",direction=\"%s\",path=\"%s\"} "
			"%" PRIu64 "\n",
			p->server[i].label, direction, stat_path_names[path],
			stat_get(&bytes[path]));
}

static void render_bytes(const struct page *p)
{
	family(p, "kvpin_bytes_total", "counter",
	       "HTTP bytes, heads included; direction is to_server or to_client.");
	for (unsigned int i = 0; i < p->nr_servers; i++) {
		const struct backend_stats *s = &p->all->backend[p->server[i].slot];

		bytes_series(p, i, "to_server", s->bytes_up);
		bytes_series(p, i, "to_client", s->bytes_down);
	}
}

static void render_backend_counter(const struct page *p, const char *name, const char *help,
				   size_t offset)
{
	family(p, name, "counter", help);
	for (unsigned int i = 0; i < p->nr_servers; i++) {
		const char *s = (const char *)&p->all->backend[p->server[i].slot];

		fprintf(p->out, "%s{backend=\"%s\"} %" PRIu64 "\n", name, p->server[i].label,
			stat_get((const _Atomic uint64_t *)(s + offset)));
	}
}

/* @labels without the closing brace. The count is the sum of the buckets, so the two agree. */
static void hist_series(FILE *out, const char *name, const char *labels, const struct hist *h,
			const struct hist_bounds *bounds)
{
	uint64_t n = 0, sum_ns = stat_get(&h->sum_ns);

	for (unsigned int i = 0; i < bounds->nr; i++) {
		n += stat_get(&h->bucket[i]);
		fprintf(out, "%s_bucket{%s,le=\"%s\"} %" PRIu64 "\n", name, labels,
			bounds->le_text[i], n);
	}
	n += stat_get(&h->bucket[bounds->nr]);
	fprintf(out, "%s_bucket{%s,le=\"+Inf\"} %" PRIu64 "\n", name, labels, n);
	fprintf(out, "%s_sum{%s} %" PRIu64 ".%09" PRIu64 "\n", name, labels, sum_ns / 1000000000,
		sum_ns % 1000000000);
	fprintf(out, "%s_count{%s} %" PRIu64 "\n", name, labels, n);
}

static void render_hists(const struct page *p)
{
	static const char *const turns[TURN_NR] = {[TURN_FIRST] = "first", [TURN_LATER] = "later"};
	char labels[sizeof(p->server[0].label) + 64];

	family(p, "kvpin_ttft_seconds", "histogram",
	       "From the complete request head to the answer's first token (event stream) or first "
	       "byte, a wait for a slot included, by the session's turn.");
	for (unsigned int i = 0; i < p->nr_servers; i++)
		for (int t = 0; t < TURN_NR; t++) {
			snprintf(labels, sizeof(labels), "backend=\"%s\",turn=\"%s\"",
				 p->server[i].label, turns[t]);
			hist_series(p->out, "kvpin_ttft_seconds", labels,
				    &p->all->backend[p->server[i].slot].ttft[t], &hist_ttft_bounds);
		}
	family(p, "kvpin_token_gap_seconds", "histogram", "Between two tokens of an event stream.");
	for (unsigned int i = 0; i < p->nr_servers; i++) {
		snprintf(labels, sizeof(labels), "backend=\"%s\"", p->server[i].label);
		hist_series(p->out, "kvpin_token_gap_seconds", labels,
			    &p->all->backend[p->server[i].slot].token_gap, &hist_token_gap_bounds);
	}
}

/* One family with a label, an entry a name. */
static void labelled(const struct page *p, const char *name, const char *help, const char *label,
		     const char *const *names, unsigned int nr, const _Atomic uint64_t *values)
{
	family(p, name, "counter", help);
	for (unsigned int i = 0; i < nr; i++)
		fprintf(p->out, "%s{%s=\"%s\"} %" PRIu64 "\n", name, label, names[i],
			stat_get(&values[i]));
}

static void render_keys(const struct page *p)
{
	static const char *const prefix_results[] = {"hot", "guarded", "cold"};
	struct prefix_index *index = atomic_load(&p->balancer->prefix);
	const _Atomic uint64_t *prefixes = &p->all->prefixes[DECIDE_PREFIX];

	_Static_assert(DECIDE_PREFIX_GUARDED == DECIDE_PREFIX + 1 &&
			       DECIDE_PREFIX_COLD == DECIDE_PREFIX + 2,
		       "in the order of the names");
	labelled(p, "kvpin_keys_total",
		 "Requests that the daemon looked at, by what named their session.", "source",
		 key_kind_names, KEY_KIND_NR, p->all->keys);
	labelled(p, "kvpin_keyless_requests_total",
		 "Requests without a session key, by what was done instead.", "fallback",
		 missing_names, MISSING_NR, p->all->keyless);
	labelled(p, "kvpin_prefix_requests_total",
		 "Requests routed by their prompt's head: to its owner (hot), elsewhere because "
		 "that one is too busy (guarded), or without an owner (cold).",
		 "result", prefix_results, 3, prefixes);
	plain(p, "kvpin_prefix_nodes", "gauge", "Windows of prompts in the prefix index.",
	      index ? prefix_count(index) : 0);
}

static void render_restarts(const struct page *p)
{
	family(p, "kvpin_backend_restarts_total", "counter",
	       "Restarts of the server, noticed by its listening socket or its start time.");
	for (unsigned int i = 0; i < p->nr_servers; i++)
		fprintf(p->out, "kvpin_backend_restarts_total{backend=\"%s\"} %" PRIu64 "\n",
			p->server[i].label,
			atomic_load(&p->balancer->backends.slot[p->server[i].slot].restarts));
}

static void render_turns(const struct page *p)
{
	family(p, "kvpin_turns_total", "counter",
	       "Turns of sessions, by what their prefill time says of the cache.");
	for (unsigned int i = 0; i < p->nr_servers; i++)
		for (int t = 0; t < GUARD_TURN_NR; t++)
			fprintf(p->out,
				"kvpin_turns_total{backend=\"%s\",class=\"%s\"} %" PRIu64 "\n",
				p->server[i].label, guard_turn_names[t],
				stat_get(&p->all->backend[p->server[i].slot].turns[t]));
	render_backend_counter(p, "kvpin_cold_streaks_total",
			       "Times that a session had two cold turns in a row, and maybe more.",
			       offsetof(struct backend_stats, cold_streaks));
	render_backend_counter(p, "kvpin_forced_disturb_total",
			       "Sessions and prompts that had to leave the server that has their "
			       "cache, though it was up: it was too busy.",
			       offsetof(struct backend_stats, forced));
	render_backend_counter(p, "kvpin_slot_waits_total",
			       "Requests that waited for a slot of the server, and got one.",
			       offsetof(struct backend_stats, waits));
	plain(p, "kvpin_pressure", "gauge",
	      "Sessions that had to leave a server that was up, in the last minute.",
	      pressure_get(&p->balancer->pressure, balancer_now_ms(), NULL));
}

static void render_sessions(const struct page *p)
{
	family(p, "kvpin_session_moves_total", "counter",
	       "Sessions that changed server, by reason.");
	for (int r = 0; r < DECIDE_REASON_NR; r++)
		if (!strncmp(decide_reason_names[r], "moved_", 6))
			fprintf(p->out, "kvpin_session_moves_total{reason=\"%s\"} %" PRIu64 "\n",
				decide_reason_names[r], stat_get(&p->all->moves[r]));
	plain(p, "kvpin_session_evictions_total", "counter",
	      "Pins that fell to the cap before their TTL.",
	      session_evicted(p->balancer->sessions));
	render_keys(p);
	plain(p, "kvpin_long_keys_total", "counter",
	      "Requests whose session key is over 256 bytes; it is hashed whole.",
	      stat_get(&p->all->long_keys));
	plain(p, "kvpin_repeated_keys_total", "counter",
	      "Requests that have their session key more than once; the first counts.",
	      stat_get(&p->all->repeated_keys));
}

static void render_clients(const struct page *p)
{
	const struct balancer *b = p->balancer;

	plain(p, "kvpin_connections", "gauge", "Client connections now.",
	      atomic_load(&b->connections));
	plain(p, "kvpin_connections_accepted_total", "counter", "Client connections accepted.",
	      stat_get(&p->all->accepted));
	plain(p, "kvpin_accept_pauses_total", "counter",
	      "Times the listeners rested: limits.connections reached, or no descriptor free.",
	      stat_get(&p->all->accept_pauses));
	family(p, "kvpin_http_errors_total", "counter", "Malformed requests, by reason.");
	for (int e = KVPIN_HTTP_NONE + 1; e < KVPIN_HTTP_NR; e++)
		fprintf(p->out, "kvpin_http_errors_total{reason=\"%s\"} %" PRIu64 "\n",
			stat_http_error_names[e], stat_get(&p->all->http_errors[e]));
	plain(p, "kvpin_config_reloads_total", "counter", "Configurations published since start.",
	      atomic_load(&b->reloads));
	family(p, "kvpin_build_info", "gauge", "Always 1; the version is the label.");
	fprintf(p->out, "kvpin_build_info{version=\"%s\"} 1\n", KVPIN_VERSION);
}

/* Series that there would be without the kernel too, so that none appears or ends by a restart. */
static void render_paths(const struct page *p)
{
	family(p, "kvpin_path_available", "gauge",
	       "Whether the data path is there: a path that the kernel or the privileges do not "
	       "allow is not.");
	for (int path = 0; path < STAT_PATH_NR; path++)
		fprintf(p->out, "kvpin_path_available{path=\"%s\"} %d\n", stat_path_names[path],
			path == STAT_PATH_STEER	   ? p->sum->steer
			: path == STAT_PATH_SPLICE ? p->sum->splice
						   : true);
	family(p, "kvpin_path_handovers_total", "counter",
	       "Client connections, of splice answers, handed over to the path and back from it.");
	fprintf(p->out,
		"kvpin_path_handovers_total{path=\"steer\",direction=\"over\"} %" PRIu64 "\n",
		stat_get(&p->all->handed_over));
	fprintf(p->out,
		"kvpin_path_handovers_total{path=\"steer\",direction=\"back\"} %" PRIu64 "\n",
		stat_get(&p->all->reclaimed));
	fprintf(p->out,
		"kvpin_path_handovers_total{path=\"splice\",direction=\"over\"} %" PRIu64 "\n",
		stat_get(&p->all->spliced));
	fprintf(p->out,
		"kvpin_path_handovers_total{path=\"splice\",direction=\"back\"} %" PRIu64 "\n",
		stat_get(&p->all->splice_back));
	family(p, "kvpin_path_refused_total", "counter",
	       "Times that the path passed something up to the relay, or was not taken, by "
	       "reason.");
	for (int r = KVPIN_REFUSED_NONE + 1; r < KVPIN_REFUSED_NR; r++)
		fprintf(p->out,
			"kvpin_path_refused_total{path=\"steer\",reason=\"%s\"} %" PRIu64 "\n",
			stat_refusal_names[r], stat_get(&p->all->refused[r]));
	for (int r = 0; r < KVPIN_SPLICE_REFUSED_NR; r++)
		fprintf(p->out,
			"kvpin_path_refused_total{path=\"splice\",reason=\"%s\"} %" PRIu64 "\n",
			stat_splice_refusal_names[r], stat_get(&p->all->splice_refused[r]));
	plain(p, "kvpin_steer_queued_bytes", "gauge",
	      "Bytes that the kernel redirected to clients and their TCP has not taken yet.",
	      p->sum->steer_queued);
}

void metrics_render(const struct balancer *b, const struct metrics_sum *sum, FILE *out)
{
	struct page page = {.out = out, .balancer = b, .sum = sum, .all = &sum->all}, *p = &page;

	for (unsigned int i = 0; i < sum->nr_configured; i++) {
		uint32_t slot = sum->configured[i];

		p->server[p->nr_servers].slot = slot;
		label_escape(p->server[p->nr_servers].label, b->backends.slot[slot].name);
		p->nr_servers++;
	}
	render_requests(p);
	render_gauges(p);
	render_bytes(p);
	render_backend_counter(p, "kvpin_upstream_connects_total",
			       "Connections opened to the server.",
			       offsetof(struct backend_stats, connects));
	render_backend_counter(p, "kvpin_upstream_reuses_total",
			       "Requests that went over an open connection to the server.",
			       offsetof(struct backend_stats, reuses));
	render_backend_counter(p, "kvpin_resends_total",
			       "Requests sent again on another connection.",
			       offsetof(struct backend_stats, resends));
	render_hists(p);
	render_restarts(p);
	peers_render(p->balancer->peers, p->out);
	render_turns(p);
	render_paths(p);
	render_sessions(p);
	render_clients(p);
}

const char *metrics_ready(const struct balancer *b)
{
	uint64_t now_ms = balancer_now_ms();
	bool configured = false, drained = false;

	if (atomic_load(&b->draining))
		return "draining";
	for (uint32_t slot = 0; slot < atomic_load(&b->backends.nr); slot++) {
		const struct backend *s = &b->backends.slot[slot];
		uint32_t state = backend_state_now(&b->backends, s, now_ms);

		configured |= state == BACKEND_UP || state == BACKEND_DOWN;
		if (state != BACKEND_UP || !atomic_load(&s->weight))
			continue;
		if (!atomic_load(&s->drain_ms))
			return NULL;
		drained = true;
	}
	if (drained)
		return "every server that is up is being drained";
	return configured ? "no server is up" : "no server is configured";
}
