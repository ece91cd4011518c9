# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Reloads, alone and under traffic: what changes, what stays, and that no request is lost."""
import json
import signal
import threading
import time

import pytest
import xxhash

from harness import NO_CHECKS, Client, wait_until
from ops_help import Alias, Config, Stream, reload, server_of
from test_drain import command

REQUEST = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"


@pytest.mark.parametrize("how", ["signal", "command"])
def test_a_reload_changes_the_servers_and_drops_no_connection(start, how):
    sims = start.sims(3, "uvicorn")
    config = Config(start, {sims[0]: 1, sims[1]: 1})
    kvpin = config.start(start, "--workers", "2")
    clients = [start.client(kvpin) for _ in range(8)]
    owners = {f"s{i}": server_of(clients[i], f"s{i}") for i in range(8)}
    assert set(owners.values()) == {"gpu0", "gpu1"}
    streams = [Stream(client, f"s{i}", 200) for i, client in enumerate(clients)]
    config.write({sims[1]: 1, sims[2]: 1})
    reload(kvpin, how)
    assert {b["name"]: b["state"] for b in kvpin.status("backends")["backends"]} == {
        "gpu0": "removed", "gpu1": "up", "gpu2": "up"}
    other = start.client(kvpin)
    assert server_of(other, "new") == "gpu2"
    for stream in streams:
        stream.join(10)
        assert stream.result == "whole"
    for i, client in enumerate(clients):  # the same connections go on
        owner = server_of(client, f"s{i}")
        if owners[f"s{i}"] == "gpu1":
            assert owner == "gpu1"
        else:
            assert owner in ("gpu1", "gpu2")
    metrics = kvpin.metrics()
    assert metrics['kvpin_session_moves_total{reason="moved_removed"}'] == 4
    assert metrics["kvpin_connections_accepted_total"] == 9
    assert metrics["kvpin_config_reloads_total"] == 1
    assert {r["outcome"] for r in kvpin.requests()} == {"ok"}
    wait_until(lambda: [b["name"] for b in kvpin.status("backends")["backends"]]
               == ["gpu1", "gpu2"])


def test_a_reload_changes_weights_and_weight_0_takes_a_server_out(start):
    sims = start.sims(2)
    config = Config(start, {sims[0]: 1, sims[1]: 1})
    kvpin = config.start(start)
    client = start.client(kvpin)
    config.write({sims[0]: 3, sims[1]: 1})
    reload(kvpin)
    owners = [server_of(client, f"s{i}") for i in range(40)]
    assert (owners.count("gpu0"), owners.count("gpu1")) == (30, 10)
    config.write({sims[0]: 0, sims[1]: 1})
    reload(kvpin)
    assert {server_of(client, f"s{i}") for i in range(40)} == {"gpu1"}
    assert {server_of(client, f"new{i}") for i in range(5)} == {"gpu1"}


@pytest.mark.parametrize("key, value, other", [
    ("listen", '["127.0.0.1:0"]', '["127.0.0.2:0"]'), ("workers", "1", "2"),
    ("user", "off", "nobody")])
def test_what_needs_a_restart_is_said_as_long_as_it_does(start, key, value, other):
    """Compared with what runs, not with what the reload before has read."""
    sims, text = start.sims(1), 'listen: ["127.0.0.1:0"]\n' if key != "listen" else ""
    config = Config(start, {sims[0]: 1}, f"{text}{key}: {value}\n")
    kvpin = start.kvpin([], "--config", str(config.path), listen=[])
    for now, note in ((other, f"reloaded: {key}: a change needs a restart\n"),
                      (other, f"reloaded: {key}: a change needs a restart\n"),
                      (value, "reloaded\n")):
        config.write({sims[0]: 1}, f"{text}{key}: {now}\n")
        assert reload(kvpin).stdout == note


