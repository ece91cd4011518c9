# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Servers that are drained, sessions that are pinned by hand, and the pressure gauge."""
import json
import subprocess
import time

import pytest

from harness import KVPIN, NO_CHECKS, Client, wait_until
from steer_help import ENTERS_AFTER


def command(kvpin, *words, code=0):
    out = subprocess.run([KVPIN, *words, "--control", kvpin.control], capture_output=True,
                         text=True, timeout=20)
    assert out.returncode == code, out.stdout + out.stderr
    return out.stdout + out.stderr


def ask(kvpin, *words):
    return json.loads(command(kvpin, *words, "--json"))


def served(kvpin, session, client=None):
    """Which server answers that session."""
    own = client or Client(kvpin.addr)
    status, _, body = own.request("GET", "/json", {"X-Session-Id": session} if session else {})
    if not client:
        own.close()
    return json.loads(body)["system_fingerprint"] if status == 200 else status


def state(kvpin, name):
    rows = kvpin.status("backends")["backends"]
    return next(row["state"] for row in rows if row["name"] == name)


def two(start, *args):
    return start.kvpin(start.sims(2, "uvicorn"), *NO_CHECKS, *args)


def test_a_drained_server_keeps_its_sessions_and_takes_no_new_one(start):
    kvpin = two(start)
    homes = {f"s{i}": served(kvpin, f"s{i}") for i in range(8)}
    assert sorted(homes.values()) == 4 * ["gpu0"] + 4 * ["gpu1"]
    answer = ask(kvpin, "drain", "gpu0", "--deadline", "1h")
    assert (answer["backend"], answer["sessions"], answer["deadline_s"]) == ("gpu0", 4, 3600)
    assert state(kvpin, "gpu0") == "draining"
    assert {s: served(kvpin, s) for s in homes} == homes
    assert {served(kvpin, f"new{i}") for i in range(6)} == {"gpu1"}
    assert {served(kvpin, None) for _ in range(4)} == {"gpu1"}
    assert kvpin.metrics()['kvpin_backend_draining{backend="gpu0"}'] == 1


def test_a_silent_session_leaves_a_drained_server(start):
    kvpin = two(start)
    homes = {f"s{i}": served(kvpin, f"s{i}") for i in range(4)}
    busy, silent = [s for s, home in homes.items() if home == "gpu0"]
    command(kvpin, "drain", "gpu0", "--idle", "1s")
    end = time.monotonic() + 1.2
    while time.monotonic() < end:
        assert served(kvpin, busy) == "gpu0"
        time.sleep(0.05)
    assert served(kvpin, silent) == "gpu1"
    assert served(kvpin, busy) == "gpu0"
    assert kvpin.metrics()['kvpin_session_moves_total{reason="moved_drain"}'] == 1


def test_at_the_deadline_all_sessions_move_and_only_those(start):
    kvpin = two(start)
    homes = {f"s{i}": served(kvpin, f"s{i}") for i in range(8)}
    command(kvpin, "drain", "gpu0", "--deadline", "1h")
    assert {s: served(kvpin, s) for s in homes} == homes
    command(kvpin, "drain", "gpu0", "--deadline", "300ms")
    wait_until(lambda: state(kvpin, "gpu0") == "drained")
    assert {served(kvpin, s) for s in homes} == {"gpu1"}
    assert kvpin.metrics()['kvpin_session_moves_total{reason="moved_drain"}'] == 4
    # And nobody goes back by himself.
    command(kvpin, "undrain", "gpu0")
    assert state(kvpin, "gpu0") == "up"
    assert {served(kvpin, s) for s in homes} == {"gpu1"}
    assert "gpu0" in {served(kvpin, f"new{i}") for i in range(2)}


def test_a_drain_survives_a_reload(start, tmp_path, path):
    sims = start.sims(2, "uvicorn")
    kvpin = start.kvpin(sims, *NO_CHECKS)
    command(kvpin, "drain", "gpu0", "--deadline", "1h")
    command(kvpin, "reload")
    assert state(kvpin, "gpu0") == "draining"
    assert {served(kvpin, f"s{i}") for i in range(4)} == {"gpu1"}


def test_drain_says_what_is_wrong(start):
    kvpin = two(start)
    assert "no backend is called" in command(kvpin, "drain", "gpu7", code=1)
    assert "NAME is missing" in command(kvpin, "drain", code=2)
    assert "has no unit" in command(kvpin, "drain", "gpu0", "--deadline", "5", code=2)
    assert "was not being drained" in command(kvpin, "undrain", "gpu1")


