/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The control socket's commands about decisions: drains, pins, pressure, the report. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "control_case.h"

static const char *state_of(const char *name)
{
	static char state[32];
	json_t *body = ask("GET", "/v1/backends", 200), *row;
	size_t i;

	json_array_foreach(json_object_get(body, "backends"), i, row)
	{
		if (!strcmp(str(row, "name"), name))
			snprintf(state, sizeof(state), "%s", str(row, "state"));
	}
	json_decref(body);
	return state;
}

static void assert_error(const char *method, const char *target, long status, const char *why)
{
	json_t *body = ask(method, target, status);

	if (!strstr(str(body, "error"), why))
		fail_msg("%s: %s", target, str(body, "error"));
	json_decref(body);
}

static void drains_and_undrains(void **state)
{
	struct backend *b = &w.b.backends.slot[0];
	json_t *body;

	start();

	pin(1, 0, 999000);
	body = ask("POST", "/v1/drain?backend=gpu0&deadline_ms=5000&idle_ms=700", 200);
	assert_string_equal(str(body, "backend"), "gpu0");
	assert_int_equal(num(body, "sessions"), 1);
	json_decref(body);
	assert_int_equal(atomic_load(&b->drain_ms), 1005000);
	assert_int_equal(b->shared->drain_idle_ms, 700);
	assert_int_equal(b->shared->weight, 1);
	assert_string_equal(state_of("gpu0"), "draining");
	backend_drain_tick(b, 1004999);
	assert_int_equal(b->shared->weight, 1);
	backend_drain_tick(b, 1005000);
	assert_int_equal(b->shared->weight, 0); /* the kernel steers nothing there any more */
	assert_string_equal(state_of("gpu0"), "drained");
	/* A reload does not end it. */
	assert_int_equal(backend_table_apply(&w.b.backends, &w.c, w.b.sessions, 1005001), 0);
	assert_int_equal(b->shared->weight, 0);
	body = ask("POST", "/v1/undrain?backend=gpu0", 200);
	assert_true(json_is_true(json_object_get(body, "was_draining")));
	json_decref(body);
	assert_int_equal(b->shared->weight, 1);
	assert_int_equal(b->shared->drain_idle_ms, 0);
	assert_string_equal(state_of("gpu0"), "up");
}

static void pins_and_unpins_by_hand(void **state)
{
	char target[64];
	json_t *body;

	start();
	body = ask("POST", "/v1/pin?key=abc&backend=gpu1", 200);
	assert_string_equal(str(body, "was"), "");
	snprintf(target, sizeof(target), "/v1/pin?id=%s&backend=gpu0", str(body, "session"));
	json_decref(body);
	body = ask("POST", target, 200);
	assert_string_equal(str(body, "was"), "gpu1");
	json_decref(body);
	assert_int_equal(session_count(w.b.sessions, 0), 1);
	body = ask("POST", "/v1/unpin?key=abc", 200);
	assert_string_equal(str(body, "was"), "gpu0");
	json_decref(body);
	assert_int_equal(session_total(w.b.sessions), 0);
}

/* "is on gpu1 now" must be true of the next request. */
static void a_pin_that_nothing_would_follow_is_refused(void **state)
{
	struct backend *b = &w.b.backends.slot[1];
	json_t *body;

	start();
	w.c.placement = PLACEMENT_HASH;
	assert_error("POST", "/v1/pin?key=abc&backend=gpu1", 409, "placement: hash");
	w.c.placement = PLACEMENT_BALANCED;
	w.c.experiment_milli = 1000;
	assert_error("POST", "/v1/pin?key=abc&backend=gpu1", 409, "experiment.share");
	w.c.experiment_milli = 0;
	atomic_store(&b->weight, 0);
	assert_error("POST", "/v1/pin?key=abc&backend=gpu1", 409, "weight 0");
	atomic_store(&b->weight, 1);
	json_decref(ask("POST", "/v1/drain?backend=gpu1&deadline_ms=0", 200));
	assert_error("POST", "/v1/pin?key=abc&backend=gpu1", 409, "undrain");
	assert_int_equal(session_total(w.b.sessions), 0);
	json_decref(ask("POST", "/v1/undrain?backend=gpu1", 200));
	body = ask("POST", "/v1/drain?backend=gpu1", 200);
	assert_true(json_is_true(json_object_get(body, "keeps_sessions")));
	json_decref(body);
	json_decref(ask("POST", "/v1/pin?key=abc&backend=gpu1", 200)); /* it still keeps some */
}

