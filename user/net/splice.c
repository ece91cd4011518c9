/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Handing an answer over to the program at tc.
 *
 * Happy path: both sockets are known to the program from their first packet on; when the answer's
 * head is out and all that came of it was read and given to TCP, splice_within() writes down where
 * both streams stand and takes the pair by one compare-and-swap. What TCP has not yet sent of it is
 * the client's socket's still, before `to`; until the client has that, what the server repeats of
 * it goes to its own socket (bpf/splice.bpf.c). In the daemon's memory there is nothing of an
 * answer that goes past it: whenever it dies, the kernel has all. Failures: a gate that says no
 * leaves the answer with the relay, the reason is counted, and the next packet tries again. Close:
 * splice_back.c.
 *
 * A stream that never pauses is made to: the program tells the server that behind what it has sent
 * there is no room (hold_on()). What is under way comes, is read, and the taking is the same as of
 * any other stream: there is no byte of which it would have to be found out whose it is, and the
 * framing is known. The client's ACK of the last byte read opens the way again, with its own
 * window; so TCP is made to keep that one (TCP_CORK) and sends it behind the taking. For a client
 * that is slow the server stands still until TCP has taken all for it. A hold ends by itself at
 * `hold_ns`.
 *
 * Order matters (tests/model/): the word is read before the server's high mark, and that once; the
 * program changes them the other way round.
 */
#include "net/splice.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "net/splice_private.h"
#include "net/tcp_probe.h"

/* TCP options of a full segment. */
#define OPTION_BYTES 12
/* A change of routes holds an answer up for so long. */
#define PROBE_S 1

/* Reads in a row behind which more had come already: such a stream does not pause by itself. */
#define HOLD_MISSES 4
/* What is under way when the server is told to pause comes within a round trip. Time in which the
 * client's socket took nothing more does not count. */
#define HOLD_MS 2000
/* Where that was not enough. */
#define HOLD_AGAIN_MS 10000

uint32_t splice_segment_bytes(const struct conn *c)
{
	struct tcp_probe p;

	/* lo takes whatever TCP sends. */
	if (!c->splice.sock.entry ||
	    splice_kconn(c->worker, &c->splice.sock)->ifindex == DEVICE_LOOPBACK ||
	    !tcp_probe(c->sock.fd, &p))
		return 0;
	return p.send_mss + (p.timestamps ? OPTION_BYTES : 0);
}

/* ---- is this answer one for this path? ---- */

/* Event streams, and bodies that are long or have turned out to be. */
static bool answer_suits(const struct conn *c)
{
	const struct exchange *x = c->x;
	const struct kvpin_body *body = &x->answer_body;
	const struct config *config = c->worker->config;

	if (body->state == KVPIN_BS_COUNTED)
		return body->left >= config->splice.body_bytes;
	if (x->answer.flags & KVPIN_HEAD_EVENT_STREAM)
		return body->events >= config->splice.events;
	return body->payload >= config->splice.body_bytes;
}

static bool answer_gate(struct conn *c)
{
	const struct exchange *x = c->x;
	const struct kvpin_body *body = &x->answer_body;
	struct worker *w = c->worker;

	if (!x->head_sent || x->out_ready != buf_len(&c->out) || x->plain_body ||
	    body->state == KVPIN_BS_DONE || body->state == KVPIN_BS_BAD ||
	    body->state == KVPIN_BS_TUNNEL)
		return false;
	/* A server that pauses because it was told to is waited for, however little may be left. */
	if (!c->splice.holding && !answer_suits(c))
		return splice_refuse(w, KVPIN_SPLICE_REFUSED_SHORT);
	/* Between two tries of the kernel TCP may have none of what it still has to send. */
	if (x->request_body.state != KVPIN_BS_DONE || x->sent != x->ready || x->discard ||
	    steer_upstream_owed(c->current))
		return splice_refuse(w, KVPIN_SPLICE_REFUSED_REQUEST);
	if (c->client_eof || c->client_rdhup || c->eof_passed || x->server_reset)
		return splice_refuse(w, KVPIN_SPLICE_REFUSED_ENDING);
	return true;
}

