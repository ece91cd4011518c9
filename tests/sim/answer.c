/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Answers out: heads and body framing byte by byte as llama-server (cpp-httplib) and uvicorn
 * (httptools) were captured to send them. Knows no endpoint; never closes a connection itself.
 */
#include <string.h>
#include <time.h>

#include "sim.h"

const char *status_reason(unsigned status)
{
	switch (status) {
	case 100:
		return "Continue";
	case 102:
		return "Processing";
	case 103:
		return "Early Hints";
	case 200:
		return "OK";
	case 201:
		return "Created";
	case 202:
		return "Accepted";
	case 204:
		return "No Content";
	case 205:
		return "Reset Content";
	case 206:
		return "Partial Content";
	case 301:
		return "Moved Permanently";
	case 302:
		return "Found";
	case 304:
		return "Not Modified";
	case 307:
		return "Temporary Redirect";
	case 400:
		return "Bad Request";
	case 401:
		return "Unauthorized";
	case 403:
		return "Forbidden";
	case 404:
		return "Not Found";
	case 405:
		return "Method Not Allowed";
	case 408:
		return "Request Timeout";
	case 409:
		return "Conflict";
	case 413:
		return "Payload Too Large";
	case 422:
		return "Unprocessable Entity";
	case 429:
		return "Too Many Requests";
	case 500:
		return "Internal Server Error";
	case 501:
		return "Not Implemented";
	case 502:
		return "Bad Gateway";
	case 503:
		return "Service Unavailable";
	case 504:
		return "Gateway Timeout";
	default:
		return "Status";
	}
}

const char *answer_json_type(void)
{
	return sim_llama() ? "application/json; charset=utf-8" : "application/json";
}

static const char *http_date(void)
{
	static char text[40];
	static time_t at;
	time_t now = time(NULL);
	struct tm tm;

	if (now != at) {
		at = now;
		gmtime_r(&now, &tm);
		strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &tm);
	}
	return text;
}

static void head_status(struct buf *b, unsigned status)
{
	buf_lit(b, "HTTP/1.1 ");
	buf_uint(b, status);
	buf_lit(b, " ");
	buf_str(b, status_reason(status));
	buf_lit(b, "\r\n");
}

static void head_verify(struct conn *c)
{
	XXH64_hash_t hash;

	if (!c->req.verify)
		return;
	hash = XXH64_digest(&c->req.hash);
	buf_printf(&c->out, "x-sim-server: %s\r\nx-sim-conn: %llu\r\n", opt.name,
		   (unsigned long long)c->id);
	/* An answer that starts before the body ended cannot name its hash. */
	if (c->phase == PHASE_ANSWER)
		buf_printf(&c->out, "x-sim-body: %016llx\r\n", (unsigned long long)hash);
}

static void head_length(struct buf *b, const char *name, uint64_t length)
{
	buf_str(b, name);
	buf_uint(b, length);
	buf_lit(b, "\r\n");
}

static void head_llama(struct conn *c, unsigned status, const char *type,
		       enum answer_framing framing, uint64_t length, const char *extra)
{
	struct buf *b = &c->out;
	bool options = c->req.method == HTTP_OPTIONS && type && !strcmp(type, "text/html");
	/* 204 and OPTIONS carry their length after Keep-Alive (captured) */
	bool late = options || status == 204;
	bool stream = framing == FRAME_CHUNKED && type && !strcmp(type, "text/event-stream");

	head_status(b, status);
	buf_lit(b, "Server: llama.cpp\r\nAccess-Control-Allow-Origin: ");
	buf_str(b, c->req.origin ? c->req.origin : "");
	buf_lit(b, "\r\n");
	if (options)
		buf_lit(b, "Access-Control-Allow-Credentials: true\r\n"
			   "Access-Control-Allow-Methods: GET, POST, DELETE, OPTIONS\r\n"
			   "Access-Control-Allow-Headers: *\r\n");
	if (stream)
		buf_lit(b, "X-Accel-Buffering: no\r\n");
	if (extra)
		buf_str(b, extra);
	if (type) {
		buf_lit(b, "Content-Type: ");
		buf_str(b, type);
		buf_lit(b, "\r\n");
	}
	if (framing == FRAME_CHUNKED)
		buf_lit(b, "Transfer-Encoding: chunked\r\n");
	else if (framing == FRAME_LENGTH && !late)
		head_length(b, "Content-Length: ", length);
	head_verify(c);
	/* HTTP/1.0 without keep-alive still reads Keep-Alive, then EOF (captured). */
	if (status >= 400 || framing == FRAME_CLOSE || (c->close_after && !c->req.http10)) {
		buf_lit(b, "Connection: close\r\n");
	} else {
		buf_lit(b, "Keep-Alive: timeout=");
		buf_uint(b, opt.idle_ms < 1000 ? 1 : opt.idle_ms / 1000);
		buf_lit(b, ", max=");
		buf_uint(b, opt.keepalive_max);
		buf_lit(b, "\r\n");
	}
	if (framing == FRAME_LENGTH && late)
		head_length(b, "Content-Length: ", length);
	if (c->req.method == HTTP_HEAD)
		buf_lit(b, "Accept-Ranges: bytes\r\n");
	buf_lit(b, "\r\n");
}

static void head_uvicorn(struct conn *c, unsigned status, const char *type,
			 enum answer_framing framing, uint64_t length, const char *extra)
{
	struct buf *b = &c->out;

