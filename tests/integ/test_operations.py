# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Running it: drain under traffic, metrics, the request log, the read commands."""
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
import xxhash

import harness
from harness import NO_CHECKS, Client, unacked, wait_until
from ops_help import OnlyMain, Stream, server_of
from rawserver import reply

REQUEST = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"


# ---- drain


def refused(addr):
    try:
        socket.create_connection(addr, 1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_sigterm_lets_streams_finish_and_refuses_new_connections(start):
    kvpin = start.kvpin(start.sims(2))
    idle = start.client(kvpin)
    idle.send(REQUEST.replace(b"/ ", b"/json "))
    idle.answer()
    streams = [Stream(start.client(kvpin), f"s{i}", 150) for i in range(5)]
    prefill = start.client(kvpin)
    prefill.send(REQUEST.replace(b"/ ", b"/slowhead?ms=1000 "))
    wait_until(lambda: kvpin.status()["connections"] == 7)
    kvpin.kill(signal.SIGTERM)
    assert idle.ended() == "fin"
    wait_until(lambda: refused(kvpin.addr))
    assert kvpin.exporter("/readyz") == (503, "draining\n")
    assert kvpin.status()["draining"] is True
    status, fields, body = prefill.answer()
    assert (status, fields["connection"], len(body)) == (200, "close", 300)
    assert prefill.ended() == "fin"
    for stream in streams:
        stream.join(5)
        assert stream.result == "whole"
        assert stream.client.ended() == "fin"
    assert kvpin.wait(5) == 0
    assert {r["outcome"] for r in kvpin.requests()} == {"ok"}


def test_the_drain_deadline_cuts_what_is_left_as_a_truncation_and_exits_with_0(start):
    kvpin = start.kvpin(start.sims(1), "--drain", "500ms")
    stream = Stream(start.client(kvpin), "s", 10000)
    tunnel = start.client(kvpin)
    tunnel.send("GET /upgrade HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\n"
                "Upgrade: sim-echo\r\n\r\n")
    assert tunnel.head()[0] == 101
    began = time.monotonic()
    kvpin.kill(signal.SIGTERM)
    assert kvpin.wait() == 0
    assert 0.45 < time.monotonic() - began < 5
    stream.join(2)
    assert "ConnectionResetError" in stream.result
    assert tunnel.ended(1) == "rst"
    assert sorted(r["outcome"] for r in kvpin.requests()) == ["shutdown"] * 2


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_at_once(start, first):
    kvpin = start.kvpin(start.sims(1))
    stream = Stream(start.client(kvpin), "s", 10000)
    kvpin.kill(first)
    time.sleep(0.3)
    assert kvpin.alive()
    kvpin.kill(signal.SIGTERM)
    assert kvpin.wait(5) == 0  # the stream would go on for 100 s, its drain for 30
    stream.join(2)
    assert "ConnectionResetError" in stream.result


@pytest.mark.parametrize("where", ["an open connection", "a new connection"])
def test_a_request_that_arrived_before_sigterm_is_answered(start, where):
    kvpin = start.kvpin([start.raw(lambda conn: conn.read() and conn.send(reply(b"served")))],
                        *NO_CHECKS, "--workers", "1")
    client = start.client(kvpin)
    if where == "an open connection":
        client.send(REQUEST)
        assert client.answer()[2] == b"served"
    kvpin.suspend()
    if where == "a new connection":
        client = start.client(kvpin)
    client.send(REQUEST)
    wait_until(lambda: unacked(client.sock) == 0)
    kvpin.kill(signal.SIGTERM)
    kvpin.kill(signal.SIGCONT)
    assert client.answer()[2] == b"served"
    assert client.ended() == "fin"
    assert kvpin.wait(5) == 0


def test_a_drain_waits_for_a_worker_that_stands_still(start):
    """It has a client in its listener's queue, and nobody counts that one yet."""
    kvpin = start.kvpin([start.raw()], *NO_CHECKS, "--workers", "1")
    with OnlyMain(kvpin) as main:
        client = start.client(kvpin)
        client.send(REQUEST)
        kvpin.kill(signal.SIGTERM)
        kvpin.wait_line("msg=draining")
        before = main.slept()
        wait_until(lambda: main.slept() > before + 5)
        assert "msg=drained" not in kvpin.output()
    assert client.answer()[2] == b"raw0"
    assert client.ended() == "fin"
    assert kvpin.wait(5) == 0


def test_no_answer_is_cut_by_a_drain_under_load(start):
    kvpin = start.kvpin(start.sims(2, "uvicorn"), "--workers", "2")
    results = []

    def traffic(n):
        client = Client(kvpin.addr)
        count = 0
        try:
            while True:
                client.send(f"GET /bytes/20000?seed={count} HTTP/1.1\r\nHost: t\r\n"
                            f"X-Session-Id: s{n}\r\n\r\n")
                if not client.more():
                    results.append("between")
                    break
                status, _, body = client.answer()
                assert (status, len(body)) == (200, 20000)
                count += 1
        except (ConnectionResetError, BrokenPipeError):
            results.append("cut" if client.buf else "between")
        except (EOFError, AssertionError) as error:
            results.append(repr(error))
        client.close()

    threads = [threading.Thread(target=traffic, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    kvpin.kill(signal.SIGTERM)
    for thread in threads:
        thread.join(10)
    assert results == ["between"] * 10
    assert kvpin.wait(5) == 0
    assert {r["outcome"] for r in kvpin.requests()} == {"ok"}


# ---- metrics


def test_metrics_are_what_promtool_wants_and_tell_what_happened(start):
    sims = start.sims(2, "uvicorn")
    kvpin = start.kvpin(sims, "--ttl", "1h")
    client = start.client(kvpin)
    for _ in range(3):
        for session in ("a", "b"):
            server_of(client, session)
    client.request("GET", "/json")
    client.request("GET", "/json", {"X-Session-Id": "k" * 300})
    client.request("GET", "/json", [("X-Session-Id", "a"), ("X-Session-Id", "b")])
    client.request("POST", "/sink", {"X-Session-Id": "a"}, b"x" * 5000)
    bad = start.client(kvpin)
    bad.send("GET / HTTP/1.1\r\nHost : t\r\n\r\n")
    assert bad.answer()[0] == 400
    bad.close()
    gone = start.client(kvpin)
    gone.send("GET /sse/1000/10000/100 HTTP/1.1\r\nHost: t\r\nX-Session-Id: a\r\n\r\n")
    gone.until(b"data: ")
    gone.reset()
    kvpin.wait_requests(12)
    wait_until(lambda: kvpin.status()["connections"] == 1)
    status, text = kvpin.exporter()
    assert status == 200
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, text=True,
                             capture_output=True, timeout=20)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    metrics = kvpin.metrics()

    def total(name, **labels):
        return sum(v for k, v in metrics.items() if k.partition("{")[0] == name
                   and all(f'{a}="{b}"' in k for a, b in labels.items()))

    assert total("kvpin_requests_total", outcome="ok") == 10
    # First turns are the relay's on every path; short answers are whole before they are spliced.
    other = sum(total("kvpin_requests_total", outcome="ok", path=path)
                for path in ("steer", "splice"))
    assert total("kvpin_requests_total", outcome="ok", path="relay") == 10 - other
    assert other == 0 or kvpin.path != "relay"  # few are enough for no hand-over on a busy machine
    assert total("kvpin_requests_total", outcome="client_abort") == 1
    assert total("kvpin_requests_total", outcome="refused", backend="") == 1
    assert total("kvpin_requests_total") == 12
    assert [metrics[f'kvpin_backend_up{{backend="gpu{i}"}}'] for i in (0, 1)] == [1, 1]
    assert total("kvpin_backend_inflight") == 0
    assert total("kvpin_sessions") == 3
    assert total("kvpin_keyless_requests_total", fallback="balance") == 1
    assert total("kvpin_long_keys_total") == 1
    assert total("kvpin_repeated_keys_total") == 1
    assert total("kvpin_http_errors_total", reason="bad_field_name") == 1
    assert total("kvpin_http_errors_total") == 1
    # a, b and the long key begin; the request without a key is a first turn, too.
    assert total("kvpin_ttft_seconds_count", turn="first") == 4
    assert total("kvpin_ttft_seconds_count", turn="later") == 7
    assert total("kvpin_session_moves_total") == 0
    assert total("kvpin_upstream_connects_total") == 3
    assert total("kvpin_upstream_reuses_total") == 8
    assert total("kvpin_resends_total") == 0
    assert 5000 < total("kvpin_bytes_total", direction="to_server") < 8000
    assert 3000 < total("kvpin_bytes_total", direction="to_client") < 8000
    assert total("kvpin_connections_accepted_total") == 3
    assert total("kvpin_connections") == 1
    assert [k for k in metrics if k.startswith("kvpin_build_info{version=")]
    # The page's sums agree with what the servers saw.
    assert sum(sim.get("/stats")["requests"] for sim in sims) >= 11


def test_time_to_first_token_and_token_gaps_are_measured(start):
    kvpin = start.kvpin([start.sim(prefill_tps=200)], *NO_CHECKS)
    client = start.client(kvpin)
    body = json.dumps({"messages": [{"role": "user", "content": "word " * 60}], "stream": True,
                       "max_tokens": 3}).encode()
    sums = {"first": [0], "later": [0]}
    for turn in range(4):
        client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nX-Session-Id: s\r\n"
                    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                    + body)
        assert client.answer()[2].endswith(b"data: [DONE]\n\n")
        metrics = kvpin.metrics()
        assert metrics['kvpin_ttft_seconds_count{backend="gpu0",turn="first"}'] == 1
        assert metrics['kvpin_ttft_seconds_count{backend="gpu0",turn="later"}'] == turn
        which = "later" if turn else "first"
        sums[which].append(metrics[f'kvpin_ttft_seconds_sum{{backend="gpu0",turn="{which}"}}'])
    first = sums["first"][1]
    assert first > 0.2, "the head came at once, the first token after the prefill"
    # In one of three: the machine may stand still.
    assert min(b - a for a, b in zip(sums["later"], sums["later"][1:])) < first / 3


def test_gaps_between_tokens_are_measured(start):
    """Each event leaves 30 ms after the one before has come to the client."""
    come = threading.Event()

    def script(conn):
        conn.read()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                  b"Transfer-Encoding: chunked\r\n\r\n")
        for i in range(11):
            conn.send(b"9\r\ndata: %d\n\n\r\n" % (i % 10))
            assert come.wait(5)
            come.clear()
            time.sleep(0.03)
        conn.send(b"0\r\n\r\n")
        conn.ended()

    kvpin = start.kvpin([start.raw(script, "gpu0")], *NO_CHECKS)
    client = start.client(kvpin)
    began = time.monotonic()
    client.send(b"GET /stream HTTP/1.1\r\nHost: t\r\nX-Session-Id: s\r\n\r\n")
    assert client.head()[0] == 200
    for _ in client.chunks():
        come.set()
    took = time.monotonic() - began
    metrics = kvpin.metrics()
    assert metrics['kvpin_token_gap_seconds_count{backend="gpu0"}'] == 10
    assert 0.3 <= metrics['kvpin_token_gap_seconds_sum{backend="gpu0"}'] < took
    bucket = {le: metrics[f'kvpin_token_gap_seconds_bucket{{backend="gpu0",le="{le}"}}']
              for le in ("0.02", "0.3", "+Inf")}
    assert bucket["+Inf"] == 10 and bucket["0.02"] == 0 and bucket["0.3"] >= 5, bucket


