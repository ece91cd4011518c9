/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The queue and the clock of a simulated model. Owns every job. Never formats an answer (shape.c),
 * never parses a request (prompt.c); slot.c has the slots and their prefix caches.
 *
 * Happy path: submit -> slot -> head -> prefill -> a token per 1/decode_tps -> last chunk -> the
 * slot keeps prompt + answer as its cache -> the queue's head starts.
 * Failures: a client that leaves is noticed when the manner would notice it (job_leave), then
 * model_cancel() frees the slot, which keeps what was processed so far.
 */
#include <stdlib.h>
#include <string.h>

#include "model.h"

#define TOKENS_PER_ROUND 64	  /* an infinitely fast model lets others have a turn */
#define HEAD_EOF_NS	 5000000u /* llama: a FIN so soon after the head cuts the stream at once */

struct model_totals totals;
static struct job *queue, *all;
static unsigned queued;

unsigned model_queued(void)
{
	return queued;
}

static void job_emit(struct job *job, const struct buf *b)
{
	if (!b->len)
		return;
	if (job->conv)
		conv_append(job->conv, b->p, b->len);
	if (job->conn) {
		answer_chunk(job->conn, b->p, b->len);
		if (sim_llama())
			conn_flush(job->conn);
	}
}

static uint64_t token_due(const struct job *job, uint64_t i)
{
	if (!opt.decode_tps)
		return job->prefill_end_ns;
	return job->prefill_end_ns + (uint64_t)(i * (1e9 / opt.decode_tps));
}

static void job_arm(struct job *job, uint64_t due_ns)
{
	if (job->cut_ns && job->cut_ns < due_ns)
		due_ns = job->cut_ns;
	timer_arm(&job->timer, due_ns);
}

static void job_free(struct job *job)
{
	timer_stop(&job->timer);
	if (job->conv)
		conv_end(job->conv);
	if (job->all_prev)
		job->all_prev->all_next = job->all_next;
	else
		all = job->all_next;
	if (job->all_next)
		job->all_next->all_prev = job->all_prev;
	buf_free(&job->prompt);
	buf_free(&job->answer);
	free(job);
}

static void job_start(struct job *job, struct slot *s, size_t prefix);

static void queue_start(void)
{
	while (queue && model_busy() < opt.slots && !sim_stopping) {
		struct job *job = queue;
		struct conn *c = job->conn;
		size_t prefix;
		struct slot *s = slot_choose(job, &prefix);

		queue = job->next;
		queued--;
		job_start(job, s, prefix);
		if (c)
			conn_settle(c);
	}
}

void model_cancel(struct job *job)
{
	uint64_t now = now_ns(), whole, done;
	size_t bytes = job->prompt.len;
	struct job **pp;
	bool was_queued = job->state == JOB_QUEUED;

	if (was_queued) {
		for (pp = &queue; *pp != job; pp = &(*pp)->next)
			;
		*pp = job->next;
		queued--;
	} else {
		if (now < job->prefill_end_ns) {
			whole = job->prefill_end_ns - job->start_ns;
			done = now - job->start_ns;
			bytes = job->cached_tokens * TOKEN_BYTES;
			bytes += (double)(job->prompt.len - bytes) * done / whole;
		}
		slot_release(job, bytes);
	}
	job_free(job);
	if (!was_queued)
		queue_start();
}

static void job_abort(struct job *job)
{
	struct conn *c = job->conn;

	stats.aborts++;
	stats.last_abort_after_ns = job->gone_ns - job->queued_ns;
	stats.last_abort_notice_ns = now_ns() - job->gone_ns;
	if (job->state == JOB_QUEUED)
		stats.aborts_queued++;
	else if (now_ns() < job->prefill_end_ns)
		stats.aborts_prefill++;
	else
		stats.aborts_decode++;
	if (c)
		c->ops = NULL;
	model_cancel(job);
	if (c) {
		conn_finish(c, false);
		conn_settle(c);
	}
}

