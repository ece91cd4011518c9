# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Prompts without a session under prefer_owning_slot_with_wait: they wait for the full server that
holds their head, where that costs less than a prefill elsewhere."""
import json

from harness import Client, wait_until
from slots_help import Turn, backends, explain, pair
from test_keys import VERIFY
from test_prefix import prefix, words

WAIT = ("--busy", "prefer_owning_slot_with_wait")


class Ask(Turn):
    """One streamed chat request without a session; done() tells who served it."""

    def __init__(self, kvpin, prompt, tokens=2):
        super().__init__(kvpin, None, tokens=tokens, prompt=prompt, headers=VERIFY, model="m")

    def done(self, status=200):
        return super().done(status).fields.get("x-sim-server")


def occupied(kvpin, prompt, tokens):
    """A request for that prompt's owner which keeps its only slot busy; and the owner's name."""
    busy = Ask(kvpin, prompt, tokens)
    wait_until(lambda: sum(row["inflight"] for row in backends(kvpin).values()) == 1)
    return busy, next(name for name, row in backends(kvpin).items() if row["inflight"])


def test_a_long_prompt_waits_and_a_short_one_goes(start):
    _, kvpin = pair(start, args=[*WAIT, *prefix()], prefill_tps=4000)
    long, short = words("long", 2500), words("short", 60)
    home = Ask(kvpin, long).done()
    for _ in range(3):  # exchanges that find the cache teach how long one takes
        assert Ask(kvpin, long).done() == home
    assert backends(kvpin)[home]["prefill_tokens_per_s"] > 0  # learnt from the cold one
    busy, where = occupied(kvpin, long, 300)
    assert where == home
    retry = Ask(kvpin, long)
    wait_until(lambda: backends(kvpin)[home]["waiting"] == 1)
    told = explain(kvpin)[0]
    assert (told["reason"], told["guard"], told["backend"]) == ("prefix", "wait", home), told
    assert told["stay_ms"] <= told["go_ms"]
    assert retry.done() == home
    assert busy.done() == home and retry.ended > busy.ended
    metrics = kvpin.metrics()
    assert metrics[f'kvpin_slot_waits_total{{backend="{home}"}}'] == 1
    assert metrics["kvpin_pressure"] == 0
    # The other way round.
    first = Ask(kvpin, short).done()
    busy, where = occupied(kvpin, short, 400)
    assert where == first
    assert Ask(kvpin, short).done() != first
    assert busy.is_alive()
    busy.done()
    told = explain(kvpin)[0]
    assert (told["reason"], told["guard"]) == ("prefix_guarded", "spill"), told
    metrics = kvpin.metrics()
    assert metrics[f'kvpin_forced_disturb_total{{backend="{first}"}}'] == 1
    assert metrics["kvpin_pressure"] == 1


def test_prompts_that_wait_are_served_in_order_and_said_once(start):
    _, kvpin = pair(start, servers=1, args=[*WAIT, *prefix(), "--workers", "2"])
    talk = words("talk", 500)
    home = Ask(kvpin, talk).done()
    busy, _ = occupied(kvpin, talk, 4000)
    before = len(kvpin.requests())
    waiting = []
    for i in range(4):
        waiting.append(Ask(kvpin, talk))
        wait_until(lambda: backends(kvpin)[home]["waiting"] == i + 1)
    busy.leave()
    assert {one.done() for one in waiting} == {home}
    ended = [one.ended for one in waiting]
    assert ended == sorted(ended)
    assert len(kvpin.wait_requests(before + 5)) == before + 5
    said = [told["guard"] for told in explain(kvpin, last=20)]
    assert said.count("wait") == 4, said


def test_a_client_that_leaves_gives_its_place_up(start):
    sims, kvpin = pair(start, args=[*WAIT, *prefix()], prefill_tps=4000)
    talk = words("talk", 2500)
    home = Ask(kvpin, talk).done()
    for _ in range(3):
        Ask(kvpin, talk).done()
    served = sum(sim.get("/stats")["model_requests"] for sim in sims)
    busy, _ = occupied(kvpin, talk, 4000)
    for leave in Client.reset, Client.close:
        client = Client(kvpin.addr)
        client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n"
                    % len(busy.body) + busy.body)
        wait_until(lambda: backends(kvpin)[home]["waiting"] == 1)
        leave(client)
        wait_until(lambda: backends(kvpin)[home]["waiting"] == 0)
    busy.leave()
    assert sum(sim.get("/stats")["model_requests"] for sim in sims) == served + 1


def test_the_end_of_a_wait_is_said(start):
    """Both servers are full; nobody goes anywhere until the deadline."""
    _, kvpin = pair(start, args=[*WAIT, *prefix(), "--wait", "300ms"], prefill_tps=4000)
    talk = words("talk", 2500)
    home = Ask(kvpin, talk).done()
    busy, _ = occupied(kvpin, talk, 4000)
    other = Ask(kvpin, words("other", 100), 4000)
    wait_until(lambda: sum(row["inflight"] for row in backends(kvpin).values()) == 2)
    late = Ask(kvpin, talk)
    late.done(504)
    assert 0.29 <= late.ended - late.begun < 5
    assert json.loads(late.answer)["error"]["code"] == "queue_timeout"
    assert explain(kvpin)[0]["backend"] == home
    busy.leave()
    other.leave()
