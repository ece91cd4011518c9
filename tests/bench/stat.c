/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * stat.c: what kvpin-load counted and how it says so: histograms, CPU times from /proc, errors by
 * kind with the first few in words, and the JSON result on stdout.
 */
#include "load.h"

#include <dirent.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

const char *const err_name[ERR_NR] = {
	[ERR_CONNECT] = "connect",
	[ERR_RESET] = "reset",
	[ERR_EOF] = "eof",
	[ERR_STATUS] = "status",
	[ERR_PARSE] = "parse",
	[ERR_BODY] = "body-mismatch",
	[ERR_WRONG_SERVER] = "wrong-server",
	[ERR_STALL] = "stall",
};

const char *const mode_name[MODE_NR] = {
	[MODE_REQUESTS] = "requests", [MODE_CONNS] = "conns",	[MODE_SSE] = "sse",
	[MODE_DOWNLOAD] = "download", [MODE_UPLOAD] = "upload", [MODE_IDLE] = "idle",
	[MODE_CHAT] = "chat",
};

void hist_add(struct hist *h, uint64_t ns)
{
	uint32_t i = ns;

	if (ns >= 1u << HIST_STEP_BITS) {
		int shift = 63 - __builtin_clzll(ns) - HIST_STEP_BITS;

		i = ((uint32_t)(shift + 1) << HIST_STEP_BITS) +
		    ((ns >> shift) & ((1u << HIST_STEP_BITS) - 1));
	}
	h->bucket[i]++;
	h->n++;
	if (ns > h->max)
		h->max = ns;
}

double hist_quantile_us(const struct hist *h, double q)
{
	uint64_t want = (uint64_t)(q * (double)h->n), seen = 0;
	uint32_t i, step = 1u << HIST_STEP_BITS;

	if (!h->n)
		return 0;
	for (i = 0; i < HIST_BUCKETS; i++) {
		seen += h->bucket[i];
		if (seen > want)
			break;
	}
	if (i >= HIST_BUCKETS)
		return (double)h->max / 1e3;
	if (i < step)
		return i / 1e3;
	return (double)((uint64_t)(step + i % step) << (i / step - 1)) / 1e3;
}

/* Time on a CPU, to the ns: /proc/PID/stat counts in ticks, and what wakes often and runs briefly
 * falls between them. */
