/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * `kvpin top`: what the servers do and which sessions are hottest, again and again. The first
 * screen counts since the daemon's start, each later one since the screen before. A plain table:
 * where stdout is no terminal, one follows the other.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/ask.h"
#include "cli/cli.h"
#include "cli/control_client.h"
#include "cli/flags.h"
#include "cli/table.h"
#include "ops/value.h"

#define INTERVAL_MS	2000
#define INTERVAL_MIN_MS 100
#define INTERVAL_MAX_MS 3600000
#define SESSIONS_SHOWN	10
#define NR(array)	(sizeof(array) / sizeof((array)[0]))

enum top_flag { FLAG_ONCE = ASK_FLAG_OWN, FLAG_INTERVAL };

static const struct option flags[] = {
	ASK_FLAGS,
	{"once", no_argument, NULL, FLAG_ONCE},
	{"interval", required_argument, NULL, FLAG_INTERVAL},
	{0},
};
static const char *const flag_args[] = {ASK_FLAG_ARGS, NULL, "DUR"};

struct asked {
	struct ask ask;
	bool once;
	uint64_t interval_ms;
};

static int take_flag(void *own, int flag, char *why)
{
	struct asked *a = own;
	char reason[VALUE_WHY_MAX];

	if (flag == FLAG_ONCE)
		a->once = true;
	else if (value_duration(optarg, INTERVAL_MIN_MS, INTERVAL_MAX_MS, &a->interval_ms, reason,
				sizeof(reason)))
		return ask_refuse(why, "--interval: %s", reason);
	return 0;
}

static int parse(struct asked *a, int argc, char **argv, char *why)
{
	char quoted[VALUE_QUOTE_MAX];

	*a = (struct asked){.interval_ms = INTERVAL_MS};
	if (ask_parse(&a->ask, flags, flag_args, take_flag, a, argc, argv, why))
		return -EINVAL;
	if (optind == argc)
		return 0;
	return ask_refuse(why, "%s is not expected here", value_quote(argv[optind], quoted));
}

/* ---- what came between two answers ---- */

static const json_t *find(const json_t *list, const char *key, const char *value)
{
	const json_t *one;
	size_t i;

	json_array_foreach((json_t *)list, i, one)
	{
		const char *text = json_string_value(json_object_get(one, key));

		if (text && !strcmp(text, value))
			return one;
	}
	return NULL;
}

/* A counter since @before, which may be NULL; one that was set back counts from 0. */
static double grown(const json_t *now, const json_t *before, const char *key)
{
	double n = ask_number(now, key), then = before ? ask_number(before, key) : 0;

	return n >= then ? n - then : n;
}

static double bucket(const json_t *now, const json_t *before, size_t i)
{
	double n = json_number_value(json_array_get(now, i));
	double then = before ? json_number_value(json_array_get(before, i)) : 0;

	return n >= then ? n - then : n;
}

/* In ms, by interpolation within a bucket; -1 without samples. Beyond the last bound: that bound.
 */
static double quantile(const json_t *now, const json_t *before, const json_t *bounds, double q)
{
	double all = 0, below = 0, low = 0;
	size_t nr = json_array_size(now);

	for (size_t i = 0; i < nr; i++)
		all += bucket(now, before, i);
	for (size_t i = 0; i < nr; i++) {
		double n = bucket(now, before, i);
		double high = json_number_value(json_array_get(bounds, i));

		if (n > 0 && below + n >= q * all)
			return high > low ? low + (high - low) * (q * all - below) / n : low;
		below += n;
		low = high > low ? high : low;
	}
	return -1;
}

static void put_quantile(json_t *row, const char *key, const json_t *now, const json_t *before,
			 const json_t *bounds, double q)
{
	double ms =
		quantile(json_object_get(now, "ttft"), json_object_get(before, "ttft"), bounds, q);

	if (ms >= 0)
		json_object_set_new(row, key, json_integer((json_int_t)(ms + 0.5)));
}

