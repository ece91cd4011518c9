/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The commands that ask the control socket, against a small server of their own. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "cli_case.h"

/* A server for one request: answers @reply and keeps the request line. */
struct fake {
	int fd;
	const char *reply;
	char request[256];
	pthread_t thread;
};

static void *fake_serve(void *arg)
{
	struct fake *f = arg;
	int conn = accept(f->fd, NULL, NULL);
	char buf[4096];
	ssize_t n = read(conn, buf, sizeof(buf) - 1);

	buf[n > 0 ? n : 0] = '\0';
	snprintf(f->request, sizeof(f->request), "%.*s", (int)strcspn(buf, "\r"), buf);
	n = write(conn, f->reply, strlen(f->reply));
	close(conn);
	return NULL;
}

static int fake_listen(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(un.sun_path, path);
	unlink(path);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	assert_int_equal(listen(fd, 4), 0);
	return fd;
}

/* "status --json" against a server that answers @status with @json. */
static int ask(const char *words, const char *status, const char *json, char *request, char *out,
	       char *err)
{
	char path[64], reply[4096], line[512];
	struct fake f = {.reply = reply};
	int ret;

	sprintf(path, "%s/c.sock", dir);
	snprintf(reply, sizeof(reply), "HTTP/1.1 %s\r\nContent-Length: %zu\r\n\r\n%s", status,
		 strlen(json), json);
	f.fd = fake_listen(path);
	assert_int_equal(pthread_create(&f.thread, NULL, fake_serve, &f), 0);
	sprintf(line, "kvpin %s --control %s", words, path);
	ret = command(line, out, err);
	pthread_join(f.thread, NULL);
	close(f.fd);
	strcpy(request, f.request);
	return ret;
}

