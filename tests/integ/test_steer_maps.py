# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Pins and maps: what others may read there, who may use them, and what is left behind."""
import json
import os
import re
import signal
import subprocess

import pytest

from harness import ROOT
from steer_help import (ENTERS_AFTER, VERIFY, abi_version, answer_of, owners, request,
                        steered_client, wait_until)

pytestmark = pytest.mark.steer_only


def bpftool(*args):
    """Parsed output, or None when bpftool failed."""
    out = subprocess.run(["bpftool", "-j", *args], capture_output=True, text=True, timeout=20)
    return json.loads(out.stdout) if out.returncode == 0 else None


def objects(pin):
    """[("map" or "prog", id)] of what is pinned there."""
    found = []
    for name in os.listdir(pin):
        for kind in ("map", "prog"):
            shown = bpftool(kind, "show", "pinned", f"{pin}/{name}")
            if shown and "id" in shown:
                found.append((kind, shown["id"]))
                break
        else:
            raise AssertionError(f"{name} is neither a map nor a program")
    return found


def gone(found):
    return not [one for one in found if bpftool(one[0], "show", "id", str(one[1]))]


def namespaces():
    return sorted(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else []


def pins_of(steer):
    return {row["session"]: (row["backend"], row["turns"], row["moves"])
            for row in steer.kvpin.status("sessions")["sessions"]}


def test_only_root_reads_the_pins(start, kernel):
    steer = kernel(start.sims(1))
    assert os.stat(steer.kvpin.pin).st_mode & 0o7777 == 0o700
    for name in os.listdir(steer.kvpin.pin):
        assert os.stat(f"{steer.kvpin.pin}/{name}").st_mode & 0o077 == 0, name


def test_the_programs_are_verdicts_and_nothing_else(start, kernel):
    """No sk_msg, whose senders hang when the target is full; no stream parser; nothing redirected
    into a socket's receive queue (BPF_F_INGRESS), which miscounts its memory."""
    steer = kernel(start.sims(1))
    programs = [bpftool("prog", "show", "pinned", f"{steer.kvpin.pin}/{name}")
                for name in os.listdir(steer.kvpin.pin) if name.startswith("steer_")]
    assert [program["type"] for program in programs] == ["sk_skb"] * 3
    sources = [name for name in os.listdir(os.path.join(ROOT, "bpf")) if not
               name.startswith(("splice", "packet", "selftest"))]
    assert "steer.bpf.c" in sources
    for name in sources:
        with open(os.path.join(ROOT, "bpf", name)) as f:
            text = f.read()
        assert not re.search(r"sk_msg|stream_parser|BPF_F_INGRESS", text), name
        assert set(re.findall(r'SEC\("([^".]+)', text)) <= {"sk_skb/stream_verdict", "sk_skb",
                                                          "license"}, name


def test_the_maps_show_the_sessions_and_servers_that_the_commands_show(start, kernel):
    sims = start.sims(4, "uvicorn")
    steer = kernel(sims)
    client, names = owners(start, steer, sims, 12)
    for turn in range(200):
        session = f"s{turn * turn % 12}"
        client.send(request("/json", session, VERIFY))
        answer_of(client, names[session])
    shown = pins_of(steer)
    assert steer.sessions() == shown and len(shown) == 12
    assert sum(turns for _, turns, _ in shown.values()) == 216
    assert steer.servers() == {i: f"gpu{i}" for i in range(4)}
    rows = [row for _, row in steer.dump("backends")[:4]]
    backends = steer.kvpin.status("backends")["backends"]
    assert [row["address"] for row in rows] == [b["address"] for b in backends]
    assert [(row["state"], row["weight"], row["slots"], row["inflight"]) for row in rows] == [
        (1, 1, 0, 0)] * 4
    assert {b["name"]: b["requests_steer"] for b in backends} == {
        name: row["requests"] for name, row in steer.counters().items()}
    config = steer.config()
    assert (config["version"], config["pid"]) == (abi_version(), steer.kvpin.pid)


def test_a_pin_that_moves_moves_in_the_kernels_map_too(start, kernel):
    sims = start.sims(2, "uvicorn")
    steer = kernel(sims)
    client, names = owners(start, steer, sims, 4)
    sims[0].kill()
    sims[0].wait()
    for session in names:
        client.send(request("/json", session, VERIFY))
        answer_of(client, "gpu1")
    assert steer.sessions() == pins_of(steer)
    assert sorted(moves for _, _, moves in steer.sessions().values()) == [0, 0, 1, 1]
    assert {name for name, _, _ in steer.sessions().values()} == {"gpu1"}


def test_a_forgotten_session_leaves_the_kernels_map(start, kernel):
    steer = kernel(start.sims(2, "uvicorn"), "--ttl", "1s")
    client = steered_client(start, steer, "a")
    assert len(steer.sessions()) == 1
    for _ in range(10):  # what is steered keeps its pin alive
        client.send(request("/json", "a"))
        assert client.answer()[0] == 200
        client.ended(0.15)
    assert [turns for _, turns, _ in steer.sessions().values()] == [10 + ENTERS_AFTER]
    assert steer.total() == 10
    wait_until(lambda: not steer.sessions())


def test_a_clean_exit_leaves_nothing_in_the_kernel(start, kernel):
    before = namespaces(), sorted(os.listdir("/sys/fs/bpf"))
    steer = kernel(start.sims(2, "uvicorn"))
    steered_client(start, steer, "a", "b").close()
    found = objects(steer.kvpin.pin)
    assert len([one for one in found if one[0] == "prog"]) == 3
    assert not gone(found)
    steer.close()
    assert steer.kvpin.stop() == 0
    assert not os.path.exists(steer.kvpin.pin)
    wait_until(lambda: gone(found))
    assert namespaces() == before[0]
    assert not [name for name in os.listdir("/sys/fs/bpf")
                if name.startswith(os.path.basename(steer.kvpin.pin))]


def test_a_second_kvpin_with_the_same_pins_is_refused_and_harms_nothing(start, kernel):
    sims = start.sims(1, "uvicorn")
    steer = kernel(sims)
    client = steered_client(start, steer, "a")
    with pytest.raises(RuntimeError) as refused:
        kernel(sims, "--steer-pin", steer.kvpin.pin)
    assert f"belongs to another kvpin that runs, pid {steer.kvpin.pid}" in str(refused.value)
    with steer.steers(10):
        for _ in range(10):
            client.send(request("/json", "a"))
            assert client.answer()[0] == 200


def killed(start, kernel, sims, *args):
    """A kvpin that was killed with sessions in the kernel: (its Kernel, {session: server}, pins)"""
    steer = kernel(sims, "--session-state", "off", *args)
    client, names = owners(start, steer, sims, 8)
    for turn in range(40):
        client.send(request("/json", f"s{turn % 8}", VERIFY))
        answer_of(client, names[f"s{turn % 8}"])
    pins = pins_of(steer)
    client.close()
    steer.close()
    steer.kvpin.kill(signal.SIGKILL)
    steer.kvpin.wait()
    assert os.path.isdir(steer.kvpin.pin)
    return steer, names, pins


def again(start, kernel, sims, steer):
    """The next kvpin over the same pins."""
    other = kernel(sims, "--session-state", "off", "--steer-pin", steer.kvpin.pin)
    other.kvpin.pin = steer.kvpin.pin
    return other


def test_sessions_survive_a_kill_in_the_kernels_map(start, kernel):
    sims = start.sims(4, "uvicorn")
    steer, names, pins = killed(start, kernel, sims)
    found = objects(steer.kvpin.pin)
    other = again(start, kernel, sims[::-1], steer)
    assert pins_of(other) == pins == other.sessions()
    client = start.client(other.kvpin)
    for session in reversed(list(names)):
        client.send(request("/json", session, VERIFY))
        answer_of(client, names[session])
    other.wait_armed()
    with other.steers(8):
        for session in names:
            client.send(request("/json", session, VERIFY))
            answer_of(client, names[session])
    assert sum(turns for _, turns, _ in other.sessions().values()) == sum(
        turns for _, turns, _ in pins.values()) + 16
    # The old ones are replaced, not kept beside.
    wait_until(lambda: gone(found))
    client.close()
    other.close()
    assert other.kvpin.stop() == 0
    assert not os.path.exists(steer.kvpin.pin)


def test_maps_of_another_version_are_replaced_and_not_adopted(start, kernel):
    sims = start.sims(2, "uvicorn")
    steer, _, _ = killed(start, kernel, sims)
    path = f"{steer.kvpin.pin}/config"
    value = bpftool("map", "dump", "pinned", path)[0]["value"]
    done = subprocess.run(["bpftool", "map", "update", "pinned", path, "key", "0", "0", "0", "0",
                           "value", "99", *value[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    other = again(start, kernel, sims, steer)
    assert "sessions of another version are not adopted" in other.kvpin.output()
    assert pins_of(other) == {} == other.sessions()
    assert other.config()["version"] == abi_version()
    client = steered_client(start, other, "s0")
    with other.steers(1):
        client.send(request("/json", "s0"))
        assert client.answer()[0] == 200


def test_a_foreign_file_among_the_pins_is_said_and_kept(start, kernel):
    sims = start.sims(1)
    steer, _, _ = killed(start, kernel, sims)
    foreign = f"{steer.kvpin.pin}/foreign"
    subprocess.run(["bpftool", "map", "create", foreign, "type", "array", "key", "4", "value", "4",
                    "entries", "1", "name", "foreign"], check=True)
    try:
        with pytest.raises(RuntimeError, match="foreign"):
            again(start, kernel, sims, steer)
        assert os.path.exists(foreign)
    finally:
        os.unlink(foreign)
    other = again(start, kernel, sims, steer)
    other.close()
    assert other.kvpin.stop() == 0
    assert not os.path.exists(steer.kvpin.pin)


def test_two_kvpins_side_by_side_do_not_meet(start, kernel):
    sims = start.sims(1, "uvicorn")
    both = [kernel(sims), kernel(sims)]
    clients = [steered_client(start, steer, f"s{i}") for i, steer in enumerate(both)]
    with both[0].steers(20), both[1].steers(20):
        for _ in range(20):
            for i, client in enumerate(clients):
                client.send(request("/json", f"s{i}"))
                assert client.answer()[0] == 200
    assert [len(steer.sessions()) for steer in both] == [1, 1]
    clients[0].close()
    both[0].close()
    assert both[0].kvpin.stop() == 0
    with both[1].steers(5):
        for _ in range(5):
            clients[1].send(request("/json", "s1"))
            assert clients[1].answer()[0] == 200
