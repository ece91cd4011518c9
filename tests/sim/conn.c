/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Client connections: sockets, buffers, the poll set, idle limits and the ways to close. Never
 * looks into HTTP; http.c parses what arrives, answers append to `out`.
 *
 * Happy path: readable -> http_feed() -> an endpoint answers -> conn_settle() flushes and waits.
 * Failures: a socket error marks the conn dead. The running answer's `cancel` is called once.
 * Close: only conn_settle() destroys; after it returns the conn may be gone. Every entry from the
 * loop (socket, timer) ends with it.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "sim.h"

static char rbuf[1 << 18];
static char pattern[SIM_PATTERN_RUN + SIM_PATTERN_PERIOD];
static struct conn *conns;
static uint64_t next_id;
uint64_t conns_open;

size_t conn_pending(const struct conn *c)
{
	return c->out.len - c->out_off;
}

void conn_write(struct conn *c, const void *data, size_t len)
{
	buf_add(&c->out, data, len);
}

static bool conn_send(struct conn *c, const char *data, size_t len, size_t *sent)
{
	ssize_t n = send(c->fd, data, len, MSG_NOSIGNAL);

	*sent = 0;
	if (n < 0) {
		if (errno == EAGAIN || errno == EINTR)
			c->blocked = true;
		else
			c->dead = true;
		return false;
	}
	*sent = n;
	stats.bytes_out += n;
	if ((size_t)n < len)
		c->blocked = true;
	return (size_t)n == len;
}

void conn_flush(struct conn *c)
{
	size_t sent;

	if (c->dead || c->blocked || !conn_pending(c))
		return;
	conn_send(c, c->out.p + c->out_off, conn_pending(c), &sent);
	c->out_off += sent;
	if (!conn_pending(c)) {
		c->out.len = c->out_off = 0;
		if (c->out.cap > 2 * SIM_OUT_HIGH)
			buf_free(&c->out);
	}
}

void conn_send_pattern(struct conn *c)
{
	uint64_t pos;
	size_t run, sent;

	conn_flush(c);
	while (c->u.bytes.left && !c->blocked && !c->dead) {
		pos = (c->u.bytes.seed + c->u.bytes.off) % SIM_PATTERN_PERIOD;
		run = c->u.bytes.left < SIM_PATTERN_RUN ? c->u.bytes.left : SIM_PATTERN_RUN;
		conn_send(c, pattern + pos, run, &sent);
		c->u.bytes.left -= sent;
		c->u.bytes.off += sent;
		if (sent == SIM_PATTERN_RUN)
			return; /* let others have a turn; EPOLLOUT brings us back */
	}
}

void conn_answer_done(struct conn *c)
{
	c->ops = NULL;
	timer_stop(&c->tick);
	memset(&c->u, 0, sizeof(c->u));
	c->answers++;
	c->noread = false;
	c->phase = PHASE_HEAD;
	c->parsing = false;
	if (c->close_after)
		c->finishing = true;
	else if (sim_stopping || c->eof)
		c->finishing = true;
	else
		timer_arm(&c->idle, now_ns() + ms_ns(opt.idle_ms));
}

void conn_finish(struct conn *c, bool reset)
{
	const struct answer_ops *ops = c->ops;

	c->finishing = true;
	c->reset = c->reset || reset;
	c->ops = NULL;
	if (ops && ops->cancel)
		ops->cancel(c);
}

static void conn_closed(uv_handle_t *h)
{
	struct conn *c = container_of((uv_poll_t *)h, struct conn, poll);

	close(c->fd);
	buf_free(&c->in);
	buf_free(&c->out);
	request_free(&c->req);
	free(c);
}

/* The reset that unread bytes cause takes unsent bytes with it; the captured server's answer came
 * through, so wait (rarely, and shortly) until the peer has it. */
static void conn_wait_sent(int fd)
{
	int unsent = 0;

	for (int ms = 0; ms < 50; ms++) {
		if (ioctl(fd, SIOCOUTQ, &unsent) < 0 || !unsent)
			break;
		poll(NULL, 0, 1);
	}
}

