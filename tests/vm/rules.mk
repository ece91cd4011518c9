# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# make check-vm runs the core cases on Debian's kernels in qemu (no hardware help needed):
#   KERNELS="bookworm sid"   which (default: bookworm bookworm-backports sid)
#   PATHS=relay              which data paths (default: "relay steer splice auto")
# Not a step of scripts/check: kernels come from a mirror, which may fail, and no step may be
# skipped there; and under load a guest takes longer than a minute.

tests: $(B)/tests/kvpin-churn

$(B)/tests/kvpin-churn: $(B)/obj/tests/vm/churn.o
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $<

check-vm: $(B)/kvpin $(B)/tests/kvpin-sim $(B)/tests/kvpin-load $(B)/tests/kvpin-churn
	scripts/install-deps vm
	KVPIN_BUILD=$(abspath $(B)) PATHS="$(PATHS)" tests/vm/check $(KERNELS)

.PHONY: check-vm
