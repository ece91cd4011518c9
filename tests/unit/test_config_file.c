/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * kvpin.yaml and the settings behind it: every class of error with its exact message, every key,
 * defaults, values there and back.
 */
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
#include "ops/setting.h"
#include "ops/suggest.h"
#include "ops/value.h"

#define NR(array) (sizeof(array) / sizeof((array)[0]))
#define TOP_KEYS                                                                                   \
	"listen, backends, workers, path, placement, forwarded_for, affinity, sessions, guard, "   \
	"experiment, health, timeouts, limits, steer, splice, peers, metrics, control, user, log"

struct refused {
	const char *name;
	const char *yaml;
	const char *error; /* without the file's name */
};

static const struct refused refused[] = {
	/* Not YAML, or YAML that a configuration has no use for. */
	{"a_tab_is_named", "listen:\n\t- x", ":2:1: a tab; YAML indents by spaces"},
	{"a_tab_behind_umlauts_is_named", "# \xc3\xa4\xc3\xb6\xc3\xbc\nlisten:\n\t- x",
	 ":3:1: a tab; YAML indents by spaces"},
	{"an_open_bracket_names_where_it_began", "listen: [\"a\"",
	 ":2:1: did not find expected ',' or ']' (while parsing a flow sequence that began on line "
	 "1)"},
	{"a_wrong_indent_has_line_and_column", "a: b\n  c: d",
	 ":2:4: mapping values are not allowed in this context"},
	{"latin_1_is_refused", "path: \xe9",
	 ":1:7: incomplete UTF-8 octet sequence; a configuration is UTF-8 text"},
	{"utf_16_is_refused", "\xff\xfep\0",
	 ":1:1: invalid leading UTF-8 octet; a configuration is UTF-8 text"},
	{"a_zero_byte_is_refused", "path: \"a\\0b\"", ":1:7: a zero byte; remove it"},
	{"an_anchor_is_refused", "listen: &x [\"0.0.0.0:1\"]",
	 ":1:9: anchors (&name) are not supported; write the value out"},
	{"an_alias_is_refused", "listen: *x",
	 ":1:9: aliases (*name) are not supported; write the value out"},
	{"a_tag_is_refused", "workers: !!int 2",
	 ":1:10: tags (!name) are not supported; write the plain value"},
	{"a_second_document_is_refused", "workers: 2\n---\nworkers: 3",
	 ":2:1: a second document; a configuration is one, so remove the \"---\" between them"},
	{"deep_nesting_is_refused", "a: [[[[[[[[[[",
	 ":1:11: nested too deeply for a configuration"},
	{"a_key_that_is_a_list_is_refused", "? [a]\n: b", ":1:3: a key must be a plain word"},

	/* The shape. */
	{"a_scalar_is_no_configuration", "hello",
	 ":1:1: the file must be a mapping of keys to values, such as listen: [\"0.0.0.0:8080\"]"},
	{"a_list_is_no_configuration", "- a",
	 ":1:1: the file must be a mapping of keys to values, such as listen: [\"0.0.0.0:8080\"]"},
	{"null_is_no_configuration", "---\n",
	 ":1:1: the file must be a mapping of keys to values, such as listen: [\"0.0.0.0:8080\"]"},
	{"an_unknown_key_lists_the_known_ones", "foo: 1",
	 ":1:1: foo: unknown key; known here: " TOP_KEYS},
	{"a_merge_key_is_an_unknown_key", "<<: {a: b}",
	 ":1:1: <<: unknown key; known here: " TOP_KEYS},
	{"an_unknown_key_gets_the_near_one", "worker: 2",
	 ":1:1: worker: unknown key; did you mean \"workers\"?"},
	{"an_unknown_key_of_a_group_has_its_path", "workers: 1\nhealth: {intervall: 2s}",
	 ":2:10: health.intervall: unknown key; did you mean \"interval\"?"},
	{"an_unknown_key_source_lists_the_known", "affinity: {keys: [{body_of_mine: x}]}",
	 ":1:20: affinity.keys[0].body_of_mine: unknown key; known here: header, cookie, query, "
	 "json, client_ip, preset, prefix"},
	{"a_key_source_is_one_source", "affinity: {keys: [{header: X-A, cookie: b}]}",
	 ":1: affinity.keys[0]: names several sources; make an entry of each"},
	{"a_key_source_is_not_nothing", "affinity:\n  keys:\n  - {header: X-A}\n  - {}",
	 ":4: affinity.keys[1]: names no source; write one such as {header: X-Session-Id}"},
	{"a_preset_is_a_known_one", "affinity: {keys: [{preset: agent}]}",
	 ":1: affinity.keys[0].preset: \"agent\" is not known; write one of agents; did you mean "
	 "\"agents\"?"},
	{"a_json_path_has_names", "affinity: {keys: [{json: metadata..id}]}",
	 ":1: affinity.keys[0].json: \"metadata..id\" is not a path; write names with dots between "
	 "them, such as metadata.session_id"},
	{"a_cookie_has_a_cookies_name", "affinity: {keys: [{cookie: \"a=b\"}]}",
	 ":1: affinity.keys[0].cookie: \"a=b\" is not a cookie's name; letters, digits, '-' and "
	 "'_'"},
	{"a_source_is_there_once", "affinity: {keys: [{json: user}, {json: user}]}",
	 ":1: affinity.keys[1].json: \"user\" is there twice; remove one"},
	{"a_prefix_is_a_mapping", "affinity: {keys: [{prefix: true}]}",
	 ":1:20: affinity.keys[0].prefix: must be a mapping, such as {min_match: 0.3}"},
	{"an_unknown_rule_of_a_prefix_has_its_path", "affinity: {keys: [{prefix: {min_mach: 1}}]}",
	 ":1:29: affinity.keys[0].prefix.min_mach: unknown key; did you mean \"min_match\"?"},
	{"min_match_is_a_share", "affinity: {keys: [{prefix: {min_match: 1.5}}]}",
	 ":1: affinity.keys[0].prefix.min_match: is 1.5; it must be from 0 to 1, such as 0.3"},
	{"min_match_is_not_negative", "affinity: {keys: [{prefix: {min_match: -0.1}}]}",
	 ":1: affinity.keys[0].prefix.min_match: is -0.1; it must be from 0 to 1, such as 0.3"},
	{"min_match_is_a_number", "affinity: {keys: [{prefix: {min_match: nan}}]}",
	 ":1: affinity.keys[0].prefix.min_match: \"nan\" is not a number; write one from 0 to 1, "
	 "such as 0.3"},
	{"rel_is_off_or_at_least_one", "affinity: {keys: [{prefix: {rel: 0.5}}]}",
	 ":1: affinity.keys[0].prefix.rel: is 0.5; it must be 0 (off) or from 1 to 1000, such as "
	 "1.5"},
	{"a_missing_policy_is_a_known_one", "affinity: {missing: generat}",
	 ":1: affinity.missing: \"generat\" is not known; write one of balance, client-ip, "
	 "generate; "
	 "did you mean \"generate\"?"},
	{"a_sidecar_policy_is_a_known_one", "affinity: {sidecar: folow}",
	 ":1: affinity.sidecar: \"folow\" is not known; write one of follow, avoid; did you mean "
	 "\"follow\"?"},
	{"a_generated_keys_header_is_a_header", "affinity: {generate_header: Host}",
	 ":1: affinity.generate_header: \"Host\" cannot name a session; letters, digits, '-' and "
	 "'_', such as X-Session-Id"},
	{"an_unknown_key_of_a_backend_has_its_path",
	 "backends:\n  - {name: a, address: \"1.2.3.4:5\"}\n  - {name: b, adress: \"1.2.3.4:5\"}",
	 ":3:15: backends[1].adress: unknown key; did you mean \"address\"?"},
	{"an_unprintable_key_is_shown_safely", "\"a\\e[2J\\nb\": 1",
	 ":1:1: a?[2J?b: unknown key; known here: " TOP_KEYS},
	{"a_key_given_twice_names_the_first", "workers: 1\npath: auto\nworkers: 2",
	 ":3:1: workers: is given twice; the first is on line 1, remove one"},
	{"a_group_given_twice_is_refused", "health: {rise: 1}\nhealth: {fall: 1}",
	 ":2:1: health: is given twice; the first is on line 1, remove one"},
	{"a_key_of_a_group_given_twice_is_refused", "health: {path: /a, path: /b}",
	 ":1:20: health.path: is given twice; the first is on line 1, remove one"},
	{"a_backend_needs_an_address", "backends:\n  - name: gpu0\n",
	 ":2:5: backends[0]: has no address; add address: \"127.0.0.1:8081\""},
	{"a_backend_needs_a_name", "backends: [{address: \"1.2.3.4:5\"}]",
	 ":1:12: backends[0]: has no name; add name: gpu0"},
	{"a_value_must_not_be_a_list", "workers: [2]",
	 ":1:1: workers: must be one value, such as 2"},
	{"a_list_must_not_be_a_value", "listen: 0.0.0.0:8080",
	 ":1:1: listen: must be a list, such as [\"0.0.0.0:8080\"]"},
	{"a_group_must_not_be_a_value", "health: 2s",
	 ":1:1: health: must be a mapping, such as {path: /health, interval: 2s}"},
	{"a_group_must_not_be_empty",
	 "timeouts:", ":1:1: timeouts: must be a mapping, such as {idle: 75s, stall: 15m}"},
	{"backends_must_not_be_a_mapping", "backends: {gpu0: x}",
	 ":1:1: backends: must be a list, such as [{name: gpu0, address: \"127.0.0.1:8081\"}]"},
	{"a_backend_must_be_a_mapping", "backends: [gpu0]",
	 ":1:12: backends[0]: must be a mapping, such as {name: gpu0, address: "
	 "\"127.0.0.1:8081\"}"},
	{"a_backends_field_must_be_a_value", "backends: [{name: {a: b}}]",
	 ":1:13: backends[0].name: must be one value, such as gpu0"},
	{"a_session_key_must_be_a_mapping", "affinity: {keys: [X]}",
	 ":1:19: affinity.keys[0]: must be a mapping, such as {header: X-Session-Id}"},
	{"no_session_keys_are_an_empty_list", "affinity: {keys: }",
	 ":1:12: affinity.keys: must be a list, such as [{header: X-Session-Id}]"},
	{"a_listener_must_be_a_value", "listen: [[a]]",
	 ":1:10: listen[0]: must be one value, such as \"0.0.0.0:8080\""},
	{"listeners_are_limited",
	 "listen: [\"*:1\", \"*:2\", \"*:3\", \"*:4\", \"*:5\", \"*:6\", \"*:7\", \"*:8\", "
	 "\"*:9\"]",
	 ":1:1: listen: has too many entries; at most 8"},

	/* Values. */
	{"an_empty_value_is_refused", "workers:", ":1: workers: has no value; write one such as 2"},
	{"an_empty_backend_field_is_refused", "backends: [{name: , address: \"1.2.3.4:5\"}]",
	 ":1: backends[0].name: has no value; write one such as gpu0"},
	{"an_empty_listener_is_refused", "listen: [\"\"]",
	 ":1: listen[0]: has no value; write one such as [\"0.0.0.0:8080\"]"},
	{"an_address_needs_a_port",
	 "listen: [\"0.0.0.0:1\"]\nbackends:\n  - {name: gpu0, address: \"127.0.0.1:8081\"}\n"
	 "  - name: gpu1\n    address: \"127.0.0.1\"\n",
	 ":5: backends[1].address: \"127.0.0.1\" has no port; write it as 127.0.0.1:8080"},
	{"an_ipv6_address_needs_brackets", "listen: [\"::1\"]",
	 ":1: listen[0]: \"::1\" has no port; write it as [::1]:8080"},
	{"an_address_must_be_numeric", "listen: [\"foo:80\"]",
	 ":1: listen[0]: \"foo:80\": not a numeric address (names are not looked up); wanted e.g. "
	 "127.0.0.1:8080"},
	{"a_listener_given_twice_is_refused", "listen: [\"1.2.3.4:80\", \"1.2.3.4:80\"]",
	 ":1: listen[1]: \"1.2.3.4:80\" is there twice; remove one"},
	{"a_backend_is_no_wildcard", "backends: [{name: a, address: \"*:80\"}]",
	 ":1: backends[0].address: \"*:80\" names no one server; write its host and port, such as "
	 "127.0.0.1:8081"},
	{"a_backend_has_a_port", "backends: [{name: a, address: \"1.2.3.4:0\"}]",
	 ":1: backends[0].address: \"1.2.3.4:0\" names no one server; write its host and port, "
	 "such "
	 "as 127.0.0.1:8081"},
	{"a_backends_name_is_a_word", "backends: [{name: \"a b\", address: \"1.2.3.4:5\"}]",
	 ":1: backends[0].name: \"a b\" has a character that a name cannot have; letters, digits, "
	 "'.', '_' and '-' only"},
	{"a_backends_name_is_short",
	 "backends: [{name: a2345678901234567890123456789012, address: \"1.2.3.4:5\"}]",
	 ":1: backends[0].name: \"a2345678901234567890123456789012\" is too long; at most 31 "
	 "characters"},
	{"a_backends_name_is_its_own",
	 "backends: [{name: a, address: \"1.2.3.4:5\"}, {name: a, address: \"1.2.3.4:6\"}]",
	 ":1: backends[1].name: \"a\" is the name of another server too; rename one"},
	{"slots_are_a_number", "backends: [{name: a, address: \"1.2.3.4:5\", slots: x}]",
	 ":1: backends[0].slots: \"x\" is not a whole number; write one from 0 to 1024, or auto"},
	{"a_weight_is_limited", "backends: [{name: a, address: \"1.2.3.4:5\", weight: 257}]",
	 ":1: backends[0].weight: \"257\" is out of range; write a number from 0 to 256"},
	{"a_duration_needs_a_unit", "timeouts: {head: 10}",
	 ":1: timeouts.head: \"10\" has no unit; write 10s (units: ms, s, m, h)"},
	{"a_duration_is_whole", "timeouts: {head: 1.5s}",
	 ":1: timeouts.head: \"1.5s\" is not a duration; write one whole number and a unit, such "
	 "as "
	 "10s (units: ms, s, m, h)"},
	{"a_duration_has_one_unit", "timeouts: {head: 1h30m}",
	 ":1: timeouts.head: \"1h30m\" is not a duration; write one whole number and a unit, such "
	 "as "
	 "10s (units: ms, s, m, h)"},
	{"a_duration_has_no_sign", "timeouts: {head: -1s}",
	 ":1: timeouts.head: \"-1s\" is not a duration; write one whole number and a unit, such as "
	 "10s (units: ms, s, m, h)"},
	{"a_durations_unit_is_known", "timeouts: {head: 10sec}",
	 ":1: timeouts.head: \"10sec\" has an unknown unit; units are ms, s, m, h"},
	{"a_duration_has_a_lower_bound", "timeouts: {head: 0}",
	 ":1: timeouts.head: \"0\" is too short; write 1ms or more"},
	{"a_duration_has_an_upper_bound", "timeouts: {head: 25h}",
	 ":1: timeouts.head: \"25h\" is too long; write 24h or less"},
	{"a_huge_duration_does_not_wrap", "sessions: {ttl: 18446744073709551617ms}",
	 ":1: sessions.ttl: \"18446744073709551617ms\" is too long; write 720h or less"},
	{"a_huge_unit_does_not_wrap", "sessions: {ttl: 18446744073709551h}",
	 ":1: sessions.ttl: \"18446744073709551h\" is too long; write 720h or less"},
	{"the_word_for_zero_is_offered", "health: {interval: never}",
	 ":1: health.interval: \"never\" is not a duration; write one whole number and a unit, "
	 "such "
	 "as 10s (units: ms, s, m, h), or off"},
	{"a_size_needs_a_unit", "limits: {head: 32768}",
	 ":1: limits.head: \"32768\" has no unit; write 32768B (units: B, KiB, MiB, KB, MB)"},
	{"a_size_is_not_ambiguous", "limits: {head: 32k}",
	 ":1: limits.head: \"32k\" could be KiB (1024) or KB (1000); write 32KiB or 32KB"},
	{"a_size_has_a_number", "limits: {head: big}",
	 ":1: limits.head: \"big\" is not a size; write one whole number and a unit, such as 32KiB "
	 "(units: B, KiB, MiB, KB, MB)"},
	{"a_sizes_unit_is_known", "limits: {hold: 1GB}",
	 ":1: limits.hold: \"1GB\" has an unknown unit; units are B, KiB, MiB, KB, MB"},
	{"a_size_has_a_lower_bound", "limits: {head: 1B}",
	 ":1: limits.head: \"1B\" is too small; write 1KiB or more"},
	{"a_size_has_an_upper_bound", "limits: {head: 1MiB}",
	 ":1: limits.head: \"1MiB\" is too large; write 32KiB or less"},
	{"a_count_is_a_number", "workers: two",
	 ":1: workers: \"two\" is not a whole number; write one from 0 to 64, or auto"},
	{"a_count_is_in_range", "sessions: {max: 0}",
	 ":1: sessions.max: \"0\" is out of range; write a number from 1 to 100000000"},
	{"a_boolean_is_true_or_false", "forwarded_for: yes",
	 ":1: forwarded_for: \"yes\" is not a boolean; write true or false"},
	{"a_name_lists_the_allowed_ones", "path: fast",
	 ":1: path: \"fast\" is not known; write one of auto, relay, steer, splice"},
	{"a_near_name_is_suggested", "placement: least_inflight",
	 ":1: placement: \"least_inflight\" is not known; write one of balanced, hash, "
	 "least-inflight, round-robin; did you mean \"least-inflight\"?"},
	{"a_name_in_capitals_is_suggested", "log: {format: JSON}",
	 ":1: log.format: \"JSON\" is not known; write one of logfmt, json; did you mean "
	 "\"json\"?"},
	{"a_health_path_starts_with_a_slash", "health: {path: health}",
	 ":1: health.path: \"health\" does not start with a slash; write it as /health"},
	{"a_health_path_cannot_split_a_request", "health: {path: \"/a\\r\\nX: y\"}",
	 ":1: health.path: \"/a??X: y\" has a blank or another character that a URL must escape; "
	 "write it as %XX"},
	{"a_state_file_is_a_path", "sessions: {state: none}",
	 ":1: sessions.state: \"none\" is not a path; write one such as "
	 "/var/lib/kvpin/sessions.state, or auto or off"},
	{"a_control_socket_is_a_path", "control: no",
	 ":1: control: \"no\" is not a path; write one such as /run/kvpin/control.sock, or off"},
	{"a_pin_directory_is_an_absolute_path", "steer: {pin: kvpin}",
	 ":1: steer.pin: \"kvpin\" is not an absolute path of at most 255 bytes; write one such as "
	 "/sys/fs/bpf/kvpin"},
	{"a_budget_has_an_upper_bound", "steer: {budget: 17MiB}",
	 ":1: steer.budget: \"17MiB\" is too large; write 16MiB or less"},
	{"an_unknown_key_of_steer_has_its_path", "steer: {holds: 1, rings: 4KiB}",
	 ":1:19: steer.rings: unknown key; did you mean \"ring\"?"},
	{"metrics_need_an_address", "metrics: \"9464\"",
	 ":1: metrics: \"9464\": no port; wanted HOST:PORT, e.g. 127.0.0.1:8080"},
	{"a_session_header_is_not_https_own", "affinity: {keys: [{header: Host}]}",
	 ":1: affinity.keys[0].header: \"Host\" steers the connection and cannot name a session; "
	 "use "
	 "a header of its own, such as X-Session-Id"},
	{"a_session_header_is_a_header", "affinity: {keys: [{header: \"X Y\"}]}",
	 ":1: affinity.keys[0].header: \"X Y\" is not a header's name; letters, digits, '-' and "
	 "'_' "
	 "only"},
	{"a_session_header_is_there_once", "affinity:\n  keys:\n  - header: x-a\n  - header: X-A\n",
	 ":4: affinity.keys[1].header: \"X-A\" is there twice; remove one"},
	{"a_long_value_is_cut",
	 "workers: "
	 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
	 ":1: workers: \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...\" "
	 "is "
	 "not a whole number; write one from 0 to 64, or auto"},
};

