/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The life of the control socket's file. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "control_case.h"
#include "ops/control_socket.h"

static mode_t mode_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_mode & 07777;
}

static void makes_the_directory_and_removes_the_socket(void **state)
{
	char run[128];
	mode_t before = umask(022);

	start();
	umask(before);
	snprintf(run, sizeof(run), "%s/run", own.dir);
	assert_int_equal(mode_of(run), 0755);
	assert_int_equal(mode_of(own.path), 0660);
	stop();
	assert_int_equal(access(own.path, F_OK), -1);
}

static int bind_at(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(un.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	return fd;
}

static void a_stale_socket_is_replaced(void **state)
{
	start();
	stop();
	close(bind_at(own.path));
	assert_int_equal(access(own.path, F_OK), 0);
	start();
	json_decref(ask("GET", "/v1/status", 200));
}

static void a_live_socket_is_an_error(void **state)
{
	struct control *second;
	char why[256];

	start();
	assert_int_equal(try_start(own.path, &second, why, sizeof(why)), -EADDRINUSE);
	assert_null(second);
	assert_non_null(strstr(why, "another kvpin is running"));
	json_decref(ask("GET", "/v1/status", 200)); /* the first is unharmed */
}

static void a_file_that_is_no_socket_is_left_alone(void **state)
{
	struct control *control;
	char why[256];

	start();
	stop();
	close(open(own.path, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(try_start(own.path, &control, why, sizeof(why)), -EEXIST);
	assert_non_null(strstr(why, "not a socket"));
	assert_int_equal(access(own.path, F_OK), 0);
}

static void a_missing_parent_is_an_error(void **state)
{
	struct control *control;
	char why[256], path[128];

	snprintf(path, sizeof(path), "%s/no/such/control.sock", own.dir);
	assert_int_equal(try_start(path, &control, why, sizeof(why)), -ENOENT);
	assert_non_null(strstr(why, path));
}

static void stop_leaves_anothers_socket_alone(void **state)
{
	int fd;

	start();
	unlink(own.path);
	fd = bind_at(own.path);
	stop();
	assert_int_equal(access(own.path, F_OK), 0);
	close(fd);
}

/* In a child, because root may write everywhere. */
static void without_permission_it_goes_without(void **state)
{
	struct control *control;
	char why[256];
	int status;
	pid_t pid;

	chmod(own.dir, 0755);
	pid = fork();
	if (!pid) {
		if (!geteuid() && (setgid(65534) || setuid(65534)))
			_exit(2);
		log_setup(LOG_ERROR, LOG_LOGFMT);
		if (!access(own.dir, W_OK))
			_exit(3);
		_exit(try_start(own.path, &control, why, sizeof(why)) || control);
	}
	waitpid(pid, &status, 0);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 3) {
		print_message("SKIP: started by an ordinary user, who owns the directory\n");
		skip();
	}
	assert_int_equal(WEXITSTATUS(status), 0);
}

static uid_t owner_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_uid;
}

/* An empty /tmp, as containers have it, is not given away with the socket. */
static void only_a_directory_of_its_own_is_given_away(void **state)
{
	const struct {
		mode_t mode;
		bool another_file, given;
	} cases[] = {{0755, false, true},
		     {0755, true, false},
		     {01777, false, false},
		     {0777, false, false}};
	char run[128], other[160];

	if (geteuid()) {
		print_message("SKIP: only root gives anything away\n");
		skip();
	}
	snprintf(run, sizeof(run), "%s/run", own.dir);
	snprintf(other, sizeof(other), "%s/other", run);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		start();
		assert_int_equal(chmod(run, cases[i].mode), 0);
		if (cases[i].another_file)
			close(open(other, O_CREAT | O_WRONLY, 0600));
		control_socket_give(own.path, 65534, 65534);
		assert_int_equal(owner_of(own.path), 65534);
		assert_int_equal(owner_of(run), cases[i].given ? 65534 : 0);
		stop();
		unlink(other);
		assert_int_equal(rmdir(run), 0);
	}
}

struct starter {
	pthread_t thread;
	struct control *control;
	int rc;
};

static void *start_thread(void *arg)
{
	struct starter *s = arg;
	char why[256];

	s->rc = try_start(own.path, &s->control, why, sizeof(why));
	return NULL;
}

static void of_two_that_start_at_once_one_wins(void **state)
{
	start();
	stop();
	for (int round = 0; round < 30; round++) {
		struct starter s[2] = {0};

		close(bind_at(own.path)); /* stale */
		for (int i = 0; i < 2; i++)
			pthread_create(&s[i].thread, NULL, start_thread, &s[i]);
		for (int i = 0; i < 2; i++)
			pthread_join(s[i].thread, NULL);
		assert_int_equal(!s[0].rc + !s[1].rc, 1);
		assert_int_equal(s[0].rc + s[1].rc, -EADDRINUSE);
		json_decref(ask("GET", "/v1/status", 200));
		control_stop(s[0].control);
		control_stop(s[1].control);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(makes_the_directory_and_removes_the_socket),
		TEST(a_stale_socket_is_replaced),
		TEST(a_live_socket_is_an_error),
		TEST(a_file_that_is_no_socket_is_left_alone),
		TEST(a_missing_parent_is_an_error),
		TEST(stop_leaves_anothers_socket_alone),
		TEST(without_permission_it_goes_without),
		TEST(only_a_directory_of_its_own_is_given_away),
		TEST(of_two_that_start_at_once_one_wins),
	};

	curl_global_init(CURL_GLOBAL_DEFAULT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
