/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Checks of how bytes move: redirected, passed, copied and dropped, and from one to the other while
 * they come. All bytes are compared with what was sent, at their position.
 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <bpf/libbpf.h>
#include <linux/sockios.h>
#include <linux/tcp.h>

#include "kern/selftest_private.h"
#include "selftest.skel.h"

#define REDIRECT_BYTES 524288
#define SLOW_BYTES     (8 << 20)
#define SMALL_BYTES    1000
#define COPY_BYTES     (1 << 20)
/* Far less than COPY_BYTES, so that the window must reopen. */
#define COPY_RCVBUF 65536
/* Enough to meet every interleaving of sender, verdict and hand-over many times. */
#define HAND_OVERS     2000
#define HAND_OVERS_MIN 50
#define HAND_OVER_MS   250
#define PASS_EVERY     3
/* What may be sent from one hand-over to the next before bytes are redirected again: in a flood no
 * moment would be quiet enough to hand over, which is as it should be, but no test. */
#define HAND_OVER_AHEAD 6000
/* Kept for what is still under way. */
#define HAND_OVER_TAIL_NS 300000000ULL

void selftest_redirect(struct selftest_bench *b, struct selftest *t)
{
	uint64_t sent = 0, got = 0;
	struct selftest_link from, to;

	if (!link_steer(b, &from, &to, 0, SELFTEST_WORD_REDIRECT, t))
		return;
	while (sent < REDIRECT_BYTES) {
		/* Odd sizes: segments do not fall on page borders. */
		if (pattern_send(from.far, &sent,
				 sent % 7919 + 1 > REDIRECT_BYTES - sent ? REDIRECT_BYTES - sent
									 : sent % 7919 + 1) < 0)
			break;
		if (pattern_recv(to.far, &got) == -EBADMSG || selftest_now_ns() > b->end_ns)
			break;
	}
	if (!pattern_expect(b, to.far, &got, REDIRECT_BYTES, "redirect", t) || bench_faults(b, t))
		return;
	selftest_ok(t, "%d KiB in %u segments, whole and in order", REDIRECT_BYTES / 1024,
		    b->skel->bss->runs);
}

/* The target's reader stands still until the source has taken everything. */
void selftest_slow_target(struct selftest_bench *b, struct selftest *t)
{
	uint64_t sent = 0, got = 0;
	struct selftest_link from, to;
	ssize_t n = 0;

	if (!link_steer(b, &from, &to, 0, SELFTEST_WORD_REDIRECT, t))
		return;
	while (__atomic_load_n(&b->skel->bss->redirected, __ATOMIC_RELAXED) < SLOW_BYTES) {
		n = pattern_send(from.far, &sent, SLOW_BYTES - sent);
		if (n < 0 || (!n && !bench_more_time(b)))
			break;
	}
	if (bench_faults(b, t))
		return;
	if (b->skel->bss->redirected < SLOW_BYTES) {
		selftest_fail(t, SELFTEST_NEWER, "the source stalled after %llu of %d bytes",
			      (unsigned long long)b->skel->bss->redirected, SLOW_BYTES);
		return;
	}
	if (!pattern_expect(b, to.far, &got, SLOW_BYTES, "slow target", t))
		return;
	if (!b->skel->bss->target_queue_max)
		selftest_fail(t, SELFTEST_NEWER, "the queue behind a slow target is not visible");
	else
		selftest_ok(t,
			    "%d MiB behind a reader that stood still: whole, in order; up to "
			    "%u segments seen waiting",
			    SLOW_BYTES >> 20, b->skel->bss->target_queue_max);
}

static bool wait_readable(struct selftest_bench *b, int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	while (poll(&p, 1, 0) != 1) {
		if (!bench_more_time(b))
			return false;
	}
	return true;
}

/* Data that came before the insertion is seen by the program at the next recv(). */
static bool queued_before(struct selftest_bench *b, uint64_t word, struct selftest *t)
{
	uint64_t sent = 0, got = 0, near_got = 0;
	struct selftest_link from, to;
	ssize_t n;
	int err;

	if (!link_open(b, &from, 0, t) || !link_open(b, &to, 0, t))
		return false;
	bench_reset(b, word);
	pattern_send(from.far, &sent, SMALL_BYTES);
	wait_readable(b, from.near);
	err = link_insert(b, &to);
	if (!err)
		err = link_route(b, &from, &to);
	if (!err)
		err = link_insert(b, &from);
	n = pattern_recv(from.near, &near_got);
	if (!err && bench_word(b) == (word | SMALL_BYTES)) {
		if (word)
			return pattern_expect(b, to.far, &got, SMALL_BYTES, "queued before", t);
		return pattern_expect(b, from.near, &near_got, SMALL_BYTES, "queued before", t);
	}
	selftest_fail(t, SELFTEST_NEWER,
		      "bytes that came before the insertion passed the program by (insertion: %s; "
		      "recv gave %zd; seen: %llu)",
		      strerror(-err), n,
		      (unsigned long long)(bench_word(b) & SELFTEST_WORD_POSITION));
	return false;
}

