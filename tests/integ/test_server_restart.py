# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""A server that dies and is back before any check or request met it dead: its pins are cold."""
import socket
import subprocess

import pytest

from harness import KVPIN, wait_until
from rawserver import reply
from slots_help import backends, explain, run

PREFILL = 4000  # tokens a second: a cold prefill of these prompts takes 0.2 s, noise does not
# No check comes between the kill and the restart.
RARE = ("--health-interval", "10m")


def session(kvpin):
    return kvpin.status("sessions")["sessions"][0]


def restarts(kvpin, name="gpu0"):
    return kvpin.metrics()[f'kvpin_backend_restarts_total{{backend="{name}"}}']


def killed_and_back(start, sim, **options):
    sim.kill()
    sim.wait()
    return start.sim(sim.name, listen=sim.text, prefill_tps=PREFILL, **options)


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0"])
@pytest.mark.parametrize("checks", [RARE, ("--health-interval", "off")], ids=["rare", "off"])
def test_a_restart_that_nobody_met_makes_pins_cold(start, checks, listen):
    sims = [start.sim(f"gpu{i}", listen=listen, prefill_tps=PREFILL) for i in range(2)]
    kvpin = start.kvpin(sims, *checks)
    run(kvpin, "a", words=800)
    run(kvpin, "a", words=800)
    home = explain(kvpin, "a")[0]["backend"]
    sim = next(s for s in sims if s.name == home)
    other = next(s for s in sims if s.name != home)
    assert explain(kvpin, "a")[0]["pin_cold"] is False
    row = session(kvpin)
    assert (row["cache"], row["last_turn"]) == ("kept", "warm")
    assert restarts(kvpin, home) == 0

    killed_and_back(start, sim)
    wait_until(lambda: restarts(kvpin, home) == 1)
    assert backends(kvpin)[home]["state"] == "up"
    assert backends(kvpin)[home]["restarts"] == 1
    assert restarts(kvpin, other.name) == 0
    assert session(kvpin)["cache"] == "lost"
    out = subprocess.run([KVPIN, "sessions", "--control", kvpin.control], capture_output=True,
                         text=True, timeout=20)
    assert "lost" in out.stdout, out.stdout

    run(kvpin, "a", words=800)
    told = explain(kvpin, "a")[0]
    assert told["pin_cold"] is True and told["backend"] == home, told
    row = session(kvpin)
    assert (row["cache"], row["last_turn"]) == ("kept", "first")
    # ... and warm again from here on.
    run(kvpin, "a", words=800)
    assert explain(kvpin, "a")[0]["pin_cold"] is False
    assert session(kvpin)["last_turn"] == "warm"
    assert restarts(kvpin, home) == 1


def test_a_restart_voids_the_prefixes_of_its_server(start):
    sim = start.sim("gpu0", prefill_tps=PREFILL)
    kvpin = start.kvpin([sim], *RARE, "--session-key", "prefix")
    for _ in range(2):
        run(kvpin, None, words=800)
    hot = 'kvpin_prefix_requests_total{result="hot"}'
    assert kvpin.metrics()[hot] == 1
    killed_and_back(start, sim)
    wait_until(lambda: restarts(kvpin) == 1)
    run(kvpin, None, words=800)
    assert kvpin.metrics()[hot] == 1
    run(kvpin, None, words=800)
    assert kvpin.metrics()[hot] == 2


def test_a_server_that_lives_is_never_thought_restarted(start):
    """Other sockets come and go all the time: dumps that are no snapshots must not mislead."""
    sims = start.sims(2)
    kvpin = start.kvpin(sims, *RARE)
    for _ in range(40):
        listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(100)]
        for one in listening[::2]:
            one.close()
        backends(kvpin)
        for one in listening[1::2]:
            one.close()
    # It has looked meanwhile: a real one is noticed.
    killed_and_back(start, sims[0])
    wait_until(lambda: restarts(kvpin) == 1)
    assert restarts(kvpin, "gpu1") == 0


