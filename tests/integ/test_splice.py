# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The splice path on loopback: answers go past the daemon, and the connection comes back."""
import os
import re
import signal
import threading
import time

import pytest

import splice_help
from harness import Client, pattern
from rawserver import reply
from splice_help import CHUNKED, STREAM, request, same
from steer_help import switches

pytestmark = pytest.mark.splice_only


def drip(conn):
    """/drip/PIECES/BYTES/GAP_MS?framing: a body of the pattern in pieces, with time between them
    for the answer to be taken."""
    while (got := conn.read()):
        path, _, framing = got.target.partition("?")
        pieces, size, gap_ms = (int(n) for n in path.split("/")[2:])
        body = pattern(pieces * size, seed_of(conn.server.name))
        head = {"length": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body),
                "chunked": CHUNKED, "stream": STREAM,
                "close": b"HTTP/1.1 200 OK\r\n\r\n"}[framing]
        conn.send(head)
        for i in range(pieces):
            time.sleep(gap_ms / 1000)
            piece = body[i * size:(i + 1) * size]
            conn.send(b"%x\r\n%s\r\n" % (size, piece) if framing in ("chunked", "stream")
                      else piece)
        if framing in ("chunked", "stream"):
            conn.send(b"0\r\n\r\n")
        elif framing == "close":
            return


def seed_of(name):
    return int(re.sub(r"\D", "", name)) + 1


def two_drips(start):
    return [start.raw(drip, f"raw{i}") for i in range(2)]


def owner(client, session):
    """The server of a session, by what it sends."""
    client.send(request("/drip/1/64/0?length", session))
    status, _, body = client.answer()
    assert status == 200
    for seed in (1, 2):
        if body == pattern(64, seed):
            return seed
    raise AssertionError(body)


@pytest.mark.parametrize("framing", ["stream", "chunked", "length"])
def test_one_connection_alternates_between_servers(start, splices, framing):
    splice = splices(two_drips(start))
    client = start.client(splice.kvpin)
    seeds = {s: owner(client, s) for s in ("a", "b")}
    assert sorted(seeds.values()) == [1, 2]
    before = splice.taken()
    for i in range(60):
        session = "ab"[i % 2]
        client.send(request(f"/drip/4/{100 + i}/3?{framing}", session))
        status, _, body = client.answer()
        assert status == 200
        same(body, pattern(4 * (100 + i), seeds[session]))
    assert splice.taken() - before >= 40, splice.status()
    client.close()
    splice.wait_idle()


def test_the_daemon_sleeps_while_an_answer_streams(start, splices):
    splice = splices([start.raw(drip, "raw0")], "--workers", "1")
    client = start.client(splice.kvpin)
    client.send(request("/drip/1500/120/1?stream", "s"))
    assert client.head()[0] == 200
    splice.wait_running()
    woken, cpu, begin = switches(splice.kvpin), splice.kvpin.cpu_seconds(), time.monotonic()
    same(b"".join(client.chunks()), pattern(1500 * 120, 1))
    took = time.monotonic() - begin
    # Its timers go on: the looks at streams under way, the daemon's tick.
    assert switches(splice.kvpin) - woken < 60 + 30 * took
    assert splice.kvpin.cpu_seconds() - cpu <= 0.03 + 0.005 * took
    assert splice.taken() == 1


def test_streams_of_a_server_that_closes_after_each(start, splices):
    sims = start.sims(2, "llama")
    splice = splices(sims)
    client = start.client(splice.kvpin)
    for i in range(200):
        client.send(request("/sse/12/1000/150?close=1", f"s{i % 4}"))
        status, _, body = client.answer()
        assert (status, len(body), body.count(b"data: ")) == (200, 12 * 150, 12)
    assert splice.taken() >= 150, splice.status()
    client.close()
    splice.wait_idle()


def test_requests_written_at_once_are_answered_in_turn(start, splices):
    splice = splices(two_drips(start))
    client = start.client(splice.kvpin)
    seeds = {s: owner(client, s) for s in ("a", "b")}
    for _ in range(20):
        client.send(b"".join(request("/drip/5/200/2?stream", s) for s in "aba"))
        for session in "aba":
            assert client.head()[0] == 200
            same(b"".join(client.chunks()), pattern(1000, seeds[session]))
    assert splice.taken() >= 40, splice.status()


