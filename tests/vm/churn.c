/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * kvpin-churn HOST PORT COUNT WORKERS: many short connections that end in every way a client can.
 *
 * Answers are only looked at as far as a way of ending needs: this is for finding what the kernel
 * says about it, not for checking bytes. Happy path: all connections were made; prints one line per
 * way and exits 0. Failures: a connection that cannot be made, or stands still for STALL_MS, is
 * said and counted, exit 1.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define STALL_MS    20000 /* a guest without hardware help is slow, but not that slow */
#define WORKERS_MAX 16
#define GOOD	    "HTTP/1.1 200 "
#define JSON_BYTES  300 /* the body of /json */
#define KILL_CONNS  4 /* connections of a client that is killed */

enum way {
	WAY_SILENT,	/* connects and closes */
	WAY_CLOSE,	/* whole answers, then FIN */
	WAY_RESET,	/* whole answers, then RST */
	WAY_RESET_ASK,	/* RST right behind the request */
	WAY_RESET_HEAD, /* RST in the middle of the request's head */
	WAY_HALF,	/* request and FIN, then the whole answer */
	WAY_RESET_BULK, /* RST with most of a large answer unread */
	WAY_RESET_SSE,	/* RST at the first event of a stream */
	WAY_SECOND,	/* whole answers, another request with RST right behind it */
	WAY_KILL,	/* a process with streams and downloads, SIGKILL */
	WAY_NR,
};

static const char *const way_names[WAY_NR] = {
	"silent",     "close",	    "reset",	 "reset-ask", "reset-head",
	"half-close", "reset-bulk", "reset-sse", "second",    "kill",
};

struct result {
	unsigned int done[WAY_NR];
	unsigned int errors;
};

static struct sockaddr_in server;

static int churn_connect(void)
{
	struct timeval tv = {.tv_sec = STALL_MS / 1000};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);

	if (fd < 0)
		return -errno;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	if (connect(fd, (struct sockaddr *)&server, sizeof(server))) {
		int err = -errno;

		close(fd);
		return err;
	}
	return fd;
}

static int churn_ask(int fd, const char *target, unsigned int session)
{
	char text[256];
	int len = snprintf(text, sizeof(text),
			   "GET %s HTTP/1.1\r\nHost: churn\r\nX-Session-Id: churn-%u\r\n\r\n",
			   target, session);

	return send(fd, text, len, MSG_NOSIGNAL) == len ? 0 : -EIO;
}

static int churn_read(int fd, size_t want)
{
	char buf[4096];
	size_t got = 0;

	while (got < want) {
		ssize_t n = recv(fd, buf, sizeof(buf), 0);

		if (n <= 0)
			return n ? -errno : -EPIPE;
		got += n;
	}
	return 0;
}

/* Read until @want bytes of an answer have come; /json is 300 bytes behind a head of more than 100.
 * -EREMOTEIO: it is an error, which may be shorter. */
static int churn_answer(int fd, size_t want)
{
	char line[sizeof(GOOD) - 1];
	ssize_t n = recv(fd, line, sizeof(line), MSG_WAITALL);

	if (n != sizeof(line))
		return n < 0 ? -errno : -EPIPE;
	if (memcmp(line, GOOD, sizeof(line)) != 0)
		return -EREMOTEIO;
	return churn_read(fd, want - sizeof(line));
}

static int churn_read_to_end(int fd)
{
	int rc;

	while (!(rc = churn_read(fd, 1)))
		;
	return rc == -EPIPE ? 0 : rc;
}

static void churn_end(int fd, bool reset)
{
	struct linger linger = {.l_onoff = 1};

	if (reset)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(fd);
}

