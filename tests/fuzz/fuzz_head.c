/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * libFuzzer target for kvpin_http_head.h. Properties: however the input is cut, the result is the
 * same; nothing behind the input is read; an accepted head, parsed alone, gives the same; and it
 * holds no CR, LF or control byte but where the grammar has one.
 */
#include "fuzz.h"

/* First byte: bit 0 the kind, bit 1 small limits. */
static void start(struct kvpin_head *h, uint8_t mode)
{
	kvpin_head_init(h, mode & 1 ? KVPIN_RESPONSE : KVPIN_REQUEST);
	if (mode & 2) {
		h->limit_bytes = 100;
		h->limit_fields = 3;
	}
}

static void check_accepted(const struct kvpin_head *h, const uint8_t *head)
{
	uint32_t lines = 0, i;

	FUZZ_ASSERT(!memcmp(head + h->pos - 4, "\r\n\r\n", 4));
	for (i = 0; i < h->pos; i++) {
		if (head[i] == '\r')
			FUZZ_ASSERT(head[i + 1] == '\n');
		else if (head[i] == '\n')
			FUZZ_ASSERT(i && head[i - 1] == '\r' && ++lines);
		else
			FUZZ_ASSERT(head[i] == '\t' || (head[i] >= 0x20 && head[i] != 0x7f));
		/* An empty line only before the start line and at the end. */
		if (i >= h->start && i + 4 < h->pos)
			FUZZ_ASSERT(memcmp(head + i, "\r\n\r\n", 4));
		/* No line begins with a blank. */
		if (i + 1 < h->pos && head[i] == '\n')
			FUZZ_ASSERT(head[i + 1] != ' ' && head[i + 1] != '\t');
	}
	FUZZ_ASSERT(lines == h->empty_lines + 1u + h->fields + 1);
	FUZZ_ASSERT(h->fields <= h->limit_fields && h->pos <= h->limit_bytes);
	FUZZ_ASSERT(h->start < h->pos && h->target_off + h->target_len < h->pos);
	FUZZ_ASSERT(!((h->flags & KVPIN_HEAD_LENGTH) && (h->flags & KVPIN_HEAD_CHUNKED)));
	FUZZ_ASSERT(h->content_length <= 999999999999999999);
	if (h->key_rank == KVPIN_KEY_NONE)
		FUZZ_ASSERT(!h->key_len && !(h->flags & KVPIN_HEAD_KEY_REPEATED));
	else
		FUZZ_ASSERT(h->key_len && h->key_off + h->key_len <= h->pos - 4 &&
			    head[h->key_off] > ' ' && head[h->key_off + h->key_len - 1] > ' ');
	if (h->kind == KVPIN_RESPONSE)
		return;
	FUZZ_ASSERT(h->target_len);
	for (i = 0; i < h->target_len; i++)
		FUZZ_ASSERT(head[h->target_off + i] > 0x20 && head[h->target_off + i] < 0x7f);
	FUZZ_ASSERT(!h->minor || (h->flags & KVPIN_HEAD_HOST));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct kvpin_names names;
	struct kvpin_head whole, h;
	struct fuzz_cuts cuts;
	uint32_t len, at = 0;
	uint8_t *copy;
	int step, again = KVPIN_STEP_MORE;

	if (!names.nr)
		http_case_names(&names);
	if (size < 1 || size > 65536)
		return 0;
	len = (uint32_t)size - 1;

	copy = fuzz_copy(data + 1, len);
	start(&whole, data[0]);
	step = kvpin_head_parse(&whole, &names, copy, len);
	FUZZ_ASSERT(whole.pos <= len && whole.pos <= whole.limit_bytes);
	FUZZ_ASSERT((step == KVPIN_STEP_BAD) == (whole.error != KVPIN_HTTP_NONE));
	FUZZ_ASSERT((step == KVPIN_STEP_BAD) == (whole.state == KVPIN_HS_BAD));
	FUZZ_ASSERT(step != KVPIN_STEP_MORE || whole.pos == len);
	if (step == KVPIN_STEP_DONE)
		check_accepted(&whole, copy);
	free(copy);

	start(&h, data[0]);
	fuzz_cuts_init(&cuts, data, size);
	while (at < len && again == KVPIN_STEP_MORE) {
		at = (uint32_t)fuzz_cuts_next(&cuts, at, len);
		copy = fuzz_copy(data + 1, at);
		again = kvpin_head_parse(&h, &names, copy, at);
		free(copy);
	}
	FUZZ_ASSERT(again == step && !memcmp(&h, &whole, sizeof(h)));

	if (step == KVPIN_STEP_DONE) {
		copy = fuzz_copy(data + 1, whole.pos);
		start(&h, data[0]);
		FUZZ_ASSERT(kvpin_head_parse(&h, &names, copy, whole.pos) == KVPIN_STEP_DONE);
		FUZZ_ASSERT(!memcmp(&h, &whole, sizeof(h)));
		free(copy);
	}
	return 0;
}
