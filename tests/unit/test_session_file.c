/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The pins' file: what is written comes back, what is stale or broken does not, and nothing that
 * is wrong with it is worse than a WARN. The balancer is real, but never started.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "ops/session_file.h"

#define TTL_MS	 600000
#define LINE_ID	 "00000000000000aa"
#define SERVER_A "a 127.0.0.1:81"

static char dir[64], path[128], log_path[128];
static int log_fd, stderr_fd;

/* What was logged since the last call. */
static const char *logged(void)
{
	static char text[8192];
	ssize_t len = pread(log_fd, text, sizeof(text) - 1, 0);

	assert_true(len >= 0);
	text[len] = '\0';
	assert_int_equal(ftruncate(log_fd, 0), 0);
	return text;
}

static int setup(void **state)
{
	strcpy(dir, "/tmp/kvpin-test-XXXXXX");
	assert_non_null(mkdtemp(dir));
	sprintf(path, "%s/sessions.state", dir);
	sprintf(log_path, "%s/log", dir);
	log_setup(LOG_INFO, LOG_LOGFMT);
	log_fd = open(log_path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	stderr_fd = dup(2);
	dup2(log_fd, 2);
	return 0;
}

static int teardown(void **state)
{
	dup2(stderr_fd, 2);
	close(stderr_fd);
	close(log_fd);
	unlink(path);
	unlink(log_path);
	/* A temporary file that was left behind keeps it from going. */
	assert_int_equal(rmdir(dir), 0);
	return 0;
}

/* Servers as "a=127.0.0.1:81 b=[::1]:82". */
static struct balancer *balancer_with(const char *servers, uint32_t max)
{
	struct balancer *b = calloc(1, sizeof(*b));
	struct config *c = calloc(1, sizeof(*c));
	char copy[256], why[256], *save = NULL, *word;
	const char *problem;

	config_defaults(c);
	c->session_max = max;
	c->session_ttl_ms = TTL_MS;
	assert_int_equal(addr_parse("127.0.0.1:80", &c->listen[c->nr_listen++], &problem), 0);
	c->workers = 1;
	strcpy(copy, servers);
	for (word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		struct backend_config *bc = &c->backend[c->nr_backends++];
		char *is = strchr(word, '=');

		*is = '\0';
		strcpy(bc->name, word);
		bc->weight = 1;
		assert_int_equal(addr_parse(is + 1, &bc->addr, &problem), 0);
	}
	assert_int_equal(config_finish(c, why, sizeof(why)), 0);
	assert_int_equal(balancer_init(b, c, why, sizeof(why)), 0);
	return b;
}

static void drop(struct balancer *b)
{
	balancer_halt(b);
	balancer_fini(b);
	free(b);
}

static void pin(struct balancer *b, uint64_t id, const char *server, uint64_t ago_ms)
{
	struct session_txn txn;

	session_begin(b->sessions, id, balancer_now_ms() - ago_ms, &txn);
	session_commit(&txn, backend_find(&b->backends, server)->id);
}

/* Returns the server's name, or NULL; the rest goes to @s. */
static const char *find(struct balancer *b, uint64_t id, struct session *s)
{
	struct session_txn txn;
	bool found = session_begin(b->sessions, id, balancer_now_ms(), &txn);

	session_abort(&txn);
	if (s)
		*s = txn.session;
	return found ? b->backends.slot[txn.session.backend].name : NULL;
}

static void write_text(const char *text, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_int_equal(write(fd, text, len), len);
	close(fd);
}

static const char *read_text(void)
{
	static char text[4096];
	FILE *f = fopen(path, "r");

	assert_non_null(f);
	text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
	fclose(f);
	return text;
}

/* Seconds.milliseconds of a moment so long ago. */
static const char *ago(int64_t ms)
{
	static char text[8][32];
	static unsigned int at;
	struct timespec ts;
	uint64_t then_ms;

	clock_gettime(CLOCK_REALTIME, &ts);
	then_ms = (uint64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000 - ms;
	at = (at + 1) % 8;
	sprintf(text[at], "%" PRIu64 ".%03u", then_ms / 1000, (unsigned int)(then_ms % 1000));
	return text[at];
}

static void assert_near(uint64_t ms, uint64_t expected_ms)
{
	assert_in_range(ms + 5000, expected_ms, expected_ms + 10000);
}

static void what_was_saved_comes_back(void **state)
{
	struct balancer *b = balancer_with("a=127.0.0.1:81 b=[::1]:82", 100);
	struct session_file_counts n;
	struct session s;
	struct stat st;

	pin(b, 1, "a", 9000);
	pin(b, 2, "b", 400000);
	pin(b, 2, "a", 300000);
	pin(b, 2, "b", 200000);
	pin(b, 0xfedcba9876543210, "b", 0);
	pin(b, 4, "b", TTL_MS + 5000); /* expired by now */
	assert_int_equal(session_file_save(path, b, NULL), 0);
	assert_non_null(strstr(logged(), "level=info msg=\"sessions saved\""));
	drop(b);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_memory_equal(read_text(), "kvpin-sessions 2\nboot ", 22);
	assert_non_null(strstr(read_text(), "\nserver a 127.0.0.1:81 0 0 -\n"));
	assert_non_null(strstr(read_text(), "\nfedcba9876543210 b [::1]:82 "));

	/* Slots are numbered anew. */
	b = balancer_with("x=127.0.0.1:79 b=[::1]:82 a=127.0.0.1:81", 100);
	n = session_file_load(path, b, NULL);
	assert_int_equal(n.restored, 3);
	assert_int_equal(n.expired + n.no_server + n.over_cap + n.malformed, 0);
	assert_string_equal(find(b, 1, &s), "a");
	assert_near(s.last_used_ms, balancer_now_ms() - 9000);
	assert_int_equal(s.turns, 1);
	assert_string_equal(find(b, 2, &s), "b");
	assert_near(s.last_used_ms, balancer_now_ms() - 200000);
	assert_near(s.created_ms, balancer_now_ms() - 400000);
	assert_int_equal(s.turns, 3);
	assert_int_equal(s.moves, 2);
	assert_string_equal(find(b, 0xfedcba9876543210, NULL), "b");
	assert_null(find(b, 4, NULL));
	assert_int_equal(session_total(b->sessions), 3);
	assert_non_null(strstr(logged(), "level=info msg=\"sessions restored\""));
	/* The file stays; without it there is nothing to say. */
	assert_int_equal(session_file_load(path, b, NULL).over_cap, 3); /* all are there already */
	logged();
	unlink(path);
	assert_int_equal(session_file_load(path, b, NULL).restored, 0);
	assert_string_equal(logged(), "");
	drop(b);
}

static void an_empty_table_overwrites_the_file(void **state)
{
	struct balancer *b = balancer_with("a=127.0.0.1:81", 100);

	write_text("kvpin-sessions 1\n" LINE_ID " whatever\n", 44);
	assert_int_equal(session_file_save(path, b, NULL), 0);
	assert_null(strstr(read_text(), LINE_ID));
	assert_int_equal(session_file_load(path, b, NULL).malformed, 0);
	drop(b);
}

static void a_server_is_the_same_by_name_and_address_only(void **state)
{
	struct balancer *b = balancer_with("a=127.0.0.1:81 b=127.0.0.1:82 c=127.0.0.1:83", 100);
	struct session_file_counts n;

	pin(b, 1, "a", 0);
	pin(b, 2, "b", 0);
	pin(b, 3, "c", 0);
	session_file_save(path, b, NULL);
	drop(b);
	b = balancer_with("a=127.0.0.1:81 b=127.0.0.1:99 cc=127.0.0.1:83", 100);
	n = session_file_load(path, b, NULL);
	assert_int_equal(n.restored, 1);
	assert_int_equal(n.no_server, 2);
	assert_non_null(find(b, 1, NULL));
	assert_non_null(strstr(logged(), "no_server=2"));
	drop(b);
}

static void pins_age_while_kvpin_is_down(void **state)
{
	struct balancer *b = balancer_with("a=127.0.0.1:81", 100);
	struct session_file_counts n;
	struct session s;
	char text[1024];

	sprintf(text,
		"kvpin-sessions 1\n"
		"0000000000000001 " SERVER_A " %s %s 5 0\n"
		"0000000000000002 " SERVER_A " %s %s 5 0\n"
		"0000000000000003 " SERVER_A " 1000000000.000 1000000000.000 5 0\n"
		"0000000000000004 " SERVER_A " 0.000 0.000 5 0\n"
		"0000000000000005 " SERVER_A " %s 0.000 5 0\n",
		ago(TTL_MS + 1000), ago(TTL_MS + 1000), ago(TTL_MS - 60000), ago(TTL_MS),
		ago(-86400000));
	write_text(text, strlen(text));
	n = session_file_load(path, b, NULL);
	assert_int_equal(n.expired, 3);
	assert_int_equal(n.restored, 2);
	assert_string_equal(find(b, 2, &s), "a");
	assert_int_equal(s.turns, 5);
	/* The clock was set back: used just now, not in the future. */
	assert_string_equal(find(b, 5, &s), "a");
	assert_true(s.last_used_ms <= balancer_now_ms());
	assert_true(s.created_ms <= s.last_used_ms);
	/* The sweep finds them in order. */
	assert_int_equal(session_sweep(b->sessions, balancer_now_ms() + 120000, 10), 1);
	assert_int_equal(session_total(b->sessions), 1);
	drop(b);
}

static void of_too_many_the_latest_used_come_back(void **state)
{
	struct balancer *b = balancer_with("a=127.0.0.1:81", 500);
	struct session_file_counts n;

	for (uint64_t i = 0; i < 500; i++)
		pin(b, i, "a", i * 7 % 500 * 1000);
	session_file_save(path, b, NULL);
	drop(b);
	b = balancer_with("a=127.0.0.1:81", 100);
	n = session_file_load(path, b, NULL);
	assert_int_equal(n.restored, 100);
	assert_int_equal(n.over_cap, 400);
	for (uint64_t i = 0; i < 500; i++)
		assert_int_equal(!!find(b, i, NULL), i * 7 % 500 < 100);
	drop(b);
}

static void malformed_lines_are_counted_and_the_others_count(void **state)
{
	static const char *const bad[] = {
		"",
		"x",
		LINE_ID,
		LINE_ID " a",
		LINE_ID " " SERVER_A,
		LINE_ID " " SERVER_A " 9.000 9.000 1",
		LINE_ID " " SERVER_A " 9.000 9.000 1 0 ",
		LINE_ID " " SERVER_A " 9.000 9.000 1 0 0",
		LINE_ID " " SERVER_A " 9.000 9.000 1  0",
		LINE_ID " " SERVER_A " 9 9 1 0",
		LINE_ID " " SERVER_A " 9.00 9.000 1 0",
		LINE_ID " " SERVER_A " 9.0000 9.000 1 0",
		LINE_ID " " SERVER_A " -9.000 9.000 1 0",
		LINE_ID " " SERVER_A " .000 9.000 1 0",
		LINE_ID " " SERVER_A " 99999999999999999999.000 9.000 1 0",
		LINE_ID " " SERVER_A " 9.000 9.000 4294967296 0",
		LINE_ID " " SERVER_A " 9.000 9.000 1 18446744073709551616",
		LINE_ID " " SERVER_A " 9.000 9.000 1 0\r",
		LINE_ID "  127.0.0.1:81 9.000 9.000 1 0",
		LINE_ID " a  9.000 9.000 1 0",
		"00000000000000AA " SERVER_A " 9.000 9.000 1 0",
		"0000000000000aa " SERVER_A " 9.000 9.000 1 0",
		"000000000000000aa " SERVER_A " 9.000 9.000 1 0",
		" " LINE_ID " " SERVER_A " 9.000 9.000 1 0",
	};
	struct balancer *b = balancer_with("a=127.0.0.1:81", 100);
	struct session_file_counts n;
	char text[8192];
	size_t len;

	strcpy(text, "kvpin-sessions 1\n");
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		strcat(strcat(text, bad[i]), "\n");
	len = strlen(text);
	/* A zero byte; a good one; one that was cut, however plausible. */
	len += sprintf(text + len, LINE_ID " " SERVER_A " 9.000 9.000 1 0\nx") - 1;
	text[len - 1] = '\0';
	len += sprintf(text + len, "\n00000000000000bb " SERVER_A " %s %s 1 0\n", ago(0), ago(0));
	len += sprintf(text + len, "00000000000000cc " SERVER_A " %s %s 1 0", ago(0), ago(0));
	write_text(text, len);
	n = session_file_load(path, b, NULL);
	assert_int_equal(n.malformed, sizeof(bad) / sizeof(bad[0]) + 2);
	assert_int_equal(n.expired, 0);
	assert_int_equal(n.restored, 1);
	assert_non_null(find(b, 0xbb, NULL));
	assert_non_null(strstr(logged(), "level=warn msg=\"skipped malformed lines"));
	drop(b);
}

static void a_file_of_another_kind_or_version_is_ignored(void **state)
{
	static const char *const heads[] = {"",
					    "kvpin-sessions 3\n",
					    "kvpin-sessions 1",
					    "kvpin-sessions 10\n",
					    "\n",
					    "\x7f"
					    "ELF"};
	struct balancer *b = balancer_with("a=127.0.0.1:81", 100);
	char text[256];

	for (unsigned int i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
		struct session_file_counts n;

		sprintf(text, "%s" LINE_ID " " SERVER_A " %s %s 1 0\n", heads[i], ago(0), ago(0));
		if (!heads[i][0])
			text[0] = '\0';
		write_text(text, strlen(text));
		n = session_file_load(path, b, NULL);
		assert_int_equal(n.restored + n.malformed, 0);
		assert_non_null(strstr(logged(), "level=warn msg=\"ignored a file"));
	}
	drop(b);
}

static void note(struct balancer *b, uint64_t id, enum guard_turn turn, uint64_t context)
{
	struct session s;

	find(b, id, &s);
	session_note(b->sessions, id, s.backend, turn, context, 321);
}

static void the_ledger_comes_back_with_the_pins(void **state)
{
	struct balancer *b = balancer_with("a=127.0.0.1:81 b=127.0.0.1:82", 100);
	static struct restart_watch w;
	static const char other_boot[] =
		"kvpin-sessions 2\nboot then\nserver " SERVER_A " 7 8 0000000000000012\n";
	const uint64_t cookie[] = {0x12, 0xfedcba9876543210};
	const struct restart_seen *seen;
	struct session s;

	restart_watch_init(&w);
	pin(b, 1, "a", 0);
	note(b, 1, GUARD_TURN_COLD, 123456);
	note(b, 1, GUARD_TURN_COLD, 123456);
	pin(b, 2, "b", 0);
	note(b, 2, GUARD_TURN_WARM, 4);
	backend_report_refused(backend_find(&b->backends, "b"));
	backend_find(&b->backends, "a")->rate = 1ULL << 40;
	backend_find(&b->backends, "a")->exchange_ms = 1500;
	restart_watch_expect(&w, backend_find(&b->backends, "a"), cookie, 2);
	assert_int_equal(session_file_save(path, b, &w), 0);
	drop(b);

	memset(w.seen, 0, sizeof(w.seen));
	b = balancer_with("b=127.0.0.1:82 a=127.0.0.1:81", 100);
	assert_int_equal(session_file_load(path, b, &w).restored, 2);
	find(b, 1, &s);
	assert_int_equal(s.context, 123456);
	assert_int_equal(s.prefill_ms, 321);
	assert_int_equal(s.cold, 2);
	assert_int_equal(s.turn, GUARD_TURN_COLD);
	assert_int_equal(s.generation, backend_generation(backend_find(&b->backends, "a")));
	find(b, 2, &s);
	assert_int_equal(s.turn, GUARD_TURN_WARM);
	assert_int_not_equal(s.generation, backend_generation(backend_find(&b->backends, "b")));
	assert_int_equal(backend_find(&b->backends, "a")->rate, 1ULL << 40);
	assert_int_equal(backend_find(&b->backends, "a")->exchange_ms, 1500);
	assert_int_equal(backend_find(&b->backends, "b")->rate, 0);
	seen = restart_watch_seen(&w, backend_find(&b->backends, "a"));
	assert_int_equal(seen->nr, 2);
	assert_memory_equal(seen->cookie, cookie, sizeof(cookie));
	drop(b);

	/* Another boot: no socket of today is one of then. */
	write_text(other_boot, strlen(other_boot));
	b = balancer_with("a=127.0.0.1:81", 100);
	assert_int_equal(session_file_load(path, b, &w).malformed, 0);
	seen = restart_watch_seen(&w, backend_find(&b->backends, "a"));
	assert_int_equal(seen->nr, 1);
	assert_int_equal(seen->cookie[0], 0);
	assert_int_equal(backend_find(&b->backends, "a")->rate, 7);
	drop(b);
	restart_watch_fini(&w);
}

static void a_ledger_that_is_malformed_is_no_ledger(void **state)
{
	static const char *const bad[] = {
		"boot\n",
		"boot \n",
		"boot a b\n",
		"server\n",
		"server " SERVER_A "\n",
		"server " SERVER_A " 7 8\n",
		"server " SERVER_A " 7 8 \n",
		"server " SERVER_A " 7 8 12\n",
		"server " SERVER_A " 7 8 0000000000000012,\n",
		"server " SERVER_A " 7 8 -,0000000000000012\n",
		"server " SERVER_A " x 8 -\n",
		"server " SERVER_A " 7 8 - \n",
		LINE_ID " " SERVER_A " 9.000 9.000 1 0\n",
		LINE_ID " " SERVER_A " 9.000 9.000 1 0 5 6 7 tepid kept\n",
		LINE_ID " " SERVER_A " 9.000 9.000 1 0 5 6 7 warm gone\n",
		LINE_ID " " SERVER_A " 9.000 9.000 1 0 5 6 256 warm kept\n",
		LINE_ID " " SERVER_A " 9.000 9.000 1 0 5 6 7 warm kept more\n",
	};
	struct balancer *b = balancer_with("a=127.0.0.1:81", 100);
	struct session_file_counts n;
	char text[4096] = "kvpin-sessions 2\n";

	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		strcat(text, bad[i]);
	sprintf(text + strlen(text), "00000000000000bb " SERVER_A " %s %s 1 0 5 6 7 warm kept\n",
		ago(0), ago(0));
	write_text(text, strlen(text));
	n = session_file_load(path, b, NULL);
	assert_int_equal(n.malformed, sizeof(bad) / sizeof(bad[0]));
	assert_int_equal(n.restored, 1);
	drop(b);
}

static void what_cannot_be_read_or_written_is_a_warning(void **state)
{
	struct balancer *b = balancer_with("a=127.0.0.1:81", 100);
	char elsewhere[160];
	const char *text;

	pin(b, 1, "a", 0);
	/* No directory: said at the start, too. */
	sprintf(elsewhere, "%s/missing/sessions.state", dir);
	assert_int_equal(session_file_load(elsewhere, b, NULL).restored, 0);
	session_file_warn(elsewhere);
	text = logged();
	assert_non_null(strstr(text, "level=warn"));
	assert_non_null(strstr(text, elsewhere));
	assert_non_null(strstr(text, "sessions.state"));
	assert_int_equal(session_file_save(elsewhere, b, NULL), -ENOENT);
	text = logged();
	assert_non_null(strstr(text, "level=warn msg=\"cannot save the sessions\""));
	assert_non_null(strstr(text, elsewhere));
	/* A directory, and a pipe that nobody writes to. */
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(session_file_load(path, b, NULL).restored, 0);
	assert_non_null(strstr(logged(), "level=warn"));
	assert_true(session_file_save(path, b, NULL) < 0);
	assert_non_null(strstr(logged(), "level=warn"));
	rmdir(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(session_file_load(path, b, NULL).restored, 0);
	assert_non_null(strstr(logged(), "level=warn"));
	/* Writing replaces it. */
	assert_int_equal(session_file_save(path, b, NULL), 0);
	assert_int_equal(session_file_load(path, b, NULL).over_cap, 1);
	drop(b);
}

static void a_full_disk_leaves_the_old_file(void **state)
{
	struct balancer *b = balancer_with("a=127.0.0.1:81", 100000);
	struct rlimit old, tight = {.rlim_cur = 65536};

	pin(b, 1, "a", 0);
	assert_int_equal(session_file_save(path, b, NULL), 0);
	for (uint64_t i = 2; i < 20000; i++)
		pin(b, i, "a", 0);
	logged();
	getrlimit(RLIMIT_FSIZE, &old);
	tight.rlim_max = old.rlim_max;
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &tight);
	assert_true(session_file_save(path, b, NULL) < 0);
	setrlimit(RLIMIT_FSIZE, &old);
	assert_non_null(strstr(logged(), "level=warn msg=\"cannot save the sessions\""));
	drop(b);
	b = balancer_with("a=127.0.0.1:81", 100);
	assert_int_equal(session_file_load(path, b, NULL).restored, 1);
	drop(b);
}

static double seconds(void)
{
	return (double)balancer_now_ns() / 1e9;
}

/* The figures are printed, not asserted. */
static void a_million_pins_are_saved_and_restored(void **state)
{
	enum { PINS = 1000000 };
	static const char servers[] = "gpu0=127.0.0.1:8081 gpu1=127.0.0.1:8082 "
				      "gpu2=127.0.0.1:8083 gpu3=127.0.0.1:8084";
	/* Above the cap's 95 %, shards fill up unevenly. */
	struct balancer *b = balancer_with(servers, PINS + PINS / 10);
	char name[] = "gpu0";
	double start, save_s, load_s;
	struct stat st;

	for (uint64_t i = 0; i < PINS; i++) {
		name[3] = (char)('0' + i % 4);
		pin(b, i * 0x9e3779b97f4a7c15, name, i * 31 % TTL_MS / 2);
	}
	start = seconds();
	assert_int_equal(session_file_save(path, b, NULL), 0);
	save_s = seconds() - start;
	drop(b);
	b = balancer_with(servers, PINS + PINS / 10);
	start = seconds();
	assert_int_equal(session_file_load(path, b, NULL).restored, PINS);
	load_s = seconds() - start;
	assert_int_equal(session_total(b->sessions), PINS);
	assert_string_equal(find(b, 6 * 0x9e3779b97f4a7c15, NULL), "gpu2");
	assert_int_equal(stat(path, &st), 0);
	print_message("[   FIGURE ] %d pins: save %.2f s, load %.2f s, %.0f MB\n", PINS, save_s,
		      load_s, (double)st.st_size / 1e6);
	drop(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		TEST(what_was_saved_comes_back),
		TEST(an_empty_table_overwrites_the_file),
		TEST(a_server_is_the_same_by_name_and_address_only),
		TEST(pins_age_while_kvpin_is_down),
		TEST(of_too_many_the_latest_used_come_back),
		TEST(malformed_lines_are_counted_and_the_others_count),
		TEST(a_file_of_another_kind_or_version_is_ignored),
		TEST(the_ledger_comes_back_with_the_pins),
		TEST(a_ledger_that_is_malformed_is_no_ledger),
		TEST(what_cannot_be_read_or_written_is_a_warning),
		TEST(a_full_disk_leaves_the_old_file),
		TEST(a_million_pins_are_saved_and_restored),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
