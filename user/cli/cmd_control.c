/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The commands that ask the running kvpin: status, backends, sessions, reload. Each is a target
 * and a way to print the answer; --json prints it as it came.
 */
#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

#include "cli/ask.h"
#include "cli/cli.h"
#include "cli/flags.h"
#include "cli/table.h"
#include "ops/value.h"

/* What the daemon lists at most. */
#define SESSIONS_LIMIT_MAX 100000
#define NR(array)	   (sizeof(array) / sizeof((array)[0]))

/* A command without flags of its own. */
static int simple(const struct cli_command *self, int argc, char **argv, const char *method,
		  const char *target, void (*print)(const json_t *answer))
{
	static const struct option flags[] = {ASK_FLAGS, {0}};
	static const char *const args[] = {ASK_FLAG_ARGS};
	char why[ASK_WHY_BYTES];
	struct ask a;

	if (ask_parse(&a, flags, args, NULL, NULL, argc, argv, why) ||
	    flags_end(argc, argv, why, sizeof(why)))
		return cli_usage(self, why);
	if (!a.help)
		return ask_send(&a, method, target, print);
	cli_synopsis(self);
	printf("\n");
	ask_help_flags(&a);
	return CLI_OK;
}

static void print_status(const json_t *answer)
{
	static const struct table_column fields[] = {
		{"version", "version", TABLE_TEXT, NULL},
		{"pid", "pid", TABLE_NUMBER, NULL},
		{"uptime", "uptime_s", TABLE_SECONDS, NULL},
		{"draining", "draining", TABLE_TEXT, NULL},
		{"listen", "listen", TABLE_TEXT, NULL},
		{"path", "path", TABLE_TEXT, NULL},
		{"path in use", "path_in_use", TABLE_TEXT, NULL},
		{"workers", "workers", TABLE_NUMBER, NULL},
		{"connections", "connections", TABLE_NUMBER, NULL},
		{"sessions", "sessions", TABLE_NUMBER, NULL},
		{"keys", "keys", TABLE_TEXT, NULL},
		{"keyless", "keyless", TABLE_TEXT, NULL},
		{"peers", "peers", TABLE_TEXT, ""},
		{"advice", "advice", TABLE_TEXT, ""},
		{"requests relayed", "requests_relay", TABLE_NUMBER, NULL},
		{"requests steered", "requests_steer", TABLE_NUMBER, NULL},
		{"requests spliced", "requests_splice", TABLE_NUMBER, NULL},
		{"handed over", "path_handed_over", TABLE_NUMBER, NULL},
		{"taken back", "path_taken_back", TABLE_NUMBER, NULL},
		{"not steered", "path_refused", TABLE_TEXT, NULL},
		{"not spliced", "splice_refused", TABLE_TEXT, NULL},
		{"splices on", "splice_devices", TABLE_TEXT, NULL},
		{"inherited", "splice_inherited", TABLE_NUMBER, NULL},
		{"queued", "steer_queued_bytes", TABLE_BYTES, NULL},
		{"reloads", "config_reloads", TABLE_NUMBER, NULL},
	};

	table_print_fields(fields, NR(fields), answer);
}

int cmd_status(const struct cli_command *self, int argc, char **argv)
{
	return simple(self, argc, argv, "GET", "/v1/status", print_status);
}

static void print_backends(const json_t *answer)
{
	static const struct table_column columns[] = {
		{"NAME", "name", TABLE_TEXT, NULL},
		{"ADDRESS", "address", TABLE_TEXT, NULL},
		{"STATE", "state", TABLE_TEXT, NULL},
		{"FOR", "state_for_s", TABLE_SECONDS, NULL},
		{"INFLIGHT", "inflight", TABLE_NUMBER, NULL},
		{"SLOTS", "slots", TABLE_NUMBER, "0"},
		{"WEIGHT", "weight", TABLE_NUMBER, NULL},
		{"SESSIONS", "sessions", TABLE_NUMBER, NULL},
		{"REQUESTS", "requests", TABLE_NUMBER, NULL},
		{"KERNEL", "requests_kernel", TABLE_NUMBER, NULL},
		{"RESTARTS", "restarts", TABLE_NUMBER, "0"},
		{"CAUSE", "cause", TABLE_TEXT, "none"},
	};

	table_print(columns, NR(columns), json_object_get(answer, "backends"));
}

