/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Defaults, and what config_finish() refuses and says. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "core/config.h"

static struct config c; /* too large for comfort on the stack */
static char why[256];

static struct addr address(const char *text)
{
	const char *reason = NULL;
	struct addr a;

	if (addr_parse(text, &a, &reason))
		fail_msg("%s: %s", text, reason);
	return a;
}

static void add_backend(const char *name, const char *text)
{
	struct backend_config *b = &c.backend[c.nr_backends++];

	memset(b, 0, sizeof(*b));
	snprintf(b->name, sizeof(b->name), "%s", name);
	b->addr = address(text);
	b->weight = 1;
}

static void set_key(unsigned int i, const char *name)
{
	snprintf(c.key[i].name, sizeof(c.key[i].name), "%s", name);
	if (c.nr_keys <= i)
		c.nr_keys = i + 1;
}

/* The smallest good configuration. */
static int begin(void **state)
{
	config_defaults(&c);
	c.listen[c.nr_listen++] = address("0.0.0.0:8080");
	add_backend("gpu0", "127.0.0.1:8081");
	add_backend("gpu1", "127.0.0.1:8082");
	why[0] = 0;
	return 0;
}

static void assert_good(void)
{
	if (config_finish(&c, why, sizeof(why)))
		fail_msg("refused: %s", why);
}

/* Refused, with a text that has all of these words (separated by '|'). */
static void assert_refused(const char *words)
{
	char copy[256], *word, *rest;

	assert_int_equal(config_finish(&c, why, sizeof(why)), -EINVAL);
	snprintf(copy, sizeof(copy), "%s", words);
	for (word = strtok_r(copy, "|", &rest); word; word = strtok_r(NULL, "|", &rest))
		if (!strstr(why, word))
			fail_msg("\"%s\" is not in: %s", word, why);
}

static void defaults_are_as_the_reference_says(void **state)
{
	char text[ADDR_TEXT_MAX];

	memset(&c, 0xff, sizeof(c));
	config_defaults(&c);
	assert_int_equal(c.nr_listen, 0);
	assert_int_equal(c.workers, 0);
	assert_int_equal(c.path, PATH_AUTO);
	assert_int_equal(c.nr_keys, 3);
	assert_string_equal(c.key[0].name, "X-LB-Hash");
	assert_string_equal(c.key[1].name, "X-Session-Id");
	assert_string_equal(c.key[2].name, "X-Conversation-Id");
	assert_int_equal(c.placement, PLACEMENT_BALANCED);
	assert_int_equal(c.session_ttl_ms, 3600000);
	assert_int_equal(c.session_max, 1000000);
	assert_int_equal(c.nr_backends, 0);
	assert_string_equal(c.health.path, "/health");
	assert_int_equal(c.health.interval_ms, 2000);
	assert_int_equal(c.health.timeout_ms, 1000);
	assert_int_equal(c.health.rise, 2);
	assert_int_equal(c.health.fall, 3);
	assert_int_equal(c.timeout.head_ms, 10000);
	assert_int_equal(c.timeout.idle_ms, 75000);
	assert_int_equal(c.timeout.body_ms, 60000);
	assert_int_equal(c.timeout.connect_ms, 2000);
	assert_int_equal(c.timeout.stall_ms, 900000);
	assert_int_equal(c.timeout.tunnel_ms, 3600000);
	assert_int_equal(c.timeout.drain_ms, 30000);
	assert_int_equal(c.limit.head_bytes, 32768);
	assert_int_equal(c.limit.head_fields, 100);
	assert_int_equal(c.limit.hold_bytes, 262144);
	assert_int_equal(c.limit.connections, 8192);
	assert_false(c.forwarded_for);
	assert_true(c.has_metrics);
	assert_string_equal(addr_format(&c.metrics, text), "127.0.0.1:9464");
	assert_string_equal(c.control, "/run/kvpin/control.sock");
	assert_string_equal(c.session_state, "auto");
	assert_string_equal(c.steer.pin, "/sys/fs/bpf/kvpin");
	assert_int_equal(c.steer.budget_bytes, 262144);
	assert_int_equal(c.steer.budget_all_bytes, 67108864);
	assert_int_equal(c.steer.holds, 256);
	assert_int_equal(c.steer.ring_bytes, 1048576);
	assert_int_equal(c.log.level, LOG_INFO);
	assert_int_equal(c.log.format, LOG_LOGFMT);
	assert_false(c.log.requests);
}

