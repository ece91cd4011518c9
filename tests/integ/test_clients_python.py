# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Python's HTTP clients against kvpin: each behind the same few calls, every body checked."""
import asyncio
import http.client
import json
import random
import statistics
import time
import urllib.request

import aiohttp
import httpx
import pytest
import requests

from harness import checksum, pattern

KINDS = ["llama", "uvicorn", "real"]
BODY_MAX = 2_000_000
TIMEOUT_S = 60


# ---- one interface over four blocking clients


class Httpx:
    def __init__(self, kvpin):
        self.client = httpx.Client(base_url=kvpin.url, timeout=TIMEOUT_S, trust_env=False)

    def call(self, method, path, headers, body=None):
        answer = self.client.request(method, path, headers=headers, content=body)
        return answer.status_code, answer.headers, answer.content

    def parts(self, path, headers):
        with self.client.stream("GET", path, headers=headers) as answer:
            yield from answer.iter_raw()

    def close(self):
        self.client.close()


class Requests:
    def __init__(self, kvpin):
        self.url, self.session = kvpin.url, requests.Session()
        self.session.trust_env = False

    def call(self, method, path, headers, body=None):
        answer = self.session.request(method, self.url + path, headers=headers, data=body,
                                      timeout=TIMEOUT_S)
        return answer.status_code, answer.headers, answer.content

    def parts(self, path, headers):
        with self.session.get(self.url + path, headers=headers, stream=True,
                              timeout=TIMEOUT_S) as answer:
            yield from answer.iter_content(chunk_size=None)

    def close(self):
        self.session.close()


class HttpClient:
    def __init__(self, kvpin):
        self.addr, self.connection = kvpin.addr, None

    def open(self):
        return http.client.HTTPConnection(*self.addr, timeout=TIMEOUT_S)

    def call(self, method, path, headers, body=None):
        self.connection = self.connection or self.open()
        self.connection.request(method, path, body=body, headers=headers,
                                encode_chunked=hasattr(body, "__next__"))
        answer = self.connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def parts(self, path, headers):
        connection = self.open()
        try:
            connection.request("GET", path, headers=headers)
            with connection.getresponse() as answer:
                while data := answer.read1(65536):
                    yield data
        finally:
            connection.close()

    def close(self):
        if self.connection:
            self.connection.close()


class Urllib:
    def __init__(self, kvpin):
        self.url = kvpin.url
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def open(self, method, path, headers, body=None):
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        return self.opener.open(request, timeout=TIMEOUT_S)

    def call(self, method, path, headers, body=None):
        with self.open(method, path, headers, body) as answer:
            return answer.status, answer.headers, answer.read()

    def parts(self, path, headers):
        with self.open("GET", path, headers) as answer:
            while data := answer.read1(65536):
                yield data

    def close(self):
        pass


CLIENTS = {"httpx": Httpx, "requests": Requests, "http.client": HttpClient, "urllib": Urllib}


@pytest.fixture(params=CLIENTS)
def client_of(request):
    """client_of(kvpin): a client, closed behind the test."""
    made = []

    def make(kvpin):
        made.append(CLIENTS[request.param](kvpin))
        return made[-1]
    yield make
    for client in made:
        client.close()


class Owners:
    """Which server each session was seen on; a second one fails."""

    def __init__(self):
        self.of = {}

    def saw(self, session, server):
        assert server in ("gpu0", "gpu1"), server
        assert self.of.setdefault(session, server) == server

    def all_seen(self):
        assert set(self.of.values()) == {"gpu0", "gpu1"}


def fields(session):
    return {"X-Session-Id": str(session), "x-sim-verify": "1"}


