/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The splice path's kernel side as the daemon holds it: the program at tc, its maps, the devices
 * that it is attached to. What the maps mean stands in include/kvpin_splice_abi.h.
 *
 * Happy path: kern_splice_open() loads and attaches, the data side reads and writes the mapped
 * array, kern_splice_close() detaches. Failures: a reason as text, nothing is left.
 * Close: the attachments are links (tcx), which end with the last descriptor or pin, or filters of
 * a clsact qdisc where the kernel knows no tcx; those are removed one by one (tc_keeper.h). Without
 * a close, after a crash, what is pinned keeps the streams alive (splice_pins.h).
 */
#ifndef KERN_KERN_SPLICE_H
#define KERN_KERN_SPLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "kern/device.h"
#include "kvpin_splice_abi.h"

struct kern_splice_params {
	const char
		*pin_dir; /* e.g. /sys/fs/bpf/kvpin-splice; NULL: no pins, a crash ends streams */
	uid_t uid;	  /* who gets the pins; 0: whoever opens */
	gid_t gid;
	uint32_t conns;	     /* connections of both kinds that can be spliced at once */
	uint32_t workers;    /* rings */
	uint32_t ring_bytes; /* of each; a power of two */
	struct device_set devices;
	int backends_fd; /* the map of what is in flight; -1: one of its own */
	const uint64_t *ttft_le_ns, *gap_le_ns; /* KVPIN_HIST_BUCKETS - 1 upper bounds each */
};

struct kern_splice_private;

/* One per process. @conns, @buckets and @config are mapped shared memory that the program writes
 * too. */
struct kern_splice {
	struct kern_splice_private *private;
	struct kvpin_splice_conn *conns;
	struct kvpin_splice_bucket *buckets;
	struct kvpin_splice_hash hash; /* of the buckets */
	uint32_t buckets_mask;
	struct kvpin_splice_config *config;
	struct kvpin_backend *backends; /* KVPIN_BACKENDS_MAX; NULL where the map is another's */
	uint32_t nr_conns;
	struct device_set devices; /* where the program is */
	bool tcx;		   /* attached by links; else by filters */
};

/**
 * kern_splice_open() - load and attach
 * @k: zeroed, owned by the caller; filled on success
 * @p: nothing of it is kept
 * @why: on failure a text that names the step and the fix; @why_bytes: room in it
 *
 * Needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON. Returns 0 or -errno; on failure nothing is left.
 */
int kern_splice_open(struct kern_splice *k, const struct kern_splice_params *p, char *why,
		     size_t why_bytes);

/**
 * kern_splice_attach() - a device that was not among those of kern_splice_open()
 *
 * Needs no privilege with tcx. Returns 0 or -errno: -ENODEV when there is none with Ethernet heads,
 * -EPERM without tcx. The caller serialises it with kern_splice_detach().
 */
int kern_splice_attach(struct kern_splice *k, int ifindex);

/** kern_splice_detach() - the device is gone, or nobody needs it */
void kern_splice_detach(struct kern_splice *k, int ifindex);

/** kern_splice_close() - detach, unmap; @k may be zeroed */
void kern_splice_close(struct kern_splice *k);

/**
 * kern_splice_tick() - say that the daemon lives; take down what a dead one left and nobody uses
 * @idle_ns: for so long no packet of its connections came
 */
void kern_splice_tick(struct kern_splice *k, uint64_t idle_ns);

/**
 * kern_splice_inherited() - streams of dead daemons that ran when kern_splice_tick() last looked
 * @each: gets the entry of each stream's server: its address counts
 *
 * The caller serialises it with kern_splice_tick().
 */
void kern_splice_inherited(const struct kern_splice *k,
			   void (*each)(void *arg, const struct kvpin_splice_conn *server),
			   void *arg);

/**
 * kern_splice_moved() - ways have changed: look where the packets of dead daemons' streams go now
 *
 * The caller serialises it with kern_splice_tick().
 */
void kern_splice_moved(struct kern_splice *k);

/** kern_splice_way_set() - packets to @c's peer go this way from now on */
void kern_splice_way_set(struct kvpin_splice_conn *c, const struct device_way *way);

/** kern_splice_add() - packets of k->conns[@entry] are looked at from now on; its addresses are
 * set. What stood there with the same addresses is one that is over. The caller serialises it with
 * kern_splice_del(); no system call. Returns 0, or -E2BIG: its bucket is full. */
int kern_splice_add(struct kern_splice *k, uint32_t entry);

/** kern_splice_del() - ... no more. A later connection with the same addresses is left alone. */
void kern_splice_del(struct kern_splice *k, uint32_t entry);

/** kern_splice_counters() - add one server's counters of all CPUs up; any thread; 0 or -errno */
int kern_splice_counters(struct kern_splice *k, uint32_t backend, struct kvpin_counters *out);

/** kern_splice_refusals() - counts by enum kvpin_splice_refusal; any thread; 0 or -errno
 * @out: KVPIN_SPLICE_REFUSED_NR numbers */
int kern_splice_refusals(struct kern_splice *k, uint64_t *out);

/** kern_splice_poll_fd() - readable when worker @w has events */
int kern_splice_poll_fd(const struct kern_splice *k, uint32_t w);

/**
 * kern_splice_consume() - take all events of worker @w
 * @each: gets each record: @e, with e->len bytes behind it for KVPIN_SPLICE_EVENT_BYTES
 *
 * Only the worker's own thread calls it. Returns the number of events, or -errno.
 */
int kern_splice_consume(struct kern_splice *k, uint32_t w,
			void (*each)(void *arg, const struct kvpin_splice_event *e), void *arg);

#endif
