/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Reloads that other threads ask for: `asked` and `answered` are running numbers, so that one
 * reload answers all that asked before it began.
 */
#include "ops/reload.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void note_add(char *text, unsigned int bytes, const char *note)
{
	size_t len = strlen(text);

	snprintf(text + len, bytes - len, "%s%s", len ? "; " : "", note);
}

static bool addrs_equal(const struct addr *a, unsigned int nr_a, const struct addr *b,
			unsigned int nr_b)
{
	if (nr_a != nr_b)
		return false;
	for (unsigned int i = 0; i < nr_a; i++)
		if (!addr_equal(&a[i], &b[i]))
			return false;
	return true;
}

static bool addr_list_equal(const struct addr_list *a, const struct addr_list *b)
{
	return addrs_equal(a->one, a->nr, b->one, b->nr);
}

void reload_note_restarts(const struct config *old, const struct config *c, char *text,
			  unsigned int bytes)
{
	if (!addrs_equal(c->listen, c->nr_listen, old->listen, old->nr_listen))
		note_add(text, bytes, "listen: a change needs a restart");
	if (c->workers != old->workers)
		note_add(text, bytes, "workers: a change needs a restart");
	if (c->has_metrics != old->has_metrics ||
	    (c->has_metrics && !addr_equal(&c->metrics, &old->metrics)))
		note_add(text, bytes, "metrics: a changed address needs a restart");
	if (strcmp(c->control, old->control))
		note_add(text, bytes, "control: a changed path needs a restart");
	if (c->path != old->path)
		note_add(text, bytes, "path: a change needs a restart");
	if (strcmp(c->steer.pin, old->steer.pin) || c->steer.holds != old->steer.holds ||
	    c->steer.ring_bytes != old->steer.ring_bytes)
		note_add(text, bytes, "steer: a changed pin, holds or ring needs a restart");
	if (c->splice.ring_bytes != old->splice.ring_bytes)
		note_add(text, bytes, "splice: a changed ring needs a restart");
	if (!addr_list_equal(&c->peers.listen, &old->peers.listen) ||
	    !addr_list_equal(&c->peers.to, &old->peers.to) ||
	    strcmp(c->peers.secret, old->peers.secret))
		note_add(text, bytes, "peers: a change needs a restart");
	if (strcmp(c->user, old->user))
		note_add(text, bytes, "user: a change needs a restart");
}

void reload_init(struct reload *r)
{
	pthread_mutex_init(&r->mutex, NULL);
	pthread_cond_init(&r->cond, NULL);
	r->asked = r->answered = 0;
	r->closing = false;
}

void reload_fini(struct reload *r)
{
	pthread_cond_destroy(&r->cond);
	pthread_mutex_destroy(&r->mutex);
}

int reload_ask(struct reload *r, uv_async_t *wake, char *text, unsigned int bytes)
{
	uint64_t mine;
	int rc;

	pthread_mutex_lock(&r->mutex);
	mine = ++r->asked;
	if (!r->closing)
		uv_async_send(wake);
	while (r->answered < mine && !r->closing)
		pthread_cond_wait(&r->cond, &r->mutex);
	if (r->answered >= mine) {
		rc = r->answer;
		snprintf(text, bytes, "%s", r->answer_text);
	} else {
		rc = -ESHUTDOWN;
		snprintf(text, bytes, "kvpin is stopping");
	}
	pthread_mutex_unlock(&r->mutex);
	return rc;
}

void reload_answer(struct reload *r, int (*reload)(void *arg, char *text, unsigned int bytes),
		   void *arg)
{
	char text[RELOAD_TEXT_MAX];
	uint64_t upto;
	int rc;

	pthread_mutex_lock(&r->mutex);
	upto = r->asked;
	pthread_mutex_unlock(&r->mutex);
	if (upto == r->answered)
		return; /* only this thread writes answered */
	rc = reload(arg, text, sizeof(text));
	pthread_mutex_lock(&r->mutex);
	r->answered = upto;
	r->answer = rc;
	memcpy(r->answer_text, text, sizeof(text));
	pthread_cond_broadcast(&r->cond);
	pthread_mutex_unlock(&r->mutex);
}

void reload_close(struct reload *r)
{
	pthread_mutex_lock(&r->mutex);
	r->closing = true;
	pthread_cond_broadcast(&r->cond);
	pthread_mutex_unlock(&r->mutex);
}
