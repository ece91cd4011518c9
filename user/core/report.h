/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The experiment's two arms beside each other: mean, quantiles, and how sure the difference is.
 * Pure arithmetic over counters that somebody else keeps.
 */
#ifndef CORE_REPORT_H
#define CORE_REPORT_H

#include <stdint.h>

enum report_arm {
	REPORT_AFFINITY,
	REPORT_CONTROL,
	REPORT_ARM_NR
};

extern const char *const report_arm_names[REPORT_ARM_NR];

/* Buckets for quantiles: each is a fifth wider than the one before, from 1 ms to about half an
 * hour, so a quantile is right within a tenth. */
#define REPORT_BUCKETS 80

/* What was counted of one arm. */
struct report_count {
	uint64_t turns;
	double sum_ms, sum_sq_ms; /* of the TTFT and of its square */
	uint64_t bucket[REPORT_BUCKETS];
};

struct report_figures {
	double mean_ms, p50_ms, p90_ms;
};

/* The difference of the means, control less affinity. */
struct report_gain {
	double ms;
	double low_ms, high_ms; /* 95 % confidence; both 0 with fewer than REPORT_TURNS_MIN turns */
	int known;
};

/* Below, the normal approximation of a mean that has such a skew is worth nothing. */
#define REPORT_TURNS_MIN 30

/** report_bucket() - where a TTFT of @ms is counted */
unsigned int report_bucket(double ms);

/** report_figures() - all 0 without a turn; quantiles by interpolation within a bucket */
struct report_figures report_figures(const struct report_count *c);

/** report_gain() - Welch's interval for the difference of two means. Turns are taken to be
 * independent; turns of one session are not quite, so it is a little too narrow. */
struct report_gain report_gain(const struct report_count *affinity,
			       const struct report_count *control);

#endif
