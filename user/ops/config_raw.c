/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * libcyaml's side of kvpin.yaml: the schema, and libcyaml's log turned into one message. libcyaml
 * reports by several log lines (what is wrong, then a backtrace from the innermost level out);
 * the backtrace gives the field's path, the index gives its line.
 */
#include "ops/config_raw.h"

#include <cyaml/cyaml.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/suggest.h"
#include "ops/value.h"

#define GROUPS_MAX 12
/* yaml_index.c lets nothing deeper through. */
#define FRAMES_MAX   8
#define SCALAR_FLAGS (CYAML_FLAG_OPTIONAL | CYAML_FLAG_POINTER)

/* The whole schema; its arrays point at each other, so it stays where it was built. */
struct schema {
	struct cyaml_schema_field top[SETTINGS_MAX + 1];
	struct {
		char name[16];
		unsigned int nr;
		struct cyaml_schema_field field[SETTINGS_MAX + 1];
	} group[GROUPS_MAX];
	unsigned int nr_top, nr_groups;
	struct cyaml_schema_field key[KEY_FIELD_NR + 2], prefix[PREFIX_FIELD_NR + 1];
	struct cyaml_schema_field backend[BACKEND_FIELD_NR + 1];
	struct cyaml_schema_value text_entry, key_entry, backend_entry, root;
};

/* One level of libcyaml's backtrace. */
struct frame {
	char field[32];	    /* of a mapping; empty: between two fields */
	unsigned int entry; /* of a list, from 1; 0: this level is a mapping */
};

struct capture {
	char problem[256];		/* the first line */
	struct frame frame[FRAMES_MAX]; /* innermost first */
	unsigned int nr_frames;
};

static const char *group_example(const char *name)
{
	static const char *const examples[][2] = {
		{"affinity", "{keys: [{header: X-Session-Id}]}"},
		{"sessions", "{ttl: 1h, max: 1000000}"},
		{"guard", "{busy: prefer_idle_slot, wait: 10s}"},
		{"experiment", "{share: 0.1}"},
		{"health", "{path: /health, interval: 2s}"},
		{"timeouts", "{idle: 75s, stall: 15m}"},
		{"limits", "{head: 32KiB, connections: 8192}"},
		{"steer", "{budget: 256KiB, holds: 256}"},
		{"splice", "{events: 8, body: 256KiB}"},
		{"peers", "{listen: \"10.0.0.1:7946\", to: \"10.0.0.2:7946\"}"},
		{"log", "{level: info, format: logfmt}"},
	};
	unsigned int i;

	for (i = 0; i < sizeof(examples) / sizeof(examples[0]); i++) {
		if (!strcmp(name, examples[i][0]))
			return examples[i][1];
	}
	return "{key: value}";
}

/* Where a setting's field goes: the top level, or its group, which is made on first use. */
static struct cyaml_schema_field *schema_field(struct schema *s, const char *key)
{
	const char *dot = strchr(key, '.');
	unsigned int i, len = dot ? (unsigned int)(dot - key) : 0;

	if (!dot) {
		s->top[s->nr_top].key = key;
		return &s->top[s->nr_top++];
	}
	for (i = 0; i < s->nr_groups; i++) {
		if (strlen(s->group[i].name) == len && !memcmp(s->group[i].name, key, len))
			break;
	}
	if (i == s->nr_groups) {
		memcpy(s->group[i].name, key, len);
		s->nr_groups++;
		/* Offset 0: a group's fields live in the same struct config_raw. */
		s->top[s->nr_top++] = (struct cyaml_schema_field){
			.key = s->group[i].name,
			.value = {CYAML_VALUE_MAPPING(CYAML_FLAG_OPTIONAL, struct config_raw,
						      s->group[i].field)},
		};
	}
	s->group[i].field[s->group[i].nr].key = dot + 1;
	return &s->group[i].field[s->group[i].nr++];
}

/* An optional text at @offset. */
static struct cyaml_schema_field schema_text(const char *key, size_t offset)
{
	return (struct cyaml_schema_field){
		.key = key,
		.data_offset = offset,
		.value = {CYAML_VALUE_STRING(SCALAR_FLAGS, char *, 0, CYAML_UNLIMITED)},
	};
}

