/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A file of its own because libc's struct tcp_info lacks the newer fields, and its header excludes
 * the kernel's. */
#include "net/tcp_probe.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* include/net/tcp_states.h */
#define STATE_ESTABLISHED 1
#define STATE_CLOSE	  7
/* Between two looks at a socket an ACK comes now and then. */
#define TAKEN_TRIES 16

bool tcp_probe(int fd, struct tcp_probe *p)
{
	struct tcp_info t;
	socklen_t len = sizeof(t);

	memset(&t, 0, sizeof(t));
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &t, &len))
		return false;
	p->state = TCP_PROBE_CLOSING;
	if (t.tcpi_state == STATE_ESTABLISHED)
		p->state = TCP_PROBE_ESTABLISHED;
	else if (t.tcpi_state == STATE_CLOSE)
		p->state = TCP_PROBE_CLOSED;
	p->received = t.tcpi_bytes_received;
	p->acked = t.tcpi_bytes_acked;
	p->unsent = t.tcpi_notsent_bytes;
	p->unacked = t.tcpi_unacked;
	p->window = t.tcpi_snd_wnd;
	p->send_mss = t.tcpi_snd_mss;
	p->told_mss = t.tcpi_advmss;
	p->send_wscale = t.tcpi_options & TCPI_OPT_WSCALE ? t.tcpi_snd_wscale : 0;
	p->receive_wscale = t.tcpi_options & TCPI_OPT_WSCALE ? t.tcpi_rcv_wscale : 0;
	p->timestamps = t.tcpi_options & TCPI_OPT_TIMESTAMPS;
	p->sack = t.tcpi_options & TCPI_OPT_SACK;
	p->ecn = t.tcpi_options & TCPI_OPT_ECN;
	return true;
}

bool tcp_taken(int fd, struct tcp_probe *p, uint64_t *taken)
{
	for (int i = 0; i < TAKEN_TRIES; i++) {
		uint64_t acked = *taken = p->acked;
		int waits = 0;

		if (!p->unacked && !p->unsent)
			return true;
		if (ioctl(fd, SIOCOUTQ, &waits))
			return false;
		*taken += waits;
		if (!tcp_probe(fd, p))
			return false;
		if (p->acked == acked)
			return true;
	}
	return false;
}
