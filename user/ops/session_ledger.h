/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the sessions' file keeps of the servers, beside the pins: their observed rates, and whose
 * socket listened there, so that a server that restarts while kvpin is down is noticed too.
 *
 *	boot ID
 *	server NAME ADDRESS PREFILL-BYTES-PER-SECOND EXCHANGE-MS COOKIE[,COOKIE...]
 *
 * ID is the kernel's of this boot: cookies of another one say nothing but that all is gone. A
 * COOKIE is 16 hex digits; "-" when none was seen.
 */
#ifndef OPS_SESSION_LEDGER_H
#define OPS_SESSION_LEDGER_H

#include <stdbool.h>
#include <stdio.h>

#include "net/balancer.h"
#include "ops/restart_watch.h"

struct session_ledger {
	struct balancer *balancer;
	struct restart_watch *watch; /* NULL: sockets are neither written nor believed */
	bool other_boot;	     /* than the file's; read */
};

/** session_ledger_write() - the lines above; write errors are the stream's */
void session_ledger_write(const struct session_ledger *l, FILE *f);

/**
 * session_ledger_read() - take one line over, its newline included
 * @l: zeroed but for balancer and watch; boot's line comes before the servers'
 *
 * A server that is not configured under this name and address is passed over. Returns false when
 * the line is malformed.
 */
bool session_ledger_read(struct session_ledger *l, const char *line);

/** session_ledger_is() - does the line begin like one of these? */
bool session_ledger_is(const char *line);

#endif
