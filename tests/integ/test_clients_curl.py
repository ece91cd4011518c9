# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""curl against kvpin: what its own manners (Expect, HTTP/1.0, chunked uploads) ask of a proxy."""
import json
import random
import statistics
import subprocess
import time

import pytest

from harness import Client, checksum, pattern, wait_until

CURL = ["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "60"]
KINDS = ["llama", "uvicorn", "real"]
# curl asks for permission before bodies above this (EXPECT_100_THRESHOLD).
EXPECT_BYTES = 1 << 20


def curl(*args, data=None, code=0):
    """Run curl; returns its standard output."""
    done = subprocess.run([*CURL, *map(str, args)], input=data, capture_output=True, timeout=90)
    assert done.returncode == code, (done.returncode, done.stderr)
    return done.stdout


def get_json(*args, **options):
    return json.loads(curl(*args, **options))


def rows(tmp_path, *requests):
    """Several requests of one curl: [(status, new connections, X-Sim-Server, body)]. Each request
    is a list of arguments."""
    args = []
    for i, request in enumerate(requests):
        args += ["--next"] if i else []
        args += ["--silent", "--show-error", "--noproxy", "*", "--max-time", "60",
                 "-H", "x-sim-verify: 1", "-D", tmp_path / f"head{i}", "-o", tmp_path / f"body{i}",
                 "-w", "%{http_code} %{num_connects}\n", *request]
    out = curl(*args).decode().split("\n")
    found = []
    for i in range(len(requests)):
        status, connects = map(int, out[i].split())
        head = (tmp_path / f"head{i}").read_text()
        server = [line.split(":")[1].strip() for line in head.split("\n")
                  if line.lower().startswith("x-sim-server:")]
        body = tmp_path / f"body{i}"
        found.append((status, connects, server[-1] if server else None,
                      body.read_bytes() if body.exists() else b""))
    return found


@pytest.fixture
def dual(start):
    """kvpin on IPv4 and IPv6 with a server on each; {family: base URL}."""
    sims = [start.sim("gpu0", listen="127.0.0.1:0"), start.sim("gpu1", listen="[::1]:0")]
    kvpin = start.kvpin(sims, listen=["127.0.0.1:0", "[::1]:0"])
    return dict(zip(("ipv4", "ipv6"), (f"http://{text}" for text in kvpin.texts)))


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_get_head_and_post_work_over_both_families(dual, family, tmp_path):
    url = dual[family]
    body = tmp_path / "post"
    body.write_bytes(pattern(5000, 3))
    seen = set()
    for session in range(4):
        key = ["-H", f"X-Session-Id: {session}"]
        got = rows(tmp_path, [*key, f"{url}/json?size=700"], [*key, "-I", f"{url}/bytes/900"],
                   [*key, "--data-binary", f"@{body}", f"{url}/sink"], [*key, f"{url}/status/204"])
        assert [row[0] for row in got] == [200, 200, 200, 204]
        assert [row[1] for row in got] == [1, 0, 0, 0]  # one connection carried all four
        assert len({row[2] for row in got}) == 1
        seen.add(got[0][2])
        assert len(got[0][3]) == 700
        assert b"content-length: 900" in got[1][3].lower()
        assert json.loads(got[2][3])["xxh64"] == checksum(pattern(5000, 3))
        assert got[3][3] == b""
    assert seen == {"gpu0", "gpu1"}


@pytest.mark.parametrize("kind", KINDS)
def test_several_urls_of_one_call_share_a_connection_and_keep_their_servers(start, servers, kind,
                                                                            tmp_path):
    kvpin = start.kvpin(servers(kind))
    wanted = [["-H", f"X-Session-Id: {i % 5}", f"{kvpin.url}/bytes/{i * 1000}?seed={i}"]
              for i in range(20)]
    got = rows(tmp_path, *wanted)
    assert [row[:2] for row in got] == [(200, 1)] + [(200, 0)] * 19
    owner = {}
    for i, (_, _, server, body) in enumerate(got):
        assert body == pattern(i * 1000, i)
        assert owner.setdefault(i % 5, server) == server
    assert set(owner.values()) == {"gpu0", "gpu1"}


@pytest.mark.parametrize("kind", KINDS)
def test_an_upload_that_expects_100_continue_gets_it_at_once(start, servers, kind, tmp_path):
    kvpin = start.kvpin(servers(kind))
    for n in EXPECT_BYTES + 1, 3_000_000, 16 << 20:
        file = tmp_path / "up"
        file.write_bytes(pattern(n, n))
        done = subprocess.run([*CURL, "-v", "--data-binary", f"@{file}", f"{kvpin.url}/sink"],
                              capture_output=True, timeout=90)
        assert done.returncode == 0
        assert b"> Expect: 100-continue" in done.stderr
        assert b"< HTTP/1.1 100 Continue" in done.stderr
        # curl sends the body after a second's wait at the latest, and says so.
        assert b"Done waiting for 100-continue" not in done.stderr
        answer = json.loads(done.stdout)
        assert (answer["bytes"], answer["xxh64"]) == (n, checksum(pattern(n, n)))


@pytest.mark.parametrize("kind", KINDS)
def test_chunked_uploads_arrive_whole(start, servers, kind):
    kvpin = start.kvpin(servers(kind))
    rng = random.Random(7)
    for n in [0, 1, 65536] + [rng.randrange(2_000_000) for _ in range(5)]:
        body = rng.randbytes(n)
        answer = get_json("-T", "-", "-H", "Transfer-Encoding: chunked", "-X", "POST",
                          f"{kvpin.url}/sink", data=body)
        assert (answer["bytes"], answer["xxh64"]) == (n, checksum(body))


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_echo_flows_both_ways_at_once(start, servers, kind, tmp_path):
    """More than all buffers on the way hold: it stalls if one direction waits for the other."""
    kvpin = start.kvpin(servers(kind))
    file = tmp_path / "up"
    file.write_bytes(pattern(24 << 20, 5))
    out = curl("-X", "POST", "-T", file, f"{kvpin.url}/echo")
    assert checksum(out) == checksum(pattern(24 << 20, 5))


@pytest.mark.parametrize("kind", KINDS)
def test_http_1_0_gets_bodies_without_chunks_and_an_end(start, servers, kind, tmp_path):
    kvpin = start.kvpin(servers(kind))
    head = tmp_path / "head"
    for target in "/bytes/300000?seed=9", "/bytes/300000?seed=9&manner=chunked":
        body = curl("--http1.0", "-D", head, kvpin.url + target)
        assert body == pattern(300000, 9)
        assert "transfer-encoding" not in head.read_text().lower()
    stream = curl("--http1.0", f"{kvpin.url}/sse/30/1000/120")
    events = [json.loads(line[5:]) for line in stream.split(b"\n") if line]
    assert [event["i"] for event in events] == list(range(30))
    answer = get_json("--http1.0", "--data-binary", "@-", f"{kvpin.url}/sink", data=b"x" * 70000)
    assert answer["bytes"] == 70000


@pytest.mark.parametrize("kind", KINDS)
def test_giving_up_in_mid_stream_reaches_the_server(start, servers, kind):
    pair = servers(kind, decode_tps=50)
    kvpin = start.kvpin(pair[:1])
    before = pair[0].aborts()
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "stream": True,
                       "max_tokens": 1000, "test_gap_ms": 20})
    for n, args in enumerate((["/sse/1000/20000/100"], ["/v1/chat/completions", "-d", body])):
        out = curl("--max-time", "0.6", "-N", kvpin.url + args[0], *args[1:], code=28)
        assert out.count(b"data:") > 3
        pair[0].wait_aborts(before + n + 1)
    kvpin.wait_requests(2)