def test_pings_during_a_prefill_are_no_tokens(start):
    kvpin = start.kvpin([start.sim(prefill_tps=80, ping_ms=30)], *NO_CHECKS)
    client = start.client(kvpin)
    body = json.dumps({"messages": [{"role": "user", "content": "word " * 60}], "stream": True,
                       "max_tokens": 3}).encode()
    _, _, text = client.request("POST", "/v1/chat/completions",
                                {"Content-Type": "application/json"}, body)
    assert text.startswith(b":")
    metrics = kvpin.metrics()
    assert metrics['kvpin_ttft_seconds_sum{backend="gpu0",turn="first"}'] > 0.2
    assert text.count(b":\n") > 5 > metrics['kvpin_token_gap_seconds_count{backend="gpu0"}']


def test_probes_tell_whether_a_request_would_find_a_server(start):
    sim = start.sim()
    kvpin = start.kvpin([sim], "--health-interval", "100ms", "--health-timeout", "100ms")
    assert kvpin.exporter("/healthz")[0] == 200
    wait_until(lambda: kvpin.exporter("/readyz")[0] == 200)
    sim.get("/control", b'{"health": "503"}')
    wait_until(lambda: kvpin.exporter("/readyz")[0] == 503)
    assert kvpin.exporter("/healthz")[0] == 200
    assert kvpin.exporter("/nothing")[0] == 404


