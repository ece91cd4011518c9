/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The hand-over word: one source socket S (the client's), its target T (the server's), and the
 * opposite direction, which redirects answers into S. Bytes are numbers 0 .. BYTES-1; whatever
 * reaches T's TCP must be the next one.
 *
 * Process    stands for
 * verdict    TCP's receive queue of S, then (softirq) tcp_read_skb -> sk_psock_verdict_recv ->
 *            steer_request(), then sk_psock_verdict_apply -> sk_psock_skb_redirect /
 *            sk_psock_skb_ingress_self. One runner per source, because S's socket lock is held.
 *            What the program stores comes BEFORE the kernel queues the segment.
 * kworker_t  sk_psock_backlog of T: the redirected bytes go to T's TCP.
 * opposite   steer_answer() on the other socket, on another CPU.
 * kworker_s  sk_psock_backlog of S: skb_peek, sendmsg, and only then skb_dequeue: TCP has taken
 *            everything a moment before the queue is empty.
 * daemon     the thread that owns both sockets (user/net/steer.c, steer_reclaim.c).
 *
 * S enters the map at its first hand-over, not at accept. What TCP queued before is seen by no
 * verdict until the next segment comes; then the verdict gets all of it, also what recv() has read
 * of a segment's beginning. The model begins outside of the map.
 *
 * Abstracted: S's socket lock against recv() of passed bytes (without it there are more
 * interleavings); memory is sequentially consistent; segments hold 1 or 2 bytes; the opposite
 * direction's own hand-over, the same protocol, is one atomic flag; s->lane and c->in, in which
 * the daemon keeps bytes that T has not taken, are the difference of CONSUMED and SENT.
 * Every loop uses up a bounded count, so there is no cycle: no bad end state means all terminates.
 */
#define BYTES 3
/* VARIANT_RING_FULL: other connections' records fill the ring once. A mutant that shows in a smaller
 * space is searched there. */
#if defined(VARIANT_RING_FULL) || defined(MUTANT_NO_SCAN) || \
	defined(MUTANT_RING_FULL_STAYS_IN_LANE)
#define LOSSES 1
#else
#define LOSSES 0
#endif
#if LOSSES || defined(MUTANT_WALKED_NOT_SET) || defined(MUTANT_READ_BYTES_NOT_TRIMMED) || \
	defined(MUTANT_QUEUED_AT_ENTRY_IGNORED)
#define ANSWER 1 /* segments redirected into S */
#else
#define ANSWER 2
#endif
#if defined(MUTANT_WALKED_NOT_SET)
#define HANDOVERS 3
#elif defined(MUTANT_QUEUED_AT_ENTRY_IGNORED)
#define HANDOVERS 1
#else
#define HANDOVERS 2 /* and takeovers for the daemon's own reasons, together */
#endif

mtype = { UP, LANE };

/* The hand-over word of S. What is one atomic operation there is one d_step here. */
byte position;
bool redirect = false, lane = false;

byte walked, redirected; /* struct kvpin_flow of S as a source */
bool may_leave = false;
byte s_seq, s_write, s_queue; /* S as a target: seq, its write_seq, ingress_skb.qlen */
bool s_known = false; /* seq_known */
byte t_seq, t_taken; /* redirected into T; taken by T's TCP: drained when equal */
byte out; /* next byte T's TCP expects */
bool running = false; /* conn.running */
bool due = false; /* upstream.phase is not IDLE */

bool opp_redirect = false;
byte opp_position, opp_walked;

bool entered = false; /* S is in the sockmap */
bool locked = false; /* S's socket lock: its receive queue is being read by a verdict */
byte arrived; /* bytes_received of TCP_INFO */
byte copied; /* copied_seq, as far as recv() got before the first verdict */

byte losses = LOSSES;
bool lost = false; /* config.ring_full */
bool resort = false; /* the documented exception: passed because the ring was full */
bool owned = false; /* the daemon has S: taken back, its redirecting has ended */

chan ring = [BYTES * 2] of { mtype, byte, byte };
chan tcpq = [BYTES] of { byte, byte }; /* sk_receive_queue */
chan recvq = [BYTES] of { byte, byte }; /* psock->ingress_msg */
chan t_queue = [BYTES] of { byte, byte }; /* T's psock->ingress_skb */

#define BEHIND	 (s_known && s_seq > s_write) /* flow_queued(), sock_behind() */
#define CONSUMED (received + redirected) /* positions in the stream */
#define SENT	 (relayed + redirected)