int cmd_backends(const struct cli_command *self, int argc, char **argv)
{
	return simple(self, argc, argv, "GET", "/v1/backends", print_backends);
}

enum sessions_flag { FLAG_BACKEND = ASK_FLAG_OWN, FLAG_LIMIT };

struct sessions_asked {
	const char *backend; /* NULL: all */
	uint64_t limit;	     /* 0: the daemon's default */
};

static int sessions_take(void *own, int flag, char *why)
{
	struct sessions_asked *s = own;
	char reason[VALUE_WHY_MAX];

	if (flag == FLAG_BACKEND)
		s->backend = optarg;
	else if (value_count(optarg, 1, SESSIONS_LIMIT_MAX, &s->limit, reason, sizeof(reason)))
		return ask_refuse(why, "--limit: %s", reason);
	return 0;
}

static void sessions_target(const struct sessions_asked *s, char *target, unsigned int bytes)
{
	char *escaped = s->backend ? curl_easy_escape(NULL, s->backend, 0) : NULL;
	unsigned int at;

	at = snprintf(target, bytes, "/v1/sessions");
	if (s->limit)
		at += snprintf(target + at, bytes - at, "?limit=%u", (unsigned int)s->limit);
	if (escaped)
		snprintf(target + at, bytes - at, "%cbackend=%s", s->limit ? '&' : '?', escaped);
	curl_free(escaped);
}

static void print_sessions(const json_t *answer)
{
	static const struct table_column columns[] = {
		{"SESSION", "session", TABLE_TEXT, NULL},
		{"BACKEND", "backend", TABLE_TEXT, NULL},
		{"TURNS", "turns", TABLE_NUMBER, NULL},
		{"MOVES", "moves", TABLE_NUMBER, NULL},
		{"TOKENS", "context_tokens", TABLE_NUMBER, "0"},
		{"CACHE", "cache", TABLE_TEXT, "kept"},
		{"LATEST", "last_turn", TABLE_TEXT, ""},
		{"COLD", "cold_streak", TABLE_NUMBER, "0"},
		{"AGE", "age_s", TABLE_SECONDS, NULL},
		{"IDLE", "idle_s", TABLE_SECONDS, NULL},
	};
	const json_t *rows = json_object_get(answer, "sessions");

	table_print(columns, NR(columns), rows);
	if (json_is_true(json_object_get(answer, "truncated")))
		fprintf(stderr, "%zu of %" JSON_INTEGER_FORMAT " sessions; --limit N lists more\n",
			json_array_size(rows),
			json_integer_value(json_object_get(answer, "total")));
}

int cmd_sessions(const struct cli_command *self, int argc, char **argv)
{
	static const struct option flags[] = {
		ASK_FLAGS,
		{"backend", required_argument, NULL, FLAG_BACKEND},
		{"limit", required_argument, NULL, FLAG_LIMIT},
		{0},
	};
	static const char *const args[] = {ASK_FLAG_ARGS, "NAME", "N"};
	char why[ASK_WHY_BYTES], target[256];
	struct sessions_asked s = {0};
	struct ask a;

	if (ask_parse(&a, flags, args, sessions_take, &s, argc, argv, why) ||
	    flags_end(argc, argv, why, sizeof(why)))
		return cli_usage(self, why);
	if (a.help) {
		cli_synopsis(self);
		printf("\n");
		ask_help_flags(&a);
		printf("  --backend NAME  only those on this server\n"
		       "  --limit N       list so many at most (100)\n");
		return CLI_OK;
	}
	/* A longer one is no server's name, and would not fit the target once escaped. */
	if (s.backend && strlen(s.backend) >= BACKEND_NAME_MAX) {
		ask_refuse(why, "--backend: a server's name has at most %d characters",
			   BACKEND_NAME_MAX - 1);
		return cli_usage(self, why);
	}
	sessions_target(&s, target, sizeof(target));
	return ask_send(&a, "GET", target, print_sessions);
}

static void print_reload(const json_t *answer)
{
	const char *note = ask_text(answer, "note");

	printf("reloaded%s%s\n", note[0] ? ": " : "", note);
}

int cmd_reload(const struct cli_command *self, int argc, char **argv)
{
	return simple(self, argc, argv, "POST", "/v1/reload", print_reload);
}
