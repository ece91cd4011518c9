/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * An early answer: the server has not taken its request, whose rest is stuck in the queue of the
 * socket U towards it, and sends BYTES segments. U is taken out of the verdict's map while the
 * verdict may run; the daemon must get the segments in order, and recv() must never meet TCP's
 * receive queue while a passed segment is stuck behind the request.
 *
 * verdict   tcp_read_skb -> lane() on U, as long as U is in the map of the verdict; then TCP keeps
 *           what comes (sk_receive_queue)
 * daemon    upstream_drain() and steer_recv()
 *
 * U is in LANE from the start; its queue never drains, so PASS is only the last resort of a full
 * ring, of which it happens LOSSES times.
 */
#define BYTES 4
#define LOSSES 1

chan ring = [BYTES] of { byte };
chan tcpq = [BYTES] of { byte }; /* sk_receive_queue */
byte stuck; /* passed: in ingress_skb behind the request */
bool in_map = true, lane = true;
bool locked = false; /* U's socket lock */
bool draining = false, overrun = false;

active proctype verdict()
{
	byte n = 0, losses = LOSSES;
	bool lan, runs;

	do
	:: n < BYTES ->
		atomic { !locked -> locked = true }
		runs = in_map; /* sk_data_ready, when the segment comes */
		if
		:: runs ->
			lan = lane; /* fetch_add */
			if
			:: lan ->
				if
				:: ring!n
				:: losses > 0 ->
					losses--;
					lane = false; /* fetch_and */
					stuck++
				fi
			:: else -> stuck++
			fi
		:: else -> tcpq!n
		fi;
		n++;
		locked = false
	:: n == BYTES -> break
	od
}

active proctype daemon()
{
	byte next = 0, at;

#ifndef MUTANT_LANE_NOT_LOOKED_AT
	if
	:: lane
	:: !lane -> goto waits /* for the queue to drain, as before */
	fi;
#endif
	in_map = false;
#ifndef MUTANT_VERDICT_NOT_AWAITED
	atomic { !locked -> locked = true }
	locked = false;
#endif
	d_step { overrun = !lane; lane = false } /* fetch_and */
#ifdef MUTANT_LANE_NOT_LOOKED_AT
	overrun = false;
#endif
	if
	:: overrun -> goto waits /* reset */
	:: else
	fi;
	draining = true;
	do
	:: next < BYTES ->
#ifdef MUTANT_RING_NOT_FIRST
		if
		:: ring?at
		:: tcpq?at
		fi;
#else
		if
		:: ring?at
		:: empty(ring) && nempty(tcpq) -> tcpq?at
		fi;
#endif
		assert(stuck == 0);
		assert(at == next);
		next++
	:: next == BYTES -> break
	od;
waits:	skip
}
