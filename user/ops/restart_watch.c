/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Looks at listeners and judges. A dump is no snapshot: a socket that it misses because others came
 * or went beside it would be a restart that never was, so each suspicion is looked at twice.
 */
#include "ops/restart_watch.h"

#include <string.h>
#include <unistd.h>

#include "base/log.h"

/* A model takes longer than that to load; a look costs some 70 us of CPU. */
#define LOOK_MS 250

void restart_watch_fini(struct restart_watch *w)
{
	if (w->fd >= 0)
		close(w->fd);
	listeners_fini(&w->listeners);
	w->fd = -1;
}

static bool has(const uint64_t *cookie, uint32_t nr, uint64_t one)
{
	for (uint32_t i = 0; i < nr; i++)
		if (cookie[i] == one)
			return true;
	return false;
}

bool restart_gone(const struct restart_seen *s, const uint64_t *cookie, uint32_t nr)
{
	bool gone = false;

	for (uint32_t i = 0; nr && i < s->nr; i++)
		gone |= !has(cookie, nr, s->cookie[i]);
	return gone;
}

static bool same_server(const struct restart_seen *s, const struct backend *b)
{
	return s->name_hash == b->name_hash && addr_equal(&s->addr, &b->addr);
}

void restart_watch_expect(struct restart_watch *w, const struct backend *b, const uint64_t *cookie,
			  uint32_t nr)
{
	struct restart_seen *s = &w->seen[b->id];

	*s = (struct restart_seen){
		.name_hash = b->name_hash,
		.addr = b->addr,
		.generation = atomic_load(&b->generation),
		.nr = nr,
	};
	memcpy(s->cookie, cookie, nr * sizeof(*cookie));
}

const struct restart_seen *restart_watch_seen(const struct restart_watch *w,
					      const struct backend *b)
{
	const struct restart_seen *s = &w->seen[b->id];

	return same_server(s, b) ? s : NULL;
}

static uint32_t listening(const struct restart_watch *w, const struct backend *b,
			  uint64_t cookie[LISTENERS_GROUP_MAX])
{
	return listeners_of(&w->listeners, &b->addr, listeners_local(&b->addr), cookie);
}

static void look_at(struct restart_watch *w, struct backend *b)
{
	struct restart_seen *s = &w->seen[b->id];
	uint64_t cookie[LISTENERS_GROUP_MAX];
	char text[ADDR_TEXT_MAX];
	uint32_t nr;

	if (!same_server(s, b))
		*s = (struct restart_seen){.name_hash = b->name_hash, .addr = b->addr};
	nr = listening(w, b, cookie);
	if (restart_gone(s, cookie, nr)) {
		if (listeners_read(w->fd, &w->listeners))
			return;
		nr = listening(w, b, cookie);
		if (restart_gone(s, cookie, nr)) {
			backend_report_restart(b, s->generation);
			LOG(INFO, "backend restarted, its sessions are cold",
			    F_STR("backend", b->name),
			    F_STR("address", addr_format(&b->addr, text)));
		}
	}
	if (!nr)
		return; /* the next one is compared with what was seen last */
	memcpy(s->cookie, cookie, nr * sizeof(*cookie));
	s->nr = nr;
	s->generation = atomic_load(&b->generation);
}

void restart_watch_tick(struct restart_watch *w, struct balancer *b)
{
	uint64_t now_ms = balancer_now_ms();
	uint32_t nr = atomic_load(&b->backends.nr);

	if (w->fd < 0 || now_ms < w->next_ms)
		return;
	w->next_ms = now_ms + LOOK_MS;
	if (listeners_read(w->fd, &w->listeners))
		return;
	for (uint32_t i = 0; i < nr; i++) {
		uint32_t state = atomic_load(&b->backends.slot[i].state);

		if (state == BACKEND_UP || state == BACKEND_DOWN)
			look_at(w, &b->backends.slot[i]);
	}
}

void restart_watch_init(struct restart_watch *w)
{
	memset(w, 0, sizeof(*w));
	w->fd = listeners_open();
	if (w->fd < 0)
		LOG(WARN, "restarts of servers between two checks are not noticed: no sock_diag",
		    F_STR("error", strerror(-w->fd)));
}