static void reads_print_tables(void **state)
{
	static char out[OUT_MAX], err[OUT_MAX];
	char request[256];

	assert_int_equal(
		ask("status", "200 OK",
		    "{\"version\":\"1\",\"pid\":7,\"uptime_s\":3725.5,\"draining\":false,"
		    "\"listen\":[\"a:1\",\"b:2\"],\"path\":\"auto\","
		    "\"path_in_use\":\"steer\",\"workers\":2,"
		    "\"connections\":3,\"sessions\":4,"
		    "\"keys\":{\"header\":9,\"json\":1},"
		    "\"keyless\":{\"balance\":2},\"peers\":[\"10.0.0.2:7946 up\"],\"advice\":\"do "
		    "so\","
		    "\"requests_relay\":5,"
		    "\"requests_steer\":60,\"requests_splice\":600,\"path_handed_over\":8,\"path_"
		    "taken_back\":7,"
		    "\"path_refused\":{\"no_pin\":3,\"bulk\":1},"
		    "\"splice_refused\":{\"raced\":2},\"splice_devices\":[\"lo\",\"eth0\"],"
		    "\"splice_inherited\":6,"
		    "\"steer_queued_bytes\":4096,\"config_reloads\":5}",
		    request, out, err),
		CLI_OK);
	assert_string_equal(request, "GET /v1/status HTTP/1.1");
	assert_string_equal(out, "version           1\n"
				 "pid               7\n"
				 "uptime            1h02m\n"
				 "draining          no\n"
				 "listen            a:1, b:2\n"
				 "path              auto\n"
				 "path in use       steer\n"
				 "workers           2\n"
				 "connections       3\n"
				 "sessions          4\n"
				 "keys              header 9, json 1\n"
				 "keyless           balance 2\n"
				 "peers             10.0.0.2:7946 up\n"
				 "advice            do so\n"
				 "requests relayed  5\n"
				 "requests steered  60\n"
				 "requests spliced  600\n"
				 "handed over       8\n"
				 "taken back        7\n"
				 "not steered       no_pin 3, bulk 1\n"
				 "not spliced       raced 2\n"
				 "splices on        lo, eth0\n"
				 "inherited         6\n"
				 "queued            4.1 KB\n"
				 "reloads           5\n");
	assert_int_equal(ask("backends", "200 OK",
			     "{\"backends\":[{\"name\":\"gpu0\",\"address\":\"127.0.0.1:8081\","
			     "\"state\":\"up\",\"cause\":\"none\",\"weight\":1,\"slots\":0,"
			     "\"inflight\":12,\"sessions\":3,\"requests\":4,\"requests_kernel\":2,"
			     "\"bytes_up\":999,\"bytes_down\":1500000,\"state_for_s\":59},"
			     "{\"name\":\"b\",\"state\":\"down\",\"cause\":\"check\"}]}",
			     request, out, err),
			 CLI_OK);
	assert_string_equal(request, "GET /v1/backends HTTP/1.1");
	assert_string_equal(
		out,
		"NAME  ADDRESS         STATE  FOR  INFLIGHT  SLOTS  WEIGHT  SESSIONS  REQUESTS  "
		"KERNEL  RESTARTS  CAUSE\n"
		"gpu0  127.0.0.1:8081  up     59s        12      -       1         3         4  "
		"     2         -  -\n"
		"b     -               down     -         -      -       -         -         -  "
		"     -         -  check\n");
	assert_int_equal(ask("sessions --backend gpu0 --limit 1", "200 OK",
			     "{\"total\":9,\"truncated\":true,\"sessions\":[{\"session\":"
			     "\"00000000000000aa\",\"backend\":\"gpu0\",\"turns\":2,\"moves\":0,"
			     "\"context_tokens\":2520,\"cache\":\"lost\",\"last_turn\":\"warm\","
			     "\"cold_streak\":0,"
			     "\"age_s\":90.5,\"idle_s\":0.2}]}",
			     request, out, err),
			 CLI_OK);
	assert_string_equal(request, "GET /v1/sessions?limit=1&backend=gpu0 HTTP/1.1");
	assert_string_equal(out, "SESSION           BACKEND  TURNS  MOVES  TOKENS  CACHE  LATEST  "
				 "COLD    AGE  IDLE\n"
				 "00000000000000aa  gpu0         2      0    2520  lost   warm     "
				 "  -  1m30s    0s\n");
	assert_string_equal(err, "1 of 9 sessions; --limit N lists more\n");
}

static void sizes_have_units_and_long_lists_are_cut(void **state)
{
	static const struct {
		const char *bytes, *cell;
	} sizes[] = {{"0", "0 B"},	   {"1000", "1.0 KB"}, {"999949", "999.9 KB"},
		     {"999950", "1.0 MB"}, {"5e9", "5.0 GB"},  {"7e18", "7000.0 PB"},
		     {"1234567", "1.2 MB"}};
	static char out[OUT_MAX], err[OUT_MAX];
	char request[256], json[2048], line[64];
	const char *list;
	int at;

	for (unsigned int i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		sprintf(json, "{\"steer_queued_bytes\":%s}", sizes[i].bytes);
		sprintf(line, "\nqueued            %s\n", sizes[i].cell);
		assert_int_equal(ask("status", "200 OK", json, request, out, err), CLI_OK);
		assert_non_null(strstr(out, line));
	}
	at = sprintf(json, "{\"path_refused\":{");
	for (int i = 10; i < 60; i++)
		at += sprintf(json + at, "\"reason_%d\":%d%s", i, i, i < 59 ? "," : "}}");
	assert_int_equal(ask("status", "200 OK", json, request, out, err), CLI_OK);
	list = strstr(out, "not steered       reason_10 10, reason_11 11, ");
	assert_non_null(list);
	assert_memory_equal(strchr(list, '\n') - 5, ", ...", 5);
	assert_int_equal(ask("status", "200 OK", "{\"path_refused\":{}}", request, out, err),
			 CLI_OK);
	assert_non_null(strstr(out, "not steered       -\n"));
}

