/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the commands that ask the running kvpin share. */
#ifndef CLI_ASK_H
#define CLI_ASK_H

#include <jansson.h>
#include <stdbool.h>

#include "core/config.h"

/** cli_default_control() - where a kvpin listens that was told nothing */
void cli_default_control(char path[CONTROL_PATH_MAX]);

/** cli_print_json() - on stdout, for programs */
void cli_print_json(const json_t *root);

/**
 * cli_ask() - ask and print: the answer with @print, or as it came with @json, or what went wrong
 * @control: path of the control socket
 * @method, @target: as control_ask() wants them
 *
 * Returns an enum cli_exit.
 */
int cli_ask(const char *control, bool json, const char *method, const char *target,
	    void (*print)(const json_t *answer));

#endif
