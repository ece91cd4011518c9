/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * kvpin-load: an HTTP/1.1 load client that checks everything it is told. This file reads the
 * options and starts the run; it never touches a socket.
 */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>

#define EXIT_USAGE	 2
#define CONNECTIONS_MAX	 50000
#define SESSIONS_MAX	 10000000
#define BODY_MAX_BYTES	 (1ull << 32)
#define FDS_SPARE	 64
#define DEFAULT_SECONDS	 5
#define CHAT_BODY_BYTES	 200
#define DEADLINE_SPARE_S 60

static const char usage[] =
	"usage: kvpin-load MODE --to ADDR:PORT [options]\n"
	"\n"
	"MODE\n"
	"  requests   small requests on keep-alive connections\n"
	"  conns      one connection per request: connect, request, answer, close\n"
	"  sse        GET /sse/EVENTS/GAP_US/SIZE; events must be in order and complete\n"
	"  download   GET /bytes/N, content checked\n"
	"  upload     POST /sink, XXH64 checked\n"
	"  idle       one request per connection, then hold them all; says `holding N` on stderr\n"
	"  chat       POST /v1/chat/completions, streamed; must end in [DONE]\n"
	"\n"
	"How much\n"
	"  -c, --connections N     at once (1)\n"
	"  -n, --requests N        stop after N requests in all\n"
	"  -t, --seconds S         start no request after S seconds (5 when there is no -n)\n"
	"      --deadline-s S      end everything after S seconds (-t + 60, or 120)\n"
	"      --stall-s S         a request is given up when nothing moves for S seconds (10)\n"
	"      --errors-max N      give up after N errors (10000)\n"
	"      --hold-s S          idle: hold for S seconds, or until SIGTERM (5)\n"
	"      --warmup            one request per connection first, not measured\n"
	"      --ramp-ms M         spread the first requests over M milliseconds\n"
	"      --think-ms M        wait M milliseconds between a connection's requests\n"
	"\n"
	"What\n"
	"      --path P            requests, conns, idle, chat: the target (/json, POST /sink)\n"
	"      --query Q           appended to the target after a '?'\n"
	"  -b, --body-bytes N|A:B  request body; 0 is a GET; A:B a random size for each request\n"
	"      --head plain|openai openai: the 515-byte head of the OpenAI Node SDK\n"
	"      --framing cl|chunked|random   of request bodies (cl; with --fragment random)\n"
	"      --fragment          write in random pieces, at random moments\n"
	"      --seed N            of all random choices\n"
	"      --pipeline N        requests outstanding on one connection (1, at most 64)\n"
	"      --sessions K        each request takes one of K session ids; all answers of one\n"
	"                          session must come from one server (else: one id for each\n"
	"                          connection, not checked)\n"
	"      --no-verify         with --sessions: do not check that\n"
	"      --events N          sse (100); chat: max_tokens (32)\n"
	"      --gap-us N          sse: time between events (0: as fast as possible)\n"
	"      --event-bytes N     sse (150)\n"
	"      --bytes N           download (1000000)\n"
	"\n"
	"      --pid P             also report the CPU time of process P; repeatable\n"
	"\n"
	"The result is one JSON object on stdout; latencies are microseconds. cpu.system_s is the\n"
	"whole machine's time less idle and iowait; ticks_s is the same from the busy fields of\n"
	"/proc/stat (sampled; nice_s, softirq_s, steal_s are parts of it); pids_s sums --pid.\n"
	"Exit status: 0 no error, 1 errors, 2 usage.\n";

enum option_id {
	OPT_DEADLINE = 256,
	OPT_STALL,
	OPT_ERRORS_MAX,
	OPT_HOLD,
	OPT_WARMUP,
	OPT_RAMP,
	OPT_THINK,
	OPT_PATH,
	OPT_QUERY,
	OPT_HEAD,
	OPT_FRAMING,
	OPT_FRAGMENT,
	OPT_SEED,
	OPT_PIPELINE,
	OPT_SESSIONS,
	OPT_NO_VERIFY,
	OPT_EVENTS,
	OPT_GAP,
	OPT_EVENT_BYTES,
	OPT_BYTES,
	OPT_PID,
	OPT_TO,
};

