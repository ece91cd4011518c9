# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""kvpin-sim's heads and refusals, byte for byte against the captures of llama-server and uvicorn.

fixtures/*.json hold what was sent and the head that came back in each capture.
"""
import json

import pytest

from sim_help import END, GET_HEALTH, HERE, chat, normal, post_bytes, recv_for, recv_until


@pytest.mark.parametrize("name", ["llama", "uvicorn_httptools"])
def test_heads_equal_the_captures(name, request):
    sim = request.getfixturevalue(name.split("_")[0])
    rows = json.loads((HERE / "fixtures" / f"{name}.json").read_text())
    checked = 0
    for row in rows:
        s = sim.raw(row["send"].encode("latin1"))
        got, end = recv_for(s, 0.04) if row["recv"] else recv_for(s, 0.1, 0.1)
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
        got, end = recv_for(sim.raw(huge), END)
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
