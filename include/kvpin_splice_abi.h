/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The contract between the daemon and the program of the splice path (bpf/splice.bpf.c): keys and
 * values of its maps, events, the word, reasons. ABI.md says who writes what, and for how long.
 *
 * Two spaces of sequence numbers exist for each connection: "wire" is what the peer sees, "local"
 * what the daemon's socket sees. They differ by `off` as soon as bytes went past the daemon. All
 * sequence numbers here are of the wire. Those of 64 bits are extended: the low half is the number
 * in the packets, the high half counts the wraps and begins at 1, so that 0 means "not known".
 */
#ifndef KVPIN_SPLICE_ABI_H
#define KVPIN_SPLICE_ABI_H

#include "kvpin_abi.h"

#define KVPIN_SPLICE_VERSION 5

/*
 * The word of a connection to a server: two mode bits, below them a number for each time that it
 * was taken (the turn), and a count of the packets that came from the server, so that the daemon's
 * compare-and-swap fails when one came in between.
 *
 *   no bit          the packets are the sockets', shifted by `off`
 *   TAKEN           answer and ACKs go past the sockets
 *   TAKEN + GIVING  somebody gives it back: nobody else may; packets are dropped, for a moment
 *
 * What describes an answer may be read while TAKEN, and counts if the word then still has TAKEN and
 * the same turn: a CPU may be away for so long that the next answer has been taken meanwhile.
 *
 * no bit -> TAKEN            the daemon, by compare-and-swap
 * TAKEN -> TAKEN + GIVING    program (the packet with the client's ACK of the end) or daemon; who
 *                            set the bit writes `off` of both and clears both bits
 */
#define KVPIN_SPLICE_TAKEN  (1ULL << 63)
#define KVPIN_SPLICE_GIVING (1ULL << 62)
#define KVPIN_SPLICE_TURN_1 (1ULL << 40)
#define KVPIN_SPLICE_TURN   (KVPIN_SPLICE_GIVING - KVPIN_SPLICE_TURN_1)

/*
 * Marks of packets. Several programs may be on a device, a dead daemon's beside its successor's, so
 * each has a mark of its own (not 0 in the low bits), which no other takes off: the packet has been
 * dealt with and passes one of its hooks once more. On lo a packet that a kvpin sends has the bare
 * mark: who finds it on one of its connections has another kvpin at the other end, and leaves the
 * answers to it, because of the two programs one would come too early.
 */
#define KVPIN_SPLICE_MARK      0x6b000000U
#define KVPIN_SPLICE_MARK_MASK 0xff000000U

/* Why the daemon did not hand an answer over, or the program gave it back early; the text is the
 * metric label's. */
#define KVPIN_SPLICE_REFUSALS(X)                                                                   \
	X(NO_SLOT, "no_slot") /* all entries are in use */                                         \
	X(MAP, "map_update_failed")                                                                \
	X(DEVICE, "no_device")	    /* the way to a peer is over a device without the program */   \
	X(FAMILY, "mixed_families") /* IPv4 on one side, IPv6 on the other */                      \
	X(UNTRACKED, "untracked")   /* no packet of one side was seen yet */                       \
	X(SHORT, "short_answer")    /* ends soon, or may: the relay is cheaper */                  \
	X(REQUEST, "request_unfinished") /* not all sent, or not yet acknowledged by the server */ \
	X(UNSENT, "unsent_bytes")	 /* TCP holds bytes for the client that it did not send */ \
	X(UNREAD, "unread_bytes")	 /* bytes of the server that the daemon has not read */    \
	X(RACED, "raced")		 /* a packet came while it was handed over */              \
	X(HELD, "held_in_vain") /* the server was stopped for a moment, and still no quiet came */ \
	X(ENDING, "ending")	/* one of the peers half-closed, or a socket is closing */         \
	X(OPTIONS, "tcp_options") /* the two connections' TCP options do not fit together */       \
	X(SEGMENT,                                                                                 \
	  "segment_size") /* the server may send more at once than the client's way takes */       \
	X(CHAINED, "other_kvpin") /* a peer is another kvpin on this host, which may splice */     \
	/* given back early, by the program */                                                     \
	X(BEHIND_END, "bytes_behind_answer") /* a packet with the end and more */                  \
	X(MALFORMED, "malformed_chunks")                                                           \
	X(CHUNKS, "many_chunks") /* more in one packet than the program walks */                   \
	/* broken off, by the daemon: behind one of these three, what the client lacks comes only  \
	 * in one packet with bytes that must not pass */                                          \
	X(INSEPARABLE, "inseparable_bytes")                                                        \
	/* not a refusal */                                                                        \
	X(ORDER, "out_of_order") /* the daemon follows the framing from here on */

