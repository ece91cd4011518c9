/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The limit of file descriptors: raised as far as it goes, and a word where that is not enough.
 */
#include "ops/files.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#include "base/log.h"

/* Descriptors besides clients and servers: listeners and loops of each worker, checks, exporter,
 * control, standard streams. */
#define FILES_FIXED	 192
#define FILES_PER_WORKER 16

void files_raise(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) || rl.rlim_cur >= rl.rlim_max)
		return;
	rl.rlim_cur = rl.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &rl))
		LOG(WARN, "cannot raise the file descriptor limit",
		    F_STR("error", strerror(errno)));
}

void files_warn(const struct config *c)
{
	/* A client and the server it talks to. */
	uint64_t need =
		2ULL * c->limit.connections + FILES_FIXED + (uint64_t)FILES_PER_WORKER * c->workers;
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) || rl.rlim_cur >= need)
		return;
	LOG(WARN, "too few file descriptors for limits.connections",
	    F_UINT("connections", c->limit.connections), F_UINT("needed", need),
	    F_UINT("allowed", rl.rlim_cur),
	    F_STR("fix", "raise the hard limit (ulimit -Hn, LimitNOFILE=)"));
}
