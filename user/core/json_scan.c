/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The scanner's states. Happy path: feed takes bytes until they are used up or the outermost value
 * ends. Failure: one bad byte ends it for good. There is nothing to close.
 *
 * Strings are passed over eight bytes at a time: a body is nearly all string.
 */
#include "core/json_scan.h"

#include <string.h>

#include "kvpin_http_text.h"

enum state {
	VALUE,	      /* a value must come */
	VALUE_OR_END, /* behind [ */
	NAME_OR_END,  /* behind { */
	NAME,	      /* behind a comma in an object */
	COLON,
	AFTER, /* behind a value: comma or the container's end */
	STRING,
	ESCAPE,
	UNICODE,
	LITERAL,
	DONE,
	STOPPED,
	BAD,
};

void json_scan_init(struct json_scan *s)
{
	memset(s, 0, sizeof(*s));
}

static bool is_blank(uint8_t c)
{
	return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* Bytes before the next quote, backslash or control. */
static size_t plain_run(const uint8_t *at, size_t len)
{
	size_t n = 0;

	while (n + 8 <= len) {
		uint64_t w = kvpin_word(at, n);
		uint64_t mark = KVPIN_LESS(w, 0x20) | KVPIN_EQUAL(w, '"') | KVPIN_EQUAL(w, '\\');

		if (mark)
			return n + kvpin_mark_index(mark);
		n += 8;
	}
	while (n < len && at[n] >= 0x20 && at[n] != '"' && at[n] != '\\')
		n++;
	return n;
}

static void string_text(struct json_scan *s, const struct json_handler *h, void *arg,
			const uint8_t *at, size_t len)
{
	size_t room = sizeof(s->text) - s->text_len;

	if (!s->in_name) {
		if (s->wanted && len)
			h->text(s, arg, at, len);
		return;
	}
	if (len > room)
		len = room;
	memcpy(s->text + s->text_len, at, len);
	s->text_len += len;
}

static void string_code(struct json_scan *s, const struct json_handler *h, void *arg, uint32_t c)
{
	uint8_t utf8[4];
	size_t n;

	if (c < 0x80) {
		utf8[0] = c;
		n = 1;
	} else if (c < 0x800) {
		utf8[0] = 0xc0 | c >> 6;
		n = 2;
	} else if (c < 0x10000) {
		utf8[0] = 0xe0 | c >> 12;
		n = 3;
	} else {
		utf8[0] = 0xf0 | c >> 18;
		n = 4;
	}
	for (size_t i = 1; i < n; i++)
		utf8[i] = 0x80 | (c >> 6 * (n - 1 - i) & 0x3f);
	string_text(s, h, arg, utf8, n);
}

/* A high surrogate whose other half did not come. */
static void string_lone(struct json_scan *s, const struct json_handler *h, void *arg)
{
	if (!s->high)
		return;
	s->high = 0;
	string_code(s, h, arg, 0xfffd);
}

/* \uXXXX is complete. */
static void string_unit(struct json_scan *s, const struct json_handler *h, void *arg)
{
	uint32_t unit = s->code;

	if (unit >= 0xdc00 && unit <= 0xdfff && s->high) {
		uint32_t high = s->high;

		s->high = 0;
		string_code(s, h, arg, 0x10000 + ((high - 0xd800) << 10) + (unit - 0xdc00));
		return;
	}
	string_lone(s, h, arg);
	if (unit >= 0xd800 && unit <= 0xdbff)
		s->high = unit;
	else
		string_code(s, h, arg, unit >= 0xdc00 && unit <= 0xdfff ? 0xfffd : unit);
}

static void value_over(struct json_scan *s)
{
	s->state = s->depth ? AFTER : DONE;
}

static void string_end(struct json_scan *s, const struct json_handler *h, void *arg)
{
	string_lone(s, h, arg);
	if (s->in_name) {
		s->state = COLON;
		h->name(s, arg, s->text, s->text_len);
		return;
	}
	value_over(s);
	h->end(s, arg, JSON_KIND_STRING);
}

static void string_begin(struct json_scan *s, const struct json_handler *h, void *arg, bool name)
{
	s->state = STRING;
	s->in_name = name;
	s->text_len = 0;
	s->high = 0;
	s->wanted = !name && h->begin(s, arg, JSON_KIND_STRING);
}

/* Returns how many bytes were taken. */
static size_t string_feed(struct json_scan *s, const struct json_handler *h, void *arg,
			  const uint8_t *at, size_t len)
{
	size_t n = plain_run(at, len);

	if (n) {
		string_lone(s, h, arg);
		string_text(s, h, arg, at, n);
	}
	if (n == len)
		return n;
	if (at[n] == '"')
		string_end(s, h, arg);
	else
		s->state = at[n] == '\\' ? ESCAPE : BAD;
	return n + 1;
}

static void escape_feed(struct json_scan *s, const struct json_handler *h, void *arg, uint8_t c)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *found = c ? strchr(from, c) : NULL;

	s->state = STRING;
	if (c == 'u') {
		s->state = UNICODE;
		s->digits = 4;
		s->code = 0;
	} else if (found) {
		string_lone(s, h, arg);
		string_text(s, h, arg, (const uint8_t *)&to[found - from], 1);
	} else {
		s->state = BAD;
	}
}

static void unicode_feed(struct json_scan *s, const struct json_handler *h, void *arg, uint8_t c)
{
	uint8_t low = c | 0x20, digit;

	if (c >= '0' && c <= '9') {
		digit = c - '0';
	} else if (low >= 'a' && low <= 'f') {
		digit = low - 'a' + 10;
	} else {
		s->state = BAD;
		return;
	}
	s->code = s->code << 4 | digit;
	if (--s->digits)
		return;
	s->state = STRING;
	string_unit(s, h, arg);
}

