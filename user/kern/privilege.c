/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Capability sets by raw system calls. Every drop is read back: a process that believes it has no
 * privileges and has some is worse than one that does not start.
 */
#include "kern/privilege.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kern/kern_log.h"

/* The kernel says EINVAL behind its last capability; 6.18 knows 41. */
#define CAPS_MAX 64

struct caps {
	uint64_t effective, permitted, inheritable;
};

static int caps_get(struct caps *c)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	if (syscall(__NR_capget, &head, data))
		return -errno;
	c->effective = data[0].effective | (uint64_t)data[1].effective << 32;
	c->permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
	c->inheritable = data[0].inheritable | (uint64_t)data[1].inheritable << 32;
	return 0;
}

static int caps_set(const struct caps *c)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {
		{(uint32_t)c->effective, (uint32_t)c->permitted, (uint32_t)c->inheritable},
		{(uint32_t)(c->effective >> 32), (uint32_t)(c->permitted >> 32),
		 (uint32_t)(c->inheritable >> 32)},
	};

	return syscall(__NR_capset, &head, data) ? -errno : 0;
}

bool privilege_has(unsigned int cap)
{
	struct caps c;

	return !caps_get(&c) && (c.effective & PRIVILEGE_BIT(cap));
}

int privilege_user(const char *user, uid_t *uid, gid_t *gid, char *why, size_t why_bytes)
{
	const struct passwd *pw = getpwnam(user);

	if (!pw)
		return kern_why(why, why_bytes, -ENOENT,
				"user: there is no user \"%s\" (useradd --system %s)", user, user);
	*uid = pw->pw_uid;
	*gid = pw->pw_gid;
	return 0;
}

int privilege_keep_for_load(uint64_t also, char *why, size_t why_bytes)
{
	struct caps c;
	int err;

	err = caps_get(&c);
	if (!err) {
		c.effective = c.permitted & (PRIVILEGE_LOAD | also);
		err = caps_set(&c);
	}
	if (err)
		return kern_why(why, why_bytes, err, "privileges: cannot reduce capabilities: %s",
				strerror(-err));
	return 0;
}

static int become(uid_t uid, gid_t gid)
{
	/* glibc carries each of them to all threads. */
	if (setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
		return -errno;
	return 0;
}

/* Without CAP_SETPCAP the bounding set stays; no_new_privs makes it void. */
static void bounding_clear(void)
{
	for (unsigned int cap = 0; cap < CAPS_MAX; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0))
			break;
}

int privilege_keep(uint64_t caps)
{
	struct caps c = {0}, is;
	int err = caps_get(&is);

	c.permitted = c.effective = is.permitted & caps;
	if (!err)
		err = caps_set(&c);
	if (!err && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		err = -errno;
	if (!err)
		err = caps_get(&is);
	return err ? err : (is.permitted & ~caps) ? -EPERM : 0;
}

int privilege_drop(const char *user, char *why, size_t why_bytes)
{
	struct caps c = {0};
	uid_t uid = 0;
	gid_t gid = 0;
	int err;

	if (user && *user) {
		err = privilege_user(user, &uid, &gid, why, why_bytes);
		if (err)
			return err;
		if (geteuid() != 0 && uid != geteuid())
			return kern_why(why, why_bytes, -EPERM,
					"privileges: only root can go on as user \"%s\"", user);
	}
	err = caps_get(&c);
	if (!err) {
		c.effective = c.permitted;
		err = caps_set(&c);
	}
	if (!err) {
		bounding_clear();
		prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
		if (uid && geteuid() == 0)
			err = become(uid, gid);
	}
	if (err)
		return kern_why(why, why_bytes, err, "privileges: cannot go on as user \"%s\": %s",
				user ? user : "", strerror(-err));
	memset(&c, 0, sizeof(c));
	err = caps_set(&c);
	if (!err && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		err = -errno;
	if (!err)
		err = caps_get(&c);
	if (!err && (c.effective || c.permitted || c.inheritable))
		err = -EPERM;
	if (err)
		return kern_why(why, why_bytes, err, "privileges: cannot drop capabilities: %s",
				strerror(-err));
	return 0;
}
