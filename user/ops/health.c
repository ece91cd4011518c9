/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Active checks with one libcurl multi handle in one thread.
 *
 * Happy path: check_start() when a server is due, curl does the rest, check_finish() reports.
 * Failures: a refused connection, a timeout, a status other than 2xx are all one failed check;
 * how many make a server down is backend_report_check()'s business (health.fall), so one check
 * that a long prefill delayed harms nothing.
 * The close: health_stop() raises a flag and wakes the poll; the thread drops what is running.
 *
 * Each check opens a connection of its own, because it is to prove that the server accepts.
 */
#include "ops/health.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "ops/start_metric.h"

/* Longest sleep when nothing is due; wakeups do not depend on it. */
#define HEALTH_SLEEP_MS 60000

struct health_settings {
	char path[HEALTH_PATH_MAX];
	uint32_t interval_ms, timeout_ms;
	uint32_t rise, fall;
	char start_metric[METRIC_NAME_MAX];
};

/* "Cannot check" is said at most that often. */
#define SHORT_SAY_MS 1000

/* A page of vLLM's has some 100 KB. */
#define METRICS_PAGE_MAX (1024 * 1024)

struct check {
	struct health *health;
	CURL *easy; /* made on first use, kept for the slot */
	uint32_t slot;
	bool wanted;
	bool running;
	bool first; /* since wanted: starts at once, the next one falls into step */
	uint64_t due_ms;
	uint64_t name_hash; /* with addr: whom the check is about */
	struct addr addr;
	char name[BACKEND_NAME_MAX];
	char error[CURL_ERROR_SIZE];
	int socket_err; /* errno of socket(), which curl does not tell */
	/* The question after a good answer: when was it started? */
	bool asks_start;
	size_t page_bytes;
	struct start_metric start;
	char started[START_VALUE_MAX]; /* its latest answer; empty: none yet */
	uint32_t generation;	       /* of its cache then */
};

struct health {
	struct balancer *balancer;
	pthread_rwlock_t *lock;
	CURLM *multi;
	pthread_t thread;
	atomic_bool stop;
	atomic_bool changed;
	/* From here on the thread's own. */
	struct health_settings set;
	uint64_t short_ms; /* when "cannot check" may be said again */
	struct check check[BACKENDS_MAX];
};

/* Multiples of the golden ratio spread any number of slots evenly over the interval, and a
 * server that comes or goes shifts none of the others. */
static uint64_t phase_ms(uint32_t slot, uint32_t interval_ms)
{
	return (uint64_t)(uint32_t)(slot * 2654435769u) * interval_ms >> 32;
}

static size_t body_drop(char *data, size_t size, size_t nr, void *arg)
{
	return size * nr;
}

static size_t body_scan(char *data, size_t size, size_t nr, void *arg)
{
	struct check *k = arg;

	k->page_bytes += size * nr;
	if (k->page_bytes > METRICS_PAGE_MAX)
		return 0;
	start_metric_add(&k->start, k->health->set.start_metric, data, size * nr);
	return size * nr;
}

static curl_socket_t socket_open(void *arg, curlsocktype purpose, struct curl_sockaddr *to)
{
	struct check *k = arg;
	int fd = socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);

	k->socket_err = fd < 0 ? errno : 0;
	return fd < 0 ? CURL_SOCKET_BAD : fd;
}

static void check_cancel(struct health *h, struct check *k)
{
	if (k->running)
		curl_multi_remove_handle(h->multi, k->easy);
	k->running = false;
}