static json_t *server_row(const json_t *now, const json_t *before, const json_t *bounds, double s)
{
	static const char *const same[] = {"name",    "state",	  "inflight", "slots",
					   "waiting", "sessions", "requests"};
	double warm = grown(now, before, "turns_warm");
	double turns =
		warm + grown(now, before, "turns_partial") + grown(now, before, "turns_cold");
	json_t *row = json_object();

	for (size_t i = 0; i < NR(same); i++)
		json_object_set(row, same[i], json_object_get(now, same[i]));
	json_object_set_new(row, "requests_per_s", json_real(grown(now, before, "requests") / s));
	json_object_set_new(row, "tokens_per_s", json_real(grown(now, before, "tokens") / s));
	put_quantile(row, "ttft_p50_ms", now, before, bounds, 0.5);
	put_quantile(row, "ttft_p90_ms", now, before, bounds, 0.9);
	if (turns > 0)
		json_object_set_new(row, "warm_percent",
				    json_integer((json_int_t)(100 * warm / turns + 0.5)));
	return row;
}

struct hot {
	const json_t *session;
	double turns; /* since the screen before */
};

static int hot_cmp(const void *a, const void *b)
{
	const struct hot *x = a, *y = b;

	if (x->turns != y->turns)
		return (x->turns < y->turns) - (x->turns > y->turns);
	return (ask_number(x->session, "idle_s") > ask_number(y->session, "idle_s")) -
	       (ask_number(x->session, "idle_s") < ask_number(y->session, "idle_s"));
}

/* Those with the most turns since, of equal ones the latest. */
static json_t *session_rows(const json_t *now, const json_t *before)
{
	size_t nr = json_array_size(now), i;
	struct hot *hot = calloc(nr + 1, sizeof(*hot));
	json_t *rows = json_array();

	for (i = 0; hot && i < nr; i++) {
		const json_t *s = json_array_get(now, i);
		const char *id = json_string_value(json_object_get(s, "session"));

		hot[i] =
			(struct hot){s, grown(s, id ? find(before, "session", id) : NULL, "turns")};
	}
	if (hot)
		qsort(hot, nr, sizeof(*hot), hot_cmp);
	for (i = 0; hot && i < nr && i < SESSIONS_SHOWN; i++) {
		json_t *row = json_copy((json_t *)hot[i].session);

		json_object_set_new(row, "new_turns", json_integer((json_int_t)hot[i].turns));
		json_array_append_new(rows, row);
	}
	free(hot);
	return rows;
}

/* The screen as an object. */
static json_t *screen(const json_t *now, const json_t *before)
{
	static const char *const same[] = {"connections", "sessions_total", "pressure"};
	const json_t *bounds = json_object_get(now, "ttft_le_ms"), *one;
	double s = before ? (ask_number(now, "at_ms") - ask_number(before, "at_ms")) / 1000
			  : ask_number(now, "uptime_ms") / 1000;
	json_t *o = json_object(), *rows = json_array();
	size_t i;

	s = s > 0.001 ? s : 0.001;
	json_object_set_new(o, "over_s", json_real(s));
	for (i = 0; i < NR(same); i++)
		json_object_set(o, same[i], json_object_get(now, same[i]));
	json_array_foreach(json_object_get(now, "backends"), i, one)
	{
		const char *name = json_string_value(json_object_get(one, "name"));
		const json_t *then =
			name ? find(json_object_get(before, "backends"), "name", name) : NULL;

		json_array_append_new(rows, server_row(one, then, bounds, s));
	}
	json_object_set_new(o, "backends", rows);
	json_object_set_new(o, "sessions",
			    session_rows(json_object_get(now, "sessions"),
					 json_object_get(before, "sessions")));
	return o;
}