enum kvpin_splice_refusal {
#define KVPIN_X(id, text) KVPIN_SPLICE_REFUSED_##id,
	KVPIN_SPLICE_REFUSALS(KVPIN_X)
#undef KVPIN_X
		KVPIN_SPLICE_REFUSED_NR
};

/* Addresses and ports of a packet, as they stand in it; IPv4 in the first word, the rest zero. */
struct kvpin_splice_key {
	__be32 from[4], to[4];
	__be16 from_port, to_port;
};

_Static_assert(sizeof(struct kvpin_splice_key) == 36, "no padding in a key");

enum kvpin_splice_direction {
	KVPIN_SPLICE_IN,  /* to the daemon's socket */
	KVPIN_SPLICE_OUT, /* from it */
};

/*
 * Which connection does a packet belong to? A table in memory that daemon and program share,
 * because two system calls per connection and a hash map's look-up per packet cost more than all
 * the rest. A connection stands in the bucket that the hash of its addresses and ports names, the
 * same for both directions; the entry itself tells whether it is the one. A full bucket refuses.
 */
#define KVPIN_SPLICE_BUCKET_REFS 8
#define KVPIN_SPLICE_REF_ENTRY	 0x00ffffffU /* 1 + entry; above it eight bits of the hash */

struct kvpin_splice_bucket {
	__u32 ref[KVPIN_SPLICE_BUCKET_REFS]; /* 0: none */
};

_Static_assert(sizeof(struct kvpin_splice_bucket) == 32, "half a cache line");

/* Two odd numbers that nobody else knows: a client cannot choose addresses that meet. */
struct kvpin_splice_hash {
	__u64 times[2];
};

/**
 * kvpin_splice_hash() - of a connection, the same whichever end is called "from"
 *
 * The low half names the bucket, the highest eight bits go into the reference.
 */
static __always_inline __u64 kvpin_splice_hash(const struct kvpin_splice_hash *secret,
					       const struct kvpin_splice_key *key)
{
	__u64 a = key->from[0] ^ key->to[0], b = key->from[1] ^ key->to[1];
	__u64 ports =
		(__u32)(key->from_port + key->to_port) << 16 | (key->from_port ^ key->to_port);

	a |= (__u64)(key->from[2] ^ key->to[2]) << 32;
	b |= (__u64)(key->from[3] ^ key->to[3]) << 32;
	a = (a ^ ports << 20) * secret->times[0];
	b = (b ^ ports) * secret->times[1];
	a ^= b;
	return a ^ a >> 32;
}

/* What of a hash stands in a reference to an entry. */
static __always_inline __u32 kvpin_splice_ref(__u64 hash, __u32 entry)
{
	return (__u32)(hash >> 56) << 24 | (entry + 1);
}

enum kvpin_splice_role {
	KVPIN_SPLICE_CLIENT,
	KVPIN_SPLICE_SERVER,
};

/* Who follows the answer's framing. */
enum kvpin_splice_framing {
	KVPIN_SPLICE_COUNTED, /* nobody has to: `end` is known from the start */
	KVPIN_SPLICE_CHUNKED, /* the program, in `body` and `walked` */
	KVPIN_SPLICE_CLOSE,   /* the server's FIN is the end */
	KVPIN_SPLICE_DAEMON,  /* the daemon, from copies of the packets */
};

