# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Deadlines, drain, reload, health checks and the request log while the kernel carries the
connections."""
import json
import os
import re
import signal
import subprocess
import time

import pytest

import harness
from rawserver import reply
from steer_help import (CHUNKED, ENTERS_AFTER, NO_CHECKS, VERIFY, Kernel, Script, answer_of,
                        ask_to_enter, owners, request, steered_client, wait_until)
from ops_help import Config, Stream, reload

pytestmark = pytest.mark.steer_only


# ---- deadlines


def test_an_idle_steered_connection_is_closed_in_time_and_a_busy_one_is_not(start, kernel):
    steer = kernel(start.sims(1, "uvicorn"), "--workers", "1", "--timeout-idle", "1s")
    busy, idle = start.client(steer.kvpin), start.client(steer.kvpin)
    for client in (idle, busy):
        ask_to_enter(client, "s")
    steer.wait_armed(2)
    with steer.steers(8):
        for _ in range(8):
            busy.send(request("/json", "s"))
            assert busy.answer()[0] == 200
            time.sleep(0.2)
    assert idle.ended(1) == "fin"
    assert busy.ended(5) == "fin"


def test_a_steered_request_that_is_not_answered_is_504(start, kernel):
    steer = kernel(start.sims(1, "uvicorn"), "--workers", "1", "--timeout-stall", "800ms")
    client = steered_client(start, steer, "s")
    since = time.monotonic()
    client.send(request("/hang", "s"))
    assert client.answer()[0] == 504
    assert 0.75 < time.monotonic() - since < 3
    client.send(request("/json", "s"))
    assert client.answer()[0] == 200


def test_a_steered_stream_may_be_slow_but_not_stand_still(start, kernel):
    def then(script, conn, got):
        conn.send(CHUNKED)
        for i in range(8):
            time.sleep(0.2)
            script.seen[:] = [time.monotonic()]
            conn.send(b"3\r\n%03d\r\n" % i)
        conn.more()

    script = Script(then)
    steer = kernel([start.raw(script)], "--workers", "1", "--timeout-stall", "1s")
    client = steered_client(start, steer, "s")
    client.send(request("/stream", "s"))
    assert client.head()[0] == 200
    assert client.exactly(64) == b"".join(b"3\r\n%03d\r\n" % i for i in range(8))
    assert client.ended() == "rst"
    assert 0.95 < time.monotonic() - script.seen[0] < 4
    client.close()
    steer.wait_idle()


def test_resets_between_steered_answers_do_not_take_a_server_down(start, kernel):
    steer = kernel(start.sims(1, "uvicorn"), "--workers", "1", *NO_CHECKS)
    client = steered_client(start, steer, "s")
    for _ in range(8):
        with steer.steers(1):
            client.send(request("/json", "s"))
            assert client.answer()[0] == 200
        other = start.client(steer.kvpin)
        other.send(request("/reset", "s"))
        assert other.answer()[0] == 503  # nobody else is there
    assert "backend down" not in steer.kvpin.output()
    for _ in range(3):  # with nothing good in between it is down
        other = start.client(steer.kvpin)
        other.send(request("/reset", "s"))
        assert other.answer()[0] == 503
    assert "backend down" in steer.kvpin.output()


# ---- drain, stop, reload


def test_a_drain_lets_a_steered_stream_finish(start, kernel):
    steer = kernel(start.sims(1, "uvicorn"), "--workers", "1")
    client = steered_client(start, steer, "s")
    idle = start.client(steer.kvpin)
    ask_to_enter(idle, "s")
    steer.wait_armed(2)
    stream = Stream(client, "s", 150, 10000)
    wait_until(lambda: steer.total("bytes_down") > 500)
    assert steer.armed() == 2
    steer.kvpin.kill(signal.SIGTERM)
    assert idle.ended() == "fin"
    stream.join(10)
    assert stream.result == "whole" and client.ended() == "fin"
    assert steer.kvpin.wait() == 0


def test_a_second_signal_cuts_a_steered_stream_with_a_reset(start, kernel):
    steer = kernel(start.sims(1, "uvicorn"), "--workers", "1")
    client = steered_client(start, steer, "s")
    client.send(request("/sse/1000/10000/100", "s"))
    assert client.head()[0] == 200
    client.more()
    steer.kvpin.kill(signal.SIGTERM)
    steer.kvpin.wait_line("drain")
    client.more()
    steer.kvpin.kill(signal.SIGTERM)
    assert client.ended() == "rst"
    assert steer.kvpin.wait() == 0


def test_the_drain_deadline_cuts_a_steered_stream_with_a_reset(start, kernel):
    steer = kernel(start.sims(1, "uvicorn"), "--workers", "1", "--drain", "200ms")
    client = steered_client(start, steer, "s")
    client.send(request("/sse/1000/10000/100", "s"))
    assert client.head()[0] == 200
    steer.kvpin.kill(signal.SIGTERM)
    assert client.ended() == "rst"
    assert steer.kvpin.wait() == 0


def config_of(start, kernel, sims, text="", *args):
    config = Config(start, {sim: 1 for sim in sims}, text)
    return config, kernel([], "--config", str(config.path), "--workers", "1", *args)


def test_a_reload_changes_the_session_headers_of_open_connections(start, kernel):
    sims = start.sims(2, "uvicorn")
    config, steer = config_of(start, kernel, sims)
    client, names = owners(start, steer, sims, 2)
    config.write({sim: 1 for sim in sims}, "affinity: {keys: [{header: X-Chat}]}\n")
    done = reload(steer.kvpin)
    assert done.returncode == 0, done.stderr
    with steer.steers(0, {"no_session_key": 1}):
        client.send(request("/json", "s0", VERIFY))
        assert client.answer()[0] == 200
        steer.wait_armed()
    for i, name in enumerate(names.values()):
        client.send(request("/json", None, VERIFY, f"X-Chat: s{i}"))
        answer_of(client, name)  # a session's id does not depend on the header
        steer.wait_armed()
    with steer.steers(10):
        for turn in range(10):
            client.send(request("/json", None, VERIFY, f"X-Chat: s{turn % 2}"))
            answer_of(client, names[f"s{turn % 2}"])


def test_a_reload_that_removes_a_server_moves_its_sessions_at_once(start, kernel):
    sims = start.sims(2, "uvicorn")
    config, steer = config_of(start, kernel, sims)
    client, names = owners(start, steer, sims, 4)
    config.write({sims[1]: 1})
    assert reload(steer.kvpin).returncode == 0
    for turn in range(3):
        for session in names:
            client.send(request("/json", session, VERIFY))
            answer_of(client, "gpu1")
            steer.wait_armed()
    assert steer.refusals().get("backend_down", 0) + steer.refusals().get("no_pin", 0) >= 1
    assert steer.total() >= 8
    assert steer.kvpin.metrics()['kvpin_session_moves_total{reason="moved_removed"}'] == 2


def test_a_reload_that_wants_forwarded_for_ends_the_steering_of_requests(start, kernel):
    def then(script, conn, got):
        conn.send(reply(got.fields.get("x-forwarded-for", "none").encode()))

    raw = start.raw(Script(then))
    config, steer = config_of(start, kernel, [raw])
    client = steered_client(start, steer, "s")
    for text, expected, steered in (("", b"none", 10), ("forwarded_for: true\n", b"127.0.0.1", 0),
                                    ("", b"none", 9)):  # the first goes to the relay
        config.write({raw: 1}, text)
        done = reload(steer.kvpin)
        assert done.returncode == 0, done.stderr
        before = steer.total()
        for _ in range(10):
            client.send(request("/who", "s"))
            assert client.answer()[2] == expected
            if not text:
                steer.wait_armed()
        wait_until(lambda: steer.total() - before == steered)  # pylint: disable=W0640


def test_a_server_that_fails_its_checks_gets_no_steered_request(start, kernel):
    sims = start.sims(2, "uvicorn")
    steer = kernel(sims, "--workers", "1", checks=("--health-interval", "100ms",
                                                    "--health-timeout", "100ms"))
    client, names = owners(start, steer, sims, 4)
    sims[0].get("/control", json.dumps({"health": "503"}).encode())
    wait_until(lambda: [b["state"] for b in steer.kvpin.status("backends")["backends"]] ==
               ["down", "up"])
    assert [row["state"] for _, row in steer.dump("backends")[:2]][1] == 1
    for turn in range(3):
        for session in names:
            client.send(request("/json", session, VERIFY))
            answer_of(client, "gpu1")
            steer.wait_armed()
    assert steer.refusals()["backend_down"] == 2
    assert steer.total() >= 8


def test_each_steered_request_is_logged_once_with_its_numbers(start, kernel):
    steer = kernel(start.sims(2, "uvicorn"), "--workers", "1", log_requests=True)
    client = start.client(steer.kvpin)
    sent = []
    for turn in range(60):
        data = request(f"/bytes/{100 + turn}?seed={turn}", f"s{turn % 4}") if turn % 2 else \
            request("/sink", f"s{turn % 4}", body=b"x" * (turn * 10 + 1))
        client.send(data)
        raw = client.head()
        body = client.exactly(int(raw[1]["content-length"]))
        sent.append((len(data), len(raw[2]) + len(body)))
        if turn + 1 >= ENTERS_AFTER:
            steer.wait_armed()
    rows = steer.kvpin.wait_requests(60)
    assert len(rows) == 60
    assert [(int(r["bytes_up"]), int(r["bytes_down"])) for r in rows] == sent
    assert {(r["outcome"], r["status"]) for r in rows} == {("ok", "200")}
    assert [r["path"] for r in rows].count("steer") == steer.total()
    assert [r["turn"] for r in rows].count("later") == 56
    assert all(0 < float(r["ttft_ms"]) <= float(r["total_ms"]) + 0.01 for r in rows)
    assert re.fullmatch("[0-9a-f]{16}", rows[-1]["session"])
    pins = {row["session"]: row for row in steer.kvpin.status("sessions")["sessions"]}
    assert all(pins[row["session"]]["backend"] == row["backend"] for row in rows)
    assert steer.total() >= 50
    out = subprocess.run([harness.KVPIN, "sessions", "--control", steer.kvpin.control],
                         capture_output=True, text=True, timeout=10)
    assert out.returncode == 0 and rows[-1]["session"] in out.stdout


# ---- path: auto


def test_auto_steers_where_the_machine_allows_it(start):
    kvpin = start.kvpin(start.sims(1, "uvicorn"), *NO_CHECKS, "--path", "auto")
    assert kvpin.metrics()['kvpin_path_available{path="steer"}'] == 1
    look = Kernel(kvpin)
    client = steered_client(start, look, "s")
    with look.steers(2):
        for _ in range(2):
            client.send(request("/json", "s"))
            assert client.answer()[0] == 200


def test_auto_is_the_relay_elsewhere_and_says_so_once(start):
    kvpin = start.kvpin(start.sims(1, "uvicorn"), *NO_CHECKS, "--path", "auto",
                        env={"KVPIN_SELFTEST_FAIL": "privileges"})
    client = start.client(kvpin)
    for _ in range(3):
        client.send(request("/json", "s"))
        assert client.answer()[0] == 200
    assert kvpin.metrics()['kvpin_path_available{path="steer"}'] == 0
    said = [line for line in kvpin.output().splitlines() if "cannot steer here" in line]
    assert len(said) == 1 and "privileges: forced by KVPIN_SELFTEST_FAIL" in said[0]
    assert not os.path.exists(kvpin.pin)


def test_steer_by_name_does_not_start_where_it_cannot(start):
    with pytest.raises(RuntimeError, match="privileges: forced by KVPIN_SELFTEST_FAIL"):
        start.kvpin(start.sims(1, "uvicorn"),
                    env={"KVPIN_SELFTEST_FAIL": "privileges"})
