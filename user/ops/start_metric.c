/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Lines "NAME VALUE" and "NAME{LABELS} VALUE". A last line without its newline does not count. */
#include "ops/start_metric.h"

#include <string.h>

static void line_take(struct start_metric *s, const char *name)
{
	size_t len = strlen(name);
	const char *at = s->line + len, *end;

	if (strncmp(s->line, name, len))
		return;
	if (*at == '{') {
		at = strchr(at, '}');
		if (!at)
			return;
		at++;
	}
	if (*at != ' ')
		return;
	at += strspn(at, " ");
	end = at + strcspn(at, " \r");
	if (end == at || end - at >= START_VALUE_MAX)
		return;
	memcpy(s->value, at, (size_t)(end - at));
	s->value[end - at] = '\0';
}

void start_metric_add(struct start_metric *s, const char *name, const char *data, size_t len)
{
	for (size_t i = 0; i < len && !s->value[0]; i++) {
		if (data[i] != '\n') {
			if (s->len < START_LINE_MAX)
				s->line[s->len++] = data[i];
			continue;
		}
		if (s->len < START_LINE_MAX) {
			s->line[s->len] = '\0';
			line_take(s, name);
		}
		s->len = 0;
	}
}
