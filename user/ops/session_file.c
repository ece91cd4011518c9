/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Pins to lines and back. Reading is strict: a line that is not exactly as it is written counts as
 * malformed and is skipped. Owns no state; logs what came of it.
 */
#include "ops/session_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "ops/session_ledger.h"

#define MAGIC	"kvpin-sessions 2\n"
#define MAGIC_1 "kvpin-sessions 1\n" /* without a ledger */
#define PAGE	4096		     /* pins per session_list() */
/* A server's name and address as a line has them: two words. */
#define SERVER_TEXT_MAX (BACKEND_NAME_MAX + ADDR_TEXT_MAX)
/* Seconds up to the year 33658: times of milliseconds stay far from 64 bits. */
#define SECONDS_MAX 1000000000000ULL

/* The two clocks at one moment. */
struct clocks {
	uint64_t real_ms, mono_ms;
};

struct server_text {
	char text[SERVER_TEXT_MAX];
	size_t len;
	uint32_t slot;
};

struct load {
	struct clocks now;
	uint64_t ttl_ms;
	struct server_text server[BACKENDS_MAX];
	unsigned int nr_servers;
	uint16_t generation[BACKENDS_MAX]; /* a restart of kvpin cools no server */
	struct session *pin;
	uint32_t nr, room;
	struct session_file_counts counts;
	struct session_ledger ledger;
	bool plain; /* version 1 */
};

