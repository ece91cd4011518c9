/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One client connection and the exchange that it carries. conn.c, exchange.c and attempt.c are the
 * orchestrators; the modules that they call (dispatch, upstream, relay, reply) report, and never
 * change the state.
 *
 *            accept
 *              |
 *              v        malformed, no server, ...
 *   +------> HEAD ---------------------------------------> REPLY
 *   |          | head complete, server chosen               |  |
 *   |          +---- no free slot ----> WAIT ---------------+  |
 *   |          |                           | slot, or decided  |
 *   |          v <-------------------------+ anew           |  |
 *   |      EXCHANGE ---- 101 ----> TUNNEL                   |  |
 *   |          | both messages complete |                   |  |
 *   |          |                                            |  |
 *   |          +---- answer streams ----> STEER             |  |
 *   |          |                           | taken back     |  |
 *   |          +<---- exchange runs ---- RECLAIM            |  |
 *   +<---------------- none runs ----------+                |  |
 *   |          +---- answer streams ----> SPLICE ----+        |  |
 *   |          +<--------- is back -----------------+         |  |
 *   |          | both messages complete                     |  |
 *   +----------+-------------- keep-alive ------------------+  |
 *              |                        |                      |
 *              +--> LINGER (bytes of the client still come) <--+
 *              +--> BREAK  (truncation: let the client take what it was sent, then RST)
 *              |        |               |
 *              v        v               v
 *                     CLOSED, freed by the loop
 */
#ifndef NET_CONN_H
#define NET_CONN_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/addr.h"
#include "base/buf.h"
#include "base/list.h"
#include "core/backend.h"
#include "core/decide.h"
#include "core/key.h"
#include "kvpin_http_body.h"
#include "net/sock.h"
#include "net/splice.h"
#include "net/stats.h"
#include "net/steer.h"
#include "net/wait.h"

struct worker;
struct upstream;
struct key_wait;
struct body_chain;

enum conn_state {
	CONN_HEAD,     /* a request head is awaited or half there; idle when no byte is */
	CONN_WAIT,     /* no free slot: the request waits for one (net/wait.h) */
	CONN_EXCHANGE, /* a server was chosen; request and answer move. Or, with x->wait, the body
			* is awaited that says which */
	CONN_STEER,    /* the kernel carries the connection (net/steer.h) */
	CONN_RECLAIM,  /* ... no more, but its queues are not yet empty */
	CONN_SPLICE,   /* the answer goes past the daemon (net/splice.h) */
	CONN_TUNNEL,   /* after 101 */
	CONN_REPLY,    /* an answer of our own goes out */
	CONN_LINGER,   /* our side is shut; the client's bytes are thrown away */
	CONN_BREAK,    /* a broken answer: RST once the client has what was sent */
	CONN_CLOSED,
	CONN_STATE_NR
};

/* Why a connection was closed: text for the log. */
#define CONN_CLOSES(X)                                                                             \
	X(DONE, "done")		      /* after an answer that said so */                           \
	X(CLIENT_GONE, "client_gone") /* FIN or RST */                                             \
	X(IDLE, "idle")		      /* no next request in time */                                \
	X(TIMEOUT, "timeout")                                                                      \
	X(BAD_REQUEST, "bad_request")                                                              \
	X(BROKEN_ANSWER, "broken_answer")                                                          \
	X(OVERRUN, "overrun") /* sent too much ahead while its answer was under way */             \
	X(NO_MEMORY, "no_memory")                                                                  \
	X(DRAIN, "drain")                                                                          \
	X(STOP, "stop")

enum conn_close {
#define CONN_X(id, text) CONN_CLOSE_##id,
	CONN_CLOSES(CONN_X)
#undef CONN_X
		CONN_CLOSE_NR
};

/*
 * One request and its answer, on one server: where both framings stand and how many bytes moved.
 * This is what a data path is given and what it gives back settled.
 */
struct exchange {
	struct kvpin_head request;
	struct kvpin_body request_body;
	struct kvpin_head answer;
	struct kvpin_body answer_body;

	struct key_found key;	  /* what the head, then the body said */
	enum key_kind key_kind;	  /* of the source that decided, if one did */
	struct key_wait *wait;	  /* the decision waits for the body; NULL: it does not */
	struct body_chain *chain; /* of the prompt, where that decides; NULL: it does not */
	char generated[37];	  /* a key that the client is given; empty: none */
	bool avoids;		  /* the server of session `parent` */
	uint64_t parent;
	uint64_t session; /* id, when keyed */
	bool keyed;
	bool later_turn;
	bool bound;	   /* its session is: the next dispatch is the same turn */
	bool first_here;   /* nothing of the session is cached at its server */
	bool waited;	   /* for guard.wait: not again */
	bool counted_out;  /* no longer counted in flight at x.backend */
	bool over;	   /* sent to a server without a free slot: its own queue takes it */
	bool control;	   /* in the experiment's control arm */
	bool disturbed;	   /* counted as one that had to leave its prompt's owner */
	uint64_t context;  /* bytes of the session's context before this turn, by its ledger */
	uint64_t wait_ns;  /* spent waiting for a slot */
	uint64_t waits_ns; /* since when it waits, while it does */
	uint64_t sent_ns;  /* dispatched; 0: not yet */
	enum decide_reason reason;
	struct backend *backend; /* counted in flight there; NULL when none is */
	uint64_t excluded;	 /* servers that failed this request */
	unsigned int attempts;	 /* times it was dispatched */

