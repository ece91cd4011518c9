/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The life of a server's entry: it goes to another connection while a verdict that has found it
 * may be held up for as long as it likes. None must write into it then.
 *
 * client    request_steer() on the client's socket, which stays: finds the entry by
 *           conns[].upstream, aims by the map of sockets, and then writes into the entry
 * server    answer_steer() on the server's socket: runs only while that is in the map
 * daemon    upstream_close(), 20 ms later grave_open(); the next owner's memset()
 *
 * A verdict runs under its socket's lock (tcp_read_skb()), the daemon takes it by shutdown() or
 * connect() (sock_end()), and by TCP_INFO (verdict_wait()). The 20 ms are not there: they bound
 * nothing.
 */
#define SEGMENTS 2

bool client_lock, server_lock;
bool found = true; /* conns[].upstream names the entry */
bool in_map = true;
byte owner = 1; /* of the entry */
bool running, lost, reclaimed;

inline lock(l) { atomic { !l -> l = true } }

inline unlock(l) { l = false }

active proctype client()
{
	byte n = 0;

	do
	:: n < SEGMENTS ->
		n++;
		lock(client_lock);
		if
		:: found && !running ->
			/* request_aim() */
			if
			:: in_map ->
				assert(owner == 1);
				running = true
			:: !in_map -> skip
			fi
		:: else
		fi;
		unlock(client_lock)
	:: n == SEGMENTS -> break
	od
}

active proctype server()
{
	byte n = 0;
	bool verdict;

	do
	:: n < SEGMENTS ->
		n++;
		lock(server_lock);
		/* sk_data_ready, as it is when the segment comes */
		verdict = in_map;
		if
		:: verdict -> assert(owner == 1)
		:: else
		fi;
		unlock(server_lock)
	:: n == SEGMENTS -> break
	od
}

active proctype daemon()
{
#ifdef MUTANT_CLIENT_WAITED_FOR_TOO_EARLY
	lock(client_lock);
	unlock(client_lock);
#endif
	found = false;
#ifdef MUTANT_ENDED_BEFORE_LEAVING
	lock(server_lock);
	unlock(server_lock);
	in_map = false;
#else
	in_map = false;
#ifndef MUTANT_SERVER_NOT_WAITED_FOR
	lock(server_lock);
	unlock(server_lock);
#endif
#endif
#if !defined(MUTANT_CLIENT_NOT_WAITED_FOR) && !defined(MUTANT_CLIENT_WAITED_FOR_TOO_EARLY)
	lock(client_lock);
	unlock(client_lock);
#endif
	/* The request that went there is taken back, and sent again. */
	reclaimed = running;
	owner = 2;
	/* The client hears of it now or never. */
	client_lock == false;
	lost = running && !reclaimed;
	assert(!lost)
}