static void defaults_with_a_listener_and_servers_are_complete(void **state)
{
	assert_good();
}

static void choices_have_the_names_of_the_reference(void **state)
{
	assert_string_equal(path_mode_names[PATH_AUTO], "auto");
	assert_string_equal(path_mode_names[PATH_RELAY], "relay");
	assert_string_equal(path_mode_names[PATH_STEER], "steer");
	assert_string_equal(placement_names[PLACEMENT_BALANCED], "balanced");
	assert_string_equal(placement_names[PLACEMENT_HASH], "hash");
	assert_string_equal(placement_names[PLACEMENT_LEAST_INFLIGHT], "least-inflight");
	assert_string_equal(placement_names[PLACEMENT_ROUND_ROBIN], "round-robin");
}

static __u8 field_of(const char *name)
{
	__u32 len = (__u32)strlen(name);

	return kvpin_names_find(&c.names, (const __u8 *)name, len, 0, len);
}

static void session_headers_are_derived_in_order_and_in_any_case(void **state)
{
	assert_good();
	assert_int_equal(field_of("x-lb-hash"), KVPIN_FIELD_KEY0);
	assert_int_equal(field_of("X-SESSION-ID"), KVPIN_FIELD_KEY0 + 1);
	assert_int_equal(field_of("X-Conversation-Id"), KVPIN_FIELD_KEY0 + 2);
	assert_int_equal(field_of("Content-Length"), KVPIN_FIELD_CONTENT_LENGTH);
	assert_int_equal(field_of("X-Other"), KVPIN_FIELD_OTHER);
	/* Finishing again, as after a reload, derives anew. */
	c.nr_keys = 1;
	assert_good();
	assert_int_equal(field_of("X-Session-Id"), KVPIN_FIELD_OTHER);
	c.nr_keys = 0;
	assert_good();
}

static void eight_long_session_headers_fit(void **state)
{
	unsigned int i;

	for (i = 0; i < KVPIN_KEY_HEADERS_MAX; i++) {
		char name[KVPIN_NAME_BYTES + 1];

		memset(name, 'a' + (int)i, KVPIN_NAME_BYTES);
		name[KVPIN_NAME_BYTES] = 0;
		set_key(i, name);
	}
	assert_good();
	c.nr_keys = KVPIN_KEY_HEADERS_MAX + 1;
	assert_refused("affinity.keys|at most 8");
}

static void bad_session_headers_are_refused(void **state)
{
	static const char *const framing[] = {
		"content-length", "Transfer-Encoding", "Host",
		"CONNECTION",	  "Upgrade",	       "TE",
		"Expect",	  "Keep-Alive",	       "Proxy-Connection",
		"Content-Type",
	};
	static const char *const malformed[] = {"X Session", "X-Session:", "X.Session", "X\n",
						"\xc3\xa4",  "a~b",	   "a|b"};
	unsigned int i;

	for (i = 0; i < sizeof(framing) / sizeof(framing[0]); i++) {
		begin(NULL);
		set_key(1, framing[i]);
		assert_refused("affinity.keys|header of HTTP itself");
		assert_non_null(strstr(why, framing[i]));
	}
	for (i = 0; i < sizeof(malformed) / sizeof(malformed[0]); i++) {
		begin(NULL);
		set_key(1, malformed[i]);
		assert_refused("affinity.keys|not a header name|letters");
	}
	begin(NULL);
	set_key(2, "x-lb-hash");
	assert_refused("affinity.keys|x-lb-hash|twice|remove");
	begin(NULL);
	set_key(2, "");
	assert_refused("affinity.keys|empty");
	begin(NULL);
	memset(c.key[0].name, 'a', sizeof(c.key[0].name));
	assert_refused("affinity.keys|too long|48");
}

