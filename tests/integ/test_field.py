# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What users of other balancers ask for or complain about, case by case, where no other file has it."""
import json
import subprocess
import threading

import pytest

from harness import KVPIN, NO_CHECKS, Client, wait_until
from rawserver import serve_ok
from slots_help import Turn, backends, explain, kvpin_pin, pair, run, stats
from test_prefix import chat, message, prefix, words

VERIFY = {"x-sim-verify": "1"}


def asked(client, **fields):
    status, answer, _ = client.request(
        "GET", "/json", {**VERIFY, **{k.replace("_", "-"): v for k, v in fields.items()}})
    assert status == 200
    return answer["x-sim-server"]


def test_header_names_are_configured_and_their_case_does_not_matter(start):
    kvpin = start.kvpin(start.sims(4), "--session-header", "X-My-Affinity", *NO_CHECKS)
    client = start.client(kvpin)
    homes = {f"chat-{i}": asked(client, x_my_affinity=f"chat-{i}") for i in range(8)}
    assert len(set(homes.values())) == 4
    for name in "X-My-Affinity", "X-MY-AFFINITY", "x-mY-aFFINITY":
        for key, home in homes.items():
            assert asked(client, **{name: key}) == home
    # The default's name is just another header now.
    assert {r["reason"] for r in kvpin.requests()[8:]} == {"pinned"}
    asked(client, x_session_id="chat-0")
    assert kvpin.wait_requests(33)[-1]["reason"] == "keyless"


def test_without_affinity_it_is_round_robin_byte_for_byte(start):
    """Requests reach the servers in turn and as they were sent, whatever names a session in them."""
    raws = [start.raw(serve_ok, f"gpu{i}") for i in range(3)]
    kvpin = start.kvpin(raws, "--no-affinity", "--placement", "round-robin", *NO_CHECKS)
    client = start.client(kvpin)
    sent = []
    for i in range(12):
        head = (f"POST /v1/chat/completions?n={i} HTTP/1.1\r\nHost: t\r\nX-Session-Id: one\r\n"
                f"x-ODD-case:  kept as it is \r\nContent-Length: 4\r\n\r\n").encode()
        client.send(head + b"body")
        assert client.answer("POST")[0] == 200
        sent.append(head)
    got = [[r.raw for r in raw.requests] for raw in raws]
    assert got == [sent[0::3], sent[1::3], sent[2::3]]
    assert kvpin.status()["sessions"] == 0


def test_a_tool_loop_never_bounces_while_bursts_come_and_go(start):
    """Calls of one session within milliseconds, on the pool that all share, amid new sessions."""
    kvpin = start.kvpin(start.sims(4), *NO_CHECKS, "--workers", "2")
    home = asked(start.client(kvpin), x_session_id="loop")
    stop = threading.Event()

    def burst(number):
        client, i = Client(kvpin.addr), 0
        while not stop.is_set():
            asked(client, x_session_id=f"burst-{number}-{i}")
            i += 1
        client.close()

    bursts = [threading.Thread(target=burst, args=(n,)) for n in range(4)]
    for one in bursts:
        one.start()
    try:
        pool = [start.client(kvpin) for _ in range(3)]
        assert {asked(pool[i % 3], x_session_id="loop") for i in range(60)} == {home}
    finally:
        stop.set()
        for one in bursts:
            one.join()
    assert kvpin.metrics()["kvpin_pressure"] == 0


def test_a_sidecar_call_does_not_evict_the_live_session(start):
    """ds4-server #7: one slot, one cache. The sidecar goes elsewhere, and the next turn is warm."""
    sims, kvpin = pair(start, prefill_tps=4000, args=[
        "--parent-header", "X-Parent-Session-Id", "--sidecar", "avoid"])
    run(kvpin, "main", words=800)
    run(kvpin, "main", words=800)
    home = explain(kvpin, "main")[0]["backend"]
    cached = stats(sims)[home]["cached_tokens"]
    assert cached > 700
    client = start.client(kvpin)
    body = json.dumps({"stream": True, "max_tokens": 2, "messages": [
        {"role": "user", "content": "title " * 800}]}).encode()
    status, fields, _ = client.request("POST", "/v1/chat/completions", {
        **VERIFY, "Content-Type": "application/json", "X-Session-Id": "side",
        "X-Parent-Session-Id": "main"}, body)
    assert status == 200 and fields["x-sim-server"] != home
    run(kvpin, "main", words=800)
    assert stats(sims)[home]["cached_tokens"] == 2 * cached
    row = next(r for r in kvpin.status("sessions")["sessions"] if r["turns"] == 3)
    assert row["backend"] == home
    assert sum(s["model_requests"] for s in stats(sims).values()) == 4


@pytest.mark.parametrize("threshold", [("--guard-abs", "1"), ("--guard-rel", "1.5")],
                         ids=["abs", "rel"])
