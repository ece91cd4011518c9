/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The control socket's commands about decisions: drain and undrain, pin and unpin, pressure, the
 * experiment's report, explain. Each reads its arguments, does one thing under the daemon's lock
 * and answers with an object.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "core/report.h"
#include "kvpin_key.h"
#include "net/worker.h"
#include "ops/control_private.h"
#include "ops/explain_json.h"

/* A session that said nothing for so long is taken to be over, unless told otherwise. */
#define DRAIN_IDLE_MS 60000
/* ... and a drain that nobody gave an end has one: most engines' caches are cold by then. */
#define DRAIN_DEADLINE_MS (15 * 60 * 1000)
#define DRAIN_MS_MAX	  (24ULL * 3600 * 1000)
#define EXPLAIN_DEFAULT	  10

static const char *argument(struct MHD_Connection *conn, const char *name)
{
	return MHD_lookup_connection_value(conn, MHD_GET_ARGUMENT_KIND, name);
}

/* What may be given, and what counts when it is not. */
struct number {
	const char *name;
	uint64_t otherwise, min, max;
};

static const struct number deadline_of = {"deadline_ms", DRAIN_DEADLINE_MS, 0, DRAIN_MS_MAX};
static const struct number idle_of = {"idle_ms", DRAIN_IDLE_MS, 1, DRAIN_MS_MAX};
static const struct number last_of = {"last", EXPLAIN_DEFAULT, 0, EXPLAIN_RING};

/* Returns 0 or -EINVAL. */
static int argument_number(struct MHD_Connection *conn, const struct number *of, uint64_t *n)
{
	const char *text = argument(conn, of->name);
	char *end;

	*n = of->otherwise;
	if (!text)
		return 0;
	errno = 0;
	*n = strtoull(text, &end, 10);
	return *text < '0' || *text > '9' || errno || *end || *n < of->min || *n > of->max ? -EINVAL
											   : 0;
}

static enum MHD_Result reply_bad(struct MHD_Connection *conn, const struct number *of)
{
	char why[CONTROL_TEXT_MAX];

	snprintf(why, sizeof(why), "%s: wanted a number from %" PRIu64 " to %" PRIu64, of->name,
		 of->min, of->max);
	return control_reply_error(conn, MHD_HTTP_BAD_REQUEST, why);
}

/* The server that the request names, under the lock; NULL: answered in @rc. */
static struct backend *argument_backend(const struct control_params *p, struct MHD_Connection *conn,
					enum MHD_Result *rc)
{
	const char *name = argument(conn, "backend");
	struct backend *b = name ? backend_find(&p->balancer->backends, name) : NULL;
	char why[CONTROL_TEXT_MAX];

	if (b)
		return b;
	snprintf(why, sizeof(why), "no backend is called \"%.100s\"", name ? name : "");
	*rc = control_reply_error(conn, MHD_HTTP_NOT_FOUND, why);
	return NULL;
}

/* The session that the request names by key or id. Returns 0 or -EINVAL. */
static int argument_session(struct MHD_Connection *conn, uint64_t *id)
{
	const char *key = argument(conn, "key"), *hex = argument(conn, "id");

	if (key && key[0]) {
		*id = kvpin_key_hash((const __u8 *)key, strlen(key));
		return 0;
	}
	/* strtoull() would take signs, blanks and 0x too. */
	if (!hex || !hex[0] || strlen(hex) > 16 || hex[strspn(hex, "0123456789abcdefABCDEF")])
		return -EINVAL;
	*id = strtoull(hex, NULL, 16);
	return 0;
}

static enum MHD_Result reply_no_session(struct MHD_Connection *conn)
{
	return control_reply_error(conn, MHD_HTTP_BAD_REQUEST,
				   "key or id: missing; an id has up to 16 hexadecimal digits");
}

static void put_session(json_t *body, uint64_t id)
{
	char text[17];

	snprintf(text, sizeof(text), "%016" PRIx64, id);
	control_put_str(body, "session", text);
}

/* ---- drain ---- */

enum MHD_Result control_drain(const struct control_view *v, struct MHD_Connection *conn)
{
	const struct control_params *p = &v->p;
	uint64_t deadline_ms, idle_ms, sessions;
	enum MHD_Result rc;
	struct backend *b;
	json_t *body;

