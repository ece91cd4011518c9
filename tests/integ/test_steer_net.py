# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The steer path towards clients behind a device that drops: TCP's own counts of what it sent are
then not what went out."""
import subprocess

import pytest

import netrig
from harness import pattern
from steer_help import request, steered_client, wait_until

pytestmark = pytest.mark.steer_only


@pytest.fixture
def rig():
    one = netrig.Rig()
    yield one
    one.close()


def tc(*words):
    subprocess.run(["tc", *words], check=True, capture_output=True)


def test_segments_that_the_host_itself_drops_reorder_nothing(start, kernel, rig):
    """A full queue of the device refuses a segment after TCP has counted it as sent."""
    peer = rig.peer("c")
    tc("qdisc", "add", "dev", peer.device, "root", "tbf", "rate", "100mbit", "burst", "16k",
       "limit", "24k")
    steer = kernel(start.sims(1, "uvicorn"), "--workers", "1", "--steer-budget", "64KiB",
                   listen="0.0.0.0:0")
    client = peer.client(steer.kvpin, timeout=30)
    steered_client(start, steer, "s", client=client)
    for turn in range(5):
        client.send(request(f"/bytes/6000000?seed={turn}&manner=chunked&chunk=30000", "s"))
        assert client.answer()[2] == pattern(6000000, turn)
    print(steer.gates())
    client.close()
