/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * `kvpin check`: builds the configuration as `run` would and says what came out. Never binds,
 * connects or writes anything.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "cli/options.h"
#include "ops/value.h"

static const char *plural(unsigned int n)
{
	return n == 1 ? "" : "s";
}

static const struct setting *find_setting(enum setting_kind kind)
{
	unsigned int i = 0;

	while (settings[i].kind != kind)
		i++;
	return &settings[i];
}

static void print_summary(const char *source, const struct config *c)
{
	char listen[SETTING_TEXT_MAX], keys[SETTING_TEXT_MAX];

	setting_format(find_setting(SETTING_LISTEN), c, listen);
	setting_format(find_setting(SETTING_KEY), c, keys);
	printf("%s: ok: %u backend%s, listening on %s, placement %s, %s%s\n", source,
	       c->nr_backends, plural(c->nr_backends), listen, placement_names[c->placement],
	       c->nr_keys ? "sessions by " : "no affinity", keys);
}

static json_t *list_json(enum setting_kind kind, const struct config *c)
{
	json_t *list = json_array();
	char text[ADDR_TEXT_MAX], key[SETTING_KEY_TEXT_MAX];
	unsigned int i;

	for (i = 0; kind == SETTING_LISTEN && i < c->nr_listen; i++)
		json_array_append_new(list, json_string(addr_format(&c->listen[i], text)));
	for (i = 0; kind == SETTING_KEY && i < c->nr_keys; i++)
		json_array_append_new(list, json_string(setting_format_key(c, i, key)));
	for (i = 0; kind == SETTING_BACKEND && i < c->nr_backends; i++) {
		const struct backend_config *b = &c->backend[i];

		json_array_append_new(list,
				      json_pack("{s:s, s:s, s:o, s:i}", "name", b->name, "address",
						addr_format(&b->addr, text), "slots",
						b->slots_auto ? json_string("auto")
							      : json_integer((json_int_t)b->slots),
						"weight", (int)b->weight));
	}
	return list;
}

/* Every setting as the file would write it. */
static json_t *settings_json(const struct config *c)
{
	json_t *all = json_object();
	char text[SETTING_TEXT_MAX];
	unsigned int i;

	for (i = 0; i < settings_nr; i++) {
		const struct setting *s = &settings[i];

		/* The same list as SETTING_KEY. */
		if (s->kind == SETTING_HEADER)
			continue;
		json_object_set_new(all, s->key,
				    setting_is_list(s) ? list_json(s->kind, c)
						       : json_string(setting_format(s, c, text)));
	}
	return all;
}

static void print_json(const char *source, const struct config *c, const struct config_error *e)
{
	json_t *root;

	if (c)
		root = json_pack("{s:s, s:b, s:o}", "source", source, "ok", 1, "settings",
				 settings_json(c));
	else
		root = json_pack("{s:s, s:b, s:s, s:s, s:i, s:i}", "source", source, "ok", 0,
				 "error", e->text, "field", e->field, "line", (int)e->line,
				 "column", (int)e->column);
	if (root) {
		json_dumpf(root, stdout, JSON_INDENT(2));
		printf("\n");
	}
	json_decref(root);
}

int cmd_check(const struct cli_command *self, int argc, char **argv)
{
	char why[VALUE_WHY_MAX + 64];
	struct config_error e;
	struct config *c;
	struct options o;
	int ret = CLI_OK;

	if (options_parse(&o, argc, argv, true, why, sizeof(why))) {
		ret = cli_usage(self, why);
		goto out;
	}
	if (o.help) {
		cli_synopsis(self);
		options_help(stdout, true);
		goto out;
	}
	c = options_load(&o, &e);
	if (!c)
		ret = CLI_FAILED;
	if (o.json)
		print_json(o.config ? o.config : "flags", c, &e);
	else if (c)
		print_summary(o.config ? o.config : "flags", c);
	if (!c)
		fprintf(stderr, "%s\n", e.text);
	free(c);
out:
	options_fini(&o);
	return ret;
}
