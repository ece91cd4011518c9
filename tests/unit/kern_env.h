/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where tests of user/kern run: a bpffs of their own in a mount namespace of their own, so that
 * no pin of a failed test stays. Without the privileges each test is skipped, with the reason.
 */
#ifndef TESTS_KERN_ENV_H
#define TESTS_KERN_ENV_H

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"
#include "kern/kern.h"
#include "kern/privilege.h"

#define BPFFS	"/sys/fs/bpf"
#define IDS_MAX 128
/* Maps and programs are freed by kernel threads, some RCU grace periods after the last close. */
#define GONE_TRIES 500

static const char *skip_reason;
static char pin_dir[64];
static uint64_t le_ns[KVPIN_HIST_BUCKETS - 1];
static char why[512];

static inline void env_init(void)
{
	log_setup(LOG_ERROR, LOG_LOGFMT);
	snprintf(pin_dir, sizeof(pin_dir), BPFFS "/kvpin-test-%d", getpid());
	for (int i = 0; i < KVPIN_HIST_BUCKETS - 1; i++)
		le_ns[i] = 1000ULL << i;
	if (!privilege_has(CAP_BPF) || !privilege_has(CAP_NET_ADMIN) || !privilege_has(CAP_PERFMON))
		skip_reason = "needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON";
	else if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		skip_reason = "no mount namespace";
	else if (mount("bpf", BPFFS, "bpf", 0, "mode=1777"))
		skip_reason = "bpffs cannot be mounted";
	if (skip_reason)
		fprintf(stderr, "SKIP: %s\n", skip_reason);
}

#define NEEDS_KERNEL()                                                                             \
	do {                                                                                       \
		if (skip_reason)                                                                   \
			skip();                                                                    \
	} while (0)

static inline struct kern_params params(void)
{
	return (struct kern_params){
		.pin_dir = pin_dir,
		.conns = 16,
		.upstreams = 32,
		.sessions = 20000,
		.holds = 4,
		.workers = 2,
		.ring_bytes = 65536,
		.ttft_le_ns = le_ns,
		.gap_le_ns = le_ns,
	};
}

static inline int open_with(struct kern *k, const struct kern_params *p)
{
	memset(k, 0, sizeof(*k));
	why[0] = 0;
	return kern_open(k, p, why, sizeof(why));
}

static inline int open_default(struct kern *k)
{
	struct kern_params p = params();

	return open_with(k, &p);
}

#define ASSERT_OPEN(k)                                                                             \
	do {                                                                                       \
		if (open_default(k))                                                               \
			fail_msg("%s", why);                                                       \
	} while (0)

#define ASSERT_WHY(text)                                                                           \
	do {                                                                                       \
		if (!strstr(why, (text)))                                                          \
			fail_msg("no \"%s\" in: %s", (text), why);                                 \
	} while (0)

static inline int pinned(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", pin_dir, name);
	return bpf_obj_get(path);
}

static inline bool exists(const char *path)
{
	struct stat st;

	return !stat(path, &st);
}

/* Entries of bpffs itself that the tests' directories make. */
static inline int count_dirs(void)
{
	struct dirent *entry;
	DIR *dir = opendir(BPFFS);
	int nr = 0;

	assert_non_null(dir);
	while ((entry = readdir(dir)))
		nr += !strncmp(entry->d_name, "kvpin", 5);
	closedir(dir);
	return nr;
}

static inline int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int nr = 0;

	assert_non_null(dir);
	while (readdir(dir))
		nr++;
	closedir(dir);
	return nr;
}

/* Runs in a child; the child's exit status is what it returns, 99 for a failed check of CHECK. */
#define CHECK(cond)                                                                                \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #cond, why);       \
			_exit(99);                                                                 \
		}                                                                                  \
	} while (0)

static inline int run_child(int (*run)(void *arg), void *arg)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (!pid)
		_exit(run(arg));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* A child that opens, runs @prepare, and is still alive with all open when this returns. */
static inline pid_t daemon_start(void (*prepare)(struct kern *k))
{
	int ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		struct kern k;

		CHECK(open_default(&k) == 0);
		if (prepare)
			prepare(&k);
		CHECK(write(ready[1], "r", 1) == 1);
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return pid;
}

static inline void daemon_kill(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

#endif
