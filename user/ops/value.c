/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Text to value and back. Owns the wording of all value errors; never allocates.
 */
#include "ops/value.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ops/suggest.h"

struct unit {
	const char *name;
	uint64_t factor;
};

/* Ascending: formatting takes the last one that divides. */
static const struct unit durations[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
static const struct unit sizes[] = {
	{"B", 1}, {"KB", 1000}, {"KiB", 1024}, {"MB", 1000 * 1000}, {"MiB", 1024 * 1024},
};

#define DURATION_UNITS "ms, s, m, h"
#define SIZE_UNITS     "B, KiB, MiB, KB, MB"
#define NR(array)      (sizeof(array) / sizeof((array)[0]))

const char *value_quote(const char *text, char *quoted)
{
	/* Two quotes, "..." and the zero. */
	const unsigned int room = VALUE_QUOTE_MAX - 6;
	char *at = quoted;
	unsigned int i;

	*at++ = '"';
	for (i = 0; i < room && text[i]; i++)
		*at++ = text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?';
	strcpy(at, text[i] ? "...\"" : "\"");
	return quoted;
}

/* The digits at the start of @text: returns what follows them, or NULL when there are none. A
 * number over 64 bits is saturated; every range ends far below. */
static const char *scan_number(const char *text, uint64_t *number)
{
	uint64_t n = 0;
	const char *at;

	for (at = text; *at >= '0' && *at <= '9'; at++) {
		if (__builtin_mul_overflow(n, 10, &n) ||
		    __builtin_add_overflow(n, (uint64_t)(*at - '0'), &n))
			n = UINT64_MAX;
	}
	*number = n;
	return at == text ? NULL : at;
}

static const struct unit *find_unit(const char *name, const struct unit *units, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (!strcmp(units[i].name, name))
			return &units[i];
	}
	return NULL;
}

static char *format_unit(uint64_t value, const struct unit *units, unsigned int nr, char *text)
{
	unsigned int i = nr;

	while (value && --i) {
		if (value % units[i].factor == 0)
			break;
	}
	if (!value)
		snprintf(text, VALUE_TEXT_MAX, "0");
	else
		snprintf(text, VALUE_TEXT_MAX, "%" PRIu64 "%s", value / units[i].factor,
			 units[i].name);
	return text;
}

char *value_format_duration(uint64_t ms, char *text)
{
	return format_unit(ms, durations, NR(durations), text);
}

char *value_format_size(uint64_t bytes, char *text)
{
	return format_unit(bytes, sizes, NR(sizes), text);
}

int value_duration(const char *text, uint64_t min_ms, uint64_t max_ms, uint64_t *ms, char *why,
		   unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX], bound[VALUE_TEXT_MAX];
	const struct unit *unit;
	const char *rest;
	uint64_t n;

	value_quote(text, quoted);
	rest = scan_number(text, &n);
	if (!rest || strpbrk(rest, "0123456789.,+- \t")) {
		snprintf(why, why_bytes,
			 "%s is not a duration; write one whole number and a unit, such as 10s "
			 "(units: " DURATION_UNITS ")",
			 quoted);
		return -EINVAL;
	}
	unit = find_unit(*rest || n ? rest : "ms", durations, NR(durations));
	if (!*rest && !unit) {
		snprintf(why, why_bytes, "%s has no unit; write %.20ss (units: " DURATION_UNITS ")",
			 quoted, text);
		return -EINVAL;
	}
	if (!unit) {
		snprintf(why, why_bytes, "%s has an unknown unit; units are " DURATION_UNITS,
			 quoted);
		return -EINVAL;
	}
	if (__builtin_mul_overflow(n, unit->factor, &n))
		n = UINT64_MAX;
	if (n < min_ms || n > max_ms) {
		snprintf(why, why_bytes, "%s is too %s; write %s or %s", quoted,
			 n < min_ms ? "short" : "long",
			 value_format_duration(n < min_ms ? min_ms : max_ms, bound),
			 n < min_ms ? "more" : "less");
		return -EINVAL;
	}
	*ms = n;
	return 0;
}

