# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Answers that are malformed or break off: a broken answer never looks like a good one."""
import json
import socket
import threading
import time

import pytest

from harness import NO_CHECKS, taken, wait_until
from http_help import BAD_CHUNKS, get
from rawserver import pattern, serve_ok


# ---- what servers get wrong


OK = b"HTTP/1.1 200 OK\r\n"
BAD_HEADS = {
    "both lengths": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nEVIL!\r\n"
                         b"0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nEVIL!!",
    "two equal lengths": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nEVIL!",
    "a length that is none": OK + b"Content-Length: 5x\r\n\r\nEVIL!",
    "a negative length": OK + b"Content-Length: -5\r\n\r\nEVIL!",
    "another coding": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nEVIL!\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                           b"5\r\nEVIL!\r\n0\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 5\n\nEVIL!",
    "one bare LF": OK + b"X: y\nContent-Length: 5\r\n\r\nEVIL!",
    "bare CR": OK + b"X: a\rSet-Cookie: EVIL\r\nContent-Length: 5\r\n\r\nEVIL!",
    "NUL": OK + b"X: a\0b\r\nContent-Length: 5\r\n\r\nEVIL!",
    "folding": OK + b"X: a\r\n EVIL\r\nContent-Length: 5\r\n\r\nEVIL!",
    "a blank before the colon": OK + b"Content-Length : 5\r\n\r\nEVIL!",
    "no status": b"HTTP/1.1 OK\r\nContent-Length: 5\r\n\r\nEVIL!",
    "a status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\nEVIL!",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\nEVIL!",
    "status 000": b"HTTP/1.1 000 OK\r\nContent-Length: 5\r\n\r\nEVIL!",
    "HTTP/2": b"HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nEVIL!",
    "no HTTP": b"EVIL! I am an echo server\r\n",
    "an empty line first": b"\r\n" + OK + b"Content-Length: 5\r\n\r\nEVIL!",
    "a head of 64 KiB": OK + b"X: " + b"EVIL" * 16384 + b"\r\nContent-Length: 5\r\n\r\nEVIL!",
    "too many fields": OK + b"X: y\r\n" * 101 + b"Content-Length: 5\r\n\r\nEVIL!",
    "half a head": OK + b"X: EVIL\r\nConte",
    "half a status line": b"HTTP/1.1 2",
}