static void file_is_refused(void **state)
{
	const struct refused *r = *state;
	struct config_error e;
	struct config c;
	char expected[CONFIG_ERROR_MAX];

	config_defaults(&c);
	assert_int_equal(config_parse("kvpin.yaml", r->yaml, strlen(r->yaml), &c, NULL, &e),
			 -EINVAL);
	snprintf(expected, sizeof(expected), "kvpin.yaml%s", r->error);
	assert_string_equal(e.text, expected);
	assert_null(strchr(e.text, '\n'));
}

/* Parses, or fails the test with the message. */
static void parse(const char *yaml, struct config *c)
{
	struct config_error e;

	config_defaults(c);
	if (config_parse("kvpin.yaml", yaml, strlen(yaml), c, NULL, &e))
		fail_msg("%s", e.text);
}

static const struct setting *find(const char *key)
{
	unsigned int i;

	for (i = 0; i < settings_nr; i++) {
		if (!strcmp(settings[i].key, key))
			return &settings[i];
	}
	fail_msg("no setting %s", key);
	return NULL;
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

static void durations_come_back_as_written(void **state)
{
	static const struct {
		const char *text;
		uint64_t ms;
	} cases[] = {
		{"0", 0},	  {"1ms", 1},	   {"999ms", 999},	 {"1s", 1000},
		{"1500ms", 1500}, {"75s", 75000},  {"1m", 60000},	 {"15m", 900000},
		{"90m", 5400000}, {"1h", 3600000}, {"720h", 2592000000},
	};
	char text[VALUE_TEXT_MAX], why[VALUE_WHY_MAX];
	uint64_t ms;
	unsigned int i;

	for (i = 0; i < NR(cases); i++) {
		assert_int_equal(
			value_duration(cases[i].text, 0, UINT64_MAX, &ms, why, sizeof(why)), 0);
		assert_int_equal(ms, cases[i].ms);
		assert_string_equal(value_format_duration(ms, text), cases[i].text);
	}
	assert_int_equal(value_duration("0s", 0, 1, &ms, why, sizeof(why)), 0);
	assert_int_equal(value_duration("60s", 0, 60000, &ms, why, sizeof(why)), 0);
	assert_string_equal(value_format_duration(ms, text), "1m");
}

static void sizes_come_back_as_written(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} cases[] = {
		{"0", 0},	  {"1B", 1},	     {"1000B", 1000},
		{"1KiB", 1024},	  {"32KiB", 32768},  {"3KB", 3000},
		{"1MB", 1000000}, {"1MiB", 1048576}, {"64MiB", 67108864},
	};
	char text[VALUE_TEXT_MAX], why[VALUE_WHY_MAX], again[VALUE_TEXT_MAX];
	uint64_t bytes, same;
	unsigned int i;

	for (i = 0; i < NR(cases); i++) {
		assert_int_equal(value_size(cases[i].text, 0, UINT64_MAX, &bytes, why, sizeof(why)),
				 0);
		assert_int_equal(bytes, cases[i].bytes);
		value_format_size(bytes, text);
		assert_int_equal(value_size(text, 0, UINT64_MAX, &same, why, sizeof(why)), 0);
		assert_int_equal(same, bytes);
		assert_string_equal(value_format_size(same, again), text);
	}
}

