# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The daemon dies while answers go past it; another one comes."""
import glob
import mmap
import os
import signal
import struct
import threading

import pytest

import splice_help
import steer_help
from splice_help import STREAM, attached, request

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
    streams = 0
    while second.taken() < 10:  # on a busy machine one may never pause
        assert streams < 200, second.status()
        fresh.send(request("/sse/10/1000/150", f"s{streams % 2}"))
        assert fresh.answer()[2].count(b"data: ") == 10
        streams += 1
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


# ---- what a successor knows of them

EVENT = b"4\r\nabcd\r\n"


def until(go):
    """A server whose streams run until they are told to end."""
    def serve(conn):
        while conn.read():
            conn.send(STREAM)
            while not go.wait(0.005):
                conn.send(EVENT)
            conn.send(b"0\r\n\r\n")
    return serve


def stream(start, splice, session, path="/"):
    client = start.client(splice.kvpin, timeout=20)
    client.send(request(path, session))
    assert client.head()[0] == 200
    return client


def killed(start, splices, servers, count, paths=("/",)):
    """(its pins, clients of streams that go on) of a kvpin that was killed."""
    splice = splices(servers)
    clients = [stream(start, splice, f"old{i}", paths[i % len(paths)]) for i in range(count)]
    splice.wait_running(count)
    splice.kvpin.kill(signal.SIGKILL)
    splice.kvpin.wait()
    return splice.kvpin.pin, clients


def slots(server, count):
    return f"{server.name}={server.text},slots={count}"


class Heir:
    """A successor, and what it counts at its servers."""

    def __init__(self, splices, backends, pin, *args):
        self.splice = splices(backends, "--steer-pin", pin, *args)
        self.pin, self.kvpin = pin, self.splice.kvpin

    def rows(self):
        return {row["name"]: row for row in self.kvpin.status("backends")["backends"]}

    def counts(self, what="inflight"):
        return {name: row[what] for name, row in self.rows().items()}

    def wait_none(self):
        self.splice.wait(lambda: not any(self.counts("inherited").values()), 20)
        self.splice.wait(lambda: not any(self.counts().values()))
        assert self.kvpin.status()["splice_inherited"] == 0


def test_a_successor_knows_which_server_works_for_a_dead_daemons_clients(start, splices):
    """A server whose slots are taken by such streams is full; by address, for here it has another
    place in the list."""
    ends = threading.Event(), threading.Event()
    busy, idle = (start.raw(until(ends[i]), name) for i, name in enumerate(("busy", "idle")))
    pin, old = killed(start, splices, [busy], 3)
    heir = Heir(splices, [slots(idle, 3), slots(busy, 3)], pin)
    assert heir.counts("inherited") == heir.counts() == {"busy": 3, "idle": 0}
    assert heir.kvpin.status()["splice_inherited"] == 3
    assert heir.kvpin.metrics()['kvpin_splice_inherited{backend="busy"}'] == 3
    fresh = [stream(start, heir.splice, f"new{i}") for i in range(3)]
    assert heir.counts() == {"busy": 3, "idle": 3}
    ends[0].set()
    assert whole_raw(old)
    heir.splice.wait(lambda: heir.counts() == {"busy": 0, "idle": 3})
    assert heir.counts("inherited") == {"busy": 0, "idle": 0}
    # Its slots are its own again.
    assert whole_raw([stream(start, heir.splice, "late")])
    assert len(busy.requests) == 4
    ends[1].set()
    assert whole_raw(fresh)
    heir.wait_none()


def whole_raw(clients):
    return all(set(client.chunks()) <= {b"abcd"} for client in clients)


def test_a_request_waits_for_a_slot_that_a_dead_daemons_stream_has(start, splices):
    end = threading.Event()
    server = start.raw(until(end), "busy")
    pin, old = killed(start, splices, [server], 2)
    heir = Heir(splices, [slots(server, 2)], pin, "--wait", "60s")
    client = start.client(heir.kvpin, timeout=20)
    client.send(request("/", "new"))
    heir.splice.wait(lambda: heir.counts("waiting") == {"busy": 1})
    assert heir.counts() == {"busy": 2} and len(server.requests) == 2
    end.set()
    assert client.head()[0] == 200
    assert whole_raw([*old, client])
    heir.wait_none()


