/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * load.h: the parts of kvpin-load and what they say to each other. main.c reads the options,
 * conn.c owns the sockets, loop.c the epoll loop, send.c writes requests, answer.c reads and judges
 * answers, stat.c counts, reads CPU times and prints the result. One thread, one struct load.
 */
#ifndef KVPIN_LOAD_H
#define KVPIN_LOAD_H

#include <http_parser.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum mode {
	MODE_REQUESTS, /* small requests on keep-alive connections */
	MODE_CONNS,    /* one connection per request */
	MODE_SSE,      /* event streams whose events carry an index */
	MODE_DOWNLOAD, /* /bytes/N, content checked */
	MODE_UPLOAD,   /* /sink, checksum checked */
	MODE_IDLE,     /* one request on each connection, then hold them all */
	MODE_CHAT,     /* streamed chat completions that must end in [DONE] */
	MODE_NR,
};

enum err {
	ERR_CONNECT,	  /* connect() failed */
	ERR_RESET,	  /* RST, or a failed read or write */
	ERR_EOF,	  /* FIN before the answer was complete */
	ERR_STATUS,	  /* a status other than 200 */
	ERR_PARSE,	  /* not HTTP, or bytes nobody asked for */
	ERR_BODY,	  /* complete by its framing, but not the content that was due */
	ERR_WRONG_SERVER, /* a session's answer came from a second server, or from one unnamed */
	ERR_STALL,	  /* nothing moved for stall_ns, or the deadline came */
	ERR_NR,
};

enum framing {
	FRAMING_CL,
	FRAMING_CHUNKED,
	FRAMING_RANDOM, /* per request one of the two above */
	FRAMING_NR,
};

enum head_form {
	HEAD_PLAIN,
	HEAD_OPENAI, /* the 18 headers of the OpenAI Node SDK, as captured */
	HEAD_NR,
};

#define PIPELINE_MAX   64
#define PIDS_MAX       64
#define NOTES_MAX      8	    /* errors told in words; the rest are only counted */
#define OUT_BYTES      (20 * 1024)  /* a head, an inline body, or one chunk and its framing */
#define HEAD_MAX_BYTES 2048	    /* more than any head written here */
#define INLINE_BYTES   4096	    /* bodies up to here are copied behind their head: one write */
#define CHUNK_BYTES    (16 * 1024)  /* of chunked request bodies, unless fragmenting */
#define IN_BYTES       (256 * 1024) /* one read */
#define SERVERS_MAX    64	    /* distinct x-sim-server names */
#define SERVER_NAME    32

struct opts {
	enum mode mode;
	struct sockaddr_in to;
	char to_text[32];
	uint32_t connections;
	uint64_t requests; /* 0: no limit */
	double seconds;	   /* 0: no limit */
	const char *path;
	const char *query;
	uint64_t body_min_bytes, body_max_bytes;
	enum framing framing;
	enum head_form head;
	bool fragment;
	bool warmup;
	bool verify;
	uint64_t seed;
	uint32_t sessions; /* 0: every connection is its own session */
	uint32_t pipeline;
	uint64_t events, gap_us, event_bytes;
	uint64_t download_bytes;
	double hold_s, stall_s, deadline_s, think_ms, ramp_ms;
	uint64_t errors_max;
	int pids[PIDS_MAX];
	uint32_t pids_nr;
};

/* Logarithmic histogram of nanoseconds, 128 steps per octave: below 0.8 % off. */
#define HIST_STEP_BITS 7
#define HIST_BUCKETS   ((64 - HIST_STEP_BITS + 1) << HIST_STEP_BITS)
struct hist {
	uint64_t n;
	uint64_t max;
	uint32_t bucket[HIST_BUCKETS];
};

struct cpu_times {
	uint64_t idle, busy, nice, softirq, steal; /* clock ticks, all CPUs */
	uint64_t at_ns;
	uint64_t pid[PIDS_MAX]; /* ns on a CPU, all threads */
	double own_s;		/* this process */
};

/* A request that has been started and whose answer has not been judged yet. */
struct pending {
	uint64_t start_ns;
	uint64_t body_bytes;
	uint32_t session;
};

struct answer {
	http_parser parser;
	char name[16]; /* header name in hand, cut */
	uint8_t name_len;
	bool name_open; /* the last callback was a name, not a value */
	bool open;	/* a message has begun and is not complete */
	bool bad_body;
	char server[SERVER_NAME], hash[17]; /* values of x-sim-server, x-sim-body */
	uint8_t server_len, hash_len;
	char text[192]; /* a small body, or the SSE line in hand */
	uint16_t text_len;
	char last_byte;
	bool sse_data, sse_done;
	uint32_t sse_events;
	uint64_t body_bytes;
	uint64_t event_ns; /* when the last event came */
};

enum conn_state {
	CONN_CLOSED,
	CONN_CONNECTING,
	CONN_OPEN,
	CONN_ENDED, /* will not be opened again */
};

