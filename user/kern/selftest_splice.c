/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The splice path's own checks: its program is loaded and attached to lo for a moment, where it
 * knows no connection and passes everything on; and what would not see packets that it sends. */
#include <errno.h>
#include <linux/rtnetlink.h>
#include <linux/xfrm.h>
#include <string.h>

#include "kern/kern_splice.h"
#include "kern/netlink.h"
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

/* Policies for packets that leave, or -errno (net/xfrm/xfrm_user.c, xfrm_get_spdinfo()). */
static int ipsec_policies(void)
{
	struct {
		struct nlmsghdr n;
		__u32 flags;
	} ask = {
		.n = {.nlmsg_len = sizeof(ask),
		      .nlmsg_type = XFRM_MSG_GETSPDINFO,
		      .nlmsg_flags = NLM_F_REQUEST},
	};
	union netlink_answer answer;
	int left, err = netlink_ask(NETLINK_XFRM, &ask.n, &answer);

	if (err)
		return err;
	left = NLMSG_PAYLOAD(&answer.n, NLMSG_ALIGN(sizeof(ask.flags)));
	for (struct rtattr *a = (void *)((char *)NLMSG_DATA(&answer.n) + sizeof(ask.flags));
	     RTA_OK(a, left); a = RTA_NEXT(a, left))
		if (a->rta_type == XFRMA_SPD_INFO)
			return (int)((struct xfrmu_spdinfo *)RTA_DATA(a))->outcnt;
	return -EPROTO;
}

void selftest_ipsec(struct selftest_bench *b, struct selftest *t)
{
	int policies = ipsec_policies();

	if (policies > 0)
		selftest_fail(t, "ip xfrm policy flush, or --path steer",
			      "%d IPsec policies: what goes past the sockets would leave in clear",
			      policies);
	else if (policies == -EPROTONOSUPPORT)
		selftest_ok(t, "no IPsec in this kernel");
	else if (policies < 0)
		selftest_fail(t, "--path steer", "IPsec policies cannot be asked for: %s",
			      strerror(-policies));
	else
		selftest_ok(t, "no IPsec policy");
}
