/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The bytes of OpenAI chat and completions in both manners, as captured; shape_blocks.c has the two
 * APIs with named events. Only formats; emits nothing.
 * Every JSON object also carries system_fingerprint = the server's --name.
 */
#include <string.h>

#include "model.h"

const char *shape_reason(const struct job *job)
{
	if (job->api == API_MESSAGES)
		return job->natural_end ? "end_turn" : "max_tokens";
	return job->natural_end ? "stop" : "length";
}

void shape_answer(const struct job *job, struct buf *b)
{
	buf_json(b, job->answer.p ? job->answer.p : "", job->answer.len);
}

void shape_timings(const struct job *job, struct buf *b)
{
	double prompt_ms = (job->prefill_end_ns - job->start_ns) / 1e6;
	double decode_ms = (now_ns() - job->prefill_end_ns) / 1e6;
	uint64_t fresh = job->prompt_tokens - job->cached_tokens;

	prompt_ms = prompt_ms < 0.001 ? 0.001 : prompt_ms;
	decode_ms = decode_ms < 0.001 ? 0.001 : decode_ms;
	buf_printf(b,
		   ",\"timings\":{\"cache_n\":%llu,\"prompt_n\":%llu,\"prompt_ms\":%.3f,"
		   "\"prompt_per_token_ms\":%.6f,\"prompt_per_second\":%.6f,\"predicted_n\":%llu,"
		   "\"predicted_ms\":%.3f,\"predicted_per_token_ms\":%.6f,"
		   "\"predicted_per_second\":%.6f}",
		   (unsigned long long)job->cached_tokens, (unsigned long long)fresh, prompt_ms,
		   prompt_ms / fresh, fresh * 1e3 / prompt_ms, (unsigned long long)job->done_tokens,
		   decode_ms, decode_ms / job->done_tokens, job->done_tokens * 1e3 / decode_ms);
}

static void add_usage(const struct job *job, struct buf *b)
{
	unsigned long long prompt = job->prompt_tokens, done = job->done_tokens;
	unsigned long long cached = job->cached_tokens;

	if (sim_llama())
		buf_printf(
			b,
			"\"usage\":{\"completion_tokens\":%llu,\"prompt_tokens\":%llu,"
			"\"total_tokens\":%llu,\"prompt_tokens_details\":{\"cached_tokens\":%llu}}",
			done, prompt, prompt + done, cached);
	else
		buf_printf(b,
			   "\"usage\": {\"prompt_tokens\": %llu, \"total_tokens\": %llu, "
			   "\"completion_tokens\": %llu, \"prompt_tokens_details\": "
			   "{\"cached_tokens\": %llu}}",
			   prompt, prompt + done, done, cached);
}

/* ---- OpenAI chat and completions */

static void llama_tail(const struct job *job, struct buf *b)
{
	buf_printf(b,
		   "\"created\":%llu,\"id\":\"%s\",\"model\":\"%s\",\"system_fingerprint\":\"%s\","
		   "\"object\":\"chat.completion.chunk\"",
		   (unsigned long long)job->created_s, job->id, opt.model, opt.name);
}

static void llama_chat(const struct job *job, const char *delta, const char *reason, struct buf *b)
{
	buf_lit(b, "data: {\"choices\":[{\"finish_reason\":");
	if (reason)
		buf_printf(b, "\"%s\"", reason);
	else
		buf_lit(b, "null");
	buf_printf(b, ",\"index\":0,\"delta\":{%s}}],", delta);
	llama_tail(job, b);
}

static void llama_text(const struct job *job, const char *text, size_t len, const char *reason,
		       struct buf *b)
{
	buf_lit(b, "data: {\"choices\":[{\"text\":");
	buf_json(b, text, len);
	buf_lit(b, ",\"index\":0,\"logprobs\":null,\"finish_reason\":");
	if (reason)
		buf_printf(b, "\"%s\"", reason);
	else
		buf_lit(b, "null");
	buf_printf(b,
		   "}],\"created\":%llu,\"model\":\"%s\",\"system_fingerprint\":\"%s\","
		   "\"object\":\"text_completion\",",
		   (unsigned long long)job->created_s, opt.model, opt.name);
	if (reason) {
		add_usage(job, b);
		buf_lit(b, ",");
	}
	buf_printf(b, "\"id\":\"%s\"", job->id);
}

static void uvicorn_open(const struct job *job, struct buf *b)
{
	buf_printf(
		b,
		"data: {\"id\": \"%s\", \"object\": \"%s\", \"created\": %llu, \"model\": \"%s\", "
		"\"system_fingerprint\": \"%s\", \"choices\": [",
		job->id, job->api == API_CHAT ? "chat.completion.chunk" : "text_completion",
		(unsigned long long)job->created_s, opt.model, opt.name);
}

static void uvicorn_token(const struct job *job, const char *text, size_t len, const char *reason,
			  struct buf *b)
{
	uvicorn_open(job, b);
	buf_lit(b, "{\"index\": 0, ");
	if (job->api == API_CHAT)
		buf_lit(b, "\"delta\": {\"content\": ");
	else
		buf_lit(b, "\"text\": ");
	buf_json(b, text, len);
	if (job->api == API_CHAT)
		buf_lit(b, "}");
	buf_lit(b, ", \"logprobs\": null, \"finish_reason\": ");
	if (reason)
		buf_printf(b, "\"%s\"", reason);
	else
		buf_lit(b, "null");
	buf_lit(b, "}]}\n\n");
}

