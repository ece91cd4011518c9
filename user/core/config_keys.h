/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* config.c's other half: the affinity part. */
#ifndef CORE_CONFIG_KEYS_H
#define CORE_CONFIG_KEYS_H

#include "core/config.h"

/** config_prefix_defaults() - what {prefix: {}} means */
void config_prefix_defaults(struct config *c);

/** config_keys_finish() - check the sources, rank the headers, derive c->names; as config_finish()
 *
 * Adds what other settings imply: the parent's header in front (sidecar: follow), and the
 * generated key's header (missing: generate). An empty list stays empty: no affinity. May be
 * called again: what is there already is not added twice.
 */
int config_keys_finish(struct config *c, char *why, unsigned int why_bytes);

#endif
