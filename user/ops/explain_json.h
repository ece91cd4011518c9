/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A decision as JSON: the one form for the control socket and for `kvpin explain --config`. */
#ifndef OPS_EXPLAIN_JSON_H
#define OPS_EXPLAIN_JSON_H

#include <jansson.h>

#include "net/explain.h"

/**
 * explain_json() - one decision
 * @r: read only
 * @name: the name of a server's slot; "" for none
 * @now_ns: on the record's clock
 *
 * Returns a new object, or NULL.
 */
json_t *explain_json(const struct explain_record *r, const char *(*name)(void *arg, uint32_t slot),
		     void *arg, uint64_t now_ns);

#endif
