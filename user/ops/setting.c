/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The scalars' way into struct config and back. The table is user/ops/setting_table.c, lists are
 * user/ops/setting_list.c; the wording of value errors is user/ops/value.c.
 */
#include "ops/setting.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ops/value.h"

bool setting_is_list(const struct setting *s)
{
	return s->kind >= SETTING_LISTEN;
}

static void store(const struct setting *s, struct config *c, uint64_t value)
{
	uint8_t *at = (uint8_t *)c + s->offset;
	uint32_t narrow = value;

	if (s->size == sizeof(value))
		memcpy(at, &value, sizeof(value));
	else
		memcpy(at, &narrow, sizeof(narrow));
}

static uint64_t fetch(const struct setting *s, const struct config *c)
{
	const uint8_t *at = (const uint8_t *)c + s->offset;
	uint64_t value;
	uint32_t narrow;

	if (s->size == sizeof(value)) {
		memcpy(&value, at, sizeof(value));
		return value;
	}
	memcpy(&narrow, at, sizeof(narrow));
	return narrow;
}

static int set_number(const struct setting *s, struct config *c, const char *text, char *why,
		      unsigned int why_bytes)
{
	uint64_t value = 0;
	int err = 0;

	if (s->zero &&
	    (!strcmp(text, s->zero) || (s->kind == SETTING_DECIMAL && !strcmp(text, "0"))))
		;
	else if (s->kind == SETTING_DURATION)
		err = value_duration(text, s->min, s->max, &value, why, why_bytes);
	else if (s->kind == SETTING_DECIMAL)
		err = value_decimal(text, s->min, s->max, &value, why, why_bytes);
	else if (s->kind == SETTING_SIZE)
		err = value_size(text, s->min, s->max, &value, why, why_bytes);
	else
		err = value_count(text, s->min, s->max, &value, why, why_bytes);
	if (!err)
		store(s, c, value);
	else if (s->zero && strcmp(s->zero, "0") &&
		 strlen(why) + sizeof(", or ") + strlen(s->zero) <= why_bytes)
		strcat(strcat(why, ", or "), s->zero);
	return err;
}

/* A path that goes into a request line as it is. */
static int set_url_path(const struct setting *s, struct config *c, const char *text, char *why,
			unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX];
	const char *at;

	value_quote(text, quoted);
	if (text[0] != '/') {
		snprintf(why, why_bytes, "%s does not start with a slash; write it as %s", quoted,
			 s->example);
		return -EINVAL;
	}
	for (at = text; *at; at++) {
		if (*at <= 0x20 || *at >= 0x7f) {
			snprintf(
				why, why_bytes,
				"%s has a blank or another character that a URL must escape; write "
				"it as %%XX",
				quoted);
			return -EINVAL;
		}
	}
	if (at - text >= s->size) {
		snprintf(why, why_bytes, "%s is too long; at most %d bytes", quoted, s->size - 1);
		return -EINVAL;
	}
	strcpy((char *)c + s->offset, text);
	return 0;
}

static int set_socket_path(const struct setting *s, struct config *c, const char *text, char *why,
			   unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX];
	char *to = (char *)c + s->offset;

	if (!strcmp(text, "off")) {
		to[0] = '\0';
		return 0;
	}
	value_quote(text, quoted);
	/* A file called "of" or "none" in the working directory is a typing error. */
	if (!strchr(text, '/')) {
		snprintf(why, why_bytes, "%s is not a path; write one such as %s, or off", quoted,
			 s->example);
		return -EINVAL;
	}
	if (strlen(text) >= s->size) {
		snprintf(why, why_bytes, "%s is too long; a socket's path has at most %d bytes",
			 quoted, s->size - 1);
		return -EINVAL;
	}
	strcpy(to, text);
	return 0;
}

