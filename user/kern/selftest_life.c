/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Checks of how sockets enter the sockhash, see the end of their stream, and leave.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/sockios.h>

#include "kern/selftest_private.h"
#include "selftest.skel.h"

#define FIN_BYTES 262144
/* Connections in each way of the close check, and at once. */
#define CLOSE_CONNECTIONS 200
#define CLOSE_BATCH	  50
#define CLOSE_BYTES	  20000
/* Other processes' sockets come and go in the same numbers: a leak shows twice, and in bulk. */
#define CLOSE_TRIES   8
#define CLOSE_LEAK    5
#define CLOSE_WAIT_MS 60

/* The far end closes its direction; with data still under way, or by a segment of its own. */
static bool wait_end(struct selftest_bench *b, const struct selftest_link *from, struct selftest *t)
{
	struct pollfd p = {.fd = from->near, .events = POLLRDHUP};
	uint8_t byte;
	ssize_t n;

	while (poll(&p, 1, 0) != 1 && bench_more_time(b))
		;
	n = recv(from->near, &byte, 1, MSG_DONTWAIT);
	if ((p.revents & POLLRDHUP) && !n)
		return true;
	selftest_fail(t, SELFTEST_NEWER, "after the end of the stream: POLLRDHUP %s, recv gives %s",
		      p.revents & POLLRDHUP ? "yes" : "no",
		      n > 0 ? "bytes" : strerror(n ? errno : 0));
	return false;
}

/* All that was redirected arrives, the target stays open and writable. */
static bool target_whole(struct selftest_bench *b, const struct selftest_link *to, uint64_t bytes,
			 struct selftest *t)
{
	uint64_t got = 0, at = bytes;
	ssize_t n;

	if (!pattern_expect(b, to->far, &got, bytes, "before the end", t))
		return false;
	n = pattern_recv(to->far, &got);
	if (n != -EAGAIN) {
		selftest_fail(t, SELFTEST_NEWER, "the source's end has ended the target too");
		return false;
	}
	n = pattern_send(to->near, &at, 1);
	if (n != 1) {
		selftest_fail(t, SELFTEST_NEWER, "after the source's end the target refuses: %s",
			      strerror(-n));
		return false;
	}
	return pattern_expect(b, to->far, &got, bytes + 1, "after the end", t);
}

static bool fin_once(struct selftest_bench *b, bool apart, bool drop, struct selftest *t)
{
	struct selftest_link from, to;
	uint64_t sent = 0;
	int queued = -1;

	if (!link_steer(b, &from, &to, 0, SELFTEST_WORD_REDIRECT, t))
		return false;
	b->skel->bss->drop_fin = drop;
	while (sent < FIN_BYTES) {
		if (pattern_send(from.far, &sent, FIN_BYTES - sent) <= 0 && !bench_more_time(b))
			break;
	}
	while (apart && (bench_word(b) & SELFTEST_WORD_POSITION) < sent && bench_more_time(b))
		;
	shutdown(from.far, SHUT_WR);
	if (!wait_end(b, &from, t) || !target_whole(b, &to, FIN_BYTES, t) || bench_faults(b, t))
		return false;
	if (ioctl(from.near, SIOCINQ, &queued) || queued) {
		selftest_fail(t, SELFTEST_NEWER, "at the end of the stream SIOCINQ says %d",
			      queued);
		return false;
	}
	if (apart && b->skel->bss->fins != 1) {
		selftest_fail(t, SELFTEST_NEWER, "the program saw %u empty segments for one FIN",
			      b->skel->bss->fins);
		return false;
	}
	return true;
}

void selftest_fin(struct selftest_bench *b, struct selftest *t)
{
	if (fin_once(b, true, false, t) && fin_once(b, false, false, t))
		selftest_ok(t,
			    "recv() gives 0, the redirected bytes arrive, the target stays open");
}

void selftest_drop_fin(struct selftest_bench *b, struct selftest *t)
{
	if (fin_once(b, true, true, t))
		selftest_ok(t, "a FIN whose empty segment is dropped: recv() gives 0, SIOCINQ 0");
}

/* Nothing depends on it: kvpin has one map with a program. */
void selftest_two_maps(struct selftest_bench *b, struct selftest *t)
{
	struct selftest_link from, to;
	uint64_t fd;
	int err, zero = 0;

	if (!link_steer(b, &from, &to, 0, 0, t))
		return;
	if (bpf_prog_attach(bpf_program__fd(b->skel->progs.selftest_verdict), b->others_fd,
			    BPF_SK_SKB_VERDICT, 0)) {
		selftest_fail(t, SELFTEST_NEWER, "a second map's program: %s", strerror(errno));
		return;
	}
	fd = from.near;
	err = bpf_map_update_elem(b->others_fd, &zero, &fd, BPF_ANY) ? errno : 0;
	bpf_map_delete_elem(b->others_fd, &zero);
	bpf_prog_detach2(bpf_program__fd(b->skel->progs.selftest_verdict), b->others_fd,
			 BPF_SK_SKB_VERDICT);
	selftest_ok(t, "a socket in two maps with programs: %s", err ? strerror(err) : "allowed");
}

