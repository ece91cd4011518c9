/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Time runs out: for each state of a connection how long it may last without a byte moving, and
 * what is done then. Sets no timer; conn.c's is armed for conn_clock_due_ms() at the latest.
 */
#include "net/conn_clock.h"

#include "net/attempt.h"
#include "net/exchange.h"
#include "net/relay.h"
#include "net/upstream.h"
#include "net/worker.h"

/* After our FIN, how long the client may still send before it is reset (RFC 9112 9.6). */
#define LINGER_MS 2000
/* A broken answer: how long the client may acknowledge nothing of what it was sent, and how often
 * that is looked at. */
#define BREAK_MS      1000
#define BREAK_POLL_MS 5
/* A server was told to pause: nothing announces that its last ACK has come. */
#define HOLD_POLL_MS 1
/* ... and the client must take what came before: the server's pause is made longer in time. */
#define HOLD_RENEW_MS 1000
/* An answer of our own that the client does not take. */
#define REPLY_MS 10000

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* For how long nothing may move. */
static uint64_t steer_limit_ms(const struct conn *c)
{
	const struct config *config = c->worker->config;

	return steer_running(c) ? config->timeout.stall_ms : config->timeout.idle_ms;
}

uint64_t conn_clock_due_ms(const struct conn *c)
{
	const struct config *config = c->worker->config;

	switch (c->state) {
	case CONN_HEAD:
		if (buf_len(&c->in))
			return c->head_ms + config->timeout.head_ms;
		return c->activity_ms + config->timeout.idle_ms;
	case CONN_WAIT:
		return c->x->waits_ns / 1000000 + config->guard.wait_ms;
	case CONN_EXCHANGE:
		if (c->current && c->current->connecting)
			return c->activity_ms + config->timeout.connect_ms;
		/* Not x.answered: after a 100 the body is still awaited. */
		if (!c->x->head_done && relay_request_open(c))
			return c->activity_ms +
			       earlier(config->timeout.body_ms, config->timeout.stall_ms);
		if (c->splice.holding)
			return earlier(c->activity_ms + config->timeout.stall_ms,
				       uv_now(&c->worker->loop) +
					       (c->x->out_ready ? HOLD_RENEW_MS : HOLD_POLL_MS));
		if (attempt_eof_waits(c))
			return earlier(c->activity_ms + config->timeout.stall_ms,
				       uv_now(&c->worker->loop) + c->steer.poll_ms);
		return c->activity_ms + config->timeout.stall_ms;
	case CONN_STEER:
		/* Nothing announces that an exchange has begun or ended. */
		return earlier(c->activity_ms + steer_limit_ms(c),
			       uv_now(&c->worker->loop) +
				       earlier(config->timeout.idle_ms, config->timeout.stall_ms));
	case CONN_RECLAIM:
		return earlier(c->activity_ms + config->timeout.stall_ms,
			       uv_now(&c->worker->loop) + c->steer.poll_ms);
	case CONN_SPLICE:
		return splice_due_ms(c);
	case CONN_TUNNEL:
		return c->activity_ms + config->timeout.tunnel_ms;
	case CONN_REPLY:
		return c->activity_ms + REPLY_MS;
	case CONN_LINGER:
		return c->head_ms + LINGER_MS;
	case CONN_BREAK:
		return earlier(c->activity_ms + BREAK_MS, uv_now(&c->worker->loop) + BREAK_POLL_MS);
	default:
		return UINT64_MAX;
	}
}

bool conn_clock_polls(const struct conn *c)
{
	switch (c->state) {
	case CONN_STEER:
	case CONN_RECLAIM:
	case CONN_SPLICE:
	case CONN_BREAK:
		return true;
	case CONN_EXCHANGE:
		return c->splice.holding || attempt_eof_waits(c);
	default:
		return false;
	}
}

/* The kernel moves bytes without telling: has really nothing moved? */
static void steer_timeout(struct conn *c)
{
	uint64_t active_ms = steer_active_ms(c);

	if (active_ms > c->activity_ms)
		c->activity_ms = active_ms;
	if (uv_now(&c->worker->loop) < c->activity_ms + steer_limit_ms(c))
		return;
	/* Without an exchange that is the end; else CONN_EXCHANGE knows what to do. */
	if (!steer_running(c))
		c->close_after = true;
	steer_reclaim(c);
}

static void exchange_expire(struct conn *c)
{
	uint64_t stall_ms = c->worker->config->timeout.stall_ms;

	if (!conn_clock_polls(c) || uv_now(&c->worker->loop) >= c->activity_ms + stall_ms) {
		exchange_timeout(c);
	} else if (c->splice.holding) {
		exchange_answer(c);
	} else {
		steer_poll_later(c);
		attempt_pass_eof(c);
	}
}

void conn_clock_expire(struct conn *c)
{
	switch (c->state) {
	case CONN_HEAD:
		if (!buf_len(&c->in)) {
			conn_close(c, CONN_CLOSE_IDLE);
			break;
		}
		exchange_head_timeout(c);
		break;
	case CONN_WAIT:
		exchange_wait_over(c);
		break;
	case CONN_EXCHANGE:
		exchange_expire(c);
		break;
	case CONN_STEER:
		steer_timeout(c);
		break;
	case CONN_SPLICE:
		splice_timeout(c);
		break;
	case CONN_RECLAIM:
		if (uv_now(&c->worker->loop) <
		    c->activity_ms + c->worker->config->timeout.stall_ms) {
			if (steer_reclaim_poll(c))
				conn_on_steered(c);
			break;
		}
		steer_settle(c);
		exchange_settle(c, OUTCOME_TIMEOUT);
		c->reset_client = true;
		conn_close(c, CONN_CLOSE_TIMEOUT);
		break;
	case CONN_BREAK:
		if (uv_now(&c->worker->loop) < c->activity_ms + BREAK_MS)
			break;
		conn_close(c, c->close_reason);
		break;
	case CONN_LINGER:
		conn_close(c, c->close_reason);
		break;
	default:
		exchange_settle(c, OUTCOME_TIMEOUT);
		c->reset_client = true;
		conn_close(c, CONN_CLOSE_TIMEOUT);
	}
}
