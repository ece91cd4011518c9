/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Pins of the splice path: this daemon's, and those of dead ones whose streams still run.
 */
#include "kern/splice_pins.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "kvpin_splice_abi.h"

/* ---- what dead daemons left ---- */

static const uint64_t *view_used(const struct splice_pins *p, const char *name)
{
	char path[PINS_PATH_BYTES];
	void *mem;
	int fd;

	snprintf(path, sizeof(path), "%s/%s/config", p->dir.parent, name);
	fd = bpf_obj_get(path);
	if (fd < 0)
		return NULL;
	mem = mmap(NULL, sizeof(struct kvpin_splice_config), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (mem == MAP_FAILED)
		return NULL;
	return (const uint64_t *)((char *)mem + offsetof(struct kvpin_splice_config, used_ns));
}

static struct kvpin_splice_config *config_of(const uint64_t *used_ns)
{
	return (void *)((char *)used_ns - offsetof(struct kvpin_splice_config, used_ns));
}

static void unview_used(const uint64_t *used_ns)
{
	if (used_ns)
		munmap(config_of(used_ns), sizeof(struct kvpin_splice_config));
}

static void notes_of(const struct splice_pins *p, const char *name, int dir_fd,
		     struct tc_notes *notes)
{
	char path[PINS_PATH_BYTES];

	snprintf(path, sizeof(path), "%s/%s", p->dir.parent, name);
	tc_notes_read(notes, path, dir_fd);
	notes->dir_fd = dir_fd;
}

/* Of no use to anybody: at once, with what it says is at tc. */
static void old_drop(struct splice_pins *p, const char *name, int dir_fd)
{
	struct tc_notes notes;

	notes_of(p, name, dir_fd, &notes);
	pins_dir_remove(&p->dir, name, dir_fd, NULL, NULL);
	tc_notes_clear(&notes);
	close(dir_fd);
}

/* A directory that is locked by this process now: keep its program for as long as it is used. */
static void old_keep(struct splice_pins *p, const char *name, int dir_fd)
{
	struct splice_pins_old *old = &p->old[p->nr_old];
	char path[PINS_PATH_BYTES];

	if (p->nr_old == SPLICE_PINS_OLD_MAX || !(old->used_ns = view_used(p, name))) {
		old_drop(p, name, dir_fd);
		return;
	}
	notes_of(p, name, dir_fd, &old->notes);
	snprintf(path, sizeof(path), "%s/%s", p->dir.parent, name);
	splice_legacy_open(&old->legacy, path, config_of(old->used_ns));
	if (p->dir.uid && fchown(dir_fd, p->dir.uid, p->dir.gid))
		LOG(WARN, "pins of a former kvpin cannot be given away", F_STR("dir", name));
	snprintf(old->name, sizeof(old->name), "%s", name);
	old->dir_fd = dir_fd;
	p->nr_old++;
	LOG(INFO, "spliced streams of a former kvpin go on", F_STR("dir", name),
	    F_UINT("counted", old->legacy.nr));
}

/* The directory in place, when its daemon is dead, gets another name. */
static int put_aside(struct splice_pins *p, const struct kern_text *t)
{
	char aside[PINS_MARKED_MAX];
	uid_t owner;
	int fd = pins_dir_lock(&p->dir, p->dir.name, &owner), err;

	if (fd == -ENOENT)
		return 0;
	if (fd == -EWOULDBLOCK)
		return KERN_SAY(
			t, -EBUSY,
			"steer.pin: %s/%s belongs to another kvpin that runs (stop it, or give "
			"this one another steer.pin)",
			p->dir.parent, p->dir.name);
	if (fd < 0)
		return KERN_SAY(t, fd, "steer.pin: %s/%s: %s (remove it)", p->dir.parent,
				p->dir.name, strerror(-fd));
	snprintf(aside, sizeof(aside), "%s-old-%d", p->dir.name, getpid());
	if (renameat(p->dir.parent_fd, p->dir.name, p->dir.parent_fd, aside)) {
		err = -errno;
		close(fd);
		return KERN_SAY(t, err, "steer.pin: cannot rename %s/%s: %s", p->dir.parent,
				p->dir.name, strerror(-err));
	}
	old_keep(p, aside, fd);
	return 0;
}

/* Those that a former successor had put aside, and those of daemons that died while they started.
 */
static void collect(struct splice_pins *p)
{
	size_t len = strlen(p->dir.name);
	struct dirent *entry;
	DIR *dir = opendir(p->dir.parent);
	uid_t owner;
	int fd;

	while (dir && (entry = readdir(dir))) {
		const char *name = entry->d_name;
		bool fresh;

		if (strncmp(name, p->dir.name, len))
			continue;
		fresh = !strncmp(name + len, "-new-", 5);
		if (!fresh && strncmp(name + len, "-old-", 5))
			continue;
		fd = pins_dir_lock(&p->dir, name, &owner);
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

static void old_close(struct splice_pins_old *old)
{
	splice_legacy_close(&old->legacy);
	unview_used(old->used_ns);
	close(old->dir_fd);
}

unsigned int splice_pins_tick(struct splice_pins *p, uint64_t before_ns)
{
	for (unsigned int i = 0; i < p->nr_old;) {
		struct splice_pins_old *old = &p->old[i];

		splice_legacy_look(&old->legacy, before_ns);
		if (__atomic_load_n(old->used_ns, __ATOMIC_RELAXED) >= before_ns) {
			i++;
			continue;
		}
		if (pins_dir_remove(&p->dir, old->name, old->dir_fd, NULL, NULL))
			LOG(WARN, "directory of pins not removed", F_STR("dir", old->name));
		tc_keeper_look(&p->keeper);
		old_close(old);
		*old = p->old[--p->nr_old];
	}
	return p->nr_old;
}

/* ---- this process's ---- */

int splice_pins_begin(struct splice_pins *p, const char *dir, uid_t uid, gid_t gid,
		      const struct kern_text *t)
{
	int err;

	p->dir = (struct pins_dir)PINS_DIR_NONE;
	err = pins_dir_open(&p->dir, dir, uid, gid, t);
	if (err)
		return err;
	collect(p);
	err = put_aside(p, t);
	return err ? err : pins_dir_make(&p->dir, t);
}

int splice_pins_publish(struct splice_pins *p, int config_fd, int conns_fd, const int *links,
			unsigned int nr, const struct kern_text *t)
{
	char name[16];
	int err = pins_dir_pin(&p->dir, config_fd, "config", t);

	if (!err)
		err = pins_dir_pin(&p->dir, conns_fd, "conns", t);
	for (unsigned int i = 0; i < nr && !err; i++) {
		snprintf(name, sizeof(name), "link%u", i);
		err = pins_dir_pin(&p->dir, links[i], name, t);
	}
	if (err)
		return err;
	if (renameat2(p->dir.parent_fd, p->dir.temp, p->dir.parent_fd, p->dir.name,
		      RENAME_NOREPLACE)) {
		err = errno == EEXIST ? -EBUSY : -errno;
		return KERN_SAY(t, err, "steer.pin: cannot rename %s/%s to %s: %s", p->dir.parent,
				p->dir.temp, p->dir.name, strerror(-err));
	}
	p->dir.published = true;
	return 0;
}

int splice_pins_add(const struct splice_pins *p, int link, unsigned int nr)
{
	char path[PINS_PATH_BYTES];

	snprintf(path, sizeof(path), "%s/%s/link%u", p->dir.parent, p->dir.name, nr);
	return p->dir.published ? bpf_obj_pin(link, path) : 0;
}

void splice_pins_remove(const struct splice_pins *p, unsigned int nr)
{
	char name[16];

	snprintf(name, sizeof(name), "link%u", nr);
	if (p->dir.published)
		unlinkat(p->dir.fd, name, 0);
}

/* ---- what is at tc without links ---- */

int splice_pins_note(struct splice_pins *p, enum tc_note what, int ifindex, int prog_fd,
		     const struct kern_text *t)
{
	char name[TC_NOTE_BYTES];

	tc_note_name(what, ifindex, name);
	return pins_dir_pin(&p->dir, prog_fd, name, t);
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

	notes_of(p, p->dir.name, p->dir.fd, &notes[nr++]);
	for (unsigned int i = 0; i < p->nr_old; i++)
		notes[nr++] = p->old[i].notes;
	return tc_keeper_start(&p->keeper, notes, nr);
}

void splice_pins_end(struct splice_pins *p)
{
	const char *name = p->dir.published ? p->dir.name : p->dir.temp;

	if (p->dir.fd >= 0 && pins_dir_remove(&p->dir, name, p->dir.fd, NULL, NULL))
		LOG(WARN, "directory of pins not removed", F_STR("dir", name));
	tc_keeper_stop(&p->keeper);
	/* Streams that still run are the next kvpin's. */
	for (unsigned int i = 0; i < p->nr_old; i++)
		old_close(&p->old[i]);
	p->nr_old = 0;
	pins_dir_close(&p->dir);
}
