/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A table of cases as cmocka's tests, one for each name: consecutive cases of one name are one.
 * Included by test programs, after cmocka.h.
 */
#ifndef UNIT_HTTP_SPAN_H
#define UNIT_HTTP_SPAN_H

#include <string.h>

#include "http_case.h"

struct http_span {
	const struct http_case *first;
	uint32_t nr;
	void (*run)(const struct http_case *c);
};

static inline void http_span_run(void **state)
{
	const struct http_span *span = *state;
	uint32_t i;

	for (i = 0; i < span->nr; i++)
		span->run(&span->first[i]);
}

/* @tests and @spans have room for a test of each of the @nr_cases; returns how many there are. */
static inline uint32_t http_span_tests(struct CMUnitTest *tests, struct http_span *spans,
				       const struct http_case *cases, uint32_t nr_cases,
				       void (*run)(const struct http_case *c))
{
	uint32_t i, nr = 0;

	for (i = 0; i < nr_cases; i++) {
		if (nr && !strcmp(tests[nr - 1].name, cases[i].name)) {
			spans[nr - 1].nr++;
			continue;
		}
		spans[nr] = (struct http_span){&cases[i], 1, run};
		tests[nr] =
			(struct CMUnitTest){cases[i].name, http_span_run, NULL, NULL, &spans[nr]};
		nr++;
	}
	return nr;
}

#endif
