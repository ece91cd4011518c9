/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One number out of a page of Prometheus text, as it comes in pieces: when a server was started.
 * Keeps its text, which is compared and never computed with.
 */
#ifndef OPS_START_METRIC_H
#define OPS_START_METRIC_H

#include <stddef.h>

/* Longer lines are not the one that is looked for. */
#define START_LINE_MAX	256
#define START_VALUE_MAX 40

struct start_metric {
	size_t len; /* of the line so far; START_LINE_MAX: too long */
	char line[START_LINE_MAX];
	char value[START_VALUE_MAX]; /* empty: not found yet */
};

/** start_metric_add() - the next piece; @s zeroed at first; the first sample of @name counts, with
 * labels or without */
void start_metric_add(struct start_metric *s, const char *name, const char *data, size_t len);

#endif