/* SK_PASS. Only after the last resort may it meet a queue that holds data. */
inline deliver() {
	atomic {
		assert(s_queue == 0 || resort);
		recvq!pos, n;
	}
}

/* may_pass(): in this order, every step of which is another moment. */
inline may_pass(quiet) {
#if defined(MUTANT_SEQ_NOT_READ)
	pass = quiet && s_queue == 0;
#elif defined(MUTANT_QLEN_NOT_READ)
	pass = quiet && !BEHIND;
#elif defined(MUTANT_QLEN_READ_FIRST)
	pass = quiet && s_queue == 0;
	pass = pass && !BEHIND;
#else
	pass = quiet && !BEHIND;
	pass = pass && s_queue == 0;
#endif
}

inline announce() {
	if
	:: ring!UP, 0, 0
	:: d_step { losses > 0 -> losses--; lost = true }
	fi
}

active proctype verdict()
{
	byte pos, n, next = 0, mark;
	bool red, lan, pass, quiet, handed, first = true;

	do
	:: !locked && next == BYTES -> break
	:: atomic { !locked && next < BYTES -> /* a segment arrives */
		if
		:: n = 1
		:: next + 2 <= BYTES -> n = 2
		fi;
		tcpq!next, n;
		next = next + n;
		n = 0;
		arrived = next;
		locked = entered
		}
	:: atomic { locked && empty(tcpq) -> locked = false }
	:: locked && nempty(tcpq) ->
		d_step {
			tcpq?pos, n;
#ifndef MUTANT_READ_BYTES_NOT_TRIMMED
			if /* segment_trim() */
			:: first && copied > pos -> n = n - (copied - pos); pos = copied
			:: else
			fi;
#endif
			first = false;
			handed = false
		}
#ifdef MUTANT_RUNNING_READ_BEFORE_WORD
		quiet = !running;
#endif
#ifdef MUTANT_TWO_VARIABLES
		d_step { red = redirect; lan = lane }
		d_step { position = position + n; mark = position }
#else
		d_step { red = redirect; lan = lane; position = position + n; mark = position }
#endif
		if
		:: lan -> goto by_lane
		:: !lan && !red -> deliver(); goto next_segment
		:: !lan && red
		fi;

		if /* request_steer() may go on, or find a reason to hand up */
		:: !running && !BEHIND && !due && opp_redirect ->
			d_step { t_seq = t_seq + n; due = true; redirected = redirected + n }
			running = true;
			walked = mark;
			t_queue!pos, n; /* the program has returned before */
			goto next_segment
		:: true
		fi;

		/* hand_up() */
#ifndef MUTANT_RUNNING_READ_BEFORE_WORD
		quiet = !running;
#endif
		may_pass(quiet);
#ifdef MUTANT_ANNOUNCED_FIRST
		announce();
#endif
		if
#ifndef MUTANT_LANE_SKIPPED
		:: !pass -> lane = true /* fetch_or */
#endif
		:: else
		fi;
		d_step { lan = lane; redirect = false } /* fetch_and */
		handed = true;
		if
#ifdef MUTANT_TAKEOVER_IN_FLIGHT_IGNORED
		:: lan && !pass -> goto by_lane
#else
		:: lan -> goto by_lane
#endif
		:: else -> pass = true
		fi;
handed_up:
		walked = mark;
#if !defined(MUTANT_ANNOUNCED_FIRST) && !defined(MUTANT_UP_NOT_ANNOUNCED)
		announce();
#endif
		if
		:: pass -> deliver() /* the program has returned before */
		:: else
		fi;
		goto next_segment;

by_lane:	/* lane() */
		may_pass(may_leave);
		if
		:: pass -> lane = false /* fetch_and */
		:: else ->
			assert(!owned || may_leave); /* the ring has no back-pressure */
			if
			:: ring!LANE, pos, n
			:: d_step { losses > 0 -> losses--; resort = true; pass = true }
#ifndef MUTANT_RING_FULL_STAYS_IN_LANE
				lane = false; /* fetch_and */
#endif
				lost = true
			fi
		fi;
		if
		:: handed -> goto handed_up
		:: !handed && pass -> deliver()
		:: else
		fi;
next_segment:
		atomic { pos = 0; n = 0; mark = 0; red = false; lan = false; pass = false; quiet = false }
	od
}

active proctype kworker_t()
{
	byte at, n;

end:	do
	:: t_queue?<at, n> ->
		d_step {
			assert(at == out);
			out = out + n;
			t_taken = t_taken + n;
		}
		t_queue?at, n
	od
}

