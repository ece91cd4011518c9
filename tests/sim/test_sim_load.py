# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""kvpin-sim's endpoints for load and for faults."""
import json
import re
import select
import socket
import time

import httpx

from sim_help import END, Sim, pattern, recv_for, recv_until


def test_bytes_json_and_sink(either):
    for how in ("cl", "chunked", "close"):
        r = either.get(f"/bytes/300000?manner={how}&chunk=777&seed=13")
        assert r.content == pattern(13, 300000)
    assert len(either.get("/json").content) == 300 and len(either.get("/json?size=5000").content) == 5000
    assert either.get("/json").json()["system_fingerprint"] == "gpu0"

    def parts():
        for i in range(50):
            yield pattern(i, 1000)
    a = httpx.post(either.url + "/sink", content=parts(), headers={"x-sim-verify": "1"})
    b = httpx.post(either.url + "/sink", content=b"".join(parts()))
    assert a.json() == b.json() and a.json()["bytes"] == 50000
    assert a.headers["x-sim-body"] == a.json()["xxh64"] and a.headers["x-sim-server"] == "gpu0"
    assert int(a.headers["x-sim-conn"]) > 0 and "x-sim-body" not in b.headers
    assert httpx.post(either.url + "/echo", content=parts()).content == b"".join(parts())
    assert httpx.post(either.url + "/sink", content=b"").json()["xxh64"] == "ef46db3751d8e999"


def test_echo_starts_before_the_body_ends(either):
    s = either.raw(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    assert recv_until(s, b"hello\r\n").startswith(b"HTTP/1.1 200")
    s.sendall(b"0\r\n\r\n")
    assert recv_until(s, b"0\r\n\r\n")


def test_sse_load_endpoint(either):
    r = either.get("/sse/2000/0/200")
    events = [json.loads(x[6:]) for x in r.text.split("\n\n") if x]
    assert [e["i"] for e in events] == list(range(2000)) and len(r.content) == 2000 * 200
    with httpx.stream("GET", either.url + "/sse/20/2000/100") as r:
        late, text = [], ""
        for part in r.iter_text():
            *events, text = (text + part).split("\n\n")
            late += [time.monotonic_ns() - json.loads(e[6:])["t"] for e in events]
    assert len(late) == 20 and 0 <= min(late) < 5e6
    for query, end, clean in (("close=1", "eof", True), ("trunc=3", "eof", False), ("rst=3", "rst", False)):
        got, how = recv_for(either.raw(f"GET /sse/9/1000/90?{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode()), END)
        assert how == end and got.endswith(b"0\r\n\r\n") == clean
        assert got.count(b"data: ") == (9 if clean else 3)


def test_status_trailers_and_interim(either):
    for code in (200, 204, 304, 404, 418, 500, 599):
        r = either.get(f"/status/{code}")
        assert r.status_code == code and bool(r.content) == (code not in (204, 304))
    s = either.raw(b"GET /status/103 HTTP/1.1\r\nHost: x\r\n\r\n")
    got = recv_for(s, 0.2)[0]
    assert got.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: ") and got.count(b"HTTP/1.1 200 OK") == 1
    got = recv_for(either.raw(b"GET /trailers HTTP/1.1\r\nHost: x\r\n\r\n"), 0.2)[0]
    assert re.search(rb"\r\n0\r\nx-sim-trailer: yes\r\nx-sim-checksum: [0-9a-f]{16}\r\n\r\n$", got)
    assert either.get("/slowhead?ms=50").elapsed.total_seconds() > 0.05


def test_faults(either):
    def go(path):
        return recv_for(either.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()), END)
    assert go("/reset") == (b"", "rst") and go("/eof") == (b"", "eof")
    got, end = go("/partial_head")
    assert end == "eof" and b"\r\n\r\n" not in got and got.startswith(b"HTTP/1.1 200")
    got, end = go("/close")
    assert end == "eof" and b"onnection: close" in got
    for kind in ("tecl", "dupcl", "badcl", "badchunk", "badte", "barelf", "nul", "bigHead"):
        got, end = go("/badframing?kind=" + kind)
        assert end == "eof" and got.startswith(b"HTTP/1.1 200 OK")
    assert len(got) > 65536
    before = either.stats()["aborts_hang"]
    s = either.raw(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
    assert recv_for(s, 0.05, 0.05) == (b"", "open")
    s.close()
    assert either.until("aborts_hang", before + 1)


def test_upgrade_echoes_until_half_close(either):
    s = either.raw(b"GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: sim-echo\r\n\r\nearly")
    assert recv_until(s, b"early").startswith(b"HTTP/1.1 101 ")
    split = either.raw(b"GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upg")
    time.sleep(0.01)
    split.sendall(b"rade\r\nUpgrade: sim-echo\r\n\r\nearly")
    recv_until(split, b"early")
    split.close()
    blob = pattern(3, 400000)
    s.setblocking(False)
    sent, got = 0, b""
    while len(got) < len(blob):
        r, w, _ = select.select([s], [s] if sent < len(blob) else [], [], 2)
        assert r or w
        if w:
            sent += s.send(blob[sent:sent + 65536])
        if r:
            got += s.recv(65536)
    assert got == blob
    s.shutdown(socket.SHUT_WR)
    assert recv_for(s, END) == (b"", "eof")


def test_head_echo_and_sessions(either):
    r = either.get("/head_echo?a=1", headers={"X-Session-Id": "s1", "X-Odd": "a, b"}).json()
    assert ["X-Odd", "a, b"] in r["headers"] and r["query"] == "a=1" and r["method"] == "GET"
    assert either.stats()["sessions"]["s1"] >= 1


def test_stats_reset_and_ipv6():
    with Sim(listen="[::1]:0") as sim:
        sim.get("/json")
        assert sim.stats()["endpoints"]["/json"] == 1
        sim.post("/stats/reset")
        assert "/json" not in sim.stats()["endpoints"]
