/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * kvpin-sim: listening sockets, loading, refusing and shutting down. Owns the loop; knows
 * nothing of HTTP.
 *
 * Start: bind at once (the port is known and refuses), listen after half of --load-ms, serve after
 * all of it. SIGTERM: llama freezes its streams, two seconds later sends one ping each and EOF;
 * uvicorn finishes what runs, then ends; a second signal ends at once.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "model.h"

#define STOP_GRACE_MS	  2000 /* llama-server: SIGTERM to EOF, captured */
#define ACCEPTS_PER_EVENT 64

bool sim_loading, sim_stopping;

struct listener {
	struct sockaddr_storage addr;
	socklen_t addr_len;
	int fd;
	bool polling;
	uv_poll_t *poll;
};

static uv_loop_t loop;
static struct listener listeners[16];
static struct timer load_timer, refuse_timer, stop_timer;
static uv_signal_t sig_term, sig_int;
static unsigned load_step;
static uint64_t stop_ns;

void sim_log(const char *fmt, ...)
{
	va_list ap;

	if (opt.quiet)
		return;
	va_start(ap, fmt);
	fprintf(stderr, "kvpin-sim %s: ", opt.name);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
}

/* ---- listening */

static int addr_parse(const char *text, struct listener *l)
{
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&l->addr;
	struct sockaddr_in *in = (struct sockaddr_in *)&l->addr;
	const char *colon = strrchr(text, ':');
	char host[64] = "";
	size_t len;

	if (!colon || (size_t)(colon - text) >= sizeof(host))
		return -EINVAL;
	len = colon - text;
	if (len > 2 && text[0] == '[' && text[len - 1] == ']') {
		memcpy(host, text + 1, len - 2);
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(atoi(colon + 1));
		l->addr_len = sizeof(*in6);
		return inet_pton(AF_INET6, host, &in6->sin6_addr) == 1 ? 0 : -EINVAL;
	}
	memcpy(host, text, len);
	in->sin_family = AF_INET;
	in->sin_port = htons(atoi(colon + 1));
	l->addr_len = sizeof(*in);
	return inet_pton(AF_INET, host, &in->sin_addr) == 1 ? 0 : -EINVAL;
}

static int listener_bind(struct listener *l)
{
	int one = 1;

	l->fd = socket(l->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (l->fd < 0)
		return -errno;
	setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (l->addr.ss_family == AF_INET6)
		setsockopt(l->fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(l->fd, (struct sockaddr *)&l->addr, l->addr_len) < 0)
		return -errno;
	getsockname(l->fd, (struct sockaddr *)&l->addr, &l->addr_len); /* port 0 no more */
	return 0;
}

static void listener_say(const struct listener *l, const char *what)
{
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&l->addr;
	const struct sockaddr_in *in = (const struct sockaddr_in *)&l->addr;
	char host[64];

	if (l->addr.ss_family == AF_INET6)
		printf("%s [%s]:%u\n", what,
		       inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host)),
		       ntohs(in6->sin6_port));
	else
		printf("%s %s:%u\n", what, inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host)),
		       ntohs(in->sin_port));
	fflush(stdout);
}

static void on_accept(uv_poll_t *p, int status, int events)
{
	const struct listener *l = p->data;

	for (unsigned i = 0; i < ACCEPTS_PER_EVENT; i++)
		if (conn_accept(&loop, l->fd) < 0)
			return;
}

static int listener_open(struct listener *l)
{
	if (listen(l->fd, 4096) < 0)
		return -errno;
	l->poll = xalloc(sizeof(*l->poll));
	l->poll->data = l;
	uv_poll_init_socket(&loop, l->poll, l->fd);
	uv_poll_start(l->poll, UV_READABLE, on_accept);
	return 0;
}

static void poll_closed(uv_handle_t *h)
{
	free(h);
}

static void listener_close(struct listener *l)
{
	if (l->poll) {
		uv_poll_stop(l->poll);
		uv_close((uv_handle_t *)l->poll, poll_closed);
		l->poll = NULL;
	}
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
}

static void each_listener_close(void)
{
	for (unsigned i = 0; i < opt.listen_nr; i++)
		listener_close(&listeners[i]);
}

static void each_listener_open(void)
{
	for (unsigned i = 0; i < opt.listen_nr; i++)
		if (listener_open(&listeners[i]) < 0)
			sim_log("listen: %s", strerror(errno));
}