static void every_setting_takes_its_example_and_its_own_text(void **state)
{
	char text[SETTING_TEXT_MAX], again[SETTING_TEXT_MAX], plain[64], why[VALUE_WHY_MAX];
	struct config c;
	unsigned int i;

	config_defaults(&c);
	for (i = 0; i < settings_nr; i++) {
		const struct setting *s = &settings[i];

		if (setting_is_list(s))
			continue;
		/* Examples are YAML: some are in quotes. */
		snprintf(plain, sizeof(plain), "%s",
			 s->example[0] == '"' ? s->example + 1 : s->example);
		plain[strcspn(plain, "\"")] = '\0';
		assert_int_equal(setting_set(s, &c, plain, why, sizeof(why)), 0);
		setting_format(s, &c, text);
		assert_int_equal(setting_set(s, &c, text, why, sizeof(why)), 0);
		assert_string_equal(setting_format(s, &c, again), text);
	}
}

static void every_setting_has_a_key_and_a_flag_of_its_own(void **state)
{
	unsigned int i, k;

	for (i = 0; i < settings_nr; i++) {
		assert_non_null(settings[i].help);
		assert_non_null(settings[i].arg);
		for (k = 0; k < i; k++) {
			/* But for the second flag of the list of keys. */
			if (settings[i].kind != SETTING_HEADER)
				assert_string_not_equal(settings[i].key, settings[k].key);
			assert_string_not_equal(settings[i].flag, settings[k].flag);
		}
	}
}

