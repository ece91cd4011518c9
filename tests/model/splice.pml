/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Taking an answer past the daemon and giving it back: one client, one server, two answers over the
 * same two connections. Bytes are numbers; the client must get each at its place, once.
 *
 * Process    stands for
 * server     sends each answer when it was asked for, and again what nobody has acknowledged
 * cpu        server_in() (bpf/), on two CPUs: packets overtake each other, and one may
 *            stand still between any two steps for as long as the next answer takes
 * ack        client_in() with a bare ACK, on two CPUs
 * daemon     reads its socket, relays, takes, and goes on when the pair is back
 *
 * The taking may find bytes that the daemon has read and given to its socket, and that TCP has not
 * yet sent (`queued`): they are the client socket's, in front of `to`, and go out behind the taking,
 * among packets that go past. The daemon may die behind it: its sockets send what they have, and the
 * answer comes whole. (MUTANT_KEPT_BY_DAEMON: taken with those bytes in its memory.)
 * That a server which never pauses is made to, by being told of no room, is not modelled: it takes
 * runs away and adds none, and the taking is the same.
 *
 * The relay has put HEAD bytes more into the client's stream (an edited head), so that the two
 * sequence spaces differ and a wrong offset shows.
 *
 * Abstracted: sequence numbers do not wrap; the socket keeps nothing that is out of order (the
 * server sends it again); what the relay sends to the client arrives. Memory is sequentially
 * consistent. REPEATS bounds what the server sends again, so every run ends.
 */
#ifndef FIRST
#define FIRST 2 /* bytes of the first answer */
#endif
#ifndef SECOND
#define SECOND 1 /* ... and of the second */
#endif
#ifndef REPEATS
#define REPEATS 1
#endif
#define BYTES (FIRST + SECOND)
#define ASKED (asked == 0 -> 0 : (asked == 1 -> FIRST : BYTES))
#define HEAD  1

/* The word of the server's entry. */
bool taken = false, giving = false;
byte count, turn;

/* What the program keeps. */
byte received, acked;
byte c_off, u_off, c_off_taken, u_off_taken, from, to, end;

/* TCP. */
byte asked;	       /* answers that the server was asked for */
byte sent;	       /* bytes that the server has sent at least once */
byte told_server;      /* what the server saw acknowledged */
bool wire[BYTES];      /* packets between server and program */
byte repeats;
byte sock_next, sock_read; /* local numbers: in the daemon's socket; read from it */
byte sock[BYTES];	   /* what its bytes are */
byte c_local;		   /* local: what the daemon sent to the client */
byte client_next;	   /* what the client has, in its numbers */
byte backs;		   /* events */
bool over = false;

inline raise(mark, value) {
	atomic {
		if
		:: value > mark -> mark = value
		:: else
		fi
	}
}

/* Packet at the client: what is not the next one it keeps or has already; either way it is sent
 * again if need be. */
inline client_gets(pos, byte_nr) {
	atomic {
		if
		:: pos == client_next ->
			assert(pos == byte_nr + HEAD);
			client_next++
		:: else
		fi
	}
}

active proctype server()
{
	byte again;

	do
	:: atomic { sent < ASKED -> wire[sent] = true; sent++ }
	:: atomic {
		repeats < REPEATS && told_server < sent && !wire[told_server] ->
		again = told_server;
		wire[again] = true;
		repeats++
	}
	/* TCP never gives up: what is still missing at the very end is sent again for nothing. */
	:: atomic {
		repeats == REPEATS && told_server < sent && timeout ->
		wire[told_server] = true
	}
	:: over -> break
	od
}

active [2] proctype cpu()
{
	byte nr, off, at, my_turn;
	bool past, drop;

	do
	:: atomic {
		/* Any of those that are under way. */
		if
		:: wire[0] -> nr = 0
		:: wire[1] -> nr = 1
		:: wire[2] -> nr = 2
		:: over -> break
		fi;
		wire[nr] = false
	}
#ifndef MUTANT_MARK_BEHIND_COUNT
	raise(received, nr + 1);
#endif
	d_step { past = taken && !giving; drop = taken && giving; my_turn = turn; count++ }
#ifdef MUTANT_MARK_BEHIND_COUNT
	raise(received, nr + 1);
#endif
	if
	:: past ->
		/* The walker: a byte from before `walked`, or of another turn, changes nothing. */
		atomic {
			if
			:: nr + 1 == ASKED && end == 0 && nr >= from ->
				end = to + (nr + 1 - from)
			:: else
			fi
		};
		/* Numbers before `from` wrap: they are old ones at the client too. */
		at = to;
		at = at + nr - from;
		if
#ifndef MUTANT_NO_TURN
		:: !taken || turn != my_turn
#endif
#ifndef MUTANT_REPEATED_OVERTAKES
		/* The client has not yet all that its socket here sends. */
		:: acked < to && nr < from
#endif
		:: else -> client_gets(at, nr)
		fi
	:: drop
	:: else ->
		off = u_off;
		atomic {
			if
			:: nr >= off && nr - off == sock_next ->
				sock[sock_next] = nr;
				sock_next++;
				told_server = nr + 1
			:: else
			fi
		}
	fi;
	d_step { nr = 0; off = 0; at = 0; my_turn = 0; past = false; drop = false }
	od
}

