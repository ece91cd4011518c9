/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The control socket: what it shows, and what it says to requests that are none. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "control_case.h"

#define SESSIONS 700

static void shows_the_status(void **state)
{
	json_t *body, *listen;

	start();
	atomic_store(&w.b.connections, 5);
	atomic_store(&w.b.reloads, 2);
	pin(1, 0, 999000);
	body = ask("GET", "/v1/status", 200);
	assert_string_equal(str(body, "version"), KVPIN_VERSION);
	assert_int_equal(num(body, "pid"), getpid());
	assert_true(num(body, "uptime_s") == 61.5);
	assert_false(yes(body, "draining"));
	assert_string_equal(str(body, "path"), "auto");
	assert_string_equal(str(body, "path_in_use"), "relay");
	assert_int_equal(json_object_size(json_object_get(body, "keys")), 0);
	assert_int_equal(json_object_size(json_object_get(body, "keyless")), 0);
	assert_string_equal(str(body, "advice"), "");
	assert_int_equal(num(body, "requests_relay"), 0);
	assert_int_equal(num(body, "requests_steer"), 0);
	assert_int_equal(num(body, "path_handed_over"), 0);
	assert_int_equal(num(body, "path_taken_back"), 0);
	assert_int_equal(num(body, "steer_queued_bytes"), 0);
	assert_int_equal(json_object_size(json_object_get(body, "path_refused")), 0);
	assert_int_equal(num(body, "requests_splice"), 0);
	assert_int_equal(num(body, "splice_taken"), 0);
	assert_int_equal(num(body, "splice_back"), 0);
	assert_int_equal(json_object_size(json_object_get(body, "splice_refused")), 0);
	assert_int_equal(json_array_size(json_object_get(body, "splice_devices")), 0);
	assert_int_equal(num(body, "splice_inherited"), 0);
	assert_int_equal(num(body, "workers"), WORKERS);
	assert_int_equal(num(body, "connections"), 5);
	assert_int_equal(num(body, "sessions"), 1);
	assert_int_equal(num(body, "config_reloads"), 2);
	listen = json_object_get(body, "listen");
	assert_int_equal(json_array_size(listen), 2);
	assert_string_equal(json_string_value(json_array_get(listen, 1)), "[::1]:8081");
	json_decref(body);
}

/* All slots and those requests that reached no server count; reasons come most frequent first. */
static void the_status_says_what_the_paths_did(void **state)
{
	struct worker_stats *s = w.stats;
	const char *key, *wanted[] = {"bulk", "raced", "no_pin"};
	unsigned int at = 0;
	json_t *body, *n;

	start();
	stat_add(&s[0].backend[0].requests[STAT_PATH_RELAY][OUTCOME_OK], 1);
	stat_add(&s[1].backend[1].requests[STAT_PATH_RELAY][OUTCOME_TRUNCATED], 2);
	stat_add(&s[0].backend[STAT_NO_BACKEND].requests[STAT_PATH_RELAY][OUTCOME_REFUSED], 4);
	stat_add(&s[1].backend[1].requests[STAT_PATH_STEER][OUTCOME_OK], 8);
	stat_add(&s[0].backend[0].requests[STAT_PATH_SPLICE][OUTCOME_OK], 16);
	stat_add(&s[1].spliced, 17);
	stat_add(&s[0].splice_back, 15);
	stat_add(&s[1].splice_refused[0], 9);
	stat_add(&s[0].handed_over, 6);
	stat_add(&s[1].reclaimed, 5);
	stat_add(&s[0].refused[KVPIN_REFUSED_NO_PIN], 1);
	stat_add(&s[0].refused[KVPIN_REFUSED_ANSWER_BULK], 3);
	stat_add(&s[1].refused[KVPIN_REFUSED_RACED], 2);
	body = ask("GET", "/v1/status", 200);
	assert_int_equal(num(body, "requests_relay"), 7);
	assert_int_equal(num(body, "requests_steer"), 8);
	assert_int_equal(num(body, "requests_splice"), 16);
	assert_int_equal(num(body, "splice_taken"), 17);
	assert_int_equal(num(body, "splice_back"), 15);
	assert_int_equal(num(json_object_get(body, "splice_refused"), "no_slot"), 9);
	assert_int_equal(num(body, "path_handed_over"), 6);
	assert_int_equal(num(body, "path_taken_back"), 5);
	json_object_foreach(json_object_get(body, "path_refused"), key, n)
	{
		assert_string_equal(key, wanted[at]);
		assert_int_equal(json_integer_value(n), 3 - at++);
	}
	assert_int_equal(at, 3);
	json_decref(body);
}

