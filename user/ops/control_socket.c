/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The control socket's file. Looking, replacing and listening happen under a lock on the
 * directory, so of two kvpins that start at once one wins.
 */
#include "ops/control_socket.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/config.h"

#define CONTROL_BACKLOG 64
/* How long another kvpin may be busy with the directory. */
#define CONTROL_LOCK_TRIES 100
#define CONTROL_LOCK_US	   10000

/* Makes the socket's directory where only that is missing, and locks it. Returns the directory's
 * descriptor, -ENOLCK when it cannot be opened or locked (then it goes without), or -errno. */
static int directory_lock(const char *path)
{
	char dir[CONTROL_PATH_MAX];
	const char *slash = strrchr(path, '/');
	int fd;

	if (!slash)
		strcpy(dir, ".");
	else
		snprintf(dir, sizeof(dir), "%.*s", slash == path ? 1 : (int)(slash - path), path);
	if (mkdir(dir, 0755) && errno != EEXIST)
		return -errno;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOTDIR ? -ENOTDIR : -ENOLCK;
	for (int i = 0; flock(fd, LOCK_EX | LOCK_NB); i++) {
		if (errno != EWOULDBLOCK || i == CONTROL_LOCK_TRIES) {
			close(fd);
			return -ENOLCK;
		}
		usleep(CONTROL_LOCK_US);
	}
	return fd;
}

/* Something is at the path already. Returns 0 when it was a dead socket and is gone. */
static int socket_replace(const struct sockaddr_un *un)
{
	struct stat st;
	int fd, rc = 0;

	if (lstat(un->sun_path, &st))
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (!connect(fd, (const struct sockaddr *)un, sizeof(*un)) || errno == EAGAIN)
		rc = -EADDRINUSE; /* EAGAIN: its backlog is full, so somebody listens */
	else if (errno == ECONNREFUSED)
		rc = unlink(un->sun_path) ? -errno : 0;
	else if (errno != ENOENT)
		rc = -errno;
	close(fd);
	return rc;
}

/* Returns the listening descriptor or -errno. */
static int socket_listen(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd, rc;

	if (strlen(path) >= sizeof(un.sun_path))
		return -ENAMETOOLONG;
	strcpy(un.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* The file inherits the mode (less the umask) at bind, so it is never open to all. */
	fchmod(fd, 0660);
	if (bind(fd, (struct sockaddr *)&un, sizeof(un))) {
		rc = -errno;
		if (rc == -EADDRINUSE)
			rc = socket_replace(&un);
		if (!rc && bind(fd, (struct sockaddr *)&un, sizeof(un)))
			rc = -errno;
		if (rc)
			goto err;
	}
	if (chmod(path, 0660) || listen(fd, CONTROL_BACKLOG)) {
		rc = -errno;
		unlink(path);
		goto err;
	}
	return fd;
err:
	close(fd);
	return rc;
}

int control_socket_listen(const char *path, struct control_file *file)
{
	struct stat st;
	int dir, fd;

	dir = directory_lock(path);
	if (dir < 0 && dir != -ENOLCK)
		return dir;
	fd = socket_listen(path);
	memset(file, 0, sizeof(*file));
	if (fd >= 0 && !lstat(path, &st)) {
		file->dev = st.st_dev;
		file->ino = st.st_ino;
	}
	if (dir >= 0)
		close(dir);
	return fd;
}

/* Made for the daemon, and nothing in it but what is the daemon's? An empty /tmp or /run, which
 * containers have, is everybody's. */
static bool directory_ours(const char *dir, const char *name)
{
	struct dirent *entry;
	struct stat st;
	bool ours = true;
	DIR *d;

	if (strrchr(dir, '/') == dir || stat(dir, &st) || st.st_mode & (S_ISVTX | S_IWOTH))
		return false;
	d = opendir(dir);
	if (!d)
		return false;
	while (ours && (entry = readdir(d)))
		ours = !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") ||
		       !strcmp(entry->d_name, name) || strstr(entry->d_name, "sessions.state");
	closedir(d);
	return ours;
}

void control_socket_give(const char *path, uid_t uid, gid_t gid)
{
	char dir[CONTROL_PATH_MAX];
	const char *slash = strrchr(path, '/');

	if (lchown(path, uid, gid) || !slash || slash == path)
		return;
	snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path), path);
	if (directory_ours(dir, slash + 1) && chown(dir, uid, gid))
		LOG(WARN, "cannot give the control socket's directory away", F_STR("path", dir),
		    F_STR("error", strerror(errno)));
}

void control_socket_unlink(const char *path, const struct control_file *file)
{
	struct stat st;

	if (!lstat(path, &st) && st.st_dev == file->dev && st.st_ino == file->ino)
		unlink(path);
}
