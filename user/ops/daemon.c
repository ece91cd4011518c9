/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The daemon's life.
 *
 * Happy path: daemon_start() brings the parts up in order, the loop runs signals, a tick and
 * reloads until a signal, daemon_stop() takes the parts down in reverse.
 * Failures: a part that does not start names itself in `why`; what is up is taken down, exit 1.
 * A failed reload changes nothing.
 * The close: drain first, unless a second signal comes; nothing is left behind.
 *
 * Threads: all signals are blocked while threads are made, so only the main thread sees them and
 * one that comes during the start is not lost. The control socket's thread asks for a reload and
 * waits for the answer (ops/reload.h).
 */
#include "ops/daemon.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "base/log.h"
#include "kern/privilege.h"
#include "net/balancer.h"
#include "ops/control.h"
#include "ops/control_socket.h"
#include "ops/files.h"
#include "ops/health.h"
#include "ops/key_watch.h"
#include "ops/metrics.h"
#include "ops/paths.h"
#include "ops/props.h"
#include "ops/peers.h"
#include "ops/reload.h"
#include "ops/restart_watch.h"
#include "ops/session_file.h"

#define TICK_MS 100
/* How often a drain looks whether it is over. */
#define DRAIN_MS  5
#define WHY_BYTES RELOAD_TEXT_MAX
enum daemon_signal { SIGNAL_TERM, SIGNAL_INT, SIGNAL_HUP, SIGNAL_NR };

static const int signal_numbers[SIGNAL_NR] = {SIGTERM, SIGINT, SIGHUP};

struct daemon {
	struct config *(*load)(void *arg, char *why, unsigned int why_bytes);
	void *load_arg;

	/* Written by the main thread when slots change or configurations are freed; read by
	 * health, metrics and control. */
	pthread_rwlock_t lock;
	struct paths paths;
	uid_t uid; /* who to be after the start; 0: no change */
	gid_t gid;
	struct balancer balancer;
	bool balancer_up, workers_up;
	struct metrics_base base;
	struct key_watch watch;
	struct restart_watch restarts;
	struct peers *peers; /* NULL: without others */
	struct health *health;
	struct props *props;
	struct metrics *metrics;
	struct control *control;
	struct config started; /* to tell what a reload cannot change */

	uv_loop_t loop;
	uv_signal_t signal[SIGNAL_NR];
	uv_timer_t tick, drain;
	uv_async_t ask;
	struct reload asked; /* by other threads */
	bool draining;
	uint64_t deadline_ms;
};

/* Returns 0 and a note or an empty text, or -errno and the reason. */
static int daemon_reload(void *arg, char *text, unsigned int bytes)
{
	struct daemon *d = arg;
	struct config *c;
	bool more;
	int rc;

	text[0] = '\0';
	if (d->draining) {
		snprintf(text, bytes, "kvpin is draining");
		return -ESHUTDOWN;
	}
	c = d->load(d->load_arg, text, bytes);
	if (!c) {
		rc = -EINVAL;
		goto err;
	}
	text[0] = '\0';
	more = c->limit.connections > balancer_config(&d->balancer)->limit.connections;
	pthread_rwlock_wrlock(&d->lock);
	metrics_base_take(&d->base, &d->balancer);
	rc = balancer_reload(&d->balancer, c, text, bytes);
	pthread_rwlock_unlock(&d->lock);
	if (rc)
		goto err_config;
	/* @c stays in force until the next reload, which is this thread's. */
	log_setup(c->log.level, c->log.format);
	reload_note_restarts(&d->started, c, text, bytes);
	health_reload(d->health);
	props_reload(d->props);
	LOG(INFO, "configuration reloaded", F_UINT("backends", c->nr_backends),
	    F_STR("note", text));
	if (more)
		files_warn(c);
	return 0;
err_config:
	free(c);
err:
	LOG(ERROR, "reload failed, the old configuration stays in force", F_STR("error", text));
	return rc;
}

/* From the control socket's thread. */
static int daemon_ask_reload(void *arg, char *text, unsigned int bytes)
{
	struct daemon *d = arg;

	return reload_ask(&d->asked, &d->ask, text, bytes);
}

