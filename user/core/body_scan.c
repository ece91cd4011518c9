/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The handlers of the JSON scanner. Happy path: fields are hashed as they come, messages are
 * written down in canonical form until the windows are full. Failure: what is no JSON, or ends
 * early, has the fields that were complete by then. Nothing to close but the memory.
 */
#include "core/body_scan.h"

#include <stdlib.h>
#include <string.h>

#define MESSAGE_BEGIN 0x1e
#define ROLE_END      0x1f

enum member {
	MEMBER_OTHER,
	MEMBER_ROLE,
	MEMBER_CONTENT,
};

static bool name_is(const uint8_t *name, size_t len, const char *wanted)
{
	return len == strlen(wanted) && !memcmp(name, wanted, len);
}

/* ---- fields ---- */

static void paths_name(struct body_scan *s, const uint8_t *name, size_t len)
{
	uint8_t level = s->json.depth - 1;

	for (unsigned int i = 0; i < s->nr_paths; i++) {
		struct body_path *p = &s->path[i];

		if (p->matched > level)
			p->matched = level;
		if (p->matched == level && level < p->nr && len == p->len[level] &&
		    !memcmp(name, p->text + p->at[level], len))
			p->matched++;
	}
}

/* Is this value the field of a source that comes before what was found? */
static bool paths_begin(struct body_scan *s)
{
	for (unsigned int i = 0; i < s->nr_paths; i++) {
		const struct body_path *p = &s->path[i];

		if (p->source >= s->found.at)
			break;
		if (p->matched != p->nr || s->json.depth != p->nr)
			continue;
		s->capturing = i;
		key_text_begin(&s->text);
		return true;
	}
	return false;
}

static void paths_end(struct body_scan *s)
{
	if (s->capturing == KEY_NONE)
		return;
	if (key_text_end(&s->text, &s->found.id)) {
		s->found.at = s->path[s->capturing].source;
		s->found.is_long = s->text.len > KEY_PADDED_BYTES;
	}
	s->capturing = KEY_NONE;
}

/* ---- prompt ---- */

static void prompt_add(struct body_scan *s, const uint8_t *text, size_t len)
{
	if (len > s->room - s->len)
		len = s->room - s->len;
	memcpy(s->prompt + s->len, text, len);
	s->len += len;
}

/* Before what is already there of the message: the role may come behind the content. */
static void role_add(struct body_scan *s, const uint8_t *text, size_t len)
{
	uint32_t at = s->message_at + 1 + s->role_len, tail;

	if (at >= s->room)
		return;
	if (len > s->room - at)
		len = s->room - at;
	tail = s->len - at;
	if (tail > s->room - at - len)
		tail = s->room - at - len;
	memmove(s->prompt + at + len, s->prompt + at, tail);
	memcpy(s->prompt + at, text, len);
	s->len = at + len + tail;
	s->role_len += len;
}

static void message_begin(struct body_scan *s, const char *role)
{
	static const uint8_t marks[] = {MESSAGE_BEGIN, ROLE_END};

	s->begun = true;
	s->message_at = s->len;
	s->role_len = 0;
	s->role_known = role;
	prompt_add(s, marks, sizeof(marks));
	if (role)
		role_add(s, (const uint8_t *)role, strlen(role));
}

static void prompt_name(struct body_scan *s, const uint8_t *name, size_t len)
{
	uint8_t depth = s->json.depth;

	if (depth == 1) {
		s->section = BODY_OTHER;
		s->member = MEMBER_OTHER;
		if (!s->model_known && name_is(name, len, "model"))
			s->section = BODY_MODEL;
		else if (name_is(name, len, "messages") || name_is(name, len, "input"))
			s->section = BODY_MESSAGES;
		else if (name_is(name, len, "system") || name_is(name, len, "instructions"))
			s->section = BODY_SYSTEM;
		else if (name_is(name, len, "prompt"))
			s->section = BODY_PROMPT;
		return;
	}
	if (s->section == BODY_MESSAGES && depth == 3)
		s->member = name_is(name, len, "role")	    ? MEMBER_ROLE
			    : name_is(name, len, "content") ? MEMBER_CONTENT
							    : MEMBER_OTHER;
	s->leaf = name_is(name, len, "text") || name_is(name, len, "content") ||
		  name_is(name, len, "url") || name_is(name, len, "data");
}

