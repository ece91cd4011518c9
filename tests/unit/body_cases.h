/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Message framings and chunked bodies, good and bad. See http_case.h.
 */
#ifndef BODY_CASES_H
#define BODY_CASES_H

#include "http_case.h"

#define CHUNKED(text) BYTES(text), .body_only = 1
#define REFUSED(id, n) .error = KVPIN_HTTP_##id, .body_state = KVPIN_BS_BAD, .walked = (n)
#define WHOLE(n, payload_, events_) .body_state = KVPIN_BS_DONE, .walked = (n), \
	.payload = (payload_), .events = (events_)
#define GOES_ON(state, n, payload_, events_) .partial = 1, .body_state = KVPIN_BS_##state, \
	.walked = (n), .payload = (payload_), .events = (events_)
#define TO(method_) .kind = KVPIN_RESPONSE, .answers = KVPIN_METHOD_##method_
#define ANSWER_200 "HTTP/1.1 200 OK\r\n"
#define LENGTH_5 "Content-Length: 5\r\n\r\n"
#define IN_CHUNKS "Transfer-Encoding: chunked\r\n\r\n"
#define SIZE_15 "000000000000005"
#define CASE_BYTES(literal) (sizeof(literal) - 1)

static const struct http_case body_cases[] = {
	/* clang-format off */
	/* Which framing: RFC 9112 6.3. */
	{"a_request_without_framing_has_no_body", BYTES("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET"), WHOLE(0, 0, 0)},
	{"a_length_counts_the_body", BYTES("POST / HTTP/1.1\r\nHost: a\r\n" LENGTH_5 "01234GET"), WHOLE(5, 5, 1)},
	{"a_length_counts_the_body", BYTES("POST / HTTP/1.1\r\nHost: a\r\n" LENGTH_5 "0123"), GOES_ON(COUNTED, 4, 4, 1)},
	{"a_length_counts_the_body", BYTES("POST / HTTP/1.1\r\nHost: a\r\n" LENGTH_5), GOES_ON(COUNTED, 0, 0, 0)},
	{"a_length_counts_the_body", BYTES("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET"), WHOLE(0, 0, 0)},
	{"a_length_counts_the_body", BYTES(ANSWER_200 LENGTH_5 "01234HTTP"), TO(GET), WHOLE(5, 5, 1)},
	{"a_length_counts_the_body", BYTES("HTTP/1.0 200 OK\r\n" LENGTH_5 "01234HTTP"), TO(POST), WHOLE(5, 5, 1)},
	{"a_chunked_body_follows_its_head", BYTES("POST / HTTP/1.1\r\nHost: a\r\n" IN_CHUNKS "1\r\na\r\n0\r\n\r\nGET"), WHOLE(11, 1, 1)},
	{"a_chunked_body_follows_its_head", BYTES(ANSWER_200 IN_CHUNKS "1\r\na\r\n0\r\n\r\nHTTP"), TO(GET), WHOLE(11, 1, 1)},
	{"the_answer_to_head_has_no_body", BYTES(ANSWER_200 LENGTH_5 "HTTP"), TO(HEAD), WHOLE(0, 0, 0)},
	{"the_answer_to_head_has_no_body", BYTES(ANSWER_200 IN_CHUNKS "HTTP"), TO(HEAD), WHOLE(0, 0, 0)},
	{"the_answer_to_head_has_no_body", BYTES(ANSWER_200 "\r\nHTTP"), TO(HEAD), WHOLE(0, 0, 0)},
	{"204_304_and_1xx_have_no_body", BYTES("HTTP/1.1 204 No Content\r\n" LENGTH_5 "HTTP"), TO(GET), WHOLE(0, 0, 0)},
	{"204_304_and_1xx_have_no_body", BYTES("HTTP/1.1 204 No Content\r\n" IN_CHUNKS "HTTP"), TO(GET), WHOLE(0, 0, 0)},
	{"204_304_and_1xx_have_no_body", BYTES("HTTP/1.1 304 Not Modified\r\n" LENGTH_5 "HTTP"), TO(GET), WHOLE(0, 0, 0)},
	{"204_304_and_1xx_have_no_body", BYTES("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), TO(POST), WHOLE(0, 0, 0)},
	{"204_304_and_1xx_have_no_body", BYTES("HTTP/1.1 103 Early Hints\r\n" LENGTH_5 "HTTP"), TO(POST), WHOLE(0, 0, 0)},
	{"204_304_and_1xx_have_no_body", BYTES("HTTP/1.1 199 A\r\n\r\n"), TO(POST), WHOLE(0, 0, 0)},
	{"205_and_303_are_ordinary", BYTES("HTTP/1.1 205 A\r\n" LENGTH_5 "01234"), TO(POST), WHOLE(5, 5, 1)},
	{"205_and_303_are_ordinary", BYTES("HTTP/1.1 303 A\r\n" LENGTH_5 "01234"), TO(POST), WHOLE(5, 5, 1)},
	{"101_begins_a_tunnel", BYTES("HTTP/1.1 101 Switching Protocols\r\n" LENGTH_5 "0123456789"), TO(GET), GOES_ON(TUNNEL, 10, 10, 0)},
	{"a_2xx_to_connect_begins_a_tunnel", BYTES("HTTP/1.1 200 OK\r\n" LENGTH_5 "0123456789"), TO(CONNECT), GOES_ON(TUNNEL, 10, 10, 0)},
	{"a_2xx_to_connect_begins_a_tunnel", BYTES("HTTP/1.1 299 OK\r\n" IN_CHUNKS "zz"), TO(CONNECT), GOES_ON(TUNNEL, 2, 2, 0)},
	{"a_refused_connect_is_ordinary", BYTES("HTTP/1.1 300 A\r\n" LENGTH_5 "01234HTTP"), TO(CONNECT), WHOLE(5, 5, 1)},
	{"a_refused_connect_is_ordinary", BYTES("HTTP/1.1 100 A\r\n\r\nHTTP"), TO(CONNECT), WHOLE(0, 0, 0)},
	{"an_answer_without_framing_lasts_until_the_close", BYTES(ANSWER_200 "\r\n0\r\n\r\nHTTP"), TO(GET), GOES_ON(CLOSE, 9, 9, 1)},
	{"an_answer_without_framing_lasts_until_the_close", BYTES("HTTP/1.0 200 OK\r\n\r\n"), TO(GET), GOES_ON(CLOSE, 0, 0, 0)},
	{"the_keep_alive_trap_is_no_terminator", BYTES(ANSWER_200 "Transfer-Encoding: chunked\r\nKeep-Alive: timeout=5, max=100\r\n\r\n"),
		TO(POST), GOES_ON(SIZE, 0, 0, 0)},
	{"the_keep_alive_trap_is_no_terminator", BYTES(ANSWER_200 "Transfer-Encoding: chunked\r\nKeep-Alive: timeout=5, max=100\r\n\r\n"
		"3\r\n:\n\n\r\n7\r\n0\r\n\r\n0\r\r\n0\r\n\r\n"), TO(POST), WHOLE(8 + 12 + 5, 10, 1)},

	/* Chunk sizes. */
	{"a_chunked_body_is_walked", CHUNKED("0\r\n\r\n"), WHOLE(5, 0, 0)},
	{"a_chunked_body_is_walked", CHUNKED("0\r\n\r\n0\r\n\r\n"), WHOLE(5, 0, 0)},
	{"a_chunked_body_is_walked", CHUNKED("9\r\n{\"model\":\r\n4\r\n\"m\"}\r\n0\r\n\r\n"), WHOLE(28, 13, 2)},
	{"a_chunked_body_is_walked", CHUNKED("5\r\n\r\n0\r\n\r\n0\r\n\r\n"), WHOLE(15, 5, 1)},
	{"a_chunk_size_is_hexadecimal", CHUNKED("a\r\n0123456789\r\n0\r\n\r\n"), WHOLE(20, 10, 1)},
	{"a_chunk_size_is_hexadecimal", CHUNKED("A\r\n0123456789\r\n0\r\n\r\n"), WHOLE(20, 10, 1)},
	{"a_chunk_size_is_hexadecimal", CHUNKED("1f\r\n"), GOES_ON(CHUNK, 4, 0, 0)},
	{"a_chunk_size_is_hexadecimal", CHUNKED("fffffffffffffff\r\nabc"), GOES_ON(CHUNK, 20, 3, 1)},
	{"a_chunk_size_is_hexadecimal", CHUNKED("FFFFFFFFFFFFFFF\r\n"), GOES_ON(CHUNK, 17, 0, 0)},
	{"a_chunk_size_has_15_digits_at_most", CHUNKED(SIZE_15 "\r\n01234\r\n0\r\n\r\n"), WHOLE(29, 5, 1)},
	{"a_chunk_size_has_15_digits_at_most", CHUNKED("0" SIZE_15 "\r\n01234\r\n0\r\n\r\n"), REFUSED(CHUNK_SIZE, 16)},
	{"a_chunk_size_has_15_digits_at_most", CHUNKED("000000000000000\r\n\r\n"), WHOLE(19, 0, 0)},
	{"a_chunk_size_has_15_digits_at_most", CHUNKED("0000000000000000\r\n\r\n"), REFUSED(CHUNK_SIZE, 16)},
	{"a_chunk_size_has_15_digits_at_most", CHUNKED("10000000000000000\r\n"), REFUSED(CHUNK_SIZE, 16)},
	{"a_bad_chunk_size_is_refused", CHUNKED("\r\n"), REFUSED(CHUNK_SIZE, 1)},
	{"a_bad_chunk_size_is_refused", CHUNKED(";a\r\n"), REFUSED(CHUNK_SIZE, 1)},
	{"a_bad_chunk_size_is_refused", CHUNKED("g\r\n"), REFUSED(CHUNK_SIZE, 1)},
	{"a_bad_chunk_size_is_refused", CHUNKED("G\r\n"), REFUSED(CHUNK_SIZE, 1)},
	{"a_bad_chunk_size_is_refused", CHUNKED("@\r\n"), REFUSED(CHUNK_SIZE, 1)},
	{"a_bad_chunk_size_is_refused", CHUNKED("/\r\n"), REFUSED(CHUNK_SIZE, 1)},
	{"a_bad_chunk_size_is_refused", CHUNKED(":\r\n"), REFUSED(CHUNK_SIZE, 1)},
	{"a_bad_chunk_size_is_refused", CHUNKED("\021\r\n"), REFUSED(CHUNK_SIZE, 1)},
	{"a_bad_chunk_size_is_refused", CHUNKED("\260\r\n"), REFUSED(CHUNK_SIZE, 1)},
	{"a_bad_chunk_size_is_refused", CHUNKED("-1\r\n"), REFUSED(CHUNK_SIZE, 1)},
	{"a_bad_chunk_size_is_refused", CHUNKED("+1\r\n"), REFUSED(CHUNK_SIZE, 1)},
	{"a_bad_chunk_size_is_refused", CHUNKED(" 1\r\n"), REFUSED(CHUNK_SIZE, 1)},
	{"a_bad_chunk_size_is_refused", CHUNKED("1 \r\na\r\n"), REFUSED(CHUNK_SIZE, 2)},
	{"a_bad_chunk_size_is_refused", CHUNKED("1\t\r\na\r\n"), REFUSED(CHUNK_SIZE, 2)},
	{"a_bad_chunk_size_is_refused", CHUNKED("0x1\r\na\r\n"), REFUSED(CHUNK_SIZE, 2)},
	{"a_bad_chunk_size_is_refused", CHUNKED("1\na\r\n"), REFUSED(CHUNK_SIZE, 2)},
	{"a_bad_chunk_size_is_refused", CHUNKED("1\ra\r\n"), REFUSED(CHUNK_SIZE, 3)},
	{"a_bad_chunk_size_is_refused", CHUNKED("1\000\r\n"), REFUSED(CHUNK_SIZE, 2)},
	{"a_chunk_ends_in_cr_lf", CHUNKED("1\r\na\n0\r\n\r\n"), .payload = 1, .events = 1, REFUSED(CHUNK_END, 5)},
	{"a_chunk_ends_in_cr_lf", CHUNKED("1\r\nab\r\n0\r\n\r\n"), .payload = 1, .events = 1, REFUSED(CHUNK_END, 5)},
	{"a_chunk_ends_in_cr_lf", CHUNKED("1\r\na\rb"), .payload = 1, .events = 1, REFUSED(CHUNK_END, 6)},
	{"a_chunk_ends_in_cr_lf", CHUNKED("1\r\na0\r\n\r\n"), .payload = 1, .events = 1, REFUSED(CHUNK_END, 5)},
	{"the_last_line_ends_in_cr_lf", CHUNKED("0\r\n\ra"), REFUSED(CHUNK_END, 5)},
	{"the_last_line_ends_in_cr_lf", CHUNKED("0\r\n\n"), REFUSED(TRAILER, 4)},

	/* Extensions and trailers. */
	{"extensions_are_let_through", CHUNKED("1;a=b\r\nx\r\n0;c=\"d e\"\r\n\r\n"), WHOLE(23, 1, 1)},
	{"extensions_are_let_through", CHUNKED("1;\303\244\t;b\r\nx\r\n0\r\n\r\n"), WHOLE(17, 1, 1)},
	{"controls_in_an_extension_are_refused", CHUNKED("1;a\nx\r\n0\r\n\r\n"), REFUSED(CHUNK_EXT, 4)},
	{"controls_in_an_extension_are_refused", CHUNKED("1;a\000\r\n"), REFUSED(CHUNK_EXT, 4)},
	{"controls_in_an_extension_are_refused", CHUNKED("1;\177\r\n"), REFUSED(CHUNK_EXT, 3)},
	{"controls_in_an_extension_are_refused", CHUNKED("1;a\rb\r\n"), REFUSED(CHUNK_SIZE, 5)},
	{"trailers_are_passed_over", CHUNKED("1\r\na\r\n0\r\nA: b\r\nC:\r\n\r\nGET"), WHOLE(21, 1, 1)},
	{"trailers_are_passed_over", CHUNKED("0\r\nContent-Length: 9\r\n\r\nGET"), WHOLE(24, 0, 0)},
	{"trailers_are_passed_over", CHUNKED("0\r\na: \t\344 b\t\r\n\r\n"), WHOLE(15, 0, 0)},
	{"bad_trailers_are_refused", CHUNKED("0\r\nA\r\n\r\n"), REFUSED(TRAILER, 5)},
	{"bad_trailers_are_refused", CHUNKED("0\r\n: a\r\n\r\n"), REFUSED(TRAILER, 4)},
	{"bad_trailers_are_refused", CHUNKED("0\r\nA : a\r\n\r\n"), REFUSED(TRAILER, 5)},
	{"bad_trailers_are_refused", CHUNKED("0\r\nA: a\r\n b\r\n\r\n"), REFUSED(TRAILER, 10)},
	{"bad_trailers_are_refused", CHUNKED("0\r\nA: a\nB: b\r\n\r\n"), REFUSED(TRAILER, 8)},
	{"bad_trailers_are_refused", CHUNKED("0\r\nA: a\rB: b\r\n\r\n"), REFUSED(TRAILER, 9)},
	{"bad_trailers_are_refused", CHUNKED("0\r\nA: \000\r\n\r\n"), REFUSED(TRAILER, 7)},
	{"bad_trailers_are_refused", CHUNKED("0\r\nGET / HTTP/1.1\r\n"), REFUSED(TRAILER, 7)},

	/* Where the input may stop. */
	{"a_body_goes_on_where_it_stopped", CHUNKED("1"), GOES_ON(SIZE_MORE, 1, 0, 0)},
	{"a_body_goes_on_where_it_stopped", CHUNKED("1;a"), GOES_ON(EXT, 3, 0, 0)},
	{"a_body_goes_on_where_it_stopped", CHUNKED("1\r"), GOES_ON(SIZE_LF, 2, 0, 0)},
	{"a_body_goes_on_where_it_stopped", CHUNKED("2\r\na"), GOES_ON(CHUNK, 4, 1, 1)},
	{"a_body_goes_on_where_it_stopped", CHUNKED("1\r\na"), GOES_ON(CHUNK_CR, 4, 1, 1)},
	{"a_body_goes_on_where_it_stopped", CHUNKED("1\r\na\r"), GOES_ON(CHUNK_LF, 5, 1, 1)},
	{"a_body_goes_on_where_it_stopped", CHUNKED("1\r\na\r\n"), GOES_ON(SIZE, 6, 1, 1)},
	{"a_body_goes_on_where_it_stopped", CHUNKED("0\r\n"), GOES_ON(TRAILER, 3, 0, 0)},
	{"a_body_goes_on_where_it_stopped", CHUNKED("0\r\nA"), GOES_ON(TRAILER_NAME, 4, 0, 0)},
	{"a_body_goes_on_where_it_stopped", CHUNKED("0\r\nA:"), GOES_ON(TRAILER_VALUE, 5, 0, 0)},
	{"a_body_goes_on_where_it_stopped", CHUNKED("0\r\nA:\r"), GOES_ON(TRAILER_LF, 6, 0, 0)},
	{"a_terminator_may_be_split", CHUNKED("0\r\n\r"), GOES_ON(END_LF, 4, 0, 0)},

	/* Events. */
	{"comments_are_no_events", CHUNKED("3\r\n:\n\n\r\n0\r\n\r\n"), WHOLE(13, 3, 0)},
	{"comments_are_no_events", CHUNKED("3\r\n:\n\n\r\n1\r\na\r\n3\r\n:\n\n\r\n1\r\nb\r\n0\r\n\r\n"), WHOLE(33, 8, 2)},
	{"comments_are_no_events", BYTES(ANSWER_200 LENGTH_5 ":0123"), TO(GET), WHOLE(5, 5, 0)},
	{"comments_are_no_events", BYTES(ANSWER_200 "\r\n:"), TO(GET), GOES_ON(CLOSE, 1, 1, 0)},
	{"an_event_is_counted_once_however_it_is_cut", CHUNKED("5\r\na:b:c\r\n0\r\n\r\n"), WHOLE(15, 5, 1)},
	/* clang-format on */
};

#define BODY_CASES_BUILT 8

static inline void body_cases_build(struct http_case out[BODY_CASES_BUILT])
{
	struct http_case c = {.name = "a_size_line_has_1024_bytes_at_most", .body_only = 1};

	c.walked = 1028;
	*out++ = http_case_built(c, "0;", "e", 1022, "\r\n\r\n");
	c.walked = 1029;
	*out++ = http_case_built(c, "0;", "e", 1023, "\r\n\r\n");
	c.walked = 1026;
	c.error = KVPIN_HTTP_CHUNK_EXT;
	c.body_state = KVPIN_BS_BAD;
	*out++ = http_case_built(c, "0;", "e", 1024, "\r\n\r\n");
	c.walked = 1026;
	*out++ = http_case_built(c, "0;", "e", 2000, "");

	c = (struct http_case){.name = "trailers_have_8192_bytes_at_most", .body_only = 1};
	c.walked = 3 + 8192 + 2 + 2;
	*out++ = http_case_built(c, "0\r\na:", "t", 8190, "\r\n\r\n");
	c.walked = 3 + 2048 * 6 + 2;
	*out++ = http_case_built(c, "0\r\n", "a:bc\r\n", 2048, "\r\n");
	c.error = KVPIN_HTTP_TRAILER;
	c.body_state = KVPIN_BS_BAD;
	c.walked = 3 + 8193;
	*out++ = http_case_built(c, "0\r\na:", "t", 8191, "\r\n\r\n");
	c.walked = 3 + 2048 * 6 + 1;
	*out++ = http_case_built(c, "0\r\n", "a:bc\r\n", 2049, "\r\n");
}

#endif
