/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Single values as operators write them, in a flag or in the file: durations, sizes, counts,
 * booleans, names out of a set, addresses. Strict: a value that could mean two things is an error
 * that names both. Never knows which setting the value is for.
 *
 * Every parser returns 0 or -EINVAL; on -EINVAL @why holds a text that quotes the value, says what
 * is wrong and how to write it, and the result is not touched.
 */
#ifndef OPS_VALUE_H
#define OPS_VALUE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"

/* Room for one quoted value of a message; longer ones are cut and end in "...". */
#define VALUE_QUOTE_MAX 72
/* Room for a formatted duration or size. */
#define VALUE_TEXT_MAX 32
/* Room for any reason that a parser gives. */
#define VALUE_WHY_MAX 384

/** value_duration() - "500ms", "2s", "15m", "1h"; a bare number only where it is 0 */
int value_duration(const char *text, uint64_t min_ms, uint64_t max_ms, uint64_t *ms, char *why,
		   unsigned int why_bytes);

/** value_size() - "512B", "32KiB", "1MiB" (1024), "32KB", "1MB" (1000); bare only where it is 0 */
int value_size(const char *text, uint64_t min, uint64_t max, uint64_t *bytes, char *why,
	       unsigned int why_bytes);

/** value_count() - a whole number without a sign */
int value_count(const char *text, uint64_t min, uint64_t max, uint64_t *count, char *why,
		unsigned int why_bytes);

/** value_decimal() - "1.5", "0.05", "2": at most three digits behind the point
 * @min, @max, @milli: in thousandths */
int value_decimal(const char *text, uint64_t min, uint64_t max, uint64_t *milli, char *why,
		  unsigned int why_bytes);

/** value_bool() - "true" or "false" */
int value_bool(const char *text, bool *value, char *why, unsigned int why_bytes);

/** value_name() - one of @names; its index goes to @value */
int value_name(const char *text, const char *const *names, unsigned int nr, unsigned int *value,
	       char *why, unsigned int why_bytes);

/** value_addr() - what addr_parse() takes */
int value_addr(const char *text, struct addr *addr, char *why, unsigned int why_bytes);

/**
 * value_format_duration(), value_format_size(), value_format_decimal() - the shortest exact text that parses back
 * @text: VALUE_TEXT_MAX bytes; returned
 */
char *value_format_duration(uint64_t ms, char *text);
char *value_format_size(uint64_t bytes, char *text);
char *value_format_decimal(uint64_t milli, char *text);

/**
 * value_quote() - a foreign text made fit for a one-line message: in quotes, printable, cut
 * @quoted: VALUE_QUOTE_MAX bytes; returned
 */
const char *value_quote(const char *text, char *quoted);

#endif
