# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""A clean exit while sockets whose numbers are shifted still have bytes to send: the program stays
until they arrived, for a bounded time."""
import signal
import time

import pytest

from harness import Client, pattern
from splice_help import attached, request, same

pytestmark = pytest.mark.splice_only

SIZE = 900_000


def leave_bytes(start, splice, timeout=30):
    """A client with a spliced answer behind it, and a relayed one, the connection's last, of which
    most waits in the kernel."""
    client = Client(splice.kvpin.addr, rcvbuf=65536, timeout=timeout)
    start.clients.append(client)
    client.send(request("/sse/20/1000/150", "s"))
    assert client.answer()[2].count(b"data: ") == 20
    splice.wait_running(0)
    assert splice.taken()
    client.send(request(f"/bytes/{SIZE}?seed=3", "s", "Connection: close"))
    splice.wait(lambda: splice.status()["connections"] == 0)
    return client


def test_bytes_that_wait_at_a_clean_exit_arrive(start, splices):
    splice = splices(start.sims(1, "uvicorn"), "--splice-body", "1000MiB")
    client = leave_bytes(start, splice)
    splice.kvpin.kill(signal.SIGTERM)
    splice.wait_for(lambda: "drained" in splice.kvpin.output())
    assert ("lo", "egress") in attached()
    same(client.answer()[2], pattern(SIZE, 3))
    assert client.ended() == "fin"
    client.close()
    assert splice.kvpin.wait(4) == 0
    assert "not all of their bytes arrived" not in splice.kvpin.output()
    assert not attached()


def test_a_client_that_takes_nothing_does_not_hold_the_exit(start, splices):
    splice = splices(start.sims(1, "uvicorn"), "--splice-body", "1000MiB")
    leave_bytes(start, splice)
    since = time.monotonic()
    splice.kvpin.kill(signal.SIGTERM)
    assert splice.kvpin.wait(15) == 0
    assert 4 < time.monotonic() - since < 9
    assert "not all of their bytes arrived" in splice.kvpin.output()
    assert not attached()


@pytest.mark.parametrize("how", ["close", "reset"])
def test_clients_that_left_do_not_hold_the_exit(start, splices, how):
    splice = splices(start.sims(1, "uvicorn"))
    for i in range(10):
        client = start.client(splice.kvpin)
        client.send(request("/sse/20/1000/150", f"s{i}"))
        assert client.answer()[2].count(b"data: ") == 20
        client.close() if how == "close" else client.reset()
    splice.wait_idle()
    since = time.monotonic()
    splice.kvpin.kill(signal.SIGTERM)
    assert splice.kvpin.wait(15) == 0
    assert time.monotonic() - since < 2
    assert not attached()
