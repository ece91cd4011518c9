/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The hand-over word: one source socket S, its target T, and the opposite direction, which
 * redirects into S. Bytes are numbers 0 .. BYTES-1; whatever reaches T's TCP must be the next one.
 *
 * Process    stands for
 * verdict    the program on S (softirq): tcp_read_skb -> sk_psock_verdict_recv -> program, then
 *            sk_psock_verdict_apply -> sk_psock_skb_redirect / sk_psock_skb_ingress_self. One
 *            runner per source, because S's socket lock is held. What the program stores comes
 *            BEFORE the kernel queues the segment.
 * kworker_t  sk_psock_backlog of T: the redirected bytes go to T's TCP.
 * opposite   the program on the other socket, on another CPU, which redirects the answer into S.
 * kworker_s  sk_psock_backlog of S: skb_peek, sendmsg, and only then skb_dequeue: TCP has taken
 *            everything a moment before the queue is empty.
 * daemon     the thread that owns both sockets.
 *
 * Abstracted: S's socket lock against recv() (without it there are more interleavings); memory is
 * sequentially consistent; segments hold 1 or 2 bytes; the opposite direction's own hand-over, the
 * same protocol, is one atomic flag; "20 ms later kworker_s has dequeued" is a wait for just that.
 * Every loop uses up a bounded count, so there is no cycle: no bad end state means all terminates.
 */
#ifndef BYTES
#define BYTES 4
#endif
#ifndef ANSWER
#define ANSWER 2 /* segments redirected into S */
#endif
#ifndef RING
#define RING 2 /* records in the event ring */
#endif
#ifndef HANDOVERS
#define HANDOVERS 2
#endif

mtype = { UP, LANE };

/* The hand-over word of S. What is one atomic operation there is one d_step here. */
byte position;
bool redirect = false, lane = false;

byte walked, redirected, lane_end; /* struct kvpin_flow of S */
byte t_seq, t_taken; /* redirected into T; taken by T's TCP: drained when equal */
byte out; /* next byte T's TCP expects */

bool opp_redirect = false;
byte opp_position, opp_walked;
byte s_seq, s_taken, s_queue; /* the same of S; and what sits in its ingress_skb */
bool s_target = false; /* seq_known: something was redirected into S since the hand-over */
bool running = false; /* conn.running */

bool lost = false; /* config.ring_full */
bool resort = false; /* the documented exception: passed because the ring was full */

chan ring = [RING] of { mtype, byte, byte };
chan recvq = [BYTES] of { byte, byte }; /* psock->ingress_msg */
chan t_queue = [BYTES] of { byte, byte }; /* T's psock->ingress_skb */

/* SK_PASS. Only after the last resort may it meet a queue that holds data. */
inline deliver() {
	atomic {
		assert(s_queue == 0 || resort);
		recvq!pos, n;
	}
}

inline announce() {
#ifdef MUTANT_UP_NOT_ANNOUNCED
	skip
#else
	if
	:: atomic { nfull(ring) -> ring!UP, pos, n }
	:: atomic { full(ring) -> lost = true }
	fi;
#endif
}

