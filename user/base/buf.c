/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Pooled byte buffers: four size classes, a bounded free list each. */
#include "base/buf.h"

#include <stdlib.h>
#include <string.h>

/* Free memory kept per class: about 4 MiB each; what is above goes back to malloc. */
static const uint32_t keep[BUF_CLASS_NR] = {256, 64, 16, 4};

static int class_of(uint32_t cap)
{
	int i = 0;

	while (i < BUF_CLASS_NR && BUF_CLASS_BYTES(i) < cap)
		i++;
	return i;
}

static uint8_t *pool_take(struct buf_pool *pool, int class)
{
	void *mem = pool->free[class];

	if (!mem)
		return malloc(BUF_CLASS_BYTES(class));
	memcpy(&pool->free[class], mem, sizeof(void *));
	pool->nr_free[class]--;
	return mem;
}

static void pool_give(struct buf_pool *pool, uint8_t *mem, uint32_t cap)
{
	int class = class_of(cap);

	if (pool->nr_free[class] >= keep[class]) {
		free(mem);
		return;
	}
	memcpy(mem, &pool->free[class], sizeof(void *));
	pool->free[class] = mem;
	pool->nr_free[class]++;
}

int buf_reserve(struct buf_pool *pool, struct buf *b, uint32_t room)
{
	uint32_t len = buf_len(b);
	uint8_t *mem;
	int class;

	if (b->mem && buf_room(b) >= room)
		return 0;
	if (room > BUF_BYTES_MAX || len > BUF_BYTES_MAX - room)
		return -ENOBUFS;
	if (b->mem && BUF_HEADROOM + len + room <= b->cap) {
		memmove(b->mem + BUF_HEADROOM, buf_data(b), len);
		b->start = BUF_HEADROOM;
		b->end = BUF_HEADROOM + len;
		return 0;
	}
	class = class_of(BUF_HEADROOM + len + room);
	mem = pool_take(pool, class);
	if (!mem)
		return -ENOMEM;
	if (len)
		memcpy(mem + BUF_HEADROOM, buf_data(b), len);
	if (b->mem)
		pool_give(pool, b->mem, b->cap);
	b->mem = mem;
	b->cap = BUF_CLASS_BYTES(class);
	b->start = BUF_HEADROOM;
	b->end = BUF_HEADROOM + len;
	return 0;
}

void buf_consume(struct buf_pool *pool, struct buf *b, uint32_t n)
{
	b->start += n;
	if (b->start == b->end)
		buf_release(pool, b);
}

void buf_release(struct buf_pool *pool, struct buf *b)
{
	if (b->mem)
		pool_give(pool, b->mem, b->cap);
	memset(b, 0, sizeof(*b));
}

void buf_pool_fini(struct buf_pool *pool)
{
	for (int i = 0; i < BUF_CLASS_NR; i++) {
		while (pool->free[i])
			free(pool_take(pool, i));
	}
}
