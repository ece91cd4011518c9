/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The commands that ask the running kvpin: status, backends, sessions, reload. Each is a target
 * and a way to print the answer; --json prints it as it came.
 */
#include <curl/curl.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/control_client.h"
#include "cli/flags.h"
#include "cli/table.h"
#include "cli/ask.h"
#include "core/config.h"
#include "ops/setting.h"
#include "ops/value.h"

/* What the daemon lists at most. */
#define SESSIONS_LIMIT_MAX 100000
#define WHY_BYTES	   1024
#define NR(array)	   (sizeof(array) / sizeof((array)[0]))

enum ask_flag { FLAG_JSON = 256, FLAG_CONTROL, FLAG_HELP, FLAG_BACKEND, FLAG_LIMIT };

struct ask {
	bool json, help;
	char control[CONTROL_PATH_MAX];
	const char *backend; /* NULL: all */
	uint64_t limit;	     /* 0: the daemon's default */
};

static const struct option ask_flags[] = {
	{"json", no_argument, NULL, FLAG_JSON},
	{"control", required_argument, NULL, FLAG_CONTROL},
	{"help", no_argument, NULL, FLAG_HELP},
	{0},
};
static const struct option sessions_flags[] = {
	{"json", no_argument, NULL, FLAG_JSON},
	{"control", required_argument, NULL, FLAG_CONTROL},
	{"help", no_argument, NULL, FLAG_HELP},
	{"backend", required_argument, NULL, FLAG_BACKEND},
	{"limit", required_argument, NULL, FLAG_LIMIT},
	{0},
};
static const char *const flag_args[] = {NULL, "PATH", NULL, "NAME", "N"};

void cli_default_control(char path[CONTROL_PATH_MAX])
{
	struct config *c = malloc(sizeof(*c));

	path[0] = '\0';
	if (!c)
		return;
	config_defaults(c);
	strcpy(path, c->control);
	free(c);
}

static int take_flag(struct ask *a, int flag, char *why, unsigned int why_bytes)
{
	char reason[VALUE_WHY_MAX];

	switch (flag) {
	case FLAG_JSON:
		a->json = true;
		return 0;
	case FLAG_HELP:
		a->help = true;
		return 0;
	case FLAG_BACKEND:
		a->backend = optarg;
		return 0;
	case FLAG_LIMIT:
		if (!value_count(optarg, 1, SESSIONS_LIMIT_MAX, &a->limit, reason, sizeof(reason)))
			return 0;
		snprintf(why, why_bytes, "--limit: %s", reason);
		return -EINVAL;
	default:
		if (optarg[0] && strlen(optarg) < sizeof(a->control)) {
			strcpy(a->control, optarg);
			return 0;
		}
		snprintf(why, why_bytes, "--control: a socket's path has 1 to %zu bytes",
			 sizeof(a->control) - 1);
		return -EINVAL;
	}
}

static int parse(struct ask *a, const struct option *flags, int argc, char **argv, char *why,
		 unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX];
	int flag;

	*a = (struct ask){0};
	cli_default_control(a->control);
	flags_begin();
	while ((flag = getopt_long(argc, argv, ":", flags, NULL)) >= 0) {
		if (flag < FLAG_JSON)
			return flags_refuse(flags, flag_args, argv, why, why_bytes);
		if (take_flag(a, flag, why, why_bytes))
			return -EINVAL;
	}
	if (optind == argc)
		return 0;
	snprintf(why, why_bytes, "%s is not a flag and is not expected here",
		 value_quote(argv[optind], quoted));
	return -EINVAL;
}

void cli_print_json(const json_t *root)
{
	json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(12));
	printf("\n");
}

int cli_ask(const char *control, bool json, const char *method, const char *target,
	    void (*print)(const json_t *answer))
{
	char why[WHY_BYTES];
	json_t *answer = NULL;
	int ret = CLI_OK;

	if (control_ask(control, method, target, &answer, why, sizeof(why))) {
		fprintf(stderr, "kvpin: %s\n", why);
		answer = json ? json_pack("{s:s}", "error", why) : NULL;
		ret = CLI_FAILED;
	}
	if (json && answer)
		cli_print_json(answer);
	else if (answer)
		print(answer);
	json_decref(answer);
	return ret;
}

static int ask(const struct ask *a, const char *method, const char *target,
	       void (*print)(const json_t *answer))
{
	return cli_ask(a->control, a->json, method, target, print);
}

static int help(const struct cli_command *self, const struct ask *a)
{
	cli_synopsis(self);
	printf("\n  --json          print the answer as JSON\n"
	       "  --control PATH  the running kvpin's control socket (%s)\n",
	       a->control);
	return CLI_OK;
}

/* A command without flags of its own. */
static int simple(const struct cli_command *self, int argc, char **argv, const char *method,
		  const char *target, void (*print)(const json_t *answer))
{
	char why[WHY_BYTES];
	struct ask a;

	if (parse(&a, ask_flags, argc, argv, why, sizeof(why)))
		return cli_usage(self, why);
	if (a.help)
		return help(self, &a);
	return ask(&a, method, target, print);
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

static void sessions_target(const struct ask *a, char *target, unsigned int bytes)
{
	char *escaped = a->backend ? curl_easy_escape(NULL, a->backend, 0) : NULL;
	unsigned int at;

	at = snprintf(target, bytes, "/v1/sessions");
	if (a->limit)
		at += snprintf(target + at, bytes - at, "?limit=%u", (unsigned int)a->limit);
	if (escaped)
		snprintf(target + at, bytes - at, "%cbackend=%s", a->limit ? '&' : '?', escaped);
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
	char why[WHY_BYTES], target[256];
	struct ask a;

	if (parse(&a, sessions_flags, argc, argv, why, sizeof(why)))
		return cli_usage(self, why);
	if (a.help) {
		help(self, &a);
		printf("  --backend NAME  only those on this server\n"
		       "  --limit N       list so many at most (100)\n");
		return CLI_OK;
	}
	/* A longer one is no server's name, and would not fit the target once escaped. */
	if (a.backend && strlen(a.backend) >= BACKEND_NAME_MAX) {
		snprintf(why, sizeof(why), "--backend: a server's name has at most %d characters",
			 BACKEND_NAME_MAX - 1);
		return cli_usage(self, why);
	}
	sessions_target(&a, target, sizeof(target));
	return ask(&a, "GET", target, print_sessions);
}

static void print_reload(const json_t *answer)
{
	const char *note = json_string_value(json_object_get(answer, "note"));

	printf("reloaded%s%s\n", note && note[0] ? ": " : "", note ? note : "");
}

int cmd_reload(const struct cli_command *self, int argc, char **argv)
{
	return simple(self, argc, argv, "POST", "/v1/reload", print_reload);
}
