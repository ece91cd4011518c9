# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Servers that refuse, reset, vanish, hang and come back: who is asked next, and who never twice."""
import json
import os
import resource
import socket
import threading
import time

import pytest
import xxhash

from harness import NO_CHECKS, Client, taken, wait_until
from rawserver import chunked, pattern, reply

CHECKS = ("--health-interval", "200ms", "--health-timeout", "200ms")


def dead_address():
    """A loopback address where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return "127.0.0.1:%d" % sock.getsockname()[1]


def wait_state(kvpin, name, state, timeout=5.0):
    wait_until(lambda: {b["name"]: b["state"] for b in
                        kvpin.status("backends")["backends"]}[name] == state, timeout)


def server_of(client, session):
    status, fields, _ = client.request("GET", "/json", {"x-sim-verify": "1",
                                                        "X-Session-Id": session})
    assert status == 200
    return fields["x-sim-server"]


def test_a_host_out_of_descriptors_takes_no_server_down(start):
    """What kvpin itself lacks says nothing of the servers: their sessions stay where they are."""
    kvpin = start.kvpin(start.sims(2), *NO_CHECKS)
    old, new = start.client(kvpin), start.client(kvpin)
    home = server_of(old, "a")
    server_of(new, "b")  # both connections have been accepted
    limits = resource.prlimit(kvpin.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(kvpin.pid, resource.RLIMIT_NOFILE, (3, limits[1]))  # no descriptor is free
    for session in ("c", "d", "e"):
        status, fields, body = new.request("GET", "/json", {"X-Session-Id": session})
        if status == 200:  # over the connection that it has
            continue
        assert (status, fields["retry-after"]) == (503, "1")
        assert json.loads(body)["error"]["code"] == "out_of_connections"
    assert kvpin.output().count('msg="cannot connect to servers"') >= 1
    resource.prlimit(kvpin.pid, resource.RLIMIT_NOFILE, limits)
    assert {b["state"] for b in kvpin.status("backends")["backends"]} == {"up"}
    assert "backend down" not in kvpin.output()
    assert server_of(start.client(kvpin), "a") == home
    assert server_of(new, "f") in ("gpu0", "gpu1")
    moves = {v for k, v in kvpin.metrics().items() if k.startswith("kvpin_session_moves_total")}
    assert moves == {0}


def test_checks_that_a_host_cannot_make_take_no_server_down(start):
    kvpin = start.kvpin(start.sims(2), "--health-interval", "500ms", "--health-timeout",
                        "500ms")
    client = start.client(kvpin)
    home = server_of(client, "a")
    limits = resource.prlimit(kvpin.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(kvpin.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    kvpin.wait_line(r'msg="(cannot check servers|backend down)"')
    resource.prlimit(kvpin.pid, resource.RLIMIT_NOFILE, limits)
    assert "backend down" not in kvpin.output()
    assert server_of(client, "a") == home


def fail_with(how, after=0):
    """A script: `after` good answers in all, then every request fails so before a first byte."""
    def script(conn):
        while conn.read():
            if len(conn.server.requests) <= after:
                conn.send(reply(conn.server.name.encode()))
                continue
            if how == "rst":
                conn.reset()
            return
    return script


# ---- before the first byte


def test_a_refused_connection_goes_to_another_server_and_the_client_never_notices(start):
    sim = start.sim("good")
    kvpin = start.kvpin([f"dead={dead_address()}", sim], *NO_CHECKS)
    client = start.client(kvpin)
    assert {server_of(client, f"s{i}") for i in range(20)} == {"good"}
    rows = kvpin.wait_requests(20)
    assert sorted(int(row["attempts"]) for row in rows)[-1] == 2  # tried once, then down
    assert [int(row["attempts"]) for row in rows].count(2) == 1
    assert "backend down" in kvpin.output()


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_a_fresh_connection_lost_before_the_first_byte_goes_to_another_server(start, how):
    bad = start.raw(fail_with(how), "bad")
    good = start.raw(name="good")
    kvpin = start.kvpin([bad, good], *NO_CHECKS)
    body = os.urandom(200000)
    for i in range(8):
        status, _, text = start.client(kvpin).request("POST", "/", {"X-Session-Id": f"s{i}"}, body)
        assert (status, text) == (200, b"good")
    assert len(good.requests) == 8
    assert {xxhash.xxh64(r.body).hexdigest() for r in good.requests} == {
        xxhash.xxh64(body).hexdigest()}
    # Three in a row (health.fall) took it down; not one request was sent to it twice.
    assert 1 <= len(bad.requests) <= 3
    assert len(bad.requests) == bad.connections


@pytest.mark.parametrize("how", ["rst", "fin"])
@pytest.mark.parametrize("size", [0, 10, 200000])
def test_a_reused_connection_lost_before_the_first_byte_is_tried_anew_at_the_same_server(
        start, how, size):
    def script(conn):
        """Closes on the second request of every connection."""
        conn.read()
        conn.send(reply(conn.server.name.encode()))
        if conn.read() and how == "rst":
            conn.reset()

    raws = [start.raw(script, f"raw{i}") for i in range(2)]
    kvpin = start.kvpin(raws, *NO_CHECKS)
    client = start.client(kvpin)
    body = os.urandom(size)
    owners = {client.request("POST", "/", {"X-Session-Id": "s"}, body)[2] for _ in range(10)}
    assert len(owners) == 1
    used = [raw for raw in raws if raw.requests]
    assert len(used) == 1
    assert len(used[0].requests) == 19 and used[0].connections == 10
    assert all(r.body == body for r in used[0].requests)
    assert sum(kvpin.metrics()[f'kvpin_session_moves_total{{reason="{why}"}}']
               for why in ("moved_failed", "moved_down", "moved_removed")) == 0
    assert kvpin.metrics()[f'kvpin_resends_total{{backend="{used[0].name}"}}'] == 9


def test_a_server_that_closes_after_every_answer_never_shows(start):
    """llama-server's streams: nginx fails 130 of these 144."""
    sims = start.sims(2)
    kvpin = start.kvpin(sims)
    clients = [start.client(kvpin) for _ in range(4)]
    for turn in range(36):
        for i, client in enumerate(clients):
            body = json.dumps({"messages": [{"role": "user", "content": f"{i} {turn}"}],
                               "stream": True, "max_tokens": 5}).encode()
            status, _, text = client.request("POST", "/v1/chat/completions",
                                             {"X-Session-Id": f"s{(i + turn) % 8}",
                                              "Content-Type": "application/json"}, body)
            assert status == 200 and text.endswith(b"data: [DONE]\n\n")
    assert [row["outcome"] for row in kvpin.wait_requests(144)] == ["ok"] * 144
    assert sum(sim.get("/stats")["model_requests"] for sim in sims) == 144