# ---- the request log


def test_each_request_is_one_line_with_its_reason(start):
    sims = start.sims(2, "uvicorn")
    kvpin = start.kvpin(sims, *NO_CHECKS)
    client = start.client(kvpin)
    owner = server_of(client, "s")
    assert server_of(client, "s") == owner
    client.request("POST", "/sink", {}, b"x" * 1000)
    kvpin.wait_requests(3)  # another worker writes the next one
    home = next(sim for sim in sims if sim.name == owner)
    home.kill()
    home.wait()
    other = server_of(start.client(kvpin), "s")
    kvpin.wait_requests(4)
    bad = start.client(kvpin)
    bad.send("G\0T / HTTP/1.1\r\n\r\n")
    bad.answer()
    rows = kvpin.wait_requests(5)
    assert [(r["outcome"], r["status"]) for r in rows] == [("ok", "200")] * 4 + [
        ("refused", "400")]
    assert [r.get("reason") for r in rows] == ["placed", "pinned", "keyless", "moved_failed", None]
    assert [r.get("turn") for r in rows] == ["first", "later", "first", "later", None]
    assert [r.get("attempts") for r in rows] == ["1", "1", "1", "2", None]
    assert [r.get("backend") for r in rows[:2] + rows[3:4]] == [owner, owner, other]
    assert {r["path"] for r in rows[:4]} <= {"relay", "steer", "splice"} and "path" not in rows[4]
    assert rows[4]["error"] == "control_byte"
    assert int(rows[2]["bytes_up"]) > 1000
    for row in rows[:4]:
        assert 0 < float(row["ttft_ms"]) <= float(row["total_ms"])
        assert re.fullmatch(r"127\.0\.0\.1:\d+", row["client"])