/* A string begins: is it a prompt's text? */
static bool prompt_string(struct body_scan *s)
{
	uint8_t depth = s->json.depth;

	if (s->whole)
		return false;
	switch (s->section) {
	case BODY_PROMPT:
		s->begun |= depth == 1;
		return depth == 1;
	case BODY_SYSTEM:
		if (depth == 1)
			message_begin(s, "system");
		return depth == 1 || json_scan_in_array(&s->json) || s->leaf;
	case BODY_MESSAGES:
		if (depth == 1) {
			message_begin(s, "user");
			return true;
		}
		if (depth == 3 && s->member == MEMBER_ROLE && !s->role_known) {
			s->role_taking = true;
			return false;
		}
		return depth >= 3 && s->member == MEMBER_CONTENT &&
		       (depth == 3 || json_scan_in_array(&s->json) || s->leaf);
	default:
		return false;
	}
}

static void prompt_container(struct body_scan *s, enum json_kind kind)
{
	uint8_t depth = s->json.depth;

	if (s->whole)
		return;
	if (s->section == BODY_SYSTEM && depth == 1)
		message_begin(s, "system");
	else if (s->section == BODY_MESSAGES && depth == 2 && kind == JSON_KIND_OBJECT)
		message_begin(s, NULL);
}

/* A value that began at this depth is complete. */
static void prompt_end(struct body_scan *s)
{
	s->role_known |= s->role_taking;
	s->taking = s->role_taking = false;
	if (s->json.depth == 2 && s->section == BODY_MESSAGES)
		s->role_known = true; /* what it has not got by now it never gets */
	if (s->json.depth == 1 && s->begun &&
	    (s->section == BODY_MESSAGES || s->section == BODY_PROMPT))
		s->whole = true;
	if (s->len == s->room && (s->role_known || s->section == BODY_PROMPT))
		s->whole = true;
}

/* ---- the scanner's handlers ---- */

/* Stop as soon as nothing can change. */
static bool settled(const struct body_scan *s)
{
	uint32_t before = s->prefix_at < s->found.at ? s->prefix_at : s->found.at;

	if (s->over)
		return true;
	/* A field that comes first in the order may still come. */
	for (unsigned int i = 0; i < s->nr_paths; i++)
		if (s->path[i].source < before)
			return false;
	return s->found.at != KEY_NONE || (s->whole && s->model_known);
}

static void on_name(struct json_scan *json, void *arg, const uint8_t *name, size_t len)
{
	struct body_scan *s = arg;

	paths_name(s, name, len);
	if (s->prefix_at != KEY_NONE)
		prompt_name(s, name, len);
}

static bool on_begin(struct json_scan *json, void *arg, enum json_kind kind)
{
	struct body_scan *s = arg;
	bool wanted = false;

	if (kind == JSON_KIND_STRING || kind == JSON_KIND_LITERAL)
		wanted = paths_begin(s);
	if (s->prefix_at == KEY_NONE)
		return wanted;
	if (kind == JSON_KIND_STRING) {
		s->taking = prompt_string(s);
		s->model_taking = s->section == BODY_MODEL && json->depth == 1;
		return wanted || s->taking || s->role_taking || s->model_taking;
	}
	if (kind == JSON_KIND_OBJECT || kind == JSON_KIND_ARRAY)
		prompt_container(s, kind);
	return wanted;
}

static void model_add(struct body_scan *s, const uint8_t *text, size_t len)
{
	if (len > sizeof(s->model) - s->model_len)
		len = sizeof(s->model) - s->model_len;
	memcpy(s->model + s->model_len, text, len);
	s->model_len += len;
}

