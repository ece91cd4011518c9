/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * kvpin-sim: the types shared by all of its files.
 *
 * One loop, one thread. A `conn` is one client connection and owns at most one running answer
 * (`ops` + `u`). A `job` (model.h) is one model request; it points at its conn, never owns it.
 *
 * Body pattern, for every endpoint that sends deterministic bytes (clients check against it):
 *
 *	byte(seed, i) = (seed + i) % 251		i = offset in the body, from 0
 */
#ifndef SIM_H
#define SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include <http_parser.h>
#include <jansson.h>
#include <uv.h>
#define XXH_STATIC_LINKING_ONLY /* the streaming state, embedded */
#include <xxhash.h>

#define ARRAY_SIZE(a)		      (sizeof(a) / sizeof((a)[0]))
#define container_of(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))

#define SIM_PATTERN_PERIOD 251
#define SIM_PATTERN_RUN	   (1 << 20)  /* bytes that one send of pattern may cover */
#define SIM_BODY_MAX	   104857600u /* llama-server: 413 beyond 100 MB */
#define SIM_LINE_MAX	   8192	      /* llama-server: a longer header line is a 400 */
#define SIM_HEADERS_MAX	   100	      /* llama-server: more headers are a 400 */
#define SIM_HEAD_KEPT	   65536      /* a refused head longer than this closes (captured) */
#define SIM_PIPELINE_MAX   65536      /* uvicorn stops reading when so much is pending */
#define SIM_OUT_HIGH	   (1 << 20)  /* an answer stops producing above this */
#define SIM_BATCH	   65536      /* bytes a producer makes per round */
#define SIM_CHECK_MS	   1000	      /* llama-server looks for a gone client this often */
#define SIM_CUT_MS	   22	      /* a generating stream's slot frees so long after FIN */

enum sim_manner { MANNER_LLAMA, MANNER_UVICORN };

enum sim_health { HEALTH_OK, HEALTH_503, HEALTH_HANG, HEALTH_REFUSE, HEALTH_NR };

/* What the server does wrong on purpose; set by --fail-... or POST /control. 0 = never. */
struct sim_faults {
	enum sim_health health;
	uint64_t http500_every;	   /* every Nth model request is answered 500 */
	uint64_t accept_rst_every; /* every Nth connection is reset at accept */
	uint64_t cut_after;	   /* model streams: FIN without terminator after N tokens */
	uint64_t rst_after;	   /* model streams: RST after N tokens */
};

struct sim_options {
	const char *listen[16];
	unsigned listen_nr;
	const char *name, *model;
	enum sim_manner manner;
	unsigned slots;
	double prefill_tps, decode_tps;
	unsigned ctx_tokens;
	unsigned load_ms, idle_ms, ping_ms, keepalive_max;
	bool quiet;
	struct sim_faults faults;
};

extern struct sim_options opt;
extern bool sim_loading, sim_stopping;

static inline bool sim_llama(void)
{
	return opt.manner == MANNER_LLAMA;
}

/* ---- options.c, main.c */
void options_read(int argc, char **argv);
void sim_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void sim_refuse(uint64_t for_ms); /* stop listening, keep the port; 0 listens again */

/* ---- timer.c: deadlines in ns, finer than libuv's ms timers */
struct timer {
	uint64_t due_ns;
	unsigned pos; /* heap index + 1, 0 = not armed */
	void (*fn)(struct timer *t);
};

int timer_loop_init(uv_loop_t *loop);
void timer_loop_close(void); /* no timer fires any more; stopping them stays allowed */
void timer_fini(void);
void timer_arm(struct timer *t, uint64_t due_ns);
void timer_stop(struct timer *t);
uint64_t now_ns(void);
static inline uint64_t ms_ns(uint64_t ms)
{
	return ms * 1000000u;
}

/* ---- buf.c: a byte buffer; allocation failure ends the process */
struct buf {
	char *p;
	size_t len, cap;
};

