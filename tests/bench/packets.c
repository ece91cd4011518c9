/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the program of the splice path costs per packet, by BPF_PROG_TEST_RUN: no network, no other
 * process, no wait. The packet that comes out of one run is the one that goes into the next: the
 * two connections of the pair have the same addresses and ports here, and sequence numbers that
 * differ by one packet, so that each run forwards the next packet of an endless answer.
 *
 * A figure is the fastest of several series, so that it means something on a busy machine. Against
 * real traffic the packet's payload is at hand (it is linear) and all caches are warm.
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <netinet/if_ether.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kvpin_http_body.h"
#include "kvpin_splice_abi.h"
#include "splice.skel.h"

#define REPEAT	   20000
#define SERIES	   25
#define CHUNK	   "96\r\n"
#define CHUNK_SIZE 0x96
#define PACKET_MAX 512
#define SEQ	   1000000U
#define ACK	   2000000U
#define LOOPBACK   1
#define BUCKETS	   1024
#define WORDS_TS   8 /* of a TCP head with timestamps */

enum { CLIENT, SERVER, ENTRIES };

struct packet {
	uint8_t bytes[PACKET_MAX];
	uint32_t len, l4;
	bool v6;
};

static struct splice_bpf *skel;
static struct kvpin_splice_conn *conns;

static int quiet(enum libbpf_print_level level, const char *format, va_list args)
{
	return 0;
}

/* ---- packets ---- */

static uint32_t sum(const void *bytes, uint32_t len)
{
	const uint8_t *b = bytes;
	uint32_t s = 0;

	for (uint32_t i = 0; i < len; i++)
		s += i & 1 ? b[i] : b[i] << 8;
	return s;
}

static uint16_t fold(uint32_t s)
{
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return s;
}

/* What the TCP checksum adds up to; 0xffff when it is right. */
static uint16_t tcp_sum(const struct packet *p)
{
	uint32_t len = p->len - p->l4;

	return fold(sum(p->bytes + ETH_HLEN + (p->v6 ? 8 : 12), p->v6 ? 32 : 8) + IPPROTO_TCP +
		    len + sum(p->bytes + p->l4, len));
}

static void packet_make(struct packet *p, bool v6, uint16_t from, uint16_t to, const char *payload,
			uint32_t bytes, bool ts)
{
	uint32_t words = ts ? WORDS_TS : 5;
	struct tcphdr *t;
	uint32_t *options;

	memset(p, 0, sizeof(*p));
	p->v6 = v6;
	p->l4 = ETH_HLEN + (v6 ? sizeof(struct ip6_hdr) : sizeof(struct iphdr));
	p->len = p->l4 + words * 4 + bytes;
	((struct ethhdr *)p->bytes)->h_proto = htons(v6 ? ETH_P_IPV6 : ETH_P_IP);
	if (v6) {
		struct ip6_hdr *ip = (void *)(p->bytes + ETH_HLEN);

		ip->ip6_vfc = 0x60;
		ip->ip6_plen = htons(words * 4 + bytes);
		ip->ip6_nxt = IPPROTO_TCP;
		ip->ip6_src = ip->ip6_dst = in6addr_loopback;
	} else {
		struct iphdr *ip = (void *)(p->bytes + ETH_HLEN);

		ip->version = 4;
		ip->ihl = 5;
		ip->tot_len = htons(sizeof(*ip) + words * 4 + bytes);
		ip->protocol = IPPROTO_TCP;
		ip->saddr = ip->daddr = htonl(INADDR_LOOPBACK);
		ip->check = htons(~fold(sum(ip, sizeof(*ip))));
	}
	t = (void *)(p->bytes + p->l4);
	t->source = htons(from);
	t->dest = htons(to);
	t->seq = htonl(SEQ);
	t->ack_seq = htonl(ACK);
	t->doff = words;
	t->ack = 1;
	t->psh = bytes > 0;
	t->window = htons(512);
	options = (uint32_t *)(t + 1);
	if (ts) {
		options[0] = htonl(0x0101080a);
		options[1] = htonl(5000);
		options[2] = htonl(6000);
	}
	if (bytes)
		memcpy(p->bytes + p->l4 + words * 4, payload, bytes);
	t->check = htons(~tcp_sum(p));
}

/* ---- the pair ---- */

static struct kvpin_splice_bucket *buckets;
static const struct kvpin_splice_hash hash = {{0x9e3779b97f4a7c15, 0xc2b2ae3d27d4eb4f}};

