# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""HTTP/1.1 messages through kvpin: every framing, both ways, cut anywhere, byte for byte."""
import json
import os
import signal
import socket
import threading
import time

import pytest
import xxhash

from rawserver import chunked, pattern, reply, serve_ok

NO_CHECKS = ("--health-interval", "off")
# A segment of its own: long enough that kvpin has read what came before.
GAP = 0.0015
# Around the relay's buffers (16 KiB, 64 KiB, less headroom), the hold, and beyond.
SIZES = [0, 1, 2, 15871, 15872, 15873, 65023, 65024, 65025, 262143, 262144, 262145, 3000000]


def xxh(data):
    return xxhash.xxh64(data).hexdigest()


def post(path, body, *fields, framing="cl"):
    lines = [f"POST {path} HTTP/1.1", "Host: test", *fields]
    if framing == "cl":
        lines.append(f"Content-Length: {len(body)}")
    else:
        lines.append("Transfer-Encoding: chunked")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def get(path, *fields, method="GET"):
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: test", *fields]).encode() + b"\r\n\r\n"


def send_in_two(client, data, at):
    client.send(data[:at])
    time.sleep(GAP)
    client.send(data[at:])


def check_sink(answer, body):
    status, _, text = answer
    assert status == 200
    assert json.loads(text)["bytes"] == len(body)
    assert json.loads(text)["xxh64"] == xxh(body)


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
    assert trailers == {"x-sim-trailer": "yes", "x-sim-checksum": xxh(body)}


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
    for _ in range(3):
        began = time.monotonic()
        client.send(head)
        status, _, _ = client.head()
        assert status == 100 and time.monotonic() - began < 0.5
        client.send(body)
        check_sink(client.answer("POST"), body)


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


# ---- pipelining


@pytest.mark.parametrize("manner", ["llama", "uvicorn"])
def test_pipelined_requests_in_one_segment_are_all_answered_in_order(start, manner):
    kvpin = start.kvpin(start.sims(3, manner))
    client = start.client(kvpin)
    sizes = [(i * 7919) % 3000 for i in range(60)]
    client.send(b"".join(get(f"/bytes/{size}?seed={i}", f"X-Session-Id: s{i % 5}")
                         for i, size in enumerate(sizes)))
    for i, size in enumerate(sizes):
        assert client.answer()[2] == pattern(size, i)
    assert len(kvpin.wait_requests(60)) == 60


def test_pipelined_requests_with_bodies_keep_their_boundaries(start):
    kvpin = start.kvpin(start.sims(2))
    client = start.client(kvpin)
    bodies = [os.urandom(1 + 613 * i) for i in range(30)]
    stream = b"".join(post("/sink", body, f"X-Session-Id: s{i % 3}") if i % 2 else
                      post("/sink", chunked(body), f"X-Session-Id: s{i % 3}", framing="chunked")
                      for i, body in enumerate(bodies))
    sender = threading.Thread(target=client.sock.sendall, args=(stream,), daemon=True)
    sender.start()
    for body in bodies:
        check_sink(client.answer("POST"), body)
    sender.join(5)


def test_a_slow_first_answer_comes_before_a_fast_second_from_another_server(start):
    sims = start.sims(2)
    kvpin = start.kvpin(sims)
    client = start.client(kvpin)
    owner = {}
    for session in ("a", "b"):
        owner[session] = client.request("GET", "/json", {"X-Session-Id": session,
                                                         "x-sim-verify": "1"})[1]["x-sim-server"]
    assert owner["a"] != owner["b"]
    client.send(get("/slowhead?ms=200", "X-Session-Id: a", "x-sim-verify: 1")
                + get("/json", "X-Session-Id: b", "x-sim-verify: 1") * 2)
    assert [client.answer()[1]["x-sim-server"] for _ in range(3)] == [
        owner["a"], owner["b"], owner["b"]]


def test_a_second_request_never_reaches_the_server_before_the_first_answer_is_complete(start):
    def script(conn):
        while conn.read():
            assert conn.silent(0.05)
            conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello")
            assert conn.silent(0.05)
            conn.send(b"\r\n0\r\n")
            assert conn.silent(0.05)
            conn.send(b"\r\n")

    raw = start.raw(script)
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    client.send(get("/1") + get("/2") + post("/3", b"abc") + get("/4"))
    for _ in range(4):
        assert client.answer()[2] == b"hello"
    assert [r.target for r in raw.requests] == ["/1", "/2", "/3", "/4"]
    assert raw.connections == 1


