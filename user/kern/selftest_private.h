/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Shared by the checks: the loaded programs, connections over 127.0.0.1, bytes that tell their own
 * position.
 *
 * A connection has two ends: `near` is the one that kvpin would hold and that enters the sockhash,
 * `far` plays the client or the server. A socket that was in the sockhash is not closed by the
 * check that made it but handed to the bench, which deletes all, waits and then closes (KERNEL.md:
 * a close within about 20 ms of the deletion can leak the socket).
 */
#ifndef KERN_SELFTEST_PRIVATE_H
#define KERN_SELFTEST_PRIVATE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "kern/selftest.h"

#define SELFTEST_WORD_REDIRECT (1ULL << 63)
#define SELFTEST_WORD_COPY     (1ULL << 62)
#define SELFTEST_WORD_POSITION (SELFTEST_WORD_COPY - 1)

/* Most that one call moves, and what fits behind every position of the pattern. */
#define SELFTEST_BLOCK 65536
/* Longest wait of one check, and of all together: a healthy kernel needs a hundredth of it. */
#define SELFTEST_CHECK_MS 4000
#define SELFTEST_ALL_MS	  12000
#define SELFTEST_CLOSE_MS 20
#define SELFTEST_FDS_MAX  512

#define SELFTEST_NEWER "use kernel 6.12.35 or a later one; until then kvpin relays"

struct selftest_bpf;
struct ring_buffer;

struct selftest_link {
	int near, far;
	uint32_t key; /* of near, in the sockhash */
};

struct selftest_bench {
	struct selftest_bpf *skel;
	int sockets_fd, others_fd, routes_fd;
	uint64_t end_ns; /* of the current check */
	uint64_t all_end_ns;
	uint32_t keys; /* given so far, from 1 on */
	uint32_t nr_fds;
	int fd[SELFTEST_FDS_MAX];	/* to be closed */
	uint32_t key[SELFTEST_FDS_MAX]; /* 0: it was never in the sockhash */
};

/* A check fills in result, why and fix; with neither of the two it is OK. */
typedef void selftest_check(struct selftest_bench *b, struct selftest *t);

/* user/kern/selftest_system.c: what can be read without a program */
selftest_check selftest_kernel_version, selftest_privileges, selftest_bpffs, selftest_btf;
selftest_check selftest_unprivileged, selftest_cpus, selftest_libbpf, selftest_early_demux;
/* user/kern/selftest_splice.c */
selftest_check selftest_tc, selftest_ipsec;
/* user/kern/selftest_link.c */
selftest_check selftest_loopback, selftest_programs, selftest_sockmap_link;
/* user/kern/selftest_flow.c: how bytes move */
selftest_check selftest_redirect, selftest_slow_target, selftest_queued_before, selftest_passed;
selftest_check selftest_copy, selftest_hand_over;
/* user/kern/selftest_life.c: insertion and end of sockets */
selftest_check selftest_fin, selftest_drop_fin, selftest_two_maps, selftest_not_established;
selftest_check selftest_close;

/** selftest_ok() - OK, and what was found */
void selftest_ok(struct selftest *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** selftest_fail() - failed: what to do (@fix, a static text) and what was found */
void selftest_fail(struct selftest *t, const char *fix, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/** selftest_now_ns() - CLOCK_MONOTONIC */
uint64_t selftest_now_ns(void);

/** bench_fini() - take all sockets out, wait, close, unload */
void bench_fini(struct selftest_bench *b);

/** bench_sweep() - the first half of that: no socket is left, the programs stay */
void bench_sweep(struct selftest_bench *b);

/** bench_nap() - sleep a moment, longer each time until pattern_send() or pattern_recv() moves a byte
 * in this thread */
void bench_nap(void);

/** bench_more_time() - bench_nap(), or false at once when the check's time is over */
bool bench_more_time(const struct selftest_bench *b);

/** bench_reset() - a new source: zero the counters and set the word */
void bench_reset(struct selftest_bench *b, uint64_t word);

/** bench_word() - the word as the program last wrote it */
uint64_t bench_word(const struct selftest_bench *b);

/** bench_faults() - did a helper fail in the program? Then it has failed @t */
bool bench_faults(const struct selftest_bench *b, struct selftest *t);

/**
 * link_open() - a connection over 127.0.0.1, both ends nonblocking, without Nagle
 * @rcvbuf: receive buffer of the near end; 0: the kernel's own
 *
 * Both ends belong to the bench. Returns false when @t has failed.
 */
bool link_open(struct selftest_bench *b, struct selftest_link *l, int rcvbuf, struct selftest *t);

/** link_insert() - near into the sockhash; returns 0 or -errno */
int link_insert(struct selftest_bench *b, struct selftest_link *l);

/** link_delete() - near out of it again; the bench still closes it */
void link_delete(struct selftest_bench *b, struct selftest_link *l);

/** link_route() - make @from a source whose target is @to; returns 0 or -errno */
int link_route(struct selftest_bench *b, const struct selftest_link *from,
	       const struct selftest_link *to);

/** link_steer() - open both, insert the target, the route, the source. False: @t has failed */
bool link_steer(struct selftest_bench *b, struct selftest_link *from, struct selftest_link *to,
		int rcvbuf, uint64_t word, struct selftest *t);

/** pattern_at() - SELFTEST_BLOCK bytes as they stand from @position on */
const uint8_t *pattern_at(uint64_t position);

/** pattern_send() - send up to @count bytes of the pattern, from *@position on; moves it.
 * Returns what was sent, 0 when the socket takes nothing now, -errno. */
ssize_t pattern_send(int fd, uint64_t *position, uint64_t count);

/** pattern_recv() - receive and compare. Returns what came, 0 at the end of the stream, -errno
 * (-EAGAIN: nothing now; -EBADMSG: other bytes than those sent). */
ssize_t pattern_recv(int fd, uint64_t *position);

/** pattern_expect() - receive until *@position is @end. False: @t has failed, @what says where */
bool pattern_expect(struct selftest_bench *b, int fd, uint64_t *position, uint64_t end,
		    const char *what, struct selftest *t);

#endif
