/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Answers of kvpin's own: an error as a JSON object in the shape that OpenAI's clients read.
 */
#ifndef NET_REPLY_H
#define NET_REPLY_H

#include <stdbool.h>
#include <stdint.h>

#include "net/conn.h"

/**
 * reply_error() - put an error answer into the out buffer, ready to go
 * @c: no byte of an answer was passed to the client; what lies in its out buffer is dropped
 * @status: 400 to 599
 * @message: for people; no quotes, no control characters
 * @code: for programs, such as "no_server"
 * @retry_after_s: Retry-After, or 0 for none
 *
 * Says Connection: close when c->close_after is set. Returns 0 or -ENOMEM.
 */
int reply_error(struct conn *c, unsigned int status, const char *message, const char *code,
		uint32_t retry_after_s);

/** reply_status_of() - which status a malformed request head gets */
unsigned int reply_status_of(enum kvpin_http_error error);

#endif