void selftest_queued_before(struct selftest_bench *b, struct selftest *t)
{
	if (queued_before(b, SELFTEST_WORD_REDIRECT, t) && queued_before(b, 0, t))
		selftest_ok(t, "bytes that came before the insertion are seen after one recv()");
}

/* Bytes that are passed can be waited for, looked at, read; then the socket can leave the map. */
void selftest_passed(struct selftest_bench *b, struct selftest *t)
{
	uint64_t sent = 0, peeked = 0, got = 0;
	struct selftest_link from, to;
	uint8_t bytes[SMALL_BYTES];
	int queued = -1;
	ssize_t n;

	if (!link_steer(b, &from, &to, 0, 0, t))
		return;
	pattern_send(from.far, &sent, SMALL_BYTES);
	if (!wait_readable(b, from.near)) {
		selftest_fail(t, SELFTEST_NEWER, "passed bytes do not make the socket readable");
		return;
	}
	while (bench_word(b) < SMALL_BYTES && bench_more_time(b))
		;
	ioctl(from.near, SIOCINQ, &queued);
	n = recv(from.near, bytes, sizeof(bytes), MSG_PEEK | MSG_DONTWAIT);
	if (n != SMALL_BYTES || memcmp(bytes, pattern_at(peeked), n)) {
		selftest_fail(t, SELFTEST_NEWER, "MSG_PEEK gives %zd of %d passed bytes", n,
			      SMALL_BYTES);
		return;
	}
	if (!pattern_expect(b, from.near, &got, SMALL_BYTES, "passed", t))
		return;
	link_delete(b, &from);
	pattern_send(from.far, &sent, SMALL_BYTES);
	if (!pattern_expect(b, from.near, &got, 2 * SMALL_BYTES, "after the sockhash", t))
		return;
	selftest_ok(t,
		    "readable, peeked, read, and the socket goes on outside; SIOCINQ said %d "
		    "of %d",
		    queued, SMALL_BYTES);
}

struct copied {
	uint64_t position;
	bool wrong;
};

static int on_record(void *arg, void *data, size_t bytes)
{
	struct copied *c = arg;
	uint64_t position;

	memcpy(&position, data, sizeof(position));
	bytes -= sizeof(position);
	if (position != c->position ||
	    memcmp((uint8_t *)data + sizeof(position), pattern_at(position), bytes))
		c->wrong = true;
	c->position += bytes;
	return 0;
}

/* SK_DROP eats: the bytes went to the ring, TCP goes on as if they had been read. */
void selftest_copy(struct selftest_bench *b, struct selftest *t)
{
	struct copied c = {0};
	struct ring_buffer *ring;
	uint64_t sent = 0, got = 0;
	struct selftest_link from, to;
	ssize_t n = 0;

	ring = ring_buffer__new(bpf_map__fd(b->skel->maps.ring), on_record, &c, NULL);
	if (!ring) {
		selftest_fail(t, SELFTEST_NEWER, "ring buffer: %s", strerror(errno));
		return;
	}
	if (!link_steer(b, &from, &to, COPY_RCVBUF, SELFTEST_WORD_COPY, t))
		goto out;
	while (c.position < COPY_BYTES && !c.wrong && n >= 0) {
		n = pattern_send(from.far, &sent, COPY_BYTES - sent);
		if (!ring_buffer__consume(ring) && !n && !bench_more_time(b))
			break;
	}
	if (bench_faults(b, t))
		goto out;
	if (c.position != COPY_BYTES || c.wrong) {
		selftest_fail(t, SELFTEST_NEWER, "%llu of %d dropped bytes came by the ring%s",
			      (unsigned long long)c.position, COPY_BYTES,
			      c.wrong ? ", not as they were sent" : "; the window stays closed");
		goto out;
	}
	/* And back: what comes next is an ordinary byte. */
	__atomic_store_n(&b->skel->bss->word, COPY_BYTES, __ATOMIC_RELEASE);
	pattern_send(from.far, &sent, SMALL_BYTES);
	got = COPY_BYTES;
	if (pattern_expect(b, from.near, &got, COPY_BYTES + SMALL_BYTES, "after a drop", t))
		selftest_ok(t,
			    "%d KiB copied to the ring and dropped: whole, in order, the window "
			    "reopens",
			    COPY_BYTES / 1024);
out:
	ring_buffer__free(ring);
}

struct sender {
	int fd;
	uint64_t sent;
	const uint64_t *got; /* by the far end of the target, when last redirected */
	const bool *stop;
};

