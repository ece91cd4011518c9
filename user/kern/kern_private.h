/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the files of user/kern share and nobody else sees. */
#ifndef KERN_KERN_PRIVATE_H
#define KERN_KERN_PRIVATE_H

#include "kern/kern.h"
#include "kern/kern_pins.h"

struct steer_bpf;
struct ring_buffer;

/* libbpf fixes the callback's argument when a ring is opened; who consumes sets these per call. */
struct kern_ring {
	struct ring_buffer *rb;
	void (*each)(void *arg, const struct kvpin_event *e);
	void *arg;
	int events;
};

struct kern_private {
	struct steer_bpf *skel;
	struct kern_pins pins;
	struct kern_ring ring[KERN_WORKERS_MAX];
	uint32_t nr_rings;
	int nr_cpus; /* possible ones: per-CPU values come for each */
	int names_fd, counters_fd, refusals_fd;
	bool attached;
};

/**
 * kern_percpu_sum() - add up the values that all CPUs have of an entry
 * @fd: per-CPU array whose values are @nr numbers
 * @sum: set on success
 *
 * Returns 0 or -errno.
 */
int kern_percpu_sum(int fd, int nr_cpus, uint32_t key, uint64_t *sum, size_t nr);

/** kern_rings_create() - one ring map a worker; @k->ring_fd and nr_rings are set.
 * Returns 0 or -errno. */
int kern_rings_create(struct kern *k, uint32_t workers, uint32_t ring_bytes);

/** kern_rings_open() - put them into the array of rings and map them. Returns 0 or -errno. */
int kern_rings_open(struct kern *k, int rings_fd);

/** kern_rings_close() - whatever there is of them */
void kern_rings_close(struct kern *k);

#endif
