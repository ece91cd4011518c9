/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Real loopback pairs in the kernel's maps, and a program that writes events. */
#ifndef TESTS_KERN_SOCKETS_H
#define TESTS_KERN_SOCKETS_H

#include "kern_env.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

struct pair {
	int a, b;
};

static inline void pair_open(struct pair *p)
{
	struct sockaddr_in addr = {.sin_family = AF_INET};
	socklen_t len = sizeof(addr);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
	p->a = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(p->a, (struct sockaddr *)&addr, sizeof(addr)), 0);
	p->b = accept(listener, NULL, NULL);
	assert_true(p->b >= 0);
	close(listener);
}

static inline void pair_close(struct pair *p)
{
	close(p->a);
	/* Not at once behind the deletion from the map: a kernel bug (KERNEL.md). */
	usleep(20000);
	close(p->b);
}

static inline uint64_t cookie_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len);
	return cookie;
}

static inline int add(struct kern *k, int fd, uint32_t conn)
{
	struct kvpin_sock_key key = {.client = cookie_of(fd), .role = KVPIN_ROLE_CLIENT};
	struct kvpin_sock_ref ref = {.conn = conn};

	return kern_sock_add(k, fd, &key, key.client, &ref);
}

static inline void del(struct kern *k, int fd)
{
	struct kvpin_sock_key key = {.client = cookie_of(fd), .role = KVPIN_ROLE_CLIENT};

	kern_sock_del(k, &key, key.client);
}

static inline bool known(struct kern *k, int fd)
{
	struct kvpin_sock_ref ref;
	uint64_t cookie = cookie_of(fd);

	return !bpf_map_lookup_elem(k->cookies_fd, &cookie, &ref);
}

/* The whole text arrives, whichever way the kernel cuts it. */
static inline bool carries(int from, int to, const char *text)
{
	struct pollfd poll_fd = {.fd = to, .events = POLLIN};
	size_t len = strlen(text), got = 0;
	char buf[256];
	ssize_t n;

	if (write(from, text, len) != (ssize_t)len)
		return false;
	while (got < len) {
		if (poll(&poll_fd, 1, 2000) != 1)
			return false;
		n = recv(to, buf + got, sizeof(buf) - got, MSG_DONTWAIT);
		if (n <= 0)
			return false;
		got += n;
	}
	return got == len && !memcmp(buf, text, len);
}

#define INSN(op, dst, src, o, i)                                                                   \
	((struct bpf_insn){                                                                        \
		.code = (op), .dst_reg = (dst), .src_reg = (src), .off = (o), .imm = (i)})
#define PRODUCED_BYTES 256

/* A program that writes the first @bytes of an event (zeros behind it) into a ring, run once. */
static inline void produce(int ring_fd, const struct kvpin_event *e, uint32_t bytes)
{
	uint64_t word[PRODUCED_BYTES / 8] = {0};
	char packet[64] = {0};
	struct bpf_insn code[128];
	int nr = 0, fd;
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = packet, .data_size_in = sizeof(packet));

	memcpy(word, e, sizeof(*e));
	for (int i = 0; i < PRODUCED_BYTES / 8; i++) {
		code[nr++] = INSN(BPF_LD | BPF_DW | BPF_IMM, 1, 0, 0, (int32_t)word[i]);
		code[nr++] = INSN(0, 0, 0, 0, (int32_t)(word[i] >> 32));
		code[nr++] = INSN(BPF_STX | BPF_DW | BPF_MEM, 10, 1, i * 8 - PRODUCED_BYTES, 0);
	}
	code[nr++] = INSN(BPF_LD | BPF_DW | BPF_IMM, 1, BPF_PSEUDO_MAP_FD, 0, ring_fd);
	code[nr++] = INSN(0, 0, 0, 0, 0);
	code[nr++] = INSN(BPF_ALU64 | BPF_MOV | BPF_X, 2, 10, 0, 0);
	code[nr++] = INSN(BPF_ALU64 | BPF_ADD | BPF_K, 2, 0, 0, -PRODUCED_BYTES);
	code[nr++] = INSN(BPF_ALU64 | BPF_MOV | BPF_K, 3, 0, 0, (int32_t)bytes);
	code[nr++] = INSN(BPF_ALU64 | BPF_MOV | BPF_K, 4, 0, 0, 0);
	code[nr++] = INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_ringbuf_output);
	code[nr++] = INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0);
	code[nr++] = INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
	fd = bpf_prog_load(BPF_PROG_TYPE_SOCKET_FILTER, "produce", "GPL", code, nr, NULL);
	assert_true(fd >= 0);
	assert_int_equal(bpf_prog_test_run_opts(fd, &run), 0);
	close(fd);
}

#endif