active proctype opposite()
{
	byte sent = 0, pos;
	bool red;

end:	do
	:: sent < ANSWER && due && opp_redirect ->
		d_step { pos = opp_position; red = opp_redirect; opp_position++; sent++ }
		if
		:: red && due ->
			d_step { /* flow_queue() */
				if
				:: !s_known -> s_seq = s_write; s_known = true
				:: else
				fi;
				s_seq++
			}
			if /* the answer may be complete with this segment, or go on */
			:: due = false; running = false
			:: skip
			fi;
			opp_walked = pos + 1;
			s_queue++ /* the program has returned before */
		:: red && !due -> opp_walked = pos + 1 /* unasked: handed up */
		:: else /* the daemon's matter */
		fi;
		atomic { pos = 0; red = false }
	od
}

active proctype kworker_s()
{
end:	do
	:: s_queue > 0 ->
		s_write++; /* sendmsg */
		s_queue-- /* skb_dequeue */
	od
}

/* steer_consume() */
inline consume() {
	atomic { do
	:: ring?UP, _, _ -> mine = true
	:: ring?LANE, ring_at, ring_n ->
		assert(ring_at == CONSUMED);
		received = received + ring_n;
		mine = true;
		ring_at = 0;
		ring_n = 0
	:: empty(ring) -> break
	od }
}

/* steer_recv() */
inline steer_recv() {
	was_lane = false;
	if
	:: laned ->
#ifdef MUTANT_LANE_READ_LATE
		consume();
		was_lane = lane;
#else
		was_lane = lane;
#ifndef MUTANT_RING_NOT_FIRST
		consume();
#endif
#endif
		laned = was_lane
	:: else
	fi;
	if
	:: atomic { nempty(recvq) -> recvq?at, n }
#ifndef MUTANT_RING_NOT_AGAIN
		if
		:: was_lane -> consume() /* it has left LANE just now */
		:: else
		fi;
#endif
		atomic {
			assert(at == CONSUMED);
			received = received + n;
			at = 0;
			n = 0
		}
	:: empty(recvq)
	fi
}

inline opp_arm() {
	d_step { opp_walked = opp_position; opp_redirect = true }
}

inline opp_take() {
	if
	:: opp_redirect ->
		d_step { opp_redirect = false; opp_seen = opp_position }
#ifndef MUTANT_OPPOSITE_NOT_AWAITED
		opp_walked >= opp_seen;
#endif
		opp_seen = 0
	:: else
	fi
}