/* What TCP on both sides has to say. */
static bool tcp_gate(struct conn *c, struct tcp_probe *client, struct tcp_probe *server)
{
	struct worker *w = c->worker;

	if (!tcp_probe(c->current->sock.fd, server) || !tcp_probe(c->sock.fd, client) ||
	    client->state != TCP_PROBE_ESTABLISHED || server->state != TCP_PROBE_ESTABLISHED)
		return splice_refuse(w, KVPIN_SPLICE_REFUSED_ENDING);
	if (server->unsent || server->unacked)
		return splice_refuse(w, KVPIN_SPLICE_REFUSED_REQUEST);
	/* The way to the client has become narrower since the server was told. */
	if (splice_kconn(w, &c->splice.sock)->ifindex != DEVICE_LOOPBACK &&
	    server->told_mss > client->send_mss + OPTION_BYTES)
		return splice_refuse(w, KVPIN_SPLICE_REFUSED_SEGMENT);
	/* One segment, sent while only the socket's window counts, may be more than a client keeps
	 * free; where windows are not scaled, Linux offers no more room from then on
	 * (__tcp_select_window()). */
	if (!client->send_wscale && server->told_mss > client->window)
		return splice_refuse(w, KVPIN_SPLICE_REFUSED_SEGMENT);
	/* A client that agreed on timestamps may drop what has none (RFC 7323 3.2). */
	if ((client->timestamps && !server->timestamps) || client->ecn != server->ecn)
		return splice_refuse(w, KVPIN_SPLICE_REFUSED_OPTIONS);
	return true;
}

static bool tracked_gate(struct conn *c, const struct tcp_probe *client,
			 const struct kvpin_splice_conn *kc, const struct kvpin_splice_conn *ks)
{
	struct worker *w = c->worker;
	bool ts = !client->timestamps || (kc->has_ts == 3 && ks->has_ts == 3);

	if ((kc->flags | ks->flags) & KVPIN_SPLICE_ODD_OPTIONS)
		return splice_refuse(w, KVPIN_SPLICE_REFUSED_OPTIONS);
	if ((kc->flags | ks->flags) & KVPIN_SPLICE_CHAINED)
		return splice_refuse(w, KVPIN_SPLICE_REFUSED_CHAINED);
	if (!kc->sent || !kc->acked || !kc->ack_win || !ks->received || !ts ||
	    (uint32_t)ks->acked != (uint32_t)ks->sent)
		return splice_refuse(w, KVPIN_SPLICE_REFUSED_UNTRACKED);
	return true;
}

/* ---- taking ---- */

static void describe_answer(const struct conn *c, struct kvpin_splice_conn *ks)
{
	const struct exchange *x = c->x;

	ks->body = x->answer_body;
	ks->events = x->events;
	ks->end = 0;
	ks->fin = 0;
	ks->lock = 0;
	ks->framing = KVPIN_SPLICE_CHUNKED;
	if (x->answer_body.state == KVPIN_BS_COUNTED) {
		ks->framing = KVPIN_SPLICE_COUNTED;
		ks->end = ks->to + x->answer_body.left;
	} else if (x->answer_body.state == KVPIN_BS_CLOSE) {
		ks->framing = KVPIN_SPLICE_CLOSE;
	}
	ks->flags = (x->answer.flags & KVPIN_HEAD_EVENT_STREAM ? KVPIN_SPLICE_STREAM : 0) |
		    (x->token_seen ? KVPIN_SPLICE_TOKEN : 0) |
		    (x->later_turn ? KVPIN_SPLICE_LATER : 0);
	ks->started_ns = x->started_ns;
	ks->token_ns = x->token_ns;
	ks->ttft_ns = x->ttft_ns;
	ks->last_ns = balancer_now_ns();
	ks->counted = !x->counted_out;
}