/* The parsers' bounds give better messages; they must not be narrower or wider than the whole's. */
static void bounds_agree_with_config_finish(void **state)
{
	char text[64], why[512], lists[] = "gpu0=127.0.0.1:8081";
	struct config c;
	unsigned int i, k;

	for (i = 0; i < settings_nr; i++) {
		const struct setting *s = &settings[i];

		if (s->kind != SETTING_DURATION && s->kind != SETTING_SIZE &&
		    s->kind != SETTING_COUNT)
			continue;
		for (k = 0; k < 2; k++) {
			uint64_t n = k ? s->max : s->min;

			config_defaults(&c);
			/* Its own rule, timeout <= interval, is not about bounds. */
			c.health.timeout_ms = 1;
			if (!strcmp(s->key, "health.timeout"))
				c.health.interval_ms = 3600000;
			assert_int_equal(
				setting_set(find("listen"), &c, "0.0.0.0:80", why, sizeof(why)), 0);
			assert_int_equal(setting_set(find("backends"), &c, lists, why, sizeof(why)),
					 0);
			snprintf(text, sizeof(text), "%llu%s", (unsigned long long)n,
				 s->kind == SETTING_DURATION ? "ms"
				 : s->kind == SETTING_SIZE   ? "B"
							     : "");
			assert_int_equal(setting_set(s, &c, text, why, sizeof(why)), 0);
			if (config_finish(&c, why, sizeof(why)))
				fail_msg("%s %s: %s", s->key, text, why);
		}
	}
}

