/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Error answers. */
#include "net/reply.h"

#include <stdio.h>

#include "net/worker.h"

static const char *reason_of(unsigned int status)
{
	switch (status) {
	case 400:
		return "Bad Request";
	case 408:
		return "Request Timeout";
	case 414:
		return "URI Too Long";
	case 431:
		return "Request Header Fields Too Large";
	case 501:
		return "Not Implemented";
	case 502:
		return "Bad Gateway";
	case 503:
		return "Service Unavailable";
	case 504:
		return "Gateway Timeout";
	case 505:
		return "HTTP Version Not Supported";
	default:
		return "Error";
	}
}

unsigned int reply_status_of(enum kvpin_http_error error)
{
	switch (error) {
	case KVPIN_HTTP_TARGET_LONG:
		return 414;
	case KVPIN_HTTP_HEAD_LARGE:
	case KVPIN_HTTP_FIELDS:
		return 431;
	case KVPIN_HTTP_VERSION:
		return 505;
	default:
		return 400;
	}
}

int reply_error(struct conn *c, unsigned int status, const char *message, const char *code,
		uint32_t retry_after_s)
{
	struct exchange *x = c->x;
	char body[512], retry[40] = "";
	int body_len, n;

	body_len = snprintf(body, sizeof(body),
			    "{\"error\":{\"message\":\"%s\",\"type\":\"%s\",\"param\":null,"
			    "\"code\":\"%s\"}}",
			    message, status < 500 ? "invalid_request_error" : "server_error", code);
	if (retry_after_s)
		snprintf(retry, sizeof(retry), "Retry-After: %u\r\n", retry_after_s);
	buf_release(&c->worker->pool, &c->out);
	if (buf_reserve(&c->worker->pool, &c->out, 2048))
		return -ENOMEM;
	n = snprintf((char *)buf_data(&c->out), 2048,
		     "HTTP/1.1 %u %s\r\n"
		     "Content-Type: application/json\r\n"
		     "Content-Length: %d\r\n"
		     "%s%s\r\n%s",
		     status, reason_of(status), body_len, retry,
		     c->close_after ? "Connection: close\r\n" : "",
		     x->request.method == KVPIN_METHOD_HEAD ? "" : body);
	c->out.end = c->out.start + n;
	x->out_ready = n;
	x->head_done = true;
	x->status = status;
	return 0;
}
