/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* kvpin.yaml: every class of error with its exact message. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "ops/config_file.h"

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
	 ":1: affinity.keys[0].prefix.min_match: \"1.5\" is out of range; write one from 0 to 1, "
	 "such as "
	 "0.3"},
	{"min_match_is_not_negative", "affinity: {keys: [{prefix: {min_match: -0.1}}]}",
	 ":1: affinity.keys[0].prefix.min_match: \"-0.1\" is out of range; write one from 0 to 1, "
	 "such as "
	 "0.3"},
	{"min_match_is_a_number", "affinity: {keys: [{prefix: {min_match: nan}}]}",
	 ":1: affinity.keys[0].prefix.min_match: \"nan\" is not a number; write one from 0 to 1, "
	 "such as 0.3"},
	{"rel_is_off_or_at_least_one", "affinity: {keys: [{prefix: {rel: 0.5}}]}",
	 ":1: affinity.keys[0].prefix.rel: \"0.5\" is out of range; write 0 (off) or one from 1 to "
	 "1000, such as 1.5"},
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
	{"a_group_that_is_no_mapping_gets_an_example", "splice: 5",
	 ":1:1: splice: must be a mapping, such as {events: 8, body: 256KiB}"},
	{"a_secret_is_an_absolute_path", "peers: {to: \"10.0.0.2:7946\", secret: etc/secret}",
	 ":1: peers.secret: \"etc/secret\" is not an absolute path of at most 255 bytes; write one "
	 "such as /etc/kvpin/peers.secret, or off"},
	{"a_secret_is_not_found_by_itself", "peers: {to: \"10.0.0.2:7946\", secret: auto}",
	 ":1: peers.secret: \"auto\" is not an absolute path of at most 255 bytes; write one such "
	 "as "
	 "/etc/kvpin/peers.secret, or off"},
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

int main(void)
{
	struct CMUnitTest errors[NR(refused)];

	for (unsigned int i = 0; i < NR(refused); i++)
		errors[i] = (struct CMUnitTest){.name = refused[i].name,
						.test_func = file_is_refused,
						.initial_state = (void *)&refused[i]};
	return cmocka_run_group_tests_name("refused files", errors, NULL, NULL);
}