struct conn {
	struct load *load;
	uint32_t index;
	uint32_t generation; /* an event of an earlier socket is recognised by it */
	int fd;
	enum conn_state state;
	bool close_after; /* the answer said close, or reuse would be unsafe */
	bool parked;	  /* warm-up or idle: had its request, waits */
	bool served;	  /* one answer since the phase began */
	bool eof;

	/* sending */
	uint8_t *out;
	uint32_t out_len, out_off;
	uint64_t body_left, body_off; /* of the request being written, not yet in `out` */
	enum framing body_framing;
	bool last_chunk_due;

	struct pending *pending; /* ring of opts.pipeline entries */
	uint32_t pending_head, pending_nr;
	struct answer answer;
	uint64_t progress_ns;

	/* place in one of the two delay queues */
	struct conn *delay_next;
	uint64_t delay_until_ns;
	bool delayed;
};

struct delay_queue {
	struct conn *first, **last;
	uint64_t delay_ns; /* the same for all: so a FIFO is a sorted list */
};

enum phase {
	PHASE_WARM,
	PHASE_RUN,
	PHASE_HOLD,
	PHASE_END,
};

struct load {
	const struct opts *opts;
	struct conn *conns;
	int epoll_fd;
	enum phase phase;
	uint64_t now_ns;
	uint64_t begin_ns, stop_ns, deadline_ns, end_ns;
	uint32_t begun;	 /* connections started at least once */
	uint32_t parked; /* connections waiting in warm-up or idle */
	uint32_t live;	 /* connections not CONN_ENDED */
	uint64_t started;
	uint64_t rng;
	struct delay_queue think, fragment;

	char request_line[256];
	const uint8_t *pattern;
	uint64_t body_xxh64; /* of the request body, when all bodies have one size */
	bool body_xxh64_known;

	/* which server each session has been seen on: 0 none, else index + 1 */
	uint8_t *session_server;
	char servers[SERVERS_MAX][SERVER_NAME];
	uint64_t server_answers[SERVERS_MAX];
	uint32_t servers_nr;

	/* counted from begin_ns on */
	uint64_t done, bytes_in, bytes_out, tokens, connects, idle_closed;
	uint64_t errors[ERR_NR];
	uint64_t errors_nr;
	uint64_t truncated; /* of the resets and eofs: those after the answer had begun */
	uint32_t held;
	bool gave_up, interrupted;
	char notes[NOTES_MAX][160];
	uint32_t notes_nr;
	struct hist latency, ttft, gap;
	struct cpu_times cpu_begin, cpu_end;
};

static inline uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* xorshift64*: the seed decides every choice of a run except the kernel's timing. */
static inline uint64_t load_random(struct load *l)
{
	l->rng ^= l->rng >> 12;
	l->rng ^= l->rng << 25;
	l->rng ^= l->rng >> 27;
	return l->rng * 0x2545f4914f6cdd1dull;
}

static inline uint64_t load_random_below(struct load *l, uint64_t n)
{
	return n ? (load_random(l) >> 11) % n : 0;
}

/* loop.c */
int load_run(struct load *l);
void load_stop(int signal_number);

/* conn.c */
struct conn *delay_take(struct delay_queue *q, uint64_t now_ns);
bool conn_may_start(const struct conn *c);
void conn_refill(struct conn *c);
void conn_pump(struct conn *c);
/* Answers came in, or a pause is over: what does the connection do next? */
void conn_next(struct conn *c);
/* The connection is over, or was never there: open it again, or end it. */
void conn_recycle(struct conn *c);
void conn_end(struct conn *c);
/* Counts every unanswered request as failed for this reason. */
void conn_charge(struct conn *c, enum err kind, int errnum);
/* conn_charge, then conn_recycle. */
void conn_fail(struct conn *c, enum err kind, int errnum);
void conn_event(struct conn *c, uint32_t epoll_events);

/* send.c */
int pattern_init(struct load *l);
/* Bodies of kvpin-sim from `off` on; any `len` up to IN_BYTES is contiguous. */
const uint8_t *sim_pattern_at(uint64_t off);
/* XXH64 of a request body of `total` bytes. */
uint64_t body_xxh64(const struct load *l, uint64_t total);
void send_init(struct load *l);
bool send_room(const struct conn *c);
void send_request(struct conn *c, struct pending *p);
bool send_pending(const struct conn *c);
/* 1 all written, 0 the socket is full or a pause is due (then c->delayed), -errno. */
int send_pump(struct conn *c);

/* answer.c */
void answer_init(struct conn *c);
/* 0, or -1 when these bytes are no answer. `len` 0 tells the end of the stream. */
int answer_feed(struct conn *c, const uint8_t *data, size_t len);

/* stat.c */
extern const char *const err_name[ERR_NR];
extern const char *const mode_name[MODE_NR];
void hist_add(struct hist *h, uint64_t ns);
double hist_quantile_us(const struct hist *h, double q);
void cpu_read(const struct opts *o, struct cpu_times *t);
void stat_error(struct load *l, enum err kind, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void stat_reset(struct load *l);
void stat_print(const struct load *l);

#endif
