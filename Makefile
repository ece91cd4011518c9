# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#
#   make             build/kvpin
#   make tests       every test program (unit tests, simulated server, load client)
#   make SAN=asan …  the same under build/asan with ASan + UBSan   (SAN=tsan: ThreadSanitizer)
#   make install     honours DESTDIR and PREFIX
#
# scripts/check installs what is missing, builds and runs everything.

VERSION := 0.1.0
PREFIX  ?= /usr/local
DESTDIR ?=
CC      ?= gcc
CLANG   ?= clang-14
BPFTOOL ?= bpftool
SAN     ?=
B       := build$(if $(SAN),/$(SAN))

WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
	   -Wno-unused-parameter $(if $(WERROR),-Werror)
SANFLAGS_asan := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
SANFLAGS_tsan := -fsanitize=thread
SANFLAGS := $(SANFLAGS_$(SAN))
OPT     := -O2 -g
DEPLIBS := libuv libcyaml jansson libmicrohttpd libcurl libxxhash libbpf
DEPFLAGS := $(shell pkg-config --cflags $(DEPLIBS))
CFLAGS  += -std=gnu11 $(OPT) $(WARN) $(SANFLAGS)
CPPFLAGS += -D_GNU_SOURCE -DKVPIN_VERSION='"$(VERSION)"' -Iinclude -Iuser -I$(B)/gen $(DEPFLAGS)
LDFLAGS += $(SANFLAGS)
LDLIBS  := $(shell pkg-config --libs $(DEPLIBS)) -lpthread -lm

# Kernel programs: compiled once, carried by the binary as skeletons. xxhash.h includes libc headers,
# which want to know the machine.
BPF_FLAGS := -target bpf -mcpu=v3 -g -O2 -Wall -Wextra -Wno-unused-parameter -D__x86_64__ \
	     -Iinclude -Ibpf -I/usr/include/$(shell $(CC) -print-multiarch)
BPF_SRC := $(wildcard bpf/*.bpf.c)
BPF_SKEL := $(BPF_SRC:bpf/%.bpf.c=$(B)/gen/%.skel.h) $(B)/gen/splice_old.skel.h

# user/main.c is the only file with main(); all the rest is one archive that tests link too.
LIB_SRC := $(filter-out user/main.c,$(wildcard user/*/*.c))
LIB_OBJ := $(LIB_SRC:%.c=$(B)/obj/%.o)
UNIT_SRC := $(wildcard tests/unit/test_*.c)
UNIT_BIN := $(UNIT_SRC:tests/unit/%.c=$(B)/tests/unit/%)
SIM_SRC := $(wildcard tests/sim/*.c)
# decisions.c and packets.c are programs of their own.
BENCH_SRC := $(filter-out tests/bench/decisions.c tests/bench/packets.c,$(wildcard tests/bench/*.c))

all: $(B)/kvpin
tests: $(B)/kvpin $(UNIT_BIN) $(B)/tests/kvpin-sim $(B)/tests/kvpin-load $(B)/tests/kvpin-decisions \
       $(B)/tests/kvpin-packets
unit: $(UNIT_BIN)

$(B)/kvpin: $(B)/obj/user/main.o $(B)/libkvpin.a
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(B)/libkvpin.a: $(LIB_OBJ)
	@rm -f $@
	$(AR) rcs $@ $^

$(B)/bpf/%.bpf.o: bpf/%.bpf.c
	@mkdir -p $(@D)
	$(CLANG) $(BPF_FLAGS) -MMD -MP -MF $(@:.o=.d) -MT $@ -c -o $@ $<

# The same for kernels before 6.2: bpf/kernel.bpf.h says why.
$(B)/bpf/splice_old.bpf.o: bpf/splice.bpf.c
	@mkdir -p $(@D)
	$(CLANG) $(BPF_FLAGS) -DKERNEL_WITHOUT_CAST -MMD -MP -MF $(@:.o=.d) -MT $@ -c -o $@ $<

$(B)/gen/%.skel.h: $(B)/bpf/%.bpf.o
	@mkdir -p $(@D)
	$(BPFTOOL) gen skeleton $< name $*_bpf >$@.tmp
	@mv $@.tmp $@

# Skeletons come first; which object includes which of them, the .d files know. Not a pattern rule of
# its own: make prefers the general one, whose prerequisites are there without a chain of rules.
$(filter $(B)/obj/user/kern/%.o,$(LIB_OBJ)) $(B)/obj/tests/bench/packets.o: | $(BPF_SKEL)

$(B)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(B)/tests/unit/%: $(B)/obj/tests/unit/%.o $(B)/libkvpin.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ -lcmocka $(LDLIBS)

$(B)/tests/kvpin-sim: $(SIM_SRC:%.c=$(B)/obj/%.o)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ -lhttp_parser $(LDLIBS)

$(B)/tests/kvpin-load: $(BENCH_SRC:%.c=$(B)/obj/%.o)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ -lhttp_parser $(LDLIBS)

$(B)/tests/kvpin-decisions: $(B)/obj/tests/bench/decisions.o $(B)/libkvpin.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(B)/tests/kvpin-packets: $(B)/obj/tests/bench/packets.o
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# The verifier-checked parser objects and the fuzz targets bring their own rules.
include $(wildcard tests/*/rules.mk)

install: all
	install -D -m 0755 $(B)/kvpin $(DESTDIR)$(PREFIX)/bin/kvpin

format:
	git ls-files '*.c' '*.h' | xargs clang-format -i

clean:
	rm -rf build

-include $(shell test -d $(B) && find $(B) -name '*.d')
.PHONY: all tests unit install format clean
.SECONDARY:
