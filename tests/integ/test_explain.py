# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Why a request went where it went: asked from the running kvpin, and without one. And the
experiment's report."""
import json
import random
import subprocess
import time

import pytest

from harness import KVPIN, NO_CHECKS, Client, wait_until
from test_drain import ask, command, served, state

REQUEST = ("POST /v1/chat/completions HTTP/1.1\r\nHost: kvpin\r\nX-Session-Id: abc\r\n"
           "Content-Length: 4000\r\n\r\n")
CONFIG = """
listen: ["127.0.0.1:0"]
metrics: off
control: {control}
guard: {{busy: prefer_owning_slot_with_wait, wait: 3s, abs: 2, rel: 1.5}}
experiment: {{share: {share}}}
backends:
  - {{name: gpu0, address: "127.0.0.1:8081", slots: auto}}
  - {{name: gpu1, address: "127.0.0.1:8082", slots: 2, weight: 3}}
"""


def offline(tmp_path, request, *words, share="0", code=0, text=CONFIG):
    config, file = tmp_path / "kvpin.yaml", tmp_path / "request"
    config.write_text(text.format(control=tmp_path / "none.sock", share=share))
    file.write_bytes(request.encode("latin-1"))
    out = subprocess.run([KVPIN, "explain", "--config", str(config), "--request", str(file), *words],
                         capture_output=True, text=True, timeout=20)
    assert out.returncode == code, out.stdout + out.stderr
    return out.stdout + out.stderr


def test_the_latest_decisions_come_newest_first(start):
    kvpin = start.kvpin(start.sims(2, "uvicorn"), *NO_CHECKS)
    homes = [served(kvpin, key) for key in ("a", "b", "a", None)]
    told = ask(kvpin, "explain")["decisions"]
    assert [(t["backend"], t["reason"]) for t in told] == [
        (homes[3], "keyless"), (homes[2], "pinned"), (homes[1], "placed"), (homes[0], "placed")]
    assert told[1]["session"] == told[3]["session"] != told[2]["session"]
    assert [t["key_source"] for t in told] == ["", *3 * ["header X-Session-Id"]]
    assert [t["pin"] for t in told] == ["", homes[0], "", ""]
    # A placement shows whom it compared, and which of them it took; a live pin needs none.
    assert [len(t["candidates"]) for t in told] == [2, 0, 2, 2]
    assert [c["backend"] for c in told[2]["candidates"] if c["chosen"]] == [homes[1]]
    assert [c["sessions_by_weight"] for c in told[2]["candidates"]
            if c["backend"] == homes[0]] == [1]
    assert len(ask(kvpin, "explain", "--last", "2")["decisions"]) == 2


def test_one_session_can_be_followed(start):
    kvpin = start.kvpin(start.sims(2, "uvicorn"), *NO_CHECKS, "--workers", "2")
    for i in range(30):
        served(kvpin, f"s{i % 3}")
    told = ask(kvpin, "explain", "--session", "s1", "--last", "50")["decisions"]
    assert [t["turns"] for t in told] == list(range(9, -1, -1))
    assert [t["age_s"] for t in told] == sorted(t["age_s"] for t in told)
    same = ask(kvpin, "explain", "--id", told[0]["session"], "--last", "50")["decisions"]
    assert [t["turns"] for t in same] == [t["turns"] for t in told]
    assert ask(kvpin, "explain", "--session", "never seen")["decisions"] == []
    assert "no decision" in command(kvpin, "explain", "--session", "never seen")


def test_a_prompts_head_is_named_and_its_reasons_have_words(start):
    """An empty text behind the reason, and "key none", tell nobody anything."""
    kvpin = start.kvpin(start.sims(2, "uvicorn"), *NO_CHECKS, "--session-key", "prefix")
    body = json.dumps({"messages": [{"role": "user", "content": "word " * 200}],
                       "max_tokens": 1}).encode()
    client = start.client(kvpin)
    for _ in range(2):
        assert client.request("POST", "/v1/chat/completions", {}, body)[0] == 200
    told = ask(kvpin, "explain")["decisions"]
    assert [(t["reason"], t["key_source"]) for t in told] == [
        ("prefix", "the prompt's head"), ("prefix_cold", "the prompt's head")]
    assert all(t["reason_text"] for t in told)
    assert command(kvpin, "explain").count("key         the prompt's head\n") == 2


def test_a_failed_server_shows_in_the_second_attempt(start):
    sims = start.sims(2, "uvicorn")
    kvpin = start.kvpin(sims, *NO_CHECKS)
    home = served(kvpin, "a")
    next(sim for sim in sims if sim.name == home).stop()
    assert served(kvpin, "a") != home
    told = ask(kvpin, "explain", "--session", "a", "--last", "2")["decisions"]
    assert [(t["attempt"], t["reason"]) for t in told] == [(2, "moved_failed"), (1, "pinned")]


def test_people_can_read_it_in_a_hundred_columns(start):
    sims = start.sims(2, "uvicorn", slots=1)
    kvpin = start.kvpin([f"a-server-with-a-long-name-{i}={s.text},slots=1"
                         for i, s in enumerate(sims)], *NO_CHECKS)
    for key in "a", "b", None:
        served(kvpin, key)
    text = command(kvpin, "explain")
    assert max(len(line) for line in text.splitlines()) <= 120
    for word in ("key         header X-Session-Id, session ", "pin         none", "reason      placed",
                 "guard       free_slot: it has a free slot", "CANDIDATE", "key         none"):
        assert word in text, text
    for name in ("explain", "report", "pressure", "drain", "pin", "unpin", "undrain"):
        assert "usage: kvpin " + name in command(kvpin, name, "--help")


def test_without_a_running_kvpin(tmp_path):
    told = json.loads(offline(tmp_path, REQUEST, "--json"))["decisions"][0]
    assert (told["reason"], told["backend"], told["key_source"]) == (
        "placed", "gpu1", "header X-Session-Id") or told["backend"] == "gpu0"
    assert told["context_tokens"] == 1000
    assert sorted(c["backend"] for c in told["candidates"]) == ["gpu0", "gpu1"]
    assert "reason      placed" in offline(tmp_path, REQUEST)
    keyless = json.loads(offline(tmp_path, REQUEST.replace("X-Session-Id", "X-Other"), "--json"))
    assert keyless["decisions"][0]["reason"] == "keyless"
    assert json.loads(offline(tmp_path, REQUEST, "--json"))["decisions"][0]["backend"] == \
        told["backend"]  # another process, the same decision
    assert "not a whole request head" in offline(tmp_path, REQUEST[:-2], code=1)
    failed = offline(tmp_path, REQUEST[:-2], "--json", code=1)
    assert "not a whole request head" in json.loads(failed[:failed.index("}\n") + 1])["error"]


@pytest.mark.parametrize("cache", ["kept", "lost"])
def test_a_dry_run_knows_what_the_sessions_file_knows(tmp_path, cache):
    session = json.loads(offline(tmp_path, REQUEST, "--json"))["decisions"][0]["session"]
    now = f"{time.time():.3f}"
    (tmp_path / "none.sessions.state").write_text(
        f"kvpin-sessions 2\n{session} gpu0 127.0.0.1:8081 {now} {now} 3 1 4000 50 0 warm {cache}\n")
    told = json.loads(offline(tmp_path, REQUEST, "--json"))["decisions"][0]
    assert (told["reason"], told["backend"], told["pin"], told["turns"]) == (
        "pinned", "gpu0", "gpu0", 3)
    assert told["pin_cold"] == (cache == "lost")


@pytest.mark.parametrize("parents", ["gpu0", "gpu1"])
def test_a_dry_run_of_a_sidecar_avoids_its_parents_server(tmp_path, parents):
    parent = json.loads(offline(tmp_path, REQUEST, "--json"))["decisions"][0]["session"]
    address = {"gpu0": "127.0.0.1:8081", "gpu1": "127.0.0.1:8082"}[parents]
    now = f"{time.time():.3f}"
    (tmp_path / "none.sessions.state").write_text(
        f"kvpin-sessions 2\n{parent} {parents} {address} {now} {now} 3 1 4000 50 0 warm kept\n")
    sidecar = REQUEST.replace("X-Session-Id: abc", "X-Session-Id: title\r\nX-Parent: abc")
    text = CONFIG + "affinity: {{parent: X-Parent, sidecar: avoid}}\nplacement: hash\n"
    told = json.loads(offline(tmp_path, sidecar, "--json", text=text))["decisions"][0]
    assert told["backend"] != parents  # by its hash alone it would be one of the two


