/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The directory of pins: who else has it, what a dead daemon left, and the swap.
 *
 * Races of two that start: each makes a directory of its own, named by its pid. Over a dead
 * daemon's directory only one gets the lock; where there was none, rename without replacing lets
 * one win.
 */
#include "kern/kern_pins.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "kern/kern_log.h"
#include "kvpin_abi.h"

/* Is it what this version pins? */
static bool is_own_name(const void *arg, const char *name)
{
	const struct bpf_object *obj = arg;
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
	char path[PINS_PATH_BYTES];
	uint32_t bytes = sizeof(*info);
	int fd;

	snprintf(path, sizeof(path), "%s/%s/%s", p->dir.parent, dir, name);
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

/* @any_name: not only the names of this version. */
static int dir_remove(const struct kern_pins *p, const struct bpf_object *obj, const char *name,
		      int dir_fd, bool any_name)
{
	return pins_dir_remove(&p->dir, name, dir_fd, any_name ? NULL : is_own_name, obj);
}

static int say_busy(const struct kern_pins *p, const struct kern_text *t)
{
	struct kvpin_config config;

	pinned_version(p, p->dir.name, &config);
	if (config.pid && (kill((pid_t)config.pid, 0) == 0 || errno == EPERM))
		return KERN_SAY(t, -EBUSY,
				"steer.pin: %s/%s belongs to another kvpin that runs, pid %llu "
				"(stop it, or "
				"give this one another directory)",
				p->dir.parent, p->dir.name, (unsigned long long)config.pid);
	return KERN_SAY(t, -EBUSY,
			"steer.pin: %s/%s is in use by another kvpin that just starts or ends%s "
			"(try again)",
			p->dir.parent, p->dir.name, config.pid ? "" : ", or is of another version");
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

	fd = pins_dir_lock(&p->dir, p->dir.name, &owner);
	if (fd == -ENOENT)
		return 0;
	if (fd == -EWOULDBLOCK)
		return say_busy(p, t);
	if (fd == -EPERM)
		return KERN_SAY(
			t, fd,
			"steer.pin: %s/%s belongs to uid %u, which is neither root nor this user "
			"(remove it)",
			p->dir.parent, p->dir.name, owner);
	if (fd < 0)
		return KERN_SAY(t, fd, "steer.pin: %s/%s: %s (remove it)", p->dir.parent,
				p->dir.name, strerror(-fd));
	p->old_fd = fd;
	version = pinned_version(p, p->dir.name, &config);
	p->old_foreign_version = version && version != KVPIN_ABI_VERSION;
	err = dir_vet(obj, fd, p->old_foreign_version, foreign, sizeof(foreign));
	if (err) {
		/* Not to be removed by anybody here. */
		close(p->old_fd);
		p->old_fd = -1;
		return KERN_SAY(
			t, err,
			"steer.pin: %s/%s has \"%s\" in it, which is not kvpin's (remove it)",
			p->dir.parent, p->dir.name, foreign);
	}
	if (version != KVPIN_ABI_VERSION) {
		if (version)
			LOG(WARN, "sessions of another version are not adopted",
			    F_STR("dir", p->dir.name), F_UINT("version", version),
			    F_UINT("wanted", KVPIN_ABI_VERSION));
		return 0;
	}
	p->old_sessions_fd = pinned_map(p, p->dir.name, "sessions", BPF_MAP_TYPE_HASH,
					sizeof(__u64), sizeof(struct kvpin_session), &info);
	p->old_backends_fd = pinned_map(p, p->dir.name, "backends", BPF_MAP_TYPE_ARRAY,
					sizeof(__u32), sizeof(struct kvpin_backend), &info);
	if (p->old_sessions_fd < 0 || p->old_backends_fd < 0)
		LOG(WARN, "sessions of the previous daemon cannot be read",
		    F_STR("dir", p->dir.name));
	return 0;
}

/* What those left behind that died while they started. */
static void sweep_leftovers(const struct kern_pins *p, const struct bpf_object *obj)
{
	size_t len = strlen(p->dir.name), mark = strlen(PINS_TEMP_MARK);
	struct kvpin_config config;
	struct dirent *entry;
	char foreign[256];
	uid_t owner;
	DIR *dir;
	int fd;

	dir = opendir(p->dir.parent);
	while (dir && (entry = readdir(dir))) {
		const char *name = entry->d_name;
		uint32_t version;
		bool any;

		if (strncmp(name, p->dir.name, len) || strncmp(name + len, PINS_TEMP_MARK, mark) ||
		    !isdigit((unsigned char)name[len + mark]) ||
		    strspn(name + len + mark, "0123456789") != strlen(name + len + mark))
			continue;
		fd = pins_dir_lock(&p->dir, name, &owner);
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

int kern_pins_begin(struct kern_pins *p, const char *dir, const struct bpf_object *obj, uid_t uid,
		    gid_t gid, char *why, size_t why_bytes)
{
	struct kern_text t = {why, why_bytes};
	int err;

	err = pins_dir_open(&p->dir, dir, uid, gid, &t);
	if (!err)
		err = take_old(p, obj, &t);
	if (err)
		return err;
	sweep_leftovers(p, obj);
	return pins_dir_make(&p->dir, &t);
}

int kern_pins_publish(struct kern_pins *p, const struct bpf_object *obj, char *why,
		      size_t why_bytes)
{
	struct kern_text t = {why, why_bytes};
	unsigned int flag = p->old_fd >= 0 ? RENAME_EXCHANGE : RENAME_NOREPLACE;
	struct bpf_program *prog;
	const struct bpf_map *map;
	int err;

	err = pins_dir_pin(&p->dir, bpf_object__find_map_fd_by_name(obj, "config"), "config", &t);
	if (err)
		return err;
	bpf_object__for_each_map(map, obj)
	{
		if (bpf_map__is_internal(map) || !strcmp(bpf_map__name(map), "config"))
			continue;
		err = pins_dir_pin(&p->dir, bpf_map__fd(map), bpf_map__name(map), &t);
		if (err)
			return err;
	}
	bpf_object__for_each_program(prog, obj)
	{
		err = pins_dir_pin(&p->dir, bpf_program__fd(prog), bpf_program__name(prog), &t);
		if (err)
			return err;
	}
	if (renameat2(p->dir.parent_fd, p->dir.temp, p->dir.parent_fd, p->dir.name, flag)) {
		err = -errno;
		if (err == -EEXIST)
			return say_busy(p, &t);
		return KERN_SAY(&t, err, "steer.pin: cannot rename %s/%s to %s: %s", p->dir.parent,
				p->dir.temp, p->dir.name, strerror(-err));
	}
	p->dir.published = true;
	if (p->old_fd >= 0) {
		if (dir_remove(p, obj, p->dir.temp, p->old_fd, p->old_foreign_version))
			LOG(WARN, "directory of pins not removed", F_STR("dir", p->dir.temp));
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
	const char *name = p->dir.published ? p->dir.name : p->dir.temp;
	int err;

	if (p->dir.fd >= 0) {
		err = dir_remove(p, obj, name, p->dir.fd, false);
		if (err)
			LOG(WARN, "directory of pins not removed", F_STR("dir", name),
			    F_STR("error", strerror(-err)));
	}
	close_fd(&p->old_sessions_fd);
	close_fd(&p->old_backends_fd);
	close_fd(&p->old_fd);
	pins_dir_close(&p->dir);
}
