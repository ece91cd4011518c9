/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * libbpf's messages, line by line: the verifier's log arrives as one message of many lines, and a
 * log line holds 4 KiB.
 *
 * Of the lines one is the cause: the last warning that is not just "the whole failed". Of a
 * verifier's log it is the line above the statistics.
 */
#include "kern/kern_log.h"

#include <bpf/libbpf.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define LINE_MAX_BYTES 192

static __thread char warning[LINE_MAX_BYTES], verifier[LINE_MAX_BYTES];
static __thread char cause[2 * LINE_MAX_BYTES + 16];

/* They repeat that something failed, behind the line that says what. */
static bool says_nothing(const char *line)
{
	return strstr(line, "failed to load object") ||
	       strstr(line, "failed to load BPF skeleton") || strstr(line, "failed to load: -") ||
	       strstr(line, "Retrying without BTF") || strstr(line, "PROG LOAD LOG --");
}

static void keep(char *to, const char *line)
{
	snprintf(to, LINE_MAX_BYTES, "%s", line);
}

static int on_print(enum libbpf_print_level level, const char *format, va_list args)
{
	char *text, *line, *next, *last = NULL;
	bool in_log;

	/* A thousand lines a load, for libbpf's own developers. */
	if (level == LIBBPF_DEBUG)
		return 0;
	if (vasprintf(&text, format, args) < 0)
		return 0;
	in_log = strstr(text, "BEGIN PROG LOAD LOG");
	for (line = text; line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		if (!*line)
			continue;
		LOG(DEBUG, "libbpf", F_STR("text", line));
		if (in_log && (!strncmp(line, "processed ", 10) || strstr(line, "-- END PROG"))) {
			if (last)
				keep(verifier, last);
			in_log = false;
		}
		last = line;
		if (level == LIBBPF_WARN && line == text && !says_nothing(line))
			keep(warning, strncmp(line, "libbpf: ", 8) ? line : line + 8);
	}
	free(text);
	return 0;
}

void kern_log_begin(void)
{
	warning[0] = 0;
	verifier[0] = 0;
	libbpf_set_print(on_print);
}

const char *kern_log_cause(void)
{
	snprintf(cause, sizeof(cause), "%s%s%s", warning, *warning && *verifier ? ": " : "",
		 verifier);
	return cause;
}

int kern_why(char *why, size_t why_bytes, int err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, why_bytes, format, args);
	va_end(args);
	return err;
}
