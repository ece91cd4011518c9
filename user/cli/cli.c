/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The table of commands and the choice among them. Owns `help` and `version`; knows nothing of
 * what the others do.
 */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

#include "ops/suggest.h"
#include "ops/value.h"

static int cmd_version(const struct cli_command *self, int argc, char **argv);
static int cmd_help(const struct cli_command *self, int argc, char **argv);

static const struct cli_command commands[] = {
	{"run", "[--config FILE] [FLAGS]", "balance until SIGTERM", cmd_run},
	{"check", "[FILE] [--json] [FLAGS]", "check a configuration without running it", cmd_check},
	{"doctor", "[--json]", "what this kernel and these privileges allow", cmd_doctor},
	{"status", "[--json] [--control PATH]", "how the running kvpin does", cmd_status},
	{"backends", "[--json] [--control PATH]", "the servers, their state and load",
	 cmd_backends},
	{"sessions", "[--backend NAME] [--limit N] [--json] [--control PATH]",
	 "which session is on which server", cmd_sessions},
	{"top", "[--once] [--interval DUR] [--json] [--control PATH]",
	 "servers and hottest sessions, again and again", cmd_top},
	{"explain", "[--last N] [--session KEY] [--json] | --config FILE --request FILE",
	 "why requests went where they went", cmd_explain},
	{"report", "[--json] [--control PATH]", "the experiment's two arms beside each other",
	 cmd_report},
	{"pressure", "[--ack] [--json] [--control PATH]",
	 "sessions that had to leave a live server, last minute", cmd_pressure},
	{"drain", "NAME [--deadline DUR] [--idle DUR] [--json] [--control PATH]",
	 "take a server's sessions away from it by and by", cmd_drain},
	{"undrain", "NAME [--json] [--control PATH]", "undo drain", cmd_undrain},
	{"pin", "KEY NAME [--id] [--json] [--control PATH]", "put a session on a server", cmd_pin},
	{"unpin", "KEY [--id] [--json] [--control PATH]", "forget a session's server", cmd_unpin},
	{"reload", "[--json] [--control PATH]", "read the configuration again", cmd_reload},
	{"version", "", "print the version", cmd_version},
	{"help", "[COMMAND]", "this text, or a command's", cmd_help},
};

#define COMMANDS_NR (sizeof(commands) / sizeof(commands[0]))

static const struct cli_command *find_command(const char *name)
{
	unsigned int i;

	for (i = 0; i < COMMANDS_NR; i++) {
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	}
	return NULL;
}

static int unknown_command(const char *name)
{
	const char *names[COMMANDS_NR], *near;
	char quoted[VALUE_QUOTE_MAX];
	unsigned int i;

	for (i = 0; i < COMMANDS_NR; i++)
		names[i] = commands[i].name;
	near = suggest_nearest(name, names, COMMANDS_NR);
	fprintf(stderr, "kvpin: unknown command %s", value_quote(name, quoted));
	if (near)
		fprintf(stderr, "; did you mean \"%s\"?", near);
	fprintf(stderr, "\nTry: kvpin help\n");
	return CLI_USAGE;
}

static void print_help(FILE *to)
{
	unsigned int i;

	fprintf(to, "kvpin keeps each LLM session on the server that has its KV cache.\n\n"
		    "usage: kvpin COMMAND [FLAGS]\n\nCommands:\n");
	for (i = 0; i < COMMANDS_NR; i++)
		fprintf(to, "  %-10s%s\n", commands[i].name, commands[i].help);
	fprintf(to, "\nStart with:\n  kvpin run --listen 0.0.0.0:8080 --backend "
		    "gpu0=127.0.0.1:8081 --backend gpu1=127.0.0.1:8082\n"
		    "\nExit status: 0 ok, 1 failed, 2 usage. `kvpin COMMAND --help` tells more.\n");
}

int cli_usage(const struct cli_command *command, const char *why)
{
	fprintf(stderr, "kvpin %s: %s\nTry: kvpin %s --help\n", command->name, why, command->name);
	return CLI_USAGE;
}

void cli_synopsis(const struct cli_command *command)
{
	printf("usage: kvpin %s%s%s\n\n%s\n", command->name, command->args[0] ? " " : "",
	       command->args, command->help);
}

static int cmd_version(const struct cli_command *self, int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "--help")) {
		cli_synopsis(self);
		return CLI_OK;
	}
	if (argc > 1)
		return cli_usage(self, "takes no arguments");
	printf("kvpin %s\n", KVPIN_VERSION);
	return CLI_OK;
}

static int cmd_help(const struct cli_command *self, int argc, char **argv)
{
	const struct cli_command *command;
	char *args[] = {NULL, "--help", NULL};

	if (argc > 2)
		return cli_usage(self, "takes one command at most");
	if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "help")) {
		print_help(stdout);
		return CLI_OK;
	}
	command = find_command(argv[1]);
	if (!command)
		return unknown_command(argv[1]);
	args[0] = argv[1];
	return command->run(command, 2, args);
}

int cli_main(int argc, char **argv)
{
	const struct cli_command *command;
	int ret;

	if (argc < 2) {
		print_help(stderr);
		return CLI_USAGE;
	}
	if (!strcmp(argv[1], "--version"))
		command = find_command("version");
	else if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		command = find_command("help");
	else
		command = find_command(argv[1]);
	if (!command)
		return unknown_command(argv[1]);
	ret = command->run(command, argc - 1, argv + 1);
	/* `kvpin status >/dev/full` has failed. */
	if (fflush(stdout) && ret == CLI_OK) {
		perror("kvpin: stdout");
		ret = CLI_FAILED;
	}
	return ret;
}
