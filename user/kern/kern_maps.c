/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Reads and writes of maps by key: what the data side, the control side and the metrics ask of
 * the kernel. Every function is a system call or a few on descriptors that stay open, so any
 * thread may call, and no privilege is needed once the descriptors are there.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/membarrier.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "kern/kern_private.h"

/* One system call brings this many pins. */
#define ADOPT_BATCH 4096

int kern_sock_add(struct kern *k, int fd, const struct kvpin_sock_key *key, uint64_t cookie,
		  const struct kvpin_sock_ref *ref)
{
	uint64_t value = fd;
	int err;

	/* The reference first: the verdict runs from the moment the socket is in the sockhash. */
	err = bpf_map_update_elem(k->cookies_fd, &cookie, ref, BPF_NOEXIST);
	if (err)
		return err;
	err = bpf_map_update_elem(k->sockets_fd, key, &value, BPF_NOEXIST);
	if (err)
		bpf_map_delete_elem(k->cookies_fd, &cookie);
	return err;
}

void kern_sock_del(struct kern *k, const struct kvpin_sock_key *key, uint64_t cookie)
{
	/* Missing in the sockhash is normal: a socket leaves it by itself when it is closed by the
	 * peer's RST. */
	bpf_map_delete_elem(k->sockets_fd, key);
	bpf_map_delete_elem(k->cookies_fd, &cookie);
}

int kern_sock_drain(struct kern *k, int fd, const struct kvpin_sock_key *key)
{
	uint64_t value = fd;
	int err;

	/* In one map or the other at any moment, or what is queued would be dropped. */
	err = bpf_map_update_elem(k->draining_fd, key, &value, BPF_NOEXIST);
	if (!err)
		bpf_map_delete_elem(k->sockets_fd, key);
	return err;
}

void kern_sock_drained(struct kern *k, const struct kvpin_sock_key *key)
{
	bpf_map_delete_elem(k->draining_fd, key);
}

int kern_names_set(struct kern *k, const struct kvpin_names *names)
{
	uint32_t at = (k->config->names_at + 1) % KVPIN_NAMES_SETS;
	int err;

	/* A program may still read the set that the previous switch put out of force: after a grace
	 * period of RCU, which this call waits for, none does. Where it is not allowed (nohz_full)
	 * a reload right behind another could show a program a half-written set. */
	syscall(__NR_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
	err = bpf_map_update_elem(k->private->names_fd, &at, names, BPF_ANY);
	if (err)
		return err;
	__atomic_store_n(&k->config->names_at, at, __ATOMIC_RELEASE);
	return 0;
}

void kern_hold_put(struct kern *k, uint32_t index)
{
	int err = bpf_map_update_elem(k->free_holds_fd, NULL, &index, BPF_ANY);

	/* E2BIG: given back twice. The buffer is then lost or shared: a bug either way. */
	if (err)
		LOG(ERROR, "hold buffer not given back", F_UINT("hold", index),
		    F_STR("error", strerror(-err)));
}

int kern_percpu_sum(int fd, int nr_cpus, uint32_t key, uint64_t *sum, size_t nr)
{
	uint64_t *each = calloc(nr_cpus, nr * sizeof(*each));
	int err;

	if (!each)
		return -ENOMEM;
	err = bpf_map_lookup_elem(fd, &key, each);
	memset(sum, 0, nr * sizeof(*sum));
	for (int cpu = 0; !err && cpu < nr_cpus; cpu++)
		for (size_t i = 0; i < nr; i++)
			sum[i] += each[cpu * nr + i];
	free(each);
	return err;
}

int kern_counters(struct kern *k, uint32_t backend, struct kvpin_counters *out)
{
	_Static_assert(sizeof(*out) % sizeof(uint64_t) == 0, "all of it are numbers of 64 bits");

	return kern_percpu_sum(k->private->counters_fd, k->private->nr_cpus, backend,
			       (uint64_t *)out, sizeof(*out) / sizeof(uint64_t));
}

int kern_refusals(struct kern *k, uint64_t *out)
{
	int err = 0;

	for (uint32_t i = 0; i < KVPIN_REFUSED_NR && !err; i++)
		err = kern_percpu_sum(k->private->refusals_fd, k->private->nr_cpus, i, &out[i], 1);
	return err;
}

int kern_session_get(struct kern *k, uint64_t id, struct kvpin_session *out)
{
	return bpf_map_lookup_elem(k->sessions_fd, &id, out);
}

int kern_session_put(struct kern *k, uint64_t id, const struct kvpin_session *s)
{
	return bpf_map_update_elem(k->sessions_fd, &id, s, BPF_ANY);
}

int kern_session_del(struct kern *k, uint64_t id)
{
	return bpf_map_delete_elem(k->sessions_fd, &id);
}

struct adopt_batch {
	struct kvpin_backend backend[KVPIN_BACKENDS_MAX];
	uint64_t id[ADOPT_BATCH];
	struct kvpin_session session[ADOPT_BATCH];
};

static uint32_t adopt(int sessions_fd, int backends_fd,
		      void (*each)(void *arg, uint64_t id, const struct kvpin_session *s,
				   const char *name, const char *address),
		      void *arg)
{
	struct adopt_batch *b = calloc(1, sizeof(*b));
	uint32_t total = 0, nr, at, *from = NULL;
	int err = b ? 0 : -ENOMEM;

	for (uint32_t i = 0; !err && i < KVPIN_BACKENDS_MAX; i++) {
		err = bpf_map_lookup_elem(backends_fd, &i, &b->backend[i]);
		b->backend[i].name[KVPIN_BACKEND_NAME_MAX - 1] = 0;
		b->backend[i].address[KVPIN_BACKEND_ADDR_MAX - 1] = 0;
	}
	while (!err) {
		nr = ADOPT_BATCH;
		err = bpf_map_lookup_batch(sessions_fd, from, &at, b->id, b->session, &nr, NULL);
		if (err && err != -ENOENT)
			break;
		from = &at;
		for (uint32_t i = 0; i < nr; i++) {
			uint32_t backend = b->session[i].backend;

			if (backend >= KVPIN_BACKENDS_MAX)
				continue;
			total++;
			each(arg, b->id[i], &b->session[i], b->backend[backend].name,
			     b->backend[backend].address);
		}
	}
	/* ENOENT says that there are no more. */
	if (err != -ENOENT)
		LOG(WARN, "sessions of the previous daemon were not all read",
		    F_UINT("read", total), F_STR("error", strerror(-err)));
	free(b);
	return total;
}

uint32_t kern_adopt(struct kern *k,
		    void (*each)(void *arg, uint64_t id, const struct kvpin_session *s,
				 const char *name, const char *address),
		    void *arg)
{
	struct kern_pins *pins = &k->private->pins;
	uint32_t total = 0;

	if (pins->old_sessions_fd >= 0 && pins->old_backends_fd >= 0)
		total = adopt(pins->old_sessions_fd, pins->old_backends_fd, each, arg);
	if (pins->old_sessions_fd >= 0)
		close(pins->old_sessions_fd);
	if (pins->old_backends_fd >= 0)
		close(pins->old_backends_fd);
	pins->old_sessions_fd = pins->old_backends_fd = -1;
	return total;
}
