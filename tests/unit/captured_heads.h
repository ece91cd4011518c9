/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Heads as ten HTTP clients, llama-server and uvicorn really sent them, copied from the project's
 * captures. What is expected of each was worked out by a few lines of Python, not by the parser.
 */
/* clang-format off */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"Host: 127.0.0.1:18318\r\n"
		"Connection: keep-alive\r\n"
		"Content-Length: 13\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 3,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_KEEP_ALIVE | KVPIN_HEAD_LENGTH, .content_length = 13}, /* clients_autocannon_1 */
	{"heads_of_real_clients_are_read",
		BYTES("GET /health HTTP/1.1\r\n"
		"Host: 127.0.0.1:18319\r\n"
		"Connection: keep-alive\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_GET, .target = "/health", .minor = 1, .fields = 2,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_KEEP_ALIVE}, /* clients_autocannon_pipe_1 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"Host: 127.0.0.1:18311\r\n"
		"User-Agent: curl/7.88.1\r\n"
		"Accept: */*\r\n"
		"X-Session-Id: c1\r\n"
		"Content-Length: 13\r\n"
		"Content-Type: application/x-www-form-urlencoded\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 6,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_LENGTH, .content_length = 13, KEY(1, "c1")}, /* clients_curl_1 */
	{"heads_of_real_clients_are_read",
		BYTES("GET /v1/models HTTP/1.1\r\n"
		"Host: 127.0.0.1:18311\r\n"
		"User-Agent: curl/7.88.1\r\n"
		"Accept: */*\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_GET, .target = "/v1/models", .minor = 1, .fields = 3,
		.flags = KVPIN_HEAD_HOST}, /* clients_curl_2 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"Host: 127.0.0.1:18312\r\n"
		"User-Agent: curl/7.88.1\r\n"
		"Accept: */*\r\n"
		"Content-Length: 2000000\r\n"
		"Content-Type: application/x-www-form-urlencoded\r\n"
		"Expect: 100-continue\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 6,
		.flags = KVPIN_HEAD_EXPECT | KVPIN_HEAD_HOST | KVPIN_HEAD_LENGTH, .content_length = 2000000}, /* clients_curl_big_1 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"Host: 127.0.0.1:18313\r\n"
		"User-Agent: curl/7.88.1\r\n"
		"Accept: */*\r\n"
		"Transfer-Encoding: chunked\r\n"
		"Content-Type: application/x-www-form-urlencoded\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 5,
		.flags = KVPIN_HEAD_CHUNKED | KVPIN_HEAD_HOST}, /* clients_curl_chunked_1 */
	{"heads_of_real_clients_are_read",
		BYTES("GET /v1/models HTTP/1.1\r\n"
		"Host: 127.0.0.1:18315\r\n"
		"User-Agent: curl/7.88.1\r\n"
		"Accept: */*\r\n"
		"Connection: Upgrade, HTTP2-Settings\r\n"
		"Upgrade: h2c\r\n"
		"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_GET, .target = "/v1/models", .minor = 1, .fields = 6,
		.flags = KVPIN_HEAD_CONNECTION_LIST | KVPIN_HEAD_HOST | KVPIN_HEAD_UPGRADE}, /* clients_curl_h2c_1 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"Host: 127.0.0.1:18314\r\n"
		"User-Agent: curl/7.88.1\r\n"
		"Accept: */*\r\n"
		"Content-Length: 32\r\n"
		"Content-Type: application/x-www-form-urlencoded\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 5,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_LENGTH, .content_length = 32}, /* clients_curl_stream_kill_1 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"Host: 127.0.0.1:18317\r\n"
		"User-Agent: hey/0.0.1\r\n"
		"Content-Length: 13\r\n"
		"Content-Type: application/json\r\n"
		"Accept-Encoding: gzip\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 5,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_LENGTH, .content_length = 13}, /* clients_hey_1 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/messages HTTP/1.1\r\n"
		"host: 127.0.0.1:18303\r\n"
		"connection: keep-alive\r\n"
		"Accept: application/json\r\n"
		"User-Agent: Anthropic/JS 1.11.0\r\n"
		"X-Stainless-Retry-Count: 0\r\n"
		"X-Stainless-Timeout: 600\r\n"
		"X-Stainless-Lang: js\r\n"
		"X-Stainless-Package-Version: 1.11.0\r\n"
		"X-Stainless-OS: Linux\r\n"
		"X-Stainless-Arch: x64\r\n"
		"X-Stainless-Runtime: node\r\n"
		"X-Stainless-Runtime-Version: v20.20.2\r\n"
		"anthropic-version: 2026-10-21\r\n"
		"authorization: Bearer k\r\n"
		"content-type: application/json\r\n"
		"accept-language: *\r\n"
		"sec-fetch-mode: cors\r\n"
		"accept-encoding: gzip, deflate\r\n"
		"content-length: 72\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/messages", .minor = 1, .fields = 19,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_KEEP_ALIVE | KVPIN_HEAD_LENGTH, .content_length = 72}, /* clients_node_anthropic_1 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"host: 127.0.0.1:18305\r\n"
		"connection: keep-alive\r\n"
		"content-type: application/json\r\n"
		"x-session-id: f1\r\n"
		"accept: */*\r\n"
		"accept-language: *\r\n"
		"sec-fetch-mode: cors\r\n"
		"user-agent: node\r\n"
		"accept-encoding: gzip, deflate\r\n"
		"content-length: 19\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 10,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_KEEP_ALIVE | KVPIN_HEAD_LENGTH, .content_length = 19, KEY(1, "f1")}, /* clients_node_fetch_1 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"host: 127.0.0.1:18305\r\n"
		"connection: keep-alive\r\n"
		"accept: */*\r\n"
		"accept-language: *\r\n"
		"sec-fetch-mode: cors\r\n"
		"user-agent: node\r\n"
		"accept-encoding: gzip, deflate\r\n"
		"transfer-encoding: chunked\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 8,
		.flags = KVPIN_HEAD_CHUNKED | KVPIN_HEAD_HOST | KVPIN_HEAD_KEEP_ALIVE}, /* clients_node_fetch_2 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"host: 127.0.0.1:18305\r\n"
		"connection: keep-alive\r\n"
		"content-type: text/plain;charset=UTF-8\r\n"
		"accept: */*\r\n"
		"accept-language: *\r\n"
		"sec-fetch-mode: cors\r\n"
		"user-agent: node\r\n"
		"accept-encoding: gzip, deflate\r\n"
		"content-length: 32\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 9,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_KEEP_ALIVE | KVPIN_HEAD_LENGTH, .content_length = 32}, /* clients_node_fetch_3 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"host: 127.0.0.1:18301\r\n"
		"connection: keep-alive\r\n"
		"accept: application/json\r\n"
		"user-agent: OpenAI/JS 6.49.0\r\n"
		"x-stainless-retry-count: 0\r\n"
		"x-stainless-lang: js\r\n"
		"x-stainless-package-version: 6.49.0\r\n"
		"x-stainless-os: Linux\r\n"
		"x-stainless-arch: x64\r\n"
		"x-stainless-runtime: node\r\n"
		"x-stainless-runtime-version: v20.20.2\r\n"
		"authorization: Bearer sk-test\r\n"
		"x-session-id: s1\r\n"
		"content-type: application/json\r\n"
		"accept-language: *\r\n"
		"sec-fetch-mode: cors\r\n"
		"accept-encoding: gzip, deflate\r\n"
		"content-length: 57\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 18,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_KEEP_ALIVE | KVPIN_HEAD_LENGTH, .content_length = 57, KEY(1, "s1")}, /* clients_node_openai_1 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"host: 127.0.0.1:18301\r\n"
		"connection: keep-alive\r\n"
		"accept: application/json\r\n"
		"user-agent: OpenAI/JS 6.49.0\r\n"
		"x-stainless-retry-count: 0\r\n"
		"x-stainless-lang: js\r\n"
		"x-stainless-package-version: 6.49.0\r\n"
		"x-stainless-os: Linux\r\n"
		"x-stainless-arch: x64\r\n"
		"x-stainless-runtime: node\r\n"
		"x-stainless-runtime-version: v20.20.2\r\n"
		"authorization: Bearer sk-test\r\n"
		"content-type: application/json\r\n"
		"x-session-id: s2\r\n"
		"accept-language: *\r\n"
		"sec-fetch-mode: cors\r\n"
		"accept-encoding: gzip, deflate\r\n"
		"content-length: 100055\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 18,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_KEEP_ALIVE | KVPIN_HEAD_LENGTH, .content_length = 100055, KEY(1, "s2")}, /* clients_node_openai_2 */
	{"heads_of_real_clients_are_read",
		BYTES("GET /v1/models HTTP/1.1\r\n"
		"host: 127.0.0.1:18301\r\n"
		"connection: keep-alive\r\n"
		"accept: application/json\r\n"
		"user-agent: OpenAI/JS 6.49.0\r\n"
		"x-stainless-retry-count: 0\r\n"
		"x-stainless-lang: js\r\n"
		"x-stainless-package-version: 6.49.0\r\n"
		"x-stainless-os: Linux\r\n"
		"x-stainless-arch: x64\r\n"
		"x-stainless-runtime: node\r\n"
		"x-stainless-runtime-version: v20.20.2\r\n"
		"authorization: Bearer sk-test\r\n"
		"x-session-id: s1\r\n"
		"accept-language: *\r\n"
		"sec-fetch-mode: cors\r\n"
		"accept-encoding: gzip, deflate\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_GET, .target = "/v1/models", .minor = 1, .fields = 16,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_KEEP_ALIVE, KEY(1, "s1")}, /* clients_node_openai_3 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"host: 127.0.0.1:18302\r\n"
		"connection: keep-alive\r\n"
		"accept: application/json\r\n"
		"user-agent: OpenAI/JS 6.49.0\r\n"
		"x-stainless-retry-count: 0\r\n"
		"x-stainless-timeout: 0\r\n"
		"x-stainless-lang: js\r\n"
		"x-stainless-package-version: 6.49.0\r\n"
		"x-stainless-os: Linux\r\n"
		"x-stainless-arch: x64\r\n"
		"x-stainless-runtime: node\r\n"
		"x-stainless-runtime-version: v20.20.2\r\n"
		"authorization: Bearer sk-test\r\n"
		"x-session-id: s1\r\n"
		"content-type: application/json\r\n"
		"accept-language: *\r\n"
		"sec-fetch-mode: cors\r\n"
		"accept-encoding: gzip, deflate\r\n"
		"content-length: 65\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 19,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_KEEP_ALIVE | KVPIN_HEAD_LENGTH, .content_length = 65, KEY(1, "s1")}, /* clients_node_openai_abort_1 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"host: 127.0.0.1:18304\r\n"
		"connection: keep-alive\r\n"
		"content-type: application/json\r\n"
		"x-session-id: u1\r\n"
		"content-length: 19\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 5,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_KEEP_ALIVE | KVPIN_HEAD_LENGTH, .content_length = 19, KEY(1, "u1")}, /* clients_node_undici_1 */
	{"heads_of_real_clients_are_read",
		BYTES("GET /v1/models?i=1 HTTP/1.1\r\n"
		"host: 127.0.0.1:18304\r\n"
		"connection: keep-alive\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_GET, .target = "/v1/models?i=1", .minor = 1, .fields = 2,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_KEEP_ALIVE}, /* clients_node_undici_2 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"host: 127.0.0.1:18304\r\n"
		"connection: keep-alive\r\n"
		"transfer-encoding: chunked\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 3,
		.flags = KVPIN_HEAD_CHUNKED | KVPIN_HEAD_HOST | KVPIN_HEAD_KEEP_ALIVE}, /* clients_node_undici_3 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"Host: 127.0.0.1:18308\r\n"
		"X-Session-Id: p1\r\n"
		"Accept: */*\r\n"
		"Accept-Encoding: gzip, deflate\r\n"
		"User-Agent: Python/3.11 aiohttp/3.8.4\r\n"
		"Content-Length: 63\r\n"
		"Content-Type: application/json\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 7,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_LENGTH, .content_length = 63, KEY(1, "p1")}, /* clients_py_aiohttp_1 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"Host: 127.0.0.1:18308\r\n"
		"Accept: */*\r\n"
		"Accept-Encoding: gzip, deflate\r\n"
		"User-Agent: Python/3.11 aiohttp/3.8.4\r\n"
		"Content-Length: 79\r\n"
		"Content-Type: application/json\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 6,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_LENGTH, .content_length = 79}, /* clients_py_aiohttp_2 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"Host: 127.0.0.1:18308\r\n"
		"Accept: */*\r\n"
		"Accept-Encoding: gzip, deflate\r\n"
		"User-Agent: Python/3.11 aiohttp/3.8.4\r\n"
		"Content-Length: 100072\r\n"
		"Content-Type: application/json\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 6,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_LENGTH, .content_length = 100072}, /* clients_py_aiohttp_3 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"Host: 127.0.0.1:18309\r\n"
		"Accept-Encoding: identity\r\n"
		"Content-Length: 63\r\n"
		"Content-Type: application/json\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 4,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_LENGTH, .content_length = 63}, /* clients_py_httpclient_1 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"Host: 127.0.0.1:18307\r\n"
		"Accept: */*\r\n"
		"Accept-Encoding: gzip, deflate\r\n"
		"Connection: keep-alive\r\n"
		"User-Agent: python-httpx/0.23.3\r\n"
		"X-Session-Id: p1\r\n"
		"Content-Length: 63\r\n"
		"Content-Type: application/json\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 8,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_KEEP_ALIVE | KVPIN_HEAD_LENGTH, .content_length = 63, KEY(1, "p1")}, /* clients_py_httpx_1 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"Host: 127.0.0.1:18307\r\n"
		"Accept: */*\r\n"
		"Accept-Encoding: gzip, deflate\r\n"
		"Connection: keep-alive\r\n"
		"User-Agent: python-httpx/0.23.3\r\n"
		"Content-Length: 63\r\n"
		"Content-Type: application/json\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 7,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_KEEP_ALIVE | KVPIN_HEAD_LENGTH, .content_length = 63}, /* clients_py_httpx_2 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"Host: 127.0.0.1:18307\r\n"
		"Accept: */*\r\n"
		"Accept-Encoding: gzip, deflate\r\n"
		"Connection: keep-alive\r\n"
		"User-Agent: python-httpx/0.23.3\r\n"
		"Content-Length: 100072\r\n"
		"Content-Type: application/json\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 7,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_KEEP_ALIVE | KVPIN_HEAD_LENGTH, .content_length = 100072}, /* clients_py_httpx_3 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"Host: 127.0.0.1:18306\r\n"
		"User-Agent: python-requests/2.28.1\r\n"
		"Accept-Encoding: gzip, deflate\r\n"
		"Accept: */*\r\n"
		"Connection: keep-alive\r\n"
		"X-Session-Id: p1\r\n"
		"Content-Length: 63\r\n"
		"Content-Type: application/json\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 8,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_KEEP_ALIVE | KVPIN_HEAD_LENGTH, .content_length = 63, KEY(1, "p1")}, /* clients_py_requests_1 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"Host: 127.0.0.1:18306\r\n"
		"User-Agent: python-requests/2.28.1\r\n"
		"Accept-Encoding: gzip, deflate\r\n"
		"Accept: */*\r\n"
		"Connection: keep-alive\r\n"
		"Content-Length: 79\r\n"
		"Content-Type: application/json\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 7,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_KEEP_ALIVE | KVPIN_HEAD_LENGTH, .content_length = 79}, /* clients_py_requests_2 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"Host: 127.0.0.1:18306\r\n"
		"User-Agent: python-requests/2.28.1\r\n"
		"Accept-Encoding: gzip, deflate\r\n"
		"Accept: */*\r\n"
		"Connection: keep-alive\r\n"
		"Content-Length: 100072\r\n"
		"Content-Type: application/json\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 7,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_KEEP_ALIVE | KVPIN_HEAD_LENGTH, .content_length = 100072}, /* clients_py_requests_3 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"Accept-Encoding: identity\r\n"
		"Content-Type: application/x-www-form-urlencoded\r\n"
		"Content-Length: 63\r\n"
		"Host: 127.0.0.1:18310\r\n"
		"User-Agent: Python-urllib/3.11\r\n"
		"X-Session-Id: p1\r\n"
		"Connection: close\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 7,
		.flags = KVPIN_HEAD_CLOSE | KVPIN_HEAD_HOST | KVPIN_HEAD_LENGTH, .content_length = 63, KEY(1, "p1")}, /* clients_py_urllib_1 */
	{"heads_of_real_clients_are_read",
		BYTES("GET /health HTTP/1.1\r\n"
		"Host: 127.0.0.1:18316\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_GET, .target = "/health", .minor = 1, .fields = 1,
		.flags = KVPIN_HEAD_HOST}, /* clients_wrk_1 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"Host: 127.0.0.1:18081\r\n"
		"Content-Type: application/json\r\n"
		"Content-Length: 186\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 3,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_LENGTH, .content_length = 186}, /* llama_stream_1 */
	{"heads_of_real_clients_are_read",
		BYTES("GET /v1/models HTTP/1.1\r\n"
		"Host: 127.0.0.1:18081\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_GET, .target = "/v1/models", .minor = 1, .fields = 1,
		.flags = KVPIN_HEAD_HOST}, /* llama_get_basic_2 */
	{"heads_of_real_clients_are_read",
		BYTES("HEAD /health HTTP/1.1\r\n"
		"Host: 127.0.0.1:18081\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_HEAD, .target = "/health", .minor = 1, .fields = 1,
		.flags = KVPIN_HEAD_HOST}, /* llama_head_options_1 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"Host: 127.0.0.1:18081\r\n"
		"Connection: close\r\n"
		"Content-Type: application/json\r\n"
		"Content-Length: 143\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 4,
		.flags = KVPIN_HEAD_CLOSE | KVPIN_HEAD_HOST | KVPIN_HEAD_LENGTH, .content_length = 143}, /* llama_conn_close_stream_1 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"Host: 127.0.0.1:18081\r\n"
		"Expect: 100-continue\r\n"
		"Content-Type: application/json\r\n"
		"Content-Length: 19391\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 4,
		.flags = KVPIN_HEAD_EXPECT | KVPIN_HEAD_HOST | KVPIN_HEAD_LENGTH, .content_length = 19391}, /* llama_expect100_1 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"Host: 127.0.0.1:18081\r\n"
		"Content-Type: application/json\r\n"
		"Content-Length: 14\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 3,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_LENGTH, .content_length = 14}, /* llama_bad_json_1 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"Host: 127.0.0.1:18081\r\n"
		"Transfer-Encoding: chunked\r\n"
		"Content-Type: application/json\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 3,
		.flags = KVPIN_HEAD_CHUNKED | KVPIN_HEAD_HOST}, /* llama_chunked_request_1 */
	{"heads_of_real_clients_are_read",
		BYTES("POST /v1/chat/completions HTTP/1.1\r\n"
		"Host: 127.0.0.1:18085\r\n"
		"Content-Type: application/json\r\n"
		"Content-Length: 70662\r\n"
		"\r\n"),
		.kind = KVPIN_REQUEST, .method = KVPIN_METHOD_POST, .target = "/v1/chat/completions", .minor = 1, .fields = 3,
		.flags = KVPIN_HEAD_HOST | KVPIN_HEAD_LENGTH, .content_length = 70662}, /* llama_sse_ping_1 */
	{"heads_of_real_servers_are_read",
		BYTES("HTTP/1.1 200 OK\r\n"
		"Server: llama.cpp\r\n"
		"Access-Control-Allow-Origin: \r\n"
		"X-Accel-Buffering: no\r\n"
		"Content-Type: text/event-stream\r\n"
		"Transfer-Encoding: chunked\r\n"
		"Keep-Alive: timeout=5, max=100\r\n"
		"\r\n"),
		.kind = KVPIN_RESPONSE, .status = 200, .minor = 1, .fields = 6,
		.flags = KVPIN_HEAD_CHUNKED | KVPIN_HEAD_EVENT_STREAM | KVPIN_HEAD_HOP}, /* llama_stream_2 */
	{"heads_of_real_servers_are_read",
		BYTES("HTTP/1.1 200 OK\r\n"
		"Server: llama.cpp\r\n"
		"Access-Control-Allow-Origin: \r\n"
		"Content-Type: application/json; charset=utf-8\r\n"
		"Content-Length: 631\r\n"
		"Keep-Alive: timeout=5, max=100\r\n"
		"\r\n"),
		.kind = KVPIN_RESPONSE, .status = 200, .minor = 1, .fields = 5,
		.flags = KVPIN_HEAD_HOP | KVPIN_HEAD_LENGTH, .content_length = 631}, /* llama_nonstream_1 */
	{"heads_of_real_servers_are_read",
		BYTES("HTTP/1.1 200 OK\r\n"
		"Server: llama.cpp\r\n"
		"Access-Control-Allow-Origin: \r\n"
		"Content-Type: application/json; charset=utf-8\r\n"
		"Content-Length: 15\r\n"
		"Keep-Alive: timeout=5, max=100\r\n"
		"\r\n"),
		.kind = KVPIN_RESPONSE, .status = 200, .minor = 1, .fields = 5,
		.flags = KVPIN_HEAD_HOP | KVPIN_HEAD_LENGTH, .content_length = 15}, /* llama_get_basic_1 */
	{"heads_of_real_servers_are_read",
		BYTES("HTTP/1.1 200 OK\r\n"
		"Server: llama.cpp\r\n"
		"Access-Control-Allow-Origin: \r\n"
		"Content-Type: application/json; charset=utf-8\r\n"
		"Content-Length: 15\r\n"
		"Keep-Alive: timeout=5, max=100\r\n"
		"Accept-Ranges: bytes\r\n"
		"\r\n"),
		.kind = KVPIN_RESPONSE, .status = 200, .minor = 1, .fields = 6,
		.flags = KVPIN_HEAD_HOP | KVPIN_HEAD_LENGTH, .content_length = 15}, /* llama_head_options_2 */
	{"heads_of_real_servers_are_read",
		BYTES("HTTP/1.1 200 OK\r\n"
		"Server: llama.cpp\r\n"
		"Access-Control-Allow-Origin: \r\n"
		"X-Accel-Buffering: no\r\n"
		"Content-Type: text/event-stream\r\n"
		"Transfer-Encoding: chunked\r\n"
		"Connection: close\r\n"
		"\r\n"),
		.kind = KVPIN_RESPONSE, .status = 200, .minor = 1, .fields = 6,
		.flags = KVPIN_HEAD_CHUNKED | KVPIN_HEAD_CLOSE | KVPIN_HEAD_EVENT_STREAM}, /* llama_conn_close_stream_2 */
	{"heads_of_real_servers_are_read",
		BYTES("HTTP/1.1 100 Continue\r\n"
		"\r\n"),
		.kind = KVPIN_RESPONSE, .status = 100, .minor = 1, .fields = 0,
		.flags = 0}, /* llama_expect100_2 */
	{"heads_of_real_servers_are_read",
		BYTES("HTTP/1.1 500 Internal Server Error\r\n"
		"Server: llama.cpp\r\n"
		"Access-Control-Allow-Origin: \r\n"
		"Content-Type: application/json; charset=utf-8\r\n"
		"Content-Length: 215\r\n"
		"Connection: close\r\n"
		"\r\n"),
		.kind = KVPIN_RESPONSE, .status = 500, .minor = 1, .fields = 5,
		.flags = KVPIN_HEAD_CLOSE | KVPIN_HEAD_LENGTH, .content_length = 215}, /* llama_bad_json_2 */
	{"heads_of_real_servers_are_read",
		BYTES("HTTP/1.1 200 OK\r\n"
		"date: Fri, 20 Nov 2026 23:03:53 GMT\r\n"
		"server: uvicorn\r\n"
		"content-type: text/event-stream; charset=utf-8\r\n"
		"Transfer-Encoding: chunked\r\n"
		"\r\n"),
		.kind = KVPIN_RESPONSE, .status = 200, .minor = 1, .fields = 4,
		.flags = KVPIN_HEAD_CHUNKED | KVPIN_HEAD_EVENT_STREAM}, /* uvicorn_h11_stream_1 */
	{"heads_of_real_servers_are_read",
		BYTES("HTTP/1.1 200 OK\r\n"
		"date: Fri, 20 Nov 2026 23:03:53 GMT\r\n"
		"server: uvicorn\r\n"
		"content-length: 330\r\n"
		"content-type: application/json\r\n"
		"\r\n"),
		.kind = KVPIN_RESPONSE, .status = 200, .minor = 1, .fields = 4,
		.flags = KVPIN_HEAD_LENGTH, .content_length = 330}, /* uvicorn_h11_nonstream_1 */
	{"heads_of_real_servers_are_read",
		BYTES("HTTP/1.1 200 OK\r\n"
		"date: Fri, 20 Nov 2026 23:03:50 GMT\r\n"
		"server: uvicorn\r\n"
		"content-length: 0\r\n"
		"\r\n"),
		.kind = KVPIN_RESPONSE, .status = 200, .minor = 1, .fields = 3,
		.flags = KVPIN_HEAD_LENGTH, .content_length = 0}, /* uvicorn_h11_get_basic_1 */
	{"heads_of_real_servers_are_read",
		BYTES("HTTP/1.1 200 OK\r\n"
		"date: Fri, 20 Nov 2026 23:03:50 GMT\r\n"
		"server: uvicorn\r\n"
		"content-length: 97\r\n"
		"content-type: application/json\r\n"
		"\r\n"),
		.kind = KVPIN_RESPONSE, .status = 200, .minor = 1, .fields = 4,
		.flags = KVPIN_HEAD_LENGTH, .content_length = 97}, /* uvicorn_h11_get_basic_2 */
	{"heads_of_real_servers_are_read",
		BYTES("HTTP/1.1 405 Method Not Allowed\r\n"
		"date: Fri, 20 Nov 2026 23:03:50 GMT\r\n"
		"server: uvicorn\r\n"
		"allow: GET\r\n"
		"content-length: 31\r\n"
		"content-type: application/json\r\n"
		"\r\n"),
		.kind = KVPIN_RESPONSE, .status = 405, .minor = 1, .fields = 5,
		.flags = KVPIN_HEAD_LENGTH, .content_length = 31}, /* uvicorn_h11_head_options_1 */
	{"heads_of_real_servers_are_read",
		BYTES("HTTP/1.1 405 Method Not Allowed\r\n"
		"date: Fri, 20 Nov 2026 23:03:50 GMT\r\n"
		"server: uvicorn\r\n"
		"allow: POST\r\n"
		"content-length: 31\r\n"
		"content-type: application/json\r\n"
		"\r\n"),
		.kind = KVPIN_RESPONSE, .status = 405, .minor = 1, .fields = 5,
		.flags = KVPIN_HEAD_LENGTH, .content_length = 31}, /* uvicorn_h11_head_options_2 */
	{"heads_of_real_servers_are_read",
		BYTES("HTTP/1.1 200 OK\r\n"
		"date: Fri, 20 Nov 2026 23:05:19 GMT\r\n"
		"server: uvicorn\r\n"
		"content-type: text/event-stream; charset=utf-8\r\n"
		"Transfer-Encoding: chunked\r\n"
		"Connection: close\r\n"
		"\r\n"),
		.kind = KVPIN_RESPONSE, .status = 200, .minor = 1, .fields = 5,
		.flags = KVPIN_HEAD_CHUNKED | KVPIN_HEAD_CLOSE | KVPIN_HEAD_EVENT_STREAM}, /* uvicorn_h11_conn_close_stream_1 */
	{"heads_of_real_servers_are_read",
		BYTES("HTTP/1.1 200 OK\r\n"
		"date: Fri, 20 Nov 2026 23:05:19 GMT\r\n"
		"server: uvicorn\r\n"
		"content-length: 0\r\n"
		"Connection: close\r\n"
		"\r\n"),
		.kind = KVPIN_RESPONSE, .status = 200, .minor = 1, .fields = 4,
		.flags = KVPIN_HEAD_CLOSE | KVPIN_HEAD_LENGTH, .content_length = 0}, /* uvicorn_h11_http10_1 */
	{"heads_of_real_servers_are_read",
		BYTES("HTTP/1.1 200 OK\r\n"
		"date: Fri, 20 Nov 2026 23:05:19 GMT\r\n"
		"server: uvicorn\r\n"
		"content-type: text/event-stream; charset=utf-8\r\n"
		"Connection: close\r\n"
		"\r\n"),
		.kind = KVPIN_RESPONSE, .status = 200, .minor = 1, .fields = 4,
		.flags = KVPIN_HEAD_CLOSE | KVPIN_HEAD_EVENT_STREAM}, /* uvicorn_h11_http10_2 */
	{"heads_of_real_servers_are_read",
		BYTES("HTTP/1.1 400 Bad Request\r\n"
		"date: Fri, 20 Nov 2026 23:05:34 GMT\r\n"
		"server: uvicorn\r\n"
		"content-length: 123\r\n"
		"content-type: application/json\r\n"
		"\r\n"),
		.kind = KVPIN_RESPONSE, .status = 400, .minor = 1, .fields = 4,
		.flags = KVPIN_HEAD_LENGTH, .content_length = 123}, /* uvicorn_h11_bad_json_1 */
	{"heads_of_real_servers_are_read",
		BYTES("HTTP/1.1 400 Bad Request\r\n"
		"date: Fri, 20 Nov 2026 23:05:34 GMT\r\n"
		"server: uvicorn\r\n"
		"content-length: 97\r\n"
		"content-type: application/json\r\n"
		"\r\n"),
		.kind = KVPIN_RESPONSE, .status = 400, .minor = 1, .fields = 4,
		.flags = KVPIN_HEAD_LENGTH, .content_length = 97}, /* uvicorn_h11_bad_json_2 */
	{"heads_of_real_servers_are_read",
		BYTES("HTTP/1.1 200 OK\r\n"
		"date: Fri, 20 Nov 2026 23:03:53 GMT\r\n"
		"server: uvicorn\r\n"
		"content-type: text/event-stream; charset=utf-8\r\n"
		"transfer-encoding: chunked\r\n"
		"\r\n"),
		.kind = KVPIN_RESPONSE, .status = 200, .minor = 1, .fields = 4,
		.flags = KVPIN_HEAD_CHUNKED | KVPIN_HEAD_EVENT_STREAM}, /* uvicorn_httptools_stream_1 */
	{"heads_of_real_servers_are_read",
		BYTES("HTTP/1.1 200 OK\r\n"
		"date: Fri, 20 Nov 2026 23:03:50 GMT\r\n"
		"server: uvicorn\r\n"
		"content-length: 198\r\n"
		"content-type: text/plain; charset=utf-8\r\n"
		"\r\n"),
		.kind = KVPIN_RESPONSE, .status = 200, .minor = 1, .fields = 4,
		.flags = KVPIN_HEAD_LENGTH, .content_length = 198}, /* uvicorn_httptools_get_basic_1 */
	{"heads_of_real_servers_are_read",
		BYTES("HTTP/1.1 200 OK\r\n"
		"date: Fri, 20 Nov 2026 23:05:19 GMT\r\n"
		"server: uvicorn\r\n"
		"content-type: text/event-stream; charset=utf-8\r\n"
		"connection: close\r\n"
		"transfer-encoding: chunked\r\n"
		"\r\n"),
		.kind = KVPIN_RESPONSE, .status = 200, .minor = 1, .fields = 5,
		.flags = KVPIN_HEAD_CHUNKED | KVPIN_HEAD_CLOSE | KVPIN_HEAD_EVENT_STREAM}, /* uvicorn_httptools_conn_close_stream_1 */
/* clang-format on */
