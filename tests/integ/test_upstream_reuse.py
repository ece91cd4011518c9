# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Servers close connections when it suits them; no client may ever notice."""
import asyncio
import http.client
import json
import random

import httpx
import pytest

from harness import checksum, pattern

VERIFY = {"x-sim-verify": "1"}


def total(metrics, name):
    return sum(value for key, value in metrics.items() if key.split("{")[0] == name)


def served(sims, *paths):
    """Requests that the servers have counted on these paths."""
    return sum(sim.get("/stats")["endpoints"].get(path, 0) for sim in sims for path in paths)


# ---- llama-server closes behind every stream, whatever its head says


async def httpx_streams(kvpin, count):
    rows = []

    async def lane(client, session):
        for _ in range(count // 8):
            body = {"messages": [{"role": "user", "content": f"s{session}"}], "stream": True,
                    "max_tokens": 8}
            async with client.stream("POST", "/v1/chat/completions", json=body,
                                     headers={**VERIFY, "X-Session-Id": str(session)}) as answer:
                text = "".join([part async for part in answer.aiter_text()])
            rows.append({"session": session, "status": answer.status_code,
                         "server": answer.headers["x-sim-server"],
                         "done": text.endswith("data: [DONE]\n\n"),
                         "tokens": text.count('"content"')})

    limits = httpx.Limits(max_connections=4)
    async with httpx.AsyncClient(base_url=kvpin.url, trust_env=False, limits=limits) as client:
        await asyncio.gather(*[lane(client, session) for session in range(8)])
    return rows


@pytest.mark.parametrize("client", ["httpx", "undici", "openai"])
def test_144_streams_over_a_shared_pool_see_no_error(start, servers, request, client):
    """nginx, Caddy and HAProxy fail 130, 10 and 4 of these."""
    sims = servers("llama")
    kvpin = start.kvpin(sims)
    if client == "httpx":
        rows = asyncio.run(httpx_streams(kvpin, 144))
    elif client == "undici":
        rows = request.getfixturevalue("node")("undici", "streams", kvpin, count=144)
    else:
        prompts = [f"s{session}" for session in range(8)]
        rows = request.getfixturevalue("node")("openai", "streams", kvpin, count=144,
                                               prompts=prompts)
    assert len(rows) == 144
    owner = {}
    for row in rows:
        assert row["status"] == 200, row
        assert owner.setdefault(row["session"], row["server"]) == row["server"]
        if client == "openai":
            assert len(row["text"]) == 32 and row["finish"] == "length", row
        else:  # a role with "content":null, then 8 tokens
            assert row["done"] and row["tokens"] == 9, row
    assert set(owner.values()) == {"gpu0", "gpu1"}
    # None was answered twice behind the client's back.
    assert served(sims, "/v1/chat/completions") == 144
    assert [row["outcome"] for row in kvpin.wait_requests(144)] == ["ok"] * 144


# ---- the idle limit races with the next request


class Racer:
    """A client that pauses for about the server's idle limit between two requests. Any unexpected
    byte or end is an error. asyncio's streams: the pauses must be exact to a millisecond."""

    def __init__(self, addr, session, idle_s, rng):
        self.addr, self.session, self.idle_s, self.rng = addr, session, idle_s, rng
        self.owner = None
        self.sent = {"/json": 0, "/sink": 0}

    async def request(self, method, path, body=b"", chunked=False):
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
        self.writer.write(f"{method} {path} HTTP/1.1\r\nHost: t\r\nX-Session-Id: {self.session}\r\n"
                          f"x-sim-verify: 1\r\n{framing}\r\n\r\n".encode())
        if chunked:
            await asyncio.sleep(0)  # the head first
            self.writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        else:
            self.writer.write(body)
        self.sent[path] += 1
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        assert head[0].startswith("http/1.1 200"), head
        fields = dict(line.split(": ", 1) for line in head[1:-2])
        assert "connection" not in fields, head
        assert self.owner in (None, fields["x-sim-server"])
        self.owner = fields["x-sim-server"]
        return await self.reader.readexactly(int(fields["content-length"]))

    async def turn(self):
        kind = self.rng.randrange(8)
        if kind < 3:
            assert len(await self.request("GET", "/json")) == 300
            return
        # The last is beyond what kvpin holds for sending again.
        body = pattern(300_000 if kind == 7 else 700, kind)
        answer = json.loads(await self.request("POST", "/sink", body, chunked=kind == 6))
        assert (answer["bytes"], answer["xxh64"]) == (len(body), checksum(body))

    async def run(self, turns):
        await asyncio.sleep(self.rng.random() * self.idle_s)
        self.reader, self.writer = await asyncio.open_connection(*self.addr)
        try:
            for _ in range(turns):
                await self.turn()
                # From just before the limit to just behind it; on a busy machine it gets late.
                early, late = self.rng.choice(((-0.004, 0.002), (-0.04, 0.01)))
                await asyncio.sleep(self.idle_s + self.rng.uniform(early, late))
        finally:
            self.writer.close()


def race(kvpin, clients, turns, idle_s):
    racers = [Racer(kvpin.addr, i, idle_s, random.Random(i)) for i in range(clients)]

    async def run():
        await asyncio.gather(*[asyncio.wait_for(racer.run(turns), 120) for racer in racers])

    asyncio.run(run())
    assert {racer.owner for racer in racers} == {"gpu0", "gpu1"}
    return {path: sum(racer.sent[path] for racer in racers) for path in racers[0].sent}


def assert_raced(kvpin, requests):
    """No error, and the race did happen: some requests met a connection that was just closing."""
    metrics = kvpin.metrics()
    outcomes = {key: value for key, value in metrics.items()
                if key.startswith("kvpin_requests_total") and value}
    assert sum(outcomes.values()) == requests
    assert all('outcome="ok"' in key for key in outcomes), outcomes
    assert total(metrics, "kvpin_upstream_reuses_total") > requests / 20, metrics
    assert total(metrics, "kvpin_upstream_connects_total") > requests / 20, metrics
    assert total(metrics, "kvpin_resends_total") > 0, "the race never happened"


@pytest.mark.parametrize("manner", ["llama", "uvicorn"])
def test_idle_closes_that_race_with_requests_lose_none(start, servers, manner):
    sims = servers(manner, idle_ms=100, keepalive_max=100000)
    kvpin = start.kvpin(sims, log_requests=False)
    sent = race(kvpin, 100, 40, 0.100)
    assert sum(sent.values()) == 4000
    assert_raced(kvpin, 4000)
    for path, count in sent.items():
        assert served(sims, path) == count  # none lost, none served twice


def test_a_real_uvicorns_idle_closes_lose_no_request(start):
    pair = [start.uvicorn(name, http, ["--timeout-keep-alive", "1"])
            for name, http in (("gpu0", "h11"), ("gpu1", "httptools"))]
    kvpin = start.kvpin(pair, log_requests=False)
    sent = race(kvpin, 300, 3, 1.0)
    assert_raced(kvpin, sum(sent.values()))


# ---- the servers that say when they close


def talk(kvpin, targets):
    """GET each target over one connection, which must last; yields (status, fields, body)."""
    connection = http.client.HTTPConnection(*kvpin.addr, timeout=10)
    connection.connect()
    sock = connection.sock
    try:
        for i, target in enumerate(targets):
            connection.request("GET", target, headers={**VERIFY, "X-Session-Id": str(i % 4)})
            answer = connection.getresponse()
            body = answer.read()
            assert connection.sock is sock, "the client's connection was closed"
            assert answer.headers["Connection"] is None
            yield answer.status, answer.headers, body
    finally:
        connection.close()


def test_the_clients_connection_outlives_the_servers_last_answer(start, servers):
    """Every 5th answer of a connection says Connection: close, and is it."""
    sims = servers("llama", keepalive_max=5)
    kvpin = start.kvpin(sims)
    for i, (status, head, body) in enumerate(talk(kvpin, [f"/bytes/{n}" for n in range(200)])):
        assert (status, body) == (200, pattern(i))
        assert head["x-sim-server"] == f"gpu{i % 2}"
    assert served(sims, "/bytes/") == 200
    metrics = kvpin.metrics()
    assert total(metrics, "kvpin_upstream_connects_total") == 40
    assert total(metrics, "kvpin_upstream_reuses_total") == 160
    assert total(metrics, "kvpin_connections_accepted_total") == 1


def test_pools_outlive_the_servers_last_answers(start, servers, node):
    sims = servers("llama", keepalive_max=3)
    kvpin = start.kvpin(sims)
    rows = node("undici", "bodies", kvpin, count=150)
    assert [row["status"] for row in rows] == [200] * 150
    assert served(sims, "/bytes/", "/sink") == 150


def test_the_clients_connection_outlives_error_answers(start, servers):
    """llama-server says Connection: close with every error, and leaves the socket open."""
    kvpin = start.kvpin(servers("llama"))
    targets = ["/status/500", "/json", "/status/404", "/status/503"] * 25
    got = [status for status, _, _ in talk(kvpin, targets)]
    assert got == [500, 200, 404, 503] * 25
    # Taken at its word: a new connection per error, none left to linger on the server.
    assert total(kvpin.metrics(), "kvpin_upstream_connects_total") == 75


def test_an_answer_without_a_length_ends_with_the_connection(start, servers):
    """Then the end is the framing: the client's connection must end as well."""
    kvpin = start.kvpin(servers("llama"))
    connection = http.client.HTTPConnection(*kvpin.addr, timeout=10)
    for i in range(20):
        connection.request("GET", f"/bytes/{i * 3000}?seed={i}&manner=close", headers=VERIFY)
        answer = connection.getresponse()
        assert answer.headers["Connection"] == "close"
        assert answer.read() == pattern(i * 3000, i)
    connection.close()