static void schema_lists(struct schema *s)
{
	unsigned int i;

	s->text_entry = (struct cyaml_schema_value){
		CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 0, CYAML_UNLIMITED)};
	for (i = 0; i < PREFIX_FIELD_NR; i++)
		s->prefix[i] =
			schema_text(prefix_fields[i].key,
				    offsetof(struct config_raw_prefix, field) + i * sizeof(char *));
	for (i = 0; i < KEY_FIELD_NR; i++)
		s->key[i] = schema_text(key_fields[i].key, offsetof(struct config_raw_key, field) +
								   i * sizeof(char *));
	s->key[i] = (struct cyaml_schema_field)CYAML_FIELD_MAPPING_PTR(
		"prefix", SCALAR_FLAGS, struct config_raw_key, prefix, s->prefix);
	s->key_entry = (struct cyaml_schema_value){
		CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct config_raw_key, s->key)};
	for (i = 0; i < BACKEND_FIELD_NR; i++) {
		s->backend[i] = (struct cyaml_schema_field){
			.key = backend_fields[i].key,
			.data_offset =
				offsetof(struct config_raw_backend, field) + i * sizeof(char *),
			.value = {CYAML_VALUE_STRING(
				CYAML_FLAG_POINTER |
					(backend_fields[i].required ? 0 : CYAML_FLAG_OPTIONAL),
				char *, 0, CYAML_UNLIMITED)},
		};
	}
	s->backend_entry = (struct cyaml_schema_value){
		CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct config_raw_backend, s->backend)};
}

static void schema_build(struct schema *s)
{
	struct cyaml_schema_field *f;
	unsigned int i;

	memset(s, 0, sizeof(*s));
	schema_lists(s);
	for (i = 0; i < settings_nr; i++) {
		const char *key = settings[i].key;

		/* Of flags only. */
		if (settings[i].kind == SETTING_HEADER)
			continue;
		f = schema_field(s, key);
		key = f->key;
		switch (settings[i].kind) {
		case SETTING_LISTEN:
			*f = (struct cyaml_schema_field)CYAML_FIELD_SEQUENCE_COUNT(
				key, SCALAR_FLAGS, struct config_raw, listen, nr_listen,
				&s->text_entry, 0, LISTEN_MAX);
			break;
		case SETTING_KEY:
			*f = (struct cyaml_schema_field)CYAML_FIELD_SEQUENCE_COUNT(
				key, SCALAR_FLAGS, struct config_raw, keys, nr_keys, &s->key_entry,
				0, KEYS_MAX);
			break;
		case SETTING_BACKEND:
			*f = (struct cyaml_schema_field)CYAML_FIELD_SEQUENCE_COUNT(
				key, SCALAR_FLAGS, struct config_raw, backends, nr_backends,
				&s->backend_entry, 0, BACKENDS_MAX);
			break;
		default:
			f->data_offset = offsetof(struct config_raw, value) + i * sizeof(char *);
			f->value = (struct cyaml_schema_value){
				CYAML_VALUE_STRING(SCALAR_FLAGS, char *, 0, CYAML_UNLIMITED)};
		}
	}
	s->root = (struct cyaml_schema_value){
		CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct config_raw, s->top)};
}

static void capture_log(cyaml_log_t level, void *ctx, const char *fmt, va_list args)
{
	struct capture *cap = ctx;
	struct frame *f = &cap->frame[cap->nr_frames];
	char line[256];
	size_t len;

	/* A key may have newlines of its own; libcyaml's is the last. */
	vsnprintf(line, sizeof(line), fmt, args);
	len = strlen(line);
	if (len && line[len - 1] == '\n')
		line[len - 1] = '\0';
	if (!cap->problem[0] && !strncmp(line, "Load: ", 6)) {
		snprintf(cap->problem, sizeof(cap->problem), "%s", line + 6);
		return;
	}
	if (strncmp(line, "  in ", 5) || cap->nr_frames == FRAMES_MAX)
		return;
	*f = (struct frame){0};
	if (sscanf(line, "  in mapping field '%31[^']'", f->field) == 1 ||
	    sscanf(line, "  in sequence entry '%u'", &f->entry) == 1 ||
	    !strncmp(line, "  in mapping (", 14))
		cap->nr_frames++;
}

