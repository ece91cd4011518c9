/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The exporter's HTTP side: libmicrohttpd with one thread of its own. Nothing here is on a
 * request's path; what the page says is metrics_text.c's business.
 */
#include "ops/metrics.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A scraper and a probe or two; more are mistakes. */
#define METRICS_CONNECTIONS_MAX 64
#define METRICS_TIMEOUT_S	15
#define METRICS_BACKLOG		64

#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

struct metrics {
	const struct balancer *balancer;
	const struct metrics_base *base;
	pthread_rwlock_t *lock;
	struct addr addr;
	int fd; /* -1 once it is the daemon's */
	struct MHD_Daemon *daemon;
};

/* Takes @text over. */
static enum MHD_Result reply(struct MHD_Connection *conn, unsigned int status, const char *type,
			     char *text, size_t bytes)
{
	struct MHD_Response *response;
	enum MHD_Result rc;

	response = MHD_create_response_from_buffer(bytes, text, MHD_RESPMEM_MUST_FREE);
	if (!response) {
		free(text);
		return MHD_NO;
	}
	MHD_add_response_header(response, "Content-Type", type);
	MHD_add_response_header(response, "Cache-Control", "no-store");
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(response, "Allow", "GET, HEAD");
	rc = MHD_queue_response(conn, status, response);
	MHD_destroy_response(response);
	return rc;
}

static enum MHD_Result reply_line(struct MHD_Connection *conn, unsigned int status,
				  const char *text)
{
	char *line;
	int bytes = asprintf(&line, "%s\n", text);

	if (bytes < 0)
		return MHD_NO;
	return reply(conn, status, "text/plain; charset=utf-8", line, bytes);
}

static enum MHD_Result reply_metrics(struct metrics *m, struct MHD_Connection *conn)
{
	char *text = NULL;
	size_t bytes = 0;
	FILE *out = open_memstream(&text, &bytes);
	struct metrics_sum *sum;
	int rc;

	if (!out)
		return MHD_NO;
	pthread_rwlock_rdlock(m->lock);
	rc = metrics_sum_new(&sum, m->balancer, m->base);
	if (!rc)
		metrics_render(m->balancer, sum, out);
	pthread_rwlock_unlock(m->lock);
	free(sum);
	metrics_render_process(out);
	if (ferror(out))
		rc = -ENOMEM;
	if (fclose(out) && !rc)
		rc = -ENOMEM;
	if (rc) {
		free(text);
		return reply_line(conn, MHD_HTTP_INTERNAL_SERVER_ERROR, strerror(-rc));
	}
	return reply(conn, MHD_HTTP_OK, METRICS_TYPE, text, bytes);
}

static enum MHD_Result metrics_answer(void *cls, struct MHD_Connection *conn, const char *url,
				      const char *method, const char *version, const char *data,
				      size_t *data_bytes, void **ctx)
{
	struct metrics *m = cls;
	const char *reason;

	/* The first call only announces the head; a body, if there is one, is thrown away. */
	if (!*ctx) {
		*ctx = m;
		return MHD_YES;
	}
	if (*data_bytes) {
		*data_bytes = 0;
		return MHD_YES;
	}
	if (strcmp(method, "GET") && strcmp(method, "HEAD"))
		return reply_line(conn, MHD_HTTP_METHOD_NOT_ALLOWED, "GET or HEAD only");
	if (!strcmp(url, "/metrics"))
		return reply_metrics(m, conn);
	if (!strcmp(url, "/healthz"))
		return reply_line(conn, MHD_HTTP_OK, "ok");
	if (!strcmp(url, "/readyz")) {
		reason = metrics_ready(m->balancer);
		return reply_line(conn, reason ? MHD_HTTP_SERVICE_UNAVAILABLE : MHD_HTTP_OK,
				  reason ? reason : "ready");
	}
	return reply_line(conn, MHD_HTTP_NOT_FOUND, "not found: /metrics, /healthz, /readyz");
}

/* Returns the descriptor or -errno; @addr is set to where it listens. */
static int metrics_listen(struct addr *addr)
{
	int on = 1, off = 0, rc, fd;

	fd = socket(addr->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (addr->sa.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&addr->in6.sin6_addr))
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, &addr->sa, addr->len) || listen(fd, METRICS_BACKLOG)) {
		rc = -errno;
		close(fd);
		return rc;
	}
	addr->len = sizeof(addr->in6);
	getsockname(fd, &addr->sa, &addr->len);
	return fd;
}

struct metrics *metrics_open(const struct addr *addr, char *why, unsigned int why_bytes)
{
	struct metrics *m = calloc(1, sizeof(*m));
	char text[ADDR_TEXT_MAX];

	if (!m) {
		snprintf(why, why_bytes, "metrics: out of memory");
		return NULL;
	}
	m->addr = *addr;
	m->fd = metrics_listen(&m->addr);
	if (m->fd < 0) {
		snprintf(why, why_bytes, "metrics: cannot listen on %s: %s%s",
			 addr_format(addr, text), strerror(-m->fd), addr_bind_hint(-m->fd));
		free(m);
		return NULL;
	}
	return m;
}

int metrics_serve(struct metrics *m, const struct balancer *b, const struct metrics_base *base,
		  pthread_rwlock_t *lock, char *why, unsigned int why_bytes)
{
	char text[ADDR_TEXT_MAX];
	int fd = m->fd;

	m->balancer = b;
	m->base = base;
	m->lock = lock;
	/* libmicrohttpd's from here on, which on failure may have closed it or not: then it is
	 * left, for the process ends. */
	m->fd = -1;
	/* poll, not select: with thousands of clients descriptors are beyond FD_SETSIZE. */
	m->daemon = MHD_start_daemon(
		MHD_USE_POLL_INTERNAL_THREAD | MHD_USE_ITC, 0, NULL, NULL, metrics_answer, m,
		MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
		(unsigned int)METRICS_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
		(unsigned int)METRICS_TIMEOUT_S, MHD_OPTION_END);
	if (m->daemon)
		return 0;
	snprintf(why, why_bytes, "metrics: cannot start the HTTP server on %s",
		 addr_format(&m->addr, text));
	return -EIO;
}

struct addr metrics_addr(const struct metrics *m)
{
	return m->addr;
}

void metrics_stop(struct metrics *m)
{
	if (!m)
		return;
	if (m->daemon)
		MHD_stop_daemon(m->daemon); /* closes the listener too */
	if (m->fd >= 0)
		close(m->fd);
	free(m);
}