static const struct option options[] = {
	{"to", required_argument, NULL, OPT_TO},
	{"connections", required_argument, NULL, 'c'},
	{"requests", required_argument, NULL, 'n'},
	{"seconds", required_argument, NULL, 't'},
	{"body-bytes", required_argument, NULL, 'b'},
	{"help", no_argument, NULL, 'h'},
	{"deadline-s", required_argument, NULL, OPT_DEADLINE},
	{"stall-s", required_argument, NULL, OPT_STALL},
	{"errors-max", required_argument, NULL, OPT_ERRORS_MAX},
	{"hold-s", required_argument, NULL, OPT_HOLD},
	{"warmup", no_argument, NULL, OPT_WARMUP},
	{"ramp-ms", required_argument, NULL, OPT_RAMP},
	{"think-ms", required_argument, NULL, OPT_THINK},
	{"path", required_argument, NULL, OPT_PATH},
	{"query", required_argument, NULL, OPT_QUERY},
	{"head", required_argument, NULL, OPT_HEAD},
	{"framing", required_argument, NULL, OPT_FRAMING},
	{"fragment", no_argument, NULL, OPT_FRAGMENT},
	{"seed", required_argument, NULL, OPT_SEED},
	{"pipeline", required_argument, NULL, OPT_PIPELINE},
	{"sessions", required_argument, NULL, OPT_SESSIONS},
	{"no-verify", no_argument, NULL, OPT_NO_VERIFY},
	{"events", required_argument, NULL, OPT_EVENTS},
	{"gap-us", required_argument, NULL, OPT_GAP},
	{"event-bytes", required_argument, NULL, OPT_EVENT_BYTES},
	{"bytes", required_argument, NULL, OPT_BYTES},
	{"pid", required_argument, NULL, OPT_PID},
	{NULL, 0, NULL, 0},
};

static const char *const framing_name[FRAMING_NR] = {"cl", "chunked", "random"};
static const char *const head_name[HEAD_NR] = {"plain", "openai"};

static struct load load; /* large: three histograms */

static void __attribute__((noreturn, format(printf, 1, 2))) fail_usage(const char *format, ...)
{
	va_list ap;

	fputs("kvpin-load: ", stderr);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputs("; see kvpin-load --help\n", stderr);
	exit(EXIT_USAGE);
}

static uint64_t read_number(const char *what, const char *s, uint64_t min, uint64_t max)
{
	char *end;
	uint64_t v;

	errno = 0;
	v = strtoull(s, &end, 10);
	if (errno || end == s || *end || *s == '-' || v < min || v > max)
		fail_usage("%s: '%s' is not a number between %llu and %llu", what, s,
			   (unsigned long long)min, (unsigned long long)max);
	return v;
}

static double read_real(const char *what, const char *s)
{
	char *end;
	double v = strtod(s, &end);

	if (end == s || *end || !(v >= 0 && v <= 1e6))
		fail_usage("%s: '%s' is not a number between 0 and 1000000", what, s);
	return v;
}

static int read_name(const char *what, const char *s, const char *const *names, int nr)
{
	for (int i = 0; i < nr; i++)
		if (!strcmp(s, names[i]))
			return i;
	fail_usage("%s: unknown '%s'", what, s);
}

static void read_target(struct opts *o, const char *s)
{
	const char *colon = strrchr(s, ':');
	char host[16];

	if (!colon || (size_t)(colon - s) >= sizeof(host) || strlen(s) >= sizeof(o->to_text))
		fail_usage("--to: '%s' is not ADDR:PORT", s);
	memcpy(host, s, (size_t)(colon - s));
	host[colon - s] = 0;
	o->to.sin_family = AF_INET;
	o->to.sin_port = htons((uint16_t)read_number("--to port", colon + 1, 1, 65535));
	if (inet_pton(AF_INET, host, &o->to.sin_addr) != 1)
		fail_usage("--to: '%s' is not an IPv4 address", host);
	strcpy(o->to_text, s);
}

