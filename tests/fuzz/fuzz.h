/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the fuzz targets share. An input's first byte chooses the mode, the rest is parsed; cuts
 * are derived from the content, so that a run can be repeated from its file.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/http_case.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A broken property is a crash for libFuzzer. */
#define FUZZ_ASSERT(property)                                                                      \
	do {                                                                                       \
		if (!(property)) {                                                                 \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #property);             \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

/* A heap copy of exactly len bytes: AddressSanitizer sees a read behind them. */
static inline uint8_t *fuzz_copy(const uint8_t *bytes, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);

	if (!copy)
		abort();
	return len ? memcpy(copy, bytes, len) : copy;
}

/* Where to cut: 1 to 32 bytes on, from a generator seeded by the content (FNV-1a, xorshift). */
struct fuzz_cuts {
	uint64_t x;
};

static inline void fuzz_cuts_init(struct fuzz_cuts *c, const uint8_t *bytes, size_t len)
{
	c->x = 0xcbf29ce484222325;
	while (len--)
		c->x = (c->x ^ *bytes++) * 0x100000001b3;
	c->x |= 1;
}

static inline size_t fuzz_cuts_next(struct fuzz_cuts *c, size_t at, size_t len)
{
	size_t step;

	c->x ^= c->x << 13;
	c->x ^= c->x >> 7;
	c->x ^= c->x << 17;
	step = c->x & 0x100 ? 1 + (c->x & 31) : 1;
	return at + step < len ? at + step : len;
}

#endif