def test_requests_can_be_logged_as_json_or_not_at_all(start):
    sims = start.sims(1)
    quiet = start.kvpin(sims, "--log-level", "info", log_requests=False)
    start.client(quiet).request("GET", "/json", {"X-Session-Id": "s"})
    config = start.tmp / "json.yaml"
    config.write_text("log: {format: json}\n")
    addr = "%s:%d" % socket.create_server(("127.0.0.1", 0)).getsockname()
    out = start.tmp / "json.log"
    with open(out, "wb") as log:
        process = subprocess.Popen(
            [harness.KVPIN, "run", "--config", str(config), "--listen", addr, "--backend",
             f"gpu0={sims[0].text}", "--metrics", "off", "--control", "off", "--log-requests"],
            stderr=log)
    try:
        wait_until(lambda: b"kvpin ready" in out.read_bytes())
        Client(harness.split_addr(addr)).request("GET", "/json", {"X-Session-Id": "s"})
        wait_until(lambda: b'"request"' in out.read_bytes())
    finally:
        process.terminate()
        assert process.wait(10) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    row = [r for r in rows if r["msg"] == "request"][0]
    assert (row["outcome"], row["status"], row["backend"]) == ("ok", 200, "gpu0")
    assert " msg=request " not in quiet.output()


def test_no_session_key_shows_at_the_default_level(start):
    """Neither the key nor its hash: not in the log, not in the metrics, not in an error."""
    key = "alice-secret-conversation"
    hidden = [key, xxhash.xxh64(key).hexdigest()]
    sims = start.sims(2, "uvicorn")
    kvpin = start.kvpin(sims, "--log-level", "info", "--workers", "2")
    client = start.client(kvpin)
    for header in ("X-Session-Id", "X-LB-Hash", "X-Conversation-Id"):
        client.request("GET", "/json", {header: key})
    for sim in sims:
        sim.kill()
        sim.wait()
    status, _, body = start.client(kvpin).request("GET", "/json", {"X-Session-Id": key})
    assert status in (502, 503)
    bad = start.client(kvpin)
    bad.send(f"GET / HTTP/1.1\r\nX-Session-Id: {key}\r\nHost : x\r\n\r\n")
    text = kvpin.exporter()[1] + body.decode() + bad.answer()[2].decode()
    bad.close()
    kvpin.wait_requests(5)
    kvpin.stop()
    text += kvpin.output()
    assert "outcome=" in text
    for word in hidden:
        assert word not in text
    # The hash function is what the debug level and `kvpin sessions` would show.
    debug = start.kvpin([start.sim("gpu9")])
    start.client(debug).request("GET", "/json", {"X-Session-Id": key})
    sessions = debug.status("sessions")
    assert key not in json.dumps(sessions) + debug.output()
    assert debug.wait_requests(1)[0]["session"] == sessions["sessions"][0]["session"]