def test_a_next_head_may_be_split_in_the_middle_of_an_answer(start):
    go = threading.Event()

    def script(conn):
        conn.read()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        go.wait(5)
        time.sleep(0.05)
        conn.send(b"world")
        serve_ok(conn)

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS)
    client = start.client(kvpin)
    second = get("/2", "X-Pad: " + "x" * 300)
    client.send(get("/1") + second[:9])
    client.until(b"hello")
    client.send(second[9:200])
    go.set()
    assert client.exactly(5) == b"world"
    client.send(second[200:])
    assert client.answer()[2] == b"raw0"


def test_more_pipelined_bytes_than_kvpin_reads_ahead_wait_in_the_socket(start):
    """200 KB of requests behind a stream: none lost, none early."""
    kvpin = start.kvpin([start.sim(manner="uvicorn")])
    client = start.client(kvpin)
    pad = "X-Pad: " + "p" * 4000
    client.send(get("/sse/40/5000/200"))
    stream = b"".join(get(f"/bytes/{i}?seed={i}", pad) for i in range(50))
    sender = threading.Thread(target=client.sock.sendall, args=(stream,), daemon=True)
    sender.start()
    assert client.answer()[2].count(b"data: ") == 40
    for i in range(50):
        assert client.answer()[2] == pattern(i, i)
    sender.join(5)


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


# ---- half-close and early answers


def test_a_client_that_half_closes_after_its_request_is_answered(start):
    kvpin = start.kvpin(start.sims(1))
    for reused in (False, True):
        client = start.client(kvpin)
        if reused:
            client.request("GET", "/json")
        client.send(get("/slowhead?ms=150"))
        client.half_close()
        status, _, body = client.answer()
        assert (status, len(body)) == (200, 300)
        assert client.ended() == "fin"


def test_a_half_close_is_passed_on_and_the_server_decides_about_the_stream(start):
    """llama-server and uvicorn cut it, and that is a truncation; another server goes on."""
    def script(conn):
        conn.read()
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        assert conn.ended(5) == "fin"
        conn.send(b"5\r\nworld\r\n0\r\n\r\n")

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS)
    client = start.client(kvpin)
    client.send(get("/"))
    client.half_close()
    assert client.answer()[2] == b"helloworld"
    assert client.ended() == "fin"
    kvpin = start.kvpin(start.sims(1))
    client = start.client(kvpin)
    client.send(get("/sse/1000/10000/100"))
    client.until(b"data: ")
    client.half_close()
    assert client.ended() == "rst"


def test_a_half_close_behind_pipelined_requests_is_passed_on_with_the_last(start):
    ends = []

    def script(conn):
        while (request := conn.read()):
            if request.target == "/last":
                ends.append(conn.ended(3))
            conn.send(reply(request.target.encode()))

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS)
    client = start.client(kvpin)
    client.send(get("/1") + get("/2") + get("/last"))
    client.half_close()
    assert [client.answer()[2] for _ in range(3)] == [b"/1", b"/2", b"/last"]
    assert ends == ["fin"]
    assert client.ended() == "fin"


@pytest.mark.parametrize("close", ["fin", "rst"])
def test_an_early_413_reaches_a_client_in_the_middle_of_its_upload(start, close):
    """With unread bytes the server's close is a RST: it must not overtake the answer."""
    def script(conn):
        conn.request_head()
        conn.exactly(70000)
        conn.send(reply(b"too large", "413 Payload Too Large", "Connection: close"))
        if close == "fin":
            conn.half_close()
            conn.ended(5)

    raw = start.raw(script)
    kvpin = start.kvpin([raw], *NO_CHECKS)
    for _ in range(15):
        client = start.client(kvpin)
        client.send(get("/", "Content-Length: 50000000", method="POST"))

        def upload(sock=client.sock):
            try:
                for _ in range(50):
                    sock.sendall(pattern(1000000))
            except OSError:
                pass

        sender = threading.Thread(target=upload, daemon=True)
        sender.start()
        status, fields, body = client.answer("POST")
        assert (status, body, fields["connection"]) == (413, b"too large", "close")
        client.close()
        sender.join(5)
    assert raw.connections == 15


