/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How the checks of a configuration say what is wrong: the field, and the fix. */
#ifndef CORE_COMPLAINT_H
#define CORE_COMPLAINT_H

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

/* Where a message goes. */
struct complaint {
	char *why;
	unsigned int bytes;
};

/** refuse() - say why; returns -EINVAL */
static inline int __attribute__((format(printf, 2, 3)))
refuse(const struct complaint *to, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(to->why, to->bytes, format, args);
	va_end(args);
	return -EINVAL;
}

#endif