static int set_state_path(const struct setting *s, struct config *c, const char *text, char *why,
			  unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX];

	value_quote(text, quoted);
	if (!strchr(text, '/') && strcmp(text, "auto") && strcmp(text, "off")) {
		snprintf(why, why_bytes, "%s is not a path; write one such as %s, or auto or off",
			 quoted, s->example);
		return -EINVAL;
	}
	if (strlen(text) >= s->size) {
		snprintf(why, why_bytes, "%s is too long; at most %d bytes", quoted, s->size - 1);
		return -EINVAL;
	}
	strcpy((char *)c + s->offset, text);
	return 0;
}

static int set_file_path(const struct setting *s, struct config *c, const char *text, char *why,
			 unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX];

	if (strlen(text) >= s->size || (text[0] != '/' && strcmp(text, "off"))) {
		snprintf(why, why_bytes,
			 "%s is not an absolute path of at most %d bytes; write one such as %s, or "
			 "off",
			 value_quote(text, quoted), s->size - 1, s->example);
		return -EINVAL;
	}
	strcpy((char *)c + s->offset, text);
	return 0;
}

static int set_user(const struct setting *s, struct config *c, const char *text, char *why,
		    unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX];

	if (!strcmp(text, "off")) {
		c->user[0] = '\0';
		return 0;
	}
	value_quote(text, quoted);
	if (strlen(text) >= s->size || strpbrk(text, " /:,")) {
		snprintf(why, why_bytes, "%s is not the name of a user; write one such as %s",
			 quoted, s->example);
		return -EINVAL;
	}
	strcpy((char *)c + s->offset, text);
	return 0;
}

static int set_dir_path(const struct setting *s, struct config *c, const char *text, char *why,
			unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX];
	char *to = (char *)c + s->offset;
	size_t len;

	value_quote(text, quoted);
	if (text[0] != '/' || strlen(text) >= s->size) {
		snprintf(why, why_bytes,
			 "%s is not an absolute path of at most %d bytes; write one "
			 "such as %s",
			 quoted, s->size - 1, s->example);
		return -EINVAL;
	}
	strcpy(to, text);
	/* Names are built by putting something behind it. */
	for (len = strlen(to); len > 1 && to[len - 1] == '/'; len--)
		to[len - 1] = '\0';
	return 0;
}

static int set_header_name(const struct setting *s, struct config *c, const char *text, char *why,
			   unsigned int why_bytes)
{
	struct kvpin_names names;
	char quoted[VALUE_QUOTE_MAX];
	char *to = (char *)c + s->offset;

	if (s->zero && !strcmp(text, s->zero)) {
		to[0] = '\0';
		return 0;
	}
	/* Neither malformed nor one that HTTP itself needs. */
	kvpin_names_init(&names);
	if (kvpin_names_add(&names, text, strlen(text), KVPIN_FIELD_KEY0)) {
		snprintf(why, why_bytes,
			 "%s cannot name a session; letters, digits, '-' and '_', such as %s",
			 value_quote(text, quoted), s->example);
		return -EINVAL;
	}
	strcpy(to, text);
	return 0;
}

static int set_metrics(struct config *c, const char *text, char *why, unsigned int why_bytes)
{
	int err = 0;

	if (!strcmp(text, "off")) {
		c->has_metrics = false;
		return 0;
	}
	err = value_addr(text, &c->metrics, why, why_bytes);
	if (!err)
		c->has_metrics = true;
	return err;
}