/* The client left (FIN or RST): when does this server notice? */
static void job_leave(struct job *job, uint64_t gone_ns)
{
	uint64_t now = now_ns(), n;

	if (!job->gone_ns)
		job->gone_ns = gone_ns ? gone_ns : now;
	if (job->stream && job->state == JOB_DECODE) {
		job->cut_ns = now + ms_ns(SIM_CUT_MS);
	} else if (!job->cut_ns) {
		n = (now - job->queued_ns) / ms_ns(SIM_CHECK_MS) + 1;
		job->cut_ns = job->queued_ns + n * ms_ns(SIM_CHECK_MS);
	}
	if (job->state != JOB_FROZEN && (!job->timer.pos || job->timer.due_ns > job->cut_ns))
		timer_arm(&job->timer, job->cut_ns);
}

static void job_on_cancel(struct conn *c)
{
	struct job *job = c->u.job;

	job->conn = NULL;
	if (job->conv)
		return;
	if (sim_llama()) {
		job_leave(job, c->eof_ns);
	} else {
		job->gone_ns = c->eof_ns ? c->eof_ns : now_ns();
		job_abort(job);
	}
}

static void job_on_eof(struct conn *c)
{
	struct job *job = c->u.job;

	if (!sim_llama() || job->conv || (job->stream && job->state == JOB_DECODE)) {
		conn_finish(c, false);
	} else if (job->stream && job->state == JOB_PREFILL &&
		   now_ns() - job->start_ns < HEAD_EOF_NS) {
		conn_finish(c, false); /* the real server looks right after its head */
	} else {
		job_leave(job, c->eof_ns);
	}
}

static const struct answer_ops job_ops = {.eof = job_on_eof, .cancel = job_on_cancel};

static void job_finish(struct job *job)
{
	struct conn *c = job->conn;
	struct buf last = {0}, done = {0};

	totals.predicted_tokens += job->done_tokens;
	totals.decode_ns += now_ns() - job->prefill_end_ns;
	if (job->prompt_tokens + job->done_tokens > totals.tokens_max)
		totals.tokens_max = job->prompt_tokens + job->done_tokens;
	if (job->stream) {
		shape_last(job, &last, &done);
		job_emit(job, &last);
		job_emit(job, &done);
		if (c) {
			answer_last_chunk(c);
			if (sim_llama())
				c->close_after = true; /* whatever its head said */
			conn_answer_done(c);
		}
	} else if (c) {
		shape_full(job, &last);
		answer_json(c, 200, last.p, last.len);
	}
	buf_free(&last);
	buf_free(&done);
	slot_release(job, job->prompt.len);
	job_free(job);
	if (c)
		conn_settle(c);
	queue_start();
}

/* --fail-cut-after, --fail-rst-after. True when the stream ended here. */
static bool job_sabotage(struct job *job)
{
	struct conn *c = job->conn;
	uint64_t cut = opt.faults.cut_after, rst = opt.faults.rst_after;

	if (!c || !job->stream ||
	    !((cut && job->done_tokens >= cut) || (rst && job->done_tokens >= rst)))
		return false;
	conn_flush(c);
	c->ops = NULL;
	conn_finish(c, rst && job->done_tokens >= rst);
	model_cancel(job);
	conn_settle(c);
	return true;
}

/* Wait for prefill or the next token; llama sends a ping when a stream is silent for long. */
static void job_wait(struct job *job, uint64_t due_ns)
{
	uint64_t now = now_ns();

	if (job->stream && sim_llama() && opt.ping_ms) {
		if (now >= job->next_ping_ns) {
			if (job->conn) {
				conn_write(job->conn, "3\r\n:\n\n\r\n", 8);
				conn_flush(job->conn);
			}
			job->next_ping_ns += ms_ns(opt.ping_ms);
		}
		if (job->next_ping_ns < due_ns)
			due_ns = job->next_ping_ns;
	}
	job_arm(job, due_ns);
}