	head_status(b, status);
	buf_lit(b, "date: ");
	buf_str(b, http_date());
	buf_lit(b, "\r\nserver: uvicorn\r\n");
	if (extra)
		buf_str(b, extra);
	if (framing == FRAME_LENGTH)
		head_length(b, "content-length: ", length);
	if (type) {
		buf_lit(b, "content-type: ");
		buf_str(b, type);
		if (!strncmp(type, "text/", 5) && !strchr(type, ';'))
			buf_lit(b, "; charset=utf-8");
		buf_lit(b, "\r\n");
	}
	head_verify(c);
	if (framing == FRAME_CLOSE || (c->close_after && !c->req.http10))
		buf_lit(b, "connection: close\r\n");
	if (framing == FRAME_CHUNKED)
		buf_lit(b, "transfer-encoding: chunked\r\n");
	buf_lit(b, "\r\n");
}

void answer_head(struct conn *c, unsigned status, const char *type, enum answer_framing framing,
		 uint64_t length, const char *extra)
{
	if (framing == FRAME_CLOSE)
		c->close_after = true;
	if (sim_llama())
		head_llama(c, status, type, framing, length, extra);
	else
		head_uvicorn(c, status, type, framing, length, extra);
}

void answer_full(struct conn *c, unsigned status, const char *type, const void *body, size_t len)
{
	answer_head(c, status, type, FRAME_LENGTH, len, NULL);
	if (c->req.method != HTTP_HEAD)
		conn_write(c, body, len);
	conn_answer_done(c);
}

void answer_json(struct conn *c, unsigned status, const char *body, size_t len)
{
	answer_full(c, status, answer_json_type(), body, len);
}

void answer_error(struct conn *c, unsigned status, const char *type, const char *message)
{
	struct buf b = {0};

	if (sim_llama()) {
		/* cpp-httplib's own errors and llama.cpp's differ in the order of the members */
		bool router = status == 404 || status == 503;

		buf_lit(&b, "{\"error\":{");
		if (!router)
			buf_printf(&b, "\"code\":%u,", status);
		buf_lit(&b, "\"message\":");
		buf_json(&b, message, strlen(message));
		buf_printf(&b, ",\"type\":\"%s\"", type);
		if (router)
			buf_printf(&b, ",\"code\":%u", status);
		buf_lit(&b, "}}");
	} else if (status == 404 || status == 405) {
		buf_printf(&b, "{\"detail\":\"%s\"}", message);
	} else {
		buf_lit(&b, "{\"object\":\"error\",\"message\":");
		buf_json(&b, message, strlen(message));
		buf_printf(&b, ",\"type\":\"%s\",\"param\":null,\"code\":%u}",
			   status >= 500 ? "InternalServerError" : "BadRequestError", status);
	}
	if (status == 405) {
		const struct endpoint *e;
		bool get = false;

		for (e = endpoints; e < endpoints + endpoints_nr; e++)
			if (!strcmp(e->path, c->req.path))
				get = e->get;
		answer_head(c, status, answer_json_type(), FRAME_LENGTH, b.len,
			    get ? "allow: GET\r\n" : "allow: POST\r\n");
		if (c->req.method != HTTP_HEAD)
			conn_write(c, b.p, b.len);
		conn_answer_done(c);
	} else {
		answer_json(c, status, b.p, b.len);
	}
	buf_free(&b);
}

void answer_not_found(struct conn *c)
{
	if (sim_llama())
		answer_error(c, 404, "not_found_error", "File Not Found");
	else
		answer_error(c, 404, NULL, "Not Found");
}

void answer_bare(struct conn *c, unsigned status, bool cors)
{
	if (!sim_llama()) {
		answer_error(c, status, NULL, status_reason(status));
		return;
	}
	head_status(&c->out, status);
	buf_lit(&c->out, "Server: llama.cpp\r\n");
	if (cors)
		buf_printf(&c->out, "Access-Control-Allow-Origin: %s\r\n",
			   c->req.origin ? c->req.origin : "");
	buf_lit(&c->out, "Connection: close\r\nContent-Length: 0\r\n\r\n");
}

void answer_bad_request(struct conn *c)
{
	static const char text[] = "Invalid HTTP request received.";

	if (sim_llama()) {
		answer_bare(c, 400, false);
		return;
	}
	head_status(&c->out, 400);
	buf_printf(&c->out,
		   "date: %s\r\nserver: uvicorn\r\ncontent-type: text/plain; charset=utf-8\r\n"
		   "content-length: %zu\r\nconnection: close\r\n\r\n%s",
		   http_date(), sizeof(text) - 1, text);
}

void answer_chunk(struct conn *c, const void *data, size_t len)
{
	static const char hex[] = "0123456789abcdef";
	char size[18], *p = size + sizeof(size);
	size_t v = len;

	if (!len)
		return;
	*--p = '\n';
	*--p = '\r';
	do
		*--p = hex[v & 15];
	while (v >>= 4);
	buf_reserve(&c->out, len + 24);
	buf_add(&c->out, p, size + sizeof(size) - p);
	buf_add(&c->out, data, len);
	buf_lit(&c->out, "\r\n");
}

void answer_last_chunk(struct conn *c)
{
	if (sim_llama()) { /* two writes, two segments */
		conn_flush(c);
		conn_write(c, "0\r\n", 3);
		conn_flush(c);
		conn_write(c, "\r\n", 2);
		conn_flush(c);
	} else {
		conn_write(c, "0\r\n\r\n", 5);
	}
}