def check_bad_answers(start, cases, check):
    current = []

    def script(conn):
        while conn.read():
            name, data = current[0]
            for piece in ([data] if not name.endswith("*") else
                          [data[:len(data) // 2], data[len(data) // 2:]]):
                conn.send(piece)
                time.sleep(0.003)
            conn.half_close()
            conn.ended(5)
            return

    raw = start.raw(script)
    kvpin = start.kvpin([raw], *NO_CHECKS)
    for name, data in list(cases.items()) + [(n + "*", d) for n, d in cases.items()]:
        current[:] = [(name, data)]
        client = start.client(kvpin)
        client.send(get("/"))
        try:
            check(client)
        except (AssertionError, EOFError, OSError) as error:
            raise AssertionError(f"{name}: {error!r}") from error
    assert len(raw.requests) == 2 * len(cases)  # none was sent twice
    rows = kvpin.wait_requests(2 * len(cases))
    assert {row["outcome"] for row in rows} <= {"bad_answer", "truncated"}


def test_malformed_answer_heads_become_502_and_nothing_of_them_is_shown(start):
    def check(client):
        status, fields, body = client.answer()
        assert status == 502
        assert json.loads(body)["error"]["code"] == "bad_answer"
        assert b"EVIL" not in body and not {"x", "set-cookie"} & set(fields)

    check_bad_answers(start, BAD_HEADS, check)


def test_malformed_answer_chunks_become_502_or_break_the_answer_off(start):
    """502 where kvpin had not yet passed on anything."""
    head = OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nGOOD\r\n"
    cases = {name: head + body.replace(b"hello", b"EVIL!")
             for name, (body, _) in BAD_CHUNKS.items()}

    def check(client):
        status, _, _ = client.head()
        ends.append(status)
        if status == 502:
            client.buf = b""
            assert client.ended(0.01) is None  # it may go on
            return
        assert client.ended() == "rst"
        assert client.buf.startswith(b"4\r\nGOOD\r\n"[:len(client.buf)])
        assert not client.buf.endswith(b"0\r\n\r\n")

    ends = []
    check_bad_answers(start, cases, check)
    assert set(ends) == {200, 502}


def test_a_client_may_go_on_after_a_502(start):
    def script(conn):
        if conn.server.connections == 1:
            conn.read()
            conn.send(BAD_HEADS["NUL"])
            conn.ended()
        else:
            serve_ok(conn)

    raw = start.raw(script)
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    assert client.request("GET", "/")[0] == 502
    assert client.request("GET", "/")[2] == b"raw0"
    assert raw.connections == 2


def test_the_simulated_servers_faults_never_look_like_good_answers(start):
    kvpin = start.kvpin([start.sim()])
    for kind in ("tecl", "dupcl", "badcl", "badte", "barelf", "nul", "bigHead"):
        client = start.client(kvpin)
        assert client.request("GET", f"/badframing?kind={kind}")[0] == 502, kind
    client = start.client(kvpin)
    status, _, body = client.request("GET", "/badframing?kind=badchunk")
    assert status == 502 and b"world" not in body
    client = start.client(kvpin)
    assert client.request("GET", "/partial_head")[0] == 502


# ---- truncation


TRUNCATED = {
    "length": (OK + b"Content-Length: 100000\r\n\r\n", lambda b: b),
    "chunked": (OK + b"Transfer-Encoding: chunked\r\n\r\n", lambda b: b"%x\r\n%s" % (len(b) + 1, b)),
    "chunked, between chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n",
                                lambda b: b"%x\r\n%s\r\n" % (len(b), b)),
    "chunked, before the last LF": (OK + b"Transfer-Encoding: chunked\r\n\r\n",
                                    lambda b: b"%x\r\n%s\r\n0\r\n\r" % (len(b), b)),
    "close-delimited": (OK + b"\r\n", lambda b: b),
}


@pytest.mark.parametrize("end", ["fin", "rst"])
@pytest.mark.parametrize("kind", list(TRUNCATED))
def test_a_truncated_answer_is_a_truncation_for_the_client(start, kind, end):
    """All bytes that came, and then a RST; but a FIN does end a close-delimited answer."""
    head, framed = TRUNCATED[kind]

    def script(conn):
        request = conn.read()
        size, pause = (int(v) for v in request.target[1:].split("/"))
        conn.send(head + framed(pattern(size)))
        if pause:
            wait_until(lambda: taken(conn.sock))
        if end == "rst":
            conn.reset()

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS)
    # Without a pause a RST may overtake the bytes in kvpin's own socket; then nothing was "before".
    cases = [(size, pause) for size in (1, 1000, 15872, 99000) for pause in (0, 1)]
    for size, pause in cases:
        if end == "rst" and not pause:
            continue
        client = start.client(kvpin)
        client.send(get(f"/{size}/{pause}"))
        status, _, _ = client.head()
        wanted = "fin" if kind == "close-delimited" and end == "fin" else "rst"
        assert (status, client.ended()) == (200, wanted), (size, pause)
        assert client.buf == framed(pattern(size)), (size, pause)
    outcome = "ok" if kind == "close-delimited" and end == "fin" else "truncated"
    assert {row["outcome"] for row in kvpin.wait_requests(1)} == {outcome}


@pytest.mark.parametrize("kind", list(TRUNCATED))
def test_an_answer_reset_at_once_never_ends_cleanly(start, kind):
    head, framed = TRUNCATED[kind]

    def script(conn):
        conn.read()
        conn.send(head + framed(pattern(5000)))
        conn.reset()

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS)
    for _ in range(30):
        client = start.client(kvpin)
        client.send(get("/"))
        if client.ended() == "fin":
            # Nothing had reached kvpin: then it is an error answer.
            assert client.answer()[0] == 502
        else:
            assert framed(pattern(5000)).startswith(client.buf.partition(b"\r\n\r\n")[2])


def test_a_reset_seen_while_uploading_is_no_clean_end_of_the_answer(start):
    """send() is told of the RST, and then recv() says 0, as if it were a FIN."""
    stuck = threading.Event()

    def script(conn):
        conn.request_head()
        conn.send(OK + b"\r\npart of the answer")
        stuck.wait(10)
        conn.reset()

    kvpin = start.kvpin([start.raw(script, rcvbuf=8192)], *NO_CHECKS)
    for _ in range(3):
        stuck.clear()
        client = start.client(kvpin)
        client.send(get("/", "Content-Length: 100000000", method="POST"))
        client.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            while True:
                client.sock.sendall(pattern(1 << 20))
        client.sock.settimeout(10)
        while not client.buf.endswith(b"part of the answer"):
            assert client.more()
        stuck.set()
        assert client.ended() == "rst"
        assert client.buf == OK + b"Connection: close\r\n\r\npart of the answer"


@pytest.mark.parametrize("end", ["fin", "rst"])
def test_a_slow_reader_gets_all_bytes_of_a_broken_answer_before_the_end(start, end):
    size = 3000000

    def script(conn):
        conn.read()
        conn.send(OK + b"Content-Length: 99999999\r\n\r\n" + pattern(size))
        if end == "fin":
            return
        # Until kvpin has read all of it: what it has not read, a RST may take from it.
        wait_until(lambda: taken(conn.sock))
        conn.reset()

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS)
    client = start.client(kvpin)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.send(get("/"))
    assert client.head()[0] == 200
    got = len(client.buf)
    try:
        while got < size:
            data = client.sock.recv(30000)
            assert data, "a clean end"
            got += len(data)
            time.sleep(0.02)
    except ConnectionResetError:
        pass
    assert got == size
    assert client.ended() == "rst"


def test_a_stream_that_the_model_server_breaks_off_is_a_truncation(start):
    kvpin = start.kvpin(start.sims(1))
    for fault in ("trunc", "rst"):
        client = start.client(kvpin)
        client.send(get(f"/sse/20/1000/100?{fault}=7"))
        assert client.ended() == "rst"
        assert client.buf.count(b"data: ") == 7
    rows = kvpin.wait_requests(2)
    assert [row["outcome"] for row in rows] == ["truncated"] * 2
