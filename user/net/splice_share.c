/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What all workers share of the splice path: the loaded kernel side, its free entries, the devices.
 * Opened before the workers start, closed after they ended.
 */
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/hist.h"
#include "base/log.h"
#include "net/splice_private.h"

/* A client, its servers, and connections that were closed and are not yet over. */
#define ENTRIES_PER_CLIENT 4
/* Behind steer.pin: the two paths have nothing in common there. */
#define PIN_SUFFIX "-splice"
/* At the exit: how long peers that do not acknowledge are waited for, looking so often. */
#define LEFT_MS	     5000
#define LEFT_POLL_MS 5
/* A device that was not there at the start, and that nobody uses any more. */
#define DEVICE_IDLE_MS 1000
/* ... is looked for so often. */
#define REVIEW_TICKS 10

static uint64_t now_ms(void)
{
	return uv_hrtime() / 1000000;
}

bool splice_refuse(struct worker *w, enum kvpin_splice_refusal reason)
{
	stat_add(&w->stats->splice_refused[reason], 1);
	return false;
}

/* Where clients and servers are: the devices of the listeners' addresses and of the routes to the
 * servers. Those that turn out to be needed later are added when a connection comes over them. */
static int find_devices(struct device_set *set, const struct config *config, char *why,
			size_t why_bytes)
{
	struct device_way way;
	int err = 0;

	device_add(set, DEVICE_LOOPBACK);
	for (unsigned int i = 0; i < config->nr_listen && !err; i++)
		err = device_add_local(set, &config->listen[i]);
	for (unsigned int i = 0; i < config->nr_backends && !err; i++) {
		if (device_towards(&config->backend[i].addr, NULL, &way) ||
		    !device_fits(way.ifindex))
			continue;
		if (!device_add(set, way.ifindex))
			err = -E2BIG;
	}
	if (err)
		snprintf(why, why_bytes, "splice: cannot find the network devices: %s",
			 strerror(-err));
	return err;
}

/* ---- devices that come and go ---- */

bool splice_device_use(struct splice *s, int ifindex)
{
	struct splice_device *d = NULL;

	if (kern_splice_attach(&s->kern, ifindex))
		return false;
	for (unsigned int i = 0; i < DEVICES_MAX; i++) {
		if (s->device[i].ifindex == ifindex) {
			s->device[i].users++;
			return true;
		}
		if (!s->device[i].ifindex)
			d = &s->device[i];
	}
	if (!d)
		return false;
	*d = (struct splice_device){.ifindex = ifindex, .users = 1};
	return true;
}

void splice_device_leave(struct splice *s, int ifindex)
{
	for (unsigned int i = 0; i < DEVICES_MAX; i++)
		if (s->device[i].ifindex == ifindex && !--s->device[i].users)
			s->device[i].idle_ms = now_ms();
}

/* What is gone, and what nobody has needed for a while. */
static void devices_review(struct splice *s)
{
	uint64_t now = now_ms();

	pthread_mutex_lock(&s->lock);
	for (unsigned int i = 0; i < s->kern.devices.nr; i++) {
		int ifindex = s->kern.devices.ifindex[i];
		char name[IF_NAMESIZE];

		if (ifindex == DEVICE_LOOPBACK || if_indextoname((unsigned int)ifindex, name))
			continue;
		device_remove(&s->fixed, ifindex);
		kern_splice_detach(&s->kern, ifindex);
		i--;
	}
	for (unsigned int i = 0; i < DEVICES_MAX; i++) {
		struct splice_device *d = &s->device[i];

		if (!d->ifindex || d->users || now < d->idle_ms + DEVICE_IDLE_MS)
			continue;
		if (!device_has(&s->fixed, d->ifindex))
			kern_splice_detach(&s->kern, d->ifindex);
		d->ifindex = 0;
	}
	pthread_mutex_unlock(&s->lock);
}

static int entries_init(struct splice *s, uint32_t nr)
{
	s->free = malloc(nr * sizeof(*s->free));
	s->conn = calloc(nr, sizeof(*s->conn));
	s->left = malloc(nr * sizeof(*s->left));
	if (!s->free || !s->conn || !s->left)
		return -ENOMEM;
	/* The lowest are taken first. */
	for (s->nr_free = 0; s->nr_free < nr; s->nr_free++)
		s->free[s->nr_free] = nr - 1 - s->nr_free;
	return 0;
}

