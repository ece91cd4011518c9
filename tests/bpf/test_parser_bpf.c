/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Runs parser.bpf.o in the kernel on all cases of the unit tests and on the fuzz corpus, at once
 * and cut, and compares every byte of its results with the native build of the same headers.
 * Needs root; exits 77 (SKIP) where bpf() is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <unistd.h>

#include "body_cases.h"
#include "head_cases.h"
#include "kvpin_key.h"
#include "parser_shared.h"

#define SKIP 77
/* What a test run's packet can hold is a page less the kernel's own needs. */
#define PACKET_BYTES_MAX 3500
/* Shorter inputs are cut at every position, longer ones in the middle. */
#define CUT_BYTES_MAX 160
#define TIMED_RUNS    100000
/* The verifier walks at most a million; a verdict program has to hold more than the parser. */
#define VERIFIED_INSNS_MAX 250000
#define HEAD_NS_MAX	   2000

#define NR_OF(array) (sizeof(array) / sizeof((array)[0]))

static struct bpf_object *object;
static struct bpf_program *program;
static struct kvpin_names names;
static int program_fd, orders_fd, inputs_fd, results_fd;
static uint32_t runs;

static uint32_t run_kernel(const struct parser_order *order, const uint8_t *bytes, int repeat,
			   struct parser_result *r)
{
	static uint8_t packet[PARSER_L2_BYTES + PARSER_INPUT_BYTES];
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .repeat = repeat);
	uint32_t zero = 0;

	memcpy(packet + PARSER_L2_BYTES, bytes, order->len);
	opts.data_size_in = PARSER_L2_BYTES + (order->from_map ? 1 : order->len);
	if (order->from_map)
		assert_int_equal(bpf_map_update_elem(inputs_fd, &zero, packet + PARSER_L2_BYTES, 0),
				 0);
	assert_int_equal(bpf_map_update_elem(orders_fd, &zero, order, 0), 0);
	assert_int_equal(bpf_prog_test_run_opts(program_fd, &opts), 0);
	assert_int_equal(opts.retval, 0);
	assert_int_equal(bpf_map_lookup_elem(results_fd, &zero, r), 0);
	runs++;
	return opts.duration;
}

static void run_native(const struct http_case *c, const struct parser_order *order,
		       struct parser_result *r)
{
	memset(r, 0, sizeof(*r));
	if (!order->body_only) {
		kvpin_head_init(&r->head, order->kind);
		r->head.limit_bytes = order->limit_bytes;
		r->head.limit_fields = order->limit_fields;
		r->step = kvpin_head_parse(&r->head, &names, (const uint8_t *)c->bytes, order->len);
		if (r->step != KVPIN_STEP_DONE)
			return;
		if (r->head.key_rank != KVPIN_KEY_NONE && r->head.key_len <= KVPIN_KEY_BYTES)
			r->key_hash = kvpin_key_hash((const uint8_t *)c->bytes + r->head.key_off,
						     r->head.key_len);
	}
	http_case_body(c, &r->head, &r->body);
	r->walked = (uint32_t)kvpin_body_walk(&r->body, (const uint8_t *)c->bytes + r->head.pos,
					      order->len - r->head.pos);
}

static void compare_at(const struct http_case *c, struct parser_order *order,
		       const struct parser_result *native)
{
	struct parser_result kernel;

	run_kernel(order, (const uint8_t *)c->bytes, 1, &kernel);
	if (!order->body_only) {
		if (memcmp(&kernel.head, &native->head, sizeof(kernel.head)))
			print_error("%s, cut at %u: %.*s\n", c->name, order->cut,
				    (int)(order->len < 300 ? order->len : 300), c->bytes);
		assert_memory_equal(&kernel.head, &native->head, sizeof(kernel.head));
		assert_int_equal(kernel.step, native->step);
		assert_int_equal(kernel.key_hash, native->key_hash);
		if (native->step != KVPIN_STEP_DONE)
			return;
	}
	if (memcmp(&kernel.body, &native->body, sizeof(kernel.body)))
		print_error("%s, cut at %u: %.*s\n", c->name, order->cut,
			    (int)(order->len < 300 ? order->len : 300), c->bytes);
	assert_memory_equal(&kernel.body, &native->body, sizeof(kernel.body));
	assert_int_equal(kernel.walked, native->walked);
}

static void compare(const struct http_case *c)
{
	struct parser_order order = {
		.len = c->len < PARSER_INPUT_BYTES ? c->len : PARSER_INPUT_BYTES,
		.limit_bytes = c->limit_bytes ? c->limit_bytes : PARSER_INPUT_BYTES,
		.limit_fields = c->limit_bytes ? c->limit_fields : KVPIN_HEAD_FIELDS_MAX,
		.kind = c->kind,
		.method = c->answers,
		.body_only = c->body_only,
	};
	struct parser_result native;

	if (!order.len)
		return;
	run_native(c, &order, &native);
	order.from_map = order.len > PACKET_BYTES_MAX;
	compare_at(c, &order, &native);
	if (order.len > CUT_BYTES_MAX) {
		order.cut = order.len / 2;
		compare_at(c, &order, &native);
		return;
	}
	for (order.cut = 1; order.cut < order.len; order.cut++)
		compare_at(c, &order, &native);
}

