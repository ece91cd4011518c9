/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who takes filters down when nobody is privileged any more. The daemon gives up all capabilities;
 * a pinned link ends with its pin, but a filter only by rtnetlink, with CAP_NET_ADMIN.
 *
 * Happy path: a filter is written down as a pin (of its program) in a directory of splice_pins.h
 * before it is made; tc_keeper_start() forks a process that has this one capability, no descriptor
 * but those directories, and takes no input but "look". Where a directory is gone, it takes down
 * what was written down there. Failures: a process that was killed leaves filters; a directory
 * that is still there tells the next kvpin. Close: the daemon's end, of either kind, ends it.
 */
#ifndef KERN_TC_KEEPER_H
#define KERN_TC_KEEPER_H

#include <sys/types.h>

#include "kern/device.h"
#include "kern/kern_log.h"

#define TC_HOOKS_MAX (2 * DEVICES_MAX)

/* What one directory says. */
struct tc_notes {
	int dir_fd; /* without its lock; -1: none */
	unsigned int nr;
	struct {
		int ifindex;
		bool egress;
		uint32_t prog_id;
	} filter[TC_HOOKS_MAX];
	struct device_set qdiscs; /* to be removed when the last filter has gone */
};

struct tc_keeper {
	pid_t pid; /* 0: none */
	int socket;
};

enum tc_note { TC_NOTE_INGRESS, TC_NOTE_EGRESS, TC_NOTE_QDISC, TC_NOTE_NR };
#define TC_NOTE_BYTES 32

/** tc_note_name() - of the pin that notes a filter or a qdisc; @name: room for TC_NOTE_BYTES */
void tc_note_name(enum tc_note what, int ifindex, char *name);

/** tc_notes_read() - read a directory (@dir_fd, at path @dir); what cannot be read is left out.
 * The caller sets notes->dir_fd. */
void tc_notes_read(struct tc_notes *notes, const char *dir, int dir_fd);

/** tc_notes_clear() - take all of it down; needs CAP_NET_ADMIN */
void tc_notes_clear(const struct tc_notes *notes);

/**
 * tc_keeper_start() - fork
 * @k: zeroed
 * @notes: @nr directories; those that say nothing are left out. When none does, nothing is forked.
 *
 * Needs CAP_NET_ADMIN, before the first thread. Returns 0 or -errno.
 */
int tc_keeper_start(struct tc_keeper *k, const struct tc_notes *notes, unsigned int nr);

/** tc_keeper_look() - a directory has gone */
void tc_keeper_look(struct tc_keeper *k);

/** tc_keeper_stop() - let it look once more, end it, wait for it; @k may be zeroed */
void tc_keeper_stop(struct tc_keeper *k);

#endif