/* The path of what libcyaml was at, without the @inner innermost levels' last steps. */
static void capture_path(const struct capture *cap, unsigned int inner, char *path)
{
	unsigned int i;

	path[0] = '\0';
	for (i = cap->nr_frames; i-- > inner;) {
		if (cap->frame[i].entry)
			yaml_path_entry(path, cap->frame[i].entry - 1);
		else if (cap->frame[i].field[0])
			yaml_path_key(path, cap->frame[i].field);
	}
}

/* The fields that the mapping at @path may have. */
static const struct cyaml_schema_field *fields_at(const struct schema *s, const char *path)
{
	unsigned int i;

	if (!strncmp(path, "backends[", 9))
		return s->backend;
	if (!strncmp(path, "affinity.keys[", 14))
		return strstr(path, "].prefix") ? s->prefix : s->key;
	for (i = 0; i < s->nr_groups; i++) {
		if (!strcmp(path, s->group[i].name))
			return s->group[i].field;
	}
	return s->top;
}

static void describe_unknown_key(const struct cyaml_schema_field *known, const char *key, char *why,
				 unsigned int why_bytes)
{
	const char *names[SETTINGS_MAX];
	const char *near;
	unsigned int i, nr = 0;
	int at;

	for (; known[nr].key; nr++)
		names[nr] = known[nr].key;
	near = suggest_nearest(key, names, nr);
	if (near) {
		snprintf(why, why_bytes, "unknown key; did you mean \"%s\"?", near);
		return;
	}
	at = snprintf(why, why_bytes, "unknown key; known here: ");
	for (i = 0; i < nr && (unsigned int)at < why_bytes; i++)
		at += snprintf(why + at, why_bytes - at, "%s%s", i ? ", " : "", names[i]);
}

/* The same within affinity.keys; @last: the last dot. */
static const char *key_example(const char *path, const char *last)
{
	unsigned int i;

	if (!strchr(path, ']')[1])
		return "{header: X-Session-Id}";
	for (i = 0; i < PREFIX_FIELD_NR; i++)
		if (strstr(path, "].prefix.") && !strcmp(last + 1, prefix_fields[i].key))
			return prefix_fields[i].example;
	for (i = 0; i < KEY_FIELD_NR; i++)
		if (!strcmp(last + 1, key_fields[i].key))
			return key_fields[i].example;
	return "{min_match: 0.3}";
}

/* What stands at @path, in an example. */
static const char *example_at(const char *path)
{
	const char *last = strrchr(path, '.');
	unsigned int i;

	for (i = 0; i < settings_nr; i++) {
		if (!strcmp(path, settings[i].key))
			return settings[i].example;
	}
	if (!strncmp(path, "listen[", 7))
		return "\"0.0.0.0:8080\"";
	if (!strncmp(path, "affinity.keys[", 14))
		return key_example(path, last);
	if (!strncmp(path, "backends[", 9)) {
		for (i = 0; last && i < BACKEND_FIELD_NR; i++) {
			if (!strcmp(last + 1, backend_fields[i].key))
				return backend_fields[i].example;
		}
		return "{name: gpu0, address: \"127.0.0.1:8081\"}";
	}
	return group_example(path);
}

static void describe_shape(const char *problem, const char *path, char *why, unsigned int why_bytes)
{
	const char *wanted = !strncmp(problem, "Expecting MAPPING", 17)	   ? "a mapping"
			     : !strncmp(problem, "Expecting SEQUENCE", 18) ? "a list"
									   : "one value";

	snprintf(why, why_bytes, "must be %s, such as %s", wanted, example_at(path));
}

