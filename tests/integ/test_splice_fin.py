# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""A client's FIN while its answer goes past the daemon: the server hears of it at once, whoever saw
it and whatever was lost, and what only looks like one ends nothing."""
import os
import socket
import threading
import time

import pytest

import netrig
from rawtcp import FIN, RST, near
from splice_help import STREAM, request
from test_splice_net import rig  # pylint: disable=unused-import
from test_splice_raw import PIECE, begin, one_cpu, raw_pair  # pylint: disable=unused-import

pytestmark = [pytest.mark.splice_only,
              pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")]

FAR = 1 << 24


def told(server, got):
    """The server's TCP is told of an end behind the request, whose next number was @got."""
    while True:
        seq, flags, data = server.segment()
        assert not flags & RST and not data
        if flags & FIN:
            assert seq == got
            server.got = (got + 1) & 0xffffffff
            server.ack()
            return


def stream(client, server, pieces=10):
    """Goes on, acknowledged; returns all flags of what the server got meanwhile."""
    flags = 0
    for _ in range(pieces):
        server.send(PIECE)
        client.exactly(len(PIECE))
    while server.acked < server.sent:
        flags |= server.segment()[1]
    return flags


def whole(splice, client, server):
    """The answer ends; then both connections do, without a RST."""
    server.send(b"0\r\n\r\n")
    assert client.exactly(5) == b"0\r\n\r\n" and client.ended() == "fin"
    assert splice.kvpin.wait_requests(1)[0]["outcome"] == "ok" and splice.taken() == 1
    client.sock.close()
    server.send(b"", fin=True)
    while server.acked < server.sent:
        assert not server.segment()[1] & RST
    splice.wait_idle()


@pytest.mark.parametrize("manner", ["silent", "streams"])
def test_a_fin_that_only_kvpins_socket_saw(rig, start, splices, manner):
    """The program holds a FIN back behind what may be another request, here one that was sent twice;
    one that comes while the answer is being taken it does not see at all."""
    splice, client, server = raw_pair(rig, start, splices)
    begin(splice, client, server)
    got = server.got
    client.send(request("/", "s"), 0)
    if manner == "streams":
        stream(client, server)
    client.send(b"", fin=True)
    told(server, got)
    assert splice.running()
    stream(client, server)
    whole(splice, client, server)


def test_a_fin_that_is_lost_behind_the_program(rig, start, splices):
    """kvpin's socket has acknowledged it: the client does not send it again."""
    splice, client, server = raw_pair(rig, start, splices)
    begin(splice, client, server)
    got = server.got
    client.send(b"", fin=True)
    for _ in range(2):  # the program's, and the first of the socket's own
        while not server.segment()[1] & FIN:
            pass
    told(server, got)
    stream(client, server)
    whole(splice, client, server)


@pytest.mark.parametrize("at", [-FAR, -1, 1, FAR])
def test_a_fin_that_stands_nowhere_ends_nothing(rig, start, splices, at):
    """Of somebody who knows no more than addresses and ports."""
    splice, client, server = raw_pair(rig, start, splices)
    begin(splice, client, server)
    sent = client.sent
    client.send(b"", sent + at, fin=True)
    client.sent = sent
    assert not stream(client, server) & FIN
    server.send(b"0\r\n\r\n")
    client.exactly(5)
    assert splice.kvpin.wait_requests(1)[0]["outcome"] == "ok"


def test_a_fin_ahead_of_a_request_that_was_lost(rig, start, splices):
    """The request in front of it is sent again, and is the server's first."""
    splice, client, server = raw_pair(rig, start, splices)
    begin(splice, client, server)
    second, at = request("/second", "s"), client.sent
    client.send(b"", at + len(second), fin=True)
    assert not stream(client, server) & FIN
    client.send(second, at)
    assert not stream(client, server) & FIN
    server.send(b"0\r\n\r\n")
    client.exactly(5)
    server.buf = b""
    assert b"GET /second" in server.take_request()
    server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nafter")
    assert client.answer()[2] == b"after" and client.ended() == "fin"


def test_a_fin_behind_a_dead_daemon(rig, start, splices):
    splice, client, server = raw_pair(rig, start, splices)
    begin(splice, client, server)
    got = server.got
    splice.kvpin.kill()
    splice.kvpin.wait()
    client.send(b"", fin=True)
    told(server, got)
    assert not stream(client, server) & FIN
    server.send(b"0\r\n\r\n")
    assert client.exactly(5) == b"0\r\n\r\n"


def test_a_silent_stream_behind_a_fin_lives(rig, start, splices):
    """kvpin asks the server each second whether it is there, which here must answer once in two."""
    go, ends = threading.Event(), []

    def serve(conn):
        conn.read()
        conn.send(STREAM + b"4\r\nabcd\r\n")
        ends.append(conn.ended(20))
        go.wait(20)
        conn.send(b"0\r\n\r\n")

    rig.home = rig.namespace("k")
    peer = rig.peer("c")
    with netrig.inside(rig.home):
        with open("/proc/sys/net/ipv4/tcp_keepalive_probes", "w") as f:
            f.write("1")
        splice = splices([start.raw(serve)], listen=f"{peer.kvpin[4]}:0")
    client = peer.client(splice.kvpin)
    start.clients.append(client)
    client.send(request("/", "s"))
    assert client.head()[0] == 200
    splice.wait_running()
    client.half_close()
    splice.wait(lambda: ends == ["fin"])
    time.sleep(4)
    go.set()
    assert b"".join(client.chunks()) == b"abcd" and client.ended() == "fin"
    splice.wait_idle()