static void near_names_are_found_and_far_ones_are_not(void **state)
{
	static const char *const names[] = {"status", "sessions", "backends", "run"};

	assert_string_equal(suggest_nearest("stauts", names, NR(names)), "status");
	assert_string_equal(suggest_nearest("session", names, NR(names)), "sessions");
	assert_string_equal(suggest_nearest("BACKEND", names, NR(names)), "backends");
	assert_string_equal(suggest_nearest("rum", names, NR(names)), "run");
	assert_null(suggest_nearest("xyz", names, NR(names)));
	assert_null(suggest_nearest("", names, NR(names)));
	assert_null(suggest_nearest("a-text-that-is-longer-than-any-name-could-ever-be", names,
				    NR(names)));
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
		cmocka_unit_test(durations_come_back_as_written),
		cmocka_unit_test(sizes_come_back_as_written),
		cmocka_unit_test(every_setting_takes_its_example_and_its_own_text),
		cmocka_unit_test(every_setting_has_a_key_and_a_flag_of_its_own),
		cmocka_unit_test(bounds_agree_with_config_finish),
		cmocka_unit_test(near_names_are_found_and_far_ones_are_not),
	};
	struct CMUnitTest errors[NR(refused)];
	unsigned int i;
	int failed;

	for (i = 0; i < NR(refused); i++)
		errors[i] = (struct CMUnitTest){.name = refused[i].name,
						.test_func = file_is_refused,
						.initial_state = (void *)&refused[i]};
	failed = cmocka_run_group_tests_name("settings", tests, NULL, NULL);
	return failed + cmocka_run_group_tests_name("refused files", errors, NULL, NULL);
}
