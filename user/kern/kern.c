/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Loading and unloading. Happy path of kern_open(): sizes into the skeleton, a directory for the
 * pins, load, rings, mapped arrays, attach, publish the pins. Failures: kern_close() takes down
 * whatever stands, in reverse order; the text names the step. Close: the same.
 *
 * Never reads or writes an entry of a map beyond their first filling: kern_maps.c does.
 */
#include "kern/kern.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "kern/kern_log.h"
#include "kern/kern_private.h"
#include "kern/privilege.h"
#include "steer.skel.h"

static int check_params(const struct kern_params *p, const struct kern_text *t)
{
	uint32_t page = (uint32_t)sysconf(_SC_PAGESIZE);

	if (!p->conns || !p->upstreams || !p->sessions || !p->holds || !p->workers ||
	    p->workers > KERN_WORKERS_MAX || p->conns > UINT32_MAX - p->upstreams)
		return KERN_SAY(t, -EINVAL, "steer: sizes of maps out of range");
	if (p->ring_bytes < page || (p->ring_bytes & (p->ring_bytes - 1)))
		return KERN_SAY(t, -EINVAL,
				"steer: ring_bytes must be a power of two and at least %u", page);
	return 0;
}

static int check_privileges(const struct kern_text *t)
{
	bool admin = privilege_has(CAP_SYS_ADMIN);

	if ((admin || (privilege_has(CAP_BPF) && privilege_has(CAP_PERFMON))) &&
	    privilege_has(CAP_NET_ADMIN))
		return 0;
	return KERN_SAY(
		t, -EPERM,
		"steer: loading needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (run as root, or "
		"setcap cap_bpf,cap_net_admin,cap_perfmon+ep on the kvpin binary)");
}

static int set_sizes(struct kern *k, const struct kern_params *p)
{
	struct steer_bpf *skel = k->private->skel;
	const struct {
		struct bpf_map *map;
		uint32_t entries;
	} sizes[] = {
		{skel->maps.conns, p->conns},
		{skel->maps.upstreams, p->upstreams},
		{skel->maps.sessions, p->sessions},
		{skel->maps.sockets, p->conns + p->upstreams},
		{skel->maps.draining, p->upstreams},
		{skel->maps.cookies, p->conns + p->upstreams},
		{skel->maps.holds, p->holds},
		{skel->maps.free_holds, p->holds},
		{skel->maps.rings, p->workers},
	};
	struct bpf_program *prog;
	int err = 0;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes) && !err; i++)
		err = bpf_map__set_max_entries(sizes[i].map, sizes[i].entries);
	bpf_object__for_each_program(prog, skel->obj)
	{
		if (err)
			break;
		err = bpf_program__set_expected_attach_type(prog, BPF_SK_SKB_VERDICT);
	}
	if (err)
		return err;
	memcpy((void *)skel->rodata->ttft_le_ns, p->ttft_le_ns, sizeof(skel->rodata->ttft_le_ns));
	memcpy((void *)skel->rodata->gap_le_ns, p->gap_le_ns, sizeof(skel->rodata->gap_le_ns));
	return 0;
}

/* What the kernel lacks shows as EINVAL, ENOTSUPP or EOPNOTSUPP; the text has the details. */
static int load(struct kern *k, const struct kern_params *p, const struct kern_text *t)
{
	struct kern_private *priv = k->private;
	int err;

	kern_log_begin();
	err = kern_rings_create(&k->rings, "ring", p->workers, p->ring_bytes);
	if (!err)
		err = bpf_map__set_inner_map_fd(priv->skel->maps.rings, k->rings.ring[0].fd);
	if (err)
		return KERN_SAY(t, err, "steer: cannot make an event ring of %u bytes: %s",
				p->ring_bytes, strerror(-err));
	err = steer_bpf__load(priv->skel);
	if (err)
		return KERN_SAY(t, err, "steer: cannot load: %s (%s)", strerror(-err),
				*kern_log_cause() ? kern_log_cause() : "no details");
	k->sockets_fd = bpf_map__fd(priv->skel->maps.sockets);
	k->draining_fd = bpf_map__fd(priv->skel->maps.draining);
	k->cookies_fd = bpf_map__fd(priv->skel->maps.cookies);
	k->sessions_fd = bpf_map__fd(priv->skel->maps.sessions);
	k->free_holds_fd = bpf_map__fd(priv->skel->maps.free_holds);
	priv->names_fd = bpf_map__fd(priv->skel->maps.names);
	priv->counters_fd = bpf_map__fd(priv->skel->maps.counters);
	priv->refusals_fd = bpf_map__fd(priv->skel->maps.refusals);
	return 0;
}

