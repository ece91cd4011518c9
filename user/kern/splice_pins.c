/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Pins of the splice path. As with kern_pins.c a flock() on the directory tells a living daemon
 * from a dead one; a directory gets its name when it is complete. bpffs is world-writable: a
 * directory counts only when it belongs to root, to this user, or to who shall get the pins.
 */
#include "kern/splice_pins.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/log.h"
#include "kvpin_splice_abi.h"

#define PATH_BYTES (PATH_MAX + 4 * SPLICE_PINS_NAME_MAX)

static int split_path(struct splice_pins *p, const char *dir, const struct kern_text *t)
{
	const char *slash = strrchr(dir, '/');
	struct statfs fs;
	int err;

	if (*dir != '/' || slash == dir || strlen(slash) >= SPLICE_PINS_NAME_MAX - 32 ||
	    (size_t)(slash - dir) >= sizeof(p->parent))
		return KERN_SAY(t, -EINVAL, "pins: \"%s\" must be an absolute path in a bpffs",
				dir);
	snprintf(p->parent, sizeof(p->parent), "%.*s", (int)(slash - dir), dir);
	snprintf(p->name, sizeof(p->name), "%s", slash + 1);
	snprintf(p->temp, sizeof(p->temp), "%s-new-%d", p->name, getpid());
	p->parent_fd = open(p->parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (p->parent_fd < 0 || fstatfs(p->parent_fd, &fs) || fs.f_type != BPF_FS_MAGIC) {
		err = p->parent_fd < 0 ? -errno : -ENODEV;
		return KERN_SAY(t, err, "pins: %s is not in a bpffs (mount -t bpf bpf /sys/fs/bpf)",
				p->parent);
	}
	return 0;
}

/* Opens and locks. -EWOULDBLOCK: its daemon lives; -EPERM: not to be trusted. */
static int dir_lock(const struct splice_pins *p, const char *name)
{
	int fd = openat(p->parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC),
	    err = 0;
	struct stat opened, there;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &opened))
		err = -errno;
	else if (opened.st_uid && opened.st_uid != geteuid() && opened.st_uid != p->uid)
		err = -EPERM;
	else if (flock(fd, LOCK_EX | LOCK_NB))
		err = -errno;
	/* Its owner may have removed or renamed it in between. */
	else if (fstatat(p->parent_fd, name, &there, AT_SYMLINK_NOFOLLOW) ||
		 there.st_ino != opened.st_ino)
		err = -EWOULDBLOCK;
	if (!err)
		return fd;
	close(fd);
	return err;
}

static int dir_remove(const struct splice_pins *p, const char *name, int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *entry;
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return -errno;
	}
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			unlinkat(dir_fd, entry->d_name, 0);
	closedir(dir);
	return unlinkat(p->parent_fd, name, AT_REMOVEDIR) ? -errno : 0;
}

/* ---- what dead daemons left ---- */

static const uint64_t *view_used(const struct splice_pins *p, const char *name)
{
	char path[PATH_BYTES];
	void *mem;
	int fd;

	snprintf(path, sizeof(path), "%s/%s/config", p->parent, name);
	fd = bpf_obj_get(path);
	if (fd < 0)
		return NULL;
	mem = mmap(NULL, sizeof(struct kvpin_splice_config), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (mem == MAP_FAILED)
		return NULL;
	return (const uint64_t *)((char *)mem + offsetof(struct kvpin_splice_config, used_ns));
}

static void unview_used(const uint64_t *used_ns)
{
	if (used_ns)
		munmap((char *)used_ns - offsetof(struct kvpin_splice_config, used_ns),
		       sizeof(struct kvpin_splice_config));
}

static void notes_of(const struct splice_pins *p, const char *name, int dir_fd,
		     struct tc_notes *notes)
{
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "%s/%s", p->parent, name);
	tc_notes_read(notes, path, dir_fd);
	notes->dir_fd = dir_fd;
}

