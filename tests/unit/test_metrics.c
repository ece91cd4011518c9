/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The exporter: its page against counters set by hand, promtool's opinion of the page, and the
 * HTTP side over loopback. The balancer is a fake.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <curl/curl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/decide.h"
#include "fake_balancer.h"
#include "ops/metrics.h"

static struct metrics_kernel kernel; /* what the programs would have counted */

uint64_t balancer_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void apply(void)
{
	metrics_base_set(&w.base, &w.b, &kernel);
	assert_int_equal(backend_table_apply(&w.b.backends, &w.c, w.b.sessions, 1000), 0);
}

static int setup(void **state)
{
	world_init(1000, 60000);
	memset(&kernel, 0, sizeof(kernel));
	config_add("gpu0", "127.0.0.1:8081");
	config_add("gpu1", "127.0.0.1:8082");
	apply();
	return 0;
}

static int teardown(void **state)
{
	world_fini();
	return 0;
}

/* The page, to be freed. */
static char *render(void)
{
	struct metrics_sum *sum = test_malloc(sizeof(*sum));
	char *text = NULL;
	size_t bytes;
	FILE *out = open_memstream(&text, &bytes);

	metrics_sum_of(sum, &w.b, &w.base, &kernel);
	metrics_render(&w.b, sum, out);
	test_free(sum);
	assert_int_equal(fclose(out), 0);
	return text;
}

static uint64_t requests(uint32_t slot, enum stat_path path)
{
	struct metrics_sum *sum = test_malloc(sizeof(*sum));
	uint64_t n;

	metrics_sum_of(sum, &w.b, &w.base, &kernel);
	n = metrics_requests(sum, slot, path);
	test_free(sum);
	return n;
}

static unsigned int count(const char *text, const char *what)
{
	unsigned int n = 0;

	for (const char *s = text; (s = strstr(s, what)); s++)
		n++;
	return n;
}

static void assert_line(const char *page, const char *line)
{
	char needle[512];

	snprintf(needle, sizeof(needle), "\n%s\n", line);
	if (!strstr(page, needle))
		fail_msg("missing: %s\nin\n%s", line, page);
}

static void fill(void)
{
	struct backend_stats *s0 = &w.stats[0].backend[0], *s1 = &w.stats[1].backend[0];
	struct session_txn txn;

	stat_add(&s0->requests[STAT_PATH_RELAY][OUTCOME_OK], 40);
	stat_add(&s1->requests[STAT_PATH_RELAY][OUTCOME_OK], 2);
	stat_add(&s1->requests[STAT_PATH_RELAY][OUTCOME_TRUNCATED], 1);
	stat_add(&w.stats[1].backend[STAT_NO_BACKEND].requests[STAT_PATH_RELAY][OUTCOME_NO_SERVER],
		 3);
	stat_add(&s0->bytes_up[STAT_PATH_RELAY], 1000);
	stat_add(&s0->bytes_down[STAT_PATH_RELAY], 5000000000);
	stat_add(&s1->connects, 7);
	stat_add(&s1->reuses, 35);
	stat_add(&s0->resends, 1);
	hist_add(&s0->ttft[TURN_FIRST], &hist_ttft_bounds, 4000000);
	hist_add(&s1->ttft[TURN_FIRST], &hist_ttft_bounds, 7000000);
	hist_add(&s1->ttft[TURN_FIRST], &hist_ttft_bounds, 500000000000);
	hist_add(&s1->token_gap, &hist_token_gap_bounds, 30000000);
	stat_add(&w.stats[0].moves[DECIDE_MOVED_DOWN], 5);
	stat_add(&w.stats[0].moves[DECIDE_PINNED], 99);
	stat_add(&w.stats[0].keyless[MISSING_BALANCE], 11);
	stat_add(&w.stats[1].long_keys, 12);
	stat_add(&w.stats[1].repeated_keys, 13);
	stat_add(&w.stats[0].http_errors[KVPIN_HTTP_BARE_LF], 14);
	stat_add(&w.stats[0].accepted, 15);
	stat_add(&w.stats[1].accepted, 15);
	stat_add(&w.stats[1].accept_pauses, 16);
	atomic_store(&w.b.connections, 17);
	atomic_store(&w.b.reloads, 18);
	w.b.backends.slot[0].shared->inflight = 3;
	backend_report_failure(&w.b.backends, &w.b.backends.slot[1], BACKEND_CAUSE_REFUSED, 2000);
	session_begin(w.b.sessions, 77, 1000, &txn);
	session_commit(&txn, 0);
}

