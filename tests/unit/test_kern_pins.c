/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The life of the pins: what kern_open() makes, what it meets, and that nothing stays. Other
 * daemons are forked children; a crash is SIGKILL.
 */
#include "kern_env.h"

#include <fcntl.h>
#include <sys/file.h>

#define SESSIONS 10000

struct ids {
	uint32_t map[IDS_MAX], prog[IDS_MAX];
	uint32_t maps, progs;
};

static void ids_add_map(struct ids *ids, uint32_t id)
{
	for (uint32_t i = 0; i < ids->maps; i++)
		if (ids->map[i] == id)
			return;
	assert_true(ids->maps < IDS_MAX);
	ids->map[ids->maps++] = id;
}

static void ids_add_map_fd(struct ids *ids, int fd)
{
	struct bpf_map_info info = {0};
	uint32_t bytes = sizeof(info);

	assert_int_equal(bpf_obj_get_info_by_fd(fd, &info, &bytes), 0);
	ids_add_map(ids, info.id);
}

static const char *const map_names[] = {"config",     "names",	   "backends", "sessions",
					"conns",      "upstreams", "sockets",  "cookies",
					"free_holds", "holds",	   "counters", "rings",
					"refusals",   "verdicts",  "draining"};
static const char *const prog_names[] = {"steer_verdict", "steer_request", "steer_answer"};

/* All that this instance has in the kernel: what is pinned, the rings, what programs use. */
static void ids_collect(struct ids *ids, const struct kern *k, uint32_t rings)
{
	memset(ids, 0, sizeof(*ids));
	for (size_t i = 0; i < sizeof(map_names) / sizeof(*map_names); i++) {
		int fd = pinned(map_names[i]);

		if (fd < 0)
			fail_msg("%s is not pinned", map_names[i]);
		ids_add_map_fd(ids, fd);
		close(fd);
	}
	for (uint32_t w = 0; w < rings; w++)
		ids_add_map_fd(ids, k->rings.ring[w].fd);
	for (size_t i = 0; i < sizeof(prog_names) / sizeof(*prog_names); i++) {
		uint32_t used[64], bytes = sizeof(struct bpf_prog_info);
		struct bpf_prog_info info = {.nr_map_ids = 64, .map_ids = (uintptr_t)used};
		int fd = pinned(prog_names[i]);

		if (fd < 0)
			fail_msg("%s is not pinned", prog_names[i]);
		assert_int_equal(bpf_obj_get_info_by_fd(fd, &info, &bytes), 0);
		close(fd);
		ids->prog[ids->progs++] = info.id;
		for (uint32_t m = 0; m < info.nr_map_ids && m < 64; m++)
			ids_add_map(ids, used[m]);
	}
}

/* Asks by number, never by descriptor: a prog array whose last descriptor is closed twice within
 * moments leaks in the kernel (prog_array_map_clear() takes a reference for work that is already
 * queued; seen on 6.18). */
static uint32_t ids_alive(const struct ids *ids)
{
	uint32_t alive = 0, next;

	for (uint32_t i = 0; i < ids->maps; i++)
		alive += !bpf_map_get_next_id(ids->map[i] - 1, &next) && next == ids->map[i];
	for (uint32_t i = 0; i < ids->progs; i++)
		alive += !bpf_prog_get_next_id(ids->prog[i] - 1, &next) && next == ids->prog[i];
	return alive;
}

static void assert_gone(const struct ids *ids)
{
	uint32_t alive = 0;

	for (int i = 0; i < GONE_TRIES; i++) {
		alive = ids_alive(ids);
		if (!alive)
			return;
		usleep(10000);
	}
	fail_msg("%u maps or programs are left", alive);
}

static void closing_leaves_nothing_behind(void **state)
{
	struct ids ids;
	struct kern k;
	int fds;

	NEEDS_KERNEL();
	fds = count_fds();
	for (int round = 0; round < 3; round++) {
		ASSERT_OPEN(&k);
		ids_collect(&ids, &k, 2);
		assert_true(ids.maps >= 16);
		assert_int_equal(ids_alive(&ids), ids.maps + ids.progs);
		kern_close(&k);
		assert_int_equal(count_dirs(), 0);
		assert_int_equal(count_fds(), fds);
		assert_gone(&ids);
	}
	kern_close(&k);
}

