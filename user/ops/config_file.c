/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Reads the file, has it indexed (yaml_index.c) and taken apart (config_raw.c), and gives every
 * text to its setting's parser. Owns the form of the messages.
 */
#include "ops/config_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ops/config_raw.h"
#include "ops/setting.h"
#include "ops/value.h"

/* What one load carries from step to step. */
struct load {
	const char *path;
	const struct yaml_index *index;
	struct config *c;
	struct config_error *e;
};

void config_error_set(struct config_error *e, const char *path, unsigned int line,
		      unsigned int column, const char *field, const char *why)
{
	char place[32] = "";

	e->line = line;
	e->column = column;
	snprintf(e->field, sizeof(e->field), "%s", field);
	if (line && column)
		snprintf(place, sizeof(place), "%u:%u:", line, column);
	else if (line)
		snprintf(place, sizeof(place), "%u:", line);
	snprintf(e->text, sizeof(e->text), "%s:%s %s%s%s", path, place, field, field[0] ? ": " : "",
		 why);
}

static int fail(const struct load *l, const char *field, const char *why)
{
	const struct yaml_place *place = yaml_index_find(l->index, field);

	config_error_set(l->e, l->path, place ? place->line : 0, 0, field, why);
	return -EINVAL;
}

void config_error_locate(const char *path, const struct yaml_index *index, const char *why,
			 struct config_error *e)
{
	size_t len = strcspn(why, ": ");
	const struct yaml_place *place = NULL;
	char field[YAML_PATH_MAX] = "";

	if (len < sizeof(field)) {
		memcpy(field, why, len);
		field[len] = '\0';
		place = yaml_index_find(index, field);
	}
	config_error_set(e, path, place ? place->line : 0, 0, "", why);
	if (place)
		strcpy(e->field, field);
}

static const struct setting *find_kind(enum setting_kind kind)
{
	unsigned int i = 0;

	while (settings[i].kind != kind)
		i++;
	return &settings[i];
}

static int take_listen(const struct load *l, const struct config_raw *raw)
{
	const struct setting *s = find_kind(SETTING_LISTEN);
	char field[YAML_PATH_MAX], why[VALUE_WHY_MAX];
	unsigned int i;

	if (!yaml_index_find(l->index, s->key))
		return 0;
	setting_clear(s, l->c);
	for (i = 0; i < raw->nr_listen; i++) {
		strcpy(field, s->key);
		yaml_path_entry(field, i);
		if (setting_set(s, l->c, raw->listen[i], why, sizeof(why)))
			return fail(l, field, why);
	}
	return 0;
}

static int take_prefix(const struct load *l, const struct config_raw_prefix *raw, const char *entry)
{
	char field[YAML_PATH_MAX], why[VALUE_WHY_MAX];
	unsigned int i;

	strcpy(field, entry);
	yaml_path_key(field, "prefix");
	if (setting_add_prefix(l->c, why, sizeof(why)))
		return fail(l, field, why);
	for (i = 0; i < PREFIX_FIELD_NR; i++) {
		if (!raw->field[i])
			continue;
		strcpy(field, entry);
		yaml_path_key(field, "prefix");
		yaml_path_key(field, prefix_fields[i].key);
		if (prefix_fields[i].set(l->c, raw->field[i], why, sizeof(why)))
			return fail(l, field, why);
	}
	return 0;
}

/* One source. */
static int take_key(const struct load *l, const struct config_raw_key *raw, const char *entry)
{
	char field[YAML_PATH_MAX], why[VALUE_WHY_MAX];
	unsigned int i, given = 0, which = 0;

	for (i = 0; i < KEY_FIELD_NR; i++) {
		if (!raw->field[i])
			continue;
		given++;
		which = i;
	}
	if (given + !!raw->prefix != 1)
		return fail(l, entry,
			    given ? "names several sources; make an entry of each"
				  : "names no source; write one such as {header: X-Session-Id}");
	if (raw->prefix)
		return take_prefix(l, raw->prefix, entry);
	strcpy(field, entry);
	yaml_path_key(field, key_fields[which].key);
	if (setting_add_source(l->c, which, raw->field[which], why, sizeof(why)))
		return fail(l, field, why);
	return 0;
}

static int take_keys(const struct load *l, const struct config_raw *raw)
{
	const struct setting *s = find_kind(SETTING_KEY);
	char entry[YAML_PATH_MAX];
	unsigned int i;
	int err = 0;

	if (!yaml_index_find(l->index, s->key))
		return 0;
	setting_clear(s, l->c);
	for (i = 0; !err && i < raw->nr_keys; i++) {
		strcpy(entry, s->key);
		yaml_path_entry(entry, i);
		err = take_key(l, &raw->keys[i], entry);
	}
	return err;
}

