# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""HTTP/1.1 messages through kvpin: every framing, both ways, cut anywhere, byte for byte."""
import json
import os
import threading
import time

import pytest

from harness import NO_CHECKS, checksum
from http_help import check_sink, get, post, send_in_two
from rawserver import chunked, pattern, reply, serve_ok

# Around the relay's buffers (16 KiB, 64 KiB, less headroom), the hold, and beyond.
SIZES = [0, 1, 2, 15871, 15872, 15873, 65023, 65024, 65025, 262143, 262144, 262145, 3000000]


# ---- Content-Length


@pytest.mark.parametrize("manner", ["llama", "uvicorn"])
def test_bodies_with_a_length_arrive_whole_both_ways(start, manner):
    kvpin = start.kvpin([start.sim(manner=manner)])
    client = start.client(kvpin)
    for size in SIZES:
        body = pattern(size, 7)
        check_sink(client.request("POST", "/sink", {}, body) if size else
                   client.request("POST", "/sink", {"Content-Length": "0"}), body)
        status, fields, text = client.request("GET", f"/bytes/{size}?seed=3")
        assert (status, fields["content-length"]) == (200, str(size))
        assert text == pattern(size, 3)


def test_a_request_with_a_length_may_be_cut_at_every_byte(start):
    kvpin = start.kvpin([start.sim(manner="uvicorn")])
    client = start.client(kvpin)
    body = os.urandom(40)
    message = post("/sink", body, "X-Session-Id: cut")
    for at in range(1, len(message)):
        send_in_two(client, message, at)
        check_sink(client.answer("POST"), body)


# ---- chunked


CHUNKED_BODY = (b'5;name="v;x"\r\nhello\r\n1;e\r\n \r\n0A\r\nwide world\r\n'
                b"0;last\r\nX-Sum: 1\r\nX-Two: b \r\n\r\n")
CHUNKED_PAYLOAD = b"hello wide world"


def test_a_chunked_request_may_be_cut_at_every_byte(start):
    kvpin = start.kvpin([start.sim(manner="uvicorn")])
    client = start.client(kvpin)
    message = post("/sink", CHUNKED_BODY, "X-Session-Id: cut", framing="chunked")
    for at in range(1, len(message)):
        send_in_two(client, message, at)
        check_sink(client.answer("POST"), CHUNKED_PAYLOAD)


def test_a_chunked_request_may_come_byte_by_byte(start):
    kvpin = start.kvpin([start.sim(manner="llama")])
    client = start.client(kvpin)
    for byte in post("/sink", CHUNKED_BODY, framing="chunked"):
        client.send(bytes([byte]))
    check_sink(client.answer("POST"), CHUNKED_PAYLOAD)


ANSWERS = {
    "length": reply(b"hello wide world", "200 OK", "X-A: 1"),
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n" + CHUNKED_BODY,
    "interim": b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" + reply(b"hello wide world"),
}


@pytest.mark.parametrize("kind", list(ANSWERS))
def test_an_answer_may_be_cut_at_every_byte(start, kind):
    message = ANSWERS[kind]
    points = list(range(1, len(message))) + [None]

    def script(conn):
        for at in points:
            if not conn.read():
                return
            if at is None:
                for byte in message:
                    conn.send(bytes([byte]))
            else:
                send_in_two(conn, message, at)
        conn.ended()

    raw = start.raw(script)
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    for _ in points:
        status, _, body = client.request("GET", "/")
        assert (status, body) == (200, b"hello wide world")
        if kind == "chunked":
            assert client.trailers == [b"X-Sum: 1", b"X-Two: b"]
    assert raw.connections == 1


@pytest.mark.parametrize("chunk", [1, 7, 4096, 65536])
def test_chunked_bodies_of_all_sizes_arrive_whole(start, chunk):
    kvpin = start.kvpin([start.sim(manner="uvicorn")])
    client = start.client(kvpin)
    size = 20000 if chunk < 100 else 2000000
    for seed in range(3):
        status, fields, body = client.request(
            "GET", f"/bytes/{size + seed}?manner=chunked&chunk={chunk}&seed={seed}")
        assert (status, fields["transfer-encoding"]) == (200, "chunked")
        assert body == pattern(size + seed, seed)
        parts = [body[i:i + chunk] for i in range(0, len(body), chunk)]
        client.send(post("/sink", chunked(*parts), framing="chunked"))
        check_sink(client.answer("POST"), body)


def test_echoed_chunks_come_back_while_the_request_is_still_going_up(start):
    kvpin = start.kvpin([start.sim(manner="uvicorn")])
    client = start.client(kvpin)
    client.send(post("/echo", b"", framing="chunked"))
    sent = []
    status = None
    for i in range(20):
        part = os.urandom(100 + 997 * i)
        sent.append(part)
        client.send(b"%x\r\n%s\r\n" % (len(part), part))
        if status is None:
            status, _, _ = client.head()
            got = client.chunks()
        back = b""
        while len(back) < len(part):
            back += next(got)
        assert back == part
    client.send(b"0\r\n\r\n")
    assert (status, list(got)) == (200, [])


