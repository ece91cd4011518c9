/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A bucket per second, reused a minute later. */
#include "core/pressure.h"

#include <string.h>

void pressure_init(struct pressure *p)
{
	memset(p, 0, sizeof(*p));
	pthread_mutex_init(&p->lock, NULL);
}

void pressure_fini(struct pressure *p)
{
	pthread_mutex_destroy(&p->lock);
}

void pressure_add(struct pressure *p, uint64_t now_ms)
{
	uint64_t second = now_ms / 1000;
	unsigned int at = second % PRESSURE_WINDOW_S;

	pthread_mutex_lock(&p->lock);
	/* Threads' clocks differ: a late one counts with the bucket's newer second. */
	if (second > p->second[at]) {
		p->second[at] = second;
		p->count[at] = 0;
	}
	p->count[at]++;
	p->total++;
	pthread_mutex_unlock(&p->lock);
}

/* Under the lock. */
static uint32_t pressure_sum(const struct pressure *p, uint64_t now_ms)
{
	uint64_t now = now_ms / 1000;
	uint32_t sum = 0;

	for (unsigned int i = 0; i < PRESSURE_WINDOW_S; i++)
		if (p->second[i] + PRESSURE_WINDOW_S > now)
			sum += p->count[i];
	return sum;
}

uint32_t pressure_get(const struct pressure *p, uint64_t now_ms, uint64_t *total)
{
	/* Only the lock is written, and no pressure is ever in read-only memory. */
	pthread_mutex_t *lock = (pthread_mutex_t *)&p->lock;
	uint32_t sum;

	pthread_mutex_lock(lock);
	sum = pressure_sum(p, now_ms);
	if (total)
		*total = p->total;
	pthread_mutex_unlock(lock);
	return sum;
}

uint32_t pressure_ack(struct pressure *p, uint64_t now_ms)
{
	uint32_t sum;

	pthread_mutex_lock(&p->lock);
	sum = pressure_sum(p, now_ms);
	memset(p->count, 0, sizeof(p->count));
	pthread_mutex_unlock(&p->lock);
	return sum;
}