def test_servers_that_reset_some_connections_at_accept_cost_no_client_an_error(start):
    kvpin = start.kvpin([start.sim("gpu0", fail_accept_rst_every=3), start.sim("gpu1")], *NO_CHECKS)
    for i in range(60):
        assert start.client(kvpin).request("POST", "/sink", {"X-Session-Id": f"s{i}"},
                                           b"x" * 1000)[0] == 200
    assert {row["outcome"] for row in kvpin.wait_requests(60)} == {"ok"}


def test_at_most_three_servers_are_tried_for_one_request(start):
    raws = [start.raw(fail_with("rst"), f"raw{i}") for i in range(5)]
    kvpin = start.kvpin(raws, *NO_CHECKS)
    client = start.client(kvpin)
    status, fields, body = client.request("POST", "/", {"X-Session-Id": "s"}, b"hello")
    assert status == 502
    assert json.loads(body)["error"]["code"] == "server_unreachable"
    assert "connection" not in fields
    assert sorted(len(raw.requests) for raw in raws) == [0, 0, 1, 1, 1]


# ---- after the first byte


@pytest.mark.parametrize("first", [b"H", b"HTTP/1.1 200 OK\r\nConte",
                                   b"HTTP/1.1 100 Continue\r\n\r\n",
                                   b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"])
@pytest.mark.parametrize("how", ["rst", "fin"])
def test_a_request_is_never_sent_again_once_a_byte_of_an_answer_came(start, first, how):
    def script(conn):
        while conn.read():
            if conn.server.connections == 1 and len(conn.server.requests) == 1:
                conn.send(reply(b"good"))
                continue
            conn.send(first)
            wait_until(lambda: taken(conn.sock))  # a RST may overtake what kvpin has not read
            if how == "rst":
                conn.reset()
            return

    raws = [start.raw(script, f"raw{i}") for i in range(2)]
    kvpin = start.kvpin(raws, *NO_CHECKS)
    client = start.client(kvpin)
    assert client.request("POST", "/", {"X-Session-Id": "s"}, b"hello")[2] == b"good"
    # Over the connection that was used before, then over a fresh one.
    for sent in (2, 3):
        status, _, body = client.request("POST", "/", {"X-Session-Id": "s"}, b"hello")
        assert status == 502
        assert json.loads(body)["error"]["type"] == "server_error"
        assert sorted(len(raw.requests) for raw in raws) == [0, sent]


def test_a_stream_that_broke_is_not_retried_elsewhere(start):
    sims = start.sims(2)
    kvpin = start.kvpin(sims)
    client = start.client(kvpin)
    owner = server_of(client, "s")
    client.send("GET /sse/10/1000/100?rst=3 HTTP/1.1\r\nHost: t\r\nX-Session-Id: s\r\n\r\n")
    assert client.ended() == "rst"
    assert sum(sim.get("/stats")["endpoints"].get("/sse/", 0) for sim in sims) == 1
    assert server_of(start.client(kvpin), "s") == owner


# ---- the hold


@pytest.mark.parametrize("framing", ["cl", "chunked"])
def test_a_body_beyond_the_hold_goes_on_a_fresh_connection_and_is_not_sent_again(start, framing):
    def script(conn):
        while (request := conn.request_head()):
            if request.target == "/small":
                conn.body_of(request)
                conn.send(reply(conn.server.name.encode()))
                continue
            assert request.target == "/large"
            conn.server.large.append(conn)
            conn.exactly(600000)
            if conn.server.lose:
                conn.reset()
                return
            conn.exactly(400000)
            if framing == "chunked":
                conn.until(b"0\r\n\r\n")
            conn.send(reply(b"got it"))

    raws = [start.raw(script, f"raw{i}") for i in range(2)]
    for raw in raws:
        raw.large, raw.lose = [], False
    kvpin = start.kvpin(raws, *NO_CHECKS)
    client = start.client(kvpin)
    name = client.request("POST", "/small", {"X-Session-Id": "s"}, b"x")[2].decode()
    owner, other = sorted(raws, key=lambda raw: raw.name != name)
    client.request("POST", "/small", {"X-Session-Id": "s"}, b"x")
    assert owner.connections == 1
    body = pattern(1000000)
    if framing == "chunked":
        message = (b"POST /large HTTP/1.1\r\nHost: t\r\nX-Session-Id: s\r\n"
                   b"Transfer-Encoding: chunked\r\n\r\n" + b"f4240\r\n" + body + b"\r\n0\r\n\r\n")
    else:
        message = (b"POST /large HTTP/1.1\r\nHost: t\r\nX-Session-Id: s\r\n"
                   b"Content-Length: 1000000\r\n\r\n" + body)
    client.send(message)
    assert client.answer("POST")[2] == b"got it"
    assert (owner.connections, other.connections) == (2, 0)
    owner.lose = True
    try:
        client.send(message)
    except OSError:
        pass
    status, fields, text = client.answer("POST")
    assert status == 502
    assert json.loads(text)["error"]["code"] == "server_lost"
    assert (len(owner.large), len(other.large)) == (2, 0)
    assert (owner.connections, other.connections) == (3, 0)
    assert fields.get("connection") in (None, "close")


def test_a_body_within_the_hold_goes_over_the_open_connection(start):
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS, "--limit-hold", "100KiB")
    client = start.client(kvpin)
    for size in (1, 90000, 5000):
        assert client.request("POST", "/", {}, pattern(size))[2] == b"raw0"
    assert raw.connections == 1
    assert client.request("POST", "/", {}, pattern(110000))[2] == b"raw0"
    assert raw.connections == 2
    assert [len(r.body) for r in raw.requests] == [1, 90000, 5000, 110000]


@pytest.mark.parametrize("hold", ["0B", "1KiB", "512KiB", "896KiB"])
def test_bodies_of_all_sizes_pass_whatever_the_hold(start, hold):
    """Also at the largest that the configuration allows."""
    def script(conn):
        while (request := conn.request_head()):
            time.sleep(0.05)  # no byte of an answer: kvpin holds what it can
            conn.body_of(request)
            conn.send(reply(xxhash.xxh64(request.body).hexdigest().encode()))

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS, "--limit-hold", hold)
    client = start.client(kvpin)
    for size in (0, 1, 500, 300000, 900000, 1040000, 1100000, 5000000):
        body = pattern(size)
        status, _, text = client.request("POST", "/", {} if size else {"Content-Length": "0"}, body)
        assert (status, text) == (200, xxhash.xxh64(body).hexdigest().encode()), size
    body = pattern(3000000)
    client.send(b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
                + chunked(*[body[i:i + 100000] for i in range(0, len(body), 100000)]))
    assert client.answer()[2] == xxhash.xxh64(body).hexdigest().encode()