static void a_configuration_without_listener_or_server_is_refused(void **state)
{
	c.nr_listen = 0;
	assert_refused("listen is empty|0.0.0.0:8080");
	begin(NULL);
	c.nr_backends = 0;
	assert_refused("backends is empty|gpu0");
	begin(NULL);
	c.nr_listen = LISTEN_MAX + 1;
	assert_refused("listen|at most 8");
	begin(NULL);
	c.nr_backends = BACKENDS_MAX + 1;
	assert_refused("backends|at most 64");
}

static void sixty_four_servers_fit(void **state)
{
	unsigned int i;

	c.nr_backends = 0;
	for (i = 0; i < BACKENDS_MAX; i++) {
		char name[16], text[32];

		snprintf(name, sizeof(name), "gpu%u", i);
		snprintf(text, sizeof(text), "10.0.0.%u:80", i + 1);
		add_backend(name, text);
	}
	assert_good();
}

static void bad_server_names_are_refused(void **state)
{
	static const char *const names[] = {"",		  "a b",  "a\"b", "gpu/0",
					    "gp\xc3\xbc", "a\nb", "a,b"};
	unsigned int i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		begin(NULL);
		strcpy(c.backend[1].name, names[i]);
		assert_refused("backends|is not a name|A-Z");
	}
	begin(NULL);
	memset(c.backend[1].name, 'a', sizeof(c.backend[1].name));
	assert_refused("backends|is not a name|31");
	begin(NULL);
	strcpy(c.backend[1].name, "GPU-1.rack_2");
	assert_good();
}

static void two_servers_with_one_name_or_address_are_refused(void **state)
{
	strcpy(c.backend[1].name, "gpu0");
	assert_refused("backends|two are called \"gpu0\"|rename");
	begin(NULL);
	c.backend[1].addr = c.backend[0].addr;
	assert_refused("backends|gpu0|gpu1|127.0.0.1:8081|same address");
}

static void an_address_that_names_no_server_is_refused(void **state)
{
	static const char *const texts[] = {"0.0.0.0:80", "[::]:80", "127.0.0.1:0"};
	unsigned int i;

	for (i = 0; i < 3; i++) {
		begin(NULL);
		c.backend[0].addr = address(texts[i]);
		assert_refused("backends|gpu0|names no server");
	}
	begin(NULL);
	memset(&c.backend[0].addr, 0, sizeof(c.backend[0].addr));
	assert_refused("backends|gpu0|names no server");
}

static void a_server_that_is_the_listener_itself_is_refused(void **state)
{
	static const struct {
		const char *listen, *backend;
		bool loop;
	} rows[] = {
		{"127.0.0.1:8080", "127.0.0.1:8080", true},
		{"0.0.0.0:8080", "127.0.0.1:8080", true},
		{"0.0.0.0:8080", "127.0.0.2:8080", true},
		{"[::]:8080", "127.0.0.1:8080", true},
		{"[::]:8080", "[::1]:8080", true},
		{"0.0.0.0:8080", "[::1]:8080", false},
		{"0.0.0.0:8080", "127.0.0.1:8083", false},
		{"0.0.0.0:8080", "10.0.0.7:8080", false}, /* another host, as a rule */
		{"127.0.0.1:8080", "127.0.0.2:8080", false},
		{"127.0.0.1:0", "127.0.0.1:8080", false},
	};
	unsigned int i;

	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		begin(NULL);
		c.listen[1] = address(rows[i].listen);
		c.listen[0] = address("10.1.1.1:8080");
		c.nr_listen = 2;
		c.backend[1].addr = address(rows[i].backend);
		if (rows[i].loop)
			assert_refused("backends|gpu1|listen|circles");
		else
			assert_good();
	}
	begin(NULL);
	c.backend[1].addr = c.metrics;
	assert_refused("backends|gpu1|metrics");
}

