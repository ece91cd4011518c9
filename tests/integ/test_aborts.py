# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Back-pressure and aborts: nobody's bytes pile up, and who leaves is noticed at once."""
import json
import socket
import threading
import time

import pytest
import xxhash

from harness import BUILD, NO_CHECKS, Client, wait_until
from rawserver import pattern, reply, serve_ok

REQUEST = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
# An abort must be at the server within this time: in most of some tries, for the machine itself
# may stand still in one.
AT_ONCE_S = 0.1
# Sanitizers make every step slower, and memory figures meaningless.
SANITIZED = "san" in BUILD
MIB = 1 << 20
# The first byte of struct tcp_info; include/net/tcp_states.h.
CLOSED = b"\7"


# ---- back-pressure


def rss_stays(kvpin, before, mib=4):
    if not SANITIZED:
        assert kvpin.rss_kib() - before < mib * 1024


def transferred(kvpin, direction):
    return sum(v for k, v in kvpin.metrics().items()
               if k.startswith("kvpin_bytes_total") and f'direction="{direction}"' in k)


def wait_still(value):
    before = -1
    while before != value():
        before = value()
        time.sleep(0.2)
    return before


@pytest.mark.parametrize("manner", ["cl", "chunked", "close"])
def test_an_answer_waits_for_its_reader_in_constant_memory(start, manner):
    size = 200 * MIB if manner == "cl" else 50 * MIB
    kvpin = start.kvpin(start.sims(1))
    client = start.client(kvpin)
    client.request("GET", "/bytes/3000000")
    before = kvpin.rss_kib()
    client.send(f"GET /bytes/{size}?manner={manner} HTTP/1.1\r\nHost: t\r\n\r\n")
    moved = wait_still(lambda: transferred(kvpin, "to_client"))
    assert moved < 30 * MIB, "nobody read, so where did it go?"
    rss_stays(kvpin, before)
    client.head()
    if manner == "chunked":
        parts = client.chunks()
        got, block = 0, pattern(251 * 300)
        for part in parts:
            assert part == block[got % 251:got % 251 + len(part)]
            got += len(part)
        assert got == size
    else:
        early, client.buf = client.buf, b""
        assert early == pattern(len(early))
        skip = len(early)
        block = pattern(251 * 8192)
        got = skip
        while got < size:
            data = client.sock.recv(min(1 << 20, size - got))
            assert data and data == block[got % 251:got % 251 + len(data)], got
            got += len(data)
    rss_stays(kvpin, before)
    assert client.ended(0.2) == ("fin" if manner == "close" else None)


def test_an_upload_waits_for_its_server_in_constant_memory(start):
    size = 200 * MIB
    go, result = threading.Event(), []

    def script(conn):
        while (request := conn.request_head()):
            if request.target == "/warm":
                conn.body_of(request)
                conn.send(reply(b"warm"))
                continue
            go.wait(30)
            check, left = xxhash.xxh64(conn.buf), size - len(conn.buf)
            conn.buf = b""
            while left:
                data = conn.sock.recv(1 << 20)
                assert data
                check.update(data)
                left -= len(data)
            result.append(check.hexdigest())
            conn.send(reply(b"done"))

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS)
    client = start.client(kvpin)
    assert client.request("POST", "/warm", {}, pattern(3000000))[2] == b"warm"
    before = kvpin.rss_kib()
    client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % size)
    block = pattern(251 * 8192)
    check, sent = xxhash.xxh64(), 0
    client.sock.settimeout(0.5)
    try:
        while sent < size:
            at = sent % 251
            n = client.sock.send(block[at:at + min(1 << 20, size - sent)])
            check.update(block[at:at + n])
            sent += n
    except TimeoutError:
        pass
    assert sent < 50 * MIB, "nobody read, so where did it go?"
    rss_stays(kvpin, before)
    go.set()
    client.sock.settimeout(20)
    while sent < size:
        at = sent % 251
        n = client.sock.send(block[at:at + min(1 << 20, size - sent)])
        check.update(block[at:at + n])
        sent += n
    assert client.answer()[2] == b"done"
    assert result == [check.hexdigest()]
    rss_stays(kvpin, before)


def test_many_stalled_readers_cost_a_buffer_each(start):
    kvpin = start.kvpin(start.sims(1))
    start.client(kvpin).request("GET", "/bytes/3000000")
    before = kvpin.rss_kib()
    clients = [start.client(kvpin) for _ in range(100)]
    for client in clients:
        client.send("GET /bytes/20000000 HTTP/1.1\r\nHost: t\r\n\r\n")
    wait_still(lambda: transferred(kvpin, "to_client"))
    # 64 KiB each, and the connection.
    rss_stays(kvpin, before, mib=10)
    start.client(kvpin).request("GET", "/json")


# ---- aborts


def leave(client, how):
    if how == "rst":
        client.reset()
    else:
        client.close()


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("phase", ["prefill", "stream", "upload", "chunked upload",
                                   "after a 100"])
