/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Streams of a dead daemon, as its pinned entries tell. */
#include "kern/splice_legacy.h"

#include <bpf/bpf.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kern/pins_dir.h"

/* Is its server still at it? `counted` ends with the server's last byte, TAKEN with the client's
 * ACK of it. */
static bool runs(const struct kvpin_splice_conn *c)
{
	return c->role == KVPIN_SPLICE_SERVER &&
	       (__atomic_load_n(&c->word, __ATOMIC_SEQ_CST) & KVPIN_SPLICE_TAKEN) &&
	       __atomic_load_n(&c->counted, __ATOMIC_RELAXED) &&
	       !(__atomic_load_n(&c->flags, __ATOMIC_RELAXED) & KVPIN_SPLICE_OVER);
}

static void find(struct splice_legacy *l, uint32_t nr_conns)
{
	uint32_t nr = 0;

	for (uint32_t i = 0; i < nr_conns; i++)
		nr += runs(&l->conns[i]);
	l->entry = nr ? malloc(nr * sizeof(*l->entry)) : NULL;
	/* Between the two looks they only become fewer. */
	for (uint32_t i = 0; l->entry && l->nr < nr && i < nr_conns; i++)
		if (runs(&l->conns[i]))
			l->entry[l->nr++] = i;
}

void splice_legacy_open(struct splice_legacy *l, const char *dir,
			const volatile struct kvpin_splice_config *config)
{
	struct bpf_map_info info = {0};
	uint32_t bytes = sizeof(info);
	char path[PINS_PATH_BYTES];
	void *mem = MAP_FAILED;
	int fd;

	if (config->version != KVPIN_SPLICE_VERSION)
		return;
	snprintf(path, sizeof(path), "%s/conns", dir);
	fd = bpf_obj_get(path);
	if (fd < 0)
		return;
	if (!bpf_obj_get_info_by_fd(fd, &info, &bytes) && info.type == BPF_MAP_TYPE_ARRAY &&
	    info.value_size == sizeof(*l->conns)) {
		l->bytes = (size_t)info.max_entries * sizeof(*l->conns);
		mem = mmap(NULL, l->bytes, PROT_READ, MAP_SHARED, fd, 0);
	}
	close(fd);
	if (mem == MAP_FAILED)
		return;
	l->conns = mem;
	find(l, info.max_entries);
}

void splice_legacy_look(struct splice_legacy *l, uint64_t before_ns)
{
	for (uint32_t i = 0; i < l->nr;) {
		const struct kvpin_splice_conn *c = &l->conns[l->entry[i]];

		if (runs(c) && __atomic_load_n(&c->last_ns, __ATOMIC_RELAXED) >= before_ns)
			i++;
		else
			l->entry[i] = l->entry[--l->nr];
	}
}

void splice_legacy_close(struct splice_legacy *l)
{
	if (l->conns)
		munmap((void *)l->conns, l->bytes);
	free(l->entry);
	memset(l, 0, sizeof(*l));
}
