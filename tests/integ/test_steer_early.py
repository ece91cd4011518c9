# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""A server that answers a steered request before its TCP has taken all of it, and reads the rest
only when most of the answer has gone."""
import os
import threading

import pytest

import netrig
from harness import pattern
from rawserver import reply
from steer_help import CHUNKED, request, small_client, steered_client, wait_until

pytestmark = [pytest.mark.steer_only,
              pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")]
PART = b"%x\r\n%s\r\n" % (30000, pattern(30000))
# Before kvpin takes the answer back: more than a budget, less than the ring. Behind that: more than
# ring and sockets hold.
PARTS = 20, 1000


@pytest.fixture
def narrow():
    """Within it all is in a namespace in which little fits a socket's send buffer."""
    rig = netrig.Rig()
    with netrig.inside(rig.namespace("k")):
        with open("/proc/sys/net/ipv4/tcp_wmem", "w") as f:
            f.write("4096 4096 4096")
        yield
    rig.close()


@pytest.mark.parametrize("how", ["stalls", "half-closes", "leaves", "resets"])
def test_a_long_answer_that_comes_before_its_request_was_read_is_held_back(narrow, start, kernel,
                                                                           how):
    go, sent, bodies, ended = threading.Event(), [], [], []

    def script(conn):
        while (got := conn.request_head()):
            if got.target == "/json":
                conn.send(reply(b"{}"))
                continue
            conn.send(CHUNKED)
            for count in PARTS:
                for _ in range(count):
                    try:
                        conn.send(PART)
                    except OSError:
                        ended.append("rst")
                        raise
                    sent.append(1)
                go.wait(20)
            bodies.append(conn.body_of(got).body)
            if how == "leaves":
                assert conn.request_head() is None
                ended.append("fin")
            conn.send(b"0\r\n\r\n")

    steer = kernel([start.raw(script, rcvbuf=4096)], "--workers", "1", "--steer-ring", "4MiB")
    client = steered_client(start, steer, "s", client=small_client(start, steer))
    body = pattern(30000, 9)
    client.send(request("/early", "s", body=body, method="POST"))
    wait_until(lambda: steer.armed() == 0)  # over the budget
    assert client.head()[0] == 200
    if how in ("half-closes", "leaves"):
        client.half_close()
    go.set()
    wait_until(lambda: len(sent) > PARTS[0])
    if how == "resets":
        client.reset()
        wait_until(lambda: ended == ["rst"])
        steer.wait_idle()
        return
    assert [len(c) for c in client.chunks() if c == pattern(30000)] == [30000] * sum(PARTS)
    assert bodies == [body]
    assert ended == ["fin"] * (how == "leaves")
    if how == "stalls":
        client.send(request("/json", "s"))
        assert client.answer()[2] == b"{}"
    client.close()
    steer.wait_idle()
