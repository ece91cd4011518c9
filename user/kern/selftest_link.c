/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The ground that the checks of behaviour stand on: programs, connections, the pattern of bytes;
 * and the checks of that ground itself.
 *
 * The pattern repeats after a prime number of bytes, so lost, repeated or exchanged segments show
 * at the next byte that is compared.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "kern/kern_log.h"
#include "kern/selftest_private.h"
#include "selftest.skel.h"

#define PATTERN_PERIOD 65521
/* Who waits wakes up ever later: threads that look thousands of times a second can keep the
 * kernel's worker, which has the redirected bytes, from a busy CPU for seconds (seen on 6.18). */
#define NAP_MIN_NS 20000
#define NAP_MAX_NS 5000000
/* What the relay's own check moves. */
#define LOOPBACK_BYTES 262144

uint64_t bench_word(const struct selftest_bench *b)
{
	return __atomic_load_n(&b->skel->bss->word, __ATOMIC_ACQUIRE);
}

void bench_reset(struct selftest_bench *b, uint64_t word)
{
	memset(b->skel->bss, 0, sizeof(*b->skel->bss));
	__atomic_store_n(&b->skel->bss->word, word, __ATOMIC_RELEASE);
}

bool bench_faults(const struct selftest_bench *b, struct selftest *t)
{
	const typeof(*b->skel->bss) *s = b->skel->bss;

	if (!s->no_tail_call && !s->no_target && !s->no_tcp_sock && !s->not_copied)
		return false;
	selftest_fail(t, SELFTEST_NEWER,
		      "helpers failed in the program: tail call %u times, sockhash lookup %u, "
		      "bpf_skc_to_tcp_sock %u, copy %u",
		      s->no_tail_call, s->no_target, s->no_tcp_sock, s->not_copied);
	return true;
}

/* Of this thread, since it last moved a byte. */
static _Thread_local long nap_ns = NAP_MIN_NS;

void bench_nap(void)
{
	struct timespec nap = {.tv_nsec = nap_ns};

	nanosleep(&nap, NULL);
	nap_ns = nap_ns * 2 < NAP_MAX_NS ? nap_ns * 2 : NAP_MAX_NS;
}

bool bench_more_time(const struct selftest_bench *b)
{
	if (selftest_now_ns() > b->end_ns)
		return false;
	bench_nap();
	return true;
}

/* RST at close: no TIME_WAIT is left. */
static void close_hard(int fd)
{
	struct linger hard = {.l_onoff = 1};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
	close(fd);
}

void bench_sweep(struct selftest_bench *b)
{
	struct timespec pause = {.tv_nsec = SELFTEST_CLOSE_MS * 1000000};
	uint64_t cookie;
	socklen_t len = sizeof(cookie);
	bool wait = false;
	uint32_t i;

	for (i = 0; i < b->nr_fds; i++) {
		wait |= b->key[i] != 0;
		if (!b->key[i])
			continue;
		bpf_map_delete_elem(b->sockets_fd, &b->key[i]);
		if (!getsockopt(b->fd[i], SOL_SOCKET, SO_COOKIE, &cookie, &len))
			bpf_map_delete_elem(b->routes_fd, &cookie);
	}
	if (wait)
		nanosleep(&pause, NULL);
	for (i = 0; i < b->nr_fds; i++)
		close_hard(b->fd[i]);
	b->nr_fds = 0;
}

void bench_fini(struct selftest_bench *b)
{
	bench_sweep(b);
	selftest_bpf__destroy(b->skel);
	b->skel = NULL;
}

static int keep(struct selftest_bench *b, int fd, uint32_t key)
{
	if (fd < 0)
		return -errno;
	if (b->nr_fds == SELFTEST_FDS_MAX) {
		close(fd);
		return -EMFILE;
	}
	b->fd[b->nr_fds] = fd;
	b->key[b->nr_fds++] = key;
	return fd;
}

/* Returns the far end, connected, or -errno; @near the other. */
static int connect_through(struct selftest_bench *b, int listener, struct selftest_link *l)
{
	struct sockaddr_in addr;
	socklen_t len = sizeof(addr);
	int err;

	if (getsockname(listener, (struct sockaddr *)&addr, &len))
		return -errno;
	l->far = keep(b, socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), 0);
	if (l->far < 0)
		return l->far;
	if (connect(l->far, (struct sockaddr *)&addr, len) && errno != EINPROGRESS)
		return -errno;
	for (;;) {
		l->near = keep(b, accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK),
			       l->key);
		if (l->near >= 0)
			return 0;
		err = l->near;
		if (err != -EAGAIN)
			return err;
		if (!bench_more_time(b))
			return -ETIMEDOUT;
	}
}

