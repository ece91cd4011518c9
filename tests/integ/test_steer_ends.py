# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""FIN and RST of either side while the kernel carries the connection, with and without bytes that
are still queued: each side sees exactly what the other did."""
import json
import random
import threading
import time

import pytest

from harness import Client
from rawserver import chunked, pattern, reply
from steer_help import (CHUNKED, ENTERS_AFTER, Script, request, small_client, steered_client,
                        wait_until)

pytestmark = pytest.mark.steer_only


def stream_until(script, conn, got):
    """Chunks of 4 KB until the client is gone or the test says so; `seen` notes the end."""
    conn.send(CHUNKED)
    conn.sock.setblocking(False)
    at, data = 0, b"1000\r\n" + b"x" * 4096 + b"\r\n"
    while not script.go.is_set():
        try:
            at = (at + conn.sock.send(data[at:])) % len(data)
        except BlockingIOError:
            pass
        except OSError:
            script.seen.append(("rst", time.monotonic()))
            break
        try:
            if conn.sock.recv(1) == b"":
                script.seen.append(("fin", time.monotonic()))
                break
        except BlockingIOError:
            pass
        except OSError:
            script.seen.append(("rst", time.monotonic()))
            break
        time.sleep(0.001)
    script.done.set()
    conn.close()


def leaving(script, leave):
    """Seconds until the server sees the client leave. Of some tries most are told: the machine may
    stand still in one."""
    script.done.clear()
    script.seen.clear()
    since = time.monotonic()
    leave()
    assert script.done.wait(5)
    return script.seen[0][1] - since


def slow_or_fast(start, steer, slow):
    client = small_client(start, steer) if slow else None
    return steered_client(start, steer, "s", client=client)


# ---- the client ends


@pytest.mark.parametrize("slow", [False, True], ids=["reads", "stalls"])
def test_a_client_that_resets_in_mid_answer_is_seen_by_the_server_at_once(start, kernel, slow):
    script, took = Script(stream_until), []
    steer = kernel([start.raw(script)], "--workers", "1")
    for turn in range(3):
        client = slow_or_fast(start, steer, slow)
        client.send(request("/stream", "s"))
        assert client.head()[0] == 200
        if slow:
            wait_until(lambda: steer.gates().get("budget", 0) > turn)
        else:
            for _ in range(20):
                client.until(b"\r\n")
                client.exactly(4098)
        took.append(leaving(script, client.reset))
        steer.wait_idle()
    assert sorted(took)[1] < 0.1, took
    if not slow:
        assert steer.total("bytes_down") > 50000


@pytest.mark.parametrize("how", ["close", "half-close"])
def test_a_clients_fin_in_mid_answer_reaches_the_server_at_once(start, kernel, how):
    script, took = Script(stream_until), []
    steer = kernel([start.raw(script)], "--workers", "1")
    for _ in range(3):
        client, before = steered_client(start, steer, "s"), steer.total("bytes_down")
        client.send(request("/stream", "s"))
        assert client.head()[0] == 200
        client.until(b"\r\n")
        client.exactly(4098)
        wait_until(lambda: steer.total("bytes_down") > before + 4096)
        took.append(leaving(script, client.close if how == "close" else client.half_close))
        if how == "half-close":  # its server ended the answer without an end
            assert client.ended() == "rst"
            client.close()
        steer.wait_idle()
    assert sorted(took)[1] < 0.1, took


@pytest.mark.parametrize("parts", [1, 200])
def test_a_half_closed_client_gets_the_rest_of_its_answer(start, kernel, parts):
    def then(script, conn, got):
        conn.send(CHUNKED)
        for i in range(parts):
            conn.send(b"3\r\n%03d\r\n" % i)
            if i == parts // 2:
                script.go.wait(5)
        if not conn.more():
            script.seen.append("fin")
        conn.send(b"0\r\n\r\n")

    script = Script(then)
    steer = kernel([start.raw(script)], "--workers", "1")
    client = steered_client(start, steer, "s")
    client.send(request("/stream", "s"))
    assert client.head()[0] == 200
    client.half_close()
    time.sleep(0.02)
    script.go.set()
    assert b"".join(client.chunks()) == b"".join(b"%03d" % i for i in range(parts))
    assert client.ended() == "fin" and script.seen == ["fin"]
    client.close()
    steer.wait_idle()


def test_a_request_and_a_fin_at_once_are_answered(start, kernel):
    steer = kernel(start.sims(1, "llama"), "--workers", "1")
    for i in range(30):
        client = steered_client(start, steer, "s")
        client.send(request(f"/bytes/20000?seed={i}", "s"))
        client.half_close()
        assert client.answer()[2] == pattern(20000, i)
        assert client.ended() == "fin"
        client.close()
        wait_until(lambda: steer.kvpin.status()["connections"] == 0)
    steer.wait_idle()


def test_a_client_that_leaves_while_its_request_is_pending_frees_the_server(start, kernel):
    sims = start.sims(1, "uvicorn")
    steer = kernel(sims, "--workers", "1")
    for i in range(20):
        client = steered_client(start, steer, "s")
        with_hold = steer.total()
        client.send(request("/hang", "s"))
        wait_until(lambda: steer.inflight() == 1)
        assert steer.total() == with_hold
        client.reset() if i % 2 else client.close()
        wait_until(lambda: steer.inflight() == 0)
    sims[0].wait_aborts(20)
    steer.wait_idle()


def test_a_last_answer_that_is_steered_ends_the_connection_at_once(start, kernel):
    """The kernel tells the daemon when it is complete."""
    def then(script, conn, got):
        conn.send(CHUNKED)
        for i in range(10):
            conn.send(b"3\r\n%03d\r\n" % i)
            time.sleep(0.0005)
        conn.send(b"0\r\n\r\n")

    steer = kernel([start.raw(Script(then))], "--workers", "1")
    for _ in range(200):
        client = Client(steer.kvpin.addr)
        client.send(request("/stream", "s", "Connection: close"))
        assert client.answer()[2] == b"".join(b"%03d" % i for i in range(10))
        assert client.ended(1) == "fin"
        client.close()
    assert steer.total() > 100  # its last segments at least
    steer.wait_idle()


# ---- the server ends


TRUNCATED = {
    "chunk": CHUNKED + b"5\r\nabcde\r\n5\r\nab",
    "size": CHUNKED + b"5\r\nabcde\r\n5",
    "no-end": CHUNKED + b"5\r\nabcde\r\n",
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabcde",
}


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("kind", list(TRUNCATED))
def test_an_answer_that_breaks_off_never_ends_cleanly(start, kernel, kind, how):
    def then(script, conn, got):
        conn.send(TRUNCATED[kind])
        script.go.wait(5)
        conn.reset() if how == "rst" else conn.close()

    script = Script(then)
    steer = kernel([start.raw(script)], "--workers", "1")
    for _ in range(5):
        script.go.clear()
        client = steered_client(start, steer, "s")
        client.send(request("/cut", "s"))
        while len(client.buf) < len(TRUNCATED[kind]):
            assert client.more()
        assert steer.armed() == 1
        script.go.set()
        assert client.ended() == "rst"
        assert client.buf == TRUNCATED[kind]
        client.close()
        steer.wait_idle()
    assert steer.total("bytes_down") == 5 * len(TRUNCATED[kind])


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_an_answer_that_breaks_off_behind_a_queue_arrives_as_far_as_it_came(start, kernel, how):
    size = 6000000

    def then(script, conn, got):
        conn.send(CHUNKED)
        for at in range(0, size, 30000):
            conn.send(b"%x\r\n%s\r\n" % (30000, pattern(30000, at)))
        script.done.set()
        script.go.wait(5)
        conn.reset() if how == "rst" else conn.close()

    script = Script(then)
    steer = kernel([start.raw(script)], "--workers", "1", "--steer-budget", "8MB")
    client = slow_or_fast(start, steer, True)
    client.send(request("/cut", "s"))
    assert script.done.wait(5)
    wait_until(lambda: steer.total("bytes_down") > size)
    assert steer.armed() == 1
    script.go.set()
    time.sleep(0.05)
    got, ended = [], None
    try:
        client.head()
        for part in client.chunks():
            got.append(part)
    except EOFError:
        ended = "fin"
    except ConnectionResetError:
        ended = "rst"
    assert ended == "rst"
    got = b"".join(got)
    assert got == b"".join(pattern(30000, at) for at in range(0, size, 30000))[:len(got)]
    assert how == "rst" or len(got) == size
    client.close()
    steer.wait_idle()


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_servers_end_behind_a_whole_answer_leaves_the_client_alone(start, kernel, framing, how):
    def then(script, conn, got):
        conn.send(reply(b"last") if framing == "length" else CHUNKED + chunked(b"la", b"st"))
        if how == "rst":  # not before its bytes were taken
            script.go.wait(5)
            script.go.clear()
            conn.reset()
        else:
            conn.close()

    raw = start.raw(script := Script(then))
    steer = kernel([raw], "--workers", "1")
    client = steered_client(start, steer, "s")
    for i in range(20):
        client.send(request("/json", "s"))
        assert client.answer()[2] == b"raw0"
        steer.wait_armed()
        client.send(request("/last", "s"))
        assert client.answer()[2] == b"last"
        if how == "rst":
            script.go.set()
            time.sleep(0.03)
    assert raw.connections == 20 and len(raw.requests) == 40 + ENTERS_AFTER
    assert steer.total() >= 15
    assert sum(row["inflight"] for row in steer.kvpin.status("backends")["backends"]) == 0


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_an_answer_that_the_servers_end_ends(start, kernel, how):
    def then(script, conn, got):
        conn.send("HTTP/1.1 200 OK\r\n\r\n")
        for i in range(100):
            conn.send(b"%03d" % i)
        if how == "rst":
            script.go.wait(5)
            conn.reset()
        else:
            conn.close()

    script = Script(then)
    steer = kernel([start.raw(script)], "--workers", "1")
    client = steered_client(start, steer, "s")
    client.send(request("/until-close", "s"))
    assert client.head()[0] == 200
    assert client.exactly(300) == b"".join(b"%03d" % i for i in range(100))
    script.go.set()
    assert client.ended() == how and not client.buf
    assert steer.refusals()["answer_closes"] == 1


def test_an_answer_with_connection_close_leaves_the_client_alone(start, kernel):
    def then(script, conn, got):
        conn.send(reply(b"bye", "200 OK", "Connection: close"))
        conn.close()

    raw = start.raw(Script(then))
    steer = kernel([raw], "--workers", "1")
    client = steered_client(start, steer, "s")
    for _ in range(5):
        client.send(request("/json", "s"))
        assert client.answer()[2] == b"raw0"
        steer.wait_armed()
        client.send(request("/bye", "s"))
        status, fields, body = client.answer()
        assert (status, body) == (200, b"bye") and "connection" not in fields
    assert steer.refusals()["answer_closes"] == 5 and raw.connections == 5


def test_bytes_behind_an_answer_are_nobodys(start, kernel):
    def then(script, conn, got):
        conn.send(reply(b"good") + reply(b"evil"))
        conn.more()

    raw = start.raw(Script(then))
    steer = kernel([raw], "--workers", "1")
    client = steered_client(start, steer, "s")
    client.send(request("/two", "s"))
    assert client.answer()[2] == b"good"
    client.send(request("/json", "s"))
    assert client.answer()[2] == b"raw0"
    assert steer.refusals()["bytes_behind_answer"] == 1 and raw.connections == 2


# ---- the server closes as the request comes

# The body of a request that just fits a hold buffer.
FULL = 32768 - len(request("/r", "s", body=b"x" * 32000, method="POST")) + 32000


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("size", [0, 1000, 32000, FULL])
def test_a_connection_lost_under_a_steered_request_costs_nothing(start, kernel, size, how):
    """The copy in the kernel is sent again."""
    def script(conn):
        for _ in range(3):
            if not conn.read():
                return
            conn.send(reply(conn.server.name.encode()))
        if conn.more() and how == "rst":
            conn.reset()

    raw = start.raw(script)
    steer = kernel([raw], "--workers", "1")
    client = start.client(steer.kvpin)
    pick, bodies = random.Random(size), []
    for turn in range(31):
        bodies.append(pick.randbytes(size))
        data = request("/r", "s", body=bodies[-1], method="POST")
        assert size != FULL or len(data) == 32768
        client.send(data)
        assert client.answer()[2] == b"raw0"
        if turn + 1 >= ENTERS_AFTER:
            steer.wait_armed()
    assert [r.body for r in raw.requests] == bodies
    # Requests 4, 7, ... died with their connection: a refused one goes up, a held one again.
    assert raw.connections == 11
    assert steer.kvpin.metrics()['kvpin_resends_total{backend="raw0"}'] == 10
    assert steer.refusals() == {}
    assert steer.total() == 21 - ENTERS_AFTER
    client.close()
    steer.wait_idle()
    assert len(set(steer.free_holds())) == 256


def test_a_request_too_large_to_be_held_goes_up(start, kernel):
    raw = start.raw()
    steer = kernel([raw], "--workers", "1")
    client = steered_client(start, steer, "s", path="/")
    with steer.steers(1, {"request_large": 2}):
        for size in (32768, 300000, 1000):
            client.send(request("/", "s", body=b"x" * size))
            assert client.answer()[2] == b"raw0"
            steer.wait_armed()


def test_a_server_that_closes_after_each_stream_never_shows(start, kernel):
    sims = start.sims(2, "llama")
    steer = kernel(sims, "--workers", "2")
    problems = []

    def run(index):
        client = Client(steer.kvpin.addr)
        try:
            for turn in range(40):
                body = json.dumps({"messages": [{"role": "user", "content": f"{index} {turn}"}],
                                   "stream": True, "max_tokens": 5}).encode()
                client.send(request("/v1/chat/completions", f"s{(index + turn) % 8}",
                                    "Content-Type: application/json", body=body))
                status, _, text = client.answer()
                if status != 200 or not text.endswith(b"data: [DONE]\n\n"):
                    problems.append((index, turn, status, text[-100:]))
        except (OSError, EOFError) as error:
            problems.append((index, turn, repr(error)))
        client.close()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert problems == []
    assert sum(sim.get("/stats")["model_requests"] for sim in sims) == 240
    steer.wait_idle()