static void check_ask(struct health *h, struct check *k, const char *path)
{
	const struct health_settings *s = &h->set;
	char url[sizeof("http:///") + ADDR_TEXT_MAX + HEALTH_PATH_MAX], text[ADDR_TEXT_MAX];

	snprintf(url, sizeof(url), "http://%s%s%s", addr_format(&k->addr, text),
		 path[0] == '/' ? "" : "/", path);
	k->error[0] = '\0';
	k->socket_err = 0;
	curl_easy_reset(k->easy);
	curl_easy_setopt(k->easy, CURLOPT_OPENSOCKETFUNCTION, socket_open);
	curl_easy_setopt(k->easy, CURLOPT_OPENSOCKETDATA, k);
	curl_easy_setopt(k->easy, CURLOPT_URL, url);
	curl_easy_setopt(k->easy, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(k->easy, CURLOPT_PROTOCOLS_STR, "http");
	curl_easy_setopt(k->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(k->easy, CURLOPT_PROXY, ""); /* not even from the environment */
	curl_easy_setopt(k->easy, CURLOPT_USERAGENT, "kvpin-health/" KVPIN_VERSION);
	curl_easy_setopt(k->easy, CURLOPT_FRESH_CONNECT, 1L);
	curl_easy_setopt(k->easy, CURLOPT_FORBID_REUSE, 1L);
	curl_easy_setopt(k->easy, CURLOPT_TIMEOUT_MS, (long)s->timeout_ms);
	curl_easy_setopt(k->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)s->timeout_ms);
	curl_easy_setopt(k->easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(k->easy, CURLOPT_WRITEFUNCTION, k->asks_start ? body_scan : body_drop);
	curl_easy_setopt(k->easy, CURLOPT_WRITEDATA, k);
	curl_easy_setopt(k->easy, CURLOPT_ERRORBUFFER, k->error);
	curl_easy_setopt(k->easy, CURLOPT_PRIVATE, k);
	k->running = !curl_multi_add_handle(h->multi, k->easy);
}

static void check_start(struct health *h, struct check *k, uint64_t now_ms)
{
	const struct health_settings *s = &h->set;

	k->due_ms = k->first ? now_ms + s->interval_ms - phase_ms(k->slot, s->interval_ms)
			     : k->due_ms + s->interval_ms;
	if (k->due_ms <= now_ms)
		k->due_ms = now_ms + s->interval_ms;
	k->first = false;
	if (!k->easy)
		k->easy = curl_easy_init();
	if (!k->easy)
		return; /* out of memory says nothing about the server */
	k->health = h;
	k->asks_start = false;
	check_ask(h, k, s->path);
}

/* A text for the log: the cause of a failed check. */
static void check_why(const struct health *h, const struct check *k, CURLcode code, long status,
		      char *why, size_t why_bytes)
{
	if (code == CURLE_OK)
		snprintf(why, why_bytes, "status %ld", status);
	else if (code == CURLE_OPERATION_TIMEDOUT)
		snprintf(why, why_bytes, "no answer within %u ms", h->set.timeout_ms);
	else
		snprintf(why, why_bytes, "%s", k->error[0] ? k->error : curl_easy_strerror(code));
}

/* Is the slot still that server's? Under the lock. */
static bool check_current(const struct check *k, const struct backend *b)
{
	uint32_t state = atomic_load(&b->state);

	return (state == BACKEND_UP || state == BACKEND_DOWN) && b->name_hash == k->name_hash &&
	       addr_equal(&b->addr, &k->addr) && !strcmp(b->name, k->name);
}

static void start_ask(struct health *h, struct check *k)
{
	k->asks_start = true;
	k->page_bytes = 0;
	k->start = (struct start_metric){0};
	check_ask(h, k, "/metrics");
}

/* Another start than the one before is another process. No answer says nothing. */
static void start_finish(struct health *h, struct check *k, bool ok)
{
	struct backend *b = &h->balancer->backends.slot[k->slot];
	char text[ADDR_TEXT_MAX];
	bool restarted;

	if (!ok || !k->start.value[0])
		return;
	pthread_rwlock_rdlock(h->lock);
	restarted = check_current(k, b) && k->started[0] && strcmp(k->started, k->start.value);
	if (restarted)
		backend_report_restart(b, k->generation);
	k->generation = atomic_load(&b->generation);
	pthread_rwlock_unlock(h->lock);
	strcpy(k->started, k->start.value);
	if (restarted)
		LOG(INFO, "backend restarted, its sessions are cold", F_STR("backend", k->name),
		    F_STR("address", addr_format(&k->addr, text)), F_STR("started", k->started));
}

/* No check came about, for want of something here: no word on the server. */
static bool check_blameless(struct health *h, const struct check *k, CURLcode code, int err)
{
	uint64_t now_ms = balancer_now_ms();

	if ((code != CURLE_COULDNT_CONNECT || !backend_blameless(err)) &&
	    code != CURLE_OUT_OF_MEMORY)
		return false;
	if (now_ms >= h->short_ms)
		LOG(WARN, "cannot check servers", F_STR("backend", k->name),
		    F_STR("error", code == CURLE_OUT_OF_MEMORY ? "out of memory" : strerror(err)));
	if (now_ms >= h->short_ms)
		h->short_ms = now_ms + SHORT_SAY_MS;
	return true;
}

static void check_finish(struct health *h, struct check *k, CURLcode code)
{
	struct backend *b = &h->balancer->backends.slot[k->slot];
	char why[CURL_ERROR_SIZE], text[ADDR_TEXT_MAX];
	long status = 0, os_errno = 0;
	bool changed = false;
	bool ok;

	curl_easy_getinfo(k->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(k->easy, CURLINFO_OS_ERRNO, &os_errno);
	curl_multi_remove_handle(h->multi, k->easy);
	k->running = false;
	ok = code == CURLE_OK && status >= 200 && status <= 299;
	if (k->asks_start) {
		start_finish(h, k, ok);
		return;
	}
	if (check_blameless(h, k, code, k->socket_err ? k->socket_err : (int)os_errno))
		return;

	pthread_rwlock_rdlock(h->lock);
	if (check_current(k, b) && code == CURLE_COULDNT_CONNECT)
		backend_report_refused(b);
	if (check_current(k, b))
		changed = backend_report_check(b, ok, h->set.rise, h->set.fall, balancer_now_ms());
	pthread_rwlock_unlock(h->lock);

	if (ok) {
		if (h->set.start_metric[0])
			start_ask(h, k);
		if (changed)
			LOG(INFO, "backend up", F_STR("backend", k->name),
			    F_STR("address", addr_format(&k->addr, text)), F_STR("cause", "check"),
			    F_INT("status", status));
		return;
	}
	check_why(h, k, code, status, why, sizeof(why));
	if (changed)
		LOG(WARN, "backend down", F_STR("backend", k->name),
		    F_STR("address", addr_format(&k->addr, text)), F_STR("cause", "check"),
		    F_STR("error", why));
	else
		LOG(DEBUG, "check failed", F_STR("backend", k->name),
		    F_STR("address", addr_format(&k->addr, text)), F_STR("error", why));
}

/* Take the configuration in force over. */
static void health_sync(struct health *h)
{
	struct health_settings set = {0};
	uint64_t now_ms = balancer_now_ms();
	const struct config *c;
	bool anew, on;

	pthread_rwlock_rdlock(h->lock);
	c = balancer_config(h->balancer);
	memcpy(set.path, c->health.path, sizeof(set.path));
	set.interval_ms = c->health.interval_ms;
	set.timeout_ms = c->health.timeout_ms;
	set.rise = c->health.rise;
	set.fall = c->health.fall;
	memcpy(set.start_metric, c->health.start_metric, sizeof(set.start_metric));
	on = config_checks(c);
	anew = strcmp(set.path, h->set.path) || set.interval_ms != h->set.interval_ms ||
	       set.timeout_ms != h->set.timeout_ms || strcmp(set.start_metric, h->set.start_metric);
	h->set = set;
	for (uint32_t slot = 0; slot < BACKENDS_MAX; slot++) {
		const struct backend *b = &h->balancer->backends.slot[slot];
		struct check *k = &h->check[slot];
		uint32_t state = atomic_load(&b->state);

		if (!on || (state != BACKEND_UP && state != BACKEND_DOWN)) {
			check_cancel(h, k);
			k->wanted = false;
			continue;
		}
		if (k->wanted && !anew && check_current(k, b))
			continue;
		check_cancel(h, k);
		k->slot = slot;
		k->wanted = k->first = true;
		k->started[0] = '\0';
		k->due_ms = now_ms;
		k->name_hash = b->name_hash;
		k->addr = b->addr;
		memcpy(k->name, b->name, sizeof(k->name));
	}
	pthread_rwlock_unlock(h->lock);
}

/* Starts what is due; returns how long to sleep. */
static int health_start_due(struct health *h)
{
	uint64_t now_ms = balancer_now_ms(), next_ms = now_ms + HEALTH_SLEEP_MS;

	for (uint32_t slot = 0; slot < BACKENDS_MAX; slot++) {
		struct check *k = &h->check[slot];

		/* A check that outlasts the interval delays the next one. */
		if (!k->wanted || k->running)
			continue;
		if (k->due_ms <= now_ms)
			check_start(h, k, now_ms);
		if (!k->running && k->due_ms < next_ms)
			next_ms = k->due_ms;
	}
	return (int)(next_ms - now_ms);
}

static void *health_thread(void *arg)
{
	struct health *h = arg;
	struct CURLMsg *msg;
	struct check *k;
	int running, queued, sleep_ms;

	while (!atomic_load(&h->stop)) {
		if (atomic_exchange(&h->changed, false))
			health_sync(h);
		sleep_ms = health_start_due(h);
		curl_multi_perform(h->multi, &running);
		while ((msg = curl_multi_info_read(h->multi, &queued))) {
			if (msg->msg != CURLMSG_DONE)
				continue;
			curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&k);
			/* @msg dies with the handle's removal. */
			check_finish(h, k, msg->data.result);
			sleep_ms = 0; /* its next check may be due already */
		}
		curl_multi_poll(h->multi, NULL, 0, sleep_ms, NULL);
	}
	for (uint32_t slot = 0; slot < BACKENDS_MAX; slot++)
		check_cancel(h, &h->check[slot]);
	return NULL;
}

struct health *health_start(struct balancer *b, pthread_rwlock_t *lock, char *why,
			    unsigned int why_bytes)
{
	struct health *h = NULL;
	int rc;

	if (curl_global_init(CURL_GLOBAL_DEFAULT)) {
		snprintf(why, why_bytes, "health: libcurl does not start");
		return NULL;
	}
	h = calloc(1, sizeof(*h));
	if (!h || !(h->multi = curl_multi_init())) {
		snprintf(why, why_bytes, "health: out of memory");
		goto err;
	}
	h->balancer = b;
	h->lock = lock;
	atomic_store(&h->changed, true);
	rc = pthread_create(&h->thread, NULL, health_thread, h);
	if (rc) {
		snprintf(why, why_bytes, "health: no thread: %s", strerror(rc));
		goto err_multi;
	}
	return h;
err_multi:
	curl_multi_cleanup(h->multi);
err:
	free(h);
	curl_global_cleanup();
	return NULL;
}

void health_reload(struct health *h)
{
	atomic_store(&h->changed, true);
	curl_multi_wakeup(h->multi);
}

void health_stop(struct health *h)
{
	if (!h)
		return;
	atomic_store(&h->stop, true);
	curl_multi_wakeup(h->multi);
	pthread_join(h->thread, NULL);
	for (uint32_t slot = 0; slot < BACKENDS_MAX; slot++)
		curl_easy_cleanup(h->check[slot].easy);
	curl_multi_cleanup(h->multi);
	free(h);
	curl_global_cleanup();
}
