/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The health checker against small real servers on loopback: good ones, loading ones, hanging,
 * slow, refusing and IPv6 ones. The balancer is a fake that holds a table of servers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "core/session.h"
#include "ops/health.h"

#define INTERVAL_MS 40
#define TIMEOUT_MS  400
#define PATIENCE_MS 3000
#define SERVERS	    4
#define STAMPS	    16

enum manner {
	ANSWER,
	HANG,	/* reads the request and never answers */
	DROP,	/* closes without an answer */
	GARBAGE /* answers something else than HTTP */
};

/* One server: a thread that takes one connection after another. */
struct server {
	pthread_t thread;
	struct addr addr;
	int fd;
	atomic_bool stop;
	atomic_int manner;
	atomic_int status;
	atomic_int slow_ms; /* for the next answer only */
	atomic_uint requests;
	atomic_uint connections;
	atomic_ulong stamp_ms[STAMPS]; /* when the first requests came */
	char target[256];	       /* of the latest request; read after the server's stop */
	int hung[64];
	unsigned int nr_hung;
};

static struct world {
	struct balancer b;
	struct config *c;
	pthread_rwlock_t lock;
	struct health *health;
	struct server server[SERVERS];
	unsigned int nr_servers;
} w;

uint64_t balancer_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

const struct config *balancer_config(const struct balancer *b)
{
	return atomic_load(&b->config);
}

static void server_answer(struct server *s, int fd)
{
	char head[2048], answer[256];
	size_t len = 0;
	unsigned int n;
	ssize_t got;
	int slow_ms, bytes;

	do {
		got = read(fd, head + len, sizeof(head) - 1 - len);
		if (got <= 0)
			goto out;
		len += got;
		head[len] = '\0';
	} while (!strstr(head, "\r\n\r\n"));
	sscanf(head, "GET %255s HTTP/1.1\r\n", s->target);
	n = atomic_fetch_add(&s->requests, 1);
	if (n < STAMPS)
		atomic_store(&s->stamp_ms[n], balancer_now_ms());
	slow_ms = atomic_exchange(&s->slow_ms, 0);
	usleep(slow_ms * 1000);
	switch (atomic_load(&s->manner)) {
	case HANG:
		if (s->nr_hung < 64)
			s->hung[s->nr_hung++] = fd;
		return;
	case GARBAGE:
		bytes = snprintf(answer, sizeof(answer), "SSH-2.0-nothing\r\n");
		break;
	case DROP:
		goto out;
	default:
		bytes = snprintf(answer, sizeof(answer),
				 "HTTP/1.1 %d Whatever\r\nContent-Length: 2\r\n\r\nok",
				 atomic_load(&s->status));
	}
	/* The checker may be gone after its timeout. */
	send(fd, answer, bytes, MSG_NOSIGNAL);
out:
	close(fd);
}

static void *server_thread(void *arg)
{
	struct server *s = arg;
	int fd;

	while (!atomic_load(&s->stop)) {
		struct pollfd p = {.fd = s->fd, .events = POLLIN};

		if (poll(&p, 1, 5) <= 0)
			continue;
		fd = accept(s->fd, NULL, NULL);
		if (fd < 0)
			continue;
		atomic_fetch_add(&s->connections, 1);
		server_answer(s, fd);
	}
	return NULL;
}

static struct server *server_start(const char *address)
{
	struct server *s = &w.server[w.nr_servers];
	const char *why;

	memset(s, 0, sizeof(*s));
	assert_int_equal(addr_parse(address, &s->addr, &why), 0);
	s->fd = socket(s->addr.sa.sa_family, SOCK_STREAM, 0);
	if (s->fd < 0 || bind(s->fd, &s->addr.sa, s->addr.len) || listen(s->fd, 16)) {
		close(s->fd);
		return NULL;
	}
	s->addr.len = sizeof(s->addr.in6);
	getsockname(s->fd, &s->addr.sa, &s->addr.len);
	atomic_store(&s->status, 200);
	w.nr_servers++;
	assert_int_equal(pthread_create(&s->thread, NULL, server_thread, s), 0);
	return s;
}

static void server_stop(struct server *s)
{
	if (s->fd < 0)
		return;
	atomic_store(&s->stop, true);
	pthread_join(s->thread, NULL);
	close(s->fd);
	s->fd = -1;
	for (unsigned int i = 0; i < s->nr_hung; i++)
		close(s->hung[i]);
}

static struct config *config_new(void)
{
	struct config *c = calloc(1, sizeof(*c));