static void on_ask(uv_async_t *async)
{
	struct daemon *d = async->data;

	reload_answer(&d->asked, daemon_reload, d);
}

static void on_tick(uv_timer_t *timer)
{
	struct daemon *d = timer->data;

	pthread_rwlock_wrlock(&d->lock);
	balancer_tick(&d->balancer);
	if (d->paths.splice) {
		splice_tick(d->paths.splice, balancer_config(&d->balancer));
		splice_inherit(d->paths.splice, &d->balancer);
	}
	pthread_rwlock_unlock(&d->lock);
	key_watch_tick(&d->watch, &d->balancer);
	restart_watch_tick(&d->restarts, &d->balancer);
}

static void on_drain(uv_timer_t *timer)
{
	struct daemon *d = timer->data;

	if (balancer_idle(&d->balancer)) {
		LOG(INFO, "drained");
		uv_stop(&d->loop);
	} else if (balancer_now_ms() >= d->deadline_ms) {
		LOG(WARN, "drain deadline passed, cutting what is left",
		    F_UINT("connections", atomic_load(&d->balancer.connections)));
		uv_stop(&d->loop);
	}
}

static void on_signal(uv_signal_t *handle, int number)
{
	struct daemon *d = handle->data;
	char text[WHY_BYTES];
	uint32_t drain_ms;

	if (number == SIGHUP) {
		daemon_reload(d, text, sizeof(text)); /* it logs */
		return;
	}
	if (d->draining) {
		LOG(WARN, "second signal, stopping at once", F_STR("signal", strsignal(number)),
		    F_UINT("connections", atomic_load(&d->balancer.connections)));
		uv_stop(&d->loop);
		return;
	}
	drain_ms = balancer_config(&d->balancer)->timeout.drain_ms;
	LOG(INFO, "draining", F_STR("signal", strsignal(number)),
	    F_UINT("connections", atomic_load(&d->balancer.connections)),
	    F_UINT("deadline_ms", drain_ms));
	d->draining = true;
	d->deadline_ms = balancer_now_ms() + drain_ms;
	balancer_drain(&d->balancer);
	uv_timer_start(&d->drain, on_drain, DRAIN_MS, DRAIN_MS);
}

static int loop_start(struct daemon *d, char *why, unsigned int why_bytes)
{
	int rc;

	for (int i = 0; i < SIGNAL_NR; i++) {
		uv_signal_init(&d->loop, &d->signal[i]);
		d->signal[i].data = d;
	}
	uv_timer_init(&d->loop, &d->tick);
	uv_timer_init(&d->loop, &d->drain);
	d->tick.data = d->drain.data = d;
	d->ask.data = d;
	rc = uv_async_init(&d->loop, &d->ask, on_ask);
	for (int i = 0; !rc && i < SIGNAL_NR; i++)
		rc = uv_signal_start(&d->signal[i], on_signal, signal_numbers[i]);
	if (rc)
		snprintf(why, why_bytes, "cannot start the event loop: %s", uv_strerror(rc));
	return rc;
}

static void close_walk(uv_handle_t *handle, void *arg)
{
	if (!uv_is_closing(handle))
		uv_close(handle, NULL);
}

static void loop_stop(struct daemon *d)
{
	uv_walk(&d->loop, close_walk, NULL);
	uv_run(&d->loop, UV_RUN_DEFAULT);
	uv_loop_close(&d->loop);
}

static void daemon_ready(const struct daemon *d, const struct config *c)
{
	char listeners[LISTEN_MAX * (ADDR_TEXT_MAX + 1)] = "", metrics[ADDR_TEXT_MAX] = "";
	char text[ADDR_TEXT_MAX];
	struct addr addr;
	size_t len = 0;

	for (unsigned int i = 0; i < c->nr_listen; i++) {
		addr = balancer_listen_addr(&d->balancer, i);
		len += snprintf(listeners + len, sizeof(listeners) - len, "%s%s", i ? "," : "",
				addr_format(&addr, text));
	}
	if (d->metrics) {
		addr = metrics_addr(d->metrics);
		addr_format(&addr, metrics);
	}
	LOG(INFO, "kvpin ready", F_STR("version", KVPIN_VERSION), F_INT("pid", getpid()),
	    F_STR("listen", listeners), F_UINT("backends", c->nr_backends),
	    F_UINT("workers", d->balancer.nr_workers), F_STR("path", paths_text(&d->paths)),
	    F_STR("metrics", metrics), F_STR("control", d->control ? d->started.control : ""));
}