static int take_backend(const struct load *l, const struct config_raw_backend *raw,
			const char *entry)
{
	char field[YAML_PATH_MAX], why[VALUE_WHY_MAX];
	struct backend_config b;
	unsigned int i;

	setting_init_backend(&b);
	for (i = 0; i < BACKEND_FIELD_NR; i++) {
		const char *text = raw->field[i];

		if (!text)
			continue;
		strcpy(field, entry);
		yaml_path_key(field, backend_fields[i].key);
		if (!text[0]) {
			snprintf(why, sizeof(why), "has no value; write one such as %s",
				 backend_fields[i].example);
			return fail(l, field, why);
		}
		if (backend_fields[i].set(&b, text, why, sizeof(why)))
			return fail(l, field, why);
	}
	if (!setting_add_backend(l->c, &b, why, sizeof(why)))
		return 0;
	strcpy(field, entry);
	yaml_path_key(field, backend_fields[BACKEND_FIELD_NAME].key);
	return fail(l, field, why);
}

static int take_backends(const struct load *l, const struct config_raw *raw)
{
	const struct setting *s = find_kind(SETTING_BACKEND);
	char entry[YAML_PATH_MAX];
	unsigned int i;
	int err = 0;

	if (!yaml_index_find(l->index, s->key))
		return 0;
	setting_clear(s, l->c);
	for (i = 0; !err && i < raw->nr_backends; i++) {
		strcpy(entry, s->key);
		yaml_path_entry(entry, i);
		err = take_backend(l, &raw->backends[i], entry);
	}
	return err;
}

static int take_scalars(const struct load *l, const struct config_raw *raw)
{
	char why[VALUE_WHY_MAX];
	unsigned int i;

	for (i = 0; i < settings_nr; i++) {
		if (raw->value[i] &&
		    setting_set(&settings[i], l->c, raw->value[i], why, sizeof(why)))
			return fail(l, settings[i].key, why);
	}
	return 0;
}

int config_parse(const char *path, const char *text, size_t len, struct config *c,
		 struct yaml_index *index, struct config_error *e)
{
	struct load l = {.path = path, .c = c, .e = e};
	unsigned int line, column;
	struct config_raw *raw = NULL;
	struct yaml_index ix;
	char why[VALUE_WHY_MAX];
	int err;

	if (len > CONFIG_FILE_BYTES_MAX) {
		snprintf(why, sizeof(why), "is over %d KiB, so it is no configuration of kvpin",
			 CONFIG_FILE_BYTES_MAX / 1024);
		config_error_set(e, path, 0, 0, "", why);
		return -EINVAL;
	}
	err = yaml_index_build(&ix, text, len, &line, &column, why, sizeof(why));
	if (err) {
		config_error_set(e, path, line, column, "", why);
		return err;
	}
	l.index = &ix;
	err = config_raw_load(&raw, path, text, len, &ix, e);
	if (!err && raw)
		err = take_listen(&l, raw);
	if (!err && raw)
		err = take_keys(&l, raw);
	if (!err && raw)
		err = take_backends(&l, raw);
	if (!err && raw)
		err = take_scalars(&l, raw);
	config_raw_free(raw);
	if (!err && index)
		*index = ix;
	else
		yaml_index_fini(&ix);
	return err;
}

/* Reads until the end or one byte over the limit: pipes have no size to ask for. */
static int read_all(const char *path, char *text, size_t room, size_t *len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = 1;
	int err = 0;

	if (fd < 0)
		return -errno;
	*len = 0;
	while (n && *len < room) {
		n = read(fd, text + *len, room - *len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			err = -errno;
			break;
		}
		*len += n;
	}
	close(fd);
	return err;
}

int config_load(const char *path, struct config *c, struct yaml_index *index,
		struct config_error *e)
{
	const size_t room = CONFIG_FILE_BYTES_MAX + 1;
	char why[VALUE_WHY_MAX];
	char *text = malloc(room);
	size_t len = 0;
	int err = text ? read_all(path, text, room, &len) : -ENOMEM;

	if (err) {
		snprintf(why, sizeof(why), "cannot be read: %s", strerror(-err));
		config_error_set(e, path, 0, 0, "", why);
	} else {
		err = config_parse(path, text, len, c, index, e);
	}
	free(text);
	return err;
}
