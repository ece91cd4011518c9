# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Slots: they are known, they are kept to, and a request that finds none waits or moves, by what
either costs. Simulated servers with a prefix cache per slot, in real time."""
import json
import time

import pytest

from harness import Client, wait_until
from slots_help import DECODE, PREFILL, Turn, backends, explain, kvpin_pin, owner, pair, run, stats


def test_the_servers_slots_are_asked_for(start):
    sims = [start.sim("gpu0", slots=3), start.sim("gpu1", slots=7)]
    kvpin = start.kvpin([f"{s.name}={s.text},slots=auto" for s in sims])
    wait_until(lambda: [row["slots"] for row in backends(kvpin).values()] == [3, 7])
    assert kvpin.metrics()['kvpin_backend_slots{backend="gpu1"}'] == 7
    assert [row["slots_auto"] for row in backends(kvpin).values()] == [True, True]


def test_a_server_that_comes_back_with_other_slots_is_asked_again(start):
    sim = start.sim("gpu0", slots=2)
    kvpin = start.kvpin([f"gpu0={sim.text},slots=auto"],
                        "--health-interval", "100ms", "--health-timeout", "100ms", "--health-rise", "1", "--health-fall", "1")
    wait_until(lambda: backends(kvpin)["gpu0"]["slots"] == 2)
    sim.stop()
    wait_until(lambda: backends(kvpin)["gpu0"]["state"] == "down")
    start.sim("gpu0", slots=5, listen=sim.text)
    wait_until(lambda: backends(kvpin)["gpu0"]["slots"] == 5)


@pytest.mark.parametrize("policy", ["prefer_idle_slot", "prefer_owning_slot_with_wait"])
def test_prime_occupy_retry(start, policy):
    """The recipe of llama.cpp #22942. Prime a session, keep its server busy, send the session again:
    a long prompt waits for its server's cache, because that is cheaper than a cold prefill; a short
    one goes where a slot is idle."""
    _, kvpin = pair(start, args=["--busy", policy], prefill_tps=4000)
    cold = run(kvpin, "long", words=6000)
    home = owner(kvpin, "long")
    for _ in range(3):  # turns that find the cache teach how long an exchange takes
        assert run(kvpin, "long", words=6000).took < cold.took / 2
    busy = Turn(kvpin, "long", words=6000, tokens=100)
    wait_until(lambda: backends(kvpin)[home]["inflight"] == 1)
    retry = run(kvpin, "long", words=6000)
    assert not busy.is_alive()
    busy.done()
    told = explain(kvpin, "long")[0]
    assert (told["backend"], told["guard"]) == (home, "wait"), told
    assert told["stay_ms"] <= told["go_ms"], told
    assert retry.took < 0.75 * cold.took, (retry.took, cold.took)
    # The other way round: a short session moves, for its prefill is nothing beside a long one's turn.
    kvpin_pin(kvpin, "short", home)
    busy = Turn(kvpin, "long", words=6000, tokens=300)
    wait_until(lambda: backends(kvpin)[home]["inflight"] == 1)
    run(kvpin, "short", words=20)
    assert busy.is_alive()
    busy.done()
    told = explain(kvpin, "short")[0]
    assert told["guard"] == "spill" and told["backend"] != home, told
    assert told["go_ms"] < told["stay_ms"]
    metrics = kvpin.metrics()
    assert metrics['kvpin_session_moves_total{reason="moved_busy"}'] == 1
    assert metrics["kvpin_pressure"] == 1
    assert metrics[f'kvpin_slot_waits_total{{backend="{home}"}}'] == 1


def test_with_free_slots_no_session_ever_moves(start):
    """Eight sessions on two servers of four slots, one turn each at a time, all at once."""
    sims, kvpin = pair(start, slots=4, prefill_tps=100000)
    for _ in range(5):
        for turn in [Turn(kvpin, f"s{i}") for i in range(8)]:
            turn.done()
    rows = kvpin.status("sessions")["sessions"]
    assert len(rows) == 8 and not any(row["moves"] for row in rows)
    assert [row["sessions"] for row in backends(kvpin).values()] == [4, 4]
    assert all(s["queued"] == 0 for s in stats(sims).values())


def test_a_server_never_works_on_more_than_its_slots(start):
    """Twelve sessions on one exclusive server: the engine's own queue stays empty."""
    sims, kvpin = pair(start, servers=1, args=["--busy", "prefer_owning_slot_with_wait"])
    turns = [Turn(kvpin, f"s{i}", tokens=6) for i in range(12)]
    seen = []
    while any(turn.is_alive() for turn in turns):
        seen.append((sims[0].get("/stats"), backends(kvpin)["gpu0"]))
    for turn in turns:
        turn.done()
    assert max(s["queued"] for s, _ in seen) == 0
    assert max(row["inflight"] for _, row in seen) == 1
    assert max(row["waiting"] for _, row in seen) >= 4
    assert backends(kvpin)["gpu0"]["waiting"] == 0


