/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Default values, and the checks that hold wherever a configuration came from. Messages name the
 * field as the YAML reference does, the offending value, and what to write instead.
 *
 * Never reads a file, a clock or the network.
 */
#include "core/config.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "core/complaint.h"
#include "core/config_keys.h"

#define SECOND_MS 1000
#define MINUTE_MS (60 * SECOND_MS)
#define HOUR_MS	  (60 * MINUTE_MS)
#define DAY_MS	  (24 * HOUR_MS)
#define KIB	  1024
#define MIB	  (1024 * KIB)

/* Longer than any engine keeps a cache. */
#define TTL_MAX_MS (30ULL * DAY_MS)
/* Ephemeral ports and file descriptors end well before. */
#define CONNECTIONS_MAX 1000000
/* Below, not even a browser's request line and cookies fit. */
#define HEAD_BYTES_MIN KIB

const char *const path_mode_names[PATH_MODE_NR] = {
	[PATH_AUTO] = "auto",
	[PATH_RELAY] = "relay",
	[PATH_STEER] = "steer",
	[PATH_SPLICE] = "splice",
};

const char *const placement_names[PLACEMENT_NR] = {
	[PLACEMENT_BALANCED] = "balanced",
	[PLACEMENT_HASH] = "hash",
	[PLACEMENT_LEAST_INFLIGHT] = "least-inflight",
	[PLACEMENT_ROUND_ROBIN] = "round-robin",
};

const char *const missing_names[MISSING_NR] = {
	[MISSING_BALANCE] = "balance",
	[MISSING_CLIENT_IP] = "client-ip",
	[MISSING_GENERATE] = "generate",
};

const char *const sidecar_names[SIDECAR_NR] = {
	[SIDECAR_FOLLOW] = "follow",
	[SIDECAR_AVOID] = "avoid",
};

const char *const guard_busy_names[GUARD_BUSY_NR] = {
	[GUARD_PREFER_IDLE] = "prefer_idle_slot",
	[GUARD_PREFER_OWNER] = "prefer_owning_slot_with_wait",
	[GUARD_STICK] = "stick",
};

/* A number's bounds, both included. */
struct bound {
	const char *field;
	const char *unit;
	size_t offset;
	uint32_t min, max;
};

#define BOUND(name, member, unit_text, least, most)                                                \
	{                                                                                          \
		.field = (name), .unit = (unit_text), .offset = offsetof(struct config, member),   \
		.min = (least), .max = (most)                                                      \
	}

static const struct bound bounds[] = {
	BOUND("workers", workers, "", 0, WORKERS_MAX),
	BOUND("sessions.max", session_max, "", 1, SESSIONS_MAX),
	BOUND("guard.queue", guard.queue, "", 0, GUARD_QUEUE_MAX),
	BOUND("guard.wait", guard.wait_ms, " ms", 0, HOUR_MS),
	BOUND("guard.abs", guard.abs, "", 0, SLOTS_MAX),
	BOUND("guard.rel", guard.rel_milli, " thousandths", 0, 100000),
	BOUND("experiment.share", experiment_milli, " thousandths", 0, 500),
	BOUND("health.interval", health.interval_ms, " ms", 0, HOUR_MS),
	BOUND("health.timeout", health.timeout_ms, " ms", 1, HOUR_MS),
	BOUND("health.rise", health.rise, "", 1, 100),
	BOUND("health.fall", health.fall, "", 1, 100),
	BOUND("timeouts.head", timeout.head_ms, " ms", 1, DAY_MS),
	BOUND("timeouts.idle", timeout.idle_ms, " ms", 1, DAY_MS),
	BOUND("timeouts.body", timeout.body_ms, " ms", 1, DAY_MS),
	BOUND("timeouts.connect", timeout.connect_ms, " ms", 1, DAY_MS),
	BOUND("timeouts.stall", timeout.stall_ms, " ms", 1, DAY_MS),
	BOUND("timeouts.tunnel", timeout.tunnel_ms, " ms", 1, DAY_MS),
	BOUND("timeouts.drain", timeout.drain_ms, " ms", 0, DAY_MS),
	BOUND("affinity.body_bytes", affinity.body_bytes, " bytes", KIB, HOLD_BYTES_MAX),
	BOUND("limits.head", limit.head_bytes, " bytes", HEAD_BYTES_MIN, KVPIN_HEAD_BYTES_MAX),
	BOUND("limits.fields", limit.head_fields, "", 1, KVPIN_HEAD_FIELDS_MAX),
	BOUND("limits.hold", limit.hold_bytes, " bytes", 0, HOLD_BYTES_MAX),
	BOUND("limits.connections", limit.connections, "", 1, CONNECTIONS_MAX),
	BOUND("steer.budget", steer.budget_bytes, " bytes", 4 * KIB, 16 * MIB),
	BOUND("steer.budget_all", steer.budget_all_bytes, " bytes", 4 * KIB, 1024 * MIB),
	BOUND("steer.holds", steer.holds, "", 1, 65536),
	BOUND("steer.ring", steer.ring_bytes, " bytes", 4 * KIB, 64 * MIB),
	BOUND("splice.events", splice.events, "", 0, 1000000),
	BOUND("splice.body", splice.body_bytes, " bytes", 0, 1024 * MIB),
	BOUND("splice.ring", splice.ring_bytes, " bytes", 64 * KIB, 64 * MIB),
};

