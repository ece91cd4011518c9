/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A question to the running kvpin: the flags that all such commands have, the request, and the
 * answer's way to stdout. What is asked, and how people read it, is the commands' own.
 */
#include "cli/ask.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/control_client.h"
#include "cli/flags.h"

/* Where a kvpin listens that was told nothing. */
static void default_control(char path[CONTROL_PATH_MAX])
{
	struct config *c = malloc(sizeof(*c));

	path[0] = '\0';
	if (!c)
		return;
	config_defaults(c);
	strcpy(path, c->control);
	free(c);
}

int ask_refuse(char *why, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, ASK_WHY_BYTES, format, args);
	va_end(args);
	return -EINVAL;
}

static int take_control(struct ask *a, char *why)
{
	if (!optarg[0] || strlen(optarg) >= sizeof(a->control))
		return ask_refuse(why, "--control: a socket's path has 1 to %zu bytes",
				  sizeof(a->control) - 1);
	strcpy(a->control, optarg);
	return 0;
}

int ask_parse(struct ask *a, const struct option *flags, const char *const *args,
	      int (*take)(void *own, int flag, char *why), void *own, int argc, char **argv,
	      char *why)
{
	int flag, rc = 0;

	*a = (struct ask){0};
	default_control(a->control);
	flags_begin();
	while (!rc && (flag = getopt_long(argc, argv, ":", flags, NULL)) >= 0) {
		if (flag < ASK_FLAG_JSON)
			rc = flags_refuse(flags, args, argv, why, ASK_WHY_BYTES);
		else if (flag == ASK_FLAG_JSON)
			a->json = true;
		else if (flag == ASK_FLAG_HELP)
			a->help = true;
		else if (flag == ASK_FLAG_CONTROL)
			rc = take_control(a, why);
		else
			rc = take(own, flag, why);
	}
	return rc;
}

void ask_help_flags(const struct ask *a)
{
	printf("  --json          print the answer as JSON\n"
	       "  --control PATH  the running kvpin's control socket (%s)\n",
	       a->control);
}

void ask_print_json(const json_t *root)
{
	json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(12));
	printf("\n");
}

int ask_fail(const struct ask *a, const char *why)
{
	json_t *root = a->json ? json_pack("{s:s}", "error", why) : NULL;

	fprintf(stderr, "kvpin: %s\n", why);
	if (root)
		ask_print_json(root);
	json_decref(root);
	return CLI_FAILED;
}

int ask_send(const struct ask *a, const char *method, const char *target,
	     void (*print)(const json_t *answer))
{
	char why[ASK_WHY_BYTES];
	json_t *answer;

	if (control_ask(a->control, method, target, &answer, why, sizeof(why)))
		return ask_fail(a, why);
	if (a->json)
		ask_print_json(answer);
	else
		print(answer);
	json_decref(answer);
	return CLI_OK;
}

const char *ask_text(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text ? text : "";
}

double ask_number(const json_t *o, const char *key)
{
	return json_number_value(json_object_get(o, key));
}