def test_those_who_wait_are_served_in_order(start):
    """One after the other joins the queue; they leave it in that order, whichever worker has them."""
    _, kvpin = pair(start, servers=1, args=["--busy", "prefer_owning_slot_with_wait",
                                            "--workers", "3"])
    first = Turn(kvpin, "first", tokens=4000)
    wait_until(lambda: backends(kvpin)["gpu0"]["inflight"] == 1)
    turns = []
    for i in range(6):
        turns.append(Turn(kvpin, f"s{i}", tokens=2))
        wait_until(lambda: backends(kvpin)["gpu0"]["waiting"] == i + 1)
    first.leave()
    ended = [turn.done().ended for turn in turns]
    assert ended == sorted(ended)


def test_a_client_that_leaves_gives_its_place_up(start):
    sims, kvpin = pair(start, servers=1, args=["--busy", "prefer_owning_slot_with_wait"])
    first = Turn(kvpin, "first", tokens=4000)
    wait_until(lambda: backends(kvpin)["gpu0"]["inflight"] == 1)
    last = Turn(kvpin, "last")
    wait_until(lambda: backends(kvpin)["gpu0"]["waiting"] == 1)
    for leave in Client.reset, Client.close, Client.half_close:
        client = Client(kvpin.addr)
        client.send(f"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nX-Session-Id: gone\r\n"
                    f"Content-Length: {len(last.body)}\r\n\r\n".encode() + last.body)
        wait_until(lambda: backends(kvpin)["gpu0"]["waiting"] == 2)
        leave(client)
        wait_until(lambda: backends(kvpin)["gpu0"]["waiting"] == 1)
    first.leave()
    last.done()
    assert sims[0].get("/stats")["model_requests"] == 2
    outcomes = [row["outcome"] for row in kvpin.wait_requests(5)]
    assert sorted(outcomes) == 4 * ["client_abort"] + ["ok"]


def test_a_queue_has_an_end_and_says_so(start):
    _, kvpin = pair(start, servers=1, args=["--busy", "prefer_owning_slot_with_wait",
                                            "--queue", "1", "--wait", "1500ms"])
    first = Turn(kvpin, "first", tokens=4000)
    wait_until(lambda: backends(kvpin)["gpu0"]["inflight"] == 1)
    waits = Turn(kvpin, "waits")
    wait_until(lambda: backends(kvpin)["gpu0"]["waiting"] == 1)
    full = Turn(kvpin, "full").done(503)
    assert json.loads(full.answer)["error"]["code"] == "queue_full"
    assert int(full.fields["retry-after"]) >= 1
    late = waits.done(504)
    assert json.loads(late.answer)["error"]["code"] == "queue_timeout"
    assert int(late.fields["retry-after"]) >= 1
    assert 1.49 <= late.took < 5
    first.leave()
    metrics = kvpin.metrics()
    for outcome in ("queue_full", "queue_timeout"):
        assert metrics[f'kvpin_requests_total{{backend="",path="relay",outcome="{outcome}"}}'] == 1
    assert backends(kvpin)["gpu0"]["waiting"] == 0