static void conn_destroy(struct conn *c)
{
	struct linger reset = {.l_onoff = 1};
	static char waste[65536];
	const struct answer_ops *ops = c->ops;

	c->gone = true;
	c->ops = NULL;
	if (ops && ops->cancel)
		ops->cancel(c);
	timer_stop(&c->idle);
	timer_stop(&c->tick);
	if (c->reset) {
		setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	} else if (!c->dead) {
		/* cpp-httplib and asyncio: FIN first; unread bytes must not turn it into RST. */
		if (c->head_refused)
			conn_wait_sent(c->fd);
		while (!c->head_refused && recv(c->fd, waste, sizeof(waste), MSG_DONTWAIT) > 0)
			;
		shutdown(c->fd, SHUT_RDWR);
	}
	if (c->prev)
		c->prev->next = c->next;
	else
		conns = c->next;
	if (c->next)
		c->next->prev = c->prev;
	conns_open--;
	uv_poll_stop(&c->poll);
	uv_close((uv_handle_t *)&c->poll, conn_closed);
}

static void conn_on_poll(uv_poll_t *p, int status, int events);

static void conn_poll(struct conn *c)
{
	int wanted = 0;

	if (!c->eof) {
		wanted |= UV_DISCONNECT;
		if (c->finishing)
			;
		else if (c->phase == PHASE_HEAD || c->phase == PHASE_BODY || c->phase == PHASE_RAW)
			wanted |= conn_pending(c) < SIM_OUT_HIGH ? UV_READABLE : 0;
		else if (sim_llama())
			wanted |= c->noread ? 0 : UV_READABLE;
		else if (c->in.len < SIM_PIPELINE_MAX)
			wanted |= UV_READABLE;
	}
	if (c->blocked || conn_pending(c) || (c->ops && c->ops->pump))
		wanted |= UV_WRITABLE;
	if (wanted == c->wanted)
		return;
	c->wanted = wanted;
	uv_poll_start(&c->poll, wanted, conn_on_poll);
}

static void conn_parse(struct conn *c)
{
	size_t took;

	while (c->in.len && !c->finishing && !c->dead && c->phase != PHASE_ANSWER &&
	       conn_pending(c) < SIM_OUT_HIGH) {
		took = http_feed(c, c->in.p, c->in.len);
		if (!took)
			break;
		if (sim_llama() && c->phase != PHASE_RAW && took < c->in.len && !c->parsing)
			took = c->in.len; /* what came along with a request is lost */
		buf_eat(&c->in, took);
	}
	if (c->in.len && c->phase == PHASE_RAW && c->ops && c->ops->body) {
		c->ops->body(c, c->in.p, c->in.len);
		c->in.len = 0;
	}
}

void conn_settle(struct conn *c)
{
	uint64_t answers;
	size_t left;

	if (c->busy || c->gone)
		return;
	c->busy = true;
	do {
		left = c->in.len;
		answers = c->answers;
		conn_parse(c);
		conn_flush(c);
		if (!c->dead && !c->blocked && c->ops && c->ops->pump) {
			c->ops->pump(c);
			conn_flush(c);
		}
	} while (c->in.len && (c->in.len != left || c->answers != answers) && !c->dead &&
		 !c->blocked && !c->finishing);
	if (c->eof && c->phase == PHASE_HEAD)
		c->finishing = true;
	c->busy = false;
	if (c->dead || (c->finishing && (c->reset || !conn_pending(c))))
		conn_destroy(c);
	else
		conn_poll(c);
}

static void conn_on_eof(struct conn *c)
{
	if (c->eof)
		return;
	c->eof = true;
	c->eof_ns = now_ns();
	if (c->phase == PHASE_BODY || c->phase == PHASE_HEAD)
		conn_finish(c, false);
	else if (c->ops && c->ops->eof)
		c->ops->eof(c);
	else if (!sim_llama() && c->phase == PHASE_ANSWER)
		conn_finish(c, false); /* asyncio closes on a half-close, after flushing */
}

