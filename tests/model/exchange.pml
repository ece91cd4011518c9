/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The exchange's accounting: backend.inflight, conn.running, conn.hold. The request verdict counts
 * up and takes a hold, the answer verdict or the daemon gives both back, each exactly once.
 *
 * request   the program on the client's socket (softirq, one runner: sk_psock_verdict_recv)
 * answer    the program on the upstream's socket, on another CPU
 * daemon    closes or takes over at any time
 *
 * Abstracted: a word is its REDIRECT bit, and a position that counts segments; an answer is one
 * or two segments; a queue map of free holds is the array taken[]. Sequentially consistent.
 */
#define EXCHANGES 3
#define HOLDS	  1

bool c_redirect = true, u_redirect = true; /* the two hand-over words */
byte c_position, c_walked, u_position, u_walked;
byte running, hold; /* struct kvpin_conn; hold: 1 + index */
short inflight = 0;
bool taken[HOLDS] = false;
byte due; /* requests at the server whose answer has not begun */
byte answered; /* first segments redirected to the client */
byte requests; /* redirected to the server */
bool over = false;

inline put(h) {
	d_step {
		assert(taken[h - 1]); /* freed exactly once */
		taken[h - 1] = false
	}
}

/* xchg: what was there, and 0 instead. */
inline take(what, var) {
#ifdef MUTANT_READ_AND_STORE
	what = var;
	var = 0
#else
	d_step { what = var; var = 0 }
#endif
}

active proctype request()
{
	byte h, i, pos;
	bool red;

	for (i : 1 .. EXCHANGES) {
		if /* the client asks when the answer is there, or never again */
		:: due == 0 && running == 0
		:: over -> break
		fi;
		d_step { red = c_redirect; pos = c_position; c_position++ };
		h = 0;
		if
		:: red && running == 0 ->
			if
			:: atomic { !taken[0] -> taken[0] = true; h = 1 }
			:: taken[0] -> skip /* no_hold: handed up */
			fi
		:: else
		fi;
		if
		:: h > 0 ->
			assert(hold == 0); /* or an index would be lost */
			hold = h;
			inflight++;
			running = 1;
			requests++;
			c_walked = pos + 1;
			due++ /* sk_psock_skb_redirect */
		:: else ->
			c_walked = pos + 1
		fi
	}
}

active proctype answer()
{
	byte h, r, pos;
	bool red, whole;

end:	do
	:: due > 0 ->
		if
		:: whole = true
		:: whole = false
		fi;
		d_step { red = u_redirect; pos = u_position; u_position++ };
		if
		:: red ->
			take(h, hold);
			if
			:: h > 0 -> put(h)
			:: else
			fi;
			if
#ifdef MUTANT_TAKEN_HOLD_IGNORED
			:: true -> answered++
#else
			:: h > 0 -> answered++
			:: else -> whole = false /* the daemon has it: handed up */
#endif
			fi
		:: else -> whole = false
		fi;
		if
		:: whole ->
			take(r, running);
			if
			:: r > 0 -> inflight--
			:: else
			fi
		:: else
		fi;
		u_walked = pos + 1;
		due--;
		if /* the last segment */
		:: red && !whole ->
			d_step { red = u_redirect; pos = u_position; u_position++ };
			if
			:: red ->
				take(r, running);
				if
				:: r > 0 -> inflight--
				:: else
				fi
			:: else
			fi;
			u_walked = pos + 1
		:: else
		fi
	od
}

active proctype daemon()
{
	byte h, r;

	/* Whenever the scheduler likes. */
	u_redirect = false;
	c_redirect = false;
#ifndef MUTANT_WALKED_NOT_AWAITED
	c_walked >= c_position; /* a request verdict may be about to set both */
#endif
	take(r, running);
	take(h, hold);
	if
	:: r > 0 -> inflight--
	:: else
	fi;
	if
	:: h > 0 ->
		put(h);
		/* No byte of its answer is out or can get out: it may be sent again at once. */
		assert(answered == requests - 1);
		answered++ /* by the other server */
	:: else
	fi;
	assert(answered <= requests);
	over = true;
	timeout;
	assert(inflight == 0 && hold == 0 && running == 0 && !taken[0]);
	assert(answered <= requests)
}