def test_a_client_that_leaves_is_noticed_by_the_server_at_once(start, phase, how):
    reached, ended = threading.Event(), []

    def script(conn):
        conn.request_head()
        if phase == "stream":
            conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        elif phase == "after a 100":
            conn.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        elif "upload" in phase:
            conn.exactly(500)
        reached.set()
        how_seen = conn.ended(3)
        ended.append((how_seen, time.monotonic()))
        reached.clear()

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS)
    took = []
    for _ in range(5):
        client = start.client(kvpin)
        if phase == "upload":
            client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 9999\r\n\r\n" + b"x" * 500)
        elif phase == "chunked upload":
            client.send(b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
                        + b"ffff\r\n" + b"x" * 500)
        elif phase == "after a 100":
            client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 9999\r\n"
                        b"Expect: 100-continue\r\n\r\n")
            assert client.head()[0] == 100
        else:
            client.send(REQUEST)
        if phase == "stream":
            client.until(b"hello\r\n")
        assert reached.wait(3)
        began = time.monotonic()
        leave(client, how)
        wait_until(lambda: not reached.is_set())
        how_seen, at = ended.pop()
        took.append(at - began)
        # A request that cannot become complete, or a client that cannot be told: RST. A FIN
        # behind a whole request may be a half-close; the server is told just that.
        if how == "fin" and phase in ("prefill", "stream"):
            assert how_seen == "fin"
        else:
            assert how_seen == "rst"
    assert sorted(took)[2] < AT_ONCE_S, took
    assert {r["outcome"] for r in kvpin.wait_requests(5)} == {"client_abort"}
    wait_until(lambda: kvpin.status()["connections"] == 0)
    assert [b["inflight"] for b in kvpin.status("backends")["backends"]] == [0]


@pytest.mark.parametrize("asked", [0, 2], ids=["first request", "later request"])
@pytest.mark.parametrize("behind", [b"\r\n", b"GET / HT", b"GET / HTTP/1.1\r\nHost: t\r\n"],
                         ids=["empty line", "half a line", "half a head"])
def test_a_fin_behind_what_can_be_no_request_reaches_a_silent_server(start, behind, asked):
    """A FIN behind a whole request waits until that is answered too; behind half of one nothing more
    can come."""
    ended = threading.Event()

    def script(conn):
        while (got := conn.read()).target == "/warm":
            conn.send(reply(b"warm"))
        assert not conn.more()
        ended.set()

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS)
    client = start.client(kvpin)
    for _ in range(asked):
        assert client.request("GET", "/warm", {"X-Session-Id": "s"})[2] == b"warm"
    client.send(b"GET / HTTP/1.1\r\nHost: t\r\nX-Session-Id: s\r\n\r\n" + behind)
    client.close()
    assert ended.wait(10)
    wait_until(lambda: kvpin.status()["connections"] == 0)
    assert [b["inflight"] for b in kvpin.status("backends")["backends"]] == [0]


@pytest.mark.parametrize("asked", [0, 2], ids=["first request", "later request"])
@pytest.mark.parametrize("phase", ["prefill", "chunked", "stream", "after a 100", "tunnel"])
def test_a_reset_behind_a_half_close_reaches_a_silent_server(start, phase, asked):
    """The FIN may be a half-close and is passed on; behind it only the RST says that nobody waits
    for the answer any more."""
    begun = {"prefill": b"",
             "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
             "stream": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                       b"Transfer-Encoding: chunked\r\n\r\n" + b"d\r\ndata: hello\n\n\r\n" * 20,
             "after a 100": b"HTTP/1.1 100 Continue\r\n\r\n",
             "tunnel": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n"
                       b"Upgrade: echo\r\n\r\n"}[phase]
    reached, half, ended = threading.Event(), threading.Event(), threading.Event()

    def script(conn):
        while (got := conn.read()).target == "/warm":
            conn.send(reply(b"warm"))
        conn.send(begun)
        reached.set()
        try:
            assert not conn.more()  # the FIN, behind a whole request
            half.set()
            # Neither reads nor writes: TCP alone hears of the end.
            wait_until(lambda: conn.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
                       == CLOSED, 5)
        except ConnectionResetError:  # the FIN was kept
            assert not half.is_set()
        ended.set()

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS)
    client = start.client(kvpin)
    for _ in range(asked):
        assert client.request("GET", "/warm", {"X-Session-Id": "s"})[2] == b"warm"
    fields = "Connection: upgrade\r\nUpgrade: echo\r\n" if phase == "tunnel" else ""
    client.send(f"GET / HTTP/1.1\r\nHost: t\r\nX-Session-Id: s\r\n{fields}\r\n")
    assert reached.wait(10)
    client.exactly(len(begun))
    client.half_close()
    assert half.wait(10)
    client.reset()
    assert ended.wait(5)
    wait_until(lambda: kvpin.status()["connections"] == 0)
    assert [b["inflight"] for b in kvpin.status("backends")["backends"]] == [0]


