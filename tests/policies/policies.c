/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Policies beside each other on agents' traffic, without a network: a simulation by events that
 * asks the real decide(), the real table of pins and the real guard, and models only the servers.
 *
 *   kvpin-policies [--json] [--check] [--seeds N] [--minutes N]
 *
 * --check: exit status 1 unless the default is the best all-rounder: the policy whose worst figure,
 * of mean and p90 over all loads and as a multiple of the best policy's there, is the least.
 *
 * Traffic: agents come by chance, more than before in bursts. Each has some twenty turns: loops of
 * tool calls within a second of each other, pauses of a reader between them, now and then a second
 * request at the same time (a sidecar). The context begins with some thousand tokens and grows by
 * tool results. Servers: four of four slots; a slot prefills what the server's cache lacks, then
 * decodes; the cache keeps the contexts used latest. One server prefills and decodes at a third of
 * the others' speed.
 *
 * Everything is decided by the seed: two runs print the same.
 */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/decide.h"

#define SERVERS	       4
#define SLOTS	       4
#define CACHE_TOKENS   600000
#define PREFILL_TPS    4000.0
#define DECODE_TPS     60.0
#define SLOW	       3.0 /* how much slower the last server is */
#define SESSIONS_MAX_N 8192
#define REQUESTS_MAX   400000
#define REVIEW_MS      50
#define TOKEN_BYTES    GUARD_TOKEN_BYTES

struct policy {
	const char *name;
	enum placement placement;
	enum guard_busy busy;
	bool slots; /* known to the balancer */
	bool costs; /* the guard is told what it observes */
	bool pins;
	uint32_t abs, rel_milli;
};

static const struct policy policies[] = {
	{"round robin", PLACEMENT_ROUND_ROBIN, GUARD_STICK, false, false, false, 0, 0},
	{"least in flight, no affinity", PLACEMENT_LEAST_INFLIGHT, GUARD_STICK, false, false, false,
	 0, 0},
	{"rendezvous hash", PLACEMENT_HASH, GUARD_STICK, false, false, true, 0, 0},
	{"pins, never left", PLACEMENT_BALANCED, GUARD_STICK, true, false, true, 0, 0},
	{"pins, thresholds abs 2, rel 1.5", PLACEMENT_BALANCED, GUARD_STICK, false, false, true, 2,
	 1500},
	{"pins, any idle slot, costs ignored", PLACEMENT_BALANCED, GUARD_PREFER_IDLE, true, false,
	 true, 0, 0},
	{"prefer_owning_slot_with_wait", PLACEMENT_BALANCED, GUARD_PREFER_OWNER, true, true, true,
	 0, 0},
	{"prefer_idle_slot (default)", PLACEMENT_BALANCED, GUARD_PREFER_IDLE, true, true, true, 0,
	 0},
};

#define POLICIES (sizeof(policies) / sizeof(policies[0]))
#define LOADS	 3

struct agent {
	uint64_t id;
	uint32_t context, turns_left, loop_left, turn;
	bool sidecar;
};

struct request {
	uint32_t agent, old, fresh, decode, turn;
	double arrived, sent;
	uint32_t server, cold_ms;
	double due; /* end of the wait that was expected when it began */
	bool waited, go, queued, counted, first_here, over, done;
};

struct server {
	double slow;
	uint32_t inflight, running;
	uint32_t engine[4096], engine_at, engine_nr; /* sent, and queued by the engine: a ring */
	uint32_t queue[4096], queue_nr;		     /* wait in the balancer, in order */
	uint32_t exchange_ms;
	uint64_t rate;
	uint32_t cached[SESSIONS_MAX_N];
	double used[SESSIONS_MAX_N];
	uint64_t total;
};

enum event_kind { ARRIVE, FIRST_TOKEN, DONE, DEADLINE, REVIEW, AGENT };

struct event {
	double at;
	uint64_t order; /* of events at one time */
	uint32_t kind, what;
};

