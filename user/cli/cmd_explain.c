/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * `kvpin explain`: why requests went where they went, asked from the running kvpin, or, with
 * --config and --request, what a kvpin with that configuration would do with that request when
 * nothing is in flight: the pins are those of its sessions.state, and every server is up.
 */
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/ask.h"
#include "cli/cli.h"
#include "cli/flags.h"
#include "cli/options.h"
#include "cli/table.h"
#include "core/body_scan.h"
#include "core/key.h"
#include "net/balancer.h"
#include "net/explain.h"
#include "ops/explain_json.h"
#include "ops/session_file.h"
#include "ops/value.h"

#define KEY_MAX 512
/* A request's head and as much of its body as anybody would paste. */
#define REQUEST_MAX (16 * 1024 * 1024)

enum explain_flag { FLAG_LAST = ASK_FLAG_OWN, FLAG_SESSION, FLAG_ID, FLAG_CONFIG, FLAG_REQUEST };

static const struct option flags[] = {
	ASK_FLAGS,
	{"last", required_argument, NULL, FLAG_LAST},
	{"session", required_argument, NULL, FLAG_SESSION},
	{"id", required_argument, NULL, FLAG_ID},
	{"config", required_argument, NULL, FLAG_CONFIG},
	{"request", required_argument, NULL, FLAG_REQUEST},
	{0},
};
static const char *const flag_args[] = {ASK_FLAG_ARGS, "N", "KEY", "ID", "FILE", "FILE"};

struct asked {
	struct ask ask;
	uint64_t last;
	const char *session, *id, *config, *request;
};

static int take_flag(void *own, int flag, char *why)
{
	char reason[VALUE_WHY_MAX];
	struct asked *a = own;

	switch (flag) {
	case FLAG_LAST:
		if (value_count(optarg, 1, EXPLAIN_RING, &a->last, reason, sizeof(reason)))
			return ask_refuse(why, "--last: %s", reason);
		return 0;
	case FLAG_SESSION:
		a->session = optarg;
		return optarg[0] && strlen(optarg) <= KEY_MAX
			       ? 0
			       : ask_refuse(why, "--session: a key has 1 to %d bytes", KEY_MAX);
	case FLAG_ID:
		a->id = optarg;
		return strlen(optarg) <= 16 && optarg[0] &&
				       !optarg[strspn(optarg, "0123456789abcdefABCDEF")]
			       ? 0
			       : ask_refuse(why, "--id: an id has up to 16 hexadecimal digits");
	case FLAG_CONFIG:
		a->config = optarg;
		return 0;
	default:
		a->request = optarg;
		return 0;
	}
}

static int parse(struct asked *a, int argc, char **argv, char *why)
{
	*a = (struct asked){0};
	if (ask_parse(&a->ask, flags, flag_args, take_flag, a, argc, argv, why) ||
	    flags_end(argc, argv, why, ASK_WHY_BYTES))
		return -EINVAL;
	if (!a->config != !a->request)
		return ask_refuse(why, "--config and --request go together");
	if (a->config && (a->last || a->session || a->id))
		return ask_refuse(why,
				  "--config explains one request; --last, --session and --id ask "
				  "the running kvpin");
	if (a->session && a->id)
		return ask_refuse(why, "--session and --id name the same thing; use one");
	return 0;
}

/* ---- people's form ---- */

static void print_session(const json_t *o)
{
	const char *pin = ask_text(o, "pin"), *source = ask_text(o, "key_source");

	if (!ask_text(o, "session")[0]) {
		printf("  key         %s\n", source[0] ? source : "none");
		return;
	}
	printf("  key         %s, session %s\n", source, ask_text(o, "session"));
	if (!pin[0])
		printf("  pin         none");
	else
		printf("  pin         %s%s, %.0f turns, idle for %.1f s", pin,
		       json_is_true(json_object_get(o, "pin_cold")) ? " (restarted since: cold)"
								    : "",
		       ask_number(o, "turns"), ask_number(o, "idle_s"));
	printf(", context about %.0f tokens\n", ask_number(o, "context_tokens"));
}