def test_thresholds_hold_for_servers_without_slots_on_every_path(start, threshold):
    """Two streams of the session run on its server, none elsewhere: its next turn leaves, also when
    its connection is one that the kernel would carry."""
    _, kvpin = pair(start, slots=8, known=False, decode_tps=20, args=threshold)
    client = start.client(kvpin)
    home = asked(client, x_session_id="a")
    for _ in range(6):
        assert asked(client, x_session_id="a") == home
    streams = []
    for count in 1, 2:
        wait_until(lambda: backends(kvpin)[home]["inflight"] == count - 1)
        streams.append(Turn(kvpin, "a", tokens=4000))
        wait_until(lambda: backends(kvpin)[home]["inflight"] == count)
    other = asked(client, x_session_id="a")
    assert other != home
    assert kvpin.metrics()[f'kvpin_forced_disturb_total{{backend="{home}"}}'] == 1
    for stream in streams:
        stream.leave()


def test_a_full_balancer_waits_and_does_not_answer_502(start):
    """paddler #61: everybody is busy for a moment; nobody is told so."""
    _, kvpin = pair(start, slots=1, prefill_tps=100000)
    turns = [Turn(kvpin, f"s{i}", tokens=4) for i in range(16)]
    for turn in turns:
        turn.done()
    assert all(row["waiting"] == 0 for row in backends(kvpin).values())


def test_a_reload_forgets_nothing(start):
    """haproxy #1078: pins, ledgers, rates, prompts and drains outlive a reload."""
    _, kvpin = pair(start, prefill_tps=4000, args=["--session-key", "header=X-Session-Id",
                                                   *prefix()])
    talk = [message("user", words("talk", 200))]
    client = start.client(kvpin)
    home = chat(client, talk)[0]
    for i in range(4):
        run(kvpin, f"s{i}", words=800)
        run(kvpin, f"s{i}", words=800)
    kvpin_pin(kvpin, "by hand", "gpu1")
    before = kvpin.status("sessions")["sessions"], backends(kvpin)
    out = subprocess.run([KVPIN, "reload", "--control", kvpin.control], capture_output=True,
                         text=True, timeout=20)
    assert out.returncode == 0, out.stderr
    after = kvpin.status("sessions")["sessions"], backends(kvpin)

    def lasting(rows):
        return {r["session"]: {k: r[k] for k in ("backend", "turns", "context_tokens", "last_turn",
                                                 "cache")} for r in rows}
    assert lasting(before[0]) == lasting(after[0])
    for name, row in before[1].items():
        assert {k: row[k] for k in ("prefill_tokens_per_s", "exchange_ms", "requests")} == \
            {k: after[1][name][k] for k in ("prefill_tokens_per_s", "exchange_ms", "requests")}
    assert chat(client, talk)[0] == home
    wait_until(lambda: kvpin.metrics()['kvpin_prefix_requests_total{result="hot"}'] == 1)


@pytest.mark.parametrize("keys", ["unique", "prompts"])
def test_traffic_without_returning_sessions_is_no_pressure(start, keys):
    sims, kvpin = pair(start, slots=2, prefill_tps=100000, args=list(prefix())
                       if keys == "prompts" else [])
    if keys == "prompts":
        client = start.client(kvpin)
        for i in range(40):
            chat(client, [message("user", words(f"new {i}", 100))])
    else:
        for i in range(10):
            # More than there are slots: some wait, and may go where one is free first.
            for turn in [Turn(kvpin, f"new-{i}-{k}", tokens=2 + k) for k in range(7)]:
                turn.done()
    metrics = kvpin.metrics()
    assert metrics["kvpin_pressure"] == 0
    assert sum(v for k, v in metrics.items() if k.startswith("kvpin_forced_disturb")) == 0


def test_a_new_session_that_goes_where_a_slot_is_free_first_is_no_pressure(start):
    """It waited for one server and went to another: nothing of it was cached anywhere."""
    _, kvpin = pair(start, prefill_tps=100000)
    for i in range(3):
        kvpin_pin(kvpin, f"more on gpu1 {i}", "gpu1")
    kvpin_pin(kvpin, "long", "gpu0")
    kvpin_pin(kvpin, "short", "gpu1")
    busy = [Turn(kvpin, "long", tokens=400), Turn(kvpin, "short", tokens=100)]
    wait_until(lambda: [row["inflight"] for row in backends(kvpin).values()] == [1, 1])
    new = Turn(kvpin, "new")
    wait_until(lambda: backends(kvpin)["gpu0"]["waiting"] == 1)
    new.done()
    assert busy[0].is_alive() and not busy[1].is_alive()
    assert explain(kvpin, "new")[0]["backend"] == "gpu1"
    for turn in busy:
        turn.done()
    metrics = kvpin.metrics()
    assert metrics['kvpin_session_moves_total{reason="moved_busy"}'] == 1
    assert metrics["kvpin_pressure"] == 0
    assert metrics['kvpin_forced_disturb_total{backend="gpu0"}'] == 0