static void describe_tcp(struct conn *c, struct kvpin_splice_conn *kc, struct kvpin_splice_conn *ks,
			 const struct tcp_probe *client, const struct tcp_probe *server)
{
	uint32_t behind;

	ks->request_end = (uint32_t)ks->sent;
	/* `acked` may be ahead of what the socket has seen, which the window belongs to. */
	behind = (uint32_t)kc->acked - (c->splice.base + kc->off + (uint32_t)client->acked);
	ks->room_end = kc->acked - behind + client->window;
	ks->client_wscale = client->send_wscale;
	ks->server_wscale = server->receive_wscale;
	ks->ts_down = ks->ts_up = 0;
	if (client->timestamps) {
		ks->ts_down = (kc->ts_out - kc->ts_out_ms) - (ks->ts_in - ks->ts_in_ms);
		ks->ts_up = (ks->ts_out - ks->ts_out_ms) - (kc->ts_in - kc->ts_in_ms);
	} else {
		ks->flags |= KVPIN_SPLICE_NO_TS;
	}
	if (!server->sack)
		ks->flags |= KVPIN_SPLICE_NO_SACK;
	/* Pipelined requests come before the client's FIN. */
	if (buf_len(&c->in) > c->x->ready || sock_unread(c->sock.fd))
		ks->flags |= KVPIN_SPLICE_NO_FIN;
}

void splice_watch_route(struct conn *c, bool on)
{
	const struct kvpin_splice_conn *kc = splice_kconn(c->worker, &c->splice.sock);
	const struct kvpin_splice_conn *ks = splice_kconn(c->worker, &c->current->splice);
	int idle_s = on ? PROBE_S : c->splice.keepalive_s, fd = c->current->sock.fd;
	socklen_t bytes = sizeof(c->splice.keepalive_s);

	if (ks->ifindex != DEVICE_LOOPBACK || kc->ifindex == DEVICE_LOOPBACK ||
	    !splice_is_v4(&c->current->addr) || fd < 0)
		return;
	if (on && getsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &c->splice.keepalive_s, &bytes))
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	/* From one probe to the next; for a server on this host it may stay. */
	if (on)
		setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &idle_s, sizeof(idle_s));
}

/* ---- a stream that never pauses ---- */

/* Then TCP keeps the last byte that it was given, as long as that was given apart (relay_flush()),
 * or for 200 ms. */
static void cork(const struct conn *c, int on)
{
	setsockopt(c->sock.fd, IPPROTO_TCP, TCP_CORK, &on, sizeof(on));
}

static void hold_end(struct conn *c, uint64_t again_ms)
{
	struct upstream *u = c->current;

	cork(c, 0);
	if (u && u->splice.entry)
		__atomic_store_n(&splice_kconn(c->worker, &u->splice)->hold_ns, 0,
				 __ATOMIC_RELAXED);
	c->splice.holding = false;
	c->splice.hold_ms = uv_now(&c->worker->loop) + again_ms;
	c->splice.misses = 0;
}

/* The next packets to the server tell it of no room for anything new; what is under way comes, and
 * then the stream stands still until it is taken. */
static void hold_on(struct conn *c, struct kvpin_splice_conn *ks, const struct tcp_probe *server)
{
	struct splice_conn *s = &c->splice;
	uint64_t now_ms = uv_now(&c->worker->loop);

	s->misses++;
	if (s->holding && !c->x->out_ready && now_ms > s->hold_ms + HOLD_MS) {
		splice_refuse(c->worker, KVPIN_SPLICE_REFUSED_HELD);
		hold_end(c, HOLD_AGAIN_MS);
		return;
	}
	if (!s->holding) {
		if (s->misses < HOLD_MISSES || now_ms < s->hold_ms)
			return;
		ks->server_wscale = server->receive_wscale;
		s->holding = true;
		cork(c, 1);
	} else if (!c->x->out_ready) {
		return;
	}
	s->hold_ms = now_ms;
	__atomic_store_n(&ks->hold_ns, balancer_now_ns() + (HOLD_MS + 1) * 1000000ULL,
			 __ATOMIC_RELAXED);
}

void splice_unhold(struct conn *c)
{
	if (c->splice.holding)
		hold_end(c, 0);
	c->splice.misses = 0;
}

/*
 * Where the client's socket will be when all that it was given went out, in the wire's numbers:
 * found in two ways that must agree, what the program saw sent, and what TCP was given since the
 * connection's beginning. That is known once what the program saw acknowledged agrees too: read
 * after TCP was asked it can only be ahead of it, and @sent, what the program saw sent, read
 * before, can only be behind. An ACK that comes in between and lets as much go as it acknowledges
 * would move both alike.
 */
