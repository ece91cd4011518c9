/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Load endpoints that read: /sink counts and hashes a body, /echo sends it back while it arrives,
 * /upgrade echoes raw bytes after a 101. None of them keeps a body.
 */
#include <string.h>
#include <strings.h>

#include "sim.h"

void sink_start(struct conn *c)
{
	c->req.want_hash = true;
}

void sink_run(struct conn *c)
{
	struct buf b = {0};

	buf_printf(&b, "{\"bytes\":%llu,\"xxh64\":\"%016llx\",\"system_fingerprint\":\"%s\"}",
		   (unsigned long long)c->req.body_bytes,
		   (unsigned long long)XXH64_digest(&c->req.hash), opt.name);
	answer_json(c, 200, b.p, b.len);
	buf_free(&b);
}

static void echo_body(struct conn *c, const char *data, size_t len)
{
	answer_chunk(c, data, len);
	if (conn_pending(c) > SIM_BATCH)
		conn_flush(c);
}

static const struct answer_ops echo_ops = {.body = echo_body};

void echo_start(struct conn *c)
{
	answer_head(c, 200, "application/octet-stream", FRAME_CHUNKED, 0,
		    c->req.verify ? "Trailer: x-sim-body\r\n" : NULL);
	c->ops = &echo_ops;
}

void echo_run(struct conn *c)
{
	if (c->ops != &echo_ops)
		echo_start(c); /* the server was loading when the head came */
	if (c->req.verify)
		buf_printf(&c->out, "0\r\nx-sim-body: %016llx\r\n\r\n",
			   (unsigned long long)XXH64_digest(&c->req.hash));
	else
		answer_last_chunk(c);
	conn_answer_done(c);
}

static void raw_body(struct conn *c, const char *data, size_t len)
{
	conn_write(c, data, len);
}

/* Half-close respected: everything that came goes back, then our FIN. */
static void raw_eof(struct conn *c)
{
	conn_finish(c, false);
}

static const struct answer_ops raw_ops = {.body = raw_body, .eof = raw_eof};

void upgrade_run(struct conn *c)
{
	const char *proto = request_header(&c->req, "upgrade");

	if (!c->req.upgrade || !proto || strcasecmp(proto, "sim-echo")) {
		answer_error(c, 400, "invalid_request_error", "Upgrade: sim-echo");
		return;
	}
	buf_lit(&c->out, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
			 "Upgrade: sim-echo\r\n\r\n");
	c->phase = PHASE_RAW;
	c->ops = &raw_ops;
}
