/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The control socket's server: takes requests, finds who answers them, and gives the answers their
 * form. What is shown is control_show.c's and control_top.c's, commands about decisions are
 * control_guard.c's; a reload is handed to the main thread.
 */
#include "ops/control.h"

#include <errno.h>
#include <jansson.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "ops/control_private.h"
#include "ops/control_socket.h"

/* People and scripts of one host. */
#define CONTROL_CONNECTIONS_MAX 64
#define CONTROL_TIMEOUT_S	15

/* 12 digits: milliseconds of some decades, without the noise of binary fractions. */
#define CONTROL_JSON_FLAGS (JSON_COMPACT | JSON_REAL_PRECISION(12))

struct control {
	struct control_view view;
	char path[CONTROL_PATH_MAX];
	struct control_file file;
	int fd; /* -1 once it is the daemon's */
	struct MHD_Daemon *daemon;
};

/* Takes @body over; NULL is out of memory. */
enum MHD_Result control_reply(struct MHD_Connection *conn, unsigned int status, json_t *body)
{
	char *text = body ? json_dumps(body, CONTROL_JSON_FLAGS) : NULL;
	struct MHD_Response *response;
	enum MHD_Result rc;

	json_decref(body);
	if (!text)
		return MHD_NO;
	response = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
	if (!response) {
		free(text);
		return MHD_NO;
	}
	MHD_add_response_header(response, "Content-Type", "application/json");
	rc = MHD_queue_response(conn, status, response);
	MHD_destroy_response(response);
	return rc;
}

/* JSON is UTF-8; a text that quotes a file or was cut inside a character may not be. */
static json_t *text_json(const char *text)
{
	char plain[CONTROL_TEXT_MAX];
	json_t *json = json_string(text);

	if (json)
		return json;
	snprintf(plain, sizeof(plain), "%s", text);
	for (char *c = plain; *c; c++)
		if (*c & 0x80)
			*c = '?';
	return json_string(plain);
}

void control_put_str(json_t *object, const char *key, const char *text)
{
	json_object_set_new(object, key, text_json(text));
}

void control_put_int(json_t *object, const char *key, uint64_t n)
{
	json_object_set_new(object, key, json_integer((json_int_t)n));
}

void control_put_bool(json_t *object, const char *key, bool yes)
{
	json_object_set_new(object, key, json_boolean(yes));
}

void control_put_real(json_t *object, const char *key, double n)
{
	json_object_set_new(object, key, json_real(n));
}

enum MHD_Result control_reply_error(struct MHD_Connection *conn, unsigned int status,
				    const char *text)
{
	json_t *body = json_object();

	control_put_str(body, "error", text);
	return control_reply(conn, status, body);
}

static enum MHD_Result control_reload(const struct control_view *v, struct MHD_Connection *conn)
{
	const struct control_params *p = &v->p;
	char text[CONTROL_TEXT_MAX] = "";
	json_t *body;

	if (p->reload(p->arg, text, sizeof(text)))
		return control_reply_error(conn, MHD_HTTP_UNPROCESSABLE_CONTENT, text);
	body = json_object();
	control_put_bool(body, "ok", true);
	control_put_str(body, "note", text);
	return control_reply(conn, MHD_HTTP_OK, body);
}

static const struct {
	const char *method, *url;
	enum MHD_Result (*answer)(const struct control_view *v, struct MHD_Connection *conn);
} routes[] = {
	{"GET", "/v1/status", control_status},
	{"GET", "/v1/backends", control_backends},
	{"GET", "/v1/sessions", control_sessions},
	{"GET", "/v1/top", control_top},
	{"POST", "/v1/reload", control_reload},
	{"POST", "/v1/drain", control_drain},
	{"POST", "/v1/undrain", control_undrain},
	{"POST", "/v1/pin", control_pin},
	{"POST", "/v1/unpin", control_unpin},
	{"GET", "/v1/pressure", control_pressure},
	{"POST", "/v1/pressure/ack", control_pressure_ack},
	{"GET", "/v1/report", control_report},
	{"GET", "/v1/explain", control_explain},
};

