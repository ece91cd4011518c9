# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Heads through kvpin: what passes byte for byte, what is taken out, what is added."""
import re

from harness import NO_CHECKS, Client
from http_help import get, post
from rawserver import reply, serve_ok


def test_empty_lines_before_a_request_are_skipped(start):
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    for lines in range(5):
        client.send(b"\r\n" * lines + get("/"))
        assert client.answer()[2] == b"raw0"
    for request in raw.requests:
        assert request.raw == get("/")


def test_every_form_of_a_target_passes_unchanged(start):
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    targets = ["/", "/a/b?c=d&e=%20f", "//double", "/../x", "http://other.example/x?y",
               "https://other.example/", "/" + "long" * 2000, "/a;b=c:d@e!$&'()*+,~{}|^`\"<>\\[]"]
    for target in targets:
        client.send(get(target))
        assert client.answer()[2] == b"raw0"
    client.send(get("*", method="OPTIONS"))
    assert client.answer()[2] == b"raw0"
    assert [r.target for r in raw.requests] == targets + ["*"]
    assert {r.fields["host"] for r in raw.requests} == {"test"}


def test_a_head_without_hop_by_hop_fields_passes_byte_for_byte(start):
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    heads = [b"GET / HTTP/1.1\r\nhOST:   test  \r\nX-Empty:\r\nX-Tab:\ta\tb\r\n"
             b"Cookie: a=b\r\nCookie: c=d\r\nX-\xe4!#$%&'*+.^_`|~: x\r\n\r\n".replace(b"\xe4", b""),
             b"PATCH /x HTTP/1.1\r\nHost:\r\nX-Obs: caf\xe9 \xff\r\nX-Session-Id: S\r\n\r\n",
             b"DELETE /x HTTP/1.1\r\nHost: [::1]:8080\r\nContent-Length: 0\r\n\r\n"]
    for head in heads:
        client.send(head)
        assert client.answer()[2] == b"raw0"
    assert [r.raw for r in raw.requests] == heads


def test_hop_by_hop_fields_are_removed_from_requests(start):
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    client.send(get("/", "Connection: X-Hop , keep-alive,TE", "x-hop: secret", "Keep-Alive: 5",
                    "TE: trailers", "Proxy-Connection: keep-alive", "X-Kept: yes",
                    "Upgrade: h2c", "Connection: X-Other", "X-OTHER: secret", "X-Hopper: kept"))
    assert client.answer()[2] == b"raw0"
    assert raw.requests[0].list == [("Host", "test"), ("X-Kept", "yes"), ("X-Hopper", "kept")]


def test_what_frames_or_routes_a_request_is_not_removed_on_the_clients_word(start):
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    client.send(post("/", b"body", "Connection: content-length, host, authorization, close",
                     "Authorization: Bearer x"))
    assert client.answer("POST")[2] == b"raw0"
    assert client.ended() == "fin"
    assert raw.requests[0].body == b"body"
    assert raw.requests[0].fields == {"host": "test", "content-length": "4",
                                      "authorization": "Bearer x"}


def test_hop_by_hop_fields_are_removed_from_answers(start):
    def script(conn):
        conn.read()
        conn.send(b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=100\r\nX-Kept: yes\r\n"
                  b"Connection: keep-alive, X-Hop\r\nX-Hop: secret\r\nProxy-Connection: close\r\n"
                  b"Upgrade: h2c\r\nContent-Length: 2\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\nhi")
        serve_ok(conn)

    raw = start.raw(script)
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    client.send(get("/"))
    _, _, head = client.head()
    assert head == (b"HTTP/1.1 200 OK\r\nX-Kept: yes\r\nContent-Length: 2\r\n"
                    b"Set-Cookie: a\r\nSet-Cookie: b\r\n\r\n")
    assert client.exactly(2) == b"hi"
    assert client.request("GET", "/")[2] == b"raw0"
    assert raw.connections == 1


def test_a_servers_close_is_its_own_and_not_the_clients(start):
    def script(conn):
        conn.read()
        conn.send(reply(b"one", "200 OK", "Connection: close"))

    raw = start.raw(script)
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    for count in range(1, 6):
        _, fields, body = client.request("GET", "/")
        assert body == b"one" and "connection" not in fields
        assert raw.connections == count


def test_a_clients_close_is_honoured_and_answered_with_close(start):
    kvpin = start.kvpin(start.sims(1))
    for value in ("close", "Close", "keep-alive, close"):
        client = start.client(kvpin)
        _, fields, _ = client.request("GET", "/json", {"Connection": value})
        assert fields["connection"] == "close"
        assert client.ended() == "fin"


def test_x_forwarded_for_is_appended_when_asked_for(start):
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS, "--forwarded-for")
    client = start.client(kvpin)
    client.request("GET", "/")
    client.request("GET", "/", {"X-Forwarded-For": "10.1.2.3, 10.4.5.6"})
    lists = [[v for k, v in r.list if k.lower() == "x-forwarded-for"] for r in raw.requests]
    assert lists == [["127.0.0.1"], ["10.1.2.3, 10.4.5.6", "127.0.0.1"]]


def test_an_ipv4_client_of_a_listener_for_both_families_is_told_as_ipv4(start):
    """::ffff:127.0.0.1 is a socket's way to say it, and no list of addresses has that."""
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS, "--forwarded-for", listen="[::]:0")
    client = Client(("127.0.0.1", kvpin.addr[1]))
    client.send(b"GET /json HTTP/1.0\r\n\r\n")
    assert client.answer()[0] == 200
    client.close()
    fields = raw.requests[0].fields
    assert fields["x-forwarded-for"] == "127.0.0.1"
    assert fields["host"] == f"127.0.0.1:{kvpin.addr[1]}"
    assert re.fullmatch(r"127\.0\.0\.1:\d+", kvpin.wait_requests(1)[0]["client"])


def test_x_forwarded_for_names_an_ipv6_client(start):
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS, "--forwarded-for", listen="[::1]:0")
    start.client(kvpin).request("GET", "/")
    assert raw.requests[0].fields["x-forwarded-for"] == "::1"


def test_host_is_preserved(start):
    raw = start.raw()
    kvpin = start.kvpin([raw], *NO_CHECKS)
    client = start.client(kvpin)
    for host in ("api.example.com", "EXAMPLE:8080", "[::1]", ""):
        client.send(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive\r\n\r\n")
        client.answer()
    assert [r.fields["host"] for r in raw.requests] == ["api.example.com", "EXAMPLE:8080",
                                                        "[::1]", ""]
