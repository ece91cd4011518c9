/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The self-tests of user/kern: versions, what passes on a good kernel, what a failure takes with
 * it, and what is said without privileges.
 */
#include "kern_env.h"

#include <linux/capability.h>
#include <sys/syscall.h>
#include <time.h>

#include "kern/selftest.h"

static struct selftest t[SELFTEST_MAX];
static unsigned int nr;

static const struct selftest *find(const char *name)
{
	for (unsigned int i = 0; i < nr; i++) {
		if (!strcmp(t[i].name, name))
			return &t[i];
	}
	fail_msg("no check is called %s", name);
	return NULL;
}

static bool steer_usable(void)
{
	return !selftest_problem(t, nr, SELFTEST_PATH_STEER);
}

static void run_forced(const char *name)
{
	if (name)
		setenv("KVPIN_SELFTEST_FAIL", name, 1);
	nr = selftest_run(t);
	unsetenv("KVPIN_SELFTEST_FAIL");
}

static void debians_version_is_the_one_behind_its_name(void **state)
{
	static const struct {
		const char *release, *version;
		unsigned int major, minor, patch;
	} cases[] = {
		{"6.18.44-fc-v669", "#1 SMP PREEMPT_DYNAMIC @0", 6, 18, 44},
		{"6.1.0-52-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1 (2026-05-01)", 6, 1,
		 192},
		{"6.12.9+deb13-cloud-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.12.38-1", 6, 12, 38},
		{"6.8.0-31-generic", "#31-Ubuntu SMP PREEMPT_DYNAMIC Sat Apr 20 2024", 6, 8, 0},
		{"6.12", "#1", 6, 12, 0},
		{"7.2-rc1", "#1", 7, 2, 0},
		{"6.1.0-52-amd64", "#1 SMP Debian unknown", 6, 1, 0},
	};
	struct selftest_kernel k;

	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_true(selftest_kernel_parse(cases[i].release, cases[i].version, &k));
		assert_int_equal(k.major, cases[i].major);
		assert_int_equal(k.minor, cases[i].minor);
		assert_int_equal(k.patch, cases[i].patch);
	}
	assert_false(selftest_kernel_parse("linux", "#1", &k));
	assert_false(selftest_kernel_parse("", "", &k));
}

static void kernels_known_not_to_do_are_refused(void **state)
{
	static const struct {
		struct selftest_kernel k;
		bool bad;
	} cases[] = {
		{{4, 19, 300}, true}, {{5, 10, 230}, true}, {{5, 19, 0}, true},
		{{6, 1, 0}, true},    {{6, 1, 192}, true},  {{6, 2, 0}, false},
		{{6, 6, 10}, false},  {{6, 12, 34}, true},  {{6, 12, 35}, false},
		{{6, 18, 0}, false},  {{7, 1, 0}, false},
	};

	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(selftest_kernel_bad(&cases[i].k) != NULL, cases[i].bad);
}

static void everything_is_ok_here_within_a_second_and_nothing_stays(void **state)
{
	int fds = count_fds();
	struct timespec begin, end;

	NEEDS_KERNEL();
	clock_gettime(CLOCK_MONOTONIC, &begin);
	run_forced(NULL);
	clock_gettime(CLOCK_MONOTONIC, &end);
	for (unsigned int i = 0; i < nr; i++) {
		if (t[i].result != SELFTEST_OK)
			fail_msg("%s: %s", t[i].name, t[i].why);
		assert_true(t[i].why[0]);
		assert_int_equal(t[i].fix[0], 0);
	}
	assert_true(steer_usable());
	/* A busy machine, a sanitizer: the bound that holds always is five seconds. */
	assert_true(end.tv_sec - begin.tv_sec <= 5);
	assert_int_equal(count_fds(), fds);
	assert_int_equal(count_dirs(), 0);
}

static void it_can_run_again_and_again(void **state)
{
	NEEDS_KERNEL();
	for (int i = 0; i < 3; i++) {
		if (!selftest_allows(SELFTEST_PATH_STEER, why, sizeof(why)))
			fail_msg("%s", why);
	}
}

/* By the need of each kind; a full run takes half a second. */
static void a_forced_failure_costs_what_the_check_is_needed_for(void **state)
{
	static const struct {
		const char *name;
		bool relay, steer;
	} cases[] = {
		{"loopback", false, false}, {"kernel", true, false}, {"bpffs", true, false},
		{"hand-over", true, false}, {"libbpf", true, true},  {"no such check", true, true},
	};

	NEEDS_KERNEL();
	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		run_forced(cases[i].name);
		assert_int_equal(steer_usable(), cases[i].steer);
		assert_int_equal(!selftest_problem(t, nr, SELFTEST_PATH_RELAY), cases[i].relay);
		if (!strcmp(cases[i].name, "no such check"))
			continue;
		assert_int_equal(find(cases[i].name)->result, SELFTEST_FAILED);
		assert_string_equal(find(cases[i].name)->why, "forced by KVPIN_SELFTEST_FAIL");
	}
}