static enum MHD_Result control_answer(void *cls, struct MHD_Connection *conn, const char *url,
				      const char *method, const char *version, const char *data,
				      size_t *data_bytes, void **ctx)
{
	const struct control *c = cls;
	char why[CONTROL_TEXT_MAX];

	/* The first call only announces the head; no command has a body, so it is thrown away. */
	if (!*ctx) {
		*ctx = cls;
		return MHD_YES;
	}
	if (*data_bytes) {
		*data_bytes = 0;
		return MHD_YES;
	}
	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++)
		if (!strcmp(method, routes[i].method) && !strcmp(url, routes[i].url))
			return routes[i].answer(&c->view, conn);
	snprintf(why, sizeof(why), "no such thing: %.20s %.100s", method, url);
	return control_reply_error(conn, MHD_HTTP_NOT_FOUND, why);
}

static void control_why(const char *path, int error, char *why, unsigned int why_bytes)
{
	if (error == EADDRINUSE)
		snprintf(why, why_bytes,
			 "control: another kvpin is running: it listens on %s (stop it, or choose "
			 "another "
			 "path)",
			 path);
	else if (error == EEXIST)
		snprintf(why, why_bytes,
			 "control: %s exists and is not a socket (choose another path)", path);
	else if (error == ENOENT)
		snprintf(why, why_bytes,
			 "control: cannot make %s: the directory above its own does not exist "
			 "(make it, or choose another path)",
			 path);
	else
		snprintf(why, why_bytes, "control: cannot listen on %s: %s", path, strerror(error));
}

int control_open(struct control **out, const char *path, char *why, unsigned int why_bytes)
{
	struct control *c = calloc(1, sizeof(*c));
	int rc = 0;

	*out = NULL;
	if (!c) {
		snprintf(why, why_bytes, "control: out of memory");
		return -ENOMEM;
	}
	snprintf(c->path, sizeof(c->path), "%s", path);
	c->fd = control_socket_listen(c->path, &c->file);
	if (c->fd >= 0) {
		*out = c;
		return 0;
	}
	if (c->fd == -EACCES || c->fd == -EPERM || c->fd == -EROFS) {
		LOG(WARN, "no control socket: status, sessions and reload by command do not work",
		    F_STR("path", c->path), F_STR("error", strerror(-c->fd)),
		    F_STR("fix", "choose a writable path with control:"));
	} else {
		rc = c->fd;
		control_why(c->path, -rc, why, why_bytes);
	}
	free(c);
	return rc;
}

int control_serve(struct control *c, const struct control_params *params, char *why,
		  unsigned int why_bytes)
{
	int fd = c->fd;

	c->view.p = *params;
	c->view.nr_listen = balancer_config(params->balancer)->nr_listen;
	for (unsigned int i = 0; i < c->view.nr_listen; i++)
		c->view.listen[i] = balancer_listen_addr(params->balancer, i);
	/* libmicrohttpd's from here on, which on failure may have closed it or not: then it is
	 * left, for the process ends. */
	c->fd = -1;
	/* poll, not select: with thousands of clients descriptors are beyond FD_SETSIZE. */
	c->daemon = MHD_start_daemon(
		MHD_USE_POLL_INTERNAL_THREAD | MHD_USE_ITC, 0, NULL, NULL, control_answer, c,
		MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
		(unsigned int)CONTROL_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
		(unsigned int)CONTROL_TIMEOUT_S, MHD_OPTION_END);
	if (c->daemon)
		return 0;
	snprintf(why, why_bytes, "control: cannot start the HTTP server on %s", c->path);
	return -EIO;
}

void control_stop(struct control *c)
{
	if (!c)
		return;
	/* First, so that nobody finds a socket that does not answer. */
	control_socket_unlink(c->path, &c->file);
	if (c->daemon)
		MHD_stop_daemon(c->daemon); /* closes the listener too */
	if (c->fd >= 0)
		close(c->fd);
	free(c);
}
