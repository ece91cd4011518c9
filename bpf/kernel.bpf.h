/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The few kernel structures that the programs look into, by CO-RE: only names count, offsets are
 * the running kernel's.
 */
#ifndef KERNEL_BPF_H
#define KERNEL_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* include/net/tcp_states.h */
#define TCP_ESTABLISHED 1
#define TCP_CLOSE_WAIT	8

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* include/linux/tcp.h */
struct tcp_sock {
	__u32 write_seq;
	__u32 copied_seq;
};

/* include/net/sock.h */
struct sock {
	void *sk_user_data;
};

/* include/net/tcp.h: what the control block of a received segment is */
struct tcp_skb_cb {
	__u32 seq;
};

/* include/linux/skbuff.h */
struct sk_buff {
	char cb[48];
	__u8 ip_summed : 2;
};

struct sk_buff_head {
	__u32 qlen;
};

/* include/linux/skmsg.h */
struct sk_psock {
	struct sk_buff_head ingress_skb;
};

#pragma clang attribute pop

/* include/linux/skbuff.h; of ip_summed */
#define CHECKSUM_PARTIAL 3

/*
 * Kernels before 6.2 get an object that does not know these functions (splice_old.bpf.o, of the
 * same source). A weak symbol would not do: libbpf looks for one in the BTF of modules too, and to
 * list those takes CAP_SYS_ADMIN.
 */
#ifndef KERNEL_WITHOUT_CAST
/* kernel/bpf/helpers.c, since 6.2 */
extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym;
extern void *bpf_rdonly_cast(void *obj, __u32 btf_id) __ksym;

/* TCP sequence number of a received segment's first byte. */
static __always_inline __u32 segment_seq(struct __sk_buff *skb)
{
	struct sk_buff *kskb = bpf_cast_to_kern_ctx(skb);
	struct tcp_skb_cb *cb =
		bpf_rdonly_cast(&kskb->cb, bpf_core_type_id_kernel(struct tcp_skb_cb));

	return cb->seq;
}
#endif

/* Flag bits in sk_user_data (SK_USER_DATA_NOCOPY, _BPF, _PSOCK in include/net/sock.h). */
#define SK_USER_DATA_BITS 7UL

/*
 * Segments that wait in a socket's psock: redirected into it and not yet taken by its TCP, or
 * passed and not yet queued for reading (sk_psock_backlog() in net/core/skmsg.c empties it).
 */
static __always_inline __u32 psock_queue_len(struct tcp_sock *tp)
{
	struct sk_psock *psock;
	void *user_data = NULL;
	__u32 qlen = 0;

	bpf_core_read(&user_data, sizeof(user_data), &((struct sock *)tp)->sk_user_data);
	psock = (struct sk_psock *)((unsigned long)user_data & ~SK_USER_DATA_BITS);
	if (!psock || bpf_core_read(&qlen, sizeof(qlen), &psock->ingress_skb.qlen))
		return 0;
	return qlen;
}

#endif
