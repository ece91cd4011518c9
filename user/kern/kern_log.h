/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What libbpf and the verifier say. All of it goes to the log at debug level; of the current
 * thread's latest step the one line that names the cause is kept, for an error's text.
 */
#ifndef KERN_KERN_LOG_H
#define KERN_KERN_LOG_H

#include <stddef.h>

/* Where a step writes why it failed. */
struct kern_text {
	char *why;
	size_t bytes;
};

#define KERN_SAY(t, err, ...) kern_why((t)->why, (t)->bytes, (err), __VA_ARGS__)

/** kern_log_begin() - from here on libbpf talks to base/log.h; forgets the cause kept so far */
void kern_log_begin(void);

/** kern_log_cause() - what libbpf blamed last, and the verifier's last line; "" when nothing.
 * A static text of this thread. */
const char *kern_log_cause(void);

/** kern_why() - write an error's text
 * @err: negative errno
 * Returns @err. */
int kern_why(char *why, size_t why_bytes, int err, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

#endif
