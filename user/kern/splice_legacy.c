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

#include "base/addr.h"
#include "kern/kern_splice.h"
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

static void find(struct splice_legacy *l)
{
	uint32_t nr = 0;

	for (uint32_t i = 0; i < l->nr_conns; i++)
		nr += runs(&l->conns[i]);
	l->entry = nr ? malloc(nr * sizeof(*l->entry)) : NULL;
	/* Between the two looks they only become fewer. */
	for (uint32_t i = 0; l->entry && l->nr < nr && i < l->nr_conns; i++)
		if (runs(&l->conns[i]))
			l->entry[l->nr++] = i;
}

static size_t conns_bytes(const struct splice_legacy *l)
{
	return (size_t)l->nr_conns * sizeof(*l->conns);
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
		l->nr_conns = info.max_entries;
		mem = mmap(NULL, conns_bytes(l), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	}
	close(fd);
	if (mem == MAP_FAILED)
		return;
	l->conns = mem;
	find(l);
	splice_legacy_moved(l);
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

static void addr_of(struct addr *a, const __be32 words[4])
{
	*a = (struct addr){0};
	if (words[1] | words[2] | words[3]) {
		a->in6.sin6_family = AF_INET6;
		memcpy(&a->in6.sin6_addr, words, sizeof(a->in6.sin6_addr));
	} else {
		a->in4.sin_family = AF_INET;
		a->in4.sin_addr.s_addr = words[0];
	}
}

static void hop_look(struct kvpin_splice_conn *c)
{
	struct addr to, from;
	struct device_way way;

	addr_of(&to, c->remote);
	addr_of(&from, c->local);
	if (c->ifindex != DEVICE_LOOPBACK && !device_towards(&to, &from, &way) &&
	    way.ifindex == (int)c->ifindex)
		kern_splice_way_set(c, &way);
}

void splice_legacy_moved(struct splice_legacy *l)
{
	for (uint32_t i = 0; i < l->nr; i++) {
		struct kvpin_splice_conn *server = &l->conns[l->entry[i]];
		uint32_t client = server->peer - 1;

		if (!runs(server))
			continue;
		hop_look(server);
		if (client < l->nr_conns)
			hop_look(&l->conns[client]);
	}
}

void splice_legacy_close(struct splice_legacy *l)
{
	if (l->conns)
		munmap(l->conns, conns_bytes(l));
	free(l->entry);
	memset(l, 0, sizeof(*l));
}
