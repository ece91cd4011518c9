/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * send.c: writes requests: head, body framing, fragmentation. It never reads. What a request says
 * is decided when it is rendered; what is left of its body is produced while the socket takes it,
 * so 100 MB up cost no memory. Without --fragment a small request is one write.
 */
#include "load.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <xxhash.h>

/* A prime, so that no power-of-two buffer mix-up maps the pattern onto itself. */
#define PATTERN_BYTES 1048573u
/* What kvpin-sim sends: byte i of a body is i % 251 (tests/sim/sim.h). */
#define SIM_PATTERN_PERIOD 251

#define JSON_TAIL     "\"}]}"
#define FILLER	      "session affinity "
#define FILLER_PERIOD (sizeof(FILLER) - 1)

static char head_before_session[1024];
static size_t head_before_session_len;
static char head_after_session[512];
static size_t head_after_session_len;
static char json_head[160];
static size_t json_head_len;
static uint8_t json_filler[IN_BYTES + FILLER_PERIOD];
static uint8_t sim_pattern[IN_BYTES + SIM_PATTERN_PERIOD];

int pattern_init(struct load *l)
{
	uint8_t *p = malloc(PATTERN_BYTES + IN_BYTES);
	uint64_t x = 88172645463325252ull;

	if (!p)
		return -ENOMEM;
	for (uint32_t i = 0; i < PATTERN_BYTES; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p[i] = (uint8_t)(x >> 24);
	}
	memcpy(p + PATTERN_BYTES, p, IN_BYTES);
	l->pattern = p;
	for (uint32_t i = 0; i < sizeof(sim_pattern); i++)
		sim_pattern[i] = (uint8_t)(i % SIM_PATTERN_PERIOD);
	return 0;
}

const uint8_t *sim_pattern_at(uint64_t off)
{
	return sim_pattern + off % SIM_PATTERN_PERIOD;
}

static const char head_openai_before[] = "connection: keep-alive\r\n"
					 "accept: application/json\r\n"
					 "user-agent: OpenAI/JS 6.49.0\r\n"
					 "x-stainless-retry-count: 0\r\n"
					 "x-stainless-lang: js\r\n"
					 "x-stainless-package-version: 6.49.0\r\n"
					 "x-stainless-os: Linux\r\n"
					 "x-stainless-arch: x64\r\n"
					 "x-stainless-runtime: node\r\n"
					 "x-stainless-runtime-version: v20.20.2\r\n"
					 "authorization: Bearer sk-test\r\n";
static const char head_openai_after[] = "accept-language: *\r\n"
					"sec-fetch-mode: cors\r\n"
					"accept-encoding: gzip, deflate\r\n";
static const char head_plain_before[] = "user-agent: kvpin-load\r\naccept: */*\r\n";

void send_init(struct load *l)
{
	const struct opts *o = l->opts;
	bool openai = o->head == HEAD_OPENAI, body = o->body_max_bytes > 0;

	head_before_session_len = (size_t)snprintf(
		head_before_session, sizeof(head_before_session),
		"%s HTTP/1.1\r\nhost: %s\r\n%sx-session-id: load-", l->request_line, o->to_text,
		openai ? head_openai_before : head_plain_before);
	head_after_session_len = (size_t)snprintf(
		head_after_session, sizeof(head_after_session), "\r\n%s%s%s",
		!body			 ? ""
		: o->mode == MODE_UPLOAD ? "content-type: application/octet-stream\r\n"
					 : "content-type: application/json\r\n",
		openai ? head_openai_after : "", o->verify ? "x-sim-verify: 1\r\n" : "");
	if (o->mode == MODE_CHAT)
		json_head_len = (size_t)snprintf(json_head, sizeof(json_head),
						 "{\"model\":\"sim\",\"stream\":true,"
						 "\"max_tokens\":%" PRIu64 ",\"messages\":"
						 "[{\"role\":\"user\",\"content\":\"",
						 o->events);
	else
		json_head_len = (size_t)snprintf(
			json_head, sizeof(json_head),
			"{\"model\":\"sim\",\"messages\":[{\"role\":\"user\",\"content\":\"");
	for (uint32_t i = 0; i < sizeof(json_filler); i++)
		json_filler[i] = (uint8_t)FILLER[i % FILLER_PERIOD];
}

