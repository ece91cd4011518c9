# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Prefix routing end to end: requests without a session key follow the head of their prompt."""
import json
import random
import threading

import pytest

from harness import NO_CHECKS, Client
from test_keys import VERIFY


def prefix(**rules):
    return ("--session-key", ",".join(["prefix"] + [f"{k}={v}" for k, v in rules.items()]))


def words(seed, count):
    """Text that nothing else begins with."""
    rng = random.Random(seed)
    return " ".join(f"{rng.randrange(16**8):08x}" for _ in range(count))


def message(role, content):
    return {"role": role, "content": content}


def chat(client, messages, model="m", headers=(), **more):
    body = json.dumps({"messages": messages, "model": model, "max_tokens": 1, **more}).encode()
    status, fields, answer = client.request(
        "POST", "/v1/chat/completions", {**VERIFY, "Content-Type": "application/json",
                                         **dict(headers)}, body)
    assert status == 200, answer
    return fields["x-sim-server"], json.loads(answer)


def server(*args, **options):
    return chat(*args, **options)[0]


def reasons(kvpin, count):
    return [r["reason"] for r in kvpin.wait_requests(count)]


def test_a_conversation_returns_to_the_server_that_holds_it(start):
    kvpin = start.kvpin(start.sims(4), *prefix(), *NO_CHECKS)
    client = start.client(kvpin)
    for c in range(6):
        history = [message("system", "You are helpful."), message("user", words(c, 60))]
        owner, answer = chat(client, history)
        for turn in range(4):
            history += [answer["choices"][0]["message"], message("user", words(f"{c} {turn}", 40))]
            found, answer = chat(client, history)
            assert found == owner
    assert reasons(kvpin, 30) == (["prefix_cold"] + ["prefix"] * 4) * 6
    rows = kvpin.requests()
    assert {r["key"] for r in rows} == {"prefix"}
    assert [r["turn"] for r in rows[:5]] == ["first"] + ["later"] * 4
    metrics = kvpin.metrics()
    assert metrics['kvpin_prefix_requests_total{result="cold"}'] == 6
    assert metrics['kvpin_prefix_requests_total{result="hot"}'] == 24
    assert metrics["kvpin_prefix_nodes"] > 30
    assert sum(v for k, v in metrics.items() if k.startswith("kvpin_keyless")) == 0
    # Six conversations, four servers: none has three.
    assert {r["backend"] for r in rows} == {f"gpu{i}" for i in range(4)}


def test_a_shared_head_follows_its_owner_and_an_unrelated_one_does_not(start):
    kvpin = start.kvpin(start.sims(3), *prefix(), *NO_CHECKS)
    client = start.client(kvpin)
    head = message("system", words("head", 200))
    owner = server(client, [head, message("user", words("a", 30))])
    assert server(client, [head, message("user", words("b", 30))]) == owner
    assert server(client, [message("user", words("c", 200))]) != owner
    assert reasons(kvpin, 3) == ["prefix_cold", "prefix", "prefix_cold"]
    # The same words for another model are another prompt.
    server(client, [head, message("user", words("a", 30))], model="other")
    assert reasons(kvpin, 4)[-1] == "prefix_cold"


def test_a_dead_servers_prefixes_find_a_new_home(start):
    sims = {s.name: s for s in start.sims(3)}
    kvpin = start.kvpin(list(sims.values()), *prefix(), *NO_CHECKS)
    client = start.client(kvpin)
    talks = {c: [message("user", words(c, 200))] for c in range(9)}
    owners = {c: server(client, talk) for c, talk in talks.items()}
    dead = owners[0]
    sims[dead].stop()
    homes = {}
    for c, talk in talks.items():
        homes[c] = server(client, talk)
        assert homes[c] != dead
        assert owners[c] == dead or homes[c] == owners[c]
    for c, talk in talks.items():
        assert server(client, talk) == homes[c]
    assert reasons(kvpin, 27)[18:] == ["prefix"] * 9


@pytest.mark.parametrize("order", ["model first", "model last"])
def test_sessions_under_one_system_prompt_spread_and_stay(start, order):
    """200 sessions, one 8 KB system prompt, four servers."""
    kvpin = start.kvpin(start.sims(4), *prefix(), *NO_CHECKS, log_requests=False)
    system = message("system", words("system", 910)[:8192])
    owners = {}

    def ask(client, history):
        body = {"messages": history, "max_tokens": 1}
        body = {"model": "m", **body} if order == "model first" else {**body, "model": "m"}
        status, fields, answer = client.request(
            "POST", "/v1/chat/completions", VERIFY, json.dumps(body).encode())
        assert status == 200
        return fields["x-sim-server"], json.loads(answer)["choices"][0]["message"]

    client = start.client(kvpin)
    talks = {}
    for s in range(200):
        history = [system, message("user", f"Session {s}: " + words(s, 60))]
        owners[s], reply = ask(client, history)
        talks[s] = history + [reply]
    counts = [list(owners.values()).count(f"gpu{i}") for i in range(4)]
    assert max(counts) <= 1.5 * 50 and min(counts) >= 50 / 1.5, counts
    for turn in range(2):
        for s, history in talks.items():
            history.append(message("user", words(f"{s} {turn}", 40)))
            found, reply = ask(client, history)
            assert found == owners[s], (turn, s)
            history.append(reply)
    metrics = kvpin.metrics()
    assert metrics['kvpin_prefix_requests_total{result="hot"}'] >= 400
    assert metrics['kvpin_prefix_requests_total{result="guarded"}'] == 0


