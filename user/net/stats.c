/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Label texts of the statistics. */
#include "net/stats.h"

const char *const stat_outcome_names[OUTCOME_NR] = {
#define X(id, text) text,
	STAT_OUTCOMES(X)
#undef X
};

const char *const stat_refusal_names[KVPIN_REFUSED_NR] = {
	[KVPIN_REFUSED_NONE] = "none",
#define X(id, text) [KVPIN_REFUSED_##id] = text,
	KVPIN_REFUSALS(X)
#undef X
};

const char *const stat_splice_refusal_names[KVPIN_SPLICE_REFUSED_NR] = {
#define X(id, text) text,
	KVPIN_SPLICE_REFUSALS(X)
#undef X
};

const char *const stat_http_error_names[KVPIN_HTTP_NR] = {
#define X(id, text) text,
	KVPIN_HTTP_ERRORS(X)
#undef X
};

const char *const stat_path_names[STAT_PATH_NR] = {"relay", "steer", "splice"};
