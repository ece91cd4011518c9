/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One pass over libyaml's events with a small stack. Owns the list of places; bounded in depth and
 * in number, so that no text makes it or libcyaml grow.
 */
#include "ops/yaml_index.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

/* The schema is 5 deep. */
#define DEPTH_MAX 8
/* 64 servers with 5 places each, and all settings, are under 400. */
#define PLACES_MAX 2048

struct level {
	bool is_list;
	bool want_value; /* of a mapping: the key was seen */
	unsigned int entry;
	unsigned int path_len; /* of the container's own path */
};

struct walk {
	struct yaml_index *ix;
	struct level level[DEPTH_MAX];
	unsigned int depth;
	unsigned int documents;
	char path[YAML_PATH_MAX];
	char *why;
	unsigned int why_bytes;
};

void yaml_path_key(char *path, const char *key)
{
	size_t at = strlen(path);

	if (at && at < YAML_PATH_MAX - 1)
		path[at++] = '.';
	for (; *key && at < YAML_PATH_MAX - 1; key++)
		path[at++] = *key > 0x20 && *key < 0x7f ? *key : '?';
	path[at] = '\0';
}

void yaml_path_entry(char *path, unsigned int entry)
{
	size_t at = strlen(path);

	snprintf(path + at, YAML_PATH_MAX - at, "[%u]", entry);
}

static int refuse(struct walk *w, const char *why)
{
	snprintf(w->why, w->why_bytes, "%s", why);
	return -EINVAL;
}

static int add_place(struct walk *w, const yaml_mark_t *mark)
{
	struct yaml_index *ix = w->ix;
	struct yaml_place *grown;

	if (ix->nr == PLACES_MAX)
		return refuse(w, "too many values for a configuration");
	if (ix->nr == ix->room) {
		grown = realloc(ix->place, (ix->room + 64) * sizeof(*grown));
		if (!grown) {
			refuse(w, "out of memory");
			return -ENOMEM;
		}
		ix->place = grown;
		ix->room += 64;
	}
	ix->place[ix->nr].line = mark->line + 1;
	ix->place[ix->nr].column = mark->column + 1;
	strcpy(ix->place[ix->nr].path, w->path);
	ix->nr++;
	return 0;
}

/* A value begins: entries of lists get their place here, values of mappings have their key's. */
static int begin_value(struct walk *w, const yaml_mark_t *mark)
{
	struct level *top = w->depth ? &w->level[w->depth - 1] : NULL;

	if (!top)
		return 0;
	if (!top->is_list) {
		if (!top->want_value)
			return refuse(w, "a key must be a plain word");
		top->want_value = false;
		return 0;
	}
	w->path[top->path_len] = '\0';
	yaml_path_entry(w->path, top->entry++);
	return add_place(w, mark);
}

static int walk_scalar(struct walk *w, const yaml_event_t *event)
{
	const char *text = (const char *)event->data.scalar.value;
	struct level *top = w->depth ? &w->level[w->depth - 1] : NULL;

	if (strlen(text) != event->data.scalar.length)
		return refuse(w, "a zero byte; remove it");
	if (event->data.scalar.anchor)
		return refuse(w, "anchors (&name) are not supported; write the value out");
	if (event->data.scalar.tag)
		return refuse(w, "tags (!name) are not supported; write the plain value");
	if (!top || top->is_list || top->want_value)
		return begin_value(w, &event->start_mark);
	w->path[top->path_len] = '\0';
	yaml_path_key(w->path, text);
	top->want_value = true;
	return add_place(w, &event->start_mark);
}

static int walk_begin(struct walk *w, const yaml_event_t *event, bool is_list,
		      const yaml_char_t *anchor, const yaml_char_t *tag)
{
	int err;

	if (anchor)
		return refuse(w, "anchors (&name) are not supported; write the value out");
	if (tag)
		return refuse(w, "tags (!name) are not supported; write the plain value");
	err = begin_value(w, &event->start_mark);
	if (err)
		return err;
	if (w->depth == DEPTH_MAX)
		return refuse(w, "nested too deeply for a configuration");
	w->level[w->depth++] = (struct level){.is_list = is_list, .path_len = strlen(w->path)};
	return 0;
}

