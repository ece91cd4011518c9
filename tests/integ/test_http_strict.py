# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What two implementations could read in two ways is refused, and nothing of it is forwarded."""
import json
import signal
import time

import pytest

from harness import NO_CHECKS, unacked, wait_until
from http_help import BAD_CHUNKS
from rawserver import chunked, pattern, reply

KIB = 1024


def get(*fields, line=b"GET / HTTP/1.1", host=True):
    lines = [line] + [b"Host: test"] * host + list(fields)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def post(*fields, body=b""):
    return get(*fields, line=b"POST / HTTP/1.1") + body


def check_refusal(client, status, code=None):
    """An error answer in OpenAI's shape, said to be the last, and then the end."""
    got, fields, body = client.answer()
    error = json.loads(body)["error"]
    assert got == status, error
    assert fields["content-type"] == "application/json"
    assert fields["connection"] == "close"
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == ("invalid_request_error" if status < 500 else "server_error")
    assert error["message"] and error["param"] is None
    assert code is None or error["code"] == code
    assert client.ended() == "fin"
    assert client.buf == b""


FRAMING = {
    "both lengths": (post(b"Content-Length: 5", b"Transfer-Encoding: chunked",
                          body=b"0\r\n\r\n"), "content_length_and_chunked"),
    "both lengths, the other way round": (
        post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"),
        "content_length_and_chunked"),
    "two different lengths": (post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello!"),
                              "repeated_content_length"),
    "two equal lengths": (post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"),
                          "repeated_content_length"),
    **{f"Content-Length: {value!r}": (post(b"Content-Length: " + value, body=b"hello"),
                                      "bad_content_length")
       for value in (b"5, 5", b"+5", b"-5", b"0x5", b"5 5", b"5;", b"", b"  ", b"five", b"5.0",
                     b"1" * 19, b"\xb2", b"1_0", b"'5'")},
    **{f"Transfer-Encoding: {value!r}": (
        post(b"Transfer-Encoding: " + value, body=chunked(b"hello")), "bad_transfer_encoding")
       for value in (b"gzip", b"gzip, chunked", b"chunked, chunked", b"chunked, identity",
                     b"identity", b"xchunked", b"chunked;q=1", b'"chunked"', b"", b",chunked",
                     b"chunked,", b"chunked\xa0")},
    "two transfer codings": (post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked",
                                  body=chunked(b"hello")), "bad_transfer_encoding"),
    "Transfer-Encoding with a vertical tab": (
        post(b"Transfer-Encoding: \x0bchunked", body=chunked(b"hello")), "control_byte"),
    "chunked in HTTP/1.0": (get(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0")
                            + chunked(b"hello"), "bad_transfer_encoding"),
    "a blank before the colon": (post(b"Content-Length : 5", body=b"hello"), "bad_field_name"),
    "a tab before the colon": (post(b"Transfer-Encoding\t: chunked", body=chunked(b"x")), None),
}