def test_offline_and_online_agree(start, tmp_path):
    """The same function decides: a kvpin with that configuration places the session where the dry
    run says, session after session."""
    kvpin = start.kvpin([f"gpu0={start.sim('gpu0', 'uvicorn').text}",
                         f"gpu1={start.sim('gpu1', 'uvicorn').text},weight=3"], *NO_CHECKS,
                        "--placement", "hash")
    config = tmp_path / "kvpin.yaml"
    config.write_text(CONFIG.format(control=tmp_path / "none.sock", share=0) + "placement: hash\n")
    for i in range(12):
        file = tmp_path / "request"
        file.write_bytes(REQUEST.replace("abc", f"key{i}").encode())
        out = subprocess.run([KVPIN, "explain", "--config", str(config), "--request", str(file),
                              "--json"], capture_output=True, text=True, timeout=20)
        assert json.loads(out.stdout)["decisions"][0]["backend"] == served(kvpin, f"key{i}")


def test_wrong_settings_are_refused(start, tmp_path):
    for flags, why in ((["--busy", "prefer_idle"], "did you mean"),
                       (["--guard-rel", "0.5"], "out of range"),
                       (["--experiment-share", "0.6"], "out of range"),
                       (["--experiment-share", "0.1234"], "at most three decimals")):
        out = subprocess.run([KVPIN, "check", "--listen", "127.0.0.1:0", "--backend",
                              "a=127.0.0.1:1", *flags], capture_output=True, text=True, timeout=20)
        assert out.returncode == 2 and why in out.stderr, out.stderr
    for flags, why in ((["--last", "0"], "--last"), (["--config", "x"], "go together"),
                       (["--session", "a", "--id", "b"], "use one"), (["--id", "xyz"], "hexadecimal")):
        out = subprocess.run([KVPIN, "explain", *flags], capture_output=True, text=True, timeout=20)
        assert out.returncode == 2 and why in out.stderr, out.stderr


def test_the_experiment_has_two_arms_and_a_report(start):
    """Streams of many sessions, half of them on round robin: the control arm moves and recomputes,
    the other one does not, and the report is sure of the difference."""
    sims = start.sims(2, "uvicorn", prefill_tps=12000, slots=16)
    kvpin = start.kvpin(sims, *NO_CHECKS, "--experiment-share", "0.5")
    body = json.dumps({"stream": True, "max_tokens": 1, "messages": [
        {"role": "user", "content": "word " * 500}]}).encode()
    client = Client(kvpin.addr)
    rng = random.Random(1)  # an order of its own each round, or round robin would keep to it
    for _ in range(6):
        for i in rng.sample(range(24), 24):
            text = body.replace(b"word", b"%04d" % i)
            assert client.request("POST", "/v1/chat/completions", {"X-Session-Id": f"s{i}"},
                                  text)[0] == 200
    client.close()
    rows = kvpin.status("sessions")["sessions"]
    moved = sum(row["moves"] > 0 for row in rows)
    assert 5 <= moved <= 19
    wait_until(lambda: sum(a["turns"] for a in ask(kvpin, "report")["arms"]) == 24 * 5)
    report = ask(kvpin, "report")
    affinity, control = report["arms"]
    assert (affinity["arm"], control["arm"], report["share"]) == ("affinity", "control", 0.5)
    assert control["turns"] == 5 * moved
    assert affinity["recomputed_tokens"] < control["recomputed_tokens"] / 4
    assert affinity["mean_ms"] < control["mean_ms"]
    assert report["gain"]["low_ms"] < report["gain"]["ms"] < report["gain"]["high_ms"]
    assert report["gain"]["low_ms"] > 0
    assert "Affinity saves" in command(kvpin, "report")
    assert state(kvpin, "gpu0") == "up"
