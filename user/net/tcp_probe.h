/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the kernel's TCP knows of a socket (TCP_INFO). */
#ifndef NET_TCP_PROBE_H
#define NET_TCP_PROBE_H

#include <stdbool.h>
#include <stdint.h>

enum tcp_probe_state { TCP_PROBE_ESTABLISHED, TCP_PROBE_CLOSING, TCP_PROBE_CLOSED };

/* One snapshot, taken under the socket's lock (tcp_get_info()). */
struct tcp_probe {
	enum tcp_probe_state state;
	uint64_t received; /* bytes that arrived in order, read or not */
	uint32_t unsent;   /* bytes taken for sending and not yet sent */
	uint64_t acked;	   /* bytes acknowledged; a connect()ing socket counts its SYN */
	uint32_t unacked;  /* segments sent and not yet acknowledged */
	uint32_t window;   /* bytes behind `acked` that the peer has room for */
	uint32_t send_mss; /* bytes that a segment to the peer can have */
	uint32_t told_mss; /* ... that the peer was told for the other way, options included */
	uint8_t send_wscale, receive_wscale; /* shifts of the window fields */
	bool timestamps, sack, ecn;	     /* agreed on */
};

/** tcp_probe() - ask; @fd: TCP socket; false when it cannot be asked */
bool tcp_probe(int fd, struct tcp_probe *p);

/**
 * tcp_taken() - bytes taken for sending since the connection's beginning, sent or not
 * @fd: TCP socket, for which no FIN was sent
 * @p: what tcp_probe() has just told of it; told anew when that has changed
 * @taken: set; a connect()ing socket counts its SYN
 *
 * What was acknowledged and what waits for it, because TCP's counts of what it sent are no measure:
 * a segment that the host's own queue or filter drops is counted again each time that it is tried
 * (__tcp_transmit_skb()), a retransmission also when it could not be copied
 * (__tcp_retransmit_skb()).
 *
 * Returns false when ACKs kept coming: *taken may then be too low, never too high.
 */
bool tcp_taken(int fd, struct tcp_probe *p, uint64_t *taken);

#endif
