/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From a JSON body to a job: the canonical prompt text and the few parameters the model obeys.
 * The text is head-first and stable: `role: content` per turn, then `assistant: `, so that the
 * next turn's prompt starts with this turn's prompt and answer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

#define MAX_TOKENS_DEFAULT 16
#define MAX_TOKENS_LIMIT   10000000

static void add_dump(struct buf *b, const json_t *v)
{
	char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);

	if (text)
		buf_str(b, text);
	free(text);
}

/* A string, an array of parts with `text`, or anything else as JSON. */
static void add_content(struct buf *b, const json_t *v)
{
	const json_t *part, *text;
	size_t i;

	if (json_is_string(v)) {
		buf_add(b, json_string_value(v), json_string_length(v));
	} else if (json_is_array(v)) {
		json_array_foreach(v, i, part)
		{
			text = json_object_get(part, "text");
			if (json_is_string(text))
				buf_add(b, json_string_value(text), json_string_length(text));
			else
				add_content(b, json_is_string(part) ? part : NULL);
			if (!json_is_string(text) && !json_is_string(part))
				add_dump(b, part);
		}
	} else if (v && !json_is_null(v)) {
		add_dump(b, v);
	}
}

static void add_turn(struct buf *b, const char *role, const json_t *content, const json_t *calls)
{
	buf_str(b, role);
	buf_lit(b, ": ");
	add_content(b, content);
	if (calls)
		add_dump(b, calls);
	buf_lit(b, "\n");
}

static void add_messages(struct buf *b, const json_t *messages)
{
	const json_t *m, *role;
	size_t i;

	json_array_foreach(messages, i, m)
	{
		role = json_object_get(m, "role");
		add_turn(b, json_is_string(role) ? json_string_value(role) : "item",
			 json_object_get(m, "content") ? json_object_get(m, "content")
			 : json_is_string(role)	       ? NULL
						       : m,
			 json_object_get(m, "tool_calls"));
	}
}

static void add_prompt(struct job *job, const json_t *root)
{
	struct buf *b = &job->prompt;
	const json_t *v;

	if (job->api == API_COMPLETIONS) {
		add_content(b, json_object_get(root, "prompt"));
		return;
	}
	v = json_object_get(root, "tools");
	if (json_array_size(v)) {
		buf_lit(b, "tools: ");
		add_dump(b, v);
		buf_lit(b, "\n");
	}
	v = json_object_get(root, job->api == API_RESPONSES ? "instructions" : "system");
	if (v && job->api != API_CHAT)
		add_turn(b, "system", v, NULL);
	v = json_object_get(root, job->api == API_RESPONSES ? "input" : "messages");
	if (json_is_string(v))
		add_turn(b, "user", v, NULL);
	else
		add_messages(b, v);
	buf_lit(b, "assistant: ");
}

static void read_limits(struct job *job, const json_t *root)
{
	static const char *const names[] = {"max_completion_tokens", "max_tokens",
					    "max_output_tokens", "n_predict"};
	json_int_t n = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(names) && n <= 0; i++)
		n = json_integer_value(json_object_get(root, names[i]));
	job->natural_end = n <= 0;
	job->max_tokens = n <= 0 ? MAX_TOKENS_DEFAULT : n;
	if (job->max_tokens > MAX_TOKENS_LIMIT)
		job->max_tokens = MAX_TOKENS_LIMIT;
	job->stream = json_is_true(json_object_get(root, "stream"));
	job->include_usage = json_is_true(
		json_object_get(json_object_get(root, "stream_options"), "include_usage"));
}

static const char *parse_error(const struct buf *body, const json_error_t *err, unsigned *status,
			       char *text, size_t text_size)
{
	bool empty = !body->len;

	if (sim_llama()) {
		*status = 500;
		snprintf(text, text_size,
			 empty ? "[json.exception.parse_error.101] parse error at line 1, column "
				 "1: attempting to parse an empty input; check that your input "
				 "string or stream contains the expected JSON"
			       : "[json.exception.parse_error.101] parse error at line %d, column "
				 "%d: syntax error while parsing value - unexpected end of input; "
				 "expected '[', '{', or a literal",
			 err->line, err->column + 1);
	} else {
		*status = 400;
		snprintf(text, text_size, "Expecting value: line %d column %d (char %d)",
			 empty ? 1 : err->line, empty ? 1 : err->column + 1,
			 empty ? 0 : err->position);
	}
	return text;
}

const char *prompt_parse(struct job *job, const struct buf *body, unsigned *status, char *text,
			 size_t text_size)
{
	static const char *const needs[] = {"messages", "prompt", "messages", "input"};
	const char *error = NULL;
	json_error_t err = {0};
	json_t *root = json_loadb(body->p ? body->p : "", body->len, 0, &err);

	if (!root)
		return parse_error(body, &err, status, text, text_size);
	if (!json_object_get(root, needs[job->api])) {
		*status = 400;
		snprintf(text, text_size, sim_llama() ? "'%s' is required" : "%s required",
			 needs[job->api]);
		error = text;
		goto out;
	}
	read_limits(job, root);
	add_prompt(job, root);
	job->prompt_tokens = (job->prompt.len + TOKEN_BYTES - 1) / TOKEN_BYTES;
	if (!job->prompt_tokens)
		job->prompt_tokens = 1;
	if (job->prompt_tokens >= opt.ctx_tokens) {
		*status = 400;
		snprintf(text, text_size,
			 "request (%llu tokens) exceeds the available context size (%u tokens), "
			 "try increasing it",
			 (unsigned long long)job->prompt_tokens, opt.ctx_tokens);
		error = text;
		goto out;
	}
	if (job->max_tokens > opt.ctx_tokens - job->prompt_tokens)
		job->max_tokens = opt.ctx_tokens - job->prompt_tokens;
out:
	json_decref(root);
	return error;
}