static void the_kernel_agrees_on_every_head_case(void **state)
{
	static struct http_case built[HEAD_CASES_BUILT];
	uint32_t i;

	head_cases_build(built);
	for (i = 0; i < NR_OF(head_cases); i++)
		compare(&head_cases[i]);
	for (i = 0; i < NR_OF(built); i++)
		compare(&built[i]);
}

static void the_kernel_agrees_on_every_body_case(void **state)
{
	static struct http_case built[BODY_CASES_BUILT];
	uint32_t i;

	body_cases_build(built);
	for (i = 0; i < NR_OF(body_cases); i++)
		compare(&body_cases[i]);
	for (i = 0; i < NR_OF(built); i++)
		compare(&built[i]);
}

/* The first byte of a file chooses what fuzz_head.c and fuzz_body.c do with the rest. */
static uint32_t compare_corpus(const char *path, int body_only)
{
	static char bytes[1 << 16];
	struct dirent *entry;
	uint32_t files = 0;
	DIR *dir = opendir(path);

	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		struct http_case c = {.name = entry->d_name, .body_only = (uint8_t)body_only};
		char file[1024];
		FILE *f;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
		f = fopen(file, "rb");
		assert_non_null(f);
		c.len = (uint32_t)fread(bytes, 1, sizeof(bytes), f);
		fclose(f);
		files++;
		if (c.len < 2)
			continue;
		c.len--;
		c.bytes = bytes + 1;
		c.kind = bytes[0] & 1 ? KVPIN_RESPONSE : KVPIN_REQUEST;
		c.answers = KVPIN_METHOD_GET;
		compare(&c);
	}
	closedir(dir);
	return files;
}

static void the_kernel_agrees_on_the_fuzz_corpus(void **state)
{
	uint32_t files =
		compare_corpus(PARSER_CORPUS "/head", 0) + compare_corpus(PARSER_CORPUS "/body", 1);

	print_message("             %u files\n", files);
	assert_true(files > 0);
}

static void the_program_is_cheap_to_verify_and_to_run(void **state)
{
	struct bpf_prog_info info = {0};
	uint32_t size = sizeof(info), i, ns = 0;
	struct parser_result r;

	assert_int_equal(bpf_obj_get_info_by_fd(program_fd, &info, &size), 0);
	for (i = 0; i < NR_OF(head_cases); i++) {
		struct parser_order order = {.len = head_cases[i].len, .head_only = 1};

		/* The OpenAI SDK's. */
		if (head_cases[i].len != 515)
			continue;
		ns = run_kernel(&order, (const uint8_t *)head_cases[i].bytes, TIMED_RUNS, &r);
		assert_int_equal(r.head.pos, 515);
		break;
	}
	print_message("             verifier: %u instructions; program: %u, jited %u bytes\n",
		      info.verified_insns, info.xlated_prog_len / 8, info.jited_prog_len);
	print_message("             %u ns for a head of 515 bytes, copied, parsed, key hashed\n",
		      ns);
	assert_true(ns > 0);
	assert_true(info.verified_insns < VERIFIED_INSNS_MAX);
	if (ns > HEAD_NS_MAX)
		print_message("             slower than %u ns: a busy machine?\n", HEAD_NS_MAX);
}

static int quiet(enum libbpf_print_level level, const char *format, va_list args)
{
	return level == LIBBPF_WARN ? vfprintf(stderr, format, args) : 0;
}

/* 0, SKIP, or 1 when the object does not load. */
static int load(void)
{
	uint32_t zero = 0, probe[2] = {0};
	int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "probe", sizeof(zero), sizeof(probe), 1, NULL);

	if (fd < 0) {
		printf("SKIP: bpf() says %s\n", strerror(errno));
		return errno == EPERM ? SKIP : 1;
	}
	close(fd);
	libbpf_set_print(quiet);
	object = bpf_object__open(PARSER_OBJECT);
	if (!object)
		return 1;
	program = bpf_object__find_program_by_name(object, "parser");
	if (!program)
		return 1;
	if (bpf_object__load(object)) {
		if (errno != EPERM)
			return 1;
		printf("SKIP: loading a program: %s\n", strerror(errno));
		return SKIP;
	}
	program_fd = bpf_program__fd(program);
	orders_fd = bpf_object__find_map_fd_by_name(object, "orders");
	inputs_fd = bpf_object__find_map_fd_by_name(object, "inputs");
	results_fd = bpf_object__find_map_fd_by_name(object, "results");
	http_case_names(&names);
	return bpf_map_update_elem(bpf_object__find_map_fd_by_name(object, "names_map"), &zero,
				   &names, 0)
		       ? 1
		       : 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_kernel_agrees_on_every_head_case),
		cmocka_unit_test(the_kernel_agrees_on_every_body_case),
		cmocka_unit_test(the_kernel_agrees_on_the_fuzz_corpus),
		cmocka_unit_test(the_program_is_cheap_to_verify_and_to_run),
	};
	int failed = load();

	if (!failed)
		failed = cmocka_run_group_tests_name("parser_bpf", tests, NULL, NULL);
	bpf_object__close(object);
	if (failed != SKIP)
		printf("%u runs in the kernel\n", runs);
	return failed;
}
