# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# make fuzz builds the libFuzzer targets; scripts/fuzz runs them. parse-one is the C half of
# llhttp_differential.js.

FUZZ_FLAGS := -std=gnu11 -g -O1 -D_GNU_SOURCE -Iinclude -Wall -Wextra -Wno-unused-parameter \
	      -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined
FUZZ_BIN := $(patsubst tests/fuzz/%.c,$(B)/tests/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_CONFIG_SRC := $(addprefix user/ops/,config_file.c config_raw.c yaml_index.c value.c suggest.c) \
		   $(wildcard user/ops/setting*.c) \
		   $(addprefix user/core/,config.c config_keys.c key.c) user/base/addr.c user/base/log.c

fuzz: $(FUZZ_BIN)
tests: $(B)/tests/parse-one

$(B)/tests/fuzz/%: tests/fuzz/%.c
	@mkdir -p $(@D)
	$(CLANG) $(FUZZ_FLAGS) -MMD -MP -MF $@.d -MT $@ -o $@ $<

$(B)/tests/fuzz/fuzz_config: tests/fuzz/fuzz_config.c $(FUZZ_CONFIG_SRC)
	@mkdir -p $(@D)
	$(CLANG) $(FUZZ_FLAGS) -Iuser -o $@ $^ $(shell pkg-config --libs libcyaml libxxhash)

FUZZ_KEYS_SRC := $(addprefix user/core/,json_scan.c body_scan.c key.c prefix.c)

$(B)/tests/fuzz/fuzz_keys: tests/fuzz/fuzz_keys.c $(FUZZ_KEYS_SRC)
	@mkdir -p $(@D)
	$(CLANG) $(FUZZ_FLAGS) -Iuser -o $@ $^ $(shell pkg-config --libs libxxhash) -lm -lpthread

$(B)/tests/parse-one: $(B)/obj/tests/fuzz/parse_one.o
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $<

.PHONY: fuzz
