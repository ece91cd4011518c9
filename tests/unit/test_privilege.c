/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Privileges: what loading needs, and that a daemon without any does all its work on descriptors
 * that are open, and takes its pins away.
 */
#include "kern_sockets.h"

#include <pwd.h>
#include <sys/prctl.h>

static void on_event(void *arg, const struct kvpin_event *e)
{
	*(uint64_t *)arg = *(uint64_t *)arg * 10 + e->cookie;
}

static int open_without_caps(void *arg)
{
	struct kern k;

	CHECK(privilege_drop(NULL, why, sizeof(why)) == 0);
	CHECK(!privilege_has(CAP_BPF) && !privilege_has(CAP_NET_ADMIN));
	CHECK(open_default(&k) == -EPERM);
	CHECK(strstr(why, "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"));
	CHECK(!k.private);
	return 0;
}

static void loading_without_privileges_says_which(void **state)
{
	NEEDS_KERNEL();
	assert_int_equal(run_child(open_without_caps, NULL), 0);
	assert_int_equal(count_dirs(), 0);
}

static int open_with_least_caps(void *arg)
{
	struct kern k;

	CHECK(privilege_keep_for_load(0, why, sizeof(why)) == 0);
	CHECK(privilege_has(CAP_BPF) && privilege_has(CAP_NET_ADMIN) && privilege_has(CAP_PERFMON));
	CHECK(!privilege_has(CAP_SYS_ADMIN) && !privilege_has(CAP_NET_BIND_SERVICE));
	CHECK(open_default(&k) == 0);
	kern_close(&k);
	CHECK(privilege_keep_for_load(PRIVILEGE_BIND, why, sizeof(why)) == 0);
	CHECK(privilege_has(CAP_NET_BIND_SERVICE));
	return 0;
}

static void three_capabilities_are_enough(void **state)
{
	NEEDS_KERNEL();
	assert_int_equal(run_child(open_with_least_caps, NULL), 0);
	assert_int_equal(count_dirs(), 0);
}

/* Opens, drops all, and does everything that a running daemon does; ends cleanly or not. */
struct unprivileged {
	const char *user;
	bool crash;
};

static int work_without_caps(void *arg)
{
	static struct kvpin_names names;
	const struct unprivileged *u = arg;
	uint64_t refused[KVPIN_REFUSED_NR], got = 0;
	struct kvpin_event up = {.cookie = 1, .kind = KVPIN_EVENT_UP};
	struct kern_params p = params();
	struct kvpin_counters sum;
	struct kern k;
	struct pair pair;
	uint32_t index;

	if (*u->user)
		CHECK(privilege_user(u->user, &p.uid, &p.gid, why, sizeof(why)) == 0);
	CHECK(open_with(&k, &p) == 0);
	CHECK(kern_session_put(&k, 7, &(struct kvpin_session){.turns = 1}) == 0);
	produce(k.rings.ring[0].fd, &up, sizeof(up));
	CHECK(privilege_drop(u->user, why, sizeof(why)) == 0);
	CHECK(geteuid() == p.uid && getegid() == p.gid);
	CHECK(!*u->user || setuid(0) < 0);
	for (unsigned int cap = 0; cap <= CAP_LAST_CAP; cap++)
		CHECK(!privilege_has(cap) && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) <= 0);
	CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
	pair_open(&pair);
	CHECK(add(&k, pair.a, 0) == 0);
	CHECK(carries(pair.b, pair.a, "no privileges"));
	del(&k, pair.a);
	CHECK(!known(&k, pair.a));
	CHECK(kern_session_put(&k, 8, &(struct kvpin_session){.turns = 1}) == 0);
	CHECK(kern_session_del(&k, 8) == 0);
	CHECK(bpf_map_lookup_and_delete_elem(k.free_holds_fd, NULL, &index) == 0);
	kern_hold_put(&k, index);
	CHECK(kern_names_set(&k, &names) == 0);
	CHECK(kern_counters(&k, 0, &sum) == 0 && kern_refusals(&k, refused) == 0);
	CHECK(kern_ring_consume(&k, 0, on_event, &got) == 1 && got == 1);
	pair_close(&pair);
	if (!u->crash)
		kern_close(&k);
	return 0;
}

static void count_adopted(void *arg, uint64_t id, const struct kvpin_session *s, const char *name,
			  const char *address)
{
	assert_int_equal(id, 7);
}

static void all_goes_on_without_capabilities(void **state)
{
	struct unprivileged u = {.user = ""};

	NEEDS_KERNEL();
	assert_int_equal(run_child(work_without_caps, &u), 0);
	assert_int_equal(count_dirs(), 0);
}

static void all_goes_on_as_another_user(void **state)
{
	struct unprivileged u = {.user = "nobody"};
	struct kern_params p = params();
	struct kern k;

	NEEDS_KERNEL();
	if (!getpwnam(u.user))
		skip();
	assert_int_equal(run_child(work_without_caps, &u), 0);
	assert_int_equal(count_dirs(), 0);
	/* What that user left is taken over when the next one is to be that user, too. */
	u.crash = true;
	assert_int_equal(run_child(work_without_caps, &u), 0);
	assert_int_equal(count_dirs(), 1);
	assert_int_equal(open_default(&k), -EPERM);
	assert_int_equal(privilege_user(u.user, &p.uid, &p.gid, why, sizeof(why)), 0);
	assert_int_equal(open_with(&k, &p), 0);
	assert_int_equal(kern_adopt(&k, count_adopted, NULL), 1);
	kern_close(&k);
	assert_int_equal(count_dirs(), 0);
}

static int drop_to_nobody_known(void *arg)
{
	CHECK(privilege_drop("no-such-user-here", why, sizeof(why)) == -ENOENT);
	CHECK(strstr(why, "no-such-user-here"));
	CHECK(privilege_drop("nobody", why, sizeof(why)) == 0);
	CHECK(privilege_drop("nobody", why, sizeof(why)) == 0);
	CHECK(privilege_drop("root", why, sizeof(why)) == -EPERM);
	return 0;
}

static void only_root_becomes_another_user(void **state)
{
	NEEDS_KERNEL();
	assert_int_equal(run_child(drop_to_nobody_known, NULL), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(loading_without_privileges_says_which),
		cmocka_unit_test(three_capabilities_are_enough),
		cmocka_unit_test(all_goes_on_without_capabilities),
		cmocka_unit_test(all_goes_on_as_another_user),
		cmocka_unit_test(only_root_becomes_another_user),
	};

	env_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