/* @p belongs to @entry, in this direction. */
static void key_add(uint32_t entry, uint32_t direction, const struct packet *p)
{
	const struct tcphdr *t = (const void *)(p->bytes + p->l4);
	struct kvpin_splice_key key = {.from_port = t->source, .to_port = t->dest};
	struct kvpin_splice_conn *c = &conns[entry];
	bool in = direction == KVPIN_SPLICE_IN;
	uint64_t h;

	if (p->v6) {
		memcpy(key.from, p->bytes + ETH_HLEN + 8, 16);
		memcpy(key.to, p->bytes + ETH_HLEN + 24, 16);
	} else {
		memcpy(key.from, p->bytes + ETH_HLEN + 12, 4);
		memcpy(key.to, p->bytes + ETH_HLEN + 16, 4);
	}
	memcpy(c->local, in ? key.to : key.from, 16);
	memcpy(c->remote, in ? key.from : key.to, 16);
	c->local_port = in ? key.to_port : key.from_port;
	c->remote_port = in ? key.from_port : key.to_port;
	h = kvpin_splice_hash(&hash, &key);
	memset(buckets, 0, BUCKETS * sizeof(*buckets));
	memset(skel->bss->hints, 0, sizeof(skel->bss->hints));
	buckets[h & (BUCKETS - 1)].ref[0] = kvpin_splice_ref(h, entry);
}

/* What goes to this connection's peer has the packet's own addresses. */
static void conn_like(struct kvpin_splice_conn *c, const struct packet *p)
{
	const struct tcphdr *t = (const void *)(p->bytes + p->l4);

	c->ifindex = LOOPBACK;
	c->local_port = t->source;
	c->remote_port = t->dest;
	if (p->v6) {
		memcpy(c->local, p->bytes + ETH_HLEN + 8, 16);
		memcpy(c->remote, p->bytes + ETH_HLEN + 24, 16);
	} else {
		memcpy(c->local, p->bytes + ETH_HLEN + 12, 4);
		memcpy(c->remote, p->bytes + ETH_HLEN + 16, 4);
	}
}

#define EXTEND(seq) (1ULL << 32 | (seq))

static void pair_begin(void)
{
	struct kvpin_splice_conn *c = &conns[CLIENT], *s = &conns[SERVER];

	memset(conns, 0, ENTRIES * sizeof(*conns));
	c->role = KVPIN_SPLICE_CLIENT;
	s->role = KVPIN_SPLICE_SERVER;
	c->serial = s->serial = 1;
	c->peer = SERVER + 1;
	s->peer = CLIENT + 1;
	c->sent = c->acked = EXTEND(ACK);
	s->received = EXTEND(SEQ);
	s->sent = s->acked = EXTEND(ACK);
	s->request_end = ACK;
	c->ack_win = (uint64_t)ACK << 32 | 512;
	s->flags = KVPIN_SPLICE_STREAM | KVPIN_SPLICE_TOKEN;
}

static void pair_take(uint32_t framing)
{
	struct kvpin_splice_conn *s = &conns[SERVER];

	s->framing = framing;
	s->from = s->walked = EXTEND(SEQ);
	s->body.state = KVPIN_BS_SIZE;
	s->body.fresh = 0;
	s->word |= KVPIN_SPLICE_TAKEN;
}

/* ---- measuring ---- */

/* The fastest series; -1: the packet that came out is not what should. */
static int measure(const char *what, struct packet *p, uint32_t seq_step, uint32_t ack_step)
{
	struct packet out = *p;
	const struct tcphdr *t = (const void *)(out.bytes + out.l4);
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = p->bytes, .data_size_in = p->len,
		    .data_out = out.bytes, .repeat = REPEAT);
	uint32_t best = UINT32_MAX, seq, ack, runs = 0;
	int err;

	for (int i = 0; i < SERIES; i++) {
		opts.data_size_out = sizeof(out.bytes);
		err = bpf_prog_test_run_opts(bpf_program__fd(skel->progs.splice_packet), &opts);
		if (err) {
			fprintf(stderr, "packets: %s: test run: %s\n", what, strerror(-err));
			return -1;
		}
		runs += REPEAT;
		if (opts.duration < best)
			best = opts.duration;
		if (opts.data_size_out != p->len || (int)opts.retval != -1 ||
		    tcp_sum(&out) != 0xffff) {
			fprintf(stderr, "packets: %s: a wrong packet: verdict %d, checksum %04x\n",
				what, (int)opts.retval, tcp_sum(&out));
			return -1;
		}
		memcpy(p->bytes, out.bytes, p->len);
	}
	seq = ntohl(t->seq) - SEQ;
	ack = ntohl(t->ack_seq) - ACK;
	if (seq != seq_step * runs || ack != ack_step * runs) {
		fprintf(stderr, "packets: %s: a wrong number: %u, %u after %u runs\n", what, seq,
			ack, runs);
		return -1;
	}
	printf("  %-48s %5u ns\n", what, best);
	return 0;
}

