# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Pins and a restart of kvpin: what the sessions' file brings back, and that a bad one harms
nothing."""
import os
import signal

import pytest

from harness import NO_CHECKS, Client


class Restarts:
    """kvpins that share a sessions' file, one after the other."""

    def __init__(self, start):
        self.start = start
        self.path = start.tmp / "sessions.state"

    def kvpin(self, backends, *args):
        return self.start.kvpin(backends, *NO_CHECKS, "--session-state", str(self.path), *args)


@pytest.fixture
def restarts(start):
    return Restarts(start)


def turn(kvpin, session):
    """One request of the session; returns the server's name."""
    client = Client(kvpin.addr)
    try:
        status, fields, _ = client.request("GET", "/json", {"x-sim-verify": "1",
                                                            "X-Session-Id": session})
    finally:
        client.close()
    assert status == 200
    return fields["x-sim-server"]


def servers_of(kvpin, sessions):
    return {session: turn(kvpin, session) for session in sessions}


def pins(kvpin):
    return {row["session"]: row for row in kvpin.status("sessions")["sessions"]}


def test_a_session_stays_on_its_server_over_a_restart(restarts):
    sims = restarts.start.sims(4)
    names = [f"chat-{i}" for i in range(40)]
    kvpin = restarts.kvpin(sims)
    before = servers_of(kvpin, names)
    servers_of(kvpin, names)
    shown = pins(kvpin)
    assert len(set(before.values())) == 4
    assert kvpin.stop() == 0
    assert 'msg="sessions saved"' in kvpin.output()
    assert os.stat(restarts.path).st_mode & 0o777 == 0o600

    # Placed anew, in another order and among servers in another order, most would be elsewhere.
    kvpin = restarts.kvpin(sims[::-1])
    assert 'sessions=40' in kvpin.wait_line(r'msg="sessions restored".*').group()
    again = pins(kvpin)
    assert {k: (v["backend"], v["turns"]) for k, v in again.items()} == \
        {k: (v["backend"], 2) for k, v in shown.items()}
    assert servers_of(kvpin, names[::-1]) == before
    assert {row["turns"] for row in pins(kvpin).values()} == {3}
    assert {row["moves"] for row in pins(kvpin).values()} == {0}
    assert sum(row["sessions"] for row in kvpin.status("backends")["backends"]) == 40


def test_the_file_survives_a_crash_and_a_second_restart(restarts):
    sims = restarts.start.sims(2)
    names = [f"chat-{i}" for i in range(10)]
    kvpin = restarts.kvpin(sims)
    before = servers_of(kvpin, names)
    kvpin.stop()
    kvpin = restarts.kvpin(sims)
    kvpin.kill(signal.SIGKILL)
    kvpin.wait()
    kvpin = restarts.kvpin(sims)
    assert servers_of(kvpin, names[::-1]) == before


def test_by_default_the_file_is_beside_the_control_socket(start):
    sims = start.sims(2)
    kvpin = start.kvpin(sims, *NO_CHECKS)
    turn(kvpin, "a")
    assert kvpin.stop() == 0
    path = kvpin.control.removesuffix(".sock") + ".sessions.state"
    with open(path) as f:
        lines = f.read().splitlines()
    assert lines[0] == "kvpin-sessions 2" and len(lines) == 5 and lines[1].startswith("boot ")
    os.unlink(path)

    control = start.tmp / "control.sock"
    kvpin = start.kvpin(sims, *NO_CHECKS, "--control", str(control))
    assert kvpin.stop() == 0
    lines = (start.tmp / "sessions.state").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["kvpin-sessions", "boot", "server", "server"]
    kvpin = start.kvpin(sims, *NO_CHECKS, "--session-state", "off")
    assert kvpin.stop() == 0
    assert not list(start.tmp.glob("control-*.state"))


def test_pins_of_a_server_with_another_address_are_left_out(restarts):
    sims = restarts.start.sims(2)
    names = [f"chat-{i}" for i in range(20)]
    kvpin = restarts.kvpin(sims)
    before = servers_of(kvpin, names)
    kvpin.stop()
    other = restarts.start.sim("gpu1")
    kvpin = restarts.kvpin([sims[0], other])
    line = kvpin.wait_line(r'msg="sessions restored".*').group()
    assert " sessions=10 " in line and " no_server=10 " in line
    kept = [name for name in names if before[name] == "gpu0"]
    assert servers_of(kvpin, kept) == {name: "gpu0" for name in kept}