static bool write_end(struct conn *c, const struct kvpin_splice_conn *kc, uint64_t sent,
		      struct tcp_probe *client, uint64_t *end)
{
	struct splice_conn *s = &c->splice;
	uint64_t acked, taken;
	uint32_t base;

	if (!tcp_taken(c->sock.fd, client, &taken))
		return false;
	acked = __atomic_load_n(&kc->acked, __ATOMIC_SEQ_CST);
	base = (uint32_t)sent - kc->off - (uint32_t)(taken - client->unsent);
	if (!s->based) {
		s->based = base == (uint32_t)acked - kc->off - (uint32_t)client->acked;
		s->base = base;
	}
	*end = sent + client->unsent;
	return s->based && base == s->base;
}

enum taken {
	TAKE_REFUSED,
	TAKE_NOT_YET, /* the next time may do */
	TAKE_DONE
};

static enum taken not_yet(struct conn *c, enum kvpin_splice_refusal reason)
{
	splice_refuse(c->worker, reason);
	return TAKE_NOT_YET;
}

static enum taken take(struct conn *c, struct tcp_probe *server)
{
	struct worker *w = c->worker;
	struct upstream *u = c->current;
	struct kvpin_splice_conn *kc = splice_kconn(w, &c->splice.sock);
	struct kvpin_splice_conn *ks = splice_kconn(w, &u->splice);
	uint64_t word = splice_word(ks), taken, received, sent, to;
	struct tcp_probe client;
	bool known;

	/* Once: a packet behind it fails the swap, and reading again would count that packet. */
	received = __atomic_load_n(&ks->received, __ATOMIC_SEQ_CST);
	sent = __atomic_load_n(&kc->sent, __ATOMIC_SEQ_CST);
	if (!tcp_gate(c, &client, server) || !tracked_gate(c, &client, kc, ks))
		return TAKE_REFUSED;
	known = write_end(c, kc, sent, &client, &to);
	if ((uint32_t)received != (uint32_t)(ks->base + ks->off + steer_received(w, &u->steer)) ||
	    steer_waiting(&u->steer))
		return not_yet(c, KVPIN_SPLICE_REFUSED_UNREAD);
	if (!known || c->x->out_ready)
		return not_yet(c, KVPIN_SPLICE_REFUSED_UNSENT);
	ks->from = ks->walked = received;
	ks->to = to;
	ks->off_taken = ks->off;
	kc->off_taken = kc->off;
	describe_answer(c, ks);
	describe_tcp(c, kc, ks, &client, server);
	kc->peer = u->splice.entry;
	ks->peer = c->splice.sock.entry;
	taken = (word & ~KVPIN_SPLICE_TURN) | ((word + KVPIN_SPLICE_TURN_1) & KVPIN_SPLICE_TURN) |
		KVPIN_SPLICE_TAKEN;
	if (!__atomic_compare_exchange_n(&ks->word, &word, taken, false, __ATOMIC_SEQ_CST,
					 __ATOMIC_SEQ_CST)) {
		kc->peer = 0;
		return not_yet(c, KVPIN_SPLICE_REFUSED_RACED);
	}
	return TAKE_DONE;
}

bool splice_within(struct conn *c)
{
	struct worker *w = c->worker;
	struct upstream *u = c->current;
	struct tcp_probe server;
	enum taken taken;

	if (!w->splice.splice || !c->splice.sock.entry || !u || !u->splice.entry)
		return false;
	taken = answer_gate(c) ? take(c, &server) : TAKE_REFUSED;
	if (taken == TAKE_NOT_YET)
		hold_on(c, splice_kconn(w, &u->splice), &server);
	else if (c->splice.holding)
		hold_end(c, HOLD_AGAIN_MS);
	if (taken != TAKE_DONE)
		return false;
	c->splice.hold_ms = 0;
	c->splice.misses = 0;
	splice_watch_route(c, true);
	stat_add(&w->stats->spliced, 1);
	c->x->path = STAT_PATH_SPLICE;
	c->splice.ended = c->splice.broken = c->splice.lacking = false;
	u->used = true;
	conn_set_state(c, CONN_SPLICE);
	return true;
}
