/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The list of checks and the order they run in. Knows which ones make others pointless and what a
 * data path needs; what a check does is its own file's affair.
 */
#include "kern/selftest.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kern/selftest_private.h"

#define NR(array) (sizeof(array) / sizeof((array)[0]))

/* A group that failed takes with it what stands behind it. */
enum stage {
	STAGE_SYSTEM,	  /* runs always */
	STAGE_PRIVILEGED, /* needs "privileges" */
	STAGE_PROGRAMS,	  /* needs "btf" too */
	STAGE_SOCKETS,	  /* needs "loopback" and "programs" too */
};

static const struct check {
	const char *name;
	selftest_check *run;
	enum selftest_need need;
	enum stage stage;
	enum stage gates; /* when it fails, this stage and later ones are skipped */
} checks[] = {
	{"loopback", selftest_loopback, SELFTEST_FOR_ALL, STAGE_SYSTEM, STAGE_SOCKETS},
	{"kernel", selftest_kernel_version, SELFTEST_FOR_STEER, STAGE_SYSTEM, 0},
	{"privileges", selftest_privileges, SELFTEST_FOR_KERNEL, STAGE_SYSTEM, STAGE_PRIVILEGED},
	{"bpffs", selftest_bpffs, SELFTEST_FOR_KERNEL, STAGE_PRIVILEGED, 0},
	{"tc", selftest_tc, SELFTEST_FOR_SPLICE, STAGE_PRIVILEGED, 0},
	{"early-demux", selftest_early_demux, SELFTEST_FOR_SPLICE, STAGE_PRIVILEGED, 0},
	{"ipsec", selftest_ipsec, SELFTEST_FOR_SPLICE, STAGE_PRIVILEGED, 0},
	{"btf", selftest_btf, SELFTEST_FOR_STEER, STAGE_PRIVILEGED, STAGE_PROGRAMS},
	{"programs", selftest_programs, SELFTEST_FOR_STEER, STAGE_PROGRAMS, STAGE_SOCKETS},
	{"redirect", selftest_redirect, SELFTEST_FOR_STEER, STAGE_SOCKETS, 0},
	{"slow-target", selftest_slow_target, SELFTEST_FOR_STEER, STAGE_SOCKETS, 0},
	{"queued-before", selftest_queued_before, SELFTEST_FOR_STEER, STAGE_SOCKETS, 0},
	{"passed-bytes", selftest_passed, SELFTEST_FOR_STEER, STAGE_SOCKETS, 0},
	{"copy-and-drop", selftest_copy, SELFTEST_FOR_STEER, STAGE_SOCKETS, 0},
	{"hand-over", selftest_hand_over, SELFTEST_FOR_STEER, STAGE_SOCKETS, 0},
	{"fin", selftest_fin, SELFTEST_FOR_STEER, STAGE_SOCKETS, 0},
	{"drop-fin", selftest_drop_fin, SELFTEST_FOR_STEER, STAGE_SOCKETS, 0},
	{"not-established", selftest_not_established, SELFTEST_FOR_STEER, STAGE_SOCKETS, 0},
	{"close", selftest_close, SELFTEST_FOR_STEER, STAGE_SOCKETS, 0},
	{"two-maps", selftest_two_maps, SELFTEST_FOR_INFO, STAGE_SOCKETS, 0},
	{"sockmap-link", selftest_sockmap_link, SELFTEST_FOR_INFO, STAGE_SOCKETS, 0},
	{"unprivileged-bpf", selftest_unprivileged, SELFTEST_FOR_INFO, STAGE_SYSTEM, 0},
	{"cpus", selftest_cpus, SELFTEST_FOR_INFO, STAGE_SYSTEM, 0},
	{"libbpf", selftest_libbpf, SELFTEST_FOR_INFO, STAGE_SYSTEM, 0},
};

_Static_assert(NR(checks) <= SELFTEST_MAX, "the caller's array");

const char *const selftest_result_names[SELFTEST_RESULT_NR] = {
	[SELFTEST_OK] = "ok",
	[SELFTEST_FAILED] = "failed",
	[SELFTEST_SKIPPED] = "skipped",
};

