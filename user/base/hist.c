/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The bucket bounds, and counting into them. Never allocates, never locks.
 */
#include "base/hist.h"

#define MS(n) ((uint64_t)(n)*1000000)

/* Fine below a second, where a warm turn lies; up to two minutes for a cold long prompt. */
const struct hist_bounds hist_ttft_bounds = {
	.nr = 20,
	.le_ns = {MS(5),    MS(10),    MS(25),	  MS(50),    MS(100),	MS(200),   MS(400),
		  MS(600),  MS(800),   MS(1000),  MS(1500),  MS(2000),	MS(3000),  MS(5000),
		  MS(8000), MS(12000), MS(20000), MS(30000), MS(60000), MS(120000)},
	.le_text = {"0.005", "0.01", "0.025", "0.05", "0.1", "0.2", "0.4", "0.6", "0.8", "1",
		    "1.5",   "2",    "3",     "5",    "8",   "12",  "20",  "30",  "60",	 "120"},
};

/* Decoding runs at 5 to 500 tokens a second; beyond that a gap is a stall. */
const struct hist_bounds hist_token_gap_bounds = {
	.nr = 20,
	.le_ns = {MS(1),   MS(2),   MS(4),   MS(6),   MS(8),	MS(10),	 MS(15),
		  MS(20),  MS(25),  MS(30),  MS(40),  MS(50),	MS(75),	 MS(100),
		  MS(150), MS(200), MS(300), MS(500), MS(1000), MS(2000)},
	.le_text = {"0.001", "0.002", "0.004", "0.006", "0.008", "0.01",  "0.015",
		    "0.02",  "0.025", "0.03",  "0.04",	"0.05",	 "0.075", "0.1",
		    "0.15",  "0.2",   "0.3",   "0.5",	"1",	 "2"},
};

void hist_add(struct hist *h, const struct hist_bounds *bounds, uint64_t ns)
{
	unsigned int i = 0;

	while (i < bounds->nr && ns > bounds->le_ns[i])
		i++;
	stat_add(&h->bucket[i], 1);
	stat_add(&h->sum_ns, ns);
}

void hist_merge(struct hist *to, const struct hist *from)
{
	unsigned int i;

	for (i = 0; i <= HIST_BUCKETS_MAX; i++)
		stat_add(&to->bucket[i], stat_get(&from->bucket[i]));
	stat_add(&to->sum_ns, stat_get(&from->sum_ns));
}
