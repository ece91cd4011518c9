/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Hop-by-hop fields. */
#include "net/head_edit.h"

#include <string.h>
#include <strings.h>

/* Names that one head may nominate as hop-by-hop; more are left in place. */
#define NOMINATED_MAX 16

struct text {
	const uint8_t *at;
	uint32_t len;
};

static bool text_is(struct text t, const char *lower)
{
	return t.len == strlen(lower) && !strncasecmp((const char *)t.at, lower, t.len);
}

/* The next field line of an accepted head; name and value set, value blanks kept. Returns its end
 * (behind LF), or NULL at the empty line. */
static const uint8_t *line_next(const uint8_t *at, const uint8_t *end, struct text *name,
				struct text *value)
{
	const uint8_t *lf = memchr(at, '\n', end - at);
	const uint8_t *colon;

	if (!lf || lf == at + 1)
		return NULL;
	colon = memchr(at, ':', lf - at);
	*name = (struct text){at, colon - at};
	*value = (struct text){colon + 1, lf - 1 - (colon + 1)};
	return lf + 1;
}

/* The next element of a comma-separated list; false at its end. */
static bool list_next(struct text *rest, struct text *item)
{
	while (rest->len && (*rest->at == ' ' || *rest->at == '\t' || *rest->at == ','))
		rest->at++, rest->len--;
	if (!rest->len)
		return false;
	item->at = rest->at;
	item->len = 0;
	while (item->len < rest->len && item->at[item->len] != ',')
		item->len++;
	rest->at += item->len;
	rest->len -= item->len;
	while (item->len && (item->at[item->len - 1] == ' ' || item->at[item->len - 1] == '\t'))
		item->len--;
	return true;
}

static const uint8_t *first_line(const struct kvpin_head *h, const uint8_t *head)
{
	return (const uint8_t *)memchr(head + h->start, '\n', h->pos - h->start) + 1;
}

struct head_connection head_connection(const struct kvpin_head *h, const uint8_t *head)
{
	struct head_connection said = {
		.close = h->flags & KVPIN_HEAD_CLOSE,
		.keep_alive = h->flags & KVPIN_HEAD_KEEP_ALIVE,
	};
	const uint8_t *at = first_line(h, head);
	struct text name, value, item;

	if (!(h->flags & KVPIN_HEAD_CONNECTION_LIST))
		return said;
	while ((at = line_next(at, head + h->pos, &name, &value))) {
		if (!text_is(name, "connection"))
			continue;
		while (list_next(&value, &item)) {
			said.close |= text_is(item, "close");
			said.keep_alive |= text_is(item, "keep-alive");
			said.upgrade |= text_is(item, "upgrade");
		}
	}
	return said;
}

/* Names in Connection fields, for removal. What frames or routes a message is never removed on a
 * sender's say-so. */
static unsigned int nominated(const struct kvpin_head *h, const uint8_t *head,
			      struct text out[NOMINATED_MAX])
{
	static const char *const kept[] = {"host",	   "content-length", "transfer-encoding",
					   "content-type", "expect",	     "authorization",
					   "upgrade"};
	const uint8_t *at = first_line(h, head);
	struct text name, value, item;
	unsigned int nr = 0;

	if (!(h->flags & KVPIN_HEAD_CONNECTION_LIST))
		return 0;
	while ((at = line_next(at, head + h->pos, &name, &value))) {
		if (!text_is(name, "connection"))
			continue;
		while (list_next(&value, &item)) {
			bool keep = nr >= NOMINATED_MAX;

			for (unsigned int i = 0; i < sizeof(kept) / sizeof(*kept); i++)
				keep |= text_is(item, kept[i]);
			if (!keep)
				out[nr++] = item;
		}
	}
	return nr;
}

static bool goes(struct text name, const struct head_change *change, const struct text *nominee,
		 unsigned int nr)
{
	switch (name.len) {
	case 2:
		if (text_is(name, "te"))
			return true;
		break;
	case 6:
		if (text_is(name, "expect"))
			return change->drop_expect;
		break;
	case 7:
		if (text_is(name, "upgrade"))
			return !change->keep_upgrade;
		break;
	case 10:
		if (text_is(name, "connection") || text_is(name, "keep-alive"))
			return true;
		break;
	case 16:
		if (text_is(name, "proxy-connection"))
			return true;
		break;
	case 17:
		if (text_is(name, "transfer-encoding"))
			return change->drop_transfer_encoding;
		break;
	}
	for (unsigned int i = 0; i < nr; i++)
		if (nominee[i].len == name.len &&
		    !strncasecmp((const char *)nominee[i].at, (const char *)name.at, name.len))
			return true;
	return false;
}

static bool changes_nothing(const struct kvpin_head *h, const struct head_change *change)
{
	const uint32_t hop = KVPIN_HEAD_CLOSE | KVPIN_HEAD_KEEP_ALIVE | KVPIN_HEAD_CONNECTION_LIST |
			     KVPIN_HEAD_HOP | KVPIN_HEAD_UPGRADE;

	return !(h->flags & hop) && !h->start && !change->drop_transfer_encoding &&
	       !change->version_11 && !change->drop_expect && !*change->insert;
}

static uint8_t *put(uint8_t *to, const void *from, size_t n)
{
	memcpy(to, from, n);
	return to + n;
}

uint32_t head_edit(struct buf *b, const struct kvpin_head *h, const struct head_change *change,
		   uint8_t *scratch)
{
	static const char upgrade[] = "Connection: upgrade\r\n";
	const uint8_t *head = buf_data(b), *end = head + h->pos;
	const uint8_t *at, *next, *run;
	struct text nominee[NOMINATED_MAX], name, value;
	unsigned int nr;
	uint8_t *to = scratch;
	uint32_t len;

	if (changes_nothing(h, change))
		return h->pos;
	nr = nominated(h, head, nominee);
	run = head + h->start;
	for (at = first_line(h, head); (next = line_next(at, end, &name, &value)); at = next) {
		if (!goes(name, change, nominee, nr))
			continue;
		to = put(to, run, at - run);
		run = next;
	}
	to = put(to, run, at - run);
	if (change->keep_upgrade)
		to = put(to, upgrade, sizeof(upgrade) - 1);
	to = put(to, change->insert, strlen(change->insert));
	to = put(to, "\r\n", 2);
	len = to - scratch;
	/* Back in front of the body: the head's end stays where it is. */
	b->start = b->start + h->pos - len;
	memcpy(buf_data(b), scratch, len);
	if (change->version_11) {
		uint8_t *cr = memchr(buf_data(b), '\r', len);

		cr[-1] = '1';
	}
	return len;
}