# ---- a server that dies, and comes back


def test_only_the_sessions_of_a_killed_server_move_and_they_move_once(start):
    sims = start.sims(4, "uvicorn")
    kvpin = start.kvpin(sims, *CHECKS, "--workers", "2")
    sessions = [f"session-{i}" for i in range(50)]
    first = start.client(kvpin)
    before = {s: server_of(first, s) for s in sessions}
    victim = sims[1]
    assert 10 <= list(before.values()).count(victim.name) <= 15
    seen = {s: [] for s in sessions}
    problems = []
    stop = threading.Event()

    def traffic(mine):
        client = Client(kvpin.addr)
        while not stop.is_set():
            for session in mine:
                try:
                    status, fields, body = client.request(
                        "GET", "/json?size=3000", {"x-sim-verify": "1", "X-Session-Id": session})
                    seen[session].append(fields.get("x-sim-server", status))
                    if status != 200 or len(body) != 3000:
                        problems.append((session, status))
                except (OSError, EOFError) as error:  # cut within an answer
                    problems.append((session, repr(error)))
                    client.close()
                    client = Client(kvpin.addr)
        client.close()

    threads = [threading.Thread(target=traffic, args=(sessions[i::5],)) for i in range(5)]
    for thread in threads:
        thread.start()

    def asked(times):
        return all(len(servers) >= times for servers in seen.values())

    wait_until(lambda: asked(2), 60)
    victim.kill()
    victim.wait()
    wait_until(lambda again=max(map(len, seen.values())) + 2: asked(again), 60)
    stop.set()
    for thread in threads:
        thread.join(10)
    after = {}
    for session in sessions:
        servers = [s for i, s in enumerate(seen[session]) if i == 0 or s != seen[session][i - 1]]
        if before[session] != victim.name:
            assert servers == [before[session]], session
        else:
            assert servers[0] == victim.name and len(servers) == 2, (session, servers)
        after[session] = servers[-1]
    # Who was cut in the middle of an answer was on the killed server; five threads, one each.
    assert len(problems) <= 5
    assert {before[session] for session, _ in problems} <= {victim.name}
    moved = [after[s] for s in sessions if before[s] == victim.name]
    assert len(set(moved)) == 3, "the dead server's sessions spread over all others"
    client = start.client(kvpin)
    assert {s: server_of(client, s) for s in sessions} == after
    assert kvpin.metrics()['kvpin_sessions{backend="gpu1"}'] == 0

    # It comes back, on the same address: it takes new sessions only.
    start.sim("gpu1", "uvicorn", listen=victim.text)
    wait_state(kvpin, "gpu1", "up")
    assert {s: server_of(client, s) for s in sessions} == after
    fresh = [server_of(client, f"new-{i}") for i in range(10)]
    assert fresh.count("gpu1") == 10, "balanced: the emptiest server first"