static void shows_the_backends(void **state)
{
	struct backend *gpu1 = &w.b.backends.slot[1];
	json_t *body, *list, *one;

	start();
	backend_report_failure(&w.b.backends, gpu1, BACKEND_CAUSE_REFUSED, 997500);
	gpu1->shared->inflight = 2;
	stat_add(&w.stats[0].backend[1].requests[STAT_PATH_RELAY][OUTCOME_OK], 30);
	stat_add(&w.stats[1].backend[1].requests[STAT_PATH_RELAY][OUTCOME_UNREACHABLE], 3);
	stat_add(&w.stats[1].backend[1].requests[STAT_PATH_STEER][OUTCOME_OK], 7);
	stat_add(&w.stats[0].backend[1].bytes_up[STAT_PATH_RELAY], 100);
	stat_add(&w.stats[0].backend[1].bytes_up[STAT_PATH_STEER], 20);
	stat_add(&w.stats[1].backend[1].bytes_down[STAT_PATH_STEER], 3);
	pin(1, 1, 999000);
	body = ask("GET", "/v1/backends", 200);
	list = json_object_get(body, "backends");
	assert_int_equal(json_array_size(list), 2);
	one = json_array_get(list, 0);
	assert_string_equal(str(one, "name"), "gpu0");
	assert_string_equal(str(one, "state"), "up");
	assert_string_equal(str(one, "cause"), "none");
	assert_true(num(one, "state_for_s") == 10);
	one = json_array_get(list, 1);
	assert_string_equal(str(one, "name"), "gpu1");
	assert_string_equal(str(one, "address"), "[::1]:9082");
	assert_string_equal(str(one, "state"), "down");
	assert_string_equal(str(one, "cause"), "refused");
	assert_int_equal(num(one, "weight"), 1);
	assert_int_equal(num(one, "slots"), 4);
	assert_int_equal(num(one, "inflight"), 2);
	assert_int_equal(num(one, "sessions"), 1);
	assert_int_equal(num(one, "requests"), 40);
	assert_int_equal(num(one, "requests_relay"), 33);
	assert_int_equal(num(one, "requests_steer"), 7);
	assert_int_equal(num(one, "bytes_up"), 120);
	assert_int_equal(num(one, "bytes_down"), 3);
	assert_true(num(one, "state_for_s") == 2.5);
	json_decref(body);
}

static void shows_a_session(void **state)
{
	json_t *body, *one;

	start();
	pin(0xabc, 0, 980000);
	pin(0xabc, 0, 985000);
	pin(0xabc, 1, 999250);
	body = ask("GET", "/v1/sessions", 200);
	assert_int_equal(num(body, "total"), 1);
	assert_false(yes(body, "truncated"));
	one = json_array_get(json_object_get(body, "sessions"), 0);
	assert_string_equal(str(one, "session"), "0000000000000abc");
	assert_string_equal(str(one, "backend"), "gpu1");
	assert_int_equal(num(one, "turns"), 3);
	assert_int_equal(num(one, "moves"), 1);
	assert_true(num(one, "age_s") == 20);
	assert_true(num(one, "idle_s") == 0.75);
	json_decref(body);
}

static void assert_sessions(const char *target, unsigned int total, unsigned int listed,
			    bool truncated)
{
	json_t *body = ask("GET", target, 200);

	assert_int_equal(num(body, "total"), total);
	assert_int_equal(json_array_size(json_object_get(body, "sessions")), listed);
	assert_int_equal(yes(body, "truncated"), truncated);
	json_decref(body);
}