void selftest_not_established(struct selftest_bench *b, struct selftest *t)
{
	struct pollfd p = {.events = POLLRDHUP};
	struct selftest_link l;
	int err;

	if (!link_open(b, &l, 0, t))
		return;
	shutdown(l.far, SHUT_WR);
	p.fd = l.near;
	while (poll(&p, 1, 0) != 1 && bench_more_time(b))
		;
	err = link_insert(b, &l);
	if (err == -EOPNOTSUPP)
		selftest_ok(t, "a half-closed socket is refused: %s", strerror(-err));
	else
		selftest_fail(t, SELFTEST_NEWER, "a half-closed socket into the sockhash: %s",
			      err ? strerror(-err) : "it was taken");
}

/* Sockets that exist and are in no table of live ones: orphans, and what leaked. */
static int tcp_unaccounted(void)
{
	FILE *f = fopen("/proc/net/sockstat", "re");
	int inuse = 0, alloc = 0;
	char line[256];

	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "TCP: inuse %d orphan %*d tw %*d alloc %d", &inuse, &alloc) == 2)
			break;
	}
	fclose(f);
	return alloc - inuse;
}

/* Ends the socket's connection by a RST; if it is over already, the better. */
static void reset(int fd)
{
	static const struct sockaddr nowhere = {.sa_family = AF_UNSPEC};

	(void)connect(fd, &nowhere, sizeof(nowhere));
}

/* Ends connection @i with bytes under way: by FIN, by the client's RST, by kvpin's own RST. */
static void end_once(struct selftest_bench *b, unsigned int i, struct selftest_link *from,
		     struct selftest_link *to)
{
	unsigned int way = i % 3;

	if (way == 0)
		shutdown(from->far, SHUT_WR);
	else if (way == 1)
		reset(from->far);
	link_delete(b, from);
	link_delete(b, to);
	if (way == 2)
		reset(from->near);
	if (way)
		reset(to->near);
}

static bool close_batch(struct selftest_bench *b, unsigned int nr, struct selftest *t)
{
	struct selftest_link from[CLOSE_BATCH], to[CLOSE_BATCH];
	uint64_t at;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (!link_steer(b, &from[i], &to[i], 0, SELFTEST_WORD_REDIRECT, t) ||
		    link_route(b, &to[i], &from[i]))
			return false;
		b->skel->bss->drop_fin = 1;
	}
	for (i = 0; i < nr; i++) {
		at = 0;
		pattern_send(from[i].far, &at, CLOSE_BYTES);
		at = 0;
		pattern_send(to[i].far, &at, CLOSE_BYTES);
		end_once(b, i, &from[i], &to[i]);
	}
	bench_sweep(b);
	return true;
}

/* Returns how many sockets are left, or -1 when @t has failed. */
static int close_many(struct selftest_bench *b, struct selftest *t)
{
	int before = tcp_unaccounted(), left;
	unsigned int done;
	uint64_t end_ns;

	for (done = 0; done < CLOSE_CONNECTIONS; done += CLOSE_BATCH) {
		if (!close_batch(b, CLOSE_BATCH, t))
			return -1;
	}
	end_ns = selftest_now_ns() + CLOSE_WAIT_MS * 1000000ULL;
	do {
		left = tcp_unaccounted() - before;
	} while (left > 0 && selftest_now_ns() < end_ns && bench_more_time(b));
	return left > 0 ? left : 0;
}

void selftest_close(struct selftest_bench *b, struct selftest *t)
{
	int least = CLOSE_CONNECTIONS, left;

	bench_sweep(b);
	/* The host's other sockets come and go meanwhile: a leak shows every time. */
	for (int i = 0; i < CLOSE_TRIES && least >= CLOSE_LEAK && bench_more_time(b); i++) {
		left = close_many(b, t);
		if (left < 0)
			return;
		if (left < least)
			least = left;
	}
	if (least >= CLOSE_LEAK)
		selftest_fail(t, SELFTEST_NEWER, "at least %d sockets leaked of %d connections",
			      least, CLOSE_CONNECTIONS);
	else
		selftest_ok(t,
			    "%d connections ended by FIN and RST with bytes under way: none "
			    "leaked",
			    CLOSE_CONNECTIONS);
}
