/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * An answer comes back from the program at tc.
 *
 * Happy path: the packet with the client's ACK of the end has given the pair back, an event says
 * so, splice_look() adds the bytes to the exchange and lets it end. Failures: where no packet of
 * the client is to be expected any more, or the server's connection has ended too early, the daemon
 * gives the pair back itself, and the relay finds out the rest. Close: splice_settle().
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "net/dispatch.h"
#include "net/exchange.h"
#include "net/splice_private.h"
#include "net/turn.h"

/* The server has ended too early, or sends what the client lacks in no packet that may pass: how
 * often the client's ACKs are looked at, and how long it may acknowledge nothing of what it was
 * sent. */
#define POLL_MIN_MS 1
#define POLL_MAX_MS 32
#define POLL_END_MS 1000
/* Answer bytes kept that came ahead of their turn. A client's window is smaller. */
#define COPIES_BYTES_MAX (8 * 1024 * 1024)
/* A program holds a lock for microseconds; a CPU may be away for longer. */
#define LOCK_TRIES 100000000

struct splice_copy {
	struct splice_copy *next; /* by `at` */
	uint64_t at;
	uint32_t len;
	uint8_t bytes[];
};

/* ---- the pair ---- */

/* Takes the pair back where `end` is. False: the program was faster, or is at it. */
static bool give_back(struct kvpin_splice_conn *ks, struct kvpin_splice_conn *kc, uint64_t end)
{
	uint64_t word = splice_word(ks);
	uint32_t past = end - ks->to;

	do {
		if (!splice_taken(word))
			return false;
	} while (!__atomic_compare_exchange_n(&ks->word, &word, word | KVPIN_SPLICE_GIVING, false,
					      __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
	/* The connection is about to be broken; until then what its socket still has to send must
	 * stay where it belongs. */
	if (__atomic_load_n(&kc->acked, __ATOMIC_SEQ_CST) < ks->to) {
		kc->to = ks->to;
		__atomic_fetch_or(&kc->flags, KVPIN_SPLICE_BROKEN, __ATOMIC_SEQ_CST);
	}
	ks->end = end;
	ks->off = ks->off_taken + past;
	kc->off = kc->off_taken + past;
	__atomic_fetch_and(&ks->word, ~(KVPIN_SPLICE_TAKEN | KVPIN_SPLICE_GIVING),
			   __ATOMIC_SEQ_CST);
	return true;
}

/* Behind what the client was sent so far. What it had no room for it has not got: a RST there would
 * be none to it (RFC 9293 3.10.7.4). */
static uint64_t sent_end(const struct kvpin_splice_conn *ks, const struct kvpin_splice_conn *kc)
{
	uint64_t sent = __atomic_load_n(&kc->sent, __ATOMIC_SEQ_CST);
	uint64_t acked = __atomic_load_n(&kc->acked, __ATOMIC_SEQ_CST);
	uint64_t room_end = __atomic_load_n(&ks->room_end, __ATOMIC_SEQ_CST);

	if (sent > room_end)
		sent = room_end > acked ? room_end : acked;
	return sent > ks->to ? sent : ks->to;
}

/* Who takes the answer off what is in flight, the program or the daemon? @now: it is over. */
static void answer_over(struct conn *c, struct kvpin_splice_conn *ks, bool now)
{
	if (!__atomic_exchange_n(&ks->counted, 0, __ATOMIC_SEQ_CST)) {
		c->x->counted_out = true;
		wait_kick(c->worker->balancer, c->x->backend->id);
	} else if (now) {
		dispatch_answered(c);
	}
}

/* What came ahead of its turn. */
static void copies_free(struct conn *c)
{
	struct splice_copy *copy;

	while ((copy = c->splice.copies)) {
		c->splice.copies = copy->next;
		free(copy);
	}
	c->splice.copies_bytes = 0;
}

/* The pair is back: what went past becomes a part of the exchange. @early: the answer goes on. */
static void books_back(struct conn *c, bool early)
{
	struct worker *w = c->worker;
	struct kvpin_splice_conn *kc = splice_kconn(w, &c->splice.sock);
	struct kvpin_splice_conn *ks = splice_kconn(w, &c->current->splice);
	struct exchange *x = c->x;
	uint64_t past = ks->end - ks->to;

	kc->peer = 0;
	splice_watch_route(c, false);
	copies_free(c);
	answer_over(c, ks, false);
	x->bytes_down += past;
	x->token_ns = ks->token_ns;
	if (!x->token_seen && (ks->flags & KVPIN_SPLICE_TOKEN)) {
		x->token_seen = true;
		x->ttft_ns = ks->ttft_ns;
		turn_first_token(c);
	}
	if (ks->flags & (KVPIN_SPLICE_SERVER_FIN | KVPIN_SPLICE_SERVER_RST | KVPIN_SPLICE_BEHIND))
		x->close_upstream = true;
	if (ks->flags & KVPIN_SPLICE_CLIENT_FIN)
		c->eof_passed = true;
	if (!early) {
		x->answer_body.state = KVPIN_BS_DONE;
	} else if (ks->framing == KVPIN_SPLICE_COUNTED || ks->framing == KVPIN_SPLICE_CLOSE) {
		x->answer_body.payload += past;
		if (ks->framing == KVPIN_SPLICE_COUNTED)
			x->answer_body.left -= past;
	} else {
		x->answer_body = ks->body;
		x->events = ks->events;
	}
	stat_add(&w->stats->splice_back, 1);
}

static void resume(struct conn *c, bool early)
{
	uint64_t active_ms = splice_kconn(c->worker, &c->current->splice)->last_ns / 1000000;

	books_back(c, early);
	conn_set_state(c, CONN_EXCHANGE);
	if (early && active_ms < c->activity_ms)
		c->activity_ms = active_ms;
	exchange_answer(c);
}

/* Has the server ended the connection before the answer's end? Sets how far it came. */
static bool truncated(const struct kvpin_splice_conn *ks, const struct kvpin_splice_conn *kc,
		      uint64_t *end)
{
	uint64_t known = __atomic_load_n(&ks->end, __ATOMIC_SEQ_CST);

	*end = sent_end(ks, kc);
	if (!ks->fin)
		return true;
	*end = ks->to + (ks->fin - ks->from);
	return !known || known > *end;
}

/* Its ACKs are looked at every poll_ms. */
static void watch_begin(struct conn *c)
{
	c->splice.poll_ms = POLL_MIN_MS;
	c->splice.acked = 0;
	conn_touch(c);
}

static void watch(struct conn *c, uint64_t acked)
{
	if (acked == c->splice.acked)
		return;
	c->splice.acked = acked;
	c->splice.poll_ms = POLL_MIN_MS;
	conn_touch(c);
}

/* The program drops the packets that would bring what the client lacks (KVPIN_SPLICE_INSEPARABLE).
 * If it does not get that in others, its answer is broken off here. */
static void lacking_look(struct conn *c, struct kvpin_splice_conn *kc, struct kvpin_splice_conn *ks,
			 uint64_t acked)
{
	struct worker *w = c->worker;

	if (!c->splice.lacking) {
		c->splice.lacking = true;
		watch_begin(c);
	}
	watch(c, acked);
	conn_rearm(c);
	if (uv_now(&w->loop) < c->activity_ms + POLL_END_MS || !give_back(ks, kc, sent_end(ks, kc)))
		return;
	splice_refuse(w, KVPIN_SPLICE_REFUSED_INSEPARABLE);
	LOG(WARN, "answer broken off: its server sends good bytes only together with others",
	    F_STR("backend", c->x->backend->name),
	    F_STR("reason", stat_splice_refusal_names[ks->reason]));
	books_back(c, true);
	conn_set_state(c, CONN_EXCHANGE);
	exchange_truncated(c);
}

void splice_look(struct conn *c)
{
	struct worker *w = c->worker;
	struct kvpin_splice_conn *kc = splice_kconn(w, &c->splice.sock);
	struct kvpin_splice_conn *ks = splice_kconn(w, &c->current->splice);
	uint64_t word = splice_word(ks), end, acked;

	if (c->splice.broken) {
		c->reset_client = true;
		conn_close(c, CONN_CLOSE_BROKEN_ANSWER);
		return;
	}
	if (word & KVPIN_SPLICE_TAKEN) {
		if (word & KVPIN_SPLICE_GIVING)
			return;
		end = __atomic_load_n(&ks->end, __ATOMIC_SEQ_CST);
		acked = __atomic_load_n(&kc->acked, __ATOMIC_SEQ_CST);
		if (end && acked >= end) {
			/* The client had acknowledged it before it was known to be the end. */
			if (!give_back(ks, kc, end))
				return;
		} else if (c->splice.ended && truncated(ks, kc, &end)) {
			watch(c, acked);
			if (ks->fin && acked < end &&
			    uv_now(&w->loop) < c->activity_ms + POLL_END_MS)
				return;
			/* What it was sent counts; a hole in it is never filled now. */
			if (give_back(ks, kc, sent_end(ks, kc)))
				resume(c, true);
			return;
		} else {
			if (ks->flags & KVPIN_SPLICE_INSEPARABLE)
				lacking_look(c, kc, ks, acked);
			return;
		}
	}
	resume(c, ks->flags & KVPIN_SPLICE_CUT);
}

/*
 * Most often the program has passed it on already, once; a FIN of the socket's own is sent until
 * the server has acknowledged it. The program does not see one that came while the answer was
 * taken.
 */
void splice_client_ended(struct conn *c)
{
	struct kvpin_splice_conn *ks = splice_kconn(c->worker, &c->current->splice);

	if (exchange_asks_more(c) || c->state != CONN_SPLICE)
		return;
	__atomic_fetch_or(&ks->flags, KVPIN_SPLICE_CLIENT_FIN, __ATOMIC_SEQ_CST);
	shutdown(c->current->sock.fd, SHUT_WR);
}

void splice_server_ended(struct conn *c)
{
	c->splice.ended = true;
	watch_begin(c);
	splice_look(c);
}

uint64_t splice_due_ms(const struct conn *c)
{
	if (c->splice.ended || c->splice.lacking)
		return uv_now(&c->worker->loop) + c->splice.poll_ms;
	return c->activity_ms + c->worker->config->timeout.stall_ms;
}

void splice_timeout(struct conn *c)
{
	struct worker *w = c->worker;
	struct kvpin_splice_conn *kc = splice_kconn(w, &c->splice.sock);
	struct kvpin_splice_conn *ks = splice_kconn(w, &c->current->splice);
	uint64_t active_ms = ks->last_ns / 1000000;

	if ((c->splice.ended || c->splice.lacking) && c->splice.poll_ms < POLL_MAX_MS)
		c->splice.poll_ms *= 2;
	splice_look(c);
	if (c->state != CONN_SPLICE)
		return;
	if (!c->splice.ended && active_ms > c->activity_ms)
		c->activity_ms = active_ms;
	if (uv_now(&w->loop) < c->activity_ms + w->config->timeout.stall_ms)
		return;
	if (give_back(ks, kc, sent_end(ks, kc))) {
		books_back(c, true);
		conn_set_state(c, CONN_EXCHANGE);
		exchange_timeout(c);
	}
}

void splice_settle(struct conn *c)
{
	struct worker *w = c->worker;
	struct kvpin_splice_conn *kc = splice_kconn(w, &c->splice.sock);
	struct kvpin_splice_conn *ks = splice_kconn(w, &c->current->splice);

	give_back(ks, kc, sent_end(ks, kc));
	books_back(c, true);
}

/* ---- framing that the program cannot follow ---- */

/* From here on the program leaves body and walked alone. */
static bool framing_take(struct kvpin_splice_conn *ks)
{
	for (int i = 0; i < LOCK_TRIES; i++) {
		uint32_t none = 0;

		if (ks->lock == 2 ||
		    __atomic_compare_exchange_n(&ks->lock, &none, 2, false, __ATOMIC_SEQ_CST,
						__ATOMIC_SEQ_CST))
			return true;
	}
	return false;
}

static bool copy_keep(struct conn *c, uint64_t at, const uint8_t *bytes, uint32_t len)
{
	struct splice_copy **where = &c->splice.copies, *copy;

	if (c->splice.copies_bytes + len > COPIES_BYTES_MAX)
		return false;
	copy = malloc(sizeof(*copy) + len);
	if (!copy)
		return false;
	while (*where && (*where)->at <= at)
		where = &(*where)->next;
	copy->next = *where;
	copy->at = at;
	copy->len = len;
	memcpy(copy->bytes, bytes, len);
	*where = copy;
	c->splice.copies_bytes += len;
	return true;
}

/* Walks what is in turn of these bytes. False: what went past was no good answer. */
static bool walk(struct kvpin_splice_conn *ks, uint64_t at, const uint8_t *bytes, uint32_t len)
{
	uint64_t skip = ks->walked - at, done;

	if (skip >= len)
		return true;
	if (ks->body.state == KVPIN_BS_DONE)
		return false;
	done = kvpin_body_walk(&ks->body, bytes + skip, len - skip);
	ks->walked += done;
	return done == len - skip && ks->body.state != KVPIN_BS_BAD;
}

void splice_follow(struct conn *c, const struct kvpin_splice_event *e)
{
	struct kvpin_splice_conn *ks = splice_kconn(c->worker, &c->current->splice);
	const uint8_t *bytes = (const uint8_t *)(e + 1);
	struct splice_copy *copy;
	bool good = framing_take(ks);

	if (good && e->at > ks->walked)
		good = copy_keep(c, e->at, bytes, e->len);
	else if (good)
		good = walk(ks, e->at, bytes, e->len);
	while (good && (copy = c->splice.copies) && copy->at <= ks->walked) {
		good = walk(ks, copy->at, copy->bytes, copy->len);
		c->splice.copies = copy->next;
		c->splice.copies_bytes -= copy->len;
		free(copy);
	}
	ks->events = ks->body.events;
	if (!good)
		c->splice.broken = true;
	else if (ks->body.state == KVPIN_BS_DONE && !ks->end)
		__atomic_store_n(&ks->end, ks->to + (ks->walked - ks->from), __ATOMIC_SEQ_CST);
	if (good && ks->end && !(ks->flags & KVPIN_SPLICE_CUT))
		answer_over(c, ks, true);
	if (!good || ks->end)
		splice_look(c);
}
