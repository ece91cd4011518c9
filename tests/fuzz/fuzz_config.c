/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * libFuzzer target: any bytes as kvpin.yaml. Whatever they are, the parser either refuses with a
 * one-line message that names the file, or yields a configuration whose settings print and parse
 * back to themselves.
 *
 * Links: libkvpin (user/ops, user/core, user/base), libcyaml, libyaml.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ops/config_file.h"
#include "ops/setting.h"
#include "ops/value.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int truth)
{
	if (!truth)
		abort();
}

static void check_round_trip(const struct config *c)
{
	char text[SETTING_TEXT_MAX], again[SETTING_TEXT_MAX], why[VALUE_WHY_MAX];
	struct config copy;
	unsigned int i;

	config_defaults(&copy);
	for (i = 0; i < settings_nr; i++) {
		setting_format(&settings[i], c, text);
		if (setting_is_list(&settings[i]))
			continue;
		require(!setting_set(&settings[i], &copy, text, why, sizeof(why)));
		require(!strcmp(setting_format(&settings[i], &copy, again), text));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char why[512];
	struct yaml_index index = {0};
	struct config_error e;
	struct config c;

	config_defaults(&c);
	if (config_parse("f", (const char *)data, size, &c, &index, &e)) {
		require(e.text[0] == 'f' && e.text[1] == ':');
		require(!strpbrk(e.text, "\n\r\t\033"));
		return 0;
	}
	check_round_trip(&c);
	if (config_finish(&c, why, sizeof(why))) {
		config_error_locate("f", &index, why, &e);
		require(strlen(e.text) > 2);
	}
	yaml_index_fini(&index);
	return 0;
}