static void print_screen(const json_t *o, bool since_start)
{
	static const struct table_column servers[] = {
		{"SERVER", "name", TABLE_TEXT, NULL},
		{"STATE", "state", TABLE_TEXT, NULL},
		{"INFLIGHT", "inflight", TABLE_NUMBER, NULL},
		{"SLOTS", "slots", TABLE_NUMBER, "0"},
		{"WAITING", "waiting", TABLE_NUMBER, "0"},
		{"SESSIONS", "sessions", TABLE_NUMBER, NULL},
		{"REQ/S", "requests_per_s", TABLE_NUMBER, NULL},
		{"TOK/S", "tokens_per_s", TABLE_NUMBER, NULL},
		{"TTFT P50 MS", "ttft_p50_ms", TABLE_NUMBER, NULL},
		{"P90", "ttft_p90_ms", TABLE_NUMBER, NULL},
		{"WARM %", "warm_percent", TABLE_NUMBER, NULL},
	};
	static const struct table_column sessions[] = {
		{"SESSION", "session", TABLE_TEXT, NULL},
		{"SERVER", "backend", TABLE_TEXT, NULL},
		{"NEW", "new_turns", TABLE_NUMBER, "0"},
		{"TURNS", "turns", TABLE_NUMBER, NULL},
		{"MOVES", "moves", TABLE_NUMBER, "0"},
		{"TOKENS", "context_tokens", TABLE_NUMBER, "0"},
		{"CACHE", "cache", TABLE_TEXT, "kept"},
		{"LATEST", "last_turn", TABLE_TEXT, ""},
		{"COLD", "cold_streak", TABLE_NUMBER, "0"},
		{"IDLE", "idle_s", TABLE_SECONDS, NULL},
	};

	printf("%.0f connections, %.0f sessions, pressure %.0f, %s %.1f s\n\n",
	       ask_number(o, "connections"), ask_number(o, "sessions_total"),
	       ask_number(o, "pressure"), since_start ? "since the start," : "over",
	       ask_number(o, "over_s"));
	table_print(servers, NR(servers), json_object_get(o, "backends"));
	printf("\n");
	table_print(sessions, NR(sessions), json_object_get(o, "sessions"));
}

/* Returns an enum cli_exit. */
static int show(const struct asked *a, json_t **before)
{
	char why[ASK_WHY_BYTES];
	json_t *now, *o;

	if (control_ask(a->ask.control, "GET", "/v1/top", &now, why, sizeof(why))) {
		fprintf(stderr, "kvpin: %s\n", why);
		return CLI_FAILED;
	}
	o = screen(now, *before);
	if (a->ask.json) {
		json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(12));
		printf("\n");
	} else {
		/* Home, and clear what is behind the cursor. */
		if (!a->once && isatty(STDOUT_FILENO))
			printf("\033[H\033[2J");
		else if (*before)
			printf("\n");
		print_screen(o, !*before);
	}
	json_decref(o);
	json_decref(*before);
	*before = now;
	return fflush(stdout) ? CLI_FAILED : CLI_OK;
}

static int help(const struct cli_command *self, const struct asked *a)
{
	cli_synopsis(self);
	printf("\n  --once          one screen, which counts since the start\n"
	       "  --interval DUR  between two screens (2s); with --json an object a line for "
	       "each\n");
	ask_help_flags(&a->ask);
	return CLI_OK;
}

int cmd_top(const struct cli_command *self, int argc, char **argv)
{
	struct timespec pause;
	json_t *before = NULL;
	char why[ASK_WHY_BYTES];
	struct asked a;
	int ret;

	if (parse(&a, argc, argv, why))
		return cli_usage(self, why);
	if (a.ask.help)
		return help(self, &a);
	pause = (struct timespec){
		.tv_sec = (time_t)(a.interval_ms / 1000),
		.tv_nsec = (long)(a.interval_ms % 1000) * 1000000,
	};
	while (!(ret = show(&a, &before)) && !a.once)
		nanosleep(&pause, NULL);
	json_decref(before);
	return ret;
}
