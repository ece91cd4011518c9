/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The splice path's program on devices, at the start and at the end; between them
 * kern_splice_attach() and kern_splice_detach() (kern_splice.h).
 */
#ifndef KERN_SPLICE_ATTACH_H
#define KERN_SPLICE_ATTACH_H

#include <stdbool.h>
#include <stdint.h>

#include "kern/kern_log.h"
#include "kern/kern_splice.h"

enum { SPLICE_INGRESS, SPLICE_EGRESS, SPLICE_HOOK_NR };

#define SPLICE_HOOKS_MAX (DEVICES_MAX * SPLICE_HOOK_NR)

/* The program on one device, in one direction. */
struct splice_hook {
	int ifindex, direction;
	int link_fd;  /* tcx; -1: none */
	uint32_t pin; /* number in its pin's name */
};

/** splice_attach_as_on_old() - does KVPIN_SPLICE_HOOK=clsact in the environment ask for what
 * kernels before 6.6 get? For tests */
bool splice_attach_as_on_old(void);

/**
 * splice_attach() - put the program on these devices
 * @k: the program is loaded; its `devices` and `tcx` are set
 *
 * Returns 0, or -errno with a text; then too it wants splice_detach().
 */
int splice_attach(struct kern_splice *k, const struct device_set *devices,
		  const struct kern_text *t);

/** splice_attach_links() - descriptors of the links, which stay @k's; returns how many: without tcx
 * there are none */
uint32_t splice_attach_links(const struct kern_splice *k, int links[SPLICE_HOOKS_MAX]);

/** splice_detach() - take it off all devices, with the qdiscs made for it; pins are no matter */
void splice_detach(struct kern_splice *k);

#endif
