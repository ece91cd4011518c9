/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The ring of decisions. */
#include "net/explain.h"

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct explain_ring {
	pthread_mutex_t lock;
	uint64_t nr; /* ever written */
	struct explain_record record[EXPLAIN_RING];
};

struct explain_ring *explain_ring_new(void)
{
	/* Not touched: the kernel gives memory when records come. */
	struct explain_ring *r = calloc(1, sizeof(*r));

	if (r)
		pthread_mutex_init(&r->lock, NULL);
	return r;
}

void explain_ring_free(struct explain_ring *r)
{
	if (!r)
		return;
	pthread_mutex_destroy(&r->lock);
	free(r);
}

static void record_copy(struct explain_record *to, const struct explain_record *from)
{
	const size_t head = offsetof(struct explain_record, decision.candidate);

	memcpy(to, from,
	       head + from->decision.nr_candidates * sizeof(from->decision.candidate[0]));
}

void explain_add(struct explain_ring *r, const struct explain_record *record)
{
	pthread_mutex_lock(&r->lock);
	record_copy(&r->record[r->nr++ % EXPLAIN_RING], record);
	pthread_mutex_unlock(&r->lock);
}

uint32_t explain_read(struct explain_ring *r, const uint64_t *session, struct explain_record *out,
		      uint32_t max)
{
	uint64_t at;
	uint32_t n = 0;

	pthread_mutex_lock(&r->lock);
	for (at = r->nr; at && r->nr - at < EXPLAIN_RING && n < max; at--) {
		const struct explain_record *one = &r->record[(at - 1) % EXPLAIN_RING];

		if (!session || (one->keyed && one->session == *session))
			record_copy(&out[n++], one);
	}
	pthread_mutex_unlock(&r->lock);
	return n;
}