active proctype daemon()
{
	byte received = 0; /* s->received: by recv() or from the ring */
	byte relayed = 0; /* of these, taken by T's TCP */
	byte seen, opp_seen;
	byte at, n, ring_at, ring_n;
	byte handovers = 0;
	bool ok, kept, was_lane, mine, within, laned = false;
	bool current = true; /* an exchange of the relay has T */

relay:	/* recv() from S, send() to T, as much as T takes */
	do
	:: nempty(ring) || nempty(recvq) -> consume(); steer_recv()
	:: atomic { !locked && nempty(tcpq) -> /* tcp_recvmsg(): a segment's beginning or rest */
		tcpq?<at, n>;
		if
		:: received = at + n; tcpq?_, _
		:: received + 1 < at + n -> received++
		fi;
		copied = received;
		at = 0;
		n = 0
	}
	:: relayed < received && !current -> /* upstream_get() */
		opp_take();
		current = true;
#ifndef MUTANT_IDLE_TARGET_NOT_DRAINED
		if
		:: t_taken == t_seq
		:: else -> goto done /* closed: the rest goes over another connection */
		fi
#endif
	:: relayed < received && current ->
		d_step {
			assert(out == SENT);
			out++;
			relayed++
		}
	:: out == BYTES -> goto done
#ifdef MUTANT_PARTIAL_SEND_IGNORED
	:: handovers < HANDOVERS ->
#else
	:: handovers < HANDOVERS && relayed == received ->
#endif
		handovers++;
		mine = false;
		break
	od;

	/* Within an answer whose beginning is out, or between two exchanges. */
	if
	:: current -> within = true; s_write++
	:: within = false; current = false
	fi;
	atomic { !locked -> entered = true }
	/* sock_ready() */
#ifndef MUTANT_WORD_READ_LATE
	d_step { seen = position; was_lane = lane } /* none but the daemon sets REDIRECT */
#endif
#if defined(MUTANT_POSITION_NOT_COMPARED)
	ok = true;
#elif defined(MUTANT_QUEUED_AT_ENTRY_IGNORED)
	ok = (CONSUMED == arrived || (!locked && nempty(tcpq)));
#else
	ok = (CONSUMED == arrived);
#endif
#ifdef MUTANT_WORD_READ_LATE
	d_step { seen = position; was_lane = lane }
#endif
	if
	:: ok
	:: else -> goto relay
	fi;
	if
	:: within -> due = true; running = true
	:: !within && !opp_redirect -> due = false; opp_arm()
	:: else
	fi;
#ifdef MUTANT_OPPOSITE_FIRST
	opp_arm();
#endif
	/* sock_arm() */
	d_step {
		owned = false;
#ifndef MUTANT_SEQ_KEPT
		s_known = false;
#endif
		kept = may_leave;
#ifndef MUTANT_MAY_LEAVE_KEPT
		may_leave = false;
#endif
#ifndef MUTANT_WALKED_NOT_SET
		walked = seen;
#endif
		skip
	}
#ifdef MUTANT_PLAIN_STORE
	d_step { position = seen; lane = false; redirect = true; resort = false; ok = true }
#else
	d_step { /* compare-and-swap */
#ifdef MUTANT_TWO_VARIABLES
		ok = (lane == was_lane);
#else
		ok = (position == seen && lane == was_lane);
#endif
		if
		:: ok -> redirect = true; lane = false; resort = false
		:: else
		fi
	}
#endif
	if
	:: ok
	:: else ->
#ifndef MUTANT_MAY_LEAVE_LOST
		may_leave = kept;
#endif
		owned = kept;
		if
		:: within -> running = false
		:: else
		fi;
		goto relay
	fi;
	atomic { laned = false; seen = 0; was_lane = false; kept = false; ok = false }
	if
	:: within -> opp_arm()
	:: else
	fi;

	/* The kernel steers. Nothing but the ring and the scan wakes the daemon; each time it looks at
	 * the word. */
	do
	:: nempty(ring) ->
		mine = false;
		consume();
		if
		:: mine && !redirect -> break
		:: else
		fi
#ifndef MUTANT_NO_SCAN
	:: lost ->
		lost = false;
		consume();
		if
		:: !redirect -> break
		:: else
		fi
#endif
	:: handovers < HANDOVERS -> handovers++; break /* for reasons of its own */
	:: out == BYTES -> goto done
	od;

	/* steer_reclaim() */
#ifdef MUTANT_MAY_LEAVE_EARLY
	may_leave = true;
#endif
#ifdef REDUNDANT_SERVER_TAKEN_FIRST
	within = false;
#else
	within = running;
#endif
#ifndef MUTANT_OPPOSITE_KEEPS_REDIRECTING
	if
	:: within -> opp_take()
	:: else
	fi;
#endif
	laned = true;
#ifdef MUTANT_TAKEOVER_BY_STORE
	d_step { seen = position; ok = redirect }
	if
	:: ok -> d_step { position = seen; redirect = false; lane = true }
	:: else
	fi;
#else
	d_step { /* compare-and-swap until it succeeds, or REDIRECT is gone */
		seen = position;
		ok = redirect;
		if
		:: ok -> redirect = false; lane = true
		:: else
		fi
	}
#endif
#ifndef MUTANT_WALKED_NOT_AWAITED
	if
	:: ok -> walked >= seen
	:: else
	fi;
#endif
#ifndef MUTANT_SECOND_LOOK_SKIPPED
	if
	:: !within && running -> opp_take() /* a request got in before S's word was taken */
	:: else
	fi;
#endif
#ifndef MUTANT_MAY_LEAVE_LATE
	may_leave = true;
#endif
	owned = true;
	/* steer_reclaim_poll(), then steer_resume() */
#if defined(MUTANT_QUEUE_LOOKS_EMPTY)
	!BEHIND && empty(t_queue);
#elif defined(MUTANT_TARGET_NOT_DRAINED)
	!BEHIND;
#elif defined(MUTANT_SOURCE_NOT_DRAINED)
	!running || t_taken == t_seq;
#else
	!BEHIND && (!running || t_taken == t_seq);
#endif
	d_step { current = running; running = false }
	may_leave = true;
	atomic { seen = 0; ok = false; within = false; mine = false }
	steer_recv(); /* conn_on_steered() */
	goto relay;
done:	skip
}
