/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The simulated model: what a request asks for, and the life of its job.
 */
#ifndef SIM_MODEL_H
#define SIM_MODEL_H

#include "sim.h"

#define TOKEN_BYTES 4 /* one token is about four bytes; generated tokens are exactly four */

enum job_api { API_CHAT, API_COMPLETIONS, API_MESSAGES, API_RESPONSES, API_NR };

enum job_state { JOB_QUEUED, JOB_PREFILL, JOB_DECODE, JOB_FROZEN, JOB_STATE_NR };

struct slot {
	struct job *job;
	struct buf text; /* what the KV cache holds */
	uint64_t last_used, task;
	uint64_t prompt_tokens, cached_tokens;
};

struct job {
	struct conn *conn; /* NULL: the client left, a conversation keeps it running */
	struct conv *conv;
	enum job_api api;
	enum job_state state;
	bool stream, include_usage, natural_end;
	struct buf prompt;
	struct buf answer;
	char id[48];
	uint64_t created_s;
	uint64_t hash;
	uint64_t prompt_tokens, cached_tokens, max_tokens, done_tokens;
	uint64_t queued_ns, start_ns, prefill_end_ns, next_ping_ns;
	uint64_t gone_ns, cut_ns; /* when the client left; when its slot frees (0 = present) */
	struct slot *slot;
	struct timer timer;
	struct job *next; /* queue */
	struct job *all_prev, *all_next;
};

struct model_totals {
	uint64_t prompt_tokens, cached_tokens, predicted_tokens, decodes, busy_sum;
	uint64_t prefill_ns, decode_ns, tokens_max, requests;
};

extern struct slot *slots;
extern struct model_totals totals;

void model_fini(void);
void model_submit(struct job *job); /* takes the job */
void model_cancel(struct job *job); /* frees it; its slot goes to the next in the queue */
void model_freeze(void);	    /* SIGTERM: no token any more */
unsigned model_busy(void);
unsigned model_queued(void);

/* prompt.c: reads a JSON body. Returns NULL, or the error's text with its status in *status. */
const char *prompt_parse(struct job *job, const struct buf *body, unsigned *status, char *text,
			 size_t text_size);

/* shape.c: the bytes of each API in each manner */
void shape_head(struct job *job);
void shape_first(struct job *job, struct buf *out); /* events before the first token */
void shape_token(struct job *job, const char *token, size_t len, bool last, struct buf *out);
void shape_last(struct job *job, struct buf *out, struct buf *done); /* events after the last */
void shape_full(struct job *job, struct buf *out);		     /* the non-stream answer */

const char *shape_reason(const struct job *job);
void shape_answer(const struct job *job, struct buf *out);  /* the text so far, as JSON */
void shape_timings(const struct job *job, struct buf *out); /* llama's `timings` member */

/* shape_blocks.c */
void messages_first(const struct job *job, struct buf *out);
void messages_token(const char *token, size_t len, struct buf *out);
void messages_last(const struct job *job, struct buf *out);
void messages_object(const struct job *job, struct buf *out);
void responses_first(const struct job *job, struct buf *out);
void responses_token(const struct job *job, const char *token, size_t len, struct buf *out);
void responses_last(const struct job *job, struct buf *out);
void responses_object(const struct job *job, struct buf *out);

/* slot.c */
void slot_init(void);
void slot_fini(void);
struct slot *slot_choose(const struct job *job, size_t *prefix); /* NULL: none is idle */
void slot_take(struct slot *s, struct job *job, size_t prefix);
void slot_release(struct job *job, size_t prompt_bytes); /* so much of the prompt stays cached */
void token_text(const struct job *job, uint64_t i, char *out); /* TOKEN_BYTES of it */

/* conv.c: answers that outlive their client */
struct conv *conv_open(const char *id, struct job *job);
void conv_append(struct conv *v, const void *data, size_t len);
void conv_end(struct conv *v);
void conv_fini(void);

#endif
