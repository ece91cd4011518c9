/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * getopt_long() over settings[] and four flags of its own. Order of precedence: a flag, the file,
 * the default; a list given by flags replaces the file's whole list.
 */
#include "cli/options.h"

#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "cli/flags.h"
#include "ops/value.h"

/* getopt_long()'s values; a setting's is SETTING_FLAG0 plus its index. */
enum own_flag { FLAG_CONFIG = 256, FLAG_NO_AFFINITY, FLAG_JSON, FLAG_HELP, SETTING_FLAG0 };

#define OWN_FLAGS (SETTING_FLAG0 - FLAG_CONFIG)
#define FLAGS_MAX (OWN_FLAGS + SETTINGS_MAX + 1)
/* Flags and their values are up to here in the help; the text starts behind. */
#define HELP_COLUMN 30

static const char *const group_titles[SETTING_GROUP_NR] = {
	[SETTING_GROUP_TRAFFIC] = "Traffic",
	[SETTING_GROUP_SESSIONS] = "Affinity and sessions",
	[SETTING_GROUP_GUARD] = "Busy servers and the control arm",
	[SETTING_GROUP_HEALTH] = "Health checks",
	[SETTING_GROUP_TIMEOUTS] = "Timeouts",
	[SETTING_GROUP_LIMITS] = "Limits",
	[SETTING_GROUP_OPERATION] = "Operation",
};

static void build_flags(struct option flags[FLAGS_MAX], const char *args[FLAGS_MAX],
			bool takes_file)
{
	unsigned int i, nr = 0;

	memset(args, 0, FLAGS_MAX * sizeof(*args));
	args[nr] = "FILE";
	flags[nr++] = (struct option){"config", required_argument, NULL, FLAG_CONFIG};
	flags[nr++] = (struct option){"no-affinity", no_argument, NULL, FLAG_NO_AFFINITY};
	flags[nr++] = (struct option){"help", no_argument, NULL, FLAG_HELP};
	if (takes_file)
		flags[nr++] = (struct option){"json", no_argument, NULL, FLAG_JSON};
	for (i = 0; i < settings_nr; i++) {
		args[nr] = settings[i].arg;
		flags[nr++] = (struct option){
			settings[i].flag,
			/* --log-requests alone says true; --log-requests=false overrides a file. */
			settings[i].kind == SETTING_BOOL ? optional_argument : required_argument,
			NULL, SETTING_FLAG0 + i};
	}
	flags[nr] = (struct option){0};
}

static bool has_given(const struct options *o, enum setting_kind kind)
{
	unsigned int i;

	for (i = 0; i < o->nr_given; i++) {
		if (o->given[i].setting->kind == kind)
			return true;
	}
	return false;
}

/* Flags over a configuration; on failure @why starts with the flag. */
static int apply_flags(const struct options *o, struct config *c, char *why, unsigned int why_bytes)
{
	bool replaced[SETTING_KIND_NR] = {false};
	char reason[VALUE_WHY_MAX];
	unsigned int i;
	int err;

	if (o->no_affinity)
		c->nr_keys = 0;
	for (i = 0; i < o->nr_given; i++) {
		const struct setting *s = o->given[i].setting;
		/* Two flags, one list. */
		enum setting_kind list = s->kind == SETTING_HEADER ? SETTING_KEY : s->kind;

		if (setting_is_list(s) && !replaced[list]) {
			setting_clear(s, c);
			replaced[list] = true;
		}
		err = setting_set(s, c, o->given[i].text, reason, sizeof(reason));
		if (err) {
			snprintf(why, why_bytes, "--%s: %s", s->flag, reason);
			return err;
		}
	}
	return 0;
}

/* Values are tried on a scratch configuration, so that `run` says exit 2 before it does anything.
 */
static int check_flags(const struct options *o, char *why, unsigned int why_bytes)
{
	struct config *scratch;
	int err;

	if (o->no_affinity && (has_given(o, SETTING_KEY) || has_given(o, SETTING_HEADER))) {
		snprintf(why, why_bytes, "--no-affinity and --session-%s contradict each other",
			 has_given(o, SETTING_KEY) ? "key" : "header");
		return -EINVAL;
	}
	scratch = malloc(sizeof(*scratch));
	if (!scratch) {
		snprintf(why, why_bytes, "out of memory");
		return -ENOMEM;
	}
	config_defaults(scratch);
	err = apply_flags(o, scratch, why, why_bytes);
	free(scratch);
	return err;
}

static int take_operand(struct options *o, int argc, char **argv, bool takes_file, char *why,
			unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX];

	if (optind == argc)
		return 0;
	if (!takes_file || argc - optind > 1) {
		snprintf(why, why_bytes, "%s is not a flag and is not expected here",
			 value_quote(argv[argc - 1], quoted));
		return -EINVAL;
	}
	if (o->config) {
		snprintf(why, why_bytes, "%s is a second file; --config names one already",
			 value_quote(argv[optind], quoted));
		return -EINVAL;
	}
	o->config = argv[optind];
	return 0;
}