/* Before a listener opens. What a crash left in the kernel is newer than any file. */
static void sessions_load(struct daemon *d)
{
	const char *path = config_session_state(balancer_config(&d->balancer));
	uint32_t adopted = d->paths.steer ? steer_adopt(d->paths.steer, &d->balancer) : 0;

	if (adopted)
		LOG(INFO, "sessions of a kvpin that did not end cleanly adopted",
		    F_UINT("sessions", adopted));
	if (path)
		session_file_load(path, &d->balancer, &d->restarts);
}

/* Only what the start needs is in effect from here on. */
static int privilege_begin(struct daemon *d, const struct config *c, char *why,
			   unsigned int why_bytes)
{
	int rc = 0;

	if (c->user[0] && geteuid() == 0)
		rc = privilege_user(c->user, &d->uid, &d->gid, why, why_bytes);
	if (!rc)
		rc = privilege_keep_for_load(PRIVILEGE_BIND | PRIVILEGE_GIVE, why, why_bytes);
	return rc;
}

/* Loaded and bound: nothing needs a privilege any more. Before the first thread. */
static int privilege_end(struct daemon *d, const struct config *c, char *why,
			 unsigned int why_bytes)
{
	if (d->uid && c->control[0])
		control_socket_give(c->control, d->uid, d->gid);
	return privilege_drop(c->user, why, why_bytes);
}

/* Before the balancer: listeners are shared between processes, so a kvpin that is started twice by
 * mistake would take clients away from the first and cut them when it finds out. */
static int claims_open(struct daemon *d, const struct config *c, char *why, unsigned int why_bytes)
{
	int rc;

	if (c->control[0]) {
		rc = control_open(&d->control, c->control, why, why_bytes);
		if (rc)
			return rc;
	}
	if (!c->has_metrics)
		return 0;
	d->metrics = metrics_open(&c->metrics, why, why_bytes);
	return d->metrics ? 0 : -EIO;
}

/* What needs privileges or a whole configuration, up to the tables. @c is the balancer's on
 * success. */
static int tables_open(struct daemon *d, struct config *c, char *why, unsigned int why_bytes)
{
	int rc = privilege_begin(d, c, why, why_bytes);

	if (!rc)
		rc = claims_open(d, c, why, why_bytes);
	if (!rc)
		rc = paths_open(&d->paths, c, d->uid, d->gid, why, why_bytes);
	if (!rc)
		rc = peers_open(&d->peers, c, why, why_bytes);
	if (rc)
		return rc;
	d->balancer.peers = d->peers;
	d->balancer.steer = d->paths.steer;
	d->balancer.splice = d->paths.splice;
	return balancer_init(&d->balancer, c, why, why_bytes);
}

/* The threads beside the workers. */
static int helpers_start(struct daemon *d, char *why, unsigned int why_bytes)
{
	const struct control_params control = {
		.balancer = &d->balancer,
		.base = &d->base,
		.watch = &d->watch,
		.lock = &d->lock,
		.reload = daemon_ask_reload,
		.arg = d,
	};
	int rc;

	d->health = health_start(&d->balancer, &d->lock, why, why_bytes);
	if (!d->health)
		return -EIO;
	d->props = props_start(&d->balancer, &d->lock, why, why_bytes);
	if (!d->props)
		return -EIO;
	rc = peers_serve(d->peers, &d->lock, why, why_bytes);
	if (!rc && d->metrics)
		rc = metrics_serve(d->metrics, &d->balancer, &d->base, &d->lock, why, why_bytes);
	if (!rc && d->control)
		rc = control_serve(d->control, &control, why, why_bytes);
	return rc;
}