/* A bound socket that does not listen refuses, and nobody else can take the port. */
void sim_refuse(uint64_t for_ms)
{
	timer_stop(&refuse_timer);
	if (for_ms && !sim_stopping) {
		for (unsigned i = 0; i < opt.listen_nr; i++) {
			listener_close(&listeners[i]);
			if (listener_bind(&listeners[i]) < 0)
				sim_log("bind: %s", strerror(errno));
		}
		timer_arm(&refuse_timer, now_ns() + ms_ns(for_ms));
	} else if (!listeners[0].poll && !sim_stopping) {
		each_listener_open();
	}
}

static void on_refuse_over(struct timer *t)
{
	opt.faults.health = HEALTH_OK;
	sim_refuse(0);
}

static void on_load(struct timer *t)
{
	if (load_step++ == 0) {
		each_listener_open();
		for (unsigned i = 0; i < opt.listen_nr; i++)
			listener_say(&listeners[i], "listening");
		timer_arm(&load_timer, now_ns() + ms_ns(opt.load_ms - opt.load_ms / 2));
		return;
	}
	sim_loading = false;
	printf("ready %s\n", opt.name);
	fflush(stdout);
}

/* ---- stopping */

static void stop_now(void)
{
	sigset_t both;

	/* closing its handle gives a signal its deadly default back: a late one must not kill */
	sigemptyset(&both);
	sigaddset(&both, SIGTERM);
	sigaddset(&both, SIGINT);
	sigprocmask(SIG_BLOCK, &both, NULL);
	timer_stop(&load_timer);
	timer_stop(&refuse_timer);
	timer_stop(&stop_timer);
	each_listener_close();
	conn_drop_all();
	uv_close((uv_handle_t *)&sig_term, NULL);
	uv_close((uv_handle_t *)&sig_int, NULL);
	timer_loop_close();
}

static void llama_last_ping(struct conn *c)
{
	if (c->u.job && c->phase == PHASE_ANSWER && c->ops && c->req.ep && c->req.ep->body &&
	    c->u.job->stream && c->u.job->state != JOB_QUEUED) {
		conn_write(c, "3\r\n:\n\n\r\n", 8);
		conn_flush(c);
	}
}

static void on_stop_over(struct timer *t)
{
	if (sim_llama())
		conn_each(llama_last_ping);
	else if (conns_open && (model_busy() || now_ns() < stop_ns + ms_ns(STOP_GRACE_MS))) {
		/* look again: an answer is still running */
		timer_arm(&stop_timer, now_ns() + ms_ns(5));
		return;
	}
	stop_now();
}

static void conn_stop_idle(struct conn *c)
{
	if (c->phase == PHASE_HEAD) {
		c->finishing = true;
		conn_settle(c);
	}
}

static void on_signal(uv_signal_t *h, int signum)
{
	if (sim_stopping) {
		stop_now();
		return;
	}
	sim_stopping = true;
	stop_ns = now_ns();
	each_listener_close();
	conn_each(conn_stop_idle);
	if (sim_llama() && (model_busy() || model_queued())) {
		model_freeze();
		timer_arm(&stop_timer, now_ns() + ms_ns(STOP_GRACE_MS));
	} else {
		timer_arm(&stop_timer, now_ns() + ms_ns(sim_llama() ? 0 : 5));
	}
}

int main(int argc, char **argv)
{
	struct rlimit files;
	int err;

	options_read(argc, argv);
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	uv_loop_init(&loop);
	err = timer_loop_init(&loop);
	for (unsigned i = 0; i < opt.listen_nr && !err; i++) {
		listeners[i].fd = -1;
		err = addr_parse(opt.listen[i], &listeners[i]);
		if (!err)
			err = listener_bind(&listeners[i]);
		if (err)
			fprintf(stderr, "kvpin-sim: %s: %s\n", opt.listen[i], strerror(-err));
	}
	if (err)
		return 1;
	http_init();
	slot_init();
	load_timer.fn = on_load;
	refuse_timer.fn = on_refuse_over;
	stop_timer.fn = on_stop_over;
	uv_signal_init(&loop, &sig_term);
	uv_signal_start(&sig_term, on_signal, SIGTERM);
	uv_signal_init(&loop, &sig_int);
	uv_signal_start(&sig_int, on_signal, SIGINT);
	if (opt.load_ms) {
		sim_loading = true;
		for (unsigned i = 0; i < opt.listen_nr; i++)
			listener_say(&listeners[i], "bound");
		timer_arm(&load_timer, now_ns() + ms_ns(opt.load_ms / 2));
	} else {
		each_listener_open();
		for (unsigned i = 0; i < opt.listen_nr; i++)
			listener_say(&listeners[i], "listening");
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	model_fini();
	conv_fini();
	stats_fini();
	timer_fini();
	uv_loop_close(&loop);
	return 0;
}
