/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Figures of the experiment's arms. */
#include "core/report.h"

#include <math.h>

#define BUCKET_GROWTH 1.2
/* 97.5 % of a normal distribution are below. */
#define NORMAL_975 1.959964

const char *const report_arm_names[REPORT_ARM_NR] = {
	[REPORT_AFFINITY] = "affinity",
	[REPORT_CONTROL] = "control",
};

static double bucket_end_ms(unsigned int i)
{
	return pow(BUCKET_GROWTH, i);
}

unsigned int report_bucket(double ms)
{
	double at = ms > 1 ? ceil(log(ms) / log(BUCKET_GROWTH)) : 0;

	return at < REPORT_BUCKETS - 1 ? (unsigned int)at : REPORT_BUCKETS - 1;
}

static double quantile(const struct report_count *c, double q)
{
	double wanted = q * (double)c->turns, passed = 0;

	for (unsigned int i = 0; i < REPORT_BUCKETS; i++) {
		double in = (double)c->bucket[i], start = i ? bucket_end_ms(i - 1) : 0;

		if (in > 0 && passed + in >= wanted)
			return start + (bucket_end_ms(i) - start) * (wanted - passed) / in;
		passed += in;
	}
	return 0;
}

struct report_figures report_figures(const struct report_count *c)
{
	struct report_figures f = {0};

	if (!c->turns)
		return f;
	f.mean_ms = c->sum_ms / (double)c->turns;
	f.p50_ms = quantile(c, 0.5);
	f.p90_ms = quantile(c, 0.9);
	return f;
}

/* Of the mean: the sample's variance over its size. */
static double mean_variance(const struct report_count *c)
{
	double n = (double)c->turns, mean = c->sum_ms / n;
	double var = (c->sum_sq_ms - n * mean * mean) / (n - 1);

	return var > 0 ? var / n : 0;
}

struct report_gain report_gain(const struct report_count *affinity,
			       const struct report_count *control)
{
	struct report_gain g = {0};
	double half;

	if (!affinity->turns || !control->turns)
		return g;
	g.ms = control->sum_ms / (double)control->turns -
	       affinity->sum_ms / (double)affinity->turns;
	if (affinity->turns < REPORT_TURNS_MIN || control->turns < REPORT_TURNS_MIN)
		return g;
	half = NORMAL_975 * sqrt(mean_variance(affinity) + mean_variance(control));
	g.low_ms = g.ms - half;
	g.high_ms = g.ms + half;
	g.known = 1;
	return g;
}
