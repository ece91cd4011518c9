/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * affinity.keys, entry by entry: its kinds of source, and the rules of {prefix: {...}}. Each
 * function appends or changes one thing; what only the whole list tells is config_finish()'s.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/config_keys.h"
#include "ops/setting.h"
#include "ops/value.h"

/* Longest flag: every rule of a prefix. */
#define KEY_FLAG_MAX 256

const struct key_field key_fields[KEY_FIELD_NR] = {
	[KEY_FIELD_HEADER] = {"header", "X-Session-Id"},
	[KEY_FIELD_COOKIE] = {"cookie", "session"},
	[KEY_FIELD_QUERY] = {"query", "conv_id"},
	[KEY_FIELD_JSON] = {"json", "prompt_cache_key"},
	[KEY_FIELD_CLIENT_IP] = {"client_ip", "true"},
	[KEY_FIELD_PRESET] = {"preset", "agents"},
};

/* ---- the rules of a prefix ---- */

static int rule_count(uint32_t *to, const char *text, uint64_t min, uint64_t max, char *why,
		      unsigned int why_bytes)
{
	uint64_t n;
	int err = value_count(text, min, max, &n, why, why_bytes);

	if (!err)
		*to = n;
	return err;
}

/* A plain decimal number; its bounds are config_finish()'s, which @wanted words. */
static int rule_real(double *to, const char *text, const char *wanted, char *why,
		     unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX];
	char *end;
	double value = strtod(text, &end);

	if (*end || !text[0] || strspn(text, "-0123456789.") != strlen(text)) {
		snprintf(why, why_bytes, "%s is not a number; write %s", value_quote(text, quoted),
			 wanted);
		return -EINVAL;
	}
	*to = value;
	return 0;
}

static int set_min_match(struct config *c, const char *text, char *why, unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX];
	double value;
	int err = rule_real(&value, text, "one from 0 to 1, such as 0.3", why, why_bytes);

	if (!err && !(value >= 0 && value <= 1)) {
		snprintf(why, why_bytes, "%s is out of range; write one from 0 to 1, such as 0.3",
			 value_quote(text, quoted));
		err = -EINVAL;
	}
	if (!err)
		c->affinity.prefix.min_match = value;
	return err;
}

static int set_rel(struct config *c, const char *text, char *why, unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX];
	double value;
	int err = rule_real(&value, text, "0 (off) or one from 1 on, such as 1.5", why, why_bytes);

	if (!err && !(value == 0 || (value >= 1 && value <= PREFIX_REL_LIMIT))) {
		snprintf(why, why_bytes,
			 "%s is out of range; write 0 (off) or one from 1 to %d, such as 1.5",
			 value_quote(text, quoted), PREFIX_REL_LIMIT);
		err = -EINVAL;
	}
	if (!err)
		c->affinity.prefix.guard_rel = value;
	return err;
}

static int set_windows(struct config *c, const char *text, char *why, unsigned int why_bytes)
{
	return rule_count(&c->affinity.prefix.windows, text, 1, PREFIX_WINDOWS_LIMIT, why,
			  why_bytes);
}

static int set_abs(struct config *c, const char *text, char *why, unsigned int why_bytes)
{
	return rule_count(&c->affinity.prefix.guard_abs, text, 0, 1000000, why, why_bytes);
}

static int set_common(struct config *c, const char *text, char *why, unsigned int why_bytes)
{
	return rule_count(&c->affinity.prefix.common, text, 0, 1000000, why, why_bytes);
}

static int set_max(struct config *c, const char *text, char *why, unsigned int why_bytes)
{
	return rule_count(&c->affinity.prefix.max, text, PREFIX_NODES_MIN, PREFIX_NODES_LIMIT, why,
			  why_bytes);
}

static int set_ttl(struct config *c, const char *text, char *why, unsigned int why_bytes)
{
	return value_duration(text, 1, 720ULL * 3600 * 1000, &c->affinity.prefix.ttl_ms, why,
			      why_bytes);
}

