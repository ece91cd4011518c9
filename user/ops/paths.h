/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which of the kernel's data paths a daemon has: what the configuration wants of what the machine
 * allows. The relay is always there.
 */
#ifndef OPS_PATHS_H
#define OPS_PATHS_H

#include "core/config.h"
#include "net/splice.h"
#include "net/steer.h"

struct paths {
	struct steer *steer;   /* NULL: without it */
	struct splice *splice; /* NULL: without it */
};

/**
 * paths_open() - load what is wanted and possible
 * @p: zeroed; paths_close() is due in any case
 * @uid, @gid: who shall own the pins; 0: whoever opens
 * @why: on failure the reason
 *
 * A path that was asked for by name must come up; of path: auto one that does not is said once, by
 * a warning. Returns 0 or -errno; -EBUSY: another kvpin has the pins, so this one is not wanted at
 * all.
 */
int paths_open(struct paths *p, const struct config *c, uid_t uid, gid_t gid, char *why,
	       unsigned int why_bytes);

/** paths_close() - after the balancer's end */
void paths_close(struct paths *p);

/** paths_text() - for people: "steer, splice", "relay" */
const char *paths_text(const struct paths *p);

#endif
