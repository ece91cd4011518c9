/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The whole contract between the daemon and the kernel programs: keys and values of all maps,
 * events, reasons, the hand-over word. ABI.md says per map who writes, who reads, and how long an
 * entry lives. Plain data, the same layout for BPF and for the daemon; numbers are in the
 * machine's byte order, times in ns of CLOCK_MONOTONIC.
 */
#ifndef KVPIN_ABI_H
#define KVPIN_ABI_H

#include "kvpin_http_body.h"

/* Maps of another version are never adopted. */
#define KVPIN_ABI_VERSION 3

#define KVPIN_BACKENDS_MAX     64
#define KVPIN_BACKEND_NAME_MAX 32
#define KVPIN_BACKEND_ADDR_MAX 64
#define KVPIN_HIST_BUCKETS     21
/* A request is steered only when it is whole in one segment of at most this many bytes: a copy is
 * kept until the answer begins, so that it can be sent again. */
#define KVPIN_HOLD_BYTES 32768
/* Bytes of one segment that the ring can carry to the daemon. */
#define KVPIN_LANE_BYTES	65536
#define KVPIN_LANE_MEDIUM_BYTES 16384
#define KVPIN_LANE_SMALL_BYTES	2048
#define KVPIN_NAMES_SETS	2

/*
 * The hand-over word of a socket as a source: a mode in the two upper bits, below them the
 * position, that is how many bytes of this socket the verdict has seen. The program adds a
 * segment's length and learns the mode in one atomic step.
 *
 *   no bit    PASS: the bytes go to the daemon's recv()
 *   REDIRECT  the program decides, the bytes go to another socket
 *   LANE      the bytes go to the daemon through the event ring: this socket is a redirect target
 *             whose queue may hold data, and SK_PASS on such a socket hits a kernel bug
 *
 * PASS, LANE -> REDIRECT  the daemon, by compare-and-swap, having consumed all that came up
 * REDIRECT -> PASS        the program, when nothing is queued into the socket and nothing can be
 * REDIRECT -> LANE        the program else, and the daemon when it takes over
 * LANE -> PASS            the program, as soon as it may (may_leave), or when the ring is full;
 *                         the daemon, when it has taken the socket out of the verdict's map
 *
 * So after REDIRECT the bytes come up in this order: those in the ring, then those of recv(). An
 * answer is redirected into a client's socket only while that one's word says REDIRECT or LANE.
 */
#define KVPIN_WORD_REDIRECT (1ULL << 63)
#define KVPIN_WORD_LANE	    (1ULL << 62)
#define KVPIN_WORD_POSITION (KVPIN_WORD_LANE - 1)

/* Why the kernel passed something up, or the daemon did not hand it over; the text is the metric
 * label's. */
