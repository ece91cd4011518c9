/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Loading, and what is asked of the maps; splice_attach.c has the devices.
 */
#include "kern/kern_splice.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "kern/kern.h"
#include "kern/kern_log.h"
#include "kern/kern_private.h"
#include "kern/kern_splice_private.h"
#include "kern/privilege.h"
#include "kern/splice_attach.h"
#include "splice.skel.h"
#include "splice_old.skel.h"

static int check(const struct kern_splice_params *p, const struct kern_text *t)
{
	bool admin = privilege_has(CAP_SYS_ADMIN);

	if (!p->conns || !p->workers || p->workers > KERN_WORKERS_MAX || !p->devices.nr)
		return KERN_SAY(t, -EINVAL, "splice: sizes of maps out of range");
	if ((admin || (privilege_has(CAP_BPF) && privilege_has(CAP_PERFMON))) &&
	    privilege_has(CAP_NET_ADMIN))
		return 0;
	return KERN_SAY(t, -EPERM,
			"splice: loading needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (run as "
			"root, or setcap cap_bpf,cap_net_admin,cap_perfmon+ep on the kvpin "
			"binary)");
}

/* ---- rings ---- */

static int on_record(void *ctx, void *data, size_t bytes)
{
	const struct kvpin_splice_event *e = data;
	struct kern_ring *r = ctx;

	if (bytes < sizeof(*e) || e->len > bytes - sizeof(*e))
		return 0;
	r->events++;
	r->each.splice(r->arg, e);
	return 0;
}

int kern_splice_poll_fd(const struct kern_splice *k, uint32_t w)
{
	return kern_rings_poll_fd(&k->private->rings, w);
}

int kern_splice_consume(struct kern_splice *k, uint32_t w,
			void (*each)(void *arg, const struct kvpin_splice_event *e), void *arg)
{
	struct kern_rings *rings = &k->private->rings;

	rings->ring[w].each.splice = each;
	return kern_rings_consume(&rings->ring[w], arg);
}

/* ---- loading ---- */

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* One source makes both, with the same maps and programs in the same order. */
static struct splice_bpf *skel_open(void)
{
	struct btf *kernel = btf__load_vmlinux_btf();
	bool old = splice_attach_as_on_old() || !kernel ||
		   btf__find_by_name_kind(kernel, "bpf_cast_to_kern_ctx", BTF_KIND_FUNC) < 0;

	_Static_assert(sizeof(struct splice_bpf) == sizeof(struct splice_old_bpf), "the same");
	btf__free(kernel);
	return old ? (struct splice_bpf *)splice_old_bpf__open() : splice_bpf__open();
}

/* About two connections to a bucket, when all entries are in use. */
static int buckets_size(struct kern_splice *k, const struct kern_splice_params *p)
{
	struct splice_bpf *skel = k->private->skel;
	uint32_t nr = 1;

	while (nr < p->conns / 2)
		nr *= 2;
	k->buckets_mask = nr - 1;
	if (getentropy(&k->hash, sizeof(k->hash)))
		return -errno;
	for (int i = 0; i < 2; i++) {
		k->hash.times[i] |= 1;
		((uint64_t *)skel->rodata->hash_times)[i] = k->hash.times[i];
	}
	*(uint32_t *)&skel->rodata->buckets_mask = k->buckets_mask;
	return bpf_map__set_max_entries(skel->maps.splice_buckets, nr);
}

/* A mark that no other program on these devices has. */
static int mark_choose(struct splice_bpf *skel)
{
	uint32_t random;

	if (getentropy(&random, sizeof(random)))
		return -errno;
	*(uint32_t *)&skel->rodata->passed_mark =
		KVPIN_SPLICE_MARK | 1 | (random & ~KVPIN_SPLICE_MARK_MASK);
	return 0;
}

static int load(struct kern_splice *k, const struct kern_splice_params *p,
		const struct kern_text *t)
{
	struct kern_splice_private *priv = k->private;
	struct splice_bpf *skel = priv->skel;
	int err;

	err = bpf_map__set_max_entries(skel->maps.splice_conns, p->conns);
	if (!err)
		err = buckets_size(k, p);
	if (!err)
		err = mark_choose(skel);
	if (!err)
		err = bpf_map__set_max_entries(skel->maps.splice_rings, p->workers);
	if (!err && p->backends_fd >= 0)
		err = bpf_map__reuse_fd(skel->maps.splice_backends, p->backends_fd);
	if (!err)
		err = kern_rings_create(&priv->rings, "splice", p->workers, p->ring_bytes);
	if (!err)
		err = bpf_map__set_inner_map_fd(skel->maps.splice_rings, priv->rings.ring[0].fd);
	if (err)
		return KERN_SAY(t, err, "splice: cannot size the maps: %s", strerror(-err));
	memcpy((void *)skel->rodata->ttft_le_ns, p->ttft_le_ns, sizeof(skel->rodata->ttft_le_ns));
	memcpy((void *)skel->rodata->gap_le_ns, p->gap_le_ns, sizeof(skel->rodata->gap_le_ns));
	err = splice_bpf__load(skel);
	if (err)
		return KERN_SAY(t, err, "splice: cannot load: %s (%s)", strerror(-err),
				*kern_log_cause() ? kern_log_cause() : "no details");
	priv->counters_fd = bpf_map__fd(skel->maps.splice_counters);
	priv->refusals_fd = bpf_map__fd(skel->maps.splice_refusals);
	err = kern_rings_open(&priv->rings, bpf_map__fd(skel->maps.splice_rings), on_record);
	if (err)
		return KERN_SAY(t, err, "splice: cannot open the event rings: %s", strerror(-err));
	return 0;
}

