/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Heads, good and bad. See http_case.h.
 */
#ifndef HEAD_CASES_H
#define HEAD_CASES_H

#include "http_case.h"

/* A request whose only flaw, if any, is in these field lines. */
#define FIELDS(lines) BYTES("GET / HTTP/1.1\r\nHost: a\r\n" lines "\r\n")
/* A flaw in the start line. */
#define LINE(line) BYTES(line "\r\nHost: a\r\n\r\n")
#define ANSWER(text) BYTES(text), .kind = KVPIN_RESPONSE
#define BAD(id) .error = KVPIN_HTTP_##id
#define GOOD(n, more) .method = KVPIN_METHOD_GET, .minor = 1, .target = "/", .fields = 1 + (n), \
	.flags = KVPIN_HEAD_HOST | (more)
#define KEY(rank, text) .key = (text), .key_rank = (rank)
#define TWO_IN_ONE "GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
#define BLANKS_16 " \t \t \t \t \t \t \t \t"

/* GOOD() states the usual; a case then says what differs. */
#pragma GCC diagnostic push
#ifdef __clang__
#pragma GCC diagnostic ignored "-Winitializer-overrides"
#else
#pragma GCC diagnostic ignored "-Woverride-init"
#endif
static const struct http_case head_cases[] = {
/* clang-format off */
#include "captured_heads.h"

	/* Start lines. */
	{"a_plain_request_is_read", FIELDS(""), GOOD(0, 0)},
	{"a_method_is_recognised", LINE("POST / HTTP/1.1"), GOOD(0, 0), .method = KVPIN_METHOD_POST},
	{"a_method_is_recognised", LINE("HEAD / HTTP/1.1"), GOOD(0, 0), .method = KVPIN_METHOD_HEAD},
	{"a_method_is_recognised", LINE("OPTIONS / HTTP/1.1"), GOOD(0, 0), .method = KVPIN_METHOD_OPTIONS},
	{"a_method_is_recognised", LINE("CONNECT a:443 HTTP/1.1"), GOOD(0, 0),
		.method = KVPIN_METHOD_CONNECT, .target = "a:443"},
	{"another_method_is_let_through", LINE("DELETE / HTTP/1.1"), GOOD(0, 0), .method = 0},
	{"another_method_is_let_through", LINE("G / HTTP/1.1"), GOOD(0, 0), .method = 0},
	{"another_method_is_let_through", LINE("GETX / HTTP/1.1"), GOOD(0, 0), .method = 0},
	{"another_method_is_let_through", LINE("CONNECTX / HTTP/1.1"), GOOD(0, 0), .method = 0},
	{"another_method_is_let_through", LINE("M!#$%&'*+-.^_`|~09 / HTTP/1.1"), GOOD(0, 0), .method = 0},
	{"a_method_is_case_sensitive", LINE("get / HTTP/1.1"), GOOD(0, 0), .method = 0},
	{"a_method_of_32_bytes_is_the_longest", LINE("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF / HTTP/1.1"),
		GOOD(0, 0), .method = 0},
	{"a_method_of_32_bytes_is_the_longest", LINE("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1"), BAD(METHOD)},
	{"a_method_of_32_bytes_is_the_longest", LINE("!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!! / HTTP/1.1"), BAD(METHOD)},
	{"a_bad_method_is_refused", LINE(" GET / HTTP/1.1"), BAD(METHOD)},
	{"a_bad_method_is_refused", LINE("GET\r\n"), BAD(METHOD)},
	{"a_bad_method_is_refused", LINE("G(T / HTTP/1.1"), BAD(METHOD)},
	{"a_bad_method_is_refused", LINE("GET:/ HTTP/1.1"), BAD(METHOD)},
	{"a_bad_method_is_refused", LINE("G\303\211T / HTTP/1.1"), BAD(METHOD)},
	{"a_bad_method_is_refused", LINE("\"GET\" / HTTP/1.1"), BAD(METHOD)},
	{"a_tls_hello_is_refused", BYTES("\026\003\001\002\000\001\000\001\374\003\003"), BAD(CONTROL)},
	{"an_http2_preface_is_refused", BYTES("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), BAD(TARGET)},

	{"a_target_has_one_of_four_forms", LINE("GET /a?b=c&d=%20;e HTTP/1.1"), GOOD(0, 0), .target = "/a?b=c&d=%20;e"},
	{"a_target_has_one_of_four_forms", LINE("GET http://a/b HTTP/1.1"), GOOD(0, 0), .target = "http://a/b"},
	{"a_target_has_one_of_four_forms", LINE("GET HTTPS://a/b HTTP/1.1"), GOOD(0, 0), .target = "HTTPS://a/b"},
	{"a_target_has_one_of_four_forms", LINE("OPTIONS * HTTP/1.1"), GOOD(0, 0),
		.method = KVPIN_METHOD_OPTIONS, .target = "*"},
	{"a_target_has_one_of_four_forms", LINE("CONNECT [::1]:80 HTTP/1.1"), GOOD(0, 0),
		.method = KVPIN_METHOD_CONNECT, .target = "[::1]:80"},
	{"a_bad_target_is_refused", LINE("GET  / HTTP/1.1"), BAD(TARGET)},
	{"a_bad_target_is_refused", LINE("GET /\r\n"), BAD(TARGET)},
	{"a_bad_target_is_refused", LINE("GET a HTTP/1.1"), BAD(TARGET)},
	{"a_bad_target_is_refused", LINE("GET * HTTP/1.1"), BAD(TARGET)},
	{"a_bad_target_is_refused", LINE("OPTIONS *a HTTP/1.1"), BAD(TARGET)},
	{"a_bad_target_is_refused", LINE("GET ftp://a/ HTTP/1.1"), BAD(TARGET)},
	{"a_bad_target_is_refused", LINE("GET http:/a HTTP/1.1"), BAD(TARGET)},
	{"a_bad_target_is_refused", LINE("GET http HTTP/1.1"), BAD(TARGET)},
	{"a_bad_target_is_refused", LINE("GET /a#b HTTP/1.1"), BAD(TARGET)},
	{"a_bad_target_is_refused", LINE("GET /\303\244 HTTP/1.1"), BAD(TARGET)},
	{"a_bad_target_is_refused", LINE("GET /\377 HTTP/1.1"), BAD(TARGET)},
	{"a_bad_target_is_refused", LINE("CONNECT /a HTTP/1.1"), BAD(TARGET)},
	{"a_bad_target_is_refused", LINE("CONNECT * HTTP/1.1"), BAD(TARGET)},
	{"a_bad_target_is_refused", LINE("GET /a\rb HTTP/1.1"), BAD(TARGET)},
	{"an_empty_target_is_refused", LINE("GET  HTTP/1.1"), BAD(TARGET)},
	{"controls_in_a_target_are_refused", LINE("GET /a\tb HTTP/1.1"), BAD(CONTROL)},
	{"controls_in_a_target_are_refused", LINE("GET /a\000b HTTP/1.1"), BAD(CONTROL)},
	{"controls_in_a_target_are_refused", LINE("GET /a\177b HTTP/1.1"), BAD(CONTROL)},
	{"controls_in_a_target_are_refused", LINE("GET /a\001bcdefghijklm HTTP/1.1"), BAD(CONTROL)},

	{"a_bad_version_is_refused", LINE("GET / HTTP/1.2"), BAD(VERSION)},
	{"a_bad_version_is_refused", LINE("GET / HTTP/2.0"), BAD(VERSION)},
	{"a_bad_version_is_refused", LINE("GET / HTTP/0.9"), BAD(VERSION)},
	{"a_bad_version_is_refused", LINE("GET / http/1.1"), BAD(VERSION)},
	{"a_bad_version_is_refused", LINE("GET / HTTP/1.10"), BAD(VERSION)},
	{"a_bad_version_is_refused", LINE("GET / HTTP/1,1"), BAD(VERSION)},
	{"a_bad_version_is_refused", LINE("GET / HTTP/11"), BAD(VERSION)},
	{"a_bad_version_is_refused", LINE("GET / HTTP/1.1 "), BAD(VERSION)},
	{"a_bad_version_is_refused", LINE("GET /  HTTP/1.1"), BAD(VERSION)},
	{"a_bad_version_is_refused", LINE("GET / b HTTP/1.1"), BAD(VERSION)},
	{"a_bad_version_is_refused", LINE("GET / HTTP/1.\261"), BAD(VERSION)},
	{"a_bad_version_is_refused", LINE("GET / "), BAD(VERSION)},
	{"a_bad_version_is_refused", ANSWER("HTTP/1.2 200 OK\r\n\r\n"), BAD(VERSION)},
	{"a_bad_version_is_refused", ANSWER("HTTP/2 200 OK\r\n\r\n"), BAD(VERSION)},
	{"a_bad_version_is_refused", ANSWER("http/1.1 200 OK\r\n\r\n"), BAD(VERSION)},
	{"a_bad_version_is_refused", ANSWER("ICY 200 OK, and on\r\n\r\n"), BAD(VERSION)},
	{"http_1_0_is_read", LINE("GET / HTTP/1.0"), GOOD(0, 0), .minor = 0},
	{"http_1_0_needs_no_host", BYTES("GET / HTTP/1.0\r\n\r\n"), .method = KVPIN_METHOD_GET, .target = "/"},

	{"empty_lines_before_a_request_are_skipped", BYTES("\r\n" TWO_IN_ONE), GOOD(0, 0), .target = "/a"},
	{"empty_lines_before_a_request_are_skipped", BYTES("\r\n\r\n\r\n\r\n" TWO_IN_ONE), GOOD(0, 0), .target = "/a"},
	{"a_fifth_empty_line_is_refused", BYTES("\r\n\r\n\r\n\r\n\r\n" TWO_IN_ONE), BAD(METHOD)},
	{"an_empty_line_ends_in_cr_lf", BYTES("\n" TWO_IN_ONE), BAD(BARE_LF)},
	{"an_empty_line_ends_in_cr_lf", BYTES("\r" TWO_IN_ONE), BAD(BARE_CR)},
	{"an_empty_line_ends_in_cr_lf", BYTES("\r\r\n" TWO_IN_ONE), BAD(BARE_CR)},
	{"no_empty_line_stands_before_an_answer", ANSWER("\r\nHTTP/1.1 200 OK\r\n\r\n"), BAD(STATUS)},

	/* Status lines. */
	{"a_status_line_is_read", ANSWER("HTTP/1.1 200 OK\r\n\r\n"), .minor = 1, .status = 200, .target = "OK"},
	{"a_status_line_is_read", ANSWER("HTTP/1.0 404 Not Found\r\n\r\n"), .status = 404, .target = "Not Found"},
	{"a_status_line_is_read", ANSWER("HTTP/1.1 999 \r\n\r\n"), .minor = 1, .status = 999, .target = ""},
	{"a_status_line_is_read", ANSWER("HTTP/1.1 100 \t\303\244 b\r\n\r\n"), .minor = 1, .status = 100,
		.target = "\t\303\244 b"},
	{"a_status_line_may_lack_its_reason", ANSWER("HTTP/1.1 200\r\n\r\n"), .minor = 1, .status = 200, .target = ""},
	{"a_bad_status_line_is_refused", ANSWER("HTTP/1.1 20 OK\r\n\r\n"), BAD(STATUS)},
	{"a_bad_status_line_is_refused", ANSWER("HTTP/1.1 2000 OK\r\n\r\n"), BAD(STATUS)},
	{"a_bad_status_line_is_refused", ANSWER("HTTP/1.1 099 OK\r\n\r\n"), BAD(STATUS)},
	{"a_bad_status_line_is_refused", ANSWER("HTTP/1.1 2x0 OK\r\n\r\n"), BAD(STATUS)},
	{"a_bad_status_line_is_refused", ANSWER("HTTP/1.1 20: OK\r\n\r\n"), BAD(STATUS)},
	{"a_bad_status_line_is_refused", ANSWER("HTTP/1.1 :00 OK\r\n\r\n"), BAD(STATUS)},
	{"a_bad_status_line_is_refused", ANSWER("HTTP/1.1 20/ OK\r\n\r\n"), BAD(STATUS)},
	{"a_bad_status_line_is_refused", ANSWER("HTTP/1.1  200 OK\r\n\r\n"), BAD(STATUS)},
	{"a_bad_status_line_is_refused", ANSWER("HTTP/1.1\r\n\r\n"), BAD(STATUS)},
	{"a_bad_status_line_is_refused", ANSWER("HTTP/1.1 200-OK\r\n\r\n"), BAD(STATUS)},
	{"a_bad_status_line_is_refused", ANSWER("HTTP/1.1-200 OK\r\n\r\n"), BAD(STATUS)},
	{"a_bad_status_line_is_refused", ANSWER("HTTP/1.1 2\3420 OK\r\n\r\n"), BAD(STATUS)},
	{"controls_in_a_status_line_are_refused", ANSWER("HTTP/1.1\t200 OK\r\n\r\n"), BAD(CONTROL)},
	{"controls_in_a_status_line_are_refused", ANSWER("HTTP/1.1 200\tOK\r\n\r\n"), BAD(CONTROL)},
	{"controls_in_a_status_line_are_refused", ANSWER("HTTP/1.1 200 O\000K\r\n\r\n"), BAD(CONTROL)},
	{"controls_in_a_status_line_are_refused", ANSWER("HTTP/1.1 200 O\177K\r\n\r\n"), BAD(CONTROL)},

	/* Line ends. */
	{"bare_lf_is_refused", BYTES("GET / HTTP/1.1\nHost: a\r\n\r\n"), BAD(BARE_LF)},
	{"bare_lf_is_refused", BYTES("GET /\nHost: a\r\n\r\n"), BAD(BARE_LF)},
	{"bare_lf_is_refused", BYTES("GET\n"), BAD(BARE_LF)},
	{"bare_lf_is_refused", BYTES("GET / HTTP\n"), BAD(BARE_LF)},
	{"bare_lf_is_refused", BYTES("GET / HTTP/1.1\r\nHost: a\n\r\n"), BAD(BARE_LF)},
	{"bare_lf_is_refused", BYTES("GET / HTTP/1.1\r\nHost: a\r\n\n"), BAD(BARE_LF)},
	{"bare_lf_is_refused", FIELDS("Na\nme: b\r\n"), BAD(BARE_LF)},
	{"bare_lf_is_refused", FIELDS("Name:\n"), BAD(BARE_LF)},
	{"bare_lf_is_refused", FIELDS("Name: a-long-value-of-it\nb: c\r\n"), BAD(BARE_LF)},
	{"bare_lf_is_refused", ANSWER("HTTP/1.1 200 OK\n\n"), BAD(BARE_LF)},
	{"bare_lf_is_refused", ANSWER("HTTP/1.1 200\n\n"), BAD(BARE_LF)},
	{"bare_lf_is_refused", ANSWER("HTTP/1.1\n"), BAD(BARE_LF)},
	{"bare_cr_is_refused", BYTES("GET / HTTP/1.1\rHost: a\r\n\r\n"), BAD(BARE_CR)},
	{"bare_cr_is_refused", BYTES("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n"), BAD(BARE_CR)},
	{"bare_cr_is_refused", BYTES("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n"), BAD(BARE_CR)},
	{"bare_cr_is_refused", BYTES("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"), BAD(BARE_CR)},
	{"bare_cr_is_refused", BYTES("GET / HTTP/1.1\r\nHost: a\r\n\rb"), BAD(BARE_CR)},
	{"bare_cr_is_refused", BYTES("GET / HTTP/1.1\r\nHost: a\r\n\r\r\n"), BAD(BARE_CR)},
	{"bare_cr_is_refused", FIELDS("b: a-long-value-of-it\rc: d\r\n"), BAD(BARE_CR)},
	{"bare_cr_is_refused", ANSWER("HTTP/1.1 200 O\rK\r\n\r\n"), BAD(BARE_CR)},
	{"bare_cr_is_refused", ANSWER("HTTP/1.1 200\rOK\r\n\r\n"), BAD(BARE_CR)},
	{"controls_are_refused", FIELDS("a: b\000c\r\n"), BAD(CONTROL)},
	{"controls_are_refused", FIELDS("a: 01234567890123456789\000\r\n"), BAD(CONTROL)},
	{"controls_are_refused", FIELDS("a: b\001\r\n"), BAD(CONTROL)},
	{"controls_are_refused", FIELDS("a: \037\r\n"), BAD(CONTROL)},
	{"controls_are_refused", FIELDS("a: 0123456\177\r\n"), BAD(CONTROL)},
	{"controls_are_refused", FIELDS("a:\013b\r\n"), BAD(CONTROL)},
	{"controls_are_refused", FIELDS("a\000b: c\r\n"), BAD(CONTROL)},
	{"controls_are_refused", FIELDS("a\177: c\r\n"), BAD(CONTROL)},
	{"controls_are_refused", FIELDS("\000a: c\r\n"), BAD(CONTROL)},
	{"controls_are_refused", FIELDS("a\t: c\r\n"), BAD(CONTROL)},
	{"controls_are_refused", LINE("GE\000T / HTTP/1.1"), BAD(CONTROL)},
	{"controls_are_refused", LINE("GET / HTTP\000/1.1"), BAD(CONTROL)},
	{"obs_fold_is_refused", FIELDS("a: b\r\n c\r\n"), BAD(OBS_FOLD)},
	{"obs_fold_is_refused", FIELDS("a: b\r\n\tc: d\r\n"), BAD(OBS_FOLD)},
	{"obs_fold_is_refused", FIELDS("a: b\r\n \r\n"), BAD(OBS_FOLD)},
	{"a_blank_before_the_first_field_is_refused", BYTES("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), BAD(OBS_FOLD)},

	/* Names. */
	{"a_bad_field_name_is_refused", FIELDS(": b\r\n"), BAD(FIELD_NAME)},
	{"a_bad_field_name_is_refused", FIELDS("a : b\r\n"), BAD(FIELD_NAME)},
	{"a_bad_field_name_is_refused", FIELDS("a b: c\r\n"), BAD(FIELD_NAME)},
	{"a_bad_field_name_is_refused", FIELDS("a\r\n"), BAD(FIELD_NAME)},
	{"a_bad_field_name_is_refused", FIELDS("a@b: c\r\n"), BAD(FIELD_NAME)},
	{"a_bad_field_name_is_refused", FIELDS("a(b): c\r\n"), BAD(FIELD_NAME)},
	{"a_bad_field_name_is_refused", FIELDS("[a]: c\r\n"), BAD(FIELD_NAME)},
	{"a_bad_field_name_is_refused", FIELDS("a{: c\r\n"), BAD(FIELD_NAME)},
	{"a_bad_field_name_is_refused", FIELDS("a/b: c\r\n"), BAD(FIELD_NAME)},
	{"a_bad_field_name_is_refused", FIELDS("a=b: c\r\n"), BAD(FIELD_NAME)},
	{"a_bad_field_name_is_refused", FIELDS("\"a\": c\r\n"), BAD(FIELD_NAME)},
	{"a_bad_field_name_is_refused", FIELDS("Transfer-Encoding\240: c\r\n"), BAD(FIELD_NAME)},
	{"a_bad_field_name_is_refused", FIELDS("\303\244: c\r\n"), BAD(FIELD_NAME)},
	{"a_bad_field_name_is_refused", FIELDS("abcdefgh\340: c\r\n"), BAD(FIELD_NAME)},
	{"every_tchar_may_stand_in_a_name", FIELDS("!#$%&'*+-.^_`|~: b\r\n"), GOOD(1, 0)},
	{"every_tchar_may_stand_in_a_name", FIELDS("abcdefgh.ijk_lm.nop!: b\r\n"), GOOD(1, 0)},
	{"names_are_known_in_any_case", FIELDS("CONTENT-LENGTH: 5\r\n"), GOOD(1, KVPIN_HEAD_LENGTH),
		.content_length = 5},
	{"names_are_known_in_any_case", FIELDS("cOnTeNt-lEnGtH:5\r\n"), GOOD(1, KVPIN_HEAD_LENGTH),
		.content_length = 5},
	{"names_are_known_in_any_case", FIELDS("X-sEsSiOn-Id: k\r\nUPGRADE: h2c\r\n"), GOOD(2, KVPIN_HEAD_UPGRADE), KEY(1, "k")},
	{"names_near_to_known_ones_are_others", FIELDS("content^length: x\r\n"), GOOD(1, 0)},
	{"names_near_to_known_ones_are_others", FIELDS("content-lengti: x\r\n"), GOOD(1, 0)},
	{"names_near_to_known_ones_are_others", FIELDS("content-lengt: x\r\n"), GOOD(1, 0)},
	{"names_near_to_known_ones_are_others", FIELDS("content-length1: x\r\n"), GOOD(1, 0)},
	{"names_near_to_known_ones_are_others", FIELDS("dontent-length: x\r\n"), GOOD(1, 0)},
	{"names_near_to_known_ones_are_others", FIELDS("content_length: x\r\n"), GOOD(1, 0)},
	{"names_near_to_known_ones_are_others", FIELDS("content.length: x\r\n"), GOOD(1, 0)},
	{"names_near_to_known_ones_are_others", FIELDS("transfer-encodin: x\r\n"), GOOD(1, 0)},
	{"names_near_to_known_ones_are_others", FIELDS("transfer-encodinG1: x\r\n"), GOOD(1, 0)},
	{"names_near_to_known_ones_are_others", FIELDS("transfer-encodinf: x\r\n"), GOOD(1, 0)},
	{"names_near_to_known_ones_are_others", FIELDS("hos: x\r\nhosu: x\r\nhost1: x\r\nt: x\r\ntf: x\r\n"), GOOD(5, 0)},
	{"names_near_to_known_ones_are_others", FIELDS("session^id: k\r\nsession~id: k\r\nsession-id: k\r\n"), GOOD(3, 0)},
	{"names_near_to_known_ones_are_others", FIELDS("connectioN1: x\r\nkeep-aliv: x\r\nconnectiom: x\r\n"), GOOD(3, 0)},
	{"a_name_of_48_bytes_is_known", FIELDS(NAME_48 ": k\r\n"), GOOD(1, 0), KEY(3, "k")},
	{"a_name_of_48_bytes_is_known", FIELDS("X-A-NAME-OF-EXACTLY-FORTY-EIGHT-CHARACTERS-00001: k\r\n"), GOOD(1, 0), KEY(3, "k")},
	{"names_near_to_48_bytes_are_others", FIELDS("x-a-name-of-exactly-forty-eight-characters-00002: k\r\n"), GOOD(1, 0)},
	{"names_near_to_48_bytes_are_others", FIELDS("x-a-name-of-exactly-forty-eight-characters-0000: k\r\n"), GOOD(1, 0)},
	{"names_near_to_48_bytes_are_others", FIELDS(NAME_48 "1: k\r\n"), GOOD(1, 0)},
	{"names_near_to_48_bytes_are_others", FIELDS("y-a-name-of-exactly-forty-eight-characters-00001: k\r\n"), GOOD(1, 0)},
	{"names_near_to_48_bytes_are_others", FIELDS(NAME_48 NAME_48 ": k\r\n"), GOOD(1, 0)},

	/* Values. */
	{"blanks_around_a_value_are_trimmed", FIELDS("x-session-id:k\r\n"), GOOD(1, 0), KEY(1, "k")},
	{"blanks_around_a_value_are_trimmed", FIELDS("x-session-id: \t k\t \r\n"), GOOD(1, 0), KEY(1, "k")},
	{"blanks_around_a_value_are_trimmed", FIELDS("x-session-id:  k  l  \r\n"), GOOD(1, 0), KEY(1, "k  l")},
	{"blanks_around_a_value_are_trimmed", FIELDS("content-length: \t 7\t\r\n"), GOOD(1, KVPIN_HEAD_LENGTH),
		.content_length = 7},
	{"blanks_around_a_value_are_trimmed", FIELDS("connection: close \r\n"), GOOD(1, KVPIN_HEAD_CLOSE)},
	{"sixteen_blanks_behind_a_value_are_the_most", FIELDS("x-session-id: k" BLANKS_16 "\r\n"), GOOD(1, 0), KEY(1, "k")},
	{"sixteen_blanks_behind_a_value_are_the_most", FIELDS("x-session-id: k" BLANKS_16 " \r\n"), BAD(BLANKS)},
	{"sixteen_blanks_behind_a_value_are_the_most", FIELDS("content-length: 1" BLANKS_16 "\t\r\n"), BAD(BLANKS)},
	{"blanks_before_a_value_are_not_counted", FIELDS("x-session-id: " BLANKS_16 BLANKS_16 "k\r\n"), GOOD(1, 0), KEY(1, "k")},
	{"blanks_before_a_value_are_not_counted", FIELDS("x-session-id: " BLANKS_16 BLANKS_16 "\r\n"), GOOD(1, 0)},
	{"blanks_behind_an_unknown_value_are_not_counted", FIELDS("a: b" BLANKS_16 BLANKS_16 "\r\n"), GOOD(1, 0)},
	{"obs_text_may_stand_in_a_value", FIELDS("a: \200\377\344\r\nx-session-id: \303\244\303\266\r\n"), GOOD(2, 0),
		KEY(1, "\303\244\303\266")},
	{"a_tab_may_stand_in_a_value", FIELDS("a: b\tc\td\te\r\nx-session-id: 0123456\t789\r\n"), GOOD(2, 0), KEY(1, "0123456\t789")},
	{"a_value_may_be_empty", FIELDS("a:\r\nb: \r\n"), GOOD(2, 0)},

	/* Host. */
	{"a_request_has_one_host", BYTES("GET / HTTP/1.1\r\n\r\n"), BAD(HOST)},
	{"a_request_has_one_host", BYTES("GET / HTTP/1.1\r\na: b\r\n\r\n"), BAD(HOST)},
	{"a_request_has_one_host", FIELDS("Host: a\r\n"), BAD(HOST)},
	{"a_request_has_one_host", FIELDS("hOST: b\r\n"), BAD(HOST)},
	{"a_host_is_of_uri_characters", LINE("GET / HTTP/1.0\r\nHost: a b\r\n"), BAD(HOST)},
	{"a_host_is_of_uri_characters", BYTES("GET / HTTP/1.1\r\nHost: a\tb\r\n\r\n"), BAD(HOST)},
	{"a_host_is_of_uri_characters", BYTES("GET / HTTP/1.1\r\nHost: \303\244.de\r\n\r\n"), BAD(HOST)},
	{"a_host_is_of_uri_characters", BYTES("GET / HTTP/1.1\r\nHost: 012345678#\r\n\r\n"), BAD(HOST)},
	{"a_host_may_be_empty_or_an_address", BYTES("GET / HTTP/1.1\r\nHost:\r\n\r\n"), GOOD(0, 0)},
	{"a_host_may_be_empty_or_an_address", BYTES("GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n"), GOOD(0, 0)},
	{"an_answer_may_have_hosts", ANSWER("HTTP/1.1 200 OK\r\nHost: a b\r\nHost: b\r\n\r\n"), .minor = 1, .status = 200,
		.fields = 2, .flags = KVPIN_HEAD_HOST},

	/* Framing fields. */
	{"a_content_length_is_read", FIELDS("Content-Length: 0\r\n"), GOOD(1, KVPIN_HEAD_LENGTH)},
	{"a_content_length_is_read", FIELDS("Content-Length: 000012\r\n"), GOOD(1, KVPIN_HEAD_LENGTH),
		.content_length = 12},
	{"a_content_length_is_read", FIELDS("Content-Length: 999999999999999999\r\n"), GOOD(1, KVPIN_HEAD_LENGTH),
		.content_length = 999999999999999999},
	{"a_content_length_is_read", FIELDS("Content-Length: 000000000000000001\r\n"), GOOD(1, KVPIN_HEAD_LENGTH),
		.content_length = 1},
	{"a_bad_content_length_is_refused", FIELDS("Content-Length: 1000000000000000000\r\n"), BAD(CONTENT_LENGTH)},
	{"a_bad_content_length_is_refused", FIELDS("Content-Length: 0000000000000000001\r\n"), BAD(CONTENT_LENGTH)},
	{"a_bad_content_length_is_refused", FIELDS("Content-Length:\r\n"), BAD(CONTENT_LENGTH)},
	{"a_bad_content_length_is_refused", FIELDS("Content-Length: \t \r\n"), BAD(CONTENT_LENGTH)},
	{"a_bad_content_length_is_refused", FIELDS("Content-Length: +5\r\n"), BAD(CONTENT_LENGTH)},
	{"a_bad_content_length_is_refused", FIELDS("Content-Length: -5\r\n"), BAD(CONTENT_LENGTH)},
	{"a_bad_content_length_is_refused", FIELDS("Content-Length: 0x5\r\n"), BAD(CONTENT_LENGTH)},
	{"a_bad_content_length_is_refused", FIELDS("Content-Length: 5 5\r\n"), BAD(CONTENT_LENGTH)},
	{"a_bad_content_length_is_refused", FIELDS("Content-Length: 5,5\r\n"), BAD(CONTENT_LENGTH)},
	{"a_bad_content_length_is_refused", FIELDS("Content-Length: 5, 5\r\n"), BAD(CONTENT_LENGTH)},
	{"a_bad_content_length_is_refused", FIELDS("Content-Length: 5.0\r\n"), BAD(CONTENT_LENGTH)},
	{"a_bad_content_length_is_refused", FIELDS("Content-Length: \2605\r\n"), BAD(CONTENT_LENGTH)},
	{"a_repeated_content_length_is_refused", FIELDS("Content-Length: 5\r\nContent-Length: 5\r\n"), BAD(CONTENT_LENGTH_REPEATED)},
	{"a_repeated_content_length_is_refused", FIELDS("Content-Length: 5\r\ncontent-length: 6\r\n"), BAD(CONTENT_LENGTH_REPEATED)},
	{"a_repeated_content_length_is_refused", FIELDS("Content-Length: 0\r\na: b\r\nCONTENT-LENGTH: x\r\n"), BAD(CONTENT_LENGTH_REPEATED)},
	{"chunked_is_read", FIELDS("Transfer-Encoding: chunked\r\n"), GOOD(1, KVPIN_HEAD_CHUNKED)},
	{"chunked_is_read", FIELDS("transfer-encoding:CHUNKED \r\n"), GOOD(1, KVPIN_HEAD_CHUNKED)},
	{"another_transfer_coding_is_refused", FIELDS("Transfer-Encoding: gzip\r\n"), BAD(TRANSFER_ENCODING)},
	{"another_transfer_coding_is_refused", FIELDS("Transfer-Encoding: gzip, chunked\r\n"), BAD(TRANSFER_ENCODING)},
	{"another_transfer_coding_is_refused", FIELDS("Transfer-Encoding: chunked, identity\r\n"), BAD(TRANSFER_ENCODING)},
	{"another_transfer_coding_is_refused", FIELDS("Transfer-Encoding: xchunked\r\n"), BAD(TRANSFER_ENCODING)},
	{"another_transfer_coding_is_refused", FIELDS("Transfer-Encoding: chunkec\r\n"), BAD(TRANSFER_ENCODING)},
	{"another_transfer_coding_is_refused", FIELDS("Transfer-Encoding: chunke\r\n"), BAD(TRANSFER_ENCODING)},
	{"another_transfer_coding_is_refused", FIELDS("Transfer-Encoding: \"chunked\"\r\n"), BAD(TRANSFER_ENCODING)},
	{"another_transfer_coding_is_refused", FIELDS("Transfer-Encoding: chunked;a=b\r\n"), BAD(TRANSFER_ENCODING)},
	{"another_transfer_coding_is_refused", FIELDS("Transfer-Encoding:\r\n"), BAD(TRANSFER_ENCODING)},
	{"another_transfer_coding_is_refused", FIELDS("Transfer-Encoding: chun\313ed\r\n"), BAD(TRANSFER_ENCODING)},
	{"chunked_twice_is_refused", FIELDS("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), BAD(TRANSFER_ENCODING)},
	{"chunked_in_http_1_0_is_refused", LINE("GET / HTTP/1.0\r\nTransfer-Encoding: chunked"), BAD(TRANSFER_ENCODING)},
	{"chunked_in_http_1_0_is_refused", ANSWER("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), BAD(TRANSFER_ENCODING)},
	{"length_and_chunked_is_refused", FIELDS("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), BAD(LENGTH_AND_CHUNKED)},
	{"length_and_chunked_is_refused", FIELDS("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"), BAD(LENGTH_AND_CHUNKED)},
	{"length_and_chunked_is_refused", ANSWER("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
		BAD(LENGTH_AND_CHUNKED)},

	/* What else a head says. */
	{"connection_options_are_told_apart", FIELDS("Connection: Close\r\n"), GOOD(1, KVPIN_HEAD_CLOSE)},
	{"connection_options_are_told_apart", FIELDS("Connection: Keep-Alive\r\n"), GOOD(1, KVPIN_HEAD_KEEP_ALIVE)},
	{"connection_options_are_told_apart", FIELDS("Connection: keep-alive, Upgrade\r\n"), GOOD(1, KVPIN_HEAD_CONNECTION_LIST)},
	{"connection_options_are_told_apart", FIELDS("Connection: keep-aliv\r\n"), GOOD(1, KVPIN_HEAD_CONNECTION_LIST)},
	{"connection_options_are_told_apart", FIELDS("Connection: closed\r\n"), GOOD(1, KVPIN_HEAD_CONNECTION_LIST)},
	{"connection_options_are_told_apart", FIELDS("Connection:\r\n"), GOOD(1, KVPIN_HEAD_CONNECTION_LIST)},
	{"connection_options_are_told_apart", FIELDS("Connection: close\r\nConnection: keep-alive\r\n"),
		GOOD(2, KVPIN_HEAD_CLOSE | KVPIN_HEAD_KEEP_ALIVE)},
	{"fields_of_one_hop_are_noticed", FIELDS("TE: trailers\r\n"), GOOD(1, KVPIN_HEAD_HOP)},
	{"fields_of_one_hop_are_noticed", FIELDS("Keep-Alive: timeout=5\r\n"), GOOD(1, KVPIN_HEAD_HOP)},
	{"fields_of_one_hop_are_noticed", FIELDS("Proxy-Connection: close\r\n"), GOOD(1, KVPIN_HEAD_HOP)},
	{"upgrade_and_expect_are_noticed", FIELDS("Upgrade: h2c\r\nExpect: 100-continue\r\n"),
		GOOD(2, KVPIN_HEAD_UPGRADE | KVPIN_HEAD_EXPECT)},
	{"an_event_stream_is_noticed", ANSWER("HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream\r\n\r\n"), .minor = 1,
		.status = 200, .fields = 1, .flags = KVPIN_HEAD_EVENT_STREAM},
	{"an_event_stream_is_noticed", ANSWER("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream ;charset=utf-8\r\n\r\n"), .minor = 1,
		.status = 200, .fields = 1, .flags = KVPIN_HEAD_EVENT_STREAM},
	{"another_type_is_no_event_stream", ANSWER("HTTP/1.1 200 OK\r\nContent-Type: text/event-streams\r\n\r\n"), .minor = 1,
		.status = 200, .fields = 1},
	{"another_type_is_no_event_stream", ANSWER("HTTP/1.1 200 OK\r\nContent-Type: text/event-strea\r\n\r\n"), .minor = 1,
		.status = 200, .fields = 1},

	/* Session keys. */
	{"the_first_key_of_the_operators_order_wins", FIELDS("session_id: c\r\nX-LB-Hash: a\r\nx-session-id: b\r\n"), GOOD(3, 0), KEY(0, "a")},
	{"the_first_key_of_the_operators_order_wins", FIELDS("x-session-id: b\r\nsession_id: c\r\n"), GOOD(2, 0), KEY(1, "b")},
	{"the_first_key_of_the_operators_order_wins", FIELDS("x-conversation-id: e\r\nSESSION_ID: c\r\n"), GOOD(2, 0), KEY(2, "c")},
	{"a_repeated_key_is_the_first_and_is_marked", FIELDS("x-session-id: b\r\nx-session-id: c\r\n"),
		GOOD(2, KVPIN_HEAD_KEY_REPEATED), KEY(1, "b")},
	{"a_repeated_key_that_loses_is_not_marked", FIELDS("x-session-id: b\r\nx-session-id: c\r\nx-lb-hash: a\r\n"), GOOD(3, 0), KEY(0, "a")},
	{"a_repeated_key_that_loses_is_not_marked", FIELDS("x-lb-hash: a\r\nx-session-id: b\r\nx-session-id: c\r\n"), GOOD(3, 0), KEY(0, "a")},
	{"an_empty_key_is_absent", FIELDS("x-session-id:\r\n"), GOOD(1, 0)},
	{"an_empty_key_is_absent", FIELDS("x-lb-hash: \t\r\nx-session-id: b\r\n"), GOOD(2, 0), KEY(1, "b")},
	{"an_empty_key_is_absent", FIELDS("x-session-id: \r\nx-session-id: b\r\n"), GOOD(2, 0), KEY(1, "b")},

	/* Ends. */
	{"bytes_behind_a_head_are_left", BYTES(TWO_IN_ONE TWO_IN_ONE), GOOD(0, 0), .target = "/a", .head_len = sizeof(TWO_IN_ONE) - 1},
	{"bytes_behind_a_head_are_left", BYTES(TWO_IN_ONE "\r\n\000"), GOOD(0, 0), .target = "/a", .head_len = sizeof(TWO_IN_ONE) - 1},
	{"a_head_that_goes_on_wants_more", BYTES("GET / HTTP/1.1\r\nHost: a\r\n\r"), .partial = 1},
	{"a_head_that_goes_on_wants_more", BYTES("GET / HTTP/1.1\r\nHost: a\r\n"), .partial = 1},
	{"a_head_that_goes_on_wants_more", BYTES("GET / HTTP/1.1\r\nHost: "), .partial = 1},
	{"a_head_that_goes_on_wants_more", BYTES("GET / HTTP/1.1\r\nHo"), .partial = 1},
	{"a_head_that_goes_on_wants_more", BYTES("GET / HTTP"), .partial = 1},
	{"a_head_that_goes_on_wants_more", BYTES("GET /abcdefghijklmnop"), .partial = 1},
	{"a_head_that_goes_on_wants_more", BYTES("G"), .partial = 1},
	{"a_head_that_goes_on_wants_more", BYTES("\r\n\r"), .partial = 1},
	{"a_head_that_goes_on_wants_more", ANSWER("H"), .partial = 1},
	{"a_head_that_goes_on_wants_more", ANSWER("HTTP/1.1 200"), .partial = 1},
	{"a_head_that_goes_on_wants_more", ANSWER("HTTP/1.1 200 O"), .partial = 1},
	{"limits_of_bytes_are_exact", FIELDS(""), GOOD(0, 0), .limit_bytes = 27, .limit_fields = 1},
	{"limits_of_bytes_are_exact", FIELDS(""), BAD(HEAD_LARGE), .limit_bytes = 26, .limit_fields = 1},
	{"limits_of_bytes_are_exact", FIELDS(""), BAD(HEAD_LARGE), .limit_bytes = 18, .limit_fields = 1},
	{"limits_of_bytes_are_exact", LINE("GET /abcdef HTTP/1.1"), BAD(TARGET_LONG), .limit_bytes = 8, .limit_fields = 1},
	{"limits_of_fields_are_exact", FIELDS("a: b\r\n"), GOOD(1, 0), .limit_bytes = 4096, .limit_fields = 2},
	{"limits_of_fields_are_exact", FIELDS("a: b\r\n"), BAD(FIELDS), .limit_bytes = 4096, .limit_fields = 1},
	{"limits_of_fields_are_exact", FIELDS(""), BAD(FIELDS), .limit_bytes = 4096, .limit_fields = 0},
/* clang-format on */
};
#pragma GCC diagnostic pop

#define HEAD_CASES_BUILT 14

/* Cases that are too long to write down. */
static inline void head_cases_build(struct http_case out[HEAD_CASES_BUILT])
{
	const char *line = "GET / HTTP/1.1\r\nHost: a\r\n"; /* 25 bytes */
	const char *answer = "HTTP/1.1 200 OK\r\n";
	struct http_case good = {.name = "the_parsers_own_limits_are_exact", GOOD(0, 0)};
	struct http_case bad = {.name = good.name};
	struct http_case *c = out;

	good.fields = 100;
	*c++ = http_case_built(good, line, "a: b\r\n", 99, "\r\n");
	bad.error = KVPIN_HTTP_FIELDS;
	*c++ = http_case_built(bad, line, "a: b\r\n", 100, "\r\n");
	good.fields = 2;
	*c++ = http_case_built(good, "GET / HTTP/1.1\r\nHost: a\r\nb:", "c", 32768 - 27 - 4,
			       "\r\n\r\n");
	bad.error = KVPIN_HTTP_HEAD_LARGE;
	*c++ = http_case_built(bad, "GET / HTTP/1.1\r\nHost: a\r\nb:", "c", 32768 - 27 - 3,
			       "\r\n\r\n");
	good.fields = 1;
	good.target = NULL;
	*c++ = http_case_built(good, "GET /", "a", 32768 - 25 - 2, " HTTP/1.1\r\nHost: a\r\n\r\n");
	bad.error = KVPIN_HTTP_TARGET_LONG;
	*c++ = http_case_built(bad, "GET /", "a", 32768, " HTTP/1.1\r\nHost: a\r\n\r\n");

	good.name = bad.name = "a_head_of_4096_bytes_fits_the_kernels_buffer";
	good.limit_bytes = bad.limit_bytes = 4096;
	good.limit_fields = bad.limit_fields = 100;
	good.fields = 2;
	good.key = "k";
	good.key_rank = 1;
	*c = http_case_built(good, "GET /", "a", 4096 - 25 - 2 - 17,
			     " HTTP/1.1\r\nHost: a\r\nx-session-id: k\r\n\r\n");
	c++;
	bad.error = KVPIN_HTTP_HEAD_LARGE;
	*c++ = http_case_built(bad, "GET /", "a", 4096 - 25 - 2 - 16,
			       " HTTP/1.1\r\nHost: a\r\nx-session-id: k\r\n\r\n");

	good = (struct http_case){.name = "a_host_of_264_bytes_is_the_longest", GOOD(0, 0)};
	bad = (struct http_case){.name = good.name, BAD(HOST)};
	*c++ = http_case_built(good, "GET / HTTP/1.1\r\nHost: ", "a", 264, "\r\n\r\n");
	*c++ = http_case_built(bad, "GET / HTTP/1.1\r\nHost: ", "a", 265, "\r\n\r\n");

	good.name = "a_key_may_be_long";
	good.fields = 2;
	good.key_rank = 1;
	*c = http_case_built(good, "GET / HTTP/1.1\r\nHost: a\r\nx-session-id: ", "k", 256,
			     "\r\n\r\n");
	c->key = strndup(c->bytes + 39, 256);
	c++;
	*c = http_case_built(good, "GET / HTTP/1.1\r\nHost: a\r\nx-session-id: ", "k", 257,
			     "\r\n\r\n");
	c->key = strndup(c->bytes + 39, 257);
	c++;
	good = (struct http_case){.name = "a_long_reason_is_read", .kind = KVPIN_RESPONSE,
				  .minor = 1, .status = 200};
	*c++ = http_case_built(good, "HTTP/1.1 200 ", "r", 1000, "\r\n\r\n");
	good.fields = 100;
	*c++ = http_case_built(good, answer, "a:\r\n", 100, "\r\n");
}

#endif