def test_without_the_cure_they_collapse(start):
    """The same traffic where shared windows count: it is the cure that spreads it."""
    kvpin = start.kvpin(start.sims(4), *prefix(common=0), *NO_CHECKS, log_requests=False)
    client = start.client(kvpin)
    system = message("system", words("system", 910)[:8192])
    assert len({server(client, [system, message("user", words(s, 60))]) for s in range(30)}) == 1


def test_a_session_key_outranks_the_prefix(start):
    kvpin = start.kvpin(start.sims(2), "--session-key", "header=X-Session-Id", *prefix(),
                        *NO_CHECKS)
    client = start.client(kvpin)
    talk = [message("user", words("t", 200))]
    owner = server(client, talk)
    named = {server(client, talk, headers={"X-Session-Id": f"s{i}"}) for i in range(2)}
    assert named == {"gpu0", "gpu1"}
    assert server(client, talk) == owner
    assert reasons(kvpin, 4) == ["prefix_cold", "placed", "placed", "prefix"]


def test_volatile_tails_and_content_parts_do_not_change_the_head(start):
    kvpin = start.kvpin(start.sims(4), *prefix(), *NO_CHECKS)
    client = start.client(kvpin)
    text = words("parts", 200)
    owner = server(client, [message("user", text)], temperature=0.1)
    parts = [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]
    for more in ({"temperature": 0.9}, {"seed": 4}, {}):
        assert server(client, [message("user", parts), message("assistant", words(str(more), 9))],
                      **more) == owner
    assert server(client, [{"content": text, "role": "user"}]) == owner
    assert server(client, [message("system", text)]) != owner


def test_prompts_of_completions_are_taken_as_they_are(start):
    kvpin = start.kvpin(start.sims(4), *prefix(), *NO_CHECKS)
    client = start.client(kvpin)

    def complete(prompt):
        status, fields, _ = client.request(
            "POST", "/v1/completions", VERIFY,
            json.dumps({"model": "m", "prompt": prompt, "max_tokens": 1}).encode())
        assert status == 200
        return fields["x-sim-server"]
    prompts = [words(i, 100) for i in range(4)]
    owners = [complete(p) for p in prompts]
    assert sorted(owners) == [f"gpu{i}" for i in range(4)]
    assert [complete(p + words("more", 20)) for p in prompts] == owners
    # Less than a window tells nothing: balanced, and counted as keyless.
    assert len({complete("Hello") for _ in range(8)}) == 4
    assert kvpin.metrics()['kvpin_keyless_requests_total{fallback="balance"}'] == 8


def test_the_load_guard_moves_a_burst_and_counts_it(start):
    """One hot head, many at once: the owner is not stacked while others idle."""
    kvpin = start.kvpin(start.sims(4, prefill="2000/s", slots=16), *prefix(), *NO_CHECKS)
    talk = [message("user", words("burst", 300))]
    owner = server(start.client(kvpin), talk)
    seen, failed = [], []

    def one(i):
        try:
            client = Client(kvpin.addr)
            seen.append(server(client, talk + [message("assistant", words(i, 200))]))
            client.close()
        except Exception as error:
            failed.append(error)
    threads = [threading.Thread(target=one, args=(i,)) for i in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed and len(seen) == 16
    assert len(set(seen)) == 4, seen
    metrics = kvpin.metrics()
    disturbed = {k: v for k, v in metrics.items() if k.startswith("kvpin_forced_disturb_total")}
    assert sum(disturbed.values()) == metrics['kvpin_prefix_requests_total{result="guarded"}'] > 0
    assert disturbed[f'kvpin_forced_disturb_total{{backend="{owner}"}}'] > 0


def test_a_reload_switches_prefixes_on(start, tmp_path):
    sims = start.sims(2)
    config = tmp_path / "kvpin.yaml"
    config.write_text("affinity: {keys: [{header: X-Session-Id}]}\n")
    kvpin = start.kvpin(sims, "--config", str(config), *NO_CHECKS)
    client = start.client(kvpin)
    talk = [message("user", words("t", 200))]
    assert {server(client, talk) for _ in range(4)} == {"gpu0", "gpu1"}
    config.write_text("affinity: {keys: [{header: X-Session-Id}, {prefix: {ttl: 1h}}]}\n")
    kvpin.status("reload")
    owner = server(client, talk)
    assert {server(client, talk) for _ in range(4)} == {owner}
    assert reasons(kvpin, 9) == ["keyless"] * 4 + ["prefix_cold"] + ["prefix"] * 4


def test_long_bodies_whose_model_comes_last_still_match(start):
    """The head that is looked at ends before the model: the unsalted chain finds it."""
    kvpin = start.kvpin(start.sims(4, ctx=1000000), *prefix(), *NO_CHECKS)
    client = start.client(kvpin)
    history = [message("user", words("long", 900))]
    owner, answer = chat(client, history)
    for turn in range(6):
        history += [answer["choices"][0]["message"], message("user", words(f"l{turn}", 4000))]
        found, answer = chat(client, history)
        assert found == owner, turn
    assert len(json.dumps(history)) > 200_000