def test_a_session_can_be_put_somewhere_by_hand(start):
    kvpin = two(start)
    home = served(kvpin, "mine")
    other = {"gpu0": "gpu1", "gpu1": "gpu0"}[home]
    assert ask(kvpin, "pin", "mine", other)["was"] == home
    assert [served(kvpin, "mine") for _ in range(3)] == 3 * [other]
    # One that nobody has seen yet, with a key that a URL must escape; and one by its id.
    command(kvpin, "pin", "a b&c=ä%", "gpu1")
    assert served(kvpin, "a b&c=ä%".encode().decode("latin-1")) == "gpu1"
    row = next(r for r in kvpin.status("sessions")["sessions"] if r["backend"] == other)
    command(kvpin, "pin", row["session"], home, "--id")
    assert "no backend" in command(kvpin, "pin", "mine", "nobody", code=1)
    assert ask(kvpin, "unpin", "mine")["was"] in ("gpu0", "gpu1")
    assert ask(kvpin, "unpin", "mine")["was"] == ""


def test_weight_0_takes_no_session_also_not_by_hand(start):
    sims = start.sims(2, "uvicorn")
    kvpin = start.kvpin([f"gpu0={sims[0].text},weight=0", sims[1]], *NO_CHECKS)
    assert {served(kvpin, f"s{i}") for i in range(6)} == {"gpu1"}
    assert "weight 0" in command(kvpin, "pin", "s0", "gpu0", code=1)
    assert served(kvpin, "s0") == "gpu1"


def test_hash_follows_no_pins_and_says_so(start):
    kvpin = two(start, "--placement", "hash")
    home = served(kvpin, "a")
    other = "gpu1" if home == "gpu0" else "gpu0"
    assert "hash follows no pins" in command(kvpin, "pin", "a", other, code=1)
    assert served(kvpin, "a") == home
    assert "at once" in command(kvpin, "drain", home)
    assert served(kvpin, "a") == other


def test_pressure_counts_forced_moves_only_and_can_be_acknowledged(start):
    sims = start.sims(2, "uvicorn", slots=1, decode_tps=50)
    kvpin = start.kvpin([f"{s.name}={s.text},slots=1" for s in sims], *NO_CHECKS)
    for i in range(20):
        served(kvpin, f"unique{i}")  # all of it new: no pressure
    assert ask(kvpin, "pressure")["pressure"] == 0
    home = served(kvpin, "mine")
    command(kvpin, "pin", "other", home)
    long = Client(kvpin.addr)
    body = json.dumps({"stream": True, "max_tokens": 100,
                       "messages": [{"role": "user", "content": "hello"}]})
    long.send(f"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nX-Session-Id: mine\r\n"
              f"Content-Length: {len(body)}\r\n\r\n{body}")
    long.head()
    assert served(kvpin, "other") != home
    long.close()
    answer = ask(kvpin, "pressure")
    assert (answer["pressure"], answer["forced_total"], answer["window_s"]) == (1, 1, 60)
    assert kvpin.metrics()[f'kvpin_forced_disturb_total{{backend="{home}"}}'] == 1
    assert ask(kvpin, "pressure", "--ack")["acknowledged"] == 1
    answer = ask(kvpin, "pressure")
    assert (answer["pressure"], answer["forced_total"]) == (0, 1)
    assert kvpin.metrics()["kvpin_pressure"] == 0


@pytest.mark.steer_only
def test_the_kernel_keeps_to_a_drain(start, kernel):
    """Steered sessions stay while they speak, go up when they were silent, and at the deadline."""
    look = kernel(start.sims(2, "uvicorn"))
    kvpin = look.kvpin
    homes = {f"s{i}": served(kvpin, f"s{i}") for i in range(2)}
    mine = next(s for s, home in homes.items() if home == "gpu0")
    client = Client(kvpin.addr)
    for _ in range(ENTERS_AFTER):
        assert served(kvpin, mine, client) == "gpu0"
    look.wait_armed()
    command(kvpin, "drain", "gpu0", "--deadline", "1h", "--idle", "1h")
    with look.steers(3):
        for _ in range(3):
            assert served(kvpin, mine, client) == "gpu0"
    command(kvpin, "drain", "gpu0", "--deadline", "1h", "--idle", "100ms")
    time.sleep(0.2)
    assert served(kvpin, mine, client) == "gpu1"
    assert look.refusals().get("backend_down") == 1
    command(kvpin, "drain", "gpu0", "--deadline", "1h", "--idle", "1h")
    command(kvpin, "pin", mine, "gpu0")
    assert served(kvpin, mine, client) == "gpu0"
    command(kvpin, "drain", "gpu0", "--deadline", "300ms", "--idle", "1h")
    wait_until(lambda: served(kvpin, mine, client) != "gpu0")
    assert state(kvpin, "gpu0") == "drained"
    client.close()