int setting_set(const struct setting *s, struct config *c, const char *text, char *why,
		unsigned int why_bytes)
{
	unsigned int name;
	int err;

	if (!text[0]) {
		snprintf(why, why_bytes, "has no value; write one such as %s", s->example);
		return -EINVAL;
	}
	switch (s->kind) {
	case SETTING_BOOL:
		return value_bool(text, (bool *)((uint8_t *)c + s->offset), why, why_bytes);
	case SETTING_NAME:
		err = value_name(text, s->names, s->nr_names, &name, why, why_bytes);
		if (!err)
			store(s, c, name);
		return err;
	case SETTING_URL_PATH:
		return set_url_path(s, c, text, why, why_bytes);
	case SETTING_SOCKET_PATH:
		return set_socket_path(s, c, text, why, why_bytes);
	case SETTING_STATE_PATH:
		return set_state_path(s, c, text, why, why_bytes);
	case SETTING_FILE_PATH:
		return set_file_path(s, c, text, why, why_bytes);
	case SETTING_USER:
		return set_user(s, c, text, why, why_bytes);
	case SETTING_DIR_PATH:
		return set_dir_path(s, c, text, why, why_bytes);
	case SETTING_METRICS:
		return set_metrics(c, text, why, why_bytes);
	case SETTING_WORD:
		return setting_set_word(s, c, text, why, why_bytes);
	case SETTING_ADDRS:
		return setting_set_addrs(s, c, text, why, why_bytes);
	case SETTING_LISTEN:
		return setting_add_listen(c, text, why, why_bytes);
	case SETTING_HEADER_NAME:
		return set_header_name(s, c, text, why, why_bytes);
	case SETTING_KEY:
		return setting_add_key_flag(c, text, why, why_bytes);
	case SETTING_HEADER:
		return setting_add_header(c, text, why, why_bytes);
	case SETTING_BACKEND:
		return setting_add_backend_flag(c, text, why, why_bytes);
	default:
		return set_number(s, c, text, why, why_bytes);
	}
}

static char *format_list(const struct setting *s, const struct config *c, char *text)
{
	bool keys = s->kind == SETTING_KEY || s->kind == SETTING_HEADER;
	unsigned int nr = s->kind == SETTING_LISTEN ? c->nr_listen
			  : keys		    ? c->nr_keys
						    : c->nr_backends;
	unsigned int i, at = 0;
	char addr[ADDR_TEXT_MAX], key[SETTING_KEY_TEXT_MAX];

	text[0] = '\0';
	for (i = 0; i < nr && at < SETTING_TEXT_MAX; i++) {
		const char *entry = s->kind == SETTING_LISTEN ? addr_format(&c->listen[i], addr)
				    : keys		      ? setting_format_key(c, i, key)
							      : c->backend[i].name;

		at += snprintf(text + at, SETTING_TEXT_MAX - at, "%s%s", i ? ", " : "", entry);
	}
	return text;
}

char *setting_format(const struct setting *s, const struct config *c, char *text)
{
	uint64_t value;

	switch (s->kind) {
	case SETTING_BOOL:
		return strcpy(text, *((const uint8_t *)c + s->offset) ? "true" : "false");
	case SETTING_URL_PATH:
	case SETTING_STATE_PATH:
	case SETTING_FILE_PATH:
	case SETTING_DIR_PATH:
		return strcpy(text, (const char *)c + s->offset);
	case SETTING_HEADER_NAME:
		return strcpy(text, *((const char *)c + s->offset) ? (const char *)c + s->offset
								   : s->zero);
	case SETTING_WORD:
		return setting_format_word(s, c, text);
	case SETTING_ADDRS:
		return setting_format_addrs(s, c, text);
	case SETTING_USER:
		return strcpy(text, c->user[0] ? c->user : "off");
	case SETTING_SOCKET_PATH:
		return strcpy(text, c->control[0] ? c->control : "off");
	case SETTING_METRICS:
		return c->has_metrics ? (addr_format(&c->metrics, text), text)
				      : strcpy(text, "off");
	case SETTING_LISTEN:
	case SETTING_KEY:
	case SETTING_HEADER:
	case SETTING_BACKEND:
		return format_list(s, c, text);
	default:
		break;
	}
	value = fetch(s, c);
	if (s->zero && !value)
		return strcpy(text, s->zero);
	if (s->kind == SETTING_NAME)
		return strcpy(text, value < s->nr_names ? s->names[value] : "?");
	if (s->kind == SETTING_DURATION)
		return value_format_duration(value, text);
	if (s->kind == SETTING_SIZE)
		return value_format_size(value, text);
	if (s->kind == SETTING_DECIMAL)
		return value_format_decimal(value, text);
	snprintf(text, SETTING_TEXT_MAX, "%" PRIu64, value);
	return text;
}
