/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The commands about decisions, other than explain: drain, undrain, pin, unpin, pressure, report.
 * Each takes operands and a few flags, makes one target of them and prints one answer.
 */
#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cli/ask.h"
#include "cli/cli.h"
#include "cli/flags.h"
#include "cli/table.h"
#include "ops/value.h"

#define WHY_BYTES    1024
#define TARGET_BYTES 2048
/* Three times as long once escaped. */
#define OPERAND_MAX  512
#define DRAIN_MAX_MS (24ULL * 3600 * 1000)

enum guard_flag {
	FLAG_JSON = 256,
	FLAG_CONTROL,
	FLAG_HELP,
	FLAG_DEADLINE,
	FLAG_IDLE,
	FLAG_ID,
	FLAG_ACK
};

static const struct option flags[] = {
	{"json", no_argument, NULL, FLAG_JSON},
	{"control", required_argument, NULL, FLAG_CONTROL},
	{"help", no_argument, NULL, FLAG_HELP},
	{"deadline", required_argument, NULL, FLAG_DEADLINE},
	{"idle", required_argument, NULL, FLAG_IDLE},
	{"id", no_argument, NULL, FLAG_ID},
	{"ack", no_argument, NULL, FLAG_ACK},
	{0},
};
static const char *const flag_args[] = {NULL, "PATH", NULL, "DUR", "DUR", NULL, NULL};

/* What a command line said. */
struct asked {
	bool json, help, id, ack;
	uint64_t given; /* flags, as bits from FLAG_JSON on */
	char control[CONTROL_PATH_MAX];
	uint64_t deadline_ms, idle_ms;
	const char *operand[2];
};

/* What a command takes beside --json, --control and --help. */
struct takes {
	unsigned int operands;
	const char *names[2];
	uint64_t flags;
};

#define BIT(flag) (1ULL << ((flag)-FLAG_JSON))

static int __attribute__((format(printf, 2, 3))) refuse(char *why, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, WHY_BYTES, format, args);
	va_end(args);
	return -EINVAL;
}

static int take_flag(struct asked *a, int flag, char *why)
{
	char reason[VALUE_WHY_MAX];

	a->given |= BIT(flag);
	switch (flag) {
	case FLAG_JSON:
		a->json = true;
		return 0;
	case FLAG_HELP:
		a->help = true;
		return 0;
	case FLAG_ID:
		a->id = true;
		return 0;
	case FLAG_ACK:
		a->ack = true;
		return 0;
	case FLAG_DEADLINE:
		if (value_duration(optarg, 0, DRAIN_MAX_MS, &a->deadline_ms, reason,
				   sizeof(reason)))
			return refuse(why, "--deadline: %s", reason);
		return 0;
	case FLAG_IDLE:
		if (value_duration(optarg, 1, DRAIN_MAX_MS, &a->idle_ms, reason, sizeof(reason)))
			return refuse(why, "--idle: %s", reason);
		return 0;
	default:
		if (!optarg[0] || strlen(optarg) >= sizeof(a->control))
			return refuse(why, "--control: a socket's path has 1 to %zu bytes",
				      sizeof(a->control) - 1);
		strcpy(a->control, optarg);
		return 0;
	}
}

static int take_operands(struct asked *a, const struct takes *t, int argc, char **argv, char *why)
{
	char quoted[VALUE_QUOTE_MAX];
	unsigned int nr = (unsigned int)(argc - optind);

	for (unsigned int i = 0; i < nr; i++) {
		const char *text = argv[optind + i];

		if (i == t->operands)
			return refuse(why, "%s is not expected here", value_quote(text, quoted));
		if (!text[0] || strlen(text) > OPERAND_MAX)
			return refuse(why, "%s has 1 to %d bytes", t->names[i], OPERAND_MAX);
		a->operand[i] = text;
	}
	if (nr < t->operands)
		return refuse(why, "%s is missing", t->names[nr]);
	return 0;
}

