/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Keys out of heads. Works on heads that the strict parser has accepted: every line ends in CR LF,
 * a name is followed by its colon. Reads nothing behind the head, allocates nothing.
 */
#include "core/key.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
/* For the size of a state. */
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

/* Apart from texts, which are hashed with seed 0. */
#define CLIENT_SEED 0x636c69656e742d69ULL

const char *const key_kind_names[KEY_KIND_NR] = {
	[KEY_HEADER] = "header", [KEY_COOKIE] = "cookie", [KEY_QUERY] = "query",
	[KEY_JSON] = "json",	 [KEY_PREFIX] = "prefix", [KEY_CLIENT_IP] = "client_ip",
};

const char *const key_agents[] = {
	"X-Session-Id", "X-Claude-Code-Session-Id", "X-Session-Affinity",
	"session_id",	"X-SMG-Routing-Key",	    "X-Dynamo-Session-ID",
};
const unsigned int key_agents_nr = sizeof(key_agents) / sizeof(key_agents[0]);

_Static_assert(sizeof(XXH64_state_t) == sizeof(((struct key_text *)0)->more),
	       "the header keeps the libraries' two ways of compiling xxhash apart");

static XXH64_state_t *more_of(struct key_text *t)
{
	return (XXH64_state_t *)t->more;
}

void key_text_begin(struct key_text *t)
{
	t->len = 0;
	t->zero = false;
}

void key_text_add(struct key_text *t, const void *text, size_t len)
{
	size_t room = t->len < sizeof(t->first) ? sizeof(t->first) - t->len : 0;

	if (!len)
		return;
	t->zero |= !!memchr(text, 0, len);
	if (len <= room) {
		memcpy(t->first + t->len, text, len);
	} else {
		/* What is in first[] goes before, once. */
		if (t->len <= sizeof(t->first)) {
			XXH64_reset(more_of(t), 0);
			XXH64_update(more_of(t), t->first, t->len);
		}
		XXH64_update(more_of(t), text, len);
	}
	t->len += len;
}

bool key_text_end(struct key_text *t, uint64_t *id)
{
	if (!t->len || t->zero)
		return false;
	if (t->len > sizeof(t->first)) {
		*id = XXH64_digest(more_of(t));
		return true;
	}
	memset(t->first + t->len, 0, sizeof(t->first) - t->len);
	*id = XXH64(t->first, sizeof(t->first), 0);
	return true;
}

/* The first wins, the others are only noticed. */
static void take(struct key_found *out, struct key_text *t)
{
	uint64_t id;

	if (!key_text_end(t, &id))
		return;
	if (out->at != KEY_NONE) {
		out->repeated = true;
		return;
	}
	out->at = 0;
	out->id = id;
	out->is_long = t->len > KEY_PADDED_BYTES;
}

static bool is_blank(uint8_t c)
{
	return c == ' ' || c == '\t';
}

/* The next field's value, blanks trimmed, behind @at; NULL at the head's end. */
static const uint8_t *field_next(const uint8_t *at, const uint8_t *end, const char *name,
				 const uint8_t **value, size_t *len)
{
	size_t name_len = strlen(name);

	while (at < end && *at != '\r') {
		const uint8_t *lf = memchr(at, '\n', end - at), *from, *to;

		if (!lf)
			return NULL;
		if ((size_t)(lf - at) > name_len && at[name_len] == ':' &&
		    !strncasecmp((const char *)at, name, name_len)) {
			for (from = at + name_len + 1; is_blank(*from); from++)
				;
			for (to = lf - 1; to > from && is_blank(to[-1]); to--)
				;
			*value = from;
			*len = to > from ? to - from : 0;
			return lf + 1;
		}
		at = lf + 1;
	}
	return NULL;
}

static const uint8_t *first_field(const uint8_t *head, size_t bytes)
{
	const uint8_t *end = head + bytes, *lf;

	/* Empty lines before a request line are tolerated. */
	while (bytes && head < end && (*head == '\r' || *head == '\n'))
		head++;
	lf = head < end ? memchr(head, '\n', end - head) : NULL;
	return lf ? lf + 1 : end;
}

const uint8_t *key_header_value(const uint8_t *head, size_t bytes, const char *name, size_t *len)
{
	const uint8_t *at = first_field(head, bytes), *value;

	while ((at = field_next(at, head + bytes, name, &value, len)))
		if (*len)
			return value;
	return NULL;
}

/* One cookie-pair: name, '=', value. */
static void cookie_pair(const uint8_t *at, const uint8_t *end, const char *name,
			struct key_found *out)
{
	size_t name_len = strlen(name);
	struct key_text t;

	while (at < end && is_blank(*at))
		at++;
	while (at < end && is_blank(end[-1]))
		end--;
	if ((size_t)(end - at) <= name_len || at[name_len] != '=' || memcmp(at, name, name_len))
		return;
	at += name_len + 1;
	if (end - at >= 2 && *at == '"' && end[-1] == '"') {
		at++;
		end--;
	}
	key_text_begin(&t);
	key_text_add(&t, at, end - at);
	take(out, &t);
}

