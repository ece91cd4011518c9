/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The exporter over loopback: pages, probes, addresses. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "curl_case.h"
#include "metrics_case.h"

static struct answer ask(const struct metrics *m, const char *method, const char *path)
{
	struct addr addr = metrics_addr(m);
	char url[256], text[ADDR_TEXT_MAX];
	CURL *easy = curl_easy_init();

	snprintf(url, sizeof(url), "http://%s%s", addr_format(&addr, text), path);
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	if (!strcmp(method, "HEAD"))
		curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
	else
		curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
	if (!strcmp(method, "POST"))
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, "some=thing");
	return curl_case_ask(easy);
}

static void assert_answer(const struct metrics *m, const char *method, const char *path,
			  long status, const char *body)
{
	struct answer a = ask(m, method, path);

	assert_int_equal(a.status, status);
	if (body)
		assert_string_equal(a.body ? a.body : "", body);
	free(a.body);
}

static struct metrics *start(const char *address)
{
	struct addr addr = addr_of(address);
	struct metrics *m;
	char why[256];

	m = metrics_open(&addr, why, sizeof(why));
	if (!m) {
		print_message("%s\n", why);
		return NULL;
	}
	assert_int_equal(metrics_serve(m, &w.b, &w.base, &w.lock, why, sizeof(why)), 0);
	return m;
}

static void serves_metrics_and_probes(void **state)
{
	struct metrics *m = start("127.0.0.1:0");
	struct answer a;

	assert_non_null(m);
	fill();
	a = ask(m, "GET", "/metrics");
	assert_int_equal(a.status, 200);
	assert_string_equal(a.type, "text/plain; version=0.0.4; charset=utf-8");
	assert_line(a.body, "kvpin_backend_up{backend=\"gpu0\"} 1");
	assert_int_equal(count(a.body, "\nprocess_"), 4);
	free(a.body);
	assert_answer(m, "HEAD", "/metrics", 200, "");
	assert_answer(m, "GET", "/healthz", 200, "ok\n");
	assert_answer(m, "HEAD", "/healthz", 200, "");
	assert_answer(m, "GET", "/nothing", 404, NULL);
	assert_answer(m, "POST", "/metrics", 405, NULL);
	metrics_stop(m);
}

static void ready_only_while_a_server_can_take_a_request(void **state)
{
	struct metrics *m = start("127.0.0.1:0");

	assert_non_null(m);
	assert_answer(m, "GET", "/readyz", 200, "ready\n");
	atomic_store(&w.b.backends.slot[0].weight, 0);
	assert_answer(m, "GET", "/readyz", 200, "ready\n");
	atomic_store(&w.b.backends.slot[1].state, BACKEND_DOWN);
	assert_answer(m, "GET", "/readyz", 503, "no server is up\n");
	atomic_store(&w.b.backends.slot[0].weight, 1);
	assert_answer(m, "GET", "/readyz", 200, "ready\n");
	/* A new request would be told that there is no server. */
	backend_drain(&w.b.backends.slot[0], UINT64_MAX, 60000);
	assert_answer(m, "GET", "/readyz", 503, "every server that is up is being drained\n");
	backend_undrain(&w.b.backends.slot[0]);
	assert_answer(m, "GET", "/readyz", 200, "ready\n");
	atomic_store(&w.b.draining, true);
	assert_answer(m, "GET", "/readyz", 503, "draining\n");
	assert_answer(m, "GET", "/healthz", 200, NULL);
	atomic_store(&w.b.draining, false);
	w.c.nr_backends = 0;
	apply();
	assert_answer(m, "GET", "/readyz", 503, "no server is configured\n");
	metrics_stop(m);
}

/* Only a request finds out that a server is back that nobody checks; and who asks here first, and
 * sends none to a kvpin that is not ready, would never send one again. */
static void ready_when_an_unchecked_server_may_be_tried_again(void **state)
{
	struct metrics *m = start("127.0.0.1:0");

	assert_non_null(m);
	w.c.health.interval_ms = 0;
	w.c.nr_backends = 1;
	apply();
	atomic_store(&w.b.backends.slot[0].state, BACKEND_DOWN);
	atomic_store(&w.b.backends.slot[0].retry_ms, UINT64_MAX);
	assert_answer(m, "GET", "/readyz", 503, "no server is up\n");
	atomic_store(&w.b.backends.slot[0].retry_ms, balancer_now_ms());
	assert_answer(m, "GET", "/readyz", 200, "ready\n");
	metrics_stop(m);
}

static void serves_over_ipv6(void **state)
{
	struct metrics *m = start("[::1]:0");

	if (!m) {
		print_message("SKIP: no IPv6 loopback\n");
		skip();
	}
	assert_answer(m, "GET", "/healthz", 200, "ok\n");
	metrics_stop(m);
}

static void an_address_in_use_is_named(void **state)
{
	struct metrics *m = start("127.0.0.1:0");
	struct addr addr = metrics_addr(m);
	char why[256], text[ADDR_TEXT_MAX];

	assert_null(metrics_open(&addr, why, sizeof(why)));
	assert_non_null(strstr(why, addr_format(&addr, text)));
	assert_non_null(strstr(why, "in use"));
	metrics_stop(m);
}

static void a_listener_that_never_served_can_be_stopped(void **state)
{
	struct addr addr = addr_of("127.0.0.1:0");
	char why[256];

	metrics_stop(metrics_open(&addr, why, sizeof(why)));
}

struct writer {
	pthread_t thread;
	struct worker_stats *stats;
	atomic_bool stop;
};

static void *write_counters(void *arg)
{
	struct writer *writer = arg;

	while (!atomic_load(&writer->stop)) {
		stat_add(&writer->stats->backend[0].requests[0][OUTCOME_OK], 1);
		hist_add(&writer->stats->backend[0].ttft[TURN_LATER], &hist_ttft_bounds, 6000000);
	}
	return NULL;
}

/* For ThreadSanitizer: workers count and the main thread reloads while a page is made. */
static void pages_are_made_while_all_changes(void **state)
{
	struct writer writer[WORKERS] = {0};
	struct metrics *m = start("127.0.0.1:0");

	assert_non_null(m);
	for (int i = 0; i < WORKERS; i++) {
		writer[i].stats = &w.stats[i];
		pthread_create(&writer[i].thread, NULL, write_counters, &writer[i]);
	}
	for (int i = 0; i < 20; i++) {
		assert_answer(m, "GET", "/metrics", 200, NULL);
		pthread_rwlock_wrlock(&w.lock);
		w.c.nr_backends = 1;
		if (i % 2)
			config_add(i % 4 == 1 ? "gpu1" : "gpu2", "127.0.0.1:8082");
		apply();
		pthread_rwlock_unlock(&w.lock);
	}
	for (int i = 0; i < WORKERS; i++) {
		atomic_store(&writer[i].stop, true);
		pthread_join(writer[i].thread, NULL);
	}
	metrics_stop(m);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(serves_metrics_and_probes),
		TEST(ready_only_while_a_server_can_take_a_request),
		TEST(ready_when_an_unchecked_server_may_be_tried_again),
		TEST(serves_over_ipv6),
		TEST(an_address_in_use_is_named),
		TEST(a_listener_that_never_served_can_be_stopped),
		TEST(pages_are_made_while_all_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
