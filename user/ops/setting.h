/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The settings as one table: key in the file, flag, kind of value, where it goes in struct config,
 * limits, help. Flags, file, help text and `check` all read it, so a setting exists everywhere or
 * nowhere. Changes only the struct config that it is given; never reads files or argv.
 */
#ifndef OPS_SETTING_H
#define OPS_SETTING_H

#include <stdbool.h>
#include <stdint.h>

#include "core/config.h"

enum setting_kind {
	SETTING_DURATION,
	SETTING_SIZE,
	SETTING_COUNT,
	SETTING_DECIMAL, /* kept in thousandths */
	SETTING_BOOL,
	SETTING_NAME, /* one of a set of names */
	SETTING_URL_PATH,
	SETTING_SOCKET_PATH, /* or "off" */
	SETTING_STATE_PATH,  /* or "auto" or "off" */
	SETTING_FILE_PATH,   /* absolute, or "off" */
	SETTING_DIR_PATH,
	SETTING_USER,
	SETTING_METRICS,     /* an address or "off" */
	SETTING_HEADER_NAME, /* or "off", where .zero says so */
	SETTING_WORD,	     /* of letters, digits, '_' and ':', or "off" */
	SETTING_ADDRS,	     /* addresses in one text, .max at most, or "off" */
	/* Lists: setting_set() appends one entry. */
	SETTING_LISTEN,
	SETTING_KEY,	 /* KIND=NAME, client-ip, prefix[,rule=value] */
	SETTING_HEADER,	 /* a KEY that is a header's name: of flags only, the same list */
	SETTING_BACKEND, /* NAME=ADDR[,slots=N][,weight=N] */
	SETTING_KIND_NR
};

enum setting_group {
	SETTING_GROUP_TRAFFIC,
	SETTING_GROUP_SESSIONS,
	SETTING_GROUP_GUARD,
	SETTING_GROUP_HEALTH,
	SETTING_GROUP_TIMEOUTS,
	SETTING_GROUP_LIMITS,
	SETTING_GROUP_OPERATION,
	SETTING_GROUP_NR
};

struct setting {
	const char *key;     /* in the file: "timeouts.head" */
	const char *flag;    /* without the dashes */
	const char *arg;     /* what the flag's value is called in the help */
	const char *example; /* a value that is right, as the file writes it */
	const char *help;
	enum setting_group group;
	enum setting_kind kind;
	uint16_t offset, size; /* in struct config; not of lists */
	uint64_t min, max;     /* durations in ms, sizes in bytes, decimals in thousandths */
	const char *zero;      /* word for the value 0, or NULL */
	const char *const *names;
	unsigned int nr_names;
};

/* Room for settings that are kept by index; a build error says when the table outgrows it. */
#define SETTINGS_MAX 80
/* Room for one formatted source of keys. */
#define SETTING_KEY_TEXT_MAX 160
/* Room for any formatted setting: a full list of them. */
#define SETTING_TEXT_MAX (KEYS_MAX * (SETTING_KEY_TEXT_MAX + 2))

extern const struct setting settings[];
extern const unsigned int settings_nr;

/* Fields of one server, in the file and behind the comma in the flag. */
enum backend_field_id {
	BACKEND_FIELD_NAME,
	BACKEND_FIELD_ADDRESS,
	BACKEND_FIELD_SLOTS,
	BACKEND_FIELD_WEIGHT,
	BACKEND_FIELD_NR
};

struct backend_field {
	const char *key;
	const char *example;
	bool required;
	int (*set)(struct backend_config *b, const char *text, char *why, unsigned int why_bytes);
};

extern const struct backend_field backend_fields[BACKEND_FIELD_NR];

/* An entry of affinity.keys is one of these, or `prefix` with its rules. */
enum key_field_id {
	KEY_FIELD_HEADER,
	KEY_FIELD_COOKIE,
	KEY_FIELD_QUERY,
	KEY_FIELD_JSON,
	KEY_FIELD_CLIENT_IP,
	KEY_FIELD_PRESET,
	KEY_FIELD_NR
};

struct key_field {
	const char *key;
	const char *example;
};

extern const struct key_field key_fields[KEY_FIELD_NR];

#define PREFIX_FIELD_NR 7

struct prefix_field {
	const char *key;
	const char *example;
	int (*set)(struct config *c, const char *text, char *why, unsigned int why_bytes);
};

extern const struct prefix_field prefix_fields[PREFIX_FIELD_NR];

/** setting_is_list() - does setting_set() append? */
bool setting_is_list(const struct setting *s);

/**
 * setting_set() - take a value from its text
 * @s: one of settings[]
 * @c: changed on success only
 * @text: as the flag or the file writes it; a server as the flag does
 * @why: on failure what is wrong and the fix, without the setting's name
 *
 * Returns 0 or -EINVAL.
 */
int setting_set(const struct setting *s, struct config *c, const char *text, char *why,
		unsigned int why_bytes);

/** setting_clear() - empty a list before the first entry of a source that replaces it */
void setting_clear(const struct setting *s, struct config *c);

/**
 * setting_format() - the value as the file would write it; of lists a comma-separated summary
 * @text: SETTING_TEXT_MAX bytes; returned
 */
char *setting_format(const struct setting *s, const struct config *c, char *text);

/** setting_init_backend() - the defaults of a server's optional fields */
void setting_init_backend(struct backend_config *b);

/** setting_add_backend() - append a server; -EINVAL when there is no room or its name is taken */
int setting_add_backend(struct config *c, const struct backend_config *b, char *why,
			unsigned int why_bytes);

/* Of SETTING_KEY: user/ops/setting_key.c. A prefix is appended with the default rules, which the
 * set() of its fields then changes. */
int setting_add_source(struct config *c, enum key_field_id field, const char *text, char *why,
		       unsigned int why_bytes);
int setting_add_prefix(struct config *c, char *why, unsigned int why_bytes);
int setting_add_key_flag(struct config *c, const char *text, char *why, unsigned int why_bytes);

/** setting_format_key() - a source as --session-key takes it, a header by its bare name
 * @text: SETTING_KEY_TEXT_MAX bytes; returned */
char *setting_format_key(const struct config *c, unsigned int i, char *text);

/* Of SETTING_WORD and SETTING_ADDRS: user/ops/setting_addrs.c. */
int setting_set_word(const struct setting *s, struct config *c, const char *text, char *why,
		     unsigned int why_bytes);
char *setting_format_word(const struct setting *s, const struct config *c, char *text);
int setting_set_addrs(const struct setting *s, struct config *c, const char *text, char *why,
		      unsigned int why_bytes);
char *setting_format_addrs(const struct setting *s, const struct config *c, char *text);

/* Of SETTING_LISTEN, SETTING_HEADER and SETTING_BACKEND: user/ops/setting_list.c. */
int setting_add_listen(struct config *c, const char *text, char *why, unsigned int why_bytes);
int setting_add_header(struct config *c, const char *text, char *why, unsigned int why_bytes);
int setting_add_backend_flag(struct config *c, const char *text, char *why, unsigned int why_bytes);

#endif
