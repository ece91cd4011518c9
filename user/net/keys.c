/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Happy path: a header names the session, and the body is of no interest. Else the payload is
 * walked as the framing says and given to core/body_scan.c, from where the last call left off; the
 * bytes themselves stay in the in buffer, for they are sent on. Failure: what does not come in
 * time or in bounds counts as absent. Close: keys_settle(), or keys_free() with the exchange.
 */
#include "net/keys.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "core/body_scan.h"
#include "net/worker.h"

/* A body that a decision waits for. The configuration may change meanwhile: what is needed of it
 * is here. */
struct key_wait {
	struct body_scan *scan;
	struct kvpin_body body; /* framing at `at` */
	uint32_t at;		/* bytes of the in buffer that were looked at */
	uint32_t bytes_max;
	uint32_t windows;
};

/* A parent session's server is to be avoided. */
static void parent_begin(struct conn *c)
{
	const struct affinity_config *a = &c->worker->config->affinity;
	struct exchange *x = c->x;
	struct key_text text;
	const uint8_t *value;
	size_t len;

	if (!a->parent[0] || a->sidecar != SIDECAR_AVOID)
		return;
	value = key_header_value(buf_data(&c->in), x->request.pos, a->parent, &len);
	if (!value)
		return;
	key_text_begin(&text);
	key_text_add(&text, value, len);
	x->avoids = key_text_end(&text, &x->parent);
}

bool keys_begin(struct conn *c)
{
	const struct config *config = c->worker->config;
	struct exchange *x = c->x;
	uint32_t first;

	parent_begin(c);
	if (key_of_head(config->key, config->nr_keys, &x->request, buf_data(&c->in), &c->peer,
			&x->key))
		x->key_kind = config->key[x->key.at].kind;
	if (x->request_body.state == KVPIN_BS_DONE)
		return false;
	first = config_key_index(config, KEY_JSON);
	if (first == KEY_NONE)
		first = config_key_index(config, KEY_PREFIX);
	return first < x->key.at;
}

bool keys_expects(const struct conn *c)
{
	const struct kvpin_head *h = &c->x->request;
	const uint8_t *value;
	size_t len;

	/* RFC 9110 10.1.1: of an HTTP/1.0 client it is ignored. */
	if (!(h->flags & KVPIN_HEAD_EXPECT) || !h->minor)
		return false;
	value = key_header_value(buf_data(&c->in), h->pos, "expect", &len);
	return value && len == 12 && !strncasecmp((const char *)value, "100-continue", 12);
}

int keys_wait(struct conn *c)
{
	const struct config *config = c->worker->config;
	uint32_t windows = config->affinity.prefix.windows, nr = config->nr_keys;
	struct exchange *x = c->x;
	struct key_wait *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	/* Sources behind the one that was found are not asked. */
	if (x->key.at < nr)
		nr = x->key.at;
	w->scan = body_scan_new(config->key, nr, windows);
	if (!w->scan) {
		free(w);
		return -ENOMEM;
	}
	kvpin_body_of_request(&w->body, &x->request);
	w->at = x->ready;
	w->bytes_max = config->affinity.body_bytes;
	w->windows = windows;
	x->wait = w;
	return 0;
}

bool keys_body(struct conn *c)
{
	struct key_wait *w = c->x->wait;
	bool enough;

	w->at += body_scan_walk(w->scan, &w->body, buf_data(&c->in) + w->at, c->x->ready - w->at,
				w->bytes_max, &enough);
	return enough;
}

static void wait_free(struct exchange *x)
{
	if (x->wait)
		free(x->wait->scan);
	free(x->wait);
	x->wait = NULL;
}

static void body_settle(struct conn *c)
{
	struct exchange *x = c->x;
	struct key_wait *w = x->wait;

	body_scan_finish(w->scan);
	if (w->scan->found.at != KEY_NONE) {
		x->key = w->scan->found;
		x->key_kind = KEY_JSON;
		return;
	}
	if (w->scan->prefix_at == KEY_NONE)
		return;
	x->chain = malloc(sizeof(*x->chain));
	if (x->chain && body_scan_chain(w->scan, w->windows, x->chain)) {
		/* Whatever was found stands behind it in the order. */
		x->key.at = KEY_NONE;
		x->key_kind = KEY_PREFIX;
		return;
	}
	free(x->chain);
	x->chain = NULL;
}

/* RFC 9562 5.4. Returns false when the kernel has no random bytes. */
static bool generate(struct exchange *x)
{
	struct key_text text;
	uint8_t b[16];

	if (getrandom(b, sizeof(b), 0) != sizeof(b))
		return false;
	b[6] = (b[6] & 0x0f) | 0x40;
	b[8] = (b[8] & 0x3f) | 0x80;
	snprintf(x->generated, sizeof(x->generated),
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
		 b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
		 b[15]);
	/* It comes back as a header's text: the same session. */
	key_text_begin(&text);
	key_text_add(&text, x->generated, sizeof(x->generated) - 1);
	return key_text_end(&text, &x->session);
}

static void without_key(struct conn *c)
{
	const struct config *config = c->worker->config;
	enum missing missing = config->nr_keys ? config->affinity.missing : MISSING_BALANCE;
	struct exchange *x = c->x;

	if (missing == MISSING_CLIENT_IP) {
		x->session = key_of_addr(&c->peer);
		x->key_kind = KEY_CLIENT_IP;
		x->keyed = true;
	} else if (missing == MISSING_GENERATE) {
		x->keyed = generate(x);
	}
	stat_add(&c->worker->stats->keyless[missing], 1);
}

void keys_settle(struct conn *c)
{
	struct worker_stats *stats = c->worker->stats;
	struct exchange *x = c->x;

	if (x->wait)
		body_settle(c);
	if (x->key.at != KEY_NONE) {
		x->keyed = true;
		x->session = x->key.id;
		stat_add(&stats->long_keys, x->key.is_long);
		stat_add(&stats->repeated_keys, x->key.repeated);
	}
	if (x->keyed || x->chain)
		stat_add(&stats->keys[x->key_kind], 1);
	else
		without_key(c);
	wait_free(x);
}

void keys_source(const struct conn *c, char text[KEY_DESCRIPTION_MAX])
{
	const struct config *config = c->worker->config;
	const struct exchange *x = c->x;

	text[0] = '\0';
	/* A reload may have changed the list while the body was awaited. */
	if (x->key.at < config->nr_keys)
		key_describe(&config->key[x->key.at], text);
	else if (x->keyed)
		strcpy(text, x->generated[0] ? "generated" : "the client's address");
	else if (x->chain)
		strcpy(text, "the prompt's head");
}

void keys_free(struct exchange *x)
{
	wait_free(x);
	free(x->chain);
}