static bool container_begin(struct json_scan *s, const struct json_handler *h, void *arg,
			    bool object)
{
	if (s->depth == JSON_DEPTH_MAX)
		return false;
	h->begin(s, arg, object ? JSON_KIND_OBJECT : JSON_KIND_ARRAY);
	s->objects &= ~(1ULL << s->depth);
	s->objects |= (uint64_t)object << s->depth;
	s->depth++;
	s->state = object ? NAME_OR_END : VALUE_OR_END;
	return true;
}

static bool container_end(struct json_scan *s, const struct json_handler *h, void *arg, uint8_t c)
{
	bool array = json_scan_in_array(s);

	if (!s->depth || c != (array ? ']' : '}'))
		return false;
	s->depth--;
	value_over(s);
	h->end(s, arg, array ? JSON_KIND_ARRAY : JSON_KIND_OBJECT);
	return true;
}

/* RFC 8259 6; @n characters, all of those that literal_char() knows. */
static bool is_number(const uint8_t *at, size_t n)
{
	size_t i = 0, from;

#define DIGITS()                                                                                   \
	do {                                                                                       \
		from = i;                                                                          \
		while (i < n && at[i] >= '0' && at[i] <= '9')                                      \
			i++;                                                                       \
		if (i == from)                                                                     \
			return false;                                                              \
	} while (0)
	if (i < n && at[i] == '-')
		i++;
	DIGITS();
	if (at[from] == '0' && i - from > 1)
		return false;
	if (i < n && at[i] == '.') {
		i++;
		DIGITS();
	}
	if (i < n && (at[i] | 0x20) == 'e') {
		i++;
		if (i < n && (at[i] == '+' || at[i] == '-'))
			i++;
		DIGITS();
	}
#undef DIGITS
	return i == n;
}

static bool literal_is(const struct json_scan *s, const char *word)
{
	return s->text_len == strlen(word) && !memcmp(s->text, word, s->text_len);
}

/* Returns false when it is none. */
static bool literal_end(struct json_scan *s, const struct json_handler *h, void *arg)
{
	enum json_kind kind = literal_is(s, "null") ? JSON_KIND_NULL : JSON_KIND_LITERAL;

	if (kind == JSON_KIND_LITERAL && !literal_is(s, "true") && !literal_is(s, "false") &&
	    !is_number(s->text, s->text_len))
		return false;
	value_over(s);
	if (h->begin(s, arg, kind) && kind == JSON_KIND_LITERAL)
		h->text(s, arg, s->text, s->text_len);
	h->end(s, arg, kind);
	return true;
}

static bool literal_char(uint8_t c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '-' || c == '+' ||
	       c == '.' || c == 'E';
}

static void value_feed(struct json_scan *s, const struct json_handler *h, void *arg, uint8_t c)
{
	if (c == '"') {
		string_begin(s, h, arg, false);
	} else if (c == '{' || c == '[') {
		if (!container_begin(s, h, arg, c == '{'))
			s->state = BAD;
	} else if (literal_char(c)) {
		s->state = LITERAL;
		s->text[0] = c;
		s->text_len = 1;
	} else {
		s->state = BAD;
	}
}

/* A byte outside of strings and literals that is no blank. */
static void mark_feed(struct json_scan *s, const struct json_handler *h, void *arg, uint8_t c)
{
	switch (s->state) {
	case VALUE_OR_END:
		if (c == ']' && container_end(s, h, arg, c))
			return;
		/* fall through */
	case VALUE:
		value_feed(s, h, arg, c);
		return;
	case NAME_OR_END:
		if (c == '}' && container_end(s, h, arg, c))
			return;
		/* fall through */
	case NAME:
		if (c == '"')
			string_begin(s, h, arg, true);
		else
			s->state = BAD;
		return;
	case COLON:
		s->state = c == ':' ? VALUE : BAD;
		return;
	default: /* AFTER */
		if (c == ',')
			s->state = json_scan_in_array(s) ? VALUE : NAME;
		else if (!container_end(s, h, arg, c))
			s->state = BAD;
	}
}

static size_t literal_feed(struct json_scan *s, const struct json_handler *h, void *arg, uint8_t c)
{
	if (!literal_char(c)) {
		/* The byte itself is looked at again. */
		if (!literal_end(s, h, arg))
			s->state = BAD;
		return 0;
	}
	if (s->text_len == JSON_LITERAL_MAX)
		s->state = BAD;
	else
		s->text[s->text_len++] = c;
	return 1;
}

enum json_result json_scan_feed(struct json_scan *s, const struct json_handler *h, void *arg,
				const uint8_t *at, size_t len)
{
	size_t i = 0;

	while (i < len && s->state < DONE) {
		if (s->state == STRING)
			i += string_feed(s, h, arg, at + i, len - i);
		else if (s->state == ESCAPE)
			escape_feed(s, h, arg, at[i++]);
		else if (s->state == UNICODE)
			unicode_feed(s, h, arg, at[i++]);
		else if (s->state == LITERAL)
			i += literal_feed(s, h, arg, at[i]);
		else if (is_blank(at[i]))
			i++;
		else
			mark_feed(s, h, arg, at[i++]);
		if (s->stop && s->state != BAD)
			s->state = STOPPED;
	}
	switch (s->state) {
	case DONE:
		return JSON_DONE;
	case STOPPED:
		return JSON_STOP;
	case BAD:
		return JSON_BAD;
	default:
		return JSON_MORE;
	}
}
