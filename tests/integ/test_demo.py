# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""scripts/demo: what it shows is measured, and what cannot be true makes it fail."""
import json
import os
import signal
import subprocess
import time

import pytest

import harness

DEMO = os.path.join(harness.ROOT, "scripts", "demo")


@pytest.fixture
def demo(tmp_path, path):
    """demo(*args, build=DIR): starts a quick one; ended with the test, whatever happens."""
    started = []

    def start(*args, build=harness.BUILD):
        argv = [DEMO, "--quick", "--no-install", "--no-build", "--path", path, *args]
        # Its directory of logs and sockets goes where the test can see whether it is left over.
        process = subprocess.Popen(argv, text=True, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                   env={**os.environ, "KVPIN_BUILD": str(build),
                                        "TMPDIR": str(tmp_path)})
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()  # its children get a signal of their own from the kernel
        process.communicate()


def finished(process, status, timeout=60):
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == status, out + err
    return out


def wrapped_build(tmp_path, program, flags):
    """A build directory whose `program` runs with more flags, appended."""
    build = tmp_path / "build"
    (build / "tests").mkdir(parents=True)
    for name in ("kvpin", "tests/kvpin-sim"):
        real = os.path.join(harness.BUILD, name)
        more = flags if name == program else ""
        (build / name).write_text(f'#!/bin/sh\ncase $1 in run|--*) exec "{real}" "$@" {more};; esac'
                                  f'\nexec "{real}" "$@"\n')
        (build / name).chmod(0o755)
    return build


def left_over(tmp_path):
    """Processes that inherited this test's TMPDIR: the demo and all that it started."""
    mine = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                if b"TMPDIR=" + os.fsencode(str(tmp_path)) in f.read().split(b"\0"):
                    mine.append(int(pid))
        except OSError:
            pass
    return mine


def test_affinity_keeps_sessions_and_recomputes_less_than_round_robin(demo, tmp_path):
    out = finished(demo("--sessions", "6", "--turns", "4", "--json", str(tmp_path / "d.json")), 0)
    data = json.loads((tmp_path / "d.json").read_text())
    assert data["version"] == 1 and data["ok"] and data["problems"] == []
    for run in (data["affinity"], data["round_robin"]):
        assert run["failures"] == []
        assert [s["name"] for s in run["sessions"]] == [f"chat-{i}" for i in range(1, 7)]
        for session in run["sessions"]:
            assert len(session["turns"]) == len(session["servers"]) == 4
            for turn in session["turns"]:
                assert turn["ttft_ms"] > 0
                assert turn["cached_tokens"] + turn["recomputed_tokens"] == turn["prompt_tokens"]
            # The sum below the table is of turns 2 and later.
            assert session["recomputed_tokens"] == sum(
                t["recomputed_tokens"] for t in session["turns"][1:])
        assert run["totals"]["requests"] == 24 and run["totals"]["later_turns"] == 18
        assert run["totals"]["recomputed_tokens"] == sum(
            s["recomputed_tokens"] for s in run["sessions"])

    pinned, robin = data["affinity"], data["round_robin"]
    assert all(len(set(s["servers"])) == 1 for s in pinned["sessions"])
    assert {s["servers"][0] for s in pinned["sessions"]} == {"gpu0", "gpu1"}
    assert pinned["totals"]["server_changes"] == 0 < robin["totals"]["server_changes"]
    assert pinned["totals"]["recomputed_tokens"] < robin["totals"]["recomputed_tokens"]
    # One pool: the connections are shared by the sessions, which is what makes it a test.
    assert pinned["totals"]["sessions_per_connection_max"] > 1
    # The two runs sent the same: prompts have the same lengths, turn by turn.
    assert ([[t["prompt_tokens"] for t in s["turns"]] for s in pinned["sessions"]]
            == [[t["prompt_tokens"] for t in s["turns"]] for s in robin["sessions"]])

    seen = pinned["look_in"]
    assert seen["backends"].startswith("NAME") and seen["sessions"].startswith("SESSION")
    assert any('turn="later"' in line for line in seen["metrics"])
    assert "\033" not in out and "\r" not in out  # neither colour nor progress in a file
    assert max(map(len, out.splitlines())) <= 110  # `kvpin backends` is the widest
    assert data["gain"] in " ".join(out.split()) and "kvpin backends" in out
    assert not [p for p in tmp_path.iterdir() if p.name.startswith("kvpin-demo-")]
    assert left_over(tmp_path) == []


def test_a_failed_request_fails_the_demo(demo, tmp_path):
    build = wrapped_build(tmp_path, "tests/kvpin-sim", "--fail-500-every 4")
    out = finished(demo("--sessions", "2", "--turns", "5", build=build), 1)
    assert "FAILED" in out and "status 500" in out


def test_a_session_that_changes_its_server_fails_the_demo(demo, tmp_path):
    build = wrapped_build(tmp_path, "kvpin", "--no-affinity --placement round-robin")
    out = finished(demo("--json", str(tmp_path / "d.json"), build=build), 1)
    assert "FAILED" in out and "changed its server" in out
    assert json.loads((tmp_path / "d.json").read_text())["ok"] is False


def test_keep_leaves_all_running_until_interrupted_and_then_nothing(demo, tmp_path):
    process = demo("--sessions", "2", "--turns", "2", "--keep")
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "metrics | grep kvpin_ttft" in line and any("Left running" in x for x in lines):
            break
    control = next(word for line in lines for word in line.split() if word.endswith(".sock"))
    answer = json.loads(subprocess.run([harness.KVPIN, "backends", "--json", "--control", control],
                                       capture_output=True, timeout=20, check=True).stdout)
    assert {b["state"] for b in answer["backends"]} == {"up"}
    assert len(left_over(tmp_path)) == 4  # the demo, two servers, kvpin
    process.send_signal(signal.SIGINT)
    finished(process, 128 + signal.SIGINT)
    assert left_over(tmp_path) == [] and not os.path.exists(control)


def test_killed_midway_it_leaves_no_process(demo, tmp_path):
    process = demo("--turns", "12")
    end = time.monotonic() + 20
    while len(left_over(tmp_path)) < 4 and time.monotonic() < end:
        time.sleep(0.02)
    # The demo, two servers, kvpin; and for a moment a command that the demo runs.
    assert len(left_over(tmp_path)) >= 4
    process.kill()
    process.wait()
    end = time.monotonic() + 10
    while left_over(tmp_path) and time.monotonic() < end:
        time.sleep(0.05)
    assert left_over(tmp_path) == []


def test_a_wrong_option_is_a_usage_error(demo):
    finished(demo("--servers", "1"), 2)