@pytest.mark.slow
def test_without_checks_a_live_request_finds_out_that_a_server_is_back(start):
    sims = start.sims(2)
    kvpin = start.kvpin(sims, *NO_CHECKS)
    client = start.client(kvpin)
    before = {s: server_of(client, s) for s in "abcdef"}
    victim = sims[0]
    victim.kill()
    victim.wait()
    assert {server_of(client, s) for s in "abcdef"} == {"gpu1"}
    start.sim("gpu0", listen=victim.text)
    assert server_of(client, "early") == "gpu1"
    assert {b["name"]: b["state"] for b in
            kvpin.status("backends")["backends"]}["gpu0"] == "down"
    time.sleep(5.1)  # BACKEND_RETRY_MS
    assert server_of(client, "late") == "gpu0"
    assert {server_of(client, s) for s in "abcdef"} == {"gpu1"}
    assert set(before.values()) == {"gpu0", "gpu1"}


# ---- active checks


@pytest.mark.parametrize("health", ["503", "hang"])
def test_a_failing_health_check_takes_a_server_down_and_a_good_one_brings_it_back(start, health):
    sims = start.sims(2)
    kvpin = start.kvpin(sims, *CHECKS)
    client = start.client(kvpin)
    before = {s: server_of(client, s) for s in "abcdef"}
    assert set(before.values()) == {"gpu0", "gpu1"}
    sims[0].get("/control", json.dumps({"health": health}).encode())
    wait_state(kvpin, "gpu0", "down")
    assert {server_of(client, s) for s in "abcdef"} == {"gpu1"}
    row = [b for b in kvpin.status("backends")["backends"] if b["name"] == "gpu0"][0]
    assert row["cause"] == "check"
    sims[0].get("/control", json.dumps({"health": "ok"}).encode())
    wait_state(kvpin, "gpu0", "up")
    assert {server_of(client, s) for s in "abcdef"} == {"gpu1"}
    assert server_of(client, "new") == "gpu0"


