# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The steer path and TCP that is not the usual one: segments that the host itself drops, and bytes
that come twice."""
import os
import struct

import pytest

import netrig
from harness import pattern
from rawserver import chunked
from rawtcp import RawTcp
from steer_help import (CHUNKED, VERIFY, Script, answer_of, request, steered_client, wait_until)

pytestmark = [pytest.mark.steer_only,
              pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")]
# In struct kvpin_flow, with which kvpin_conn begins, and in struct kvpin_config.
BROKEN_OFFSET, RING_FULL_OFFSET = 60, 72


@pytest.fixture
def rig():
    one = netrig.Rig()
    yield one
    one.close()


def test_segments_that_the_host_itself_drops_reorder_nothing(start, kernel, rig):
    """A full queue of the device refuses a segment after TCP has counted it as sent."""
    peer = rig.peer("c")
    netrig.narrow(peer.device)
    steer = kernel(start.sims(1, "uvicorn"), "--workers", "1", "--steer-budget", "64KiB",
                   listen="0.0.0.0:0")
    client = peer.client(steer.kvpin, timeout=30)
    steered_client(start, steer, "s", client=client)
    for turn in range(3):
        client.send(request(f"/bytes/6000000?seed={turn}&manner=chunked&chunk=30000", "s"))
        assert client.answer()[2] == pattern(6000000, turn)
    assert steer.gates()["budget"] >= 3 and netrig.dropped(peer.device) > 100
    client.close()


# ---- bytes that come twice

LAST = 20  # bytes of what was sent before, at a segment's beginning


def cut_client(rig, start, kernel, server=None):
    """(kernel, a client of hand-made segments that is in the kernel's hands)"""
    peer = rig.peer("c")
    steer = kernel([server or start.sim("gpu0", "uvicorn")], "--workers", "1",
                   listen="0.0.0.0:0")
    client = RawTcp(peer, steer.kvpin)
    start.clients.append(client)
    return steer, steered_client(start, steer, "s", client=client)


def test_a_request_behind_bytes_that_came_before_is_steered(rig, start, kernel):
    steer, client = cut_client(rig, start, kernel)
    with steer.steers(20, {"overlap_trimmed": 10}):
        for turn in range(20):
            data = request(f"/bytes/300?seed={turn}", "s")
            twice = turn % 2 * LAST
            client.send(before[-twice:] + data if twice else data, client.sent - twice)
            assert client.answer()[2] == pattern(300, turn)
            before = data


def test_the_pieces_of_a_request_overlap_ahead_of_a_hole(rig, start, kernel):
    """TCP queues both at once when the hole is filled; the second begins with known bytes."""
    steer, client = cut_client(rig, start, kernel)
    for turn in range(10):
        data = request("/sink", "s", VERIFY, body=pattern(1000, turn))
        at = client.sent
        client.send(data[300:], at + 300)
        client.send(data[:400], at)
        answer_of(client, "gpu0", pattern(1000, turn))
    assert steer.refusals()["overlap_trimmed"] == 10


@pytest.mark.parametrize("when", ["idle", "running"])
def test_a_fin_behind_bytes_that_came_before_ends_the_connection(rig, start, kernel, when):
    """A segment of which only the FIN is new."""
    def then(script, conn, got):
        conn.send(CHUNKED)
        script.go.wait(10)
        conn.send(chunked(*(pattern(900, i) for i in range(100))))

    script = Script(then)
    steer, client = cut_client(rig, start, kernel, start.raw(script))
    data = request("/json" if when == "idle" else "/stream", "s")
    client.send(data)
    if when == "idle":
        assert client.answer()[2] == b"raw0"
        steer.wait_armed()
    else:
        assert client.head()[0] == 200
    client.send(data[-LAST:], client.sent - LAST, fin=True)
    wait_until(lambda: steer.armed() == 0)
    if when == "running":
        script.go.set()
        assert list(client.chunks()) == [pattern(900, i) for i in range(100)]
    assert not client.more()
    wait_until(lambda: steer.kvpin.status()["connections"] == 0)
    assert steer.refusals()["overlap_trimmed"] == 1


def test_a_stream_with_bytes_that_could_not_be_taken_off_is_reset(start, kernel):
    """Taking them off needs memory. The kernel's mark is enough, should its event be lost."""
    steer = kernel(start.sims(1, "uvicorn"), "--workers", "1")
    client = steered_client(start, steer, "s")
    with steer.writable("conns") as conns, steer.writable("config") as config:
        struct.pack_into("I", conns, BROKEN_OFFSET, 1)
        lost = struct.unpack_from("Q", config, RING_FULL_OFFSET)[0]
        struct.pack_into("Q", config, RING_FULL_OFFSET, lost + 1)
    assert client.ended() == "rst"
