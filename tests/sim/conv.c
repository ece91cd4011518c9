/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * llama-server's conversations: a stream with X-Conversation-Id goes on without its client, is kept
 * here and can be resumed. Owns the kept bytes; a running job points at its conversation, a
 * resuming connection is a watcher. DELETE, or the cap, forgets.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "model.h"

#define CONVS_MAX 256 /* kept; the oldest finished one goes first */

struct conv {
	char *id;
	struct buf events; /* SSE payload without chunk framing */
	struct job *job;   /* NULL once it is done */
	uint64_t started_s, completed_s;
	struct conn *watchers;
	struct conv *next;
};

static struct conv *convs;
static unsigned convs_nr;

static struct conv *conv_find(const char *id)
{
	struct conv *v = convs;

	while (v && strcmp(v->id, id))
		v = v->next;
	return v;
}

static void conv_free(struct conv *v)
{
	struct conv **pp = &convs;

	while (*pp != v)
		pp = &(*pp)->next;
	*pp = v->next;
	convs_nr--;
	if (v->job)
		v->job->conv = NULL;
	while (v->watchers) {
		struct conn *c = v->watchers;

		conn_finish(c, false); /* its cancel hook unlinks it */
		conn_settle(c);
	}
	buf_free(&v->events);
	free(v->id);
	free(v);
}

/* A job nobody listens to any more ends with it; one with its client goes on. */
static void conv_forget(struct conv *v)
{
	struct job *job = v->job;

	conv_free(v);
	if (job && !job->conn)
		model_cancel(job);
}

struct conv *conv_open(const char *id, struct job *job)
{
	struct conv *v = conv_find(id), *old = NULL;

	if (v)
		conv_forget(v);
	if (convs_nr >= CONVS_MAX) {
		for (v = convs; v; v = v->next)
			if (!v->job)
				old = v; /* newest first: the last one is the oldest */
		if (old)
			conv_free(old);
	}
	v = xalloc(sizeof(*v));
	v->id = xstrdup(id);
	v->job = job;
	v->started_s = time(NULL);
	v->next = convs;
	convs = v;
	convs_nr++;
	return v;
}

static void conv_settle_watchers(struct conv *v)
{
	struct conn *c, *next;

	for (c = v->watchers; c; c = next) {
		next = c->u.watch.next;
		conn_settle(c);
	}
}

void conv_append(struct conv *v, const void *data, size_t len)
{
	buf_add(&v->events, data, len);
	for (struct conn *c = v->watchers; c; c = c->u.watch.next) {
		if (c->u.watch.off > v->events.len - len)
			continue; /* it asked for a later offset: nothing until then */
		answer_chunk(c, data, len);
		c->u.watch.off = v->events.len;
	}
	conv_settle_watchers(v);
}

static void watch_end(struct conn *c)
{
	answer_last_chunk(c);
	c->close_after = true;
	conn_answer_done(c);
}

void conv_end(struct conv *v)
{
	v->job = NULL;
	v->completed_s = time(NULL);
	while (v->watchers) {
		struct conn *c = v->watchers;

		v->watchers = c->u.watch.next;
		watch_end(c);
		conn_settle(c);
	}
}

static void watch_cancel(struct conn *c)
{
	struct conn **pp = &c->u.watch.conv->watchers;

	while (*pp != c)
		pp = &(*pp)->u.watch.next;
	*pp = c->u.watch.next;
}

static void watch_eof(struct conn *c)
{
	conn_finish(c, false);
}

static const struct answer_ops watch_ops = {.eof = watch_eof, .cancel = watch_cancel};

void conv_stream(struct conn *c)
{
	char id[256];
	uint64_t from = query_u64(&c->req, "from", 0);
	struct conv *v = NULL;

	if (query_get(&c->req, "conv_id", id, sizeof(id)))
		v = conv_find(id);
	if (c->req.method == HTTP_DELETE) {
		if (v)
			conv_forget(v);
		answer_head(c, 204, "application/json", FRAME_LENGTH, 0, NULL);
		conn_answer_done(c);
		return;
	}
	if (!v) {
		answer_not_found(c);
		return;
	}
	answer_head(c, 200, "text/event-stream", FRAME_CHUNKED, 0, NULL);
	if (from < v->events.len)
		answer_chunk(c, v->events.p + from, v->events.len - from);
	if (!v->job) {
		watch_end(c);
		return;
	}
	c->ops = &watch_ops;
	c->u.watch.conv = v;
	c->u.watch.off = from < v->events.len ? v->events.len : from;
	c->u.watch.next = v->watchers;
	v->watchers = c;
}

void conv_lookup(struct conn *c)
{
	json_t *root = json_loadb(c->req.body.p ? c->req.body.p : "", c->req.body.len, 0, NULL);
	const json_t *id;
	struct buf b = {0};
	size_t i;

	buf_lit(&b, "[");
	json_array_foreach(json_object_get(root, "conversation_ids"), i, id)
	{
		const struct conv *v = json_is_string(id) ? conv_find(json_string_value(id)) : NULL;

		if (!v)
			continue;
		buf_str(&b, b.len > 1 ? ",{\"conversation_id\":" : "{\"conversation_id\":");
		buf_json(&b, v->id, strlen(v->id));
		buf_printf(&b,
			   ",\"is_done\":%s,\"total_bytes\":%zu,\"started_at\":%llu,"
			   "\"completed_at\":%llu}",
			   v->job ? "false" : "true", v->events.len,
			   (unsigned long long)v->started_s, (unsigned long long)v->completed_s);
	}
	buf_lit(&b, "]");
	answer_json(c, 200, b.p, b.len);
	buf_free(&b);
	json_decref(root);
}

void conv_fini(void)
{
	while (convs)
		conv_free(convs);
}
