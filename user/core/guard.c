/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The guard's arithmetic. All of it saturates: an estimate that does not fit is a very long time.
 */
#include "core/guard.h"

#include <xxhash.h>

/* A mean follows a change within some twenty samples, and one odd sample moves it little. */
#define EWMA_SHIFT 3
/* The longest estimate; one less than GUARD_UNKNOWN. */
#define LONGEST_MS (GUARD_UNKNOWN - 1)

const char *const guard_verdict_names[GUARD_VERDICT_NR] = {
#define GUARD_X(id, text) [GUARD_##id] = (text),
	GUARD_VERDICTS(GUARD_X)
#undef GUARD_X
};

const char *const guard_turn_names[GUARD_TURN_NR] = {
#define GUARD_X(id, text) [GUARD_TURN_##id] = (text),
	GUARD_TURNS(GUARD_X)
#undef GUARD_X
};

static uint32_t saturate(uint64_t ms)
{
	return ms < LONGEST_MS ? (uint32_t)ms : LONGEST_MS;
}

uint32_t guard_wait_ms(uint32_t slots, uint32_t inflight, uint32_t queued, uint32_t exchange_ms)
{
	uint64_t busy = (uint64_t)inflight + queued;

	if (!slots || busy < slots)
		return 0;
	if (!exchange_ms)
		return GUARD_UNKNOWN;
	/* At most 2^33 times 2^32: no overflow is left out. */
	if (__builtin_mul_overflow(busy - slots + 1, (uint64_t)exchange_ms, &busy))
		return LONGEST_MS;
	return saturate(busy / slots);
}

uint32_t guard_cold_ms(uint64_t bytes, uint64_t rate)
{
	uint64_t ms;

	if (!rate || !bytes)
		return GUARD_UNKNOWN;
	if (__builtin_mul_overflow(bytes, (uint64_t)1000, &ms))
		return LONGEST_MS;
	ms /= rate;
	return ms ? saturate(ms) : 1;
}

uint64_t guard_ewma(uint64_t mean, uint64_t sample)
{
	uint64_t step;

	if (!mean)
		return sample;
	/* A step is at least 1, so that the mean arrives. */
	step = sample > mean ? sample - mean : mean - sample;
	step = (step + (1 << EWMA_SHIFT) - 1) >> EWMA_SHIFT;
	return sample > mean ? mean + step : mean - step;
}

uint64_t guard_rate_sample(uint64_t bytes, uint64_t ttft_ns)
{
	uint64_t us = ttft_ns / 1000, scaled;

	if (bytes < GUARD_RATE_BYTES_MIN || !us ||
	    __builtin_mul_overflow(bytes, (uint64_t)1000000, &scaled))
		return 0;
	return scaled / us;
}

enum guard_verdict guard_full(const struct guard_full *f)
{
	bool idle = f->busy == GUARD_PREFER_IDLE;
	bool known = f->stay_ms != GUARD_UNKNOWN && f->go_ms != GUARD_UNKNOWN;

	if (f->busy == GUARD_STICK)
		return GUARD_OVER;
	if (f->elsewhere && (f->go || f->waited))
		return GUARD_SPILL;
	if (f->elsewhere && (known ? f->go_ms < f->stay_ms : idle)) {
		if (f->fresh && f->room)
			return GUARD_WAIT;
		/* An unknown price is not known to be dearer than another. */
		if (f->cheapest_ms != GUARD_UNKNOWN && f->go_ms != GUARD_UNKNOWN &&
		    f->cheapest_ms < f->go_ms && f->room)
			return GUARD_DISPLACE;
		return GUARD_SPILL;
	}
	if (f->waited || !f->room)
		return idle ? GUARD_OVER : GUARD_REFUSE;
	return GUARD_WAIT;
}

bool guard_over_threshold(uint32_t inflight, uint32_t least, uint32_t abs, uint32_t rel_milli)
{
	if (abs && inflight > (uint64_t)least + abs)
		return true;
	return rel_milli && (uint64_t)inflight * 1000 > (uint64_t)least * rel_milli + 1000;
}

enum guard_turn guard_classify(bool first, uint64_t context, uint64_t request, uint64_t ttft_ns,
			       uint64_t rate, uint64_t *recomputed)
{
	uint64_t old = request < context ? request : context, fresh = request - old;
	uint64_t us = ttft_ns / 1000, computed;

	*recomputed = 0;
	if (first)
		return GUARD_TURN_FIRST;
	if (ttft_ns < GUARD_WARM_NS)
		return GUARD_TURN_WARM;
	if (!rate)
		return GUARD_TURN_UNKNOWN;
	if (__builtin_mul_overflow(us, rate, &computed))
		computed = UINT64_MAX;
	computed /= 1000000;
	if (computed > fresh)
		*recomputed = computed - fresh < old ? computed - fresh : old;
	/* In quarters of the old context. */
	if (*recomputed < old / 4 || !old)
		return GUARD_TURN_WARM;
	return *recomputed < old - old / 4 ? GUARD_TURN_PARTIAL : GUARD_TURN_COLD;
}

bool guard_control(uint64_t session, uint32_t milli)
{
	uint64_t h = XXH64(&session, sizeof(session), GUARD_CONTROL_SEED);

	/* The upper 32 bits as a fraction: exact, and monotone in the share. */
	return (h >> 32) * 1000 < (uint64_t)milli << 32;
}
