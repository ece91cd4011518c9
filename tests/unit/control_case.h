/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A control socket to ask: over a fake balancer with two servers, in a directory of its own.
 * Included by test programs, after cmocka.h.
 */
#ifndef UNIT_CONTROL_CASE_H
#define UNIT_CONTROL_CASE_H

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "curl_case.h"
#include "fake_balancer.h"
#include "ops/control.h"
#include "ops/key_watch.h"

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* The socket under test, and what it is given beside the balancer. */
static struct {
	struct key_watch watch;
	char dir[64];
	char path[CONTROL_PATH_MAX];
	struct control *control;
	int reload_rc;
	const char *reload_text;
	atomic_uint reloads;
} own;

uint64_t balancer_now_ms(void)
{
	return 1000000;
}

uint32_t balancer_stamp(void)
{
	return 1;
}

uint64_t balancer_now_ns(void)
{
	return 1000000000000;
}

struct addr balancer_listen_addr(const struct balancer *b, unsigned int i)
{
	return addr_of(i ? "[::1]:8081" : "127.0.0.1:8080");
}

static inline int fake_reload(void *arg, char *text, unsigned int text_bytes)
{
	assert_ptr_equal(arg, &own);
	atomic_fetch_add(&own.reloads, 1);
	snprintf(text, text_bytes, "%s", own.reload_text);
	return own.reload_rc;
}

static inline void pin(uint64_t id, uint32_t slot, uint64_t now_ms)
{
	struct session_txn txn;

	session_begin(w.b.sessions, id, now_ms, &txn);
	session_commit(&txn, slot);
}

static inline int try_start(const char *path, struct control **out, char *why,
			    unsigned int why_bytes)
{
	const struct control_params params = {
		.balancer = &w.b,
		.base = &w.base,
		.watch = &own.watch,
		.lock = &w.lock,
		.reload = fake_reload,
		.arg = &own,
	};
	int rc = control_open(out, path, why, why_bytes);

	if (rc || !*out)
		return rc;
	return control_serve(*out, &params, why, why_bytes);
}

static inline void start(void)
{
	char why[256] = "";

	if (try_start(own.path, &own.control, why, sizeof(why)))
		fail_msg("%s", why);
	assert_non_null(own.control);
}

static inline void stop(void)
{
	control_stop(own.control);
	own.control = NULL;
}

static inline int setup(void **state)
{
	memset(&own, 0, sizeof(own));
	log_setup(LOG_ERROR, LOG_LOGFMT);
	world_init(10000, 10000000);
	w.c.nr_listen = 2;
	w.b.started_ms = 1000000 - 61500;
	own.reload_text = "";
	config_add("gpu0", "127.0.0.1:9081");
	config_add("gpu1", "[::1]:9082");
	assert_int_equal(backend_table_apply(&w.b.backends, &w.c, w.b.sessions, 990000), 0);
	strcpy(own.dir, "/tmp/kvpin-test-control.XXXXXX");
	assert_non_null(mkdtemp(own.dir));
	snprintf(own.path, sizeof(own.path), "%s/run/control.sock", own.dir);
	return 0;
}

static inline int teardown(void **state)
{
	char run[128];

	control_stop(own.control);
	world_fini();
	unlink(own.path);
	snprintf(run, sizeof(run), "%s/run", own.dir);
	rmdir(run);
	assert_int_equal(rmdir(own.dir), 0); /* nothing else is left */
	return 0;
}

static inline json_t *ask(const char *method, const char *target, long status)
{
	CURL *easy = curl_easy_init();
	struct answer a;
	char url[512];
	json_t *json;

	snprintf(url, sizeof(url), "http://kvpin%s", target);
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, own.path);
	if (!strcmp(method, "POST"))
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, "{}");
	a = curl_case_ask(easy);
	assert_string_equal(a.type, "application/json");
	if (getenv("VERBOSE"))
		print_message("%s %s: %ld %s\n", method, target, a.status, a.body);
	assert_int_equal(a.status, status);
	json = json_loads(a.body, 0, NULL);
	assert_non_null(json);
	free(a.body);
	return json;
}

static inline const char *str(const json_t *o, const char *key)
{
	assert_true(json_is_string(json_object_get(o, key)));
	return json_string_value(json_object_get(o, key));
}

static inline double num(const json_t *o, const char *key)
{
	assert_true(json_is_number(json_object_get(o, key)));
	return json_number_value(json_object_get(o, key));
}

static inline bool yes(const json_t *o, const char *key)
{
	assert_true(json_is_boolean(json_object_get(o, key)));
	return json_is_true(json_object_get(o, key));
}

#endif
