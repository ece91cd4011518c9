/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Log lines, read back from a pipe that stands in for stderr; JSON is judged by jansson. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"

#define LINE_MAX_BYTES 4096

static int pipe_fd[2] = {-1, -1}, saved_stderr = -1;
static char out[1 << 16];

static void capture(void)
{
	assert_int_equal(pipe2(pipe_fd, O_CLOEXEC | O_NONBLOCK), 0);
	saved_stderr = dup(STDERR_FILENO);
	assert_true(saved_stderr >= 0);
	dup2(pipe_fd[1], STDERR_FILENO);
}

/* What was written since capture(), as text. */
static const char *captured(void)
{
	ssize_t n = read(pipe_fd[0], out, sizeof(out) - 1);

	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	close(pipe_fd[0]);
	close(pipe_fd[1]);
	out[n > 0 ? n : 0] = 0;
	return out;
}

/* Behind ts=…, which differs each time. */
static const char *after_time(const char *line)
{
	const char *level = strstr(line, "level");

	assert_non_null(level);
	return level;
}

static json_t *captured_json(void)
{
	const char *line = captured();
	size_t len = strlen(line);
	json_error_t error;
	json_t *json;

	assert_in_range(len, 1, LINE_MAX_BYTES);
	assert_ptr_equal(strchr(line, '\n'), line + len - 1);
	json = json_loads(line, JSON_REJECT_DUPLICATES, &error);
	if (!json)
		fail_msg("%s: %s", error.text, line);
	assert_true(json_is_object(json));
	return json;
}

static void logfmt_quotes_only_where_needed(void **state)
{
	log_setup(LOG_INFO, LOG_LOGFMT);
	capture();
	LOG(INFO, "backend up", F_STR("backend", "gpu0"), F_STR("empty", ""), F_STR("none", NULL),
	    F_STR("eq", "a=b"), F_STR("quote", "say \"hi\""), F_STR("back", "a\\b"),
	    F_STR("utf8", "M\xc3\xbcller"), F_INT("i", INT64_MIN), F_UINT("u", UINT64_MAX),
	    F_HEX("session", 0xabc), F_DBL("d", 0.25));
	assert_string_equal(
		after_time(captured()),
		"level=info msg=\"backend up\" backend=gpu0 empty=\"\" none=\"\" "
		"eq=\"a=b\" quote=\"say \\\"hi\\\"\" back=\"a\\\\b\" utf8=M\xc3\xbcller "
		"i=-9223372036854775808 u=18446744073709551615 "
		"session=0000000000000abc d=0.25\n");
}

static void a_line_break_in_a_value_cannot_forge_a_line(void **state)
{
	log_setup(LOG_INFO, LOG_LOGFMT);
	capture();
	LOG(WARN, "bad", F_STR("v", "x\nlevel=error msg=forged\r\t\x1b[31m\x7f\xc2\x9b"));
	assert_string_equal(after_time(captured()),
			    "level=warn msg=bad v=\"x\\nlevel=error msg=forged\\r\\t\\u001b[31m"
			    "\\u007f\\u009b\"\n");
}

static void time_is_utc_rfc3339_with_milliseconds(void **state)
{
	time_t before = time(NULL), stamp;
	struct tm tm = {0};
	const char *line, *end;
	int ms = -1, n = 0;

	log_setup(LOG_INFO, LOG_LOGFMT);
	setenv("TZ", "Asia/Tokyo", 1);
	tzset();
	capture();
	LOG(INFO, "now");
	line = captured();
	assert_int_equal(strncmp(line, "ts=", 3), 0);
	end = strptime(line + 3, "%Y-%m-%dT%H:%M:%S", &tm);
	assert_non_null(end);
	assert_int_equal(sscanf(end, ".%3dZ%n", &ms, &n), 1);
	assert_int_equal(n, 5);
	stamp = timegm(&tm);
	assert_true(stamp >= before && stamp <= time(NULL));
	unsetenv("TZ");
	tzset();
}

static void json_has_every_field_with_its_type(void **state)
{
	const char *session = NULL, *level = NULL, *msg = NULL, *text = NULL, *ts = NULL;
	json_int_t i = 0, u = 0;
	json_t *json, *inf = NULL;
	double d = 0;

	log_setup(LOG_INFO, LOG_JSON);
	capture();
	LOG(ERROR, "it \"broke\"", F_STR("text", "a\nb"), F_INT("i", -5), F_UINT("u", 7),
	    F_HEX("session", 0xdeadbeefcafe0001), F_DBL("d", 1.5), F_DBL("inf", INFINITY));
	json = captured_json();
	assert_int_equal(json_unpack(json, "{s:s, s:s, s:s, s:s, s:I, s:I, s:s, s:f, s:o}", "ts",
				     &ts, "level", &level, "msg", &msg, "text", &text, "i", &i, "u",
				     &u, "session", &session, "d", &d, "inf", &inf),
			 0);
	assert_string_equal(level, "error");
	assert_string_equal(msg, "it \"broke\"");
	assert_string_equal(text, "a\nb");
	assert_string_equal(session, "deadbeefcafe0001");
	assert_int_equal(i, -5);
	assert_int_equal(u, 7);
	assert_true(d == 1.5);
	assert_true(json_is_null(inf));
	json_decref(json);
}

static void json_stays_valid_for_any_bytes(void **state)
{
	unsigned int seed = 1, round, i;
	char text[200];

	log_setup(LOG_INFO, LOG_JSON);
	for (round = 0; round < 3000; round++) {
		for (i = 0; i < sizeof(text) - 1; i++) {
			/* Lead and continuation bytes often enough to meet each other. */
			unsigned int r = (unsigned int)rand_r(&seed);

			text[i] = (char)(r % 3 ? 0x80 | r >> 8 : r >> 8);
			if (!text[i])
				text[i] = '"';
		}
		text[i] = 0;
		capture();
		LOG(INFO, text, F_STR("v", text));
		json_decref(captured_json());
	}
}