static struct world {
	const struct policy *p;
	double now, end, rate; /* agents per second */
	uint64_t seed, order;
	struct event heap[REQUESTS_MAX * 4];
	uint32_t nr_events;
	struct agent agent[SESSIONS_MAX_N];
	struct request request[REQUESTS_MAX];
	uint32_t nr_agents, nr_requests;
	struct server server[SERVERS];
	struct session_table *sessions;
	uint64_t turn;
	bool reviewing;
	double *ttft;
	uint32_t nr_ttft, moves, refused;
	uint64_t recomputed;
} w;

/* ---- chance ---- */

static double chance(void)
{
	uint64_t z = (w.seed += 0x9e3779b97f4a7c15ULL);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return ((double)((z ^ (z >> 31)) >> 11) + 0.5) * 0x1p-53;
}

static double between(double least, double most)
{
	return least + (most - least) * chance();
}

static double after(double mean)
{
	return -mean * log(chance());
}

/* ---- events ---- */

static bool event_before(const struct event *a, const struct event *b)
{
	return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void event_add(double at, enum event_kind kind, uint32_t what)
{
	struct event e = {.at = at, .order = w.order++, .kind = kind, .what = what};
	uint32_t i = w.nr_events++;

	if (w.nr_events == sizeof(w.heap) / sizeof(w.heap[0]))
		abort();
	for (; i && event_before(&e, &w.heap[(i - 1) / 2]); i = (i - 1) / 2)
		w.heap[i] = w.heap[(i - 1) / 2];
	w.heap[i] = e;
}

static struct event event_take(void)
{
	struct event first = w.heap[0], last = w.heap[--w.nr_events];
	uint32_t i = 0, child;

	while ((child = 2 * i + 1) < w.nr_events) {
		if (child + 1 < w.nr_events && event_before(&w.heap[child + 1], &w.heap[child]))
			child++;
		if (!event_before(&w.heap[child], &last))
			break;
		w.heap[i] = w.heap[child];
		i = child;
	}
	w.heap[i] = last;
	return first;
}

/* ---- servers ---- */

static void cache_put(struct server *s, uint32_t agent, uint32_t tokens)
{
	s->total = s->total - s->cached[agent] + tokens;
	s->cached[agent] = tokens;
	s->used[agent] = w.now;
	while (s->total > CACHE_TOKENS) {
		uint32_t oldest = UINT32_MAX;

		for (uint32_t i = 0; i < w.nr_agents; i++)
			if (s->cached[i] && i != agent &&
			    (oldest == UINT32_MAX || s->used[i] < s->used[oldest]))
				oldest = i;
		if (oldest == UINT32_MAX)
			return;
		s->total -= s->cached[oldest];
		s->cached[oldest] = 0;
	}
}

/* A slot of the server takes the request. */
static void server_begin(struct server *s, uint32_t index)
{
	struct request *r = &w.request[index];
	uint32_t hit = s->cached[r->agent] < r->old ? s->cached[r->agent] : r->old;
	double prefill = (r->old - hit + r->fresh) / (PREFILL_TPS / s->slow) + 0.02;

	s->running++;
	if (r->turn)
		w.recomputed += r->old - hit;
	cache_put(s, r->agent, r->old + r->fresh + r->decode);
	event_add(w.now + prefill, FIRST_TOKEN, index);
	event_add(w.now + prefill + r->decode / (DECODE_TPS / s->slow), DONE, index);
}

static void server_send(uint32_t index, uint32_t to)
{
	struct server *s = &w.server[to];
	struct request *r = &w.request[index];

	r->server = to;
	r->sent = w.now;
	r->over = s->running >= SLOTS;
	if (!r->over)
		server_begin(s, index);
	else
		s->engine[(s->engine_at + s->engine_nr++) % 4096] = index;
}

/* ---- the balancer ---- */

static void queue_remove(uint32_t index)
{
	struct server *s = &w.server[w.request[index].server];
	uint32_t i = 0;

	while (s->queue[i] != index)
		i++;
	memmove(&s->queue[i], &s->queue[i + 1], (--s->queue_nr - i) * sizeof(s->queue[0]));
	w.request[index].queued = false;
}

static uint32_t queue_ahead(const struct server *s, uint32_t index)
{
	uint32_t i = 0;

	while (i < s->queue_nr && s->queue[i] != index)
		i++;
	return i;
}

static uint32_t queue_cheapest(const struct server *s, uint32_t but)
{
	uint32_t best = UINT32_MAX;

	for (uint32_t i = 0; i < s->queue_nr; i++)
		if (s->queue[i] != but && !w.request[s->queue[i]].go &&
		    (best == UINT32_MAX ||
		     w.request[s->queue[i]].cold_ms < w.request[best].cold_ms))
			best = s->queue[i];
	return best;
}

static void view(struct decide_input *in, uint32_t index)
{
	in->nr_views = SERVERS;
	for (uint32_t i = 0; i < SERVERS; i++) {
		struct server *s = &w.server[i];
		uint32_t cheapest = queue_cheapest(s, index);

		in->view[i] = (struct backend_view){
			.id = i,
			.state = BACKEND_UP,
			.weight = 1,
			.inflight = s->inflight,
			.sessions = session_count(w.sessions, i),
			.name_hash = 1000 + i,
			.slots = w.p->slots ? SLOTS : 0,
			.queued = w.request[index].queued && w.request[index].server == i
					  ? queue_ahead(s, index)
					  : s->queue_nr,
			.cheapest_ms = cheapest == UINT32_MAX ? GUARD_UNKNOWN
							      : w.request[cheapest].cold_ms,
			.exchange_ms = w.p->costs ? s->exchange_ms : 0,
			.rate = w.p->costs ? s->rate : 0,
		};
	}
}

static void agent_next(uint32_t agent);

static void choose(uint32_t index)
{
	static struct decide_input in;
	static struct kvpin_decision d;
	struct request *r = &w.request[index];
	struct config config;
	struct session_txn txn;
	bool known, displace;
	uint32_t cheapest;

	config_defaults(&config);
	config.placement = w.p->placement;
	config.guard.busy = w.p->busy;
	config.guard.abs = w.p->abs;
	config.guard.rel_milli = w.p->rel_milli;
	in = (struct decide_input){.keyed = w.p->pins, .session = w.agent[r->agent].id};
	decide_configure(&in, &config);
	in.guard.context = (uint64_t)(r->old + r->fresh) * TOKEN_BYTES;
	in.guard.waited = r->waited;
	in.guard.go = r->go;
	in.guard.late_ms = r->queued && w.now > r->due ? (uint32_t)((w.now - r->due) * 1000) : 0;
	known = session_begin(w.sessions, in.session, (uint64_t)(w.now * 1000), &txn);
	in.pin = known ? txn.session.backend : SESSION_NO_BACKEND;
	if (!in.keyed || in.placement == PLACEMENT_ROUND_ROBIN)
		in.turn = w.turn++;
	view(&in, index);
	decide(&in, &d);

	displace = d.guard == GUARD_DISPLACE;
	if (d.guard == GUARD_REFUSE) {
		session_abort(&txn);
		if (r->queued)
			queue_remove(index);
		w.refused++;
		r->done = true;
		agent_next(r->agent);
		return;
	}
	if (known && txn.session.backend != d.backend)
		w.moves++;
	r->first_here = !known || txn.session.backend != d.backend || r->first_here;
	txn.again = r->counted;
	r->counted = true;
	session_commit(&txn, d.backend);
	if (d.guard == GUARD_WAIT || displace) {
		if (r->queued && r->server == d.backend)
			return;
		if (r->queued)
			queue_remove(index);
		r->server = d.backend;
		r->cold_ms = GUARD_UNKNOWN;
		for (uint32_t i = 0; i < d.nr_candidates; i++)
			if (d.candidate[i].id == d.backend)
				r->cold_ms = d.candidate[i].cold_ms;
		r->due = w.now + (d.stay_ms == GUARD_UNKNOWN ? 0 : d.stay_ms / 1000.0);
		r->queued = true;
		w.server[d.backend].queue[w.server[d.backend].queue_nr++] = index;
		event_add(r->arrived + config.guard.wait_ms / 1000.0, DEADLINE, index);
		if (!w.reviewing)
			event_add(w.now + REVIEW_MS / 1000.0, REVIEW, 0);
		w.reviewing = true;
		cheapest = displace ? queue_cheapest(&w.server[d.backend], index) : UINT32_MAX;
		if (cheapest != UINT32_MAX) {
			w.request[cheapest].go = true;
			choose(cheapest);
		}
		return;
	}
	if (r->queued)
		queue_remove(index);
	w.server[d.backend].inflight++;
	server_send(index, d.backend);
}

static int cold_cmp(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;
	uint32_t i = w.request[*x].cold_ms, k = w.request[*y].cold_ms;

	return i != k ? (i > k) - (i < k) : (*x > *y) - (*x < *y);
}

static void review(void)
{
	static uint32_t all[SERVERS * 4096];
	uint32_t nr = 0;

	for (uint32_t i = 0; i < SERVERS; i++)
		for (uint32_t k = 0; k < w.server[i].queue_nr; k++)
			all[nr++] = w.server[i].queue[k];
	qsort(all, nr, sizeof(all[0]), cold_cmp);
	for (uint32_t i = 0; i < nr; i++)
		if (w.request[all[i]].queued)
			choose(all[i]);
	w.reviewing = nr;
	if (nr)
		event_add(w.now + REVIEW_MS / 1000.0, REVIEW, 0);
}

/* ---- what happens ---- */

static void request_new(uint32_t agent, double at)
{
	struct agent *a = &w.agent[agent];
	struct request *r = &w.request[w.nr_requests];

	if (w.nr_requests == REQUESTS_MAX)
		abort();
	*r = (struct request){
		.agent = agent,
		.old = a->turn ? a->context : 0,
		/* The first turn is the system prompt and the task; then tool results, small or
		   large. */
		.fresh = (uint32_t)(a->turn ? chance() < 0.1 ? between(3000, 9000)
							     : between(100, 1200)
					    : between(3000, 9000)),
		.decode = (uint32_t)between(30, 250),
		.turn = a->turn,
		.arrived = at,
	};
	event_add(at, ARRIVE, w.nr_requests++);
}

/* The agent's next turn: at once within a loop of tools, after a pause between two. */
static void agent_next(uint32_t agent)
{
	struct agent *a = &w.agent[agent];
	double pause;

	if (!a->turns_left || w.now > w.end)
		return;
	a->turns_left--;
	a->turn++;
	pause = a->loop_left ? between(0.1, 1.0) : 5 + after(25);
	a->loop_left = a->loop_left ? a->loop_left - 1 : (uint32_t)between(2, 7);
	request_new(agent, w.now + pause);
	/* A sidecar: the same context at the same time, and no turn of its own. */
	a->sidecar = chance() < 0.05;
}

static void agent_new(void)
{
	struct agent *a = &w.agent[w.nr_agents];
	/* A burst every five minutes: four times as many for half a minute. */
	double rate = fmod(w.now, 300) < 30 ? 4 * w.rate : w.rate;

	if (w.now > w.end || w.nr_agents == SESSIONS_MAX_N)
		return;
	*a = (struct agent){.id = (w.nr_agents + 1) * 0x9e3779b97f4a7c15ULL,
			    .turns_left = 5 + (uint32_t)after(15),
			    .loop_left = 3};
	request_new(w.nr_agents++, w.now);
	event_add(w.now + after(1 / rate), AGENT, 0);
}

static void first_token(uint32_t index)
{
	struct request *r = &w.request[index];
	struct server *s = &w.server[r->server];
	uint64_t sample = guard_rate_sample((uint64_t)(r->old + r->fresh) * TOKEN_BYTES,
					    (uint64_t)((w.now - r->sent) * 1e9));

	if (r->turn)
		w.ttft[w.nr_ttft++] = w.now - r->arrived;
	if (r->first_here && !r->over && sample)
		s->rate = guard_ewma(s->rate, sample);
}

static void request_done(uint32_t index)
{
	struct request *r = &w.request[index];
	struct server *s = &w.server[r->server];
	struct agent *a = &w.agent[r->agent];
	bool sidecar = r->decode == 1;

	s->exchange_ms =
		(uint32_t)guard_ewma(s->exchange_ms, 1 + (uint64_t)((w.now - r->sent) * 1000));
	s->running--;
	s->inflight--;
	r->done = true;
	if (s->engine_nr) {
		uint32_t next = s->engine[s->engine_at];

		s->engine_at = (s->engine_at + 1) % 4096;
		s->engine_nr--;
		server_begin(s, next);
	}
	while (s->queue_nr && s->inflight < SLOTS) {
		uint32_t next = s->queue[0];

		queue_remove(next);
		s->inflight++;
		server_send(next, (uint32_t)(s - w.server));
	}
	if (sidecar)
		return;
	a->context = r->old + r->fresh + r->decode;
	agent_next(r->agent);
	if (a->sidecar && a->turns_left) {
		uint32_t extra = w.nr_requests;

		a->sidecar = false;
		request_new(r->agent, w.request[extra - 1].arrived + 0.05);
		w.request[extra].decode = 1;
		w.request[extra].fresh = 200;
	}
}

static void deadline(uint32_t index)
{
	if (!w.request[index].queued)
		return;
	w.request[index].waited = true;
	choose(index);
}

/* ---- runs ---- */

struct result {
	double mean, p50, p90, p99;
	double moves, recomputed, refused, turns;
};

static int double_cmp(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static struct result run(const struct policy *p, uint64_t seed, double load, double minutes,
			 bool slow)
{
	double *ttft = w.ttft, sum = 0;
	struct result r;

	memset(&w, 0, sizeof(w));
	w.ttft = ttft;
	w.p = p;
	w.seed = seed;
	w.end = minutes * 60;
	w.rate = load;
	w.sessions = session_table_new(65536, 24 * 3600 * 1000, 7);
	for (uint32_t i = 0; i < SERVERS; i++)
		w.server[i].slow = slow && i == SERVERS - 1 ? SLOW : 1;
	event_add(0, AGENT, 0);
	while (w.nr_events) {
		struct event e = event_take();

		w.now = e.at;
		switch (e.kind) {
		case ARRIVE:
			choose(e.what);
			break;
		case FIRST_TOKEN:
			first_token(e.what);
			break;
		case DONE:
			request_done(e.what);
			break;
		case DEADLINE:
			deadline(e.what);
			break;
		case REVIEW:
			review();
			break;
		default:
			agent_new();
		}
	}
	session_table_free(w.sessions);
	qsort(w.ttft, w.nr_ttft, sizeof(w.ttft[0]), double_cmp);
	for (uint32_t i = 0; i < w.nr_ttft; i++)
		sum += w.ttft[i];
	r = (struct result){
		.mean = sum / w.nr_ttft,
		.p50 = w.ttft[w.nr_ttft / 2],
		.p90 = w.ttft[w.nr_ttft * 9 / 10],
		.p99 = w.ttft[w.nr_ttft * 99 / 100],
		.moves = w.moves,
		.recomputed = (double)w.recomputed,
		.refused = w.refused,
		.turns = w.nr_ttft,
	};
	return r;
}

static void result_add(struct result *to, const struct result *one, double share)
{
	to->mean += one->mean * share;
	to->p50 += one->p50 * share;
	to->p90 += one->p90 * share;
	to->p99 += one->p99 * share;
	to->moves += one->moves / one->turns * 1000 * share;
	to->recomputed += one->recomputed / one->turns * share;
	to->refused += one->refused / one->turns * 1000 * share;
	to->turns += one->turns * share;
}

static double mean_of[LOADS][POLICIES], p90_of[LOADS][POLICIES];

static const struct {
	const char *name;
	double agents_per_s;
	bool slow;
} loads[LOADS] = {
	{"light", 0.06, false},
	{"busy", 0.13, false},
	{"busy, one server at a third of the speed", 0.10, true},
};

/* One load: a table, or lines of JSON. */
static void load_run(size_t l, double seeds, double minutes, bool json)
{
	struct result all;

	if (!json)
		printf("%s%s\n\n| policy | TTFT mean, s | p50 | p90 | p99 | moves per 1,000 turns "
		       "| "
		       "tokens recomputed per turn | refused per 1,000 |\n"
		       "|---|---|---|---|---|---|---|---|\n",
		       l ? "\n" : "", loads[l].name);
	for (size_t p = 0; p < POLICIES; p++) {
		all = (struct result){0};
		for (int s = 0; s < seeds; s++) {
			struct result one = run(&policies[p], 1000 + (uint64_t)s,
						loads[l].agents_per_s, minutes, loads[l].slow);

			result_add(&all, &one, 1 / seeds);
		}
		mean_of[l][p] = all.mean;
		p90_of[l][p] = all.p90;
		if (json)
			printf("{\"load\":\"%s\",\"policy\":\"%s\",\"mean_s\":%.4f,\"p50_s\":%.4f,"
			       "\"p90_s\":%.4f,\"p99_s\":%.4f,\"moves_per_1000\":%.2f,"
			       "\"recomputed_per_turn\":%.1f,\"refused_per_1000\":%.2f,"
			       "\"turns\":%.0f}\n",
			       loads[l].name, policies[p].name, all.mean, all.p50, all.p90, all.p99,
			       all.moves, all.recomputed, all.refused, all.turns);
		else
			printf("| %s | %.2f | %.2f | %.2f | %.2f | %.0f | %.0f | %.1f |\n",
			       policies[p].name, all.mean, all.p50, all.p90, all.p99, all.moves,
			       all.recomputed, all.refused);
	}
}

static double worst_of(double of[LOADS][POLICIES], size_t policy)
{
	double worst = 0;

	for (size_t l = 0; l < LOADS; l++) {
		double best = INFINITY;

		for (size_t p = 0; p < POLICIES; p++)
			best = fmin(best, of[l][p]);
		worst = fmax(worst, of[l][policy] / best);
	}
	return worst;
}

/* The default is the last policy; the one before it decides alike where all costs are known. */
static bool default_is_best(void)
{
	double its = fmax(worst_of(mean_of, POLICIES - 1), worst_of(p90_of, POLICIES - 1));

	for (size_t p = 0; p + 1 < POLICIES; p++)
		if (fmax(worst_of(mean_of, p), worst_of(p90_of, p)) < its)
			return false;
	return true;
}

int main(int argc, char **argv)
{
	double minutes = 60, seeds = 5;
	bool json = false, check = false;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--json"))
			json = true;
		else if (!strcmp(argv[i], "--check"))
			check = true;
		else if (!strcmp(argv[i], "--seeds") && i + 1 < argc)
			seeds = atof(argv[++i]);
		else if (!strcmp(argv[i], "--minutes") && i + 1 < argc)
			minutes = atof(argv[++i]);
		else
			return fprintf(stderr,
				       "usage: kvpin-policies [--json] [--check] [--seeds N] "
				       "[--minutes N]\n"),
			       2;
	}
	w.ttft = malloc(REQUESTS_MAX * sizeof(*w.ttft));
	for (size_t l = 0; l < LOADS; l++)
		load_run(l, seeds, minutes, json);
	free(w.ttft);
	if (!check || default_is_best())
		return 0;
	fprintf(stderr, "the default is not the best all-rounder\n");
	return 1;
}