@pytest.mark.parametrize("kind", KINDS)
def test_giving_up_in_mid_stream_counts_as_the_clients_abort(start, servers, kind):
    """Not as a truncation by the server, although the server closes when it hears of it."""
    kvpin = start.kvpin(servers(kind)[:1])
    for n in range(1, 4):
        curl("--max-time", "0.1", "-N", f"{kvpin.url}/sse/1000/20000/100", code=28)
        kvpin.wait_requests(n)
    assert [row["outcome"] for row in kvpin.requests()] == ["client_abort"] * 3


def test_a_client_that_resets_behind_a_truncated_answer_is_forgotten_at_once(start, servers):
    """kvpin lets a client take what a broken answer left, for a second at most; one that is gone
    takes nothing more."""
    kvpin = start.kvpin(servers("uvicorn")[:1])
    client = Client(kvpin.addr)
    client.send("GET /sse/100/0/60000?trunc=10 HTTP/1.1\r\nHost: t\r\n\r\n")
    if kvpin.path in ("splice", "auto"):  # or all of it waits in the server's socket
        time.sleep(0.2)
    else:
        kvpin.wait_requests(1)  # the server's part is over, its bytes wait for the client
    assert kvpin.metrics()["kvpin_connections"] == 1
    began = time.monotonic()
    client.reset()
    wait_until(lambda: kvpin.metrics()["kvpin_connections"] == 0)
    assert time.monotonic() - began < 0.7