active [2] proctype ack()
{
	byte value, was_end, my_turn, told;
	bool past, won;

	do
	:: atomic { client_next > acked -> value = client_next }
		raise(acked, value);
		d_step { past = taken && !giving; my_turn = turn };
		if
		:: past ->
			was_end = end;
			if
			:: was_end != 0 && acked >= was_end ->
				d_step {
#ifdef MUTANT_NOT_EXCLUSIVE
					won = true;
#elif defined(MUTANT_NO_TURN)
					won = taken && !giving;
#else
					won = taken && !giving && turn == my_turn;
#endif
					giving = giving || won
				};
#ifdef MUTANT_OFF_BEHIND_CLEAR
				if
				:: won -> d_step { taken = false; giving = false }
				:: else
				fi;
#endif
				if
				:: won ->
					u_off = u_off_taken + (end - to);
					c_off = c_off_taken + (end - to)
				:: else
				fi
			:: else
			fi;
			/* On to the server, but not by who came too late. */
			told = from;
			told = told + (value - to);
			atomic {
				if
				:: value > to && told > told_server && taken && turn == my_turn ->
					told_server = told
				:: else
				fi
			};
			if
			:: won ->
				d_step { taken = false; giving = false };
				backs++
			:: else
			fi
		:: else
		fi;
		d_step { value = 0; was_end = 0; my_turn = 0; told = 0; past = false; won = false }
	:: over -> break
	od
}

inline relay() {
	byte_nr = sock[sock_read - queued];
	queued--;
	/* TCP brings it there behind all before it; at a place that the client has already it would
	 * be lost. */
	client_next >= c_local + c_off;
	assert(client_next == c_local + c_off);
	client_gets(c_local + c_off, byte_nr);
	c_local++
}

active proctype daemon()
{
	byte answer, byte_nr, seen_count, mark, backs_seen, queued;
	bool seen_taken;

	do
	:: answer < 2 ->
		asked++;
		if
		:: c_local == 0 ->
			/* The head that the relay made longer. */
			atomic { c_local = HEAD; client_next = HEAD }
		:: else
		fi;
		do
		:: sock_next > sock_read -> sock_read++; queued++
		:: queued > 0 -> relay()
		:: sock_read + u_off == ASKED && queued == 0 -> break
		:: sock_read + u_off < ASKED && sock_next == sock_read ->
			/* A quiet moment, perhaps. */
			atomic { seen_count = count; seen_taken = taken };
#ifdef MUTANT_MARK_BEFORE_WORD
			mark = received;
			atomic { seen_count = count; seen_taken = taken };
#else
			mark = received;
#endif
			if
			:: mark == sock_read + u_off ->
#ifdef MUTANT_MARK_TWICE
				from = received;
#else
				from = mark;
#endif
#ifdef MUTANT_QUEUED_FORGOTTEN
				to = c_local + c_off;
#else
				to = c_local + c_off + queued;
#endif
				u_off_taken = u_off;
				c_off_taken = c_off;
				if
				:: end = to + (ASKED - from) /* Content-Length */
				:: end = 0			      /* chunks */
				fi;
				atomic {
					if
#ifdef MUTANT_NO_COUNT
					:: !taken && !giving -> taken = true; turn++
#else
					:: count == seen_count && !taken && !giving -> taken = true; turn++
#endif
					:: else -> mark = 255
					fi
				};
				if
				:: mark == 255
				:: else ->
					if
					:: answer == 0 ->
						/* Killed. */
#ifdef MUTANT_KEPT_BY_DAEMON
						queued = 0;
#endif
						do
						:: queued > 0 -> relay()
						:: else -> break
						od;
						assert(c_local + c_off_taken == to);
						client_next == ASKED + HEAD;
						goto gone
					:: true
					fi;
					do
					:: queued > 0 -> relay()
					:: else -> break
					od;
					backs > backs_seen;
					backs_seen++;
					break
				fi
			:: else
			fi;
			mark = 0; seen_count = 0
		od;
		byte_nr = 0; mark = 0; seen_count = 0;
		/* The client has the answer whole before it asks again. */
		client_next == ASKED + HEAD;
		answer++
	:: else -> break
	od;
	assert(client_next == BYTES + HEAD);
	assert(sock_read + u_off == BYTES);
	assert(c_local + c_off == BYTES + HEAD);
gone:
	over = true
}