static struct clocks clocks_read(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (struct clocks){
		.real_ms = (uint64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000,
		.mono_ms = balancer_now_ms(),
	};
}

/* A moment of one clock on the other; one of the future is now, and none is before zero. */
static uint64_t clock_turn(uint64_t then_ms, uint64_t now_ms, uint64_t other_now_ms)
{
	uint64_t age_ms = then_ms < now_ms ? now_ms - then_ms : 0;

	return age_ms < other_now_ms ? other_now_ms - age_ms : 0;
}

static void server_format(struct server_text *s, const struct backend *b)
{
	char addr[ADDR_TEXT_MAX];

	s->slot = b->id;
	s->len = snprintf(s->text, sizeof(s->text), "%s %s", b->name, addr_format(&b->addr, addr));
}

/* ---- reading ---- */

/* Digits up to @end, which is taken too. */
static bool take_number(const char **at, char end, uint64_t max, uint64_t *value)
{
	const char *p = *at;
	uint64_t n = 0;

	for (; *p >= '0' && *p <= '9'; p++) {
		n = n * 10 + (*p - '0');
		if (n > max)
			return false;
	}
	if (p == *at || *p != end)
		return false;
	*at = p + 1;
	*value = n;
	return true;
}

static bool take_ms(const char **at, uint64_t *ms)
{
	uint64_t seconds, rest;
	const char *point;

	if (!take_number(at, '.', SECONDS_MAX, &seconds))
		return false;
	point = *at;
	if (!take_number(at, ' ', 999, &rest) || *at != point + 4)
		return false;
	*ms = seconds * 1000 + rest;
	return true;
}

static bool take_id(const char **at, uint64_t *id)
{
	uint64_t n = 0;

	for (int i = 0; i < 16; i++) {
		char c = (*at)[i];

		if (c >= '0' && c <= '9')
			n = n << 4 | (c - '0');
		else if (c >= 'a' && c <= 'f')
			n = n << 4 | (c - 'a' + 10);
		else
			return false;
	}
	if ((*at)[16] != ' ')
		return false;
	*at += 17;
	*id = n;
	return true;
}

/* Two words, without the blank behind them. */
static bool take_server(const char **at, const char **text, size_t *len)
{
	const char *blank = strchr(*at, ' '), *end = blank ? strchr(blank + 1, ' ') : NULL;

	if (!end || blank == *at || end == blank + 1)
		return false;
	*text = *at;
	*len = end - *at;
	*at = end + 1;
	return true;
}

static uint32_t server_find(const struct load *l, const char *text, size_t len)
{
	for (unsigned int i = 0; i < l->nr_servers; i++) {
		const struct server_text *s = &l->server[i];

		if (s->len == len && !memcmp(s->text, text, len))
			return s->slot;
	}
	return SESSION_NO_BACKEND;
}

static int pin_add(struct load *l, const struct session *s)
{
	if (l->nr == l->room) {
		uint32_t room = l->room ? 2 * l->room : PAGE;
		struct session *more =
			room > l->room ? realloc(l->pin, (size_t)room * sizeof(*more)) : NULL;

		if (!more)
			return -ENOMEM;
		l->pin = more;
		l->room = room;
	}
	l->pin[l->nr++] = *s;
	return 0;
}

static bool take_word(const char **at, char end, const char *word)
{
	size_t len = strlen(word);

	if (strncmp(*at, word, len) || (*at)[len] != end)
		return false;
	*at += len + 1;
	return true;
}

/* What follows the moves, from the blank on. */
static bool take_ledger(const char **at, struct session *s, bool *lost)
{
	uint64_t context, prefill_ms, cold;
	unsigned int turn;

	if (!take_number(at, ' ', UINT32_MAX, &context) ||
	    !take_number(at, ' ', UINT32_MAX, &prefill_ms) ||
	    !take_number(at, ' ', UINT8_MAX, &cold))
		return false;
	for (turn = 0; turn < GUARD_TURN_NR; turn++)
		if (take_word(at, ' ', guard_turn_names[turn]))
			break;
	*lost = take_word(at, '\n', "lost");
	if (turn == GUARD_TURN_NR || (!*lost && !take_word(at, '\n', "kept")))
		return false;
	s->context = (uint32_t)context;
	s->prefill_ms = (uint32_t)prefill_ms;
	s->cold = (uint8_t)cold;
	s->turn = turn;
	return true;
}

/* One line, its newline included: a last one without it was cut. */
static int load_line(struct load *l, const char *line)
{
	uint64_t last_ms, created_ms, turns, moves;
	bool lost = false;
	struct session s = {0};
	const char *server, *at = line;
	size_t server_len;

	if (!l->plain && session_ledger_is(line)) {
		l->counts.malformed += !session_ledger_read(&l->ledger, line);
		return 0;
	}
	if (!take_id(&at, &s.id) || !take_server(&at, &server, &server_len) ||
	    !take_ms(&at, &last_ms) || !take_ms(&at, &created_ms) ||
	    !take_number(&at, ' ', UINT32_MAX, &turns) ||
	    !take_number(&at, l->plain ? '\n' : ' ', UINT32_MAX, &moves) ||
	    (!l->plain && !take_ledger(&at, &s, &lost)) || *at) {
		l->counts.malformed++;
		return 0;
	}
	/* Also what would be before the monotonic clock's zero. */
	if (last_ms < l->now.real_ms && l->now.real_ms - last_ms > l->ttl_ms) {
		l->counts.expired++;
		return 0;
	}
	s.backend = server_find(l, server, server_len);
	if (s.backend == SESSION_NO_BACKEND) {
		l->counts.no_server++;
		return 0;
	}
	s.last_used_ms = clock_turn(last_ms, l->now.real_ms, l->now.mono_ms);
	s.created_ms = clock_turn(created_ms, l->now.real_ms, l->now.mono_ms);
	s.generation = (uint16_t)(l->generation[s.backend] - lost);
	s.turns = turns;
	s.moves = moves;
	return pin_add(l, &s);
}

/* Returns 0 or -errno; -EPROTO when it is no such file. What was read before an error counts. */
static int load_lines(struct load *l, FILE *f)
{
	char *line = NULL;
	size_t room = 0;
	ssize_t len;
	int err = 0;

	len = getline(&line, &room, f);
	l->plain = len >= 0 && !strcmp(line, MAGIC_1);
	if (len < 0 || (!l->plain && strcmp(line, MAGIC)))
		err = ferror(f) ? -EIO : -EPROTO;
	while (!err && (len = getline(&line, &room, f)) > 0) {
		/* A zero byte would hide what is behind it. */
		if (strlen(line) == (size_t)len)
			err = load_line(l, line);
		else
			l->counts.malformed++;
	}
	if (!err && ferror(f))
		err = -EIO;
	free(line);
	return err;
}

/* O_NONBLOCK: a named pipe must not hold up the start. */
static FILE *load_open(const char *path, int *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	FILE *f = NULL;

	if (fd < 0) {
		*err = -errno;
		return NULL;
	}
	if (fstat(fd, &st))
		*err = -errno;
	else if (!S_ISREG(st.st_mode))
		*err = -EPROTO;
	else if (!(f = fdopen(fd, "r")))
		*err = -errno;
	if (!f)
		close(fd);
	return f;
}

static void load_report(const char *path, const struct load *l, int err)
{
	const struct session_file_counts *n = &l->counts;

	if (err == -EPROTO)
		LOG(WARN, "ignored a file that holds no sessions of this version",
		    F_STR("path", path),
		    F_STR("fix", "remove it, or set sessions.state to another path"));
	else if (err)
		LOG(WARN, "cannot read all sessions", F_STR("path", path),
		    F_STR("error", strerror(-err)), F_STR("fix", "make it readable, or remove it"));
	if (n->malformed)
		LOG(WARN, "skipped malformed lines of the sessions' file", F_STR("path", path),
		    F_UINT("lines", n->malformed),
		    F_STR("fix", "none needed: the next clean exit writes it anew"));
	if (n->restored || n->expired || n->no_server || n->over_cap)
		LOG(INFO, "sessions restored", F_STR("path", path), F_UINT("sessions", n->restored),
		    F_UINT("expired", n->expired), F_UINT("no_server", n->no_server),
		    F_UINT("over_cap", n->over_cap),
		    F_UINT("ms", balancer_now_ms() - l->now.mono_ms));
}

struct session_file_counts session_file_load(const char *path, struct balancer *b,
					     struct restart_watch *w)
{
	struct load l = {
		.now = clocks_read(),
		.ttl_ms = balancer_config(b)->session_ttl_ms,
		.ledger = {.balancer = b, .watch = w},
	};
	uint32_t nr_slots = atomic_load(&b->backends.nr);
	int err = 0;
	FILE *f;

	f = load_open(path, &err);
	if (!f) {
		if (err != -ENOENT)
			load_report(path, &l, err);
		return l.counts;
	}
	for (uint32_t i = 0; i < nr_slots; i++) {
		uint32_t state = atomic_load(&b->backends.slot[i].state);

		if (state == BACKEND_UP || state == BACKEND_DOWN)
			server_format(&l.server[l.nr_servers++], &b->backends.slot[i]);
		l.generation[i] = backend_generation(&b->backends.slot[i]);
	}
	err = load_lines(&l, f);
	fclose(f);
	l.counts.restored = session_adopt_all(b->sessions, l.pin, l.nr);
	l.counts.over_cap = l.nr - l.counts.restored;
	free(l.pin);
	load_report(path, &l, err);
	return l.counts;
}

/* ---- writing ---- */

void session_file_warn(const char *path)
{
	const char *slash = path ? strrchr(path, '/') : NULL;
	char dir[STATE_PATH_MAX] = ".";

	if (slash)
		snprintf(dir, sizeof(dir), "%.*s", slash == path ? 1 : (int)(slash - path), path);
	/* access() would ask for the real user and for capabilities that are not in effect. */
	if (path && faccessat(AT_FDCWD, dir, W_OK | X_OK, AT_EACCESS))
		LOG(WARN, "sessions will not outlive a restart", F_STR("path", path),
		    F_STR("error", strerror(errno)),
		    F_STR("fix", "make its directory writable, or set sessions.state"));
}

static void save_pin(FILE *f, const struct session *s, const char *server, bool lost,
		     struct clocks now)
{
	uint64_t last_ms = clock_turn(s->last_used_ms, now.mono_ms, now.real_ms);
	uint64_t created_ms = clock_turn(s->created_ms, now.mono_ms, now.real_ms);

	fprintf(f,
		"%016" PRIx64 " %s %" PRIu64 ".%03u %" PRIu64 ".%03u %" PRIu32 " %" PRIu32
		" %" PRIu32 " %" PRIu32 " %u %s %s\n",
		s->id, server, last_ms / 1000, (unsigned int)(last_ms % 1000), created_ms / 1000,
		(unsigned int)(created_ms % 1000), s->turns, s->moves, s->context, s->prefill_ms,
		s->cold, guard_turn_names[s->turn], lost ? "lost" : "kept");
}

/* Returns 0 or -ENOMEM; write errors are the stream's. */
static int save_pins(FILE *f, struct balancer *b, struct restart_watch *w, struct clocks now,
		     uint32_t *saved)
{
	const struct session_ledger ledger = {.balancer = b, .watch = w};
	struct server_text *server = calloc(BACKENDS_MAX, sizeof(*server));
	struct session *page = calloc(PAGE, sizeof(*page));
	uint32_t nr_slots = atomic_load(&b->backends.nr), n;
	uint64_t cursor = 0;
	int err = -ENOMEM;

	if (!server || !page)
		goto out;
	for (uint32_t i = 0; i < nr_slots; i++)
		server_format(&server[i], &b->backends.slot[i]);
	fputs(MAGIC, f);
	session_ledger_write(&ledger, f);
	while (cursor != UINT64_MAX && !ferror(f)) {
		n = session_list(b->sessions, now.mono_ms, &cursor, page, PAGE);
		for (uint32_t i = 0; i < n; i++) {
			uint32_t slot = page[i].backend;

			save_pin(f, &page[i], server[slot].text,
				 page[i].generation != backend_generation(&b->backends.slot[slot]),
				 now);
		}
		*saved += n;
	}
	err = 0;
out:
	free(server);
	free(page);
	return err;
}

/* The file under its temporary name, complete or gone. */
static int save_temp(char *temp, struct balancer *b, struct restart_watch *w, struct clocks now,
		     uint32_t *saved)
{
	int fd = mkostemp(temp, O_CLOEXEC); /* mode 0600 */
	FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
	int err;

	if (fd < 0)
		return -errno;
	if (!f) {
		err = -errno;
		close(fd);
		goto err_unlink;
	}
	err = save_pins(f, b, w, now, saved);
	/* The stream's error has no errno of its own any more; a full disk is the usual one. */
	errno = 0;
	if (!err && (fflush(f) || ferror(f)))
		err = errno ? -errno : -ENOSPC;
	if (fclose(f) && !err)
		err = -errno;
	if (!err)
		return 0;
err_unlink:
	unlink(temp);
	return err;
}

int session_file_save(const char *path, struct balancer *b, struct restart_watch *w)
{
	struct clocks now = clocks_read();
	char temp[STATE_PATH_MAX + 8];
	uint32_t saved = 0;
	int err;

	snprintf(temp, sizeof(temp), "%s.XXXXXX", path);
	err = save_temp(temp, b, w, now, &saved);
	if (!err && rename(temp, path)) {
		err = -errno;
		unlink(temp);
	}
	if (err)
		LOG(WARN, "cannot save the sessions", F_STR("path", path),
		    F_STR("error", strerror(-err)),
		    F_STR("fix", "its directory must be there, be writable and have room; or set "
				 "sessions.state"));
	else
		LOG(INFO, "sessions saved", F_STR("path", path), F_UINT("sessions", saved),
		    F_UINT("ms", balancer_now_ms() - now.mono_ms));
	return err;
}
