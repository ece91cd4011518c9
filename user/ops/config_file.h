/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * kvpin.yaml -> struct config. Every error is one line that names file, line, field and fix. Never
 * judges what only the whole configuration tells: that is config_finish(); never sees flags.
 */
#ifndef OPS_CONFIG_FILE_H
#define OPS_CONFIG_FILE_H

#include <stddef.h>

#include "core/config.h"
#include "ops/yaml_index.h"

/* A full configuration (64 servers) is under 10 KiB; libcyaml would read without end. */
#define CONFIG_FILE_BYTES_MAX (256 * 1024)
/* Room for a whole message: a file's name, a place, a field, a reason. */
#define CONFIG_ERROR_MAX 1024

struct config_error {
	unsigned int line, column;   /* from 1; 0: not known */
	char field[YAML_PATH_MAX];   /* "backends[1].address"; empty: the file as a whole */
	char text[CONFIG_ERROR_MAX]; /* all of it, ready to be shown, without a newline */
};

/**
 * config_load() - read a file over what @c holds
 * @path: the file
 * @c: set by config_defaults(); what the file does not name keeps its value, a list that it names
 *     is replaced; undefined on failure
 * @index: NULL, or on success where each field stands, to be freed by yaml_index_fini()
 * @e: on failure what is wrong
 *
 * Returns 0, -EINVAL when the content is wrong, or another -errno when it cannot be read.
 */
int config_load(const char *path, struct config *c, struct yaml_index *index,
		struct config_error *e);

/** config_parse() - config_load() of a text in memory; @path is only used in messages */
int config_parse(const char *path, const char *text, size_t len, struct config *c,
		 struct yaml_index *index, struct config_error *e);

/**
 * config_error_locate() - a message of config_finish() with its place in the file
 * @index: of config_load()
 * @why: a text whose first word is a field's path, maybe with a colon
 * @e: set: "file:line: why" when the file has that field, else "file: why"
 */
void config_error_locate(const char *path, const struct yaml_index *index, const char *why,
			 struct config_error *e);

#endif