/* The request body from `off` on, as far as it is contiguous; `total` is its whole length. */
static const uint8_t *body_at(const struct load *l, uint64_t off, uint64_t total, size_t *len)
{
	uint64_t tail = sizeof(JSON_TAIL) - 1, end = total;
	const uint8_t *p;

	if (l->opts->mode == MODE_UPLOAD || total < json_head_len + tail) {
		p = l->pattern + off % PATTERN_BYTES;
	} else if (off < json_head_len) {
		p = (const uint8_t *)json_head + off;
		end = json_head_len;
	} else if (off < total - tail) {
		p = json_filler + (off - json_head_len) % FILLER_PERIOD;
		end = total - tail;
	} else {
		p = (const uint8_t *)JSON_TAIL + (off - (total - tail));
	}
	*len = end - off < IN_BYTES ? (size_t)(end - off) : IN_BYTES;
	return p;
}

uint64_t body_xxh64(const struct load *l, uint64_t total)
{
	XXH64_state_t *s;
	uint64_t off = 0, hash;
	const uint8_t *p;
	size_t n;

	if (l->body_xxh64_known && l->opts->body_min_bytes == l->opts->body_max_bytes)
		return l->body_xxh64;
	s = XXH64_createState();
	if (!s)
		abort();
	XXH64_reset(s, 0);
	for (; off < total; off += n) {
		p = body_at(l, off, total, &n);
		XXH64_update(s, p, n);
	}
	hash = XXH64_digest(s);
	XXH64_freeState(s);
	return hash;
}

static void out_copy(struct conn *c, const void *data, size_t len)
{
	memcpy(c->out + c->out_len, data, len);
	c->out_len += (uint32_t)len;
}

/* Moves the next `len` bytes of the body into `out`. */
static void out_body(struct conn *c, uint64_t len)
{
	uint64_t total = c->body_off + c->body_left;

	while (len) {
		size_t n;
		const uint8_t *p = body_at(c->load, c->body_off, total, &n);

		if (n > len)
			n = (size_t)len;
		out_copy(c, p, n);
		c->body_off += n;
		c->body_left -= n;
		len -= n;
	}
}

static void out_compact(struct conn *c)
{
	if (!c->out_off)
		return;
	c->out_len -= c->out_off;
	memmove(c->out, c->out + c->out_off, c->out_len);
	c->out_off = 0;
}

/* May one more request be rendered now? The one before must be wholly in `out`. */
bool send_room(const struct conn *c)
{
	return !c->body_left && !c->last_chunk_due &&
	       OUT_BYTES - (c->out_len - c->out_off) >= HEAD_MAX_BYTES + INLINE_BYTES;
}

void send_request(struct conn *c, struct pending *p)
{
	struct load *l = c->load;
	const struct opts *o = l->opts;
	uint32_t v = p->session;
	char digits[8], tail[64];

	out_compact(c);
	for (int i = 7; i >= 0; i--, v /= 10)
		digits[i] = (char)('0' + v % 10);
	p->body_bytes =
		o->body_min_bytes + load_random_below(l, o->body_max_bytes - o->body_min_bytes + 1);
	c->body_left = p->body_bytes;
	c->body_off = 0;
	c->body_framing = o->framing;
	if (o->framing == FRAMING_RANDOM)
		c->body_framing = load_random_below(l, 2) ? FRAMING_CL : FRAMING_CHUNKED;

	out_copy(c, head_before_session, head_before_session_len);
	out_copy(c, digits, sizeof(digits));
	out_copy(c, head_after_session, head_after_session_len);
	if (!o->body_max_bytes) {
		out_copy(c, "\r\n", 2);
	} else if (c->body_framing == FRAMING_CHUNKED) {
		static const char te[] = "transfer-encoding: chunked\r\n\r\n";

		out_copy(c, te, sizeof(te) - 1);
		c->last_chunk_due = true;
	} else {
		out_copy(c, tail,
			 (size_t)snprintf(tail, sizeof(tail), "content-length: %" PRIu64 "\r\n\r\n",
					  c->body_left));
		if (c->body_left <= INLINE_BYTES)
			out_body(c, c->body_left);
	}
}

