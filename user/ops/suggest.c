/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Edit distance (insert, delete, replace, swap two neighbours) between short names. Owns no
 * state; never allocates.
 */
#include "ops/suggest.h"

#include <stddef.h>
#include <string.h>

/* Longer than every flag and key that kvpin knows; a longer text is no misspelling of one. */
#define SUGGEST_TEXT_MAX 40

static unsigned int min2(unsigned int a, unsigned int b)
{
	return a < b ? a : b;
}

/* A wrong case is the smallest slip there is: it counts nothing. */
static int fold(char c)
{
	return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

static unsigned int edit_distance(const char *a, unsigned int a_len, const char *b,
				  unsigned int b_len)
{
	unsigned int row[3][SUGGEST_TEXT_MAX + 1];
	unsigned int i, j;

	for (j = 0; j <= b_len; j++)
		row[0][j] = j;
	for (i = 1; i <= a_len; i++) {
		unsigned int *now = row[i % 3];
		const unsigned int *above = row[(i + 2) % 3], *above2 = row[(i + 1) % 3];

		now[0] = i;
		for (j = 1; j <= b_len; j++) {
			now[j] = min2(min2(above[j], now[j - 1]) + 1,
				      above[j - 1] + (fold(a[i - 1]) != fold(b[j - 1])));
			if (i > 1 && j > 1 && fold(a[i - 1]) == fold(b[j - 2]) &&
			    fold(a[i - 2]) == fold(b[j - 1]))
				now[j] = min2(now[j], above2[j - 2] + 1);
		}
	}
	return row[a_len % 3][b_len];
}

const char *suggest_nearest(const char *text, const char *const *names, unsigned int nr)
{
	size_t len = strlen(text);
	unsigned int best_distance = SUGGEST_TEXT_MAX;
	const char *best = NULL;
	unsigned int i;

	if (!len || len > SUGGEST_TEXT_MAX)
		return NULL;
	for (i = 0; i < nr; i++) {
		size_t name_len = strlen(names[i]);
		unsigned int distance;

		if (name_len > SUGGEST_TEXT_MAX)
			continue;
		distance = edit_distance(text, len, names[i], name_len);
		/* One slip in three characters is a misspelling; more is another word. */
		if (distance <= (name_len < 3 ? 1 : name_len / 3) && distance < name_len &&
		    distance < best_distance) {
			best_distance = distance;
			best = names[i];
		}
	}
	return best;
}
