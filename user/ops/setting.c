/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The table of settings, and its scalars' way into struct config and back. Lists are
 * user/ops/setting_list.c; the wording of value errors is user/ops/value.c.
 */
#include "ops/setting.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "ops/value.h"

#define SECOND_MS (1000ULL)
#define MINUTE_MS (60 * SECOND_MS)
#define HOUR_MS	  (60 * MINUTE_MS)

#define AT(member)                                                                                 \
	.offset = offsetof(struct config, member), .size = sizeof(((struct config *)0)->member)

static const char *const log_level_names[LOG_LEVEL_NR] = {"error", "warn", "info", "debug"};
static const char *const log_format_names[LOG_FORMAT_NR] = {"logfmt", "json"};

/*
 * Upper bounds: a timeout of more than a day is a typing error; a TTL may be a month, since a pin
 * costs 64 bytes only; a check that takes more than an hour does not check.
 *
 * The formatter would give each member a line of its own and take the table its shape.
 */
/* clang-format off */
const struct setting settings[] = {
	{.key = "listen", .flag = "listen", .arg = "ADDR", .example = "[\"0.0.0.0:8080\"]",
	 .help = "take clients here; repeatable", .group = SETTING_GROUP_TRAFFIC,
	 .kind = SETTING_LISTEN},
	{.key = "backends", .flag = "backend", .arg = "NAME=ADDR[,slots=N][,weight=N]",
	 .example = "[{name: gpu0, address: \"127.0.0.1:8081\"}]", .help = "a server; repeatable",
	 .group = SETTING_GROUP_TRAFFIC, .kind = SETTING_BACKEND},
	{.key = "workers", .flag = "workers", .arg = "N", .example = "2",
	 .help = "worker threads; auto: one per CPU", .group = SETTING_GROUP_TRAFFIC,
	 .kind = SETTING_COUNT, AT(workers), .max = WORKERS_MAX, .zero = "auto"},
	{.key = "path", .flag = "path", .arg = "auto|relay|steer|splice", .example = "auto",
	 .help = "who moves the bytes", .group = SETTING_GROUP_TRAFFIC, .kind = SETTING_NAME,
	 AT(path), .names = path_mode_names, .nr_names = PATH_MODE_NR},
	{.key = "placement", .flag = "placement", .arg = "P", .example = "balanced",
	 .help = "new sessions: balanced, hash, least-inflight, round-robin",
	 .group = SETTING_GROUP_TRAFFIC, .kind = SETTING_NAME, AT(placement),
	 .names = placement_names, .nr_names = PLACEMENT_NR},
	{.key = "forwarded_for", .flag = "forwarded-for", .arg = "BOOL", .example = "true",
	 .help = "append X-Forwarded-For", .group = SETTING_GROUP_TRAFFIC, .kind = SETTING_BOOL,
	 AT(forwarded_for)},

	{.key = "affinity.keys", .flag = "session-key", .arg = "KIND=NAME",
	 .example = "[{header: X-Session-Id}]",
	 .help = "what names the session, first present wins; repeatable",
	 .group = SETTING_GROUP_SESSIONS, .kind = SETTING_KEY},
	{.key = "affinity.keys", .flag = "session-header", .arg = "NAME",
	 .example = "X-Session-Id", .help = "the same as --session-key header=NAME",
	 .group = SETTING_GROUP_SESSIONS, .kind = SETTING_HEADER},
	{.key = "affinity.missing", .flag = "missing", .arg = "balance|client-ip|generate",
	 .example = "balance", .help = "what to do with a request that has no key",
	 .group = SETTING_GROUP_SESSIONS, .kind = SETTING_NAME, AT(affinity.missing),
	 .names = missing_names, .nr_names = MISSING_NR},
	{.key = "affinity.generate_header", .flag = "generate-header", .arg = "NAME",
	 .example = "X-Session-Id", .help = "field of the answer with a generated key",
	 .group = SETTING_GROUP_SESSIONS, .kind = SETTING_HEADER_NAME,
	 AT(affinity.generate_header)},
	{.key = "affinity.parent", .flag = "parent-header", .arg = "NAME|off",
	 .example = "X-Parent-Session-Id", .help = "header that names a sidecar call's session",
	 .group = SETTING_GROUP_SESSIONS, .kind = SETTING_HEADER_NAME, AT(affinity.parent),
	 .zero = "off"},
	{.key = "affinity.sidecar", .flag = "sidecar", .arg = "follow|avoid", .example = "follow",
	 .help = "where a sidecar call goes: to its parent's server, or elsewhere",
	 .group = SETTING_GROUP_SESSIONS, .kind = SETTING_NAME, AT(affinity.sidecar),
	 .names = sidecar_names, .nr_names = SIDECAR_NR},
	{.key = "affinity.body_bytes", .flag = "affinity-body", .arg = "SIZE", .example = "64KiB",
	 .help = "of a body, waited for where keys are in it", .group = SETTING_GROUP_SESSIONS,
	 .kind = SETTING_SIZE, AT(affinity.body_bytes), .min = 1024, .max = HOLD_BYTES_MAX},
	{.key = "sessions.ttl", .flag = "ttl", .arg = "DUR", .example = "1h",
	 .help = "forget a session that was idle for so long", .group = SETTING_GROUP_SESSIONS,
	 .kind = SETTING_DURATION, AT(session_ttl_ms), .min = 1, .max = 720 * HOUR_MS},
	{.key = "sessions.max", .flag = "max-sessions", .arg = "N", .example = "1000000",
	 .help = "sessions kept at most", .group = SETTING_GROUP_SESSIONS, .kind = SETTING_COUNT,
	 AT(session_max), .min = 1, .max = SESSIONS_MAX},
	{.key = "sessions.state", .flag = "session-state", .arg = "PATH|auto|off",
	 .example = "/var/lib/kvpin/sessions.state",
	 .help = "keeps sessions over a restart; auto: beside the control socket",
	 .group = SETTING_GROUP_SESSIONS, .kind = SETTING_STATE_PATH, AT(session_state)},

	{.key = "guard.busy", .flag = "busy", .arg = "POLICY", .example = "prefer_idle_slot",
	 .help = "session whose server is full: prefer_idle_slot, prefer_owning_slot_with_wait, stick",
	 .group = SETTING_GROUP_GUARD, .kind = SETTING_NAME, AT(guard.busy),
	 .names = guard_busy_names, .nr_names = GUARD_BUSY_NR},
	{.key = "guard.queue", .flag = "queue", .arg = "N", .example = "64",
	 .help = "requests that wait for one server at most; 0: none waits",
	 .group = SETTING_GROUP_GUARD, .kind = SETTING_COUNT, AT(guard.queue),
	 .max = GUARD_QUEUE_MAX},
	{.key = "guard.wait", .flag = "wait", .arg = "DUR", .example = "10s",
	 .help = "... and how long", .group = SETTING_GROUP_GUARD, .kind = SETTING_DURATION,
	 AT(guard.wait_ms), .max = HOUR_MS},
	{.key = "guard.abs", .flag = "guard-abs", .arg = "N|off", .example = "2",
	 .help = "leave a server with more requests than the least loaded one has, plus N",
	 .group = SETTING_GROUP_GUARD, .kind = SETTING_COUNT, AT(guard.abs), .max = SLOTS_MAX,
	 .zero = "off"},
	{.key = "guard.rel", .flag = "guard-rel", .arg = "X|off", .example = "1.5",
	 .help = "... with more than X times as many, plus one", .group = SETTING_GROUP_GUARD,
	 .kind = SETTING_DECIMAL, AT(guard.rel_milli), .min = 1000, .max = 100000,
	 .zero = "off"},
	{.key = "experiment.share", .flag = "experiment-share", .arg = "X", .example = "0.1",
	 .help = "share of sessions on round robin, for kvpin report",
	 .group = SETTING_GROUP_GUARD, .kind = SETTING_DECIMAL, AT(experiment_milli), .max = 500,
	 .zero = "0"},

	{.key = "health.path", .flag = "health-path", .arg = "PATH", .example = "/health",
	 .help = "asked for by active checks", .group = SETTING_GROUP_HEALTH,
	 .kind = SETTING_URL_PATH, AT(health.path)},
	{.key = "health.interval", .flag = "health-interval", .arg = "DUR|off", .example = "2s",
	 .help = "between two checks of a server", .group = SETTING_GROUP_HEALTH,
	 .kind = SETTING_DURATION, AT(health.interval_ms), .max = HOUR_MS, .zero = "off"},
	{.key = "health.timeout", .flag = "health-timeout", .arg = "DUR", .example = "1s",
	 .help = "for a check's answer", .group = SETTING_GROUP_HEALTH, .kind = SETTING_DURATION,
	 AT(health.timeout_ms), .min = 1, .max = HOUR_MS},
	{.key = "health.rise", .flag = "health-rise", .arg = "N", .example = "2",
	 .help = "good checks in a row that bring a server up", .group = SETTING_GROUP_HEALTH,
	 .kind = SETTING_COUNT, AT(health.rise), .min = 1, .max = 100},
	{.key = "health.fall", .flag = "health-fall", .arg = "N", .example = "3",
	 .help = "failed checks in a row that take it down", .group = SETTING_GROUP_HEALTH,
	 .kind = SETTING_COUNT, AT(health.fall), .min = 1, .max = 100},
	{.key = "health.start_metric", .flag = "start-metric", .arg = "NAME|off",
	 .example = "process_start_time_seconds",
	 .help = "number on /metrics that says when a server was started",
	 .group = SETTING_GROUP_HEALTH, .kind = SETTING_WORD, AT(health.start_metric)},

	{.key = "timeouts.head", .flag = "timeout-head", .arg = "DUR", .example = "10s",
	 .help = "first byte of a request head to its last", .group = SETTING_GROUP_TIMEOUTS,
	 .kind = SETTING_DURATION, AT(timeout.head_ms), .min = 1, .max = 24 * HOUR_MS},
	{.key = "timeouts.idle", .flag = "timeout-idle", .arg = "DUR", .example = "75s",
	 .help = "between two requests of a client", .group = SETTING_GROUP_TIMEOUTS,
	 .kind = SETTING_DURATION, AT(timeout.idle_ms), .min = 1, .max = 24 * HOUR_MS},
	{.key = "timeouts.body", .flag = "timeout-body", .arg = "DUR", .example = "60s",
	 .help = "a request body that stands still", .group = SETTING_GROUP_TIMEOUTS,
	 .kind = SETTING_DURATION, AT(timeout.body_ms), .min = 1, .max = 24 * HOUR_MS},
	{.key = "timeouts.connect", .flag = "timeout-connect", .arg = "DUR", .example = "2s",
	 .help = "to reach a server", .group = SETTING_GROUP_TIMEOUTS, .kind = SETTING_DURATION,
	 AT(timeout.connect_ms), .min = 1, .max = 24 * HOUR_MS},
	{.key = "timeouts.stall", .flag = "timeout-stall", .arg = "DUR", .example = "15m",
	 .help = "an exchange in which no byte moves; covers the prefill",
	 .group = SETTING_GROUP_TIMEOUTS, .kind = SETTING_DURATION, AT(timeout.stall_ms), .min = 1,
	 .max = 24 * HOUR_MS},
	{.key = "timeouts.tunnel", .flag = "timeout-tunnel", .arg = "DUR", .example = "1h",
	 .help = "an upgraded connection in which no byte moves", .group = SETTING_GROUP_TIMEOUTS,
	 .kind = SETTING_DURATION, AT(timeout.tunnel_ms), .min = 1, .max = 24 * HOUR_MS},
	{.key = "timeouts.drain", .flag = "drain", .arg = "DUR", .example = "30s",
	 .help = "SIGTERM to exit, for exchanges to end", .group = SETTING_GROUP_TIMEOUTS,
	 .kind = SETTING_DURATION, AT(timeout.drain_ms), .max = 24 * HOUR_MS},

	{.key = "limits.head", .flag = "limit-head", .arg = "SIZE", .example = "32KiB",
	 .help = "a message head", .group = SETTING_GROUP_LIMITS, .kind = SETTING_SIZE,
	 AT(limit.head_bytes), .min = 1024, .max = KVPIN_HEAD_BYTES_MAX},
	{.key = "limits.fields", .flag = "limit-fields", .arg = "N", .example = "100",
	 .help = "fields of a head", .group = SETTING_GROUP_LIMITS, .kind = SETTING_COUNT,
	 AT(limit.head_fields), .min = 1, .max = KVPIN_HEAD_FIELDS_MAX},
	{.key = "limits.hold", .flag = "limit-hold", .arg = "SIZE", .example = "256KiB",
	 .help = "of a request, kept for sending it again", .group = SETTING_GROUP_LIMITS,
	 .kind = SETTING_SIZE, AT(limit.hold_bytes), .max = HOLD_BYTES_MAX},
	{.key = "limits.connections", .flag = "limit-connections", .arg = "N", .example = "8192",
	 .help = "clients at once, all workers together", .group = SETTING_GROUP_LIMITS,
	 .kind = SETTING_COUNT, AT(limit.connections), .min = 1, .max = 1000000},

	{.key = "steer.pin", .flag = "steer-pin", .arg = "DIR", .example = "/sys/fs/bpf/kvpin",
	 .help = "where the kernel's maps are pinned", .group = SETTING_GROUP_LIMITS,
	 .kind = SETTING_DIR_PATH, AT(steer.pin)},
	{.key = "steer.budget", .flag = "steer-budget", .arg = "SIZE", .example = "256KiB",
	 .help = "queued by the kernel towards one client", .group = SETTING_GROUP_LIMITS,
	 .kind = SETTING_SIZE, AT(steer.budget_bytes), .min = 4096, .max = 16 * 1024 * 1024},
	{.key = "steer.budget_all", .flag = "steer-budget-all", .arg = "SIZE", .example = "64MiB",
	 .help = "... and towards all clients", .group = SETTING_GROUP_LIMITS,
	 .kind = SETTING_SIZE, AT(steer.budget_all_bytes), .min = 4096, .max = 1024 * 1024 * 1024},
	{.key = "steer.holds", .flag = "steer-holds", .arg = "N", .example = "256",
	 .help = "requests held for sending again, 32 KiB each", .group = SETTING_GROUP_LIMITS,
	 .kind = SETTING_COUNT, AT(steer.holds), .min = 1, .max = 65536},
	{.key = "steer.ring", .flag = "steer-ring", .arg = "SIZE", .example = "1MiB",
	 .help = "events to each worker", .group = SETTING_GROUP_LIMITS, .kind = SETTING_SIZE,
	 AT(steer.ring_bytes), .min = 4096, .max = 64 * 1024 * 1024},
	{.key = "splice.events", .flag = "splice-events", .arg = "N", .example = "8",
	 .help = "events of a stream that the relay carries first", .group = SETTING_GROUP_LIMITS,
	 .kind = SETTING_COUNT, AT(splice.events), .max = 1000000},
	{.key = "splice.body", .flag = "splice-body", .arg = "SIZE", .example = "256KiB",
	 .help = "from this length on other answers are spliced", .group = SETTING_GROUP_LIMITS,
	 .kind = SETTING_SIZE, AT(splice.body_bytes), .max = 1024 * 1024 * 1024},
	{.key = "splice.ring", .flag = "splice-ring", .arg = "SIZE", .example = "1MiB",
	 .help = "events to each worker", .group = SETTING_GROUP_LIMITS, .kind = SETTING_SIZE,
	 AT(splice.ring_bytes), .min = 65536, .max = 64 * 1024 * 1024},

	{.key = "peers.listen", .flag = "peer-listen", .arg = "ADDR|off",
	 .example = "\"10.0.0.1:7946\"", .help = "other balancers tell their pins here",
	 .group = SETTING_GROUP_OPERATION, .kind = SETTING_ADDRS, AT(peers.listen), .max = 1},
	{.key = "peers.to", .flag = "peers", .arg = "ADDR,...|off",
	 .example = "\"10.0.0.2:7946, 10.0.0.3:7946\"",
	 .help = "other balancers, which are told of the pins here",
	 .group = SETTING_GROUP_OPERATION, .kind = SETTING_ADDRS, AT(peers.to), .max = PEERS_MAX},
	{.key = "peers.secret", .flag = "peer-secret", .arg = "PATH|off",
	 .example = "/etc/kvpin/peers.secret", .help = "file with the secret that they share",
	 .group = SETTING_GROUP_OPERATION, .kind = SETTING_STATE_PATH, AT(peers.secret)},

	{.key = "metrics", .flag = "metrics", .arg = "ADDR|off", .example = "\"127.0.0.1:9464\"",
	 .help = "Prometheus metrics", .group = SETTING_GROUP_OPERATION, .kind = SETTING_METRICS},
	{.key = "control", .flag = "control", .arg = "PATH|off",
	 .example = "/run/kvpin/control.sock", .help = "control socket",
	 .group = SETTING_GROUP_OPERATION, .kind = SETTING_SOCKET_PATH, AT(control)},
	{.key = "user", .flag = "user", .arg = "NAME|off", .example = "kvpin",
	 .help = "who to be after the start, when started as root",
	 .group = SETTING_GROUP_OPERATION, .kind = SETTING_USER, AT(user)},
	{.key = "log.level", .flag = "log-level", .arg = "LEVEL", .example = "info",
	 .help = "error, warn, info, debug", .group = SETTING_GROUP_OPERATION, .kind = SETTING_NAME,
	 AT(log.level), .names = log_level_names, .nr_names = LOG_LEVEL_NR},
	{.key = "log.format", .flag = "log-format", .arg = "FORMAT", .example = "logfmt",
	 .help = "logfmt, json", .group = SETTING_GROUP_OPERATION, .kind = SETTING_NAME,
	 AT(log.format), .names = log_format_names, .nr_names = LOG_FORMAT_NR},
	{.key = "log.requests", .flag = "log-requests", .arg = "BOOL", .example = "true",
	 .help = "a line per request", .group = SETTING_GROUP_OPERATION, .kind = SETTING_BOOL,
	 AT(log.requests)},
};
/* clang-format on */