static int parse(struct asked *a, const struct takes *t, int argc, char **argv, char *why)
{
	uint64_t allowed = BIT(FLAG_JSON) | BIT(FLAG_CONTROL) | BIT(FLAG_HELP) | t->flags;
	int flag;

	*a = (struct asked){0};
	cli_default_control(a->control);
	flags_begin();
	while ((flag = getopt_long(argc, argv, ":", flags, NULL)) >= 0) {
		if (flag < FLAG_JSON)
			return flags_refuse(flags, flag_args, argv, why, WHY_BYTES);
		if (take_flag(a, flag, why))
			return -EINVAL;
		if (a->given & ~allowed)
			return refuse(why, "--%s is not for this command",
				      flags[flag - FLAG_JSON].name);
	}
	return a->help ? 0 : take_operands(a, t, argc, argv, why);
}

/* Appends "?name=value" or "&name=value", escaped. */
static void target_add(char *target, const char *name, const char *value)
{
	char *escaped = curl_easy_escape(NULL, value, 0);
	size_t at = strlen(target);

	snprintf(target + at, TARGET_BYTES - at, "%c%s=%s", strchr(target, '?') ? '&' : '?', name,
		 escaped ? escaped : "");
	curl_free(escaped);
}

static void target_add_ms(char *target, const char *name, uint64_t ms)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRIu64, ms);
	target_add(target, name, text);
}

/* Parses, and says what --help and a usage error say. Returns whether to go on; else @ret. */
static bool begin(const struct cli_command *self, const struct takes *t, struct asked *a, int argc,
		  char **argv, int *ret)
{
	char why[WHY_BYTES];

	*ret = CLI_OK;
	if (parse(a, t, argc, argv, why)) {
		*ret = cli_usage(self, why);
		return false;
	}
	if (!a->help)
		return true;
	cli_synopsis(self);
	printf("\n");
	if (t->flags & BIT(FLAG_DEADLINE))
		printf("  --deadline DUR  from then on it keeps no session (15m)\n"
		       "  --idle DUR      a session silent for longer does not come back (60s)\n");
	if (t->flags & BIT(FLAG_ID))
		printf("  --id            KEY is an id, as `kvpin sessions` shows it\n");
	if (t->flags & BIT(FLAG_ACK))
		printf("  --ack           it was acted on: begin at 0 again\n");
	printf("  --json          print the answer as JSON\n"
	       "  --control PATH  the running kvpin's control socket (%s)\n",
	       a->control);
	return false;
}

static const char *text_of(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text ? text : "";
}

static double number_of(const json_t *o, const char *key)
{
	return json_number_value(json_object_get(o, key));
}

/* ---- drain ---- */

static void print_drain(const json_t *o)
{
	printf("%s takes no new session. It keeps its %.0f as long as they are not silent for %.0f "
	       "s, "
	       "and %.0f s at most.\n",
	       text_of(o, "backend"), number_of(o, "sessions"), number_of(o, "idle_s"),
	       number_of(o, "deadline_s"));
}

int cmd_drain(const struct cli_command *self, int argc, char **argv)
{
	static const struct takes takes = {1, {"NAME"}, BIT(FLAG_DEADLINE) | BIT(FLAG_IDLE)};
	char target[TARGET_BYTES] = "/v1/drain";
	struct asked a;
	int ret;

	if (!begin(self, &takes, &a, argc, argv, &ret))
		return ret;
	target_add(target, "backend", a.operand[0]);
	if (a.given & BIT(FLAG_DEADLINE))
		target_add_ms(target, "deadline_ms", a.deadline_ms);
	if (a.given & BIT(FLAG_IDLE))
		target_add_ms(target, "idle_ms", a.idle_ms);
	return cli_ask(a.control, a.json, "POST", target, print_drain);
}

static void print_undrain(const json_t *o)
{
	printf(json_is_true(json_object_get(o, "was_draining")) ? "%s is back at work\n"
								: "%s was not being drained\n",
	       text_of(o, "backend"));
}

int cmd_undrain(const struct cli_command *self, int argc, char **argv)
{
	static const struct takes takes = {1, {"NAME"}, 0};
	char target[TARGET_BYTES] = "/v1/undrain";
	struct asked a;
	int ret;

	if (!begin(self, &takes, &a, argc, argv, &ret))
		return ret;
	target_add(target, "backend", a.operand[0]);
	return cli_ask(a.control, a.json, "POST", target, print_undrain);
}

