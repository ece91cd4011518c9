/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Event rings: made, mapped, read and closed; never looks into a record. */
#include "kern/rings.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

int kern_rings_create(struct kern_rings *r, const char *name, uint32_t workers, uint32_t ring_bytes)
{
	char text[16];
	int fd;

	for (uint32_t w = 0; w < workers; w++) {
		snprintf(text, sizeof(text), "%s%u", name, w);
		fd = bpf_map_create(BPF_MAP_TYPE_RINGBUF, text, 0, 0, ring_bytes, NULL);
		if (fd < 0)
			return fd;
		r->ring[w].fd = fd;
		r->nr++;
	}
	return 0;
}

int kern_rings_open(struct kern_rings *r, int array_fd,
		    int (*on_record)(void *ctx, void *data, size_t bytes))
{
	int err;

	for (uint32_t w = 0; w < r->nr; w++) {
		struct kern_ring *ring = &r->ring[w];

		err = bpf_map_update_elem(array_fd, &w, &ring->fd, BPF_ANY);
		if (err)
			return err;
		ring->rb = ring_buffer__new(ring->fd, on_record, ring, NULL);
		if (!ring->rb)
			return -errno;
	}
	return 0;
}

void kern_rings_close(struct kern_rings *r)
{
	for (uint32_t w = 0; w < r->nr; w++) {
		ring_buffer__free(r->ring[w].rb);
		close(r->ring[w].fd);
	}
	r->nr = 0;
}

int kern_rings_poll_fd(const struct kern_rings *r, uint32_t w)
{
	return ring_buffer__epoll_fd(r->ring[w].rb);
}

int kern_rings_consume(struct kern_ring *ring, void *arg)
{
	int err;

	ring->arg = arg;
	ring->events = 0;
	err = ring_buffer__consume(ring->rb);
	return err < 0 ? err : ring->events;
}