def test_a_connection_serves_on_after_a_full_queue(start):
    _, kvpin = pair(start, servers=1, args=["--busy", "prefer_owning_slot_with_wait",
                                            "--queue", "0"])
    first = Turn(kvpin, "first", tokens=4000)
    wait_until(lambda: backends(kvpin)["gpu0"]["inflight"] == 1)
    client = Client(kvpin.addr)
    Turn(kvpin, "second", client=client).done(503)
    first.leave()
    wait_until(lambda: backends(kvpin)["gpu0"]["inflight"] == 0)
    Turn(kvpin, "second", client=client).done(200)
    client.close()


def test_prefer_idle_slot_never_refuses(start):
    """All servers are full and so is the queue: the engine's own queue takes the rest."""
    _, kvpin = pair(start, servers=2, args=["--queue", "1", "--wait", "200ms"])
    turns = [Turn(kvpin, f"s{i}", tokens=60) for i in range(8)]
    for turn in turns:
        turn.done()


def test_stick_leaves_the_queue_to_the_server(start):
    sims, kvpin = pair(start, servers=2, args=["--busy", "stick"])
    run(kvpin, "a")
    home = owner(kvpin, "a")
    turns = [Turn(kvpin, "a", tokens=4000) for _ in range(3)]
    wait_until(lambda: stats(sims)[home]["queued"] == 2)
    assert backends(kvpin)[home]["inflight"] == 3
    for turn in turns:
        turn.leave()
    assert {told["backend"] for told in explain(kvpin, "a", 4)} == {home}
    assert kvpin.metrics()["kvpin_pressure"] == 0


def test_a_server_that_dies_sends_those_who_wait_elsewhere(start):
    sims, kvpin = pair(start, servers=2, args=["--busy", "prefer_owning_slot_with_wait"])
    run(kvpin, "a")
    home = owner(kvpin, "a")
    dead = next(sim for sim in sims if sim.name == home)
    first = Turn(kvpin, "a", tokens=400)
    wait_until(lambda: backends(kvpin)[home]["inflight"] == 1)
    waits = Turn(kvpin, "a")
    wait_until(lambda: backends(kvpin)[home]["waiting"] == 1)
    dead.kill()
    first.join()  # broke off, as it must
    waits.done()
    assert owner(kvpin, "a") != home
    assert all(row["waiting"] == row["inflight"] == 0 for row in backends(kvpin).values())


def test_turns_are_classed_by_their_prefill_time(start):
    """Warm while the server keeps its cache; cold when it lost it without a word, and a streak of
    that shows."""
    sims, kvpin = pair(start, servers=1, known=False, slots=1, prefill_tps=1000)
    for _ in range(3):
        run(kvpin, "a", words=800)
    row = kvpin.status("sessions")["sessions"][0]
    assert (row["last_turn"], row["cold_streak"]) == ("warm", 0)
    assert 700 < row["context_tokens"] < 1300
    # Another client takes the only slot, past kvpin: the cache is somebody else's now.
    for _ in range(2):
        sims[0].get("/v1/chat/completions", json.dumps(
            {"messages": [{"role": "user", "content": "other " * 800}], "max_tokens": 1}).encode())
        run(kvpin, "a", words=800)
    row = kvpin.status("sessions")["sessions"][0]
    assert (row["last_turn"], row["cold_streak"]) == ("cold", 2)
    metrics = kvpin.metrics()
    assert [metrics[f'kvpin_turns_total{{backend="gpu0",class="{c}"}}']
            for c in ("first", "warm", "cold")] == [1, 2, 2]
    assert metrics['kvpin_cold_streaks_total{backend="gpu0"}'] == 1