def test_chunk_extensions_and_trailers_pass_both_ways_unchanged(start):
    seen = []

    def script(conn):
        while (request := conn.request_head()):
            seen.append(conn.exactly(len(CHUNKED_BODY)))
            assert request.fields["trailer"] == "X-Sum"
            conn.send(b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n"
                      + CHUNKED_BODY)

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS)
    client = start.client(kvpin)
    client.send(post("/", CHUNKED_BODY, "Trailer: X-Sum", framing="chunked"))
    status, fields, _ = client.head()
    assert (status, fields["trailer"]) == (200, "X-Sum")
    assert client.exactly(len(CHUNKED_BODY)) == CHUNKED_BODY
    assert seen == [CHUNKED_BODY]


def test_trailers_of_a_simulated_server_arrive(start):
    kvpin = start.kvpin([start.sim()])
    client = start.client(kvpin)
    status, _, body = client.request("GET", "/trailers")
    trailers = dict(line.decode().split(": ") for line in client.trailers)
    assert (status, json.loads(body)) == (200, {"trailers": True})
    assert trailers == {"x-sim-trailer": "yes", "x-sim-checksum": checksum(body)}


# ---- answers without a length, and without a body


def test_a_close_delimited_answer_ends_the_connection_cleanly(start):
    kvpin = start.kvpin(start.sims(1))
    for size in (0, 1, 15000, 500000):
        client = start.client(kvpin)
        status, fields, body = client.request("GET", f"/bytes/{size}?manner=close&seed=9")
        assert (status, body) == (200, pattern(size, 9))
        assert fields["connection"] == "close"
        assert client.ended() == "fin"
    assert {row["outcome"] for row in kvpin.wait_requests(4)} == {"ok"}


def test_answers_to_head_have_no_body_and_leave_the_connection_usable(start):
    kvpin = start.kvpin(start.sims(1))
    client = start.client(kvpin)
    for query, field in (("", "content-length"), ("?manner=chunked", "transfer-encoding")):
        for _ in range(3):
            status, fields, _ = client.request("HEAD", "/bytes/5000" + query)
            assert status == 200 and field in fields
            assert client.buf == b""
    assert client.request("GET", "/bytes/10")[2] == pattern(10)
    status, _, body = client.request("HEAD", "/bytes/5000?manner=close")
    assert (status, body) == (200, b"")


def test_204_and_304_have_no_body_whatever_their_fields_say(start):
    answers = [b"HTTP/1.1 204 No Content\r\n\r\n",
               b"HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n",
               b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: \"x\"\r\n\r\n",
               b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
               b"HTTP/1.1 304 Not Modified\r\n\r\n"]

    def script(conn):
        for answer in answers:
            conn.read()
            conn.send(answer)
        serve_ok(conn)

    raw = start.raw(script)
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    for answer in answers:
        status, _, body = client.request("GET", "/")
        assert (status, body) == (int(answer[9:12]), b"")
    assert client.request("GET", "/")[2] == b"raw0"
    assert raw.connections == 1


def test_statuses_pass_unchanged(start):
    kvpin = start.kvpin([start.sim(manner="uvicorn")])
    client = start.client(kvpin)
    for status in (200, 201, 204, 205, 206, 301, 304, 400, 404, 418, 429, 500, 503, 599):
        assert client.request("GET", f"/status/{status}")[0] == status


# ---- 1xx and Expect


def test_interim_answers_arrive_before_the_final_one(start):
    kvpin = start.kvpin(start.sims(1))
    client = start.client(kvpin)
    for status in (100, 102, 103):
        client.send(get(f"/status/{status}"))
        interim, fields, _ = client.head()
        assert interim == status
        if status == 103:
            assert fields["link"] == "</style.css>; rel=preload"
        assert client.answer()[0] == 200


def test_many_interim_answers_in_one_segment_arrive_in_order(start):
    def script(conn):
        while conn.read():
            conn.send(b"".join(b"HTTP/1.1 1%02d X\r\nI: %d\r\n\r\n" % (2 + i % 90, i)
                               for i in range(50)) + reply(b"end"))

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS)
    client = start.client(kvpin)
    client.send(get("/"))
    for i in range(50):
        status, fields, _ = client.head()
        assert (status, fields["i"]) == (102 + i % 90, str(i))
    assert client.answer()[2] == b"end"


