/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Byte buffers from a pool. A buffer holds memory only while it holds bytes, so an idle
 * connection costs none. A pool belongs to one thread.
 *
 * Layout: BUF_HEADROOM free bytes, then the data [start, end), then room. The headroom lets a
 * message head grow in place (Host, X-Forwarded-For, Connection) without moving its body.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <errno.h>
#include <stdint.h>

#define BUF_HEADROOM 512
#define BUF_CLASS_NR 4
/* Memory of class i: 16 KiB << 2i, up to 1 MiB. */
#define BUF_CLASS_BYTES(i) (16384u << (2 * (i)))
#define BUF_BYTES_MAX	   (BUF_CLASS_BYTES(BUF_CLASS_NR - 1) - BUF_HEADROOM)

struct buf {
	uint8_t *mem; /* NULL when empty */
	uint32_t cap, start, end;
};

struct buf_pool {
	void *free[BUF_CLASS_NR]; /* linked through their first word; last in, first out */
	uint32_t nr_free[BUF_CLASS_NR];
};

static inline uint8_t *buf_data(const struct buf *b)
{
	return b->mem + b->start;
}

static inline uint32_t buf_len(const struct buf *b)
{
	return b->end - b->start;
}

static inline uint32_t buf_room(const struct buf *b)
{
	return b->cap - b->end;
}

/**
 * buf_reserve() - make room behind the data
 * @pool: the thread's pool
 * @b: buffer; gets memory, is moved to its front or to larger memory as needed
 * @room: bytes wanted
 *
 * Returns 0, -ENOBUFS when data and room together exceed BUF_BYTES_MAX, or -ENOMEM.
 */
int buf_reserve(struct buf_pool *pool, struct buf *b, uint32_t room);

/** buf_consume() - drop @n bytes from the front; gives the memory back when none is left */
void buf_consume(struct buf_pool *pool, struct buf *b, uint32_t n);

/** buf_release() - drop everything and give the memory back */
void buf_release(struct buf_pool *pool, struct buf *b);

/** buf_pool_fini() - free what the pool holds */
void buf_pool_fini(struct buf_pool *pool);

#endif