bool link_open(struct selftest_bench *b, struct selftest_link *l, int rcvbuf, struct selftest *t)
{
	struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int listener, err, one = 1;

	*l = (struct selftest_link){.near = -1, .far = -1, .key = ++b->keys};
	/* IPPROTO_TCP: where MPTCP is the default, its sockets cannot enter a sockhash. */
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
	if (listener < 0) {
		err = -errno;
		goto out;
	}
	if (rcvbuf)
		setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof(rcvbuf));
	if (bind(listener, (struct sockaddr *)&any, sizeof(any)) || listen(listener, 1))
		err = -errno;
	else
		err = connect_through(b, listener, l);
	close(listener);
out:
	if (err) {
		selftest_fail(t,
			      err == -EMFILE ? "raise the limit of open files (LimitNOFILE=)"
					     : "let the loopback device be up and TCP work on it",
			      "no connection over 127.0.0.1: %s", strerror(-err));
		return false;
	}
	setsockopt(l->far, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(l->near, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return true;
}

int link_insert(struct selftest_bench *b, struct selftest_link *l)
{
	uint64_t fd = l->near;

	return bpf_map_update_elem(b->sockets_fd, &l->key, &fd, BPF_NOEXIST) ? -errno : 0;
}

void link_delete(struct selftest_bench *b, struct selftest_link *l)
{
	bpf_map_delete_elem(b->sockets_fd, &l->key);
}

int link_route(struct selftest_bench *b, const struct selftest_link *from,
	       const struct selftest_link *to)
{
	uint64_t cookie;
	socklen_t len = sizeof(cookie);

	if (getsockopt(from->near, SOL_SOCKET, SO_COOKIE, &cookie, &len))
		return -errno;
	return bpf_map_update_elem(b->routes_fd, &cookie, &to->key, BPF_ANY) ? -errno : 0;
}

bool link_steer(struct selftest_bench *b, struct selftest_link *from, struct selftest_link *to,
		int rcvbuf, uint64_t word, struct selftest *t)
{
	int err;

	if (!link_open(b, from, rcvbuf, t) || !link_open(b, to, 0, t))
		return false;
	bench_reset(b, word);
	err = link_insert(b, to);
	if (!err)
		err = link_route(b, from, to);
	if (!err)
		err = link_insert(b, from);
	if (err)
		selftest_fail(t, SELFTEST_NEWER, "a connected socket into the sockhash: %s",
			      strerror(-err));
	return !err;
}

static const uint8_t *pattern(void)
{
	static uint8_t bytes[PATTERN_PERIOD + SELFTEST_BLOCK];
	uint32_t x = 0x9e3779b9;
	unsigned int i;

	if (bytes[0])
		return bytes;
	for (i = PATTERN_PERIOD; i--;) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		bytes[i] = x >> 8 | !i;
	}
	for (i = 0; i < SELFTEST_BLOCK; i++)
		bytes[PATTERN_PERIOD + i] = bytes[i];
	return bytes;
}

const uint8_t *pattern_at(uint64_t position)
{
	return pattern() + position % PATTERN_PERIOD;
}