LINES = {
    "bare LF everywhere": (b"GET / HTTP/1.1\nHost: test\n\n", "bare_lf"),
    "one bare LF": (b"GET / HTTP/1.1\r\nHost: test\nX: y\r\n\r\n", "bare_lf"),
    "a bare LF at the end": (b"GET / HTTP/1.1\r\nHost: test\r\n\n", "bare_lf"),
    "a bare CR in a value": (get(b"X: a\rb"), "bare_cr"),
    "a bare CR before a field": (get(b"\rX: a"), None),
    "CR CR LF": (get(b"X: a\r"), "bare_cr"),
    "CR CR LF at the end": (b"GET / HTTP/1.1\r\nHost: test\r\n\r\r\n", "bare_cr"),
    "NUL in a value": (get(b"X: a\0b"), "control_byte"),
    "NUL in a name": (get(b"X\0: a"), "control_byte"),
    "NUL in the target": (get(line=b"GET /\0 HTTP/1.1"), "control_byte"),
    "a control byte in a value": (get(b"X: a\x01b"), "control_byte"),
    "DEL in a value": (get(b"X: a\x7fb"), "control_byte"),
    "folding by a blank": (get(b"X: a", b" b"), "obs_fold"),
    "folding by a tab": (get(b"X: a", b"\tb"), "obs_fold"),
    "folding of the first field": (get(b" X: a", host=False), "obs_fold"),
    "a field without a colon": (get(b"X"), None),
    "a field without a name": (get(b": x"), "bad_field_name"),
    "a blank in a name": (get(b"X Y: a"), "bad_field_name"),
    "a name beyond ASCII": (get(b"X\xe9: a"), "bad_field_name"),
    "a bracket in a name": (get(b"X[0]: a"), "bad_field_name"),
    "no Host": (get(host=False), "bad_host"),
    "two Hosts": (get(b"Host: test"), "bad_host"),
    "a Host with a blank": (get(b"Host: a b", host=False), "bad_host"),
    "two blanks in the request line": (get(line=b"GET  / HTTP/1.1"), "bad_target"),
    "a tab in the request line": (get(line=b"GET\t/ HTTP/1.1"), None),
    "a blank before the method": (get(line=b" GET / HTTP/1.1"), "bad_method"),
    "no target": (get(line=b"GET HTTP/1.1"), "bad_target"),
    "a target without a slash": (get(line=b"GET model HTTP/1.1"), "bad_target"),
    "GET *": (get(line=b"GET * HTTP/1.1"), "bad_target"),
    "another scheme": (get(line=b"GET ftp://x/ HTTP/1.1"), "bad_target"),
    "a fragment": (get(line=b"GET /a#b HTTP/1.1"), "bad_target"),
    "a target beyond ASCII": (get(line=b"GET /\xc3\xa9 HTTP/1.1"), "bad_target"),
    "HTTP/0.9": (b"GET /\r\n", None),
    "a method beyond ASCII": (get(line=b"G\xc9T / HTTP/1.1"), "bad_method"),
    "a method with a bracket": (get(line=b"G(T / HTTP/1.1"), "bad_method"),
    "a method of 33 letters": (get(line=b"M" * 33 + b" / HTTP/1.1"), "bad_method"),
    "five empty lines": (b"\r\n" * 5 + get(), "bad_method"),
    "a CR without LF before the request": (b"\r" + get(), "bare_cr"),
    "SOCKS": (b"\x05\x01\x00", None),
    "PROXY protocol": (b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + get(), None),
}

HTTP_2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
TLS = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 100

VERSIONS = [b"HTTP/2.0", b"HTTP/1.2", b"HTTP/1.10", b"HTTP/0.9", b"http/1.1", b"HTTP/1.1 ",
            b"HTTP/1,1", b"HTPP/1.1", b"HTTP/11", b"HTTP/ 1.1"]

def refusals(start, cases, status, *args):
    """Every case at once and byte by byte; the server must see no connection at all."""
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS, *args)
    for name, (data, code) in cases.items():
        for pieces in ([data], [data[i:i + 1] for i in range(len(data))]):
            if len(pieces) > 200:
                continue
            client = start.client(kvpin)
            try:
                for piece in pieces:
                    client.send(piece)
            except (BrokenPipeError, ConnectionResetError):
                pass
            try:
                check_refusal(client, status, code)
            except (AssertionError, EOFError, OSError, ValueError) as error:
                raise AssertionError(f"{name}, {len(pieces)} pieces: {error!r}") from error
    assert (raw.connections, raw.requests) == (0, [])
    assert {row["outcome"] for row in kvpin.wait_requests(len(cases))} == {"refused"}


def test_ambiguous_framing_is_refused(start):
    refusals(start, FRAMING, 400)


def test_malformed_lines_are_refused(start):
    refusals(start, LINES, 400)


def test_other_versions_are_refused(start):
    cases = {str(v): (get(line=b"GET / " + v), "bad_version") for v in VERSIONS}
    cases["a target with a blank"] = (get(line=b"GET /a b HTTP/1.1"), "bad_version")
    refusals(start, cases, 505)


