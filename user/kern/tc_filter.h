/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Programs as filters of a clsact qdisc, for kernels without tcx (before 6.6). Unlike links filters
 * outlive everybody; they are told apart by their handle, which is the program's id: the kernel
 * does not use an id again as long as a filter holds the program.
 */
#ifndef KERN_TC_FILTER_H
#define KERN_TC_FILTER_H

#include <stdbool.h>
#include <stdint.h>

/**
 * tc_filter_add() - run a program on a device's packets, behind the filters that others put there
 * @egress: those that leave
 * @prog_id: of @prog_fd
 * @made: set when the device got its clsact qdisc by this; else untouched
 *
 * Needs CAP_NET_ADMIN. Returns 0; -ENOTUNIQ: an ingress qdisc stands where clsact would; -errno.
 */
int tc_filter_add(int ifindex, bool egress, int prog_fd, uint32_t prog_id, bool *made);

/** tc_filter_del() - take it away; 0, -ENOENT when it is not there, or another -errno */
int tc_filter_del(int ifindex, bool egress, uint32_t prog_id);

/** tc_qdisc_del() - remove a device's clsact qdisc unless it has a filter; 0, -EBUSY or another
 * -errno. Whoever adds one in that moment loses it: the kernel cannot do both at once. */
int tc_qdisc_del(int ifindex);

#endif