static void answer_packet(struct packet *p, bool v6)
{
	char payload[sizeof(CHUNK) - 1 + CHUNK_SIZE + 2];

	memset(payload, 'x', sizeof(payload));
	memcpy(payload, CHUNK, sizeof(CHUNK) - 1);
	memcpy(payload + sizeof(payload) - 2, "\r\n", 2);
	packet_make(p, v6, 8000, 40000, payload, sizeof(payload), true);
}

static int answer(const char *what, bool v6, uint32_t framing)
{
	struct packet p;

	answer_packet(&p, v6);
	pair_begin();
	key_add(SERVER, KVPIN_SPLICE_IN, &p);
	conn_like(&conns[CLIENT], &p);
	pair_take(framing);
	conns[SERVER].to = EXTEND(SEQ) + sizeof(CHUNK) - 1 + CHUNK_SIZE + 2;
	if (framing == KVPIN_SPLICE_COUNTED)
		conns[SERVER].end = 1ULL << 62;
	return measure(what, &p, sizeof(CHUNK) - 1 + CHUNK_SIZE + 2, 0);
}

static int acks(const char *what, bool v6)
{
	struct packet p;

	packet_make(&p, v6, 8000, 40000, NULL, 0, true);
	pair_begin();
	key_add(CLIENT, KVPIN_SPLICE_IN, &p);
	conn_like(&conns[SERVER], &p);
	pair_take(KVPIN_SPLICE_CHUNKED);
	/* An ACK of what was not sent is nobody's. */
	conns[CLIENT].sent += 100ULL * REPEAT * SERIES;
	/* The daemon's own bytes were acknowledged before. */
	conns[SERVER].to = EXTEND(ACK);
	conns[SERVER].from = EXTEND(ACK) + 100;
	conns[SERVER].request_end = SEQ;
	return measure(what, &p, 0, 100);
}

/* Packets of a known connection of which nothing is taken. */
static int idle(const char *what, uint32_t entry, uint32_t direction, bool payload)
{
	struct packet p;

	if (payload)
		answer_packet(&p, false);
	else
		packet_make(&p, false, 8000, 40000, NULL, 0, true);
	pair_begin();
	conns[CLIENT].peer = conns[SERVER].peer = 0;
	key_add(entry, direction, &p);
	return measure(what, &p, 0, 0);
}

static int stranger(const char *what, uint16_t from)
{
	struct packet p;

	packet_make(&p, false, from, 40001, NULL, 0, true);
	return measure(what, &p, 0, 0);
}

static int begin(void)
{
	int err;

	libbpf_set_print(quiet);
	skel = splice_bpf__open();
	if (!skel)
		return -errno;
	bpf_map__set_max_entries(skel->maps.splice_conns, 1024);
	bpf_map__set_max_entries(skel->maps.splice_buckets, BUCKETS);
	memcpy((void *)skel->rodata->hash_times, &hash, sizeof(hash));
	*(uint32_t *)&skel->rodata->buckets_mask = BUCKETS - 1;
	for (int i = 0; i < KVPIN_HIST_BUCKETS - 1; i++)
		((uint64_t *)skel->rodata->gap_le_ns)[i] = 1000000ULL << i / 2;
	err = splice_bpf__load(skel);
	if (err)
		return err;
	conns = mmap(NULL, 1024 * sizeof(*conns), PROT_READ | PROT_WRITE, MAP_SHARED,
		     bpf_map__fd(skel->maps.splice_conns), 0);
	buckets = mmap(NULL, BUCKETS * sizeof(*buckets), PROT_READ | PROT_WRITE, MAP_SHARED,
		       bpf_map__fd(skel->maps.splice_buckets), 0);
	return conns == MAP_FAILED || buckets == MAP_FAILED ? -errno : 0;
}

int main(void)
{
	int err = begin();

	if (err) {
		printf("SKIP: cannot load the program: %s\n", strerror(-err));
		return 77;
	}
	printf("splice: the program at tc, ns per packet (fastest of %d series of %d)\n", SERIES,
	       REPEAT);
	err |= stranger("a packet of no known connection", 7999);
	err |= idle("known client: its ACK", CLIENT, KVPIN_SPLICE_IN, false);
	err |= idle("known client: to it", CLIENT, KVPIN_SPLICE_OUT, true);
	err |= idle("known server: its answer", SERVER, KVPIN_SPLICE_IN, true);
	err |= idle("known server: an ACK to it", SERVER, KVPIN_SPLICE_OUT, false);
	err |= answer("spliced: a token, chunked", false, KVPIN_SPLICE_CHUNKED);
	err |= answer("spliced: a token, chunked, IPv6", true, KVPIN_SPLICE_CHUNKED);
	err |= answer("spliced: bytes of a counted answer", false, KVPIN_SPLICE_COUNTED);
	err |= acks("spliced: the client's ACK", false);
	err |= acks("spliced: the client's ACK, IPv6", true);
	splice_bpf__destroy(skel);
	return err ? 1 : 0;
}
