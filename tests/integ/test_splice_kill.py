# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""kill -9 at any moment of a taking: what goes past the daemon comes whole, because none of its bytes
are in the daemon's memory."""
import random
import socket
import threading
import time

import pytest
import xxhash

import splice_help
from harness import pattern
from splice_help import request
from test_splice_cut import Dechunk
from test_splice_net import rig  # pylint: disable=unused-import

pytestmark = pytest.mark.splice_only

SIZE = 16 << 20
SEED = 7
# Long after the beginning, so that TCP's buffers are full of what a slow client has not read.
LATE = ("--splice-body", "1MiB", "--limit-connections", "64")


class Reader(threading.Thread):
    """A client that reads with pauses until it is told to hurry."""

    def __init__(self, connect, hurry, manner, nap):
        super().__init__()
        # A stream that goes on never stands still for so long.
        self.client = connect(timeout=10, rcvbuf=32768)
        self.hurry, self.manner, self.nap, self.end = hurry, manner, nap, None
        self.client.send(request(f"/bytes/{SIZE}?seed={SEED}&manner={manner}", "s"))
        self.port = self.client.sock.getsockname()[1]
        self.start()

    def run(self):
        try:
            self.end = self.read()
        except TimeoutError:
            self.end = "hangs"
        except (EOFError, OSError):
            self.end = "cut"

    def read(self):
        assert self.client.head()[0] == 200
        hashed, count = xxhash.xxh64(), 0

        def body(data):
            nonlocal count
            hashed.update(data)
            count += len(data)
        framed = Dechunk(body) if self.manner == "chunked" else None
        data = self.client.buf
        while True:
            (framed.feed if framed else body)(data)
            if framed and framed.done:
                break
            self.hurry.wait(self.nap)
            data = self.client.sock.recv(65536)
            if not data:
                break
        if count < SIZE:
            return "cut"
        return "whole" if hashed.digest() == xxhash.xxh64(pattern(SIZE, SEED)).digest() else "wrong"


def past_the_daemon(conns):
    """Ports of clients whose answers the program has."""
    entries = [e.get("formatted", e)["value"] for e in
               splice_help.bpftool("map", "dump", "id", str(conns))]
    return {socket.ntohs(c["remote_port"]) for c in entries
            if c["role"] == 0 and c["peer"] and entries[c["peer"] - 1]["word"] >> 63}


@pytest.mark.slow
@pytest.mark.parametrize("manner", ["chunked", "close"])
def test_a_kill_at_any_moment_of_a_taking_loses_nothing(start, splices, rig, manner):
    """Streams that are not yet taken end with the daemon; those that are come whole."""
    chance, whole, bad = random.Random(4), 0, []
    server, peer = start.sim("gpu0", "uvicorn"), rig.peer("c")
    for n in range(12):
        splice = splices([server], *LATE, listen=f"{peer.kvpin[4]}:0")

        def connect(kvpin=splice.kvpin, **options):
            return peer.client(kvpin, **options)
        conns = splice_help.map_id(splice.kvpin, "splice_conns")
        hurry = threading.Event()
        readers = [Reader(connect, hurry, manner, chance.choice((0.002, 0.005, 0.01)))
                   for _ in range(4)]
        wanted = chance.randint(1, 2)
        splice.wait(lambda: splice.taken() >= wanted, 20)
        time.sleep(chance.random() * 0.01)
        splice.kvpin.kill()
        splice.kvpin.wait()
        taken = past_the_daemon(conns)
        hurry.set()
        for reader in readers:
            reader.join()
            reader.client.close()
            whole += reader.end == "whole" and reader.port in taken
            if reader.end not in ("whole", "cut") or (reader.end == "cut" and reader.port in taken):
                bad.append((n, reader.end, reader.port in taken))
        splice.kvpin.unpin()
    assert not bad, bad
    assert whole >= 20


@pytest.mark.parametrize("later", [0, 0.3, pytest.param(6, marks=pytest.mark.slow)])
def test_the_end_of_a_servers_connection_behind_the_daemons(start, splices, later):
    """All of the answer has come to the client, and only the server's FIN or RST ends it: the client
    is told of it at once also when the daemon has died, a moment before or so long that its sockets
    do nothing."""
    ending = threading.Event()

    def serve(conn):
        how, _, framing = conn.request_head().target[1:].partition("/")
        framing = "Content-Length: 200000" if framing == "truncated" else "Connection: close"
        conn.send(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n")
        for _ in range(10):
            conn.send(pattern(10000))
            time.sleep(0.01)
        ending.wait(30)
        if how == "rst":
            conn.reset()

    splice = splices([start.raw(serve)], "--splice-body", "10KiB")
    clients = []
    for how in "fin", "rst":
        for framing in "whole", "truncated":
            client = start.client(splice.kvpin, timeout=20)
            client.send(request(f"/{how}/{framing}", "s"))
            assert client.head()[0] == 200
            assert client.exactly(100000) == pattern(10000) * 10
            clients.append((how, framing, client))
    splice.wait_running(4)
    splice.kvpin.kill()
    splice.kvpin.wait()
    time.sleep(later)
    since = time.monotonic()
    ending.set()
    ends = [(how, framing, client.ended(20)) for how, framing, client in clients]
    assert all(end == how for how, _, end in ends), ends
    assert time.monotonic() - since < 3 and not any(client.buf for _, _, client in clients)
