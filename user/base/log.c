/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Builds one log line on the stack and writes it at once. Whatever bytes a string holds, the line
 * stays one line, is valid UTF-8, and as JSON parses: controls are escaped, bytes that are not
 * UTF-8 become U+FFFD, and a line that is cut is still closed properly (and says "cut").
 *
 * Never allocates, never locks, and leaves errno as it was.
 */
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* PIPE_BUF: up to here one write to a pipe is atomic. */
#define LINE_BYTES 4096
/* Kept free for closing a string, saying that the line was cut, and ending it. */
#define LINE_TAIL_BYTES 16
/* Longest number printed: a double with nine digits, sign, point and exponent. */
#define NUMBER_BYTES 32

struct line {
	char text[LINE_BYTES];
	unsigned int used;
	bool json;
	bool cut; /* something did not fit; nothing more is added */
};

static _Atomic uint32_t level_on = LOG_INFO;
static _Atomic uint32_t format_on = LOG_LOGFMT;

const char *const log_level_names[LOG_LEVEL_NR] = {
	[LOG_ERROR] = "error",
	[LOG_WARN] = "warn",
	[LOG_INFO] = "info",
	[LOG_DEBUG] = "debug",
};

const char *const log_format_names[LOG_FORMAT_NR] = {
	[LOG_LOGFMT] = "logfmt",
	[LOG_JSON] = "json",
};

/* All of it or nothing. */
static void line_put(struct line *l, const char *text, size_t n)
{
	if (l->cut || l->used + n > LINE_BYTES - LINE_TAIL_BYTES) {
		l->cut = true;
		return;
	}
	memcpy(l->text + l->used, text, n);
	l->used += (unsigned int)n;
}

/* For what LINE_TAIL_BYTES was kept free. */
static void line_close(struct line *l, const char *text)
{
	size_t n = strlen(text);

	memcpy(l->text + l->used, text, n);
	l->used += (unsigned int)n;
}

/* How long is the character at s, and which? 0: not UTF-8 (RFC 3629: no overlong forms, no
 * surrogates, nothing over U+10FFFF). The terminating zero stops every look-ahead. */
static unsigned int utf8_next(const unsigned char *s, uint32_t *code)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	unsigned int n, i;

	if (s[0] < 0x80) {
		*code = s[0];
		return 1;
	}
	if (s[0] >= 0xc2 && s[0] < 0xe0)
		n = 2;
	else if (s[0] >= 0xe0 && s[0] < 0xf0)
		n = 3;
	else if (s[0] >= 0xf0 && s[0] < 0xf5)
		n = 4;
	else
		return 0;
	*code = s[0] & (0x7f >> n);
	for (i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		*code = *code << 6 | (s[i] & 0x3f);
	}
	if (*code < least[n] || *code > 0x10ffff || (*code >= 0xd800 && *code < 0xe000))
		return 0;
	return n;
}

/* Controls, C1 controls among them (a terminal acts on those too). */
static bool code_is_control(uint32_t code)
{
	return code < 0x20 || (code >= 0x7f && code < 0xa0);
}

/* The inside of a quoted string; JSON's escapes serve logfmt too. */
static void line_escape(struct line *l, const char *text)
{
	const unsigned char *s = (const unsigned char *)text;
	char escape[8];
	uint32_t code;
	unsigned int n;

	for (; *s && !l->cut; s += n) {
		n = utf8_next(s, &code);
		if (!n) {
			line_put(l, "\\ufffd", 6);
			n = 1;
		} else if (code == '"' || code == '\\') {
			line_put(l, (const char[]){'\\', (char)code}, 2);
		} else if (code == '\n') {
			line_put(l, "\\n", 2);
		} else if (code == '\r') {
			line_put(l, "\\r", 2);
		} else if (code == '\t') {
			line_put(l, "\\t", 2);
		} else if (code_is_control(code)) {
			snprintf(escape, sizeof(escape), "\\u%04x", (unsigned int)code);
			line_put(l, escape, 6);
		} else {
			line_put(l, (const char *)s, n);
		}
	}
}

