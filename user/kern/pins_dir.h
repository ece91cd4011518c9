/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A directory of pins in bpffs, of either kernel path: made under a name of this process, filled,
 * renamed when complete, removed at the end. The lock is a flock() on the directory: it follows
 * the directory through the rename and ends with the process, whatever way that ends; so it tells
 * a living daemon's directory from a dead one's.
 *
 * bpffs is world-writable: a directory counts only when it belongs to root, to this user, or to
 * who shall get the pins.
 */
#ifndef KERN_PINS_DIR_H
#define KERN_PINS_DIR_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#include "kern/kern_log.h"

#define PINS_NAME_MAX 80
/* ... with a mark and a pid behind it. */
#define PINS_MARKED_MAX (PINS_NAME_MAX + 32)
/* Of a directory's name while it is not complete. Not a dot: bpffs forbids names with one. */
#define PINS_TEMP_MARK "-new-"
/* Room for the path of a pin. */
#define PINS_PATH_BYTES (PATH_MAX + 3 * PINS_MARKED_MAX)

struct pins_dir {
	char parent[PATH_MAX];
	char name[PINS_NAME_MAX];   /* of the directory, in parent */
	char temp[PINS_MARKED_MAX]; /* its name until it is complete */
	int parent_fd;		    /* -1: none */
	int fd;			    /* this process's directory, locked; -1: not made */
	bool published;		    /* it has its name */
	uid_t uid;		    /* who gets the pins; 0: whoever makes them */
	gid_t gid;
};

#define PINS_DIR_NONE                                                                              \
	{                                                                                          \
		.parent_fd = -1, .fd = -1                                                          \
	}

/**
 * pins_dir_open() - open the parent
 * @d: PINS_DIR_NONE; on failure too it wants pins_dir_close()
 * @path: absolute; its parent must be in a bpffs
 * @uid, @gid: who gets the pins; 0: whoever makes them
 *
 * Returns 0 or -errno with a text.
 */
int pins_dir_open(struct pins_dir *d, const char *path, uid_t uid, gid_t gid,
		  const struct kern_text *t);

/** pins_dir_make() - make and lock this process's directory. Returns 0; -EBUSY: another one that
 * starts has taken it for a leftover; or another -errno, with a text. */
int pins_dir_make(struct pins_dir *d, const struct kern_text *t);

/**
 * pins_dir_lock() - open and lock a directory of the parent
 * @owner: set when it can be opened
 *
 * Returns a descriptor, the caller's; -ENOENT; -EWOULDBLOCK: its daemon lives; -EPERM: not to be
 * trusted; or another -errno.
 */
int pins_dir_lock(const struct pins_dir *d, const char *name, uid_t *owner);

/** pins_dir_pin() - pin @fd as @name in this process's directory, which is not yet published.
 * Returns 0 or -errno with a text. */
int pins_dir_pin(const struct pins_dir *d, int fd, const char *name, const struct kern_text *t);

/**
 * pins_dir_remove() - remove the pins in a directory of the parent, `config` last, and itself
 * @dir_fd: open on it
 * @mine: which names may be removed; NULL: all
 *
 * Returns 0 or -errno: something else is in there.
 */
int pins_dir_remove(const struct pins_dir *d, const char *name, int dir_fd,
		    bool (*mine)(const void *arg, const char *name), const void *arg);

/** pins_dir_close() - close the parent and, last, the directory: until then nobody takes it for a
 * dead daemon's. Removes nothing. */
void pins_dir_close(struct pins_dir *d);

#endif
