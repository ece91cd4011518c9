/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Directories of pins: what both kernel paths do with theirs. Which directory belongs to whom, and
 * what becomes of a dead daemon's, is kern_pins.c's and splice_pins.c's to say.
 *
 * A directory that was renamed or removed between open and lock is opened again.
 */
#include "kern/pins_dir.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Each try needs another daemon that ends or starts within microseconds. */
#define LOCK_TRIES 16

/* "/sys/fs/bpf/kvpin" -> "/sys/fs/bpf" and "kvpin". */
static int split_path(struct pins_dir *d, const char *path, const struct kern_text *t)
{
	size_t len = strlen(path);
	const char *slash;

	while (len > 1 && path[len - 1] == '/')
		len--;
	slash = memrchr(path, '/', len);
	if (*path != '/' || len < 2 || (size_t)(slash - path) >= sizeof(d->parent))
		return KERN_SAY(t, -EINVAL, "steer.pin: \"%s\" must be an absolute path in a bpffs",
				path);
	snprintf(d->parent, sizeof(d->parent), "%.*s", slash == path ? 1 : (int)(slash - path),
		 path);
	if (len - (slash + 1 - path) >= sizeof(d->name) ||
	    memchr(slash + 1, '.', len - (slash + 1 - path)))
		return KERN_SAY(t, -EINVAL,
				"steer.pin: the last part of \"%s\" must have no dot, which bpffs "
				"forbids, and "
				"less than %d characters",
				path, PINS_NAME_MAX);
	snprintf(d->name, sizeof(d->name), "%.*s", (int)(len - (slash + 1 - path)), slash + 1);
	snprintf(d->temp, sizeof(d->temp), "%s" PINS_TEMP_MARK "%d", d->name, getpid());
	return 0;
}

static int open_parent(struct pins_dir *d, const struct kern_text *t)
{
	struct statfs fs;
	int err;

	d->parent_fd = open(d->parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->parent_fd < 0) {
		err = -errno;
		return KERN_SAY(
			t, err,
			"steer.pin: %s: %s (it must be a directory in a bpffs: mount -t bpf bpf "
			"/sys/fs/bpf)",
			d->parent, strerror(-err));
	}
	if (fstatfs(d->parent_fd, &fs) || fs.f_type != BPF_FS_MAGIC)
		return KERN_SAY(t, -ENODEV,
				"steer.pin: %s is not in a bpffs (mount -t bpf bpf /sys/fs/bpf)",
				d->parent);
	return 0;
}

int pins_dir_open(struct pins_dir *d, const char *path, uid_t uid, gid_t gid,
		  const struct kern_text *t)
{
	int err;

	d->uid = uid;
	d->gid = gid;
	err = split_path(d, path, t);
	return err ? err : open_parent(d, t);
}

int pins_dir_lock(const struct pins_dir *d, const char *name, uid_t *owner)
{
	struct stat opened, there;
	int fd, err;

	for (int i = 0; i < LOCK_TRIES; i++) {
		fd = openat(d->parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			return -errno;
		if (fstat(fd, &opened)) {
			err = -errno;
			close(fd);
			return err;
		}
		*owner = opened.st_uid;
		if (opened.st_uid && opened.st_uid != geteuid() && opened.st_uid != d->uid) {
			close(fd);
			return -EPERM;
		}
		if (flock(fd, LOCK_EX | LOCK_NB)) {
			err = -errno;
			close(fd);
			return err;
		}
		/* Its owner may have removed or renamed it in between. */
		if (!fstatat(d->parent_fd, name, &there, AT_SYMLINK_NOFOLLOW) &&
		    there.st_ino == opened.st_ino && there.st_dev == opened.st_dev)
			return fd;
		close(fd);
	}
	return -EWOULDBLOCK;
}

int pins_dir_make(struct pins_dir *d, const struct kern_text *t)
{
	uid_t owner = 0;
	int err;

	if (mkdirat(d->parent_fd, d->temp, 0700)) {
		err = errno == EEXIST ? -EBUSY : -errno;
		return KERN_SAY(t, err, "steer.pin: cannot make %s/%s: %s", d->parent, d->temp,
				strerror(-err));
	}
	d->fd = pins_dir_lock(d, d->temp, &owner);
	/* Another one that starts may have taken it for a leftover. */
	if (d->fd < 0) {
		err = d->fd == -EWOULDBLOCK || d->fd == -ENOENT ? -EBUSY : d->fd;
		return KERN_SAY(t, err,
				"steer.pin: cannot lock %s/%s: %s (is another kvpin starting?)",
				d->parent, d->temp, strerror(-d->fd));
	}
	if (d->uid && fchown(d->fd, d->uid, d->gid)) {
		err = -errno;
		return KERN_SAY(t, err, "steer.pin: cannot give %s/%s to uid %u: %s", d->parent,
				d->temp, d->uid, strerror(-err));
	}
	return 0;
}

int pins_dir_pin(const struct pins_dir *d, int fd, const char *name, const struct kern_text *t)
{
	char path[PINS_PATH_BYTES];
	int err;

	snprintf(path, sizeof(path), "%s/%s/%s", d->parent, d->temp, name);
	err = bpf_obj_pin(fd, path);
	if (!err && d->uid && fchownat(d->fd, name, d->uid, d->gid, AT_SYMLINK_NOFOLLOW))
		err = -errno;
	if (err)
		return KERN_SAY(t, err, "steer.pin: cannot pin %s: %s", path, strerror(-err));
	return 0;
}

int pins_dir_remove(const struct pins_dir *d, const char *name, int dir_fd,
		    bool (*mine)(const void *arg, const char *name), const void *arg)
{
	struct dirent *entry;
	DIR *dir = NULL;
	int fd;

	fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		dir = fdopendir(fd);
	if (!dir) {
		if (fd >= 0)
			close(fd);
		return -errno;
	}
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.' || !strcmp(entry->d_name, "config"))
			continue;
		if (!mine || mine(arg, entry->d_name))
			unlinkat(dir_fd, entry->d_name, 0);
	}
	closedir(dir);
	unlinkat(dir_fd, "config", 0);
	return unlinkat(d->parent_fd, name, AT_REMOVEDIR) ? -errno : 0;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void pins_dir_close(struct pins_dir *d)
{
	close_fd(&d->parent_fd);
	close_fd(&d->fd);
}
