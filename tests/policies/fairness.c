/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How evenly sessions spread: kvpin's placements, by the real decide() and the real table of pins,
 * beside the hashes of other proxies, each written from its documentation: rendezvous hashing
 * (Caddy's lb_policy header, of today: the highest XXH64 of server and key; 2.6 takes a 32-bit
 * FNV), a ring of 160 CRC-32 points per server (nginx's hash ... consistent), and the key's hash
 * modulo the number of servers (HAProxy's map-based default). Keys are UUIDs. `scripts/bench
 * fairness --real` counts the same of the real programs.
 *
 *   kvpin-fairness [--check]
 *
 * Each figure is the fullest server's sessions over the mean, averaged over sets of keys. --check:
 * exit status 1 unless `balanced` is within one session of even.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "core/decide.h"

#define SERVERS_MAX_N 8
#define RING_POINTS   160

static const uint32_t sessions_nr[] = {16, 200, 100000};
static const uint32_t servers_nr[] = {2, 4, 8};

enum way { BALANCED, HASH, RENDEZVOUS, RING, MODULO, WAY_NR };

static const char *const way_names[WAY_NR] = {"kvpin balanced", "kvpin hash", "rendezvous",
					      "ring of 160 points", "modulo"};

static uint32_t crc32_more(uint32_t crc, const void *data, size_t bytes)
{
	for (const uint8_t *at = data; bytes--; at++) {
		crc ^= *at;
		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320U : 0);
	}
	return crc;
}

/* A UUID for each session of each set, from SplitMix64. */
static void session_key(uint32_t set, uint32_t s, char *key)
{
	uint64_t half[2];

	for (uint64_t i = 0; i < 2; i++) {
		uint64_t z = ((uint64_t)set << 32 | s) * 2 + i + 1;

		z *= 0x9e3779b97f4a7c15ULL;
		z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
		z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
		half[i] = z ^ (z >> 31);
	}
	sprintf(key, "%08x-%04x-4%03x-%04x-%012llx", (uint32_t)(half[0] >> 32),
		(uint32_t)(half[0] >> 16) & 0xffff, (uint32_t)half[0] & 0xfff,
		0x8000 | ((uint32_t)(half[1] >> 48) & 0x3fff),
		(unsigned long long)(half[1] & 0xffffffffffffULL));
}

struct point {
	uint32_t at, server;
};

static int point_cmp(const void *a, const void *b)
{
	const struct point *x = a, *y = b;

	return (x->at > y->at) - (x->at < y->at);
}

static void server_name(uint32_t server, char *name)
{
	sprintf(name, "10.0.0.%u:8080", 10 + server);
}

static void spread_kvpin(enum placement placement, uint32_t nr, uint32_t servers, uint32_t set,
			 uint32_t *load)
{
	static struct decide_input in;
	static struct kvpin_decision d;
	struct session_table *t = session_table_new(2 * nr + 8192, 3600000, 5);
	char key[64], name[32];

	in = (struct decide_input){.keyed = true, .placement = placement, .nr_views = servers};
	for (uint32_t i = 0; i < servers; i++) {
		server_name(i, name);
		in.view[i] = (struct backend_view){.id = i,
						   .state = BACKEND_UP,
						   .weight = 1,
						   .name_hash = XXH64(name, strlen(name), 0)};
	}
	for (uint32_t s = 0; s < nr; s++) {
		struct session_txn txn;

		session_key(set, s, key);
		in.session = XXH64(key, strlen(key), 0);
		session_begin(t, in.session, 1, &txn);
		in.pin = SESSION_NO_BACKEND;
		for (uint32_t i = 0; i < servers; i++)
			in.view[i].sessions = session_count(t, i);
		decide(&in, &d);
		session_commit(&txn, d.backend);
		load[d.backend]++;
	}
	session_table_free(t);
}

/* As ngx_http_upstream_init_chash() makes them: host, a zero, port, the point before. */
static void ring_points(uint32_t server, struct point *ring)
{
	uint32_t base, before = 0;
	char name[32], *port;

	server_name(server, name);
	port = strchr(name, ':');
	*port++ = '\0';
	base = crc32_more(~0U, name, strlen(name) + 1);
	base = crc32_more(base, port, strlen(port));
	for (uint32_t p = 0; p < RING_POINTS; p++) {
		before = ~crc32_more(base, &before, sizeof(before));
		ring[p] = (struct point){before, server};
	}
}

static uint32_t ring_find(const struct point *ring, uint32_t nr, uint32_t at)
{
	uint32_t low = 0, high = nr;

	while (low < high) {
		uint32_t mid = (low + high) / 2;

		if (ring[mid].at < at)
			low = mid + 1;
		else
			high = mid;
	}
	return ring[low % nr].server;
}

static void spread_hash(enum way way, uint32_t nr, uint32_t servers, uint32_t set, uint32_t *load)
{
	static struct point ring[SERVERS_MAX_N * RING_POINTS];
	char key[64], name[32], text[128];

	for (uint32_t i = 0; i < servers; i++)
		ring_points(i, &ring[i * RING_POINTS]);
	qsort(ring, servers * RING_POINTS, sizeof(ring[0]), point_cmp);
	for (uint32_t s = 0; s < nr; s++) {
		uint64_t best = 0;
		uint32_t to = 0;

		session_key(set, s, key);
		if (way == MODULO) {
			to = XXH64(key, strlen(key), 0) % servers;
		} else if (way == RING) {
			to = ring_find(ring, servers * RING_POINTS,
				       ~crc32_more(~0U, key, strlen(key)));
		} else {
			for (uint32_t i = 0; i < servers; i++) {
				uint64_t score;

				server_name(i, name);
				sprintf(text, "%s%s", name, key);
				score = XXH64(text, strlen(text), 0);
				if (!i || score > best) {
					best = score;
					to = i;
				}
			}
		}
		load[to]++;
	}
}

/* The fullest server's sessions over the mean. */
static double skew(enum way way, uint32_t nr, uint32_t servers, uint32_t set)
{
	uint32_t load[SERVERS_MAX_N] = {0}, most = 0;

	if (way == BALANCED || way == HASH)
		spread_kvpin(way == HASH ? PLACEMENT_HASH : PLACEMENT_BALANCED, nr, servers, set,
			     load);
	else
		spread_hash(way, nr, servers, set, load);
	for (uint32_t i = 0; i < servers; i++)
		most = load[i] > most ? load[i] : most;
	return (double)most * servers / nr;
}

int main(int argc, char **argv)
{
	bool check = argc == 2 && !strcmp(argv[1], "--check"), even = true;

	if (argc > 2 || (argc == 2 && !check)) {
		fprintf(stderr, "usage: kvpin-fairness [--check]\n");
		return 2;
	}
	printf("| sessions on servers |");
	for (int way = 0; way < WAY_NR; way++)
		printf(" %s |", way_names[way]);
	printf("\n|---|---|---|---|---|---|\n");
	for (size_t n = 0; n < sizeof(sessions_nr) / sizeof(sessions_nr[0]); n++)
		for (size_t k = 0; k < sizeof(servers_nr) / sizeof(servers_nr[0]); k++) {
			uint32_t nr = sessions_nr[n], servers = servers_nr[k];
			uint32_t sets = nr > 10000 ? 2 : 200;

			printf("| %u on %u |", nr, servers);
			for (int way = 0; way < WAY_NR; way++) {
				double sum = 0;

				for (uint32_t set = 0; set < sets; set++) {
					double one = skew(way, nr, servers, set);

					sum += one;
					even &= way != BALANCED || one <= 1 + (double)servers / nr;
				}
				printf(" %.2f |", sum / sets);
			}
			printf("\n");
		}
	if (check && !even)
		fprintf(stderr, "balanced is not even\n");
	return check && !even;
}