static void json_is_the_answer_as_it_is(void **state)
{
	static char out[OUT_MAX], err[OUT_MAX];
	char request[256];

	assert_int_equal(ask("status --json", "200 OK", "{\"b\":1.5,\"a\":[]}", request, out, err),
			 CLI_OK);
	assert_string_equal(out, "{\n  \"b\": 1.5,\n  \"a\": []\n}\n");
}

static void reload_posts_and_shows_the_note_or_the_error(void **state)
{
	static char out[OUT_MAX], err[OUT_MAX];
	char request[256];

	assert_int_equal(ask("reload", "200 OK", "{\"ok\":true,\"note\":\"\"}", request, out, err),
			 CLI_OK);
	assert_string_equal(request, "POST /v1/reload HTTP/1.1");
	assert_string_equal(out, "reloaded\n");
	assert_int_equal(ask("reload", "200 OK", "{\"ok\":true,\"note\":\"x needs a restart\"}",
			     request, out, err),
			 CLI_OK);
	assert_string_equal(out, "reloaded: x needs a restart\n");
	assert_int_equal(
		ask("reload", "422 Unprocessable", "{\"error\":\"f:1: bad\"}", request, out, err),
		CLI_FAILED);
	assert_string_equal(err, "kvpin: f:1: bad\n");
	assert_int_equal(ask("reload --json", "422 Unprocessable", "{\"error\":\"f:1: bad\"}",
			     request, out, err),
			 CLI_FAILED);
	assert_string_equal(out, "{\n  \"error\": \"f:1: bad\"\n}\n");
}

static void strange_answers_are_failures(void **state)
{
	static char out[OUT_MAX], err[OUT_MAX];
	char request[256];

	assert_int_equal(ask("status", "500 Oops", "x", request, out, err), CLI_FAILED);
	assert_string_equal(err, "kvpin: kvpin answered with status 500\n");
	assert_int_equal(ask("status", "200 OK", "[]", request, out, err), CLI_FAILED);
	assert_string_equal(err, "kvpin: kvpin's answer is not a JSON object (other JSON); is it "
				 "another version?\n");
	assert_int_equal(ask("backends", "200 OK", "{\"backends\":7}", request, out, err), CLI_OK);
}

static void no_daemon_is_said_plainly(void **state)
{
	static char out[OUT_MAX], err[OUT_MAX];
	char path[64], line[256], expected[512];

	sprintf(path, "%s/none.sock", dir);
	sprintf(line, "kvpin status --control %s", path);
	assert_int_equal(command(line, out, err), CLI_FAILED);
	snprintf(expected, sizeof(expected),
		 "kvpin: kvpin is not running: there is no %s (another place? --control PATH)\n",
		 path);
	assert_string_equal(err, expected);
	sprintf(line, "kvpin status --control %s", dir);
	assert_int_equal(command(line, out, err), CLI_FAILED);
	snprintf(expected, sizeof(expected),
		 "kvpin: %s is no control socket (another place? --control PATH)\n", dir);
	assert_string_equal(err, expected);
	sprintf(line, "kvpin status --control %s", path);
	close(fake_listen(path));
	assert_int_equal(command(line, out, err), CLI_FAILED);
	snprintf(
		expected, sizeof(expected),
		"kvpin: kvpin is not running: nobody listens on %s, a leftover of an earlier run\n",
		path);
	assert_string_equal(err, expected);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_print_tables),
		cmocka_unit_test(sizes_have_units_and_long_lists_are_cut),
		cmocka_unit_test(json_is_the_answer_as_it_is),
		cmocka_unit_test(reload_posts_and_shows_the_note_or_the_error),
		cmocka_unit_test(strange_answers_are_failures),
		cmocka_unit_test(no_daemon_is_said_plainly),
	};

	return cmocka_run_group_tests_name("control commands", tests, make_dir, remove_dir);
}
