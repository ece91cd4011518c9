/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The directory of pins in bpffs, and what a dead daemon left in it.
 *
 * Happy path: kern_pins_begin() makes and locks a sibling directory, kern_pins_publish() fills it
 * and renames it, kern_pins_end() removes it. Its lock tells who lives (kern/pins_dir.h).
 * Failures: whatever step failed, kern_pins_end() removes what there is of this process.
 *
 * Who reads the directory finds all pins or none: over a dead daemon's directory the new one is
 * exchanged in one step. `config` is pinned first and unpinned last, so a directory that has any
 * pins also tells their version.
 */
#ifndef KERN_KERN_PINS_H
#define KERN_KERN_PINS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "kern/pins_dir.h"

struct bpf_object;

struct kern_pins {
	struct pins_dir dir;
	int old_fd;		  /* a dead daemon's, locked; -1: none */
	bool old_foreign_version; /* its pins may have other names */
	/* Of the dead daemon, for kern_adopt(); -1: none, or of another version. */
	int old_sessions_fd, old_backends_fd;
};

#define KERN_PINS_NONE                                                                             \
	{                                                                                          \
		.dir = PINS_DIR_NONE, .old_fd = -1, .old_sessions_fd = -1, .old_backends_fd = -1   \
	}

/**
 * kern_pins_begin() - look for a living and a dead daemon, make a directory of this process
 * @p: KERN_PINS_NONE; on failure too it wants kern_pins_end()
 * @dir: where the pins shall be; its parent must be in a bpffs
 * @obj: opened, perhaps not loaded: tells which names are kvpin's
 * @uid, @gid: who gets the pins; 0: whoever makes them
 * @why: on failure a text
 *
 * Returns 0; -EBUSY: another daemon lives; -EEXIST: something else is in there; or another -errno.
 */
int kern_pins_begin(struct kern_pins *p, const char *dir, const struct bpf_object *obj, uid_t uid,
		    gid_t gid, char *why, size_t why_bytes);

/** kern_pins_publish() - pin all maps and programs of @obj (loaded), put the directory in place,
 * remove the dead daemon's. Returns 0 or -errno with a text in @why. */
int kern_pins_publish(struct kern_pins *p, const struct bpf_object *obj, char *why,
		      size_t why_bytes);

/** kern_pins_end() - remove what this process pinned, unlock, close */
void kern_pins_end(struct kern_pins *p, const struct bpf_object *obj);

#endif