/* ---- the interface */

void shape_head(struct job *job)
{
	answer_head(job->conn, 200, "text/event-stream", FRAME_CHUNKED, 0, NULL);
}

void shape_first(struct job *job, struct buf *b)
{
	switch (job->api) {
	case API_CHAT:
		if (sim_llama()) {
			llama_chat(job, "\"role\":\"assistant\",\"content\":null", NULL, b);
			buf_lit(b, "}\n\n");
		} else {
			uvicorn_open(job, b);
			buf_lit(b,
				"{\"index\": 0, \"delta\": {\"role\": \"assistant\", \"content\": "
				"\"\"}, \"logprobs\": null, \"finish_reason\": null}]}\n\n");
		}
		break;
	case API_MESSAGES:
		messages_first(job, b);
		break;
	case API_RESPONSES:
		responses_first(job, b);
		break;
	default:
		break;
	}
}

void shape_token(struct job *job, const char *token, size_t len, bool last, struct buf *b)
{
	struct buf delta = {0};

	switch (job->api) {
	case API_MESSAGES:
		messages_token(token, len, b);
		break;
	case API_RESPONSES:
		responses_token(job, token, len, b);
		break;
	default:
		if (!sim_llama()) {
			uvicorn_token(job, token, len, last ? shape_reason(job) : NULL, b);
		} else if (job->api == API_COMPLETIONS) {
			llama_text(job, token, len, NULL, b);
			buf_lit(b, "}\n\n");
		} else {
			buf_lit(&delta, "\"content\":");
			buf_json(&delta, token, len);
			buf_add(&delta, "", 1);
			llama_chat(job, delta.p, NULL, b);
			buf_lit(b, "}\n\n");
		}
	}
	buf_free(&delta);
}

void shape_last(struct job *job, struct buf *b, struct buf *done)
{
	if (job->api == API_MESSAGES) {
		messages_last(job, b);
		return;
	}
	if (job->api == API_RESPONSES) {
		responses_last(job, b);
		return;
	}
	buf_lit(done, "data: [DONE]\n\n");
	if (!sim_llama()) {
		if (job->include_usage) {
			uvicorn_open(job, b);
			buf_lit(b, "], ");
			add_usage(job, b);
			buf_lit(b, "}\n\n");
		}
		return;
	}
	if (job->api == API_COMPLETIONS) {
		llama_text(job, "", 0, shape_reason(job), b);
	} else {
		llama_chat(job, "", shape_reason(job), b);
		if (job->include_usage) {
			buf_lit(b, "}\n\ndata: {\"choices\":[],");
			llama_tail(job, b);
			buf_lit(b, ",");
			add_usage(job, b);
		}
	}
	shape_timings(job, b);
	buf_lit(b, "}\n\n");
}

static void full_openai(const struct job *job, struct buf *b)
{
	bool chat = job->api == API_CHAT;

	if (!sim_llama()) {
		buf_printf(b,
			   "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%llu,\"model\":\"%s\","
			   "\"system_fingerprint\":\"%s\",\"choices\":[{\"index\":0,",
			   job->id, chat ? "chat.completion" : "text_completion",
			   (unsigned long long)job->created_s, opt.model, opt.name);
		buf_str(b, chat ? "\"message\":{\"role\":\"assistant\",\"content\":" : "\"text\":");
		shape_answer(job, b);
		buf_printf(b,
			   "%s,\"finish_reason\":\"%s\"}],\"usage\":{\"prompt_tokens\":%llu,"
			   "\"total_tokens\":%llu,\"completion_tokens\":%llu,"
			   "\"prompt_tokens_details\":{\"cached_tokens\":%llu}}}",
			   chat ? "}" : "", shape_reason(job),
			   (unsigned long long)job->prompt_tokens,
			   (unsigned long long)(job->prompt_tokens + job->done_tokens),
			   (unsigned long long)job->done_tokens,
			   (unsigned long long)job->cached_tokens);
		return;
	}
	if (chat)
		buf_printf(b,
			   "{\"choices\":[{\"finish_reason\":\"%s\",\"index\":0,\"message\":{"
			   "\"role\":\"assistant\",\"content\":",
			   shape_reason(job));
	else
		buf_lit(b, "{\"choices\":[{\"text\":");
	shape_answer(job, b);
	if (chat)
		buf_lit(b, "}}]");
	else
		buf_printf(b, ",\"index\":0,\"logprobs\":null,\"finish_reason\":\"%s\"}]",
			   shape_reason(job));
	buf_printf(b,
		   ",\"created\":%llu,\"model\":\"%s\",\"system_fingerprint\":\"%s\",\"object\":"
		   "\"%s\",",
		   (unsigned long long)job->created_s, opt.model, opt.name,
		   chat ? "chat.completion" : "text_completion");
	add_usage(job, b);
	buf_printf(b, ",\"id\":\"%s\"", job->id);
	shape_timings(job, b);
	buf_lit(b, "}");
}

void shape_full(struct job *job, struct buf *b)
{
	switch (job->api) {
	case API_MESSAGES:
		messages_object(job, b);
		break;
	case API_RESPONSES:
		responses_object(job, b);
		break;
	default:
		full_openai(job, b);
	}
}
