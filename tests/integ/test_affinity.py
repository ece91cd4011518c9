# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Affinity per request: which server gets which session."""
from harness import Client
from ops_help import server_of


def test_two_sessions_on_one_connection_go_to_two_servers(start):
    kvpin = start.kvpin(start.sims(2))
    client = Client(kvpin.addr)
    first = [server_of(client, "a"), server_of(client, "b")]
    assert sorted(first) == ["gpu0", "gpu1"]
    for _ in range(20):
        assert [server_of(client, "a"), server_of(client, "b")] == first


def test_one_session_over_many_connections_stays_on_its_server(start):
    kvpin = start.kvpin(start.sims(4, "uvicorn"), "--workers", "2")
    owner = server_of(Client(kvpin.addr), "conversation-1")
    assert {server_of(Client(kvpin.addr), "conversation-1") for _ in range(30)} == {owner}


def test_placement_spreads_sessions_evenly(start):
    kvpin = start.kvpin(start.sims(4))
    client = Client(kvpin.addr)
    spread = [server_of(client, f"s{i}") for i in range(40)]
    assert {name: spread.count(name) for name in set(spread)} == {f"gpu{i}": 10 for i in range(4)}


def test_hash_chooses_alike_in_every_process(start):
    """Also when it knows the servers in another order, and from another configuration's start."""
    sims = start.sims(4, "uvicorn")
    one = Client(start.kvpin(sims, "--placement", "hash").addr)
    homes = {f"chat-{i}": server_of(one, f"chat-{i}") for i in range(40)}
    assert set(homes.values()) == {sim.name for sim in sims}
    other = Client(start.kvpin(sims[::-1], "--placement", "hash", "--workers", "1").addr)
    for key in sorted(homes):
        assert server_of(other, key) == homes[key]
