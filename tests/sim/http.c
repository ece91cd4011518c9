/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Requests in: http_parser (never kvpin's own parser) behind the strictness of the chosen manner.
 * llama-server's HTTP library buffers a head and is strict about it: http_lint() repeats those
 * rules. uvicorn with httptools is http_parser's own leniency. Hands complete requests to their
 * endpoint; never writes an answer itself except refusals.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/types.h>

#include "sim.h"

static http_parser_settings settings;

void request_free(struct request *r)
{
	buf_free(&r->text);
	buf_free(&r->body);
	free(r->headers);
	r->headers = NULL;
}

static const char *span_str(const struct request *r, struct span s)
{
	return r->text.p + s.off;
}

const char *request_header(const struct request *r, const char *name)
{
	size_t len = strlen(name);

	for (unsigned i = 0; i < r->headers_nr; i++)
		if (r->headers[i].name.len == len &&
		    !strcasecmp(span_str(r, r->headers[i].name), name))
			return span_str(r, r->headers[i].value);
	return NULL;
}

bool query_get(const struct request *r, const char *key, char *out, size_t out_size)
{
	size_t klen = strlen(key), n = 0;
	const char *p = r->query;

	while (*p) {
		if (!strncmp(p, key, klen) && p[klen] == '=') {
			for (p += klen + 1; *p && *p != '&' && n + 1 < out_size; p++) {
				unsigned hex;
				char two[3] = {0};

				if (*p == '%' && p[1] && p[2]) {
					memcpy(two, p + 1, 2);
					hex = strtoul(two, NULL, 16);
					out[n++] = hex;
					p += 2;
				} else {
					out[n++] = *p == '+' ? ' ' : *p;
				}
			}
			out[n] = 0;
			return true;
		}
		p += strcspn(p, "&");
		p += *p == '&';
	}
	return false;
}

uint64_t query_u64(const struct request *r, const char *key, uint64_t fallback)
{
	char tmp[32];

	return query_get(r, key, tmp, sizeof(tmp)) ? strtoull(tmp, NULL, 10) : fallback;
}

void http_begin(struct conn *c)
{
	struct request *r = &c->req;
	struct buf text = r->text, body = r->body;
	void *headers = r->headers;
	unsigned cap = r->headers_cap;

	if (body.cap > SIM_OUT_HIGH)
		buf_free(&body);
	memset(r, 0, sizeof(*r));
	text.len = body.len = 0;
	r->text = text;
	r->body = body;
	r->headers = headers;
	r->headers_cap = cap;
	http_parser_init(&c->parser, HTTP_REQUEST);
	c->parser.data = c;
}

/* ---- http_parser's callbacks */

static void span_append(struct request *r, struct span *s, const char *at, size_t len)
{
	if (!s->len) {
		s->off = r->text.len;
	} else {
		r->text.len--; /* over the NUL */
	}
	buf_reserve(&r->text, len + 1);
	memcpy(r->text.p + r->text.len, at, len);
	r->text.len += len;
	r->text.p[r->text.len++] = 0;
	s->len += len;
}

static int on_url(http_parser *p, const char *at, size_t len)
{
	struct conn *c = p->data;

	span_append(&c->req, &c->req.url, at, len);
	return 0;
}

static int on_field(http_parser *p, const char *at, size_t len)
{
	struct request *r = &((struct conn *)p->data)->req;

	if (((struct conn *)p->data)->phase != PHASE_HEAD)
		return 0; /* trailers: `text` must not move any more */
	if (r->in_value || !r->headers_nr) {
		if (r->headers_nr == r->headers_cap) {
			r->headers_cap = r->headers_cap ? r->headers_cap * 2 : 32;
			r->headers = realloc(r->headers, r->headers_cap * sizeof(*r->headers));
			if (!r->headers)
				abort();
		}
		memset(&r->headers[r->headers_nr++], 0, sizeof(*r->headers));
		r->in_value = false;
	}
	span_append(r, &r->headers[r->headers_nr - 1].name, at, len);
	return 0;
}

static int on_value(http_parser *p, const char *at, size_t len)
{
	struct request *r = &((struct conn *)p->data)->req;

	if (((struct conn *)p->data)->phase != PHASE_HEAD)
		return 0;
	r->in_value = true;
	if (len || !r->headers[r->headers_nr - 1].value.len)
		span_append(r, &r->headers[r->headers_nr - 1].value, at, len);
	return 0;
}

static void request_note(struct request *r)
{
	for (unsigned i = 0; i < r->headers_nr; i++) {
		const char *name = span_str(r, r->headers[i].name);
		const char *value = r->headers[i].value.len ? span_str(r, r->headers[i].value) : "";

		switch (r->headers[i].name.len) {
		case 6:
			if (!strcasecmp(name, "origin"))
				r->origin = value;
			else if (!strcasecmp(name, "expect"))
				r->expect = !strcasecmp(value, "100-continue");
			break;
		case 12:
			if (!strcasecmp(name, "x-sim-verify"))
				r->verify = true;
			else if (!strcasecmp(name, "x-session-id"))
				r->session_id = value;
			break;
		case 17:
			if (!strcasecmp(name, "x-conversation-id"))
				r->conversation_id = value;
			break;
		}
	}
}

static int on_headers_complete(http_parser *p)
{
	struct conn *c = p->data;
	struct request *r = &c->req;
	bool wrong_method = false;
	char *q;

	if (!r->url.len)
		return 1;
	r->path = span_str(r, r->url);
	q = strchr(r->text.p + r->url.off, '?');
	r->query = q ? q + 1 : "";
	if (q)
		*q = 0;
	if (!sim_llama() && !strncmp(r->path, "http://", 7))
		r->path = strchr(r->path + 7, '/') ? strchr(r->path + 7, '/') : "/";
	r->method = p->method;
	r->http10 = p->http_major == 1 && p->http_minor == 0;
	/* uvicorn answers HTTP/2.0 as if it were 1.1 (captured) */
	r->keep_alive = http_should_keep_alive(p) || p->http_major > 1;
	r->upgrade = p->upgrade && p->method != HTTP_CONNECT;
	r->start_ns = now_ns();
	request_note(r);
	r->want_hash = r->verify;
	XXH64_reset(&r->hash, 0);
	c->close_after = !r->keep_alive || (r->http10 && !sim_llama()) ||
			 (sim_llama() && c->answers + 1 >= opt.keepalive_max);
	r->ep = endpoint_find(r->path, r->method, &wrong_method);
	r->want_body = r->ep && r->ep->body;
	c->phase = PHASE_BODY;
	timer_stop(&c->idle);
	if (r->expect) {
		conn_write(c, "HTTP/1.1 100 Continue\r\n", 23);
		if (sim_llama())
			conn_flush(c);
		conn_write(c, "\r\n", 2);
		conn_flush(c);
	}
	if (r->ep && r->ep->start && !sim_loading)
		r->ep->start(c);
	return c->finishing ? 1 : 0;
}

static int on_body(http_parser *p, const char *at, size_t len)
{
	struct conn *c = p->data;
	struct request *r = &c->req;

	r->body_bytes += len;
	if (r->want_hash)
		XXH64_update(&r->hash, at, len);
	if (sim_llama() && r->body_bytes > SIM_BODY_MAX && r->want_body) {
		answer_bare(c, 413, true);
		c->head_refused = true; /* unread bytes: the close becomes RST, as captured */
		conn_finish(c, false);
		return 1;
	}
	if (c->ops && c->ops->body)
		c->ops->body(c, at, len);
	else if (r->want_body)
		buf_add(&r->body, at, len);
	return 0;
}

static int on_message_complete(http_parser *p)
{
	http_parser_pause(p, 1);
	return 0;
}

static void request_run(struct conn *c)
{
	struct request *r = &c->req;
	bool wrong_method;

	c->phase = PHASE_ANSWER;
	c->parsing = false;
	stats_request(r);
	if (sim_loading && !(r->ep && r->ep->loading)) {
		answer_error(c, 503, "unavailable_error", "Loading model");
		return;
	}
	if (r->ep) {
		r->ep->run(c);
		return;
	}
	if (sim_llama() && r->method == HTTP_TRACE) {
		answer_bare(c, 400, true);
		conn_answer_done(c);
		return;
	}
	endpoint_find(r->path, r->method, &wrong_method);
	if (sim_llama() && r->method == HTTP_OPTIONS) {
		answer_head(c, 200, "text/html", FRAME_LENGTH, 0, NULL);
		conn_answer_done(c);
	} else if (!sim_llama() && wrong_method) {
		answer_error(c, 405, NULL, "Method Not Allowed");
	} else {
		answer_not_found(c);
	}
}

/*
 * cpp-httplib's strictness. Returns the head's length, 0 if more bytes are needed, -1 to refuse.
 * A head of bare LFs never ends: it hangs, as captured.
 */
static ssize_t http_lint(struct conn *c, const char *p, size_t len)
{
	const char *end = memmem(p, len, "\r\n\r\n", 4), *line, *eol, *colon, *stop;
	unsigned headers = 0, lengths = 0, chunked = 0;

	stop = end ? end + 2 : p + len;
	eol = memmem(p, stop - p, "\r\n", 2);
	if (!eol)
		return len > SIM_HEAD_KEPT ? -1 : 0;
	if (eol - p < 14 || (memcmp(eol - 9, " HTTP/1.1", 9) && memcmp(eol - 9, " HTTP/1.0", 9)))
		return -1;
	for (line = eol + 2; line < stop; line = eol + 2) {
		eol = memmem(line, stop - line, "\r\n", 2);
		if ((eol ? eol : stop) - line + 2 > SIM_LINE_MAX || ++headers > SIM_HEADERS_MAX)
			return -1;
		if (!eol)
			break;
		colon = memchr(line, ':', eol - line);
		if (!colon || colon == line || memchr(line, ' ', colon - line) ||
		    memchr(line, '\t', colon - line))
			return -1;
		if (colon - line == 14 && !strncasecmp(line, "content-length", 14))
			lengths++;
		if (colon - line == 17 && !strncasecmp(line, "transfer-encoding", 17))
			chunked++;
	}
	if (!end)
		return 0;
	if (chunked && lengths)
		c->head_refused = true; /* the one refusal that also closes (captured) */
	if (lengths > 1 || (chunked && lengths))
		return -1;
	return end + 4 - p;
}

static size_t http_refuse(struct conn *c, size_t len)
{
	bool close_now = c->head_refused || len > SIM_HEAD_KEPT || !sim_llama();

	stats.bad_requests++;
	c->close_after = close_now;
	c->phase = PHASE_ANSWER;
	http_begin(c);
	c->head_refused = close_now;
	answer_bad_request(c);
	conn_answer_done(c);
	return len;
}

size_t http_feed(struct conn *c, const char *data, size_t len)
{
	size_t took;
	ssize_t head;
	enum http_errno err;

	if (c->phase == PHASE_RAW)
		return 0;
	if (c->phase == PHASE_HEAD && !c->parsing) {
		timer_stop(&c->idle);
		if (sim_llama()) {
			head = http_lint(c, data, len);
			if (head < 0)
				return http_refuse(c, len);
			if (!head)
				return 0;
		}
		http_begin(c);
		c->parsing = true;
	}
	took = http_parser_execute(&c->parser, &settings, data, len);
	err = HTTP_PARSER_ERRNO(&c->parser);
	if (c->finishing)
		return len;
	if (err == HPE_PAUSED) {
		/* paused at a message's end: the final LF may still be ahead of `took` */
		http_parser_pause(&c->parser, 0);
		request_run(c);
		return took;
	}
	if (err != HPE_OK)
		return http_refuse(c, len);
	if (c->parser.upgrade && c->phase == PHASE_BODY) {
		request_run(c);
		return took;
	}
	return took;
}

void http_init(void)
{
	http_parser_settings_init(&settings);
	settings.on_url = on_url;
	settings.on_header_field = on_field;
	settings.on_header_value = on_value;
	settings.on_headers_complete = on_headers_complete;
	settings.on_body = on_body;
	settings.on_message_complete = on_message_complete;
	if (sim_llama())
		http_parser_set_max_header_size(1 << 20);
}
