/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What getopt_long() leaves to its caller: a fresh start and good words for what it refuses.
 */
#ifndef CLI_FLAGS_H
#define CLI_FLAGS_H

#include <getopt.h>

/** flags_begin() - before the first getopt_long() of an argv; its short options must be ":" */
void flags_begin(void);

/**
 * flags_refuse() - what is wrong, after getopt_long() returned '?' or ':'
 * @flags: as given to getopt_long(); values from 256 on
 * @args: what each flag's value is called, in the order of @flags; NULL: it takes none
 * @argv: as given to getopt_long()
 *
 * Returns -EINVAL.
 */
int flags_refuse(const struct option *flags, const char *const *args, char **argv, char *why,
		 unsigned int why_bytes);

/** flags_end() - after the last flag, of a command without operands: 0, or -EINVAL and @why when
 * there is one */
int flags_end(int argc, char **argv, char *why, unsigned int why_bytes);

#endif