def test_a_reload_that_fails_late_changes_nothing(start):
    """It is found out only at the table of servers that there is no room for them: those that were
    removed and still have sessions count. By then nothing of it may be in force."""
    sim = start.sims(1)[0]
    few, many = 1024, 'affinity: {keys: [{header: X-Session-Id}, {prefix: {max: 100000}}]}\n'
    config = Config(start, {sim: 1, **{Alias(f"a{i}", f"127.9.0.1:{i + 1}"): 1
                                       for i in range(40)}}, many)
    kvpin = config.start(start, *NO_CHECKS)
    for i in range(40):
        command(kvpin, "pin", f"s{i}", f"a{i}")
    config.write({sim: 1, **{Alias(f"b{i}", f"127.9.0.2:{i + 1}"): 1 for i in range(40)}},
                 many.replace("100000", str(few)))
    assert "no free slot" in reload(kvpin).stderr
    config.write({sim: 1}, many)
    assert reload(kvpin).returncode == 0  # the servers that do not answer are out of the way
    config.write({sim: 1, **{Alias(f"b{i}", f"127.9.0.2:{i + 1}"): 1 for i in range(40)}},
                 many.replace("100000", str(few)))
    assert "no free slot" in reload(kvpin).stderr
    client = start.client(kvpin)
    for i in range(few // 64 + 4):
        body = json.dumps({"messages": [{"role": "user", "content": f"{i:09d} " * 2000}],
                           "max_tokens": 1}).encode()
        assert client.request("POST", "/v1/chat/completions", {}, body)[0] == 200
    assert kvpin.metrics()["kvpin_prefix_nodes"] > few


def test_a_reload_changes_limits_and_deadlines_of_connections_that_are_open(start):
    sims = start.sims(1)
    config = Config(start, {sims[0]: 1})
    kvpin = config.start(start)
    client, idle = start.client(kvpin), start.client(kvpin)
    big = {"X-Pad": "x" * 2000}
    assert client.request("GET", "/json", big)[0] == 200
    config.write({sims[0]: 1}, "limits: {head: 1KiB}\ntimeouts: {idle: 1s}\n")
    assert reload(kvpin).returncode == 0
    assert client.request("GET", "/json")[0] == 200
    assert client.request("GET", "/json", big)[0] == 431
    idle.send(REQUEST.replace(b"/ ", b"/json "))
    assert idle.answer()[0] == 200
    assert idle.ended() == "fin"


@pytest.mark.parametrize("how", ["signal", "command"])
def test_a_bad_configuration_keeps_the_old_one_in_force(start, how):
    sims = start.sims(2)
    config = Config(start, {sims[0]: 1})
    kvpin = config.start(start)
    client = start.client(kvpin)
    assert server_of(client, "s") == "gpu0"
    bad = ["timeouts: {idel: 5s}\n", "placement: sideways\n", "limits: {head: 1GiB}\n", "a: [\n"]
    for text in bad:
        config.write({sims[1]: 1}, text)
        out = reload(kvpin, how)
        if out:
            assert out.returncode == 1
            assert "kvpin.yaml:" in out.stderr, out.stderr
        assert server_of(client, "s") == "gpu0"
    config.path.unlink()
    reload(kvpin, how)
    assert server_of(client, "new") == "gpu0"
    assert kvpin.metrics()["kvpin_config_reloads_total"] == 0
    assert kvpin.output().count("the old configuration stays in force") == 5


def reload_under_load(start, lists, seconds=3):
    """Two workers and a reload every few milliseconds, for so long and until there were some; no
    request may notice."""
    config = Config(start, lists[0])
    kvpin = config.start(start, "--workers", "2")
    stop = threading.Event()
    counts, problems = [0] * 6, []

    def traffic(n):
        client = Client(kvpin.addr)
        count = 0
        try:
            while not stop.is_set():
                counts[n] = count = count + 1
                body = b"%d-%d" % (n, count) * 100
                headers = {"x-sim-verify": "1"}
                if count % 5:  # pins that never rest keep a slot from being given away
                    headers["X-Session-Id"] = f"s{n}-{count % 7}"
                status, fields, _ = client.request("POST", "/sink", headers, body)
                if status != 200 or fields["x-sim-body"] != xxhash.xxh64(body).hexdigest():
                    problems.append((n, count, status))
        except (OSError, EOFError) as error:
            problems.append((n, count, repr(error)))
        client.close()

    threads = [threading.Thread(target=traffic, args=(n,)) for n in range(len(counts))]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    reloads = 0
    while time.monotonic() < end or (
            not problems and time.monotonic() < end + 60 and min(reloads, *counts) <= 20):
        config.write(lists[reloads % len(lists)], f"limits: {{connections: {100 + reloads}}}\n")
        before = kvpin.output().count("configuration reloaded")
        kvpin.kill(signal.SIGHUP)
        wait_until(lambda before=before:
                   kvpin.output().count("configuration reloaded") > before)
        reloads += 1
        kvpin.status("sessions")
        kvpin.metrics()
    stop.set()
    for thread in threads:
        thread.join(10)
    assert problems == []
    assert reloads > 20 and min(counts) > 20


@pytest.mark.slow
def test_reloads_under_load_cost_no_request(start):
    """Servers come and go and change their addresses, so that slots are given away."""
    sims = start.sims(4, "uvicorn")
    moved = [Alias(f"gpu{i}", sims[(i + 1) % 4].text) for i in range(4)]
    reload_under_load(start, [
        {sims[0]: 1, sims[1]: 1}, {sims[0]: 2, sims[1]: 1, sims[2]: 1},
        {sims[0]: 1, moved[1]: 2, moved[2]: 1}, {sims[0]: 1, sims[3]: 5}, {sims[0]: 1}])


@pytest.mark.slow
def test_a_reload_that_replaces_all_servers_costs_no_request(start):
    sims = start.sims(4, "uvicorn")
    reload_under_load(start, [{sims[0]: 1, sims[1]: 1}, {sims[2]: 1, sims[3]: 1}])