static int on_record(void *ctx, void *data, size_t bytes)
{
	const struct kvpin_event *e = data;
	struct kern_ring *r = ctx;

	/* A record that says it is longer than it is would make the reader read past it. */
	if (bytes < sizeof(*e) || (e->kind == KVPIN_EVENT_LANE && e->len > bytes - sizeof(*e)))
		return 0;
	r->events++;
	r->each.steer(r->arg, e);
	return 0;
}

static int fill(struct kern *k, const struct kern_params *p, const struct kern_text *t)
{
	struct steer_bpf *skel = k->private->skel;
	const int verdict[KVPIN_VERDICT_NR] = {
		[KVPIN_VERDICT_REQUEST] = bpf_program__fd(skel->progs.steer_request),
		[KVPIN_VERDICT_ANSWER] = bpf_program__fd(skel->progs.steer_answer),
	};
	int err;

	for (uint32_t i = 0; i < KVPIN_VERDICT_NR; i++) {
		err = bpf_map_update_elem(bpf_map__fd(skel->maps.verdicts), &i, &verdict[i],
					  BPF_ANY);
		if (err)
			return KERN_SAY(t, err, "steer: cannot set verdict %u: %s", i,
					strerror(-err));
	}
	for (uint32_t i = 0; i < p->holds; i++) {
		err = bpf_map_update_elem(k->free_holds_fd, NULL, &i, BPF_ANY);
		if (err)
			return KERN_SAY(t, err, "steer: cannot fill free_holds: %s",
					strerror(-err));
	}
	err = kern_rings_open(&k->rings, bpf_map__fd(skel->maps.rings), on_record);
	if (err)
		return KERN_SAY(t, err, "steer: cannot open the event rings: %s", strerror(-err));
	return 0;
}

static size_t view_bytes(size_t entries, size_t entry_bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (entries * entry_bytes + page - 1) / page * page;
}

static int view(void *out, const struct bpf_map *map, size_t entries, size_t entry_bytes, int prot,
		const struct kern_text *t)
{
	void *mem;
	int err;

	mem = mmap(NULL, view_bytes(entries, entry_bytes), prot, MAP_SHARED, bpf_map__fd(map), 0);
	if (mem == MAP_FAILED) {
		err = -errno;
		return KERN_SAY(t, err, "steer: cannot map %s: %s", bpf_map__name(map),
				strerror(-err));
	}
	*(void **)out = mem;
	return 0;
}

static void unview(void *mem, size_t entries, size_t entry_bytes)
{
	if (mem)
		munmap(mem, view_bytes(entries, entry_bytes));
}

static int view_all(struct kern *k, const struct kern_params *p, const struct kern_text *t)
{
	struct steer_bpf *skel = k->private->skel;
	const int rw = PROT_READ | PROT_WRITE;
	int err;

	k->nr_conns = p->conns;
	k->nr_upstreams = p->upstreams;
	k->nr_holds = p->holds;
	err = view(&k->config, skel->maps.config, 1, sizeof(*k->config), rw, t);
	if (!err)
		err = view(&k->backends, skel->maps.backends, KVPIN_BACKENDS_MAX,
			   sizeof(*k->backends), rw, t);
	if (!err)
		err = view(&k->conns, skel->maps.conns, p->conns, sizeof(*k->conns), rw, t);
	if (!err)
		err = view(&k->upstreams, skel->maps.upstreams, p->upstreams, sizeof(*k->upstreams),
			   rw, t);
	if (!err)
		err = view(&k->holds, skel->maps.holds, p->holds, sizeof(*k->holds), PROT_READ, t);
	return err;
}

