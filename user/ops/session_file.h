/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The pins' file: written at a clean exit, read at the next start, so that a restart moves no
 * session. A convenience, so nothing here ever stops a start or an exit: what fails is one WARN.
 *
 * Text: "kvpin-sessions 1", then a line per pin:
 *
 *	ID SERVER ADDRESS LAST-USED CREATED TURNS MOVES
 *
 * ID is 16 hex digits, the times are seconds.milliseconds of CLOCK_REALTIME: pins age while kvpin
 * is down. A server is the same when name and address are. The file stays until the next clean
 * exit; after a crash its pins are as old as their times say.
 */
#ifndef OPS_SESSION_FILE_H
#define OPS_SESSION_FILE_H

#include <stdint.h>

#include "net/balancer.h"

/* What became of a file's lines. */
struct session_file_counts {
	uint32_t restored;
	uint32_t expired;
	uint32_t no_server; /* its server is not configured under this name and address */
	uint32_t over_cap;  /* or pinned already */
	uint32_t malformed;
};

/**
 * session_file_load() - put the pins of a file back
 * @path: a file that is not there is no error
 * @b: after balancer_init(), before balancer_start()
 */
struct session_file_counts session_file_load(const char *path, struct balancer *b);

/**
 * session_file_save() - replace the file by the pins there are, at once or not at all
 * @b: after balancer_halt(), before balancer_fini()
 *
 * Returns 0 or -errno.
 */
int session_file_save(const char *path, struct balancer *b);

#endif
