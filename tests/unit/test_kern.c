/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What user/kern does with open maps: sockets, sessions, names, holds, counters, rings. With all
 * slots zero the verdict passes everything, so bytes arrive as if nothing was attached.
 */
#include "kern_sockets.h"

static void sockets_in_the_map_still_carry_bytes(void **state)
{
	struct pair p;
	struct kern k;

	NEEDS_KERNEL();
	ASSERT_OPEN(&k);
	pair_open(&p);
	assert_true(carries(p.a, p.b, "before"));
	assert_int_equal(add(&k, p.b, 0), 0);
	assert_true(known(&k, p.b));
	assert_true(carries(p.a, p.b, "into it"));
	assert_true(carries(p.b, p.a, "out of it"));
	assert_int_equal(add(&k, p.b, 0), -EEXIST);
	assert_true(known(&k, p.b));
	del(&k, p.b);
	assert_false(known(&k, p.b));
	assert_true(carries(p.a, p.b, "after"));
	assert_int_equal(add(&k, p.b, 0), 0);
	del(&k, p.b);
	pair_close(&p);
	kern_close(&k);
}

static void only_established_sockets_are_taken(void **state)
{
	struct pair p;
	struct kern k;
	int fd;

	NEEDS_KERNEL();
	ASSERT_OPEN(&k);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(add(&k, fd, 0), -EOPNOTSUPP);
	assert_false(known(&k, fd));
	close(fd);
	pair_open(&p);
	assert_int_equal(shutdown(p.a, SHUT_WR), 0);
	assert_int_equal(recv(p.b, &(char){0}, 1, 0), 0);
	assert_int_equal(add(&k, p.b, 0), -EOPNOTSUPP);
	assert_false(known(&k, p.b));
	pair_close(&p);
	kern_close(&k);
}

static void a_full_map_says_so_and_keeps_nothing(void **state)
{
	struct kern_params params_small = params();
	struct pair p, q;
	struct kern k;

	NEEDS_KERNEL();
	params_small.conns = 1;
	params_small.upstreams = 1;
	assert_int_equal(open_with(&k, &params_small), 0);
	pair_open(&p);
	pair_open(&q);
	assert_int_equal(add(&k, p.a, 0), 0);
	assert_int_equal(add(&k, p.b, 0), 0);
	assert_int_equal(add(&k, q.a, 0), -E2BIG);
	assert_false(known(&k, q.a));
	assert_true(carries(q.a, q.b, "not steered"));
	del(&k, p.a);
	assert_int_equal(add(&k, q.a, 0), 0);
	del(&k, p.b);
	del(&k, q.a);
	pair_close(&p);
	pair_close(&q);
	kern_close(&k);
}

static void names_switch_between_two_sets(void **state)
{
	static struct kvpin_names names, back;
	struct kern k;
	uint32_t at;
	int fd;

	NEEDS_KERNEL();
	ASSERT_OPEN(&k);
	fd = pinned("names");
	for (uint32_t i = 1; i <= 5; i++) {
		at = k.config->names_at;
		memset(&names, (int)i, sizeof(names));
		assert_int_equal(kern_names_set(&k, &names), 0);
		assert_int_equal(k.config->names_at, !at);
		at = k.config->names_at;
		assert_int_equal(bpf_map_lookup_elem(fd, &at, &back), 0);
		assert_memory_equal(&back, &names, sizeof(names));
	}
	close(fd);
	kern_close(&k);
}

static void sessions_are_kept_by_id(void **state)
{
	struct kvpin_session s = {.backend = 7, .turns = 3}, back = {0};
	struct kern_params p = params();
	struct kern k;

	NEEDS_KERNEL();
	p.sessions = 2;
	assert_int_equal(open_with(&k, &p), 0);
	assert_int_equal(kern_session_get(&k, 42, &back), -ENOENT);
	assert_int_equal(kern_session_put(&k, 42, &s), 0);
	assert_int_equal(kern_session_get(&k, 42, &back), 0);
	assert_memory_equal(&s, &back, sizeof(s));
	assert_int_equal(kern_session_put(&k, UINT64_MAX, &s), 0);
	assert_int_equal(kern_session_put(&k, 44, &s), -E2BIG);
	assert_int_equal(kern_session_put(&k, 42, &s), 0);
	assert_int_equal(kern_session_del(&k, 42), 0);
	assert_int_equal(kern_session_del(&k, 42), -ENOENT);
	assert_int_equal(kern_session_put(&k, 44, &s), 0);
	kern_close(&k);
}

static void every_hold_is_free_once(void **state)
{
	uint32_t index, seen = 0;
	struct kern k;

	NEEDS_KERNEL();
	ASSERT_OPEN(&k);
	assert_int_equal(k.nr_holds, 4);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(bpf_map_lookup_and_delete_elem(k.free_holds_fd, NULL, &index), 0);
		assert_in_range(index, 0, 3);
		seen |= 1U << index;
	}
	assert_int_equal(seen, 0xf);
	assert_int_equal(bpf_map_lookup_and_delete_elem(k.free_holds_fd, NULL, &index), -ENOENT);
	kern_hold_put(&k, 2);
	assert_int_equal(bpf_map_lookup_and_delete_elem(k.free_holds_fd, NULL, &index), 0);
	assert_int_equal(index, 2);
	kern_close(&k);
}

