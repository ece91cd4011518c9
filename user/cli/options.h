/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The flags of `run` and `check`: argv -> a list of settings, and file + flags -> one finished
 * configuration, as often as it is asked for (start, each reload). Prints nothing but the help.
 */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stdbool.h>
#include <stdio.h>

#include "core/config.h"
#include "ops/config_file.h"
#include "ops/setting.h"

struct option_given {
	const struct setting *setting;
	const char *text; /* points into argv */
};

struct options {
	const char *config; /* the file, or NULL */
	bool help;
	bool json;
	bool no_affinity;
	unsigned int nr_given;
	struct option_given *given; /* in argv's order */
};

/**
 * options_parse() - take the flags
 * @o: all of it is set; to be freed by options_fini() in any case; points into @argv
 * @argc, @argv: argv[0] is the command; permuted, so that operands are last
 * @takes_file: is one operand allowed as the file's name, and --json?
 * @why: on failure a one-line message
 *
 * Returns 0 or -EINVAL, or -ENOMEM. Values are checked, so that a wrong one is a usage error.
 */
int options_parse(struct options *o, int argc, char **argv, bool takes_file, char *why,
		  unsigned int why_bytes);

/** options_fini() - free what options_parse() made */
void options_fini(struct options *o);

/**
 * options_load() - defaults, then the file, then the flags, then config_finish()
 * @o: of options_parse()
 * @e: on failure what is wrong; its text is one line
 *
 * Returns a configuration from malloc() that the caller owns, or NULL.
 */
struct config *options_load(const struct options *o, struct config_error *e);

/** options_help() - the flags by group, with their defaults */
void options_help(FILE *to, bool takes_file);

#endif
