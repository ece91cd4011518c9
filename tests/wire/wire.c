/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * kvpin-wire DEV DEV DROP DUP REORDER SEED: a wire between two devices that loses, doubles and
 * delays TCP packets, in percent. For kernels without netem.
 *
 * Happy path: frames of one device are sent out of the other; a delayed one waits in a list until
 * its time has come. Frames longer than an Ethernet frame are counted and lost: the devices must
 * have their offloads turned off. SIGTERM prints the counts and ends it.
 */
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FRAME_MAX      1514
#define BATCH	       64
#define DELAYED_MAX    4096
#define DELAY_MIN_NS   500000
#define DELAY_RANGE_NS 2000000
#define BUFFER_BYTES   (8 << 20)

struct frame {
	uint64_t due_ns;
	int to, len;
	uint8_t bytes[FRAME_MAX];
};

static struct frame delayed[DELAYED_MAX];
static unsigned int nr_delayed;
static int fd[2];
static double drop, twice, reorder;
static uint64_t seed;
static unsigned long passed, dropped, doubled, late, long_ones;
static volatile sig_atomic_t ended;

static void on_term(int sig)
{
	ended = 1;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* xorshift64: the same losses for the same seed. */
static uint64_t draw(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static bool happens(double percent)
{
	return (draw() >> 11) * (100.0 / (1ULL << 53)) < percent;
}

static int device_open(const char *name)
{
	struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
	struct packet_mreq all = {.mr_type = PACKET_MR_PROMISC};
	int s = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(ETH_P_ALL));
	int on = 1, bytes = BUFFER_BYTES;

	all.mr_ifindex = at.sll_ifindex = (int)if_nametoindex(name);
	if (s < 0 || !at.sll_ifindex || bind(s, (struct sockaddr *)&at, sizeof(at)) ||
	    setsockopt(s, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof(all)) ||
	    setsockopt(s, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on))) {
		perror(name);
		exit(1);
	}
	setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
	return s;
}

static bool is_tcp(const uint8_t *frame, int len)
{
	if (len < 54)
		return false;
	if (frame[12] == 0x08 && frame[13] == 0x00)
		return frame[23] == IPPROTO_TCP;
	return frame[12] == 0x86 && frame[13] == 0xdd && frame[20] == IPPROTO_TCP;
}

static void pass(int to, const uint8_t *bytes, int len)
{
	passed++;
	if (send(fd[to], bytes, len, 0) < 0)
		dropped++;
}

static void frame_in(int from)
{
	uint8_t bytes[FRAME_MAX + 1];
	int len = (int)recv(fd[from], bytes, sizeof(bytes), MSG_TRUNC), copies = 1;

	if (len < 0)
		return;
	if (len > FRAME_MAX) {
		long_ones++;
		return;
	}
	if (is_tcp(bytes, len)) {
		if (happens(drop)) {
			dropped++;
			return;
		}
		if (happens(twice)) {
			doubled++;
			copies = 2;
		}
		if (happens(reorder) && nr_delayed < DELAYED_MAX) {
			struct frame *f = &delayed[nr_delayed++];

			late++;
			copies--;
			f->due_ns = now_ns() + DELAY_MIN_NS + draw() % DELAY_RANGE_NS;
			f->to = !from;
			f->len = len;
			memcpy(f->bytes, bytes, len);
		}
	}
	while (copies--)
		pass(!from, bytes, len);
}

/* Sends what is due; returns the milliseconds until something is, or -1. */
static int delayed_out(void)
{
	uint64_t now = now_ns();

	for (unsigned int i = 0; i < nr_delayed;) {
		if (delayed[i].due_ns > now) {
			i++;
			continue;
		}
		pass(delayed[i].to, delayed[i].bytes, delayed[i].len);
		delayed[i] = delayed[--nr_delayed];
	}
	return nr_delayed ? 1 : -1;
}

int main(int argc, char **argv)
{
	struct sigaction term = {.sa_handler = on_term};

	if (argc != 7) {
		fprintf(stderr, "kvpin-wire DEV DEV DROP%% DUP%% REORDER%% SEED\n");
		return 2;
	}
	drop = atof(argv[3]);
	twice = atof(argv[4]);
	reorder = atof(argv[5]);
	seed = strtoull(argv[6], NULL, 10) * 2 + 1;
	for (int i = 0; i < 2; i++)
		fd[i] = device_open(argv[1 + i]);
	sigaction(SIGTERM, &term, NULL);
	printf("ready\n");
	fflush(stdout);
	while (!ended) {
		struct pollfd p[2] = {{.fd = fd[0], .events = POLLIN},
				      {.fd = fd[1], .events = POLLIN}};

		if (poll(p, 2, delayed_out()) <= 0)
			continue;
		for (int i = 0; i < 2; i++)
			for (int n = 0; p[i].revents && n < BATCH; n++)
				frame_in(i);
	}
	printf("passed %lu dropped %lu doubled %lu late %lu long %lu\n", passed, dropped, doubled,
	       late, long_ones);
	return 0;
}
