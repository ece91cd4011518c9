/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the files of the control socket share: what they look at, and how they answer. */
#ifndef OPS_CONTROL_PRIVATE_H
#define OPS_CONTROL_PRIVATE_H

#include <jansson.h>
#include <microhttpd.h>

#include "ops/control.h"

#define CONTROL_TEXT_MAX 512

/* What is shown. */
struct control_view {
	struct control_params p;
	unsigned int nr_listen; /* as started: listeners change only by a restart */
	struct addr listen[LISTEN_MAX];
};

/** control_reply() - takes @body over; NULL is out of memory */
enum MHD_Result control_reply(struct MHD_Connection *conn, unsigned int status, json_t *body);
enum MHD_Result control_reply_error(struct MHD_Connection *conn, unsigned int status,
				    const char *text);

void control_put_str(json_t *object, const char *key, const char *text);
void control_put_int(json_t *object, const char *key, uint64_t n);
void control_put_bool(json_t *object, const char *key, bool yes);
void control_put_real(json_t *object, const char *key, double n);

/** control_state_text() - a server's state in one word, drains included */
const char *control_state_text(const struct backend *b);

/** control_session_json() - one session, as `kvpin sessions` shows it */
json_t *control_session_json(const struct balancer *b, const struct session *s, uint64_t now_ms);

/*
 * The answers, one to a path of control.h's list; each replies with an object or an error and
 * returns what libmicrohttpd is to be told (MHD_NO: out of memory, the connection is closed).
 */

/* What is shown, control_show.c; they change nothing. */
enum MHD_Result control_status(const struct control_view *v, struct MHD_Connection *conn);
enum MHD_Result control_backends(const struct control_view *v, struct MHD_Connection *conn);
enum MHD_Result control_sessions(const struct control_view *v, struct MHD_Connection *conn);

/* `kvpin top`'s sample: control_top.c */
enum MHD_Result control_top(const struct control_view *v, struct MHD_Connection *conn);

/* Commands about decisions, and what explains them: control_guard.c */
enum MHD_Result control_drain(const struct control_view *v, struct MHD_Connection *conn);
enum MHD_Result control_undrain(const struct control_view *v, struct MHD_Connection *conn);
enum MHD_Result control_pin(const struct control_view *v, struct MHD_Connection *conn);
enum MHD_Result control_unpin(const struct control_view *v, struct MHD_Connection *conn);
enum MHD_Result control_pressure(const struct control_view *v, struct MHD_Connection *conn);
enum MHD_Result control_pressure_ack(const struct control_view *v, struct MHD_Connection *conn);
enum MHD_Result control_report(const struct control_view *v, struct MHD_Connection *conn);
enum MHD_Result control_explain(const struct control_view *v, struct MHD_Connection *conn);

#endif
