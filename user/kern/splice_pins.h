/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What keeps spliced streams alive when the daemon dies: its attachments are pinned, so that the
 * program goes on with the connections that it knows, and their ends are orderly.
 *
 * Happy path: splice_pins_begin() makes and locks a directory, splice_pins_publish() pins and puts
 * it in place, splice_pins_end() removes it. A dead daemon's directory is found unlocked: it is put
 * aside, and its program runs beside this daemon's own until no connection has used it for a while
 * (splice_pins_tick()). So the two programs never write to one map, and may be of different
 * versions; of another version's only `used_ns` is read, which never moves
 * (include/kvpin_splice_abi.h), of the same version's the streams too that still run, whose
 * gateways are kept true (splice_legacy.h).
 */
#ifndef KERN_SPLICE_PINS_H
#define KERN_SPLICE_PINS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "kern/kern_log.h"
#include "kern/pins_dir.h"
#include "kern/splice_legacy.h"
#include "kern/tc_keeper.h"

#define SPLICE_PINS_OLD_MAX 8

/* A dead daemon's. */
struct splice_pins_old {
	char name[PINS_MARKED_MAX];
	int dir_fd;		 /* locked */
	const uint64_t *used_ns; /* in its mapped configuration */
	struct tc_notes notes;	 /* its filters, where it had no links */
	struct splice_legacy legacy;
};

struct splice_pins {
	struct pins_dir dir;
	unsigned int nr_old;
	struct tc_keeper keeper;
	struct splice_pins_old old[SPLICE_PINS_OLD_MAX];
};

/**
 * splice_pins_begin() - find what dead daemons left, make a directory of this process
 * @p: zeroed; on failure too it wants splice_pins_end()
 * @dir: absolute, its parent in a bpffs
 * @uid, @gid: who gets the pins; 0: whoever makes them
 *
 * Returns 0; -EBUSY: another daemon lives; or another -errno, with a text.
 */
int splice_pins_begin(struct splice_pins *p, const char *dir, uid_t uid, gid_t gid,
		      const struct kern_text *t);

/** splice_pins_publish() - pin these and put the directory in place; 0 or -errno with a text
 * @config_fd, @conns_fd: the maps of configuration and connections; @links: of the attachments */
int splice_pins_publish(struct splice_pins *p, int config_fd, int conns_fd, const int *links,
			unsigned int nr, const struct kern_text *t);

/** splice_pins_add() - pin one more attachment, as link@nr; 0 or -errno */
int splice_pins_add(const struct splice_pins *p, int link, unsigned int nr);

/** splice_pins_remove() - the pin link@nr, if it is there */
void splice_pins_remove(const struct splice_pins *p, unsigned int nr);

/**
 * splice_pins_note() - before a filter is made, or when the device got its qdisc from us
 *
 * Such notes are of use when splice_pins_keep() follows. Returns 0 or -errno with a text.
 */
int splice_pins_note(struct splice_pins *p, enum tc_note what, int ifindex, int prog_fd,
		     const struct kern_text *t);

/** splice_pins_noted_qdisc() - did a dead daemon give the device its qdisc? */
bool splice_pins_noted_qdisc(const struct splice_pins *p, int ifindex);

/** splice_pins_keep() - after splice_pins_publish(): see to it that filters, this process's and
 * those of dead daemons, go with their directories. 0 or -errno. */
int splice_pins_keep(struct splice_pins *p);

/** splice_pins_tick() - look at what dead daemons left, and remove what nobody has used since
 * @before_ns. Returns how many are left. */
unsigned int splice_pins_tick(struct splice_pins *p, uint64_t before_ns);

/** splice_pins_end() - remove what this process pinned, unlock, close */
void splice_pins_end(struct splice_pins *p);

#endif