# ---- the read commands


def test_status_backends_and_sessions_tell_what_is_going_on(start):
    sims = start.sims(2)
    kvpin = start.kvpin([f"{sims[0].name}={sims[0].text},slots=4,weight=2", sims[1]],
                        "--workers", "2")
    client = start.client(kvpin)
    for _ in range(3):
        owners = [server_of(client, f"s{i}") for i in range(9)]
    stream = Stream(start.client(kvpin), "s0", 10000)
    status = kvpin.status()
    assert status["pid"] == kvpin.pid and status["workers"] == 2
    assert (status["connections"], status["sessions"]) == (2, 9)
    assert status["listen"] == [kvpin.text] and status["draining"] is False
    assert (status["path"], status["config_reloads"]) == (kvpin.path, 0)
    rows = {b["name"]: b for b in kvpin.status("backends")["backends"]}
    assert [rows[f"gpu{i}"]["address"] for i in (0, 1)] == [sim.text for sim in sims]
    assert [rows[f"gpu{i}"]["sessions"] for i in (0, 1)] == [6, 3]
    assert (rows["gpu0"]["slots"], rows["gpu0"]["weight"], rows["gpu1"]["slots"]) == (4, 2, 0)
    assert {b["state"] for b in rows.values()} == {"up"}
    assert rows[owners[0]]["inflight"] == 1
    assert sum(b["requests"] for b in rows.values()) == 27
    sessions = kvpin.status("sessions")
    assert (sessions["total"], len(sessions["sessions"])) == (9, 9)
    assert sorted(s["turns"] for s in sessions["sessions"]) == [3] * 8 + [4]
    assert {s["moves"] for s in sessions["sessions"]} == {0}
    assert all(re.fullmatch("[0-9a-f]{16}", s["session"]) for s in sessions["sessions"])
    stream.client.sock.shutdown(socket.SHUT_RDWR)
    stream.join(5)
    assert isinstance(stream.result, str)  # it was under way
    for command in ("status", "backends", "sessions"):
        out = subprocess.run([harness.KVPIN, command, "--control", kvpin.control],
                             capture_output=True, text=True, timeout=20)
        assert out.returncode == 0 and out.stdout and not out.stderr


