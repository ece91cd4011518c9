/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The notes are names: "ingress-IFINDEX", "egress-IFINDEX", "qdisc-IFINDEX", each a pin of the
 * program, whose id is the filter's handle. The forked process blocks in read() until the daemon
 * writes or is gone; a directory that was removed has no links any more.
 */
#include "kern/tc_keeper.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kern/privilege.h"
#include "kern/splice_pins.h"
#include "kern/tc_filter.h"

#define FIRST_FD    3 /* behind stdin, stdout and stderr */
#define NOTES_MAX   (SPLICE_PINS_OLD_MAX + 1)
#define KEEPER_NAME "kvpin-tc"

static const char *const kinds[TC_NOTE_NR] = {
	[TC_NOTE_INGRESS] = "ingress",
	[TC_NOTE_EGRESS] = "egress",
	[TC_NOTE_QDISC] = "qdisc",
};

/* ---- notes ---- */

void tc_note_name(enum tc_note what, int ifindex, char *name)
{
	snprintf(name, TC_NOTE_BYTES, "%s-%d", kinds[what], ifindex);
}

static uint32_t pinned_id(const char *dir, const char *name)
{
	struct bpf_prog_info info = {0};
	uint32_t bytes = sizeof(info);
	char path[PINS_PATH_BYTES];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = bpf_obj_get(path);
	if (fd < 0)
		return 0;
	if (bpf_obj_get_info_by_fd(fd, &info, &bytes))
		info.id = 0;
	close(fd);
	return info.id;
}

static void read_one(struct tc_notes *notes, const char *dir, const char *name)
{
	const char *dash = strchr(name, '-');
	enum tc_note what;
	uint32_t id;
	int ifindex;

	for (what = 0; dash && what < TC_NOTE_NR; what++)
		if (strlen(kinds[what]) == (size_t)(dash - name) &&
		    !strncmp(kinds[what], name, dash - name))
			break;
	ifindex = dash ? atoi(dash + 1) : 0;
	if (ifindex <= 0 || what == TC_NOTE_NR)
		return;
	if (what == TC_NOTE_QDISC) {
		device_add(&notes->qdiscs, ifindex);
		return;
	}
	id = pinned_id(dir, name);
	if (!id || notes->nr == TC_HOOKS_MAX)
		return;
	notes->filter[notes->nr].ifindex = ifindex;
	notes->filter[notes->nr].egress = what == TC_NOTE_EGRESS;
	notes->filter[notes->nr++].prog_id = id;
}

void tc_notes_read(struct tc_notes *notes, const char *dir, int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;

	memset(notes, 0, sizeof(*notes));
	if (!list && fd >= 0)
		close(fd);
	while (list && (entry = readdir(list)))
		read_one(notes, dir, entry->d_name);
	if (list)
		closedir(list);
}

void tc_notes_clear(const struct tc_notes *notes)
{
	for (unsigned int i = 0; i < notes->nr; i++)
		tc_filter_del(notes->filter[i].ifindex, notes->filter[i].egress,
			      notes->filter[i].prog_id);
	for (unsigned int i = 0; i < notes->qdiscs.nr; i++)
		tc_qdisc_del(notes->qdiscs.ifindex[i]);
}

/* ---- the process ---- */

static int by_number(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

static void close_others(int *kept, unsigned int nr)
{
	int from = FIRST_FD;

	qsort(kept, nr, sizeof(*kept), by_number);
	for (unsigned int i = 0; i < nr; i++) {
		if (kept[i] > from)
			close_range(from, kept[i] - 1, 0);
		from = kept[i] + 1;
	}
	close_range(from, ~0U, 0);
}

struct watched {
	const struct tc_notes *notes;
	int dir_fd; /* -1: done */
};

static void look(struct watched *watched, unsigned int nr)
{
	struct stat st;

	for (unsigned int i = 0; i < nr; i++) {
		if (watched[i].dir_fd < 0 || (!fstat(watched[i].dir_fd, &st) && st.st_nlink))
			continue;
		tc_notes_clear(watched[i].notes);
		close(watched[i].dir_fd);
		watched[i].dir_fd = -1;
	}
}

static void keeper_run(struct watched *watched, unsigned int nr, int socket)
{
	static const int ignored[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
	int kept[NOTES_MAX + 1];
	ssize_t n;
	char byte;

	/* What is sent to the group is the daemon's to answer. */
	for (unsigned int i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		signal(ignored[i], SIG_IGN);
	prctl(PR_SET_NAME, KEEPER_NAME);
	for (unsigned int i = 0; i < nr; i++)
		kept[i] = watched[i].dir_fd;
	kept[nr] = socket;
	close_others(kept, nr + 1);
	if (privilege_keep(PRIVILEGE_BIT(CAP_NET_ADMIN)))
		_exit(1);
	do {
		n = read(socket, &byte, 1);
		if (n >= 0)
			look(watched, nr);
	} while (n > 0 || (n < 0 && errno == EINTR));
	_exit(0);
}

int tc_keeper_start(struct tc_keeper *k, const struct tc_notes *notes, unsigned int nr)
{
	struct watched watched[NOTES_MAX];
	unsigned int watching = 0;
	int ends[2], err = 0;

	for (unsigned int i = 0; i < nr && watching < NOTES_MAX; i++) {
		if (!notes[i].nr && !notes[i].qdiscs.nr)
			continue;
		/* A description of its own: the lock ends with the daemon. */
		watched[watching].dir_fd =
			openat(notes[i].dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		watched[watching].notes = &notes[i];
		if (watched[watching].dir_fd < 0)
			err = -errno;
		else
			watching++;
	}
	/* Not a pipe: send() can do without SIGPIPE. */
	if (!err && watching && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		err = -errno;
	if (!err && watching) {
		k->pid = fork();
		if (!k->pid)
			keeper_run(watched, watching, ends[0]);
		err = k->pid < 0 ? -errno : 0;
		close(ends[0]);
		if (err)
			close(ends[1]);
		k->socket = err ? -1 : ends[1];
		k->pid = err ? 0 : k->pid;
	}
	for (unsigned int i = 0; i < watching; i++)
		close(watched[i].dir_fd);
	return err;
}

void tc_keeper_look(struct tc_keeper *k)
{
	/* If it has died nobody is left to ask; a full socket holds what wakes it anyway. */
	if (k->pid)
		send(k->socket, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void tc_keeper_stop(struct tc_keeper *k)
{
	if (!k->pid)
		return;
	close(k->socket);
	while (waitpid(k->pid, NULL, 0) < 0 && errno == EINTR)
		;
	k->pid = 0;
}