def test_restarts_are_noticed_as_another_user(start):
    sim = start.sim("gpu0", prefill_tps=PREFILL)
    start.tmp.chmod(0o777)
    kvpin = start.kvpin([sim], *RARE, "--user", "nobody")
    run(kvpin, "a")
    killed_and_back(start, sim)
    wait_until(lambda: restarts(kvpin) == 1)
    run(kvpin, "a")
    assert explain(kvpin, "a")[0]["pin_cold"] is True


@pytest.mark.parametrize("meanwhile", ["lives", "restarts"])
def test_the_ledger_outlives_kvpin(start, meanwhile):
    """... and a server that restarts while kvpin is away is cold for it."""
    sim = start.sim("gpu0", prefill_tps=4000)
    state = ("--session-state", str(start.tmp / "sessions.state"))
    kvpin = start.kvpin([sim], *RARE, *state)
    for _ in range(3):
        run(kvpin, "a", words=800)
    before, rate = session(kvpin), backends(kvpin)["gpu0"]
    assert before["last_turn"] == "warm" and rate["prefill_tokens_per_s"] > 0
    kvpin.stop()
    if meanwhile == "restarts":
        sim = killed_and_back(start, sim)
    kvpin = start.kvpin([sim], *RARE, *state)
    row = session(kvpin)
    assert {k: row[k] for k in ("turns", "context_tokens", "last_turn", "cold_streak")} == \
        {k: before[k] for k in ("turns", "context_tokens", "last_turn", "cold_streak")}
    for what in "prefill_tokens_per_s", "exchange_ms":
        assert backends(kvpin)["gpu0"][what] == rate[what]
    lost = meanwhile == "restarts"
    assert row["cache"] == ("lost" if lost else "kept")
    assert restarts(kvpin) == lost
    run(kvpin, "a", words=800)
    assert explain(kvpin, "a")[0]["pin_cold"] is lost
    assert session(kvpin)["last_turn"] == ("first" if lost else "warm")
    # What was lost stays lost over another restart of kvpin.
    killed_and_back(start, sim)
    wait_until(lambda: restarts(kvpin) == 1 + lost)
    kvpin.stop()
    kvpin = start.kvpin([sim], *RARE, *state)
    assert session(kvpin)["cache"] == "lost"
    assert restarts(kvpin) == 0


def test_a_start_time_on_the_metrics_page_tells_of_a_restart(start):
    """As of a server on another host, whose socket nobody sees: here it stays the same one."""
    page = {"started": 1763700000.5}

    def script(conn):
        while True:
            request = conn.request_head()
            if request is None:
                return
            body = b"ok"
            if request.target == "/metrics":
                body = f"# TYPE process_start_time_seconds gauge\nother 1\n" \
                       f"process_start_time_seconds {page['started']}\n".encode()
            conn.body_of(request)
            conn.send(reply(body))

    raw = start.raw(script, "gpu0")
    kvpin = start.kvpin([raw], "--health-interval", "100ms", "--health-timeout", "100ms",
                        "--start-metric",
                        "process_start_time_seconds")
    client = start.client(kvpin)
    client.request("GET", "/", {"X-Session-Id": "a"})

    def asked():
        return sum(r.target == "/metrics" for r in raw.requests)
    wait_until(lambda: asked() >= 3)
    assert restarts(kvpin) == 0 and session(kvpin)["cache"] == "kept"
    page["started"] += 60
    wait_until(lambda: restarts(kvpin) == 1)
    assert session(kvpin)["cache"] == "lost"
    before = asked()
    wait_until(lambda: asked() >= before + 3)
    assert restarts(kvpin) == 1
    client.request("GET", "/", {"X-Session-Id": "a"})
    assert explain(kvpin, "a")[0]["pin_cold"] is True
    assert session(kvpin)["cache"] == "kept"