static void sums_all_workers(void **state)
{
	char *page;

	fill();
	page = render();
	assert_line(page,
		    "kvpin_requests_total{backend=\"gpu0\",path=\"relay\",outcome=\"ok\"} 42");
	assert_line(
		page,
		"kvpin_requests_total{backend=\"gpu0\",path=\"relay\",outcome=\"truncated\"} 1");
	assert_line(page,
		    "kvpin_requests_total{backend=\"\",path=\"relay\",outcome=\"no_server\"} 3");
	assert_line(page, "kvpin_backend_up{backend=\"gpu0\"} 1");
	assert_line(page, "kvpin_backend_up{backend=\"gpu1\"} 0");
	assert_line(page, "kvpin_backend_inflight{backend=\"gpu0\"} 3");
	assert_line(page, "kvpin_backend_slots{backend=\"gpu1\"} 4");
	assert_line(page, "kvpin_sessions{backend=\"gpu0\"} 1");
	assert_line(page, "kvpin_bytes_total{backend=\"gpu0\",direction=\"to_server\","
			  "path=\"relay\"} 1000");
	assert_line(page, "kvpin_bytes_total{backend=\"gpu0\",direction=\"to_client\","
			  "path=\"relay\"} 5000000000");
	assert_line(page, "kvpin_upstream_connects_total{backend=\"gpu0\"} 7");
	assert_line(page, "kvpin_upstream_reuses_total{backend=\"gpu0\"} 35");
	assert_line(page, "kvpin_resends_total{backend=\"gpu0\"} 1");
	assert_line(page, "kvpin_session_moves_total{reason=\"moved_down\"} 5");
	assert_line(page, "kvpin_session_moves_total{reason=\"moved_failed\"} 0");
	assert_int_equal(count(page, "reason=\"pinned\""), 0);
	assert_line(page, "kvpin_keyless_requests_total{fallback=\"balance\"} 11");
	assert_line(page, "kvpin_long_keys_total 12");
	assert_line(page, "kvpin_repeated_keys_total 13");
	assert_line(page, "kvpin_http_errors_total{reason=\"bare_lf\"} 14");
	assert_int_equal(count(page, "reason=\"none\""), 0);
	assert_line(page, "kvpin_connections_accepted_total 30");
	assert_line(page, "kvpin_accept_pauses_total 16");
	assert_line(page, "kvpin_connections 17");
	assert_line(page, "kvpin_config_reloads_total 18");
	assert_line(page, "kvpin_session_evictions_total 0");
	assert_line(page, "kvpin_build_info{version=\"" KVPIN_VERSION "\"} 1");
	free(page);
}

/* gpu0 has slot 0; relayed and steered requests of it are in fill() and here. */
static void fill_kernel(void)
{
	struct kvpin_counters *k = &kernel.backend[0];

	kernel.available = true;
	kernel.queued = 4096;
	kernel.refused[KVPIN_REFUSED_NO_PIN] = 20;
	kernel.refused[KVPIN_REFUSED_BUDGET] = 3;
	k->requests = 500;
	k->bytes_up = 70000;
	k->bytes_down = 80000;
	k->ttft[0] = 400;
	k->ttft_sum_ns = 1000000000;
	k->ttft_first[1] = 1; /* over 5 ms */
	k->ttft_first[KVPIN_HIST_BUCKETS - 1] = 2;
	k->ttft_first_sum_ns = 250000000000;
	k->gap[2] = 9; /* over 2 ms */
	k->gap_sum_ns = 27000000;
	stat_add(&w.stats[1].refused[KVPIN_REFUSED_BUDGET], 4);
	stat_add(&w.stats[1].refused[KVPIN_REFUSED_NOT_ESTABLISHED], 5);
	stat_add(&w.stats[0].handed_over, 30);
	stat_add(&w.stats[1].handed_over, 1);
	stat_add(&w.stats[0].reclaimed, 29);
}

