/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A setting by its key. Included by test programs, after cmocka.h. */
#ifndef UNIT_SETTING_CASE_H
#define UNIT_SETTING_CASE_H

#include <string.h>

#include "ops/setting.h"

#define NR(array) (sizeof(array) / sizeof((array)[0]))

static inline const struct setting *find(const char *key)
{
	unsigned int i;

	for (i = 0; i < settings_nr; i++) {
		if (!strcmp(settings[i].key, key))
			return &settings[i];
	}
	fail_msg("no setting %s", key);
	return NULL;
}

#endif
