# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The daemon dies while answers go past it; another one comes."""
import glob
import os
import signal

import pytest

import splice_help
from splice_help import attached, request

pytestmark = pytest.mark.splice_only


def many(start, splice, count, events, gap_us=10000):
    """That many streams under way, past the daemon."""
    clients = []
    for i in range(count):
        client = start.client(splice.kvpin, timeout=60)
        client.send(request(f"/sse/{events}/{gap_us}/150", f"s{i}"))
        clients.append(client)
    for client in clients:
        assert client.head()[0] == 200
    splice.wait_running(count)
    return clients


def whole(clients, events):
    """Every stream runs to its end; returns how the connections ended behind it."""
    broken = []
    for i, client in enumerate(clients):
        try:
            body = b"".join(client.chunks())
            assert body.count(b"data: ") == events
        except (EOFError, OSError, AssertionError) as error:
            broken.append((i, repr(error)))
    assert not broken
    return {client.ended(20) for client in clients}


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_streams_outlive_a_killed_daemon(start, splices, count):
    splice = splices(start.sims(2, "uvicorn", slots=2000), "--workers", "2")
    events = 150 if count < 100 else 400
    clients = many(start, splice, count, events)
    splice.kvpin.kill(signal.SIGKILL)
    splice.kvpin.wait()
    ends = whole(clients, events)
    assert None not in ends, ends


def test_another_daemon_starts_beside_the_streams_of_a_dead_one(start, splices):
    sims = start.sims(2, "uvicorn", slots=100)
    splice = splices(sims, "--timeout-stall", "1500ms")
    pin = splice.kvpin.pin
    clients = many(start, splice, 20, 200)
    splice.kvpin.kill(signal.SIGKILL)
    splice.kvpin.wait()
    assert os.path.isdir(f"{pin}-splice")
    second = splices(sims, "--steer-pin", pin, "--timeout-stall", "1500ms")
    assert len(glob.glob(f"{pin}-splice*")) == 2
    fresh = start.client(second.kvpin)
    for i in range(50):
        fresh.send(request("/sse/10/1000/150", f"s{i % 2}"))
        assert fresh.answer()[2].count(b"data: ") == 10
    assert second.taken() == 50
    assert whole(clients, 200) <= {"fin", "rst"}
    for client in clients:
        client.close()
    # Nobody uses the old program any more: the successor takes it away.
    second.wait(lambda: glob.glob(f"{pin}-splice*") == [f"{pin}-splice"], 10)
    fresh.close()
    second.wait_idle()
    second.kvpin.stop()
    assert not glob.glob(f"{pin}-splice*") and not attached()


def test_what_a_dead_daemon_left_is_taken_away(start, splices):
    sims = start.sims(1, "uvicorn")
    splice = splices(sims, "--timeout-stall", "300ms")
    splice.kvpin.kill(signal.SIGKILL)
    splice.kvpin.wait()
    assert attached()
    second = splices(sims, "--steer-pin", splice.kvpin.pin, "--timeout-stall", "300ms")
    second.wait(lambda: len(glob.glob(f"{splice.kvpin.pin}-splice*")) == 1)
    second.kvpin.stop()
    assert not glob.glob(f"{splice.kvpin.pin}-splice*")
    assert not attached()


def test_two_daemons_cannot_have_one_directory(start, splices):
    sims = start.sims(1, "uvicorn")
    splice = splices(sims)
    with pytest.raises(RuntimeError, match="another kvpin that runs"):
        splices(sims, "--steer-pin", splice.kvpin.pin)
    client = start.client(splice.kvpin)
    client.send(request("/sse/10/1000/150", "s"))
    assert client.answer()[2].count(b"data: ") == 10


def test_the_request_of_a_client_whose_daemon_died_is_reset(start, splices):
    """Behind the stream the connection, shifted as it is, ends like any other of a dead process."""
    splice = splices(start.sims(1, "uvicorn", slots=100))
    clients = many(start, splice, 5, 100)
    splice.kvpin.kill(signal.SIGKILL)
    splice.kvpin.wait()
    for client in clients:
        assert b"".join(client.chunks()).count(b"data: ") == 100
        try:
            client.send(request("/json", "s"))
        except OSError:
            pass
        assert client.ended(5) in ("fin", "rst")


def test_what_is_in_flight_drops_with_the_answer_and_not_with_the_daemon(start, splices):
    """The program counts an answer out when the server has sent it, once; a daemon that stands
    still, or is dead, has no part in it."""
    splice = splices(start.sims(1, "uvicorn", slots=100))
    clients = many(start, splice, 6, 300)
    counted = splice_help.InFlight(splice.kvpin)
    assert counted.first() == 6
    splice.kvpin.kill(signal.SIGSTOP)
    for client in clients:
        assert b"".join(client.chunks()).count(b"data: ") == 300
    splice.wait_for(lambda: counted.first() == 0)
    splice.kvpin.kill(signal.SIGCONT)
    splice.wait_running(0)
    assert counted.first() == 0
    for client in clients:
        client.send(request("/sse/300/10000/150", "s"))
        assert client.head()[0] == 200
    splice.wait_running(6)
    assert counted.first() == 6
    splice.kvpin.kill(signal.SIGKILL)
    splice.kvpin.wait()
    for client in clients:
        assert b"".join(client.chunks()).count(b"data: ") == 300
    splice.wait_for(lambda: counted.first() == 0)
