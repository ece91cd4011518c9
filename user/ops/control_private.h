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

/** control_top() - the answer for `kvpin top`: user/ops/control_top.c */
enum MHD_Result control_top(const struct control_params *p, struct MHD_Connection *conn);

/** control_show_answer() - status, backends, sessions: user/ops/control_show.c
 *
 * Returns false when it knows no such request; else @rc is set. */
bool control_show_answer(const struct control_view *v, struct MHD_Connection *conn,
			 const char *method, const char *url, enum MHD_Result *rc);

/** control_guard_answer() - drain, pin, pressure, report, explain: user/ops/control_guard.c
 *
 * Returns false when it knows no such request; else @rc is set. */
bool control_guard_answer(const struct control_params *p, struct MHD_Connection *conn,
			  const char *method, const char *url, enum MHD_Result *rc);

#endif