static void listeners_and_metrics_must_not_collide(void **state)
{
	c.listen[c.nr_listen++] = c.listen[0];
	assert_refused("listen|0.0.0.0:8080|twice");
	begin(NULL);
	c.metrics = c.listen[0];
	assert_refused("metrics|listen|another port");
	begin(NULL);
	c.metrics = address("127.0.0.1:8080");
	assert_refused("metrics|listen|another port");
	c.has_metrics = false;
	assert_good();
	/* Port 0 is another one each time. */
	begin(NULL);
	c.listen[0] = address("127.0.0.1:0");
	c.listen[1] = address("127.0.0.1:0");
	c.nr_listen = 2;
	c.metrics = address("127.0.0.1:0");
	assert_good();
}

static void every_number_has_bounds(void **state)
{
	static const struct {
		const char *field;
		size_t offset;
		uint32_t min, max;
	} rows[] = {
		{"workers", offsetof(struct config, workers), 0, 64},
		{"sessions.max", offsetof(struct config, session_max), 1, SESSIONS_MAX},
		{"health.rise", offsetof(struct config, health.rise), 1, 100},
		{"health.fall", offsetof(struct config, health.fall), 1, 100},
		{"timeouts.head", offsetof(struct config, timeout.head_ms), 1, 86400000},
		{"timeouts.idle", offsetof(struct config, timeout.idle_ms), 1, 86400000},
		{"timeouts.body", offsetof(struct config, timeout.body_ms), 1, 86400000},
		{"timeouts.connect", offsetof(struct config, timeout.connect_ms), 1, 86400000},
		{"timeouts.stall", offsetof(struct config, timeout.stall_ms), 1, 86400000},
		{"timeouts.tunnel", offsetof(struct config, timeout.tunnel_ms), 1, 86400000},
		{"timeouts.drain", offsetof(struct config, timeout.drain_ms), 0, 86400000},
		{"limits.head", offsetof(struct config, limit.head_bytes), 1024, 32768},
		{"limits.fields", offsetof(struct config, limit.head_fields), 1, 100},
		{"limits.hold", offsetof(struct config, limit.hold_bytes), 0, HOLD_BYTES_MAX},
		{"limits.connections", offsetof(struct config, limit.connections), 1, 1000000},
		{"steer.budget", offsetof(struct config, steer.budget_bytes), 4096, 1 << 24},
		{"steer.budget_all", offsetof(struct config, steer.budget_all_bytes), 4096,
		 1 << 30},
		{"steer.holds", offsetof(struct config, steer.holds), 1, 65536},
		{"steer.ring", offsetof(struct config, steer.ring_bytes), 4096, 1 << 26},
	};
	unsigned int i;

	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint32_t *value = (uint32_t *)((char *)&c + rows[i].offset);

		begin(NULL);
		*value = rows[i].min;
		assert_good();
		*value = rows[i].max;
		assert_good();
		*value = rows[i].max + 1;
		assert_refused(rows[i].field);
		*value = UINT32_MAX;
		assert_refused(rows[i].field);
		if (rows[i].min) {
			*value = rows[i].min - 1;
			assert_refused(rows[i].field);
		}
	}
	begin(NULL);
	c.session_ttl_ms = 0;
	assert_refused("sessions.ttl");
	c.session_ttl_ms = 30ULL * 86400000 + 1;
	assert_refused("sessions.ttl|30 days");
	c.session_ttl_ms--;
	assert_good();
	c.backend[1].weight = WEIGHT_MAX + 1;
	assert_refused("backends|weight 257|gpu1");
	c.backend[1].weight = WEIGHT_MAX;
	c.backend[1].slots = SLOTS_MAX + 1;
	assert_refused("backends|slots 1025|gpu1");
	c.backend[1].slots = SLOTS_MAX;
	c.backend[0].weight = 0;
	assert_good();
}

