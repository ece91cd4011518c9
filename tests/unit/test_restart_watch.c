/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Whose sockets listen: real ones, as the kernel lists them; and what follows from a change. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kern/privilege.h"
#include "ops/restart_watch.h"

static int netlink = -1;
static struct listeners seen;

static int begin(void **state)
{
	netlink = listeners_open();
	return netlink < 0;
}

static int end(void **state)
{
	listeners_fini(&seen);
	close(netlink);
	return 0;
}

static struct addr address(const char *text)
{
	struct addr addr;
	const char *why;

	assert_int_equal(addr_parse(text, &addr, &why), 0);
	return addr;
}

/* Listens; port 0 is replaced in @at. */
static int listen_at(struct addr *at, int reuseport, int v6only)
{
	int fd = socket(at->sa.sa_family, SOCK_STREAM, IPPROTO_TCP), on = 1;

	assert_true(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (reuseport)
		setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	if (at->sa.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof(v6only));
	assert_int_equal(bind(fd, &at->sa, at->len), 0);
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(getsockname(fd, &at->sa, &at->len), 0);
	return fd;
}

static struct addr with_port(const char *text, const struct addr *port)
{
	struct addr addr = address(text);

	if (addr.sa.sa_family == AF_INET6)
		addr.in6.sin6_port = htons(addr_port(port));
	else
		addr.in4.sin_port = htons(addr_port(port));
	return addr;
}

static uint64_t cookie_of(int fd)
{
	uint64_t cookie;
	socklen_t len = sizeof(cookie);

	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len), 0);
	return cookie;
}

static uint32_t look(const struct addr *addr, uint64_t cookie[LISTENERS_GROUP_MAX])
{
	assert_int_equal(listeners_read(netlink, &seen), 0);
	return listeners_of(&seen, addr, listeners_local(addr), cookie);
}

static void assert_reached(const struct addr *addr, int fd)
{
	uint64_t cookie[LISTENERS_GROUP_MAX];

	assert_int_equal(look(addr, cookie), 1);
	assert_int_equal(cookie[0], cookie_of(fd));
}

static void assert_nobody(const struct addr *addr)
{
	uint64_t cookie[LISTENERS_GROUP_MAX];

	assert_int_equal(look(addr, cookie), 0);
}

static void the_listener_of_an_address_is_found_by_its_cookie(void **state)
{
	struct addr at = address("127.0.0.1:0");
	int fd = listen_at(&at, 0, 0);

	assert_reached(&at, fd);
	close(fd);
	assert_nobody(&at);
}

static void a_connection_is_no_listener(void **state)
{
	struct addr at = address("127.0.0.1:0");
	int fd = listen_at(&at, 0, 0), client = socket(AF_INET, SOCK_STREAM, 0), server;

	assert_int_equal(connect(client, &at.sa, at.len), 0);
	server = accept(fd, NULL, NULL);
	assert_true(server >= 0);
	close(fd);
	assert_nobody(&at);
	close(server);
	close(client);
}

static void wildcards_count_where_the_address_is_local(void **state)
{
	struct addr any = address("0.0.0.0:0"), at;
	int fd = listen_at(&any, 0, 0);

	at = with_port("127.0.0.1:1", &any);
	assert_reached(&at, fd);
	at = with_port("127.1.2.3:1", &any);
	assert_reached(&at, fd);
	/* TEST-NET-1: nobody's here, so this listener is not what a connection reaches. */
	at = with_port("192.0.2.1:1", &any);
	assert_nobody(&at);
	at = with_port("[::1]:1", &any);
	assert_nobody(&at);
	close(fd);
}

static void the_exact_address_goes_before_a_wildcard(void **state)
{
	struct addr any = address("0.0.0.0:0"), at;
	int wild = listen_at(&any, 1, 0), exact;

	at = with_port("127.0.0.1:1", &any);
	exact = listen_at(&at, 1, 0);
	assert_reached(&at, exact);
	at = with_port("127.0.0.2:1", &any);
	assert_reached(&at, wild);
	close(wild);
	close(exact);
}

static void a_dual_stack_listener_takes_both_families(void **state)
{
	struct addr any = address("[::]:0"), at4, at6, any4;
	int fd = listen_at(&any, 1, 0), own;

	at4 = with_port("127.0.0.1:1", &any);
	at6 = with_port("[::1]:1", &any);
	assert_reached(&at6, fd);
	assert_reached(&at4, fd);
	/* The family's own wildcard first. */
	any4 = with_port("0.0.0.0:1", &any);
	own = listen_at(&any4, 1, 0);
	assert_reached(&at4, own);
	close(own);
	close(fd);
	any = address("[::]:0");
	fd = listen_at(&any, 1, 1);
	at4 = with_port("127.0.0.1:1", &any);
	assert_nobody(&at4);
	close(fd);
}

