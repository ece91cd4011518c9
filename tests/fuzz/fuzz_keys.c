/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * libFuzzer target: where session keys are read. The first byte chooses: a body (whatever it is cut
 * into, the same comes out), a head's cookies, or a request target.
 *
 * Links: user/core/json_scan.c, body_scan.c, key.c, prefix.c, libxxhash.
 */
#include "core/body_scan.h"
#include "fuzz.h"

static const struct key_source sources[] = {
	{.kind = KEY_JSON, .name = "metadata.session_id"},
	{.kind = KEY_JSON, .name = "user"},
	{.kind = KEY_PREFIX},
};

struct outcome {
	struct key_found found;
	uint32_t len, model_len;
	bool over;
	struct body_chain chain;
};

static struct body_scan *body_run(const uint8_t *bytes, size_t len, bool whole, struct outcome *o)
{
	struct body_scan *s = body_scan_new(sources, 3, 2);
	struct fuzz_cuts cuts;
	size_t at = 0;

	FUZZ_ASSERT(s);
	memset(o, 0, sizeof(*o));
	fuzz_cuts_init(&cuts, bytes, len);
	while (at < len && !o->over) {
		size_t next = whole ? len : fuzz_cuts_next(&cuts, at, len);
		uint8_t *piece = fuzz_copy(bytes + at, next - at);

		o->over = body_scan_feed(s, piece, next - at);
		free(piece);
		at = next;
	}
	FUZZ_ASSERT(s->len <= s->room && s->model_len <= sizeof(s->model));
	o->found = s->found;
	o->len = s->len;
	o->model_len = s->model_len;
	body_scan_chain(s, 2, &o->chain);
	return s;
}

static void fuzz_one_body(const uint8_t *bytes, size_t len)
{
	struct outcome *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));
	struct body_scan *s, *t;

	FUZZ_ASSERT(a && b);
	s = body_run(bytes, len, true, a);
	t = body_run(bytes, len, false, b);
	FUZZ_ASSERT(a->over == b->over && a->found.at == b->found.at && a->found.id == b->found.id);
	FUZZ_ASSERT(a->len == b->len && !memcmp(s->prompt, t->prompt, s->len));
	FUZZ_ASSERT(a->model_len == b->model_len && a->chain.nr == b->chain.nr);
	FUZZ_ASSERT(!memcmp(a->chain.hash, b->chain.hash, a->chain.nr * sizeof(uint64_t)));
	free(s);
	free(t);
	free(a);
	free(b);
}

/* Only what the strict parser has accepted comes that far. */
static void fuzz_head_keys(const uint8_t *bytes, size_t len)
{
	static const char first[] = "GET /?a=b HTTP/1.1\r\nHost: h\r\n";
	uint8_t *head = malloc(sizeof(first) - 1 + len);
	struct kvpin_names names;
	struct key_found found;
	struct kvpin_head h;
	size_t value_len;

	FUZZ_ASSERT(head);
	memcpy(head, first, sizeof(first) - 1);
	memcpy(head + sizeof(first) - 1, bytes, len);
	kvpin_names_init(&names);
	kvpin_head_init(&h, KVPIN_REQUEST);
	if (kvpin_head_parse(&h, &names, head, sizeof(first) - 1 + len) == KVPIN_STEP_DONE) {
		uint8_t *exact = fuzz_copy(head, h.pos);

		key_of_cookie(exact, h.pos, "sid", &found);
		FUZZ_ASSERT(!key_header_value(exact, h.pos, "cookie", &value_len) || value_len);
		key_of_query(exact + h.target_off, h.target_len, "a", &found);
		FUZZ_ASSERT(found.at == 0);
		free(exact);
	}
	free(head);
}

static void fuzz_target(const uint8_t *bytes, size_t len)
{
	uint8_t *exact = fuzz_copy(bytes, len);
	struct key_found found;

	key_of_query(exact, len, "id", &found);
	FUZZ_ASSERT(found.at == KEY_NONE || memchr(exact, '?', len));
	free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	switch (*data % 4) {
	case 0:
		fuzz_target(data + 1, size - 1);
		break;
	case 1:
		fuzz_head_keys(data + 1, size - 1);
		break;
	default:
		fuzz_one_body(data + 1, size - 1);
	}
	return 0;
}