/* ---- pins ---- */

static void print_pin(const json_t *o)
{
	const char *was = text_of(o, "was");

	printf("session %s is on %s now%s%s\n", text_of(o, "session"), text_of(o, "backend"),
	       was[0] ? "; it was on " : "", was);
}

int cmd_pin(const struct cli_command *self, int argc, char **argv)
{
	static const struct takes takes = {2, {"KEY", "NAME"}, BIT(FLAG_ID)};
	char target[TARGET_BYTES] = "/v1/pin";
	struct asked a;
	int ret;

	if (!begin(self, &takes, &a, argc, argv, &ret))
		return ret;
	target_add(target, a.id ? "id" : "key", a.operand[0]);
	target_add(target, "backend", a.operand[1]);
	return cli_ask(a.control, a.json, "POST", target, print_pin);
}

static void print_unpin(const json_t *o)
{
	const char *was = text_of(o, "was");

	if (was[0])
		printf("session %s was on %s\n", text_of(o, "session"), was);
	else
		printf("session %s was on no server\n", text_of(o, "session"));
}

int cmd_unpin(const struct cli_command *self, int argc, char **argv)
{
	static const struct takes takes = {1, {"KEY"}, BIT(FLAG_ID)};
	char target[TARGET_BYTES] = "/v1/unpin";
	struct asked a;
	int ret;

	if (!begin(self, &takes, &a, argc, argv, &ret))
		return ret;
	target_add(target, a.id ? "id" : "key", a.operand[0]);
	return cli_ask(a.control, a.json, "POST", target, print_unpin);
}

/* ---- pressure ---- */

static void print_pressure(const json_t *o)
{
	if (json_object_get(o, "acknowledged"))
		printf("acknowledged %.0f\n", number_of(o, "acknowledged"));
	printf("%.0f forced moves in the last %.0f s, %.0f since the start\n",
	       number_of(o, "pressure"), number_of(o, "window_s"), number_of(o, "forced_total"));
}

int cmd_pressure(const struct cli_command *self, int argc, char **argv)
{
	static const struct takes takes = {0, {0}, BIT(FLAG_ACK)};
	struct asked a;
	int ret;

	if (!begin(self, &takes, &a, argc, argv, &ret))
		return ret;
	return cli_ask(a.control, a.json, a.ack ? "POST" : "GET",
		       a.ack ? "/v1/pressure/ack" : "/v1/pressure", print_pressure);
}

/* ---- report ---- */

static void print_report(const json_t *o)
{
	static const struct table_column columns[] = {
		{"ARM", "arm", TABLE_TEXT, NULL},
		{"TURNS", "turns", TABLE_NUMBER, NULL},
		{"MEAN MS", "mean_ms", TABLE_NUMBER, NULL},
		{"P50 MS", "p50_ms", TABLE_NUMBER, NULL},
		{"P90 MS", "p90_ms", TABLE_NUMBER, NULL},
		{"RECOMPUTED TOKENS", "recomputed_tokens", TABLE_NUMBER, NULL},
	};
	const json_t *gain = json_object_get(o, "gain");

	printf("Time to first token from the second turn on; %.1f %% of sessions are in the "
	       "control "
	       "arm.\n\n",
	       100 * number_of(o, "share"));
	table_print(columns, sizeof(columns) / sizeof(columns[0]), json_object_get(o, "arms"));
	if (json_is_null(json_object_get(gain, "low_ms"))) {
		printf("\nToo few turns for a comparison: 30 of each arm are wanted.\n");
		return;
	}
	printf("\nAffinity saves %.1f ms a turn (95 %% confidence: %.1f to %.1f ms).\n",
	       number_of(gain, "ms"), number_of(gain, "low_ms"), number_of(gain, "high_ms"));
}

int cmd_report(const struct cli_command *self, int argc, char **argv)
{
	static const struct takes takes = {0};
	struct asked a;
	int ret;

	if (!begin(self, &takes, &a, argc, argv, &ret))
		return ret;
	return cli_ask(a.control, a.json, "GET", "/v1/report", print_report);
}