static void read_body_bytes(struct opts *o, char *s)
{
	char *colon = strchr(s, ':');

	if (colon)
		*colon = 0;
	o->body_min_bytes = read_number("--body-bytes", s, 0, BODY_MAX_BYTES);
	o->body_max_bytes = o->body_min_bytes;
	if (colon)
		o->body_max_bytes =
			read_number("--body-bytes", colon + 1, o->body_min_bytes, BODY_MAX_BYTES);
}

static void read_option(struct opts *o, int id, char *v)
{
	switch (id) {
	case OPT_TO:
		read_target(o, v);
		break;
	case 'c':
		o->connections = (uint32_t)read_number("-c", v, 1, CONNECTIONS_MAX);
		break;
	case 'n':
		o->requests = read_number("-n", v, 1, UINT64_MAX);
		break;
	case 't':
		o->seconds = read_real("-t", v);
		break;
	case 'b':
		read_body_bytes(o, v);
		break;
	case OPT_DEADLINE:
		o->deadline_s = read_real("--deadline-s", v);
		break;
	case OPT_STALL:
		o->stall_s = read_real("--stall-s", v);
		break;
	case OPT_ERRORS_MAX:
		o->errors_max = read_number("--errors-max", v, 1, UINT64_MAX);
		break;
	case OPT_HOLD:
		o->hold_s = read_real("--hold-s", v);
		break;
	case OPT_WARMUP:
		o->warmup = true;
		break;
	case OPT_RAMP:
		o->ramp_ms = read_real("--ramp-ms", v);
		break;
	case OPT_THINK:
		o->think_ms = read_real("--think-ms", v);
		break;
	case OPT_PATH:
		o->path = v;
		break;
	case OPT_QUERY:
		o->query = v;
		break;
	case OPT_HEAD:
		o->head = (enum head_form)read_name("--head", v, head_name, HEAD_NR);
		break;
	case OPT_FRAMING:
		o->framing = (enum framing)read_name("--framing", v, framing_name, FRAMING_NR);
		break;
	case OPT_FRAGMENT:
		o->fragment = true;
		break;
	case OPT_SEED:
		o->seed = read_number("--seed", v, 0, INT64_MAX);
		break;
	case OPT_PIPELINE:
		o->pipeline = (uint32_t)read_number("--pipeline", v, 1, PIPELINE_MAX);
		break;
	case OPT_SESSIONS:
		o->sessions = (uint32_t)read_number("--sessions", v, 1, SESSIONS_MAX);
		o->verify = true;
		break;
	case OPT_NO_VERIFY:
		o->verify = false;
		break;
	case OPT_EVENTS:
		o->events = read_number("--events", v, 1, UINT32_MAX);
		break;
	case OPT_GAP:
		o->gap_us = read_number("--gap-us", v, 0, UINT32_MAX);
		break;
	case OPT_EVENT_BYTES:
		o->event_bytes = read_number("--event-bytes", v, 1, UINT32_MAX);
		break;
	case OPT_BYTES:
		o->download_bytes = read_number("--bytes", v, 0, UINT64_MAX);
		break;
	case OPT_PID:
		if (o->pids_nr == PIDS_MAX)
			fail_usage("--pid: at most %d", PIDS_MAX);
		o->pids[o->pids_nr++] = (int)read_number("--pid", v, 1, INT32_MAX);
		break;
	case 'h':
		fputs(usage, stdout);
		exit(EXIT_SUCCESS);
	default:
		fail_usage("bad option");
	}
}