bool key_of_cookie(const uint8_t *head, size_t len, const char *name, struct key_found *out)
{
	const uint8_t *at = first_field(head, len), *value;
	size_t n;

	*out = (struct key_found){.at = KEY_NONE};
	while ((at = field_next(at, head + len, "cookie", &value, &n))) {
		const uint8_t *end = value + n;

		while (value < end) {
			const uint8_t *semicolon = memchr(value, ';', end - value);

			cookie_pair(value, semicolon ? semicolon : end, name, out);
			value = semicolon ? semicolon + 1 : end;
		}
	}
	return out->at != KEY_NONE;
}

static int hex_digit(uint8_t c)
{
	uint8_t low = c | 0x20;

	if (c >= '0' && c <= '9')
		return c - '0';
	return low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
}

/* One character, resolved; a '%' without two digits stands for itself. */
static uint8_t query_char(const uint8_t **at, const uint8_t *end)
{
	const uint8_t *p = *at;

	*at = p + 1;
	if (*p == '+')
		return ' ';
	if (*p != '%' || end - p < 3 || hex_digit(p[1]) < 0 || hex_digit(p[2]) < 0)
		return *p;
	*at = p + 3;
	return hex_digit(p[1]) << 4 | hex_digit(p[2]);
}

static void query_pair(const uint8_t *at, const uint8_t *end, const char *name,
		       struct key_found *out)
{
	const uint8_t *equals = memchr(at, '=', end - at);
	struct key_text t;

	if (!equals)
		return;
	while (at < equals)
		if (!*name || query_char(&at, equals) != (uint8_t)*name++)
			return;
	if (*name)
		return;
	key_text_begin(&t);
	for (at = equals + 1; at < end;) {
		uint8_t c = query_char(&at, end);

		key_text_add(&t, &c, 1);
	}
	take(out, &t);
}

bool key_of_query(const uint8_t *target, size_t len, const char *name, struct key_found *out)
{
	const uint8_t *end = target + len, *at = memchr(target, '?', len);

	*out = (struct key_found){.at = KEY_NONE};
	if (!at)
		return false;
	for (at++; at < end;) {
		const uint8_t *and = memchr(at, '&', end - at);

		query_pair(at, and? and : end, name, out);
		at = and? and+1 : end;
	}
	return out->at != KEY_NONE;
}

uint64_t key_of_addr(const struct addr *peer)
{
	const struct in6_addr *a6 = &peer->in6.sin6_addr;

	if (peer->sa.sa_family == AF_INET)
		return XXH64(&peer->in4.sin_addr, 4, CLIENT_SEED);
	if (IN6_IS_ADDR_V4MAPPED(a6))
		return XXH64(a6->s6_addr + 12, 4, CLIENT_SEED);
	return XXH64(a6, sizeof(*a6), CLIENT_SEED);
}

static bool of_header(const struct key_source *key, const struct kvpin_head *h, const uint8_t *head,
		      struct key_found *out)
{
	struct key_text t;

	/* The parser has kept the first header in the order of ranks: others are absent, or come
	 * later in the list. */
	*out = (struct key_found){.at = KEY_NONE};
	if (h->key_rank != key->rank)
		return false;
	key_text_begin(&t);
	key_text_add(&t, head + h->key_off, h->key_len);
	take(out, &t);
	out->repeated = h->flags & KVPIN_HEAD_KEY_REPEATED;
	return out->at != KEY_NONE;
}

bool key_of_head(const struct key_source *keys, unsigned int nr, const struct kvpin_head *h,
		 const uint8_t *head, const struct addr *peer, struct key_found *out)
{
	bool found = false;

	*out = (struct key_found){.at = KEY_NONE};
	for (unsigned int i = 0; i < nr; i++) {
		switch (keys[i].kind) {
		case KEY_HEADER:
			found = of_header(&keys[i], h, head, out);
			break;
		case KEY_COOKIE:
			found = key_of_cookie(head, h->pos, keys[i].name, out);
			break;
		case KEY_QUERY:
			found = key_of_query(head + h->target_off, h->target_len, keys[i].name,
					     out);
			break;
		case KEY_CLIENT_IP:
			*out = (struct key_found){.id = key_of_addr(peer)};
			found = true;
			break;
		default: /* the body's */
			break;
		}
		if (found) {
			out->at = i;
			return true;
		}
	}
	return false;
}

void key_describe(const struct key_source *k, char text[KEY_DESCRIPTION_MAX])
{
	static const char *const kinds[KEY_KIND_NR] = {
		[KEY_HEADER] = "header",
		[KEY_COOKIE] = "cookie",
		[KEY_QUERY] = "query parameter",
		[KEY_JSON] = "JSON field",
		[KEY_PREFIX] = "the prompt's head",
		[KEY_CLIENT_IP] = "the client's address",
	};

	snprintf(text, KEY_DESCRIPTION_MAX, "%s%s%s", kinds[k->kind], k->name[0] ? " " : "",
		 k->name);
}
