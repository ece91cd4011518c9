/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which session is this request of? From its head alone where that tells, else from the first part
 * of its body, for which the decision waits. Never chooses a server and never touches a socket.
 *
 *	keys_begin()  the head, before it is edited
 *	keys_body()   the body, as it comes, when keys_begin() said that it is needed
 *	keys_settle() what was found, or what is done without
 */
#ifndef NET_KEYS_H
#define NET_KEYS_H

#include <stdbool.h>

#include "net/conn.h"

/**
 * keys_begin() - look at a complete head
 * @c: the head stands at the front of its in buffer, unedited
 *
 * Returns true when a source that comes before what was found reads the body, and there is one.
 */
bool keys_begin(struct conn *c);

/** keys_expects() - is "Expect: 100-continue" in the (unedited) head? */
bool keys_expects(const struct conn *c);

/** keys_wait() - begin to wait for the body; x.ready is the edited head's length. 0 or -ENOMEM */
int keys_wait(struct conn *c);

/** keys_body() - look at what has come of the body (up to x.ready); true: enough */
bool keys_body(struct conn *c);

/** keys_settle() - set x.keyed, x.session and x.chain, and count; ends the waiting */
void keys_settle(struct conn *c);

/** keys_source() - what named the settled request's session, for people; empty: nothing */
void keys_source(const struct conn *c, char text[KEY_DESCRIPTION_MAX]);

/** keys_free() - what an exchange holds of it; may be called at any time */
void keys_free(struct exchange *x);

#endif