void config_defaults(struct config *c)
{
	static const char *const keys[] = {"X-LB-Hash", "X-Session-Id", "X-Conversation-Id"};
	unsigned int i;

	memset(c, 0, sizeof(*c));
	c->path = PATH_AUTO;
	for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		strcpy(c->key[i].name, keys[i]);
	c->nr_keys = i;
	strcpy(c->affinity.generate_header, "X-Session-Id");
	c->affinity.body_bytes = 64 * KIB;
	config_prefix_defaults(c);
	c->placement = PLACEMENT_BALANCED;
	c->guard.busy = GUARD_PREFER_IDLE;
	c->guard.queue = 64;
	c->guard.wait_ms = 10 * SECOND_MS;
	c->session_ttl_ms = HOUR_MS;
	c->session_max = 1000000;
	strcpy(c->session_state, "auto");
	strcpy(c->peers.secret, "off");
	strcpy(c->health.path, "/health");
	c->health.interval_ms = 2 * SECOND_MS;
	c->health.timeout_ms = SECOND_MS;
	c->health.rise = 2;
	c->health.fall = 3;
	c->timeout.head_ms = 10 * SECOND_MS;
	c->timeout.idle_ms = 75 * SECOND_MS;
	c->timeout.body_ms = 60 * SECOND_MS;
	c->timeout.connect_ms = 2 * SECOND_MS;
	c->timeout.stall_ms = 15 * MINUTE_MS;
	c->timeout.tunnel_ms = HOUR_MS;
	c->timeout.drain_ms = 30 * SECOND_MS;
	c->limit.head_bytes = 32 * KIB;
	c->limit.head_fields = 100;
	c->limit.hold_bytes = 256 * KIB;
	c->limit.connections = 8192;
	c->has_metrics = true;
	c->metrics.len = sizeof(c->metrics.in4);
	c->metrics.in4.sin_family = AF_INET;
	c->metrics.in4.sin_port = htons(9464);
	c->metrics.in4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	strcpy(c->control, "/run/kvpin/control.sock");
	strcpy(c->steer.pin, "/sys/fs/bpf/kvpin");
	c->steer.budget_bytes = 256 * KIB;
	c->steer.budget_all_bytes = 64 * MIB;
	c->steer.holds = 256;
	c->steer.ring_bytes = 1 * MIB;
	c->splice.events = 3;
	c->splice.body_bytes = 256 * KIB;
	c->splice.ring_bytes = 1 * MIB;
	c->log.level = LOG_INFO;
	c->log.format = LOG_LOGFMT;
}

static bool text_ends(const char *text, size_t bytes)
{
	return memchr(text, 0, bytes);
}