@pytest.mark.parametrize("data, status, code, words", [
    pytest.param(HTTP_2, 505, "bad_version", "HTTP/2 is not spoken here", id="HTTP/2"),
    pytest.param(TLS, 400, "control_byte", "TLS is not spoken here", id="TLS")])
def test_what_is_spoken_by_mistake_is_refused_by_name(start, data, status, code, words):
    refusals(start, {words: (data, code)}, status)
    kvpin = start.kvpin(start.sims(1), *NO_CHECKS)
    client = start.client(kvpin)
    client.send(data)
    answer = client.answer()
    assert answer[0] == status
    assert words in json.loads(answer[2])["error"]["message"]
    assert kvpin.metrics()[f'kvpin_http_errors_total{{reason="{code}"}}'] == 1


def test_connect_is_not_supported(start):
    refusals(start, {"CONNECT": (get(line=b"CONNECT test:443 HTTP/1.1"),
                                 "connect_not_supported")}, 501)


def test_malformed_chunks_that_come_with_the_head_are_refused(start):
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS)
    for name, (body, code) in BAD_CHUNKS.items():
        # Asleep until all of it is there: a read that has but the beginning asks the server.
        kvpin.suspend()
        client = start.client(kvpin)
        client.send(post(b"Transfer-Encoding: chunked", body=body))
        wait_until(lambda: unacked(client.sock) == 0)
        kvpin.kill(signal.SIGCONT)
        try:
            check_refusal(client, 400, code)
        except (AssertionError, EOFError, OSError) as error:
            raise AssertionError(f"{name}: {error!r}") from error
        assert (raw.connections, [r.list for r in raw.requests]) == (0, []), name


def test_malformed_chunks_that_come_later_reset_the_server_and_are_not_forwarded(start):
    begun, seen = set(), {}

    def script(conn):
        case = conn.request_head().fields["x-case"]
        begun.add(case)
        end = conn.ended(5)
        seen[case] = (end, conn.buf)

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS)
    for i, (name, (body, code)) in enumerate(BAD_CHUNKS.items()):
        client = start.client(kvpin)
        client.send(post(b"Transfer-Encoding: chunked", b"X-Case: %d" % i, body=b"3\r\nabc\r\n"))
        # Else kvpin may read both together, and asks no server.
        wait_until(lambda: str(i) in begun)
        client.send(body)
        try:
            check_refusal(client, 400, code)
        except (AssertionError, EOFError, OSError) as error:
            raise AssertionError(f"{name}: {error!r}") from error
    deadline = time.monotonic() + 5
    while len(seen) < len(BAD_CHUNKS) and time.monotonic() < deadline:
        time.sleep(0.01)
    for i, name in enumerate(BAD_CHUNKS):
        end, body = seen[str(i)]
        assert (end, body) == ("rst", b"3\r\nabc\r\n"), name


def test_what_follows_a_refused_request_is_not_looked_at(start):
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    client.send(get(b"Content-Length: x") + get(line=b"GET /smuggled HTTP/1.1"))
    check_refusal(client, 400)
    client = start.client(kvpin)
    client.send(get(line=b"GET /good HTTP/1.1") + get(b"X: \0") + get())
    assert client.answer()[2] == b"raw0"
    check_refusal(client, 400, "control_byte")
    assert [r.target for r in raw.requests] == ["/good"]


def test_a_refusal_does_not_wait_for_the_rest_of_the_head(start):
    kvpin = start.kvpin([start.raw()], *NO_CHECKS)
    client = start.client(kvpin)
    client.send(b"GET / HTTP/1.1\r\nHost : te")
    check_refusal(client, 400, "bad_field_name")


def test_a_refusal_reaches_a_client_that_goes_on_sending(start):
    """Unread bytes would turn the close into a RST, which destroys the answer on its way."""
    kvpin = start.kvpin([start.raw()], *NO_CHECKS)
    for _ in range(10):
        client = start.client(kvpin)
        client.send(post(b"Content-Length: 5, 5"))
        for _ in range(20):
            client.send(pattern(10000))
            time.sleep(0.0005)
        check_refusal(client, 400, "bad_content_length")


