# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The steer path with real traffic: what the kernel carries, what it passes up and why, and that
not one byte is lost, doubled or at the wrong server on the way between the two."""
import random
import threading
import time

import pytest

from harness import Client, checksum, pattern
from rawserver import chunked, reply
from steer_help import (ENTERS_AFTER, REDIRECT, VERIFY, answer_of, frozen, owners, request, small_client,
                        steered_client, switches, wait_until)
from test_load import load

pytestmark = pytest.mark.steer_only


# ---- the common case


def test_a_second_request_is_steered_and_the_daemon_sleeps(start, kernel):
    steer = kernel(start.sims(1, "uvicorn"), "--workers", "1")
    client = steered_client(start, steer, "s")
    woken, cpu, begin = switches(steer.kvpin), steer.kvpin.cpu_seconds(), time.monotonic()
    with steer.steers(1000):
        for _ in range(1000):
            client.send(request("/json", "s"))
            assert client.answer()[0] == 200
    took = time.monotonic() - begin
    # Its timers go on: the scan for lost events, the daemon's tick.
    assert switches(steer.kvpin) - woken < 60 + 20 * took
    assert steer.kvpin.cpu_seconds() - cpu <= 0.02 + 0.005 * took
    row = steer.kvpin.status("backends")["backends"][0]
    assert (row["requests_relay"], row["requests_steer"], row["inflight"]) == (ENTERS_AFTER, 1000, 0)


def test_a_connection_that_asks_once_enters_no_map(start, kernel):
    steer = kernel(start.sims(1, "uvicorn"), "--workers", "1")
    clients = [start.client(steer.kvpin) for _ in range(5)]
    for client in clients:
        client.send(request("/json", "s", VERIFY))
        answer_of(client, "gpu0")
    for _ in range(ENTERS_AFTER - 1):  # the last to be looked at: the one worker is done with all
        clients[0].send(request("/json", "s", VERIFY))
        answer_of(clients[0], "gpu0")
    steer.wait_armed()
    assert len(steer.dump("cookies")) == 2  # its own and its server's
    assert len(steer.words()) == 1
    assert steer.gates() == {}


def test_sessions_of_one_connection_alternate_between_servers(start, kernel):
    sims = start.sims(4, "uvicorn")
    steer = kernel(sims)
    client, names = owners(start, steer, sims, 8)
    before = {sim.name: sim.get("/stats")["sessions"] for sim in sims}
    pick = random.Random(1)
    sent = {name: 0 for name in names}
    with steer.steers(800):
        for turn in range(800):
            session = f"s{(turn * 3 + pick.randrange(2)) % 8}"
            sent[session] += 1
            body = pick.randbytes(pick.randrange(20000)) if turn % 3 else b""
            path = "/sink" if body else "/json"
            client.send(request(path, session, VERIFY, body=body))
            answer_of(client, names[session], body)
    for sim in sims:
        seen = sim.get("/stats")["sessions"]
        assert set(seen) == {s for s, name in names.items() if name == sim.name}
        assert {s: n - before[sim.name][s] for s, n in seen.items()} == {
            s: sent[s] for s in seen}
    assert {name: n for name, n in ((k, v["requests"]) for k, v in steer.counters().items())} == {
        sim.name: sum(sent[s] for s, n in names.items() if n == sim.name) for sim in sims}
    # Turns were counted by both: the daemon placed, the kernel went on.
    assert sum(turns for _, turns, _ in steer.sessions().values()) == 812


def test_answers_of_every_framing_are_steered_whole(start, kernel):
    steer = kernel(start.sims(1, "uvicorn"))
    client = steered_client(start, steer, "s")
    paths = [f"/bytes/{n}?seed={n}&manner={manner}&chunk={chunk}"
             for n in (0, 1, 5000, 200000) for manner, chunk in
             (("cl", 65536), ("chunked", 4096), ("chunked", 60000), ("chunked", 999))]
    for path in paths:
        if path.startswith("/bytes/0?") and "chunked" not in path:
            continue
        n = int(path.split("/")[2].split("?")[0])
        client.send(request(path, "s"))
        status, _, body = client.answer()
        assert (status, checksum(body)) == (200, checksum(pattern(n, n)))
        steer.wait_armed()
    client.send(request("/bytes/3000", "s", method="HEAD"))
    assert client.answer("HEAD")[0] == 200
    client.send(request("/status/204", "s"))
    assert client.answer()[0] == 204
    client.send(request("/sse/50/0/100", "s"))
    assert client.answer()[2].count(b"data:") >= 50
    assert steer.total() >= len(paths) - 4 and steer.total("bytes_down") > 400000


@pytest.mark.slow
@pytest.mark.parametrize("connections", [1, 12])
def test_interleaved_sessions_over_4_servers_never_meet_the_wrong_one(start, kernel, connections):
    """100,000 in both cases together."""
    sims = start.sims(4, "uvicorn")
    steer = kernel(sims, "--workers", "1" if connections == 1 else "2")
    count = 50000
    report = load(steer.kvpin, "requests", "-c", connections, "-n", count, "--sessions", 200,
                  "--body-bytes", "0:2000")
    assert report["ok"] == count
    assert (report["errors"]["wrong-server"], report["errors"]["body-mismatch"]) == (0, 0)
    assert sum(report["servers"].values()) == count and len(report["servers"]) == 4
    steer.wait_idle()
    print("steered", steer.total() / count, steer.gates())
    assert steer.total() > 0.95 * count, steer.gates()
    seen = [set(sim.get("/stats")["sessions"]) for sim in sims]
    assert sum(len(s) for s in seen) == len(set.union(*seen)) == 200


# ---- back and forth between the kernel and the relay


PASSED = [  # what is passed up, and why
    ("no_session_key", lambda s: request("/json", None, VERIFY)),
    ("hop_by_hop", lambda s: request("/json", s, VERIFY, "TE: trailers")),
    ("hop_by_hop", lambda s: request("/json", s, VERIFY, "Keep-Alive: timeout=5")),
    ("session_key", lambda s: request("/json", s, VERIFY, f"X-Session-Id: {s}")),
]


@pytest.mark.parametrize("why,make", PASSED, ids=["keyless", "te", "keep-alive", "repeated"])
def test_what_the_kernel_cannot_do_goes_up_with_its_reason_and_comes_back(start, kernel, why, make):
    sims = start.sims(2, "uvicorn")
    steer = kernel(sims)
    client, names = owners(start, steer, sims, 2)
    with steer.steers(20, {why: 20}):
        for turn in range(20):
            session = f"s{turn % 2}"
            client.send(make(session))
            status, fields, _ = client.answer()
            assert status == 200 and (why == "no_session_key" or
                                      fields["x-sim-server"] == names[session])
            steer.wait_armed()
            client.send(request("/json", session, VERIFY))
            answer_of(client, names[session])


def flip(steer, index, until, problems):
    """Steered and passed-up requests in turn, streams among them, until the kernel has passed up
    that many."""
    pick, client, owner = random.Random(index), Client(steer.kvpin.addr), None
    session = f"s{index}"
    try:
        for turn in range(100000):
            if turn % 50 == 0 and until():
                return
            way = pick.randrange(6)
            if way == 0:
                n = pick.randrange(1, 30000)
                client.send(request(f"/bytes/{n}?seed={turn}&manner=chunked&chunk=3000", session))
                assert client.answer()[2] == pattern(n, turn)
            elif way == 1:
                client.send(request("/sse/5/0/60", session))
                assert client.answer()[2].count(b"data:") >= 5
            else:
                body = pick.randbytes(pick.randrange(1, 3000)) if way == 2 else b""
                client.send(request("/sink" if body else "/json", session, VERIFY, body=body))
                status, fields, _ = client.answer()
                owner = owner or fields["x-sim-server"]
                assert (status, fields["x-sim-server"]) == (200, owner)
                assert fields["x-sim-body"] == checksum(body)
            client.send(PASSED[turn % len(PASSED)][1](session))
            status, fields, _ = client.answer()
            assert status == 200
            assert PASSED[turn % len(PASSED)][0] == "no_session_key" or not owner or \
                fields["x-sim-server"] == owner
    except BaseException as error:  # pylint: disable=broad-except
        problems.append((index, turn, repr(error)))
    finally:
        client.close()


def flips(start, kernel, count):
    sims = start.sims(2, "uvicorn")
    steer = kernel(sims, "--workers", "2")
    problems, ups, lock = [], [0, 0.0], threading.Lock()
    end = time.monotonic() + 90

    def enough():
        with lock:
            if time.monotonic() > ups[1] + 0.2:
                refused = steer.refusals()
                ups[:] = [sum(refused.get(why, 0) for why in {why for why, _ in PASSED}),
                          time.monotonic()]
            return ups[0] >= count or time.monotonic() > end

    threads = [threading.Thread(target=flip, args=(steer, i, enough, problems)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert problems == []
    assert ups[0] >= count, steer.gates()
    steer.wait_idle()
    status = steer.kvpin.status()
    assert status["path_taken_back"] >= count and status["path_handed_over"] >= count
    assert steer.total() >= count / 2
    assert set(steer.refusals()) <= {why for why, _ in PASSED} | {"no_pin", "no_upstream"}


def test_ten_thousand_flips_between_kernel_and_relay_lose_nothing(start, kernel):
    flips(start, kernel, 10000)


@pytest.mark.slow
def test_a_hundred_thousand_flips_between_kernel_and_relay_lose_nothing(start, kernel):
    flips(start, kernel, 100000)


# ---- bytes at the wrong moment


def test_bytes_that_came_before_the_accept_are_served(start, kernel):
    steer = kernel(start.sims(1, "uvicorn"), "--workers", "1")
    clients = []
    with frozen(steer.kvpin):
        for i in range(20):
            clients.append(start.client(steer.kvpin))
            clients[-1].send(request("/json", f"s{i}", VERIFY))
            if i % 2:
                clients[-1].send(request("/json", f"s{i}", VERIFY))
    for i, client in enumerate(clients):
        answer_of(client, "gpu0")
        if i % 2:
            answer_of(client, "gpu0")
        else:
            client.send(request("/json", f"s{i}", VERIFY))
            answer_of(client, "gpu0")
    with steer.steers(20):
        for i, client in enumerate(clients):
            steer.wait_armed(20)
            client.send(request("/json", f"s{i}", VERIFY))
            answer_of(client, "gpu0")


def test_a_first_byte_at_any_moment_around_the_insertion_is_served(start, kernel):
    """Between accept, insertion and the first recv() there are some 20 us."""
    steer = kernel(start.sims(1, "uvicorn"), "--workers", "1")
    body = bytes(range(256)) * 4
    data = request("/sink", "s", VERIFY, body=body)
    for i in range(400):
        client = Client(steer.kvpin.addr)
        end = time.perf_counter() + (i % 80) * 2e-6
        while time.perf_counter() < end:
            pass
        client.send(data[:i % len(data)])
        client.send(data[i % len(data):])
        answer_of(client, "gpu0", body)
        client.send(data)
        answer_of(client, "gpu0", body)
        client.close()


def split_everywhere(start, kernel, data, body):
    steer = kernel(start.sims(1, "uvicorn"), "--workers", "1")
    client = steered_client(start, steer, "s")
    for at in range(1, len(data)):
        ups = steer.kvpin.status()["path_taken_back"] if at % 16 == 1 else None
        client.send(data[:at])
        if at % 16 == 1:  # let the first part go up on its own
            wait_until(lambda: steer.kvpin.status()["path_taken_back"] > ups)
        else:
            wait_until(lambda: not steer.armed())
        client.send(data[at:])
        answer_of(client, "gpu0", body)
        steer.wait_armed()
        client.send(data)
        answer_of(client, "gpu0", body)
    assert steer.refusals() == {"request_split": len(data) - 1}
    assert steer.total() == len(data) - 1


def test_a_head_may_be_cut_at_every_byte(start, kernel):
    split_everywhere(start, kernel, request("/json", "s", VERIFY), b"")


def test_a_request_with_a_body_may_be_cut_at_every_byte(start, kernel):
    split_everywhere(start, kernel, request("/sink", "s", VERIFY, body=b"0123456789"),
                     b"0123456789")


def test_a_chunked_request_may_be_cut_at_every_byte(start, kernel):
    head = request("/sink", "s", VERIFY, "Transfer-Encoding: chunked", method="POST")
    split_everywhere(start, kernel, head + chunked(b"01234", b"56789"), b"0123456789")


def test_a_tail_and_the_next_head_may_share_a_segment(start, kernel):
    sims = start.sims(2, "uvicorn")
    steer = kernel(sims, "--workers", "1")
    client, names = owners(start, steer, sims, 2)
    first = request("/sink", "s0", VERIFY, body=b"abcdefgh")
    second = request("/sink", "s1", VERIFY, body=b"12345")
    for at in range(1, len(first), 5):
        client.send(first[:at])
        wait_until(lambda: not steer.armed())
        client.send(first[at:] + second)
        answer_of(client, names["s0"], b"abcdefgh")
        answer_of(client, names["s1"], b"12345")
        client.send(first)
        answer_of(client, names["s0"], b"abcdefgh")
        steer.wait_armed()
        client.send(second)
        answer_of(client, names["s1"], b"12345")
    assert steer.refusals()["request_split"] == len(range(1, len(first), 5))


def test_two_requests_in_one_segment_go_up_and_are_answered_in_order(start, kernel):
    sims = start.sims(2, "uvicorn")
    steer = kernel(sims, "--workers", "1")
    client, names = owners(start, steer, sims, 2)
    with steer.steers(10, {"two_requests": 10}):
        for _ in range(10):
            client.send(request("/bytes/5000?seed=1", "s0", VERIFY) +
                        request("/sink", "s1", VERIFY, body=b"x" * 700))
            assert answer_of(client, names["s0"]) == pattern(5000, 1)
            answer_of(client, names["s1"], b"x" * 700)
            steer.wait_armed()
            client.send(request("/json", "s0", VERIFY))
            answer_of(client, names["s0"])
            steer.wait_armed()


def test_a_request_during_a_steered_stream_waits_for_its_end(start, kernel):
    """Answers of two servers must not mix: the second request goes up, the first answer on."""
    go = threading.Event()

    def script(conn):
        while (got := conn.read()):
            if got.target != "/stream":
                conn.send(reply(conn.server.name.encode()))
                continue
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for i in range(30):
                if i == 10:
                    go.wait(5)
                conn.send(b"3\r\n%03d\r\n" % i)
            conn.send("0\r\n\r\n")

    raws = [start.raw(script, f"raw{i}") for i in range(2)]
    steer = kernel(raws, "--workers", "1")
    client = start.client(steer.kvpin)
    names = {}
    for session in "ab":
        client.send(request("/", session))
        names[session] = client.answer()[2].decode()
    assert names["a"] != names["b"]
    steer.wait_armed()
    client.send(request("/stream", "a"))
    assert client.head()[0] == 200
    parts = client.chunks()
    got = [next(parts) for _ in range(10)]
    assert steer.armed() == 1
    client.send(request("/second", "b"))
    wait_until(lambda: steer.refusals().get("pipelined") == 1)
    assert "/second" not in [r.target for raw in raws for r in raw.requests]
    go.set()
    got += list(parts)
    assert b"".join(got) == b"".join(b"%03d" % i for i in range(30))
    status, _, body = client.answer()
    assert (status, body.decode()) == (200, names["b"])
    assert [r.target for r in raws[0].requests + raws[1].requests].count("/second") == 1


@pytest.mark.parametrize("pieces", [1, 40])
def test_requests_behind_an_answer_that_is_not_read_are_kept(start, kernel, pieces):
    """LANE: the client's socket has a queue of its own, so its bytes go up through the ring. Of the
    answer TCP takes 4 MB at most, the rest is queued in front of it."""
    size = 7000000
    sims = start.sims(2, "uvicorn")
    steer = kernel(sims, "--workers", "1", "--steer-budget", "8MB")
    client = small_client(start, steer)
    names = {}
    for i in range(2):
        client.send(request("/json", f"s{i}", VERIFY))
        names[f"s{i}"] = client.answer()[1]["x-sim-server"]
    steer.wait_armed()
    client.send(request(f"/bytes/{size}?seed=3&manner=chunked&chunk=30000", "s0"))
    wait_until(lambda: steer.total("bytes_down") > size)
    body = bytes(range(250)) * 30
    data = request("/sink", "s1", VERIFY, body=body)
    step = len(data) // pieces + 1
    for at in range(0, len(data), step):
        client.send(data[at:at + step])
        time.sleep(0.002)
    wait_until(lambda: not any(word & REDIRECT for word in steer.words()))
    assert steer.refusals()["pipelined"] == 1
    assert client.answer()[2] == pattern(size, 3)
    answer_of(client, names["s1"], body)
    client.send(request("/json", "s0", VERIFY))
    answer_of(client, names["s0"])
    status, fields, _ = client.request("GET", "/json", {"X-Session-Id": "s1", "x-sim-verify": "1"})
    assert (status, fields["x-sim-server"]) == (200, names["s1"])


def test_segments_of_one_byte_both_ways(start, kernel):
    def script(conn):
        while (got := conn.read()):
            assert got.body == b"0123456789"
            for byte in reply(b"answer") if got.target == "/cl" else (
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" +
                    chunked(b"ans", b"wer")):
                conn.send(bytes([byte]))

    raw = start.raw(script)
    steer = kernel([raw], "--workers", "1")
    client = start.client(steer.kvpin)
    for turn in range(12):
        data = request(("/cl", "/chunked")[turn % 2], "s", body=b"0123456789")
        if turn % 3 == 1:
            for byte in data:
                client.send(bytes([byte]))
        else:
            client.send(data)
        assert client.answer()[2] == b"answer"
    assert len(raw.requests) == 12
    assert {"answer_split", "request_split"} <= set(steer.refusals())