const struct prefix_field prefix_fields[PREFIX_FIELD_NR] = {
	{"windows", "64", set_windows}, {"min_match", "0.3", set_min_match},
	{"abs", "2", set_abs},		{"rel", "1.5", set_rel},
	{"common", "8", set_common},	{"ttl", "10m", set_ttl},
	{"max", "1000000", set_max},
};

/* ---- sources ---- */

static int append(struct config *c, enum key_kind kind, const char *name, char *why,
		  unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX];
	unsigned int i;

	value_quote(name[0] ? name : key_kind_names[kind], quoted);
	if (strlen(name) >= KEY_NAME_MAX) {
		snprintf(why, why_bytes, "%s is too long; at most %d characters", quoted,
			 KEY_NAME_MAX - 1);
		return -EINVAL;
	}
	for (i = 0; i < c->nr_keys; i++) {
		if (c->key[i].kind == kind && !strcmp(c->key[i].name, name)) {
			snprintf(why, why_bytes, "%s is there twice; remove one", quoted);
			return -EINVAL;
		}
	}
	if (c->nr_keys == KEYS_MAX) {
		snprintf(why, why_bytes, "%s is one too many; at most %d", quoted, KEYS_MAX);
		return -EINVAL;
	}
	c->key[c->nr_keys] = (struct key_source){.kind = kind};
	strcpy(c->key[c->nr_keys++].name, name);
	return 0;
}

static int add_cookie(struct config *c, const char *text, char *why, unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX];

	for (const char *at = text; *at; at++) {
		if (kvpin_is_tchar(*at))
			continue;
		snprintf(why, why_bytes, "%s is not a cookie's name; letters, digits, '-' and '_'",
			 value_quote(text, quoted));
		return -EINVAL;
	}
	return append(c, KEY_COOKIE, text, why, why_bytes);
}

static int add_json(struct config *c, const char *text, char *why, unsigned int why_bytes)
{
	unsigned int levels = 1, i;
	char quoted[VALUE_QUOTE_MAX];
	size_t len = strlen(text);

	for (i = 0; i < len; i++)
		levels += text[i] == '.';
	if (text[0] == '.' || text[len - 1] == '.' || strstr(text, "..")) {
		snprintf(why, why_bytes,
			 "%s is not a path; write names with dots between them, such as "
			 "metadata.session_id",
			 value_quote(text, quoted));
		return -EINVAL;
	}
	if (levels > KEY_PATH_MAX) {
		snprintf(why, why_bytes, "%s has %u levels; at most %d", value_quote(text, quoted),
			 levels, KEY_PATH_MAX);
		return -EINVAL;
	}
	return append(c, KEY_JSON, text, why, why_bytes);
}

/* Headers of the preset that the list has not got already. */
static int add_preset(struct config *c, const char *text, char *why, unsigned int why_bytes)
{
	static const char *const presets[] = {"agents"};
	unsigned int which, i, k;
	int err = value_name(text, presets, 1, &which, why, why_bytes);

	for (i = 0; !err && i < key_agents_nr; i++) {
		for (k = 0; k < c->nr_keys; k++)
			if (c->key[k].kind == KEY_HEADER &&
			    !strcasecmp(c->key[k].name, key_agents[i]))
				break;
		if (k == c->nr_keys)
			err = setting_add_header(c, key_agents[i], why, why_bytes);
	}
	return err;
}

int setting_add_source(struct config *c, enum key_field_id field, const char *text, char *why,
		       unsigned int why_bytes)
{
	bool yes;
	int err;

	if (!text[0]) {
		snprintf(why, why_bytes, "has no value; write one such as %s",
			 key_fields[field].example);
		return -EINVAL;
	}
	switch (field) {
	case KEY_FIELD_HEADER:
		return setting_add_header(c, text, why, why_bytes);
	case KEY_FIELD_COOKIE:
		return add_cookie(c, text, why, why_bytes);
	case KEY_FIELD_QUERY:
		return append(c, KEY_QUERY, text, why, why_bytes);
	case KEY_FIELD_JSON:
		return add_json(c, text, why, why_bytes);
	case KEY_FIELD_PRESET:
		return add_preset(c, text, why, why_bytes);
	default:
		err = value_bool(text, &yes, why, why_bytes);
		return err || !yes ? err : append(c, KEY_CLIENT_IP, "", why, why_bytes);
	}
}

