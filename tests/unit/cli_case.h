/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A command line given as one text, its output caught, and a directory for its files. Included by
 * test programs, after cmocka.h.
 */
#ifndef UNIT_CLI_CASE_H
#define UNIT_CLI_CASE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

#define ARGS_MAX 24
#define OUT_MAX	 32768

static char dir[] = "/tmp/kvpin-cli-XXXXXX";

/* "run --listen x" -> argv; the texts live until the next call. */
static inline int split(const char *line, char **argv)
{
	static char copy[1024];
	char *rest = copy, *word;
	int argc = 0;

	assert_true(strlen(line) < sizeof(copy));
	strcpy(copy, line);
	while ((word = strsep(&rest, " "))) {
		assert_true(argc < ARGS_MAX);
		argv[argc++] = word;
	}
	argv[argc] = NULL;
	return argc;
}

static inline void write_file(const char *name, const char *text, char *path)
{
	FILE *f;

	sprintf(path, "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

/* cli_main() with stdout and stderr caught. */
static inline int command(const char *line, char *out, char *err)
{
	char *argv[ARGS_MAX + 1], paths[2][64];
	int fds[2] = {dup(1), dup(2)}, ret, i, argc;
	char *to[2] = {out, err};
	size_t n;

	fflush(NULL);
	for (i = 0; i < 2; i++) {
		sprintf(paths[i], "%s/out%d", dir, i);
		assert_non_null(freopen(paths[i], "w", i ? stderr : stdout));
	}
	argc = split(line, argv);
	ret = cli_main(argc, argv);
	fflush(NULL);
	for (i = 0; i < 2; i++) {
		FILE *f = fopen(paths[i], "r");

		dup2(fds[i], i + 1);
		close(fds[i]);
		n = fread(to[i], 1, OUT_MAX - 1, f);
		to[i][n] = '\0';
		fclose(f);
	}
	return ret;
}

static inline int make_dir(void **state)
{
	return mkdtemp(dir) ? 0 : -1;
}

static inline int remove_dir(void **state)
{
	static const char *const names[] = {"kvpin.yaml", "reload.yaml", "whole.yaml", "check.yaml",
					    "out0",	  "out1",	 "c.sock",     "none.sock"};
	char path[64];
	unsigned int i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		sprintf(path, "%s/%s", dir, names[i]);
		unlink(path);
	}
	return rmdir(dir);
}

#endif