def test_a_request_that_is_split_in_the_middle_of_an_answer(start, splices):
    splice = splices(two_drips(start))
    client = start.client(splice.kvpin)
    seeds = {s: owner(client, s) for s in ("a", "b")}
    for _ in range(10):
        following = request("/drip/5/300/2?stream", "b")
        client.send(request("/drip/20/300/3?stream", "a"))
        for part in (following[:11], following[11:40], following[40:]):
            time.sleep(0.01)
            client.send(part)
        for session, pieces in (("a", 20), ("b", 5)):
            assert client.head()[0] == 200
            same(b"".join(client.chunks()), pattern(pieces * 300, seeds[session]))
    assert splice.taken() >= 15, splice.status()


def test_the_next_request_goes_out_with_the_last_byte_in_hand(start, splices):
    """The packet with the request is the one that acknowledges the answer."""
    splice = splices(start.sims(2, "uvicorn"))
    client = start.client(splice.kvpin)
    for i in range(300):
        client.send(request("/sse/5/500/120", f"s{i % 2}"))
        status, _, body = client.answer()
        assert (status, body.count(b"data: ")) == (200, 5)
    assert splice.taken() >= 200, splice.status()


def test_a_body_until_the_connections_end(start, splices):
    splice = splices(two_drips(start))
    for i in range(5):
        client = start.client(splice.kvpin)
        seed = owner(client, "a")
        before = splice.taken()
        client.send(request(f"/drip/10/{1000 + i}/3?close", "a"))
        status, fields, body = client.answer()
        assert status == 200 and fields["connection"] == "close"
        same(body, pattern(10 * (1000 + i), seed))
        assert splice.taken() == before + 1
        client.close()
    splice.wait_idle()


# ---- ends


def stream_for_ever(seen):
    def serve(conn):
        while (got := conn.read()):
            if got.target != "/stream":
                conn.send(reply(b"x"))
                continue
            conn.send(STREAM)
            while True:
                try:
                    conn.send(b"4\r\nabcd\r\n")
                    if not conn.silent(0.002):
                        ended = conn.ended(0.1)
                        if ended:
                            seen.append((ended, time.monotonic()))
                            return
                except (ConnectionResetError, BrokenPipeError):
                    seen.append(("rst", time.monotonic()))
                    return
    return serve


def running_stream(start, splice, client=None):
    client = client or start.client(splice.kvpin)
    client.send(request("/stream", "s"))
    assert client.head()[0] == 200
    splice.wait_running()
    client.until(b"\r\n")
    client.exactly(6)
    return client


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
def test_a_client_that_leaves_is_seen_by_the_server_at_once(start, splices, how):
    seen, took = [], []
    splice = splices([start.raw(stream_for_ever(seen))])
    for i in range(5):
        client = running_stream(start, splice)
        since = time.monotonic()
        {"close": lambda: client.sock.close(), "reset": client.reset,
         "half-close": client.half_close}[how]()
        splice.wait(lambda: len(seen) == i + 1)
        took.append(seen[i][1] - since)
        if how == "half-close":  # its server ended the answer without an end
            assert client.ended() == "rst"
        client.sock.close()
        splice.wait_idle()
    assert sorted(took)[2] < 0.1, took  # most: the machine may stand still


@pytest.mark.parametrize("fault", ["trunc", "rst"])
def test_a_truncated_stream_is_seen_as_truncated(start, splices, fault):
    sims = start.sims(2, "uvicorn")
    splice = splices(sims)
    for i in range(10):
        client = start.client(splice.kvpin)
        client.send(request(f"/sse/20/2000/150?{fault}=10", f"s{i}"))
        assert client.head()[0] == 200
        before = time.monotonic()
        assert client.ended() == "rst"
        assert time.monotonic() - before < 1
        if fault == "trunc":  # behind a RST of its own a server's last bytes may be lost
            assert client.buf.count(b"data: ") == 10
        assert not client.buf.endswith(b"0\r\n\r\n")
        client.close()
    assert splice.taken() >= 9
    text = splice.kvpin.exporter()[1]
    assert sum(int(n) for n in re.findall(
        r'kvpin_requests_total\{.*path="splice",outcome="truncated"\} (\d+)', text)) >= 9
    splice.wait_idle()


