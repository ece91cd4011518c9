/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The configuration: plain data, immutable once published. A reload builds a new one and swaps
 * the pointer. Where each value comes from (flags, YAML) is user/ops' business.
 */
#ifndef CORE_CONFIG_H
#define CORE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/log.h"
#include "core/key.h"
#include "kvpin_http_head.h"

/* A set of servers is a 64-bit mask all over; a host has 16 GPUs at most today. */
#define BACKENDS_MAX	 64
#define BACKEND_NAME_MAX 32 /* with the terminating zero */
#define LISTEN_MAX	 8
#define WORKERS_MAX	 64
#define WEIGHT_MAX	 256
#define SLOTS_MAX	 1024
#define GUARD_QUEUE_MAX	 4096	   /* waiting clients hold a connection each */
#define SESSIONS_MAX	 100000000 /* 6 GB of pins */
/* A held request and pipelined ones behind it must fit one buffer (base/buf.h). */
#define HOLD_BYTES_MAX	 (896 * 1024)
#define HEALTH_PATH_MAX	 128
#define METRIC_NAME_MAX	 64
#define CONTROL_PATH_MAX 108 /* sun_path */
/* steer.pin's last part; the directories beside it have up to some 30 more. */
#define PIN_NAME_MAX	 64
#define USER_NAME_MAX	 33
#define STATE_PATH_MAX	 256
/* Windows of a prompt's head (core/prefix.h): 64 KiB of it. */
#define PREFIX_WINDOWS_LIMIT 256
/* Nodes of the prefix index: more than two of the longest chains; 5 GB. */
#define PREFIX_NODES_MIN   1024
#define PREFIX_NODES_LIMIT 100000000
#define PREFIX_REL_LIMIT   1000

enum path_mode {
	PATH_AUTO, /* steer, where the machine allows it; else the relay */
	PATH_RELAY,
	PATH_STEER,
	PATH_SPLICE,
	PATH_MODE_NR
};

enum placement {
	PLACEMENT_BALANCED,
	PLACEMENT_HASH,
	PLACEMENT_LEAST_INFLIGHT,
	PLACEMENT_ROUND_ROBIN,
	PLACEMENT_NR
};

/* What is done with a request that has no key. */
enum missing {
	MISSING_BALANCE,
	MISSING_CLIENT_IP, /* its client's address is the key */
	MISSING_GENERATE,  /* it is given one, in a field of the answer */
	MISSING_NR
};

enum sidecar {
	SIDECAR_FOLLOW, /* a call that names a parent session goes where that one is */
	SIDECAR_AVOID,	/* ... goes elsewhere */
	SIDECAR_NR
};

struct affinity_config {
	enum missing missing;
	enum sidecar sidecar;
	char generate_header[KVPIN_NAME_BYTES + 1];
	char parent[KVPIN_NAME_BYTES + 1]; /* header that names a parent session; empty: none */
	uint32_t body_bytes;		   /* of a body that a decision waits for */
	/* Rules of {prefix: {...}}. */
	struct {
		uint32_t windows;
		uint32_t common; /* a prefix with so many continuations counts no more; 0: never */
		uint32_t max;	 /* nodes */
		uint32_t guard_abs;
		uint64_t ttl_ms;
		double min_match;
		double guard_rel;
	} prefix;
};

/* What becomes of a session whose server has no free slot (core/guard.h). */
enum guard_busy {
	GUARD_PREFER_IDLE,  /* another server's free slot, where that is cheaper than waiting */
	GUARD_PREFER_OWNER, /* wait for its own server, where that is cheaper than moving */
	GUARD_STICK,	    /* its own server, which queues it */
	GUARD_BUSY_NR
};

struct backend_config {
	char name[BACKEND_NAME_MAX];
	struct addr addr;
	uint32_t weight; /* 0: takes no new session and keeps none */
	uint32_t slots;	 /* requests that the server works on at once; 0: not known */
	bool slots_auto; /* ask the server how many (ops/props.c) */
};

#define PEERS_MAX 8

struct addr_list {
	unsigned int nr;
	struct addr one[PEERS_MAX];
};

struct config {
	unsigned int nr_listen;
	struct addr listen[LISTEN_MAX];
	unsigned int workers; /* 0 is replaced by the number of CPUs before publication */
	enum path_mode path;

	/* Where the session's key stands, in order of precedence; none: no affinity. */
	unsigned int nr_keys;
	struct key_source key[KEYS_MAX];
	struct kvpin_names names; /* derived from the headers among them */
	struct affinity_config affinity;

	enum placement placement;

