/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * HTTP over the unix socket by libcurl. Happy path: connect, one exchange, 200 with a JSON object.
 * Failures: no socket, nobody listening, no permission, silence, an error answer, not JSON.
 */
#include "cli/control_client.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The largest answer is 100,000 sessions of some 220 bytes. */
#define ANSWER_BYTES_MAX (64 * 1024 * 1024)
#define CONNECT_MS	 2000L
/* A reload waits for the workers, and for what runs before it. */
#define ANSWER_MS 30000L

struct body {
	char *data;
	size_t len, room;
};

static size_t body_append(char *data, size_t size, size_t nr, void *arg)
{
	struct body *b = arg;
	size_t len = size * nr, room;
	char *grown;

	if (b->len + len > ANSWER_BYTES_MAX)
		return 0;
	if (b->len + len > b->room) {
		room = (b->len + len) * 2;
		grown = realloc(b->data, room);
		if (!grown)
			return 0;
		b->data = grown;
		b->room = room;
	}
	memcpy(b->data + b->len, data, len);
	b->len += len;
	return len;
}

static bool is_socket(const char *path)
{
	struct stat st;

	return stat(path, &st) || S_ISSOCK(st.st_mode);
}

static int describe_failure(const char *socket, CURLcode code, long os_errno, char *why,
			    unsigned int why_bytes)
{
	if (code == CURLE_COULDNT_CONNECT && (os_errno == ENOENT || os_errno == ENOTDIR)) {
		snprintf(why, why_bytes,
			 "kvpin is not running: there is no %s (another place? --control PATH)",
			 socket);
		return -ENOENT;
	}
	if (code == CURLE_COULDNT_CONNECT && os_errno == ECONNREFUSED && !is_socket(socket)) {
		snprintf(why, why_bytes, "%s is no control socket (another place? --control PATH)",
			 socket);
		return -ENOTSOCK;
	}
	if (code == CURLE_COULDNT_CONNECT && os_errno == ECONNREFUSED) {
		snprintf(why, why_bytes,
			 "kvpin is not running: nobody listens on %s, a leftover of an earlier run",
			 socket);
		return -ECONNREFUSED;
	}
	if (code == CURLE_COULDNT_CONNECT && (os_errno == EACCES || os_errno == EPERM)) {
		snprintf(why, why_bytes, "no permission for %s; try sudo, or join its group",
			 socket);
		return -EACCES;
	}
	if (code == CURLE_OPERATION_TIMEDOUT) {
		snprintf(why, why_bytes, "kvpin does not answer on %s", socket);
		return -ETIMEDOUT;
	}
	if (code == CURLE_COULDNT_CONNECT && os_errno) {
		snprintf(why, why_bytes, "cannot reach kvpin on %s: %s", socket,
			 strerror((int)os_errno));
		return -(int)os_errno;
	}
	snprintf(why, why_bytes, "cannot talk to kvpin on %s: %s", socket,
		 curl_easy_strerror(code));
	return -EIO;
}

static int parse_answer(const struct body *body, long status, json_t **answer, char *why,
			unsigned int why_bytes)
{
	json_error_t error;
	json_t *root = json_loadb(body->data ? body->data : "", body->len, 0, &error);
	const char *text = json_string_value(json_object_get(root, "error"));

	if (status == 200 && json_is_object(root)) {
		*answer = root;
		return 0;
	}
	if (text)
		snprintf(why, why_bytes, "%s", text);
	else if (status != 200)
		snprintf(why, why_bytes, "kvpin answered with status %ld", status);
	else
		snprintf(why, why_bytes,
			 "kvpin's answer is not a JSON object (%s); is it another "
			 "version?",
			 root ? "other JSON" : error.text);
	json_decref(root);
	return -EPROTO;
}

int control_ask(const char *socket, const char *method, const char *target, json_t **answer,
		char *why, unsigned int why_bytes)
{
	struct body body = {0};
	char url[512];
	long os_errno = 0, status = 0;
	CURL *curl = curl_easy_init();
	CURLcode code;
	int err;

	if (!curl) {
		snprintf(why, why_bytes, "out of memory");
		return -ENOMEM;
	}
	snprintf(url, sizeof(url), "http://kvpin%s", target);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, socket);
	/* http_proxy in the environment must not get in the way. */
	curl_easy_setopt(curl, CURLOPT_PROXY, "");
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, ANSWER_MS);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, body_append);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, &body);
	if (!strcmp(method, "POST"))
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, "");
	code = curl_easy_perform(curl);
	curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &os_errno);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	if (code != CURLE_OK)
		err = describe_failure(socket, code, os_errno, why, why_bytes);
	else
		err = parse_answer(&body, status, answer, why, why_bytes);
	curl_easy_cleanup(curl);
	free(body.data);
	return err;
}
