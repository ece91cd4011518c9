/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The splice path's own check: its program is loaded and attached to lo for a moment, where it
 * knows no connection and passes everything on. */
#include "kern/kern_splice.h"
#include "kern/selftest_private.h"

/* As little as there may be. */
#define CONNS	   4
#define RING_BYTES 65536

void selftest_tc(struct selftest_bench *b, struct selftest *t)
{
	static const uint64_t bounds[KVPIN_HIST_BUCKETS - 1];
	struct kern_splice_params params = {
		.conns = CONNS,
		.workers = 1,
		.ring_bytes = RING_BYTES,
		.backends_fd = -1,
		.ttft_le_ns = bounds,
		.gap_le_ns = bounds,
	};
	struct kern_splice k = {0};
	char why[sizeof(t->why)];

	device_add(&params.devices, DEVICE_LOOPBACK);
	if (kern_splice_open(&k, &params, why, sizeof(why))) {
		selftest_fail(t, "use kernel 6.1 or newer; until then kvpin relays or steers", "%s",
			      why);
		return;
	}
	selftest_ok(t, "attached to lo by %s", k.tcx ? "tcx" : "a clsact qdisc");
	kern_splice_close(&k);
}