	if (argument_number(conn, &deadline_of, &deadline_ms))
		return reply_bad(conn, &deadline_of);
	if (argument_number(conn, &idle_of, &idle_ms))
		return reply_bad(conn, &idle_of);
	pthread_rwlock_rdlock(p->lock);
	b = argument_backend(p, conn, &rc);
	if (!b) {
		pthread_rwlock_unlock(p->lock);
		return rc;
	}
	backend_drain(b, balancer_now_ms() + deadline_ms, (uint32_t)idle_ms);
	/* One that has no time at all is over now, not at the next tick. */
	backend_drain_tick(b, balancer_now_ms());
	sessions = session_count(p->balancer->sessions, b->id);
	LOG(INFO, "backend draining", F_STR("backend", b->name), F_UINT("sessions", sessions),
	    F_UINT("deadline_ms", deadline_ms), F_UINT("idle_ms", idle_ms));
	body = json_object();
	control_put_str(body, "backend", b->name);
	/* Without pins there is nothing that it could keep. */
	control_put_bool(body, "keeps_sessions",
			 balancer_config(p->balancer)->placement != PLACEMENT_HASH);
	pthread_rwlock_unlock(p->lock);
	control_put_int(body, "sessions", sessions);
	control_put_real(body, "deadline_s", (double)deadline_ms / 1000);
	control_put_real(body, "idle_s", (double)idle_ms / 1000);
	return control_reply(conn, MHD_HTTP_OK, body);
}

enum MHD_Result control_undrain(const struct control_view *v, struct MHD_Connection *conn)
{
	const struct control_params *p = &v->p;
	enum MHD_Result rc;
	struct backend *b;
	json_t *body;

	pthread_rwlock_rdlock(p->lock);
	b = argument_backend(p, conn, &rc);
	if (!b) {
		pthread_rwlock_unlock(p->lock);
		return rc;
	}
	body = json_object();
	control_put_str(body, "backend", b->name);
	control_put_bool(body, "was_draining", atomic_load(&b->drain_ms));
	backend_undrain(b);
	LOG(INFO, "backend drains no more", F_STR("backend", b->name));
	pthread_rwlock_unlock(p->lock);
	return control_reply(conn, MHD_HTTP_OK, body);
}

/* ---- pins by hand ---- */

/* Why the session's next request would not go there; NULL: it would, if the server is up. */
static const char *pin_in_vain(const struct config *c, const struct backend *b, uint64_t id)
{
	if (c->placement == PLACEMENT_HASH)
		return "placement: hash follows no pins; use another one to pin by hand";
	if (guard_control(id, c->experiment_milli))
		return "the session is in the experiment's control arm, which follows no pins; "
		       "lower experiment.share";
	if (!atomic_load(&b->weight))
		return "the server has weight 0 and keeps no session; give it weight";
	if (atomic_load(&b->drain_over))
		return "the server is drained; undrain it first";
	return NULL;
}

enum MHD_Result control_pin(const struct control_view *v, struct MHD_Connection *conn)
{
	const struct control_params *p = &v->p;
	struct session_txn txn;
	const char *in_vain;
	enum MHD_Result rc;
	struct backend *b;
	json_t *body;
	uint64_t id;
	bool known;

	if (argument_session(conn, &id))
		return reply_no_session(conn);
	pthread_rwlock_rdlock(p->lock);
	b = argument_backend(p, conn, &rc);
	if (!b) {
		pthread_rwlock_unlock(p->lock);
		return rc;
	}
	in_vain = pin_in_vain(balancer_config(p->balancer), b, id);
	if (in_vain) {
		pthread_rwlock_unlock(p->lock);
		return control_reply_error(conn, MHD_HTTP_CONFLICT, in_vain);
	}
	body = json_object();
	put_session(body, id);
	control_put_str(body, "backend", b->name);
	known = session_begin(p->balancer->sessions, id, balancer_now_ms(), &txn);
	control_put_str(body, "was",
			known ? p->balancer->backends.slot[txn.session.backend].name : "");
	txn.again = true;
	txn.stamp = balancer_stamp();
	txn.generation = backend_generation(b);
	session_commit(&txn, b->id);
	pthread_rwlock_unlock(p->lock);
	return control_reply(conn, MHD_HTTP_OK, body);
}

enum MHD_Result control_unpin(const struct control_view *v, struct MHD_Connection *conn)
{
	const struct control_params *p = &v->p;
	struct session_txn txn;
	json_t *body;
	uint64_t id;

	if (argument_session(conn, &id))
		return reply_no_session(conn);
	body = json_object();
	put_session(body, id);
	pthread_rwlock_rdlock(p->lock);
	if (session_begin(p->balancer->sessions, id, balancer_now_ms(), &txn))
		control_put_str(body, "was", p->balancer->backends.slot[txn.session.backend].name);
	else
		control_put_str(body, "was", "");
	txn.stamp = balancer_stamp();
	session_forget(&txn);
	pthread_rwlock_unlock(p->lock);
	return control_reply(conn, MHD_HTTP_OK, body);
}

/* ---- pressure ---- */

static enum MHD_Result reply_pressure(const struct control_params *p, struct MHD_Connection *conn,
				      bool ack)
{
	uint64_t now_ms = balancer_now_ms(), total;
	json_t *body = json_object();

	if (ack)
		control_put_int(body, "acknowledged", pressure_ack(&p->balancer->pressure, now_ms));
	control_put_int(body, "pressure", pressure_get(&p->balancer->pressure, now_ms, &total));
	control_put_int(body, "window_s", PRESSURE_WINDOW_S);
	control_put_int(body, "forced_total", total);
	return control_reply(conn, MHD_HTTP_OK, body);
}

