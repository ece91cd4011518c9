/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where the splice path's program is: a tcx link per device and direction (6.6 and later), so that
 * nothing outlives the process; else filters of a clsact qdisc (tc_keeper.h). Either way the
 * program passes on what is not its own, so that others on the same hook see it.
 *
 * Happy path: the devices of the start, then, with tcx, those that turn out to be needed. Failures:
 * a text that names the device; of one that comes later nothing is left. Close: splice_detach().
 */
#include "kern/splice_attach.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kern/kern_splice_private.h"
#include "kern/tc_filter.h"
#include "splice.skel.h"

/* include/uapi/linux/bpf.h of 6.6; the headers of the build machine may be older. */
#define ATTACH_TCX_INGRESS 46
#define ATTACH_TCX_EGRESS  47

bool splice_attach_as_on_old(void)
{
	const char *forced = secure_getenv("KVPIN_SPLICE_HOOK");

	return forced && !strcmp(forced, "clsact");
}

static int attach_filter(struct kern_splice *k, struct splice_hook *hook, int prog_fd,
			 const struct kern_text *t)
{
	struct kern_splice_private *priv = k->private;
	bool egress = hook->direction == SPLICE_EGRESS, made = false;
	struct bpf_prog_info info = {0};
	uint32_t bytes = sizeof(info);
	int err;

	err = bpf_obj_get_info_by_fd(prog_fd, &info, &bytes);
	priv->prog_id = info.id;
	if (!err && priv->pinning)
		err = splice_pins_note(&priv->pins, egress ? TC_NOTE_EGRESS : TC_NOTE_INGRESS,
				       hook->ifindex, prog_fd, t);
	if (!err)
		err = tc_filter_add(hook->ifindex, egress, prog_fd, priv->prog_id, &made);
	/* A dead daemon's qdisc is there for its filters; who goes last removes it. */
	if (priv->pinning && splice_pins_noted_qdisc(&priv->pins, hook->ifindex))
		made = true;
	if (made && !device_has(&priv->qdiscs, hook->ifindex)) {
		device_add(&priv->qdiscs, hook->ifindex);
		if (!err && priv->pinning)
			err = splice_pins_note(&priv->pins, TC_NOTE_QDISC, hook->ifindex, prog_fd,
					       t);
	}
	return err;
}

static int attach_link(const struct splice_hook *hook, int prog_fd)
{
	if (splice_attach_as_on_old())
		return -EOPNOTSUPP;
	return bpf_link_create(
		prog_fd, hook->ifindex,
		hook->direction == SPLICE_INGRESS ? ATTACH_TCX_INGRESS : ATTACH_TCX_EGRESS, NULL);
}

static int attach_one(struct kern_splice *k, int ifindex, int direction, const struct kern_text *t)
{
	struct kern_splice_private *priv = k->private;
	int prog_fd = bpf_program__fd(priv->skel->progs.splice_packet), err = 0;
	struct splice_hook *hook = &priv->hook[priv->nr_hooks];

	*hook = (struct splice_hook){
		.ifindex = ifindex, .direction = direction, .pin = priv->pin_nr++};
	hook->link_fd = attach_link(hook, prog_fd);
	if (hook->link_fd < 0 && priv->nr_hooks && k->tcx)
		return hook->link_fd;
	if (hook->link_fd >= 0)
		k->tcx = true;
	else
		err = attach_filter(k, hook, prog_fd, t);
	/* Of one that failed too something may be there. */
	priv->nr_hooks++;
	return err;
}

int splice_attach(struct kern_splice *k, const struct device_set *devices,
		  const struct kern_text *t)
{
	for (unsigned int i = 0; i < devices->nr; i++) {
		int ifindex = devices->ifindex[i], err = 0;

		/* On lo a packet that leaves comes in at once: one look is enough. */
		if (ifindex != DEVICE_LOOPBACK)
			err = attach_one(k, ifindex, SPLICE_INGRESS, t);
		if (!err)
			err = attach_one(k, ifindex, SPLICE_EGRESS, t);
		if (err)
			return KERN_SAY(t, err, "splice: cannot attach to device %d: %s", ifindex,
					err == -ENOTUNIQ
						? "it has an ingress qdisc, which takes clsact's "
						  "place (tc qdisc del dev DEVICE ingress)"
						: strerror(-err));
		device_add(&k->devices, ifindex);
	}
	return 0;
}

static void hook_end(struct kern_splice *k, struct splice_hook *hook)
{
	if (hook->link_fd >= 0)
		close(hook->link_fd);
	else if (!k->tcx)
		tc_filter_del(hook->ifindex, hook->direction == SPLICE_EGRESS, k->private->prog_id);
}

int kern_splice_attach(struct kern_splice *k, int ifindex)
{
	struct kern_splice_private *priv = k->private;
	struct kern_text t = {0}; /* of filters, which are not made here */
	uint32_t before = priv->nr_hooks;
	int err = 0;

	if (device_has(&k->devices, ifindex))
		return 0;
	if (!k->tcx)
		return -EPERM;
	if (!device_fits(ifindex))
		return -ENODEV;
	if (k->devices.nr == DEVICES_MAX || before + SPLICE_HOOK_NR > SPLICE_HOOKS_MAX)
		return -E2BIG;
	for (int d = SPLICE_INGRESS; d < SPLICE_HOOK_NR && !err; d++) {
		err = attach_one(k, ifindex, d, &t);
		if (!err && priv->pinning)
			err = splice_pins_add(&priv->pins, priv->hook[priv->nr_hooks - 1].link_fd,
					      priv->hook[priv->nr_hooks - 1].pin);
	}
	if (!err) {
		device_add(&k->devices, ifindex);
		return 0;
	}
	while (priv->nr_hooks > before) {
		splice_pins_remove(&priv->pins, priv->hook[--priv->nr_hooks].pin);
		hook_end(k, &priv->hook[priv->nr_hooks]);
	}
	return err;
}

void kern_splice_detach(struct kern_splice *k, int ifindex)
{
	struct kern_splice_private *priv = k->private;

	device_remove(&k->devices, ifindex);
	for (uint32_t i = 0; i < priv->nr_hooks;) {
		if (priv->hook[i].ifindex != ifindex) {
			i++;
			continue;
		}
		if (priv->pinning)
			splice_pins_remove(&priv->pins, priv->hook[i].pin);
		hook_end(k, &priv->hook[i]);
		priv->hook[i] = priv->hook[--priv->nr_hooks];
	}
}

void splice_detach(struct kern_splice *k)
{
	struct kern_splice_private *priv = k->private;

	for (uint32_t i = 0; i < priv->nr_hooks; i++)
		hook_end(k, &priv->hook[i]);
	for (unsigned int i = 0; i < priv->qdiscs.nr; i++)
		tc_qdisc_del(priv->qdiscs.ifindex[i]);
}

uint32_t splice_attach_links(const struct kern_splice *k, int links[SPLICE_HOOKS_MAX])
{
	const struct kern_splice_private *priv = k->private;
	uint32_t nr = k->tcx ? priv->nr_hooks : 0;

	for (uint32_t i = 0; i < nr; i++)
		links[i] = priv->hook[i].link_fd;
	return nr;
}
