/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Slots and their prefix caches: which idle slot takes a prompt, how much of it is cached, what
 * stays when it is done. Also the deterministic tokens. Keeps no time.
 */
#include <stdlib.h>
#include <string.h>

#include "model.h"

#define SIMILARITY_MIN 0.5 /* llama-server's default for reusing a slot by its prefix */

struct slot *slots;
static unsigned busy;
static uint64_t stamp, tasks;

unsigned model_busy(void)
{
	return busy;
}

void slot_init(void)
{
	slots = xalloc(opt.slots * sizeof(*slots));
}

void slot_fini(void)
{
	for (unsigned i = 0; i < opt.slots; i++)
		buf_free(&slots[i].text);
	free(slots);
}

static size_t common_prefix(const struct buf *a, const struct buf *b)
{
	size_t n = a->len < b->len ? a->len : b->len, i = 0;

	while (i + 64 <= n && !memcmp(a->p + i, b->p + i, 64))
		i += 64;
	while (i < n && a->p[i] == b->p[i])
		i++;
	return i;
}

struct slot *slot_choose(const struct job *job, size_t *prefix)
{
	struct slot *best = NULL, *oldest = NULL;
	size_t best_len = 0;

	for (struct slot *s = slots; s < slots + opt.slots; s++) {
		size_t len;

		if (s->job)
			continue;
		if (!oldest || s->last_used < oldest->last_used)
			oldest = s;
		len = common_prefix(&s->text, &job->prompt);
		if (len > best_len && len >= SIMILARITY_MIN * job->prompt.len) {
			best = s;
			best_len = len;
		}
	}
	if (!best)
		best = oldest;
	*prefix = best ? common_prefix(&best->text, &job->prompt) : 0;
	return best;
}

void slot_take(struct slot *s, struct job *job, size_t prefix)
{
	job->slot = s;
	s->job = job;
	s->task = ++tasks;
	busy++;
	job->cached_tokens = prefix / TOKEN_BYTES;
	if (job->cached_tokens >= job->prompt_tokens)
		job->cached_tokens = job->prompt_tokens - 1; /* the last one is always computed */
	s->prompt_tokens = job->prompt_tokens;
	s->cached_tokens = job->cached_tokens;
	totals.prompt_tokens += job->prompt_tokens - job->cached_tokens;
	totals.cached_tokens += job->cached_tokens;
}

void slot_release(struct job *job, size_t prompt_bytes)
{
	struct slot *s = job->slot;

	s->text.len = 0;
	buf_add(&s->text, job->prompt.p, prompt_bytes);
	if (prompt_bytes == job->prompt.len)
		buf_add(&s->text, job->answer.p, job->answer.len);
	s->last_used = ++stamp;
	s->job = NULL;
	job->slot = NULL;
	busy--;
}

void token_text(const struct job *job, uint64_t i, char *out)
{
	static const char con[] = "bdfgklmnprstvz", vow[] = "aeiou";
	uint64_t h = job->hash + (i + 1) * 0x9e3779b97f4a7c15u;

	h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
	h ^= h >> 27;
	out[0] = ' ';
	out[1] = con[h % 14];
	out[2] = vow[(h >> 16) % 5];
	out[3] = con[(h >> 32) % 14];
}
