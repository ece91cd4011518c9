/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * `kvpin run`: flags, then the daemon. Gives the daemon a way to build a configuration, so that a
 * reload reads the file again under the same flags.
 */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/options.h"
#include "ops/daemon.h"
#include "ops/value.h"

static struct config *load(void *arg, char *why, unsigned int why_bytes)
{
	struct config_error e;
	struct config *c = options_load(arg, &e);

	if (!c)
		snprintf(why, why_bytes, "%s", e.text);
	return c;
}

int cmd_run(const struct cli_command *self, int argc, char **argv)
{
	char why[VALUE_WHY_MAX + 64];
	struct options o;
	int ret;

	if (options_parse(&o, argc, argv, false, why, sizeof(why))) {
		ret = cli_usage(self, why);
	} else if (o.help) {
		cli_synopsis(self);
		printf("Runs in the foreground; SIGHUP reads the file again, SIGTERM drains.\n");
		options_help(stdout, false);
		ret = CLI_OK;
	} else {
		ret = daemon_run(load, &o) ? CLI_FAILED : CLI_OK;
	}
	options_fini(&o);
	return ret;
}