def test_a_server_that_dies_in_mid_stream_breaks_the_stream_only(start, splices):
    sims = start.sims(2, "uvicorn")
    splice = splices(sims)
    client = start.client(splice.kvpin)
    client.send(request("/sse/1000/2000/150", "s"))
    assert client.head()[0] == 200
    splice.wait_running()
    busy = next(b["name"] for b in splice.kvpin.status("backends")["backends"] if b["inflight"])
    next(s for s in sims if s.name == busy).kill(signal.SIGKILL)
    assert client.ended() == "rst"
    client.close()
    splice.wait_idle()
    client = start.client(splice.kvpin)
    client.send(request("/sse/10/1000/150", "s"))
    assert client.answer()[2].count(b"data: ") == 10


def test_a_half_closed_client_gets_the_rest_of_its_answer(start, splices):
    go, seen = threading.Event(), []

    def serve(conn):
        conn.read()
        conn.send(CHUNKED + b"5\r\nhello\r\n")
        go.wait(5)
        if not conn.more():
            seen.append("fin")
        for i in range(50):
            conn.send(b"3\r\n%03d\r\n" % i)
        conn.send(b"0\r\n\r\n")

    splice = splices([start.raw(serve)])
    client = start.client(splice.kvpin)
    client.send(request("/", "s"))
    assert client.head()[0] == 200
    splice.wait_running()
    client.half_close()
    time.sleep(0.02)
    go.set()
    assert b"".join(client.chunks()) == b"hello" + b"".join(b"%03d" % i for i in range(50))
    assert client.ended() == "fin" and seen == ["fin"]
    client.close()
    splice.wait_idle()


@pytest.mark.parametrize("framing", ["length", "chunked", "stream", "close"])
@pytest.mark.parametrize("behind", [b"\r\n", b"GET / HT"], ids=["empty line", "half a line"])
def test_a_fin_behind_what_can_be_no_request_reaches_a_silent_server(start, splices, behind,
                                                                     framing):
    """It cannot go past the daemon: the bytes before it are the daemon's."""
    heard = []

    def serve(conn):
        conn.read()
        conn.send({"length": b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\nab", "chunked":
                   CHUNKED + b"2\r\nab\r\n", "stream": STREAM + b"2\r\nab\r\n",
                   "close": b"HTTP/1.1 200 OK\r\n\r\nab"}[framing])
        go.wait(10)
        for _ in range(3):
            conn.send(b"2\r\ncd\r\n" if framing in ("chunked", "stream") else b"cd")
        heard.append(conn.ended(10))

    go = threading.Event()
    splice = splices([start.raw(serve)])
    client = start.client(splice.kvpin)
    client.send(request("/", "s"))
    client.until(b"ab")
    splice.wait_running()
    go.set()
    client.until(b"cd")
    client.until(b"cd")
    client.until(b"cd")
    if framing in ("chunked", "stream"):
        client.until(b"\r\n")
    client.send(behind)
    client.close()
    splice.wait(lambda: heard == ["fin"])
    splice.wait_idle()


def test_a_fin_in_the_moment_of_the_taking_reaches_a_silent_server(start, splices):
    """When the first byte is here, the answer is just being taken."""
    heard = []

    def serve(conn):
        conn.read()
        conn.send(STREAM + b"2\r\nab\r\n")
        heard.append(conn.ended(20))

    splice = splices([start.raw(serve)])
    for i in range(100):
        client = start.client(splice.kvpin)
        client.send(request("/", "s"))
        client.until(b"ab\r\n")
        client.close()
        splice.wait(lambda: len(heard) == i + 1, 10)  # pylint: disable=cell-var-from-loop
    assert set(heard) == {"fin"}
    splice.wait_idle()


# ---- what must not go past


def bad_end(start, splices, *parts):
    """The first part goes by the relay, all others past the daemon."""
    go = threading.Event()

    def serve(conn):
        conn.read()
        conn.send(CHUNKED + parts[0])
        go.wait(10)
        for part in parts[1:]:
            time.sleep(0.02)
            conn.send(part)
        conn.more()

    splice = splices([start.raw(serve)])
    client = start.client(splice.kvpin)
    client.send(request("/", "s"))
    assert client.head()[0] == 200
    splice.wait_running()
    go.set()
    return splice, client


