/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Session key -> session id. The id is XXH64 (seed 0) of the key, zero-padded to 256 bytes: the
 * fixed length is what lets the same xxhash.h verify as BPF, so that the kernel and the daemon
 * agree by construction. A longer key is hashed whole, by the daemon only.
 */
#ifndef KVPIN_KEY_H
#define KVPIN_KEY_H

#include "kvpin_types.h"

#ifdef __bpf__
/* Whole words are loaded as such: clang would put them together from bytes. */
#define XXH_FORCE_MEMORY_ACCESS 2
#endif
#define XXH_INLINE_ALL
#define XXH_NO_STREAM
#include <xxhash.h>

#define KVPIN_KEY_BYTES 256

/**
 * kvpin_key_hash_padded() - hash of a key that fits
 * @key: the key's bytes, the rest of the 256 zero
 */
static __always_inline __u64 kvpin_key_hash_padded(const __u8 key[KVPIN_KEY_BYTES])
{
	return XXH64(key, KVPIN_KEY_BYTES, 0);
}

#ifndef __bpf__
/**
 * kvpin_key_hash() - hash of any key
 * @key: the key's bytes, not zero-terminated; may be NULL when len is 0
 * @len: their number
 */
static inline __u64 kvpin_key_hash(const __u8 *key, __u64 len)
{
	__u8 padded[KVPIN_KEY_BYTES];

	if (len > KVPIN_KEY_BYTES)
		return XXH64(key, len, 0);
	if (len) /* memcpy() may not see NULL even then */
		__builtin_memcpy(padded, key, len);
	__builtin_memset(padded + len, 0, KVPIN_KEY_BYTES - len);
	return kvpin_key_hash_padded(padded);
}
#endif

#endif