static uint64_t cpu_read_pid(int pid)
{
	uint64_t sum_ns = 0, ns;
	struct dirent *task;
	char path[64];
	FILE *f;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	d = opendir(path);
	if (!d)
		return 0;
	while ((task = readdir(d))) {
		if (task->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%.16s/schedstat", pid, task->d_name);
		f = fopen(path, "re");
		if (!f)
			continue;
		if (fscanf(f, "%" SCNu64, &ns) == 1)
			sum_ns += ns;
		fclose(f);
	}
	closedir(d);
	return sum_ns;
}

void cpu_read(const struct opts *o, struct cpu_times *t)
{
	uint64_t v[8] = {0};
	struct rusage ru;
	FILE *f;

	memset(t, 0, sizeof(*t));
	f = fopen("/proc/stat", "re");
	if (f) {
		/* user nice system idle iowait irq softirq steal; guest is inside user */
		if (fscanf(f,
			   "cpu %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
			   " %" SCNu64 " %" SCNu64 " %" SCNu64,
			   &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7]) != 8)
			memset(v, 0, sizeof(v));
		fclose(f);
	}
	t->at_ns = clock_ns();
	t->idle = v[3] + v[4];
	t->busy = v[0] + v[1] + v[2] + v[5] + v[6] + v[7];
	t->nice = v[1];
	t->softirq = v[6];
	t->steal = v[7];
	for (uint32_t i = 0; i < o->pids_nr; i++)
		t->pid[i] = cpu_read_pid(o->pids[i]);
	getrusage(RUSAGE_SELF, &ru);
	t->own_s = (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
		   (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
}

void stat_error(struct load *l, enum err kind, const char *format, ...)
{
	va_list ap;
	int n;

	l->errors[kind]++;
	l->errors_nr++;
	if (l->errors_nr >= l->opts->errors_max)
		l->gave_up = true;
	if (l->notes_nr >= NOTES_MAX)
		return;
	n = snprintf(l->notes[l->notes_nr], sizeof(l->notes[0]), "%s: ", err_name[kind]);
	va_start(ap, format);
	vsnprintf(l->notes[l->notes_nr] + n, sizeof(l->notes[0]) - (size_t)n, format, ap);
	va_end(ap);
	l->notes_nr++;
}

/* The measured part begins: what warm-up counted goes, except its errors. */
void stat_reset(struct load *l)
{
	l->started = l->done = l->bytes_in = l->bytes_out = l->tokens = l->connects = 0;
	memset(l->server_answers, 0, sizeof(l->server_answers));
	memset(&l->latency, 0, sizeof(l->latency));
	memset(&l->ttft, 0, sizeof(l->ttft));
	memset(&l->gap, 0, sizeof(l->gap));
	cpu_read(l->opts, &l->cpu_begin);
	l->begin_ns = l->now_ns = clock_ns();
}

static json_t *stat_hist(const struct hist *h)
{
	return json_pack("{s:I s:f s:f s:f s:f s:f}", "n", (json_int_t)h->n, "p50",
			 hist_quantile_us(h, 0.5), "p90", hist_quantile_us(h, 0.9), "p99",
			 hist_quantile_us(h, 0.99), "p999", hist_quantile_us(h, 0.999), "max",
			 (double)h->max / 1e3);
}

static double stat_rounded(double v)
{
	return (double)(int64_t)(v * 1000 + 0.5) / 1000;
}

static json_t *stat_cpu(const struct load *l)
{
	double ticks = (double)sysconf(_SC_CLK_TCK);
	const struct cpu_times *a = &l->cpu_begin, *b = &l->cpu_end;
	json_t *pids = json_object(), *cpu;
	double sum = 0, busy_s;
	char key[16];

	/*
	 * Idle time is exact on a tickless kernel. The busy fields are sampled by the tick: work
	 * that comes in short bursts between two ticks, as that of paced streams, is missed.
	 */
	busy_s = (double)(b->at_ns - a->at_ns) / 1e9 * (double)sysconf(_SC_NPROCESSORS_ONLN) -
		 (double)(b->idle - a->idle) / ticks;

	for (uint32_t i = 0; i < l->opts->pids_nr; i++) {
		double s = b->pid[i] > a->pid[i] ? (double)(b->pid[i] - a->pid[i]) / 1e9 : 0;

		snprintf(key, sizeof(key), "%d", l->opts->pids[i]);
		json_object_set_new(pids, key, json_real(s));
		sum += s;
	}
	cpu = json_pack("{s:f s:f s:f s:f s:f s:f s:f s:o}", "system_s",
			busy_s > 0 ? stat_rounded(busy_s) : 0.0, "ticks_s",
			(double)(b->busy - a->busy) / ticks, "nice_s",
			(double)(b->nice - a->nice) / ticks, "softirq_s",
			(double)(b->softirq - a->softirq) / ticks, "steal_s",
			(double)(b->steal - a->steal) / ticks, "own_s",
			stat_rounded(b->own_s - a->own_s), "pids_s", sum, "pid_s", pids);
	return cpu;
}

void stat_print(const struct load *l)
{
	const struct opts *o = l->opts;
	double wall_s = (double)(l->end_ns - l->begin_ns) / 1e9;
	json_t *errors = json_object(), *notes = json_array(), *servers = json_object(), *r;

	for (int i = 0; i < ERR_NR; i++)
		json_object_set_new(errors, err_name[i], json_integer((json_int_t)l->errors[i]));
	for (uint32_t i = 0; i < l->notes_nr; i++)
		json_array_append_new(notes, json_string(l->notes[i]));
	for (uint32_t i = 0; i < l->servers_nr; i++)
		json_object_set_new(servers, l->servers[i],
				    json_integer((json_int_t)l->server_answers[i]));
	r = json_pack(
		"{s:s s:s s:I s:i s:I s:I s:I s:o s:I s:I s:I s:f s:f s:I s:I s:f s:f s:I}", "mode",
		mode_name[o->mode], "to", o->to_text, "seed", (json_int_t)o->seed, "connections",
		(int)o->connections, "requests", (json_int_t)(l->done + l->errors_nr), "ok",
		(json_int_t)l->done, "errors_total", (json_int_t)l->errors_nr, "errors", errors,
		"truncated", (json_int_t)l->truncated, "connects", (json_int_t)l->connects,
		"idle_closed", (json_int_t)l->idle_closed, "wall_s", stat_rounded(wall_s),
		"rate_per_s", wall_s > 0 ? stat_rounded((double)l->done / wall_s) : 0.0, "bytes_in",
		(json_int_t)l->bytes_in, "bytes_out", (json_int_t)l->bytes_out, "mb_in_per_s",
		wall_s > 0 ? stat_rounded((double)l->bytes_in / wall_s / 1e6) : 0.0, "mb_out_per_s",
		wall_s > 0 ? stat_rounded((double)l->bytes_out / wall_s / 1e6) : 0.0, "tokens",
		(json_int_t)l->tokens);
	if (!r) {
		fputs("kvpin-load: out of memory\n", stderr);
		return;
	}
	json_object_set_new(r, "latency_us", stat_hist(&l->latency));
	if (o->mode == MODE_SSE || o->mode == MODE_CHAT) {
		json_object_set_new(r, "ttft_us", stat_hist(&l->ttft));
		json_object_set_new(r, "gap_us", stat_hist(&l->gap));
	}
	if (o->mode == MODE_IDLE)
		json_object_set_new(r, "held", json_integer(l->held));
	if (o->verify)
		json_object_set_new(r, "servers", servers);
	else
		json_decref(servers);
	json_object_set_new(r, "cpu", stat_cpu(l));
	json_object_set_new(r, "gave_up", json_boolean(l->gave_up));
	json_object_set_new(r, "interrupted", json_boolean(l->interrupted));
	json_object_set_new(r, "notes", notes);
	json_dumpf(r, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
	putchar('\n');
	json_decref(r);
}
