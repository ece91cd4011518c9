/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * conn.c: owns the sockets. Happy path: conn_open, requests are rendered and pumped out, answers
 * are fed to answer.c, conn_refill asks for more. Failure: conn_fail charges every unanswered
 * request of the connection with the reason and opens a new one. Close: conn_recycle, the only
 * place where a connection's next life (reopen, wait, end) is decided.
 *
 * Edge-triggered epoll, one registration per socket: a small request costs epoll_wait, recv and
 * sendmsg, nothing else.
 */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONN_EVENTS    (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)
#define READS_PER_TURN 16 /* one fast sender must not starve the others */
/* One request per connection leaves a TIME_WAIT each: spread them over source addresses. */
#define SOURCES_NR  32
#define SOURCE_BASE 0x7f4d0001u /* 127.77.0.1 */

static uint8_t in[IN_BYTES];

static void delay_add(struct delay_queue *q, struct conn *c)
{
	c->delayed = true;
	c->delay_next = NULL;
	c->delay_until_ns = c->load->now_ns + q->delay_ns;
	*q->last = c;
	q->last = &c->delay_next;
}

struct conn *delay_take(struct delay_queue *q, uint64_t now_ns)
{
	struct conn *c = q->first;

	if (!c || c->delay_until_ns > now_ns)
		return NULL;
	q->first = c->delay_next;
	if (!q->first)
		q->last = &q->first;
	c->delayed = false;
	return c;
}

bool conn_may_start(const struct conn *c)
{
	const struct load *l = c->load;
	const struct opts *o = l->opts;

	if (l->interrupted || l->gave_up)
		return false;
	if (l->phase == PHASE_WARM || o->mode == MODE_IDLE)
		return !c->served && !c->pending_nr;
	if (l->phase != PHASE_RUN || l->now_ns >= l->stop_ns)
		return false;
	return !o->requests || l->started < o->requests;
}

static void conn_close(struct conn *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->generation++;
	c->state = CONN_CLOSED;
	c->close_after = c->eof = false;
	c->out_len = c->out_off = 0;
	c->body_left = 0;
	c->last_chunk_due = false;
	c->pending_head = c->pending_nr = 0;
}

void conn_end(struct conn *c)
{
	conn_close(c);
	c->state = CONN_ENDED;
	c->load->live--;
}

/* Starts as many requests as the pipeline, the limits and the buffer allow. */
void conn_refill(struct conn *c)
{
	struct load *l = c->load;
	const struct opts *o = l->opts;

	while (c->pending_nr < o->pipeline && send_room(c) && conn_may_start(c)) {
		struct pending *p = &c->pending[(c->pending_head + c->pending_nr++) % o->pipeline];

		p->start_ns = l->now_ns;
		p->session = o->sessions ? (uint32_t)load_random_below(l, o->sessions) : c->index;
		send_request(c, p);
		l->started++;
		c->progress_ns = l->now_ns;
	}
}

static int conn_open(struct conn *c)
{
	struct load *l = c->load;
	struct sockaddr_in from = {.sin_family = AF_INET};
	struct epoll_event ev = {.events = CONN_EVENTS};
	int one = 1, r;

	answer_init(c);
	conn_refill(c);
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return -errno;
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (l->opts->mode == MODE_CONNS && ntohl(l->opts->to.sin_addr.s_addr) >> 24 == 127) {
		setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
		from.sin_addr.s_addr = htonl(SOURCE_BASE + (uint32_t)(l->connects % SOURCES_NR));
		if (bind(c->fd, (struct sockaddr *)&from, sizeof(from)))
			return -errno;
	}
	l->connects++;
	c->state = CONN_CONNECTING;
	c->progress_ns = l->now_ns;
	r = connect(c->fd, (const struct sockaddr *)&l->opts->to, sizeof(l->opts->to));
	if (r && errno != EINPROGRESS)
		return -errno;
	ev.data.u64 = (uint64_t)c->generation << 32 | c->index;
	return epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, c->fd, &ev) ? -errno : 0;
}

void conn_charge(struct conn *c, enum err kind, int errnum)
{
	struct load *l = c->load;
	const char *reused = c->served ? " (reused)" : "", *why = "", *where;

	if (errnum)
		why = strerrordesc_np(errnum);
	where = c->answer.open ? "in the answer" : "before the answer";
	if ((kind == ERR_EOF || kind == ERR_RESET) && c->answer.open)
		l->truncated++;
	for (uint32_t i = 0; i < c->pending_nr; i++) {
		if (i)
			where = "pipelined behind a failed request";
		stat_error(l, kind, "connection %u%s, %s %s", c->index, reused, where, why);
	}
	if (!c->pending_nr && kind != ERR_EOF)
		stat_error(l, kind, "connection %u%s, idle %s", c->index, reused, why);
}