static void print_costs(const json_t *o)
{
	const json_t *stay = json_object_get(o, "stay_ms"), *go = json_object_get(o, "go_ms");

	if (json_is_integer(stay))
		printf("; staying costs about %" JSON_INTEGER_FORMAT " ms",
		       json_integer_value(stay));
	if (json_is_integer(go))
		printf("; moving about %" JSON_INTEGER_FORMAT " ms", json_integer_value(go));
}

static void print_decision(const json_t *o)
{
	static const struct table_column columns[] = {
		{"CANDIDATE", "backend", TABLE_TEXT, NULL},
		{"CHOSEN", "chosen", TABLE_TEXT, "no"},
		{"SLOTS", "slots", TABLE_NUMBER, "0"},
		{"INFLIGHT", "inflight", TABLE_NUMBER, NULL},
		{"WAITING", "waiting", TABLE_NUMBER, NULL},
		{"SESSIONS/W", "sessions_by_weight", TABLE_NUMBER, NULL},
		{"RENDEZVOUS", "rendezvous", TABLE_NUMBER, NULL},
		{"WAIT MS", "wait_ms", TABLE_NUMBER, NULL},
		{"COLD MS", "cold_ms", TABLE_NUMBER, NULL},
	};
	const char *backend = ask_text(o, "backend");
	const json_t *candidates = json_object_get(o, "candidates");

	printf("%.1f s ago: %s%s\n", ask_number(o, "age_s"), backend[0] ? "to " : "to nobody",
	       backend);
	print_session(o);
	printf("  reason      %s: %s\n", ask_text(o, "reason"), ask_text(o, "reason_text"));
	if (json_is_true(json_object_get(o, "steered"))) {
		printf("  path        the kernel found the pin and a free slot\n");
	} else if (strcmp(ask_text(o, "guard"), "none")) {
		printf("  guard       %s: %s", ask_text(o, "guard"), ask_text(o, "guard_text"));
		print_costs(o);
		printf("\n");
	}
	if (ask_number(o, "attempt") > 1)
		printf("  attempt     %.0f\n", ask_number(o, "attempt"));
	if (json_array_size(candidates))
		table_print(columns, sizeof(columns) / sizeof(columns[0]), candidates);
}

static void print_decisions(const json_t *answer)
{
	const json_t *list = json_object_get(answer, "decisions");
	json_t *one;
	size_t i;

	if (!json_array_size(list))
		printf("no decision is kept of it\n");
	json_array_foreach((json_t *)list, i, one)
	{
		if (i)
			printf("\n");
		print_decision(one);
	}
}

/* ---- without a running kvpin ---- */

static char *file_read(const char *path, size_t *len, char *why)
{
	char *text = malloc(REQUEST_MAX);
	FILE *f = fopen(path, "re");

	*len = 0;
	if (f && text)
		*len = fread(text, 1, REQUEST_MAX, f);
	if (!f || !text || ferror(f)) {
		ask_refuse(why, "%s: cannot be read: %s", path, strerror(errno));
		free(text);
		text = NULL;
	}
	if (f)
		fclose(f);
	return text;
}

static const char *slot_name(void *arg, uint32_t slot)
{
	const struct balancer *b = arg;

	return b->backends.slot[slot].name;
}

