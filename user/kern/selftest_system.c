/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Checks of what the machine says about itself: version, privileges, file systems. They load
 * nothing and open no socket.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <bpf/libbpf.h>
#include <linux/magic.h>

#include "kern/privilege.h"
#include "kern/selftest_private.h"

#define BPFFS	 "/sys/fs/bpf"
#define BTF_FILE "/sys/kernel/btf/vmlinux"

bool selftest_kernel_parse(const char *release, const char *version, struct selftest_kernel *k)
{
	static const char debian[] = " Debian ";
	const char *own = strstr(version, debian);
	struct selftest_kernel inner;

	*k = (struct selftest_kernel){0};
	if (sscanf(release, "%u.%u.%u", &k->major, &k->minor, &k->patch) < 2)
		return false;
	/* Debian 12 calls all its kernels 6.1.0. */
	if (own &&
	    sscanf(own + strlen(debian), "%u.%u.%u", &inner.major, &inner.minor, &inner.patch) == 3)
		*k = inner;
	return true;
}

const char *selftest_kernel_bad(const struct selftest_kernel *k)
{
	if (k->major < 6)
		return "before 6.0 redirected bytes get lost or repeated";
	if (k->major == 6 && k->minor < 2)
		return "before 6.2 a program cannot look at a segment's sequence number "
		       "(bpf_cast_to_kern_ctx())";
	if (k->major == 6 && k->minor == 12 && k->patch < 35)
		return "6.12 before 6.12.35 loses or stalls bytes towards slow targets";
	return NULL;
}

void selftest_kernel_version(struct selftest_bench *b, struct selftest *t)
{
	struct selftest_kernel k;
	struct utsname name;
	const char *bad;

	if (uname(&name) || !selftest_kernel_parse(name.release, name.version, &k)) {
		selftest_fail(t, SELFTEST_NEWER, "uname says nothing that is a version");
		return;
	}
	bad = selftest_kernel_bad(&k);
	if (bad)
		selftest_fail(t, SELFTEST_NEWER, "%u.%u.%u: %s", k.major, k.minor, k.patch, bad);
	else
		selftest_ok(t, "%u.%u.%u, not known to be bad; the checks below decide", k.major,
			    k.minor, k.patch);
}

void selftest_privileges(struct selftest_bench *b, struct selftest *t)
{
	static const struct {
		unsigned int cap;
		const char *name, *what;
	} caps[] = {
		{CAP_BPF, "CAP_BPF", "load programs"},
		{CAP_NET_ADMIN, "CAP_NET_ADMIN", "attach them to sockets"},
		{CAP_PERFMON, "CAP_PERFMON", "look into kernel structures"},
	};
	char missing[128] = "", purpose[128] = "";
	unsigned int i, nr = 0;

	for (i = 0; i < sizeof(caps) / sizeof(caps[0]); i++) {
		if (privilege_has(caps[i].cap))
			continue;
		/* Three short names and purposes: they fit. */
		strcat(strcat(missing, nr ? ", " : ""), caps[i].name);
		strcat(strcat(purpose, nr ? ", " : ""), caps[i].what);
		nr++;
	}
	if (nr)
		selftest_fail(t,
			      "run as root, or give the service AmbientCapabilities=CAP_BPF "
			      "CAP_NET_ADMIN CAP_PERFMON",
			      "%s %s missing: cannot %s", missing, nr == 1 ? "is" : "are", purpose);
	else
		selftest_ok(t, "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON");
}

void selftest_bpffs(struct selftest_bench *b, struct selftest *t)
{
	char dir[] = BPFFS "/kvpin-selftest-XXXXXX";
	struct statfs fs;

	if (statfs(BPFFS, &fs)) {
		selftest_fail(t, "mount -t bpf bpf " BPFFS, "%s: %s", BPFFS, strerror(errno));
	} else if (fs.f_type != BPF_FS_MAGIC) {
		selftest_fail(t, "mount -t bpf bpf " BPFFS, "%s is not mounted", BPFFS);
	} else if (!mkdtemp(dir)) {
		selftest_fail(t, "let this user write to " BPFFS " (mode, ReadWritePaths=)",
			      "%s cannot be written: %s", BPFFS, strerror(errno));
	} else {
		rmdir(dir);
		selftest_ok(t, "%s, writable", BPFFS);
	}
}

void selftest_btf(struct selftest_bench *b, struct selftest *t)
{
	struct stat st;

	if (access(BTF_FILE, R_OK) || stat(BTF_FILE, &st))
		selftest_fail(t, "use a kernel with CONFIG_DEBUG_INFO_BTF=y", "%s: %s", BTF_FILE,
			      strerror(errno));
	else
		selftest_ok(t, "%s, %lld KiB", BTF_FILE, (long long)st.st_size / 1024);
}

/* The number in a file of /proc/sys; -1: it cannot be read. */
static int sysctl_number(const char *file)
{
	FILE *f = fopen(file, "re");
	int value = -1;

	if (f && fscanf(f, "%d", &value) != 1)
		value = -1;
	if (f)
		fclose(f);
	return value;
}

void selftest_unprivileged(struct selftest_bench *b, struct selftest *t)
{
	static const char file[] = "/proc/sys/kernel/unprivileged_bpf_disabled";
	int value = sysctl_number(file);

	if (value < 0)
		selftest_ok(t, "%s cannot be read", file);
	else
		selftest_ok(t, "kernel.unprivileged_bpf_disabled = %d%s", value,
			    value ? "" : ": every user may load programs");
}

/* What comes from another host for a server at 127.0.0.1 has no route of its own, and takes that
 * of its socket (net/ipv4/ip_input.c). */
void selftest_early_demux(struct selftest_bench *b, struct selftest *t)
{
	static const char fix[] = "sysctl -w net.ipv4.ip_early_demux=1 net.ipv4.tcp_early_demux=1";

	if (!sysctl_number("/proc/sys/net/ipv4/ip_early_demux"))
		selftest_fail(t, fix, "net.ipv4.ip_early_demux = 0");
	else if (!sysctl_number("/proc/sys/net/ipv4/tcp_early_demux"))
		selftest_fail(t, fix, "net.ipv4.tcp_early_demux = 0");
	else
		selftest_ok(t, "packets find their sockets before a route");
}

void selftest_cpus(struct selftest_bench *b, struct selftest *t)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set))
		CPU_ZERO(&set);
	selftest_ok(t, "%ld online, %d for this process", sysconf(_SC_NPROCESSORS_ONLN),
		    CPU_COUNT(&set));
}

void selftest_libbpf(struct selftest_bench *b, struct selftest *t)
{
	selftest_ok(t, "%s", libbpf_version_string());
}