static void the_kernels_counters_are_added(void **state)
{
	char *page;

	fill();
	fill_kernel();
	page = render();
#define GPU0 "{backend=\"gpu0\","
	assert_line(page, "kvpin_requests_total" GPU0 "path=\"steer\",outcome=\"ok\"} 500");
	assert_line(page, "kvpin_requests_total" GPU0 "path=\"relay\",outcome=\"ok\"} 42");
	assert_line(page, "kvpin_bytes_total" GPU0 "direction=\"to_server\",path=\"steer\"} 70000");
	assert_line(page, "kvpin_bytes_total" GPU0 "direction=\"to_client\",path=\"steer\"} 80000");
	assert_line(page, "kvpin_bytes_total" GPU0 "direction=\"to_server\",path=\"relay\"} 1000");
	assert_line(page, "kvpin_ttft_seconds_bucket" GPU0 "turn=\"later\",le=\"0.005\"} 400");
	assert_line(page, "kvpin_ttft_seconds_sum" GPU0 "turn=\"later\"} 1.000000000");
	/* The workers' 4 ms, 7 ms and 500 s, and the kernel's. */
	assert_line(page, "kvpin_ttft_seconds_bucket" GPU0 "turn=\"first\",le=\"0.005\"} 1");
	assert_line(page, "kvpin_ttft_seconds_bucket" GPU0 "turn=\"first\",le=\"0.01\"} 3");
	assert_line(page, "kvpin_ttft_seconds_bucket" GPU0 "turn=\"first\",le=\"120\"} 3");
	assert_line(page, "kvpin_ttft_seconds_count" GPU0 "turn=\"first\"} 6");
	assert_line(page, "kvpin_ttft_seconds_sum" GPU0 "turn=\"first\"} 750.011000000");
	assert_line(page, "kvpin_token_gap_seconds_bucket" GPU0 "le=\"0.002\"} 0");
	assert_line(page, "kvpin_token_gap_seconds_bucket" GPU0 "le=\"0.004\"} 9");
	assert_line(page, "kvpin_token_gap_seconds_count{backend=\"gpu0\"} 10");
	assert_line(page, "kvpin_token_gap_seconds_sum{backend=\"gpu0\"} 0.057000000");
	assert_line(page, "kvpin_token_gap_seconds_count{backend=\"gpu1\"} 0");
	free(page);
	assert_int_equal(requests(0, STAT_PATH_STEER), 500);
	assert_int_equal(requests(1, STAT_PATH_STEER), 0);
}

static void paths_say_what_they_did_not_take(void **state)
{
	char *page = render();

#define REFUSED "kvpin_path_refused_total{path=\"steer\",reason="
	assert_line(page, "kvpin_path_available{path=\"relay\"} 1");
	assert_line(page, "kvpin_path_available{path=\"steer\"} 0");
	assert_line(page, "kvpin_path_handovers_total{path=\"steer\",direction=\"over\"} 0");
	assert_line(page, REFUSED "\"no_pin\"} 0");
	assert_line(page, "kvpin_steer_queued_bytes 0");
	assert_int_equal(count(page, REFUSED "\"none\""), 0);
	free(page);
	fill_kernel();
	page = render();
	assert_line(page, "kvpin_path_available{path=\"relay\"} 1");
	assert_line(page, "kvpin_path_available{path=\"steer\"} 1");
	assert_line(page, "kvpin_path_handovers_total{path=\"steer\",direction=\"over\"} 31");
	assert_line(page, "kvpin_path_handovers_total{path=\"steer\",direction=\"back\"} 29");
	assert_line(page, REFUSED "\"no_pin\"} 20");
	assert_line(page, REFUSED "\"budget\"} 7"); /* by the kernel, and by the daemon */
	assert_line(page, REFUSED "\"not_established\"} 5");
	assert_line(page, "kvpin_steer_queued_bytes 4096");
	free(page);
	kernel.queued = -1; /* in the middle of a give and take */
	page = render();
	assert_line(page, "kvpin_steer_queued_bytes 0");
	free(page);
}

