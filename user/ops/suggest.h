/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * "Did you mean …": the nearest of a few known names to a misspelt one. For messages only; it
 * never decides anything.
 */
#ifndef OPS_SUGGEST_H
#define OPS_SUGGEST_H

/**
 * suggest_nearest() - the known name that is close enough to be what was meant
 * @text: what was written
 * @names: the known names
 * @nr: their number
 *
 * Returns one of @names, or NULL when none is near.
 */
const char *suggest_nearest(const char *text, const char *const *names, unsigned int nr);

#endif