static void conn_read(struct conn *c)
{
	ssize_t n = recv(c->fd, rbuf, sizeof(rbuf), 0);
	size_t took = 0;

	if (n == 0) {
		conn_on_eof(c);
		return;
	}
	if (n < 0) {
		c->dead = errno != EAGAIN && errno != EINTR;
		if (c->dead && !c->eof)
			c->eof_ns = now_ns();
		return;
	}
	stats.bytes_in += n;
	if (c->phase != PHASE_RAW && !c->in.len) {
		while (took < (size_t)n && !c->finishing && c->phase != PHASE_ANSWER &&
		       conn_pending(c) < SIM_OUT_HIGH) {
			size_t k = http_feed(c, rbuf + took, n - took);

			took += k;
			if (sim_llama() && k && !c->parsing && c->phase != PHASE_RAW)
				took = n; /* what came along with a request is lost */
			if (!k)
				break;
		}
	}
	if (took < (size_t)n && !c->finishing)
		buf_add(&c->in, rbuf + took, n - took); /* conn_settle() goes on with it */
}

static void conn_on_poll(uv_poll_t *p, int status, int events)
{
	struct conn *c = container_of(p, struct conn, poll);

	c->busy = true;
	if (status < 0) {
		c->dead = true;
		c->eof_ns = c->eof ? c->eof_ns : now_ns();
	} else {
		if (events & UV_WRITABLE)
			c->blocked = false;
		if (events & UV_READABLE) {
			if (sim_llama() && c->phase == PHASE_ANSWER)
				c->noread = true;
			else
				conn_read(c);
		}
		if ((events & UV_DISCONNECT) && (c->phase == PHASE_ANSWER || c->finishing))
			conn_on_eof(c);
	}
	c->busy = false;
	conn_settle(c);
}

static void conn_on_idle(struct timer *t)
{
	struct conn *c = container_of(t, struct conn, idle);

	if (c->phase != PHASE_HEAD || c->parsing || c->in.len)
		return;
	if (conn_pending(c)) { /* a slow reader: the limit starts after its last byte */
		timer_arm(t, now_ns() + ms_ns(opt.idle_ms));
		return;
	}
	c->finishing = true;
	conn_settle(c);
}

static void conn_on_tick(struct timer *t)
{
	struct conn *c = container_of(t, struct conn, tick);

	c->busy = true;
	if (c->ops && c->ops->tick)
		c->ops->tick(c);
	c->busy = false;
	conn_settle(c);
}

int conn_accept(uv_loop_t *loop, int listen_fd)
{
	struct linger reset = {.l_onoff = 1};
	int fd, one = 1;
	struct conn *c;

	fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0)
		return -errno;
	stats.connections++;
	if (opt.faults.accept_rst_every && stats.connections % opt.faults.accept_rst_every == 0) {
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		close(fd);
		return 0;
	}
	if (!pattern[1])
		for (unsigned i = 0; i < sizeof(pattern); i++)
			pattern[i] = i % SIM_PATTERN_PERIOD;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c = xalloc(sizeof(*c));
	c->fd = fd;
	c->id = ++next_id;
	c->idle.fn = conn_on_idle;
	c->tick.fn = conn_on_tick;
	c->next = conns;
	if (conns)
		conns->prev = c;
	conns = c;
	conns_open++;
	http_begin(c);
	uv_poll_init_socket(loop, &c->poll, fd);
	/* uvicorn has no limit before the first request (captured: 80 s and more). */
	if (sim_llama())
		timer_arm(&c->idle, now_ns() + ms_ns(opt.idle_ms));
	conn_poll(c);
	return 0;
}

void conn_each(void (*fn)(struct conn *c))
{
	struct conn *c, *next;

	for (c = conns; c; c = next) {
		next = c->next;
		fn(c);
	}
}

static void conn_drop(struct conn *c)
{
	conn_destroy(c);
}

void conn_drop_all(void)
{
	conn_each(conn_drop);
}