	/* Request: the connection's in buffer from its start. */
	uint32_t ready;	   /* bytes that belong to the request and may be sent */
	uint32_t sent;	   /* of those, bytes sent and still held */
	bool held;	   /* every byte sent is still there: may be sent again */
	bool discard;	   /* nobody wants the rest of the request */
	bool server_reset; /* sending met the server's RST: what it sent before is all there is */

	/* Answer: the connection's out buffer from its start. */
	uint32_t out_ready; /* bytes that may go to the client */
	bool answered;	    /* a byte of an answer came */
	bool head_done;	    /* the final answer's head was edited and passed */
	bool head_sent;	    /* a byte of the final answer was passed to the client's socket */
	bool plain_body;    /* HTTP/1.0 client: chunk framing is taken off */
	bool close_upstream;
	bool upgrade; /* Upgrade was passed on: the server may answer 101 */
	bool token_seen;

	uint64_t started_ns; /* head complete */
	uint64_t token_ns;   /* last token, or first byte */
	uint64_t ttft_ns;    /* 0 until known */
	uint64_t bytes_up, bytes_down;
	uint32_t events;     /* answer_body.events at the last token */
	uint16_t status;     /* of the answer that the client got */
	enum stat_path path; /* under which it is counted */
};

struct conn {
	struct worker *worker;
	struct list link; /* worker->conns */
	struct sock sock;
	uv_timer_t timer;
	uint64_t armed_ms;    /* when the timer fires; UINT64_MAX: not armed */
	uint64_t activity_ms; /* when a byte last moved, or the state last changed */
	uint64_t head_ms;     /* when the head being read began */
	struct addr peer;
	unsigned int handles; /* loop handles not yet closed */
	enum conn_state state;
	enum conn_close close_reason;
	bool client_eof;    /* the client's FIN was read */
	bool client_rdhup;  /* its FIN was announced while nothing was read */
	bool client_urgent; /* sent urgent data: what is announced as such tells nothing */
	bool eof_passed;    /* ... and given to the server */
	bool close_after;   /* the current answer is this connection's last */
	bool reset_client;  /* close with a RST; BREAK does so anyway */
	int break_unsent;   /* BREAK: bytes that the client had not acknowledged last time */
	bool counted;	    /* the exchange's outcome is in the statistics */
	struct buf in;	    /* from the client */
	struct buf out;	    /* towards the client */
	struct upstream *upstreams; /* at most one per server, most recently used first */
	struct upstream *current;   /* the exchange's, or NULL */
	struct exchange *x; /* NULL while no byte of a request is there, and in CONN_STEER */
	struct steer_conn steer;
	struct waiter wait;
	struct splice_conn splice;
};

/**
 * conn_new() - begin to serve an accepted client
 * @w: worker
 * @fd: nonblocking; owned by the connection, closed on failure as well
 * @peer: the client's address
 */
void conn_new(struct worker *w, int fd, const struct addr *peer);

/** conn_close() - the one exit: closes all sockets, settles the exchange, frees later */
void conn_close(struct conn *c, enum conn_close reason);

/** conn_set_state() - the one place where the state changes; starts its clock */
void conn_set_state(struct conn *c, enum conn_state state);

/** conn_next() - the answer is out: await the next request, or end the connection politely */
void conn_next(struct conn *c);

/** conn_drain() - the worker drains: close now if idle, else after the current answer */
void conn_drain(struct conn *c);

/* What the modules tell the orchestrator. None of them frees the connection at once: after any
 * of these calls c->state may be CONN_CLOSED, and c is valid until the loop runs on. */

/** conn_on_upstream_ready() - the current upstream is connected, or can take bytes */
void conn_on_upstream_ready(struct conn *c);
/** conn_on_upstream_readable() - the current upstream has bytes, an end or an error */
void conn_on_upstream_readable(struct conn *c);
/** conn_on_connect_failed() - no connection to the chosen server came about */
void conn_on_connect_failed(struct conn *c, int err);

/** conn_on_upstream_lost() - the exchange's upstream vanished before a byte of an answer */
void conn_on_upstream_lost(struct conn *c);
/** conn_on_slot() - the slot that the connection waits for has been handed to it */
void conn_on_slot(struct conn *c);
/** conn_on_review() - it waits: does it still have to, and here? */
void conn_on_review(struct conn *c);
/** conn_on_steered() - the connection came back from another path, or bytes came up: go on */
void conn_on_steered(struct conn *c);

/** conn_quickack() - acknowledge what was received now, not in 40 ms */
void conn_quickack(struct conn *c);
/** conn_touch() - a byte moved: the stall clock starts anew */
void conn_touch(struct conn *c);
/** conn_rearm() - the state changed: make sure the timer fires early enough */
void conn_rearm(struct conn *c);

#endif
