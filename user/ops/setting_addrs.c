/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Settings that are one word, and those that are a few addresses in one text, with commas between
 * them: the other balancers. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ops/setting.h"
#include "ops/value.h"

int setting_set_word(const struct setting *s, struct config *c, const char *text, char *why,
		     unsigned int why_bytes)
{
	static const char letters[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:";
	char *to = (char *)c + s->offset, quoted[VALUE_QUOTE_MAX];

	if (!strcmp(text, "off")) {
		to[0] = '\0';
		return 0;
	}
	if (strlen(text) >= s->size || text[strspn(text, letters)]) {
		snprintf(why, why_bytes,
			 "%s is not a word of at most %u letters, digits, '_' and ':', such as %s",
			 value_quote(text, quoted), s->size - 1, s->example);
		return -EINVAL;
	}
	strcpy(to, text);
	return 0;
}

char *setting_format_word(const struct setting *s, const struct config *c, char *text)
{
	const char *from = (const char *)c + s->offset;

	return strcpy(text, *from ? from : "off");
}

static int addrs_add(const struct setting *s, struct addr_list *list, const char *text, char *why,
		     unsigned int why_bytes)
{
	char quoted[VALUE_QUOTE_MAX];
	struct addr addr;
	int err = value_addr(text, &addr, why, why_bytes);

	if (err)
		return err;
	value_quote(text, quoted);
	for (unsigned int i = 0; i < list->nr; i++)
		if (addr_port(&addr) && addr_equal(&list->one[i], &addr)) {
			snprintf(why, why_bytes, "%s is there twice; remove one", quoted);
			return -EINVAL;
		}
	if (list->nr == s->max) {
		snprintf(why, why_bytes, "%s is one too many; at most %u", quoted,
			 (unsigned int)s->max);
		return -EINVAL;
	}
	list->one[list->nr++] = addr;
	return 0;
}

int setting_set_addrs(const struct setting *s, struct config *c, const char *text, char *why,
		      unsigned int why_bytes)
{
	struct addr_list list = {0};
	char copy[PEERS_MAX * (ADDR_TEXT_MAX + 2)], *word, *save = NULL;
	int err = 0;

	if (strlen(text) >= sizeof(copy)) {
		snprintf(why, why_bytes, "is too long; at most %u addresses", (unsigned int)s->max);
		return -EINVAL;
	}
	strcpy(copy, text);
	if (strcmp(text, "off"))
		for (word = strtok_r(copy, ", ", &save); word && !err;
		     word = strtok_r(NULL, ", ", &save))
			err = addrs_add(s, &list, word, why, why_bytes);
	if (!err)
		memcpy((uint8_t *)c + s->offset, &list, sizeof(list));
	return err;
}

char *setting_format_addrs(const struct setting *s, const struct config *c, char *text)
{
	const struct addr_list *list = (const void *)((const uint8_t *)c + s->offset);
	char addr[ADDR_TEXT_MAX];
	unsigned int at = 0;

	for (unsigned int i = 0; i < list->nr; i++)
		at += snprintf(text + at, SETTING_TEXT_MAX - at, "%s%s", i ? ", " : "",
			       addr_format(&list->one[i], addr));
	return list->nr ? text : strcpy(text, "off");
}
