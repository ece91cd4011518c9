/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Capabilities: what loading needs, and giving all of it away. Raw system calls, no libcap.
 *
 * The kernel keeps capabilities, the bounding set and no_new_privs per thread, and threads inherit
 * them: call these before the first thread is made. (Only the change of user reaches threads that
 * run already, and with it their capabilities.)
 *
 * What works without any capability, on descriptors that are open: everything in kern.h but
 * kern_open(); also with kernel.unprivileged_bpf_disabled set, which since Linux 5.19 forbids only
 * making maps and loading programs.
 */
#ifndef KERN_PRIVILEGE_H
#define KERN_PRIVILEGE_H

#include <linux/capability.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PRIVILEGE_BIT(cap) (1ULL << (cap))
#define PRIVILEGE_LOAD                                                                             \
	(PRIVILEGE_BIT(CAP_BPF) | PRIVILEGE_BIT(CAP_NET_ADMIN) | PRIVILEGE_BIT(CAP_PERFMON))
/* Ports below 1024. */
#define PRIVILEGE_BIND PRIVILEGE_BIT(CAP_NET_BIND_SERVICE)
/* Pins for another user, and reading a dead daemon's that belong to that user. */
#define PRIVILEGE_GIVE                                                                             \
	(PRIVILEGE_BIT(CAP_CHOWN) | PRIVILEGE_BIT(CAP_DAC_OVERRIDE) | PRIVILEGE_BIT(CAP_FOWNER))

/** privilege_has() - is capability @cap (CAP_…) in effect in this thread? */
bool privilege_has(unsigned int cap);

/** privilege_user() - a user's numbers, for kern_params and files that the user shall own.
 * Returns 0 or -ENOENT with a text in @why. */
int privilege_user(const char *user, uid_t *uid, gid_t *gid, char *why, size_t why_bytes);

/**
 * privilege_keep_for_load() - put nothing into effect but what kern_open() needs
 * @also: PRIVILEGE_BIND, PRIVILEGE_GIVE: what else
 *
 * Those that the process does not have are not added. The permitted set stays: privilege_drop()
 * needs it for the change of user. Returns 0 or -errno with a text in @why.
 */
int privilege_keep_for_load(uint64_t also, char *why, size_t why_bytes);

/** privilege_keep() - give up all capabilities but @caps, and set no_new_privs; of a process of one
 * thread. Returns 0 or -errno. */
int privilege_keep(uint64_t caps);

/**
 * privilege_drop() - give up all capabilities for good, and set no_new_privs
 * @user: as whom to go on when this is root; "" or NULL: stay who it is. For any other user than
 *        root, only its own name (or none) makes sense; another is -EPERM.
 *
 * After a failure the process may have dropped a part: the caller ends. Returns 0 or -errno with a
 * text in @why.
 */
int privilege_drop(const char *user, char *why, size_t why_bytes);

#endif
