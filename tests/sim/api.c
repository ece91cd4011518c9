/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The model server's own endpoints: completions in four APIs, models, health, props, slots,
 * metrics. Turns a request into a job or a JSON page; owns no job after model_submit().
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "model.h"

static uint64_t model_requests;

static void random_id(char *out, const char *prefix, const char *alphabet, size_t len)
{
	static uint64_t state;
	size_t n = strlen(alphabet);

	if (!state)
		state = now_ns() | 1;
	while (*prefix)
		*out++ = *prefix++;
	while (len--) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		*out++ = alphabet[(state >> 20) % n];
	}
	*out = 0;
}

static void api_run(struct conn *c, enum job_api api)
{
	static const char alnum[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
	struct job *job;
	unsigned status = 400;
	char text[256];
	const char *error;

	model_requests++;
	if (opt.faults.http500_every && model_requests % opt.faults.http500_every == 0) {
		answer_error(c, 500, "server_error", "simulated failure");
		return;
	}
	job = xalloc(sizeof(*job));
	job->api = api;
	job->conn = c;
	error = prompt_parse(job, &c->req.body, &status, text, sizeof(text));
	if (error) {
		const char *type = status == 500		  ? "server_error"
				   : strstr(text, "context size") ? "exceed_context_size_error"
								  : "invalid_request_error";

		buf_free(&job->prompt);
		free(job);
		answer_error(c, status, type, text);
		return;
	}
	random_id(job->id, api == API_RESPONSES ? "resp_" : "chatcmpl-",
		  sim_llama() ? alnum : "0123456789abcdef", 32);
	job->created_s = time(NULL);
	if (c->req.conversation_id && *c->req.conversation_id && job->stream && sim_llama())
		job->conv = conv_open(c->req.conversation_id, job);
	model_submit(job);
}

void api_chat(struct conn *c)
{
	api_run(c, API_CHAT);
}

void api_completions(struct conn *c)
{
	api_run(c, API_COMPLETIONS);
}

void api_messages(struct conn *c)
{
	api_run(c, API_MESSAGES);
}

void api_responses(struct conn *c)
{
	api_run(c, API_RESPONSES);
}

void api_models(struct conn *c)
{
	struct buf b = {0};

	if (sim_llama())
		buf_printf(&b,
			   "{\"models\":[{\"name\":\"%s\",\"model\":\"%s\",\"type\":\"model\","
			   "\"capabilities\":[\"completion\"]}],\"object\":\"list\",\"data\":[{"
			   "\"id\":\"%s\",\"aliases\":[\"%s\"],\"tags\":[],\"object\":\"model\","
			   "\"created\":%llu,\"owned_by\":\"llamacpp\",\"meta\":{\"n_ctx\":%u}}],"
			   "\"system_fingerprint\":\"%s\"}",
			   opt.model, opt.model, opt.model, opt.model,
			   (unsigned long long)time(NULL), opt.ctx_tokens, opt.name);
	else
		buf_printf(
			&b,
			"{\"object\":\"list\",\"data\":[{\"id\":\"%s\",\"object\":\"model\","
			"\"created\":%llu,\"owned_by\":\"vllm\"}],\"system_fingerprint\":\"%s\"}",
			opt.model, (unsigned long long)time(NULL), opt.name);
	answer_json(c, 200, b.p, b.len);
	buf_free(&b);
}

void api_health(struct conn *c)
{
	static const char ok[] = "{\"status\":\"ok\"}";

	if (opt.faults.health == HEALTH_HANG) {
		fault_hang(c);
		return;
	}
	if (sim_loading || opt.faults.health == HEALTH_503)
		answer_error(c, 503, "unavailable_error",
			     sim_loading ? "Loading model" : "simulated failure");
	else if (sim_llama())
		answer_json(c, 200, ok, sizeof(ok) - 1);
	else
		answer_full(c, 200, NULL, "", 0);
}

void api_props(struct conn *c)
{
	struct buf b = {0};

	if (!sim_llama()) {
		answer_not_found(c);
		return;
	}
	buf_printf(&b,
		   "{\"default_generation_settings\":{\"params\":{\"max_tokens\":-1,"
		   "\"n_predict\":-1,\"stream\":false},\"n_ctx\":%u},\"total_slots\":%u,"
		   "\"model_alias\":\"%s\",\"model_path\":\"%s.gguf\",\"endpoint_slots\":true,"
		   "\"endpoint_props\":false,\"endpoint_metrics\":true,"
		   "\"system_fingerprint\":\"%s\"}",
		   opt.ctx_tokens, opt.slots, opt.model, opt.model, opt.name);
	answer_json(c, 200, b.p, b.len);
	buf_free(&b);
}

void api_slots(struct conn *c)
{
	struct buf b = {0};
	char fail[8];

	if (!sim_llama()) {
		answer_not_found(c);
		return;
	}
	if (query_get(&c->req, "fail_on_no_slot", fail, sizeof(fail)) &&
	    model_busy() == opt.slots) {
		answer_error(c, 503, "unavailable_error", "no slot available");
		return;
	}
	buf_lit(&b, "[");
	for (unsigned i = 0; i < opt.slots; i++) {
		const struct slot *s = &slots[i];

		buf_printf(&b,
			   "%s{\"id\":%u,\"n_ctx\":%u,\"speculative\":false,\"is_processing\":%s",
			   i ? "," : "", i, opt.ctx_tokens, s->job ? "true" : "false");
		if (s->task)
			buf_printf(&b,
				   ",\"id_task\":%llu,\"n_prompt_tokens\":%llu,"
				   "\"n_prompt_tokens_processed\":%llu,"
				   "\"n_prompt_tokens_cache\":%llu,\"next_token\":[{"
				   "\"has_next_token\":%s,\"n_remain\":%llu,\"n_decoded\":%llu}]",
				   (unsigned long long)s->task,
				   (unsigned long long)s->prompt_tokens,
				   (unsigned long long)(s->prompt_tokens - s->cached_tokens),
				   (unsigned long long)s->cached_tokens, s->job ? "true" : "false",
				   (unsigned long long)(s->job ? s->job->max_tokens -
									 s->job->done_tokens
							       : 0),
				   (unsigned long long)(s->job ? s->job->done_tokens : 0));
		buf_lit(&b, "}");
	}
	buf_lit(&b, "]");
	answer_json(c, 200, b.p, b.len);
	buf_free(&b);
}

static void metric(struct buf *b, const char *name, const char *kind, const char *help, double v)
{
	buf_printf(b, "# HELP llamacpp:%s %s\n# TYPE llamacpp:%s %s\nllamacpp:%s %.15g\n", name,
		   help, name, kind, name, v);
}

static void metrics_vllm(struct buf *b)
{
	buf_printf(b,
		   "vllm:num_requests_waiting{model_name=\"%s\"} %u.0\n"
		   "vllm:num_requests_running{model_name=\"%s\"} %u.0\n"
		   "vllm:prompt_tokens_total{model_name=\"%s\"} %llu.0\n"
		   "vllm:prefix_cache_hits_total{model_name=\"%s\"} %llu.0\n",
		   opt.model, model_queued(), opt.model, model_busy(), opt.model,
		   (unsigned long long)(totals.prompt_tokens + totals.cached_tokens), opt.model,
		   (unsigned long long)totals.cached_tokens);
}

void api_metrics(struct conn *c)
{
	struct buf b = {0};
	double prefill_s = totals.prefill_ns / 1e9, decode_s = totals.decode_ns / 1e9;

	if (!sim_llama()) {
		metrics_vllm(&b);
		answer_full(c, 200, "text/plain; charset=utf-8", b.p, b.len);
		buf_free(&b);
		return;
	}
	metric(&b, "prompt_tokens_total", "counter",
	       "Number of prompt tokens processed, excluding cached tokens", totals.prompt_tokens);
	metric(&b, "prompt_tokens_cached_total", "counter",
	       "Number of prompt tokens reused from the cache", totals.cached_tokens);
	metric(&b, "prompt_seconds_total", "counter", "Total time spent processing prompts",
	       prefill_s);
	metric(&b, "tokens_predicted_total", "counter", "Number of generation tokens processed",
	       totals.predicted_tokens);
	metric(&b, "tokens_predicted_seconds_total", "counter",
	       "Total time spent generating tokens", decode_s);
	metric(&b, "n_decode_total", "counter", "Total number of llama_decode() calls",
	       totals.decodes);
	metric(&b, "n_tokens_max", "counter",
	       "Largest observed sequence length (prompt + generation)", totals.tokens_max);
	metric(&b, "n_busy_slots_per_decode", "counter",
	       "Average number of busy slots per llama_decode() call",
	       totals.decodes ? (double)totals.busy_sum / totals.decodes : 0);
	metric(&b, "prompt_tokens_seconds", "gauge", "Average prompt throughput in tokens/s",
	       prefill_s > 0 ? totals.prompt_tokens / prefill_s : 0);
	metric(&b, "predicted_tokens_seconds", "gauge", "Average generation throughput in tokens/s",
	       decode_s > 0 ? totals.predicted_tokens / decode_s : 0);
	metric(&b, "requests_processing", "gauge", "Number of requests processing", model_busy());
	metric(&b, "requests_deferred", "gauge", "Number of requests deferred", model_queued());
	answer_head(c, 200, "text/plain; version=0.0.4", FRAME_LENGTH, b.len,
		    "Process-Start-Time-Unix: 1705476866\r\n");
	if (c->req.method != HTTP_HEAD)
		conn_write(c, b.p, b.len);
	conn_answer_done(c);
	buf_free(&b);
}

static void control_u64(const json_t *root, const char *key, uint64_t *out)
{
	const json_t *v = json_object_get(root, key);

	if (json_is_integer(v))
		*out = json_integer_value(v);
}

void api_control(struct conn *c)
{
	static const char *const names[HEALTH_NR] = {"ok", "503", "hang", "refuse"};
	static const char done[] = "{\"ok\":true}";
	json_t *root = json_loadb(c->req.body.p ? c->req.body.p : "", c->req.body.len, 0, NULL);
	const char *health = json_string_value(json_object_get(root, "health"));
	uint64_t for_ms = 1000;
	unsigned i = HEALTH_OK;

	if (health)
		for (i = 0; i < HEALTH_NR && strcmp(health, names[i]); i++)
			;
	if (!root || i == HEALTH_NR) {
		answer_error(c, 400, "invalid_request_error", "health: ok|503|hang|refuse");
		goto out;
	}
	control_u64(root, "for_ms", &for_ms);
	control_u64(root, "fail_500_every", &opt.faults.http500_every);
	control_u64(root, "fail_accept_rst_every", &opt.faults.accept_rst_every);
	control_u64(root, "fail_cut_after", &opt.faults.cut_after);
	control_u64(root, "fail_rst_after", &opt.faults.rst_after);
	if (json_is_number(json_object_get(root, "prefill_tps")))
		opt.prefill_tps = json_number_value(json_object_get(root, "prefill_tps"));
	if (json_is_number(json_object_get(root, "decode_tps")))
		opt.decode_tps = json_number_value(json_object_get(root, "decode_tps"));
	if (health) {
		opt.faults.health = i;
		sim_refuse(i == HEALTH_REFUSE ? for_ms : 0);
	}
	answer_json(c, 200, done, sizeof(done) - 1);
out:
	json_decref(root);
}
