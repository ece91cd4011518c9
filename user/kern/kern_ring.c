/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Event rings, one a worker: the programs write, the worker whose ring it is reads. Memory is
 * shared; reading makes no system call. Records that libbpf hands out stay valid only during the
 * callback.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "kern/kern_private.h"

int kern_rings_create(struct kern *k, uint32_t workers, uint32_t ring_bytes)
{
	struct kern_private *p = k->private;
	char name[16];
	int fd;

	for (uint32_t w = 0; w < workers; w++) {
		snprintf(name, sizeof(name), "ring%u", w);
		fd = bpf_map_create(BPF_MAP_TYPE_RINGBUF, name, 0, 0, ring_bytes, NULL);
		if (fd < 0)
			return fd;
		k->ring_fd[w] = fd;
		p->nr_rings++;
	}
	return 0;
}

static int on_record(void *ctx, void *data, size_t bytes)
{
	const struct kvpin_event *e = data;
	struct kern_ring *r = ctx;

	/* A record that says it is longer than it is would make the reader read past it. */
	if (bytes < sizeof(*e) || (e->kind == KVPIN_EVENT_LANE && e->len > bytes - sizeof(*e)))
		return 0;
	r->events++;
	r->each(r->arg, e);
	return 0;
}

int kern_rings_open(struct kern *k, int rings_fd)
{
	struct kern_private *p = k->private;
	int err;

	for (uint32_t w = 0; w < p->nr_rings; w++) {
		err = bpf_map_update_elem(rings_fd, &w, &k->ring_fd[w], BPF_ANY);
		if (err)
			return err;
		p->ring[w].rb = ring_buffer__new(k->ring_fd[w], on_record, &p->ring[w], NULL);
		if (!p->ring[w].rb)
			return -errno;
	}
	return 0;
}

void kern_rings_close(struct kern *k)
{
	struct kern_private *p = k->private;

	for (uint32_t w = 0; w < p->nr_rings; w++) {
		ring_buffer__free(p->ring[w].rb);
		close(k->ring_fd[w]);
	}
	p->nr_rings = 0;
}

int kern_ring_poll_fd(const struct kern *k, uint32_t w)
{
	return ring_buffer__epoll_fd(k->private->ring[w].rb);
}

int kern_ring_consume(struct kern *k, uint32_t w,
		      void (*each)(void *arg, const struct kvpin_event *e), void *arg)
{
	struct kern_ring *r = &k->private->ring[w];
	int err;

	r->each = each;
	r->arg = arg;
	r->events = 0;
	err = ring_buffer__consume(r->rb);
	return err < 0 ? err : r->events;
}