static struct restart_seen remember(const uint64_t *cookie, uint32_t nr)
{
	struct restart_seen s = {.nr = nr};

	memcpy(s.cookie, cookie, nr * sizeof(*cookie));
	return s;
}

static void a_group_restarts_when_one_of_it_is_gone(void **state)
{
	struct addr at = address("127.0.0.1:0");
	uint64_t cookie[LISTENERS_GROUP_MAX], gone;
	struct restart_seen s;
	int one = listen_at(&at, 1, 0), two;

	assert_int_equal(look(&at, cookie), 1);
	s = remember(cookie, 1);
	two = listen_at(&at, 1, 0);
	assert_int_equal(look(&at, cookie), 2);
	assert_false(restart_gone(&s, cookie, 2)); /* one more is none less */
	s = remember(cookie, 2);
	gone = cookie_of(one);
	close(one);
	assert_int_equal(look(&at, cookie), 1);
	assert_int_not_equal(cookie[0], gone);
	assert_true(restart_gone(&s, cookie, 1));
	close(two);
	/* Nobody there: no verdict, whoever was seen. */
	assert_int_equal(look(&at, cookie), 0);
	assert_false(restart_gone(&s, cookie, 0));
	one = listen_at(&at, 0, 0);
	assert_int_equal(look(&at, cookie), 1);
	assert_true(restart_gone(&s, cookie, 1));
	close(one);
}

static void a_first_look_is_no_restart(void **state)
{
	const struct restart_seen s = {0};
	const uint64_t cookie[] = {1, 2};

	assert_false(restart_gone(&s, cookie, 2));
}

/* As kvpin runs: another user, no capability. */
static void the_list_needs_no_privilege(void **state)
{
	struct addr at = address("127.0.0.1:0");
	uint64_t cookie[LISTENERS_GROUP_MAX], want;
	int fd = listen_at(&at, 0, 0), status;
	char why[256];
	pid_t pid;

	if (geteuid())
		skip();
	want = cookie_of(fd);
	pid = fork();
	if (!pid) {
		struct listeners l = {0};
		int own;

		if (privilege_drop("nobody", why, sizeof(why)))
			_exit(2);
		own = listeners_open();
		if (own < 0 || listeners_read(own, &l))
			_exit(3);
		if (listeners_of(&l, &at, listeners_local(&at), cookie) != 1 || cookie[0] != want)
			_exit(4);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close(fd);
}

static void a_loss_that_is_known_already_is_not_told_twice(void **state)
{
	struct kvpin_backend shared = {0};
	struct backend b = {.shared = &shared};

	backend_report_restart(&b, 0);
	assert_int_equal(backend_generation(&b), 1);
	/* A check was refused before the new socket was seen. */
	backend_report_refused(&b);
	assert_int_equal(backend_generation(&b), 2);
	backend_report_restart(&b, 1);
	assert_int_equal(backend_generation(&b), 2);
	assert_int_equal(b.restarts, 2);
	/* Connections from before are not used again, whoever knew. */
	assert_int_equal(shared.epoch, 2);
}

/* In a network of its own. Exit status 0: as it should be. */
static int nonlocal_child(void)
{
	struct addr here = address("127.0.0.1:8081"), elsewhere = address("10.9.9.2:8081");
	struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd = unshare(CLONE_NEWNET) ? -1 : socket(AF_INET, SOCK_DGRAM, 0);
	FILE *f;

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &lo))
		return 77;
	f = fopen("/proc/sys/net/ipv4/ip_nonlocal_bind", "w");
	if (!f || fputs("1\n", f) < 0 || fclose(f))
		return 77;
	return !listeners_local(&here) || listeners_local(&elsewhere);
}

/* Hosts that share an address (VRRP) may bind to it while the other one has it. A server there is
 * not restarted when something here that listens on the same port is. */
static void an_address_that_could_be_bound_is_not_therefore_here(void **state)
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(nonlocal_child());
	waitpid(pid, &status, 0);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77) {
		print_message("SKIP: no network of its own, only root gets one\n");
		skip();
	}
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_listener_of_an_address_is_found_by_its_cookie),
		cmocka_unit_test(a_connection_is_no_listener),
		cmocka_unit_test(wildcards_count_where_the_address_is_local),
		cmocka_unit_test(the_exact_address_goes_before_a_wildcard),
		cmocka_unit_test(a_dual_stack_listener_takes_both_families),
		cmocka_unit_test(a_group_restarts_when_one_of_it_is_gone),
		cmocka_unit_test(a_first_look_is_no_restart),
		cmocka_unit_test(the_list_needs_no_privilege),
		cmocka_unit_test(a_loss_that_is_known_already_is_not_told_twice),
		cmocka_unit_test(an_address_that_could_be_bound_is_not_therefore_here),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