static void a_drain_keeps_no_session_that_has_no_pin(void **state)
{
	json_t *body;

	start();
	w.c.placement = PLACEMENT_HASH;
	body = ask("POST", "/v1/drain?backend=gpu0", 200);
	assert_true(json_is_false(json_object_get(body, "keeps_sessions")));
	json_decref(body);
}

static void pressure_is_told_and_acknowledged(void **state)
{
	json_t *body;

	start();

	pressure_init(&w.b.pressure);
	pressure_add(&w.b.pressure, 999000);
	body = ask("GET", "/v1/pressure", 200);
	assert_int_equal(num(body, "pressure"), 1);
	json_decref(body);
	body = ask("POST", "/v1/pressure/ack", 200);
	assert_int_equal(num(body, "acknowledged"), 1);
	assert_int_equal(num(body, "pressure"), 0);
	assert_int_equal(num(body, "forced_total"), 1);
	json_decref(body);
	pressure_fini(&w.b.pressure);
}

static void the_report_adds_the_workers_up(void **state)
{
	json_t *body, *arm;

	start();
	for (int i = 0; i < WORKERS; i++) {
		struct arm_stats *a = &w.stats[i].arm[REPORT_CONTROL];

		stat_add(&a->turns, 1);
		stat_add(&a->sum_us, 3000 * (i + 1));
		stat_add(&a->recomputed, 400);
		stat_add(&a->bucket[report_bucket(3)], 1);
	}
	body = ask("GET", "/v1/report", 200);
	arm = json_array_get(json_object_get(body, "arms"), REPORT_CONTROL);
	assert_string_equal(str(arm, "arm"), "control");
	assert_int_equal(num(arm, "turns"), WORKERS);
	assert_int_equal(num(arm, "recomputed_tokens"), 100 * WORKERS);
	assert_true(json_is_null(json_object_get(json_object_get(body, "gain"), "low_ms")));
	json_decref(body);
}

static void wrong_arguments_are_told(void **state)
{
	static const struct {
		const char *method, *target;
		long status;
		const char *why;
	} bad[] = {
		{"POST", "/v1/drain", 404, "no backend"},
		{"POST", "/v1/drain?backend=nobody", 404, "\"nobody\""},
		{"POST", "/v1/drain?backend=gpu0&deadline_ms=-1", 400, "from 0 to 86400000"},
		{"POST", "/v1/drain?backend=gpu0&idle_ms=0", 400,
		 "idle_ms: wanted a number from 1"},
		{"POST", "/v1/undrain?backend=nobody", 404, "\"nobody\""},
		{"POST", "/v1/pin?backend=gpu0", 400, "key or id"},
		{"POST", "/v1/pin?key=a&backend=nobody", 404, "\"nobody\""},
		{"POST", "/v1/pin?id=xyz&backend=gpu0", 400, "hexadecimal"},
		{"POST", "/v1/pin?id=-1&backend=gpu0", 400, "hexadecimal"},
		{"POST", "/v1/pin?id=0x1f&backend=gpu0", 400, "hexadecimal"},
		{"POST", "/v1/pin?id=%201f&backend=gpu0", 400, "hexadecimal"},
		{"POST", "/v1/unpin?id=00000000000000001", 400, "hexadecimal"},
		{"GET", "/v1/explain?last=x", 400, "last: wanted a number from 0 to 256"},
		{"GET", "/v1/explain?id=", 400, "key or id"},
		{"GET", "/v1/drain?backend=gpu0", 404, "no such thing"},
	};

	start();
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_error(bad[i].method, bad[i].target, bad[i].status, bad[i].why);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(drains_and_undrains),
		TEST(pins_and_unpins_by_hand),
		TEST(a_pin_that_nothing_would_follow_is_refused),
		TEST(a_drain_keeps_no_session_that_has_no_pin),
		TEST(pressure_is_told_and_acknowledged),
		TEST(the_report_adds_the_workers_up),
		TEST(wrong_arguments_are_told),
	};

	curl_global_init(CURL_GLOBAL_DEFAULT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
