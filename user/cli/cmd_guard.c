/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The commands about decisions, other than explain: drain, undrain, pin, unpin, pressure, report.
 * Each takes operands and a few flags, makes one target of them and prints one answer.
 */
#include <curl/curl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cli/ask.h"
#include "cli/cli.h"
#include "cli/table.h"
#include "ops/value.h"

#define TARGET_BYTES 2048
/* Three times as long once escaped. */
#define OPERAND_MAX  512
#define DRAIN_MAX_MS (24ULL * 3600 * 1000)

enum guard_flag { FLAG_DEADLINE = ASK_FLAG_OWN, FLAG_IDLE, FLAG_ID, FLAG_ACK };

static const struct option flags[] = {
	ASK_FLAGS,
	{"deadline", required_argument, NULL, FLAG_DEADLINE},
	{"idle", required_argument, NULL, FLAG_IDLE},
	{"id", no_argument, NULL, FLAG_ID},
	{"ack", no_argument, NULL, FLAG_ACK},
	{0},
};
static const char *const flag_args[] = {ASK_FLAG_ARGS, "DUR", "DUR", NULL, NULL};

/* What a command takes beside the flags that all have. */
struct takes {
	unsigned int operands;
	const char *names[2];
	uint64_t flags; /* BIT() of each */
};

#define BIT(flag) (1ULL << ((flag)-ASK_FLAG_OWN))

/* What a command line said. */
struct asked {
	struct ask ask;
	const struct takes *takes;
	bool id, ack;
	uint64_t given; /* own flags, as bits */
	uint64_t deadline_ms, idle_ms;
	const char *operand[2];
};

static int take_flag(void *own, int flag, char *why)
{
	char reason[VALUE_WHY_MAX];
	struct asked *a = own;

	switch (flag) {
	case FLAG_ID:
		a->id = true;
		break;
	case FLAG_ACK:
		a->ack = true;
		break;
	case FLAG_DEADLINE:
		if (value_duration(optarg, 0, DRAIN_MAX_MS, &a->deadline_ms, reason,
				   sizeof(reason)))
			return ask_refuse(why, "--deadline: %s", reason);
		break;
	case FLAG_IDLE:
		if (value_duration(optarg, 1, DRAIN_MAX_MS, &a->idle_ms, reason, sizeof(reason)))
			return ask_refuse(why, "--idle: %s", reason);
		break;
	}
	a->given |= BIT(flag);
	if (a->given & ~a->takes->flags)
		return ask_refuse(why, "--%s is not for this command",
				  flags[flag - ASK_FLAG_JSON].name);
	return 0;
}

static int take_operands(struct asked *a, int argc, char **argv, char *why)
{
	const struct takes *t = a->takes;
	char quoted[VALUE_QUOTE_MAX];
	unsigned int nr = (unsigned int)(argc - optind);

	for (unsigned int i = 0; i < nr; i++) {
		const char *text = argv[optind + i];

		if (i == t->operands)
			return ask_refuse(why, "%s is not expected here",
					  value_quote(text, quoted));
		if (!text[0] || strlen(text) > OPERAND_MAX)
			return ask_refuse(why, "%s has 1 to %d bytes", t->names[i], OPERAND_MAX);
		a->operand[i] = text;
	}
	if (nr < t->operands)
		return ask_refuse(why, "%s is missing", t->names[nr]);
	return 0;
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
	char why[ASK_WHY_BYTES];
	int rc;

	*a = (struct asked){.takes = t};
	*ret = CLI_OK;
	rc = ask_parse(&a->ask, flags, flag_args, take_flag, a, argc, argv, why);
	if (!rc && !a->ask.help)
		rc = take_operands(a, argc, argv, why);
	if (rc) {
		*ret = cli_usage(self, why);
		return false;
	}
	if (!a->ask.help)
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
	ask_help_flags(&a->ask);
	return false;
}

/* ---- drain ---- */

static void print_drain(const json_t *o)
{
	if (json_is_false(json_object_get(o, "keeps_sessions"))) {
		printf("%s takes no new request: with placement hash its sessions go elsewhere at "
		       "once.\n",
		       ask_text(o, "backend"));
		return;
	}
	printf("%s takes no new session. It keeps its %.0f as long as they are not silent for %.0f "
	       "s, "
	       "and %.0f s at most.\n",
	       ask_text(o, "backend"), ask_number(o, "sessions"), ask_number(o, "idle_s"),
	       ask_number(o, "deadline_s"));
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
	return ask_send(&a.ask, "POST", target, print_drain);
}

static void print_undrain(const json_t *o)
{
	printf(json_is_true(json_object_get(o, "was_draining")) ? "%s is back at work\n"
								: "%s was not being drained\n",
	       ask_text(o, "backend"));
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
	return ask_send(&a.ask, "POST", target, print_undrain);
}

/* ---- pins ---- */

static void print_pin(const json_t *o)
{
	const char *was = ask_text(o, "was");

	printf("session %s is on %s now%s%s\n", ask_text(o, "session"), ask_text(o, "backend"),
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
	return ask_send(&a.ask, "POST", target, print_pin);
}

static void print_unpin(const json_t *o)
{
	const char *was = ask_text(o, "was");

	if (was[0])
		printf("session %s was on %s\n", ask_text(o, "session"), was);
	else
		printf("session %s was on no server\n", ask_text(o, "session"));
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
	return ask_send(&a.ask, "POST", target, print_unpin);
}

/* ---- pressure ---- */

static void print_pressure(const json_t *o)
{
	if (json_object_get(o, "acknowledged"))
		printf("acknowledged %.0f\n", ask_number(o, "acknowledged"));
	printf("%.0f forced moves in the last %.0f s, %.0f since the start\n",
	       ask_number(o, "pressure"), ask_number(o, "window_s"), ask_number(o, "forced_total"));
}

int cmd_pressure(const struct cli_command *self, int argc, char **argv)
{
	static const struct takes takes = {0, {0}, BIT(FLAG_ACK)};
	struct asked a;
	int ret;

	if (!begin(self, &takes, &a, argc, argv, &ret))
		return ret;
	return ask_send(&a.ask, a.ack ? "POST" : "GET", a.ack ? "/v1/pressure/ack" : "/v1/pressure",
			print_pressure);
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
	       100 * ask_number(o, "share"));
	table_print(columns, sizeof(columns) / sizeof(columns[0]), json_object_get(o, "arms"));
	if (json_is_null(json_object_get(gain, "low_ms"))) {
		printf("\nToo few turns for a comparison: 30 of each arm are wanted.\n");
		return;
	}
	printf("\nAffinity saves %.1f ms a turn (95 %% confidence: %.1f to %.1f ms).\n",
	       ask_number(gain, "ms"), ask_number(gain, "low_ms"), ask_number(gain, "high_ms"));
}

int cmd_report(const struct cli_command *self, int argc, char **argv)
{
	static const struct takes takes = {0};
	struct asked a;
	int ret;

	if (!begin(self, &takes, &a, argc, argv, &ret))
		return ret;
	return ask_send(&a.ask, "GET", "/v1/report", print_report);
}