static bool logfmt_needs_quotes(const char *text)
{
	const unsigned char *s = (const unsigned char *)text;
	uint32_t code;
	unsigned int n;

	if (!*s)
		return true;
	for (; *s; s += n) {
		n = utf8_next(s, &code);
		if (!n || code <= ' ' || code == '=' || code == '"' || code == '\\' ||
		    code_is_control(code))
			return true;
	}
	return false;
}

static void line_key(struct line *l, const char *key)
{
	if (l->json) {
		line_put(l, l->used > 1 ? ",\"" : "\"", l->used > 1 ? 2 : 1);
		line_escape(l, key);
		line_put(l, "\":", 2);
	} else {
		line_put(l, " ", l->used ? 1 : 0);
		line_put(l, key, strlen(key));
		line_put(l, "=", 1);
	}
}

/* A string may end early; whatever else does not fit is left out with its key. */
static void line_string(struct line *l, const char *key, const char *text)
{
	unsigned int before = l->used;
	bool quoted;

	if (!text)
		text = "";
	quoted = l->json || logfmt_needs_quotes(text);
	line_key(l, key);
	line_put(l, "\"", quoted ? 1 : 0);
	if (l->cut) {
		l->used = before;
		return;
	}
	line_escape(l, text);
	if (quoted)
		line_close(l, "\"");
}

static void line_bare(struct line *l, const char *key, const char *text)
{
	unsigned int before = l->used;

	line_key(l, key);
	line_put(l, text, strlen(text));
	if (l->cut)
		l->used = before;
}

static void line_field(struct line *l, const struct log_field *f)
{
	char number[NUMBER_BYTES];

	switch (f->kind) {
	case LOG_FIELD_STR:
		line_string(l, f->key, f->str);
		return;
	case LOG_FIELD_HEX:
		snprintf(number, sizeof(number), "%016" PRIx64, f->u);
		line_string(l, f->key, number);
		return;
	case LOG_FIELD_INT:
		snprintf(number, sizeof(number), "%" PRId64, f->i);
		break;
	case LOG_FIELD_UINT:
		snprintf(number, sizeof(number), "%" PRIu64, f->u);
		break;
	case LOG_FIELD_DOUBLE:
		/* JSON has no word for infinity. */
		if (l->json && !isfinite(f->d))
			snprintf(number, sizeof(number), "null");
		else
			snprintf(number, sizeof(number), "%.9g", f->d);
		break;
	case LOG_FIELD_END:
		return;
	}
	line_bare(l, f->key, number);
}

static void line_time(struct line *l)
{
	char text[64];
	struct timespec now;
	struct tm utc;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", utc.tm_year + 1900,
		 utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
		 (int)(now.tv_nsec / 1000000));
	line_string(l, "ts", text);
}

void log_setup(enum log_level level, enum log_format format)
{
	atomic_store_explicit(&level_on, level, memory_order_relaxed);
	atomic_store_explicit(&format_on, format, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
	return (uint32_t)level <= atomic_load_explicit(&level_on, memory_order_relaxed);
}

void log_write(enum log_level level, const char *msg, const struct log_field *fields)
{
	int saved_errno = errno;
	struct line l;
	ssize_t n;

	l.used = 0;
	l.cut = false;
	l.json = atomic_load_explicit(&format_on, memory_order_relaxed) == LOG_JSON;
	if (l.json)
		line_put(&l, "{", 1);
	line_time(&l);
	line_string(&l, "level", log_level_names[level]);
	line_string(&l, "msg", msg);
	for (; fields && fields->kind != LOG_FIELD_END; fields++)
		line_field(&l, fields);
	if (l.cut)
		line_close(&l, l.json ? ",\"cut\":true" : " cut=true");
	line_close(&l, l.json ? "}\n" : "\n");
	/* A reader that is gone or too slow loses lines; it must not stop the balancer. */
	do
		n = write(STDERR_FILENO, l.text, l.used);
	while (n < 0 && errno == EINTR);
	errno = saved_errno;
}
