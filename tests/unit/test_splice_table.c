/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which connection does a packet belong to: the table that daemon and program share, in plain
 * memory. That the program finds what stands in it, the integration tests see.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "kern/kern_splice.h"

#define CONNS 64

static struct kvpin_splice_conn conns[CONNS];
static struct kvpin_splice_bucket bucket;
/* One bucket: all meet. */
static struct kern_splice table = {
	.conns = conns,
	.buckets = &bucket,
	.hash = {{0x9e3779b97f4a7c15, 0xc2b2ae3d27d4eb4f}},
	.nr_conns = CONNS,
};

static int begin(void **state)
{
	memset(conns, 0, sizeof(conns));
	memset(&bucket, 0, sizeof(bucket));
	for (uint32_t i = 0; i < CONNS; i++) {
		conns[i].local[0] = 1;
		conns[i].remote[0] = 2;
		conns[i].local_port = 80;
		conns[i].remote_port = 1000 + i;
	}
	return 0;
}

static unsigned int refs(uint32_t entry)
{
	unsigned int nr = 0;

	for (int i = 0; i < KVPIN_SPLICE_BUCKET_REFS; i++)
		nr += (bucket.ref[i] & KVPIN_SPLICE_REF_ENTRY) == entry + 1;
	return nr;
}

static void both_directions_have_one_hash(void **state)
{
	struct kvpin_splice_key there = {{1, 2, 3, 4}, {5, 6, 7, 8}, 9, 10};
	struct kvpin_splice_key back = {{5, 6, 7, 8}, {1, 2, 3, 4}, 10, 9};
	struct kvpin_splice_key other = {{1, 2, 3, 4}, {5, 6, 7, 8}, 9, 11};
	uint64_t hash = kvpin_splice_hash(&table.hash, &there);

	assert_true(hash == kvpin_splice_hash(&table.hash, &back));
	assert_true(hash != kvpin_splice_hash(&table.hash, &other));
}

/* Clients of one address and one server: consecutive ports must not crowd a few buckets. */
static void clients_spread_over_the_buckets(void **state)
{
	static uint8_t fill[4096];
	struct kvpin_splice_key key = {{0x0100007f}, {0x0100007f}, 0, 80};
	uint32_t crowded = 0;

	for (uint32_t port = 32768; port < 32768 + 2 * 4096; port++) {
		key.from_port = __builtin_bswap16((uint16_t)port);
		if (++fill[kvpin_splice_hash(&table.hash, &key) % 4096] > KVPIN_SPLICE_BUCKET_REFS)
			crowded++;
	}
	/* Two to a bucket: a perfect hash crowds about one of them. */
	assert_true(crowded < 40);
}

static void a_full_bucket_refuses_until_one_leaves(void **state)
{
	for (uint32_t i = 0; i < KVPIN_SPLICE_BUCKET_REFS; i++)
		assert_int_equal(kern_splice_add(&table, i), 0);
	assert_int_equal(kern_splice_add(&table, 20), -E2BIG);
	assert_int_equal(refs(20), 0);
	kern_splice_del(&table, 20);
	kern_splice_del(&table, 3);
	assert_int_equal(refs(3), 0);
	assert_int_equal(kern_splice_add(&table, 20), 0);
	assert_int_equal(refs(20), 1);
	assert_int_equal(refs(4), 1);
}

/* The old one is over, though its entry is kept for what its peers still say. */
static void the_same_addresses_again_take_the_place(void **state)
{
	conns[5] = conns[4];
	assert_int_equal(kern_splice_add(&table, 0), 0);
	assert_int_equal(kern_splice_add(&table, 4), 0);
	kern_splice_del(&table, 0);
	assert_int_equal(conns[0].flags, KVPIN_SPLICE_OVER);
	assert_int_equal(kern_splice_add(&table, 5), 0);
	assert_int_equal(conns[4].flags, KVPIN_SPLICE_OVER);
	assert_int_equal(conns[5].flags, 0);
	assert_int_equal(refs(4), 0);
	assert_int_equal(refs(5), 1);
	kern_splice_del(&table, 4);
	assert_int_equal(refs(5), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_directions_have_one_hash),
		cmocka_unit_test(clients_spread_over_the_buckets),
		cmocka_unit_test_setup(a_full_bucket_refuses_until_one_leaves, begin),
		cmocka_unit_test_setup(the_same_addresses_again_take_the_place, begin),
	};

	return cmocka_run_group_tests_name("splice_table", tests, NULL, NULL);
}
