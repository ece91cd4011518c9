/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The exporter's page: the customary process_* series. What /proc does not tell is left out. */
#include <dirent.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "ops/metrics.h"

static void family(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Clock ticks from the boot to this process's start; 0: not known. */
static unsigned long long started_ticks(void)
{
	FILE *f = fopen("/proc/self/stat", "re");
	unsigned long long ticks = 0;
	char line[1024], *rest;

	if (!f)
		return 0;
	/* Field 22; the second one, the name, may contain anything but ends at the last
	 * parenthesis. */
	if (fgets(line, sizeof(line), f) && (rest = strrchr(line, ')')))
		sscanf(rest + 1,
		       " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d "
		       "%*d %*d %*d %llu",
		       &ticks);
	fclose(f);
	return ticks;
}

/* Seconds of the epoch; 0: not known. */
static unsigned long long booted(void)
{
	FILE *f = fopen("/proc/stat", "re");
	unsigned long long seconds = 0;
	char line[1024];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "btime %llu", &seconds) == 1)
			break;
	if (f)
		fclose(f);
	return seconds;
}

static void render_start(FILE *out)
{
	unsigned long long ticks = started_ticks(), boot = booted();

	if (!ticks || !boot)
		return;
	family(out, "process_start_time_seconds", "gauge",
	       "Start time of the process since unix epoch in seconds.");
	fprintf(out, "process_start_time_seconds %.2f\n",
		(double)boot + (double)ticks / (double)sysconf(_SC_CLK_TCK));
}

static void render_memory(FILE *out)
{
	FILE *f = fopen("/proc/self/statm", "re");
	unsigned long long pages;

	if (f && fscanf(f, "%*u %llu", &pages) == 1) {
		family(out, "process_resident_memory_bytes", "gauge",
		       "Resident memory size in bytes.");
		fprintf(out, "process_resident_memory_bytes %llu\n",
			pages * (unsigned long long)sysconf(_SC_PAGESIZE));
	}
	if (f)
		fclose(f);
}

static void render_fds(FILE *out)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int fds = 0;

	if (!dir)
		return;
	while (readdir(dir))
		fds++;
	closedir(dir);
	family(out, "process_open_fds", "gauge", "Number of open file descriptors.");
	/* Without ".", ".." and the directory itself. */
	fprintf(out, "process_open_fds %u\n", fds - 3);
}

static void render_cpu(FILE *out)
{
	struct rusage use;

	if (getrusage(RUSAGE_SELF, &use))
		return;
	family(out, "process_cpu_seconds_total", "counter",
	       "Total user and system CPU time spent in seconds.");
	fprintf(out, "process_cpu_seconds_total %.6f\n",
		(double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
			(double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6);
}

void metrics_render_process(FILE *out)
{
	render_start(out);
	render_memory(out);
	render_fds(out);
	render_cpu(out);
}