static size_t view_bytes(size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (bytes + page - 1) / page * page;
}

static void *view(const struct bpf_map *map, size_t bytes)
{
	void *mem = mmap(NULL, view_bytes(bytes), PROT_READ | PROT_WRITE, MAP_SHARED,
			 bpf_map__fd(map), 0);

	return mem == MAP_FAILED ? NULL : mem;
}

static int views(struct kern_splice *k, const struct kern_splice_params *p,
		 const struct kern_text *t)
{
	struct splice_bpf *skel = k->private->skel;
	int err;

	k->nr_conns = p->conns;
	k->config = view(skel->maps.splice_config, sizeof(*k->config));
	if (k->config)
		k->conns = view(skel->maps.splice_conns, p->conns * sizeof(*k->conns));
	if (k->conns)
		k->buckets = view(skel->maps.splice_buckets,
				  (k->buckets_mask + 1) * sizeof(*k->buckets));
	if (k->buckets && p->backends_fd < 0)
		k->backends =
			view(skel->maps.splice_backends, KVPIN_BACKENDS_MAX * sizeof(*k->backends));
	if (!k->buckets || (p->backends_fd < 0 && !k->backends)) {
		err = -errno;
		return KERN_SAY(t, err, "splice: cannot map the connections: %s", strerror(-err));
	}
	k->config->version = KVPIN_SPLICE_VERSION;
	k->config->pid = (uint64_t)getpid();
	k->config->used_ns = k->config->alive_ns = now_ns();
	return 0;
}

void kern_splice_tick(struct kern_splice *k, uint64_t idle_ns)
{
	uint64_t now = now_ns();

	__atomic_store_n(&k->config->alive_ns, now, __ATOMIC_RELAXED);
	if (k->private->pinning && now > idle_ns)
		splice_pins_tick(&k->private->pins, now - idle_ns);
}

void kern_splice_inherited(const struct kern_splice *k,
			   void (*each)(void *arg, const struct kvpin_splice_conn *server),
			   void *arg)
{
	const struct splice_pins *pins = &k->private->pins;

	for (unsigned int i = 0; i < pins->nr_old; i++)
		for (uint32_t n = 0; n < pins->old[i].legacy.nr; n++)
			each(arg, &pins->old[i].legacy.conns[pins->old[i].legacy.entry[n]]);
}

void kern_splice_moved(struct kern_splice *k)
{
	struct splice_pins *pins = &k->private->pins;

	for (unsigned int i = 0; i < pins->nr_old; i++)
		splice_legacy_moved(&pins->old[i].legacy);
}

/* ---- life ---- */

static int publish(struct kern_splice *k, const struct kern_text *t)
{
	struct kern_splice_private *priv = k->private;
	int links[SPLICE_HOOKS_MAX], err;
	uint32_t nr = splice_attach_links(k, links);

	if (!priv->pinning)
		return 0;
	err = splice_pins_publish(&priv->pins, bpf_map__fd(priv->skel->maps.splice_config),
				  bpf_map__fd(priv->skel->maps.splice_conns), links, nr, t);
	if (err)
		return err;
	err = splice_pins_keep(&priv->pins);
	if (err)
		return KERN_SAY(t, err, "splice: cannot start the keeper of filters: %s",
				strerror(-err));
	return 0;
}

int kern_splice_open(struct kern_splice *k, const struct kern_splice_params *p, char *why,
		     size_t why_bytes)
{
	struct kern_text t = {why, why_bytes};
	struct kern_splice_private *priv;
	int err;

	err = check(p, &t);
	if (err)
		return err;
	priv = calloc(1, sizeof(*priv));
	if (!priv)
		return KERN_SAY(&t, -ENOMEM, "splice: out of memory");
	k->private = priv;
	kern_log_begin();
	priv->nr_cpus = libbpf_num_possible_cpus();
	priv->skel = priv->nr_cpus > 0 ? skel_open() : NULL;
	if (!priv->skel)
		err = KERN_SAY(&t, -EINVAL, "splice: cannot open the program: %s",
			       kern_log_cause());
	if (!err && p->pin_dir) {
		priv->pinning = true;
		err = splice_pins_begin(&priv->pins, p->pin_dir, p->uid, p->gid, &t);
	}
	if (!err)
		err = load(k, p, &t);
	if (!err)
		err = views(k, p, &t);
	if (!err)
		err = splice_attach(k, &p->devices, &t);
	if (!err)
		err = publish(k, &t);
	if (err)
		kern_splice_close(k);
	return err;
}

