/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Load endpoints that only send: /json, /bytes, /sse, /status, /trailers, /slowhead, /head_echo,
 * /close. Cheap on purpose: benches put tens of thousands of requests per second through them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

#define JSON_DEFAULT 300
#define SSE_MIN	     80 /* the event's own members need this much */

/* {"system_fingerprint":"gpu0","pad":"xxx"}, exactly `size` bytes if that is enough */
void load_json(struct conn *c)
{
	static struct buf kept; /* the last one built */
	uint64_t size = *c->req.query ? query_u64(&c->req, "size", JSON_DEFAULT) : JSON_DEFAULT;

	if (size > SIM_BODY_MAX)
		size = SIM_BODY_MAX;
	if (kept.len != size || !kept.len) {
		kept.len = 0;
		buf_printf(&kept, "{\"system_fingerprint\":\"%s\",\"pad\":\"", opt.name);
		if (kept.len + 2 < size) {
			size_t pad = size - kept.len - 2;

			buf_reserve(&kept, pad);
			memset(kept.p + kept.len, 'x', pad);
			kept.len += pad;
		}
		buf_lit(&kept, "\"}");
	}
	answer_json(c, 200, kept.p, kept.len);
}

/* ---- /bytes/N?chunk=C&manner=cl|chunked|close&seed=S */

static void bytes_pump(struct conn *c)
{
	uint64_t n, pos;

	if (c->u.bytes.framing != FRAME_CHUNKED) {
		conn_send_pattern(c);
		if (!c->u.bytes.left)
			conn_answer_done(c);
		return;
	}
	while (c->u.bytes.left && conn_pending(c) < SIM_BATCH) {
		n = c->u.bytes.chunk < c->u.bytes.left ? c->u.bytes.chunk : c->u.bytes.left;
		buf_printf(&c->out, "%llx\r\n", (unsigned long long)n);
		buf_reserve(&c->out, n + 2);
		pos = (c->u.bytes.seed + c->u.bytes.off) % SIM_PATTERN_PERIOD;
		for (uint64_t i = 0; i < n; i++) {
			c->out.p[c->out.len++] = pos;
			pos = pos + 1 == SIM_PATTERN_PERIOD ? 0 : pos + 1;
		}
		buf_lit(&c->out, "\r\n");
		c->u.bytes.left -= n;
		c->u.bytes.off += n;
	}
	if (!c->u.bytes.left) {
		answer_last_chunk(c);
		conn_answer_done(c);
	}
}

static const struct answer_ops bytes_ops = {.pump = bytes_pump};

void load_bytes(struct conn *c)
{
	uint64_t n = strtoull(c->req.path + strlen("/bytes/"), NULL, 10);
	char manner[16] = "cl";
	enum answer_framing framing = FRAME_LENGTH;

	query_get(&c->req, "manner", manner, sizeof(manner));
	if (!strcmp(manner, "chunked"))
		framing = FRAME_CHUNKED;
	else if (!strcmp(manner, "close"))
		framing = FRAME_CLOSE;
	answer_head(c, 200, "application/octet-stream", framing, n, NULL);
	if (c->req.method == HTTP_HEAD) {
		conn_answer_done(c);
		return;
	}
	c->u.bytes.left = n;
	c->u.bytes.seed = query_u64(&c->req, "seed", 0) % SIM_PATTERN_PERIOD;
	c->u.bytes.chunk = query_u64(&c->req, "chunk", 16384);
	if (!c->u.bytes.chunk || c->u.bytes.chunk > SIM_OUT_HIGH)
		c->u.bytes.chunk = 16384;
	c->u.bytes.framing = framing;
	c->ops = &bytes_ops;
}

/*
 * ---- /sse/N/GAP_US/SIZE?close=1&trunc=K&rst=K
 *
 * Event: `data: {"i":<index>,"t":<send time, CLOCK_MONOTONIC ns>,"pad":"xx"}\n\n`, one chunk of
 * SIZE payload bytes (at least 80).
 */
static void sse_event(struct conn *c)
{
	struct buf *b = &c->out;
	size_t start;

	buf_printf(b, "%llx\r\n", (unsigned long long)c->u.sse.size);
	start = b->len;
	buf_reserve(b, c->u.sse.size + 2);
	buf_lit(b, "data: {\"i\":");
	buf_uint(b, c->u.sse.i);
	buf_lit(b, ",\"t\":");
	buf_uint(b, now_ns());
	buf_lit(b, ",\"pad\":\"");
	memset(b->p + b->len, 'x', start + c->u.sse.size - 4 - b->len);
	b->len = start + c->u.sse.size - 4;
	buf_lit(b, "\"}\n\n\r\n");
	c->u.sse.i++;
}

/* True when the stream ended, cleanly or as asked for. */
static bool sse_ended(struct conn *c)
{
	bool llama_close = c->u.sse.close;

	if (c->u.sse.rst && c->u.sse.i >= c->u.sse.rst) {
		conn_flush(c);
		conn_finish(c, true);
		return true;
	}
	if (c->u.sse.trunc && c->u.sse.i >= c->u.sse.trunc) {
		conn_finish(c, false);
		return true;
	}
	if (c->u.sse.i < c->u.sse.n)
		return false;
	answer_last_chunk(c);
	if (llama_close)
		c->close_after = true;
	conn_answer_done(c);
	return true;
}

static void sse_pump(struct conn *c)
{
	while (!sse_ended(c) && conn_pending(c) < SIM_BATCH)
		sse_event(c);
}

