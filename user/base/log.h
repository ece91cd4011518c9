/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Structured log lines on stderr: logfmt (ts=… level=… msg=… key=value …) or one JSON object a
 * line. A line is written by one write(2), so lines of several threads never mix.
 *
 * Never logs a session key below LOG_DEBUG: that is the callers' rule, kept in review.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level {
	LOG_ERROR,
	LOG_WARN,
	LOG_INFO,
	LOG_DEBUG,
	LOG_LEVEL_NR
};

enum log_format {
	LOG_LOGFMT,
	LOG_JSON,
	LOG_FORMAT_NR
};

enum log_field_kind {
	LOG_FIELD_END,
	LOG_FIELD_STR,
	LOG_FIELD_INT,
	LOG_FIELD_UINT,
	LOG_FIELD_HEX, /* 16 hex digits: session ids */
	LOG_FIELD_DOUBLE,
};

struct log_field {
	enum log_field_kind kind;
	const char *key;
	union {
		const char *str; /* NULL prints as an empty string */
		int64_t i;
		uint64_t u;
		double d;
	};
};

#define F_STR(k, v)  ((struct log_field){.kind = LOG_FIELD_STR, .key = (k), .str = (v)})
#define F_INT(k, v)  ((struct log_field){.kind = LOG_FIELD_INT, .key = (k), .i = (v)})
#define F_UINT(k, v) ((struct log_field){.kind = LOG_FIELD_UINT, .key = (k), .u = (v)})
#define F_HEX(k, v)  ((struct log_field){.kind = LOG_FIELD_HEX, .key = (k), .u = (v)})
#define F_DBL(k, v)  ((struct log_field){.kind = LOG_FIELD_DOUBLE, .key = (k), .d = (v)})

/* LOG(INFO, "backend up", F_STR("backend", name), F_UINT("checks", n)); the fields are only
 * evaluated when the level is on. */
#define LOG(level, msg, ...)                                                                       \
	do {                                                                                       \
		if (log_enabled(LOG_##level))                                                      \
			log_write(LOG_##level, (msg),                                              \
				  (const struct log_field[]){__VA_ARGS__ __VA_OPT__(, ){0}});      \
	} while (0)

/**
 * log_setup() - choose what is written and how; may be called again at any time
 * @level: the most talkative level that is written
 * @format: logfmt or JSON
 */
void log_setup(enum log_level level, enum log_format format);

/** log_enabled() - would a line of this level be written? */
bool log_enabled(enum log_level level);

/**
 * log_write() - one line
 * @msg: constant text that names the event
 * @fields: array that ends with LOG_FIELD_END; strings are quoted where needed; cut at 4 KiB
 */
void log_write(enum log_level level, const char *msg, const struct log_field *fields);

/* Names as lines and the configuration have them. */
extern const char *const log_level_names[LOG_LEVEL_NR];
extern const char *const log_format_names[LOG_FORMAT_NR];

#endif