def test_interim_answers_behind_a_full_client_are_not_forgotten(start):
    """The flush of a 1xx may block with the final answer already read behind it."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: " + b"x" * 3000 + b"\r\n\r\n"
    count = 3000

    def script(conn):
        while conn.read():
            conn.send(hints + reply(b"end"))

    raw = start.raw(script)
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    requests = get("/") * count
    sender = threading.Thread(target=client.sock.sendall, args=(requests,), daemon=True)
    sender.start()
    before = -1
    while before != len(raw.requests):  # until kvpin is stuck at the client's full socket
        before = len(raw.requests)
        time.sleep(0.3)
    assert before < count
    for _ in range(count):
        status, _, body = client.answer()
        assert (status, body) == (200, b"end")
    sender.join(5)


@pytest.mark.parametrize("manner", ["llama", "uvicorn"])
def test_a_client_that_waits_for_100_gets_it_at_once(start, manner):
    kvpin = start.kvpin([start.sim(manner=manner)])
    client = start.client(kvpin)
    body = os.urandom(300000)
    message = post("/sink", body, "Expect: 100-continue")
    head = message[:-len(body)]
    took = []
    for _ in range(3):
        began = time.monotonic()
        client.send(head)
        assert client.head()[0] == 100
        took.append(time.monotonic() - began)
        client.send(body)
        check_sink(client.answer("POST"), body)
    assert sorted(took)[1] < 0.5, took


def test_a_client_that_does_not_wait_for_100_is_served_too(start):
    kvpin = start.kvpin(start.sims(1))
    client = start.client(kvpin)
    for size in (1, 5000, 400000):
        body = os.urandom(size)
        client.send(post("/sink", body, "Expect: 100-continue"))
        assert client.head()[0] == 100
        check_sink(client.answer("POST"), body)


def test_a_refusal_instead_of_100_reaches_the_waiting_client(start):
    def script(conn):
        request = conn.request_head()
        assert request.fields["expect"] == "100-continue"
        conn.send(reply(b"no", "417 Expectation Failed"))
        assert conn.ended(5)
        assert conn.buf == b""

    raw = start.raw(script)
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    client.send(get("/", "Expect: 100-continue", "Content-Length: 100000", method="POST"))
    status, fields, body = client.answer("POST")
    assert (status, body, fields["connection"]) == (417, b"no", "close")
    assert client.ended() == "fin"


def test_a_server_that_needs_no_body_ends_the_exchange_and_no_byte_is_misread(start):
    """200 before the body: what comes of it later must not be taken for a request."""
    def script(conn):
        conn.request_head()
        conn.send(reply(b"early"))
        conn.ended(5)

    raw = start.raw(script)
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    client.send(get("/", "Content-Length: 1000", method="POST"))
    assert client.answer("POST")[2] == b"early"
    try:
        client.send(get("/smuggled"))
    except OSError:
        pass
    assert client.ended() is not None
    assert client.buf == b""
    assert [r.target for r in raw.requests] == ["/"]


# ---- HTTP/1.0


def test_http_1_0_clients_get_plain_bodies_and_a_close(start):
    kvpin = start.kvpin(start.sims(1))
    for size in (0, 1, 100, 15872, 300000):
        for manner in ("cl", "chunked", "close"):
            client = start.client(kvpin)
            client.send(f"GET /bytes/{size}?manner={manner}&chunk=777&seed=5 HTTP/1.0\r\n\r\n")
            _, fields, _ = client.head()
            assert "transfer-encoding" not in fields
            assert fields["connection"] == "close"
            assert client.ended() == "fin"
            assert client.buf == pattern(size, 5)


def test_http_1_0_requests_become_1_1_with_a_host(start):
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS)
    for request in (b"GET /a HTTP/1.0\r\n\r\n",
                    b"GET /b HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
                    b"POST /c HTTP/1.0\r\nHost: named\r\nContent-Length: 3\r\n\r\nabc"):
        client = start.client(kvpin)
        client.send(request)
        assert client.answer()[2] == b"raw0"
        assert client.ended() == "fin"
    assert [r.version for r in raw.requests] == ["HTTP/1.1"] * 3
    assert [r.fields["host"] for r in raw.requests] == [kvpin.text, kvpin.text, "named"]
    assert raw.requests[2].body == b"abc"


def test_http_1_0_clients_get_no_interim_answers_and_no_trailers(start):
    kvpin = start.kvpin(start.sims(1))
    client = start.client(kvpin)
    client.send("GET /status/103 HTTP/1.0\r\n\r\n")
    assert client.head()[0] == 200
    client = start.client(kvpin)
    client.send("GET /trailers HTTP/1.0\r\n\r\n")
    client.head()
    assert client.ended() == "fin"
    assert client.buf == b'{"trailers":true}'


def test_a_dechunked_answer_may_be_cut_at_every_byte(start):
    message = ANSWERS["chunked"]
    cuts = iter(range(1, len(message)))

    def script(conn):
        conn.read()
        send_in_two(conn, message, next(cuts))
        conn.ended()

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS)
    for _ in range(1, len(message)):
        client = start.client(kvpin)
        client.send("GET / HTTP/1.0\r\n\r\n")
        client.head()
        assert client.ended() == "fin"
        assert client.buf == CHUNKED_PAYLOAD


def test_an_http_1_0_answer_becomes_1_1(start):
    """RFC 9112 2.3: a proxy sends its own version; and the client's connection stays open."""
    def script(conn):
        conn.read()
        conn.send(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    raw = start.raw(script)
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    for count in (1, 2):
        client.send(get("/"))
        status, fields, head = client.head()
        assert (status, fields["content-length"]) == (200, "2")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert client.exactly(2) == b"hi"
        assert raw.connections == count
