# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What one connection carries besides plain exchanges: pipelined requests, half-closes, early
answers, tunnels, and bytes that belong to nothing."""
import os
import signal
import socket
import threading
import time

import pytest

from harness import NO_CHECKS, checksum, unacked, wait_until
from http_help import check_sink, get, post
from rawserver import chunked, pattern, reply, serve_ok


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
    assert checksum(client.buf) == checksum(data)
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
    wait_until(lambda: got)
    assert checksum(got[0]) == checksum(data)


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


# ---- bytes that belong to no exchange


@pytest.mark.parametrize("later", [False, True])
def test_bytes_behind_an_answer_never_become_another_answer(start, later):
    """Response splitting: neither in the same segment nor as a later one on an idle connection."""
    go, said = threading.Event(), threading.Event()

    def script(conn):
        while conn.read():
            if later:
                conn.send(reply(b"right"))
                go.wait(5)
                go.clear()
                conn.send(reply(b"WRONG", "200 OK", "X-Evil: 1"))
                wait_until(lambda: unacked(conn.sock) == 0)
                said.set()
            else:
                conn.send(reply(b"right") + reply(b"WRONG", "200 OK", "X-Evil: 1"))

    raw = start.raw(script)
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    for count in range(1, 6):
        _, fields, body = client.request("GET", "/")
        assert body == b"right" and "x-evil" not in fields
        assert raw.connections == count
        if later:
            go.set()
            assert said.wait(5)
            said.clear()
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
    kvpin.suspend()
    assert poisoned.wait(5)
    client.send(get("/2"))
    wait_until(lambda: unacked(client.sock) == 0)
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