#define KVPIN_REFUSALS(X)                                                                          \
	/* requests */                                                                             \
	X(OFF, "requests_off")	  /* this configuration needs the daemon for each */               \
	X(SPLIT, "request_split") /* not whole in one segment */                                   \
	X(TWO, "two_requests")	  /* the next one begins in the same segment */                    \
	X(MALFORMED, "malformed") /* the strict parser refuses it: the daemon answers */           \
	X(VERSION, "http_1_0")                                                                     \
	X(CONNECTION, "connection_field") /* close, upgrade or a list */                           \
	X(HOP, "hop_by_hop")		  /* Keep-Alive, TE, Proxy-Connection: must be removed */  \
	X(UPGRADE, "upgrade")                                                                      \
	X(EXPECT, "expect")                                                                        \
	X(METHOD, "connect_method")                                                                \
	X(LARGE, "request_large") /* more than can be held for sending it again */                 \
	X(KEYLESS, "no_session_key")                                                               \
	X(KEY, "session_key") /* repeated, or longer than 256 bytes */                             \
	X(NO_PIN, "no_pin")   /* a new session: the daemon places it */                            \
	X(BACKEND, "backend_down")                                                                 \
	X(SLOTS, "no_free_slot")                                                                   \
	X(NO_UPSTREAM, "no_upstream") /* no open connection to the pinned server */                \
	X(TARGET, "target_gone")                                                                   \
	X(PIPELINED, "pipelined") /* before the previous answer is out */                          \
	X(NO_HOLD, "no_hold")	  /* all hold buffers are in use */                                \
	/* answers */                                                                              \
	X(ANSWER_SPLIT, "answer_split") /* a head not whole in one segment */                      \
	X(ANSWER_MALFORMED, "answer_malformed")                                                    \
	X(ANSWER_INTERIM, "interim_answer")                                                        \
	X(ANSWER_FIELDS, "answer_fields")  /* version or hop-by-hop fields that need an edit */    \
	X(ANSWER_STREAM, "answer_streams") /* an event stream, where the splice path is there */   \
	X(ANSWER_LONG, "answer_long")	   /* of unknown length, and long by now: likewise */      \
	X(ANSWER_CLOSE, "answer_closes")   /* its end is the connection's end */                   \
	X(ANSWER_BULK, "bulk")		   /* a long body: the relay has back-pressure */          \
	X(TRAILING, "bytes_behind_answer")                                                         \
	X(UNASKED, "unasked_bytes")                                                                \
	X(CHUNKS, "many_chunks")    /* more chunks in one segment than the program walks */        \
	X(BUDGET, "budget")	    /* the client takes too slowly */                              \
	X(BUDGET_ALL, "budget_all") /* all clients together do */                                  \
	/* the daemon's gate */                                                                    \
	X(NOT_ESTABLISHED, "not_established") /* half-closed, closing */                           \
	X(UNREAD, "unread_bytes")	      /* bytes that the daemon has not consumed */         \
	X(RACED, "raced")		      /* bytes came while it handed over */                \
	X(NO_SLOT, "no_slot")                                                                      \
	X(MAP, "map_update_failed")                                                                \
	X(PIPELINES, "client_pipelines") /* did so before: stays with the relay */                 \
	X(PASSED, "requests_passed_up")	 /* its requests were passed up in a row */                \
	X(RING, "ring_full")		 /* an event was lost: the worker's scan finds it */       \
	X(LANE, "lane_overflow") /* a segment too long for the ring: passed all the same */        \
	/* not a refusal: bytes that came twice were taken off a segment */                        \
	X(OVERLAP, "overlap_trimmed")

enum kvpin_refusal {
	KVPIN_REFUSED_NONE,
#define KVPIN_X(id, text) KVPIN_REFUSED_##id,
	KVPIN_REFUSALS(KVPIN_X)
#undef KVPIN_X
		KVPIN_REFUSED_NR
};

/* One socket in the sockmap: as the source of bytes, and as the target of redirects. */
struct kvpin_flow {
	__u64 word;	  /* hand-over word */
	__u64 walked;	  /* position up to which the program is done with what it redirected */
	__u64 redirected; /* bytes of this socket that went elsewhere */
	__u64 queued;	  /* bytes redirected into this socket */
	__u32 seq;	  /* its write_seq once TCP has taken all that was queued */
	__u32 seq_known;  /* 0: the next redirect into it sets seq first */
	__u64 last_ns;	  /* last segment that was redirected */
	__u32 may_leave;  /* LANE: nothing is redirected into this socket any more; once its queue
			   * is empty the program may go to PASS */
	__u32 next_seq;	  /* TCP sequence number of this socket's next byte, for the verdict */
	__u32 next_known;
	__u32 broken; /* bytes that came twice could not be taken off: no more goes anywhere, and
		       * the daemon resets the client */
};

_Static_assert(sizeof(struct kvpin_flow) == 64, "one cache line");

