/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* kvpin.yaml: every key, defaults, files that cannot be read. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "ops/config_file.h"
#include "setting_case.h"

/* Parses, or fails the test with the message. */
static void parse(const char *yaml, struct config *c)
{
	struct config_error e;

	config_defaults(c);
	if (config_parse("kvpin.yaml", yaml, strlen(yaml), c, NULL, &e))
		fail_msg("%s", e.text);
}

static void assert_setting(const struct config *c, const char *key, const char *expected)
{
	char text[SETTING_TEXT_MAX];

	assert_string_equal(setting_format(find(key), c, text), expected);
}

static void an_empty_file_keeps_all_defaults(void **state)
{
	static const char *const empty[] = {"", "# nothing\n", "{}", "\n\n",
					    "%YAML 1.1\n---\n{}\n"};
	struct config *want = test_malloc(sizeof(*want)), *c = test_malloc(sizeof(*c));
	unsigned int i;

	config_defaults(want);
	for (i = 0; i < NR(empty); i++) {
		parse(empty[i], c);
		assert_memory_equal(c, want, sizeof(*c));
	}
	test_free(want);
	test_free(c);
}

static void the_reference_is_the_default(void **state)
{
	struct config c;

	config_defaults(&c);
	assert_setting(&c, "listen", "");
	assert_setting(&c, "backends", "");
	assert_setting(&c, "workers", "auto");
	assert_setting(&c, "path", "auto");
	assert_setting(&c, "placement", "balanced");
	assert_setting(&c, "forwarded_for", "false");
	assert_setting(&c, "affinity.keys", "X-LB-Hash, X-Session-Id, X-Conversation-Id");
	assert_setting(&c, "sessions.ttl", "1h");
	assert_setting(&c, "sessions.max", "1000000");
	assert_setting(&c, "sessions.state", "auto");
	assert_setting(&c, "health.path", "/health");
	assert_setting(&c, "health.interval", "2s");
	assert_setting(&c, "health.timeout", "1s");
	assert_setting(&c, "health.rise", "2");
	assert_setting(&c, "health.fall", "3");
	assert_setting(&c, "timeouts.head", "10s");
	assert_setting(&c, "timeouts.idle", "75s");
	assert_setting(&c, "timeouts.body", "1m");
	assert_setting(&c, "timeouts.connect", "2s");
	assert_setting(&c, "timeouts.stall", "15m");
	assert_setting(&c, "timeouts.tunnel", "1h");
	assert_setting(&c, "timeouts.drain", "30s");
	assert_setting(&c, "limits.head", "32KiB");
	assert_setting(&c, "limits.fields", "100");
	assert_setting(&c, "limits.hold", "256KiB");
	assert_setting(&c, "limits.connections", "8192");
	assert_setting(&c, "steer.pin", "/sys/fs/bpf/kvpin");
	assert_setting(&c, "steer.budget", "256KiB");
	assert_setting(&c, "steer.budget_all", "64MiB");
	assert_setting(&c, "steer.holds", "256");
	assert_setting(&c, "steer.ring", "1MiB");
	assert_setting(&c, "metrics", "127.0.0.1:9464");
	assert_setting(&c, "control", "/run/kvpin/control.sock");
	assert_setting(&c, "log.level", "info");
	assert_setting(&c, "log.format", "logfmt");
	assert_setting(&c, "log.requests", "false");
}