/* The defaults that depend on the mode, and the request line. */
static void settle(struct load *l, struct opts *o)
{
	const char *path = o->path;
	char made[96] = "";
	int n;

	if (!o->to.sin_port)
		fail_usage("--to ADDR:PORT is missing");
	if (path && *path != '/')
		fail_usage("--path must begin with '/'");
	switch (o->mode) {
	case MODE_SSE:
		o->events = o->events ? o->events : 100;
		snprintf(made, sizeof(made), "/sse/%llu/%llu/%llu", (unsigned long long)o->events,
			 (unsigned long long)o->gap_us, (unsigned long long)o->event_bytes);
		break;
	case MODE_DOWNLOAD:
		snprintf(made, sizeof(made), "/bytes/%llu", (unsigned long long)o->download_bytes);
		break;
	case MODE_UPLOAD:
		strcpy(made, "/sink");
		if (!o->body_max_bytes)
			o->body_min_bytes = o->body_max_bytes = 1000000;
		break;
	case MODE_CHAT:
		o->events = o->events ? o->events : 32;
		strcpy(made, "/v1/chat/completions");
		if (o->body_max_bytes < CHAT_BODY_BYTES)
			o->body_min_bytes = o->body_max_bytes = CHAT_BODY_BYTES;
		break;
	default:
		strcpy(made, o->body_max_bytes ? "/sink" : "/json");
	}
	if (path && (o->mode == MODE_SSE || o->mode == MODE_DOWNLOAD || o->mode == MODE_UPLOAD))
		fail_usage("--path has no meaning in mode %s", mode_name[o->mode]);
	if (o->warmup && (o->mode == MODE_IDLE || o->mode == MODE_CONNS))
		fail_usage("--warmup has no meaning in mode %s", mode_name[o->mode]);
	if (o->pipeline > 1 && (o->mode == MODE_IDLE || o->mode == MODE_CONNS))
		fail_usage("--pipeline has no meaning in mode %s", mode_name[o->mode]);
	if (o->framing == FRAMING_NR)
		o->framing = o->fragment ? FRAMING_RANDOM : FRAMING_CL;
	o->path = path ? path : "";
	n = snprintf(l->request_line, sizeof(l->request_line), "%s %s%s%s",
		     o->body_max_bytes ? "POST" : "GET", path ? path : made, o->query ? "?" : "",
		     o->query ? o->query : "");
	if (n < 0 || (size_t)n >= sizeof(l->request_line))
		fail_usage("the target is too long");
	if (o->seconds <= 0 && !o->requests && o->mode != MODE_IDLE)
		o->seconds = DEFAULT_SECONDS;
	if (o->deadline_s <= 0)
		o->deadline_s = (o->seconds > 0 ? o->seconds : DEADLINE_SPARE_S) + DEADLINE_SPARE_S;
	if (!o->seed) {
		if (getrandom(&o->seed, sizeof(o->seed), 0) != (ssize_t)sizeof(o->seed))
			o->seed = clock_ns();
		o->seed = (o->seed & INT32_MAX) | 1;
	}
}

static void raise_fds(uint32_t need)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) || rl.rlim_cur >= need)
		return;
	rl.rlim_cur = need;
	if (rl.rlim_max < need)
		rl.rlim_max = need; /* root may */
	if (setrlimit(RLIMIT_NOFILE, &rl)) {
		fprintf(stderr, "kvpin-load: RLIMIT_NOFILE %u: %s\n", need, strerror(errno));
		exit(EXIT_FAILURE);
	}
}

int main(int argc, char **argv)
{
	static struct opts o = {
		.framing = FRAMING_NR,
		.connections = 1,
		.pipeline = 1,
		.event_bytes = 150,
		.download_bytes = 1000000,
		.hold_s = 5,
		.stall_s = 10,
		.errors_max = 10000,
	};
	struct sigaction sa = {.sa_handler = load_stop};
	int id, r;

	while ((id = getopt_long(argc, argv, "c:n:t:b:h", options, NULL)) != -1)
		read_option(&o, id, optarg);
	if (optind + 1 != argc)
		fail_usage("one MODE is due");
	o.mode = (enum mode)read_name("MODE", argv[optind], mode_name, MODE_NR);
	load.opts = &o;
	settle(&load, &o);
	raise_fds(o.connections + FDS_SPARE);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);

	r = load_run(&load);
	if (r) {
		fprintf(stderr, "kvpin-load: %s\n", strerror(-r));
		return EXIT_FAILURE;
	}
	stat_print(&load);
	return load.errors_nr || load.done == 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
