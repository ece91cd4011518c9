/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The pins' file: written at a clean exit, read at the next start, so that a restart moves no
 * session. A convenience, so nothing here ever stops a start or an exit: what fails is one WARN.
 *
 * Text: "kvpin-sessions 2", what ops/session_ledger.h keeps of the servers, then a line per pin:
 *
 *	ID SERVER ADDRESS LAST-USED CREATED TURNS MOVES CONTEXT PREFILL-MS COLD TURN CACHE
 *
 * CONTEXT is in bytes, COLD the cold turns in a row, TURN the latest turn's class, CACHE "kept" or
 * "lost" by a restart of the server. Version 1 ends behind MOVES and is read too.
 *
 * ID is 16 hex digits, the times are seconds.milliseconds of CLOCK_REALTIME: pins age while kvpin
 * is down. A server is the same when name and address are. The file stays until the next clean
 * exit; after a crash its pins are as old as their times say.
 */
#ifndef OPS_SESSION_FILE_H
#define OPS_SESSION_FILE_H

#include <stdint.h>

#include "net/balancer.h"
#include "ops/restart_watch.h"

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
 * @w: is told which sockets were seen; NULL: nobody
 */
struct session_file_counts session_file_load(const char *path, struct balancer *b,
					     struct restart_watch *w);

/** session_file_warn() - say, as who one is now, if the file cannot be written: at the start, where
 * somebody is looking, and not only when the pins are lost; NULL: there is none */
void session_file_warn(const char *path);

/**
 * session_file_save() - replace the file by the pins there are, at once or not at all
 * @b: after balancer_halt(), before balancer_fini()
 * @w: which sockets listen; NULL: not known
 *
 * Returns 0 or -errno.
 */
int session_file_save(const char *path, struct balancer *b, struct restart_watch *w);

#endif
