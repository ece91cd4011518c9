/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Two passes: widths, then lines. A field that is missing prints as "-", so that a newer or older
 * daemon's answer still makes a table.
 */
#include "cli/table.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define CELL_MAX    256
#define COLUMNS_MAX 16

static void format_seconds(uint64_t s, char *cell)
{
	static const struct {
		uint64_t size, part;
		char unit, part_unit;
	} scale[] = {{86400, 3600, 'd', 'h'}, {3600, 60, 'h', 'm'}, {60, 1, 'm', 's'}};
	unsigned int i;

	for (i = 0; i < sizeof(scale) / sizeof(scale[0]); i++) {
		if (s < scale[i].size)
			continue;
		snprintf(cell, CELL_MAX, "%" PRIu64 "%c%02" PRIu64 "%c", s / scale[i].size,
			 scale[i].unit, s % scale[i].size / scale[i].part, scale[i].part_unit);
		return;
	}
	snprintf(cell, CELL_MAX, "%" PRIu64 "s", s);
}

static void format_array(const json_t *value, char *cell)
{
	unsigned int at = 0;
	const char *text;
	json_t *entry;
	size_t i;

	cell[0] = '\0';
	json_array_foreach((json_t *)value, i, entry)
	{
		text = json_string_value(entry);
		if (at < CELL_MAX)
			at += snprintf(cell + at, CELL_MAX - at, "%s%s", i ? ", " : "",
				       text ? text : "?");
	}
}

static void format_bytes(double n, char *cell)
{
	static const char *const units[] = {"B", "KB", "MB", "GB", "TB", "PB"};
	unsigned int i = 0;

	/* 999.95 would round to four digits. */
	for (; n >= (i ? 999.95 : 1000) && i + 1 < sizeof(units) / sizeof(units[0]); i++)
		n /= 1000;
	snprintf(cell, CELL_MAX, "%.*f %s", i ? 1 : 0, n, units[i]);
}

/* Numbers by name, in the order they came; what does not fit is left out whole. */
static void format_object(const json_t *value, char *cell)
{
	const char *key;
	json_t *entry;
	int at = 0, n;

	cell[0] = '\0';
	json_object_foreach((json_t *)value, key, entry)
	{
		char one[CELL_MAX];

		n = snprintf(one, sizeof(one), "%s%s %" JSON_INTEGER_FORMAT, at ? ", " : "", key,
			     json_integer_value(entry));
		if (at + n > CELL_MAX - (int)sizeof(", ...")) {
			strcpy(cell + at, at ? ", ..." : "...");
			return;
		}
		strcpy(cell + at, one);
		at += n;
	}
}

static const char *format_cell(const struct table_column *column, const json_t *row, char *cell)
{
	const json_t *value = json_object_get(row, column->key);

	strcpy(cell, "-");
	if (json_is_string(value))
		snprintf(cell, CELL_MAX, "%s", json_string_value(value));
	else if (json_is_number(value) && column->format == TABLE_SECONDS)
		format_seconds(json_number_value(value) > 0 ? (uint64_t)json_number_value(value)
							    : 0,
			       cell);
	else if (json_is_number(value) && column->format == TABLE_BYTES)
		format_bytes(json_number_value(value), cell);
	else if (json_is_integer(value))
		snprintf(cell, CELL_MAX, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	else if (json_is_real(value))
		snprintf(cell, CELL_MAX, "%.1f", json_real_value(value));
	else if (json_is_boolean(value))
		strcpy(cell, json_is_true(value) ? "yes" : "no");
	else if (json_is_array(value))
		format_array(value, cell);
	else if (json_is_object(value))
		format_object(value, cell);
	if (!cell[0] || (column->empty && !strcmp(cell, column->empty)))
		strcpy(cell, "-");
	return cell;
}

void table_print(const struct table_column *columns, unsigned int nr, const json_t *rows)
{
	int width[COLUMNS_MAX], n;
	char cell[CELL_MAX];
	unsigned int k;
	json_t *row;
	size_t i;

	for (k = 0; k < nr; k++) {
		width[k] = strlen(columns[k].title);
		json_array_foreach((json_t *)rows, i, row)
		{
			n = strlen(format_cell(&columns[k], row, cell));
			width[k] = n > width[k] ? n : width[k];
		}
	}
	for (i = 0; i <= json_array_size(rows); i++) {
		for (k = 0; k < nr; k++) {
			const char *text = columns[k].title;

			if (i)
				text = format_cell(&columns[k], json_array_get(rows, i - 1), cell);
			if (columns[k].format != TABLE_TEXT)
				printf("%*s", width[k], text);
			else
				printf("%-*s", k + 1 < nr ? width[k] : 0, text);
			printf("%s", k + 1 < nr ? "  " : "\n");
		}
	}
}

void table_print_fields(const struct table_column *columns, unsigned int nr, const json_t *object)
{
	char cell[CELL_MAX];
	unsigned int k;
	int width = 0;

	for (k = 0; k < nr; k++)
		width = (int)strlen(columns[k].title) > width ? (int)strlen(columns[k].title)
							      : width;
	for (k = 0; k < nr; k++)
		printf("%-*s  %s\n", width, columns[k].title,
		       format_cell(&columns[k], object, cell));
}
