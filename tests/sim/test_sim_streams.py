# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""kvpin-sim's streams and connections: their shape, what closes them, what an abort does.

Times are asked for only where a habit is a time (idle limit, abort notice).
"""
import json
import re
import socket
import struct
import time

import pytest

from sim_help import END, GET_HEALTH, Sim, chat, dechunk, pattern, post_bytes, recv_for, recv_until


def test_llama_stream_shape_and_close(llama):
    s = llama.raw(post_bytes("/v1/chat/completions", chat("shape", 4, True, stream_options={"include_usage": True})))
    got, end = recv_for(s, END)
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
    with Sim("--prefill-tps", 200, "--ping-ms", 100) as sim:
        s = sim.raw(post_bytes("/v1/chat/completions", chat("x" * 800, 1, True)))
        got, end = recv_for(s, END)
        body = got.partition(b"\r\n\r\n")[2]
        assert end == "eof" and 3 <= body.count(b"3\r\n:\n\n\r\n") <= 11
        assert body.startswith(b"3\r\n:\n\n\r\n") and dechunk(body)[1]


def test_llama_loses_pipelined_requests(llama):
    got, end = recv_for(llama.raw(GET_HEALTH * 3), 0.1)
    assert got.count(b"HTTP/1.1 200") == 1 and end == "open"


def test_llama_discards_bytes_sent_mid_stream():
    with Sim("--decode-tps", 100) as sim:
        s = sim.raw(post_bytes("/v1/chat/completions", chat("x", 8, True)))
        recv_until(s, b"\r\n\r\n")
        s.sendall(GET_HEALTH * 2)
        got, end = recv_for(s, END)
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
    got, end = recv_for(s, 0.5)
    assert end == "open" and got.count(b"HTTP/1.1 200 OK\r\n") == 5 and pattern(0, 3000000) in got
    assert b'{"bytes":70000,' in got and got.endswith(b"content-length: 0\r\n\r\n")


def test_idle_close():
    for manner in ("llama", "uvicorn"):
        with Sim("--idle-ms", 150, manner=manner) as sim:
            t = time.monotonic()
            silent, used, partial = sim.raw(), sim.raw(GET_HEALTH), sim.raw(b"GET /hea")
            assert recv_for(used, END)[1] == "eof" and 0.14 < time.monotonic() - t < 4
            if manner == "llama":
                assert recv_for(silent, END)[1] == "eof"
            else:
                assert recv_for(silent, 0.3, 0.3)[1] == "open"
            assert recv_for(partial, 0.05, 0.05)[1] == "open"


def test_hundredth_answer_closes(llama, uvicorn):
    s = llama.raw()
    for i in range(100):
        s.sendall(GET_HEALTH)
        head = recv_until(s, b'"ok"}')
        assert (b"Connection: close" in head) == (i == 99)
    assert recv_for(s, END) == (b"", "eof")
    s = uvicorn.raw()
    for i in range(150):
        s.sendall(GET_HEALTH)
        recv_until(s, b"\r\n\r\n")


@pytest.mark.parametrize("manner", ["llama", "uvicorn"])
def test_half_close(manner):
    with Sim("--decode-tps", 200, manner=manner) as sim:
        full = sim.raw(post_bytes("/v1/chat/completions", chat("x", 40)))
        full.shutdown(socket.SHUT_WR)
        got, end = recv_for(full, END)
        assert end == "eof" and got.startswith(b"HTTP/1.1 200" if manner == "llama" else b"")
        assert bool(got) == (manner == "llama")
        stream = sim.raw(post_bytes("/v1/chat/completions", chat("y", 1000, True)))
        recv_until(stream, b"data: ")
        stream.shutdown(socket.SHUT_WR)
        t = time.monotonic()
        got, end = recv_for(stream, END)
        # Not at its end, 5 s later.
        assert end == "eof" and not got.endswith(b"0\r\n\r\n") and time.monotonic() - t < 2
        assert sim.until("slots_busy", 0, 2)


def test_client_abort_frees_the_slot_when_the_manner_notices():
    with Sim("--slots", 8, "--prefill-tps", 100, "--decode-tps", 100) as sim:
        decode = sim.raw(post_bytes("/v1/chat/completions", chat("x", 1000, True)))
        recv_until(decode, b"data: ")
        decode.close()
        assert sim.until("aborts_decode", 1)
        assert 20 < sim.stats()["last_abort_notice_ms"] < 1000
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
        assert sim.until("slots_busy", 0)
        assert sim.stats()["aborts"] == 3
    with Sim("--slots", 2, "--prefill-tps", 100, manner="uvicorn") as sim:
        a = sim.raw(post_bytes("/v1/chat/completions", chat("p" * 4000, 4, True)))
        recv_until(a, b"\r\n\r\n")
        a.close()
        assert sim.until("slots_busy", 0, 3)


def test_queued_abort_leaves_the_queue_and_never_runs():
    with Sim("--slots", 1, "--decode-tps", 50, manner="uvicorn") as sim:
        one = sim.raw(post_bytes("/v1/chat/completions", chat("a", 60, True)))
        recv_until(one, b"data: ")
        two = sim.raw(post_bytes("/v1/chat/completions", chat("b", 10, True)))
        assert sim.until("queued", 1)
        assert recv_for(two, 0.03, 0.03) == (b"", "open")  # no head before a slot frees
        two.close()
        assert sim.until("queued", 0)
        assert recv_for(one, 0.5)[0].endswith(b"0\r\n\r\n")
        assert sim.stats()["aborts_queued"] == 1