	config_defaults(c);
	strcpy(c->health.path, "/health");
	c->health.interval_ms = INTERVAL_MS;
	c->health.timeout_ms = TIMEOUT_MS;
	c->health.rise = 2;
	c->health.fall = 3;
	return c;
}

static void config_add(struct config *c, const struct addr *addr)
{
	struct backend_config *bc = &c->backend[c->nr_backends];

	snprintf(bc->name, sizeof(bc->name), "gpu%u", c->nr_backends++);
	bc->addr = *addr;
	bc->weight = 1;
}

/* As the main thread does it; the old configuration goes at once. */
static void publish(struct config *c)
{
	struct config *old;

	pthread_rwlock_wrlock(&w.lock);
	assert_int_equal(backend_table_apply(&w.b.backends, c, w.b.sessions, balancer_now_ms()), 0);
	old = w.c;
	w.c = c;
	atomic_store(&w.b.config, c);
	pthread_rwlock_unlock(&w.lock);
	free(old);
}

static void start(struct config *c)
{
	char why[128];

	publish(c);
	w.health = health_start(&w.b, &w.lock, why, sizeof(why));
	assert_non_null(w.health);
}

static int setup(void **state)
{
	memset(&w, 0, sizeof(w));
	log_setup(getenv("VERBOSE") ? LOG_DEBUG : LOG_ERROR, LOG_LOGFMT);
	backend_table_init(&w.b.backends, NULL);
	w.b.sessions = session_table_new(10, 1000, 1);
	pthread_rwlock_init(&w.lock, NULL);
	return 0;
}

static int teardown(void **state)
{
	health_stop(w.health);
	for (unsigned int i = 0; i < w.nr_servers; i++)
		server_stop(&w.server[i]);
	session_table_free(w.b.sessions);
	free(w.c);
	pthread_rwlock_destroy(&w.lock);
	return 0;
}

static enum backend_state state_of(uint32_t slot)
{
	return atomic_load(&w.b.backends.slot[slot].state);
}

static void sleep_ms(unsigned int ms)
{
	usleep(ms * 1000);
}

static void wait_state(uint32_t slot, enum backend_state state)
{
	uint64_t end_ms = balancer_now_ms() + PATIENCE_MS;

	while (state_of(slot) != state && balancer_now_ms() < end_ms)
		sleep_ms(2);
	assert_string_equal(backend_state_names[state_of(slot)], backend_state_names[state]);
}

static void wait_requests(const struct server *s, unsigned int nr)
{
	uint64_t end_ms = balancer_now_ms() + PATIENCE_MS;

	while (atomic_load(&s->requests) < nr && balancer_now_ms() < end_ms)
		sleep_ms(2);
	assert_true(atomic_load(&s->requests) >= nr);
}

static void a_good_server_stays_up(void **state)
{
	struct server *s = server_start("127.0.0.1:0");
	struct config *c = config_new();

	strcpy(c->health.path, "/health?deep=1");
	config_add(c, &s->addr);
	start(c);
	wait_requests(s, 4);
	assert_int_equal(state_of(0), BACKEND_UP);
	/* Each check proves that the server accepts: no connection is used twice. */
	assert_int_equal(atomic_load(&s->requests), atomic_load(&s->connections));
	server_stop(s);
	assert_string_equal(s->target, "/health?deep=1");
}

static void a_loading_server_is_down_until_it_has_loaded(void **state)
{
	struct server *s = server_start("127.0.0.1:0");
	struct config *c = config_new();
	unsigned int before;

	atomic_store(&s->status, 503);
	c->health.fall = 100; /* takes longer than is waited: the first check decides alone */
	config_add(c, &s->addr);
	start(c);
	wait_state(0, BACKEND_DOWN);
	assert_int_equal(atomic_load(&w.b.backends.slot[0].cause), BACKEND_CAUSE_CHECK);
	before = atomic_load(&s->requests);
	atomic_store(&s->status, 200);
	wait_state(0, BACKEND_UP);
	/* One that was counted before may have been answered after. */
	assert_true(atomic_load(&s->requests) >= before + c->health.rise - 1);
}