def test_a_server_is_down_only_after_so_many_failures_and_up_after_so_many_successes(start):
    answers = []

    def script(conn):
        conn.read()
        status = answers.pop(0) if answers else "200 OK"
        conn.send(reply(b"", status))

    raw = start.raw(script)
    answers += ["200 OK", "500 No", "200 OK"] + ["503 No"] * 2 + ["200 OK", "500 No"]
    kvpin = start.kvpin([raw], "--health-interval", "400ms", "--health-timeout", "400ms",
                        "--health-rise", "2", "--health-fall", "2")
    wait_until(lambda: len(raw.requests) >= 10)
    states = [line for line in kvpin.output().splitlines() if 'msg="backend ' in line]
    assert len(states) == 2, states
    assert 'msg="backend down"' in states[0] and "status 503" in states[0]
    assert 'msg="backend up"' in states[1]
    assert {r.target for r in raw.requests} == {"/health"}


def test_a_server_that_is_loading_takes_nothing_until_it_is_ready(start):
    ready = start.sim("ready")
    loading = start.sim("loading", load_ms=2500)
    kvpin = start.kvpin([loading, ready], *CHECKS)
    wait_state(kvpin, "loading", "down")
    client = start.client(kvpin)
    assert {server_of(client, f"s{i}") for i in range(10)} == {"ready"}
    wait_state(kvpin, "loading", "up")
    assert server_of(client, "new") == "loading"
    assert {row["outcome"] for row in kvpin.wait_requests(11)} == {"ok"}