void *xalloc(size_t size);
char *xstrdup(const char *s);
void buf_reserve(struct buf *b, size_t more);
void buf_add(struct buf *b, const void *data, size_t len);
void buf_str(struct buf *b, const char *s);
void buf_uint(struct buf *b, uint64_t v);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_json(struct buf *b, const char *s, size_t len); /* a quoted JSON string */
void buf_eat(struct buf *b, size_t len);
void buf_free(struct buf *b);
#define buf_lit(b, s) buf_add(b, s, sizeof(s) - 1)

/* ---- conn.c */
struct span {
	uint32_t off, len;
};

struct request {
	struct buf text; /* url, then names and values, each NUL-terminated */
	struct span url;
	struct {
		struct span name, value;
	} * headers;
	unsigned headers_nr, headers_cap;
	bool in_value;
	bool verify, expect, te_and_cl, upgrade, keep_alive, http10;
	unsigned method;
	const char *path, *query; /* into `text`, NUL-terminated; query may be "" */
	const char *session_id, *conversation_id, *origin;
	struct buf body; /* only for endpoints that ask for it */
	uint64_t body_bytes;
	XXH64_state_t hash;
	bool want_body, want_hash;
	const struct endpoint *ep;
	uint64_t start_ns;
};

struct conn;

/* A running answer. Every hook may be NULL. */
struct answer_ops {
	void (*body)(struct conn *c, const char *data, size_t len); /* request body, as it comes */
	void (*body_end)(struct conn *c);
	void (*pump)(struct conn *c);	/* `out` ran dry; produce or call conn_answer_done */
	void (*eof)(struct conn *c);	/* the client closed or half-closed */
	void (*tick)(struct conn *c);	/* c->tick fired */
	void (*cancel)(struct conn *c); /* the conn dies: let go of u */
};

enum conn_phase { PHASE_HEAD, PHASE_BODY, PHASE_ANSWER, PHASE_RAW, PHASE_NR };

struct job;
struct conv;

struct conn {
	uv_poll_t poll;
	int fd;
	int wanted;
	uint64_t id;
	enum conn_phase phase;
	bool dead;	   /* socket error: destroy without ceremony */
	bool eof;	   /* the peer's FIN was seen */
	bool noread;	   /* llama: leave bytes in the kernel until the answer is out */
	bool close_after;  /* this answer is the last */
	bool finishing;	   /* close as soon as `out` is flushed */
	bool reset;	   /* ... with RST */
	bool blocked;	   /* the socket buffer is full */
	bool head_refused; /* a 400 was sent for a head still arriving */
	bool busy;	   /* an event of this conn is being handled */
	bool gone;	   /* destroyed; freed by libuv's close callback */
	uint64_t eof_ns;
	uint64_t answers;
	struct buf in, out;
	size_t out_off;
	http_parser parser;
	bool parsing; /* the parser holds a request's first bytes */
	struct request req;
	struct timer idle, tick;
	const struct answer_ops *ops;
	union {
		struct job *job;
		struct {
			uint64_t left, off, seed, chunk;
			int framing;
		} bytes;
		struct {
			uint64_t n, i, gap_ns, size, trunc, rst, next_ns;
			bool close;
		} sse;
		struct {
			struct conv *conv;
			uint64_t off;
			struct conn *next;
		} watch;
		struct {
			int kind;
		} misc;
	} u;
	struct conn *prev, *next;
};

extern uint64_t conns_open;

int conn_accept(uv_loop_t *loop, int listen_fd);
void conn_write(struct conn *c, const void *data, size_t len);
void conn_flush(struct conn *c);	/* what was written so far leaves as its own segment */
void conn_send_pattern(struct conn *c); /* u.bytes, straight from the pattern table */
void conn_answer_done(struct conn *c);	/* the answer's last byte is in `out` */
void conn_finish(struct conn *c, bool reset); /* close once `out` is flushed */
void conn_settle(struct conn *c);	      /* end of every event: parse on, flush, poll, free */
void conn_each(void (*fn)(struct conn *c));
void conn_drop_all(void);
size_t conn_pending(const struct conn *c);

