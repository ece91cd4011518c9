/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The daemon's life: start in order, signals, reload, drain, stop in reverse. It owns the main
 * thread's loop and the lock between what the main thread changes and what the readers' threads
 * (health, metrics, control) look at. It never touches a client's bytes.
 */
#ifndef OPS_DAEMON_H
#define OPS_DAEMON_H

#include "core/config.h"

/**
 * daemon_run() - run until a signal ends it
 * @load: builds a fresh, finished configuration from malloc(), which daemon_run() takes over; on
 *        failure NULL and the reason in @why. Called at start and at every reload, always on the
 *        calling thread
 * @arg: for @load
 *
 * SIGTERM, SIGINT: drain, at most timeout.drain_ms; a second one: at once. SIGHUP: reload.
 * Returns the exit status: 0, or 1 when it could not start (logged).
 */
int daemon_run(struct config *(*load)(void *arg, char *why, unsigned int why_bytes), void *arg);

#endif