def test_an_expired_pin_does_not_come_back(restarts):
    sims = restarts.start.sims(2)
    kvpin = restarts.kvpin(sims)
    turn(kvpin, "a")
    kvpin.stop()
    kvpin = restarts.kvpin(sims, "--ttl", "1ms")
    assert " sessions=0 expired=1 " in kvpin.wait_line(r'msg="sessions restored".*').group()
    assert not pins(kvpin)


@pytest.mark.parametrize("content", [
    pytest.param(b"", id="empty"),
    pytest.param(b"not ours\n", id="foreign"),
    pytest.param(b"kvpin-sessions 99\nwhat it may be\n", id="version"),
    pytest.param(b"kvpin-sessions 1\nbroken\n", id="line"),
    pytest.param(b"kvpin-sessions 2\nserver gpu0 nowhere 1\nboot\nserver \n", id="ledger"),
    pytest.param(bytes(range(256)) * 99, id="binary"),
])
def test_a_broken_file_is_a_warning_and_is_written_anew(restarts, content):
    sims = restarts.start.sims(2)
    restarts.path.write_bytes(content)
    kvpin = restarts.kvpin(sims)
    assert str(restarts.path) in kvpin.wait_line(r"level=warn .*").group()
    before = turn(kvpin, "a")
    assert kvpin.stop() == 0
    kvpin = restarts.kvpin(sims)
    assert "level=warn" not in kvpin.output()
    assert len(pins(kvpin)) == 1 and turn(kvpin, "a") == before


def test_a_path_that_cannot_be_written_is_a_warning(restarts):
    sims = restarts.start.sims(2)
    restarts.path = restarts.start.tmp / "missing" / "sessions.state"
    kvpin = restarts.kvpin(sims)
    assert str(restarts.path) in kvpin.wait_line(r"level=warn .*").group()
    turn(kvpin, "a")
    assert kvpin.stop() == 0
    assert 'msg="cannot save the sessions"' in kvpin.output()


def test_a_kvpin_that_does_not_start_leaves_the_file_alone(restarts):
    sims = restarts.start.sims(2)
    kvpin = restarts.kvpin(sims)
    turn(kvpin, "a")
    kvpin.stop()
    saved = restarts.path.read_bytes()
    with pytest.raises(RuntimeError, match="cannot listen"):
        restarts.start.kvpin(sims, *NO_CHECKS, "--session-state", str(restarts.path),
                             listen="192.0.2.1:1")
    assert restarts.path.read_bytes() == saved


def test_a_reload_changes_where_the_sessions_go(restarts):
    sims = restarts.start.sims(1)
    file = restarts.start.tmp / "kvpin.yaml"
    second = restarts.start.tmp / "second.state"
    file.write_text(f"sessions: {{state: {restarts.path}}}\n")
    kvpin = restarts.start.kvpin(sims, *NO_CHECKS, "--config", str(file))
    turn(kvpin, "a")
    file.write_text(f"sessions: {{state: {second}}}\n")
    kvpin.kill(signal.SIGHUP)
    kvpin.wait_line(r'msg="configuration reloaded"')
    assert kvpin.stop() == 0
    assert second.exists() and not restarts.path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else after the start")
@pytest.mark.parametrize("mode", [0o777, 0o755])
def test_a_file_that_the_user_after_the_start_cannot_write_is_said_at_the_start(restarts, mode):
    """root may write everywhere; who kvpin is when it saves the pins may not."""
    restarts.path = restarts.start.tmp / "of-root" / "sessions.state"
    restarts.path.parent.mkdir()
    restarts.path.parent.chmod(mode)
    for parent in restarts.path.parent.parents:  # the way there is open
        if not parent.stat().st_mode & 0o1:
            parent.chmod(parent.stat().st_mode | 0o11)
    kvpin = restarts.kvpin(restarts.start.sims(1), "--user", "nobody")
    assert ("sessions will not outlive a restart" in kvpin.output()) == (mode == 0o755)
    turn(kvpin, "a")
    assert kvpin.stop() == 0
    assert restarts.path.exists() == (mode == 0o777)