# ---- Upgrade


SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
UPGRADE = get("/upgrade", "Connection: keep-alive, Upgrade", "Upgrade: sim-echo",
              "X-Session-Id: tunnel")


def tunnel(start, kvpin, early=b""):
    client = start.client(kvpin)
    client.send(UPGRADE + early)
    status, fields, _ = client.head()
    assert (status, fields["upgrade"]) == (101, "sim-echo")
    assert fields["connection"].lower() == "upgrade"
    return client


def test_an_upgraded_connection_is_a_tunnel(start):
    kvpin = start.kvpin(start.sims(1))
    client = tunnel(start, kvpin)
    for data in (b"x", b"GET / HTTP/1.1\r\n\r\n", os.urandom(1000), b"0\r\n\r\n"):
        client.send(data)
        assert client.exactly(len(data)) == data
    client.half_close()
    assert client.ended() == "fin"
    assert kvpin.wait_requests(1)[0]["outcome"] == "ok"


def test_bytes_sent_along_with_the_upgrade_are_not_lost(start):
    kvpin = start.kvpin(start.sims(1))
    client = tunnel(start, kvpin, b"early bytes")
    assert client.exactly(11) == b"early bytes"
    client.send(b"later")
    assert client.exactly(5) == b"later"


def test_a_half_close_sent_along_with_the_upgrade_ends_the_tunnel(start):
    kvpin = start.kvpin(start.sims(1))
    client = start.client(kvpin)
    client.send(UPGRADE + b"all I have to say")
    client.half_close()
    assert client.head()[0] == 101
    assert client.ended(3) == "fin"
    assert client.buf == b"all I have to say"


def test_a_tunnel_carries_many_bytes_both_ways_and_a_half_close_of_the_client(start):
    kvpin = start.kvpin(start.sims(1))
    client = tunnel(start, kvpin)
    data = pattern(20000000, 11)

    def upload():
        client.sock.sendall(data)
        client.half_close()

    sender = threading.Thread(target=upload, daemon=True)
    sender.start()
    assert client.ended(20) == "fin"
    assert xxh(client.buf) == xxh(data)
    sender.join(5)


def test_a_tunnel_survives_a_half_close_of_the_server(start):
    got = []

    def script(conn):
        conn.read()
        conn.send(SWITCHED + b"bye")
        conn.half_close()
        assert conn.ended(10) == "fin"
        got.append(conn.buf)

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS)
    client = start.client(kvpin)
    client.send(get("/", "Connection: upgrade", "Upgrade: x"))
    assert client.head()[0] == 101
    assert client.ended() == "fin"
    assert client.buf == b"bye"
    data = os.urandom(3000000)
    client.send(data)
    client.half_close()
    rows = kvpin.wait_requests(1)
    assert (rows[0]["outcome"], rows[0]["status"]) == ("ok", "101")
    deadline = time.monotonic() + 5
    while not got and time.monotonic() < deadline:
        time.sleep(0.01)
    assert xxh(got[0]) == xxh(data)


# The first read takes 15872 bytes: an end behind a read that was exactly full comes in the same go.
@pytest.mark.parametrize("size", [0, 100, 15872 - len(SWITCHED), 31744 - len(SWITCHED), 400000])
def test_a_tunnel_whose_server_says_everything_at_once_ends_cleanly(start, size):
    """101, bytes and FIN may all be read in one go: still a tunnel, not a finished exchange."""
    def script(conn):
        conn.read()
        conn.send(SWITCHED + pattern(size))
        conn.half_close()
        conn.ended(10)

    raw = start.raw(script)
    kvpin = start.kvpin([raw], *NO_CHECKS)
    for _ in range(5):
        client = start.client(kvpin)
        client.send(get("/", "Connection: upgrade", "Upgrade: x"))
        assert client.head()[0] == 101
        assert client.ended(3) == "fin"
        assert client.buf == pattern(size)
        client.send(get("/not-a-request"))
        client.half_close()
    kvpin.wait_requests(5)
    assert {r.target for r in raw.requests} == {"/"}


