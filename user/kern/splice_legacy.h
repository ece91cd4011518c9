/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The streams that a dead daemon left: its servers go on working on them, so its successor has to
 * know how many there are, and its clients go on reading, so it tells the old program, which goes
 * on with them (splice_pins.h), of a gateway that is another one now. Nothing else is written into
 * the dead daemon's pinned entries. Another device would be of no use: the old program is not
 * there.
 *
 * Happy path: splice_legacy_open() finds those that run, splice_legacy_look() lets go those that
 * have ended; none is added, because only a daemon takes one. Failures: a map of another version,
 * or one that cannot be mapped, has none.
 */
#ifndef KERN_SPLICE_LEGACY_H
#define KERN_SPLICE_LEGACY_H

#include <stddef.h>
#include <stdint.h>

#include "kvpin_splice_abi.h"

/* Zeroed: there are none. */
struct splice_legacy {
	struct kvpin_splice_conn *conns; /* the dead daemon's, mapped */
	uint32_t nr_conns;
	uint32_t nr;
	uint32_t *entry; /* servers' whose answer runs: @nr */
};

/**
 * splice_legacy_open() - find the streams that run
 * @l: zeroed; wants splice_legacy_close()
 * @dir: path of the directory with the dead daemon's pins
 * @config: of the dead daemon, mapped
 */
void splice_legacy_open(struct splice_legacy *l, const char *dir,
			const volatile struct kvpin_splice_config *config);

/**
 * splice_legacy_look() - let those go that have ended
 * @before_ns: CLOCK_MONOTONIC; one in which nothing has moved since then counts as ended, as it
 *             would if its daemon lived
 */
void splice_legacy_look(struct splice_legacy *l, uint64_t before_ns);

/** splice_legacy_moved() - ways have changed: to which gateway do their packets go now? */
void splice_legacy_moved(struct splice_legacy *l);

/** splice_legacy_close() - forget them all; @l may be zeroed, and is afterwards */
void splice_legacy_close(struct splice_legacy *l);

#endif