/* A client connection; slots are given by the daemon. */
struct kvpin_conn {
	struct kvpin_flow flow;
	__u64 cookie;	  /* of the client's socket */
	__u32 worker;	  /* whose ring */
	__u32 running;	  /* 1 + upstream entry of the exchange that the kernel carries; 0: none */
	__u32 hold;	  /* 1 + index of the copy of the request; 0: none */
	__u32 tell;	  /* the daemon wants an event when the exchange is complete */
	__u64 started_ns; /* of the exchange */
	__u64 session;	  /* of the exchange */
	__u64 bytes_up;	  /* of the exchange */
	__u32 keyed;
	__u32 context; /* bytes of the session's context before the exchange */
	__u32 wait_ms; /* of the exchange, for a slot */
	__u32 pad;
	__u32 upstream[KVPIN_BACKENDS_MAX]; /* 1 + entry of the connection to each server; 0: none
					     */
};

/* What is known of the answer on an upstream connection. */
enum kvpin_phase {
	KVPIN_PHASE_IDLE,  /* no answer is due */
	KVPIN_PHASE_AWAIT, /* a request went out, no byte of its answer came */
	KVPIN_PHASE_BODY,  /* the head has passed */
};

enum kvpin_answer_flag {
	KVPIN_ANSWER_STREAM = 1 << 0,	  /* text/event-stream */
	KVPIN_ANSWER_TOKEN = 1 << 1,	  /* a first token was seen */
	KVPIN_ANSWER_LATER = 1 << 2,	  /* a later turn of its session */
	KVPIN_ANSWER_FIRST_HERE = 1 << 3, /* nothing of its session is cached at this server */
	KVPIN_ANSWER_OVER = 1 << 4,	  /* sent to a server without a free slot */
	KVPIN_ANSWER_COUNTED = 1 << 5,	  /* the daemon has seen the first token */
	KVPIN_ANSWER_DAEMON = 1 << 6,	  /* the daemon has dispatched it */
	KVPIN_ANSWER_STAYS = 1 << 7,	  /* the splice path cannot have it */
};

/* A connection to a server, private to one client connection. */
struct kvpin_upstream {
	struct kvpin_flow flow;
	__u32 conn; /* slot of its client connection */
	__u32 backend;
	__u32 phase; /* enum kvpin_phase */
	__u32 flags; /* enum kvpin_answer_flag */
	struct kvpin_body body;
	__u32 method;	  /* of the request, enum kvpin_method */
	__u32 status;	  /* of the answer */
	__u64 token_ns;	  /* when the last token came */
	__u64 ttft_ns;	  /* 0: not known yet */
	__u64 bytes_down; /* of the exchange */
	__u32 events;	  /* body.events at the last token */
	__u32 share;	  /* of this connection in config.queued */
	__u32 epoch;	  /* of the server when this was connected */
	__u32 pad[5];
};

/* Key of the sockhash. */
#define KVPIN_ROLE_CLIENT 0xffffffffU

struct kvpin_sock_key {
	__u64 client; /* cookie of the client's socket */
	__u32 role;   /* KVPIN_ROLE_CLIENT, or the server's slot */
	__u32 pad;
};

/* Which socket is it? Value of the cookies map, keyed by the socket's own cookie. */
struct kvpin_sock_ref {
	__u32 conn;	/* slot */
	__u32 upstream; /* 1 + entry; 0: it is the client's */
};

/* A pin; key is kvpin_key_hash() of the session's key. */
struct kvpin_session {
	__u32 backend; /* slot */
	__u32 turns;   /* requests so far */
	__u32 moves;   /* times it changed server */
	__u32 context; /* bytes of the latest request: about what the server has cached of it */
	__u64 last_used_ns;
	__u64 created_ns;
};

/* A server; key is its slot. */
struct kvpin_backend {
	char name[KVPIN_BACKEND_NAME_MAX];
	char address[KVPIN_BACKEND_ADDR_MAX];
	__u32 state; /* as the daemon's enum backend_state; only KVPIN_BACKEND_UP is steered to */
	__u32 weight;
	__u32 slots;	     /* 0: not limited */
	__u32 inflight;	     /* requests dispatched and not yet answered, on all paths */
	__u32 epoch;	     /* grows when the slot is given to another server, or that restarts */
	__u32 waiting;	     /* requests that wait in the daemon for a free slot: they come first */
	__u32 drain_idle_ms; /* 0, or: sessions silent for longer go up, to be moved */
	__u32 pad;
};