static void health_settings_must_fit_together(void **state)
{
	c.health.timeout_ms = 2001;
	assert_refused("health.timeout|2001|health.interval|2000");
	c.health.timeout_ms = 2000;
	assert_good();
	assert_true(config_checks(&c));
	strcpy(c.health.path, "health");
	assert_refused("health.path|begin with '/'");
	strcpy(c.health.path, "/a b");
	assert_refused("health.path|blank");
	strcpy(c.health.path, "/a\r\nHost: x");
	assert_refused("health.path|control");
	strcpy(c.health.path, "/\xc3\xa4");
	assert_refused("health.path|non-ASCII");
	memset(c.health.path, '/', sizeof(c.health.path));
	assert_refused("health.path|too long");
	/* Off: what only checks use is not looked at. */
	strcpy(c.health.path, "");
	c.health.timeout_ms = 5000;
	assert_good();
	assert_false(config_checks(&c));
	strcpy(c.health.path, "/health");
	c.health.interval_ms = 0;
	assert_good();
	assert_false(config_checks(&c));
}

static void unknown_choices_and_a_long_socket_path_are_refused(void **state)
{
	c.path = PATH_MODE_NR;
	assert_refused("path|auto");
	begin(NULL);
	c.placement = PLACEMENT_NR;
	assert_refused("placement|least-inflight");
	begin(NULL);
	c.log.level = LOG_LEVEL_NR;
	assert_refused("log.level|debug");
	begin(NULL);
	c.log.format = LOG_FORMAT_NR;
	assert_refused("log.format|json");
	begin(NULL);
	memset(c.control, 'a', sizeof(c.control));
	assert_refused("control|too long|107");
	begin(NULL);
	memset(c.session_state, 'a', sizeof(c.session_state));
	assert_refused("sessions.state|255");
	begin(NULL);
	c.session_state[0] = '\0';
	assert_refused("sessions.state|auto or off");
}

static void a_steer_directory_is_an_absolute_path_and_a_ring_a_power_of_two(void **state)
{
	static const char *const paths[] = {"", "kvpin", "./kvpin"};
	unsigned int i;

	for (i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		strcpy(c.steer.pin, paths[i]);
		assert_refused("steer.pin|absolute|/sys/fs/bpf/kvpin");
	}
	memset(c.steer.pin, '/', sizeof(c.steer.pin));
	assert_refused("steer.pin|255");
	c.steer.pin[sizeof(c.steer.pin) - 1] = '\0';
	assert_good();
	strcpy(c.steer.pin, "/sys/fs/bpf/kvpin.2//");
	assert_refused("steer.pin|kvpin.2|no dot|64");
	strcpy(c.steer.pin, "/sys/fs/bpf.d/kvpin//");
	assert_good();
	sprintf(c.steer.pin, "/sys/fs/bpf/%064d", 0);
	assert_good();
	sprintf(c.steer.pin, "/sys/fs/bpf/%065d", 0);
	assert_refused("steer.pin|no dot|64");
	strcpy(c.steer.pin, "/sys/fs/bpf/kvpin");
	c.steer.ring_bytes = 500000;
	assert_refused("steer.ring|500000|power of two");
	c.steer.ring_bytes = 1 << 20;
	assert_good();
}

static void the_state_file_goes_with_the_control_socket(void **state)
{
	static const char *const cases[][3] = {
		/* control, sessions.state, where it is in the end; NULL: nowhere */
		{"/run/kvpin/control.sock", "auto", "/run/kvpin/sessions.state"},
		{"/run/kvpin/b.sock", "auto", "/run/kvpin/b.sessions.state"},
		{"/run/kvpin/b", "auto", "/run/kvpin/b.sessions.state"},
		{"/.sock", "auto", "/.sock.sessions.state"},
		{"./control.sock", "auto", "./sessions.state"},
		{"control.sock", "auto", "sessions.state"},
		{"", "auto", NULL},
		{"/run/kvpin/control.sock", "off", NULL},
		{"/run/kvpin/control.sock", "/var/x", "/var/x"},
		{"", "/var/x", "/var/x"},
	};
	unsigned int i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		begin(NULL);
		strcpy(c.control, cases[i][0]);
		strcpy(c.session_state, cases[i][1]);
		assert_good();
		assert_good(); /* a second time changes nothing */
		if (cases[i][2])
			assert_string_equal(config_session_state(&c), cases[i][2]);
		else
			assert_null(config_session_state(&c));
	}
	begin(NULL);
	memset(c.control, 'a', sizeof(c.control) - 1);
	assert_good();
	assert_int_equal(strlen(config_session_state(&c)), sizeof(c.control) - 1 + 15);
}

