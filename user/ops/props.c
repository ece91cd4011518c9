/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Asking servers for their slots.
 *
 * Happy path: the thread wakes every second, asks those that are due, and sets their slots.
 * Failures: no answer, or one without total_slots (another engine): nothing changes, and it is
 * asked again a minute later; it is said in the log once per server.
 * The close: props_stop() raises a flag, which also cuts a running question.
 */
#include "ops/props.h"

#include <curl/curl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "net/wait.h"

#define LOOK_MS	     1000
#define ASK_EVERY_MS 60000
#define TIMEOUT_MS   2000L
/* /props holds the model's chat template. */
#define BODY_MAX (1024 * 1024)

/* What is known of one slot's server; the thread's own. */
struct asked {
	uint64_t name_hash;
	uint64_t since_ms; /* the backend's changed_ms when it was asked */
	uint64_t due_ms;
	uint32_t slots;
	bool said;
};

struct props {
	struct balancer *balancer;
	pthread_rwlock_t *lock;
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	bool stop; /* under the mutex */
	struct asked asked[BACKENDS_MAX];
};

struct body {
	char *data;
	size_t len;
};

static size_t body_add(char *data, size_t size, size_t nr, void *arg)
{
	struct body *b = arg;
	size_t len = size * nr;
	char *more;

	if (b->len + len > BODY_MAX)
		return 0;
	more = realloc(b->data, b->len + len);
	if (!more)
		return 0;
	memcpy(more + b->len, data, len);
	b->data = more;
	b->len += len;
	return len;
}

uint32_t props_parse(const char *body, size_t len)
{
	json_t *root = json_loadb(body, len, 0, NULL);
	json_int_t n = json_integer_value(json_object_get(root, "total_slots"));

	json_decref(root);
	return n > 0 && n <= SLOTS_MAX ? (uint32_t)n : 0;
}

static bool stopping(struct props *p)
{
	bool stop;

	pthread_mutex_lock(&p->mutex);
	stop = p->stop;
	pthread_mutex_unlock(&p->mutex);
	return stop;
}

static int on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
	return stopping(arg);
}

/* Returns the slots, or 0. */
static uint32_t ask(struct props *p, const struct addr *addr)
{
	char url[sizeof("http:///props") + ADDR_TEXT_MAX], text[ADDR_TEXT_MAX];
	CURL *easy = curl_easy_init();
	struct body body = {0};
	uint32_t slots = 0;
	long status = 0;

	if (!easy)
		return 0;
	snprintf(url, sizeof(url), "http://%s/props", addr_format(addr, text));
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http");
	curl_easy_setopt(easy, CURLOPT_PROXY, ""); /* not even from the environment */
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "kvpin-props/" KVPIN_VERSION);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, TIMEOUT_MS);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, body_add);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, &body);
	curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
	curl_easy_setopt(easy, CURLOPT_XFERINFODATA, p);
	if (curl_easy_perform(easy) == CURLE_OK) {
		curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
		if (status == 200)
			slots = props_parse(body.data ? body.data : "", body.len);
	}
	curl_easy_cleanup(easy);
	free(body.data);
	return slots;
}

/* Is the server of this slot to be asked now? Then @addr is where. */
static bool slot_due(struct props *p, uint32_t slot, uint64_t now_ms, struct addr *addr,
		     uint64_t *name_hash)
{
	const struct backend *b = &p->balancer->backends.slot[slot];
	struct asked *k = &p->asked[slot];
	bool due = false;

	pthread_rwlock_rdlock(p->lock);
	if (atomic_load(&b->slots_auto) && atomic_load(&b->state) == BACKEND_UP) {
		if (k->name_hash != b->name_hash)
			*k = (struct asked){.name_hash = b->name_hash};
		due = now_ms >= k->due_ms || atomic_load(&b->changed_ms) != k->since_ms;
		k->since_ms = atomic_load(&b->changed_ms);
		*addr = b->addr;
		*name_hash = b->name_hash;
	}
	pthread_rwlock_unlock(p->lock);
	return due;
}

static void slot_ask(struct props *p, uint32_t slot, uint64_t now_ms)
{
	struct backend *b = &p->balancer->backends.slot[slot];
	struct asked *k = &p->asked[slot];
	uint64_t name_hash;
	struct addr addr;
	uint32_t slots;

	if (!slot_due(p, slot, now_ms, &addr, &name_hash))
		return;
	k->due_ms = now_ms + ASK_EVERY_MS;
	slots = ask(p, &addr);
	pthread_rwlock_rdlock(p->lock);
	if (b->name_hash == name_hash && addr_equal(&b->addr, &addr)) {
		if (slots && slots != k->slots)
			LOG(INFO, "backend's slots", F_STR("backend", b->name),
			    F_UINT("slots", slots));
		if (!slots && !k->said)
			LOG(WARN, "slots: auto: /props says nothing of them, so they are not known",
			    F_STR("backend", b->name));
		k->said = !slots;
		if (slots) {
			k->slots = slots;
			backend_set_slots(b, slots);
		}
	}
	pthread_rwlock_unlock(p->lock);
	wait_kick(p->balancer, slot);
}

static void *props_thread(void *arg)
{
	struct props *p = arg;
	struct timespec until;

	while (!stopping(p)) {
		for (uint32_t i = 0; i < atomic_load(&p->balancer->backends.nr) && !stopping(p);
		     i++)
			slot_ask(p, i, balancer_now_ms());
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += LOOK_MS / 1000;
		pthread_mutex_lock(&p->mutex);
		if (!p->stop)
			pthread_cond_timedwait(&p->cond, &p->mutex, &until);
		pthread_mutex_unlock(&p->mutex);
	}
	return NULL;
}

struct props *props_start(struct balancer *b, pthread_rwlock_t *lock, char *why,
			  unsigned int why_bytes)
{
	struct props *p = calloc(1, sizeof(*p));
	pthread_condattr_t attr;

	if (!p) {
		snprintf(why, why_bytes, "props: out of memory");
		return NULL;
	}
	p->balancer = b;
	p->lock = lock;
	pthread_mutex_init(&p->mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&p->cond, &attr);
	pthread_condattr_destroy(&attr);
	if (!pthread_create(&p->thread, NULL, props_thread, p))
		return p;
	snprintf(why, why_bytes, "props: no thread");
	pthread_cond_destroy(&p->cond);
	pthread_mutex_destroy(&p->mutex);
	free(p);
	return NULL;
}

void props_reload(struct props *p)
{
	pthread_mutex_lock(&p->mutex);
	pthread_cond_signal(&p->cond);
	pthread_mutex_unlock(&p->mutex);
}

void props_stop(struct props *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->mutex);
	p->stop = true;
	pthread_cond_signal(&p->cond);
	pthread_mutex_unlock(&p->mutex);
	pthread_join(p->thread, NULL);
	pthread_cond_destroy(&p->cond);
	pthread_mutex_destroy(&p->mutex);
	free(p);
}