static void histogram_buckets_are_cumulative(void **state)
{
	char *page;

	fill();
	page = render();
#define TTFT(series, rest) "kvpin_ttft_seconds_" series "{backend=\"gpu0\",turn=\"first\"" rest
	assert_line(page, TTFT("bucket", ",le=\"0.005\"} 1"));
	assert_line(page, TTFT("bucket", ",le=\"0.01\"} 2"));
	assert_line(page, TTFT("bucket", ",le=\"120\"} 2"));
	assert_line(page, TTFT("bucket", ",le=\"+Inf\"} 3"));
	assert_line(page, TTFT("sum", "} 500.011000000"));
	assert_line(page, TTFT("count", "} 3"));
	assert_line(page, "kvpin_token_gap_seconds_bucket{backend=\"gpu0\",le=\"0.025\"} 0");
	assert_line(page, "kvpin_token_gap_seconds_bucket{backend=\"gpu0\",le=\"0.03\"} 1");
	assert_line(page, "kvpin_token_gap_seconds_count{backend=\"gpu0\"} 1");
	free(page);
}

static void every_series_is_there_from_the_start(void **state)
{
	char *page = render(), *line, *rest = page;

	assert_int_equal(count(page, "kvpin_requests_total{"), 3 * STAT_PATH_NR * OUTCOME_NR);
	assert_int_equal(count(page, "kvpin_ttft_seconds_count{"), 4);
	assert_int_equal(count(page, "kvpin_token_gap_seconds_count{"), 2);
	assert_int_equal(count(page, "kvpin_http_errors_total{"), KVPIN_HTTP_NR - 1);
	assert_int_equal(count(page, "kvpin_session_moves_total{"), 7);
	assert_int_equal(count(page, "kvpin_keys_total{"), KEY_KIND_NR);
	assert_int_equal(count(page, "kvpin_keyless_requests_total{"), MISSING_NR);
	assert_int_equal(count(page, "kvpin_prefix_requests_total{"), 3);
	assert_int_equal(count(page, "kvpin_forced_disturb_total{"), 2);
	assert_line(page, "kvpin_prefix_nodes 0");
	assert_int_equal(count(page, "kvpin_path_refused_total{"),
			 KVPIN_REFUSED_NR - 1 + KVPIN_SPLICE_REFUSED_NR);
	assert_int_equal(count(page, "kvpin_path_available{"), STAT_PATH_NR);
	assert_int_equal(count(page, "kvpin_path_handovers_total{"), 4);
	while ((line = strsep(&rest, "\n")))
		if (!strncmp(line, "kvpin_requests_total", 20) || strstr(line, "_bucket"))
			assert_string_equal(strrchr(line, ' '), " 0");
	free(page);
}

static void a_removed_servers_series_end(void **state)
{
	char *page;

	fill();
	w.c.nr_backends = 1;
	apply();
	page = render();
	assert_int_equal(count(page, "gpu1"), 0);
	assert_int_not_equal(count(page, "gpu0"), 0);
	free(page);
}