enum MHD_Result control_pressure(const struct control_view *v, struct MHD_Connection *conn)
{
	return reply_pressure(&v->p, conn, false);
}

enum MHD_Result control_pressure_ack(const struct control_view *v, struct MHD_Connection *conn)
{
	return reply_pressure(&v->p, conn, true);
}

/* ---- report ---- */

static void arm_sum(const struct balancer *b, enum report_arm which, struct report_count *sum,
		    uint64_t *recomputed)
{
	*sum = (struct report_count){0};
	*recomputed = 0;
	for (unsigned int w = 0; w < b->nr_workers; w++) {
		const struct arm_stats *a = &balancer_stats(b, w)->arm[which];

		sum->turns += stat_get(&a->turns);
		sum->sum_ms += (double)stat_get(&a->sum_us) / 1000;
		sum->sum_sq_ms += (double)stat_get(&a->sum_sq) / 100;
		*recomputed += stat_get(&a->recomputed);
		for (unsigned int i = 0; i < REPORT_BUCKETS; i++)
			sum->bucket[i] += stat_get(&a->bucket[i]);
	}
}

static json_t *arm_json(enum report_arm which, const struct report_count *n, uint64_t recomputed)
{
	struct report_figures f = report_figures(n);
	json_t *o = json_object();

	control_put_str(o, "arm", report_arm_names[which]);
	control_put_int(o, "turns", n->turns);
	control_put_real(o, "mean_ms", f.mean_ms);
	control_put_real(o, "p50_ms", f.p50_ms);
	control_put_real(o, "p90_ms", f.p90_ms);
	control_put_int(o, "recomputed_tokens", recomputed / GUARD_TOKEN_BYTES);
	return o;
}

enum MHD_Result control_report(const struct control_view *v, struct MHD_Connection *conn)
{
	const struct control_params *p = &v->p;
	json_t *body = json_object(), *arms = json_array(), *gain = json_object();
	struct report_count n[REPORT_ARM_NR];
	struct report_gain g;
	uint64_t recomputed;

	pthread_rwlock_rdlock(p->lock);
	control_put_real(body, "share", balancer_config(p->balancer)->experiment_milli / 1000.0);
	pthread_rwlock_unlock(p->lock);
	for (int arm = 0; arm < REPORT_ARM_NR; arm++) {
		arm_sum(p->balancer, arm, &n[arm], &recomputed);
		json_array_append_new(arms, arm_json(arm, &n[arm], recomputed));
	}
	g = report_gain(&n[REPORT_AFFINITY], &n[REPORT_CONTROL]);
	control_put_real(gain, "ms", g.ms);
	json_object_set_new(gain, "low_ms", g.known ? json_real(g.low_ms) : json_null());
	json_object_set_new(gain, "high_ms", g.known ? json_real(g.high_ms) : json_null());
	json_object_set_new(body, "arms", arms);
	json_object_set_new(body, "gain", gain);
	return control_reply(conn, MHD_HTTP_OK, body);
}

/* ---- explain ---- */

static const char *slot_name(void *arg, uint32_t slot)
{
	const struct balancer *b = arg;

	return slot < BACKENDS_MAX ? b->backends.slot[slot].name : "";
}

static int newest_first(const void *a, const void *b)
{
	const struct explain_record *x = a, *y = b;

	return (x->at_ns < y->at_ns) - (x->at_ns > y->at_ns);
}

enum MHD_Result control_explain(const struct control_view *v, struct MHD_Connection *conn)
{
	const struct control_params *p = &v->p;
	bool one = argument(conn, "key") || argument(conn, "id");
	uint32_t rings = p->balancer->nr_workers, nr = 0;
	struct explain_record *r;
	json_t *body, *list;
	uint64_t id, last;

	if (one && argument_session(conn, &id))
		return reply_no_session(conn);
	if (argument_number(conn, &last_of, &last))
		return reply_bad(conn, &last_of);
	r = calloc((size_t)rings * last + 1, sizeof(*r));
	if (!r)
		return MHD_NO;
	for (uint32_t w = 0; w < rings; w++)
		nr += explain_read(p->balancer->worker[w]->explain, one ? &id : NULL, r + nr,
				   (uint32_t)last);
	qsort(r, nr, sizeof(*r), newest_first);
	list = json_array();
	pthread_rwlock_rdlock(p->lock);
	for (uint32_t i = 0; i < nr && i < last; i++)
		json_array_append_new(
			list, explain_json(&r[i], slot_name, p->balancer, balancer_now_ns()));
	pthread_rwlock_unlock(p->lock);
	free(r);
	body = json_object();
	json_object_set_new(body, "decisions", list);
	return control_reply(conn, MHD_HTTP_OK, body);
}