enum kvpin_splice_flag {
	KVPIN_SPLICE_STREAM = 1 << 0, /* text/event-stream */
	KVPIN_SPLICE_TOKEN = 1 << 1,  /* a first token was seen */
	KVPIN_SPLICE_LATER = 1 << 2,  /* a later turn of its session */
	KVPIN_SPLICE_CUT = 1 << 3,    /* `end` is where the relay goes on, not the answer's end */
	KVPIN_SPLICE_SERVER_FIN =
		1 << 4, /* the server has ended the connection: not to be used again */
	KVPIN_SPLICE_SERVER_RST = 1 << 5,
	KVPIN_SPLICE_CLIENT_FIN = 1 << 6, /* the client's FIN or RST was passed to the server, or
					   * the daemon is about to: its socket's FIN is let out */
	KVPIN_SPLICE_NO_FIN = 1 << 7,  /* a request waits behind: a client's FIN is the daemon's */
	KVPIN_SPLICE_NO_TS = 1 << 8,   /* the client does not want timestamps */
	KVPIN_SPLICE_NO_SACK = 1 << 9, /* the server does not want SACK */
	KVPIN_SPLICE_ODD_OPTIONS = 1 << 10, /* TCP options in a layout that is not understood */
	KVPIN_SPLICE_PROBE = 1 << 11, /* the socket sent a keepalive probe, or the client's FIN: let
				       * it see the answer */
	KVPIN_SPLICE_CLOSED = 1 << 12, /* the daemon closed the socket: a SYN ends the entry */
	KVPIN_SPLICE_OVER = 1 << 13,   /* nobody's: no packet belongs to it */
	KVPIN_SPLICE_BROKEN = 1 << 14, /* client's: given back while bytes of its socket before `to`
					* were not yet acknowledged; those keep `off_taken` */
	KVPIN_SPLICE_RESET = 1 << 15,  /* a RST passed: nothing more comes of this connection */
	KVPIN_SPLICE_FIN_SENT = 1 << 16,    /* the socket's; `sent` counts it */
	KVPIN_SPLICE_CHAINED = 1 << 17,	    /* the peer is another kvpin's socket, of this host */
	KVPIN_SPLICE_BEHIND = 1 << 18,	    /* bytes came behind the answer's end: no further
					     * request to that server's connection */
	KVPIN_SPLICE_INSEPARABLE = 1 << 19, /* since CUT a packet reached from before `end` to
					     * behind it: its good bytes cannot pass alone */
	KVPIN_SPLICE_ORPHAN = 1 << 20,	    /* one of the two sockets ended while TAKEN: of a dead
					     * daemon, nobody else ends a connection then */
};

/*
 * One connection of the daemon's, to a client or to a server. The first two cache lines are kept up
 * to date by the program with every packet; the others describe an answer under way and stand in
 * the server's entry only. What each packet needs stands in as few lines as possible.
 */
struct kvpin_splice_conn {
	__u64 word; /* server's */
	__be32 local[4], remote[4];
	__be16 local_port, remote_port;
	__u16 role;	  /* enum kvpin_splice_role */
	__u16 hop_family; /* of `hop`; 0: the peer itself is on the device's link */
	__u32 peer;	  /* 1 + entry of the other side while TAKEN */
	__u32 flags;	  /* enum kvpin_splice_flag */
	__u32 ifindex;	  /* the device towards the peer */
	__u32 backend;	  /* slot */

	__u64 sent;		 /* behind the last byte sent to the peer */
	__u64 received;		 /* behind the last byte seen from the peer */
	__u64 acked;		 /* what the peer has acknowledged */
	__u64 ack_win;		 /* what the socket last told the peer: ACK << 32 | window field */
	__u32 ts_out, ts_out_ms; /* last timestamp sent to the peer, and when */
	__u32 ts_in, ts_in_ms;	 /* ... received; of these times only differences mean anything */
	__u32 has_ts;		 /* 1: ts_in is known, 2: ts_out is */
	__u32 off;	 /* wire = local + off: client's sequence numbers, server's ACKs of them */
	__u32 off_taken; /* off when it was taken */
	__u32 ts_off;	 /* the same for timestamps that the socket sends */

