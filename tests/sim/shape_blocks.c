/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The bytes of the two APIs with named events: Anthropic messages and OpenAI responses, as
 * llama-server sends them. The responses events carry sequence_number, output_index and
 * content_index besides, which OpenAI's SDK wants and llama-server leaves out.
 */
#include <stdio.h>
#include <string.h>

#include "model.h"

static const char *item_id(const struct job *job)
{
	static char id[48];

	/* resp_<random>: its one message is msg_<the same random> */
	snprintf(id, sizeof(id), "msg_%s", strchr(job->id, '_') ? strchr(job->id, '_') + 1 : "0");
	return id;
}

static void responses_item(const struct job *job, struct buf *b)
{
	buf_printf(b,
		   "{\"type\":\"message\",\"status\":\"completed\",\"id\":\"%s\",\"content\":["
		   "{\"type\":\"output_text\",\"annotations\":[],\"logprobs\":[],\"text\":",
		   item_id(job));
	shape_answer(job, b);
	buf_lit(b, "}],\"role\":\"assistant\"}");
}

void responses_object(const struct job *job, struct buf *b)
{
	buf_printf(b,
		   "{\"id\":\"%s\",\"object\":\"response\",\"created_at\":%llu,"
		   "\"status\":\"completed\",\"model\":\"%s\",\"system_fingerprint\":\"%s\","
		   "\"output\":[",
		   job->id, (unsigned long long)job->created_s, opt.model, opt.name);
	responses_item(job, b);
	buf_printf(
		b,
		"],\"usage\":{\"input_tokens\":%llu,\"output_tokens\":%llu,\"total_tokens\":%llu,"
		"\"input_tokens_details\":{\"cached_tokens\":%llu}}}",
		(unsigned long long)job->prompt_tokens, (unsigned long long)job->done_tokens,
		(unsigned long long)(job->prompt_tokens + job->done_tokens),
		(unsigned long long)job->cached_tokens);
}

void responses_first(const struct job *job, struct buf *b)
{
	static const char *const starts[] = {"response.created", "response.in_progress"};

	for (unsigned i = 0; i < ARRAY_SIZE(starts); i++)
		buf_printf(b,
			   "event: %s\ndata: {\"type\":\"%s\",\"sequence_number\":%u,\"response\":{"
			   "\"id\":\"%s\",\"object\":\"response\",\"status\":\"in_progress\","
			   "\"model\":\"%s\",\"system_fingerprint\":\"%s\",\"output\":[]}}\n\n",
			   starts[i], starts[i], i, job->id, opt.model, opt.name);
	buf_printf(b,
		   "event: response.output_item.added\ndata: {\"type\":\"response.output_item."
		   "added\",\"sequence_number\":2,\"output_index\":0,\"item\":{\"content\":[],"
		   "\"id\":\"%s\",\"role\":\"assistant\",\"status\":\"in_progress\","
		   "\"type\":\"message\"}}\n\n"
		   "event: response.content_part.added\ndata: {\"type\":\"response.content_part."
		   "added\",\"sequence_number\":3,\"output_index\":0,\"content_index\":0,"
		   "\"item_id\":\"%s\",\"part\":{\"type\":\"output_text\",\"text\":\"\"}}\n\n",
		   item_id(job), item_id(job));
}

void responses_last(const struct job *job, struct buf *b)
{
	unsigned long long seq = job->done_tokens + 4;

	buf_printf(b,
		   "event: response.output_text.done\ndata: {\"type\":\"response.output_text."
		   "done\",\"sequence_number\":%llu,\"output_index\":0,\"content_index\":0,"
		   "\"item_id\":\"%s\",\"text\":",
		   seq, item_id(job));
	shape_answer(job, b);
	buf_printf(b,
		   "}\n\nevent: response.content_part.done\ndata: {\"type\":\"response."
		   "content_part.done\",\"sequence_number\":%llu,\"output_index\":0,"
		   "\"content_index\":0,\"item_id\":\"%s\",\"part\":{\"type\":\"output_text\","
		   "\"annotations\":[],\"logprobs\":[],\"text\":",
		   seq + 1, item_id(job));
	shape_answer(job, b);
	buf_printf(b,
		   "}}\n\nevent: response.output_item.done\ndata: {\"type\":\"response.output_item."
		   "done\",\"sequence_number\":%llu,\"output_index\":0,\"item\":",
		   seq + 2);
	responses_item(job, b);
	buf_printf(b,
		   "}\n\nevent: response.completed\ndata: {\"type\":\"response.completed\","
		   "\"sequence_number\":%llu,\"response\":",
		   seq + 3);
	responses_object(job, b);
	shape_timings(job, b);
	buf_lit(b, "}\n\n");
}

static void messages_usage(const struct job *job, uint64_t output_tokens, struct buf *b)
{
	buf_printf(b,
		   "\"usage\":{\"cache_read_input_tokens\":%llu,\"input_tokens\":%llu,"
		   "\"output_tokens\":%llu}",
		   (unsigned long long)job->cached_tokens,
		   (unsigned long long)(job->prompt_tokens - job->cached_tokens),
		   (unsigned long long)output_tokens);
}

void responses_token(const struct job *job, const char *token, size_t len, struct buf *b)
{
	buf_printf(b,
		   "event: response.output_text.delta\ndata: {\"type\":\"response."
		   "output_text.delta\",\"sequence_number\":%llu,\"output_index\":0,"
		   "\"content_index\":0,\"item_id\":\"%s\",\"delta\":",
		   (unsigned long long)job->done_tokens + 3, item_id(job));
	buf_json(b, token, len);
	buf_lit(b, "}\n\n");
}

void messages_first(const struct job *job, struct buf *b)
{
	buf_printf(b,
		   "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{"
		   "\"id\":\"%s\",\"type\":\"message\",\"role\":\"assistant\",\"content\":[],"
		   "\"model\":\"%s\",\"system_fingerprint\":\"%s\",\"stop_reason\":null,"
		   "\"stop_sequence\":null,",
		   job->id, opt.model, opt.name);
	messages_usage(job, 0, b);
	buf_lit(b, "}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\","
		   "\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n");
}

void messages_token(const char *token, size_t len, struct buf *b)
{
	buf_lit(b, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\","
		   "\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":");
	buf_json(b, token, len);
	buf_lit(b, "}}\n\n");
}

void messages_last(const struct job *job, struct buf *b)
{
	buf_printf(b,
		   "event: content_block_stop\ndata: {\"type\":\"content_block_stop\","
		   "\"index\":0}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\","
		   "\"delta\":{\"stop_reason\":\"%s\",\"stop_sequence\":null},\"usage\":{"
		   "\"output_tokens\":%llu}}\n\nevent: message_stop\ndata: "
		   "{\"type\":\"message_stop\"}\n\n",
		   shape_reason(job), (unsigned long long)job->done_tokens);
}

void messages_object(const struct job *job, struct buf *b)
{
	buf_printf(b,
		   "{\"id\":\"%s\",\"type\":\"message\",\"role\":\"assistant\",\"content\":["
		   "{\"type\":\"text\",\"text\":",
		   job->id);
	shape_answer(job, b);
	buf_printf(b,
		   "}],\"model\":\"%s\",\"system_fingerprint\":\"%s\",\"stop_reason\":\"%s\","
		   "\"stop_sequence\":null,",
		   opt.model, opt.name, shape_reason(job));
	messages_usage(job, job->done_tokens, b);
	buf_lit(b, "}");
}
