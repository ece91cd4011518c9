/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What kern_splice.c and splice_attach.c share and nobody else sees. */
#ifndef KERN_KERN_SPLICE_PRIVATE_H
#define KERN_KERN_SPLICE_PRIVATE_H

#include "kern/kern_splice.h"
#include "kern/rings.h"
#include "kern/splice_attach.h"
#include "kern/splice_pins.h"

struct splice_bpf;

struct kern_splice_private {
	struct splice_bpf *skel;
	int nr_cpus;
	int counters_fd, refusals_fd;
	uint32_t nr_hooks, pin_nr;
	struct kern_rings rings;
	struct splice_hook hook[SPLICE_HOOKS_MAX];
	struct splice_pins pins;
	bool pinning;
	uint32_t prog_id;
	/* Devices that got their clsact qdisc from us. */
	struct device_set qdiscs;
};

#endif