static void a_server_at_a_new_address_has_one_series(void **state)
{
	struct session_txn txn;
	char *page;

	fill();
	session_begin(w.b.sessions, 78, 1000, &txn);
	session_commit(&txn, 1); /* keeps slot 1 in use */
	w.c.nr_backends = 1;
	config_add("gpu1", "127.0.0.1:9999");
	apply();
	page = render();
	assert_int_equal(count(page, "kvpin_backend_up{backend=\"gpu1\"}"), 1);
	assert_line(page, "kvpin_backend_up{backend=\"gpu1\"} 1");
	assert_line(page, "kvpin_sessions{backend=\"gpu1\"} 0");
	free(page);
}

static void a_slot_given_away_starts_at_zero(void **state)
{
	struct backend_stats *s = &w.stats[0].backend[1];
	struct kvpin_counters *k = &kernel.backend[1];
	char *page;

	stat_add(&s->requests[STAT_PATH_RELAY][OUTCOME_OK], 1000);
	hist_add(&s->token_gap, &hist_token_gap_bounds, 1);
	k->requests = 2000;
	k->bytes_down = 3000;
	k->ttft[3] = 2000;
	k->ttft_sum_ns = 1;
	w.c.nr_backends = 1;
	apply();
	assert_int_equal(requests(1, STAT_PATH_STEER), 2000);
	assert_int_equal(requests(1, STAT_PATH_RELAY), 1000); /* still gpu1's */
	config_add("gpu9", "127.0.0.1:8089");
	apply();
	assert_string_equal(w.b.backends.slot[1].name, "gpu9");
	stat_add(&s->requests[STAT_PATH_RELAY][OUTCOME_OK], 1);
	k->requests += 5;
	k->ttft[4]++;
	page = render();
	assert_line(page, "kvpin_requests_total{backend=\"gpu9\",path=\"relay\",outcome=\"ok\"} 1");
	assert_line(page, "kvpin_requests_total{backend=\"gpu9\",path=\"steer\",outcome=\"ok\"} 5");
	assert_line(page, "kvpin_bytes_total{backend=\"gpu9\",direction=\"to_client\","
			  "path=\"steer\"} 0");
	assert_line(page, "kvpin_ttft_seconds_count{backend=\"gpu9\",turn=\"later\"} 1");
	assert_line(page, "kvpin_ttft_seconds_sum{backend=\"gpu9\",turn=\"later\"} 0.000000000");
	assert_line(page, "kvpin_token_gap_seconds_count{backend=\"gpu9\"} 0");
	assert_line(page, "kvpin_token_gap_seconds_sum{backend=\"gpu9\"} 0.000000000");
	assert_int_equal(requests(1, STAT_PATH_RELAY), 1);
	free(page);
}

static void a_reload_keeps_the_counters_of_who_stays(void **state)
{
	char *page;

	fill();
	apply();
	page = render();
	assert_line(page,
		    "kvpin_requests_total{backend=\"gpu0\",path=\"relay\",outcome=\"ok\"} 42");
	free(page);
}

static void label_values_are_escaped(void **state)
{
	char *page;

	config_add("a\"b\\c\nd", "127.0.0.1:8083");
	apply();
	page = render();
	assert_line(page, "kvpin_backend_up{backend=\"a\\\"b\\\\c\\nd\"} 1");
	free(page);
}

/* As the daemon does it, with nothing to read. */
static void without_the_kernel_there_is_only_the_relay(void **state)
{
	struct metrics_sum *sum;

	fill();
	metrics_base_take(&w.base, &w.b);
	assert_int_equal(metrics_sum_new(&sum, &w.b, &w.base), 0);
	assert_false(sum->steer);
	assert_int_equal(sum->nr_configured, 2);
	assert_int_equal(metrics_requests(sum, 0, STAT_PATH_RELAY), 43);
	assert_int_equal(metrics_requests(sum, 0, STAT_PATH_STEER), 0);
	free(sum);
}

/* promtool does not look for that; Prometheus refuses the whole page. */
static void no_series_is_there_twice(void **state)
{
	char *page, *copy, *line, *rest, needle[512];

	fill();
	fill_kernel();
	page = render();
	rest = copy = strdup(page);
	while ((line = strsep(&rest, "\n"))) {
		if (!*line || *line == '#')
			continue;
		snprintf(needle, sizeof(needle), "\n%.*s ", (int)(strrchr(line, ' ') - line), line);
		assert_int_equal(count(page, needle), 1);
	}
	free(copy);
	free(page);
}

static void promtool_accepts_the_page(void **state)
{
	char path[] = "/tmp/kvpin-test-metrics.XXXXXX", command[128];
	char *page;
	FILE *out;
	int fd, rc;

	if (system("command -v promtool >/dev/null 2>&1")) {
		print_message("SKIP: promtool is not installed\n");
		skip();
	}
	fill();
	fill_kernel();
	config_add("a\"b\\c\nd", "[::1]:8083");
	apply();
	fd = mkstemp(path);
	out = fdopen(fd, "w");
	assert_non_null(out);
	page = render();
	fputs(page, out);
	free(page);
	metrics_render_process(out);
	assert_int_equal(fclose(out), 0);
	snprintf(command, sizeof(command), "promtool check metrics <%s", path);
	rc = system(command);
	unlink(path);
	assert_int_equal(rc, 0);
}

struct answer {
	long status;
	char *body;
	char type[128];
};

static size_t collect(char *data, size_t size, size_t nr, void *arg)
{
	struct answer *a = arg;
	size_t len = a->body ? strlen(a->body) : 0;

	a->body = realloc(a->body, len + nr + 1);
	memcpy(a->body + len, data, nr);
	a->body[len + nr] = '\0';
	return nr;
}

static struct answer ask(const struct metrics *m, const char *method, const char *path)
{
	char url[256], text[ADDR_TEXT_MAX], *type = NULL;
	struct addr addr = metrics_addr(m);
	CURL *easy = curl_easy_init();
	struct answer a = {0};

	snprintf(url, sizeof(url), "http://%s%s", addr_format(&addr, text), path);
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, 5000L);
	if (!strcmp(method, "HEAD"))
		curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
	else
		curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
	if (!strcmp(method, "POST"))
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, "some=thing");
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, collect);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, &a);
	assert_int_equal(curl_easy_perform(easy), CURLE_OK);
	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &a.status);
	curl_easy_getinfo(easy, CURLINFO_CONTENT_TYPE, &type);
	snprintf(a.type, sizeof(a.type), "%s", type ? type : "");
	curl_easy_cleanup(easy);
	return a;
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
	atomic_store(&w.b.draining, true);
	assert_answer(m, "GET", "/readyz", 503, "draining\n");
	assert_answer(m, "GET", "/healthz", 200, NULL);
	atomic_store(&w.b.draining, false);
	w.c.nr_backends = 0;
	apply();
	assert_answer(m, "GET", "/readyz", 503, "no server is configured\n");
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(sums_all_workers),
		TEST(the_kernels_counters_are_added),
		TEST(paths_say_what_they_did_not_take),
		TEST(histogram_buckets_are_cumulative),
		TEST(every_series_is_there_from_the_start),
		TEST(a_removed_servers_series_end),
		TEST(a_server_at_a_new_address_has_one_series),
		TEST(a_slot_given_away_starts_at_zero),
		TEST(a_reload_keeps_the_counters_of_who_stays),
		TEST(label_values_are_escaped),
		TEST(without_the_kernel_there_is_only_the_relay),
		TEST(no_series_is_there_twice),
		TEST(promtool_accepts_the_page),
		TEST(serves_metrics_and_probes),
		TEST(ready_only_while_a_server_can_take_a_request),
		TEST(serves_over_ipv6),
		TEST(an_address_in_use_is_named),
		TEST(a_listener_that_never_served_can_be_stopped),
		TEST(pages_are_made_while_all_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
