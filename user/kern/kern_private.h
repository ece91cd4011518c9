/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the files of user/kern share and nobody else sees. */
#ifndef KERN_KERN_PRIVATE_H
#define KERN_KERN_PRIVATE_H

#include "kern/kern.h"
#include "kern/kern_pins.h"

struct steer_bpf;

struct kern_private {
	struct steer_bpf *skel;
	struct kern_pins pins;
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

#endif
