/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A request by libcurl, and the answer to it. Included by test programs, after cmocka.h. */
#ifndef UNIT_CURL_CASE_H
#define UNIT_CURL_CASE_H

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct answer {
	long status;
	char *body; /* the caller's to free; NULL: none */
	char type[128];
};

static inline size_t curl_case_collect(char *data, size_t size, size_t nr, void *arg)
{
	struct answer *a = arg;
	size_t len = a->body ? strlen(a->body) : 0;

	a->body = realloc(a->body, len + nr + 1);
	memcpy(a->body + len, data, nr);
	a->body[len + nr] = '\0';
	return nr;
}

/* Asks @easy, which is freed: what it asks for and how is set. */
static inline struct answer curl_case_ask(CURL *easy)
{
	struct answer a = {0};
	char *type = NULL;

	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, 5000L);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, curl_case_collect);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, &a);
	assert_int_equal(curl_easy_perform(easy), CURLE_OK);
	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &a.status);
	curl_easy_getinfo(easy, CURLINFO_CONTENT_TYPE, &type);
	snprintf(a.type, sizeof(a.type), "%s", type ? type : "");
	curl_easy_cleanup(easy);
	return a;
}

#endif