def test_sessions_expire_after_their_ttl_and_then_begin_anew(start):
    kvpin = start.kvpin(start.sims(2), "--ttl", "1s")
    client = start.client(kvpin)
    server_of(client, "left")
    for _ in range(6):
        server_of(client, "kept")
        time.sleep(0.25)
    server_of(client, "kept")
    assert kvpin.status()["sessions"] == 1
    rows = kvpin.wait_requests(8)
    assert [r["reason"] for r in rows] == ["placed", "placed"] + ["pinned"] * 6
    server_of(client, "left")
    assert kvpin.wait_requests(9)[8]["reason"] == "placed"


def test_the_session_cap_evicts_the_idle_and_counts_them(start):
    kvpin = start.kvpin(start.sims(2), "--max-sessions", "64")
    client = start.client(kvpin)
    for i in range(300):
        server_of(client, f"s{i}")
    assert kvpin.status()["sessions"] <= 64
    assert kvpin.metrics()["kvpin_session_evictions_total"] >= 236
    server_of(client, "s299")
    assert kvpin.wait_requests(301)[300]["reason"] == "pinned"


def test_workers_share_the_load_and_the_sessions(start):
    sims = start.sims(3, "uvicorn")
    kvpin = start.kvpin(sims, "--workers", "2")
    owners = {}
    for i in range(120):
        client = Client(kvpin.addr)
        owner = server_of(client, f"s{i % 12}")
        assert owners.setdefault(i % 12, owner) == owner
        client.close()
    threads = {}
    for task in os.listdir(f"/proc/{kvpin.pid}/task"):
        with open(f"/proc/{kvpin.pid}/task/{task}/stat") as f:
            threads[task] = f.read()
    assert len(threads) >= 4  # main, two workers, health at least
    assert kvpin.status()["workers"] == 2
    assert [b["sessions"] for b in kvpin.status("backends")["backends"]] == [4, 4, 4]


@pytest.mark.parametrize("listen", ["{0}", "0.0.0.0:{1}", "[::]:{1}"])
def test_a_port_that_another_kvpin_has_is_not_shared(start, listen):
    """The kernel would share it (SO_REUSEPORT) and give each of them a part of the clients."""
    sims = start.sims(1)
    first = start.kvpin(sims)
    with pytest.raises(RuntimeError, match="listen: cannot listen on .*: Address already in use"):
        start.kvpin(sims, listen=listen.format(first.text, first.addr[1]))
    assert start.client(first).request("GET", "/json")[0] == 200


def test_addresses_of_one_kvpin_may_overlap(start):
    """As in the README: all of IPv4, and all of both families."""
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    kvpin = start.kvpin(start.sims(1), listen=[f"0.0.0.0:{port}", f"[::]:{port}",
                                               f"127.0.0.1:{port}"])
    for host in "127.0.0.1", "::1":
        assert Client((host, port)).request("GET", "/json")[0] == 200


def test_ipv6_and_several_listeners_serve_alike(start):
    sims = [start.sim("gpu0", listen="[::1]:0"), start.sim("gpu1")]
    kvpin = start.kvpin(sims, listen=["127.0.0.1:0", "[::1]:0"])
    addresses = [harness.split_addr(text) for text in kvpin.status()["listen"]]
    assert len(addresses) == 2
    owners = [{s: server_of(Client(addr), s) for s in "abcdef"} for addr in addresses]
    assert owners[0] == owners[1]
    assert set(owners[0].values()) == {"gpu0", "gpu1"}
