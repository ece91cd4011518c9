# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The splice path between a client and a server whose every segment a test makes by hand: junk
behind an answer's end that stands in one packet with good bytes which the client lacks, a server's
RST, packets of others, sequence numbers that wrap."""
import itertools
import os
import socket
import struct
import threading
import time

import pytest

from harness import pattern, unacked, wait_until
from rawserver import chunked
from rawtcp import ETH_P_IP, FIN, RST, RawServer, RawTcp
from splice_help import CHUNKED, attached, request
from test_splice_net import rig  # pylint: disable=unused-import

pytestmark = [pytest.mark.splice_only,
              pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")]

JUNK = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
PIECE = b"4\r\nabcd\r\n"
LENGTH = 1 << 20


@pytest.fixture(autouse=True)
def one_cpu():
    """What one thread sends from one CPU stays in order."""
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


def raw_pair(rig, start, splices, *args, bases=(1000, 1000), wrap=None):
    """(splices, client, server), connected when the client sends."""
    one, other = rig.peer("c"), rig.peer("s")
    server = RawServer(other, base=bases[1])
    splice = splices([server], *args, listen=f"{one.kvpin[4]}:0")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    client = RawTcp(one, splice.kvpin, base=bases[0], wrap=wrap)
    start.clients += [client, server]
    return splice, client, server


def begin(splice, client, server, head=CHUNKED, pieces=itertools.repeat(PIECE)):
    """An answer under way, past the daemon; returns how many pieces have come of it."""
    client.send(request("/", "s"))
    server.accept()
    server.take_request()
    server.send(head)
    assert client.head()[0] == 200
    for came, piece in enumerate(pieces):
        if splice.running():
            return came
        assert came < 100, splice.status()
        server.send(piece)
        assert client.exactly(len(piece)) == piece
    raise AssertionError(splice.status())


def lost(client, wanted):
    """A segment that the client never gets, as far as kvpin and the server can tell."""
    while True:
        data = client.segment()[2]
        if data:
            assert data == wanted
            return


CASES = {  # (head, what was forwarded and lost, behind it the answer's last bytes, and these)
    "chunked": (CHUNKED, PIECE, b"0\r\n\r\n", JUNK),
    "chunked-all-sent": (CHUNKED, PIECE + b"0\r\n\r\n", b"", JUNK),
    "malformed": (CHUNKED, PIECE, b"", b"zz\r\n"),
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LENGTH, None, PIECE, JUNK),
}


def inseparable(rig, start, splices, case):
    """An answer whose last bytes stand with junk, and before them one that the client lacks.
    Returns (splices, client, server, where that begins, what was lost, the end, junk)."""
    head, gone, end, junk = CASES[case]
    splice, client, server = raw_pair(rig, start, splices)
    pieces = begin(splice, client, server, head)
    if gone is None:  # as much as leaves only the last bytes
        left = LENGTH - (pieces + 1) * len(PIECE)
        while left:
            gone = pattern(min(left, 1400), left)
            left -= len(gone)
            at = server.sent
            server.send(gone)
            if left:
                client.exactly(len(gone))
    else:
        at = server.sent
        server.send(gone)
    lost(client, gone)
    server.send(end + junk)
    return splice, client, server, at, gone, end, junk


@pytest.mark.parametrize("case", CASES)
def test_junk_in_one_packet_with_bytes_that_the_client_lacks(rig, start, splices, case):
    """The server repeats both together: they cannot be forwarded, and the client is told soon that
    its answer is broken."""
    splice, client, server, at, *bytes_again = inseparable(rig, start, splices, case)
    since = time.monotonic()
    for _ in range(4):
        server.send(b"".join(bytes_again), at)
    assert client.ended(8) == "rst"
    assert not client.buf and time.monotonic() - since < 5
    assert splice.status()["splice_refused"]["inseparable_bytes"] == 1
    assert splice.kvpin.wait_requests(1)[0]["outcome"] == "truncated"
    splice.wait_idle()


@pytest.mark.parametrize("case", CASES)
def test_bytes_that_come_apart_from_junk_after_all(rig, start, splices, case):
    """Nothing is broken off while the client gets on: the rest comes by relay."""
    splice, client, server, at, gone, end, junk = inseparable(rig, start, splices, case)
    for _ in range(2):
        server.send(gone + end + junk, at)
    server.send(gone, at)
    assert client.exactly(len(gone)) == gone
    splice.wait_running(0)
    server.send(end + junk, at + len(gone))
    refused = splice.status()["splice_refused"]
    if case == "malformed":
        assert client.ended() == "rst" and refused["malformed_chunks"] == 1
    else:
        assert client.exactly(len(end)) == end
        assert splice.kvpin.wait_requests(1)[0]["outcome"] == "ok"
        assert not client.buf and refused["bytes_behind_answer"] == 1
    assert "inseparable_bytes" not in refused


def test_a_server_that_sent_junk_apart_is_not_asked_again(rig, start, splices):
    """The junk was dropped; should it come again, it must not pass for the next answer."""
    splice, client, server = raw_pair(rig, start, splices)
    begin(splice, client, server)
    at = server.sent
    server.send(b"0\r\n\r\n")
    server.send(JUNK)
    client.exactly(5)
    splice.wait_running(0)
    server.send(JUNK, at + 5)
    while not server.segment()[1] & (FIN | RST):
        pass
    assert splice.kvpin.wait_requests(1)[0]["outcome"] == "ok"
    assert not client.buf


# ---- a server's RST under a dead daemon


@pytest.mark.parametrize("case", ["at-the-next-byte", "behind-a-hole"])
def test_a_reset_of_the_server_behind_a_dead_daemon(rig, start, splices, case):
    """It stands in the client's numbers; where the client lacks bytes it asks, and the server says
    it again."""
    splice, client, server = raw_pair(rig, start, splices)
    begin(splice, client, server)
    splice.kvpin.kill()
    splice.kvpin.wait()
    if case == "behind-a-hole":
        at = server.sent
        server.send(PIECE)
        lost(client, PIECE)
        server.reset()
        asked = client.segment()
        assert asked[1] & RST and asked[0] == (client.got + len(PIECE)) & 0xffffffff
        client.challenge(asked[0])
        while server.segment()[1] & RST or server.acked != at:
            pass
        server.reset(at)
    else:
        server.reset()
    assert client.ended() == "rst" and not client.buf


FAR = 1 << 24


@pytest.mark.parametrize("at", [-FAR, -1, 1, FAR])
@pytest.mark.parametrize("who", ["client", "server"])
def test_a_reset_that_stands_nowhere_ends_nothing(rig, start, splices, who, at):
    """Of somebody who knows no more than addresses and ports. A server's is not asked about: a little
    ahead of its bytes it may follow ones that were lost."""
    splice, client, server = raw_pair(rig, start, splices)
    begin(splice, client, server)
    one = client if who == "client" else server
    one.reset(one.sent + at)
    if (who, at) == ("server", 1):
        assert client.ended() == "rst"
        return
    for _ in range(10):
        server.send(PIECE)
        client.exactly(len(PIECE))
    while server.acked < server.sent:
        server.segment()
    assert not server.was_reset
    server.send(b"0\r\n\r\n")
    client.exactly(5)
    assert splice.kvpin.wait_requests(1)[0]["outcome"] == "ok"
    assert not client.buf


def test_a_reset_that_acknowledges_nothing_ends_the_stream(rig, start, splices):
    """Its field for that is 0, which here is ahead of all that was sent."""
    splice, client, server = raw_pair(rig, start, splices, wrap=(1 << 20, 1 << 30))
    begin(splice, client, server)
    client.reset(bare=True)
    assert server.ended() == "rst"
    assert splice.kvpin.wait_requests(1)[0]["outcome"] == "client_abort"


def test_an_ack_of_what_nobody_has_sent_ends_nothing(rig, start, splices):
    splice, client, server = raw_pair(rig, start, splices)
    begin(splice, client, server)
    got = client.got
    for ahead in (1, 1000, 1 << 20, 1 << 30):
        client.got = (got + ahead) & 0xffffffff
        client.ack()
    client.got = got
    for _ in range(10):
        server.send(PIECE)
        client.exactly(len(PIECE))
    assert splice.running()
    server.send(b"0\r\n\r\n")
    client.exactly(5)
    assert splice.kvpin.wait_requests(1)[0]["outcome"] == "ok"


# ---- in the name of this host


class Eye:
    """What goes over lo, as far as the program lets it."""

    def __init__(self):
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
        self.sock.bind(("lo", ETH_P_IP))
        self.sock.setblocking(False)

    def next_byte(self, port):
        """(the other's port, the next sequence number) of who has that port, by the last packet to
        it."""
        found = None
        try:
            while True:
                packet = self.sock.recv(65536)
                head = (packet[0] & 15) * 4
                other, to, _, ack = struct.unpack(">HHII", packet[head:head + 12])
                if packet[9] == socket.IPPROTO_TCP and to == port:
                    found = other, ack
        except BlockingIOError:
            return found


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_reset_from_elsewhere_in_the_name_of_this_host_ends_nothing(rig, start, splices, who):
    """At the very number where it would count. The stack does not take such a packet either, but the
    program looks first."""
    conns, go = [], threading.Event()

    def serve(conn):
        conn.read()
        conns.append(conn)
        conn.send(CHUNKED + PIECE)
        go.wait(20)

    elsewhere = rig.peer("c")
    server = start.raw(serve)
    splice = splices([server], listen=f"{elsewhere.kvpin[4]}:0")
    client = start.client(splice.kvpin)
    client.send(request("/", "s"))
    assert client.head()[0] == 200
    splice.wait_running()
    assert (elsewhere.device, "ingress") in attached()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    eye = Eye()
    conns[0].send(PIECE)
    wait_until(lambda: not unacked(conns[0].sock))
    address, port = (client.sock.getsockname() if who == "client" else server.addr)
    other, number = eye.next_byte(port)
    forger = RawTcp.__new__(RawTcp)
    forger.open(elsewhere, 10, number)
    forger.ends, forger.ports = (socket.inet_aton(address),) * 2, (port, other)
    forger.reset(0)
    # What the same device brings behind it is served.
    second = elsewhere.client(splice.kvpin)
    start.clients += [forger, second]
    conns[0].send(PIECE)
    assert client.exactly(3 * len(PIECE)) == 3 * PIECE
    second.send(b"GARBAGE\r\n\r\n")
    assert second.head()[0] == 400
    assert splice.kvpin.status("backends")["backends"][0]["inflight"] == 1
    assert splice.running() == 1
    conns[0].send(b"0\r\n\r\n")
    go.set()
    assert client.exactly(5) == b"0\r\n\r\n"
    assert {row["outcome"] for row in splice.kvpin.wait_requests(2)} == {"ok", "refused"}


# ---- sequence numbers that wrap

SIZE = 3 << 20
SEGMENT = 1400
AT_ONCE = 30  # less than a window


def answer(framing):
    """(head, all that follows it)"""
    body = pattern(SIZE, 5)
    if framing == "chunked":
        return CHUNKED, chunked(*(body[i:i + 30011] for i in range(0, SIZE, 30011)))
    length = b"Content-Length: %d\r\n" % SIZE if framing == "length" else b""
    return b"HTTP/1.1 200 OK\r\n" + length + b"\r\n", body


def carry(client, server, pieces, astray=False):
    """astray: each second segment comes before its turn, and once more in it."""
    for i in range(0, len(pieces), AT_ONCE):
        some, at = pieces[i:i + AT_ONCE], server.sent
        for n, piece in enumerate(some):
            if astray and n % 2 and n + 1 < len(some):
                server.send(some[n + 1], at + len(piece))
            server.send(piece, at)
            at += len(piece)
        assert client.exactly(sum(map(len, some))) == b"".join(some)
        while server.acked < server.sent:
            server.segment()


@pytest.mark.parametrize("astray", [False, True], ids=["in-order", "astray"])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_sequence_numbers_that_wrap_in_a_spliced_answer(rig, start, splices, framing, astray):
    """The server's, kvpin's to the client, and the client's own: each within the same exchange."""
    head, body = answer(framing)
    splice, client, server = raw_pair(
        rig, start, splices, wrap=(SIZE // 8, SIZE * 7 // 8),
        bases=(-20 & 0xffffffff, -(len(head) + SIZE // 2) & 0xffffffff))
    pieces = [body[i:i + SEGMENT] for i in range(0, len(body), SEGMENT)]
    came = begin(splice, client, server, head, pieces)
    carry(client, server, pieces[came:], astray)
    # Both wrapped behind the taking.
    assert came * SEGMENT < SIZE // 8 and client.got < SIZE < client.first
    assert (server.base + server.sent) & 0xffffffff < SIZE < server.base
    if framing == "close":
        server.send(b"", fin=True)
        assert client.ended() == "fin"
    else:
        splice.wait_running(0)
        client.send(request("/next", "s"))
        assert b"GET /next" in server.take_request()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nafter")
        assert client.answer()[2] == b"after"
    assert splice.kvpin.wait_requests(1)[0]["outcome"] == "ok" and splice.taken() == 1
    assert ("out_of_order" in splice.status()["splice_refused"]) == (astray and framing == "chunked")