static int check_bounds(const struct config *c, const struct complaint *to)
{
	size_t i;

	for (i = 0; i < sizeof(bounds) / sizeof(bounds[0]); i++) {
		const struct bound *b = &bounds[i];
		uint32_t value;

		memcpy(&value, (const char *)c + b->offset, sizeof(value));
		if (value < b->min || value > b->max)
			return refuse(to, "%s is %u%s; it must be from %u to %u%s", b->field, value,
				      b->unit, b->min, b->max, b->unit);
	}
	if (c->session_ttl_ms < 1 || c->session_ttl_ms > TTL_MAX_MS)
		return refuse(to, "sessions.ttl is %" PRIu64 " ms; it must be from 1 ms to 30 days",
			      c->session_ttl_ms);
	return 0;
}

static int check_choices(const struct config *c, const struct complaint *to)
{
	if ((unsigned int)c->path >= PATH_MODE_NR)
		return refuse(to, "path is unknown; use auto, relay, steer or splice");
	if ((unsigned int)c->affinity.missing >= MISSING_NR)
		return refuse(to, "affinity.missing is unknown; use balance, client-ip or "
				  "generate");
	if ((unsigned int)c->affinity.sidecar >= SIDECAR_NR)
		return refuse(to, "affinity.sidecar is unknown; use follow or avoid");
	if ((unsigned int)c->placement >= PLACEMENT_NR)
		return refuse(to, "placement is unknown; use balanced, hash, least-inflight or "
				  "round-robin");
	if ((unsigned int)c->guard.busy >= GUARD_BUSY_NR)
		return refuse(to, "guard.busy is unknown; use prefer_idle_slot, "
				  "prefer_owning_slot_with_wait or stick");
	if (c->guard.rel_milli && c->guard.rel_milli < 1000)
		return refuse(to,
			      "guard.rel is 0.%03u, below the least loaded server's own load; "
			      "use 0 (off) or at least 1",
			      c->guard.rel_milli);
	if ((unsigned int)c->log.level >= LOG_LEVEL_NR)
		return refuse(to, "log.level is unknown; use error, warn, info or debug");
	if ((unsigned int)c->log.format >= LOG_FORMAT_NR)
		return refuse(to, "log.format is unknown; use logfmt or json");
	return 0;
}

/* Would a connection to @to arrive at a listener on @on? A wildcard takes this host's addresses;
 * which ones beside loopback those are, only the kernel knows, and other hosts commonly use the
 * same port. The IPv6 wildcard is dual-stack. */
static bool addr_reaches(const struct addr *to, const struct addr *on)
{
	if (!addr_port(on) || addr_port(to) != addr_port(on))
		return false;
	if (addr_equal(to, on))
		return true;
	return addr_is_any(on) && addr_is_loopback(to) &&
	       (on->sa.sa_family == AF_INET6 || to->sa.sa_family == AF_INET);
}

static int check_listen(const struct config *c, const struct complaint *to)
{
	char text[ADDR_TEXT_MAX];
	unsigned int i, k;

	if (!c->nr_listen)
		return refuse(to, "listen is empty; name an address for clients, e.g. "
				  "0.0.0.0:8080");
	if (c->nr_listen > LISTEN_MAX)
		return refuse(to, "listen has %u entries; at most %d", c->nr_listen, LISTEN_MAX);
	for (i = 0; i < c->nr_listen; i++) {
		addr_format(&c->listen[i], text);
		for (k = 0; k < i; k++)
			if (addr_port(&c->listen[i]) && addr_equal(&c->listen[i], &c->listen[k]))
				return refuse(to, "listen has %s twice; remove one", text);
		if (c->has_metrics && (addr_reaches(&c->metrics, &c->listen[i]) ||
				       addr_reaches(&c->listen[i], &c->metrics)))
			return refuse(to, "metrics and listen share %s; give metrics another port",
				      text);
	}
	return 0;
}

/* The name is a metric label, a word in logs and a command's argument. */
static bool name_is_good(const char *name)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789._-";

	return text_ends(name, BACKEND_NAME_MAX) && name[0] && !name[strspn(name, allowed)];
}