static void bytes_that_are_not_utf8_are_replaced_and_utf8_is_kept(void **state)
{
	static const struct {
		const char *in, *out;
	} rows[] = {
		{"\xff", "\xef\xbf\xbd"},
		{"a\xc3", "a\xef\xbf\xbd"},				  /* cut short */
		{"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},		  /* overlong */
		{"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* surrogate */
		{"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
		{"\xe2\x82\xac \xf0\x9f\x98\x80 \xf4\x8f\xbf\xbf",
		 "\xe2\x82\xac \xf0\x9f\x98\x80 \xf4\x8f\xbf\xbf"},
	};
	unsigned int i;

	log_setup(LOG_INFO, LOG_JSON);
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		json_t *json;

		capture();
		LOG(INFO, "x", F_STR("v", rows[i].in));
		json = captured_json();
		assert_string_equal(json_string_value(json_object_get(json, "v")), rows[i].out);
		json_decref(json);
	}
}

/* Every length around the limit, with an escape or a wide character right at it. */
static void a_line_that_is_too_long_is_cut_and_still_closed(void **state)
{
	static const char *const fill[] = {"a", "\n", "\x01", "\xe2\x82\xac"};
	char *text = malloc(5000);
	unsigned int f, lead, i;

	assert_non_null(text);
	log_setup(LOG_INFO, LOG_JSON);
	for (f = 0; f < 4; f++) {
		for (lead = 3880; lead < 4080; lead++) {
			json_t *json;

			memset(text, 'x', lead);
			text[lead] = 0;
			for (i = 0; i < 100; i++)
				strcat(text + lead, fill[f]);
			capture();
			LOG(INFO, "long", F_STR("v", text), F_UINT("behind", 12345678));
			json = captured_json();
			assert_true(json_is_true(json_object_get(json, "cut")) !=
				    !!json_object_get(json, "behind"));
			assert_int_equal(
				strncmp(json_string_value(json_object_get(json, "v")), text, 3880),
				0);
			json_decref(json);
		}
	}
	log_setup(LOG_INFO, LOG_LOGFMT);
	capture();
	LOG(INFO, "long", F_STR("v", text), F_UINT("behind", 1));
	assert_non_null(strstr(captured(), " cut=true\n"));
	assert_in_range(strlen(out), 4000, LINE_MAX_BYTES);
	free(text);
}

static int evaluated;

static const char *side_effect(void)
{
	evaluated++;
	return "v";
}

static void fields_of_a_level_that_is_off_are_not_evaluated(void **state)
{
	log_setup(LOG_WARN, LOG_LOGFMT);
	evaluated = 0;
	capture();
	LOG(INFO, "quiet", F_STR("v", side_effect()));
	LOG(DEBUG, "quiet", F_STR("v", side_effect()));
	assert_string_equal(captured(), "");
	assert_int_equal(evaluated, 0);
	assert_true(log_enabled(LOG_ERROR));
	assert_true(log_enabled(LOG_WARN));
	assert_false(log_enabled(LOG_INFO));
}

static void a_closed_stderr_harms_nothing_and_errno_survives(void **state)
{
	int saved = dup(STDERR_FILENO);

	log_setup(LOG_INFO, LOG_LOGFMT);
	assert_true(saved >= 0);
	close(STDERR_FILENO);
	errno = E2BIG;
	LOG(ERROR, "nobody reads this");
	assert_int_equal(errno, E2BIG);
	dup2(saved, STDERR_FILENO);
	close(saved);
}

#define THREADS	     4
#define THREAD_LINES 100

static void *talker(void *arg)
{
	unsigned int i;

	for (i = 0; i < THREAD_LINES; i++)
		LOG(INFO, "talk", F_STR("who", arg), F_UINT("n", i));
	return NULL;
}

static void lines_of_several_threads_never_mix(void **state)
{
	static char names[THREADS][2] = {"a", "b", "c", "d"};
	unsigned int next[THREADS] = {0}, i;
	pthread_t thread[THREADS];
	char *line, *rest;

	log_setup(LOG_INFO, LOG_LOGFMT);
	capture();
	for (i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, talker, names[i]), 0);
	for (i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	captured();
	for (line = strtok_r(out, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		unsigned int n;
		char who;

		assert_int_equal(
			sscanf(after_time(line), "level=info msg=talk who=%c n=%u", &who, &n), 2);
		assert_int_equal(n, next[who - 'a']++);
	}
	for (i = 0; i < THREADS; i++)
		assert_int_equal(next[i], THREAD_LINES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(logfmt_quotes_only_where_needed),
		cmocka_unit_test(a_line_break_in_a_value_cannot_forge_a_line),
		cmocka_unit_test(time_is_utc_rfc3339_with_milliseconds),
		cmocka_unit_test(json_has_every_field_with_its_type),
		cmocka_unit_test(json_stays_valid_for_any_bytes),
		cmocka_unit_test(bytes_that_are_not_utf8_are_replaced_and_utf8_is_kept),
		cmocka_unit_test(a_line_that_is_too_long_is_cut_and_still_closed),
		cmocka_unit_test(fields_of_a_level_that_is_off_are_not_evaluated),
		cmocka_unit_test(a_closed_stderr_harms_nothing_and_errno_survives),
		cmocka_unit_test(lines_of_several_threads_never_mix),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