def test_a_client_that_floods_after_its_refusal_does_not_stop_the_others(start):
    kvpin = start.kvpin([start.raw()], *NO_CHECKS, "--workers", "1")
    client = start.client(kvpin, timeout=5)
    client.send(get(b"X: \0"))
    end = time.monotonic() + 1.0
    other = start.client(kvpin)
    took = []
    client.sock.setblocking(False)
    blob = pattern(1 << 20)
    while time.monotonic() < end:
        try:
            client.sock.send(blob)
        except BlockingIOError:
            pass
        except OSError:
            break
        began = time.monotonic()
        assert other.request("GET", "/")[2] == b"raw0"
        took.append(time.monotonic() - began)
    # A worker that reads the flood to its end answers once; the machine may stand still once.
    assert len(took) >= 3 and sorted(took)[len(took) // 2] < 0.3, took


# ---- limits


def head_of(size, line=b"GET / HTTP/1.1"):
    """A head of exactly that many bytes."""
    empty = len(get(b"X-Pad: ", line=line))
    return get(b"X-Pad: " + b"p" * (size - empty), line=line)


@pytest.mark.parametrize("limit", [None, 1 * KIB, 5000])
def test_the_head_limit_is_exact(start, limit):
    args = ["--limit-head", f"{limit}B"] if limit else []
    limit = limit or 32 * KIB
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS, *args)
    for split in (0, 1, 500):
        client = start.client(kvpin)
        for size in (limit - 1, limit):
            head = head_of(size)
            client.send(head[:split])
            time.sleep(0.002 * bool(split))
            client.send(head[split:])
            assert client.answer()[2] == b"raw0"
            assert raw.requests[-1].raw == head
        client = start.client(kvpin)
        head = head_of(limit + 1)
        client.send(head[:split])
        time.sleep(0.002 * bool(split))
        client.send(head[split:])
        check_refusal(client, 431, "head_too_large")
    assert len(raw.requests) == 6


def test_a_target_that_fills_the_limit_is_too_long(start):
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    longest = 32 * KIB - len(get(line=b"GET  HTTP/1.1"))
    client.send(get(line=b"GET /" + b"a" * (longest - 1) + b" HTTP/1.1"))
    assert client.answer()[2] == b"raw0"
    client.send(get(line=b"GET /" + b"a" * 40000 + b" HTTP/1.1"))
    check_refusal(client, 414, "target_too_long")
    assert len(raw.requests[0].target) == longest


@pytest.mark.parametrize("limit", [100, 5])
def test_the_field_limit_is_exact(start, limit):
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS, *(["--limit-fields", str(limit)] if limit < 100 else []))
    client = start.client(kvpin)
    client.send(get(*[b"X-%d: y" % i for i in range(limit - 1)]))
    assert client.answer()[2] == b"raw0"
    client.send(get(*[b"X-%d: y" % i for i in range(limit)]))
    check_refusal(client, 431, "too_many_fields")
    assert [len(r.list) for r in raw.requests] == [limit]


def test_chunk_lines_and_trailers_up_to_their_limits_pass(start):
    bodies = [b"5;" + b"a" * 1000 + b"\r\nhello\r\n0\r\n\r\n",
              b"0" * 14 + b"5\r\nhello\r\n0\r\n\r\n",
              b"5\r\nhello\r\n0\r\n" + b"X: y\r\n" * 1300 + b"\r\n"]

    def script(conn):
        for body in bodies:
            conn.request_head()
            assert conn.exactly(len(body)) == body
            conn.send(reply(b"ok"))

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS)
    client = start.client(kvpin)
    for body in bodies:
        client.send(post(b"Transfer-Encoding: chunked", body=body))
        assert client.answer()[2] == b"ok"


def test_a_very_large_declared_length_does_not_overflow(start):
    def script(conn):
        request = conn.request_head()
        assert request.fields["content-length"] == "9" * 18
        assert conn.exactly(5) == b"hello"
        conn.send(reply(b"", "413 Payload Too Large"))
        conn.ended()

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS)
    client = start.client(kvpin)
    client.send(post(b"Content-Length: " + b"9" * 18, body=b"hello"))
    assert client.answer()[0] == 413
