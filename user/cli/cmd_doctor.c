/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * `kvpin doctor`: which data paths this kernel and these privileges allow, found out by running
 * the checks of user/kern/selftest.h. Reads no configuration and asks no daemon.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/flags.h"
#include "cli/table.h"
#include "kern/selftest.h"

#define WHY_BYTES 256
#define NR(array) (sizeof(array) / sizeof((array)[0]))

enum doctor_flag { FLAG_JSON = 256, FLAG_HELP };

static const char *const need_names[] = {
	[SELFTEST_FOR_ALL] = "all",	[SELFTEST_FOR_KERNEL] = "kernel",
	[SELFTEST_FOR_STEER] = "steer", [SELFTEST_FOR_SPLICE] = "splice",
	[SELFTEST_FOR_INFO] = "info",
};

static int parse(bool *json, bool *help, int argc, char **argv, char *why, unsigned int why_bytes)
{
	static const struct option flags[] = {
		{"json", no_argument, NULL, FLAG_JSON},
		{"help", no_argument, NULL, FLAG_HELP},
		{0},
	};
	static const char *const args[NR(flags)];
	int flag;

	*json = false;
	*help = false;
	flags_begin();
	while ((flag = getopt_long(argc, argv, ":", flags, NULL)) >= 0) {
		if (flag < FLAG_JSON)
			return flags_refuse(flags, args, argv, why, why_bytes);
		*(flag == FLAG_JSON ? json : help) = true;
	}
	return flags_end(argc, argv, why, why_bytes);
}

static json_t *checks_json(const struct selftest *t, unsigned int nr)
{
	json_t *list = json_array();
	unsigned int i;

	for (i = 0; i < nr; i++)
		json_array_append_new(list,
				      json_pack("{s:s, s:s, s:s, s:i, s:s, s:s}", "name", t[i].name,
						"result", selftest_result_names[t[i].result],
						"needed_for", need_names[t[i].need], "ms",
						(int)t[i].ms, "why", t[i].why, "fix", t[i].fix));
	return list;
}

static json_t *paths_json(const struct selftest *t, unsigned int nr)
{
	json_t *paths = json_object();
	unsigned int i;

	for (i = 0; i < SELFTEST_PATH_NR; i++) {
		const struct selftest *p = selftest_problem(t, nr, i);

		json_object_set_new(paths, selftest_path_names[i],
				    p ? json_pack("{s:b, s:s, s:s, s:s}", "available", 0, "check",
						  p->name, "why", p->why, "fix", p->fix)
				      : json_pack("{s:b}", "available", 1));
	}
	return paths;
}

/* The first problem decides; what else failed is said too, so that one visit is enough. */
static void print_path(const struct selftest *t, unsigned int nr, enum selftest_path path)
{
	const struct selftest *p = selftest_problem(t, nr, path);
	const char *name = selftest_path_names[path];

	if (!p) {
		printf("%s: yes\n", name);
		return;
	}
	printf("%s: no: %s: %s; fix: %s\n", name, p->name, p->why, p->fix);
	while ((p = selftest_problem(p + 1, t + nr - (p + 1), path))) {
		if (p->result == SELFTEST_FAILED)
			printf("%s: and: %s: %s; fix: %s\n", name, p->name, p->why, p->fix);
	}
}

static void print_text(const json_t *checks, const struct selftest *t, unsigned int nr)
{
	static const struct table_column columns[] = {
		{"CHECK", "name", TABLE_TEXT, NULL},	{"FOR", "needed_for", TABLE_TEXT, NULL},
		{"RESULT", "result", TABLE_TEXT, NULL}, {"MS", "ms", TABLE_NUMBER, NULL},
		{"DETAIL", "why", TABLE_TEXT, NULL},
	};
	unsigned int i;

	table_print(columns, NR(columns), checks);
	printf("\n");
	for (i = 0; i < SELFTEST_PATH_NR; i++)
		print_path(t, nr, i);
}

static void print_help(const struct cli_command *self)
{
	cli_synopsis(self);
	printf("\nLoads small programs, sends bytes over 127.0.0.1 and compares what arrives; "
	       "takes "
	       "about\nhalf a second and leaves nothing behind. `kvpin run` makes the same checks "
	       "before it steers.\nRun it as the user that runs kvpin: privileges are a part of "
	       "the "
	       "answer.\n\n"
	       "  --json  print the result as JSON\n\n"
	       "Exit status: 0 every data path is available, 1 one is not (relay nearly always "
	       "is),\n"
	       "2 usage.\n");
}

int cmd_doctor(const struct cli_command *self, int argc, char **argv)
{
	struct selftest t[SELFTEST_MAX];
	json_t *checks, *root = NULL;
	unsigned int i, nr, usable = 0;
	char why[WHY_BYTES];
	bool json, help;

	if (parse(&json, &help, argc, argv, why, sizeof(why)))
		return cli_usage(self, why);
	if (help) {
		print_help(self);
		return CLI_OK;
	}
	nr = selftest_run(t);
	for (i = 0; i < SELFTEST_PATH_NR; i++)
		usable += !selftest_problem(t, nr, i);
	checks = checks_json(t, nr);
	if (json) {
		root = json_pack("{s:b, s:o, s:O}", "ok", usable == SELFTEST_PATH_NR, "paths",
				 paths_json(t, nr), "checks", checks);
		json_dumpf(root, stdout, JSON_INDENT(2));
		printf("\n");
	} else {
		print_text(checks, t, nr);
	}
	json_decref(root);
	json_decref(checks);
	return usable == SELFTEST_PATH_NR ? CLI_OK : CLI_FAILED;
}