def sizes(rng, count):
    """Mostly small, some of everything: sizes of bodies."""
    return [0, 1] + [int(BODY_MAX ** rng.random()) for _ in range(count)] + \
           [rng.randrange(BODY_MAX) for _ in range(count // 4)]


def in_pieces(rng, data):
    """An iterator over parts of unequal size: makes a client send chunks."""
    while data:
        n = rng.randrange(1, 100_000)
        yield data[:n]
        data = data[n:]


# ---- blocking clients


@pytest.mark.parametrize("kind", KINDS)
def test_bodies_of_all_sizes_arrive_whole_both_ways(start, servers, client_of, kind):
    client, rng, owners = client_of(start.kvpin(servers(kind))), random.Random(1), Owners()
    for i, n in enumerate(sizes(rng, 16)):
        headers, body = fields(i % 6), rng.randbytes(n)
        status, head, got = client.call("POST", "/sink", headers, body)
        assert (status, head["x-sim-body"]) == (200, checksum(body))
        assert json.loads(got)["xxh64"] == checksum(body)
        owners.saw(i % 6, head["x-sim-server"])
        framing = rng.choice(["cl", "chunked"])
        status, head, got = client.call("GET", f"/bytes/{n}?seed={i}&manner={framing}", headers)
        assert (status, checksum(got)) == (200, checksum(pattern(n, i)))
        owners.saw(i % 6, head["x-sim-server"])
    owners.all_seen()


def test_chunked_uploads_of_all_sizes_arrive_whole(start, servers, client_of):
    client, rng = client_of(start.kvpin(servers("llama"))), random.Random(2)
    for n in sizes(rng, 12):
        body = rng.randbytes(n)
        headers = {**fields(n), "Content-Type": "application/octet-stream"}
        status, _, got = client.call("POST", "/sink", headers, in_pieces(rng, body))
        answer = json.loads(got)
        assert (status, answer["bytes"], answer["xxh64"]) == (200, n, checksum(body))


def test_tokens_are_handed_over_as_they_come(start, servers, client_of):
    client = client_of(start.kvpin(servers("llama")))
    delay_ms, rest = [], b""
    for data in client.parts("/sse/30/20000/100", fields("s")):
        now_ns = time.monotonic_ns()
        *events, rest = (rest + data).split(b"\n\n")
        delay_ms += [(now_ns - json.loads(event[5:])["t"]) / 1e6 for event in events]
    assert len(delay_ms) == 30 and rest == b""
    # Held back for the next token it would be 20 ms and more.
    assert statistics.median(delay_ms) < 12, delay_ms


@pytest.mark.parametrize("kind", KINDS)
def test_leaving_a_stream_reaches_the_server_and_spoils_nothing(start, servers, client_of, kind):
    pair = servers(kind)
    kvpin = start.kvpin(pair)
    client, before = client_of(kvpin), [server.aborts() for server in pair]
    for i in range(4):
        session = i % 2
        parts = client.parts("/sse/100000/2000/100", fields(session))
        assert next(parts)
        parts.close()  # leaves the generator's "with"
        status, head, got = client.call("GET", "/bytes/5000?seed=1", fields(session))
        assert (status, got) == (200, pattern(5000, 1))
        assert head["x-sim-server"] == f"gpu{session}"
    for server, count in zip(pair, before):
        server.wait_aborts(count + 2)


# ---- httpx sends a request's head and body apart, with Nagle's algorithm on


def chat(session, stream=False):
    return {"messages": [{"role": "user", "content": f"I am {session}. " * 20}],
            "max_tokens": 8, "stream": stream}


def assert_no_delayed_ack(kvpin, took_ms):
    """Without a quick ACK each request would wait 40 ms for its own body."""
    assert statistics.median(took_ms) < 30, took_ms
    served_ms = [float(row["total_ms"]) for row in kvpin.wait_requests(len(took_ms))]
    assert statistics.median(served_ms) < 30, served_ms


@pytest.mark.parametrize("kind", KINDS)
def test_httpx_does_not_wait_for_a_delayed_ack(start, servers, kind):
    kvpin = start.kvpin(servers(kind))
    took_ms = []
    with httpx.Client(base_url=kvpin.url, trust_env=False) as client:
        for i in range(40):
            begin = time.monotonic()
            answer = client.post("/sink", json=chat(i % 4), headers=fields(i % 4))
            took_ms.append((time.monotonic() - begin) * 1e3)
            assert answer.json()["xxh64"] == checksum(answer.request.content)
    assert_no_delayed_ack(kvpin, took_ms)


def test_async_httpx_does_not_wait_for_a_delayed_ack(start, servers):
    """asyncio turns Nagle's algorithm off by itself; head and body still come apart."""
    kvpin = start.kvpin(servers("llama"))
    took_ms = []

    async def run():
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(base_url=kvpin.url, trust_env=False, limits=limits) as client:
            for i in range(40):
                begin = time.monotonic()
                answer = await client.post("/sink", json=chat(i % 4), headers=fields(i % 4))
                took_ms.append((time.monotonic() - begin) * 1e3)
                assert answer.json()["xxh64"] == checksum(answer.request.content)

    asyncio.run(run())
    assert_no_delayed_ack(kvpin, took_ms)


@pytest.mark.parametrize("kind", KINDS)
def test_async_httpx_shares_one_pool_among_sessions(start, servers, kind):
    """Streams, answers and uploads of 8 sessions, interleaved over 4 connections."""
    kvpin, owners, rng = start.kvpin(servers(kind)), Owners(), random.Random(4)

    async def one(client, i):
        session = i % 8
        if i % 3 == 0:
            body = rng.randbytes(int(300_000 ** rng.random()))
            answer = await client.post("/sink", content=body, headers=fields(session))
            assert answer.json()["xxh64"] == checksum(body)
        elif i % 3 == 1:
            answer = await client.post("/v1/chat/completions", json=chat(session),
                                       headers=fields(session))
            assert answer.json()["usage"]["completion_tokens"] == 8
            assert answer.json()["system_fingerprint"] == answer.headers["x-sim-server"]
        else:
            async with client.stream("POST", "/v1/chat/completions", json=chat(session, True),
                                     headers=fields(session)) as answer:
                lines = [line async for line in answer.aiter_lines() if line.strip()]
            assert lines[-1].strip() == "data: [DONE]"
            # A role, 8 tokens, [DONE]; llama-server's reason to stop is an event of its own.
            assert len(lines) in (10, 11)
        assert answer.status_code == 200
        owners.saw(session, answer.headers.get("x-sim-server"))

    async def run():
        limits = httpx.Limits(max_connections=4)
        async with httpx.AsyncClient(base_url=kvpin.url, trust_env=False, limits=limits,
                                     timeout=TIMEOUT_S) as client:
            await asyncio.gather(*[one(client, i) for i in range(96)])

    asyncio.run(run())
    owners.all_seen()


# ---- aiohttp


@pytest.mark.parametrize("kind", KINDS)
def test_aiohttp_keeps_8_sessions_apart_with_200_requests_at_once(start, servers, kind):
    kvpin, owners, rng = start.kvpin(servers(kind)), Owners(), random.Random(5)

    async def one(client, i):
        session, n = i % 8, int(BODY_MAX ** rng.random())
        if i % 2:
            async with client.get(f"/bytes/{n}?seed={i}", headers=fields(session)) as answer:
                assert checksum(await answer.read()) == checksum(pattern(n, i))
        else:
            body = rng.randbytes(n)
            async with client.post("/sink", data=body, headers=fields(session)) as answer:
                assert (await answer.json())["xxh64"] == checksum(body)
        assert answer.status == 200
        owners.saw(session, answer.headers["x-sim-server"])

    async def run():
        async with aiohttp.ClientSession(kvpin.url, connector=aiohttp.TCPConnector(limit=24),
                                         timeout=aiohttp.ClientTimeout(90)) as client:
            await asyncio.gather(*[one(client, i) for i in range(200)])

    asyncio.run(run())
    owners.all_seen()


@pytest.mark.parametrize("kind", KINDS)
def test_aiohttp_streams_and_aborts_side_by_side(start, servers, kind):
    """32 streams over one pool; every fourth is left in the middle, the others stay whole."""
    pair = servers(kind, decode_tps=500, slots=32)
    kvpin, owners = start.kvpin(pair), Owners()
    before = [server.aborts() for server in pair]
    left = {"gpu0": 0, "gpu1": 0}

    async def one(client, i):
        session, leaves = i % 8, i % 4 == 3
        body = {**chat(session, True), "max_tokens": 5000 if leaves else 40, "test_gap_ms": 2}
        async with client.post("/v1/chat/completions", json=body,
                               headers=fields(session)) as answer:
            server = answer.headers["x-sim-server"]
            owners.saw(session, server)
            data = b""
            async for part in answer.content.iter_any():
                data += part
                if leaves and data.count(b"data: ") > 10:
                    left[server] += 1
                    answer.close()
                    return
        assert data.endswith(b"data: [DONE]\n\n")
        assert data.count(b'"content"') >= 40

    async def run():
        async with aiohttp.ClientSession(kvpin.url, connector=aiohttp.TCPConnector(limit=0),
                                         timeout=aiohttp.ClientTimeout(90)) as client:
            await asyncio.gather(*[one(client, i) for i in range(32)])

    asyncio.run(run())
    owners.all_seen()
    for server, count in zip(pair, before):
        server.wait_aborts(count + left[server.name])


@pytest.mark.parametrize("kind", KINDS)
def test_aiohttp_echo_answers_while_the_upload_still_runs(start, servers, kind):
    """Each part is sent only when the one before has come back."""
    kvpin = start.kvpin(servers(kind))

    async def run():
        back = asyncio.Semaphore(1)

        async def parts():
            for i in range(30):
                await back.acquire()
                yield pattern(1000, i)

        async with aiohttp.ClientSession(kvpin.url) as client:
            async with client.post("/echo", data=parts(), expect100=False) as answer:
                for i in range(30):
                    got = await asyncio.wait_for(answer.content.readexactly(1000), 20)
                    assert got == pattern(1000, i)
                    back.release()
                assert await asyncio.wait_for(answer.content.read(), 20) == b""

    asyncio.run(run())