def test_a_slow_prefill_is_not_down(start):
    sims = [start.sim(f"gpu{i}", prefill_tps=100, slots=1) for i in range(2)]
    kvpin = start.kvpin(sims, "--health-interval", "300ms", "--health-timeout", "300ms")
    client = start.client(kvpin)
    body = json.dumps({"messages": [{"role": "user", "content": "word " * 100}],
                       "max_tokens": 2}).encode()
    began = time.monotonic()
    status, _, _ = client.request("POST", "/v1/chat/completions",
                                  {"X-Session-Id": "s", "Content-Type": "application/json"}, body)
    assert status == 200 and time.monotonic() - began > 0.7
    assert "backend down" not in kvpin.output()
    assert sum(sim.get("/stats")["model_requests"] for sim in sims) == 1


def test_no_server_is_a_503_that_says_when_to_come_back(start):
    kvpin = start.kvpin([f"a={dead_address()}", f"b={dead_address()}"], "--health-interval", "1s",
                        "--health-rise", "2")
    wait_state(kvpin, "a", "down")
    wait_state(kvpin, "b", "down")
    client = start.client(kvpin)
    for method in ("GET", "POST", "HEAD"):
        status, fields, body = client.request(method, "/v1/chat/completions",
                                              {"X-Session-Id": "s"},
                                              b"{}" if method == "POST" else b"")
        assert (status, fields["retry-after"]) == (503, "2")
        assert fields["content-type"] == "application/json"
        if method != "HEAD":
            assert json.loads(body)["error"] == {
                "message": "No model server is available.", "type": "server_error",
                "param": None, "code": "no_server"}
    assert {row["outcome"] for row in kvpin.wait_requests(3)} == {"no_server"}
    assert kvpin.metrics()[
        'kvpin_requests_total{backend="",path="relay",outcome="no_server"}'] == 3


def test_a_body_that_nobody_takes_is_not_misread_as_a_request(start):
    kvpin = start.kvpin([f"a={dead_address()}"])
    wait_state(kvpin, "a", "down")
    client = start.client(kvpin)
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n")
    status, fields, _ = client.answer()
    assert (status, fields["connection"]) == (503, "close")
    try:
        client.send("GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n")
    except OSError:
        pass
    assert client.ended() is not None
    assert client.buf == b""


# ---- agreement


def test_parallel_first_requests_of_one_session_agree(start):
    sims = start.sims(4, "uvicorn")
    kvpin = start.kvpin(sims, "--workers", "4")
    for round_nr in range(10):
        clients = [start.client(kvpin) for _ in range(50)]
        barrier = threading.Barrier(50)
        owners = []

        def ask(client):
            barrier.wait()
            owners.append(server_of(client, f"round-{round_nr}"))

        threads = [threading.Thread(target=ask, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(owners) == 50 and len(set(owners)) == 1
        for client in clients:
            client.close()
    spread = [b["sessions"] for b in kvpin.status("backends")["backends"]]
    assert sorted(spread) == [2, 2, 3, 3]


def test_parallel_first_requests_of_many_sessions_spread_evenly(start):
    sims = start.sims(4, "uvicorn")
    kvpin = start.kvpin(sims, "--workers", "4")
    clients = [start.client(kvpin) for _ in range(40)]
    barrier = threading.Barrier(40)

    def ask(i):
        barrier.wait()
        server_of(clients[i], f"session-{i}")

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [b["sessions"] for b in kvpin.status("backends")["backends"]] == [10] * 4


def test_parallel_requests_of_a_dead_servers_session_agree_on_the_next(start):
    sims = start.sims(4, "uvicorn")
    kvpin = start.kvpin(sims, *NO_CHECKS, "--workers", "4")
    owner = server_of(start.client(kvpin), "s")
    victim = next(sim for sim in sims if sim.name == owner)
    victim.kill()
    victim.wait()
    clients = [start.client(kvpin) for _ in range(30)]
    barrier = threading.Barrier(30)
    owners = []

    def ask(client):
        barrier.wait()
        owners.append(server_of(client, "s"))

    threads = [threading.Thread(target=ask, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(owners) == 30 and len(set(owners)) == 1 and owners[0] != owner