@pytest.mark.parametrize("how", ["close", "reset", "server-reset", "server-close"])
def test_streams_of_a_dead_daemon_that_break_off_count_no_more(start, splices, how):
    end = threading.Event()

    def serve(conn):
        conn.read()
        conn.send(STREAM)
        while not end.wait(0.005):
            conn.send(EVENT)
        if how == "server-reset":
            conn.reset()

    server = start.raw(serve, "busy")
    pin, old = killed(start, splices, [server], 4)
    heir = Heir(splices, [server], pin)
    assert heir.counts() == {"busy": 4}
    for client in old[:3]:
        {"close": client.close, "reset": client.reset}.get(how, end.set)()
    heir.splice.wait(lambda: heir.counts() == {"busy": 0 if "server" in how else 1}, 20)
    old[3].close()
    heir.wait_none()


def test_streams_of_a_server_that_is_added_later_count(start, splices, tmp_path):
    """And of one that is removed, until they have ended."""
    end = threading.Event()
    busy, other = (start.raw(until(end), name) for name in ("busy", "other"))
    pin, old = killed(start, splices, [busy], 2)
    file = tmp_path / "kvpin.yaml"

    def configure(*servers):
        file.write_text("backends:\n" + "".join(
            f"  - {{name: {s.name}, address: \"{s.text}\"}}\n" for s in servers))
    configure(other)
    heir = Heir(splices, [], pin, "--config", str(file))
    assert heir.counts() == {"other": 0}
    configure(other, busy)
    heir.kvpin.kill(signal.SIGHUP)
    heir.splice.wait(lambda: heir.counts() == {"other": 0, "busy": 2})
    configure(other)
    heir.kvpin.kill(signal.SIGHUP)
    heir.splice.wait(lambda: heir.rows()["busy"]["state"] == "removed")
    assert heir.counts() == {"other": 0, "busy": 2}
    end.set()
    assert whole_raw(old)
    # Nothing refers to it any more.
    heir.splice.wait(lambda: heir.counts() == {"other": 0})


def test_the_streams_of_two_dead_daemons_are_counted_together(start, splices):
    end = threading.Event()
    server = start.raw(until(end), "busy")
    pin, old = killed(start, splices, [server], 2)
    heir = Heir(splices, [server], pin)
    fresh = [stream(start, heir.splice, f"new{i}") for i in range(3)]
    heir.splice.wait_running(3)
    assert heir.counts() == {"busy": 5}
    heir.kvpin.kill(signal.SIGKILL)
    heir.kvpin.wait()
    third = Heir(splices, [server], pin)
    assert third.counts() == third.counts("inherited") == {"busy": 5}
    end.set()
    assert whole_raw(old + fresh)
    third.wait_none()


def test_the_streams_of_another_version_are_left_alone(start, splices):
    """Its entries may mean anything; only when they are used no more can be seen."""
    end = threading.Event()
    server = start.raw(until(end), "busy")
    pin, old = killed(start, splices, [server], 2)
    config = steer_help.map_at(f"{pin}-splice/config", mmap.PROT_READ | mmap.PROT_WRITE)[0]
    struct.pack_into("I", config, 0, 1 << 30)
    heir = Heir(splices, [server], pin, "--timeout-stall", "1500ms")
    assert heir.counts() == {"busy": 0}
    assert len(glob.glob(f"{pin}-splice*")) == 2
    end.set()
    assert whole_raw(old)
    for client in old:
        client.close()
    heir.splice.wait(lambda: glob.glob(f"{pin}-splice*") == [f"{pin}-splice"], 10)
    heir.wait_none()


def test_a_stream_of_a_dead_daemon_that_stands_still_counts_no_more(start, splices):
    """After timeouts.stall, like one of a living daemon, though others go on."""
    end, still = threading.Event(), threading.Event()

    def serve(conn):
        stands = conn.read().target == "/stands"
        conn.send(STREAM)
        while not end.wait(0.005) and not (stands and still.is_set()):
            conn.send(EVENT)
        end.wait(30)
        conn.send(b"0\r\n\r\n")

    server = start.raw(serve, "busy")
    pin, old = killed(start, splices, [server], 2, ("/stands", "/moves"))
    heir = Heir(splices, [server], pin, "--timeout-stall", "2s")
    assert heir.counts("inherited") == {"busy": 2}
    still.set()
    heir.splice.wait(lambda: heir.counts("inherited") == {"busy": 1}, 20)
    assert heir.counts() == {"busy": 1} and len(glob.glob(f"{pin}-splice*")) == 2
    end.set()
    assert whole_raw(old[1:])
    heir.wait_none()
