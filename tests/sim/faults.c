/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Endpoints that misbehave: resets, early EOF, half a head, broken framing, silence. They write
 * raw bytes on purpose and always end the connection, except /hang, which waits for the client.
 */
#include <string.h>

#include "sim.h"

#define BIG_HEAD (64 << 10)

void fault_reset(struct conn *c)
{
	conn_finish(c, true);
}

void fault_eof(struct conn *c)
{
	conn_finish(c, false);
}

void fault_partial_head(struct conn *c)
{
	buf_lit(&c->out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Le");
	conn_finish(c, false);
}

#define HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"

static const struct {
	const char *kind, *bytes;
	size_t len;
} broken[] = {
#define KIND(kind, bytes)                                                                          \
	{                                                                                          \
		kind, bytes, sizeof(bytes) - 1                                                     \
	}
	KIND("tecl",
	     HEAD "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
	KIND("dupcl", HEAD "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
	KIND("badcl", HEAD "Content-Length: 5x\r\n\r\nhello"),
	KIND("badchunk",
	     HEAD "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\nworld\r\n0\r\n\r\n"),
	KIND("badte",
	     HEAD "Transfer-Encoding: gzip, chunked, identity\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
	KIND("barelf", "HTTP/1.1 200 OK\nContent-Type: text/plain\nContent-Length: 5\n\nhello"),
	KIND("nul", HEAD "X-Nul: a\0b\r\nContent-Length: 5\r\n\r\nhello"),
};

void fault_badframing(struct conn *c)
{
	char kind[16] = "";

	query_get(&c->req, "kind", kind, sizeof(kind));
	if (!strcmp(kind, "bigHead")) {
		buf_lit(&c->out, HEAD "Content-Length: 5\r\nX-Big: ");
		buf_reserve(&c->out, BIG_HEAD);
		memset(c->out.p + c->out.len, 'a', BIG_HEAD);
		c->out.len += BIG_HEAD;
		buf_lit(&c->out, "\r\n\r\nhello");
		conn_finish(c, false);
		return;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(broken); i++) {
		if (!strcmp(kind, broken[i].kind)) {
			buf_add(&c->out, broken[i].bytes, broken[i].len);
			conn_finish(c, false);
			return;
		}
	}
	answer_error(c, 400, "invalid_request_error",
		     "kind: tecl|dupcl|badcl|badchunk|badte|barelf|nul|bigHead");
}

static void hang_eof(struct conn *c)
{
	conn_finish(c, false);
}

static void hang_cancel(struct conn *c)
{
	if (!c->eof && !c->dead)
		return; /* our own shutdown */
	stats.aborts++;
	stats.aborts_hang++;
	stats.last_abort_after_ns = c->eof_ns - c->req.start_ns;
	stats.last_abort_notice_ns = now_ns() - c->eof_ns;
}

static const struct answer_ops hang_ops = {.eof = hang_eof, .cancel = hang_cancel};

void fault_hang(struct conn *c)
{
	c->ops = &hang_ops;
}
