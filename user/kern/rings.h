/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Event rings of a kernel path, one a worker: the programs write, the worker whose ring it is
 * reads. Memory is shared; reading makes no system call. What the records are is the path's own:
 * its callback checks each and hands it on.
 */
#ifndef KERN_RINGS_H
#define KERN_RINGS_H

#include <stddef.h>
#include <stdint.h>

/* Workers that a kernel path serves at most. */
#define KERN_WORKERS_MAX 64

struct ring_buffer;
struct kvpin_event;
struct kvpin_splice_event;

/* libbpf fixes its callback's argument when a ring is opened: this. Who consumes sets each, arg and
 * events per call. */
struct kern_ring {
	int fd;
	struct ring_buffer *rb;
	union {
		void (*steer)(void *arg, const struct kvpin_event *e);
		void (*splice)(void *arg, const struct kvpin_splice_event *e);
	} each;
	void *arg;
	int events; /* that were whole */
};

/* Zeroed: none. */
struct kern_rings {
	uint32_t nr;
	struct kern_ring ring[KERN_WORKERS_MAX];
};

/** kern_rings_create() - @workers ring maps of @ring_bytes each, called @name and the worker's
 * number; 0 or -errno, and kern_rings_close() is due in either case */
int kern_rings_create(struct kern_rings *r, const char *name, uint32_t workers,
		      uint32_t ring_bytes);

/**
 * kern_rings_open() - put them into an array of maps and map them
 * @array_fd: a slot for each worker
 * @on_record: gets a struct kern_ring as @ctx, and a record; valid only during the call; returns 0
 *
 * Returns 0 or -errno.
 */
int kern_rings_open(struct kern_rings *r, int array_fd,
		    int (*on_record)(void *ctx, void *data, size_t bytes));

/** kern_rings_close() - whatever there is of them */
void kern_rings_close(struct kern_rings *r);

/** kern_rings_poll_fd() - readable when worker @w has events */
int kern_rings_poll_fd(const struct kern_rings *r, uint32_t w);

/** kern_rings_consume() - call back with all records that are there; each is set. Returns how many
 * were whole, or -errno. */
int kern_rings_consume(struct kern_ring *ring, void *arg);

#endif
