/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What test_parser_bpf.c and parser.bpf.c agree on: the order for one run and its result.
 */
#ifndef PARSER_SHARED_H
#define PARSER_SHARED_H

#include "kvpin_http_head.h"
#include "kvpin_http_body.h"

/* The test run's packet: an Ethernet header that nobody reads, then the bytes to parse. */
#define PARSER_L2_BYTES	   14
#define PARSER_INPUT_BYTES 4096

struct parser_order {
	__u32 len;	    /* bytes to parse */
	__u32 cut;	    /* parse up to here first, then on from the stored state; 0: at once */
	__u32 from_map;	    /* bytes stand in the input map, not in the packet */
	__u32 limit_bytes;  /* 0: the parser's own limits */
	__u16 limit_fields; /* with limit_bytes only */
	__u8 kind;	    /* enum kvpin_head_kind */
	__u8 method;	    /* of the request, for a response */
	__u8 body_only;	    /* the bytes are a chunked body */
	__u8 head_only;	    /* no body walk, for timing the head alone */
	__u8 pad[2];
};

struct parser_result {
	struct kvpin_head head;
	struct kvpin_body body;
	__u64 key_hash; /* 0: no key, or one over KVPIN_KEY_BYTES */
	__u32 walked;	/* body bytes passed behind the head */
	__s32 step;	/* of the head */
};

#endif