@pytest.mark.parametrize("urgent", [False, True], ids=["", "urgent"])
def test_a_half_closed_client_that_waits_costs_nothing(start, urgent):
    """What is watched for behind a FIN must not be there all the time."""
    got, go = threading.Event(), threading.Event()

    def script(conn):
        conn.request_head()
        got.set()
        go.wait(20)
        conn.send(reply(b"late"))

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS)
    client = start.client(kvpin)
    client.send(REQUEST)
    assert got.wait(10)
    if urgent:
        client.sock.send(b"!", socket.MSG_OOB)
    client.half_close()
    used = []
    while not used or (min(used) > 0.05 and len(used) < 10):  # one that spins uses all it gets
        before = kvpin.cpu_seconds()
        time.sleep(0.5)
        used.append(kvpin.cpu_seconds() - before)
    assert min(used) <= 0.05, used
    go.set()
    assert client.answer()[2] == b"late"


def test_a_reset_reaches_a_server_that_does_not_read_the_upload(start):
    reached, ended = threading.Event(), []

    def script(conn):
        conn.request_head()
        reached.set()
        end = time.monotonic() + 5
        while time.monotonic() < end:  # without reading: TCP_INFO's state tells of the RST
            if conn.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != b"\1":
                ended.append(time.monotonic())
                return
            time.sleep(0.002)

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS)
    took = []
    for _ in range(3):
        client = start.client(kvpin)
        client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 100000000\r\n\r\n")
        client.sock.settimeout(0.3)
        try:
            while True:
                client.sock.sendall(pattern(1 << 20))
        except TimeoutError:
            pass
        assert reached.wait(3)
        reached.clear()
        began = time.monotonic()
        client.reset()
        wait_until(lambda: ended)
        took.append(ended.pop() - began)
    assert sorted(took)[1] < AT_ONCE_S, took


def test_a_stalled_reader_that_resets_frees_the_server_at_once(start):
    ended = []

    def script(conn):
        conn.read()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        try:
            conn.sock.sendall(pattern(100000000))
        except OSError:
            ended.append(time.monotonic())

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS)
    took = []
    for _ in range(3):
        client = start.client(kvpin)
        client.send(REQUEST)
        wait_still(lambda: transferred(kvpin, "to_client"))
        began = time.monotonic()
        client.reset()
        wait_until(lambda: ended)
        took.append(ended.pop() - began)
    assert sorted(took)[1] < AT_ONCE_S, took


def test_aborts_free_the_slots_of_a_model_server(start):
    sim = start.sim("gpu0", slots=1, decode_tps=50)
    kvpin = start.kvpin([sim])
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "stream": True,
                       "max_tokens": 10000}).encode()
    for how in ("fin", "rst") * 3:
        client = start.client(kvpin)
        client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\n"
                    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                    + body)
        client.until(b"data: ")
        assert sim.get("/stats")["slots_busy"] == 1
        leave(client, how)
        wait_until(lambda: sim.get("/stats")["slots_busy"] == 0)
    assert sim.get("/stats")["aborts"] == 6


def test_an_abort_while_the_server_is_being_connected_leaves_nothing_behind(start):
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        addr = full.getsockname()
        fill = [socket.socket() for _ in range(4)]
        for sock in fill:
            sock.setblocking(False)
            sock.connect_ex(addr)
        time.sleep(0.05)
        kvpin = start.kvpin(["full=%s:%d" % addr], *NO_CHECKS, "--timeout-connect", "10s")
        fds = kvpin.fds()
        clients = [Client(kvpin.addr) for _ in range(10)]
        for i, client in enumerate(clients):
            client.send(REQUEST)
        wait_until(lambda: kvpin.fds() >= fds + 20)
        for i, client in enumerate(clients):
            leave(client, "rst")
        wait_until(lambda: kvpin.fds() <= fds + 1)
        assert {r["outcome"] for r in kvpin.wait_requests(10)} == {"client_abort"}
        for sock in fill:
            sock.close()


def test_requests_of_others_are_served_while_one_is_stuck(start):
    """One worker: a stalled reader, a stalled server and a silent client hold up nobody."""
    def script(conn):
        request = conn.request_head()
        if request.target == "/stuck":
            conn.ended(10)
            return
        conn.send(reply(b"quick"))
        serve_ok(conn)

    kvpin = start.kvpin([start.raw(script), start.sim("sim0")], *NO_CHECKS, "--workers", "1",
                        "--placement", "round-robin")
    stuck = [start.client(kvpin) for _ in range(6)]
    for client in stuck[:4]:
        client.send("GET /stuck HTTP/1.1\r\nHost: t\r\n\r\n")
    client = start.client(kvpin)
    took = []
    for _ in range(100):
        began = time.monotonic()
        client.request("GET", "/json")
        took.append(time.monotonic() - began)
    assert sorted(took)[90] < 0.5 and max(took) < 5, took
