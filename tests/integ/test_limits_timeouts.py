# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Deadlines and limits: nobody waits for ever.

Who is to be slow and yet in time has most of a second for it: the machine may stand still. A time
that must have passed is measured from before it began.
"""
import json
import socket
import threading
import time

import pytest

from harness import NO_CHECKS, wait_until
from rawserver import reply

REQUEST = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"


def check_error(answer, status, code, retry=False):
    got, fields, body = answer
    assert got == status, body
    assert json.loads(body)["error"]["code"] == code
    assert ("retry-after" in fields) == retry
    return fields


# ---- deadlines


def test_a_head_that_takes_too_long_is_408(start):
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS, "--timeout-head", "400ms")
    slow = [start.client(kvpin) for _ in range(4)]
    began = time.monotonic()
    starts = [b"G", b"GET / HTTP/1.1\r\n", REQUEST[:-1], REQUEST[:-2] + b"X: "]
    for client, data in zip(slow, starts):
        client.send(data)
    try:
        while time.monotonic() < began + 2:  # one that sends a byte now and then gains nothing
            slow[3].send(b"x")
            time.sleep(0.05)
    except OSError:
        pass
    for client in slow[:3]:
        fields = check_error(client.answer(), 408, "head_timeout")
        assert fields["connection"] == "close"
        assert client.ended() == "fin"
    client = start.client(kvpin)
    client.send(REQUEST)
    assert client.answer()[2] == b"raw0"
    began = time.monotonic()
    client.send(REQUEST[:5])  # the next head on a connection has the same deadline
    check_error(client.answer(), 408, "head_timeout")
    assert 0.35 < time.monotonic() - began < 3
    assert len(raw.requests) == 1
    assert {r["outcome"] for r in kvpin.requests()} == {"ok", "timeout"}


def test_a_head_within_its_deadline_is_served_however_slowly_it_comes(start):
    kvpin = start.kvpin([start.raw()], *NO_CHECKS, "--timeout-head", "5s", "--timeout-idle", "5s")
    client = start.client(kvpin)
    for byte in REQUEST:
        client.send(bytes([byte]))
        time.sleep(0.02)
    assert client.answer()[2] == b"raw0"


def test_idle_connections_are_closed_without_a_word(start):
    kvpin = start.kvpin([start.raw()], *NO_CHECKS, "--timeout-idle", "400ms")
    never, once = start.client(kvpin), start.client(kvpin)
    began = time.monotonic()
    once.send(REQUEST)
    assert once.answer()[2] == b"raw0"
    for client in (never, once):
        assert client.ended(5) == "fin"
        assert client.buf == b""
    assert 0.35 < time.monotonic() - began < 3
    assert len(kvpin.requests()) == 1
    wait_until(lambda: kvpin.status()["connections"] == 0)


def test_a_client_that_speaks_now_and_then_is_not_idle(start):
    kvpin = start.kvpin([start.raw()], *NO_CHECKS, "--timeout-idle", "1s")
    client = start.client(kvpin)
    for _ in range(6):
        client.send(REQUEST)
        assert client.answer()[2] == b"raw0"
        time.sleep(0.25)


@pytest.mark.parametrize("limit", ["--timeout-idle", "--timeout-stall"])
def test_the_shorter_of_two_times_is_not_taken_for_the_other(start, limit):
    """A server that computes for longer than a connection may idle, and a connection that idles for
    longer than an answer may stand still: both are well, and hold up nobody."""
    calm = threading.Event()

    def script(conn):
        while (request := conn.read()):
            if request.target == "/long":
                calm.wait(10)
            conn.send(reply(b"raw0"))

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS, "--workers", "1", limit, "800ms")
    client = start.client(kvpin)
    for _ in range(5):  # from the second on by steer, where that is
        assert client.request("GET", "/", {"X-Session-Id": "s"})[2] == b"raw0"
    if limit == "--timeout-idle":
        client.send("GET /long HTTP/1.1\r\nHost: t\r\nX-Session-Id: s\r\n\r\n")
    spent = kvpin.cpu_seconds()
    time.sleep(1.8)
    assert kvpin.cpu_seconds() - spent < 0.5
    other = start.client(kvpin)
    assert other.request("GET", "/", {"X-Session-Id": "o"})[2] == b"raw0"
    calm.set()
    if limit == "--timeout-stall":
        client.send("GET / HTTP/1.1\r\nHost: t\r\nX-Session-Id: s\r\n\r\n")
    assert client.answer()[2] == b"raw0"


@pytest.mark.parametrize("expect", [False, True])
def test_a_body_that_stands_still_is_408_and_the_server_is_let_go(start, expect):
    ends = []

    def script(conn):
        conn.request_head()
        if expect:
            conn.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        ends.append(conn.ended(5))

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS, "--timeout-body", "1s")
    client = start.client(kvpin)
    client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n"
                + b"Expect: 100-continue\r\n" * expect + b"\r\n")
    if expect:
        assert client.head()[0] == 100
    for _ in range(6):  # slow is not still
        began = time.monotonic()
        client.send(b"x")
        time.sleep(0.2)
    fields = check_error(client.answer(), 408, "body_timeout")
    assert 0.95 < time.monotonic() - began < 4
    assert fields["connection"] == "close"
    assert client.ended() == "fin"
    wait_until(lambda: ends == ["rst"])


def test_a_server_that_cannot_be_reached_in_time_is_passed_over(start):
    """A listener whose queue is full drops the SYN."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        addr = full.getsockname()
        fill = []
        while True:
            sock = socket.socket()
            sock.settimeout(0.2)
            fill.append(sock)
            try:
                sock.connect(addr)
            except TimeoutError:
                break
        good = start.raw(name="good")
        kvpin = start.kvpin(["full=%s:%d" % addr, good], *NO_CHECKS, "--timeout-connect", "300ms")
        client = start.client(kvpin)
        took = []
        for i in range(4):
            began = time.monotonic()
            assert client.request("POST", "/", {"X-Session-Id": f"s{i}"}, b"hello")[2] == b"good"
            took.append(time.monotonic() - began)
        assert sorted(took)[-1] > 0.25 and sum(took) < 3
        attempts = [row["attempts"] for row in kvpin.wait_requests(4)]
        assert sorted(attempts) == ["1", "1", "1", "2"]  # from then on it is known to be down
        assert [r.body for r in good.requests] == [b"hello"] * 4
        for sock in fill:
            sock.close()