/* The connection is over (or was never there): what becomes of it? */
void conn_recycle(struct conn *c)
{
	int r;

	conn_close(c);
	while (conn_may_start(c)) {
		r = conn_open(c);
		if (!r)
			return;
		conn_charge(c, ERR_CONNECT, -r);
		conn_close(c);
	}
	if (c->parked)
		return; /* may open again when the phase changes */
	conn_end(c);
}

void conn_fail(struct conn *c, enum err kind, int errnum)
{
	conn_charge(c, kind, errnum);
	conn_recycle(c);
}

void conn_pump(struct conn *c)
{
	struct load *l = c->load;
	int r;

	do {
		r = send_pump(c);
		if (r < 0) {
			/* The peer may have answered and closed: what it said is read first. */
			if (r == -EPIPE || r == -ECONNRESET)
				return;
			conn_fail(c, ERR_RESET, -r);
			return;
		}
		if (c->delayed) {
			delay_add(&l->fragment, c);
			return;
		}
		if (r)
			conn_refill(c);
	} while (r && send_pending(c));
}

static void conn_park(struct conn *c)
{
	if (c->parked)
		return;
	c->parked = true;
	c->load->parked++;
}

/* Answers came in; the connection is idle, or has pipelined requests outstanding. */
void conn_next(struct conn *c)
{
	struct load *l = c->load;
	const struct opts *o = l->opts;

	if (!c->served || c->delayed)
		return;
	if (l->phase == PHASE_WARM || o->mode == MODE_IDLE) {
		if (c->pending_nr)
			return;
		conn_park(c);
		if (c->close_after)
			conn_recycle(c);
		return;
	}
	if (c->close_after || (o->mode == MODE_CONNS && !c->pending_nr)) {
		conn_charge(c, ERR_EOF, 0);
		c->pending_nr = 0;
		conn_close(c);
	}
	if (l->think.delay_ns && !c->pending_nr) {
		if (conn_may_start(c))
			delay_add(&l->think, c);
		else
			conn_end(c);
		return;
	}
	if (c->state == CONN_CLOSED) {
		conn_recycle(c);
		return;
	}
	conn_refill(c);
	if (!c->pending_nr)
		conn_end(c);
	else if (send_pending(c))
		conn_pump(c);
}

/* End of stream: it may be the end of an answer, the end of a connection, or a truncation. */
static void conn_eof(struct conn *c)
{
	struct load *l = c->load;

	if (c->answer.open && answer_feed(c, NULL, 0) == 0 && !c->answer.open) {
		c->close_after = true;
		conn_next(c);
		return;
	}
	if (c->pending_nr) {
		conn_fail(c, ERR_EOF, 0);
		return;
	}
	l->idle_closed++;
	if (c->delayed) {
		conn_close(c); /* thinking: opens again when it has thought */
	} else if (c->served) {
		c->close_after = true;
		conn_next(c);
	} else {
		conn_recycle(c);
	}
}

static void conn_read(struct conn *c, uint32_t events)
{
	struct load *l = c->load;
	ssize_t n;

	for (int i = 0; i < READS_PER_TURN; i++) {
		n = recv(c->fd, in, sizeof(in), MSG_DONTWAIT);
		if (n < 0) {
			if (errno == EAGAIN)
				goto out;
			if (errno == EINTR)
				continue;
			if (!c->pending_nr && errno == ECONNRESET)
				conn_eof(c); /* idle: reset or closed, no request is hurt */
			else
				conn_fail(c, ERR_RESET, errno);
			return;
		}
		if (!n) {
			conn_eof(c);
			return;
		}
		l->bytes_in += (uint64_t)n;
		c->progress_ns = l->now_ns;
		if (answer_feed(c, in, (size_t)n)) {
			conn_fail(c, ERR_PARSE, 0);
			return;
		}
		/*
		 * A short read has emptied the socket. If the end is behind it, that was announced
		 * and is read now: no request goes out on a connection known to be closing.
		 */
		if ((size_t)n < sizeof(in) && !(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
			goto out;
	}
	/* Not drained: MOD makes an edge-triggered epoll look again. */
	epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, c->fd,
		  &(struct epoll_event){.events = CONN_EVENTS,
					.data.u64 = (uint64_t)c->generation << 32 | c->index});
out:
	conn_next(c);
}

void conn_event(struct conn *c, uint32_t events)
{
	uint32_t generation = c->generation;
	socklen_t len = sizeof(int);
	int errnum = 0;

	if (c->state == CONN_CONNECTING) {
		getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &errnum, &len);
		if (errnum) {
			conn_fail(c, ERR_CONNECT, errnum);
			return;
		}
		if (!(events & EPOLLOUT))
			return;
		c->state = CONN_OPEN;
		c->served = false;
		c->progress_ns = c->load->now_ns;
	}
	if ((events & EPOLLOUT) && send_pending(c) && !c->delayed)
		conn_pump(c);
	if (c->generation == generation && c->fd >= 0 &&
	    (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
		conn_read(c, events);
}