/* What the body says, as far as a running kvpin would look. */
static int request_body(const struct config *c, const struct kvpin_head *h, const char *text,
			size_t len, struct key_found *key, struct decide_input *in)
{
	uint32_t nr = key->at < c->nr_keys ? key->at : c->nr_keys;
	uint32_t windows = c->affinity.prefix.windows;
	struct body_scan *scan = body_scan_new(c->key, nr, windows);
	struct body_chain *chain = calloc(1, sizeof(*chain));
	struct kvpin_body body;
	bool enough;

	if (!scan || !chain) {
		free(scan);
		free(chain);
		return -ENOMEM;
	}
	kvpin_body_of_request(&body, h);
	body_scan_walk(scan, &body, (const uint8_t *)text + h->pos, len - h->pos,
		       c->affinity.body_bytes, &enough);
	body_scan_finish(scan);
	if (scan->found.at != KEY_NONE) {
		*key = scan->found;
	} else if (scan->prefix_at != KEY_NONE && body_scan_chain(scan, windows, chain)) {
		/* The index is the running kvpin's: here nobody owns anything. */
		key->at = KEY_NONE;
		in->prefix.windows = chain->nr;
		in->prefix.min_match = c->affinity.prefix.min_match;
		in->prefix.guard_abs = c->affinity.prefix.guard_abs;
		in->prefix.guard_rel = c->affinity.prefix.guard_rel;
	}
	free(scan);
	free(chain);
	return 0;
}

/* The client's address is not in the file: any stands for it. */
static int request_key(const struct config *c, const struct kvpin_head *h, const char *text,
		       size_t len, struct decide_input *in, struct explain_record *r)
{
	struct addr peer = {.len = 0};
	struct key_found key;
	int rc = 0;

	key_of_head(c->key, c->nr_keys, h, (const uint8_t *)text, &peer, &key);
	if (len > h->pos)
		rc = request_body(c, h, text, len, &key, in);
	if (key.at < c->nr_keys) {
		in->keyed = true;
		in->session = key.id;
		key_describe(&c->key[key.at], r->source);
	} else if (in->prefix.windows) {
		strcpy(r->source, "the prompt's head");
	} else if (c->nr_keys && c->affinity.missing != MISSING_BALANCE) {
		in->keyed = true;
		in->session = key_of_addr(&peer);
		strcpy(r->source, c->affinity.missing == MISSING_GENERATE ? "generated"
									  : "the client's address");
	}
	return rc;
}

/* A sidecar call that is to keep away from its parent's server: where is that session? */
static uint64_t request_avoids(struct balancer *b, const struct kvpin_head *h, const char *text,
			       const struct decide_input *in)
{
	const struct affinity_config *a = &balancer_config(b)->affinity;
	struct session_txn txn;
	struct key_text key;
	const uint8_t *value;
	uint64_t parent, slots = 0;
	size_t len;

	if (!a->parent[0] || a->sidecar != SIDECAR_AVOID)
		return 0;
	value = key_header_value((const uint8_t *)text, h->pos, a->parent, &len);
	if (!value)
		return 0;
	key_text_begin(&key);
	key_text_add(&key, value, len);
	if (!key_text_end(&key, &parent) || (in->keyed && in->session == parent))
		return 0;
	if (session_begin(b->sessions, parent, balancer_now_ms(), &txn))
		slots = 1ULL << txn.session.backend;
	session_abort(&txn);
	return slots;
}

/* The request in a decision's terms. */
static int request_read(struct balancer *b, const char *path, struct decide_input *in,
			struct explain_record *r, char *why)
{
	const struct config *c = balancer_config(b);
	struct kvpin_head h;
	size_t len;
	char *text = file_read(path, &len, why);
	int ret = 0;

	if (!text)
		return -EIO;
	kvpin_head_init(&h, KVPIN_REQUEST);
	h.limit_bytes = c->limit.head_bytes;
	h.limit_fields = c->limit.head_fields;
	if (kvpin_head_parse(&h, &c->names, (const __u8 *)text, (__u32)len) != KVPIN_STEP_DONE) {
		ret = ask_refuse(
			why,
			"%s: not a whole request head; lines end in CR LF, the last one is "
			"empty",
			path);
		goto out;
	}
	if (request_key(c, &h, text, len, in, r)) {
		ret = ask_refuse(why, "out of memory");
		goto out;
	}
	in->guard.context = h.flags & KVPIN_HEAD_LENGTH ? h.content_length : len - h.pos;
	in->avoided = request_avoids(b, &h, text, in);
out:
	free(text);
	return ret;
}