active proctype verdict()
{
	byte pos, n, next = 0;
	bool red, lan, daemon_took;

	do
	:: next == BYTES -> break
	:: next < BYTES ->
		if
		:: n = 1
		:: next + 2 <= BYTES -> n = 2
		fi;
#ifdef MUTANT_TWO_VARIABLES
		d_step { red = redirect; lan = lane }
		d_step { pos = position; position = position + n; next = next + n }
#else
		d_step { /* fetch_add */
			pos = position;
			red = redirect;
			lan = lane;
			position = position + n;
			next = next + n;
		}
#endif
		if
		:: red -> /* the program may go on, or hand up */
			if
			:: goto forward
			:: goto hand_up
			fi
		:: !red && lan -> goto by_lane
		:: !red && !lan -> /* PASS */
			walked = pos + n;
			deliver()
		fi;
		goto next_segment;

forward:
		running = true; /* a request starts an exchange */
		t_seq = t_seq + n;
#ifdef MUTANT_REDIRECTED_AFTER_WALKED
		walked = pos + n;
		redirected = redirected + n;
#else
		redirected = redirected + n;
		walked = pos + n;
#endif
		t_queue!pos, n; /* the program has returned before */
		goto next_segment;

hand_up:
		if
#if defined(MUTANT_LANE_SKIPPED)
		:: true ->
#elif defined(MUTANT_PASS_WHEN_DRAINED)
		:: s_taken == s_seq ->
#elif defined(MUTANT_PASS_WHEN_IDLE_AND_DRAINED)
		:: !running && s_taken == s_seq ->
#else
		:: !running && !s_target -> /* nothing is in S's queue, nothing can get there */
#endif
#ifndef MUTANT_LANE_END_NOT_RECORDED
			lane_end = pos;
#endif
			d_step { daemon_took = lane; redirect = false } /* fetch_and */
			announce();
			if
#ifdef MUTANT_TAKEOVER_IN_FLIGHT_IGNORED
			:: true ->
#else
			:: daemon_took -> goto by_lane
			:: !daemon_took ->
#endif
				walked = pos + n;
				deliver()
			fi;
			goto next_segment
#ifndef MUTANT_LANE_SKIPPED
		:: else ->
			lane = true; /* fetch_or */
			redirect = false; /* fetch_and */
			announce()
#endif
		fi;

by_lane:
		if
		:: atomic { nfull(ring) -> ring!LANE, pos, n }
			walked = pos + n
		:: atomic { full(ring) -> lost = true; resort = true }
#ifndef MUTANT_LANE_END_NOT_RECORDED
			lane_end = pos;
#endif
#ifndef MUTANT_RING_FULL_STAYS_IN_LANE
			lane = false; /* fetch_and */
#endif
			walked = pos + n;
			deliver()
		fi;

next_segment:
		skip
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
	:: sent < ANSWER && running ->
		d_step { pos = opp_position; red = opp_redirect; opp_position++; sent++ }
		if
		:: red && running ->
			d_step { s_seq++; s_target = true }
			if /* the answer may be complete with this segment, or go on */
			:: running = false
			:: skip
			fi;
			opp_walked = pos + 1;
			s_queue++ /* the program has returned before */
		:: else -> opp_walked = pos + 1 /* the daemon's matter */
		fi
	od
}

active proctype kworker_s()
{
end:	do
	:: s_queue > 0 ->
		s_taken++; /* sendmsg */
		s_queue-- /* skb_dequeue */
	od
}