static void pins_are_for_their_owner_only(void **state)
{
	struct stat st;
	struct kern k;
	char path[128];

	NEEDS_KERNEL();
	ASSERT_OPEN(&k);
	assert_int_equal(stat(pin_dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	for (size_t i = 0; i < sizeof(map_names) / sizeof(*map_names); i++) {
		snprintf(path, sizeof(path), "%s/%s", pin_dir, map_names[i]);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 07777, 0600);
	}
	assert_int_equal(count_dirs(), 1);
	kern_close(&k);
}

static void a_living_daemon_is_named(void **state)
{
	char pid_text[32];
	struct kern k;
	pid_t pid;
	int fds;

	NEEDS_KERNEL();
	pid = daemon_start(NULL);
	fds = count_fds();
	snprintf(pid_text, sizeof(pid_text), "pid %d ", pid);
	assert_int_equal(open_default(&k), -EBUSY);
	ASSERT_WHY(pid_text);
	ASSERT_WHY(pin_dir);
	assert_null(k.private);
	assert_int_equal(count_fds(), fds);
	assert_int_equal(count_dirs(), 1);
	daemon_kill(pid);
	ASSERT_OPEN(&k);
	kern_close(&k);
}

static void fill_sessions(struct kern *k)
{
	strcpy(k->backends[3].name, "gpu3");
	strcpy(k->backends[3].address, "127.0.0.1:8083");
	/* As long as it can be: no zero byte at its end. */
	memset(k->backends[5].name, 'n', KVPIN_BACKEND_NAME_MAX);
	for (uint64_t id = 1; id <= SESSIONS; id++) {
		struct kvpin_session s = {
			.backend = id % 2 ? 3 : 5, .turns = id, .last_used_ns = id * 10};

		CHECK(kern_session_put(k, id, &s) == 0);
	}
	/* No server has such a slot: not handed out. */
	CHECK(kern_session_put(k, SESSIONS + 1, &(struct kvpin_session){.backend = 64}) == 0);
}

static uint8_t adopted[SESSIONS + 2];

static void on_adopted(void *arg, uint64_t id, const struct kvpin_session *s, const char *name,
		       const char *address)
{
	assert_in_range(id, 1, SESSIONS);
	adopted[id]++;
	assert_int_equal(s->turns, id);
	assert_int_equal(s->last_used_ns, id * 10);
	if (id % 2) {
		assert_string_equal(name, "gpu3");
		assert_string_equal(address, "127.0.0.1:8083");
	} else {
		assert_int_equal(strlen(name), KVPIN_BACKEND_NAME_MAX - 1);
		assert_string_equal(address, "");
	}
	++*(uint32_t *)arg;
}

static void sessions_of_a_killed_daemon_are_adopted(void **state)
{
	struct ids old, ids;
	uint32_t nr = 0;
	struct kern k;
	pid_t pid;
	int fds;

	NEEDS_KERNEL();
	fds = count_fds();
	pid = daemon_start(fill_sessions);
	ids_collect(&old, &k, 0);
	daemon_kill(pid);
	assert_true(exists(pin_dir));
	ASSERT_OPEN(&k);
	assert_int_equal(count_dirs(), 1);
	memset(adopted, 0, sizeof(adopted));
	assert_int_equal(kern_adopt(&k, on_adopted, &nr), SESSIONS);
	assert_int_equal(nr, SESSIONS);
	for (uint32_t id = 1; id <= SESSIONS; id++)
		assert_int_equal(adopted[id], 1);
	assert_gone(&old);
	/* Once only; and the new map is empty. */
	assert_int_equal(kern_adopt(&k, on_adopted, &nr), 0);
	assert_int_equal(kern_session_get(&k, 1, &(struct kvpin_session){0}), -ENOENT);
	ids_collect(&ids, &k, 2);
	kern_close(&k);
	assert_gone(&ids);
	assert_int_equal(count_dirs(), 0);
	assert_int_equal(count_fds(), fds);
}

static void never_adopting_leaves_nothing_either(void **state)
{
	struct ids old;
	struct kern k;
	pid_t pid;

	NEEDS_KERNEL();
	pid = daemon_start(fill_sessions);
	ids_collect(&old, &k, 0);
	daemon_kill(pid);
	ASSERT_OPEN(&k);
	kern_close(&k);
	assert_gone(&old);
	assert_int_equal(count_dirs(), 0);
}

static void pin_as(const char *map, const char *name)
{
	char path[128];
	int fd = pinned(map);

	snprintf(path, sizeof(path), "%s/%s", pin_dir, name);
	assert_true(fd >= 0);
	assert_int_equal(bpf_obj_pin(fd, path), 0);
	close(fd);
}

static void make_old_version(struct kern *k)
{
	fill_sessions(k);
	k->config->version = KVPIN_ABI_VERSION + 1;
}

static void another_version_is_replaced_but_not_adopted(void **state)
{
	uint32_t nr = 0;
	struct kern k;

	NEEDS_KERNEL();
	daemon_kill(daemon_start(make_old_version));
	/* It may have had other maps. */
	pin_as("backends", "of_that_version");
	ASSERT_OPEN(&k);
	assert_int_equal(kern_adopt(&k, on_adopted, &nr), 0);
	assert_int_equal(count_dirs(), 1);
	assert_int_equal(pinned("of_that_version"), -ENOENT);
	kern_close(&k);
	assert_int_equal(count_dirs(), 0);
}

static void foreign_pins_are_refused_and_left_alone(void **state)
{
	char path[128];
	struct kern k;
	int fd, fds;

	NEEDS_KERNEL();
	fds = count_fds();
	daemon_kill(daemon_start(NULL));
	pin_as("backends", "somebodys");
	assert_int_equal(open_default(&k), -EEXIST);
	ASSERT_WHY("\"somebodys\"");
	assert_int_equal(count_dirs(), 1);
	assert_int_equal(count_fds(), fds);
	fd = pinned("sessions");
	assert_true(fd >= 0);
	close(fd);
	snprintf(path, sizeof(path), "%s/somebodys", pin_dir);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(open_default(&k), -EEXIST);
	assert_int_equal(rmdir(path), 0);
	ASSERT_OPEN(&k);
	kern_close(&k);
}

static void an_empty_directory_is_taken(void **state)
{
	struct kern k;

	NEEDS_KERNEL();
	assert_int_equal(mkdir(pin_dir, 0755), 0);
	ASSERT_OPEN(&k);
	kern_close(&k);
	assert_int_equal(count_dirs(), 0);
}

static void a_strangers_directory_is_refused(void **state)
{
	struct kern k;

	NEEDS_KERNEL();
	assert_int_equal(mkdir(pin_dir, 0700), 0);
	assert_int_equal(chown(pin_dir, 4711, 4711), 0);
	assert_int_equal(open_default(&k), -EPERM);
	ASSERT_WHY("uid 4711");
	assert_int_equal(rmdir(pin_dir), 0);
}

static void leftovers_of_a_start_are_removed(void **state)
{
	char dead[96], alive[96], other[96], pin[128];
	struct kern k;
	int fd;

	NEEDS_KERNEL();
	snprintf(dead, sizeof(dead), "%s-new-4194301", pin_dir);
	snprintf(alive, sizeof(alive), "%s-new-4194302", pin_dir);
	snprintf(other, sizeof(other), "%s-new-x", pin_dir);
	assert_int_equal(mkdir(dead, 0700), 0);
	assert_int_equal(mkdir(alive, 0700), 0);
	assert_int_equal(mkdir(other, 0700), 0);
	ASSERT_OPEN(&k);
	assert_false(exists(dead));
	assert_false(exists(alive));
	/* Once more, now with pins in one, and one locked. */
	assert_int_equal(mkdir(dead, 0700), 0);
	assert_int_equal(mkdir(alive, 0700), 0);
	snprintf(pin, sizeof(pin), "%s/sessions", dead);
	assert_int_equal(bpf_obj_pin(k.sessions_fd, pin), 0);
	snprintf(pin, sizeof(pin), "%s/sockets", dead);
	assert_int_equal(bpf_obj_pin(k.sockets_fd, pin), 0);
	fd = open(alive, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	kern_close(&k);
	ASSERT_OPEN(&k);
	assert_false(exists(dead));
	assert_true(exists(alive));
	assert_true(exists(other));
	close(fd);
	kern_close(&k);
	assert_int_equal(rmdir(alive), 0);
	assert_int_equal(rmdir(other), 0);
}

static void a_wrong_place_is_explained(void **state)
{
	struct kern_params p = params();
	struct kern k;
	int fds;

	NEEDS_KERNEL();
	fds = count_fds();
	p.pin_dir = "/tmp/kvpin-test";
	assert_int_equal(open_with(&k, &p), -ENODEV);
	ASSERT_WHY("mount -t bpf");
	p.pin_dir = BPFFS "/missing/kvpin";
	assert_int_equal(open_with(&k, &p), -ENOENT);
	ASSERT_WHY(BPFFS "/missing");
	p.pin_dir = BPFFS "/kv.pin";
	assert_int_equal(open_with(&k, &p), -EINVAL);
	ASSERT_WHY("no dot");
	p.pin_dir = "kvpin";
	assert_int_equal(open_with(&k, &p), -EINVAL);
	p.pin_dir = "/";
	assert_int_equal(open_with(&k, &p), -EINVAL);
	p.pin_dir = BPFFS "/kvpin-slash//";
	assert_int_equal(open_with(&k, &p), 0);
	assert_true(exists(BPFFS "/kvpin-slash/config"));
	kern_close(&k);
	assert_int_equal(count_dirs(), 0);
	assert_int_equal(count_fds(), fds);
}

/* Returns how many of @nr processes that open at the same time succeed; those stay until all have
 * tried. */
static int race(int nr)
{
	int go[2], result[2], won = 0;
	char byte;

	assert_int_equal(pipe(go), 0);
	assert_int_equal(pipe(result), 0);
	for (int i = 0; i < nr; i++) {
		if (fork() == 0) {
			struct kern k;
			int err;

			close(go[1]);
			CHECK(read(go[0], &byte, 1) == 0);
			err = open_default(&k);
			byte = !err ? 'w' : err == -EBUSY ? 'b' : '?';
			if (byte == '?')
				fprintf(stderr, "%s\n", why);
			CHECK(write(result[1], &byte, 1) == 1);
			/* The winner dies as if killed. */
			pause();
		}
	}
	close(go[0]);
	close(go[1]);
	for (int i = 0; i < nr; i++) {
		assert_int_equal(read(result[0], &byte, 1), 1);
		assert_true(byte == 'w' || byte == 'b');
		won += byte == 'w';
	}
	close(result[0]);
	close(result[1]);
	return won;
}

static int race_in_group(void *arg)
{
	int nr;

	setpgid(0, 0);
	nr = race(4);
	signal(SIGTERM, SIG_IGN);
	kill(0, SIGTERM);
	while (wait(NULL) > 0)
		;
	return nr;
}

static void of_daemons_that_start_at_once_one_at_most_wins(void **state)
{
	struct kern k;

	NEEDS_KERNEL();
	/* First where nothing is, then over what the previous round's winner left. */
	for (int round = 0; round < 10; round++) {
		int won = run_child(race_in_group, NULL);

		assert_in_range(won, 0, 1);
		if (round % 3 == 2) {
			ASSERT_OPEN(&k);
			kern_close(&k);
			assert_int_equal(count_dirs(), 0);
		}
	}
	ASSERT_OPEN(&k);
	kern_close(&k);
	assert_int_equal(count_dirs(), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(closing_leaves_nothing_behind),
		cmocka_unit_test(pins_are_for_their_owner_only),
		cmocka_unit_test(a_living_daemon_is_named),
		cmocka_unit_test(sessions_of_a_killed_daemon_are_adopted),
		cmocka_unit_test(never_adopting_leaves_nothing_either),
		cmocka_unit_test(another_version_is_replaced_but_not_adopted),
		cmocka_unit_test(foreign_pins_are_refused_and_left_alone),
		cmocka_unit_test(an_empty_directory_is_taken),
		cmocka_unit_test(a_strangers_directory_is_refused),
		cmocka_unit_test(leftovers_of_a_start_are_removed),
		cmocka_unit_test(a_wrong_place_is_explained),
		cmocka_unit_test(of_daemons_that_start_at_once_one_at_most_wins),
	};

	env_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
