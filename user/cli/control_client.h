/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One question to the running kvpin over its control socket. Owns the wording of what can go
 * wrong on the way; never prints.
 */
#ifndef CLI_CONTROL_CLIENT_H
#define CLI_CONTROL_CLIENT_H

#include <jansson.h>

/**
 * control_ask() - send a request, wait for the answer
 * @socket: path of the control socket
 * @method: "GET" or "POST"
 * @target: "/v1/status"; already escaped
 * @answer: on success the JSON object, to be freed by json_decref()
 * @why: on failure a one-line message with the fix where there is one
 *
 * Returns 0 or -errno: -ENOENT and -ECONNREFUSED when nothing runs there, -EACCES, -EPROTO when
 * kvpin itself answered with an error, and so on.
 */
int control_ask(const char *socket, const char *method, const char *target, json_t **answer,
		char *why, unsigned int why_bytes);

#endif
