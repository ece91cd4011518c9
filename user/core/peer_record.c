/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Lines between balancers. Reading accepts what writing makes and nothing else. */
#include "core/peer_record.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

uint32_t peer_format(const struct peer_record *r, char *text)
{
	const struct session *s = &r->pin;

	switch (r->kind) {
	case PEER_SERVER:
		return snprintf(text, PEER_LINE_MAX, "s %016" PRIx64 " %s %s\n", r->tag, r->name,
				r->address);
	case PEER_PIN:
		return snprintf(text, PEER_LINE_MAX,
				"p %016" PRIx64 " %016" PRIx64 " %" PRIu32 " %" PRIu64 " %" PRIu64
				" %" PRIu32 " %" PRIu32 " %" PRIu32 " %u %s\n",
				s->id, r->tag, r->stamp, s->last_used_ms, s->created_ms, s->turns,
				s->moves, s->context, s->cold, r->lost ? "lost" : "kept");
	case PEER_GONE:
		return snprintf(text, PEER_LINE_MAX, "d %016" PRIx64 " %" PRIu32 "\n", s->id,
				r->stamp);
	case PEER_BEAT:
		break;
	}
	return snprintf(text, PEER_LINE_MAX, ".\n");
}

/* One word up to @end, of @max - 1 characters at most. */
static bool take_word(const char **at, char end, char *word, size_t max)
{
	size_t len = strcspn(*at, " \n");

	if (!len || len >= max || (*at)[len] != end)
		return false;
	memcpy(word, *at, len);
	word[len] = '\0';
	*at += len + 1;
	return true;
}

static bool take_number(const char **at, char end, uint64_t max, uint64_t *n)
{
	const char *p = *at;

	for (*n = 0; *p >= '0' && *p <= '9'; p++) {
		if (*n > (max - (*p - '0')) / 10)
			return false;
		*n = *n * 10 + (*p - '0');
	}
	if (p == *at || *p != end)
		return false;
	*at = p + 1;
	return true;
}

static bool take_small(const char **at, char end, uint32_t max, uint32_t *n)
{
	uint64_t value;

	if (!take_number(at, end, max, &value))
		return false;
	*n = (uint32_t)value;
	return true;
}

static bool take_hex(const char **at, char end, uint64_t *n)
{
	*n = 0;
	for (int i = 0; i < 16; i++) {
		char c = *(*at)++;

		if (c >= '0' && c <= '9')
			*n = *n << 4 | (c - '0');
		else if (c >= 'a' && c <= 'f')
			*n = *n << 4 | (c - 'a' + 10);
		else
			return false;
	}
	return *(*at)++ == end;
}

static bool parse_pin(const char *at, struct peer_record *r)
{
	struct session *s = &r->pin;
	uint32_t cold;
	char cache[5];

	if (!take_hex(&at, ' ', &s->id) || !take_hex(&at, ' ', &r->tag) ||
	    !take_small(&at, ' ', UINT32_MAX, &r->stamp) ||
	    !take_number(&at, ' ', INT64_MAX, &s->last_used_ms) ||
	    !take_number(&at, ' ', INT64_MAX, &s->created_ms) ||
	    !take_small(&at, ' ', UINT32_MAX, &s->turns) ||
	    !take_small(&at, ' ', UINT32_MAX, &s->moves) ||
	    !take_small(&at, ' ', UINT32_MAX, &s->context) ||
	    !take_small(&at, ' ', UINT8_MAX, &cold) ||
	    !take_word(&at, '\n', cache, sizeof(cache)) || *at)
		return false;
	s->cold = (uint8_t)cold;
	r->lost = !strcmp(cache, "lost");
	return r->lost || !strcmp(cache, "kept");
}

bool peer_parse(const char *line, struct peer_record *r)
{
	const char *at = line + 2;

	*r = (struct peer_record){.kind = PEER_BEAT};
	if (!strcmp(line, ".\n"))
		return true;
	if (!line[0] || line[1] != ' ')
		return false;
	switch (line[0]) {
	case 's':
		r->kind = PEER_SERVER;
		return take_hex(&at, ' ', &r->tag) &&
		       take_word(&at, ' ', r->name, sizeof(r->name)) &&
		       take_word(&at, '\n', r->address, sizeof(r->address)) && !*at;
	case 'p':
		r->kind = PEER_PIN;
		return parse_pin(at, r);
	case 'd':
		r->kind = PEER_GONE;
		return take_hex(&at, ' ', &r->pin.id) &&
		       take_small(&at, '\n', UINT32_MAX, &r->stamp) && !*at;
	default:
		return false;
	}
}

bool peer_same_server(const struct addr *here, const char *there)
{
	struct addr addr;
	const char *why;

	if (addr_parse(there, &addr, &why))
		return false;
	return addr_equal(here, &addr) || addr_is_loopback(here) != addr_is_loopback(&addr);
}

bool peer_secret_equal(const char *a, const char *b)
{
	size_t len = strlen(a);
	unsigned char differ = len != strlen(b);

	for (size_t i = 0; i < len && b[0]; i++)
		differ |= a[i] ^ b[i % strlen(b)];
	return !differ;
}
