# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# The parser as a BPF object, and the test that runs it in the kernel (as root).

BPF_TEST_OBJ := $(B)/tests/bpf/parser.bpf.o
BPF_TEST_BIN := $(B)/tests/bpf/test_parser_bpf

tests: $(BPF_TEST_BIN)

$(BPF_TEST_OBJ): tests/bpf/parser.bpf.c
	@mkdir -p $(@D)
	$(CLANG) $(BPF_FLAGS) -MMD -MP -MF $(@:.o=.d) -MT $@ -c -o $@ $<

$(B)/obj/tests/bpf/test_parser_bpf.o: CPPFLAGS += -Itests/unit -Itests/bpf \
	-DPARSER_OBJECT='"$(abspath $(BPF_TEST_OBJ))"' \
	-DPARSER_CORPUS='"$(abspath tests/fuzz/corpus)"'

$(BPF_TEST_BIN): $(B)/obj/tests/bpf/test_parser_bpf.o $(BPF_TEST_OBJ)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $< -lcmocka -lbpf -lxxhash
