/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The exporter's page against counters set by hand, and promtool's opinion of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "metrics_case.h"

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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