static void introduce(struct kern *k)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	k->config->version = KVPIN_ABI_VERSION;
	k->config->pid = (uint64_t)getpid();
	k->config->started_ns = (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

static int attach(struct kern *k, const struct kern_text *t)
{
	int err = bpf_prog_attach(bpf_program__fd(k->private->skel->progs.steer_verdict),
				  k->sockets_fd, BPF_SK_SKB_VERDICT, 0);

	if (err)
		return KERN_SAY(
			t, err,
			"steer: cannot attach to the map of sockets: %s (does the kernel have "
			"CONFIG_BPF_STREAM_PARSER?)",
			strerror(-err));
	k->private->attached = true;
	return 0;
}

static int open_all(struct kern *k, const struct kern_params *p, const struct kern_text *t)
{
	struct kern_private *priv = k->private;
	int err;

	err = set_sizes(k, p);
	if (err)
		return KERN_SAY(t, err, "steer: cannot set the sizes of maps: %s", strerror(-err));
	err = kern_pins_begin(&priv->pins, p->pin_dir, priv->skel->obj, p->uid, p->gid, t->why,
			      t->bytes);
	if (!err)
		err = load(k, p, t);
	if (!err)
		err = fill(k, p, t);
	if (!err)
		err = view_all(k, p, t);
	if (err)
		return err;
	introduce(k);
	err = attach(k, t);
	if (!err)
		err = kern_pins_publish(&priv->pins, priv->skel->obj, t->why, t->bytes);
	return err;
}

int kern_backends_fd(const struct kern *k)
{
	return bpf_map__fd(k->private->skel->maps.backends);
}

int kern_open(struct kern *k, const struct kern_params *p, char *why, size_t why_bytes)
{
	struct kern_text t = {why, why_bytes};
	struct kern_private *priv;
	int err;

	err = check_params(p, &t);
	if (!err)
		err = check_privileges(&t);
	if (err)
		return err;
	priv = calloc(1, sizeof(*priv));
	if (!priv)
		return KERN_SAY(&t, -ENOMEM, "steer: out of memory");
	priv->pins = (struct kern_pins)KERN_PINS_NONE;
	k->private = priv;
	kern_log_begin();
	priv->nr_cpus = libbpf_num_possible_cpus();
	priv->skel = priv->nr_cpus > 0 ? steer_bpf__open() : NULL;
	if (priv->skel) {
		err = open_all(k, p, &t);
	} else {
		err = priv->nr_cpus < 0 ? priv->nr_cpus : -errno;
		KERN_SAY(&t, err, "steer: cannot open the programs: %s", kern_log_cause());
	}
	if (err)
		kern_close(k);
	return err;
}

void kern_close(struct kern *k)
{
	struct kern_private *priv = k->private;

	if (!priv)
		return;
	if (priv->attached)
		bpf_prog_detach2(bpf_program__fd(priv->skel->progs.steer_verdict), k->sockets_fd,
				 BPF_SK_SKB_VERDICT);
	if (priv->skel)
		kern_pins_end(&priv->pins, priv->skel->obj);
	unview(k->config, 1, sizeof(*k->config));
	unview(k->backends, KVPIN_BACKENDS_MAX, sizeof(*k->backends));
	unview(k->conns, k->nr_conns, sizeof(*k->conns));
	unview(k->upstreams, k->nr_upstreams, sizeof(*k->upstreams));
	unview(k->holds, k->nr_holds, sizeof(*k->holds));
	kern_rings_close(&k->rings);
	steer_bpf__destroy(priv->skel);
	free(priv);
	memset(k, 0, sizeof(*k));
}

int kern_ring_poll_fd(const struct kern *k, uint32_t w)
{
	return kern_rings_poll_fd(&k->rings, w);
}

int kern_ring_consume(struct kern *k, uint32_t w,
		      void (*each)(void *arg, const struct kvpin_event *e), void *arg)
{
	k->rings.ring[w].each.steer = each;
	return kern_rings_consume(&k->rings.ring[w], arg);
}