def test_a_restarted_server_makes_its_pins_cold(start):
    sim = start.sim("gpu0", slots=1, prefill_tps=PREFILL)
    other = start.sim("gpu1", slots=1, prefill_tps=PREFILL)
    kvpin = start.kvpin([f"gpu0={sim.text},slots=1", f"gpu1={other.text},slots=1"],
                        "--health-interval", "100ms", "--health-timeout", "100ms", "--health-rise", "1")
    assert kvpin_pin(kvpin, "a", "gpu0")
    run(kvpin, "a")
    run(kvpin, "a")
    assert explain(kvpin, "a")[0]["pin_cold"] is False
    sim.stop()
    time.sleep(0.5)
    start.sim("gpu0", slots=1, prefill_tps=PREFILL, listen=sim.text)
    wait_until(lambda: backends(kvpin)["gpu0"]["state"] == "up")
    run(kvpin, "a")
    told = explain(kvpin, "a")[0]
    assert told["pin_cold"] is True and told["backend"] == "gpu0", told
    assert kvpin.status("sessions")["sessions"][0]["last_turn"] == "first"


@pytest.mark.steer_only
def test_the_kernel_passes_up_what_finds_no_slot(start, kernel):
    """Two clients of one session: while the first one's turn runs in the kernel, the second one's
    request goes up, and waits for the slot that the kernel gives back."""
    sim = start.sim("gpu0", "uvicorn", slots=1, decode_tps=DECODE, prefill_tps=PREFILL)
    look = kernel([f"gpu0={sim.text},slots=1"], "--busy", "prefer_owning_slot_with_wait")
    kvpin = look.kvpin
    clients = [Client(kvpin.addr) for _ in range(2)]
    for client in clients:
        Turn(kvpin, "a", client=client).done()
    look.wait_armed(2)
    steered = look.total()
    first = Turn(kvpin, "a", tokens=60, client=clients[0])
    wait_until(lambda: look.inflight() == 1)
    second = Turn(kvpin, "a", client=clients[1])
    wait_until(lambda: backends(kvpin)["gpu0"]["waiting"] == 1)
    assert look.refusals().get("no_free_slot", 0) >= 1
    assert look.inflight() == 1
    first.done()
    second.done()
    wait_until(lambda: look.total() >= steered + 1)
    assert second.begun + second.took >= first.begun + first.took
    wait_until(lambda: look.inflight() == 0)
    for client in clients:
        client.close()


@pytest.mark.steer_only
def test_the_kernel_never_takes_a_slot_twice(start, kernel):
    """Many clients at once, in the kernel and in the daemon: the server's own queue stays empty, and
    every count returns to zero."""
    sim = start.sim("gpu0", "uvicorn", slots=2, decode_tps=1000, prefill_tps=1000000)
    look = kernel([f"gpu0={sim.text},slots=2"], "--busy", "prefer_owning_slot_with_wait",
                         "--workers", "2")
    kvpin = look.kvpin
    clients = [Client(kvpin.addr) for _ in range(8)]
    steered = look.total()
    queued = 0
    for _ in range(12):
        turns = [Turn(kvpin, f"s{i}", client=client) for i, client in enumerate(clients)]
        while any(turn.is_alive() for turn in turns):
            queued = max(queued, sim.get("/stats")["queued"])
            time.sleep(0.002)
        for turn in turns:
            turn.done()
    assert queued == 0
    assert look.total() > steered
    wait_until(lambda: look.inflight() == 0)
    for client in clients:
        client.close()


@pytest.mark.steer_only
def test_steered_turns_are_explained_and_classed(start, kernel):
    sim = start.sim("gpu0", "uvicorn", slots=1, decode_tps=DECODE, prefill_tps=1600)
    look = kernel([f"gpu0={sim.text},slots=1"])
    kvpin = look.kvpin
    client = Client(kvpin.addr)
    Turn(kvpin, "a", words=800, client=client).done()
    look.wait_armed()
    before = look.total()
    for _ in range(3):
        Turn(kvpin, "a", words=800, client=client).done()
    wait_until(lambda: look.total() >= before + 3)
    wait_until(lambda: sum(t["steered"] for t in explain(kvpin, "a", 4)) == 3)
    row = kvpin.status("sessions")["sessions"][0]
    assert (row["last_turn"], row["turns"]) == ("warm", 4)
    assert kvpin.metrics()['kvpin_turns_total{backend="gpu0",class="warm"}'] == 3
    client.close()