static void session_look(struct balancer *b, struct decide_input *in, struct explain_record *r)
{
	struct session_txn txn;
	uint64_t now_ms = balancer_now_ms();

	if (!in->keyed)
		return;
	if (session_begin(b->sessions, in->session, now_ms, &txn)) {
		in->pin = txn.session.backend;
		in->guard.idle_ms = (uint32_t)(now_ms - txn.session.last_used_ms);
		in->guard.cold =
			txn.session.generation != backend_generation(&b->backends.slot[in->pin]);
		r->cold = in->guard.cold;
		r->turns = txn.session.turns;
	}
	session_abort(&txn);
}

static json_t *explain_offline(struct balancer *b, const char *path, char *why)
{
	const struct config *c = balancer_config(b);
	struct decide_input *in = calloc(1, sizeof(*in));
	struct explain_record *r = calloc(1, sizeof(*r));
	json_t *answer = NULL;

	if (!in || !r) {
		ask_refuse(why, "out of memory");
		goto out;
	}
	in->pin = SESSION_NO_BACKEND;
	decide_configure(in, c);
	if (config_session_state(c))
		session_file_load(config_session_state(c), b, NULL);
	if (request_read(b, path, in, r, why))
		goto out;
	session_look(b, in, r);
	in->guard.control = in->keyed && guard_control(in->session, c->experiment_milli);
	decide_view(in, &b->backends, b->sessions, balancer_now_ms());
	decide(in, &r->decision);
	r->keyed = in->keyed;
	r->session = in->session;
	r->context = in->guard.context;
	r->pin = in->pin;
	r->idle_ms = in->guard.idle_ms;
	r->attempt = 1;
	r->at_ns = balancer_now_ns();
	answer = json_pack("{s:[o]}", "decisions", explain_json(r, slot_name, b, r->at_ns));
out:
	free(in);
	free(r);
	return answer;
}

static int offline(const struct asked *a)
{
	const struct options o = {.config = a->config};
	struct balancer *b = calloc(1, sizeof(*b));
	struct config_error e;
	struct config *c = b ? options_load(&o, &e) : NULL;
	char why[ASK_WHY_BYTES];
	json_t *answer = NULL;

	if (!c) {
		int ret = ask_fail(&a->ask, b ? e.text : "out of memory");

		free(b);
		return ret;
	}
	/* Standard output is the answer's. */
	log_setup(LOG_ERROR, LOG_LOGFMT);
	if (balancer_init(b, c, why, sizeof(why))) {
		free(c);
	} else {
		answer = explain_offline(b, a->request, why);
		balancer_fini(b);
	}
	free(b);
	if (!answer)
		return ask_fail(&a->ask, why);
	if (a->ask.json)
		ask_print_json(answer);
	else
		print_decisions(answer);
	json_decref(answer);
	return CLI_OK;
}

/* ---- the running kvpin ---- */

static int online(const struct asked *a)
{
	const char *text = a->session ? a->session : a->id;
	char *escaped = text ? curl_easy_escape(NULL, text, 0) : NULL;
	char target[4 * KEY_MAX];
	int at = snprintf(target, sizeof(target), "/v1/explain?last=%u",
			  a->last ? (unsigned int)a->last : 10);

	if (escaped)
		snprintf(target + at, sizeof(target) - at, "&%s=%s", a->session ? "key" : "id",
			 escaped);
	curl_free(escaped);
	return ask_send(&a->ask, "GET", target, print_decisions);
}

int cmd_explain(const struct cli_command *self, int argc, char **argv)
{
	char why[ASK_WHY_BYTES];
	struct asked a;

	if (parse(&a, argc, argv, why))
		return cli_usage(self, why);
	if (!a.ask.help)
		return a.config ? offline(&a) : online(&a);
	cli_synopsis(self);
	printf("\n  --last N        so many of the latest decisions (10)\n"
	       "  --session KEY   only those of this session; --id ID: by its id\n"
	       "  --config FILE   no running kvpin: what that configuration makes of ...\n"
	       "  --request FILE  ... this request, when nothing is in flight\n");
	ask_help_flags(&a.ask);
	return CLI_OK;
}
