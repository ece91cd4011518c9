/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The affinity part of a configuration: which sources there are, in which order, and what follows
 * from it for the head parser's table of names.
 */
#include "core/config_keys.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/complaint.h"

#define MINUTE_MS 60000

void config_prefix_defaults(struct config *c)
{
	c->affinity.prefix.windows = 64;
	c->affinity.prefix.common = 8;
	c->affinity.prefix.max = 1000000;
	c->affinity.prefix.ttl_ms = 10 * MINUTE_MS;
	c->affinity.prefix.min_match = 0.3;
	c->affinity.prefix.guard_abs = 2;
	c->affinity.prefix.guard_rel = 1.5;
}

uint32_t config_key_index(const struct config *c, enum key_kind kind)
{
	for (uint32_t i = 0; i < c->nr_keys; i++)
		if (c->key[i].kind == kind)
			return i;
	return KEY_NONE;
}

bool config_keys_in_head(const struct config *c)
{
	bool other = false;

	/* Without a key the kernel passes everything up anyway, and so it does with no source. */
	if (c->affinity.parent[0] && c->affinity.sidecar == SIDECAR_AVOID)
		return false;
	for (unsigned int i = 0; i < c->nr_keys; i++) {
		if (c->key[i].kind != KEY_HEADER)
			other = true;
		else if (other)
			return false;
	}
	return !c->nr_keys || c->key[0].kind == KEY_HEADER;
}

static bool has_header(const struct config *c, const char *name)
{
	for (unsigned int i = 0; i < c->nr_keys; i++)
		if (c->key[i].kind == KEY_HEADER && !strcasecmp(c->key[i].name, name))
			return true;
	return false;
}

/* At @at, the others move up. */
static int insert_header(struct config *c, unsigned int at, const char *setting, const char *name,
			 const struct complaint *to)
{
	if (has_header(c, name))
		return 0;
	if (c->nr_keys == KEYS_MAX)
		return refuse(to, "%s: no room for %s, affinity.keys has %d entries; remove one",
			      setting, name, KEYS_MAX);
	memmove(&c->key[at + 1], &c->key[at], (c->nr_keys - at) * sizeof(c->key[0]));
	c->key[at] = (struct key_source){.kind = KEY_HEADER};
	strcpy(c->key[at].name, name);
	c->nr_keys++;
	return 0;
}

static unsigned int headers_end(const struct config *c)
{
	unsigned int i = 0;

	while (i < c->nr_keys && c->key[i].kind == KEY_HEADER)
		i++;
	return i;
}

/* Headers that other settings make keys. */
static int add_implied(struct config *c, const struct complaint *to)
{
	const struct affinity_config *a = &c->affinity;
	int err = 0;

	if (!c->nr_keys)
		return 0;
	if (a->parent[0] && a->sidecar == SIDECAR_FOLLOW)
		err = insert_header(c, 0, "affinity.parent", a->parent, to);
	if (!err && a->missing == MISSING_GENERATE)
		err = insert_header(c, headers_end(c), "affinity.generate_header",
				    a->generate_header, to);
	return err;
}

/* Sources that always or never decide are mistakes. */
static int check_order(const struct config *c, const struct complaint *to)
{
	for (unsigned int i = 0; i + 1 < c->nr_keys; i++) {
		enum key_kind kind = c->key[i].kind, next = c->key[i + 1].kind;

		if (kind == KEY_CLIENT_IP)
			return refuse(to, "affinity.keys: client_ip is always there, so what "
					  "stands behind it is never used; move it to the end");
		if (kind == KEY_PREFIX && next != KEY_CLIENT_IP)
			return refuse(to, "affinity.keys: a session's key outranks a prefix; move "
					  "prefix behind all but client_ip");
	}
	return 0;
}

static int check_source(const struct config *c, unsigned int i, const struct complaint *to)
{
	const struct key_source *key = &c->key[i];
	size_t room = key->kind == KEY_HEADER ? KVPIN_NAME_BYTES + 1 : sizeof(key->name);

	if ((unsigned int)key->kind >= KEY_KIND_NR)
		return refuse(to, "affinity.keys has an unknown kind of source");
	if (!memchr(key->name, 0, room))
		return refuse(to, "affinity.keys: \"%.*s\" is too long; at most %zu characters",
			      (int)room, key->name, room - 1);
	/* Headers have messages of their own. */
	for (unsigned int k = 0; key->kind != KEY_HEADER && k < i; k++)
		if (c->key[k].kind == key->kind && !strcmp(c->key[k].name, key->name))
			return refuse(to, "affinity.keys has %s \"%s\" twice; remove one",
				      key_kind_names[key->kind], key->name);
	return 0;
}

