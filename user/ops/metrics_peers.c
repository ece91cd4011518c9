/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The exporter's page: other balancers. Nothing where there are none. */
#include <inttypes.h>
#include <stddef.h>

#include "ops/peers.h"

static const struct {
	const char *name, *type, *help;
	size_t offset;
} of_one[] = {
	{"kvpin_peer_up", "gauge", "Whether the other balancer was told of all pins.",
	 offsetof(struct peer_stats, up)},
	{"kvpin_peer_pins_sent_total", "counter", "Pins told to the other balancer.",
	 offsetof(struct peer_stats, sent)},
	{"kvpin_peer_failures_total", "counter",
	 "Connections to the other balancer that failed or broke.",
	 offsetof(struct peer_stats, failures)},
};

static const struct {
	const char *name, *help;
	size_t offset;
} of_all[] = {
	{"kvpin_peer_pins_received_total", "Pins that other balancers told, known ones included.",
	 offsetof(struct peers_stats, received)},
	{"kvpin_peer_pins_merged_total",
	 "Pins that other balancers told and that were new, moved, or used later there.",
	 offsetof(struct peers_stats, merged)},
	{"kvpin_peer_conflicts_total",
	 "Pins that other balancers told on another server than here; the later choice wins.",
	 offsetof(struct peers_stats, conflicts)},
	{"kvpin_peer_unknown_total",
	 "Pins that other balancers told on a server that is not configured here.",
	 offsetof(struct peers_stats, unknown)},
	{"kvpin_peer_refused_total",
	 "Connections of peers that were refused: secret, address or version.",
	 offsetof(struct peers_stats, refused)},
};

static uint64_t at(const void *stats, size_t offset)
{
	return *(const uint64_t *)((const char *)stats + offset);
}

void peers_render(const struct peers *p, FILE *out)
{
	struct peers_stats stats;
	char text[ADDR_TEXT_MAX];

	if (!p)
		return;
	peers_stats(p, &stats);
	for (unsigned int i = 0; i < sizeof(of_one) / sizeof(of_one[0]); i++) {
		fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", of_one[i].name, of_one[i].help,
			of_one[i].name, of_one[i].type);
		for (unsigned int k = 0; k < stats.nr; k++)
			fprintf(out, "%s{peer=\"%s\"} %" PRIu64 "\n", of_one[i].name,
				addr_format(&stats.peer[k].addr, text),
				at(&stats.peer[k], of_one[i].offset));
	}
	for (unsigned int i = 0; i < sizeof(of_all) / sizeof(of_all[0]); i++)
		fprintf(out, "# HELP %s %s\n# TYPE %s counter\n%s %" PRIu64 "\n", of_all[i].name,
			of_all[i].help, of_all[i].name, of_all[i].name,
			at(&stats, of_all[i].offset));
}
