/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The exporter's sum with the real maps: numbers are put where the programs count, and come out. */
#include "kern_env.h"

#include "core/config.h"
#include "net/steer.h"
#include "ops/metrics.h"

#define CPUS_MAX 4096

static struct balancer b;
static struct config c;
static struct metrics_base base;

const struct worker_stats *balancer_stats(const struct balancer *balancer, unsigned int worker)
{
	return NULL;
}

static void backend_add(const char *name, const char *address)
{
	struct backend_config *bc = &c.backend[c.nr_backends++];
	const char *reason;

	snprintf(bc->name, sizeof(bc->name), "%s", name);
	assert_int_equal(addr_parse(address, &bc->addr, &reason), 0);
	bc->weight = 1;
}

/* As daemon_reload() does. */
static void apply(void)
{
	metrics_base_take(&base, &b);
	assert_int_equal(backend_table_apply(&b.backends, &c, b.sessions, 1000), 0);
}

static int begin(void **state)
{
	if (skip_reason)
		return 0;
	memset(&b, 0, sizeof(b));
	memset(&base, 0, sizeof(base));
	config_defaults(&c);
	strcpy(c.steer.pin, pin_dir);
	c.workers = 1;
	c.limit.connections = 16;
	c.session_max = 1000;
	backend_add("gpu0", "127.0.0.1:8081");
	backend_add("gpu1", "127.0.0.1:8082");
	if (steer_open(&b.steer, &c, 0, 0, why, sizeof(why))) {
		print_message("%s\n", why);
		return -1;
	}
	backend_table_init(&b.backends, steer_kern(b.steer)->backends);
	b.sessions = session_table_new(1000, 60000, 1);
	apply();
	return 0;
}

static int end(void **state)
{
	steer_close(b.steer);
	session_table_free(b.sessions);
	b.steer = NULL;
	b.sessions = NULL;
	return 0;
}

/* On every CPU: the first one counts n, the next ones one more each. Returns the sum. */
static uint64_t count(uint32_t slot, uint64_t n)
{
	static struct kvpin_counters each[CPUS_MAX];
	int fd = pinned("counters"), nr = libbpf_num_possible_cpus();
	uint64_t sum = 0;

	assert_true(fd >= 0 && nr > 0 && nr <= CPUS_MAX);
	memset(each, 0, sizeof(each));
	for (int cpu = 0; cpu < nr; cpu++) {
		each[cpu].requests = each[cpu].ttft[KVPIN_HIST_BUCKETS - 1] = n + cpu;
		each[cpu].bytes_down = 1000 * (n + cpu);
		sum += n + cpu;
	}
	assert_int_equal(bpf_map_update_elem(fd, &slot, each, BPF_ANY), 0);
	close(fd);
	return sum;
}

static void refuse(uint32_t reason, uint64_t n)
{
	static uint64_t each[CPUS_MAX];
	int fd = pinned("refusals");

	assert_true(fd >= 0);
	memset(each, 0, sizeof(each));
	each[0] = n;
	assert_int_equal(bpf_map_update_elem(fd, &reason, each, BPF_ANY), 0);
	close(fd);
}

static struct metrics_sum *sum_up(void)
{
	struct metrics_sum *sum;

	assert_int_equal(metrics_sum_new(&sum, &b, &base), 0);
	assert_true(sum->steer);
	return sum;
}

static void the_maps_are_added_up(void **state)
{
	struct metrics_sum *sum;
	uint64_t n;

	NEEDS_KERNEL();
	n = count(1, 7);
	refuse(KVPIN_REFUSED_NO_PIN, 3);
	refuse(KVPIN_REFUSED_NR - 1, 4);
	steer_kern(b.steer)->config->queued = 500;
	sum = sum_up();
	assert_int_equal(metrics_requests(sum, 0, STAT_PATH_STEER), 0);
	assert_int_equal(metrics_requests(sum, 1, STAT_PATH_STEER), n);
	assert_int_equal(sum->all.backend[1].bytes_down[STAT_PATH_STEER], 1000 * n);
	assert_int_equal(sum->all.backend[1].ttft[TURN_LATER].bucket[HIST_BUCKETS_MAX], n);
	assert_int_equal(sum->all.refused[KVPIN_REFUSED_NO_PIN], 3);
	assert_int_equal(sum->all.refused[KVPIN_REFUSED_NR - 1], 4);
	assert_int_equal(sum->steer_queued, 500);
	free(sum);
}

static void a_slot_given_away_starts_at_zero(void **state)
{
	struct metrics_sum *sum;
	uint64_t before, after;

	NEEDS_KERNEL();
	before = count(1, 100);
	c.nr_backends = 1;
	apply();
	backend_add("gpu9", "127.0.0.1:8089");
	apply();
	assert_string_equal(b.backends.slot[1].name, "gpu9");
	sum = sum_up();
	assert_int_equal(metrics_requests(sum, 1, STAT_PATH_STEER), 0);
	free(sum);
	after = count(1, 105);
	sum = sum_up();
	assert_int_equal(metrics_requests(sum, 1, STAT_PATH_STEER), after - before);
	free(sum);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_maps_are_added_up, begin, end),
		cmocka_unit_test_setup_teardown(a_slot_given_away_starts_at_zero, begin, end),
	};

	env_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