/* A process that holds streams and downloads until it is killed. */
static int churn_kill(unsigned int session)
{
	int ready[2], rc = 0;
	char byte;
	pid_t pid;

	if (pipe(ready))
		return -errno;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (!pid) {
		close(ready[0]);
		for (unsigned int i = 0; i < KILL_CONNS && !rc; i++) {
			int fd = churn_connect();

			rc = fd < 0 ? fd
				    : churn_ask(fd,
						i % 2 ? "/bytes/2000000" : "/sse/10000/1000/100",
						session + i);
			if (!rc)
				rc = churn_answer(fd, 200);
		}
		if (rc || write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		rc = -EIO;
	close(ready[0]);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return rc;
}

/* One request for /json and the whole answer: its head, and JSON_BYTES. */
static int churn_turn(int fd, unsigned int session)
{
	char buf[4096];
	size_t got = 0;
	int rc = churn_ask(fd, "/json", session);

	while (!rc) {
		ssize_t n = recv(fd, buf + got, sizeof(buf) - got, 0);
		const char *end;

		if (n <= 0)
			return n ? -errno : -EPIPE;
		got += n;
		if (memcmp(buf, GOOD, got < strlen(GOOD) ? got : strlen(GOOD)) != 0)
			return -EREMOTEIO;
		end = memmem(buf, got, "\r\n\r\n", 4);
		if (end && got - (end + 4 - buf) >= JSON_BYTES)
			break;
		if (got == sizeof(buf))
			rc = -EMSGSIZE;
	}
	return rc;
}

/* As many whole answers as let most connections enter the kernel's maps (user/net/steer.c). */
static int churn_turns(int fd, unsigned int session)
{
	int rc = 0;

	for (unsigned int left = session % 4 ? 2 : 1; left && !rc; left--)
		rc = churn_turn(fd, session);
	return rc;
}

static int churn_one(enum way way, unsigned int session)
{
	int fd, rc = 0;

	if (way == WAY_KILL)
		return churn_kill(session);
	fd = churn_connect();
	if (fd < 0)
		return fd;
	switch (way) {
	case WAY_CLOSE:
	case WAY_RESET:
	case WAY_SECOND:
		rc = churn_turns(fd, session);
		if (!rc && way == WAY_SECOND)
			rc = churn_ask(fd, "/bytes/20000", session);
		break;
	case WAY_RESET_ASK:
		rc = churn_ask(fd, "/bytes/20000", session);
		break;
	case WAY_RESET_HEAD:
		rc = send(fd, "GET /json HT", 12, MSG_NOSIGNAL) == 12 ? 0 : -EIO;
		break;
	case WAY_HALF:
		rc = churn_ask(fd, "/json", session);
		shutdown(fd, SHUT_WR);
		if (!rc)
			rc = churn_read_to_end(fd);
		break;
	case WAY_RESET_BULK:
		rc = churn_ask(fd, "/bytes/1000000", session);
		if (!rc)
			rc = churn_answer(fd, 1000);
		break;
	case WAY_RESET_SSE:
		rc = churn_ask(fd, "/sse/1000/2000/100", session);
		if (!rc)
			rc = churn_answer(fd, 200);
		break;
	default:
		break;
	}
	churn_end(fd, way != WAY_SILENT && way != WAY_CLOSE && way != WAY_HALF);
	return rc;
}

static void churn_work(unsigned int worker, unsigned int count, struct result *result)
{
	for (unsigned int i = 0; i < count; i++) {
		/* A killed client is worth KILL_CONNS connections and a fork: not as often. */
		enum way way = i % 50 == 49 ? WAY_KILL : (enum way)(i % WAY_KILL);
		int rc = churn_one(way, worker * 1000 + i % 64);

		result->done[way]++;
		if (rc) {
			result->errors++;
			fprintf(stderr, "churn: %s: %s\n", way_names[way], strerror(-rc));
		}
	}
}

int main(int argc, char **argv)
{
	unsigned int count, workers, errors = 0;
	struct result *results;

	if (argc != 5) {
		fprintf(stderr, "usage: kvpin-churn HOST PORT COUNT WORKERS\n");
		return 2;
	}
	server.sin_family = AF_INET;
	server.sin_port = htons(atoi(argv[2]));
	count = atoi(argv[3]);
	workers = atoi(argv[4]);
	if (inet_pton(AF_INET, argv[1], &server.sin_addr) != 1 || !workers || workers > WORKERS_MAX)
		return 2;
	results = mmap(NULL, sizeof(*results) * workers, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (results == MAP_FAILED)
		return 1;
	for (unsigned int w = 0; w < workers; w++) {
		pid_t pid = fork();

		if (pid < 0)
			return 1;
		if (!pid) {
			churn_work(w, count / workers, &results[w]);
			_exit(0);
		}
	}
	for (unsigned int w = 0; w < workers; w++) {
		int status;

		if (wait(&status) < 0 || status)
			errors++;
	}
	for (unsigned int way = 0; way < WAY_NR; way++) {
		unsigned int done = 0;

		for (unsigned int w = 0; w < workers; w++)
			done += results[w].done[way];
		printf("%s %u\n", way_names[way], done);
	}
	for (unsigned int w = 0; w < workers; w++)
		errors += results[w].errors;
	printf("errors %u\n", errors);
	return errors != 0;
}