static void only_2xx_is_up(void **state)
{
	static const struct {
		int status;
		enum backend_state state;
	} cases[] = {
		{204, BACKEND_UP},   {299, BACKEND_UP},	  {301, BACKEND_DOWN},
		{404, BACKEND_DOWN}, {500, BACKEND_DOWN},
	};
	struct server *s = server_start("127.0.0.1:0");
	struct config *c;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		/* Forgets the server, so that a first check decides alone again. */
		w.health ? publish(config_new()) : start(config_new());
		health_reload(w.health);
		sleep_ms(INTERVAL_MS);
		atomic_store(&s->status, cases[i].status);
		atomic_store(&s->requests, 0);
		c = config_new();
		config_add(c, &s->addr);
		publish(c);
		health_reload(w.health);
		wait_requests(s, 2);
		assert_int_equal(state_of(0), cases[i].state);
	}
}

static void a_server_goes_down_after_fall_failures(void **state)
{
	struct server *s = server_start("127.0.0.1:0");
	struct config *c = config_new();
	unsigned int before;

	c->health.fall = 4;
	config_add(c, &s->addr);
	start(c);
	wait_requests(s, 2);
	before = atomic_load(&s->requests);
	atomic_store(&s->status, 503);
	wait_state(0, BACKEND_DOWN);
	/* One that was counted before may have been answered after. */
	assert_true(atomic_load(&s->requests) >= before + 3);
}

static void a_refused_connection_is_down(void **state)
{
	struct server *s = server_start("127.0.0.1:0");
	struct config *c = config_new();

	config_add(c, &s->addr);
	start(c);
	wait_requests(s, 1);
	server_stop(s);
	wait_state(0, BACKEND_DOWN);
}

static void a_hanging_server_is_down(void **state)
{
	struct server *s = server_start("127.0.0.1:0");
	struct config *c = config_new();

	atomic_store(&s->manner, HANG);
	config_add(c, &s->addr);
	start(c);
	wait_state(0, BACKEND_DOWN);
	atomic_store(&s->manner, ANSWER);
	wait_state(0, BACKEND_UP);
}

static void no_answer_and_garbage_are_down(void **state)
{
	struct server *drop = server_start("127.0.0.1:0"), *garbage = server_start("127.0.0.1:0");
	struct config *c = config_new();

	atomic_store(&drop->manner, DROP);
	atomic_store(&garbage->manner, GARBAGE);
	config_add(c, &drop->addr);
	config_add(c, &garbage->addr);
	start(c);
	wait_state(0, BACKEND_DOWN);
	wait_state(1, BACKEND_DOWN);
}

/* A long prefill delays one answer: fall counts, so nothing happens. */
static void one_slow_answer_does_not_take_a_server_down(void **state)
{
	struct server *s = server_start("127.0.0.1:0");
	struct config *c = config_new();
	unsigned int before;

	config_add(c, &s->addr);
	start(c);
	wait_requests(s, 2);
	before = atomic_load(&s->requests);
	atomic_store(&s->slow_ms, TIMEOUT_MS + 50);
	for (int i = 0; i < 200 && atomic_load(&s->requests) < before + 4; i++) {
		assert_int_equal(state_of(0), BACKEND_UP);
		sleep_ms(10);
	}
	assert_int_equal(atomic_load(&s->slow_ms), 0);
	assert_int_equal(state_of(0), BACKEND_UP);
}

static void checks_ipv6_servers(void **state)
{
	struct server *s = server_start("[::1]:0");
	struct config *c = config_new();

	if (!s) {
		free(c);
		print_message("SKIP: no IPv6 loopback\n");
		skip();
	}
	config_add(c, &s->addr);
	start(c);
	wait_requests(s, 2);
	assert_int_equal(state_of(0), BACKEND_UP);
}

static void one_hanging_server_does_not_delay_the_others(void **state)
{
	struct server *bad = server_start("127.0.0.1:0"), *good = server_start("127.0.0.1:0");
	struct config *c = config_new();

	c->health.timeout_ms = 2000;
	atomic_store(&bad->manner, HANG);
	config_add(c, &bad->addr);
	config_add(c, &good->addr);
	start(c);
	wait_requests(bad, 1);
	wait_requests(good, 5);
	assert_int_equal(atomic_load(&bad->requests), 1);
}

static void checks_can_be_switched_off_and_on(void **state)
{
	struct server *s = server_start("127.0.0.1:0");
	struct config *c = config_new();
	unsigned int before;

	c->health.path[0] = '\0';
	config_add(c, &s->addr);
	start(c);
	sleep_ms(3 * INTERVAL_MS);
	assert_int_equal(atomic_load(&s->requests), 0);

	c = config_new();
	config_add(c, &s->addr);
	publish(c);
	health_reload(w.health);
	wait_requests(s, 2);

	c = config_new();
	config_add(c, &s->addr);
	c->health.interval_ms = 0;
	publish(c);
	health_reload(w.health);
	sleep_ms(INTERVAL_MS);
	before = atomic_load(&s->requests);
	sleep_ms(3 * INTERVAL_MS);
	assert_int_equal(atomic_load(&s->requests), before);
}

