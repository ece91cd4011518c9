/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Servers to lines and back. Owns no state, logs nothing. */
#include "ops/session_ledger.h"

#include <inttypes.h>
#include <string.h>

#define BOOT_FILE "/proc/sys/kernel/random/boot_id"
#define BOOT_MAX  40

static void boot_read(char id[BOOT_MAX])
{
	FILE *f = fopen(BOOT_FILE, "re");

	if (!f || fscanf(f, "%39s", id) != 1)
		strcpy(id, "-");
	if (f)
		fclose(f);
}

static void server_write(const struct session_ledger *l, const struct backend *b, FILE *f)
{
	const struct restart_seen *s = l->watch ? restart_watch_seen(l->watch, b) : NULL;
	char text[ADDR_TEXT_MAX];

	fprintf(f, "server %s %s %" PRIu64 " %" PRIu32 " ", b->name, addr_format(&b->addr, text),
		(uint64_t)atomic_load(&b->rate), (uint32_t)atomic_load(&b->exchange_ms));
	for (uint32_t i = 0; s && i < s->nr; i++)
		fprintf(f, "%s%016" PRIx64, i ? "," : "", s->cookie[i]);
	fputs(s && s->nr ? "\n" : "-\n", f);
}

void session_ledger_write(const struct session_ledger *l, FILE *f)
{
	struct balancer *b = l->balancer;
	char boot[BOOT_MAX];

	boot_read(boot);
	fprintf(f, "boot %s\n", boot);
	for (uint32_t i = 0; i < atomic_load(&b->backends.nr); i++) {
		uint32_t state = atomic_load(&b->backends.slot[i].state);

		if (state == BACKEND_UP || state == BACKEND_DOWN)
			server_write(l, &b->backends.slot[i], f);
	}
}

bool session_ledger_is(const char *line)
{
	return !strncmp(line, "boot ", 5) || !strncmp(line, "server ", 7);
}

static bool boot_take(struct session_ledger *l, const char *line)
{
	char then[BOOT_MAX], now[BOOT_MAX];
	int end = 0;

	if (sscanf(line, "boot %39s%n", then, &end) != 1 || strcmp(line + end, "\n"))
		return false;
	boot_read(now);
	l->other_boot = strcmp(then, now) || !strcmp(now, "-");
	return true;
}

/* Returns how many, or -1 when they are malformed. */
static int cookies_take(const char *text, uint64_t cookie[LISTENERS_GROUP_MAX])
{
	int nr = 0, end;

	if (!strcmp(text, "-\n"))
		return 0;
	for (;; text += end + 1) {
		end = 0;
		if (nr == LISTENERS_GROUP_MAX ||
		    sscanf(text, "%16" SCNx64 "%n", &cookie[nr], &end) != 1 || end != 16)
			return -1;
		nr++;
		if (text[end] != ',')
			return strcmp(text + end, "\n") ? -1 : nr;
	}
}

static bool server_take(struct session_ledger *l, const char *line)
{
	uint64_t cookie[LISTENERS_GROUP_MAX], rate;
	char name[BACKEND_NAME_MAX], address[ADDR_TEXT_MAX], text[ADDR_TEXT_MAX];
	uint32_t exchange_ms;
	struct backend *b;
	int nr, end = 0;

	_Static_assert(BACKEND_NAME_MAX == 32 && ADDR_TEXT_MAX == 64, "as the format has them");
	if (sscanf(line, "server %31s %63s %" SCNu64 " %" SCNu32 " %n", name, address, &rate,
		   &exchange_ms, &end) != 4 ||
	    !end)
		return false;
	nr = cookies_take(line + end, cookie);
	if (nr < 0)
		return false;
	b = backend_find(&l->balancer->backends, name);
	if (!b || strcmp(addr_format(&b->addr, text), address))
		return true;
	atomic_store(&b->rate, rate);
	atomic_store(&b->exchange_ms, exchange_ms);
	/* No socket has the cookie 0: whoever listens after another boot is another process. */
	if (l->other_boot)
		memset(cookie, 0, sizeof(cookie));
	if (l->watch)
		restart_watch_expect(l->watch, b, cookie, (uint32_t)nr);
	return true;
}

bool session_ledger_read(struct session_ledger *l, const char *line)
{
	return line[0] == 'b' ? boot_take(l, line) : server_take(l, line);
}
