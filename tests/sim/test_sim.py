# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""kvpin-sim against the captured habits of llama-server and uvicorn.

fixtures/*.json hold what was sent and the head that came back in each capture. Times are asked for
only where a habit is a time (idle limit, abort notice); all else is counted in tokens.
Runs build/tests/kvpin-sim, or the program named by KVPIN_SIM.
"""
import http.client
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

import httpx
import pytest

HERE = Path(__file__).parent
PROGRAM = os.environ.get("KVPIN_SIM", str(HERE.parents[1] / "build/tests/kvpin-sim"))
WORDS = "gamma forest beta kernel beta memory river packet delta stone "


class Sim:
    def __init__(self, *args, manner="llama", listen="127.0.0.1:0", wait=True):
        self.p = subprocess.Popen(
            [PROGRAM, "--listen", listen, "--manner", manner, "--name", "gpu0", "--quiet", *map(str, args)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        word, addr = self.p.stdout.readline().split()
        assert word == ("listening" if wait else "bound")
        host, port = addr.rsplit(":", 1)
        self.addr = (host.strip("[]"), int(port))
        self.url = "http://" + addr

    def raw(self, data=b"", timeout=5):
        s = socket.create_connection(self.addr, timeout=timeout)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if data:
            s.sendall(data)
        return s

    def get(self, path, **kw):
        return httpx.get(self.url + path, verify=False, trust_env=False, **kw)

    def post(self, path, body=None, **kw):
        return httpx.post(self.url + path, json=body, verify=False, trust_env=False, **kw)

    def stats(self):  # http.client: polls faster than httpx can set up
        c = http.client.HTTPConnection(*self.addr, timeout=5)
        c.request("GET", "/stats")
        try:
            return json.loads(c.getresponse().read())
        finally:
            c.close()

    def until(self, key, value, timeout=5):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.stats()[key] == value:
                return True
            time.sleep(0.005)
        return False

    def close(self):
        if self.p.poll() is None:
            self.p.terminate()
            try:
                self.p.wait(6)
            except subprocess.TimeoutExpired:
                self.p.kill()
                self.p.wait()
        err = self.p.stderr.read()
        self.p.stdout.close()
        self.p.stderr.close()
        assert self.p.returncode == 0 and not err, (self.p.returncode, err)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


@pytest.fixture(scope="module")
def llama():
    with Sim("--slots", 4) as s:
        yield s


@pytest.fixture(scope="module")
def uvicorn():
    with Sim("--slots", 4, manner="uvicorn") as s:
        yield s


@pytest.fixture(scope="module", params=["llama", "uvicorn"])
def either(request):
    return request.getfixturevalue(request.param)


def chat(text, n=4, stream=False, **more):
    return {"messages": [{"role": "user", "content": text}], "max_tokens": n, "stream": stream, **more}


def post_bytes(path, body, extra="", version="1.1"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return (f"POST {path} HTTP/{version}\r\nHost: x\r\n{extra}Content-Length: {len(data)}\r\n\r\n").encode() + data


GET_HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


def recv_for(s, seconds):
    """Bytes until EOF or `seconds` of silence; (bytes, 'eof' | 'rst' | 'open')."""
    out = b""
    while select.select([s], [], [], seconds)[0]:
        try:
            part = s.recv(1 << 20)
        except ConnectionResetError:
            return out, "rst"
        if not part:
            return out, "eof"
        out += part
    return out, "open"


def recv_until(s, mark):
    out = b""
    while mark not in out:
        part = s.recv(65536)
        assert part, out
        out += part
    return out


def dechunk(data):
    out, clean = [], False
    while data:
        size, _, data = data.partition(b"\r\n")
        n = int(size, 16)
        if not n:
            assert data == b"\r\n"
            clean = True
            break
        out.append(data[:n])
        assert data[n:n + 2] == b"\r\n"
        data = data[n + 2:]
    return out, clean


def normal(head):
    head = re.sub(r"(?i)(content-length: )\d+", r"\1N", head)
    return re.sub(r"(date: ).*", r"\1D", head)


def pattern(seed, n):
    return bytes((seed + i) % 251 for i in range(n))


# ---- heads and refusals, byte for byte

@pytest.mark.parametrize("name", ["llama", "uvicorn_httptools"])
def test_heads_equal_the_captures(name, request):
    sim = request.getfixturevalue(name.split("_")[0])
    rows = json.loads((HERE / "fixtures" / f"{name}.json").read_text())
    checked = 0
    for row in rows:
        s = sim.raw(row["send"].encode("latin1"))
        got, end = recv_for(s, 0.02 if row["recv"] else 0.1)
        s.close()
        head, _, body = got.decode("latin1").partition("\r\n\r\n")
        want_head, _, want_body = row["recv"].partition("\r\n\r\n")
        where = (row["probe"], row["send"][:60])
        assert normal(head) == normal(want_head), where
        if row["body_kept"] and want_body and '"status":"ok"' not in want_body and "chat" not in want_body \
                and '"object":"list"' not in want_body and "vllm:" not in want_body:
            assert body == want_body, where
        streamed = "event-stream" in want_head
        if name == "llama" and streamed:
            assert end == "eof", where
        elif not streamed:
            assert end == row["end"], where
        checked += 1
    assert checked > 35


def test_stream_head_is_185_bytes(llama):
    s = llama.raw(post_bytes("/v1/chat/completions", chat("hi", stream=True)))
    assert len(recv_until(s, b"\r\n\r\n").split(b"\r\n\r\n")[0]) + 4 == 185


def test_long_header_line_and_many_headers_are_400(llama, uvicorn):
    long_line = b"GET /health HTTP/1.1\r\nX-Big: " + b"a" * 8192 + b"\r\n\r\n"
    many = b"GET /health HTTP/1.1\r\n" + b"".join(b"X-%d: v\r\n" % i for i in range(101)) + b"\r\n"
    fits = b"GET /health HTTP/1.1\r\nX-Big: " + b"a" * 7000 + b"\r\n\r\n"
    uri = b"GET /health?q=" + b"a" * 16384 + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    for data, status in ((long_line, b"400"), (many, b"400"), (fits, b"200"), (uri, b"200")):
        assert recv_for(llama.raw(data), 0.05)[0].split()[1] == status
        assert recv_for(uvicorn.raw(data), 0.05)[0].split()[1] == b"200"
    huge = b"GET /health HTTP/1.1\r\nX-Big: " + b"a" * 131072 + b"\r\n\r\n"
    for sim in (llama, uvicorn):
        got, end = recv_for(sim.raw(huge), 0.3)
        assert got.split()[1] == b"400" and end in ("eof", "rst")


def test_errors_say_close_but_the_socket_stays_open(llama):
    s = llama.raw(b"GET /nope HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"Connection: close" in recv_for(s, 0.05)[0]
    s.sendall(GET_HEALTH)
    assert recv_for(s, 0.05) [0].startswith(b"HTTP/1.1 200")


def test_body_beyond_100_mb_is_413_mid_upload(llama):
    s = llama.raw(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 115343453\r\n\r\n")
    sent, block = 0, b"x" * (1 << 20)
    try:
        while sent < 115343453:
            sent += s.send(block)
    except OSError:
        pass
    assert sent < 115343453
    got = s.recv(4096)  # what came before the reset stays readable
    assert got.startswith(b"HTTP/1.1 413 Payload Too Large\r\nServer: llama.cpp\r\n")


# ---- streams

def test_llama_stream_shape_and_close(llama):
    s = llama.raw(post_bytes("/v1/chat/completions", chat("shape", 4, True, stream_options={"include_usage": True})))
    got, end = recv_for(s, 1)
    assert end == "eof"
    head, _, rest = got.partition(b"\r\n\r\n")
    assert b"Keep-Alive: timeout=5, max=100" in head and b"Connection: close" not in head
    chunks, clean = dechunk(rest)
    assert clean and len(chunks) == 4 + 2
    assert chunks[0].count(b"data: ") == 2 and b'"content":null' in chunks[0]
    assert chunks[-1] == b"data: [DONE]\n\n"
    last = [json.loads(e[6:]) for e in chunks[-2].decode().strip().split("\n\n")]
    assert last[0]["choices"][0]["finish_reason"] == "length" and "timings" not in last[0]
    assert last[1]["usage"]["completion_tokens"] == 4 and last[1]["timings"]["predicted_n"] == 4
    assert last[1]["system_fingerprint"] == "gpu0"


def test_uvicorn_stream_shape_and_keep_alive(uvicorn):
    s = uvicorn.raw()
    for _ in range(2):
        s.sendall(post_bytes("/v1/chat/completions", chat("shape", 4, True)))
        got, end = recv_for(s, 0.1)
        assert end == "open"
        chunks, clean = dechunk(got.partition(b"\r\n\r\n")[2])
        assert clean and len(chunks) == 1 + 4 + 1
        assert chunks[0].startswith(b'data: {"id": "chatcmpl-') and b'"content": ""' in chunks[0]
        assert b'"finish_reason": "length"' in chunks[4]


def test_answers_are_deterministic_and_streams_equal_full_answers(either):
    a = either.post("/v1/chat/completions", chat("same", 9)).json()["choices"][0]["message"]["content"]
    text = either.post("/v1/chat/completions", chat("same", 9, True)).text
    events = [json.loads(x[6:]) for x in text.splitlines() if x.startswith("data: {")]
    b = "".join(e["choices"][0]["delta"].get("content") or "" for e in events if e["choices"])
    assert a == b and len(a) == 9 * 4


def test_other_apis(either):
    r = either.post("/v1/messages", chat("hello", 3)).json()
    assert r["type"] == "message" and r["usage"]["output_tokens"] == 3 and r["content"][0]["text"]
    text = either.post("/v1/messages", chat("hello", 3, True)).text
    names = [x[7:] for x in text.splitlines() if x.startswith("event: ")]
    assert names == ["message_start", "content_block_start", *["content_block_delta"] * 3,
                     "content_block_stop", "message_delta", "message_stop"]
    r = either.post("/v1/responses", {"input": "hello", "max_output_tokens": 3}).json()
    assert r["object"] == "response" and r["usage"]["output_tokens"] == 3
    text = either.post("/v1/responses", {"input": "hello", "max_output_tokens": 3, "stream": True}).text
    events = [json.loads(x[6:]) for x in text.splitlines() if x.startswith("data: ")]
    assert [e["sequence_number"] for e in events] == list(range(len(events)))
    assert events[-1]["type"] == "response.completed"
    r = either.post("/v1/completions", {"prompt": "hello", "max_tokens": 3}).json()
    assert r["object"] == "text_completion" and len(r["choices"][0]["text"]) == 12


def test_llama_ping_during_prefill():
    with Sim("--prefill-tps", 1000, "--ping-ms", 40) as sim:
        s = sim.raw(post_bytes("/v1/chat/completions", chat("x" * 800, 1, True)))
        got, end = recv_for(s, 2)
        body = got.partition(b"\r\n\r\n")[2]
        assert end == "eof" and 3 <= body.count(b"3\r\n:\n\n\r\n") <= 5
        assert body.startswith(b"3\r\n:\n\n\r\n") and dechunk(body)[1]


# ---- connections

def test_llama_loses_pipelined_requests(llama):
    got, end = recv_for(llama.raw(GET_HEALTH * 3), 0.1)
    assert got.count(b"HTTP/1.1 200") == 1 and end == "open"


def test_llama_discards_bytes_sent_mid_stream():
    with Sim("--decode-tps", 100) as sim:
        s = sim.raw(post_bytes("/v1/chat/completions", chat("x", 8, True)))
        recv_until(s, b"\r\n\r\n")
        s.sendall(GET_HEALTH * 2)
        got, end = recv_for(s, 1)
        assert end == "eof" and got.endswith(b"0\r\n\r\n") and b"HTTP/1.1" not in got


def test_uvicorn_answers_pipelined_requests_in_order(uvicorn):
    s = uvicorn.raw(post_bytes("/v1/chat/completions", chat("a", 2)) + GET_HEALTH +
                    post_bytes("/v1/chat/completions", chat("b", 3, True)) +
                    b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
    got, end = recv_for(s, 0.2)
    heads = [m.start() for m in re.finditer(rb"HTTP/1.1 200", got)]
    assert end == "open" and len(heads) == 4
    parts = [got[a:b] for a, b in zip(heads, heads[1:] + [len(got)])]
    assert b"chat.completion" in parts[0] and b"content-length: 0" in parts[1]
    assert parts[2].endswith(b"0\r\n\r\n") and b'"list"' in parts[3]


def test_uvicorn_pipelines_large_answers_and_uploads(uvicorn):
    ask = b"GET /bytes/%d?manner=%s HTTP/1.1\r\nHost: x\r\n\r\n"
    up = b"POST /sink HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n" + pattern(1, 70000)
    s = uvicorn.raw()
    s.sendall(ask % (3000000, b"cl") + ask % (1000, b"chunked") + up + ask % (10, b"cl") + GET_HEALTH)
    got, end = recv_for(s, 0.2)
    assert end == "open" and got.count(b"HTTP/1.1 200 OK\r\n") == 5 and pattern(0, 3000000) in got
    assert b'{"bytes":70000,' in got and got.endswith(b"content-length: 0\r\n\r\n")


def test_idle_close():
    for manner in ("llama", "uvicorn"):
        with Sim("--idle-ms", 150, manner=manner) as sim:
            silent, used, partial = sim.raw(), sim.raw(GET_HEALTH), sim.raw(b"GET /hea")
            t = time.monotonic()
            assert recv_for(used, 1)[1] == "eof" and 0.1 < time.monotonic() - t < 0.8
            assert recv_for(silent, 0.3)[1] == ("eof" if manner == "llama" else "open")
            assert recv_for(partial, 0.05)[1] == "open"


def test_hundredth_answer_closes(llama, uvicorn):
    s = llama.raw()
    for i in range(100):
        s.sendall(GET_HEALTH)
        head = recv_until(s, b'"ok"}')
        assert (b"Connection: close" in head) == (i == 99)
    assert recv_for(s, 1) == (b"", "eof")
    s = uvicorn.raw()
    for i in range(150):
        s.sendall(GET_HEALTH)
        recv_until(s, b"\r\n\r\n")


@pytest.mark.parametrize("manner", ["llama", "uvicorn"])
def test_half_close(manner):
    with Sim("--decode-tps", 200, manner=manner) as sim:
        full = sim.raw(post_bytes("/v1/chat/completions", chat("x", 40)))
        full.shutdown(socket.SHUT_WR)
        got, end = recv_for(full, 1)
        assert end == "eof" and got.startswith(b"HTTP/1.1 200" if manner == "llama" else b"")
        assert bool(got) == (manner == "llama")
        stream = sim.raw(post_bytes("/v1/chat/completions", chat("y", 1000, True)))
        recv_until(stream, b"data: ")
        stream.shutdown(socket.SHUT_WR)
        t = time.monotonic()
        got, end = recv_for(stream, 1)
        assert end == "eof" and not got.endswith(b"0\r\n\r\n") and time.monotonic() - t < 0.1
        assert sim.until("slots_busy", 0, 0.3)


def test_client_abort_frees_the_slot_when_the_manner_notices():
    with Sim("--slots", 8, "--prefill-tps", 100, "--decode-tps", 100) as sim:
        decode = sim.raw(post_bytes("/v1/chat/completions", chat("x", 1000, True)))
        recv_until(decode, b"data: ")
        decode.close()
        assert sim.until("aborts_decode", 1, 0.5)
        assert 20 < sim.stats()["last_abort_notice_ms"] < 60
        prefill = sim.raw(post_bytes("/v1/chat/completions", chat("p" * 4000, 4, True)))
        recv_until(prefill, b"\r\n\r\n")
        time.sleep(0.02)
        full = sim.raw(post_bytes("/v1/chat/completions", chat("f", 1000)))
        time.sleep(0.02)
        full.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        prefill.close()
        full.close()
        time.sleep(0.1)
        assert sim.stats()["slots_busy"] == 2
        assert sim.until("slots_busy", 0, 1.2)
        assert sim.stats()["aborts"] == 3
    with Sim("--slots", 2, "--prefill-tps", 100, manner="uvicorn") as sim:
        a = sim.raw(post_bytes("/v1/chat/completions", chat("p" * 4000, 4, True)))
        recv_until(a, b"\r\n\r\n")
        a.close()
        assert sim.until("slots_busy", 0, 0.3)


def test_queued_abort_leaves_the_queue_and_never_runs():
    with Sim("--slots", 1, "--decode-tps", 50, manner="uvicorn") as sim:
        one = sim.raw(post_bytes("/v1/chat/completions", chat("a", 10, True)))
        recv_until(one, b"data: ")
        two = sim.raw(post_bytes("/v1/chat/completions", chat("b", 10, True)))
        assert sim.until("queued", 1)
        assert recv_for(two, 0.03) == (b"", "open")  # no head before a slot frees
        two.close()
        assert sim.until("queued", 0, 0.3)
        assert recv_for(one, 0.5)[0].endswith(b"0\r\n\r\n")
        assert sim.stats()["aborts_queued"] == 1


# ---- slots, queue and prefix cache, counted in tokens

def usage(sim, messages, n=4):
    r = sim.post("/v1/chat/completions", {"messages": messages, "max_tokens": n}).json()
    u = r["usage"]
    return r["choices"][0]["message"], u["prompt_tokens"], u["prompt_tokens_details"]["cached_tokens"]


def test_the_next_turn_recomputes_only_what_is_new():
    with Sim("--slots", 2) as sim:
        talk = [{"role": "user", "content": WORDS * 40}]
        answer, prompt, cached = usage(sim, talk, 8)
        assert cached == 0 and prompt == -(-len("user: " + WORDS * 40 + "\nassistant: ") // 4)
        talk += [answer, {"role": "user", "content": "more"}]
        _, prompt2, cached2 = usage(sim, talk, 8)
        assert prompt2 - cached2 <= 8 and cached2 >= prompt + 8 - 2
        m = sim.get("/metrics").text
        assert f"llamacpp:prompt_tokens_total {prompt + prompt2 - cached2}\n" in m
        assert f"llamacpp:prompt_tokens_cached_total {cached2}\n" in m


def test_slots_are_chosen_by_prefix_then_by_age():
    def talk(who):
        return [{"role": "user", "content": who * 300}]
    with Sim("--slots", 2) as sim:
        assert [usage(sim, talk(w))[2] > 0 for w in "abab"] == [False, False, True, True]
        assert usage(sim, talk("c"))[2] < 5           # evicts a, the least recently used
        assert usage(sim, talk("b"))[2] > 50
        assert usage(sim, talk("a"))[2] < 5


def test_queue_is_first_come_first_served_and_metrics_show_it():
    with Sim("--slots", 1, "--decode-tps", 100) as sim:
        waiting = []
        for i in range(4):
            waiting.append(sim.raw(post_bytes("/v1/chat/completions", chat(f"{i}", 16))))
            assert sim.until("queued", i, 0.2)
        m = sim.get("/metrics").text
        assert "llamacpp:requests_processing 1\n" in m and "llamacpp:requests_deferred 3\n" in m
        assert [s["is_processing"] for s in sim.get("/slots").json()] == [True]
        order = []
        while waiting:
            for s in select.select(waiting, [], [], 2)[0]:
                recv_until(s, b"}}")
                order.append(s.fileno())
                waiting.remove(s)
                s.close()
        assert len(order) == 4 and order == sorted(order) and sim.stats()["queued"] == 0


def test_prefill_and_decode_take_their_time():
    with Sim("--prefill-tps", 2000, "--decode-tps", 100) as sim:
        r = sim.post("/v1/chat/completions", chat("x" * 780, 6)).json()
        assert 95 < r["timings"]["prompt_ms"] < 105 and 49 < r["timings"]["predicted_ms"] < 90
        again = sim.post("/v1/chat/completions", chat("x" * 780, 1)).json()
        assert again["timings"]["prompt_n"] == 1 and again["timings"]["prompt_ms"] == pytest.approx(0.5)


def test_context_limit():
    with Sim("--ctx", 100) as sim:
        r = sim.post("/v1/chat/completions", chat("x" * 500))
        assert r.status_code == 400 and r.json()["error"]["type"] == "exceed_context_size_error"
        assert sim.post("/v1/chat/completions", chat("x" * 300, 1000)).json()["usage"]["total_tokens"] == 100


# ---- conversations

def test_conversation_outlives_its_client_and_resumes():
    with Sim("--decode-tps", 200) as sim:
        s = sim.raw(post_bytes("/v1/chat/completions", chat("x", 40, True), "X-Conversation-Id: c1\r\n"))
        recv_until(s, b"data: ")
        s.close()
        late = sim.raw(b"GET /v1/stream?conv_id=c1&from=0 HTTP/1.1\r\nHost: x\r\n\r\n")
        got, end = recv_for(late, 1)
        chunks, clean = dechunk(got.partition(b"\r\n\r\n")[2])
        whole = b"".join(chunks)
        assert end == "eof" and clean and whole.count(b"data: ") == 1 + 40 + 1 + 1
        found = sim.post("/v1/streams/lookup", {"conversation_ids": ["c1", "nope"]}).json()
        assert [(f["conversation_id"], f["is_done"], f["total_bytes"]) for f in found] == [("c1", True, len(whole))]
        assert sim.get("/v1/stream?conv_id=c1&from=100").content == whole[100:]
        assert httpx.delete(sim.url + "/v1/stream?conv_id=c1").status_code == 204
        assert sim.get("/v1/stream?conv_id=c1").status_code == 404
        assert sim.stats()["aborts"] == 0


# ---- load and fault endpoints

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
        got, how = recv_for(either.raw(f"GET /sse/9/1000/90?{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode()), 0.5)
        assert how == end and got.endswith(b"0\r\n\r\n") == clean
        assert got.count(b"data: ") == (9 if clean else 3)


def test_status_trailers_and_interim(either):
    for code in (200, 204, 304, 404, 418, 500, 599):
        r = either.get(f"/status/{code}")
        assert r.status_code == code and bool(r.content) == (code not in (204, 304))
    s = either.raw(b"GET /status/103 HTTP/1.1\r\nHost: x\r\n\r\n")
    got = recv_for(s, 0.05)[0]
    assert got.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: ") and got.count(b"HTTP/1.1 200 OK") == 1
    got = recv_for(either.raw(b"GET /trailers HTTP/1.1\r\nHost: x\r\n\r\n"), 0.05)[0]
    assert re.search(rb"\r\n0\r\nx-sim-trailer: yes\r\nx-sim-checksum: [0-9a-f]{16}\r\n\r\n$", got)
    assert either.get("/slowhead?ms=50").elapsed.total_seconds() > 0.05


def test_faults(either):
    def go(path):
        return recv_for(either.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()), 0.3)
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
    assert recv_for(s, 0.05) == (b"", "open")
    s.close()
    assert either.until("aborts_hang", before + 1, 1)


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
    assert recv_for(s, 0.3) == (b"", "eof")


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


# ---- health, loading, faults by option, shutdown

def test_control_changes_health():
    with Sim() as sim:
        sim.post("/control", {"health": "503"})
        assert sim.get("/health").status_code == 503
        sim.post("/control", {"health": "hang"})
        with pytest.raises(httpx.ReadTimeout):
            sim.get("/health", timeout=0.1)
        sim.post("/control", {"health": "refuse", "for_ms": 200})
        with pytest.raises(httpx.ConnectError):
            sim.get("/health")
        time.sleep(0.25)
        assert sim.get("/health").status_code == 200
        assert sim.post("/control", {"health": "typo"}).status_code == 400


def test_loading_refuses_then_503_then_ok():
    with Sim("--load-ms", 300, wait=False) as sim:
        with pytest.raises(httpx.ConnectError):
            sim.get("/health")
        assert sim.p.stdout.readline().startswith("listening ")
        r = sim.get("/health")
        assert r.status_code == 503 and r.json() == {
            "error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}
        assert sim.post("/v1/chat/completions", chat("x")).status_code == 503
        assert sim.p.stdout.readline() == "ready gpu0\n"
        assert sim.get("/health").status_code == 200


def test_fail_options():
    with Sim("--fail-cut-after", 2) as sim:
        got, end = recv_for(sim.raw(post_bytes("/v1/chat/completions", chat("x", 9, True))), 0.5)
        assert end == "eof" and not got.endswith(b"0\r\n\r\n") and got.count(b"data: ") == 3
        sim.post("/control", {"fail_cut_after": 0, "fail_rst_after": 2})
        assert recv_for(sim.raw(post_bytes("/v1/chat/completions", chat("x", 9, True))), 0.5)[1] == "rst"
        sim.post("/control", {"fail_rst_after": 0, "fail_500_every": 2})
        assert {sim.post("/v1/chat/completions", chat("x")).status_code for _ in "ab"} == {200, 500}


def test_sigterm_llama_pings_once_and_truncates():
    with Sim("--decode-tps", 100) as sim:
        s = sim.raw(post_bytes("/v1/chat/completions", chat("x", 1000, True)))
        recv_until(s, b"data: ")
        idle = sim.raw(GET_HEALTH)
        recv_until(idle, b'"ok"}')
        t = time.monotonic()
        sim.p.send_signal(signal.SIGTERM)
        assert recv_for(idle, 0.5) == (b"", "eof")
        with pytest.raises(ConnectionRefusedError):
            sim.raw()
        got, end = recv_for(s, 3)
        assert end == "eof" and got.endswith(b"3\r\n:\n\n\r\n") and 1.9 < time.monotonic() - t < 2.5


def test_sigterm_uvicorn_finishes_what_runs():
    with Sim("--decode-tps", 100, manner="uvicorn") as sim:
        s = sim.raw(post_bytes("/v1/chat/completions", chat("x", 20, True)))
        recv_until(s, b"data: ")
        sim.p.send_signal(signal.SIGTERM)
        got, end = recv_for(s, 2)
        assert end == "eof" and got.endswith(b"0\r\n\r\n")
