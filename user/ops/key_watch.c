/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Judges windows of requests, each as long as its verdict needs. */
#include "ops/key_watch.h"

#include "base/log.h"
#include "ops/metrics.h"

#define LOOK_MS 1000
#define SAY_MS	(10 * 60 * 1000)
/* Requests of a window: fewer say nothing. */
#define KEYLESS_WINDOW 100
/* A burst of new sessions is no flaw; five hundred in which nobody comes back are. */
#define ONCE_WINDOW 500

static const char *const texts[KEY_ADVICE_NR] = {
	[KEY_ADVICE_KEYLESS] = "most requests have no session key",
	[KEY_ADVICE_ONCE] = "no session key is ever seen twice",
};

static const char *const fixes[KEY_ADVICE_NR] = {
	[KEY_ADVICE_KEYLESS] = "let clients send one of affinity.keys, or add the source that they "
			       "use, or {prefix: {}}",
	[KEY_ADVICE_ONCE] = "clients seem to send an id per request: use the one of the "
			    "conversation",
};

static void judge(struct key_watch *w, enum key_advice which, bool bad, uint64_t now_ms)
{
	uint32_t bit = 1U << which;

	if (!bad) {
		atomic_fetch_and(&w->advice, ~bit);
		return;
	}
	atomic_fetch_or(&w->advice, bit);
	if (w->said_ms[which] && now_ms < w->said_ms[which] + SAY_MS)
		return;
	w->said_ms[which] = now_ms ? now_ms : 1;
	LOG(WARN, texts[which], F_STR("fix", fixes[which]));
}

void key_watch_judge(struct key_watch *w, const struct key_counts *c, uint64_t now_ms)
{
	const struct key_counts *keyless = &w->since[KEY_ADVICE_KEYLESS];
	const struct key_counts *once = &w->since[KEY_ADVICE_ONCE];

	if (c->requests - keyless->requests >= KEYLESS_WINDOW) {
		judge(w, KEY_ADVICE_KEYLESS,
		      2 * (c->keyless - keyless->keyless) > c->requests - keyless->requests,
		      now_ms);
		w->since[KEY_ADVICE_KEYLESS] = *c;
	}
	if (c->keyed - once->keyed >= ONCE_WINDOW) {
		/* Ninety-nine in a hundred: somebody always tries again. */
		judge(w, KEY_ADVICE_ONCE,
		      100 * (c->first - once->first) > 99 * (c->keyed - once->keyed), now_ms);
		w->since[KEY_ADVICE_ONCE] = *c;
	}
}

void key_watch_tick(struct key_watch *w, const struct balancer *b)
{
	uint64_t now_ms = balancer_now_ms(), by_prefix = 0;
	struct key_counts c = {0};
	struct metrics_kernel k;

	if (now_ms < w->next_ms || !balancer_config(b)->nr_keys)
		return;
	w->next_ms = now_ms + LOOK_MS;
	for (unsigned int i = 0; i < b->nr_workers; i++) {
		const struct worker_stats *s = balancer_stats(b, i);

		for (int m = 0; m < MISSING_NR; m++)
			c.keyless += stat_get(&s->keyless[m]);
		for (int kind = 0; kind < KEY_KIND_NR; kind++)
			*(kind == KEY_PREFIX ? &by_prefix : &c.keyed) += stat_get(&s->keys[kind]);
		c.first += stat_get(&s->first_turns);
	}
	/* What the kernel carries has a pin: a later turn. */
	if (b->steer && !metrics_kernel_read(&k, b))
		for (uint32_t slot = 0; slot < BACKENDS_MAX; slot++)
			c.keyed += k.backend[slot].requests;
	c.requests = c.keyless + c.keyed + by_prefix;
	key_watch_judge(w, &c, now_ms);
}

const char *key_watch_text(const struct key_watch *w)
{
	uint32_t advice = atomic_load(&w->advice);

	/* Few keys that are not seen twice, among many requests without: the latter is more. */
	for (int which = 0; which < KEY_ADVICE_NR; which++)
		if (advice & 1U << which)
			return texts[which];
	return "";
}
