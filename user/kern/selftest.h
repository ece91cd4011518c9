/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What this kernel allows with these privileges, found out by doing it: programs are loaded, bytes
 * are sent through sockets on 127.0.0.1 that the test itself made. `kvpin doctor` prints the list;
 * the daemon asks selftest_allows() before it uses a path.
 *
 * Happy path: every check is OK, in well under a second. Failures: a text that says what was found,
 * and one that says what to do; whatever depends on a failed check is skipped. Every wait has a
 * deadline. Nothing is left behind: no map, no pin, no socket.
 *
 * For tests: KVPIN_SELFTEST_FAIL=NAME in the environment makes the check of that name fail, and
 * KVPIN_SELFTEST_SKIP makes selftest_allows() say yes at once when no check is to fail.
 */
#ifndef KERN_SELFTEST_H
#define KERN_SELFTEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SELFTEST_MAX 32

enum selftest_result { SELFTEST_OK, SELFTEST_FAILED, SELFTEST_SKIPPED, SELFTEST_RESULT_NR };

/* What cannot be used when a check is not OK. */
enum selftest_need {
	SELFTEST_FOR_ALL,    /* no data path at all */
	SELFTEST_FOR_KERNEL, /* no path but the relay */
	SELFTEST_FOR_STEER,  /* the steer path */
	SELFTEST_FOR_SPLICE, /* the splice path */
	SELFTEST_FOR_INFO,   /* nothing: it only informs */
};

enum selftest_path {
	SELFTEST_PATH_RELAY,
	SELFTEST_PATH_STEER,
	SELFTEST_PATH_SPLICE,
	SELFTEST_PATH_NR
};

struct selftest {
	const char *name;
	enum selftest_need need;
	enum selftest_result result;
	char why[256]; /* what was found */
	char fix[160]; /* what to do about it; "" when it is OK */
	uint32_t ms;
};

/** A kernel's version; Debian's comes from `uname -v`. */
struct selftest_kernel {
	unsigned int major, minor, patch;
};

extern const char *const selftest_result_names[SELFTEST_RESULT_NR];
extern const char *const selftest_path_names[SELFTEST_PATH_NR];

/**
 * selftest_run() - run all checks, in order
 * @t: room for SELFTEST_MAX entries
 *
 * Returns the number of entries written.
 */
unsigned int selftest_run(struct selftest *t);

/** selftest_problem() - the first of @nr entries because of which @path cannot be used, or NULL */
const struct selftest *selftest_problem(const struct selftest *t, unsigned int nr,
					enum selftest_path path);

/**
 * selftest_allows() - may the path be used? Runs its checks until one says no, without those that
 * opening the path is itself
 * @why: then "CHECK: what was found; fix: what to do"
 */
bool selftest_allows(enum selftest_path path, char *why, size_t why_bytes);

/**
 * selftest_kernel_parse() - which kernel is it?
 * @release: of uname(): "6.18.44", "6.1.0-52-amd64"
 * @version: of uname(): "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1 (2026-05-01)"
 *
 * Returns false when @release is no version.
 */
bool selftest_kernel_parse(const char *release, const char *version, struct selftest_kernel *k);

/** selftest_kernel_bad() - why a kernel is known to lose, repeat or stall bytes; NULL: it is not */
const char *selftest_kernel_bad(const struct selftest_kernel *k);

#endif