	/* -- an answer under way; the server's entry -- */
	__u64 from;   /* the first byte that goes past, in the server's numbers */
	__u64 to;     /* the same byte in the client's; before it the socket has its own to send */
	__u64 end;    /* behind the answer's last byte, in the client's; 0: not yet known */
	__u64 walked; /* up to where `body` stands, in the server's numbers */
	struct kvpin_body body;

	__u32 framing; /* enum kvpin_splice_framing */
	__u32 lock;    /* of body, walked and framing: 1 a program, 2 the daemon until the end */
	__u32 request_end; /* behind the request's last byte, in the numbers of the server's side */
	__u32 told_server; /* the last ACK passed to the server */
	__u32 ts_down, ts_up; /* what turns a timestamp of one side into one of the other */
	__u8 client_wscale;   /* of the client's window fields */
	__u8 server_wscale;   /* ... as the server understands them */
	__u8 reason;	      /* of CUT, enum kvpin_splice_refusal */
	__u8 pad;
	__u32 events; /* body.events at the last token */
	__u64 fin;    /* the server's FIN, in its numbers; 0: none */
	__u64 token_ns;
	__u64 last_ns;	/* when a byte or an ACK last made progress, to a tick */
	__u64 room_end; /* about: behind what the client has said it has room for, in its numbers */

	__u64 started_ns;
	__u64 ttft_ns;
	__u64 serial;  /* of this use of the entry; events name it */
	__u32 worker;  /* whose ring */
	__u32 base;    /* server's: its first byte's number */
	__u64 hold_ns; /* until then the server is told of no room behind `received` */
	__u32 counted; /* in flight at its server: who swaps it to 0 takes it off */
	__u32 pad2;
	__be32 hop[4]; /* the gateway; an IPv4 one in the first word */
};

_Static_assert(sizeof(struct kvpin_splice_conn) == 320, "five cache lines");
_Static_assert(__builtin_offsetof(struct kvpin_splice_conn, sent) == 64, "what it is");
_Static_assert(__builtin_offsetof(struct kvpin_splice_conn, from) == 128, "where the answer is");
_Static_assert(__builtin_offsetof(struct kvpin_splice_conn, framing) == 192, "how it is read");

/* Bytes of a packet that one record of a ring can carry. */
#define KVPIN_SPLICE_COPY_BYTES 2048

enum kvpin_splice_event_kind {
	KVPIN_SPLICE_EVENT_BACK,  /* the pair's word has left TAKEN: `end` was reached */
	KVPIN_SPLICE_EVENT_CUT,	  /* it will, as soon as the client has acknowledged `end` */
	KVPIN_SPLICE_EVENT_BYTES, /* a copy of answer bytes follows */
};

struct kvpin_splice_event {
	__u64 serial; /* of the server's entry */
	__u64 at;     /* BYTES: the first byte, in the server's numbers */
	__u32 server; /* entry */
	__u32 kind;   /* enum kvpin_splice_event_kind */
	__u32 len;    /* BYTES */
	__u32 pad;
};

struct kvpin_splice_config {
	__u32 version; /* KVPIN_SPLICE_VERSION */
	__u32 pad;
	__u64 used_ns; /* when a packet of a known connection last came, to about a second; stays at
			* this place in every version: a successor asks whether streams still run */
	__u64 alive_ns;	 /* when the daemon last looked */
	__u64 pid;	 /* of the daemon */
	__u64 ring_full; /* events that found no room: look at all connections */
	__u64 dropped;	 /* packets that the server has to send again: no room for a copy */
	__u64 pad2[2];
};

_Static_assert(__builtin_offsetof(struct kvpin_splice_config, used_ns) == 8, "never moves");
_Static_assert(sizeof(struct kvpin_splice_config) == 64, "one cache line");

#endif