static void sse_tick(struct conn *c)
{
	uint64_t now = now_ns();

	while (c->u.sse.next_ns <= now && c->u.sse.i < c->u.sse.n) {
		if (conn_pending(c) < SIM_OUT_HIGH)
			sse_event(c);
		conn_flush(c);
		c->u.sse.next_ns += c->u.sse.gap_ns;
		if (conn_pending(c) >= SIM_OUT_HIGH) /* a slow reader: the schedule slips */
			c->u.sse.next_ns = now + c->u.sse.gap_ns;
		if (sse_ended(c))
			return;
	}
	timer_arm(&c->tick, c->u.sse.next_ns);
}

static void sse_eof(struct conn *c)
{
	conn_finish(c, false);
}

static void sse_cancel(struct conn *c)
{
	if (!c->eof && !c->dead)
		return; /* ?trunc, ?rst or our own shutdown */
	stats.aborts++;
	stats.last_abort_after_ns = now_ns() - c->req.start_ns;
	stats.last_abort_notice_ns = 0;
}

static const struct answer_ops sse_fast_ops = {
	.pump = sse_pump, .eof = sse_eof, .cancel = sse_cancel};
static const struct answer_ops sse_slow_ops = {
	.tick = sse_tick, .eof = sse_eof, .cancel = sse_cancel};

void load_sse(struct conn *c)
{
	unsigned long long n = 0, gap_us = 0, size = 0;

	if (sscanf(c->req.path, "/sse/%llu/%llu/%llu", &n, &gap_us, &size) < 1 ||
	    size > SIM_BATCH) {
		answer_error(c, 400, "invalid_request_error", "/sse/N/GAP_US/SIZE, SIZE <= 65536");
		return;
	}
	answer_head(c, 200, "text/event-stream", FRAME_CHUNKED, 0, NULL);
	if (c->req.method == HTTP_HEAD) {
		conn_answer_done(c);
		return;
	}
	if (sim_llama())
		conn_flush(c);
	c->u.sse.n = n;
	c->u.sse.gap_ns = gap_us * 1000;
	c->u.sse.size = size < SSE_MIN ? SSE_MIN : size;
	c->u.sse.trunc = query_u64(&c->req, "trunc", 0);
	c->u.sse.rst = query_u64(&c->req, "rst", 0);
	c->u.sse.close = query_u64(&c->req, "close", 0);
	c->ops = gap_us ? &sse_slow_ops : &sse_fast_ops;
	if (gap_us) {
		c->u.sse.next_ns = now_ns();
		sse_tick(c);
	}
}

/* ---- the small ones */

void load_status(struct conn *c)
{
	unsigned status = strtoul(c->req.path + strlen("/status/"), NULL, 10);
	char body[128];
	int len;

	if (status < 100 || status > 999 || status == 101) {
		answer_error(c, 400, "invalid_request_error", "/status/CODE, 100 to 999, not 101");
		return;
	}
	if (status < 200) { /* an interim answer, then the final one */
		buf_printf(&c->out, "HTTP/1.1 %u %s\r\n%s\r\n", status, status_reason(status),
			   status == 103 ? "Link: </style.css>; rel=preload\r\n" : "");
		conn_flush(c);
		status = 200;
	}
	if (status == 204 || status == 304) {
		answer_head(c, status, NULL, FRAME_NONE, 0, NULL);
		conn_answer_done(c);
		return;
	}
	len = snprintf(body, sizeof(body), "{\"status\":%u,\"system_fingerprint\":\"%.64s\"}",
		       status, opt.name);
	answer_json(c, status, body, status == 205 ? 0 : len);
}

void load_trailers(struct conn *c)
{
	static const char body[] = "{\"trailers\":true}";

	answer_head(c, 200, answer_json_type(), FRAME_CHUNKED, 0,
		    "Trailer: x-sim-trailer, x-sim-checksum\r\n");
	if (c->req.method != HTTP_HEAD) {
		answer_chunk(c, body, sizeof(body) - 1);
		buf_printf(&c->out, "0\r\nx-sim-trailer: yes\r\nx-sim-checksum: %016llx\r\n\r\n",
			   (unsigned long long)XXH64(body, sizeof(body) - 1, 0));
	}
	conn_answer_done(c);
}

static const struct answer_ops slowhead_ops = {.tick = load_json};

void load_slowhead(struct conn *c)
{
	c->ops = &slowhead_ops;
	timer_arm(&c->tick, now_ns() + ms_ns(query_u64(&c->req, "ms", 100)));
}

void load_head_echo(struct conn *c)
{
	const struct request *r = &c->req;
	struct buf b = {0};

	buf_lit(&b, "{\"system_fingerprint\":");
	buf_json(&b, opt.name, strlen(opt.name));
	buf_printf(&b, ",\"method\":\"%s\",\"path\":", http_method_str(r->method));
	buf_json(&b, r->path, strlen(r->path));
	buf_lit(&b, ",\"query\":");
	buf_json(&b, r->query, strlen(r->query));
	buf_printf(&b, ",\"version\":\"%u.%u\",\"headers\":[", c->parser.http_major,
		   c->parser.http_minor);
	for (unsigned i = 0; i < r->headers_nr; i++) {
		buf_str(&b, i ? ",[" : "[");
		buf_json(&b, r->text.p + r->headers[i].name.off, r->headers[i].name.len);
		buf_lit(&b, ",");
		buf_json(&b, r->text.p + r->headers[i].value.off, r->headers[i].value.len);
		buf_lit(&b, "]");
	}
	buf_lit(&b, "]}");
	answer_json(c, 200, b.p, b.len);
	buf_free(&b);
}

void load_close(struct conn *c)
{
	c->close_after = true;
	load_json(c);
}