const unsigned int settings_nr = sizeof(settings) / sizeof(settings[0]);
_Static_assert(sizeof(settings) / sizeof(settings[0]) <= SETTINGS_MAX, "raise SETTINGS_MAX");
_Static_assert(sizeof(enum path_mode) == 4 && sizeof(enum log_level) == 4 &&
		       sizeof(enum guard_busy) == 4, "names are 32 bits");

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

	if (s->zero && !strcmp(text, s->zero))
		;
	else if (s->kind == SETTING_DURATION)
		err = value_duration(text, s->min, s->max, &value, why, why_bytes);
	else if (s->kind == SETTING_DECIMAL && !strcmp(text, "0") && s->zero)
		;
	else if (s->kind == SETTING_DECIMAL)
		err = value_decimal(text, s->min, s->max, &value, why, why_bytes);
	else if (s->kind == SETTING_SIZE)
		err = value_size(text, s->min, s->max, &value, why, why_bytes);
	else
		err = value_count(text, s->min, s->max, &value, why, why_bytes);
	if (!err)
		store(s, c, value);
	else if (s->zero && strlen(why) + sizeof(", or ") + strlen(s->zero) <= why_bytes)
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
		snprintf(why, why_bytes, "%s is too long; at most %u bytes", quoted, s->size - 1);
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
		snprintf(why, why_bytes, "%s is too long; a socket's path has at most %u bytes",
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
		snprintf(why, why_bytes, "%s is too long; at most %u bytes", quoted, s->size - 1);
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

	value_quote(text, quoted);
	if (text[0] != '/' || strlen(text) >= s->size) {
		snprintf(why, why_bytes,
			 "%s is not an absolute path of at most %u bytes; write one "
			 "such as %s",
			 quoted, s->size - 1, s->example);
		return -EINVAL;
	}
	strcpy((char *)c + s->offset, text);
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