static void sessions_are_limited_and_filtered(void **state)
{
	start();
	assert_sessions("/v1/sessions", 0, 0, false);
	for (unsigned int i = 0; i < SESSIONS; i++)
		pin(i * 0x9e3779b97f4a7c15, i % 7 == 0, 990000 + i);
	assert_sessions("/v1/sessions", SESSIONS, CONTROL_SESSIONS_DEFAULT, true);
	assert_sessions("/v1/sessions?limit=0", SESSIONS, 0, true);
	assert_sessions("/v1/sessions?limit=699", SESSIONS, 699, true);
	assert_sessions("/v1/sessions?limit=700", SESSIONS, SESSIONS, false);
	assert_sessions("/v1/sessions?limit=100000", SESSIONS, SESSIONS, false);
	assert_sessions("/v1/sessions?backend=gpu1", 100, 100, false);
	assert_sessions("/v1/sessions?backend=gpu1&limit=99", 100, 99, true);
	assert_sessions("/v1/sessions?limit=5&backend=gpu0", 600, 5, true);
}

static void assert_refused(const char *method, const char *target, long status)
{
	json_t *body = ask(method, target, status);

	assert_int_not_equal(strlen(str(body, "error")), 0);
	json_decref(body);
}

static void bad_requests_get_an_error(void **state)
{
	start();
	assert_refused("GET", "/v1/sessions?limit=-1", 400);
	assert_refused("GET", "/v1/sessions?limit=", 400);
	assert_refused("GET", "/v1/sessions?limit=1x", 400);
	assert_refused("GET", "/v1/sessions?limit=100001", 400);
	assert_refused("GET", "/v1/sessions?limit=99999999999999999999999", 400);
	assert_refused("GET", "/v1/sessions?backend=nobody", 404);
	assert_refused("GET", "/v1/sessions?backend=%ff%fe", 404);
	assert_refused("GET", "/v1/nothing", 404);
	assert_refused("GET", "/%ff", 404);
	assert_refused("GET", "/v1/reload", 404);
	assert_refused("POST", "/v1/status", 404);
	assert_int_equal(atomic_load(&own.reloads), 0);
}

static void reload_answers_what_the_main_thread_says(void **state)
{
	json_t *body;

	start();
	own.reload_text = "workers: a change needs a restart";
	body = ask("POST", "/v1/reload", 200);
	assert_true(yes(body, "ok"));
	assert_string_equal(str(body, "note"), own.reload_text);
	json_decref(body);
	own.reload_rc = -EINVAL;
	own.reload_text = "kvpin.yaml:3: unknown key \"listn\xff\"";
	body = ask("POST", "/v1/reload", 422);
	assert_string_equal(str(body, "error"), "kvpin.yaml:3: unknown key \"listn?\"");
	json_decref(body);
	assert_int_equal(atomic_load(&own.reloads), 2);
}

static void *ask_thread(void *arg)
{
	for (int i = 0; i < 40; i++) {
		json_decref(ask("GET", "/v1/backends", 200));
		json_decref(ask("GET", "/v1/sessions", 200));
	}
	return NULL;
}

/* For ThreadSanitizer: the main thread reloads and workers pin while pages are made. */
static void answers_while_all_changes(void **state)
{
	pthread_t thread;

	start();
	pthread_create(&thread, NULL, ask_thread, NULL);
	for (unsigned int i = 0; i < 200; i++) {
		pin(i, 0, 990000 + i);
		pthread_rwlock_wrlock(&w.lock);
		w.c.nr_backends = 1;
		if (i % 2)
			config_add(i % 4 == 1 ? "gpu1" : "gpu2", "127.0.0.1:8082");
		metrics_base_take(&w.base, &w.b);
		backend_table_apply(&w.b.backends, &w.c, w.b.sessions, 990000);
		pthread_rwlock_unlock(&w.lock);
		usleep(100);
	}
	pthread_join(thread, NULL);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(shows_the_status),
		TEST(the_status_says_what_the_paths_did),
		TEST(shows_the_backends),
		TEST(shows_a_session),
		TEST(sessions_are_limited_and_filtered),
		TEST(bad_requests_get_an_error),
		TEST(reload_answers_what_the_main_thread_says),
		TEST(answers_while_all_changes),
	};

	curl_global_init(CURL_GLOBAL_DEFAULT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