static void *send_on(void *arg)
{
	struct sender *s = arg;
	struct pollfd p = {.fd = s->fd, .events = POLLOUT};
	ssize_t n;

	while (!__atomic_load_n(s->stop, __ATOMIC_ACQUIRE)) {
		if (s->sent > __atomic_load_n(s->got, __ATOMIC_RELAXED) + HAND_OVER_AHEAD) {
			bench_nap();
			continue;
		}
		n = pattern_send(s->fd, &s->sent, s->sent % 1021 + 1);
		if (n < 0)
			break;
		if (!n)
			poll(&p, 1, 1);
	}
	return NULL;
}

/* Has the target's TCP taken @total bytes, all that was ever sent or redirected into it? */
static bool drained(int fd, uint64_t total)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len))
		return true;
	return info.tcpi_bytes_sent - info.tcpi_bytes_retrans + info.tcpi_notsent_bytes >= total;
}

/*
 * One step of the daemon's half of the protocol: read what was passed and send it on, after all
 * that was redirected before it; with everything consumed, hand over by compare-and-swap.
 * Returns 1 when it handed over, 0, or -errno.
 */
static int hand_over(struct selftest_bench *b, const struct selftest_link *from,
		     const struct selftest_link *to, uint64_t *position)
{
	uint64_t word = bench_word(b), redirected, at;
	ssize_t n;

	if (word & SELFTEST_WORD_REDIRECT)
		return 0;
	/* Only the program adds to it, and not after it went back to PASS. */
	redirected = __atomic_load_n(&b->skel->bss->redirected, __ATOMIC_ACQUIRE);
	if (!drained(to->near, *position + redirected))
		return 0;
	at = *position + redirected;
	n = pattern_recv(from->near, &at);
	if (n == -EAGAIN)
		return at == word &&
		       __atomic_compare_exchange_n(&b->skel->bss->word, &word,
						   word | SELFTEST_WORD_REDIRECT, false,
						   __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
	if (n <= 0)
		return n ? n : -EPIPE;
	for (at -= n; n > 0;) {
		ssize_t moved = pattern_send(to->near, &at, n);

		if (moved < 0)
			return moved;
		n -= moved;
		*position += moved;
		if (!moved && !bench_more_time(b))
			return -ETIMEDOUT;
	}
	return 0;
}

/* The same, and what arrived is compared; @at is the receiver's position. */
static int hand_over_and_read(struct selftest_bench *b, const struct selftest_link *from,
			      const struct selftest_link *to, uint64_t *position, uint64_t *at)
{
	int n = hand_over(b, from, to, position);
	ssize_t got = pattern_recv(to->far, at);

	if (got == -EBADMSG)
		return -EBADMSG;
	/* With one CPU, the sender and the kernel's worker wait for this one. */
	if (!n && got < 0)
		bench_more_time(b);
	return n;
}

void selftest_hand_over(struct selftest_bench *b, struct selftest *t)
{
	uint64_t position = 0, at = 0, got = 0, stop_ns;
	struct selftest_link from, to;
	unsigned int times = 0;
	struct sender sender;
	bool stop = false;
	pthread_t thread;
	int n = 0, err;

	if (!link_steer(b, &from, &to, 0, 0, t))
		return;
	b->skel->bss->pass_every = PASS_EVERY;
	sender = (struct sender){.fd = from.far, .got = &got, .stop = &stop};
	err = pthread_create(&thread, NULL, send_on, &sender);
	if (err) {
		selftest_fail(t, "allow one more thread (TasksMax=)", "thread: %s", strerror(err));
		return;
	}
	stop_ns = selftest_now_ns() + HAND_OVER_MS * 1000000ULL;
	while (n >= 0 && times < HAND_OVERS && selftest_now_ns() + HAND_OVER_TAIL_NS < b->end_ns) {
		n = hand_over_and_read(b, &from, &to, &position, &at);
		times += n > 0;
		if (bench_word(b) & SELFTEST_WORD_REDIRECT)
			__atomic_store_n(&got, at, __ATOMIC_RELAXED);
		/* A slow machine gets the whole of the check's time for the least number. */
		if (times >= HAND_OVERS_MIN && selftest_now_ns() > stop_ns)
			break;
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	/* Lost is what does not come; on a busy machine the last may come late. */
	b->end_ns = b->all_end_ns;
	while (n >= 0 && at < sender.sent && selftest_now_ns() < b->end_ns)
		n = hand_over_and_read(b, &from, &to, &position, &at);
	if (bench_faults(b, t))
		return;
	if (n < 0 || at != sender.sent)
		selftest_fail(t, SELFTEST_NEWER,
			      "%llu of %llu bytes arrived over %u hand-overs: %s",
			      (unsigned long long)at, (unsigned long long)sender.sent, times,
			      n < 0 ? strerror(-n) : "the rest is missing");
	else
		selftest_ok(t,
			    "%u times between passed and redirected in %llu KiB: whole, in order",
			    times, (unsigned long long)at / 1024);
}
