/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The command line: flags over file over defaults, usage errors, exit statuses, and the control
 * commands against a small server of their own.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/cli.h"
#include "cli/options.h"

#define ARGS_MAX 24
#define OUT_MAX	 32768

static char dir[] = "/tmp/kvpin-cli-XXXXXX";

/* "run --listen x" -> argv; the texts live until the next call. */
static int split(const char *line, char **argv)
{
	static char copy[1024];
	char *rest = copy, *word;
	int argc = 0;

	assert_true(strlen(line) < sizeof(copy));
	strcpy(copy, line);
	while ((word = strsep(&rest, " "))) {
		assert_true(argc < ARGS_MAX);
		argv[argc++] = word;
	}
	argv[argc] = NULL;
	return argc;
}

static void write_file(const char *name, const char *text, char *path)
{
	FILE *f;

	sprintf(path, "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

/* The configuration that a command line makes, or NULL and the error. */
static struct config *build(const char *line, struct config_error *e)
{
	char *argv[ARGS_MAX + 1], why[1024];
	struct options o;
	struct config *c;
	int argc = split(line, argv);

	if (options_parse(&o, argc, argv, false, why, sizeof(why)))
		fail_msg("%s", why);
	c = options_load(&o, e);
	options_fini(&o);
	return c;
}

static struct config *must_build(const char *line)
{
	struct config_error e;
	struct config *c = build(line, &e);

	if (!c)
		fail_msg("%s", e.text);
	return c;
}

static void assert_usage(const char *line, const char *expected)
{
	char *argv[ARGS_MAX + 1], why[1024] = "";
	struct options o;
	int argc = split(line, argv);

	assert_int_equal(options_parse(&o, argc, argv, false, why, sizeof(why)), -EINVAL);
	options_fini(&o);
	assert_string_equal(why, expected);
}

/* cli_main() with stdout and stderr caught. */
static int command(const char *line, char *out, char *err)
{
	char *argv[ARGS_MAX + 1], paths[2][64];
	int fds[2] = {dup(1), dup(2)}, ret, i, argc;
	char *to[2] = {out, err};
	size_t n;

	fflush(NULL);
	for (i = 0; i < 2; i++) {
		sprintf(paths[i], "%s/out%d", dir, i);
		assert_non_null(freopen(paths[i], "w", i ? stderr : stdout));
	}
	argc = split(line, argv);
	ret = cli_main(argc, argv);
	fflush(NULL);
	for (i = 0; i < 2; i++) {
		FILE *f = fopen(paths[i], "r");

		dup2(fds[i], i + 1);
		close(fds[i]);
		n = fread(to[i], 1, OUT_MAX - 1, f);
		to[i][n] = '\0';
		fclose(f);
	}
	return ret;
}

static void flags_alone_make_a_configuration(void **state)
{
	struct config *c = must_build("run --listen 127.0.0.1:80 --listen [::1]:81 "
				      "--backend gpu0=127.0.0.1:8081,slots=4,weight=2 "
				      "--backend gpu1=127.0.0.1:8082");

	assert_int_equal(c->nr_listen, 2);
	assert_int_equal(c->nr_backends, 2);
	assert_string_equal(c->backend[0].name, "gpu0");
	assert_int_equal(c->backend[0].slots, 4);
	assert_int_equal(c->backend[0].weight, 2);
	assert_int_equal(c->backend[1].slots, 0);
	assert_int_equal(c->backend[1].weight, 1);
	assert_int_equal(c->nr_keys, 3);
	/* auto is settled before publication. */
	assert_in_range(c->workers, 1, WORKERS_MAX);
	free(c);
}

static void every_flag_arrives_in_its_field(void **state)
{
	struct config *c;

	c = must_build("run --listen=127.0.0.1:80 --backend=a=127.0.0.1:81 --workers=3 "
		       "--path=relay --session-header=X-A --session-header=X-B --ttl=2h "
		       "--max-sessions=5 --placement=hash --health-path=/h --health-interval=3s "
		       "--health-timeout=4ms --health-rise=6 --health-fall=7 --forwarded-for");
	assert_int_equal(c->workers, 3);
	assert_int_equal(c->path, PATH_RELAY);
	assert_int_equal(c->nr_keys, 2);
	assert_string_equal(c->key[1].name, "X-B");
	assert_int_equal(c->session_ttl_ms, 7200000);
	assert_int_equal(c->session_max, 5);
	assert_int_equal(c->placement, PLACEMENT_HASH);
	assert_string_equal(c->health.path, "/h");
	assert_int_equal(c->health.interval_ms, 3000);
	assert_int_equal(c->health.timeout_ms, 4);
	assert_int_equal(c->health.rise, 6);
	assert_int_equal(c->health.fall, 7);
	assert_true(c->forwarded_for);
	free(c);
	c = must_build("run --listen 127.0.0.1:80 --backend a=127.0.0.1:81 --timeout-head 1s "
		       "--timeout-idle 2s --timeout-body 3s --timeout-connect 4s "
		       "--timeout-stall 5s --timeout-tunnel 6s --drain 7s --health-interval off");
	assert_int_equal(c->timeout.head_ms, 1000);
	assert_int_equal(c->timeout.idle_ms, 2000);
	assert_int_equal(c->timeout.body_ms, 3000);
	assert_int_equal(c->timeout.connect_ms, 4000);
	assert_int_equal(c->timeout.stall_ms, 5000);
	assert_int_equal(c->timeout.tunnel_ms, 6000);
	assert_int_equal(c->timeout.drain_ms, 7000);
	assert_false(config_checks(c));
	free(c);
	c = must_build("run --listen 127.0.0.1:80 --backend a=127.0.0.1:81 --limit-head 2KiB "
		       "--limit-fields 8 --limit-hold 0 --limit-connections 9 --metrics off "
		       "--control off --log-level=debug --log-format=json --log-requests "
		       "--no-affinity");
	assert_int_equal(c->limit.head_bytes, 2048);
	assert_int_equal(c->limit.head_fields, 8);
	assert_int_equal(c->limit.hold_bytes, 0);
	assert_int_equal(c->limit.connections, 9);
	assert_false(c->has_metrics);
	assert_string_equal(c->control, "");
	assert_int_equal(c->log.level, LOG_DEBUG);
	assert_int_equal(c->log.format, LOG_JSON);
	assert_true(c->log.requests);
	assert_int_equal(c->nr_keys, 0);
	free(c);
}

static void flags_override_the_file_and_replace_its_lists(void **state)
{
	char path[64], line[512];
	struct config *c;

	write_file("kvpin.yaml",
		   "listen: [\"127.0.0.1:80\"]\nbackends:\n"
		   "  - {name: a, address: \"127.0.0.1:81\"}\n"
		   "  - {name: b, address: \"127.0.0.1:82\"}\n"
		   "affinity: {keys: [{header: X-File}]}\n"
		   "workers: 2\nsessions: {ttl: 5m}\nlog: {requests: true}\n",
		   path);
	sprintf(line, "run --config %s --workers 4 --backend c=127.0.0.1:83 --log-requests=false",
		path);
	c = must_build(line);
	assert_int_equal(c->workers, 4);
	assert_int_equal(c->nr_backends, 1);
	assert_string_equal(c->backend[0].name, "c");
	assert_int_equal(addr_port(&c->listen[0]), 80);
	assert_int_equal(c->session_ttl_ms, 300000);
	assert_string_equal(c->key[0].name, "X-File");
	assert_false(c->log.requests);
	free(c);
	sprintf(line, "run --config %s --session-header X-Flag", path);
	c = must_build(line);
	assert_int_equal(c->nr_keys, 1);
	assert_string_equal(c->key[0].name, "X-Flag");
	assert_int_equal(c->nr_backends, 2);
	free(c);
	sprintf(line, "run --config %s --no-affinity", path);
	c = must_build(line);
	assert_int_equal(c->nr_keys, 0);
	free(c);
}

static void a_reload_reads_the_file_again_under_the_same_flags(void **state)
{
	static const char text[] = "listen: [\"127.0.0.1:80\"]\nworkers: %s\nsessions: {max: %s}\n";
	char path[64], line[512], yaml[256], why[1024], *argv[ARGS_MAX + 1];
	struct config_error e;
	struct options o;
	struct config *c;
	int argc;

	sprintf(yaml, text, "2", "7");
	write_file("reload.yaml", yaml, path);
	sprintf(line, "run --config %s --backend c=127.0.0.1:83 --workers 5", path);
	argc = split(line, argv);
	assert_int_equal(options_parse(&o, argc, argv, false, why, sizeof(why)), 0);
	c = options_load(&o, &e);
	assert_non_null(c);
	assert_int_equal(c->session_max, 7);
	free(c);
	sprintf(yaml, text, "3", "8");
	write_file("reload.yaml", yaml, path);
	c = options_load(&o, &e);
	assert_non_null(c);
	assert_int_equal(c->session_max, 8);
	assert_int_equal(c->workers, 5);
	assert_int_equal(c->nr_backends, 1);
	free(c);
	write_file("reload.yaml", "worker: 1", path);
	assert_null(options_load(&o, &e));
	assert_int_equal(e.line, 1);
	options_fini(&o);
}

static void an_error_of_the_whole_names_the_files_line_unless_a_flag_set_it(void **state)
{
	char path[64], line[512], expected[512];
	struct config_error e;

	write_file("whole.yaml",
		   "listen: [\"127.0.0.1:80\"]\nhealth:\n  interval: 1s\n  timeout: 2s\n"
		   "backends: [{name: a, address: \"127.0.0.1:81\"}]\n",
		   path);
	sprintf(line, "run --config %s", path);
	assert_null(build(line, &e));
	snprintf(expected, sizeof(expected),
		 "%s:4: health.timeout (2000 ms) is longer than health.interval (1000 ms); lower "
		 "the "
		 "one or raise the other",
		 path);
	assert_string_equal(e.text, expected);
	sprintf(line, "run --config %s --health-timeout 3s", path);
	assert_null(build(line, &e));
	assert_string_equal(e.text, "health.timeout (3000 ms) is longer than health.interval (1000 "
				    "ms); lower the one or raise the other");
	assert_null(build("run --backend a=127.0.0.1:81", &e));
	assert_string_equal(e.text,
			    "listen is empty; name an address for clients, e.g. 0.0.0.0:8080");
}

static void wrong_flags_are_usage_errors(void **state)
{
	assert_usage("run --lisen x", "\"--lisen\" is unknown; did you mean --listen?");
	assert_usage("run --frobnicate", "\"--frobnicate\" is unknown");
	assert_usage("run --health=x", "\"--health=x\" fits several flags; write one out");
	assert_usage("run --listen", "--listen has no value; write --listen ADDR");
	assert_usage("run --config", "--config has no value; write --config FILE");
	assert_usage("run --no-affinity=1", "--no-affinity takes no value");
	assert_usage("run -l", "-l is unknown; flags are words, such as --help");
	assert_usage("run -xyz", "-x is unknown; flags are words, such as --help");
	assert_usage("run 0.0.0.0:80", "\"0.0.0.0:80\" is not a flag and is not expected here");
	assert_usage("run x --lisen y", "\"--lisen\" is unknown; did you mean --listen?");
	assert_usage("run --no-affinity --session-header X-A",
		     "--no-affinity and --session-header contradict each other");
	assert_usage("run --json", "\"--json\" is unknown");
}

static void wrong_values_of_flags_are_usage_errors(void **state)
{
	assert_usage("run --ttl 5", "--ttl: \"5\" has no unit; write 5s (units: ms, s, m, h)");
	assert_usage("run --ttl=", "--ttl: has no value; write one such as 1h");
	assert_usage("run --log-requests=yes",
		     "--log-requests: \"yes\" is not a boolean; write true or false");
	assert_usage("run --path fast",
		     "--path: \"fast\" is not known; write one of auto, relay, steer, splice");
	assert_usage("run --listen 127.0.0.1",
		     "--listen: \"127.0.0.1\" has no port; write it as 127.0.0.1:8080");
	assert_usage("run --backend 127.0.0.1:81",
		     "--backend: \"127.0.0.1:81\" is not "
		     "NAME=HOST:PORT; write it as gpu0=127.0.0.1:8081");
	assert_usage("run --backend a=127.0.0.1",
		     "--backend: \"127.0.0.1\" has no port; write it as 127.0.0.1:8080");
	assert_usage("run --backend a=127.0.0.1:81,slot=1",
		     "--backend: \"slot\" is not known behind the address; write slots=N or "
		     "weight=N");
	assert_usage("run --backend a=127.0.0.1:81,slots",
		     "--backend: slots has no value; write slots=4");
	assert_usage("run --backend a=127.0.0.1:81,slots=1,slots=2",
		     "--backend: slots is given twice; remove one");
	assert_usage("run --backend a=127.0.0.1:81,slots=many",
		     "--backend: slots: \"many\" is not a whole number; write one from 0 to 1024, "
		     "or auto");
	assert_usage("run --backend a=127.0.0.1:81 --backend a=127.0.0.1:82",
		     "--backend: \"a\" is the name of another server too; rename one");
	assert_usage("run --session-header Host",
		     "--session-header: \"Host\" steers the connection and cannot name a session; "
		     "use a header of its own, such as X-Session-Id");
}

static void commands_end_with_their_status(void **state)
{
	static char out[OUT_MAX], err[OUT_MAX];

	assert_int_equal(command("kvpin --version", out, err), CLI_OK);
	assert_string_equal(out, "kvpin " KVPIN_VERSION "\n");
	assert_int_equal(command("kvpin version", out, err), CLI_OK);
	assert_int_equal(command("kvpin --help", out, err), CLI_OK);
	assert_int_equal(command("kvpin help check", out, err), CLI_OK);
	assert_non_null(strstr(out, "usage: kvpin check [FILE]"));
	assert_int_equal(command("kvpin", out, err), CLI_USAGE);
	assert_string_equal(out, "");
	assert_int_equal(command("kvpin stauts", out, err), CLI_USAGE);
	assert_string_equal(err, "kvpin: unknown command \"stauts\"; did you mean \"status\"?\n"
				 "Try: kvpin help\n");
	assert_int_equal(command("kvpin help nothing-like-it", out, err), CLI_USAGE);
	assert_int_equal(command("kvpin run --ttl 5", out, err), CLI_USAGE);
	assert_int_equal(command("kvpin sessions --limit 0", out, err), CLI_USAGE);
	assert_int_equal(command("kvpin status x", out, err), CLI_USAGE);
}

static void the_help_of_run_has_every_flag(void **state)
{
	static char out[OUT_MAX], err[OUT_MAX];
	char flag[64];
	unsigned int i;

	assert_int_equal(command("kvpin run --help", out, err), CLI_OK);
	for (i = 0; i < settings_nr; i++) {
		snprintf(flag, sizeof(flag), "  --%s", settings[i].flag);
		assert_non_null(strstr(out, flag));
	}
}

static void check_says_ok_or_why_not(void **state)
{
	static char out[OUT_MAX], err[OUT_MAX];
	char path[64], line[256], expected[512];

	write_file("check.yaml",
		   "listen: [\"127.0.0.1:80\"]\nbackends: [{name: a, address: \"127.0.0.1:81\"}]\n",
		   path);
	sprintf(line, "kvpin check %s", path);
	assert_int_equal(command(line, out, err), CLI_OK);
	snprintf(expected, sizeof(expected),
		 "%s: ok: 1 backend, listening on 127.0.0.1:80, placement balanced, sessions by "
		 "X-LB-Hash, X-Session-Id, X-Conversation-Id\n",
		 path);
	assert_string_equal(out, expected);
	assert_string_equal(err, "");
	sprintf(line, "kvpin check --json %s --no-affinity --ttl 90s", path);
	assert_int_equal(command(line, out, err), CLI_OK);
	assert_non_null(strstr(out, "\"ok\": true"));
	assert_non_null(strstr(out, "\"sessions.ttl\": \"90s\""));
	assert_non_null(strstr(out, "\"affinity.keys\": []"));
	write_file("check.yaml", "workers: 0\nworker: 1\n", path);
	sprintf(line, "kvpin check --json %s", path);
	assert_int_equal(command(line, out, err), CLI_FAILED);
	assert_non_null(strstr(out, "\"ok\": false"));
	assert_non_null(strstr(out, "\"line\": 2"));
	assert_non_null(strstr(out, "\"field\": \"worker\""));
	snprintf(expected, sizeof(expected),
		 "%s:2:1: worker: unknown key; did you mean \"workers\"?\n", path);
	assert_string_equal(err, expected);
	assert_int_equal(command("kvpin check /nonexistent", out, err), CLI_FAILED);
}

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
	close(fake_listen(path));
	assert_int_equal(command(line, out, err), CLI_FAILED);
	snprintf(
		expected, sizeof(expected),
		"kvpin: kvpin is not running: nobody listens on %s, a leftover of an earlier run\n",
		path);
	assert_string_equal(err, expected);
}

static int make_dir(void **state)
{
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	static const char *const names[] = {"kvpin.yaml", "reload.yaml", "whole.yaml", "check.yaml",
					    "out0",	  "out1",	 "c.sock",     "none.sock"};
	char path[64];
	unsigned int i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		sprintf(path, "%s/%s", dir, names[i]);
		unlink(path);
	}
	return rmdir(dir);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(flags_alone_make_a_configuration),
		cmocka_unit_test(every_flag_arrives_in_its_field),
		cmocka_unit_test(flags_override_the_file_and_replace_its_lists),
		cmocka_unit_test(a_reload_reads_the_file_again_under_the_same_flags),
		cmocka_unit_test(an_error_of_the_whole_names_the_files_line_unless_a_flag_set_it),
		cmocka_unit_test(wrong_flags_are_usage_errors),
		cmocka_unit_test(wrong_values_of_flags_are_usage_errors),
		cmocka_unit_test(commands_end_with_their_status),
		cmocka_unit_test(the_help_of_run_has_every_flag),
		cmocka_unit_test(check_says_ok_or_why_not),
		cmocka_unit_test(reads_print_tables),
		cmocka_unit_test(sizes_have_units_and_long_lists_are_cut),
		cmocka_unit_test(json_is_the_answer_as_it_is),
		cmocka_unit_test(reload_posts_and_shows_the_note_or_the_error),
		cmocka_unit_test(strange_answers_are_failures),
		cmocka_unit_test(no_daemon_is_said_plainly),
	};

	return cmocka_run_group_tests_name("command line", tests, make_dir, remove_dir);
}