static void every_key_arrives_in_its_field(void **state)
{
	struct config c;

	parse("listen: [\"127.0.0.1:1\", \"[::1]:2\"]\n"
	      "workers: 3\n"
	      "path: relay\n"
	      "affinity:\n"
	      "  keys: [{header: X-A}, {header: x_b}]\n"
	      "sessions: {ttl: 2h, max: 5, state: ./s}\n"
	      "placement: round-robin\n"
	      "backends:\n"
	      "  - {name: gpu0, address: \"127.0.0.1:8081\", slots: 4, weight: 7}\n"
	      "  - name: gpu-1.b_c\n"
	      "    address: \"[2001:db8::1]:8082\"\n"
	      "health: {path: \"/v1/ready?x=1\", interval: 3s, timeout: 1500ms, rise: 4, fall: 5}\n"
	      "timeouts: {head: 1s, idle: 2s, body: 3s, connect: 4s, stall: 5s, tunnel: 6s, drain: "
	      "0}\n"
	      "limits: {head: 4KiB, fields: 7, hold: 8KB, connections: 9}\n"
	      "steer: {pin: /sys/fs/bpf/x//, budget: 64KiB, budget_all: 1MiB, holds: 10, ring: "
	      "8KiB}\n"
	      "forwarded_for: true\n"
	      "metrics: \"127.0.0.1:10\"\n"
	      "control: ./c.sock\n"
	      "log: {level: debug, format: json, requests: true}\n",
	      &c);
	assert_int_equal(c.nr_listen, 2);
	assert_int_equal(addr_port(&c.listen[0]), 1);
	assert_int_equal(addr_port(&c.listen[1]), 2);
	assert_int_equal(c.workers, 3);
	assert_int_equal(c.path, PATH_RELAY);
	assert_int_equal(c.nr_keys, 2);
	assert_string_equal(c.key[0].name, "X-A");
	assert_string_equal(c.key[1].name, "x_b");
	assert_int_equal(c.session_ttl_ms, 7200000);
	assert_int_equal(c.session_max, 5);
	assert_int_equal(c.placement, PLACEMENT_ROUND_ROBIN);
	assert_int_equal(c.nr_backends, 2);
	assert_string_equal(c.backend[0].name, "gpu0");
	assert_int_equal(c.backend[0].slots, 4);
	assert_int_equal(c.backend[0].weight, 7);
	assert_string_equal(c.backend[1].name, "gpu-1.b_c");
	assert_int_equal(addr_port(&c.backend[1].addr), 8082);
	assert_int_equal(c.backend[1].slots, 0);
	assert_int_equal(c.backend[1].weight, 1);
	assert_string_equal(c.health.path, "/v1/ready?x=1");
	assert_int_equal(c.health.interval_ms, 3000);
	assert_int_equal(c.health.timeout_ms, 1500);
	assert_int_equal(c.health.rise, 4);
	assert_int_equal(c.health.fall, 5);
	assert_int_equal(c.timeout.head_ms, 1000);
	assert_int_equal(c.timeout.idle_ms, 2000);
	assert_int_equal(c.timeout.body_ms, 3000);
	assert_int_equal(c.timeout.connect_ms, 4000);
	assert_int_equal(c.timeout.stall_ms, 5000);
	assert_int_equal(c.timeout.tunnel_ms, 6000);
	assert_int_equal(c.timeout.drain_ms, 0);
	assert_int_equal(c.limit.head_bytes, 4096);
	assert_int_equal(c.limit.head_fields, 7);
	assert_int_equal(c.limit.hold_bytes, 8000);
	assert_int_equal(c.limit.connections, 9);
	assert_string_equal(c.steer.pin, "/sys/fs/bpf/x");
	assert_int_equal(c.steer.budget_bytes, 65536);
	assert_int_equal(c.steer.budget_all_bytes, 1048576);
	assert_int_equal(c.steer.holds, 10);
	assert_int_equal(c.steer.ring_bytes, 8192);
	assert_true(c.forwarded_for);
	assert_true(c.has_metrics);
	assert_int_equal(addr_port(&c.metrics), 10);
	assert_string_equal(c.control, "./c.sock");
	assert_string_equal(c.session_state, "./s");
	assert_int_equal(c.log.level, LOG_DEBUG);
	assert_int_equal(c.log.format, LOG_JSON);
	assert_true(c.log.requests);
}

static void off_and_auto_are_values(void **state)
{
	struct config c;

	parse("{metrics: off, control: off, workers: auto, health: {interval: off}}", &c);
	assert_false(c.has_metrics);
	assert_string_equal(c.control, "");
	assert_int_equal(c.workers, 0);
	assert_false(config_checks(&c));
	parse("{workers: 0, health: {interval: 0}, limits: {hold: 0}}", &c);
	assert_int_equal(c.workers, 0);
	assert_false(config_checks(&c));
	assert_int_equal(c.limit.hold_bytes, 0);
}

static void an_empty_list_of_keys_is_no_affinity(void **state)
{
	struct config c;

	parse("affinity: {keys: []}", &c);
	assert_int_equal(c.nr_keys, 0);
	parse("affinity: {}", &c);
	assert_int_equal(c.nr_keys, 3);
}

