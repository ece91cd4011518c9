/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * kvpin.yaml as libcyaml hands it over: the schema's shape with every scalar still a text, so that
 * flags and file share one set of value parsers. The schema is built from settings[], so the file
 * knows each setting that the flags know. Judges shape only (keys, lists, mappings), no value.
 */
#ifndef OPS_CONFIG_RAW_H
#define OPS_CONFIG_RAW_H

#include <stddef.h>

#include "ops/config_file.h"
#include "ops/setting.h"

struct config_raw_prefix {
	char *field[PREFIX_FIELD_NR]; /* NULL: not given */
};

struct config_raw_key {
	char *field[KEY_FIELD_NR];	  /* NULL: not given */
	struct config_raw_prefix *prefix; /* NULL: not given */
};

struct config_raw_backend {
	char *field[BACKEND_FIELD_NR]; /* NULL: not given */
};

struct config_raw {
	char *value[SETTINGS_MAX]; /* by index in settings[]; NULL: not given, or a list */
	char **listen;
	struct config_raw_key *keys;
	struct config_raw_backend *backends;
	unsigned int nr_listen, nr_keys, nr_backends;
};

/**
 * config_raw_load() - YAML to texts
 * @raw: set on success, to be freed by config_raw_free(); NULL for an empty file
 * @path, @index: for messages
 * @e: on failure what is wrong
 *
 * Returns 0 or -EINVAL, or -ENOMEM.
 */
int config_raw_load(struct config_raw **raw, const char *path, const char *text, size_t len,
		    const struct yaml_index *index, struct config_error *e);

/** config_raw_free() - accepts NULL */
void config_raw_free(struct config_raw *raw);

/** config_error_set() - the message of a field: "file:line: field: why" */
void config_error_set(struct config_error *e, const char *path, unsigned int line,
		      unsigned int column, const char *field, const char *why);

#endif