const char *const selftest_path_names[SELFTEST_PATH_NR] = {
	[SELFTEST_PATH_RELAY] = "relay",
	[SELFTEST_PATH_STEER] = "steer",
	[SELFTEST_PATH_SPLICE] = "splice",
};

void selftest_ok(struct selftest *t, const char *format, ...)
{
	va_list args;

	t->result = SELFTEST_OK;
	va_start(args, format);
	vsnprintf(t->why, sizeof(t->why), format, args);
	va_end(args);
}

void selftest_fail(struct selftest *t, const char *fix, const char *format, ...)
{
	va_list args;

	t->result = SELFTEST_FAILED;
	snprintf(t->fix, sizeof(t->fix), "%s", fix);
	va_start(args, format);
	vsnprintf(t->why, sizeof(t->why), format, args);
	va_end(args);
}

uint64_t selftest_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void run_check(struct selftest_bench *b, const struct check *c, struct selftest *t)
{
	const char *forced = secure_getenv("KVPIN_SELFTEST_FAIL");
	uint64_t started_ns = selftest_now_ns();

	b->end_ns = started_ns + SELFTEST_CHECK_MS * 1000000ULL;
	if (b->end_ns > b->all_end_ns)
		b->end_ns = b->all_end_ns;
	if (forced && !strcmp(forced, c->name))
		selftest_fail(t, "unset KVPIN_SELFTEST_FAIL", "forced by KVPIN_SELFTEST_FAIL");
	else
		c->run(b, t);
	t->ms = (selftest_now_ns() - started_ns + 500000) / 1000000;
}

static bool needed(enum selftest_need need, enum selftest_path path)
{
	return need == SELFTEST_FOR_ALL ||
	       (need == SELFTEST_FOR_KERNEL && path != SELFTEST_PATH_RELAY) ||
	       (need == SELFTEST_FOR_STEER && path == SELFTEST_PATH_STEER) ||
	       (need == SELFTEST_FOR_SPLICE && path == SELFTEST_PATH_SPLICE);
}

/* @until: the path whose first problem ends it; SELFTEST_PATH_NR: run all. */
static unsigned int run(struct selftest *t, enum selftest_path until)
{
	struct selftest_bench b = {
		.all_end_ns = selftest_now_ns() + SELFTEST_ALL_MS * 1000000ULL,
	};
	enum stage closed_from = STAGE_SOCKETS + 1;
	const char *culprit = "";
	unsigned int i, nr = 0;

	for (i = 0; i < NR(checks); i++) {
		const struct check *c = &checks[i];

		if (until != SELFTEST_PATH_NR && !needed(c->need, until))
			continue;
		/* Opening the path tells the same. */
		if (until == SELFTEST_PATH_SPLICE && c->run == selftest_tc)
			continue;
		t[nr] = (struct selftest){.name = c->name, .need = c->need};
		if (c->stage >= closed_from) {
			t[nr].result = SELFTEST_SKIPPED;
			snprintf(t[nr].why, sizeof(t[nr].why), "needs \"%s\"", culprit);
		} else {
			run_check(&b, c, &t[nr]);
		}
		if (t[nr].result == SELFTEST_FAILED && c->gates && c->gates < closed_from) {
			closed_from = c->gates;
			culprit = c->name;
		}
		nr++;
		if (until != SELFTEST_PATH_NR && t[nr - 1].result != SELFTEST_OK)
			break;
	}
	bench_fini(&b);
	return nr;
}

unsigned int selftest_run(struct selftest *t)
{
	return run(t, SELFTEST_PATH_NR);
}

const struct selftest *selftest_problem(const struct selftest *t, unsigned int nr,
					enum selftest_path path)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (needed(t[i].need, path) && t[i].result != SELFTEST_OK)
			return &t[i];
	}
	return NULL;
}

bool selftest_allows(enum selftest_path path, char *why, size_t why_bytes)
{
	struct selftest t[SELFTEST_MAX];
	const struct selftest *problem;
	unsigned int nr;

	if (secure_getenv("KVPIN_SELFTEST_SKIP") && !secure_getenv("KVPIN_SELFTEST_FAIL"))
		return true;
	nr = run(t, path);
	problem = selftest_problem(t, nr, path);
	if (problem)
		snprintf(why, why_bytes, "%s: %s; fix: %s", problem->name, problem->why,
			 problem->fix);
	return !problem;
}