static void out_chunk(struct conn *c)
{
	struct load *l = c->load;
	uint64_t n = c->body_left < CHUNK_BYTES ? c->body_left : CHUNK_BYTES;
	char line[24];

	out_compact(c);
	if (!n) {
		out_copy(c, "0\r\n\r\n", 5);
		c->last_chunk_due = false;
		return;
	}
	if (l->opts->fragment)
		n = 1 + load_random_below(l, load_random_below(l, 4) ? n : (n < 40 ? n : 40));
	out_copy(c, line, (size_t)snprintf(line, sizeof(line), "%" PRIx64 "\r\n", n));
	out_body(c, n);
	out_copy(c, "\r\n", 2);
}

bool send_pending(const struct conn *c)
{
	return c->out_off < c->out_len || c->body_left || c->last_chunk_due;
}

/*
 * How much of `len` goes into one write. Mostly short pieces, so that most boundaries fall inside
 * a line, a chunk head or a JSON string; of long bodies mostly long ones, so that they end.
 */
static size_t fragment_size(struct load *l, size_t len, bool long_body)
{
	uint64_t r = load_random_below(l, 16), most;

	if (long_body)
		most = r < 2 ? 100 : 65536;
	else
		most = r < 3 ? 1 : r < 11 ? 64 : 4096;
	most = 1 + load_random_below(l, most);
	return len < most ? len : (size_t)most;
}

static int send_step(struct conn *c)
{
	struct load *l = c->load;
	struct iovec iov[2];
	struct msghdr msg = {.msg_iov = iov};
	size_t in_out, n_body;
	ssize_t n;

	if (c->out_off == c->out_len && c->body_framing == FRAMING_CHUNKED && c->last_chunk_due)
		out_chunk(c);
	in_out = c->out_len - c->out_off;
	if (in_out) {
		iov[0].iov_base = c->out + c->out_off;
		iov[0].iov_len = in_out;
		msg.msg_iovlen = 1;
	}
	if (c->body_left && c->body_framing == FRAMING_CL) {
		iov[msg.msg_iovlen].iov_base = (void *)(uintptr_t)body_at(
			l, c->body_off, c->body_off + c->body_left, &n_body);
		iov[msg.msg_iovlen++].iov_len = n_body;
	}
	if (l->opts->fragment) {
		iov[0].iov_len = fragment_size(l, iov[0].iov_len, c->body_left > 65536);
		msg.msg_iovlen = 1;
	}
	n = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN ? 0 : errno == EINTR ? 1 : -errno;
	l->bytes_out += (uint64_t)n;
	c->progress_ns = l->now_ns;
	if ((size_t)n < in_out) {
		c->out_off += (uint32_t)n;
		return 1;
	}
	c->out_off = c->out_len = 0;
	c->body_off += (size_t)n - in_out;
	c->body_left -= (size_t)n - in_out;
	return 1;
}

int send_pump(struct conn *c)
{
	struct load *l = c->load;
	int r;

	while (send_pending(c)) {
		r = send_step(c);
		if (r <= 0)
			return r;
		if (l->opts->fragment && send_pending(c) && !load_random_below(l, 6)) {
			c->delayed = true;
			return 0;
		}
	}
	return 1;
}