int setting_add_prefix(struct config *c, char *why, unsigned int why_bytes)
{
	int err = append(c, KEY_PREFIX, "", why, why_bytes);

	if (!err)
		config_prefix_defaults(c);
	return err;
}

/* ",min_match=0.5": @text is what stands between two commas. */
static int add_rule(struct config *c, char *text, char *why, unsigned int why_bytes)
{
	char reason[VALUE_WHY_MAX], quoted[VALUE_QUOTE_MAX];
	char *value = strchr(text, '=');
	unsigned int i;

	if (value)
		*value++ = '\0';
	for (i = 0; i < PREFIX_FIELD_NR; i++) {
		if (strcmp(text, prefix_fields[i].key))
			continue;
		if (!value || !*value) {
			snprintf(why, why_bytes, "%s has no value; write %s=%s", text, text,
				 prefix_fields[i].example);
			return -EINVAL;
		}
		if (!prefix_fields[i].set(c, value, reason, sizeof(reason)))
			return 0;
		snprintf(why, why_bytes, "%s: %s", text, reason);
		return -EINVAL;
	}
	snprintf(why, why_bytes,
		 "%s is no rule of a prefix; known: windows, min_match, abs, rel, common, ttl, max",
		 value_quote(text, quoted));
	return -EINVAL;
}

int setting_add_key_flag(struct config *c, const char *text, char *why, unsigned int why_bytes)
{
	char copy[KEY_FLAG_MAX], quoted[VALUE_QUOTE_MAX];
	char *kind, *value, *next = copy;
	unsigned int i;
	int err;

	value_quote(text, quoted);
	if (strlen(text) >= sizeof(copy)) {
		snprintf(why, why_bytes, "%s is too long", quoted);
		return -EINVAL;
	}
	strcpy(copy, text);
	if (!strcmp(copy, "client-ip") || !strcmp(copy, "client_ip"))
		return setting_add_source(c, KEY_FIELD_CLIENT_IP, "true", why, why_bytes);
	if (!strncmp(copy, "prefix", 6) && (!copy[6] || copy[6] == ',')) {
		strsep(&next, ",");
		err = setting_add_prefix(c, why, why_bytes);
		while (!err && (kind = strsep(&next, ",")))
			err = add_rule(c, kind, why, why_bytes);
		return err;
	}
	value = strchr(copy, '=');
	if (value) {
		*value++ = '\0';
		for (i = 0; i < KEY_FIELD_NR; i++)
			if (i != KEY_FIELD_CLIENT_IP && !strcmp(copy, key_fields[i].key))
				return setting_add_source(c, i, value, why, why_bytes);
	}
	snprintf(why, why_bytes,
		 "%s is no source of keys; write header=NAME, cookie=NAME, query=NAME, json=PATH, "
		 "preset=agents, client-ip or prefix",
		 quoted);
	return -EINVAL;
}

char *setting_format_key(const struct config *c, unsigned int i, char *text)
{
	const struct key_source *key = &c->key[i];
	char ttl[VALUE_TEXT_MAX];

	if (key->kind == KEY_HEADER)
		return strcpy(text, key->name);
	if (key->kind == KEY_CLIENT_IP)
		return strcpy(text, "client-ip");
	if (key->kind == KEY_PREFIX)
		snprintf(text, SETTING_KEY_TEXT_MAX,
			 "prefix,windows=%u,min_match=%g,abs=%u,rel=%g,common=%u,ttl=%s,max=%u",
			 c->affinity.prefix.windows, c->affinity.prefix.min_match,
			 c->affinity.prefix.guard_abs, c->affinity.prefix.guard_rel,
			 c->affinity.prefix.common,
			 value_format_duration(c->affinity.prefix.ttl_ms, ttl),
			 c->affinity.prefix.max);
	else
		snprintf(text, SETTING_KEY_TEXT_MAX, "%s=%s", key_kind_names[key->kind], key->name);
	return text;
}