@pytest.mark.parametrize("kind", KINDS)
def test_giving_up_before_the_answer_reaches_the_server(start, servers, kind):
    # The captured llama-server looks for a client that left once a second.
    pair = servers(kind, prefill_tps=1)
    kvpin = start.kvpin(pair[:1])
    before = pair[0].aborts()
    body = json.dumps({"messages": [{"role": "user", "content": "hello"}],
                       "test_prefill_ms": 20000})
    curl("--max-time", "0.2", f"{kvpin.url}/v1/chat/completions", "-d", body, code=28)
    pair[0].wait_aborts(before + 1)
    assert kvpin.wait_requests(1)[0]["outcome"] == "client_abort"


@pytest.mark.parametrize("manner", ["cl", "chunked", "close"])
def test_large_downloads_keep_their_checksum(start, servers, manner, tmp_path):
    kvpin = start.kvpin(servers("llama"))
    n, files = 24 << 20, [tmp_path / f"down{i}" for i in range(3)]
    args = []
    for i, file in enumerate(files):
        args += ["-o", file, f"{kvpin.url}/bytes/{n}?seed={i}&manner={manner}"]
    curl("--parallel", *args)
    for i, file in enumerate(files):
        assert checksum(file.read_bytes()) == checksum(pattern(n, i))


@pytest.mark.parametrize("kind", KINDS)
def test_streamed_tokens_are_not_held_back(start, servers, kind):
    kvpin = start.kvpin(servers(kind))
    reader = subprocess.Popen([*CURL, "-N", f"{kvpin.url}/sse/30/20000/100"], bufsize=0,
                              stdout=subprocess.PIPE)
    delay_ms, rest = [], b""
    try:
        while True:
            data = reader.stdout.read(65536)
            now_ns = time.monotonic_ns()
            if not data:
                break
            *events, rest = (rest + data).split(b"\n\n")
            delay_ms += [(now_ns - json.loads(event[5:])["t"]) / 1e6 for event in events]
    finally:
        reader.kill()
        reader.wait()
    assert len(delay_ms) == 30 and rest == b""
    # Held back for the next token it would be 20 ms and more.
    assert statistics.median(delay_ms) < 12, delay_ms


def test_a_refusal_in_mid_upload_is_read_by_curl(start, servers, tmp_path):
    """llama-server answers 413 at 100 MB and stops reading: the answer must not be lost to the
    reset that its close causes."""
    kvpin = start.kvpin(servers("llama")[:1])
    file = tmp_path / "huge"
    with open(file, "wb") as f:
        f.truncate(120 << 20)
    out = curl("-H", "Expect:", "-o", "/dev/null", "-w", "%{http_code}", "--data-binary",
               f"@{file}", f"{kvpin.url}/v1/completions")
    assert out == b"413"
