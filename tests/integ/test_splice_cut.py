# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Streams that are never quiet: a server that always has the next packet under way is made to
pause for the taking, and then most of its answer goes past the daemon."""
import re
import threading

import pytest
import xxhash

from harness import Client, pattern
from splice_help import request

pytestmark = pytest.mark.splice_only

MIB = 1 << 20
MANNERS = ["length", "chunked", "close", "sse"]
EVENT = 150
# Not with the head, behind which a server may pause by itself.
LATE = ("--splice-events", "8", "--splice-body", "256KiB")


def ask(manner, size, session, seed=7):
    if manner == "sse":
        return request(f"/sse/{size // EVENT}/0/{EVENT}", session)
    return request(f"/bytes/{size}?seed={seed}&manner={manner}&chunk=16000", session)


class Dechunk:
    """Takes chunk framing off, piece by piece."""

    def __init__(self, out):
        self.out, self.rest, self.left, self.done = out, b"", 0, False

    def feed(self, data):
        data, at = self.rest + data, 0
        self.rest = b""
        while at < len(data) and not self.done:
            if self.left:
                piece = data[at:at + self.left]
                # The CR LF behind a chunk is counted with it.
                self.out(piece[:max(0, self.left - 2)])
                at, self.left = at + len(piece), self.left - len(piece)
                continue
            end = data.find(b"\r\n", at)
            if end < 0 or end + 4 > len(data):
                self.rest = data[at:]
                return
            size = int(data[at:end], 16)
            at = end + 2
            if size:
                self.left = size + 2
            else:
                assert data[at:] == b"\r\n"
                self.done = True


def take_answer(client, size, manner, seed=7, sip=None):
    """Reads one answer and holds it against what was asked for; sip: bytes at once, of a client
    that is slow."""
    status, fields = client.head()[:2]
    assert status == 200
    hashed, count, events = xxhash.xxh64(), 0, 0
    pieces = []

    def body(data):
        nonlocal count
        count += len(data)
        if manner == "sse":
            pieces.append(data)
        else:
            hashed.update(data)
    framed = Dechunk(body) if manner in ("chunked", "sse") else None
    data, client.buf = client.buf, b""
    while True:
        if framed:
            framed.feed(data)
        else:
            body(data)
        if framed.done if framed else count >= size:
            break
        data = client.sock.recv(sip or MIB)
        assert data, (count, size)
    if manner == "close":
        assert not client.sock.recv(1)
    if manner == "sse":
        text = b"".join(pieces)
        events = text.count(b"data: ")
        assert (events, len(text)) == (size // EVENT, size // EVENT * EVENT)
    else:
        assert (count, hashed.hexdigest()) == (size, xxhash.xxh64(pattern(size, seed)).hexdigest())
    return fields


def spliced_bytes(splice):
    text = splice.kvpin.exporter()[1]
    return sum(float(n) for n in re.findall(
        r'kvpin_bytes_total\{.*"to_client",path="splice"\} (\S+)$', text, re.M))


def connect(start, splice):
    client = Client(splice.kvpin.addr, timeout=60)
    start.clients.append(client)
    return client


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
@pytest.mark.parametrize("manner", MANNERS)
def test_most_of_a_stream_without_pause_is_spliced(start, splices, manner, family):
    listen = "127.0.0.1:0" if family == 4 else "[::1]:0"
    size = (30 if manner == "sse" else 110) * MIB
    splice = splices([start.sim("gpu0", "uvicorn", listen=listen)], *LATE, listen=listen)
    client = connect(start, splice)
    client.send(ask(manner, size, "s"))
    take_answer(client, size, manner)
    splice.wait(lambda: splice.running() == 0)
    assert splice.taken() == 1, splice.status()
    assert spliced_bytes(splice) > size * 3 // 4, (spliced_bytes(splice) / size, splice.status())
    client.close()
    splice.wait_idle()


def test_a_thousand_takings_of_streams_without_pause(start, splices):
    """Two sessions on two servers over the same connections: what went past one answer must not
    show in the next."""
    splice = splices([start.sim(f"gpu{i}", "uvicorn") for i in range(2)], *LATE)
    failed = []

    def run(i):
        client = connect(start, splice)
        try:
            for n in range(900):
                if n % 20 == 0 and splice.taken() >= 1000:
                    break
                manner = ("length", "chunked", "sse")[n % 3]
                size = 4 * MIB + n * 150 if manner != "sse" else MIB // 2 + n * 150
                client.send(ask(manner, size, f"s{(i + n) % 3}", seed=n))
                take_answer(client, size, manner, seed=n)
        except BaseException as error:  # pylint: disable=broad-except
            failed.append(repr(error)[:300])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed
    assert splice.taken() >= 1000, splice.status()
    for client in start.clients:
        client.close()
    splice.wait_idle()


@pytest.mark.parametrize("manner", ["length", "chunked"])
def test_a_slow_client_of_a_fast_server(start, splices, manner):
    """Bytes wait in the daemon's socket for the client: taken all the same, each at its place."""
    size = 12 * MIB
    splice = splices([start.sim("gpu0", "uvicorn")], *LATE)
    client = connect(start, splice)
    for n in range(3):
        client.send(ask(manner, size, "s", seed=n))
        take_answer(client, size, manner, seed=n, sip=8192)
    assert splice.taken() >= 2, splice.status()
    client.close()
    splice.wait_idle()
