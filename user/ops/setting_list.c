/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Settings that are lists: listeners, session headers, servers. Each function appends one entry
 * and checks it against those before; what only the whole tells is config_finish()'s.
 */
#include "ops/setting.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "kvpin_http_head.h"
#include "ops/suggest.h"
#include "ops/value.h"

/* Longest flag: a name, an address, two numbers and their keys. */
#define BACKEND_FLAG_MAX (BACKEND_NAME_MAX + ADDR_TEXT_MAX + 48)

void setting_clear(const struct setting *s, struct config *c)
{
	if (s->kind == SETTING_LISTEN)
		c->nr_listen = 0;
	else if (s->kind == SETTING_KEY || s->kind == SETTING_HEADER)
		c->nr_keys = 0;
	else if (s->kind == SETTING_BACKEND)
		c->nr_backends = 0;
}

int setting_add_listen(struct config *c, const char *text, char *why, unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX];
	struct addr addr;
	unsigned int i;
	int err;

	err = value_addr(text, &addr, why, why_bytes);
	if (err)
		return err;
	for (i = 0; i < c->nr_listen; i++) {
		/* Port 0 is another port each time. */
		if (addr_port(&addr) && addr_equal(&addr, &c->listen[i])) {
			snprintf(why, why_bytes, "%s is there twice; remove one",
				 value_quote(text, quoted));
			return -EINVAL;
		}
	}
	if (c->nr_listen == LISTEN_MAX) {
		snprintf(why, why_bytes, "%s is one too many; at most %d",
			 value_quote(text, quoted), LISTEN_MAX);
		return -EINVAL;
	}
	c->listen[c->nr_listen++] = addr;
	return 0;
}

int setting_add_header(struct config *c, const char *text, char *why, unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX];
	struct kvpin_names fresh = {0}, own;
	size_t len = strlen(text);
	unsigned int headers = 0, i;

	value_quote(text, quoted);
	if (len > KVPIN_NAME_BYTES) {
		snprintf(why, why_bytes, "%s is too long; at most %d characters", quoted,
			 KVPIN_NAME_BYTES);
		return -EINVAL;
	}
	/* The table that the parser uses decides, so that both always agree. */
	if (kvpin_names_add(&fresh, text, len, KVPIN_FIELD_KEY0)) {
		snprintf(why, why_bytes,
			 "%s is not a header's name; letters, digits, '-' and '_' only", quoted);
		return -EINVAL;
	}
	kvpin_names_init(&own);
	if (kvpin_names_add(&own, text, len, KVPIN_FIELD_KEY0)) {
		snprintf(why, why_bytes,
			 "%s steers the connection and cannot name a session; use a header of its "
			 "own, such as X-Session-Id",
			 quoted);
		return -EINVAL;
	}
	for (i = 0; i < c->nr_keys; i++) {
		headers += c->key[i].kind == KEY_HEADER;
		if (c->key[i].kind == KEY_HEADER && !strcasecmp(c->key[i].name, text)) {
			snprintf(why, why_bytes, "%s is there twice; remove one", quoted);
			return -EINVAL;
		}
	}
	if (headers == KVPIN_KEY_HEADERS_MAX || c->nr_keys == KEYS_MAX) {
		snprintf(why, why_bytes, "%s is one too many; at most %d", quoted,
			 headers == KVPIN_KEY_HEADERS_MAX ? KVPIN_KEY_HEADERS_MAX : KEYS_MAX);
		return -EINVAL;
	}
	c->key[c->nr_keys] = (struct key_source){.kind = KEY_HEADER};
	strcpy(c->key[c->nr_keys++].name, text);
	return 0;
}

/* The name is a label of metrics and a word of logs and of the command line. */
static int set_name(struct backend_config *b, const char *text, char *why, unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX];
	size_t len = strlen(text);

	value_quote(text, quoted);
	if (len >= sizeof(b->name)) {
		snprintf(why, why_bytes, "%s is too long; at most %zu characters", quoted,
			 sizeof(b->name) - 1);
		return -EINVAL;
	}
	if (strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") !=
	    len) {
		snprintf(why, why_bytes,
			 "%s has a character that a name cannot have; letters, digits, '.', '_' "
			 "and '-' only",
			 quoted);
		return -EINVAL;
	}
	strcpy(b->name, text);
	return 0;
}

static int set_address(struct backend_config *b, const char *text, char *why,
		       unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX];
	struct addr addr;
	int err;

	err = value_addr(text, &addr, why, why_bytes);
	if (err)
		return err;
	if (addr_is_any(&addr) || !addr_port(&addr)) {
		snprintf(why, why_bytes,
			 "%s names no one server; write its host and port, such as 127.0.0.1:8081",
			 value_quote(text, quoted));
		return -EINVAL;
	}
	b->addr = addr;
	return 0;
}