static int check_backend(const struct config *c, const struct backend_config *b,
			 const struct complaint *to)
{
	char text[ADDR_TEXT_MAX];
	unsigned int i;

	if (!name_is_good(b->name))
		return refuse(to,
			      "backends: \"%.*s\" is not a name; use 1 to %d of A-Z a-z 0-9 . _ -",
			      BACKEND_NAME_MAX, b->name, BACKEND_NAME_MAX - 1);
	addr_format(&b->addr, text);
	if (addr_is_any(&b->addr) || !addr_port(&b->addr))
		return refuse(to,
			      "backends: address %s of \"%s\" names no server; write its host "
			      "and port, e.g. 127.0.0.1:8081",
			      text, b->name);
	if (b->weight > WEIGHT_MAX)
		return refuse(to, "backends: weight %u of \"%s\"; it must be from 0 to %d",
			      b->weight, b->name, WEIGHT_MAX);
	if (b->slots > SLOTS_MAX)
		return refuse(to, "backends: slots %u of \"%s\"; it must be from 0 to %d", b->slots,
			      b->name, SLOTS_MAX);
	for (i = 0; i < c->nr_listen; i++)
		if (addr_reaches(&b->addr, &c->listen[i]))
			return refuse(to,
				      "backends: address %s of \"%s\" is kvpin's own (listen), "
				      "requests would go in circles; change one of them",
				      text, b->name);
	if (c->has_metrics && addr_reaches(&b->addr, &c->metrics))
		return refuse(to,
			      "backends: address %s of \"%s\" is kvpin's own (metrics); change "
			      "one of them",
			      text, b->name);
	return 0;
}

static int check_backends(const struct config *c, const struct complaint *to)
{
	char text[ADDR_TEXT_MAX];
	unsigned int i, k;

	if (!c->nr_backends)
		return refuse(to, "backends is empty; name a server, e.g. --backend "
				  "gpu0=127.0.0.1:8081, or in a file "
				  "{name: gpu0, address: \"127.0.0.1:8081\"}");
	if (c->nr_backends > BACKENDS_MAX)
		return refuse(to, "backends has %u entries; at most %d", c->nr_backends,
			      BACKENDS_MAX);
	for (i = 0; i < c->nr_backends; i++) {
		const struct backend_config *b = &c->backend[i];

		if (check_backend(c, b, to))
			return -EINVAL;
		for (k = 0; k < i; k++) {
			if (!strcmp(b->name, c->backend[k].name))
				return refuse(to, "backends: two are called \"%s\"; rename one",
					      b->name);
			if (addr_equal(&b->addr, &c->backend[k].addr))
				return refuse(to,
					      "backends: \"%s\" and \"%s\" have the same address "
					      "%s; remove one or correct it",
					      c->backend[k].name, b->name,
					      addr_format(&b->addr, text));
		}
	}
	return 0;
}

static int check_health(const struct config *c, const struct complaint *to)
{
	const char *p = c->health.path;

	if (!text_ends(p, sizeof(c->health.path)))
		return refuse(to, "health.path is too long; at most %d characters",
			      HEALTH_PATH_MAX - 1);
	if (!config_checks(c))
		return 0;
	if (p[0] != '/')
		return refuse(to, "health.path is \"%s\"; it must begin with '/'", p);
	/* It becomes a part of a request line. */
	for (; *p; p++)
		if (*p <= ' ' || *p == 0x7f)
			return refuse(to, "health.path has a blank, a control or a non-ASCII "
					  "character; percent-encode it");
	if (c->health.timeout_ms > c->health.interval_ms)
		return refuse(to,
			      "health.timeout (%u ms) is longer than health.interval (%u ms); "
			      "lower the one or raise the other",
			      c->health.timeout_ms, c->health.interval_ms);
	return 0;
}

