/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Known field names: the ones that the parser acts on, and the operator's session headers. The
 * table is plain data, filled once by the daemon and looked up by both worlds.
 */
#ifndef KVPIN_HTTP_NAMES_H
#define KVPIN_HTTP_NAMES_H

#include "kvpin_http_text.h"

/* Fields that the parser understands. Session headers follow, in the operator's order. */
enum kvpin_field {
	KVPIN_FIELD_OTHER,
	KVPIN_FIELD_HOST,
	KVPIN_FIELD_CONTENT_LENGTH,
	KVPIN_FIELD_TRANSFER_ENCODING,
	KVPIN_FIELD_CONTENT_TYPE,
	KVPIN_FIELD_EXPECT,
	KVPIN_FIELD_CONNECTION,
	KVPIN_FIELD_KEEP_ALIVE,
	KVPIN_FIELD_PROXY_CONNECTION,
	KVPIN_FIELD_TE,
	KVPIN_FIELD_UPGRADE,
	KVPIN_FIELD_KEY0,
	KVPIN_FIELD_NR = KVPIN_FIELD_KEY0 + 8
};

#define KVPIN_KEY_HEADERS_MAX (KVPIN_FIELD_NR - KVPIN_FIELD_KEY0)
#define KVPIN_KEY_NONE	      0xff

/* Longest field name that is ever looked for; in use in the field: up to 43 characters. */
#define KVPIN_NAME_BYTES 48
#define KVPIN_NAME_WORDS (KVPIN_NAME_BYTES / 8)

/* One known name: lower case, zero-padded, as words, so that a comparison is a few XORs. */
struct kvpin_name {
	__u32 len;
	__u16 field; /* enum kvpin_field */
	__u8 next;   /* 1 + index of another name of this length; 0: none */
	__u8 pad;
	__u64 word[KVPIN_NAME_WORDS];
};

/* All known names of one configuration; plain data, so that it can be a BPF map's value. */
struct kvpin_names {
	__u32 nr;
	__u8 pad[3];
	__u8 first[KVPIN_NAME_BYTES + 1]; /* by length: as kvpin_name.next; most lengths: none */
	struct kvpin_name name[KVPIN_FIELD_NR];
};

/* Which known field is the name at off (n bytes, all tchars)? OR 0x20 is an exact case fold for
 * the characters that known names may have (letters, digits, '-', '_'): no other tchar lands on
 * one of them. */
static __always_inline __u8 kvpin_names_find(const struct kvpin_names *names, const __u8 *buf,
					     __u32 len, __u32 off, __u32 n)
{
	const __u8 *run = kvpin_run(buf, off);
	__u32 at, i, k;

	n = kvpin_forget(buf, n);
	if (n > KVPIN_NAME_BYTES)
		return KVPIN_FIELD_OTHER;
	at = names->first[n];
	for (i = 0; i < KVPIN_FIELD_NR && at; i++) {
		const struct kvpin_name *name;
		__u64 differ = 0;

		at--;
		kvpin_opaque(at);
		if (at >= KVPIN_FIELD_NR)
			break;
		name = &names->name[at];
		/* name->len is n; but a fresh load, so the verifier need not follow n through here. */
		for (k = 0; k < KVPIN_NAME_WORDS && k * 8 < name->len; k++)
			differ |= name->word[k] ^
				  kvpin_low_bytes(kvpin_run_word(run, k, buf, off + k * 8, len) |
							  KVPIN_CASE,
						  name->len - k * 8);
		if (!differ)
			return (__u8)name->field;
		at = name->next;
	}
	return KVPIN_FIELD_OTHER;
}

/**
 * kvpin_names_add() - make a field name known
 * @names: table; zeroed before the first call
 * @text: the name, any case; letters, digits, '-' and '_' only
 * @len: its length in bytes
 * @field: what to call it: an enum kvpin_field; session headers take KVPIN_FIELD_KEY0 + rank
 *
 * Returns 0, or -1 when the name is empty, over KVPIN_NAME_BYTES, has another character, stands
 * in the table already, or the table is full.
 */
static inline int kvpin_names_add(struct kvpin_names *names, const char *text, __u32 len,
				  __u32 field)
{
	struct kvpin_name fresh = {.len = len, .field = (__u16)field};
	__u32 i, k;

	if (!len || len > KVPIN_NAME_BYTES || names->nr >= KVPIN_FIELD_NR ||
	    field >= KVPIN_FIELD_NR)
		return -1;
	for (i = 0; i < len; i++) {
		__u8 c = (__u8)text[i];

		if (!kvpin_is_tchar(c) || ((c | 0x20) < 'a' && (c < '0' || c > '9') && c != '-' &&
					   c != '_') || (c | 0x20) == '|' || (c | 0x20) == '~')
			return -1;
		fresh.word[i / 8] |= (__u64)(c | 0x20) << (i % 8 * 8);
	}
	for (i = 0; i < names->nr; i++) {
		__u64 differ = names->name[i].len ^ len;

		for (k = 0; k < KVPIN_NAME_WORDS; k++)
			differ |= names->name[i].word[k] ^ fresh.word[k];
		if (!differ)
			return -1;
	}
	fresh.next = names->first[len];
	names->name[names->nr++] = fresh;
	names->first[len] = (__u8)names->nr;
	return 0;
}

/**
 * kvpin_names_init() - a table with the fields that the parser itself needs
 * @names: table, owned by the caller; all of it is set
 */
static inline void kvpin_names_init(struct kvpin_names *names)
{
	__builtin_memset(names, 0, sizeof(*names));
	kvpin_names_add(names, "host", 4, KVPIN_FIELD_HOST);
	kvpin_names_add(names, "content-length", 14, KVPIN_FIELD_CONTENT_LENGTH);
	kvpin_names_add(names, "transfer-encoding", 17, KVPIN_FIELD_TRANSFER_ENCODING);
	kvpin_names_add(names, "content-type", 12, KVPIN_FIELD_CONTENT_TYPE);
	kvpin_names_add(names, "expect", 6, KVPIN_FIELD_EXPECT);
	kvpin_names_add(names, "connection", 10, KVPIN_FIELD_CONNECTION);
	kvpin_names_add(names, "keep-alive", 10, KVPIN_FIELD_KEEP_ALIVE);
	kvpin_names_add(names, "proxy-connection", 16, KVPIN_FIELD_PROXY_CONNECTION);
	kvpin_names_add(names, "te", 2, KVPIN_FIELD_TE);
	kvpin_names_add(names, "upgrade", 7, KVPIN_FIELD_UPGRADE);
}

#endif