/* All parts, in order. On failure what came up is left to daemon_stop(). */
static int daemon_start(struct daemon *d, char *why, unsigned int why_bytes)
{
	struct config *c = d->load(d->load_arg, why, why_bytes);
	int rc;

	if (!c)
		return -EINVAL;
	log_setup(c->log.level, c->log.format);
	files_raise();
	files_warn(c);
	d->started = *c;
	rc = tables_open(d, c, why, why_bytes);
	if (rc) {
		free(c);
		return rc;
	}
	d->balancer_up = true;
	if (d->paths.splice)
		splice_inherit(d->paths.splice, &d->balancer);
	restart_watch_init(&d->restarts);
	sessions_load(d);
	peers_attach(d->peers, &d->balancer);
	rc = balancer_listen(&d->balancer, why, why_bytes);
	if (!rc)
		rc = privilege_end(d, c, why, why_bytes);
	if (rc)
		return rc;
	session_file_warn(config_session_state(c));
	/* Who listens before the first request goes there. */
	restart_watch_tick(&d->restarts, &d->balancer);
	rc = balancer_start(&d->balancer, why, why_bytes);
	if (rc)
		return rc;
	d->workers_up = true;
	rc = helpers_start(d, why, why_bytes);
	if (!rc)
		daemon_ready(d, c);
	return rc;
}

/* All that a kvpin which served knows; one that did not start leaves the file as it is. */
static void sessions_save(struct daemon *d)
{
	const char *path = config_session_state(balancer_config(&d->balancer));

	if (path && d->workers_up)
		session_file_save(path, &d->balancer, &d->restarts);
}

static void daemon_stop(struct daemon *d)
{
	reload_close(&d->asked);
	control_stop(d->control);
	metrics_stop(d->metrics);
	props_stop(d->props);
	health_stop(d->health);
	if (d->balancer_up)
		balancer_halt(&d->balancer);
	peers_stop(d->peers);
	if (d->balancer_up) {
		sessions_save(d);
		restart_watch_fini(&d->restarts);
		balancer_fini(&d->balancer);
	}
	paths_close(&d->paths);
	loop_stop(d);
}

/* A reader that comes again and again must not keep the main thread waiting. */
static void lock_init(pthread_rwlock_t *lock)
{
	pthread_rwlockattr_t attr;

	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(lock, &attr);
	pthread_rwlockattr_destroy(&attr);
}

int daemon_run(struct config *(*load)(void *arg, char *why, unsigned int why_bytes), void *arg)
{
	struct daemon *d = calloc(1, sizeof(*d));
	char why[WHY_BYTES] = "";
	sigset_t ours, before;
	int rc;

	if (!d) {
		LOG(ERROR, "cannot start", F_STR("error", "out of memory"));
		return 1;
	}
	rc = uv_loop_init(&d->loop);
	if (rc) {
		LOG(ERROR, "cannot start", F_STR("error", uv_strerror(rc)));
		free(d);
		return 1;
	}
	d->load = load;
	d->load_arg = arg;
	lock_init(&d->lock);
	reload_init(&d->asked);

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&ours);
	for (int i = 0; i < SIGNAL_NR; i++)
		sigaddset(&ours, signal_numbers[i]);
	pthread_sigmask(SIG_BLOCK, &ours, &before);

	rc = loop_start(d, why, sizeof(why));
	if (!rc)
		rc = daemon_start(d, why, sizeof(why));
	if (rc) {
		LOG(ERROR, "cannot start", F_STR("error", why));
	} else {
		uv_timer_start(&d->tick, on_tick, TICK_MS, TICK_MS);
		pthread_sigmask(SIG_UNBLOCK, &ours, NULL);
		uv_run(&d->loop, UV_RUN_DEFAULT);
		pthread_sigmask(SIG_BLOCK, &ours, NULL);
	}
	daemon_stop(d);
	if (!rc)
		LOG(INFO, "kvpin stopped");
	/* A signal that came while stopping has got what it wanted: it must not turn the exit
	 * status into a death by signal. */
	for (int i = 0; i < SIGNAL_NR; i++) {
		signal(signal_numbers[i], SIG_IGN);
		signal(signal_numbers[i], SIG_DFL);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	reload_fini(&d->asked);
	pthread_rwlock_destroy(&d->lock);
	free(d);
	return rc ? 1 : 0;
}