static void job_decode(struct job *job)
{
	struct conn *c = job->conn;
	uint64_t now = now_ns();
	unsigned round = 0;
	struct buf b = {0};
	char text[TOKEN_BYTES];

	if (c && conn_pending(c) > SIM_OUT_HIGH) {
		job_arm(job, now + ms_ns(2));
		return;
	}
	while (job->done_tokens < job->max_tokens && token_due(job, job->done_tokens) <= now &&
	       round++ < TOKENS_PER_ROUND) {
		token_text(job, job->done_tokens, text);
		buf_add(&job->answer, text, sizeof(text));
		job->done_tokens++;
		totals.decodes++;
		totals.busy_sum += model_busy();
		if (!job->stream)
			continue;
		b.len = 0;
		if (job->done_tokens == 1) {
			shape_first(job, &b);
			if (!sim_llama()) { /* its role event is a chunk of its own */
				job_emit(job, &b);
				b.len = 0;
			}
		}
		shape_token(job, text, sizeof(text), job->done_tokens == job->max_tokens, &b);
		job_emit(job, &b);
		if (job_sabotage(job)) {
			buf_free(&b);
			return;
		}
	}
	buf_free(&b);
	if (c && c->eof && job->stream) { /* it left during prefill: now the write fails */
		conn_finish(c, false);
		conn_settle(c);
		return;
	}
	if (job->done_tokens == job->max_tokens) {
		job_finish(job);
		return;
	}
	if (round)
		job->next_ping_ns = now + ms_ns(opt.ping_ms);
	job_wait(job, opt.decode_tps ? token_due(job, job->done_tokens) : now_ns() + 1);
	if (c && !c->busy)
		conn_settle(c);
}

static void job_on_timer(struct timer *t)
{
	struct job *job = container_of(t, struct job, timer);
	uint64_t now = now_ns();

	if (job->cut_ns && now >= job->cut_ns) {
		job_abort(job);
		return;
	}
	if (job->state == JOB_PREFILL && now >= job->prefill_end_ns) {
		job->state = JOB_DECODE;
		totals.prefill_ns += job->prefill_end_ns - job->start_ns;
		if (!job->stream && token_due(job, job->max_tokens - 1) > now) {
			job_arm(job, token_due(job, job->max_tokens - 1));
			return;
		}
	}
	if (job->state == JOB_PREFILL)
		job_wait(job, job->prefill_end_ns);
	else if (job->state == JOB_DECODE)
		job_decode(job);
}

static void job_start(struct job *job, struct slot *s, size_t prefix)
{
	uint64_t fresh;

	slot_take(s, job, prefix);
	job->start_ns = now_ns();
	fresh = job->prompt_tokens - job->cached_tokens;
	job->prefill_end_ns = job->start_ns;
	if (opt.prefill_tps)
		job->prefill_end_ns += (uint64_t)(fresh * (1e9 / opt.prefill_tps));
	job->next_ping_ns = job->start_ns + ms_ns(opt.ping_ms);
	job->state = JOB_PREFILL;
	if (job->stream && job->conn) {
		shape_head(job);
		conn_flush(job->conn);
	}
	job_on_timer(&job->timer);
}

void model_submit(struct job *job)
{
	struct job **pp;
	struct slot *s;
	size_t prefix;

	job->timer.fn = job_on_timer;
	job->queued_ns = job->conn->req.start_ns;
	job->hash = XXH64(job->prompt.p, job->prompt.len, 0);
	job->conn->ops = &job_ops;
	job->conn->u.job = job;
	job->all_next = all;
	if (all)
		all->all_prev = job;
	all = job;
	totals.requests++;
	s = queue ? NULL : slot_choose(job, &prefix);
	if (s && !sim_stopping) {
		job_start(job, s, prefix);
		return;
	}
	job->state = JOB_QUEUED;
	for (pp = &queue; *pp; pp = &(*pp)->next)
		;
	*pp = job;
	queued++;
}

void model_freeze(void)
{
	for (struct job *job = all; job; job = job->all_next) {
		timer_stop(&job->timer);
		if (job->state != JOB_QUEUED)
			job->state = JOB_FROZEN;
	}
}

void model_fini(void)
{
	while (all)
		model_cancel(all);
	slot_fini();
}