#define KVPIN_BACKEND_UP 1

enum kvpin_config_flag {
	KVPIN_CONFIG_REQUESTS = 1 << 0, /* requests may be steered, not only answers */
	KVPIN_CONFIG_EVENTS = 1 << 1,	/* an event for each finished exchange (request log) */
	KVPIN_CONFIG_SPLICE = 1 << 2,	/* event streams go up: the splice path is there for them */
};

struct kvpin_config {
	__u32 version;	  /* KVPIN_ABI_VERSION */
	__u32 flags;	  /* enum kvpin_config_flag */
	__u32 names_at;	  /* which set of names is in force */
	__u32 head_bytes; /* limits of the parser */
	__u32 head_fields;
	__u32 budget;	  /* bytes queued towards one client */
	__u64 budget_all; /* ... towards all */
	__u64 pid;	  /* of the daemon */
	__u64 started_ns;
	__u64 slow_ns;	  /* a later first token than this is told by an event */
	__u64 long_bytes; /* KVPIN_CONFIG_SPLICE: a body of unknown length goes up when it has so
			   * many */
	__u64 queued;	  /* bytes queued towards all clients, as last seen by each flow; on a cache
			   * line of its own */
	__u64 ring_full;  /* events lost */
	__u64 pad2[6];
};

_Static_assert(sizeof(struct kvpin_config) == 128, "two cache lines");

struct kvpin_hold {
	__u8 bytes[KVPIN_HOLD_BYTES];
};

/* Counters per server and CPU; the kernel counts only what it carried to the end, and the bytes
 * that it moved. */
struct kvpin_counters {
	__u64 requests; /* carried to the end */
	__u64 sent;	/* redirected to the server */
	__u64 bytes_up;
	__u64 bytes_down;
	__u64 ttft_sum_ns;
	__u64 gap_sum_ns;
	__u64 ttft[KVPIN_HIST_BUCKETS]; /* later turns */
	__u64 ttft_first[KVPIN_HIST_BUCKETS];
	__u64 ttft_first_sum_ns;
	__u64 gap[KVPIN_HIST_BUCKETS];
	__u64 untold; /* streamed later turns with an early first token, of which no event told:
			 warm */
};

enum kvpin_event_kind {
	KVPIN_EVENT_UP,	  /* a flow left REDIRECT; reason says why */
	KVPIN_EVENT_LANE, /* bytes of a flow in LANE mode follow the record */
	KVPIN_EVENT_DONE, /* an exchange is complete: told when KVPIN_CONFIG_EVENTS says so, the
			   * server has limited slots, the first token was late, or nothing was
			   * cached */
};

/* Head of every record in a worker's ring. */
struct kvpin_event {
	__u64 cookie;	  /* of the client's socket: a slot may be another's by now */
	__u32 conn;	  /* slot */
	__u32 upstream;	  /* 1 + entry; 0: the client's flow */
	__u16 kind;	  /* enum kvpin_event_kind */
	__u16 reason;	  /* enum kvpin_refusal */
	__u32 len;	  /* LANE: bytes that follow */
	__u64 position;	  /* UP, LANE: of the first byte that was not redirected */
	__u64 started_ns; /* DONE, as all below */
	__u64 ended_ns;
	__u64 ttft_ns;
	__u64 session;
	__u64 bytes_up, bytes_down;
	__u32 backend;
	__u32 status;
	__u32 flags; /* enum kvpin_answer_flag */
	__u32 keyed;
	__u32 context; /* as in struct kvpin_conn */
	__u32 wait_ms;
};

/* Programs in the array of verdicts. */
enum kvpin_verdict { KVPIN_VERDICT_REQUEST, KVPIN_VERDICT_ANSWER, KVPIN_VERDICT_NR };

#endif
