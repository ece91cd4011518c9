/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The command line. Owns `opt`, which only POST /control changes later.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

struct sim_options opt = {
	.name = "sim",
	.model = "sim",
	.slots = 4,
	.ctx_tokens = 16384,
	.idle_ms = 5000,
	.ping_ms = 30000,
	.keepalive_max = 100,
};

enum {
	O_LISTEN = 1,
	O_NAME,
	O_MODEL,
	O_MANNER,
	O_SLOTS,
	O_PREFILL,
	O_DECODE,
	O_CTX,
	O_LOAD,
	O_IDLE,
	O_PING,
	O_KEEP,
	O_HEALTH,
	O_500,
	O_ACCEPT,
	O_CUT,
	O_RST,
	O_QUIET,
	O_HELP
};

static const struct option options[] = {
	{"listen", 1, 0, O_LISTEN},
	{"name", 1, 0, O_NAME},
	{"model", 1, 0, O_MODEL},
	{"manner", 1, 0, O_MANNER},
	{"slots", 1, 0, O_SLOTS},
	{"prefill-tps", 1, 0, O_PREFILL},
	{"decode-tps", 1, 0, O_DECODE},
	{"ctx", 1, 0, O_CTX},
	{"load-ms", 1, 0, O_LOAD},
	{"idle-ms", 1, 0, O_IDLE},
	{"ping-ms", 1, 0, O_PING},
	{"keepalive-max", 1, 0, O_KEEP},
	{"fail-health", 1, 0, O_HEALTH},
	{"fail-500-every", 1, 0, O_500},
	{"fail-accept-rst-every", 1, 0, O_ACCEPT},
	{"fail-cut-after", 1, 0, O_CUT},
	{"fail-rst-after", 1, 0, O_RST},
	{"quiet", 0, 0, O_QUIET},
	{"help", 0, 0, O_HELP},
	{0},
};

static const char usage[] =
	"kvpin-sim: a simulated LLM model server\n"
	"  --listen ADDR:PORT          may repeat; port 0 picks one; [::1]:0 for IPv6\n"
	"  --name NAME                 system_fingerprint, x-sim-server          (sim)\n"
	"  --model NAME                model alias                               (sim)\n"
	"  --manner llama|uvicorn      whose bytes and habits                    (llama)\n"
	"  --slots N                   requests processed at once                (4)\n"
	"  --prefill-tps F             prompt tokens per second, 0 = no time     (0)\n"
	"  --decode-tps F              generated tokens per second, 0 = no time  (0)\n"
	"  --ctx N                     context size in tokens                    (16384)\n"
	"  --load-ms N                 refuse for half of it, 503 for the rest   (0)\n"
	"  --idle-ms N                 keep-alive limit                          (5000)\n"
	"  --ping-ms N                 SSE ping period during prefill, 0 = none  (30000)\n"
	"  --keepalive-max N           llama: answers per connection             (100)\n"
	"  --fail-health ok|503|hang   what /health does\n"
	"  --fail-500-every N          every Nth model request is answered 500\n"
	"  --fail-accept-rst-every N   every Nth connection is reset at once\n"
	"  --fail-cut-after N          model streams end without terminator after N tokens\n"
	"  --fail-rst-after N          model streams are reset after N tokens\n"
	"  --quiet, --help\n";

static bool option_set(int code, const char *v)
{
	switch (code) {
	case O_LISTEN:
		if (opt.listen_nr == ARRAY_SIZE(opt.listen))
			return false;
		opt.listen[opt.listen_nr++] = v;
		return true;
	case O_NAME:
		opt.name = v;
		return true;
	case O_MODEL:
		opt.model = v;
		return true;
	case O_MANNER:
		opt.manner = strcmp(v, "uvicorn") ? MANNER_LLAMA : MANNER_UVICORN;
		return !strcmp(v, "uvicorn") || !strcmp(v, "llama");
	case O_SLOTS:
		opt.slots = atoi(v);
		return opt.slots > 0;
	case O_PREFILL:
		opt.prefill_tps = atof(v);
		return opt.prefill_tps >= 0;
	case O_DECODE:
		opt.decode_tps = atof(v);
		return opt.decode_tps >= 0;
	case O_CTX:
		opt.ctx_tokens = atoi(v);
		return opt.ctx_tokens > 1;
	case O_LOAD:
		opt.load_ms = atoi(v);
		return true;
	case O_IDLE:
		opt.idle_ms = atoi(v);
		return opt.idle_ms > 0;
	case O_PING:
		opt.ping_ms = atoi(v);
		return true;
	case O_KEEP:
		opt.keepalive_max = atoi(v);
		return opt.keepalive_max > 0;
	case O_HEALTH:
		opt.faults.health = !strcmp(v, "503")	 ? HEALTH_503
				    : !strcmp(v, "hang") ? HEALTH_HANG
							 : HEALTH_OK;
		return opt.faults.health != HEALTH_OK || !strcmp(v, "ok");
	case O_500:
		opt.faults.http500_every = atoll(v);
		return true;
	case O_ACCEPT:
		opt.faults.accept_rst_every = atoll(v);
		return true;
	case O_CUT:
		opt.faults.cut_after = atoll(v);
		return true;
	case O_RST:
		opt.faults.rst_after = atoll(v);
		return true;
	case O_QUIET:
		opt.quiet = true;
		return true;
	}
	return false;
}

void options_read(int argc, char **argv)
{
	int code, index;

	while ((code = getopt_long(argc, argv, "h", options, &index)) != -1) {
		if (code == O_HELP || code == 'h') {
			fputs(usage, stdout);
			exit(0);
		}
		if (code == '?' || !option_set(code, optarg)) {
			if (code != '?')
				fprintf(stderr, "kvpin-sim: bad value for --%s\n",
					options[index].name);
			exit(2);
		}
	}
	if (optind != argc || !opt.listen_nr) {
		fputs(usage, stderr);
		exit(2);
	}
}
