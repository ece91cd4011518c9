/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What surrounds a reload: other threads ask the main thread for one and wait for the answer, and
 * a new configuration is compared with what the running parts cannot take over. The reload itself
 * is the daemon's (ops/daemon.c).
 */
#ifndef OPS_RELOAD_H
#define OPS_RELOAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "core/config.h"

#define RELOAD_TEXT_MAX 512

struct reload {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	uint64_t asked, answered;
	bool closing;
	int answer;
	char answer_text[RELOAD_TEXT_MAX];
};

void reload_init(struct reload *r);
void reload_fini(struct reload *r);

/**
 * reload_ask() - from any thread but the main one: have it reload, and wait
 * @wake: of the main thread's loop; its callback calls reload_answer()
 * @text: a note or an empty text, or what went wrong
 *
 * Returns what the reload returned, or -ESHUTDOWN after reload_close().
 */
int reload_ask(struct reload *r, uv_async_t *wake, char *text, unsigned int bytes);

/** reload_answer() - on the main thread: call @reload once for all that have asked, if any, and
 * tell them what it said (0 or -errno; its text is at most RELOAD_TEXT_MAX bytes) */
void reload_answer(struct reload *r, int (*reload)(void *arg, char *text, unsigned int bytes),
		   void *arg);

/** reload_close() - send home who waits, and who asks from now on */
void reload_close(struct reload *r);

/** reload_note_restarts() - append to @text what of @c the parts that were started with @old do
 * not take over without a restart */
void reload_note_restarts(const struct config *old, const struct config *c, char *text,
			  unsigned int bytes);

#endif
