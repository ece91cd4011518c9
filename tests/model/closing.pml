/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The close: source S (a server's socket) sends BYTES segments and FIN, target T leads to the
 * client. The client must never see a clean end after a truncated body.
 *
 * server    S's peer: data, then FIN or, at any time, RST. tcp_fin raises EPOLLRDHUP at once, the
 *           zero-length FIN skb waits in sk_receive_queue behind data that no verdict saw yet.
 * verdict   tcp_read_skb -> sk_psock_verdict_recv on S
 * kworker   sk_psock_backlog of T: takes a psock reference, sends, sk_psock_put; the last put runs
 *           sk_psock_drop, which restores sk_prot a moment later
 * tcp       T's TCP: unsent bytes go out
 * client    T's peer: takes bytes, sees FIN or RST, may reset or just stop taking
 * daemon    the owner of both sockets
 *
 * Abstracted: recv() moves one segment; the opposite direction carries nothing and ends with the
 * client's FIN; a TCP_INFO snapshot is one step; 20 ms outlast one run of the kworker (a wait for
 * its end); a deadline may pass at any time once the source has ended. LANE is in handover.pml.
 */
#ifndef BYTES
#define BYTES 3
#endif
mtype = { DATA, FIN };

chan rxq = [BYTES + 1] of { mtype }; /* sk_receive_queue of S */
chan recvq = [BYTES + 1] of { mtype }; /* ingress_msg of S */
byte position, walked, redirected;
bool redirect = true;
byte queue; /* ingress_skb of T: 1 per segment */
byte fin_queue; /* a FIN that was redirected */
byte unsent, sent; /* of T's TCP, tcpi_notsent_bytes and tcpi_bytes_sent */
byte got; /* by the client */
bool rdhup, s_reset, t_reset, t_error, fin_sent, client_fin, deadline;
bool fin_out, rst_out; /* what T told the client */
bool in_map = true, t_closed = false, s_closed = false;
byte refs = 1; /* of T's psock: the map's */
bool working = false;

inline psock_put() {
	d_step { refs--; last = (refs == 0) };
	if
	:: last ->
		queue = 0 /* sk_psock_stop; then sk_psock_restore_proto */
	:: else
	fi
}

active proctype server()
{
	byte n = 0;

	do
	:: n < BYTES && !s_closed -> rxq!DATA; n++
	:: n == BYTES && !s_closed -> atomic { rdhup = true; fin_sent = true; rxq!FIN }; break
	:: s_reset = true; break
	:: s_closed -> break
	od
}

active proctype verdict()
{
	mtype what;
	byte pos;
	bool red;

end:	do
	:: rxq?what ->
		d_step {
			red = redirect;
			pos = position;
			if
			:: what == DATA -> position++
			:: else
			fi
		}
		if
#ifdef MUTANT_FIN_REDIRECTED
		:: what == FIN && red -> fin_queue = 1
#else
		:: what == FIN && red -> recvq!FIN
#endif
		:: what == FIN && !red -> recvq!FIN
		:: what == DATA && red ->
			redirected++;
			walked = pos + 1;
			if
			:: in_map && !t_reset -> queue++
			:: else /* vanishes: sk_psock_skb_redirect drops it */
			fi
		:: what == DATA && !red ->
			walked = pos + 1;
			recvq!DATA
		fi
	od
}

active proctype kworker()
{
	bool last;

end:	do
	:: atomic { (queue > 0 || fin_queue > 0) && refs > 0 -> refs++; working = true }
		if
		:: atomic { queue > 0 && !t_reset && !fin_out && !t_error -> unsent++; queue-- }
		:: atomic { queue > 0 && (t_reset || fin_out || t_error) -> queue = 0 } /* EPIPE */
		:: atomic { queue == 0 && fin_queue > 0 -> t_error = true; fin_queue = 0 }
		:: atomic { queue == 0 && fin_queue == 0 -> skip }
		fi;
		psock_put();
		working = false
	od
}

active proctype tcp()
{
end:	do
	:: atomic { unsent > 0 && !rst_out -> unsent--; sent++ }
	od
}

active proctype client()
{
	do
	:: atomic { got < sent && !rst_out -> got++ }
	:: got == sent && unsent == 0 && fin_out && !rst_out ->
		assert(fin_sent && got == BYTES); /* a clean end means the whole body */
		client_fin = true;
		t_closed || rst_out;
		break
	:: rst_out -> break
	:: t_reset = true; break
	od;
	/* Without a reset or a deadline everything ends cleanly. */
	assert(s_reset || t_reset || deadline || (fin_out && got == BYTES))
}

active proctype daemon()
{
	byte seen, mine = 0, other;
	bool last, ended = false;

	if
	:: rdhup
	:: s_reset || t_reset || t_error -> goto abort
	fi;
#ifndef REDUNDANT_FLIP_SKIPPED
	d_step { redirect = false; seen = position };
	walked >= seen;
#endif
	do
#ifndef MUTANT_RECV_SKIPPED
	:: recvq?DATA ->
		/* Nothing overtakes what is queued. */
		if
		:: unsent + sent == redirected + mine -> unsent++; mine++
		:: deadline = true; goto abort
		:: s_reset || t_reset || t_error -> goto abort
		fi
	:: recvq?FIN -> break
#else
	:: break
#endif
	:: s_reset || t_reset || t_error -> goto abort
	:: deadline = true; goto abort
	od;
#if defined(MUTANT_SHUTDOWN_UNDRAINED)
	skip;
#elif defined(MUTANT_TWO_SNAPSHOTS)
	do
	:: other = unsent;
		if
		:: other + sent == position -> break
		:: else
		fi
	:: s_reset || t_reset || t_error -> goto abort
	:: deadline = true; goto abort
	od;
#else
	if
	:: unsent + sent == position
	:: s_reset || t_reset || t_error -> goto abort
	:: deadline = true; goto abort
	fi;
#endif
	fin_out = true; /* shutdown(SHUT_WR) */
	if
	:: client_fin && got == sent && unsent == 0
	:: t_reset || s_reset -> goto abort
	:: deadline = true; goto abort
	fi;
	ended = true;
abort:
#ifndef MUTANT_DELETE_AFTER_CLOSE
	in_map = false;
	psock_put();
#ifndef MUTANT_CLOSE_AT_ONCE
	!working; /* 20 ms */
#endif
#endif
	assert(!in_map && !working); /* else sock_map_destroy may recurse, and data is purged */
	if
	:: ended -> t_closed = true
#ifdef MUTANT_DEADLINE_ENDS_IN_FIN
	:: !ended -> fin_out = true; t_closed = true
#else
	:: !ended -> rst_out = true; t_closed = true /* SO_LINGER 1, 0 */
#endif
	fi;
	s_closed = true
}
