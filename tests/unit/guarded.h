/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Memory between two PROT_NONE pages: a read one byte before or behind the input ends the test.
 */
#ifndef GUARDED_H
#define GUARDED_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define GUARDED_PAGE  4096
#define GUARDED_BYTES (16 * GUARDED_PAGE)

struct guarded {
	uint8_t *begin; /* the first byte; begin[-1] faults */
	uint8_t *end;	/* behind the last byte; end[0] faults */
};

/* Returns 0, or -1 when there is no memory. Freed by guarded_fini(). */
static inline int guarded_init(struct guarded *g)
{
	uint8_t *map = mmap(NULL, GUARDED_BYTES + 2 * GUARDED_PAGE, PROT_NONE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED)
		return -1;
	g->begin = map + GUARDED_PAGE;
	g->end = g->begin + GUARDED_BYTES;
	return mprotect(g->begin, GUARDED_BYTES, PROT_READ | PROT_WRITE);
}

static inline void guarded_fini(struct guarded *g)
{
	munmap(g->begin - GUARDED_PAGE, GUARDED_BYTES + 2 * GUARDED_PAGE);
}

/* A copy that ends at the rear guard; len is at most GUARDED_BYTES. */
static inline const uint8_t *guarded_rear(struct guarded *g, const void *bytes, size_t len)
{
	return len ? memcpy(g->end - len, bytes, len) : g->end;
}

/* A copy that begins behind the front guard. */
static inline const uint8_t *guarded_front(struct guarded *g, const void *bytes, size_t len)
{
	return len ? memcpy(g->begin, bytes, len) : g->begin;
}

#endif
