/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The process's limit of file descriptors (RLIMIT_NOFILE) against what a configuration needs.
 */
#ifndef OPS_FILES_H
#define OPS_FILES_H

#include "core/config.h"

/** files_raise() - the soft limit up to the hard one; a failure is logged */
void files_raise(void);

/** files_warn() - log when the limit in force does not do for limits.connections */
void files_warn(const struct config *c);

#endif