static int walk_event(struct walk *w, const yaml_event_t *event)
{
	switch (event->type) {
	case YAML_DOCUMENT_START_EVENT:
		if (w->documents++)
			return refuse(w, "a second document; a configuration is one, so remove the "
					 "\"---\" between them");
		return 0;
	case YAML_ALIAS_EVENT:
		return refuse(w, "aliases (*name) are not supported; write the value out");
	case YAML_SCALAR_EVENT:
		return walk_scalar(w, event);
	case YAML_SEQUENCE_START_EVENT:
		return walk_begin(w, event, true, event->data.sequence_start.anchor,
				  event->data.sequence_start.tag);
	case YAML_MAPPING_START_EVENT:
		return walk_begin(w, event, false, event->data.mapping_start.anchor,
				  event->data.mapping_start.tag);
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		w->path[w->level[--w->depth].path_len] = '\0';
		return 0;
	default:
		return 0;
	}
}

/* libyaml's marks count characters: the byte where the @index-th one begins, or @len. */
static size_t byte_at(const char *text, size_t len, size_t index)
{
	size_t i;

	for (i = 0; i < len; i++) {
		if (((unsigned char)text[i] & 0xc0) != 0x80 && !index--)
			break;
	}
	return i;
}

/* libyaml's problem in one sentence; its mark of a decoding problem is an offset. */
static void describe_problem(const yaml_parser_t *p, const char *text, size_t len,
			     unsigned int *line, unsigned int *column, char *why,
			     unsigned int why_bytes)
{
	const char *problem = p->problem ? p->problem : "not YAML";
	size_t offset = p->problem_offset, at_byte, i;
	int at;

	if (p->error == YAML_READER_ERROR) {
		*line = *column = 1;
		for (i = 0; i < offset && i < len; i++) {
			*column = text[i] == '\n' ? 1 : *column + 1;
			*line += text[i] == '\n';
		}
		snprintf(why, why_bytes, "%s; a configuration is UTF-8 text", problem);
		return;
	}
	*line = p->problem_mark.line + 1;
	*column = p->problem_mark.column + 1;
	at_byte = byte_at(text, len, p->problem_mark.index);
	if (at_byte < len && text[at_byte] == '\t') {
		snprintf(why, why_bytes, "a tab; YAML indents by spaces");
		return;
	}
	at = snprintf(why, why_bytes, "%s", problem);
	if (p->context && at > 0 && (unsigned int)at < why_bytes)
		snprintf(why + at, why_bytes - at, " (%s that began on line %zu)", p->context,
			 p->context_mark.line + 1);
}

int yaml_index_build(struct yaml_index *ix, const char *text, size_t len, unsigned int *line,
		     unsigned int *column, char *why, unsigned int why_bytes)
{
	struct walk w = {.ix = ix, .why = why, .why_bytes = why_bytes};
	yaml_parser_t parser;
	yaml_event_t event;
	bool end = false;
	int err = 0;

	*ix = (struct yaml_index){0};
	*line = *column = 0;
	if (!yaml_parser_initialize(&parser)) {
		refuse(&w, "out of memory");
		return -ENOMEM;
	}
	/* Else a byte order mark would choose UTF-16. */
	yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
	while (!err && !end) {
		if (!yaml_parser_parse(&parser, &event)) {
			describe_problem(&parser, text, len, line, column, why, why_bytes);
			err = -EINVAL;
			break;
		}
		err = walk_event(&w, &event);
		if (err) {
			*line = event.start_mark.line + 1;
			*column = event.start_mark.column + 1;
		}
		end = event.type == YAML_STREAM_END_EVENT;
		yaml_event_delete(&event);
	}
	yaml_parser_delete(&parser);
	if (err)
		yaml_index_fini(ix);
	return err;
}

void yaml_index_fini(struct yaml_index *ix)
{
	free(ix->place);
	*ix = (struct yaml_index){0};
}

const struct yaml_place *yaml_index_find(const struct yaml_index *ix, const char *path)
{
	unsigned int i;

	for (i = ix->nr; i--;) {
		if (!strcmp(ix->place[i].path, path))
			return &ix->place[i];
	}
	return NULL;
}

const struct yaml_place *yaml_index_first(const struct yaml_index *ix, const char *path)
{
	unsigned int i;

	for (i = 0; i < ix->nr; i++) {
		if (!strcmp(ix->place[i].path, path))
			return &ix->place[i];
	}
	return NULL;
}