void kern_splice_close(struct kern_splice *k)
{
	struct kern_splice_private *priv = k->private;

	if (!priv)
		return;
	/* With its pins go the filters, when the privilege to remove them has been given up. */
	if (priv->pinning)
		splice_pins_end(&priv->pins);
	splice_detach(k);
	if (k->conns)
		munmap(k->conns, view_bytes(k->nr_conns * sizeof(*k->conns)));
	if (k->buckets)
		munmap(k->buckets, view_bytes((k->buckets_mask + 1) * sizeof(*k->buckets)));
	if (k->backends)
		munmap(k->backends, view_bytes(KVPIN_BACKENDS_MAX * sizeof(*k->backends)));
	if (k->config)
		munmap(k->config, view_bytes(sizeof(*k->config)));
	kern_rings_close(&priv->rings);
	splice_bpf__destroy(priv->skel);
	free(priv);
	memset(k, 0, sizeof(*k));
}

/* ---- maps ---- */

static uint64_t hash_of(const struct kern_splice *k, const struct kvpin_splice_conn *c)
{
	struct kvpin_splice_key key = {.from_port = c->remote_port, .to_port = c->local_port};

	memcpy(key.from, c->remote, sizeof(key.from));
	memcpy(key.to, c->local, sizeof(key.to));
	return kvpin_splice_hash(&k->hash, &key);
}

static bool same_addresses(const struct kvpin_splice_conn *a, const struct kvpin_splice_conn *b)
{
	return a->local_port == b->local_port && a->remote_port == b->remote_port &&
	       !memcmp(a->local, b->local, sizeof(a->local)) &&
	       !memcmp(a->remote, b->remote, sizeof(a->remote));
}

/* The hop first: until `ifindex` is changed too, a packet may go astray and is sent again. */
void kern_splice_way_set(struct kvpin_splice_conn *c, const struct device_way *way)
{
	memcpy(c->hop, way->hop, sizeof(c->hop));
	__atomic_store_n(&c->hop_family, (uint16_t)way->family, __ATOMIC_SEQ_CST);
	__atomic_store_n(&c->ifindex, (uint32_t)way->ifindex, __ATOMIC_SEQ_CST);
}

int kern_splice_add(struct kern_splice *k, uint32_t entry)
{
	struct kvpin_splice_conn *c = &k->conns[entry];
	uint64_t hash = hash_of(k, c);
	struct kvpin_splice_bucket *bucket = &k->buckets[hash & k->buckets_mask];
	uint32_t *room = NULL;

	for (int i = 0; i < KVPIN_SPLICE_BUCKET_REFS; i++) {
		uint32_t *ref = &bucket->ref[i];
		uint32_t was = __atomic_load_n(ref, __ATOMIC_SEQ_CST) & KVPIN_SPLICE_REF_ENTRY;

		if (was && was <= k->nr_conns && same_addresses(&k->conns[was - 1], c)) {
			__atomic_fetch_or(&k->conns[was - 1].flags, KVPIN_SPLICE_OVER,
					  __ATOMIC_SEQ_CST);
			room = ref;
			break;
		}
		if (!was && !room)
			room = ref;
	}
	if (!room)
		return -E2BIG;
	__atomic_store_n(room, kvpin_splice_ref(hash, entry), __ATOMIC_SEQ_CST);
	__atomic_fetch_and(&c->flags, ~KVPIN_SPLICE_OVER, __ATOMIC_SEQ_CST);
	return 0;
}

void kern_splice_del(struct kern_splice *k, uint32_t entry)
{
	uint64_t hash = hash_of(k, &k->conns[entry]);
	struct kvpin_splice_bucket *bucket = &k->buckets[hash & k->buckets_mask];

	__atomic_fetch_or(&k->conns[entry].flags, KVPIN_SPLICE_OVER, __ATOMIC_SEQ_CST);
	for (int i = 0; i < KVPIN_SPLICE_BUCKET_REFS; i++) {
		uint32_t ref = kvpin_splice_ref(hash, entry);

		__atomic_compare_exchange_n(&bucket->ref[i], &ref, 0, false, __ATOMIC_SEQ_CST,
					    __ATOMIC_SEQ_CST);
	}
}

int kern_splice_counters(struct kern_splice *k, uint32_t backend, struct kvpin_counters *out)
{
	return kern_percpu_sum(k->private->counters_fd, k->private->nr_cpus, backend,
			       (uint64_t *)out, sizeof(*out) / sizeof(uint64_t));
}

int kern_splice_refusals(struct kern_splice *k, uint64_t *out)
{
	int err = 0;

	for (uint32_t i = 0; i < KVPIN_SPLICE_REFUSED_NR && !err; i++)
		err = kern_percpu_sum(k->private->refusals_fd, k->private->nr_cpus, i, &out[i], 1);
	return err;
}