ssize_t pattern_send(int fd, uint64_t *position, uint64_t count)
{
	ssize_t n = send(fd, pattern_at(*position), count < SELFTEST_BLOCK ? count : SELFTEST_BLOCK,
			 MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	*position += n;
	nap_ns = NAP_MIN_NS;
	return n;
}

ssize_t pattern_recv(int fd, uint64_t *position)
{
	uint8_t bytes[SELFTEST_BLOCK];
	ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (n < 0)
		return -errno;
	if (memcmp(bytes, pattern_at(*position), n))
		return -EBADMSG;
	*position += n;
	nap_ns = NAP_MIN_NS;
	return n;
}

bool pattern_expect(struct selftest_bench *b, int fd, uint64_t *position, uint64_t end,
		    const char *what, struct selftest *t)
{
	ssize_t n;

	while (*position < end) {
		n = pattern_recv(fd, position);
		if (n > 0 || (n == -EAGAIN && bench_more_time(b)))
			continue;
		selftest_fail(t, SELFTEST_NEWER, "%s: after %llu of %llu bytes %s", what,
			      (unsigned long long)*position, (unsigned long long)end,
			      n == -EAGAIN    ? "no more came"
			      : n == -EBADMSG ? "others came than were sent"
			      : !n	      ? "the stream ended"
					      : strerror(-n));
		return false;
	}
	return true;
}

/* All that the relay needs of the kernel. */
void selftest_loopback(struct selftest_bench *b, struct selftest *t)
{
	uint64_t sent = 0, relayed = 0, got = 0;
	struct selftest_link in, out;
	ssize_t n;

	if (!link_open(b, &in, 0, t) || !link_open(b, &out, 0, t))
		return;
	while (got < LOOPBACK_BYTES) {
		pattern_send(in.far, &sent, LOOPBACK_BYTES - sent);
		n = pattern_recv(in.near, &relayed);
		for (uint64_t at = relayed - (n > 0 ? n : 0); n > 0 && at < relayed;) {
			if (pattern_send(out.near, &at, relayed - at) < 0)
				n = -EPIPE;
			if (at < relayed && pattern_recv(out.far, &got) == -EAGAIN &&
			    !bench_more_time(b))
				n = -ETIMEDOUT;
		}
		if (n <= 0 && n != -EAGAIN)
			break;
		n = pattern_recv(out.far, &got);
		if (n <= 0 && (n != -EAGAIN || !bench_more_time(b)))
			break;
	}
	if (got < LOOPBACK_BYTES)
		selftest_fail(t, "let TCP work on the loopback device",
			      "%llu of %d bytes came through 127.0.0.1", (unsigned long long)got,
			      LOOPBACK_BYTES);
	else
		selftest_ok(t, "%d KiB through two connections on 127.0.0.1",
			    LOOPBACK_BYTES / 1024);
}

/* Loads, fills the program array, attaches. */
static int prepare(struct selftest_bench *b, const char **step)
{
	int move_fd, verdict_fd, zero = 0;

	kern_log_begin();
	*step = "load";
	b->skel = selftest_bpf__open_and_load();
	if (!b->skel)
		return -errno;
	b->sockets_fd = bpf_map__fd(b->skel->maps.sockets);
	b->others_fd = bpf_map__fd(b->skel->maps.others);
	b->routes_fd = bpf_map__fd(b->skel->maps.routes);
	move_fd = bpf_program__fd(b->skel->progs.selftest_move);
	verdict_fd = bpf_program__fd(b->skel->progs.selftest_verdict);
	*step = "tail call table";
	if (bpf_map_update_elem(bpf_map__fd(b->skel->maps.stages), &zero, &move_fd, BPF_ANY))
		return -errno;
	*step = "attach";
	return bpf_prog_attach(verdict_fd, b->sockets_fd, BPF_SK_SKB_VERDICT, 0) ? -errno : 0;
}

void selftest_programs(struct selftest_bench *b, struct selftest *t)
{
	const char *step, *cause;
	int err;

	/* The check before this one used sockets, and its keys mean nothing yet. */
	memset(b->key, 0, sizeof(b->key));
	err = prepare(b, &step);
	cause = kern_log_cause();
	if (err)
		selftest_fail(t,
			      err == -EPERM ? "give it CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and "
					      "let seccomp and LSM rules pass bpf()"
					    : SELFTEST_NEWER,
			      "%s: %s%s%s", step, strerror(-err), *cause ? ": " : "", cause);
	else
		selftest_ok(t, "sk_skb verdict with tail call, bpf_loop, ring buffer, CO-RE and "
			       "sockhash lookup loads and attaches");
}

void selftest_sockmap_link(struct selftest_bench *b, struct selftest *t)
{
	int fd = bpf_link_create(bpf_program__fd(b->skel->progs.selftest_verdict), b->others_fd,
				 BPF_SK_SKB_VERDICT, NULL);

	if (fd < 0) {
		selftest_ok(t, "no bpf_link for sockmaps (before 6.10): plain attach is used");
		return;
	}
	close(fd);
	selftest_ok(t, "bpf_link for sockmaps exists");
}