static int check_peers(const struct config *c, const struct complaint *to)
{
	const struct addr *own = &c->peers.listen.one[0];
	char text[ADDR_TEXT_MAX];
	unsigned int i;

	if (!config_peers(c))
		return 0;
	if (!c->peers.to.nr)
		return refuse(to, "peers.to is empty, and nobody else may connect to "
				  "peers.listen; name the other balancers, e.g. 10.0.0.2:7946");
	for (i = 0; i < c->peers.to.nr; i++) {
		const struct addr *other = &c->peers.to.one[i];

		if (addr_is_any(other) || !addr_port(other))
			return refuse(to,
				      "peers.to: %s names no balancer; write its host and port, "
				      "e.g. 10.0.0.2:7946",
				      addr_format(other, text));
	}
	for (i = 0; c->peers.listen.nr && i < c->nr_listen; i++)
		if (addr_reaches(own, &c->listen[i]) || addr_reaches(&c->listen[i], own))
			return refuse(to,
				      "peers.listen and listen share %s; give peers.listen "
				      "another port",
				      addr_format(own, text));
	if (c->peers.listen.nr && c->has_metrics &&
	    (addr_reaches(own, &c->metrics) || addr_reaches(&c->metrics, own)))
		return refuse(to,
			      "peers.listen and metrics share %s; give peers.listen another port",
			      addr_format(own, text));
	if (c->peers.secret[0] != '/')
		return refuse(to, "peers.secret is not set; write the absolute path of a file "
				  "that holds the same secret on all balancers");
	return 0;
}

/* Beside the control socket, under a name that goes with its own: two kvpins on a host have two
 * sockets, and must not write each other's pins. */
static void derive_state(struct config *c)
{
	const char *slash = strrchr(c->control, '/');
	const char *name = slash ? slash + 1 : c->control;
	int dir = (int)(name - c->control), len = (int)strlen(name);

	if (strcmp(c->session_state, "auto"))
		return;
	if (!c->control[0])
		strcpy(c->session_state, "off");
	else if (!strcmp(name, "control.sock"))
		snprintf(c->session_state, sizeof(c->session_state), "%.*ssessions.state", dir,
			 c->control);
	else
		snprintf(c->session_state, sizeof(c->session_state), "%.*s%.*s.sessions.state", dir,
			 c->control, len > 5 && !strcmp(name + len - 5, ".sock") ? len - 5 : len,
			 name);
}

static int check_pin(const struct config *c, const struct complaint *to)
{
	const char *pin = c->steer.pin, *end, *slash;

	if (!text_ends(pin, sizeof(c->steer.pin)) || pin[0] != '/')
		return refuse(to,
			      "steer.pin is not an absolute path of at most %d characters; write "
			      "one such as /sys/fs/bpf/kvpin",
			      STATE_PATH_MAX - 1);
	for (end = pin + strlen(pin); end > pin + 1 && end[-1] == '/';)
		end--;
	slash = memrchr(pin, '/', end - pin);
	/* bpffs takes no name with a dot. */
	if (memchr(slash, '.', end - slash) || end - slash - 1 > PIN_NAME_MAX)
		return refuse(to,
			      "steer.pin is \"%s\"; its last part must have no dot and at most %d "
			      "characters, as in /sys/fs/bpf/kvpin",
			      pin, PIN_NAME_MAX);
	return 0;
}

const char *config_session_state(const struct config *c)
{
	return strcmp(c->session_state, "off") ? c->session_state : NULL;
}

int config_finish(struct config *c, char *why, unsigned int why_bytes)
{
	const struct complaint to = {.why = why, .bytes = why_bytes};

	if (!text_ends(c->control, sizeof(c->control)))
		return refuse(&to, "control is too long; at most %d characters",
			      CONTROL_PATH_MAX - 1);
	if (!text_ends(c->session_state, sizeof(c->session_state)) || !c->session_state[0])
		return refuse(&to,
			      "sessions.state is not a path of at most %d characters; write one, "
			      "auto or off",
			      STATE_PATH_MAX - 1);
	derive_state(c);
	if (check_pin(c, &to))
		return -EINVAL;
	if (c->splice.ring_bytes & (c->splice.ring_bytes - 1))
		return refuse(&to,
			      "splice.ring is %u bytes; it must be a power of two, e.g. 512KiB",
			      c->splice.ring_bytes);
	if (c->steer.ring_bytes & (c->steer.ring_bytes - 1))
		return refuse(&to, "steer.ring is %u bytes; it must be a power of two, e.g. 512KiB",
			      c->steer.ring_bytes);
	if (check_choices(c, &to) || check_bounds(c, &to) || check_listen(c, &to) ||
	    check_backends(c, &to) || check_health(c, &to) || check_peers(c, &to))
		return -EINVAL;
	return config_keys_finish(c, why, why_bytes);
}
