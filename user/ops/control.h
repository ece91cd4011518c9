/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The control socket: HTTP and JSON over a unix socket, for the command line and for curl
 * (curl --unix-socket PATH http://kvpin/v1/status). Whoever may open the socket may do all of it;
 * the file's mode (0660) is the access control.
 *
 *   GET  /v1/status
 *   GET  /v1/backends
 *   GET  /v1/sessions?limit=N&backend=NAME
 *   GET  /v1/top
 *   POST /v1/reload
 *   POST /v1/drain?backend=NAME&deadline_ms=N&idle_ms=N
 *   POST /v1/undrain?backend=NAME
 *   POST /v1/pin?key=KEY&backend=NAME      id=HEX instead of key: as /v1/sessions shows it
 *   POST /v1/unpin?key=KEY
 *   GET  /v1/pressure
 *   POST /v1/pressure/ack
 *   GET  /v1/report
 *   GET  /v1/explain?last=N&key=KEY
 */
#ifndef OPS_CONTROL_H
#define OPS_CONTROL_H

#include <pthread.h>

#include "net/balancer.h"
#include "ops/metrics.h"

/* /v1/sessions: how many it lists when not told, and at most. */
#define CONTROL_SESSIONS_DEFAULT 100
#define CONTROL_SESSIONS_MAX	 100000

struct control;
struct key_watch;

struct control_params {
	struct balancer *balancer;
	const struct metrics_base *base;
	const struct key_watch *watch;
	pthread_rwlock_t *lock; /* as in metrics_serve() */
	/* Has the main thread reload and waits for it: 0 or -errno, @text the note or the error. */
	int (*reload)(void *arg, char *text, unsigned int text_bytes);
	void *arg;
};

/**
 * control_open() - make the socket and listen; who connects waits until control_serve()
 * @out: NULL when this user may not write there, which is logged
 * @path: of the socket; copied
 * @why: on failure says what failed
 *
 * Apart from control_serve(), so that a second kvpin is stopped before it takes clients away from
 * the first: listeners are shared between processes (SO_REUSEPORT). A socket that nobody listens
 * on is replaced. Returns 0 or -errno (-EADDRINUSE: another kvpin is running).
 */
int control_open(struct control **out, const char *path, char *why, unsigned int why_bytes);

/**
 * control_serve() - answer, from a thread of its own
 * @params: copied; what it points to must outlive control_stop(); the balancer is started
 *
 * Returns 0 or -errno with @why; control_stop() is due in either case.
 */
int control_serve(struct control *c, const struct control_params *params, char *why,
		  unsigned int why_bytes);

/** control_stop() - end the thread, remove the socket, free; NULL is accepted; @reload must not
 * be waiting for the caller's thread */
void control_stop(struct control *c);

#endif
