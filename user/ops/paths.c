/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Steer first: where both are there, they share the table of servers. The one does not need the
 * other. */
#include "ops/paths.h"

#include <errno.h>

#include "base/log.h"
#include "kern/selftest.h"

static int steer_start(struct paths *p, const struct config *c, uid_t uid, gid_t gid, char *why,
		       unsigned int why_bytes)
{
	int rc = -EOPNOTSUPP;

	if (c->path != PATH_AUTO && c->path != PATH_STEER)
		return 0;
	if (selftest_allows(SELFTEST_PATH_STEER, why, why_bytes))
		rc = steer_open(&p->steer, c, uid, gid, why, why_bytes);
	if (!rc || c->path == PATH_STEER || rc == -EBUSY)
		return rc;
	LOG(WARN, "the kernel cannot steer here, the relay moves what it would",
	    F_STR("reason", why));
	why[0] = '\0';
	return 0;
}

static int splice_start(struct paths *p, const struct config *c, uid_t uid, gid_t gid, char *why,
			unsigned int why_bytes)
{
	int rc = -EOPNOTSUPP, backends_fd = p->steer ? kern_backends_fd(steer_kern(p->steer)) : -1;

	if (c->path != PATH_SPLICE && c->path != PATH_AUTO)
		return 0;
	if (selftest_allows(SELFTEST_PATH_SPLICE, why, why_bytes))
		rc = splice_open(&p->splice, c, backends_fd, uid, gid, why, why_bytes);
	if (!rc && p->steer)
		steer_beside_splice(p->steer);
	if (!rc || c->path == PATH_SPLICE || rc == -EBUSY)
		return rc;
	LOG(WARN, "the kernel cannot splice here", F_STR("reason", why));
	why[0] = '\0';
	return 0;
}

int paths_open(struct paths *p, const struct config *c, uid_t uid, gid_t gid, char *why,
	       unsigned int why_bytes)
{
	int rc = steer_start(p, c, uid, gid, why, why_bytes);

	return rc ? rc : splice_start(p, c, uid, gid, why, why_bytes);
}

void paths_close(struct paths *p)
{
	splice_close(p->splice);
	steer_close(p->steer);
	*p = (struct paths){0};
}

const char *paths_text(const struct paths *p)
{
	if (p->steer && p->splice)
		return "steer, splice";
	return p->splice ? "splice" : p->steer ? "steer" : "relay";
}