static void a_failure_skips_what_needs_it_and_nothing_else(void **state)
{
	NEEDS_KERNEL();
	run_forced("programs");
	assert_int_equal(find("btf")->result, SELFTEST_OK);
	assert_int_equal(find("redirect")->result, SELFTEST_SKIPPED);
	assert_string_equal(find("redirect")->why, "needs \"programs\"");
	assert_int_equal(find("sockmap-link")->result, SELFTEST_SKIPPED);
	assert_int_equal(find("cpus")->result, SELFTEST_OK);
	run_forced("slow-target");
	assert_int_equal(find("hand-over")->result, SELFTEST_OK);
	assert_int_equal(find("close")->result, SELFTEST_OK);
}

static void steer_is_refused_with_the_first_reason(void **state)
{
	NEEDS_KERNEL();
	setenv("KVPIN_SELFTEST_FAIL", "fin", 1);
	assert_false(selftest_allows(SELFTEST_PATH_STEER, why, sizeof(why)));
	unsetenv("KVPIN_SELFTEST_FAIL");
	assert_string_equal(why, "fin: forced by KVPIN_SELFTEST_FAIL; fix: unset "
				 "KVPIN_SELFTEST_FAIL");
	/* Informational checks are none of its business. */
	setenv("KVPIN_SELFTEST_FAIL", "cpus", 1);
	assert_true(selftest_allows(SELFTEST_PATH_STEER, why, sizeof(why)));
	unsetenv("KVPIN_SELFTEST_FAIL");
}

static int without_privileges(void *arg)
{
	CHECK(privilege_drop(NULL, why, sizeof(why)) == 0);
	run_forced(NULL);
	CHECK(!steer_usable());
	CHECK(!selftest_problem(t, nr, SELFTEST_PATH_RELAY));
	CHECK(find("loopback")->result == SELFTEST_OK);
	CHECK(find("kernel")->result == SELFTEST_OK);
	CHECK(find("privileges")->result == SELFTEST_FAILED);
	for (unsigned int i = find("privileges") - t + 1; i < nr; i++)
		CHECK(t[i].need == SELFTEST_FOR_INFO ||
		      (t[i].result == SELFTEST_SKIPPED &&
		       !strcmp(t[i].why, "needs \"privileges\"")));
	CHECK(!selftest_allows(SELFTEST_PATH_STEER, why, sizeof(why)));
	CHECK(strstr(why, "privileges: CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON are missing: cannot "
			  "load programs"));
	CHECK(strstr(why, "; fix: run as root"));
	return 0;
}

static void without_capabilities_the_privileges_are_named_and_the_rest_is_skipped(void **state)
{
	NEEDS_KERNEL();
	assert_int_equal(run_child(without_privileges, NULL), 0);
}

static int one_missing(void *arg)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	CHECK(!syscall(SYS_capget, &head, data));
	data[1].effective &= ~(1U << (CAP_PERFMON - 32));
	CHECK(!syscall(SYS_capset, &head, data));
	CHECK(!selftest_allows(SELFTEST_PATH_STEER, why, sizeof(why)));
	CHECK(strstr(why, "privileges: CAP_PERFMON is missing: cannot look into kernel"));
	return 0;
}

static void a_single_missing_capability_is_named(void **state)
{
	NEEDS_KERNEL();
	assert_int_equal(run_child(one_missing, NULL), 0);
}

static int without_bpffs(void *arg)
{
	CHECK(!unshare(CLONE_NEWNS));
	while (!umount2(BPFFS, MNT_DETACH))
		;
	CHECK(!selftest_allows(SELFTEST_PATH_STEER, why, sizeof(why)));
	CHECK(strstr(why, "bpffs: /sys/fs/bpf is not mounted; fix: mount -t bpf bpf /sys/fs/bpf"));
	CHECK(!mount("bpf", BPFFS, "bpf", MS_RDONLY, NULL));
	CHECK(!selftest_allows(SELFTEST_PATH_STEER, why, sizeof(why)));
	CHECK(strstr(why, "bpffs: /sys/fs/bpf cannot be written: Read-only file system"));
	return 0;
}

static void a_missing_or_read_only_bpffs_is_named_with_the_fix(void **state)
{
	NEEDS_KERNEL();
	assert_int_equal(run_child(without_bpffs, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(debians_version_is_the_one_behind_its_name),
		cmocka_unit_test(kernels_known_not_to_do_are_refused),
		cmocka_unit_test(everything_is_ok_here_within_a_second_and_nothing_stays),
		cmocka_unit_test(it_can_run_again_and_again),
		cmocka_unit_test(a_forced_failure_costs_what_the_check_is_needed_for),
		cmocka_unit_test(a_failure_skips_what_needs_it_and_nothing_else),
		cmocka_unit_test(steer_is_refused_with_the_first_reason),
		cmocka_unit_test(
			without_capabilities_the_privileges_are_named_and_the_rest_is_skipped),
		cmocka_unit_test(a_single_missing_capability_is_named),
		cmocka_unit_test(a_missing_or_read_only_bpffs_is_named_with_the_fix),
	};

	env_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