static void splice_free(struct splice *s)
{
	if (s->watch_fd >= 0)
		close(s->watch_fd);
	free(s->free);
	free(s->conn);
	free(s->left);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

int splice_open(struct splice **out, const struct config *config, int backends_fd, uid_t uid,
		gid_t gid, char *why, size_t why_bytes)
{
	char pin_dir[STATE_PATH_MAX + sizeof(PIN_SUFFIX)];
	struct kern_splice_params params = {
		.pin_dir = pin_dir,
		.uid = uid,
		.gid = gid,
		.conns = ENTRIES_PER_CLIENT * config->limit.connections,
		.workers = config->workers,
		.ring_bytes = config->splice.ring_bytes,
		.backends_fd = backends_fd,
		.ttft_le_ns = hist_ttft_bounds.le_ns,
		.gap_le_ns = hist_token_gap_bounds.le_ns,
	};
	struct splice *s = calloc(1, sizeof(*s));
	int err;

	if (!s) {
		snprintf(why, why_bytes, "splice: out of memory");
		return -ENOMEM;
	}
	s->watch_fd = -1;
	snprintf(pin_dir, sizeof(pin_dir), "%s" PIN_SUFFIX, config->steer.pin);
	pthread_mutex_init(&s->lock, NULL);
	err = find_devices(&params.devices, config, why, why_bytes);
	if (!err) {
		err = entries_init(s, params.conns);
		if (err)
			snprintf(why, why_bytes, "splice: out of memory");
	}
	if (!err)
		err = kern_splice_open(&s->kern, &params, why, why_bytes);
	if (err) {
		splice_free(s);
		return err;
	}
	s->fixed = s->kern.devices;
	/* Without it, only new connections are looked at. */
	s->watch_fd = device_watch_open();
	*out = s;
	return 0;
}

/* Has the peer acknowledged everything, our FIN included? Or does it not want to? */
static bool left_done(const struct kvpin_splice_conn *k)
{
	uint32_t flags = __atomic_load_n(&k->flags, __ATOMIC_RELAXED);

	return (flags & KVPIN_SPLICE_RESET) ||
	       ((flags & KVPIN_SPLICE_FIN_SENT) &&
		__atomic_load_n(&k->acked, __ATOMIC_RELAXED) >=
			__atomic_load_n(&k->sent, __ATOMIC_RELAXED));
}

/*
 * Connections that were closed and whose numbers are shifted need the program until their last byte
 * and FIN have arrived: without it TCP would repeat them with numbers that mean nothing to the
 * peer. What comes behind that, in TIME_WAIT, loses nobody anything.
 */
static void left_wait(struct splice *s)
{
	const struct timespec pause = {.tv_nsec = LEFT_POLL_MS * 1000000};
	uint64_t until_ms = now_ms() + LEFT_MS;

	while (s->nr_left && now_ms() < until_ms) {
		for (uint32_t i = 0; i < s->nr_left;) {
			if (left_done(&s->kern.conns[s->left[i]]))
				s->left[i] = s->left[--s->nr_left];
			else
				i++;
		}
		if (s->nr_left)
			nanosleep(&pause, NULL);
	}
	if (s->nr_left)
		LOG(WARN, "spliced connections were closed and not all of their bytes arrived",
		    F_UINT("connections", s->nr_left), F_UINT("waited_ms", LEFT_MS));
}

void splice_close(struct splice *s)
{
	if (!s)
		return;
	left_wait(s);
	kern_splice_close(&s->kern);
	splice_free(s);
}

void splice_tick(struct splice *s, const struct config *config)
{
	kern_splice_tick(&s->kern, config->timeout.stall_ms * 1000000ULL);
	if (s->watch_fd >= 0 && device_watch_changed(s->watch_fd)) {
		__atomic_fetch_add(&s->changes, 1, __ATOMIC_RELEASE);
		kern_splice_moved(&s->kern);
		devices_review(s);
	} else if (++s->ticks % REVIEW_TICKS == 0) {
		devices_review(s);
	}
}

void splice_devices(struct splice *s, struct device_set *devices)
{
	pthread_mutex_lock(&s->lock);
	*devices = s->kern.devices;
	pthread_mutex_unlock(&s->lock);
}

struct kern_splice *splice_kern(struct splice *s)
{
	return &s->kern;
}
