# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# The lossy wire of the splice path's cases.
tests: $(B)/tests/kvpin-wire

$(B)/tests/kvpin-wire: $(B)/obj/tests/wire/wire.o
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^
