/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * kvpin_key.h against vectors of python3-xxhash, an implementation of its own:
 *
 *   def pattern(n): return bytes((i * 7 + n) % 251 + 1 for i in range(n))
 *   xxhash.xxh64(key.ljust(256, b"\0") if len(key) <= 256 else key, seed=0).intdigest()
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "guarded.h"
#include "kvpin_key.h"

struct vector {
	uint32_t len;
	uint64_t hash;
};

static const struct vector vectors[] = {
	{0, 0x34c0d99cf5a71a60ULL},   {1, 0x2a7edf3f1f5381ccULL},    {2, 0x2735f182c0330e23ULL},
	{8, 0x98ba296d3d1f42a9ULL},   {31, 0x043b366319c24ce2ULL},   {32, 0x81960fe2afcea3e3ULL},
	{33, 0x10324ebb97d67722ULL},  {255, 0x545df1f86daef738ULL},  {256, 0xf1fb9e85ae428434ULL},
	{257, 0x84132d72415b2e0aULL}, {1000, 0x9cc1a905d1eb16fbULL},
};

#define HASH_OF_S1 0xa09224f25a43d14dULL

static struct guarded memory;

static void hashes_are_those_of_another_implementation(void **state)
{
	uint8_t key[1000];
	uint32_t i, k;

	for (i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		uint32_t len = vectors[i].len;

		for (k = 0; k < len; k++)
			key[k] = (uint8_t)((k * 7 + len) % 251 + 1);
		assert_int_equal(kvpin_key_hash(guarded_rear(&memory, key, len), len),
				 vectors[i].hash);
		assert_int_equal(kvpin_key_hash(guarded_front(&memory, key, len), len),
				 vectors[i].hash);
	}
	assert_int_equal(kvpin_key_hash((const uint8_t *)"s1", 2), HASH_OF_S1);
}

static void an_empty_key_needs_no_memory(void **state)
{
	assert_int_equal(kvpin_key_hash(NULL, 0), vectors[0].hash);
}

static void padding_is_the_same_as_the_kernels(void **state)
{
	uint8_t padded[KVPIN_KEY_BYTES] = {'s', '1'};

	assert_int_equal(kvpin_key_hash_padded(padded), HASH_OF_S1);
}

static void one_character_more_is_another_key(void **state)
{
	uint8_t key[300];
	uint64_t before = kvpin_key_hash(key, 0);
	uint32_t len;

	memset(key, 'k', sizeof(key));
	for (len = 1; len <= sizeof(key); len++) {
		uint64_t hash = kvpin_key_hash(key, len);

		assert_int_not_equal(hash, before);
		before = hash;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hashes_are_those_of_another_implementation),
		cmocka_unit_test(an_empty_key_needs_no_memory),
		cmocka_unit_test(padding_is_the_same_as_the_kernels),
		cmocka_unit_test(one_character_more_is_another_key),
	};

	if (guarded_init(&memory))
		return 1;
	return cmocka_run_group_tests_name("key", tests, NULL, NULL);
}
