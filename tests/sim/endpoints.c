/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The table of endpoints. The first match wins; exact paths stand before prefixes.
 */
#include <string.h>

#include "sim.h"

const struct endpoint endpoints[] = {
	{"/json", .get = 1, .run = load_json},
	{"/sse/", .prefix = 1, .get = 1, .run = load_sse},
	{"/bytes/", .prefix = 1, .get = 1, .run = load_bytes},
	{"/sink", .any = 1, .start = sink_start, .run = sink_run},
	{"/echo", .post = 1, .start = echo_start, .run = echo_run},
	{"/v1/chat/completions", .post = 1, .body = 1, .run = api_chat},
	{"/v1/completions", .post = 1, .body = 1, .run = api_completions},
	{"/v1/messages", .post = 1, .body = 1, .run = api_messages},
	{"/v1/responses", .post = 1, .body = 1, .run = api_responses},
	{"/v1/models", .get = 1, .run = api_models},
	{"/health", .get = 1, .loading = 1, .run = api_health},
	{"/props", .get = 1, .run = api_props},
	{"/slots", .get = 1, .run = api_slots},
	{"/metrics", .get = 1, .run = api_metrics},
	{"/v1/stream", .get = 1, .del = 1, .run = conv_stream},
	{"/v1/streams/lookup", .post = 1, .body = 1, .run = conv_lookup},
	{"/status/", .prefix = 1, .any = 1, .run = load_status},
	{"/trailers", .get = 1, .run = load_trailers},
	{"/slowhead", .get = 1, .run = load_slowhead},
	{"/head_echo", .any = 1, .run = load_head_echo},
	{"/close", .get = 1, .run = load_close},
	{"/upgrade", .get = 1, .run = upgrade_run},
	{"/hang", .any = 1, .run = fault_hang},
	{"/reset", .any = 1, .run = fault_reset},
	{"/eof", .any = 1, .run = fault_eof},
	{"/partial_head", .any = 1, .run = fault_partial_head},
	{"/badframing", .any = 1, .run = fault_badframing},
	{"/stats", .get = 1, .loading = 1, .run = stats_answer},
	{"/stats/reset", .post = 1, .loading = 1, .run = stats_clear},
	{"/control", .post = 1, .body = 1, .loading = 1, .run = api_control},
};

const unsigned endpoints_nr = ARRAY_SIZE(endpoints);

/* uvicorn's captured application knows HEAD on no path; the load endpoints do. */
static bool endpoint_takes(const struct endpoint *e, unsigned method)
{
	bool model_path =
		!strncmp(e->path, "/v1/", 4) || e->run == api_health || e->run == api_metrics;

	switch (method) {
	case HTTP_HEAD:
		return e->any || (e->get && (sim_llama() || !model_path));
	case HTTP_GET:
		return e->any || e->get;
	case HTTP_POST:
		return e->any || e->post;
	case HTTP_DELETE:
		return e->any || e->del;
	default:
		return e->any;
	}
}

const struct endpoint *endpoint_find(const char *path, unsigned method, bool *wrong_method)
{
	*wrong_method = false;
	for (const struct endpoint *e = endpoints; e < endpoints + endpoints_nr; e++) {
		if (e->prefix ? strncmp(path, e->path, strlen(e->path)) : strcmp(path, e->path))
			continue;
		if (endpoint_takes(e, method))
			return e;
		*wrong_method = true;
	}
	return NULL;
}

unsigned endpoint_index(const struct endpoint *e)
{
	return e - endpoints;
}