/* ---- http.c: requests in */
void http_init(void);
void http_begin(struct conn *c);
size_t http_feed(struct conn *c, const char *data, size_t len); /* bytes taken */
const char *request_header(const struct request *r, const char *name);
bool query_get(const struct request *r, const char *key, char *out, size_t out_size);
uint64_t query_u64(const struct request *r, const char *key, uint64_t fallback);
void request_free(struct request *r);

/* ---- answer.c: answers out */
enum answer_framing { FRAME_LENGTH, FRAME_CHUNKED, FRAME_CLOSE, FRAME_NONE };

void answer_head(struct conn *c, unsigned status, const char *type, enum answer_framing framing,
		 uint64_t length, const char *extra);
void answer_full(struct conn *c, unsigned status, const char *type, const void *body, size_t len);
void answer_json(struct conn *c, unsigned status, const char *body, size_t len);
void answer_error(struct conn *c, unsigned status, const char *type, const char *message);
void answer_not_found(struct conn *c);
void answer_bare(struct conn *c, unsigned status, bool cors); /* llama's bodiless errors */
void answer_bad_request(struct conn *c);		      /* not HTTP, in this manner */
void answer_chunk(struct conn *c, const void *data, size_t len);
void answer_last_chunk(struct conn *c);
const char *answer_json_type(void);
const char *status_reason(unsigned status);

/* ---- endpoints */
struct endpoint {
	const char *path;
	unsigned prefix : 1, get : 1, post : 1, del : 1, any : 1, body : 1, loading : 1;
	void (*start)(struct conn *c); /* head is complete */
	void (*run)(struct conn *c);   /* body is complete */
	const char *label;
};

const struct endpoint *endpoint_find(const char *path, unsigned method, bool *wrong_method);
unsigned endpoint_index(const struct endpoint *e);
extern const struct endpoint endpoints[];
extern const unsigned endpoints_nr;

void api_models(struct conn *c);
void api_health(struct conn *c);
void api_props(struct conn *c);
void api_slots(struct conn *c);
void api_metrics(struct conn *c);
void api_chat(struct conn *c);
void api_completions(struct conn *c);
void api_messages(struct conn *c);
void api_responses(struct conn *c);
void api_control(struct conn *c);
void conv_stream(struct conn *c);
void conv_lookup(struct conn *c);
void load_json(struct conn *c);
void load_bytes(struct conn *c);
void load_sse(struct conn *c);
void load_status(struct conn *c);
void load_trailers(struct conn *c);
void load_slowhead(struct conn *c);
void load_head_echo(struct conn *c);
void load_close(struct conn *c);
void sink_start(struct conn *c);
void sink_run(struct conn *c);
void echo_start(struct conn *c);
void echo_run(struct conn *c);
void upgrade_run(struct conn *c);
void fault_reset(struct conn *c);
void fault_eof(struct conn *c);
void fault_partial_head(struct conn *c);
void fault_badframing(struct conn *c);
void fault_hang(struct conn *c);
void stats_answer(struct conn *c);
void stats_clear(struct conn *c);

/* ---- stats.c */
struct stats {
	uint64_t connections, requests, bytes_in, bytes_out, bad_requests;
	uint64_t aborts, aborts_queued, aborts_prefill, aborts_decode, aborts_hang;
	uint64_t last_abort_after_ns;  /* request start -> client's FIN or RST seen */
	uint64_t last_abort_notice_ns; /* FIN or RST seen -> slot free */
};

extern struct stats stats;
void stats_request(const struct request *r);
void stats_abort(const struct conn *c, uint64_t *kind);
void stats_fini(void);

#endif
