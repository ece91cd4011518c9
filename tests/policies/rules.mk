# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# Simulations that ask the real decide(): scripts/bench policies, scripts/bench fairness.
tests: $(B)/tests/kvpin-policies $(B)/tests/kvpin-fairness

$(B)/tests/kvpin-policies $(B)/tests/kvpin-fairness: $(B)/tests/kvpin-%: \
		$(B)/obj/tests/policies/%.o $(B)/libkvpin.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