/* Of no use to anybody: at once, with what it says is at tc. */
static void old_drop(struct splice_pins *p, const char *name, int dir_fd)
{
	struct tc_notes notes;

	notes_of(p, name, dir_fd, &notes);
	dir_remove(p, name, dir_fd);
	tc_notes_clear(&notes);
	close(dir_fd);
}

/* A directory that is locked by this process now: keep its program for as long as it is used. */
static void old_keep(struct splice_pins *p, const char *name, int dir_fd)
{
	struct splice_pins_old *old = &p->old[p->nr_old];

	if (p->nr_old == SPLICE_PINS_OLD_MAX || !(old->used_ns = view_used(p, name))) {
		old_drop(p, name, dir_fd);
		return;
	}
	notes_of(p, name, dir_fd, &old->notes);
	if (p->uid && fchown(dir_fd, p->uid, p->gid))
		LOG(WARN, "pins of a former kvpin cannot be given away", F_STR("dir", name));
	snprintf(old->name, sizeof(old->name), "%s", name);
	old->dir_fd = dir_fd;
	p->nr_old++;
	LOG(INFO, "spliced streams of a former kvpin go on", F_STR("dir", name));
}

/* The directory in place, when its daemon is dead, gets another name. */
static int put_aside(struct splice_pins *p, const struct kern_text *t)
{
	char aside[SPLICE_PINS_NAME_MAX + 32];
	int fd = dir_lock(p, p->name), err;

	if (fd == -ENOENT)
		return 0;
	if (fd == -EWOULDBLOCK)
		return KERN_SAY(t, -EBUSY,
				"pins: %s/%s belongs to another kvpin that runs (stop it, or give "
				"this one another steer.pin)",
				p->parent, p->name);
	if (fd < 0)
		return KERN_SAY(t, fd, "pins: %s/%s: %s (remove it)", p->parent, p->name,
				strerror(-fd));
	snprintf(aside, sizeof(aside), "%s-old-%d", p->name, getpid());
	if (renameat(p->parent_fd, p->name, p->parent_fd, aside)) {
		err = -errno;
		close(fd);
		return KERN_SAY(t, err, "pins: cannot rename %s/%s: %s", p->parent, p->name,
				strerror(-err));
	}
	old_keep(p, aside, fd);
	return 0;
}

/* Those that a former successor had put aside, and those of daemons that died while they started.
 */
static void collect(struct splice_pins *p)
{
	size_t len = strlen(p->name);
	struct dirent *entry;
	DIR *dir = opendir(p->parent);
	int fd;

	while (dir && (entry = readdir(dir))) {
		const char *name = entry->d_name;
		bool fresh;

		if (strncmp(name, p->name, len))
			continue;
		fresh = !strncmp(name + len, "-new-", 5);
		if (!fresh && strncmp(name + len, "-old-", 5))
			continue;
		fd = dir_lock(p, name);
		if (fd < 0)
			continue;
		if (fresh)
			old_drop(p, name, fd);
		else
			old_keep(p, name, fd);
	}
	if (dir)
		closedir(dir);
}

unsigned int splice_pins_tick(struct splice_pins *p, uint64_t before_ns)
{
	for (unsigned int i = 0; i < p->nr_old;) {
		struct splice_pins_old *old = &p->old[i];

		if (__atomic_load_n(old->used_ns, __ATOMIC_RELAXED) >= before_ns) {
			i++;
			continue;
		}
		if (dir_remove(p, old->name, old->dir_fd))
			LOG(WARN, "directory of pins not removed", F_STR("dir", old->name));
		tc_keeper_look(&p->keeper);
		unview_used(old->used_ns);
		close(old->dir_fd);
		*old = p->old[--p->nr_old];
	}
	return p->nr_old;
}

/* ---- this process's ---- */

