# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# The simulation of policies: scripts/bench policies.
tests: $(B)/tests/kvpin-policies

$(B)/tests/kvpin-policies: $(B)/obj/tests/policies/policies.o $(B)/libkvpin.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