def test_a_server_that_does_not_upgrade_answers_in_http(start):
    kvpin = start.kvpin(start.sims(1))
    client = start.client(kvpin)
    client.send(get("/json", "Connection: upgrade", "Upgrade: h2c"))
    assert client.answer()[0] == 200
    assert client.request("GET", "/json")[0] == 200


def test_a_101_that_nobody_asked_for_is_a_bad_answer(start):
    def script(conn):
        conn.read()
        conn.send(SWITCHED + b"secret")
        conn.ended(5)

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS)
    for request in (get("/"), get("/", "Upgrade: x"),
                    b"GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"):
        client = start.client(kvpin)
        client.send(request)
        status, _, body = client.answer()
        assert status == 502 and b"secret" not in body


# ---- heads


def test_empty_lines_before_a_request_are_skipped(start):
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    for lines in range(5):
        client.send(b"\r\n" * lines + get("/"))
        assert client.answer()[2] == b"raw0"
    for request in raw.requests:
        assert request.raw == get("/")


def test_every_form_of_a_target_passes_unchanged(start):
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    targets = ["/", "/a/b?c=d&e=%20f", "//double", "/../x", "http://other.example/x?y",
               "https://other.example/", "/" + "long" * 2000, "/a;b=c:d@e!$&'()*+,~{}|^`\"<>\\[]"]
    for target in targets:
        client.send(get(target))
        assert client.answer()[2] == b"raw0"
    client.send(get("*", method="OPTIONS"))
    assert client.answer()[2] == b"raw0"
    assert [r.target for r in raw.requests] == targets + ["*"]
    assert {r.fields["host"] for r in raw.requests} == {"test"}


def test_a_head_without_hop_by_hop_fields_passes_byte_for_byte(start):
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    heads = [b"GET / HTTP/1.1\r\nhOST:   test  \r\nX-Empty:\r\nX-Tab:\ta\tb\r\n"
             b"Cookie: a=b\r\nCookie: c=d\r\nX-\xe4!#$%&'*+.^_`|~: x\r\n\r\n".replace(b"\xe4", b""),
             b"PATCH /x HTTP/1.1\r\nHost:\r\nX-Obs: caf\xe9 \xff\r\nX-Session-Id: S\r\n\r\n",
             b"DELETE /x HTTP/1.1\r\nHost: [::1]:8080\r\nContent-Length: 0\r\n\r\n"]
    for head in heads:
        client.send(head)
        assert client.answer()[2] == b"raw0"
    assert [r.raw for r in raw.requests] == heads


def test_hop_by_hop_fields_are_removed_from_requests(start):
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    client.send(get("/", "Connection: X-Hop , keep-alive,TE", "x-hop: secret", "Keep-Alive: 5",
                    "TE: trailers", "Proxy-Connection: keep-alive", "X-Kept: yes",
                    "Upgrade: h2c", "Connection: X-Other", "X-OTHER: secret", "X-Hopper: kept"))
    assert client.answer()[2] == b"raw0"
    assert raw.requests[0].list == [("Host", "test"), ("X-Kept", "yes"), ("X-Hopper", "kept")]


def test_what_frames_or_routes_a_request_is_not_removed_on_the_clients_word(start):
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    client.send(post("/", b"body", "Connection: content-length, host, authorization, close",
                     "Authorization: Bearer x"))
    assert client.answer("POST")[2] == b"raw0"
    assert client.ended() == "fin"
    assert raw.requests[0].body == b"body"
    assert raw.requests[0].fields == {"host": "test", "content-length": "4",
                                      "authorization": "Bearer x"}


def test_hop_by_hop_fields_are_removed_from_answers(start):
    def script(conn):
        conn.read()
        conn.send(b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=100\r\nX-Kept: yes\r\n"
                  b"Connection: keep-alive, X-Hop\r\nX-Hop: secret\r\nProxy-Connection: close\r\n"
                  b"Upgrade: h2c\r\nContent-Length: 2\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\nhi")
        serve_ok(conn)

    raw = start.raw(script)
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    client.send(get("/"))
    _, _, head = client.head()
    assert head == (b"HTTP/1.1 200 OK\r\nX-Kept: yes\r\nContent-Length: 2\r\n"
                    b"Set-Cookie: a\r\nSet-Cookie: b\r\n\r\n")
    assert client.exactly(2) == b"hi"
    assert client.request("GET", "/")[2] == b"raw0"
    assert raw.connections == 1


