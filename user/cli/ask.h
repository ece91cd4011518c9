/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the commands that ask the running kvpin share: the flags that each of them has, the
 * question, and how its answer is read and printed.
 */
#ifndef CLI_ASK_H
#define CLI_ASK_H

#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>

#include "core/config.h"

/* Room for what is wrong with a command line, or with the answer. */
#define ASK_WHY_BYTES 1024

struct ask {
	bool json, help;
	char control[CONTROL_PATH_MAX];
};

/* Values of the flags; a command's own ones begin at ASK_FLAG_OWN. */
enum ask_flag { ASK_FLAG_JSON = 256, ASK_FLAG_CONTROL, ASK_FLAG_HELP, ASK_FLAG_OWN };

/* How a command's table of flags begins, and the names of their values as flags_refuse() wants
 * them. */
#define ASK_FLAGS                                                                                  \
	{"json", no_argument, NULL, ASK_FLAG_JSON},                                                \
		{"control", required_argument, NULL, ASK_FLAG_CONTROL},                            \
	{                                                                                          \
		"help", no_argument, NULL, ASK_FLAG_HELP                                           \
	}
#define ASK_FLAG_ARGS NULL, "PATH", NULL

/**
 * ask_parse() - take a command's flags; operands are left at argv[optind]
 * @a: set; the control socket is the default one unless told
 * @flags: ASK_FLAGS, the command's own flags, an empty entry
 * @args: ASK_FLAG_ARGS, and of each own flag what its value is called; NULL: it takes none
 * @take: given each own flag with its value in optarg: 0, or -EINVAL and @why; NULL: it has none
 * @own: for @take
 * @why: ASK_WHY_BYTES; set on failure
 *
 * Returns 0 or -EINVAL.
 */
int ask_parse(struct ask *a, const struct option *flags, const char *const *args,
	      int (*take)(void *own, int flag, char *why), void *own, int argc, char **argv,
	      char *why);

/** ask_refuse() - say in @why (ASK_WHY_BYTES) what is wrong; returns -EINVAL */
int __attribute__((format(printf, 2, 3))) ask_refuse(char *why, const char *format, ...);

/** ask_help_flags() - the lines of --help on --json and --control */
void ask_help_flags(const struct ask *a);

/**
 * ask_send() - ask and print: the answer with @print, or as it came with --json, or what went wrong
 * @method, @target: as control_ask() wants them
 *
 * Returns an enum cli_exit.
 */
int ask_send(const struct ask *a, const char *method, const char *target,
	     void (*print)(const json_t *answer));

/** ask_fail() - say what went wrong on stderr, with --json on stdout too; returns CLI_FAILED */
int ask_fail(const struct ask *a, const char *why);

/** ask_print_json() - on stdout, for programs */
void ask_print_json(const json_t *root);

/** ask_text() - a member of an answer; "" where it is no string. The answer's. */
const char *ask_text(const json_t *o, const char *key);

/** ask_number() - a member of an answer; 0 where it is no number */
double ask_number(const json_t *o, const char *key);

#endif
