/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Filters. Happy path: one question to rtnetlink, one answer. Failures: -errno; nothing stays open.
 */
#include "kern/tc_filter.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>

#include "kern/netlink.h"

#define FILTER_PRIORITY 0x6b76

static void hook_of(struct bpf_tc_hook *at, int ifindex, enum bpf_tc_attach_point point)
{
	*at = (struct bpf_tc_hook){.sz = sizeof(*at), .ifindex = ifindex, .attach_point = point};
}

/* ---- what libbpf does not ask ---- */

static int ask(uint16_t type, uint16_t flags, int ifindex, uint32_t parent,
	       union netlink_answer *answer)
{
	struct {
		struct nlmsghdr n;
		struct tcmsg t;
	} ask = {
		.n = {.nlmsg_len = NLMSG_LENGTH(sizeof(ask.t)),
		      .nlmsg_type = type,
		      .nlmsg_flags = NLM_F_REQUEST | flags},
		.t = {.tcm_family = AF_UNSPEC, .tcm_ifindex = ifindex, .tcm_parent = parent},
	};

	return netlink_ask(NETLINK_ROUTE, &ask.n, answer);
}

/* Is the qdisc at clsact's handle one? The older "ingress" has only one of the two hooks, and
 * takes a filter for the other there. */
static bool is_clsact(int ifindex)
{
	union netlink_answer answer;
	const struct nlmsghdr *n = &answer.n;
	const struct tcmsg *t = NLMSG_DATA(n);
	int len;

	/* Without ECHO the answer goes to listeners only; ACK: there is one in any case. */
	if (ask(RTM_GETQDISC, NLM_F_ECHO | NLM_F_ACK, ifindex, TC_H_CLSACT, &answer) ||
	    n->nlmsg_type != RTM_NEWQDISC)
		return false;
	len = (int)NLMSG_PAYLOAD(n, sizeof(*t));
	for (struct rtattr *a = (void *)((char *)t + NLMSG_ALIGN(sizeof(*t))); RTA_OK(a, len);
	     a = RTA_NEXT(a, len))
		if (a->rta_type == TCA_KIND)
			return !strcmp(RTA_DATA(a), "clsact");
	return false;
}

static bool has_filters(int ifindex)
{
	static const uint32_t minors[] = {TC_H_MIN_INGRESS, TC_H_MIN_EGRESS};
	union netlink_answer answer;

	for (unsigned int i = 0; i < 2; i++)
		if (ask(RTM_GETTFILTER, NLM_F_DUMP, ifindex, TC_H_MAKE(TC_H_CLSACT, minors[i]),
			&answer) ||
		    answer.n.nlmsg_type == RTM_NEWTFILTER)
			return true;
	return false;
}

/* ---- filters ---- */

int tc_filter_add(int ifindex, bool egress, int prog_fd, uint32_t prog_id, bool *made)
{
	LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = prog_fd, .priority = FILTER_PRIORITY,
		    .handle = prog_id);
	struct bpf_tc_hook at;
	int err;

	hook_of(&at, ifindex, BPF_TC_INGRESS | BPF_TC_EGRESS);
	err = bpf_tc_hook_create(&at);
	if (!err)
		*made = true;
	else if (err != -EEXIST)
		return err;
	else if (!is_clsact(ifindex))
		return -ENOTUNIQ;
	at.attach_point = egress ? BPF_TC_EGRESS : BPF_TC_INGRESS;
	return bpf_tc_attach(&at, &opts);
}

int tc_filter_del(int ifindex, bool egress, uint32_t prog_id)
{
	LIBBPF_OPTS(bpf_tc_opts, there, .priority = FILTER_PRIORITY, .handle = prog_id);
	LIBBPF_OPTS(bpf_tc_opts, opts, .priority = FILTER_PRIORITY, .handle = prog_id);
	struct bpf_tc_hook at;
	int err;

	hook_of(&at, ifindex, egress ? BPF_TC_EGRESS : BPF_TC_INGRESS);
	err = bpf_tc_query(&at, &there);
	if (!err && there.prog_id != prog_id)
		err = -ENOENT;
	return err ? err : bpf_tc_detach(&at, &opts);
}

int tc_qdisc_del(int ifindex)
{
	struct bpf_tc_hook at;

	if (has_filters(ifindex))
		return -EBUSY;
	hook_of(&at, ifindex, BPF_TC_INGRESS | BPF_TC_EGRESS);
	return bpf_tc_hook_destroy(&at);
}
