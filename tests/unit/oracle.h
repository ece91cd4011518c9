/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reading the lines of an oracle: a Python program beside the tests that prints cases with the
 * results they should have. Included by test programs, after cmocka.h. */
#ifndef UNIT_ORACLE_H
#define UNIT_ORACLE_H

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ORACLE_MISSING 77

static char *oracle_rest; /* of the line */

static inline const char *oracle_word(void)
{
	char *w = strsep(&oracle_rest, " \n");

	if (!w || !*w)
		fail_msg("the oracle's line ends early");
	return w;
}

static inline uint64_t oracle_number(void)
{
	const char *w = oracle_word();
	char *end;
	uint64_t n;

	errno = 0;
	n = strtoull(w, &end, 10);
	if (errno || *end)
		fail_msg("the oracle says %s, not a number", w);
	return n;
}

/* The next word's place among @names. */
static inline uint32_t oracle_index(const char *const *names, uint32_t nr)
{
	const char *w = oracle_word();
	uint32_t i;

	for (i = 0; i < nr && strcmp(names[i], w); i++)
		;
	if (i == nr)
		fail_msg("the oracle says %s", w);
	return i;
}

/* Hex digits, or "-" for nothing; returns the number of bytes. */
static inline size_t oracle_bytes(uint8_t *to, size_t room)
{
	const char *hex = oracle_word();
	size_t len = strcmp(hex, "-") ? strlen(hex) / 2 : 0, i;

	assert_true(len <= room);
	for (i = 0; i < len; i++) {
		unsigned int byte;

		assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
		to[i] = (uint8_t)byte;
	}
	return len;
}

/* Calls @take with the first word of each line. Returns the number of lines, or -1 when the oracle
 * cannot run. The repository's root is somewhere above the test program. */
static inline long oracle_run(const char *name, const char *args, void (*take)(const char *first))
{
	char path[4096], command[4400], *line = NULL;
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 100);
	size_t room = 0;
	long lines = 0;
	FILE *oracle;
	int status;

	assert_true(n > 0);
	for (path[n] = 0; strrchr(path, '/');) {
		char *slash = strrchr(path, '/');

		sprintf(slash, "/tests/unit/%s", name);
		if (!access(path, R_OK))
			break;
		*slash = 0;
	}
	assert_true(*path);
	snprintf(command, sizeof(command), "/usr/bin/python3 '%s' %s", path, args);
	oracle = popen(command, "r");
	assert_non_null(oracle);
	for (; getline(&line, &room, oracle) > 0; lines++) {
		oracle_rest = line;
		take(oracle_word());
	}
	free(line);
	status = pclose(oracle);
	if (WIFEXITED(status) && WEXITSTATUS(status) == ORACLE_MISSING)
		return -1;
	assert_int_equal(status, 0);
	return lines;
}

#endif
