/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The control socket: its answers, and the life of its file. The balancer is a fake.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "fake_balancer.h"
#include "ops/control.h"
#include "ops/key_watch.h"

#define SESSIONS 700

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

static int fake_reload(void *arg, char *text, unsigned int text_bytes)
{
	assert_ptr_equal(arg, &own);
	atomic_fetch_add(&own.reloads, 1);
	snprintf(text, text_bytes, "%s", own.reload_text);
	return own.reload_rc;
}

static void pin(uint64_t id, uint32_t slot, uint64_t now_ms)
{
	struct session_txn txn;

	session_begin(w.b.sessions, id, now_ms, &txn);
	session_commit(&txn, slot);
}

static int try_start(const char *path, struct control **out, char *why, unsigned int why_bytes)
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

static void start(void)
{
	char why[256] = "";

	if (try_start(own.path, &own.control, why, sizeof(why)))
		fail_msg("%s", why);
	assert_non_null(own.control);
}

static void stop(void)
{
	control_stop(own.control);
	own.control = NULL;
}

static int setup(void **state)
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

static int teardown(void **state)
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

struct answer {
	long status;
	char *text;
	json_t *json;
};

static size_t collect(char *data, size_t size, size_t nr, void *arg)
{
	struct answer *a = arg;
	size_t len = a->text ? strlen(a->text) : 0;

	a->text = realloc(a->text, len + nr + 1);
	memcpy(a->text + len, data, nr);
	a->text[len + nr] = '\0';
	return nr;
}

static json_t *ask(const char *method, const char *target, long status)
{
	CURL *easy = curl_easy_init();
	struct answer a = {0};
	char url[512], *type;

	snprintf(url, sizeof(url), "http://kvpin%s", target);
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, own.path);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, 5000L);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	if (!strcmp(method, "POST"))
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, "{}");
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, collect);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, &a);
	assert_int_equal(curl_easy_perform(easy), CURLE_OK);
	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &a.status);
	curl_easy_getinfo(easy, CURLINFO_CONTENT_TYPE, &type);
	assert_string_equal(type, "application/json");
	curl_easy_cleanup(easy);
	if (getenv("VERBOSE"))
		print_message("%s %s: %ld %s\n", method, target, a.status, a.text);
	assert_int_equal(a.status, status);
	a.json = json_loads(a.text, 0, NULL);
	assert_non_null(a.json);
	free(a.text);
	return a.json;
}

static const char *str(const json_t *o, const char *key)
{
	assert_true(json_is_string(json_object_get(o, key)));
	return json_string_value(json_object_get(o, key));
}

static double num(const json_t *o, const char *key)
{
	assert_true(json_is_number(json_object_get(o, key)));
	return json_number_value(json_object_get(o, key));
}

static bool yes(const json_t *o, const char *key)
{
	assert_true(json_is_boolean(json_object_get(o, key)));
	return json_is_true(json_object_get(o, key));
}

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

static mode_t mode_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_mode & 07777;
}

static void makes_the_directory_and_removes_the_socket(void **state)
{
	char run[128];
	mode_t before = umask(022);

	start();
	umask(before);
	snprintf(run, sizeof(run), "%s/run", own.dir);
	assert_int_equal(mode_of(run), 0755);
	assert_int_equal(mode_of(own.path), 0660);
	stop();
	assert_int_equal(access(own.path, F_OK), -1);
}