static void a_reason_is_cut_to_the_room_there_is(void **state)
{
	char small[8];

	c.nr_listen = 0;
	memset(small, 'x', sizeof(small));
	assert_int_equal(config_finish(&c, small, sizeof(small)), -EINVAL);
	assert_string_equal(small, "listen ");
	assert_int_equal(config_finish(&c, small, 1), -EINVAL);
	assert_string_equal(small, "");
}

static void peers_that_could_not_reach_each_other_are_refused(void **state)
{
	strcpy(c.peers.secret, "/etc/kvpin/peers.secret");
	c.peers.listen = (struct addr_list){.nr = 1, .one = {address("10.0.0.1:7946")}};
	assert_refused("peers.to is empty|peers.listen|10.0.0.2:7946");
	c.peers.to = (struct addr_list){.nr = 1, .one = {address("10.0.0.2:7946")}};
	assert_good();
	c.peers.to.one[0] = address("0.0.0.0:7946");
	assert_refused("peers.to|0.0.0.0:7946|names no balancer");
	c.peers.to.one[0] = address("10.0.0.2:0");
	assert_refused("peers.to|10.0.0.2:0|names no balancer");
	c.peers.to.one[0] = address("10.0.0.2:7946");
	c.peers.listen.one[0] = address("127.0.0.1:8080");
	assert_refused("peers.listen and listen|127.0.0.1:8080|another port");
	c.peers.listen.one[0] = address("0.0.0.0:9464");
	assert_refused("peers.listen and metrics|0.0.0.0:9464|another port");
	c.peers.listen.nr = 0;
	strcpy(c.peers.secret, "off");
	assert_refused("peers.secret is not set|absolute");
	c.peers.to.nr = 0;
	assert_good();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(defaults_are_as_the_reference_says, begin),
		cmocka_unit_test_setup(defaults_with_a_listener_and_servers_are_complete, begin),
		cmocka_unit_test_setup(choices_have_the_names_of_the_reference, begin),
		cmocka_unit_test_setup(session_headers_are_derived_in_order_and_in_any_case, begin),
		cmocka_unit_test_setup(eight_long_session_headers_fit, begin),
		cmocka_unit_test_setup(bad_session_headers_are_refused, begin),
		cmocka_unit_test_setup(a_configuration_without_listener_or_server_is_refused,
				       begin),
		cmocka_unit_test_setup(sixty_four_servers_fit, begin),
		cmocka_unit_test_setup(bad_server_names_are_refused, begin),
		cmocka_unit_test_setup(two_servers_with_one_name_or_address_are_refused, begin),
		cmocka_unit_test_setup(an_address_that_names_no_server_is_refused, begin),
		cmocka_unit_test_setup(a_server_that_is_the_listener_itself_is_refused, begin),
		cmocka_unit_test_setup(listeners_and_metrics_must_not_collide, begin),
		cmocka_unit_test_setup(every_number_has_bounds, begin),
		cmocka_unit_test_setup(health_settings_must_fit_together, begin),
		cmocka_unit_test_setup(unknown_choices_and_a_long_socket_path_are_refused, begin),
		cmocka_unit_test_setup(
			a_steer_directory_is_an_absolute_path_and_a_ring_a_power_of_two, begin),
		cmocka_unit_test_setup(the_state_file_goes_with_the_control_socket, begin),
		cmocka_unit_test_setup(a_reason_is_cut_to_the_room_there_is, begin),
		cmocka_unit_test_setup(peers_that_could_not_reach_each_other_are_refused, begin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
