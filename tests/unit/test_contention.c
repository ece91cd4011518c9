/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Threads that dispatch at once, as workers do, over one table of pins and one of servers: a slot
 * is never given twice, a session never has two servers, and every count returns to zero. Also run
 * under ThreadSanitizer (scripts/check).
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/decide.h"
#include "core/pressure.h"

#define THREADS	 8
#define ROUNDS	 20000
#define SESSIONS 4096
#define SERVERS	 4
#define SLOTS	 2

static struct backend_table backends;
static struct session_table *sessions;
static struct pressure pressure;
static pthread_mutex_t placing = PTHREAD_MUTEX_INITIALIZER;
static _Atomic uint32_t owner[SESSIONS]; /* 1 + server that the first dispatch chose; 0: none yet */
static _Atomic uint32_t crowded, torn, taken, refused;

static uint64_t next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static uint64_t id_of(uint32_t session)
{
	return (session + 1) * 0x9e3779b97f4a7c15ULL;
}

/* One request that sticks to its server: sent when there is a slot, else given up. */
static void dispatch(struct decide_input *in, struct kvpin_decision *d, uint32_t session)
{
	struct session_txn txn;
	struct backend *b;
	bool sent;

	in->keyed = true;
	in->session = id_of(session);
	in->pin = SESSION_NO_BACKEND;
	if (session_begin(sessions, in->session, 1000, &txn))
		in->pin = txn.session.backend;
	pthread_mutex_lock(&placing);
	decide_view(in, &backends, sessions, 1000);
	decide(in, d);
	b = &backends.slot[d->backend];
	sent = backend_take(b);
	if (sent && backend_inflight(b) > SLOTS)
		crowded++;
	session_commit(&txn, d->backend);
	pthread_mutex_unlock(&placing);
	if (sent) {
		uint32_t none = 0;

		if (!atomic_compare_exchange_strong(&owner[session], &none, d->backend + 1) &&
		    none != d->backend + 1)
			torn++;
		taken++;
		session_note(sessions, in->session, d->backend, GUARD_TURN_WARM, 4096, 5);
		backend_inflight_add(b, -1);
	} else {
		refused++;
		pressure_add(&pressure, 1000);
	}
}

static void *thread(void *arg)
{
	struct decide_input *in = calloc(1, sizeof(*in));
	struct kvpin_decision *d = calloc(1, sizeof(*d));
	uint64_t seed = 88172645463325252ULL + (uintptr_t)arg;

	in->guard.busy = GUARD_STICK;
	for (uint32_t i = 0; i < ROUNDS; i++)
		dispatch(in, d, (uint32_t)(next(&seed) % SESSIONS));
	free(in);
	free(d);
	return NULL;
}

/* The kernel programs take and give slots without any lock. */
static void *kernel(void *arg)
{
	for (uint32_t i = 0; i < ROUNDS; i++) {
		struct backend *b = &backends.slot[i % SERVERS];

		if (!backend_take(b))
			continue;
		if (backend_inflight(b) > SLOTS)
			crowded++;
		backend_inflight_add(b, -1);
	}
	return NULL;
}

static void slots_are_given_once_and_sessions_have_one_server(void **state)
{
	struct config *c = calloc(1, sizeof(*c));
	uint32_t turns = 0, nr, at;
	uint64_t cursor = 0;
	struct session *list = calloc(SESSIONS, sizeof(*list));
	pthread_t t[THREADS + 1];

	config_defaults(c);
	for (uint32_t i = 0; i < SERVERS; i++) {
		struct backend_config *bc = &c->backend[c->nr_backends++];
		char text[32];
		const char *why;

		snprintf(bc->name, sizeof(bc->name), "gpu%u", i);
		snprintf(text, sizeof(text), "127.0.0.1:%u", 9000 + i);
		assert_int_equal(addr_parse(text, &bc->addr, &why), 0);
		bc->weight = 1;
		bc->slots = SLOTS;
	}
	sessions = session_table_new(2 * SESSIONS, 3600000, 42);
	backend_table_init(&backends, NULL);
	pressure_init(&pressure);
	assert_int_equal(backend_table_apply(&backends, c, sessions, 1), 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&t[i], NULL, thread, (void *)(i + 1));
	pthread_create(&t[THREADS], NULL, kernel, NULL);
	for (int i = 0; i <= THREADS; i++)
		pthread_join(t[i], NULL);

	assert_int_equal(crowded, 0);
	assert_int_equal(torn, 0);
	assert_int_equal(taken + refused, THREADS * ROUNDS);
	assert_true(taken > THREADS * ROUNDS / 10);
	for (uint32_t i = 0; i < SERVERS; i++)
		assert_int_equal(backend_inflight(&backends.slot[i]), 0);
	nr = session_list(sessions, 1000, &cursor, list, SESSIONS);
	for (at = 0; at < nr; at++)
		turns += list[at].turns;
	assert_int_equal(turns, THREADS * ROUNDS);
	assert_int_equal(pressure_get(&pressure, 1000, NULL), refused);
	session_table_free(sessions);
	pressure_fini(&pressure);
	free(list);
	free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slots_are_given_once_and_sessions_have_one_server),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