/* One good message out of libcyaml's code, its first log line and its backtrace. */
static void describe(const struct schema *s, const struct capture *cap, cyaml_err_t code,
		     const char *path, const struct yaml_index *index, struct config_error *e)
{
	const char *colon = strchr(cap->problem, ':');
	const char *detail = colon && colon[1] == ' ' ? colon + 2 : "";
	const struct yaml_place *place, *first;
	char field[YAML_PATH_MAX], why[VALUE_WHY_MAX];

	capture_path(cap,
		     code == CYAML_ERR_MAPPING_FIELD_MISSING ||
			     code == CYAML_ERR_SEQUENCE_ENTRIES_MAX,
		     field);
	switch (code) {
	case CYAML_ERR_INVALID_KEY:
		describe_unknown_key(fields_at(s, field), detail, why, sizeof(why));
		yaml_path_key(field, detail);
		break;
	case CYAML_ERR_MAPPING_FIELD_MISSING:
		snprintf(why, sizeof(why), "has no %s; add %s: ", detail, detail);
		/* The example is of the missing field, the place below of what lacks it. */
		strcpy(e->field, field);
		yaml_path_key(e->field, detail);
		strncat(why, example_at(e->field), sizeof(why) - strlen(why) - 1);
		break;
	case CYAML_ERR_UNEXPECTED_EVENT:
		first = yaml_index_first(index, field);
		snprintf(why, sizeof(why), "is given twice; the first is on line %u, remove one",
			 first ? first->line : 0);
		break;
	case CYAML_ERR_SEQUENCE_ENTRIES_MAX:
		snprintf(why, sizeof(why), "has too many entries; at most %u",
			 !strcmp(field, "listen")     ? LISTEN_MAX
			 : !strcmp(field, "backends") ? BACKENDS_MAX
						      : (unsigned int)KEYS_MAX);
		break;
	case CYAML_ERR_INVALID_VALUE:
		if (field[0])
			describe_shape(cap->problem, field, why, sizeof(why));
		else
			snprintf(why, sizeof(why),
				 "the file must be a mapping of keys to values, such as "
				 "listen: [\"0.0.0.0:8080\"]");
		break;
	default:
		snprintf(why, sizeof(why), "%s (%s)", cyaml_strerror(code), cap->problem);
	}
	place = yaml_index_find(index, field);
	config_error_set(e, path, place ? place->line : !field[0],
			 place ? place->column : !field[0], field, why);
}

int config_raw_load(struct config_raw **raw, const char *path, const char *text, size_t len,
		    const struct yaml_index *index, struct config_error *e)
{
	struct capture cap = {0};
	const cyaml_config_t config = {
		.log_fn = capture_log,
		.log_ctx = &cap,
		.mem_fn = cyaml_mem,
		.log_level = CYAML_LOG_ERROR,
		.flags = CYAML_CFG_NO_ALIAS,
	};
	struct schema *schema;
	cyaml_err_t code;
	void *data = NULL;

	*raw = NULL;
	schema = malloc(sizeof(*schema));
	if (!schema) {
		config_error_set(e, path, 0, 0, "", "out of memory");
		return -ENOMEM;
	}
	schema_build(schema);
	code = cyaml_load_data((const uint8_t *)text, len, &config, &schema->root, &data, NULL);
	if (code != CYAML_OK)
		describe(schema, &cap, code, path, index, e);
	else
		*raw = data;
	free(schema);
	return code == CYAML_OK ? 0 : code == CYAML_ERR_OOM ? -ENOMEM : -EINVAL;
}

void config_raw_free(struct config_raw *raw)
{
	unsigned int i, k;

	if (!raw)
		return;
	/* cyaml_mem() is realloc() and free(). */
	for (i = 0; i < SETTINGS_MAX; i++)
		free(raw->value[i]);
	for (i = 0; i < raw->nr_listen; i++)
		free(raw->listen[i]);
	for (i = 0; i < raw->nr_keys; i++) {
		for (k = 0; k < KEY_FIELD_NR; k++)
			free(raw->keys[i].field[k]);
		for (k = 0; raw->keys[i].prefix && k < PREFIX_FIELD_NR; k++)
			free(raw->keys[i].prefix->field[k]);
		free(raw->keys[i].prefix);
	}
	for (i = 0; i < raw->nr_backends; i++) {
		for (k = 0; k < BACKEND_FIELD_NR; k++)
			free(raw->backends[i].field[k]);
	}
	free(raw->listen);
	free(raw->keys);
	free(raw->backends);
	free(raw);
}
