/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The directory of pins: who else has it, what a dead daemon left, and the swap.
 *
 * Races of two that start: each makes a directory of its own, named by its pid. Over a dead
 * daemon's directory only one gets the lock; where there was none, rename without replacing lets
 * one win. A directory that was renamed or removed between open and lock is opened again.
 *
 * bpffs is world-writable: a directory counts only when it belongs to root, to this user, or to
 * who shall get the pins.
 */
#include "kern/kern_pins.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/log.h"
#include "kern/kern_log.h"
#include "kvpin_abi.h"

/* Between the name and the pid. Not a dot: bpffs forbids names with one. */
#define TEMP_MARK "-new-"
/* Each try needs another daemon that ends or starts within microseconds. */
#define LOCK_TRIES 16

static bool is_own_name(const struct bpf_object *obj, const char *name)
{
	struct bpf_program *prog;
	const struct bpf_map *map;

	bpf_object__for_each_map(map, obj)
	{
		if (!bpf_map__is_internal(map) && !strcmp(bpf_map__name(map), name))
			return true;
	}
	bpf_object__for_each_program(prog, obj)
	{
		if (!strcmp(bpf_program__name(prog), name))
			return true;
	}
	return false;
}

/* The pinned map, when it has this type and these sizes. @value_bytes 0: any. */
static int pinned_map(const struct kern_pins *p, const char *dir, const char *name,
		      enum bpf_map_type type, uint32_t key_bytes, uint32_t value_bytes,
		      struct bpf_map_info *info)
{
	char path[PATH_MAX + KERN_PIN_NAME_MAX * 3];
	uint32_t bytes = sizeof(*info);
	int fd;

	snprintf(path, sizeof(path), "%s/%s/%s", p->parent, dir, name);
	fd = bpf_obj_get(path);
	if (fd < 0)
		return fd;
	memset(info, 0, sizeof(*info));
	if (bpf_obj_get_info_by_fd(fd, info, &bytes) || info->type != type ||
	    info->key_size != key_bytes || (value_bytes && info->value_size != value_bytes)) {
		close(fd);
		return -EINVAL;
	}
	return fd;
}

/* Returns the version of pins, 0 when it cannot be told; @config is all zero unless it is ours. */
static uint32_t pinned_version(const struct kern_pins *p, const char *dir,
			       struct kvpin_config *config)
{
	struct bpf_map_info info;
	uint32_t key = 0, version = 0;
	uint8_t *value;
	int fd;

	memset(config, 0, sizeof(*config));
	fd = pinned_map(p, dir, "config", BPF_MAP_TYPE_ARRAY, sizeof(key), 0, &info);
	if (fd < 0)
		return 0;
	/* The kernel copies whole words. */
	value = info.value_size >= sizeof(version) ? calloc(info.value_size / 8 + 1, 8) : NULL;
	if (value && !bpf_map_lookup_elem(fd, &key, value)) {
		memcpy(&version, value, sizeof(version));
		if (version == KVPIN_ABI_VERSION && info.value_size == sizeof(*config))
			memcpy(config, value, sizeof(*config));
	}
	free(value);
	close(fd);
	return version;
}

/* Is there nothing in the directory but pins of a kvpin? Returns 0, or -EEXIST with the name of
 * what is foreign. @any_name: pins of another version may have any. */
static int dir_vet(const struct bpf_object *obj, int dir_fd, bool any_name, char *foreign,
		   size_t foreign_bytes)
{
	struct dirent *entry;
	struct stat st;
	DIR *dir;
	int fd, err = 0;

	fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir) {
		err = -errno;
		close(fd);
		return err;
	}
	while (!err && (entry = readdir(dir))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (!fstatat(dir_fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) &&
		    S_ISREG(st.st_mode) && (any_name || is_own_name(obj, entry->d_name)))
			continue;
		snprintf(foreign, foreign_bytes, "%s", entry->d_name);
		err = -EEXIST;
	}
	closedir(dir);
	return err;
}