def test_a_servers_close_is_its_own_and_not_the_clients(start):
    def script(conn):
        conn.read()
        conn.send(reply(b"one", "200 OK", "Connection: close"))

    raw = start.raw(script)
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    for count in range(1, 6):
        _, fields, body = client.request("GET", "/")
        assert body == b"one" and "connection" not in fields
        assert raw.connections == count


def test_a_clients_close_is_honoured_and_answered_with_close(start):
    kvpin = start.kvpin(start.sims(1))
    for value in ("close", "Close", "keep-alive, close"):
        client = start.client(kvpin)
        _, fields, _ = client.request("GET", "/json", {"Connection": value})
        assert fields["connection"] == "close"
        assert client.ended() == "fin"


def test_x_forwarded_for_is_appended_when_asked_for(start):
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS, "--forwarded-for")
    client = start.client(kvpin)
    client.request("GET", "/")
    client.request("GET", "/", {"X-Forwarded-For": "10.1.2.3, 10.4.5.6"})
    lists = [[v for k, v in r.list if k.lower() == "x-forwarded-for"] for r in raw.requests]
    assert lists == [["127.0.0.1"], ["10.1.2.3, 10.4.5.6", "127.0.0.1"]]


def test_x_forwarded_for_names_an_ipv6_client(start):
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS, "--forwarded-for", listen="[::1]:0")
    start.client(kvpin).request("GET", "/")
    assert raw.requests[0].fields["x-forwarded-for"] == "::1"


def test_host_is_preserved(start):
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    for host in ("api.example.com", "EXAMPLE:8080", "[::1]", ""):
        client.send(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive\r\n\r\n")
        client.answer()
    assert [r.fields["host"] for r in raw.requests] == ["api.example.com", "EXAMPLE:8080",
                                                        "[::1]", ""]


@pytest.mark.parametrize("pause", [0, 0.02])
def test_bytes_behind_an_answer_never_become_another_answer(start, pause):
    """Response splitting: neither in the same segment nor as a later one on an idle connection."""
    def script(conn):
        while conn.read():
            if pause:
                conn.send(reply(b"right"))
                time.sleep(pause)
                conn.send(reply(b"WRONG", "200 OK", "X-Evil: 1"))
            else:
                conn.send(reply(b"right") + reply(b"WRONG", "200 OK", "X-Evil: 1"))

    raw = start.raw(script)
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    for count in range(1, 6):
        _, fields, body = client.request("GET", "/")
        assert body == b"right" and "x-evil" not in fields
        assert raw.connections == count
        time.sleep(2 * pause)
        assert client.buf == b"" and client.ended(0.01) is None


def test_an_answer_that_comes_before_its_request_is_never_used(start):
    """A pipelining client must not let a server's stray bytes be taken for the next answer."""
    poisoned = threading.Event()

    def script(conn):
        if conn.server.connections > 1:
            serve_ok(conn)
            return
        conn.read()
        conn.send(reply(b"first"))
        conn.send(reply(b"WRONG"))
        poisoned.set()
        serve_ok(conn)

    raw = start.raw(script)
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    client.send(get("/1"))
    assert client.answer()[2] == b"first"
    kvpin.kill(signal.SIGSTOP)
    poisoned.wait(5)
    time.sleep(0.05)
    client.send(get("/2"))
    time.sleep(0.05)
    kvpin.kill(signal.SIGCONT)
    assert client.answer()[2] == b"raw0"
    assert raw.connections == 2


def test_spare_connections_and_empty_probes_are_harmless(start):
    sim = start.sim()
    kvpin = start.kvpin([sim])
    spare = [start.client(kvpin) for _ in range(20)]
    for _ in range(50):
        socket.create_connection(kvpin.addr).close()
    for client in spare[:10]:
        client.reset()
    assert start.client(kvpin).request("GET", "/json")[0] == 200
    assert spare[15].request("GET", "/json")[0] == 200
    assert {row["outcome"] for row in kvpin.wait_requests(2)} == {"ok"}
    assert len(kvpin.requests()) == 2