static int bind_at(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(un.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	return fd;
}

static void a_stale_socket_is_replaced(void **state)
{
	start();
	stop();
	close(bind_at(own.path));
	assert_int_equal(access(own.path, F_OK), 0);
	start();
	json_decref(ask("GET", "/v1/status", 200));
}

static void a_live_socket_is_an_error(void **state)
{
	struct control *second;
	char why[256];

	start();
	assert_int_equal(try_start(own.path, &second, why, sizeof(why)), -EADDRINUSE);
	assert_null(second);
	assert_non_null(strstr(why, "another kvpin is running"));
	json_decref(ask("GET", "/v1/status", 200)); /* the first is unharmed */
}

static void a_file_that_is_no_socket_is_left_alone(void **state)
{
	struct control *control;
	char why[256];

	start();
	stop();
	close(open(own.path, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(try_start(own.path, &control, why, sizeof(why)), -EEXIST);
	assert_non_null(strstr(why, "not a socket"));
	assert_int_equal(access(own.path, F_OK), 0);
}

static void a_missing_parent_is_an_error(void **state)
{
	struct control *control;
	char why[256], path[128];

	snprintf(path, sizeof(path), "%s/no/such/control.sock", own.dir);
	assert_int_equal(try_start(path, &control, why, sizeof(why)), -ENOENT);
	assert_non_null(strstr(why, path));
}

static void stop_leaves_anothers_socket_alone(void **state)
{
	int fd;

	start();
	unlink(own.path);
	fd = bind_at(own.path);
	stop();
	assert_int_equal(access(own.path, F_OK), 0);
	close(fd);
}

/* In a child, because root may write everywhere. */
static void without_permission_it_goes_without(void **state)
{
	struct control *control;
	char why[256];
	int status;
	pid_t pid;

	chmod(own.dir, 0755);
	pid = fork();
	if (!pid) {
		if (!geteuid() && (setgid(65534) || setuid(65534)))
			_exit(2);
		log_setup(LOG_ERROR, LOG_LOGFMT);
		if (!access(own.dir, W_OK))
			_exit(3);
		_exit(try_start(own.path, &control, why, sizeof(why)) || control);
	}
	waitpid(pid, &status, 0);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 3) {
		print_message("SKIP: started by an ordinary user, who owns the directory\n");
		skip();
	}
	assert_int_equal(WEXITSTATUS(status), 0);
}

struct starter {
	pthread_t thread;
	struct control *control;
	int rc;
};

static void *start_thread(void *arg)
{
	struct starter *s = arg;
	char why[256];

	s->rc = try_start(own.path, &s->control, why, sizeof(why));
	return NULL;
}

static void of_two_that_start_at_once_one_wins(void **state)
{
	start();
	stop();
	for (int round = 0; round < 30; round++) {
		struct starter s[2] = {0};

		close(bind_at(own.path)); /* stale */
		for (int i = 0; i < 2; i++)
			pthread_create(&s[i].thread, NULL, start_thread, &s[i]);
		for (int i = 0; i < 2; i++)
			pthread_join(s[i].thread, NULL);
		assert_int_equal(!s[0].rc + !s[1].rc, 1);
		assert_int_equal(s[0].rc + s[1].rc, -EADDRINUSE);
		json_decref(ask("GET", "/v1/status", 200));
		control_stop(s[0].control);
		control_stop(s[1].control);
	}
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

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
	} bad[] = {
		{"POST", "/v1/drain", 404},
		{"POST", "/v1/drain?backend=nobody", 404},
		{"POST", "/v1/drain?backend=gpu0&deadline_ms=-1", 400},
		{"POST", "/v1/drain?backend=gpu0&idle_ms=0", 400},
		{"POST", "/v1/undrain?backend=nobody", 404},
		{"POST", "/v1/pin?backend=gpu0", 400},
		{"POST", "/v1/pin?key=a&backend=nobody", 404},
		{"POST", "/v1/pin?id=xyz&backend=gpu0", 400},
		{"POST", "/v1/unpin?id=00000000000000001", 400},
		{"GET", "/v1/explain?last=x", 400},
		{"GET", "/v1/explain?id=", 400},
		{"GET", "/v1/drain?backend=gpu0", 404},
	};

	start();
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		json_t *body = ask(bad[i].method, bad[i].target, bad[i].status);

		assert_true(strlen(str(body, "error")) > 0);
		json_decref(body);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(shows_the_status),
		TEST(the_status_says_what_the_paths_did),
		TEST(shows_the_backends),
		TEST(drains_and_undrains),
		TEST(pins_and_unpins_by_hand),
		TEST(pressure_is_told_and_acknowledged),
		TEST(the_report_adds_the_workers_up),
		TEST(wrong_arguments_are_told),
		TEST(shows_a_session),
		TEST(sessions_are_limited_and_filtered),
		TEST(bad_requests_get_an_error),
		TEST(reload_answers_what_the_main_thread_says),
		TEST(makes_the_directory_and_removes_the_socket),
		TEST(a_stale_socket_is_replaced),
		TEST(a_live_socket_is_an_error),
		TEST(a_file_that_is_no_socket_is_left_alone),
		TEST(a_missing_parent_is_an_error),
		TEST(stop_leaves_anothers_socket_alone),
		TEST(without_permission_it_goes_without),
		TEST(of_two_that_start_at_once_one_wins),
		TEST(answers_while_all_changes),
	};

	curl_global_init(CURL_GLOBAL_DEFAULT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