int options_parse(struct options *o, int argc, char **argv, bool takes_file, char *why,
		  unsigned int why_bytes)
{
	struct option flags[FLAGS_MAX];
	const char *args[FLAGS_MAX];
	int flag;

	*o = (struct options){.given = calloc(argc, sizeof(*o->given))};
	if (!o->given) {
		snprintf(why, why_bytes, "out of memory");
		return -ENOMEM;
	}
	build_flags(flags, args, takes_file);
	flags_begin();
	while ((flag = getopt_long(argc, argv, ":", flags, NULL)) >= 0) {
		if (flag >= SETTING_FLAG0) {
			o->given[o->nr_given++] = (struct option_given){
				&settings[flag - SETTING_FLAG0], optarg ? optarg : "true"};
			continue;
		}
		switch (flag) {
		case FLAG_CONFIG:
			o->config = optarg;
			break;
		case FLAG_NO_AFFINITY:
			o->no_affinity = true;
			break;
		case FLAG_JSON:
			o->json = true;
			break;
		case FLAG_HELP:
			o->help = true;
			break;
		default:
			return flags_refuse(flags, args, argv, why, why_bytes);
		}
	}
	if (o->help)
		return 0;
	flag = take_operand(o, argc, argv, takes_file, why, why_bytes);
	return flag ? flag : check_flags(o, why, why_bytes);
}

void options_fini(struct options *o)
{
	free(o->given);
	o->given = NULL;
	o->nr_given = 0;
}

/* What this process may run on; a cpuset counts, the machine's size does not. */
static unsigned int cpus_usable(void)
{
	cpu_set_t set;
	int nr;

	if (sched_getaffinity(0, sizeof(set), &set))
		return 1;
	nr = CPU_COUNT(&set);
	return nr < 1 ? 1 : nr > WORKERS_MAX ? WORKERS_MAX : nr;
}

/* The setting that a text of config_finish() begins with, NULL: of none. */
static const struct setting *named_first(const char *why)
{
	size_t len = strcspn(why, ": ");
	unsigned int i;

	for (i = 0; i < settings_nr; i++) {
		if (strlen(settings[i].key) == len && !memcmp(settings[i].key, why, len))
			return &settings[i];
	}
	return NULL;
}

/* What config_finish() refused is named after where it came from: the flag, or the file's line. */
static void locate(const struct options *o, const struct yaml_index *index, const char *why,
		   struct config_error *e)
{
	unsigned int i;

	if (o->config)
		config_error_locate(o->config, index, why, e);
	for (i = 0; i < o->nr_given; i++) {
		if (!strcmp(o->given[i].setting->key, e->field))
			break;
	}
	if (!o->config || i < o->nr_given) {
		const struct setting *s = named_first(why);

		*e = (struct config_error){0};
		if (s)
			snprintf(e->text, sizeof(e->text), "--%s: %s", s->flag, why);
		else
			snprintf(e->text, sizeof(e->text), "%s", why);
	}
}

struct config *options_load(const struct options *o, struct config_error *e)
{
	struct yaml_index index = {0};
	char why[VALUE_WHY_MAX];
	struct config *c = malloc(sizeof(*c));

	*e = (struct config_error){0};
	if (!c) {
		snprintf(e->text, sizeof(e->text), "out of memory");
		return NULL;
	}
	config_defaults(c);
	if (o->config && config_load(o->config, c, &index, e))
		goto fail;
	if (apply_flags(o, c, why, sizeof(why))) {
		snprintf(e->text, sizeof(e->text), "%s", why);
		goto fail;
	}
	if (config_finish(c, why, sizeof(why))) {
		locate(o, &index, why, e);
		goto fail;
	}
	yaml_index_fini(&index);
	if (!c->workers)
		c->workers = cpus_usable();
	return c;
fail:
	yaml_index_fini(&index);
	free(c);
	return NULL;
}

static void help_line(FILE *to, const char *flag, const char *arg, const char *text,
		      const char *value)
{
	int n = fprintf(to, "  --%s%s", flag, arg);

	if (n >= HELP_COLUMN)
		n = fprintf(to, "\n") * 0;
	fprintf(to, "%*s%s", HELP_COLUMN - n, "", text);
	if (value[0])
		fprintf(to, " (%s)", value);
	fprintf(to, "\n");
}

static void help_setting(FILE *to, const struct setting *s, const struct config *defaults)
{
	char value[SETTING_TEXT_MAX], arg[64];

	/* The list's defaults stand beside its first flag. */
	if (s->kind == SETTING_HEADER)
		value[0] = '\0';
	else
		setting_format(s, defaults, value);
	/* The value of a boolean is optional and needs its "=". */
	snprintf(arg, sizeof(arg), s->kind == SETTING_BOOL ? "[=%s]" : " %s", s->arg);
	help_line(to, s->flag, arg, s->help, value);
}

void options_help(FILE *to, bool takes_file)
{
	struct config *defaults = malloc(sizeof(*defaults));
	unsigned int group, i;

	if (!defaults)
		return;
	config_defaults(defaults);
	fprintf(to, "Flags override the file; in brackets the default.\n\n");
	help_line(to, "config", " FILE", "read settings from a YAML file", "");
	if (takes_file)
		help_line(to, "json", "", "print the result as JSON", "");
	help_line(to, "help", "", "this text", "");
	for (group = 0; group < SETTING_GROUP_NR; group++) {
		fprintf(to, "\n%s:\n", group_titles[group]);
		for (i = 0; i < settings_nr; i++) {
			if (settings[i].group == group)
				help_setting(to, &settings[i], defaults);
		}
		if (group == SETTING_GROUP_SESSIONS)
			help_line(to, "no-affinity", "", "no session key at all", "");
	}
	fprintf(to, "\nDUR: a number and ms, s, m or h. SIZE: a number and B, KiB, MiB, KB or MB.\n"
		    "ADDR: 127.0.0.1:8080, [::1]:8080 or *:8080. BOOL: true or false.\n"
		    "KIND=NAME: header=NAME, cookie=NAME, query=NAME, json=PATH, preset=agents; or "
		    "client-ip;\nor prefix[,RULE=VALUE...], RULE: windows, min_match, abs, rel, "
		    "common, ttl, max.\n");
	free(defaults);
}
