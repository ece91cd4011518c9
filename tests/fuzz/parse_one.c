/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Our half of llhttp_differential.js. Reads inputs on stdin, each as a 32-bit length, a byte of
 * kind, a byte for the method that a response answers, and the bytes; writes a JSON line each.
 * With --cases it writes the unit tests' inputs in the same format instead.
 */
#include <unistd.h>

#include "../unit/body_cases.h"
#include "../unit/head_cases.h"

#define INPUT_BYTES_MAX (1 << 20)
#define NR_OF(array)	(sizeof(array) / sizeof((array)[0]))

struct frame {
	uint32_t len;
	uint8_t kind;
	uint8_t answers;
};

static const char *const errors[] = {
#define TEXT(id, text) text,
	KVPIN_HTTP_ERRORS(TEXT)
#undef TEXT
};

static const char *framing(uint8_t state)
{
	switch (state) {
	case KVPIN_BS_DONE:
		return "none";
	case KVPIN_BS_COUNTED:
		return "length";
	case KVPIN_BS_CLOSE:
		return "close";
	case KVPIN_BS_TUNNEL:
		return "tunnel";
	default:
		return "chunked";
	}
}

/* Bytes as latin-1 in a JSON string. */
static void print_text(const char *key, const uint8_t *bytes, uint32_t len)
{
	printf(",\"%s\":\"", key);
	while (len--) {
		if (*bytes < 0x20 || *bytes > 0x7e || *bytes == '"' || *bytes == '\\')
			printf("\\u%04x", *bytes);
		else
			putchar(*bytes);
		bytes++;
	}
	putchar('"');
}

static void parse(const struct kvpin_names *names, const struct frame *f, const uint8_t *bytes)
{
	struct http_case c = {.kind = f->kind, .answers = f->answers};
	struct kvpin_head h;
	struct kvpin_body b;
	uint64_t walked;
	int step;

	http_case_init(&c, &h);
	step = kvpin_head_parse(&h, names, bytes, f->len);
	printf("{\"accepted\":%s,\"error\":\"%s\",\"head\":%u",
	       step == KVPIN_STEP_DONE ? "true" : "false", errors[h.error], h.pos);
	if (step == KVPIN_STEP_DONE) {
		http_case_body(&c, &h, &b);
		if (h.kind == KVPIN_REQUEST) {
			print_text("method", bytes + h.start, h.target_off - 1 - h.start);
			print_text("target", bytes + h.target_off, h.target_len);
		}
		printf(",\"status\":%u,\"minor\":%u,\"fields\":%u,\"framing\":\"%s\"", h.status,
		       h.minor, h.fields, framing(b.state));
		walked = kvpin_body_walk(&b, bytes + h.pos, f->len - h.pos);
		printf(",\"complete\":%s,\"body_error\":\"%s\",\"end\":%llu",
		       b.state == KVPIN_BS_DONE ? "true" : "false", errors[b.error],
		       (unsigned long long)(h.pos + walked));
	}
	printf("}\n");
}

static void write_case(const struct http_case *c)
{
	static const char head[] =
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
	uint32_t more = c->body_only ? sizeof(head) - 1 : 0;
	struct frame f = {c->len + more, c->kind, c->answers};

	fwrite(&f.len, 4, 1, stdout);
	putchar(f.kind);
	putchar(f.answers);
	fwrite(head, more, 1, stdout);
	fwrite(c->bytes, c->len, 1, stdout);
}

static void write_cases(void)
{
	struct http_case heads[HEAD_CASES_BUILT], bodies[BODY_CASES_BUILT];
	uint32_t i;

	head_cases_build(heads);
	body_cases_build(bodies);
	for (i = 0; i < NR_OF(head_cases); i++)
		write_case(&head_cases[i]);
	for (i = 0; i < NR_OF(heads); i++)
		write_case(&heads[i]);
	for (i = 0; i < NR_OF(body_cases); i++)
		write_case(&body_cases[i]);
	for (i = 0; i < NR_OF(bodies); i++)
		write_case(&bodies[i]);
}

int main(int argc, char **argv)
{
	struct kvpin_names names;
	struct frame f;

	if (argc > 1 && !strcmp(argv[1], "--cases")) {
		write_cases();
		return 0;
	}
	http_case_names(&names);
	while (fread(&f.len, 4, 1, stdin) == 1) {
		uint8_t *bytes;
		int kind = getchar(), answers = getchar();

		if (f.len > INPUT_BYTES_MAX || kind < 0 || answers < 0)
			return 1;
		f.kind = kind ? KVPIN_RESPONSE : KVPIN_REQUEST;
		f.answers = (uint8_t)answers;
		/* Exactly as long as the input, so that a sanitizer sees a read behind it. */
		bytes = malloc(f.len ? f.len : 1);
		if (!bytes || fread(bytes, 1, f.len, stdin) != f.len)
			return 1;
		parse(&names, &f, bytes);
		free(bytes);
	}
	return 0;
}