/* Why did kvpin_names_add() refuse it? */
static int refuse_header(const struct kvpin_names *names, const char *key,
			 const struct complaint *to)
{
	__u32 len = (__u32)strlen(key);
	__u8 field;

	if (!len)
		return refuse(to, "affinity.keys has an empty header name; remove it");
	field = kvpin_names_find(names, (const __u8 *)key, len, 0, len);
	if (field >= KVPIN_FIELD_KEY0)
		return refuse(to, "affinity.keys has \"%s\" twice; remove one", key);
	if (field != KVPIN_FIELD_OTHER)
		return refuse(to,
			      "affinity.keys: \"%s\" is a header of HTTP itself and cannot name a "
			      "session; use one of your own, e.g. X-Session-Id",
			      key);
	return refuse(to,
		      "affinity.keys: \"%s\" is not a header name; use letters, digits, '-' "
		      "and '_'",
		      key);
}

static int derive_names(struct config *c, const struct complaint *to)
{
	unsigned int rank = 0;

	kvpin_names_init(&c->names);
	for (unsigned int i = 0; i < c->nr_keys; i++) {
		struct key_source *key = &c->key[i];

		if (key->kind != KEY_HEADER)
			continue;
		if (rank == KVPIN_KEY_HEADERS_MAX)
			return refuse(to, "affinity.keys has too many headers; at most %d",
				      KVPIN_KEY_HEADERS_MAX);
		key->rank = rank;
		if (kvpin_names_add(&c->names, key->name, (__u32)strlen(key->name),
				    KVPIN_FIELD_KEY0 + rank))
			return refuse_header(&c->names, key->name, to);
		rank++;
	}
	return 0;
}

/* @setting names a header of its own that the parser would have to give way to. */
static int check_header(const char *setting, const char *name, const struct complaint *to)
{
	struct kvpin_names names;

	kvpin_names_init(&names);
	if (!memchr(name, 0, KVPIN_NAME_BYTES + 1) ||
	    kvpin_names_add(&names, name, (__u32)strlen(name), KVPIN_FIELD_KEY0))
		return refuse(to,
			      "%s: \"%.*s\" cannot name a session; use a header of your own, of "
			      "letters, digits, '-' and '_'",
			      setting, KVPIN_NAME_BYTES, name);
	return 0;
}

static int check_prefix(const struct config *c, const struct complaint *to)
{
	uint32_t windows = c->affinity.prefix.windows, max = c->affinity.prefix.max;
	double min_match = c->affinity.prefix.min_match, rel = c->affinity.prefix.guard_rel;

	if (windows < 1 || windows > PREFIX_WINDOWS_LIMIT)
		return refuse(to, "affinity.keys: prefix.windows is %u; it must be from 1 to %d",
			      windows, PREFIX_WINDOWS_LIMIT);
	if (max < PREFIX_NODES_MIN || max > PREFIX_NODES_LIMIT)
		return refuse(to, "affinity.keys: prefix.max is %u; it must be from %d to %d", max,
			      PREFIX_NODES_MIN, PREFIX_NODES_LIMIT);
	if (!c->affinity.prefix.ttl_ms)
		return refuse(to, "affinity.keys: prefix.ttl is 0; it must be at least 1ms");
	/* Written so that what is not a number fails too. */
	if (!(min_match >= 0 && min_match <= 1))
		return refuse(to, "affinity.keys: prefix.min_match is %g; it must be from 0 to 1",
			      min_match);
	if (!(rel == 0 || (rel >= 1 && rel <= PREFIX_REL_LIMIT)))
		return refuse(to,
			      "affinity.keys: prefix.rel is %g; it must be 0 (off) or from 1 to %d",
			      rel, PREFIX_REL_LIMIT);
	return 0;
}

int config_keys_finish(struct config *c, char *why, unsigned int why_bytes)
{
	const struct complaint to = {.why = why, .bytes = why_bytes};
	const struct affinity_config *a = &c->affinity;

	if (c->nr_keys > KEYS_MAX)
		return refuse(&to, "affinity.keys has %u entries; at most %d", c->nr_keys,
			      KEYS_MAX);
	if (check_header("affinity.generate_header", a->generate_header, &to) ||
	    (a->parent[0] && check_header("affinity.parent", a->parent, &to)))
		return -EINVAL;
	for (unsigned int i = 0; i < c->nr_keys; i++)
		if (check_source(c, i, &to))
			return -EINVAL;
	if (a->parent[0] && a->sidecar == SIDECAR_AVOID && has_header(c, a->parent))
		return refuse(&to,
			      "affinity.parent: %s is in affinity.keys too, so a sidecar would "
			      "share its parent's session; remove it there, or let it follow",
			      a->parent);
	if (add_implied(c, &to) || check_order(c, &to) || check_prefix(c, &to))
		return -EINVAL;
	return derive_names(c, &to);
}
