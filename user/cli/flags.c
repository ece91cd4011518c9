/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Reads getopt's globals (optind, optopt), which say what was refused. Keeps no state of its own.
 */
#include "cli/flags.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ops/suggest.h"
#include "ops/value.h"

/* More than any command has. */
#define FLAG_NAMES_MAX 96

void flags_begin(void)
{
	opterr = 0;
	optind = 0; /* GNU: start anew, for a second argv in one process */
}

/* A known flag, wrongly used. */
static int refuse_known(const struct option *flag, const char *arg, char *why,
			unsigned int why_bytes)
{
	if (flag->has_arg == no_argument)
		snprintf(why, why_bytes, "--%s takes no value", flag->name);
	else
		snprintf(why, why_bytes, "--%s has no value; write --%s %s", flag->name, flag->name,
			 arg);
	return -EINVAL;
}

int flags_refuse(const struct option *flags, const char *const *args, char **argv, char *why,
		 unsigned int why_bytes)
{
	const char *names[FLAG_NAMES_MAX], *near;
	char word[VALUE_QUOTE_MAX], quoted[VALUE_QUOTE_MAX];
	unsigned int nr, begins = 0;
	const char *text;

	/* One letter: getopt may still be inside its word. */
	if (optopt && optopt < 256) {
		snprintf(why, why_bytes, "-%c is unknown; flags are words, such as --help",
			 optopt > 0x20 && optopt < 0x7f ? optopt : '?');
		return -EINVAL;
	}
	text = argv[optind - 1] + 2;
	snprintf(word, sizeof(word), "%.*s", (int)strcspn(text, "="), text);
	value_quote(argv[optind - 1], quoted);
	for (nr = 0; nr < FLAG_NAMES_MAX && flags[nr].name; nr++) {
		names[nr] = flags[nr].name;
		if (optopt && flags[nr].val == optopt)
			return refuse_known(&flags[nr], args[nr], why, why_bytes);
		begins += !strncmp(word, flags[nr].name, strlen(word));
	}
	near = suggest_nearest(word, names, nr);
	if (begins > 1)
		snprintf(why, why_bytes, "%s fits several flags; write one out", quoted);
	else if (near)
		snprintf(why, why_bytes, "%s is unknown; did you mean --%s?", quoted, near);
	else
		snprintf(why, why_bytes, "%s is unknown", quoted);
	return -EINVAL;
}

int flags_end(int argc, char **argv, char *why, unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX];

	if (optind == argc)
		return 0;
	snprintf(why, why_bytes, "%s is not a flag and is not expected here",
		 value_quote(argv[optind], quoted));
	return -EINVAL;
}
