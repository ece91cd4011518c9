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

#define NR(array) (sizeof(array) / sizeof((array)[0]))

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit durations[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
static const struct unit sizes[] = {
	{"B", 1}, {"KB", 1000}, {"KiB", 1024}, {"MB", 1000 * 1000}, {"MiB", 1024 * 1024},
};

/* What is written as a whole number and a unit, and the words that errors have for it. */
struct measure {
	const struct unit *units; /* ascending: formatting takes the last one that divides */
	unsigned int nr;
	const char *names; /* of the units */
	const char *noun, *example;
	const char *zero; /* the unit of a 0 that has none */
	const char *unit; /* the one proposed where there is none */
	const char *below, *above;
};

static const struct measure duration = {
	.units = durations,
	.nr = NR(durations),
	.names = "ms, s, m, h",
	.noun = "duration",
	.example = "10s",
	.zero = "ms",
	.unit = "s",
	.below = "short",
	.above = "long",
};
static const struct measure size = {
	.units = sizes,
	.nr = NR(sizes),
	.names = "B, KiB, MiB, KB, MB",
	.noun = "size",
	.example = "32KiB",
	.zero = "B",
	.unit = "B",
	.below = "small",
	.above = "large",
};

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

static const struct unit *find_unit(const struct measure *m, const char *name)
{
	unsigned int i;

	for (i = 0; i < m->nr; i++) {
		if (!strcmp(m->units[i].name, name))
			return &m->units[i];
	}
	return NULL;
}

static char *format_unit(const struct measure *m, uint64_t value, char *text)
{
	unsigned int i = m->nr;

	while (value && --i) {
		if (value % m->units[i].factor == 0)
			break;
	}
	if (!value)
		snprintf(text, VALUE_TEXT_MAX, "0");
	else
		snprintf(text, VALUE_TEXT_MAX, "%" PRIu64 "%s", value / m->units[i].factor,
			 m->units[i].name);
	return text;
}

char *value_format_duration(uint64_t ms, char *text)
{
	return format_unit(&duration, ms, text);
}

char *value_format_size(uint64_t bytes, char *text)
{
	return format_unit(&size, bytes, text);
}

/* Says why @rest, what is behind the digits of @text, is no unit. */
static void say_unit(const struct measure *m, const char *text, const char *rest, char *why,
		     unsigned int why_bytes)
{
	int letter = *rest == 'k' || *rest == 'K' ? 'K' : 'M', digits = (int)(rest - text);
	char quoted[VALUE_QUOTE_MAX];

	value_quote(text, quoted);
	if (!*rest)
		snprintf(why, why_bytes, "%s has no unit; write %.20s%s (units: %s)", quoted, text,
			 m->unit, m->names);
	else if (m == &size && rest[1] == '\0' && strchr("kKmM", *rest))
		snprintf(why, why_bytes,
			 "%s could be %ciB (1024) or %cB (1000); write %.*s%ciB or %.*s%cB", quoted,
			 letter, letter, digits, text, letter, digits, text, letter);
	else
		snprintf(why, why_bytes, "%s has an unknown unit; units are %s", quoted, m->names);
}

static int value_measure(const struct measure *m, const char *text, uint64_t min, uint64_t max,
			 uint64_t *value, char *why, unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX], bound[VALUE_TEXT_MAX];
	const struct unit *unit;
	const char *rest;
	uint64_t n;

	value_quote(text, quoted);
	rest = scan_number(text, &n);
	if (!rest || strpbrk(rest, "0123456789.,+- \t")) {
		snprintf(why, why_bytes,
			 "%s is not a %s; write one whole number and a unit, such as %s (units: "
			 "%s)",
			 quoted, m->noun, m->example, m->names);
		return -EINVAL;
	}
	unit = find_unit(m, *rest || n ? rest : m->zero);
	if (!unit) {
		say_unit(m, text, rest, why, why_bytes);
		return -EINVAL;
	}
	if (__builtin_mul_overflow(n, unit->factor, &n))
		n = UINT64_MAX;
	if (n < min || n > max) {
		snprintf(why, why_bytes, "%s is too %s; write %s or %s", quoted,
			 n < min ? m->below : m->above, format_unit(m, n < min ? min : max, bound),
			 n < min ? "more" : "less");
		return -EINVAL;
	}
	*value = n;
	return 0;
}

int value_duration(const char *text, uint64_t min_ms, uint64_t max_ms, uint64_t *ms, char *why,
		   unsigned int why_bytes)
{
	return value_measure(&duration, text, min_ms, max_ms, ms, why, why_bytes);
}

int value_size(const char *text, uint64_t min, uint64_t max, uint64_t *bytes, char *why,
	       unsigned int why_bytes)
{
	return value_measure(&size, text, min, max, bytes, why, why_bytes);
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
