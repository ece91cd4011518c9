/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The command line: flags over file over defaults, usage errors, exit statuses. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cli/options.h"
#include "cli_case.h"

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
	assert_string_equal(e.text, "--health-timeout: health.timeout (3000 ms) is longer than "
				    "health.interval (1000 ms); lower the one or raise the other");
	assert_null(build("run --backend a=127.0.0.1:81", &e));
	assert_string_equal(e.text, "--listen: listen is empty; name an address for clients, e.g. "
				    "0.0.0.0:8080");
	assert_null(build("run --listen 127.0.0.1:80", &e));
	assert_string_equal(e.text, "--backend: backends is empty; name a server, e.g. --backend "
				    "gpu0=127.0.0.1:8081, or in a file {name: gpu0, address: "
				    "\"127.0.0.1:8081\"}");
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
	assert_non_null(strstr(out, "\"slots\": 0,"));
	sprintf(line, "kvpin check --json %s --backend a=127.0.0.1:81,slots=auto", path);
	assert_int_equal(command(line, out, err), CLI_OK);
	assert_non_null(strstr(out, "\"slots\": \"auto\","));
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
	};

	return cmocka_run_group_tests_name("command line", tests, make_dir, remove_dir);
}
