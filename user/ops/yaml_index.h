/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where in a YAML text each field stands: "backends[1].address" -> line and column. Built by
 * libyaml ahead of libcyaml, which keeps no positions; on the way it refuses what kvpin.yaml has no
 * use for and libcyaml would not stop at: aliases, tags, deep nesting, a second document, zero
 * bytes. Knows no schema and keeps no values.
 */
#ifndef OPS_YAML_INDEX_H
#define OPS_YAML_INDEX_H

#include <stddef.h>

/* Room for a field's path; longer ones are cut, which only foreign keys ever are. */
#define YAML_PATH_MAX 128

struct yaml_place {
	unsigned int line, column; /* from 1; of the key, or of a list's entry */
	char path[YAML_PATH_MAX];
};

struct yaml_index {
	unsigned int nr, room;
	struct yaml_place *place; /* in the order of the text */
};

/**
 * yaml_index_build() - walk the text once
 * @ix: all of it is set; to be freed by yaml_index_fini() on success; empty on failure
 * @text: YAML, @len bytes
 * @line: on failure where, from 1; 0: not known
 * @column: likewise
 * @why: on failure what is wrong
 *
 * Returns 0, -EINVAL or -ENOMEM.
 */
int yaml_index_build(struct yaml_index *ix, const char *text, size_t len, unsigned int *line,
		     unsigned int *column, char *why, unsigned int why_bytes);

/** yaml_index_fini() - free what yaml_index_build() made */
void yaml_index_fini(struct yaml_index *ix);

/** yaml_index_find() - the place of a path, the last one if it is there twice; NULL: none */
const struct yaml_place *yaml_index_find(const struct yaml_index *ix, const char *path);

/** yaml_index_first() - the first one if it is there twice; NULL: none */
const struct yaml_place *yaml_index_first(const struct yaml_index *ix, const char *path);

/** yaml_path_key(), yaml_path_entry() - extend a path (YAML_PATH_MAX bytes) by a mapping's key or
 * a list's entry, in the one way that yaml_index_find() understands */
void yaml_path_key(char *path, const char *key);
void yaml_path_entry(char *path, unsigned int entry);

#endif