static void a_reload_changes_who_is_checked(void **state)
{
	struct server *old = server_start("127.0.0.1:0"), *new = server_start("127.0.0.1:0");
	struct config *c = config_new();
	unsigned int before;

	config_add(c, &old->addr);
	start(c);
	wait_requests(old, 1);
	atomic_store(&new->status, 503);
	c = config_new();
	config_add(c, &new->addr);
	publish(c);
	health_reload(w.health);
	wait_requests(new, 2);
	before = atomic_load(&old->requests);
	sleep_ms(3 * INTERVAL_MS);
	assert_int_equal(atomic_load(&old->requests), before);
	assert_int_equal(state_of(0), BACKEND_REMOVED);
	wait_state(1, BACKEND_DOWN);
}

/* The answer to a check that was begun before the slot got another server is nobody's. */
static void a_late_result_does_not_hit_the_slots_next_server(void **state)
{
	struct server *slow = server_start("127.0.0.1:0"), *good = server_start("127.0.0.1:0");
	struct config *c = config_new();

	c->health.interval_ms = 10000;
	c->health.timeout_ms = 5000;
	atomic_store(&slow->status, 503);
	atomic_store(&slow->slow_ms, 150);
	config_add(c, &slow->addr);
	start(c);
	wait_requests(slow, 1);
	publish(config_new()); /* and the checker is not told */
	c = config_new();
	c->health.interval_ms = 10000;
	c->health.timeout_ms = 5000;
	config_add(c, &good->addr);
	publish(c);
	assert_true(addr_equal(&w.b.backends.slot[0].addr, &good->addr));
	sleep_ms(250);
	assert_int_equal(state_of(0), BACKEND_UP);
	assert_int_equal(atomic_load(&w.b.backends.slot[0].bad), 0);
}

static void checks_are_spread_over_the_interval(void **state)
{
	struct config *c = config_new();
	unsigned long a, b, gap;

	c->health.interval_ms = 400;
	for (int i = 0; i < SERVERS; i++)
		config_add(c, &server_start("127.0.0.1:0")->addr);
	start(c);
	for (int i = 0; i < SERVERS; i++)
		wait_requests(&w.server[i], 3);
	for (int i = 0; i < SERVERS; i++) {
		/* The first comes at once, and an interval lies between the later ones. */
		a = atomic_load(&w.server[i].stamp_ms[1]);
		b = atomic_load(&w.server[i].stamp_ms[2]);
		assert_in_range(b - a, 350, 1000);
		for (int k = 0; k < i; k++) {
			gap = atomic_load(&w.server[k].stamp_ms[2]) + 4000 - b;
			assert_false(gap > 3975 && gap < 4025);
		}
	}
}

static void stops_at_once_while_checks_hang(void **state)
{
	struct server *s = server_start("127.0.0.1:0");
	struct config *c = config_new();
	uint64_t before_ms;

	c->health.timeout_ms = 60000;
	atomic_store(&s->manner, HANG);
	config_add(c, &s->addr);
	start(c);
	wait_requests(s, 1);
	before_ms = balancer_now_ms();
	health_reload(w.health);
	health_stop(w.health);
	w.health = NULL;
	assert_true(balancer_now_ms() - before_ms < 5000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(a_good_server_stays_up),
		TEST(a_loading_server_is_down_until_it_has_loaded),
		TEST(only_2xx_is_up),
		TEST(a_server_goes_down_after_fall_failures),
		TEST(a_refused_connection_is_down),
		TEST(a_hanging_server_is_down),
		TEST(no_answer_and_garbage_are_down),
		TEST(one_slow_answer_does_not_take_a_server_down),
		TEST(checks_ipv6_servers),
		TEST(one_hanging_server_does_not_delay_the_others),
		TEST(checks_can_be_switched_off_and_on),
		TEST(a_reload_changes_who_is_checked),
		TEST(a_late_result_does_not_hit_the_slots_next_server),
		TEST(checks_are_spread_over_the_interval),
		TEST(stops_at_once_while_checks_hang),
	};

	/* Must not matter. */
	setenv("http_proxy", "http://127.0.0.1:1", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