active proctype daemon()
{
	byte consumed = 0, sent = 0; /* positions: recv()ed or from the ring; taken by T's TCP */
	byte seen, base, base_redirected, opp_seen;
	byte at, n;
	byte handovers = 0;
	bool ok;

relay:	/* PASS: recv() from S, send() to T, as much as T takes */
	do
	:: recvq?at, n ->
		assert(at == consumed);
		consumed = consumed + n
	:: sent < consumed ->
		d_step {
			assert(out == sent);
			out++;
			sent++
		}
	:: out == BYTES -> goto done
	:: handovers < HANDOVERS && sent == consumed ->
		handovers++;
		goto hand_over
	od;

hand_over: /* PASS -> REDIRECT, S's word first, then the opposite one */
	seen = position; /* the mode cannot change: only the daemon leaves PASS */
	do
	:: recvq?at, n ->
		assert(at == consumed);
		consumed = consumed + n
	:: empty(recvq) -> break
	od;
	if
#if defined(MUTANT_POSITION_NOT_COMPARED)
	:: sent == consumed -> skip
#elif defined(MUTANT_PARTIAL_SEND_IGNORED)
	:: consumed == seen -> skip
#else
	:: consumed == seen && sent == consumed -> skip
#endif
	:: else -> goto relay
	fi;
#ifndef MUTANT_OWN_QUEUE_IGNORED
	if /* it may hold data when the program left LANE */
	:: opp_walked >= opp_seen && s_taken == s_seq -> s_queue == 0 /* 20 ms */
	:: else -> goto relay
	fi;
#endif
	base = consumed;
#ifndef MUTANT_BASE_READ_LATE
	base_redirected = redirected;
#endif
	resort = false;
	s_target = false; /* seq_known = 0; nothing redirects into S now */
#if defined(MUTANT_PLAIN_STORE)
	d_step { position = seen; redirect = true; ok = true }
#elif defined(MUTANT_TWO_VARIABLES)
	ok = (position == seen);
	if
	:: ok -> redirect = true
	:: else
	fi;
#else
	d_step { /* compare-and-swap */
		ok = (position == seen);
		if
		:: ok -> redirect = true
		:: else
		fi
	}
#endif
	if
	:: ok -> skip
	:: else -> goto relay
	fi;
#ifdef MUTANT_BASE_READ_LATE
	base_redirected = redirected;
#endif
	opp_redirect = true;

	/* The kernel steers; nothing but the ring and the scan wakes the daemon. */
	if
	:: nempty(ring)
	:: lost && !redirect
	:: handovers < HANDOVERS -> handovers++ /* for reasons of its own */
	:: out == BYTES -> goto done
	fi;

	/* Takeover: the opposite word first, so that nothing more gets into S's queue. */
#ifndef MUTANT_OPPOSITE_KEEPS_REDIRECTING
	d_step { opp_redirect = false; opp_seen = opp_position }
#endif
#ifdef MUTANT_TAKEOVER_BY_STORE
	d_step { seen = position; ok = redirect }
	if
	:: ok -> d_step { position = seen; redirect = false; lane = true }
	:: else
	fi;
#else
	d_step { /* compare-and-swap until it succeeds */
		seen = position;
		if
		:: redirect -> redirect = false; lane = true
		:: else
		fi
	}
#endif
#if defined(MUTANT_WALKED_EQUAL)
	walked == seen;
#elif !defined(MUTANT_WALKED_NOT_AWAITED)
	walked >= seen;
#endif
	/* Where redirecting ended is counted, not told by an event: events get lost. */
	consumed = base + (redirected - base_redirected);
	sent = consumed;
#if defined(MUTANT_QUEUE_LOOKS_EMPTY)
	empty(t_queue);
#elif !defined(MUTANT_TARGET_NOT_DRAINED)
	t_taken == t_seq;
#endif

	/* LANE, or PASS already. recv() is watched too: the program may leave LANE unannounced. */
	do
	:: ring?UP, _, _
	:: ring?LANE, at, n ->
		assert(at == consumed);
		consumed = consumed + n
	:: sent < consumed ->
		d_step {
			assert(out == sent);
			out++;
			sent++
		}
#ifndef MUTANT_RECV_BEFORE_LANE_END
	:: !lane && consumed == lane_end && nempty(recvq) -> goto relay
#else
	:: !lane && nempty(recvq) -> goto relay
#endif
#ifdef MUTANT_OPPOSITE_NOT_AWAITED
	:: lane && consumed == position && s_taken == s_seq ->
#else
	:: lane && consumed == position && opp_walked >= opp_seen && s_taken == s_seq ->
#endif
#ifndef MUTANT_NO_GRACE
		s_queue == 0; /* 20 ms */
#endif
#ifdef MUTANT_LANE_LEFT_BY_STORE
		d_step { position = consumed; lane = false };
		goto relay
#else
		d_step { /* compare-and-swap */
			ok = (lane && consumed == position);
			if
			:: ok -> lane = false
			:: else
			fi
		}
		if
		:: ok -> goto relay
		:: else
		fi
#endif
	:: out == BYTES -> goto done
	od;
done:	skip
}
