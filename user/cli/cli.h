/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The command line: which commands there are, and how they end. A command is a row of a table.
 * Results go to stdout, everything else to stderr.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

enum cli_exit { CLI_OK, CLI_FAILED, CLI_USAGE };

struct cli_command {
	const char *name;
	const char *args; /* synopsis behind the name */
	const char *help; /* one line */
	/* argv[0] is the command's name; returns an enum cli_exit */
	int (*run)(const struct cli_command *self, int argc, char **argv);
};

/** cli_main() - main() without its name, so that tests can call it */
int cli_main(int argc, char **argv);

/** cli_usage() - say what is wrong on stderr and where help is; returns CLI_USAGE */
int cli_usage(const struct cli_command *command, const char *why);

/** cli_synopsis() - "usage: kvpin NAME ARGS" and the command's line, on stdout */
void cli_synopsis(const struct cli_command *command);

/* user/cli/cmd_run.c */
int cmd_run(const struct cli_command *self, int argc, char **argv);
/* user/cli/cmd_check.c */
int cmd_check(const struct cli_command *self, int argc, char **argv);
/* user/cli/cmd_doctor.c */
int cmd_doctor(const struct cli_command *self, int argc, char **argv);
/* user/cli/cmd_control.c */
int cmd_status(const struct cli_command *self, int argc, char **argv);
int cmd_backends(const struct cli_command *self, int argc, char **argv);
int cmd_sessions(const struct cli_command *self, int argc, char **argv);
int cmd_reload(const struct cli_command *self, int argc, char **argv);
/* user/cli/cmd_top.c */
int cmd_top(const struct cli_command *self, int argc, char **argv);

/* user/cli/cmd_guard.c */
int cmd_drain(const struct cli_command *self, int argc, char **argv);
int cmd_undrain(const struct cli_command *self, int argc, char **argv);
int cmd_pin(const struct cli_command *self, int argc, char **argv);
int cmd_unpin(const struct cli_command *self, int argc, char **argv);
int cmd_pressure(const struct cli_command *self, int argc, char **argv);
int cmd_report(const struct cli_command *self, int argc, char **argv);
/* user/cli/cmd_explain.c */
int cmd_explain(const struct cli_command *self, int argc, char **argv);

#endif