static void as_many_backends_as_there_may_be(void **state)
{
	struct config_error e;
	struct config c;
	char yaml[8192];
	int i, at, nr;

	for (nr = BACKENDS_MAX; nr <= BACKENDS_MAX + 1; nr++) {
		at = sprintf(yaml, "backends:\n");
		for (i = 0; i < nr; i++)
			at += sprintf(yaml + at, "  - {name: gpu%d, address: \"10.0.0.%d:80\"}\n",
				      i, i + 1);
		config_defaults(&c);
		if (nr == BACKENDS_MAX) {
			assert_int_equal(config_parse("f", yaml, at, &c, NULL, &e), 0);
			assert_int_equal(c.nr_backends, BACKENDS_MAX);
			continue;
		}
		assert_int_equal(config_parse("f", yaml, at, &c, NULL, &e), -EINVAL);
		assert_string_equal(e.text, "f:1:1: backends: has too many entries; at most 64");
	}
}

static void a_file_of_many_values_is_refused(void **state)
{
	struct config_error e;
	struct config c;
	char *yaml = test_malloc(32768);
	int i, at;

	at = sprintf(yaml, "listen: [");
	for (i = 0; i < 5000; i++)
		at += sprintf(yaml + at, "a, ");
	at += sprintf(yaml + at, "]");
	config_defaults(&c);
	assert_int_equal(config_parse("f", yaml, at, &c, NULL, &e), -EINVAL);
	assert_string_equal(e.text, "f:1:6151: too many values for a configuration");
	test_free(yaml);
}

static void a_huge_file_is_refused(void **state)
{
	char path[] = "/tmp/kvpin-test-XXXXXX", line[1024], expected[256];
	int i, fd = mkstemp(path);
	struct config_error e;
	struct config c;

	assert_true(fd >= 0);
	memset(line, '#', sizeof(line));
	line[sizeof(line) - 1] = '\n';
	for (i = 0; i < 257; i++)
		assert_int_equal(write(fd, line, sizeof(line)), sizeof(line));
	close(fd);
	config_defaults(&c);
	assert_int_equal(config_load(path, &c, NULL, &e), -EINVAL);
	snprintf(expected, sizeof(expected),
		 "%s: is over 256 KiB, so it is no configuration of kvpin", path);
	assert_string_equal(e.text, expected);
	unlink(path);
}

static void a_file_that_cannot_be_read_says_why(void **state)
{
	struct config_error e;
	struct config c;

	config_defaults(&c);
	assert_int_equal(config_load("/nonexistent/kvpin.yaml", &c, NULL, &e), -ENOENT);
	assert_string_equal(e.text,
			    "/nonexistent/kvpin.yaml: cannot be read: No such file or directory");
	assert_int_equal(config_load("/tmp", &c, NULL, &e), -EISDIR);
	assert_string_equal(e.text, "/tmp: cannot be read: Is a directory");
}

static void what_the_whole_tells_gets_its_line(void **state)
{
	static const char yaml[] = "listen: [\"0.0.0.0:80\"]\n\nhealth:\n  interval: 1s\n"
				   "  timeout: 2s\nbackends: []\n";
	struct yaml_index index;
	struct config_error e;
	struct config c;

	config_defaults(&c);
	assert_int_equal(config_parse("f", yaml, strlen(yaml), &c, &index, &e), 0);
	config_error_locate("f", &index, "health.timeout (2000 ms) is longer", &e);
	assert_string_equal(e.text, "f:5: health.timeout (2000 ms) is longer");
	assert_int_equal(e.line, 5);
	assert_string_equal(e.field, "health.timeout");
	config_error_locate("f", &index, "backends: address x", &e);
	assert_string_equal(e.text, "f:6: backends: address x");
	config_error_locate("f", &index, "metrics and listen share x", &e);
	assert_string_equal(e.text, "f: metrics and listen share x");
	yaml_index_fini(&index);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_file_keeps_all_defaults),
		cmocka_unit_test(the_reference_is_the_default),
		cmocka_unit_test(every_key_arrives_in_its_field),
		cmocka_unit_test(off_and_auto_are_values),
		cmocka_unit_test(an_empty_list_of_keys_is_no_affinity),
		cmocka_unit_test(as_many_backends_as_there_may_be),
		cmocka_unit_test(a_file_of_many_values_is_refused),
		cmocka_unit_test(a_huge_file_is_refused),
		cmocka_unit_test(a_file_that_cannot_be_read_says_why),
		cmocka_unit_test(what_the_whole_tells_gets_its_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
