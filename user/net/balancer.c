/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The balancer's life: listeners, workers, configuration in force. Main thread but where said. */
#include "net/balancer.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "net/worker.h"

#define LISTEN_BACKLOG 4096
/* Readers in other threads hold a configuration for less than this. */
#define CONFIG_GRACE_MS 5000
/* Pins looked at per tick: a million expire within ten seconds, a tick takes about 1 ms. */
#define SWEEP_PER_TICK 10000
/* Nodes of the prefix index removed per tick, under the lock that lookups take: about 1 ms. */
#define PREFIX_SWEEP_PER_TICK 5000

/* A worker takes over a configuration between two events, within a millisecond or so. */
#define SETTLE_MS 1000

/* A configuration that was replaced. */
struct retired {
	struct retired *next;
	const struct config *config;
	uint64_t since_ms;
};

uint64_t balancer_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

uint64_t balancer_now_ms(void)
{
	return balancer_now_ns() / 1000000;
}

uint32_t balancer_stamp(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME_COARSE, &ts);
	return session_stamp((uint64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000);
}

/* ---- listeners ---- */

/* Accepted sockets inherit these options, which spares a system call each per connection. */
static void listener_options(int fd, const struct addr *addr)
{
	int on = 1, off = 0;

	if (addr_is_any(addr) && addr->sa.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

/* @alone: bound without SO_REUSEPORT, not listening, which fails where anybody else listens. */
static int listener_open(const struct addr *addr, bool alone, char *why, unsigned int why_bytes)
{
	char text[ADDR_TEXT_MAX];
	int fd, err, off = 0;

	/* IPPROTO_TCP: never MPTCP, whose sockets a sockmap does not take. */
	fd = socket(addr->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
	if (fd >= 0) {
		listener_options(fd, addr);
		if (alone)
			setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &off, sizeof(off));
		if (bind(fd, &addr->sa, addr->len) == 0 &&
		    (alone || listen(fd, LISTEN_BACKLOG) == 0))
			return fd;
	}
	err = -errno;
	snprintf(why, why_bytes, "listen: cannot listen on %s: %s%s", addr_format(addr, text),
		 strerror(-err), addr_bind_hint(-err));
	if (fd >= 0)
		close(fd);
	return err;
}

/* SO_REUSEPORT would share a port with another process of this user, a second kvpin for one, and
 * each would get a part of the connections. All before the first listener: the configuration's own
 * addresses may overlap. */
static int ports_are_free(const struct config *c, char *why, unsigned int why_bytes)
{
	for (unsigned int i = 0; i < c->nr_listen; i++) {
		int fd = listener_open(&c->listen[i], true, why, why_bytes);

		if (fd < 0)
			return fd;
		close(fd);
	}
	return 0;
}

static void close_all(const int *fd, unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++)
		close(fd[i]);
}

/* One socket per address, each worker its own set; a port 0 becomes the same port for all. */
static int worker_open(struct balancer *b, unsigned int index, char *why, unsigned int why_bytes)
{
	const struct config *c = atomic_load(&b->config);
	int fd[LISTEN_MAX], err = 0;
	unsigned int nr;

	for (nr = 0; nr < c->nr_listen; nr++) {
		struct addr addr = c->listen[nr];

		if (index)
			addr = balancer_listen_addr(b, nr);
		fd[nr] = listener_open(&addr, false, why, why_bytes);
		if (fd[nr] < 0) {
			err = fd[nr];
			break;
		}
	}
	if (!err) {
		err = worker_new(b, index, fd, nr, &b->worker[index]);
		if (err)
			snprintf(why, why_bytes, "cannot set up worker %u: %s", index,
				 strerror(-err));
	}
	if (err)
		close_all(fd, nr);
	else
		b->nr_workers = index + 1;
	return err;
}

struct addr balancer_listen_addr(const struct balancer *b, unsigned int i)
{
	return b->listen[i];
}

static void listen_addrs(struct balancer *b)
{
	const struct worker *w = b->worker[0];

	for (unsigned int i = 0; i < w->nr_listen; i++) {
		b->listen[i].len = sizeof(b->listen[i].in6);
		getsockname(w->listen[i].fd, &b->listen[i].sa, &b->listen[i].len);
	}
}

/* ---- configuration ---- */

const struct config *balancer_config(const struct balancer *b)
{
	return atomic_load(&b->config);
}

static void apply_health(struct balancer *b, const struct config *c)
{
	atomic_store(&b->backends.checked, c->health.interval_ms && c->health.path[0]);
	atomic_store(&b->backends.fall, c->health.fall);
}

static bool all_seen(const struct balancer *b, const struct config *c)
{
	for (unsigned int i = 0; i < b->nr_workers; i++)
		if (atomic_load(&b->worker[i]->seen) != c)
			return false;
	return true;
}

/*
 * A slot of the table may be given to another server once no worker can still act on what it saw
 * of the former one: it looks at a server and counts itself in flight within one event, so all
 * must have taken over the configuration that removed it. Returns false when one does not.
 */
static bool workers_settle(const struct balancer *b)
{
	for (int ms = 0; !all_seen(b, atomic_load(&b->config)); ms++) {
		if (ms == SETTLE_MS)
			return false;
		usleep(1000);
	}
	return true;
}

static void free_retired(struct balancer *b, uint64_t now_ms, bool all)
{
	struct retired **at = &b->retired, *r;

	while ((r = *at)) {
		if (!all && now_ms < r->since_ms + CONFIG_GRACE_MS) {
			at = &r->next;
			continue;
		}
		*at = r->next;
		free((void *)r->config);
		free(r);
	}
}

static uint64_t random_secret(void);

/* The index of prefixes, made when it is first asked for and kept from then on. Changes nothing of
 * one that is there. Returns 0 or -ENOMEM. */
static int prefix_make(struct balancer *b, const struct config *c, char *why,
		       unsigned int why_bytes)
{
	struct prefix_index *p;

	if (config_key_index(c, KEY_PREFIX) == KEY_NONE || atomic_load(&b->prefix))
		return 0;
	p = prefix_index_new(c->affinity.prefix.max, c->affinity.prefix.ttl_ms, random_secret());
	if (!p) {
		snprintf(why, why_bytes, "prefix.max: no memory for %u nodes",
			 c->affinity.prefix.max);
		return -ENOMEM;
	}
	atomic_store(&b->prefix, p);
	return 0;
}

/* Returns the cap in force. */
static uint32_t prefix_limits(struct balancer *b, const struct config *c)
{
	struct prefix_index *p = atomic_load(&b->prefix);

	if (!p || config_key_index(c, KEY_PREFIX) == KEY_NONE)
		return c->affinity.prefix.max;
	return prefix_index_limits(p, c->affinity.prefix.max, c->affinity.prefix.ttl_ms);
}

static void restart_note(const struct config *c, uint32_t cap, uint32_t prefix_cap, char *why,
			 unsigned int why_bytes)
{
	snprintf(why, why_bytes, "%s%s%s",
		 cap < c->session_max ? "sessions.max: a larger one needs a restart" : "",
		 cap < c->session_max && prefix_cap < c->affinity.prefix.max ? "; " : "",
		 prefix_cap < c->affinity.prefix.max ? "prefix.max: a larger one needs a restart"
						     : "");
}

int balancer_reload(struct balancer *b, struct config *c, char *why, unsigned int why_bytes)
{
	const struct config *old = atomic_load(&b->config);
	struct retired *r = malloc(sizeof(*r));
	uint64_t now_ms = balancer_now_ms();
	uint32_t cap, prefix_cap;
	int err;

	if (!r) {
		snprintf(why, why_bytes, "out of memory");
		return -ENOMEM;
	}
	if (!workers_settle(b)) {
		snprintf(why, why_bytes,
			 "a worker has not yet taken over the previous "
			 "configuration; reload again");
		free(r);
		return -EAGAIN;
	}
	err = prefix_make(b, c, why, why_bytes);
	if (err) {
		free(r);
		return err;
	}
	err = backend_table_apply(&b->backends, c, b->sessions, now_ms);
	if (err) {
		snprintf(why, why_bytes,
			 "backends: no free slot (%d at most, removed ones count until their "
			 "sessions have expired)",
			 BACKENDS_MAX);
		free(r);
		return err;
	}
	/* Nothing fails from here on, and nothing was changed before. */
	prefix_cap = prefix_limits(b, c);
	cap = session_table_limits(b->sessions, c->session_max, c->session_ttl_ms);
	restart_note(c, cap, prefix_cap, why, why_bytes);
	apply_health(b, c);
	if (b->steer)
		steer_configure(b->steer, c);
	atomic_store(&b->config, c);
	*r = (struct retired){.next = b->retired, .config = old, .since_ms = now_ms};
	b->retired = r;
	atomic_fetch_add(&b->reloads, 1);
	for (unsigned int i = 0; i < b->nr_workers; i++)
		worker_wake(b->worker[i]);
	return 0;
}

/* ---- life ---- */

static uint64_t random_secret(void)
{
	uint64_t secret;

	if (getrandom(&secret, sizeof(secret), 0) != sizeof(secret))
		secret = balancer_now_ns();
	return secret;
}

static void workers_stop(struct balancer *b)
{
	for (unsigned int i = 0; i < b->nr_workers; i++) {
		atomic_store(&b->worker[i]->stop, true);
		worker_wake(b->worker[i]);
	}
	for (unsigned int i = 0; i < b->nr_workers; i++)
		worker_free(b->worker[i]);
	b->nr_workers = 0;
}

int balancer_init(struct balancer *b, struct config *c, char *why, unsigned int why_bytes)
{
	if (!c->workers) {
		snprintf(why, why_bytes, "workers: must be at least 1");
		return -EINVAL;
	}
	b->started_ms = balancer_now_ms();
	wait_queues_init(&b->wait);
	pressure_init(&b->pressure);
	backend_table_init(&b->backends, b->steer    ? steer_kern(b->steer)->backends
					 : b->splice ? splice_kern(b->splice)->backends
						     : NULL);
	apply_health(b, c);
	b->sessions = session_table_new(c->session_max, c->session_ttl_ms, random_secret());
	if (!b->sessions)
		snprintf(why, why_bytes, "sessions.max: no memory for %u sessions", c->session_max);
	if (!b->sessions || prefix_make(b, c, why, why_bytes)) {
		session_table_free(b->sessions);
		pressure_fini(&b->pressure);
		wait_queues_fini(&b->wait);
		return -ENOMEM;
	}
	if (b->steer) {
		const struct session_mirror mirror = steer_mirror(b->steer);

		session_table_mirror(b->sessions, &mirror);
	}
	/* An empty table has room for every set of servers that passed the check. */
	backend_table_apply(&b->backends, c, b->sessions, b->started_ms);
	atomic_store(&b->config, c);
	return 0;
}

int balancer_listen(struct balancer *b, char *why, unsigned int why_bytes)
{
	const struct config *c = atomic_load(&b->config);
	int err = ports_are_free(c, why, why_bytes);

	if (err)
		return err;
	for (unsigned int i = 0; i < c->workers; i++) {
		err = worker_open(b, i, why, why_bytes);
		if (err) {
			workers_stop(b);
			return err;
		}
		if (i == 0)
			listen_addrs(b);
	}
	return 0;
}

int balancer_start(struct balancer *b, char *why, unsigned int why_bytes)
{
	for (unsigned int i = 0; i < b->nr_workers; i++) {
		int err = worker_start(b->worker[i]);

		if (err) {
			snprintf(why, why_bytes, "cannot start worker %u: %s", i, strerror(-err));
			workers_stop(b);
			return err;
		}
	}
	return 0;
}

void balancer_drain(struct balancer *b)
{
	atomic_store(&b->draining, true);
	for (unsigned int i = 0; i < b->nr_workers; i++) {
		atomic_store(&b->worker[i]->drain, true);
		worker_wake(b->worker[i]);
	}
}

bool balancer_idle(const struct balancer *b)
{
	for (unsigned int i = 0; i < b->nr_workers; i++)
		if (!atomic_load(&b->worker[i]->closed))
			return false;
	return atomic_load(&b->connections) == 0;
}

void balancer_halt(struct balancer *b)
{
	workers_stop(b);
}

void balancer_fini(struct balancer *b)
{
	balancer_halt(b);
	session_table_free(b->sessions);
	prefix_index_free(atomic_load(&b->prefix));
	pressure_fini(&b->pressure);
	wait_queues_fini(&b->wait);
	free_retired(b, 0, true);
	free((void *)atomic_load(&b->config));
	memset(b, 0, sizeof(*b));
}

void balancer_tick(struct balancer *b)
{
	uint64_t now_ms = balancer_now_ms();

	session_sweep(b->sessions, now_ms, SWEEP_PER_TICK);
	if (atomic_load(&b->prefix))
		prefix_sweep(atomic_load(&b->prefix), now_ms, PREFIX_SWEEP_PER_TICK);
	for (uint32_t i = 0; i < atomic_load(&b->backends.nr); i++)
		backend_drain_tick(&b->backends.slot[i], now_ms);
	if (!all_seen(b, atomic_load(&b->config)))
		return;
	backend_table_reap(&b->backends, b->sessions);
	free_retired(b, now_ms, false);
}

const struct worker_stats *balancer_stats(const struct balancer *b, unsigned int worker)
{
	return b->worker[worker]->stats;
}