int value_size(const char *text, uint64_t min, uint64_t max, uint64_t *bytes, char *why,
	       unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX], bound[VALUE_TEXT_MAX];
	const struct unit *unit;
	const char *rest;
	uint64_t n;

	value_quote(text, quoted);
	rest = scan_number(text, &n);
	if (!rest || strpbrk(rest, "0123456789.,+- \t")) {
		snprintf(why, why_bytes,
			 "%s is not a size; write one whole number and a unit, such as 32KiB "
			 "(units: " SIZE_UNITS ")",
			 quoted);
		return -EINVAL;
	}
	unit = find_unit(*rest || n ? rest : "B", sizes, NR(sizes));
	if (!*rest && !unit) {
		snprintf(why, why_bytes, "%s has no unit; write %.20sB (units: " SIZE_UNITS ")",
			 quoted, text);
		return -EINVAL;
	}
	if (!unit && rest[1] == '\0' && strchr("kKmM", *rest)) {
		int letter = *rest == 'k' || *rest == 'K' ? 'K' : 'M';

		snprintf(why, why_bytes,
			 "%s could be %ciB (1024) or %cB (1000); write %.*s%ciB or %.*s%cB", quoted,
			 letter, letter, (int)(rest - text), text, letter, (int)(rest - text), text,
			 letter);
		return -EINVAL;
	}
	if (!unit) {
		snprintf(why, why_bytes, "%s has an unknown unit; units are " SIZE_UNITS, quoted);
		return -EINVAL;
	}
	if (__builtin_mul_overflow(n, unit->factor, &n))
		n = UINT64_MAX;
	if (n < min || n > max) {
		snprintf(why, why_bytes, "%s is too %s; write %s or %s", quoted,
			 n < min ? "small" : "large", value_format_size(n < min ? min : max, bound),
			 n < min ? "more" : "less");
		return -EINVAL;
	}
	*bytes = n;
	return 0;
}

int value_count(const char *text, uint64_t min, uint64_t max, uint64_t *count, char *why,
		unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX];
	const char *rest;
	uint64_t n;

	value_quote(text, quoted);
	rest = scan_number(text, &n);
	if (!rest || *rest) {
		snprintf(why, why_bytes,
			 "%s is not a whole number; write one from %" PRIu64 " to %" PRIu64, quoted,
			 min, max);
		return -EINVAL;
	}
	if (n < min || n > max) {
		snprintf(why, why_bytes,
			 "%s is out of range; write a number from %" PRIu64 " to %" PRIu64, quoted,
			 min, max);
		return -EINVAL;
	}
	*count = n;
	return 0;
}

int value_decimal(const char *text, uint64_t min, uint64_t max, uint64_t *milli, char *why,
		  unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX], least[VALUE_TEXT_MAX], most[VALUE_TEXT_MAX];
	uint64_t n, scale = 100;
	const char *rest = scan_number(text, &n);

	value_quote(text, quoted);
	if (rest && __builtin_mul_overflow(n, 1000, &n))
		n = UINT64_MAX;
	if (rest && *rest == '.' && rest[1]) {
		for (rest++; *rest >= '0' && *rest <= '9' && scale; rest++, scale /= 10)
			if (n < UINT64_MAX)
				n += (uint64_t)(*rest - '0') * scale;
	}
	value_format_decimal(min, least);
	value_format_decimal(max, most);
	if (!rest || *rest || n < min || n > max) {
		snprintf(why, why_bytes, "%s is %s; write one from %s to %s", quoted,
			 !rest || *rest ? "not a number of at most three decimals" : "out of range",
			 least, most);
		return -EINVAL;
	}
	*milli = n;
	return 0;
}

char *value_format_decimal(uint64_t milli, char *text)
{
	int len = snprintf(text, VALUE_TEXT_MAX, "%" PRIu64 ".%03" PRIu64, milli / 1000,
			   milli % 1000);

	while (text[len - 1] == '0')
		text[--len] = '\0';
	if (text[len - 1] == '.')
		text[--len] = '\0';
	return text;
}

int value_bool(const char *text, bool *value, char *why, unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX];
	bool yes = !strcmp(text, "true");

	if (!yes && strcmp(text, "false")) {
		snprintf(why, why_bytes, "%s is not a boolean; write true or false",
			 value_quote(text, quoted));
		return -EINVAL;
	}
	*value = yes;
	return 0;
}

int value_name(const char *text, const char *const *names, unsigned int nr, unsigned int *value,
	       char *why, unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX];
	const char *near;
	unsigned int i;
	int at;

	for (i = 0; i < nr; i++) {
		if (!strcmp(names[i], text)) {
			*value = i;
			return 0;
		}
	}
	at = snprintf(why, why_bytes, "%s is not known; write one of ", value_quote(text, quoted));
	for (i = 0; i < nr && (unsigned int)at < why_bytes; i++)
		at += snprintf(why + at, why_bytes - at, "%s%s", i ? ", " : "", names[i]);
	near = suggest_nearest(text, names, nr);
	if (near && (unsigned int)at < why_bytes)
		snprintf(why + at, why_bytes - at, "; did you mean \"%s\"?", near);
	return -EINVAL;
}

int value_addr(const char *text, struct addr *addr, char *why, unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX];
	struct in6_addr host;
	struct addr parsed;
	const char *reason;
	int err;

	err = addr_parse(text, &parsed, &reason);
	if (!err) {
		*addr = parsed;
		return 0;
	}
	/* The two common slips get the very text that is wanted. */
	if (inet_pton(AF_INET, text, &host) == 1)
		snprintf(why, why_bytes, "\"%s\" has no port; write it as %s:8080", text, text);
	else if (inet_pton(AF_INET6, text, &host) == 1)
		snprintf(why, why_bytes, "\"%s\" has no port; write it as [%s]:8080", text, text);
	else
		snprintf(why, why_bytes, "%s: %s", value_quote(text, quoted), reason);
	return err;
}