static void on_text(struct json_scan *json, void *arg, const uint8_t *text, size_t len)
{
	struct body_scan *s = arg;

	if (s->capturing != KEY_NONE)
		key_text_add(&s->text, text, len);
	if (s->taking) {
		prompt_add(s, text, len);
		if (s->len == s->room && (s->role_known || s->section == BODY_PROMPT))
			s->whole = true;
	} else if (s->role_taking) {
		role_add(s, text, len);
	} else if (s->model_taking) {
		model_add(s, text, len);
	}
	json->stop = settled(s);
}

static void on_end(struct json_scan *json, void *arg, enum json_kind kind)
{
	struct body_scan *s = arg;

	paths_end(s);
	if (s->prefix_at != KEY_NONE) {
		if (s->model_taking) {
			s->model_taking = false;
			s->model_known = true;
			s->model_late = s->begun;
		}
		prompt_end(s);
	}
	json->stop = settled(s);
}

static const struct json_handler handler = {
	.name = on_name,
	.begin = on_begin,
	.text = on_text,
	.end = on_end,
};

/* ---- what others call ---- */

static void path_set(struct body_path *p, uint32_t source, const char *text)
{
	const char *at = text;

	p->source = source;
	strcpy(p->text, text);
	for (; at && p->nr < KEY_PATH_MAX; p->nr++) {
		const char *dot = strchr(at, '.');

		p->at[p->nr] = at - text;
		p->len[p->nr] = dot ? (size_t)(dot - at) : strlen(at);
		at = dot ? dot + 1 : NULL;
	}
}

struct body_scan *body_scan_new(const struct key_source *keys, unsigned int nr, uint32_t windows)
{
	uint32_t prefix_at = KEY_NONE, room = 0;
	struct body_scan *s;

	for (unsigned int i = 0; i < nr && prefix_at == KEY_NONE; i++)
		if (keys[i].kind == KEY_PREFIX)
			prefix_at = i;
	if (prefix_at != KEY_NONE)
		room = windows * PREFIX_WINDOW_BYTES;
	s = malloc(sizeof(*s) + room);
	if (!s)
		return NULL;
	memset(s, 0, sizeof(*s));
	json_scan_init(&s->json);
	s->room = room;
	s->prefix_at = prefix_at;
	s->capturing = s->found.at = KEY_NONE;
	for (unsigned int i = 0; i < nr; i++)
		if (keys[i].kind == KEY_JSON)
			path_set(&s->path[s->nr_paths++], i, keys[i].name);
	return s;
}

bool body_scan_feed(struct body_scan *s, const uint8_t *at, size_t len)
{
	if (!s->over)
		s->over = json_scan_feed(&s->json, &handler, s, at, len) != JSON_MORE;
	return s->over;
}

size_t body_scan_walk(struct body_scan *s, struct kvpin_body *b, const uint8_t *at, size_t len,
		      uint64_t max, bool *enough)
{
	size_t taken = 0;

	*enough = false;
	while (!*enough && taken < len) {
		uint64_t left = max - b->payload, n = len - taken;

		if (!kvpin_body_counts(b)) {
			kvpin_body_step(b, at[taken++]);
			continue;
		}
		n = kvpin_body_skip(b, at[taken], n < left ? n : left);
		*enough = body_scan_feed(s, at + taken, n) || b->payload >= max;
		taken += n;
	}
	*enough |= b->state == KVPIN_BS_DONE;
	return taken;
}

void body_scan_finish(struct body_scan *s)
{
	s->over = true;
}

bool body_scan_chain(const struct body_scan *s, uint32_t windows, struct body_chain *out)
{
	out->nr = out->nr_plain = 0;
	if (s->prefix_at == KEY_NONE || !s->begun)
		return false;
	out->nr = prefix_chain(s->model, s->model_known ? s->model_len : 0, s->prompt, s->len,
			       out->hash, windows);
	if (s->model_known && s->model_late)
		out->nr_plain = prefix_chain(NULL, 0, s->prompt, s->len, out->plain, windows);
	return out->nr;
}