static void counters_of_all_cpus_are_added_up(void **state)
{
	int nr_cpus = libbpf_num_possible_cpus(), fd;
	struct kvpin_counters *each, sum;
	uint64_t refused[KVPIN_REFUSED_NR], *one;
	uint32_t key = 5;
	struct kern k;

	NEEDS_KERNEL();
	ASSERT_OPEN(&k);
	each = calloc(nr_cpus, sizeof(*each));
	one = calloc(nr_cpus, sizeof(*one));
	for (int cpu = 0; cpu < nr_cpus; cpu++) {
		each[cpu].requests = 10 + cpu;
		each[cpu].gap[KVPIN_HIST_BUCKETS - 1] = 1;
		one[cpu] = 100;
	}
	fd = pinned("counters");
	assert_int_equal(bpf_map_update_elem(fd, &key, each, BPF_ANY), 0);
	close(fd);
	key = KVPIN_REFUSED_LANE;
	fd = pinned("refusals");
	assert_int_equal(bpf_map_update_elem(fd, &key, one, BPF_ANY), 0);
	close(fd);
	memset(&sum, 0xff, sizeof(sum));
	assert_int_equal(kern_counters(&k, 5, &sum), 0);
	assert_int_equal(sum.requests, nr_cpus * 10 + nr_cpus * (nr_cpus - 1) / 2);
	assert_int_equal(sum.gap[KVPIN_HIST_BUCKETS - 1], nr_cpus);
	assert_int_equal(sum.bytes_up, 0);
	assert_int_equal(kern_counters(&k, 4, &sum), 0);
	assert_int_equal(sum.requests, 0);
	assert_int_equal(kern_counters(&k, KVPIN_BACKENDS_MAX, &sum), -ENOENT);
	assert_int_equal(kern_refusals(&k, refused), 0);
	assert_int_equal(refused[KVPIN_REFUSED_LANE], nr_cpus * 100);
	assert_int_equal(refused[KVPIN_REFUSED_OFF], 0);
	free(each);
	free(one);
	kern_close(&k);
}

static void on_event(void *arg, const struct kvpin_event *e)
{
	*(uint64_t *)arg = *(uint64_t *)arg * 10 + e->cookie;
}

static void events_reach_their_worker_in_order(void **state)
{
	struct kvpin_event up = {.cookie = 1, .kind = KVPIN_EVENT_UP},
			   lane = {.cookie = 2, .kind = KVPIN_EVENT_LANE, .len = 16},
			   lying = {.cookie = 9, .kind = KVPIN_EVENT_LANE, .len = 1000};
	struct pollfd p = {.events = POLLIN};
	uint64_t got = 0;
	struct kern k;

	NEEDS_KERNEL();
	ASSERT_OPEN(&k);
	p.fd = kern_ring_poll_fd(&k, 1);
	assert_int_equal(poll(&p, 1, 0), 0);
	assert_int_equal(kern_ring_consume(&k, 1, on_event, &got), 0);
	produce(k.rings.ring[1].fd, &up, sizeof(up));
	produce(k.rings.ring[1].fd, &lane, sizeof(lane) + 16);
	produce(k.rings.ring[1].fd, &lying, sizeof(lying) + 16);
	produce(k.rings.ring[1].fd, &up, 8);
	produce(k.rings.ring[1].fd, &up, sizeof(up));
	assert_int_equal(poll(&p, 1, 0), 1);
	assert_int_equal(kern_ring_consume(&k, 0, on_event, &got), 0);
	assert_int_equal(got, 0);
	assert_int_equal(kern_ring_consume(&k, 1, on_event, &got), 3);
	assert_int_equal(got, 121);
	assert_int_equal(poll(&p, 1, 0), 0);
	kern_close(&k);
}

static void config_tells_who_it_is(void **state)
{
	struct kern k;

	NEEDS_KERNEL();
	ASSERT_OPEN(&k);
	assert_int_equal(k.config->version, KVPIN_ABI_VERSION);
	assert_int_equal(k.config->pid, getpid());
	assert_true(k.config->started_ns > 0);
	assert_int_equal(k.nr_conns, 16);
	assert_int_equal(k.nr_upstreams, 32);
	k.conns[15].hold = 1;
	k.upstreams[31].status = 200;
	assert_int_equal(k.holds[3].bytes[KVPIN_HOLD_BYTES - 1], 0);
	kern_close(&k);
}

static void sizes_that_cannot_be_are_refused(void **state)
{
	struct kern_params p = params();
	struct kern k;
	int fds;

	NEEDS_KERNEL();
	fds = count_fds();
	p.ring_bytes = 65537;
	assert_int_equal(open_with(&k, &p), -EINVAL);
	ASSERT_WHY("power of two");
	p = params();
	p.workers = KERN_WORKERS_MAX + 1;
	assert_int_equal(open_with(&k, &p), -EINVAL);
	p = params();
	p.holds = 0;
	assert_int_equal(open_with(&k, &p), -EINVAL);
	/* More memory than there is. */
	p = params();
	p.conns = UINT32_MAX - 100;
	assert_true(open_with(&k, &p) < 0);
	ASSERT_WHY("conns");
	assert_int_equal(count_dirs(), 0);
	assert_int_equal(count_fds(), fds);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(sockets_in_the_map_still_carry_bytes),
		cmocka_unit_test(only_established_sockets_are_taken),
		cmocka_unit_test(a_full_map_says_so_and_keeps_nothing),
		cmocka_unit_test(names_switch_between_two_sets),
		cmocka_unit_test(sessions_are_kept_by_id),
		cmocka_unit_test(every_hold_is_free_once),
		cmocka_unit_test(counters_of_all_cpus_are_added_up),
		cmocka_unit_test(events_reach_their_worker_in_order),
		cmocka_unit_test(config_tells_who_it_is),
		cmocka_unit_test(sizes_that_cannot_be_are_refused),
	};

	env_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