	struct {
		enum guard_busy busy;
		uint32_t queue;	    /* requests that wait for one server at most; 0: none waits */
		uint32_t wait_ms;   /* ... and how long */
		uint32_t abs;	    /* threshold guard; 0: off */
		uint32_t rel_milli; /* threshold guard, in thousandths; 0: off */
	} guard;
	uint32_t experiment_milli; /* share of sessions in the control arm, in thousandths */

	uint64_t session_ttl_ms;
	uint32_t session_max;
	/* Where pins outlive a restart, or "off"; "auto" until config_finish() has made it one of
	 * these. */
	char session_state[STATE_PATH_MAX];

	unsigned int nr_backends;
	struct backend_config backend[BACKENDS_MAX];

	struct {
		char path[HEALTH_PATH_MAX]; /* empty: no active checks */
		uint32_t interval_ms;	    /* 0: no active checks */
		uint32_t timeout_ms;
		uint32_t rise, fall; /* consecutive results that change the verdict */
		char start_metric[METRIC_NAME_MAX]; /* on /metrics: when it was started; empty: not
						     * asked */
	} health;

	struct {
		uint32_t head_ms;    /* first byte of a head to its last: 408 */
		uint32_t idle_ms;    /* between two requests of a client */
		uint32_t body_ms;    /* a request body that stands still: 408 */
		uint32_t connect_ms; /* to a server */
		uint32_t stall_ms;   /* an exchange in which no byte moves; covers the prefill */
		uint32_t tunnel_ms;  /* an upgraded connection in which no byte moves */
		uint32_t drain_ms;   /* SIGTERM to exit */
	} timeout;

	struct {
		uint32_t head_bytes;  /* at most KVPIN_HEAD_BYTES_MAX */
		uint32_t head_fields; /* at most KVPIN_HEAD_FIELDS_MAX */
		uint32_t hold_bytes;  /* of a request kept for sending it again */
		uint32_t connections; /* clients, all workers together */
	} limit;

	bool forwarded_for; /* append X-Forwarded-For */

	struct {
		char pin[STATE_PATH_MAX]; /* directory of the pinned maps */
		uint32_t budget_bytes;	  /* queued by the kernel towards one client */
		uint32_t budget_all_bytes;
		uint32_t holds;	     /* steered requests whose answer has not begun */
		uint32_t ring_bytes; /* of each worker's events; a power of two */
	} steer;

	struct {
		uint32_t events;     /* of an event stream that the relay carries first */
		uint32_t body_bytes; /* other answers are long from here on */
		uint32_t ring_bytes; /* of each worker's events; a power of two */
	} splice;

	/* Other balancers that share pins with this one. */
	struct {
		struct addr_list listen; /* one at most */
		struct addr_list to;
		char secret[STATE_PATH_MAX]; /* file that holds it, or "off" */
	} peers;

	bool has_metrics;
	struct addr metrics;
	char control[CONTROL_PATH_MAX]; /* empty: none */
	char user[USER_NAME_MAX];	/* who to be after the start; empty: no change */

	struct {
		enum log_level level;
		enum log_format format;
		bool requests; /* one line a request */
	} log;
};

/**
 * config_defaults() - every value as the README's reference gives it; no listener, no server
 * @c: all of it is set
 */
void config_defaults(struct config *c);

/**
 * config_finish() - check what only the whole tells, and derive what is derived
 * @c: filled; on success ready to be published
 * @why: on failure a text that names the field and the fix
 * @why_bytes: room in @why
 *
 * Returns 0 or -EINVAL.
 */
int config_finish(struct config *c, char *why, unsigned int why_bytes);

/** config_checks() - are servers checked actively? */
static inline bool config_checks(const struct config *c)
{
	return c->health.path[0] && c->health.interval_ms;
}

/** config_key_index() - the first source of that kind, or KEY_NONE */
uint32_t config_key_index(const struct config *c, enum key_kind kind);

/** config_keys_in_head() - does a request's first session header always decide, wherever it is
 * read? Then the kernel may look the session up (a request without one is passed up) */
bool config_keys_in_head(const struct config *c);

/** config_peers() - does this balancer share pins with others? */
static inline bool config_peers(const struct config *c)
{
	return c->peers.listen.nr || c->peers.to.nr;
}

/** config_session_state() - the file for the pins of a finished configuration, or NULL */
const char *config_session_state(const struct config *c);

/* Names as the configuration and the metrics write them. */
extern const char *const path_mode_names[PATH_MODE_NR];
extern const char *const placement_names[PLACEMENT_NR];
extern const char *const missing_names[MISSING_NR];
extern const char *const sidecar_names[SIDECAR_NR];
extern const char *const guard_busy_names[GUARD_BUSY_NR];

#endif
