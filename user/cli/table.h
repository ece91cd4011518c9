/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Lists of JSON objects as aligned columns, for people. Knows no command; reads what it is given.
 */
#ifndef CLI_TABLE_H
#define CLI_TABLE_H

#include <jansson.h>

enum table_format {
	TABLE_TEXT,
	TABLE_NUMBER,  /* right-aligned */
	TABLE_SECONDS, /* "5m03s" */
	TABLE_BYTES,   /* "1.5 MB" */
	TABLE_FORMAT_NR
};

struct table_column {
	const char *title;
	const char *key;
	enum table_format format;
	const char *empty; /* the value that prints as "-", or NULL */
};

/** table_print() - a title line and one line per object of the array @rows, on stdout */
void table_print(const struct table_column *columns, unsigned int nr, const json_t *rows);

/** table_print_fields() - one object, a line per field; a member that is an object itself prints as
 * "name 1, other 2" */
void table_print_fields(const struct table_column *columns, unsigned int nr, const json_t *object);

#endif
