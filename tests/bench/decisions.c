/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What one decision costs, without a network: with few and with a million pins, and prefix lookups
 * in an index of few and of a million nodes. Prints one line a figure; measures and never judges.
 *
 * Keys come in random order, so that a large table is as cold in the caches as traffic makes it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/body_scan.h"
#include "core/decide.h"
#include "kvpin_key.h"

#define SERVERS 8
#define ROUNDS	7
#define BATCH	100000
#define TTL_MS	3600000

static struct backend_table backends;
static struct decide_input in;
static struct kvpin_decision out;

static double now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

/* A random number that depends on i only. */
static uint64_t mixed(uint64_t i)
{
	return XXH64(&i, sizeof(i), 99);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The median over rounds of @one, @batch times each, with a running number that never repeats. */
static double measure(void (*one)(void *arg, uint64_t i), void *arg, uint32_t batch)
{
	double round[ROUNDS], begin;
	static uint64_t i;

	for (int r = 0; r < ROUNDS; r++) {
		begin = now_ns();
		for (uint32_t n = 0; n < batch; n++)
			one(arg, i++);
		round[r] = (now_ns() - begin) / batch;
	}
	qsort(round, ROUNDS, sizeof(round[0]), by_value);
	return round[ROUNDS / 2];
}

static void servers_begin(const struct session_table *sessions)
{
	struct config *c = malloc(sizeof(*c));
	char text[ADDR_TEXT_MAX];
	const char *why;

	if (!c)
		abort();
	config_defaults(c);
	c->nr_backends = SERVERS;
	for (uint32_t i = 0; i < SERVERS; i++) {
		c->backend[i] = (struct backend_config){.weight = 1};
		snprintf(c->backend[i].name, sizeof(c->backend[i].name), "gpu%u", i);
		snprintf(text, sizeof(text), "10.0.0.%u:80", i + 1);
		addr_parse(text, &c->backend[i].addr, &why);
	}
	backend_table_init(&backends, NULL);
	backend_table_apply(&backends, c, sessions, 0);
	free(c);
}

/* ---- pins ---- */

struct pins {
	struct session_table *sessions;
	uint32_t nr;
};

/* All that dispatch does for a request of session @id, but for the lock on placements. */
static void request(struct pins *p, uint64_t id)
{
	struct session_txn txn;

	in.keyed = true;
	in.session = id;
	in.pin = SESSION_NO_BACKEND;
	in.prefix.windows = 0;
	if (session_begin(p->sessions, id, 1, &txn))
		in.pin = txn.session.backend;
	decide_view(&in, &backends, p->sessions, 1);
	decide(&in, &out);
	session_commit(&txn, out.backend);
}

static void pinned(void *arg, uint64_t i)
{
	struct pins *p = arg;

	request(p, mixed(mixed(i) % p->nr));
}

static void bench_pins(uint32_t nr)
{
	struct pins p = {.sessions = session_table_new(nr + nr / 8 + 8192, TTL_MS, 5), .nr = nr};

	if (!p.sessions)
		abort();
	servers_begin(p.sessions);
	for (uint64_t i = 0; i < nr; i++)
		request(&p, mixed(i));
	printf("decision, %7u pins:  %5.0f ns  (look up, decide, commit; %u pins are there)\n", nr,
	       measure(pinned, &p, BATCH), session_total(p.sessions));
	session_table_free(p.sessions);
}

/* ---- prefixes ---- */

struct nodes {
	struct prefix_index *index;
	uint32_t sessions, windows;
	uint32_t generation[BACKENDS_MAX];
	uint64_t chain[PREFIX_WINDOWS_MAX];
};

static void chain_make(struct nodes *n, uint64_t session)
{
	uint64_t at = mixed(session);

	/* Not the cost that is to be measured: one multiplication a window. */
	for (uint32_t i = 0; i < n->windows; i++)
		n->chain[i] = (at += 0x9e3779b97f4a7c15ULL);
}

static void chain_only(void *arg, uint64_t i)
{
	struct nodes *n = arg;

	chain_make(n, mixed(i) % n->sessions);
	__asm__ volatile("" : : "r"(n->chain) : "memory");
}

static void looked_up(void *arg, uint64_t i)
{
	struct nodes *n = arg;

	chain_only(arg, i);
	prefix_lookup(n->index, n->chain, n->windows, n->generation, 8, 1, &in.prefix);
	if (!in.prefix.depth[0] && !in.prefix.depth[1] && !in.prefix.depth[2])
		abort();
}

static void inserted(void *arg, uint64_t i)
{
	struct nodes *n = arg;

	chain_only(arg, i);
	prefix_insert(n->index, n->chain, n->windows, i % 3, 0, 1);
}

static void bench_nodes(uint32_t nr, uint32_t windows)
{
	struct nodes n = {.sessions = nr / windows, .windows = windows};
	uint32_t batch = BATCH / 10;
	double made;

	n.index = prefix_index_new(nr + 1024, TTL_MS, 5);
	if (!n.index)
		abort();
	for (uint64_t i = 0; i < n.sessions; i++) {
		chain_make(&n, i);
		prefix_insert(n.index, n.chain, windows, i % 3, 0, 1);
	}
	made = measure(chain_only, &n, batch);
	printf("prefix,   %7u nodes: %5.0f ns look up, %5.0f ns insert  (%u windows; %u nodes)\n",
	       nr, measure(looked_up, &n, batch) - made, measure(inserted, &n, batch) - made,
	       windows, prefix_count(n.index));
	prefix_index_free(n.index);
}

/* ---- the body ---- */

static char body[64 * 1024];
static size_t body_len;

static void scanned(void *arg, uint64_t i)
{
	static const struct key_source keys[] = {{.kind = KEY_PREFIX}};
	static struct body_chain chain;
	struct body_scan *s = body_scan_new(keys, 1, 64);

	if (!s)
		abort();
	body_scan_feed(s, (const uint8_t *)body, body_len);
	body_scan_chain(s, 64, &chain);
	if (chain.nr != 64)
		abort();
	free(s);
}

static void bench_body(void)
{
	body_len = snprintf(body, sizeof(body), "{\"model\":\"m\",\"messages\":[");
	while (body_len < sizeof(body) - 600)
		body_len +=
			snprintf(body + body_len, sizeof(body) - body_len,
				 "{\"role\":\"user\",\"content\":\"%0500d\\n\"},", (int)body_len);
	printf("body, 64 windows:         %5.0f ns  (scan, canonical form, chain of 16 KiB)\n",
	       measure(scanned, NULL, BATCH / 50));
}

int main(void)
{
	bench_pins(1000);
	bench_pins(1000000);
	bench_nodes(1000, 8);
	bench_nodes(1000000, 8);
	bench_nodes(1024, 64);
	bench_nodes(1000000, 64);
	bench_body();
	return 0;
}