/* Removes the pins and the directory. @any_name: not only kvpin's names of this version. */
static int dir_remove(const struct kern_pins *p, const struct bpf_object *obj, const char *name,
		      int dir_fd, bool any_name)
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
		if (any_name || is_own_name(obj, entry->d_name))
			unlinkat(dir_fd, entry->d_name, 0);
	}
	closedir(dir);
	unlinkat(dir_fd, "config", 0);
	return unlinkat(p->parent_fd, name, AT_REMOVEDIR) ? -errno : 0;
}

/* Opens and locks. Returns a descriptor; -ENOENT; -EWOULDBLOCK: alive; -EPERM: not ours, with the
 * owner in @owner. */
static int dir_lock(const struct kern_pins *p, const char *name, uid_t *owner)
{
	struct stat opened, there;
	int fd, err;

	for (int i = 0; i < LOCK_TRIES; i++) {
		fd = openat(p->parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			return -errno;
		if (fstat(fd, &opened)) {
			err = -errno;
			close(fd);
			return err;
		}
		*owner = opened.st_uid;
		if (opened.st_uid && opened.st_uid != geteuid() && opened.st_uid != p->uid) {
			close(fd);
			return -EPERM;
		}
		if (flock(fd, LOCK_EX | LOCK_NB)) {
			err = -errno;
			close(fd);
			return err;
		}
		/* Its owner may have removed or renamed it in between. */
		if (!fstatat(p->parent_fd, name, &there, AT_SYMLINK_NOFOLLOW) &&
		    there.st_ino == opened.st_ino && there.st_dev == opened.st_dev)
			return fd;
		close(fd);
	}
	return -EWOULDBLOCK;
}

static int say_busy(const struct kern_pins *p, const struct kern_text *t)
{
	struct kvpin_config config;

	pinned_version(p, p->name, &config);
	if (config.pid && (kill((pid_t)config.pid, 0) == 0 || errno == EPERM))
		return KERN_SAY(
			t, -EBUSY,
			"pins: %s/%s belongs to another kvpin that runs, pid %llu (stop it, or "
			"give this one another directory)",
			p->parent, p->name, (unsigned long long)config.pid);
	return KERN_SAY(
		t, -EBUSY,
		"pins: %s/%s is in use by another kvpin that just starts or ends%s (try again)",
		p->parent, p->name, config.pid ? "" : ", or is of another version");
}

/* Locks a dead daemon's directory and opens what can be adopted. */
static int take_old(struct kern_pins *p, const struct bpf_object *obj, const struct kern_text *t)
{
	struct kvpin_config config;
	struct bpf_map_info info;
	char foreign[256] = "";
	uint32_t version;
	uid_t owner = 0;
	int fd, err;

	fd = dir_lock(p, p->name, &owner);
	if (fd == -ENOENT)
		return 0;
	if (fd == -EWOULDBLOCK)
		return say_busy(p, t);
	if (fd == -EPERM)
		return KERN_SAY(
			t, fd,
			"pins: %s/%s belongs to uid %u, which is neither root nor this user "
			"(remove it)",
			p->parent, p->name, owner);
	if (fd < 0)
		return KERN_SAY(t, fd, "pins: %s/%s: %s (remove it)", p->parent, p->name,
				strerror(-fd));
	p->old_fd = fd;
	version = pinned_version(p, p->name, &config);
	p->old_foreign_version = version && version != KVPIN_ABI_VERSION;
	err = dir_vet(obj, fd, p->old_foreign_version, foreign, sizeof(foreign));
	if (err) {
		/* Not to be removed by anybody here. */
		close(p->old_fd);
		p->old_fd = -1;
		return KERN_SAY(t, err,
				"pins: %s/%s has \"%s\" in it, which is not kvpin's (remove it)",
				p->parent, p->name, foreign);
	}
	if (version != KVPIN_ABI_VERSION) {
		if (version)
			LOG(WARN, "sessions of another version are not adopted",
			    F_STR("dir", p->name), F_UINT("version", version),
			    F_UINT("wanted", KVPIN_ABI_VERSION));
		return 0;
	}
	p->old_sessions_fd = pinned_map(p, p->name, "sessions", BPF_MAP_TYPE_HASH, sizeof(__u64),
					sizeof(struct kvpin_session), &info);
	p->old_backends_fd = pinned_map(p, p->name, "backends", BPF_MAP_TYPE_ARRAY, sizeof(__u32),
					sizeof(struct kvpin_backend), &info);
	if (p->old_sessions_fd < 0 || p->old_backends_fd < 0)
		LOG(WARN, "sessions of the previous daemon cannot be read", F_STR("dir", p->name));
	return 0;
}

/* What those left behind that died while they started. */
static void sweep_leftovers(const struct kern_pins *p, const struct bpf_object *obj)
{
	size_t len = strlen(p->name), mark = strlen(TEMP_MARK);
	struct kvpin_config config;
	struct dirent *entry;
	char foreign[256];
	uid_t owner;
	DIR *dir;
	int fd;

	dir = opendir(p->parent);
	while (dir && (entry = readdir(dir))) {
		const char *name = entry->d_name;
		uint32_t version;
		bool any;

		if (strncmp(name, p->name, len) || strncmp(name + len, TEMP_MARK, mark) ||
		    !isdigit((unsigned char)name[len + mark]) ||
		    strspn(name + len + mark, "0123456789") != strlen(name + len + mark))
			continue;
		fd = dir_lock(p, name, &owner);
		if (fd < 0)
			continue;
		version = pinned_version(p, name, &config);
		any = version && version != KVPIN_ABI_VERSION;
		if (dir_vet(obj, fd, any, foreign, sizeof(foreign)) ||
		    dir_remove(p, obj, name, fd, any))
			LOG(WARN, "directory of pins not removed", F_STR("dir", name));
		close(fd);
	}
	if (dir)
		closedir(dir);
}

/* "/sys/fs/bpf/kvpin" -> "/sys/fs/bpf" and "kvpin". */
static int split_path(struct kern_pins *p, const char *dir, const struct kern_text *t)
{
	size_t len = strlen(dir);
	const char *slash;

	while (len > 1 && dir[len - 1] == '/')
		len--;
	slash = memrchr(dir, '/', len);
	if (*dir != '/' || len < 2 || (size_t)(slash - dir) >= sizeof(p->parent))
		return KERN_SAY(t, -EINVAL, "pins: \"%s\" must be an absolute path in a bpffs",
				dir);
	snprintf(p->parent, sizeof(p->parent), "%.*s", slash == dir ? 1 : (int)(slash - dir), dir);
	if (len - (slash + 1 - dir) >= sizeof(p->name) ||
	    memchr(slash + 1, '.', len - (slash + 1 - dir)))
		return KERN_SAY(
			t, -EINVAL,
			"pins: the last part of \"%s\" must have no dot, which bpffs forbids, and "
			"less than %d characters",
			dir, KERN_PIN_NAME_MAX);
	snprintf(p->name, sizeof(p->name), "%.*s", (int)(len - (slash + 1 - dir)), slash + 1);
	snprintf(p->temp, sizeof(p->temp), "%s" TEMP_MARK "%d", p->name, getpid());
	return 0;
}

static int open_parent(struct kern_pins *p, const struct kern_text *t)
{
	struct statfs fs;
	int err;

	p->parent_fd = open(p->parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (p->parent_fd < 0) {
		err = -errno;
		return KERN_SAY(t, err,
				"pins: %s: %s (it must be a directory in a bpffs: mount -t bpf bpf "
				"/sys/fs/bpf)",
				p->parent, strerror(-err));
	}
	if (fstatfs(p->parent_fd, &fs) || fs.f_type != BPF_FS_MAGIC)
		return KERN_SAY(t, -ENODEV,
				"pins: %s is not in a bpffs (mount -t bpf bpf /sys/fs/bpf)",
				p->parent);
	return 0;
}

static int make_dir(struct kern_pins *p, const struct kern_text *t)
{
	uid_t owner = 0;
	int err;

	if (mkdirat(p->parent_fd, p->temp, 0700)) {
		err = errno == EEXIST ? -EBUSY : -errno;
		return KERN_SAY(t, err, "pins: cannot make %s/%s: %s", p->parent, p->temp,
				strerror(-err));
	}
	p->dir_fd = dir_lock(p, p->temp, &owner);
	/* Another one that starts may have taken it for a leftover. */
	if (p->dir_fd < 0) {
		err = p->dir_fd == -EWOULDBLOCK || p->dir_fd == -ENOENT ? -EBUSY : p->dir_fd;
		return KERN_SAY(t, err, "pins: cannot lock %s/%s: %s (is another kvpin starting?)",
				p->parent, p->temp, strerror(-p->dir_fd));
	}
	if (p->uid && fchown(p->dir_fd, p->uid, p->gid)) {
		err = -errno;
		return KERN_SAY(t, err, "pins: cannot give %s/%s to uid %u: %s", p->parent, p->temp,
				p->uid, strerror(-err));
	}
	return 0;
}

int kern_pins_begin(struct kern_pins *p, const char *dir, const struct bpf_object *obj, uid_t uid,
		    gid_t gid, char *why, size_t why_bytes)
{
	struct kern_text t = {why, why_bytes};
	int err;

	p->uid = uid;
	p->gid = gid;
	err = split_path(p, dir, &t);
	if (!err)
		err = open_parent(p, &t);
	if (!err)
		err = take_old(p, obj, &t);
	if (err)
		return err;
	sweep_leftovers(p, obj);
	return make_dir(p, &t);
}

static int pin_one(const struct kern_pins *p, int fd, const char *name, const struct kern_text *t)
{
	char path[PATH_MAX + KERN_PIN_NAME_MAX * 3];
	int err;

	snprintf(path, sizeof(path), "%s/%s/%s", p->parent, p->temp, name);
	err = bpf_obj_pin(fd, path);
	if (!err && p->uid && fchownat(p->dir_fd, name, p->uid, p->gid, AT_SYMLINK_NOFOLLOW))
		err = -errno;
	if (err)
		return KERN_SAY(t, err, "pins: cannot pin %s: %s", path, strerror(-err));
	return 0;
}

int kern_pins_publish(struct kern_pins *p, const struct bpf_object *obj, char *why,
		      size_t why_bytes)
{
	struct kern_text t = {why, why_bytes};
	unsigned int flag = p->old_fd >= 0 ? RENAME_EXCHANGE : RENAME_NOREPLACE;
	struct bpf_program *prog;
	const struct bpf_map *map;
	int err;

	err = pin_one(p, bpf_object__find_map_fd_by_name(obj, "config"), "config", &t);
	if (err)
		return err;
	bpf_object__for_each_map(map, obj)
	{
		if (bpf_map__is_internal(map) || !strcmp(bpf_map__name(map), "config"))
			continue;
		err = pin_one(p, bpf_map__fd(map), bpf_map__name(map), &t);
		if (err)
			return err;
	}
	bpf_object__for_each_program(prog, obj)
	{
		err = pin_one(p, bpf_program__fd(prog), bpf_program__name(prog), &t);
		if (err)
			return err;
	}
	if (renameat2(p->parent_fd, p->temp, p->parent_fd, p->name, flag)) {
		err = -errno;
		if (err == -EEXIST)
			return say_busy(p, &t);
		return KERN_SAY(&t, err, "pins: cannot rename %s/%s to %s: %s", p->parent, p->temp,
				p->name, strerror(-err));
	}
	p->published = true;
	if (p->old_fd >= 0) {
		if (dir_remove(p, obj, p->temp, p->old_fd, p->old_foreign_version))
			LOG(WARN, "directory of pins not removed", F_STR("dir", p->temp));
		close(p->old_fd);
		p->old_fd = -1;
	}
	return 0;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void kern_pins_end(struct kern_pins *p, const struct bpf_object *obj)
{
	const char *name = p->published ? p->name : p->temp;
	int err;

	if (p->dir_fd >= 0) {
		err = dir_remove(p, obj, name, p->dir_fd, false);
		if (err)
			LOG(WARN, "directory of pins not removed", F_STR("dir", name),
			    F_STR("error", strerror(-err)));
	}
	close_fd(&p->old_sessions_fd);
	close_fd(&p->old_backends_fd);
	/* Closed last: until then nobody takes the directory for a dead daemon's. */
	close_fd(&p->dir_fd);
	close_fd(&p->old_fd);
	close_fd(&p->parent_fd);
}