static int set_slots(struct backend_config *b, const char *text, char *why, unsigned int why_bytes)
{
	bool ask = !strcmp(text, "auto");
	uint64_t n = 0;
	int err = ask ? 0 : value_count(text, 0, SLOTS_MAX, &n, why, why_bytes);

	if (!err) {
		b->slots = n;
		b->slots_auto = ask;
	} else if (strlen(why) + sizeof(", or auto") <= why_bytes) {
		strcat(why, ", or auto");
	}
	return err;
}

static int set_weight(struct backend_config *b, const char *text, char *why, unsigned int why_bytes)
{
	uint64_t n;
	int err = value_count(text, 0, WEIGHT_MAX, &n, why, why_bytes);

	if (!err)
		b->weight = n;
	return err;
}

const struct backend_field backend_fields[BACKEND_FIELD_NR] = {
	[BACKEND_FIELD_NAME] = {"name", "gpu0", true, set_name},
	[BACKEND_FIELD_ADDRESS] = {"address", "\"127.0.0.1:8081\"", true, set_address},
	[BACKEND_FIELD_SLOTS] = {"slots", "4", false, set_slots},
	[BACKEND_FIELD_WEIGHT] = {"weight", "1", false, set_weight},
};

void setting_init_backend(struct backend_config *b)
{
	*b = (struct backend_config){.weight = 1};
}

int setting_add_backend(struct config *c, const struct backend_config *b, char *why,
			unsigned int why_bytes)
{
	unsigned int i;

	for (i = 0; i < c->nr_backends; i++) {
		if (!strcmp(c->backend[i].name, b->name)) {
			snprintf(why, why_bytes,
				 "\"%s\" is the name of another server too; rename one", b->name);
			return -EINVAL;
		}
	}
	if (c->nr_backends == BACKENDS_MAX) {
		snprintf(why, why_bytes, "\"%s\" is one too many; at most %d", b->name,
			 BACKENDS_MAX);
		return -EINVAL;
	}
	c->backend[c->nr_backends++] = *b;
	return 0;
}

/* ",slots=N" and ",weight=N": @text is the part between two commas and is cut at its "=". */
static int set_flag_field(struct backend_config *b, char *text, unsigned int *seen, char *why,
			  unsigned int why_bytes)
{
	const char *keys[BACKEND_FIELD_NR];
	char quoted[VALUE_QUOTE_MAX], said[VALUE_WHY_MAX];
	char *value = strchr(text, '=');
	unsigned int i;
	int err;

	if (value)
		*value++ = '\0';
	for (i = BACKEND_FIELD_SLOTS; i < BACKEND_FIELD_NR; i++) {
		keys[i] = backend_fields[i].key;
		if (strcmp(text, keys[i]))
			continue;
		if (!value || !*value) {
			snprintf(why, why_bytes, "%s has no value; write %s=%s", keys[i], keys[i],
				 backend_fields[i].example);
			return -EINVAL;
		}
		if (*seen & 1U << i) {
			snprintf(why, why_bytes, "%s is given twice; remove one", keys[i]);
			return -EINVAL;
		}
		*seen |= 1U << i;
		err = backend_fields[i].set(b, value, why, why_bytes);
		if (err) {
			snprintf(said, sizeof(said), "%s", why);
			snprintf(why, why_bytes, "%s: %s", keys[i], said);
		}
		return err;
	}
	snprintf(why, why_bytes, "%s is not known behind the address; write slots=N or weight=N",
		 value_quote(text, quoted));
	return -EINVAL;
}

int setting_add_backend_flag(struct config *c, const char *text, char *why, unsigned int why_bytes)
{
	char copy[BACKEND_FLAG_MAX], quoted[VALUE_QUOTE_MAX];
	char *address, *field, *next = copy;
	unsigned int seen = 0;
	struct backend_config b;
	int err;

	value_quote(text, quoted);
	if (strlen(text) >= sizeof(copy)) {
		snprintf(why, why_bytes,
			 "%s is too long; write NAME=HOST:PORT[,slots=N][,weight=N]", quoted);
		return -EINVAL;
	}
	strcpy(copy, text);
	field = strsep(&next, ",");
	address = strchr(field, '=');
	if (!address || address == field || !address[1]) {
		snprintf(why, why_bytes,
			 "%s is not NAME=HOST:PORT; write it as gpu0=127.0.0.1:8081", quoted);
		return -EINVAL;
	}
	*address++ = '\0';
	setting_init_backend(&b);
	err = set_name(&b, field, why, why_bytes);
	if (!err)
		err = set_address(&b, address, why, why_bytes);
	while (!err && (field = strsep(&next, ",")))
		err = set_flag_field(&b, field, &seen, why, why_bytes);
	return err ? err : setting_add_backend(c, &b, why, why_bytes);
}
