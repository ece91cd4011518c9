/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * libFuzzer target for kvpin_http_body.h, chunked bodies. Properties: however the input is cut,
 * the result is the same; never more is consumed than there is; an accepted body, walked alone,
 * gives the same; and a plain decoder, written in another way, finds the same end and payload.
 */
#include "fuzz.h"

static void start(struct kvpin_body *b)
{
	memset(b, 0, sizeof(*b));
	b->state = KVPIN_BS_SIZE;
	b->fresh = 1;
}

static const uint8_t *line_end(const uint8_t *at, const uint8_t *end)
{
	const uint8_t *lf = memchr(at, '\n', (size_t)(end - at));

	FUZZ_ASSERT(lf && lf > at && lf[-1] == '\r');
	FUZZ_ASSERT(!memchr(at, '\r', (size_t)(lf - 1 - at)) && !memchr(at, 0, (size_t)(lf - at)));
	return lf + 1;
}

/* Only for what was accepted: it must decode to the same by memchr() and strtoull(). */
static void check_accepted(const struct kvpin_body *b, const uint8_t *bytes, uint64_t len)
{
	const uint8_t *at = bytes, *end = bytes + len;
	uint64_t payload = 0, size;
	uint32_t events = 0;

	do {
		const uint8_t *next = line_end(at, end);
		char *stop;

		FUZZ_ASSERT(strchr("0123456789abcdefABCDEF", *at) && *at);
		size = strtoull((const char *)at, &stop, 16);
		FUZZ_ASSERT(*stop == '\r' || *stop == ';');
		at = next;
		if (size) {
			FUZZ_ASSERT(size + 2 < (uint64_t)(end - at));
			events += *at != ':';
			payload += size;
			at += size;
			FUZZ_ASSERT(!memcmp(at, "\r\n", 2));
			at += 2;
		}
	} while (size);
	while (*at != '\r') {
		FUZZ_ASSERT(*at != ' ' && *at != '\t' && *at != ':');
		at = line_end(at, end);
	}
	FUZZ_ASSERT(line_end(at, end) == end);
	FUZZ_ASSERT(payload == b->payload && events == b->events);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kvpin_body whole, b;
	struct fuzz_cuts cuts;
	uint64_t len, at = 0, took, sum = 0;
	uint8_t *copy;

	if (size < 1 || size > 65536)
		return 0;
	data++;
	len = size - 1;

	copy = fuzz_copy(data, len);
	start(&whole);
	took = kvpin_body_walk(&whole, copy, len);
	FUZZ_ASSERT(took <= len && whole.payload <= took);
	FUZZ_ASSERT((whole.state == KVPIN_BS_BAD) == (whole.error != KVPIN_HTTP_NONE));
	FUZZ_ASSERT(took == len || whole.state == KVPIN_BS_DONE || whole.state == KVPIN_BS_BAD);
	if (whole.state == KVPIN_BS_DONE)
		check_accepted(&whole, copy, took);
	free(copy);

	start(&b);
	fuzz_cuts_init(&cuts, data, len);
	while (at < len && b.state != KVPIN_BS_DONE && b.state != KVPIN_BS_BAD) {
		uint64_t cut = fuzz_cuts_next(&cuts, at, len);

		copy = fuzz_copy(data + at, cut - at);
		sum += kvpin_body_walk(&b, copy, cut - at);
		free(copy);
		at = cut;
	}
	FUZZ_ASSERT(sum == took && !memcmp(&b, &whole, sizeof(b)));

	if (whole.state == KVPIN_BS_DONE) {
		start(&b);
		FUZZ_ASSERT(kvpin_body_walk(&b, data, took) == took);
		FUZZ_ASSERT(!memcmp(&b, &whole, sizeof(b)));
	}
	return 0;
}