def test_bytes_behind_the_answer_never_reach_the_client(start, splices):
    splice, client = bad_end(start, splices, b"5\r\nhello\r\n", b"5\r\nworld\r\n",
                             b"0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
    assert b"".join(client.chunks()) == b"helloworld"
    assert not client.buf and client.ended(0.1) is None
    assert splice.taken() == 1 and splice.status()["splice_refused"]["bytes_behind_answer"] == 1


def test_malformed_chunks_break_the_answer(start, splices):
    splice, client = bad_end(start, splices, b"5\r\nhello\r\n", b"zz\r\nworld\r\n")
    assert client.ended() == "rst"
    assert b"world" not in client.buf
    assert splice.status()["splice_refused"]["malformed_chunks"] == 1
    client.close()
    splice.wait_idle()


def test_more_chunks_in_a_packet_than_the_program_walks_go_by_relay(start, splices):
    parts = b"".join(b"1\r\n%c\r\n" % (97 + i % 26) for i in range(9000))
    splice, client = bad_end(start, splices, b"5\r\nhello\r\n", parts, b"0\r\n\r\n")
    got = b"".join(client.chunks())
    same(got, b"hello" + bytes(97 + i % 26 for i in range(9000)))


# ---- time, operation


def test_a_stream_that_stands_still_times_out(start, splices):
    def serve(conn):
        conn.read()
        conn.send(STREAM + b"5\r\nhello\r\n")
        conn.more()

    splice = splices([start.raw(serve)], "--timeout-stall", "1500ms")
    client = start.client(splice.kvpin)
    begin = time.monotonic()
    client.send(request("/", "s"))
    assert client.head()[0] == 200
    splice.wait_running()
    assert client.ended() == "rst"
    assert 1.4 < time.monotonic() - begin < 5
    client.close()
    splice.wait_idle()


def test_a_stream_that_moves_does_not_time_out(start, splices):
    splice = splices(start.sims(1, "uvicorn"), "--timeout-stall", "700ms")
    client = start.client(splice.kvpin)
    client.send(request("/sse/12/100000/150", "s"))
    assert client.answer()[2].count(b"data: ") == 12
    assert splice.taken() == 1


def test_a_drain_lets_a_stream_end(start, splices):
    splice = splices(start.sims(1, "uvicorn"))
    client = start.client(splice.kvpin)
    client.send(request("/sse/200/10000/150", "s"))
    assert client.head()[0] == 200
    splice.wait_running()
    splice.kvpin.kill(signal.SIGTERM)
    assert b"".join(client.chunks()).count(b"data: ") == 200
    assert client.ended() == "fin"
    client.close()
    assert splice.kvpin.wait(10) == 0


def test_a_stop_breaks_a_stream(start, splices):
    """The deadline of a drain: never a clean end in the middle of an answer."""
    splice = splices(start.sims(1, "uvicorn"), "--drain", "100ms")
    client = start.client(splice.kvpin)
    client.send(request("/sse/1000/5000/150", "s"))
    assert client.head()[0] == 200
    splice.wait_running()
    splice.kvpin.kill(signal.SIGTERM)
    assert client.ended() == "rst"
    assert not client.buf.endswith(b"0\r\n\r\n")
    assert splice.kvpin.wait(10) == 0


def test_tokens_and_bytes_are_counted(start, splices):
    splice = splices(start.sims(1, "uvicorn"))
    client = start.client(splice.kvpin)
    streams = 0
    while splice.taken() < 3:  # on a busy machine one may never pause
        assert streams < 20, splice.status()
        client.send(request("/sse/40/5000/150", "s"))
        assert client.answer()[2].count(b"data: ") == 40
        streams += 1
    splice.kvpin.wait_requests(streams)
    text = splice.kvpin.exporter()[1]

    def metric(pattern_text):
        return sum(float(n) for n in re.findall(pattern_text + r" (\S+)$", text, re.M))
    assert metric(r'kvpin_requests_total\{.*path="splice",outcome="ok"\}') == 3
    assert metric(r'kvpin_bytes_total\{.*"to_client",path="splice"\}') >= 3 * 20 * 150
    assert metric(r'kvpin_ttft_seconds_count\{.*\}') == streams
    # Events that came in one packet are one.
    assert 20 * streams <= metric(r'kvpin_token_gap_seconds_count\{.*\}') <= 39 * streams
    assert 0.1 * streams < metric(r'kvpin_token_gap_seconds_sum\{.*\}') < 0.4 * streams
    assert splice.status()["path_in_use"] == "splice"
    assert splice.status()["splice_devices"] == ["lo"]


@pytest.mark.parametrize("listen, server", [("[::1]:0", "[::1]:0"), ("*:0", "127.0.0.1:0")],
                         ids=["v6", "v4-on-v6-socket"])
def test_ipv6_sockets(start, splices, listen, server):
    sims = [start.sim(f"gpu{i}", "uvicorn", listen=server) for i in range(2)]
    splice = splices(sims, listen=listen)
    addr = ("::1" if "::1" in listen else "127.0.0.1", splice.kvpin.addr[1])
    client = Client(addr)
    start.clients.append(client)
    for i in range(60):
        client.send(request("/sse/10/1000/150", f"s{i % 2}"))
        status, _, body = client.answer()
        assert (status, body.count(b"data: ")) == (200, 10)
    assert splice.taken() >= 40, splice.status()


def test_nothing_is_left_behind(start, splices):
    others = splice_help.programs()
    splice = splices(start.sims(1, "uvicorn"))
    client = start.client(splice.kvpin)
    client.send(request("/sse/20/1000/150", "s"))
    assert client.answer()[2].count(b"data: ") == 20
    assert splice_help.programs() - others
    assert splice_help.attached() == {("lo", "egress")}
    client.close()
    splice.wait_idle()
    assert splice.kvpin.stop() == 0
    end = time.monotonic() + 5
    while splice_help.programs() - others and time.monotonic() < end:
        time.sleep(0.05)
    assert not splice_help.programs() - others
    assert not splice_help.attached()
    assert not os.path.exists(f"{splice.kvpin.pin}-splice")


# ---- size


@pytest.mark.slow
@pytest.mark.parametrize("mib", [100, 1200])
def test_a_large_body(start, splices, mib):
    total = mib << 20
    block = pattern(251 * 4096)

    def serve(conn):
        conn.read()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total + block[:251])
        time.sleep(0.1)
        conn.send(block[251:])
        left = total - len(block)
        while left:
            conn.send(block[:left])
            left -= min(left, len(block))
        conn.read()

    splice = splices([start.raw(serve)])
    client = start.client(splice.kvpin)
    client.sock.settimeout(30)
    client.send(request("/", "s"))
    assert client.head()[0] == 200
    splice.wait_running()
    rss = splice.kvpin.rss_kib()
    got = len(client.buf)
    assert client.buf == block[:got]
    while got < total:
        data = client.sock.recv(1 << 20)
        assert data
        at = got % len(block)
        if block[at:at + len(data)] != data:
            assert (block * 3)[at:at + len(data)] == data
        got += len(data)
    client.buf = b""
    splice.wait(lambda: splice.running() == 0)
    assert splice.kvpin.rss_kib() < rss + 4096
    client.send(request("/", "s"))
    assert client.head()[0] == 200


def test_a_large_body_waits_for_a_slow_reader(start, splices):
    """Between the two ends' own buffers nobody keeps anything."""
    total, sent = 48 << 20, [0]
    block = pattern(251 * 256)

    def serve(conn):
        conn.read()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent[0] < total:
            piece = block[:total - sent[0]]
            conn.send(piece)
            sent[0] += len(piece)
        conn.read()

    splice = splices([start.raw(serve)])
    client = start.client(splice.kvpin, timeout=60)
    client.send(request("/", "s"))
    assert client.head()[0] == 200
    splice.wait_running()
    rss, got, most = splice.kvpin.rss_kib(), len(client.buf), 0
    while got < total:
        time.sleep(0.005)  # slower than the server
        most = max(most, sent[0] - got)
        data = client.sock.recv(1 << 18)
        assert data
        at = got % len(block)
        assert data == (block * (len(data) // len(block) + 2))[at:at + len(data)]
        got += len(data)
    client.buf = b""
    assert 1 << 18 < most < 16 << 20, most
    assert splice.kvpin.rss_kib() < rss + 4096
    splice.wait(lambda: splice.running() == 0)
    client.send(request("/", "s"))
    assert client.head()[0] == 200
