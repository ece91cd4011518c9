/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * answer.c: reads answers and judges them: framing (by http_parser, on purpose another parser than
 * kvpin's), status, content, and which server gave them. It never touches a socket: a connection
 * that must end is marked, and loop.c ends it.
 */
#include "load.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char server_header[] = "x-sim-server", hash_header[] = "x-sim-body";
static const char index_key[] = "\"i\":";

static struct pending *answer_request(struct conn *c)
{
	return &c->pending[c->pending_head];
}

static bool answer_final(const http_parser *p)
{
	return p->status_code / 100 != 1;
}

static int on_begin(http_parser *p)
{
	struct conn *c = p->data;
	struct answer *a = &c->answer;

	if (!c->pending_nr)
		return -1;
	a->open = true;
	a->name_open = a->bad_body = a->sse_data = a->sse_done = false;
	a->name_len = a->server_len = a->hash_len = 0;
	a->text_len = 0;
	a->sse_events = 0;
	a->body_bytes = 0;
	return 0;
}

static int on_name(http_parser *p, const char *at, size_t len)
{
	struct answer *a = &((struct conn *)p->data)->answer;

	if (!a->name_open)
		a->name_len = 0;
	a->name_open = true;
	/* A name too long for the buffer is one that is not looked for: stays unequal. */
	for (size_t i = 0; i < len && a->name_len < sizeof(a->name); i++)
		a->name[a->name_len++] = at[i];
	return 0;
}

static bool name_is(const struct answer *a, const char *name)
{
	return a->name_len == strlen(name) && !strncasecmp(a->name, name, a->name_len);
}

static int on_value(http_parser *p, const char *at, size_t len)
{
	struct answer *a = &((struct conn *)p->data)->answer;

	a->name_open = false;
	if (a->name_len < 2 || a->name[1] != '-')
		return 0;
	if (name_is(a, server_header))
		for (size_t i = 0; i < len && a->server_len < sizeof(a->server) - 1; i++)
			a->server[a->server_len++] = at[i];
	else if (name_is(a, hash_header))
		for (size_t i = 0; i < len && a->hash_len < sizeof(a->hash) - 1; i++)
			a->hash[a->hash_len++] = at[i];
	return 0;
}

static void sse_line(struct conn *c)
{
	struct load *l = c->load;
	struct answer *a = &c->answer;
	const char *key;

	if (a->text_len && a->text[a->text_len - 1] == '\r')
		a->text_len--;
	a->text[a->text_len] = 0;
	if (!a->text_len) {
		if (!a->sse_data)
			return;
		a->sse_data = false;
		if (a->sse_done)
			return;
		if (!a->sse_events)
			hist_add(&l->ttft, l->now_ns - answer_request(c)->start_ns);
		else
			hist_add(&l->gap, l->now_ns - a->event_ns);
		a->event_ns = l->now_ns;
		a->sse_events++;
		l->tokens++;
		return;
	}
	if (strncmp(a->text, "data:", 5))
		return;
	if (a->sse_done)
		a->bad_body = true;
	a->sse_data = true;
	if (!strncmp(a->text + 5, " [DONE]", 7)) {
		a->sse_done = true;
		return;
	}
	if (l->opts->mode != MODE_SSE)
		return;
	key = strstr(a->text, index_key);
	if (!key || strtoul(key + sizeof(index_key) - 1, NULL, 10) != a->sse_events)
		a->bad_body = true;
}

static void sse_feed(struct conn *c, const char *p, size_t len)
{
	struct answer *a = &c->answer;

	while (len) {
		const char *nl = memchr(p, '\n', len);
		size_t n = nl ? (size_t)(nl - p) : len;
		size_t room = sizeof(a->text) - 1 - a->text_len;

		/* Only the start of a line is looked at. */
		memcpy(a->text + a->text_len, p, n < room ? n : room);
		a->text_len += (uint16_t)(n < room ? n : room);
		if (!nl)
			return;
		sse_line(c);
		a->text_len = 0;
		p += n + 1;
		len -= n + 1;
	}
}

static void pattern_feed(struct conn *c, const char *p, size_t len)
{
	struct answer *a = &c->answer;
	uint64_t off = a->body_bytes;

	while (len && !a->bad_body) {
		size_t n = len < IN_BYTES ? len : IN_BYTES;

		if (memcmp(p, sim_pattern_at(off), n))
			a->bad_body = true;
		p += n;
		off += n;
		len -= n;
	}
}

static int on_body(http_parser *p, const char *at, size_t len)
{
	struct conn *c = p->data;
	struct answer *a = &c->answer;
	size_t room = sizeof(a->text) - a->text_len;

	if (!len)
		return 0;
	if (p->status_code != 200)
		goto text;
	switch (c->load->opts->mode) {
	case MODE_SSE:
	case MODE_CHAT:
		sse_feed(c, at, len);
		a->body_bytes += len;
		return 0;
	case MODE_DOWNLOAD:
		pattern_feed(c, at, len);
		a->body_bytes += len;
		return 0;
	default:
		break;
	}
text:
	memcpy(a->text + a->text_len, at, len < room ? len : room);
	a->text_len += (uint16_t)(len < room ? len : room);
	a->last_byte = at[len - 1];
	a->body_bytes += len;
	return 0;
}

/* Was `{"bytes":N,"xxh64":"16 hex"}` answered, for the body that was sent? */
static bool sink_ok(const struct conn *c, const struct pending *q)
{
	json_int_t bytes;
	const char *hex;
	json_t *j;
	bool ok;

	j = json_loadb(c->answer.text, c->answer.text_len, 0, NULL);
	ok = j && !json_unpack(j, "{s:I s:s}", "bytes", &bytes, "xxh64", &hex) &&
	     (uint64_t)bytes == q->body_bytes && strlen(hex) == 16 &&
	     strtoull(hex, NULL, 16) == body_xxh64(c->load, q->body_bytes);
	json_decref(j);
	return ok;
}

/* With x-sim-verify any endpoint names the hash of the request body it got. */
static bool request_ok(struct conn *c, const struct pending *q)
{
	struct answer *a = &c->answer;

	if (!a->hash_len)
		return true;
	a->hash[a->hash_len] = 0;
	return strtoull(a->hash, NULL, 16) == body_xxh64(c->load, q->body_bytes);
}

static bool body_ok(const struct conn *c, const struct pending *q)
{
	const struct opts *o = c->load->opts;
	const struct answer *a = &c->answer;

	if (a->bad_body)
		return false;
	switch (o->mode) {
	case MODE_SSE:
		return a->sse_events == o->events && !a->text_len;
	case MODE_CHAT:
		return a->sse_events && a->sse_done && !a->text_len;
	case MODE_DOWNLOAD:
		return a->body_bytes == o->download_bytes;
	case MODE_UPLOAD:
		return sink_ok(c, q);
	default:
		if (*o->path) /* somebody's own target: any content is right */
			return true;
		return a->body_bytes && a->text[0] == '{' &&
		       (a->last_byte == '}' || a->last_byte == '\n');
	}
}

static uint32_t server_index(struct load *l, const struct answer *a)
{
	for (uint32_t i = 0; i < l->servers_nr; i++)
		if (!strncmp(l->servers[i], a->server, a->server_len) &&
		    !l->servers[i][a->server_len])
			return i;
	if (l->servers_nr == SERVERS_MAX)
		return SERVERS_MAX;
	memcpy(l->servers[l->servers_nr], a->server, a->server_len);
	return l->servers_nr++;
}

static bool server_ok(struct conn *c, const struct pending *q)
{
	struct load *l = c->load;
	uint8_t *seen = &l->session_server[q->session];
	uint32_t i;

	if (!c->answer.server_len)
		return false;
	i = server_index(l, &c->answer);
	if (i == SERVERS_MAX)
		return false;
	l->server_answers[i]++;
	if (!*seen)
		*seen = (uint8_t)(i + 1);
	return *seen == i + 1;
}

static int on_complete(http_parser *p)
{
	struct conn *c = p->data;
	struct load *l = c->load;
	const struct opts *o = l->opts;
	struct answer *a = &c->answer;
	struct pending *q = answer_request(c);

	a->open = false;
	if (!answer_final(p))
		return 0;
	if (p->status_code != 200) {
		stat_error(l, ERR_STATUS, "%u on connection %u: %.*s", p->status_code, c->index,
			   (int)(a->text_len < 80 ? a->text_len : 80), a->text);
	} else if (!body_ok(c, q) || !request_ok(c, q)) {
		stat_error(l, ERR_BODY, "connection %u: body of %" PRIu64 " bytes, %u events: %.*s",
			   c->index, a->body_bytes, a->sse_events,
			   (int)(a->text_len < 80 ? a->text_len : 80), a->text);
	} else if (o->verify && !server_ok(c, q)) {
		stat_error(l, ERR_WRONG_SERVER, "session %u answered by '%.*s', not '%s'",
			   q->session, a->server_len, a->server,
			   l->session_server[q->session]
				   ? l->servers[l->session_server[q->session] - 1]
				   : "");
	} else {
		l->done++;
		hist_add(&l->latency, l->now_ns - q->start_ns);
	}
	a->text_len = 0;
	c->served = true;
	/* Answered while the request was still being written: its rest has no meaning any more. */
	if (!http_should_keep_alive(p) || (c->pending_nr == 1 && send_pending(c)))
		c->close_after = true;
	c->pending_head = (c->pending_head + 1) % o->pipeline;
	c->pending_nr--;
	return 0;
}

static const http_parser_settings settings = {
	.on_message_begin = on_begin,
	.on_header_field = on_name,
	.on_header_value = on_value,
	.on_body = on_body,
	.on_message_complete = on_complete,
};

void answer_init(struct conn *c)
{
	http_parser_init(&c->answer.parser, HTTP_RESPONSE);
	c->answer.parser.data = c;
	c->answer.open = false;
	c->answer.text_len = 0;
}

int answer_feed(struct conn *c, const uint8_t *data, size_t len)
{
	http_parser *p = &c->answer.parser;
	size_t n = http_parser_execute(p, &settings, (const char *)data, len);

	return HTTP_PARSER_ERRNO(p) != HPE_OK || n != len ? -1 : 0;
}
