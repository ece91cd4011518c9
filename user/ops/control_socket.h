/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The control socket's file: makes it, replaces a dead one, removes its own. Speaks no protocol
 * and logs nothing.
 */
#ifndef OPS_CONTROL_SOCKET_H
#define OPS_CONTROL_SOCKET_H

#include <sys/types.h>

/* A socket file, to know it again. */
struct control_file {
	dev_t dev;
	ino_t ino;
};

/**
 * control_socket_listen() - listen on a unix socket of mode 0660
 * @path: its directory is made (0755) when only that is missing
 * @file: set
 *
 * Returns the listening descriptor, the caller's, or -errno: -EADDRINUSE when somebody listens
 * there, -EEXIST when something else than a socket is there, -ENOENT when the directory's parent
 * is missing.
 */
int control_socket_listen(const char *path, struct control_file *file);

/** control_socket_give() - the socket and its directory, if that is for nobody else (empty but for
 * it, not open to all, not one of the root's, as /run), shall belong to another user, who can
 * remove it then; a failure is no harm: the next start replaces it */
void control_socket_give(const char *path, uid_t uid, gid_t gid);

/** control_socket_unlink() - remove the file, if it still is @file */
void control_socket_unlink(const char *path, const struct control_file *file);

#endif