int splice_pins_begin(struct splice_pins *p, const char *dir, uid_t uid, gid_t gid,
		      const struct kern_text *t)
{
	int err;

	p->parent_fd = p->dir_fd = -1;
	p->uid = uid;
	p->gid = gid;
	err = split_path(p, dir, t);
	if (err)
		return err;
	collect(p);
	err = put_aside(p, t);
	if (err)
		return err;
	if (mkdirat(p->parent_fd, p->temp, 0700)) {
		err = -errno;
		return KERN_SAY(t, err, "pins: cannot make %s/%s: %s", p->parent, p->temp,
				strerror(-err));
	}
	p->dir_fd = dir_lock(p, p->temp);
	if (p->dir_fd < 0)
		return KERN_SAY(t, -EBUSY, "pins: cannot lock %s/%s (is another kvpin starting?)",
				p->parent, p->temp);
	if (uid && fchown(p->dir_fd, uid, gid)) {
		err = -errno;
		return KERN_SAY(t, err, "pins: cannot give %s/%s to uid %u: %s", p->parent, p->temp,
				uid, strerror(-err));
	}
	return 0;
}

static int pin_one(const struct splice_pins *p, int fd, const char *name, const struct kern_text *t)
{
	char path[PATH_BYTES];
	int err;

	snprintf(path, sizeof(path), "%s/%s/%s", p->parent, p->temp, name);
	err = bpf_obj_pin(fd, path);
	if (!err && p->uid && fchownat(p->dir_fd, name, p->uid, p->gid, AT_SYMLINK_NOFOLLOW))
		err = -errno;
	if (err)
		return KERN_SAY(t, err, "pins: cannot pin %s: %s", path, strerror(-err));
	return 0;
}

int splice_pins_publish(struct splice_pins *p, int config_fd, const int *links, unsigned int nr,
			const struct kern_text *t)
{
	char name[16];
	int err = pin_one(p, config_fd, "config", t);

	for (unsigned int i = 0; i < nr && !err; i++) {
		snprintf(name, sizeof(name), "link%u", i);
		err = pin_one(p, links[i], name, t);
	}
	if (err)
		return err;
	if (renameat2(p->parent_fd, p->temp, p->parent_fd, p->name, RENAME_NOREPLACE)) {
		err = errno == EEXIST ? -EBUSY : -errno;
		return KERN_SAY(t, err, "pins: cannot rename %s/%s to %s: %s", p->parent, p->temp,
				p->name, strerror(-err));
	}
	p->published = true;
	return 0;
}

/* ---- what is at tc without links ---- */

int splice_pins_note(struct splice_pins *p, enum tc_note what, int ifindex, int prog_fd)
{
	char path[PATH_BYTES], name[TC_NOTE_BYTES];
	int err;

	snprintf(path, sizeof(path), "%s/%s", p->parent, p->temp);
	err = tc_notes_write(path, what, ifindex, prog_fd, name);
	if (!err && p->uid && fchownat(p->dir_fd, name, p->uid, p->gid, AT_SYMLINK_NOFOLLOW))
		err = -errno;
	return err;
}

bool splice_pins_noted_qdisc(const struct splice_pins *p, int ifindex)
{
	for (unsigned int i = 0; i < p->nr_old; i++)
		if (device_has(&p->old[i].notes.qdiscs, ifindex))
			return true;
	return false;
}

int splice_pins_keep(struct splice_pins *p)
{
	struct tc_notes notes[SPLICE_PINS_OLD_MAX + 1];
	unsigned int nr = 0;

	notes_of(p, p->name, p->dir_fd, &notes[nr++]);
	for (unsigned int i = 0; i < p->nr_old; i++)
		notes[nr++] = p->old[i].notes;
	return tc_keeper_start(&p->keeper, notes, nr);
}

void splice_pins_end(struct splice_pins *p)
{
	const char *name = p->published ? p->name : p->temp;

	if (p->dir_fd >= 0) {
		if (dir_remove(p, name, p->dir_fd))
			LOG(WARN, "directory of pins not removed", F_STR("dir", name));
		close(p->dir_fd);
	}
	tc_keeper_stop(&p->keeper);
	/* Streams that still run are the next kvpin's. */
	for (unsigned int i = 0; i < p->nr_old; i++) {
		unview_used(p->old[i].used_ns);
		close(p->old[i].dir_fd);
	}
	if (p->parent_fd >= 0)
		close(p->parent_fd);
	p->nr_old = 0;
	p->parent_fd = p->dir_fd = -1;
}