def test_a_server_that_stays_silent_is_504_and_is_let_go(start):
    ends = []

    def script(conn):
        if conn.read().target == "/":
            ends.append(conn.ended(5))
        else:
            conn.send(reply(b"good"))

    raw = start.raw(script)
    kvpin = start.kvpin([raw], *NO_CHECKS, "--timeout-stall", "800ms")
    client = start.client(kvpin)
    began = time.monotonic()
    client.send(REQUEST)
    fields = check_error(client.answer(), 504, "server_timeout")
    assert 0.75 < time.monotonic() - began < 3
    wait_until(lambda: ends == ["rst"])
    assert "connection" not in fields
    assert client.request("GET", "/again")[2] == b"good"
    assert len(raw.requests) == 2  # it was not sent again
    assert [r["outcome"] for r in kvpin.wait_requests(2)] == ["timeout", "ok"]


def test_a_stream_that_stands_still_is_broken_off(start):
    def script(conn):
        conn.read()
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(6):  # slow is not still
            conn.send(b"5\r\nhello\r\n")
            time.sleep(0.2)
        assert conn.ended(5) == "rst"

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS, "--timeout-stall", "1s")
    client = start.client(kvpin)
    client.send(REQUEST)
    assert client.head()[0] == 200
    assert client.ended() == "rst"
    assert client.buf == b"5\r\nhello\r\n" * 6
    assert kvpin.wait_requests(1)[0]["outcome"] == "timeout"


def test_a_reader_that_stands_still_is_broken_off(start):
    kvpin = start.kvpin(start.sims(1), "--timeout-stall", "500ms")
    client = start.client(kvpin)
    client.send("GET /bytes/50000000 HTTP/1.1\r\nHost: t\r\n\r\n")
    # Once to notice, once more for what the client might still acknowledge.
    assert kvpin.wait_requests(1)[0]["outcome"] == "timeout"
    wait_until(lambda: kvpin.status()["connections"] == 0)


def test_a_silent_tunnel_is_closed_after_its_own_time(start):
    kvpin = start.kvpin(start.sims(1), "--timeout-tunnel", "1s", "--timeout-stall", "200ms")
    client = start.client(kvpin)
    client.send("GET /upgrade HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\n"
                "Upgrade: sim-echo\r\n\r\n")
    assert client.head()[0] == 101
    for _ in range(5):
        time.sleep(0.25)
        began = time.monotonic()
        client.send("ping")
        assert client.exactly(4) == b"ping"
    assert client.ended() == "rst"
    assert time.monotonic() - began > 0.95


# ---- connections


def test_clients_beyond_the_limit_wait_and_are_then_served(start):
    kvpin = start.kvpin([start.raw()], *NO_CHECKS, "--limit-connections", "5", "--workers", "1")
    first = [start.client(kvpin) for _ in range(5)]
    for client in first:
        client.send(REQUEST)
        assert client.answer()[2] == b"raw0"
    waiting = [start.client(kvpin) for _ in range(5)]
    for client in waiting:
        client.send(REQUEST)
    assert waiting[0].ended(0.3) is None and waiting[0].buf == b""
    assert kvpin.status()["connections"] == 5
    first[0].send(REQUEST)  # those who are in are served on
    assert first[0].answer()[2] == b"raw0"
    for leaving, client in zip(first, waiting):
        leaving.close()
        assert client.answer()[2] == b"raw0"
    assert kvpin.metrics()["kvpin_accept_pauses_total"] > 0
    assert len(kvpin.wait_requests(11)) == 11


def test_connections_that_never_send_harm_nobody(start):
    kvpin = start.kvpin([start.raw()], *NO_CHECKS, "--timeout-idle", "1s")
    before = kvpin.fds()
    spare = [start.client(kvpin) for _ in range(300)]
    for i in range(300):
        sock = socket.create_connection(kvpin.addr)
        if i % 2:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
    client = start.client(kvpin)
    client.send(REQUEST)
    assert client.answer()[2] == b"raw0"
    client.close()
    assert [c.ended(3) for c in spare] == ["fin"] * 300
    wait_until(lambda: kvpin.fds() <= before)
    assert len(kvpin.requests()) == 1
