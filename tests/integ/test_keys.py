# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What names a session: headers, cookies, query parameters, JSON fields, addresses; requests
without a key; sidecar calls."""
import json
import re
import time

import pytest

from harness import NO_CHECKS, wait_until

VERIFY = {"x-sim-verify": "1"}
UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


def keys(*sources):
    return [part for source in sources for part in ("--session-key", source)]


def ask(client, path="/json", headers=(), body=None, method=None):
    """The server that answered, and the answer's fields."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    status, fields, _ = client.request(method or ("POST" if body is not None else "GET"), path,
                                       {**VERIFY, **dict(headers)}, data)
    assert status == 200, (status, fields)
    return fields["x-sim-server"], fields


def server(*args, **options):
    return ask(*args, **options)[0]


def chunked(client, path, pieces, headers=()):
    client.send(f"POST {path} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n"
                + "".join(f"{k}: {v}\r\n" for k, v in {**VERIFY, **dict(headers)}.items())
                + "\r\n")
    for piece in pieces:
        client.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        time.sleep(0.02)
    client.send(b"0\r\n\r\n")
    status, fields, body = client.answer("POST")
    assert status == 200
    return fields["x-sim-server"], body


def by_header(client, key):
    return server(client, headers={"X-Session-Id": key})


def by_cookie(client, key):
    return server(client, headers={"Cookie": f'theme=dark; sid="{key}"; a=b'})


def by_query(client, key):
    quoted = "".join(f"%{b:02X}" for b in key.encode())
    return server(client, f"/json?a=b&conv%5fid={quoted}&c")


def by_json(client, key):
    return server(client, "/sink", body={"messages": [{"role": "user", "content": "x"}],
                                         "metadata": {"a": [1, {"session_id": "no"}],
                                                      "session_id": key}})


WAYS = [by_header, by_cookie, by_query, by_json]


def test_one_text_is_one_session_wherever_it_stands(start):
    kvpin = start.kvpin(start.sims(4), *keys("header=X-Session-Id", "cookie=sid", "query=conv_id",
                                             "json=metadata.session_id"))
    client = start.client(kvpin)
    for i, key in enumerate(["abc", "a b+c", "x" * 300]):
        way = WAYS[i % len(WAYS)]
        owner = way(client, key)
        for other in WAYS:
            assert {other(client, key) for _ in range(3)} == {owner}, other
    for i in range(5):
        by_json(client, f"s{i}")
    assert [b["sessions"] for b in kvpin.status("backends")["backends"]] == [2] * 4
    metrics = kvpin.metrics()
    assert metrics['kvpin_keys_total{source="cookie"}'] >= 9
    assert metrics['kvpin_keys_total{source="json"}'] >= 9
    assert metrics['kvpin_keyless_requests_total{fallback="balance"}'] == 0


def test_the_first_source_that_is_present_wins(start):
    kvpin = start.kvpin(start.sims(2), *keys("json=user", "header=X-A", "query=q"), *NO_CHECKS)
    client = start.client(kvpin)
    a = server(client, "/sink", {"X-A": "one"}, {"n": 1})
    b = server(client, "/sink?q=two", (), {"n": 1})
    assert a != b
    # The body's field outranks the header, the header the parameter.
    assert server(client, "/sink", {"X-A": "two"}, {"user": "one"}) == a
    assert server(client, "/sink?q=one", {"X-A": "two"}, {"user": ""}) == b
    assert server(client, "/sink?q=one", {"X-A": "two"}, {"user": None, "deep": {"user": "one"}}) == b
    assert server(client, "/sink?q=two", (), b"no json, user: one") == b
    assert server(client, "/sink?q=two", {"X-A": ""}, b'{"user": ["one"]}') == b


def test_a_number_and_an_escape_are_their_text(start):
    kvpin = start.kvpin(start.sims(2), *keys("json=user", "header=X-A"))
    client = start.client(kvpin)
    owners = {key: server(client, headers={"X-A": key}) for key in ("42", "true")}
    assert server(client, "/sink", (), b'{"user": 42}') == owners["42"]
    assert server(client, "/sink", (), b'{"user": true}') == owners["true"]
    assert server(client, "/sink", (), b'{"user": "\\u0034\\u0032"}') == owners["42"]


def test_a_zero_byte_is_no_key_and_a_repeated_key_is_counted(start):
    kvpin = start.kvpin(start.sims(2), *keys("query=q", "cookie=c"))
    client = start.client(kvpin)
    for _ in range(3):
        server(client, "/json?q=a%00b")
    server(client, headers=[("Cookie", "c=1; c=2")])
    metrics = kvpin.metrics()
    assert metrics['kvpin_keyless_requests_total{fallback="balance"}'] == 3
    assert metrics["kvpin_repeated_keys_total"] == 1
    server(client, headers=[("Cookie", "c=" + "y" * 300)])
    assert kvpin.metrics()["kvpin_long_keys_total"] == 1


def test_a_key_in_a_slow_chunked_body_is_waited_for(start):
    kvpin = start.kvpin(start.sims(2), *keys("json=prompt_cache_key", "header=X-A"))
    client = start.client(kvpin)
    owner = server(client, headers={"X-A": "k"})
    text = json.dumps({"messages": ["x" * 3000], "prompt_cache_key": "k", "more": "y" * 100}).encode()
    pieces = [text[at:at + 500] for at in range(0, len(text), 500)]
    for _ in range(2):
        found, body = chunked(client, "/sink", pieces)
        assert found == owner
        assert json.loads(body)["bytes"] == len(text)
    # ... byte by byte over the interesting part
    at = text.index(b"prompt_cache")
    pieces = [text[:at]] + [bytes([b]) for b in text[at:at + 25]] + [text[at + 25:]]
    assert chunked(client, "/sink", pieces)[0] == owner


def test_what_is_beyond_body_bytes_is_not_looked_at(start):
    kvpin = start.kvpin(start.sims(2), *keys("json=user", "header=X-A"), "--affinity-body", "4KiB")
    client = start.client(kvpin)
    other = server(client, headers={"X-A": "fill"})
    owner = server(client, headers={"X-A": "k"})
    assert owner != other
    near = json.dumps({"pad": "x" * 3000, "user": "k"}).encode()
    far = json.dumps({"pad": "x" * 5000, "user": "k"}).encode()
    assert server(client, "/sink", (), near) == owner
    assert server(client, "/sink", {"X-A": "fill"}, far) == other


def test_a_body_larger_than_all_that_is_held_streams_on(start):
    kvpin = start.kvpin(start.sims(2), *keys("json=user"), "--limit-hold", "16KiB")
    client = start.client(kvpin)
    body = json.dumps({"pad": "x" * 5_000_000, "user": "k"}).encode()
    status, _, answer = client.request("POST", "/sink", VERIFY, body)
    assert status == 200 and json.loads(answer)["bytes"] == len(body)
    body = json.dumps({"user": "k", "pad": "x" * 5_000_000}).encode()
    owners = {server(client, "/sink", (), body) for _ in range(4)}
    assert len(owners) == 1


def test_expect_100_continue_is_answered_here_when_the_body_decides(start):
    kvpin = start.kvpin(start.sims(2), *keys("json=user", "header=X-A"))
    client = start.client(kvpin)
    owner = server(client, headers={"X-A": "k"})
    body = json.dumps({"user": "k"}).encode()
    for _ in range(3):
        client.send(f"POST /sink HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n")
        assert client.head()[0] == 100
        client.send(body)
        status, fields, answer = client.head()[0], None, None
        assert status == 200  # and no second 100
        client.until(b"}")
    # With the key in the head it is the server's business, as ever.
    client.send(f"POST /head_echo HTTP/1.1\r\nHost: t\r\nX-A: k\r\nConnection: close\r\n"
                f"Expect: 100-continue\r\nContent-Length: 0\r\n\r\n")
    assert server(start.client(kvpin), headers={"X-A": "k"}) == owner


def test_a_body_that_stands_still_is_answered_408(start):
    kvpin = start.kvpin(start.sims(1), *keys("json=user"), "--timeout-body", "300ms")
    client = start.client(kvpin)
    begin = time.monotonic()
    client.send('POST /sink HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n{"user": ')
    status, fields, _ = client.answer("POST")
    assert status == 408 and fields["connection"] == "close"
    assert 0.25 < time.monotonic() - begin < 3
    assert client.ended() == "fin"
    # A client that leaves in the middle leaves nothing behind.
    client = start.client(kvpin)
    client.send('POST /sink HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n{"user": ')
    time.sleep(0.05)
    client.reset()
    assert server(start.client(kvpin), "/sink", (), {"user": "k"}) == "gpu0"
    # The client may have the answer before its end is in the books.
    wait_until(lambda: kvpin.metrics()['kvpin_backend_inflight{backend="gpu0"}'] == 0)


def test_malformed_chunks_are_refused_before_a_server_is_chosen(start):
    kvpin = start.kvpin(start.sims(1), *keys("json=user"))
    client = start.client(kvpin)
    client.send("POST /sink HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{ \r\n")
    time.sleep(0.05)
    client.send("x\r\n")
    assert client.answer("POST")[0] == 400
    assert kvpin.metrics()[
        'kvpin_requests_total{backend="gpu0",path="relay",outcome="refused"}'] == 0


def test_pipelined_requests_with_keys_in_their_bodies(start):
    kvpin = start.kvpin(start.sims(2), *keys("json=user"))
    client = start.client(kvpin)
    owners = {key: server(client, "/sink", (), {"user": key}) for key in "ab"}
    assert owners["a"] != owners["b"]
    text = b""
    for key in "abba":
        body = json.dumps({"user": key}).encode()
        text += b"POST /sink HTTP/1.1\r\nHost: t\r\nx-sim-verify: 1\r\nContent-Length: %d\r\n\r\n%s" \
            % (len(body), body)
    client.send(text)
    assert [client.answer("POST")[1]["x-sim-server"] for _ in "abba"] == [owners[k] for k in "abba"]


def test_the_agents_preset_knows_their_headers(start):
    kvpin = start.kvpin(start.sims(4), *keys("preset=agents"))
    client = start.client(kvpin)
    names = ["x-session-id", "x-claude-code-session-id", "x-session-affinity", "session_id",
             "X-SMG-Routing-Key", "X-Dynamo-Session-ID"]
    owners = [{server(client, headers={name: f"s{i}"}) for name in names} for i in range(4)]
    assert all(len(owner) == 1 for owner in owners)
    assert len(set.union(*owners)) == 4


def test_keyless_requests_go_by_client_address(start):
    kvpin = start.kvpin(start.sims(4), "--missing", "client-ip")
    assert len({server(start.client(kvpin)) for _ in range(8)}) == 1
    # A text that looks like the address is another session.
    client = start.client(kvpin)
    for i in range(1, 8):
        by_header(client, f"127.0.0.{i}")
    assert [b["sessions"] for b in kvpin.status("backends")["backends"]] == [2] * 4
    assert kvpin.metrics()['kvpin_keyless_requests_total{fallback="client-ip"}'] == 8


def test_a_client_without_a_key_is_given_one_and_keeps_its_server(start):
    kvpin = start.kvpin(start.sims(4), "--missing", "generate")
    client = start.client(kvpin)
    seen = {}
    for _ in range(12):
        owner, fields = ask(client)
        key = fields["x-session-id"]
        assert re.fullmatch(UUID4, key)
        seen[key] = owner
    assert len(seen) == 12 and len(set(seen.values())) == 4
    for key, owner in seen.items():
        found, fields = ask(client, headers={"X-Session-Id": key})
        assert found == owner and "x-session-id" not in fields
    metrics = kvpin.metrics()
    assert metrics['kvpin_keyless_requests_total{fallback="generate"}'] == 12
    rows = kvpin.wait_requests(24)
    assert [r["key"] for r in rows] == ["generated"] * 12 + ["header"] * 12
    assert [r["turn"] for r in rows] == ["first"] * 12 + ["later"] * 12


def test_a_generated_key_has_a_header_of_ones_own_choice(start):
    kvpin = start.kvpin(start.sims(2), *keys("cookie=sid"), "--missing", "generate",
                        "--generate-header", "X-Conv")
    client = start.client(kvpin)
    owner, fields = ask(client)
    for _ in range(4):
        assert server(client, headers={"x-conv": fields["x-conv"]}) == owner


def test_a_sidecar_call_follows_its_parent(start):
    kvpin = start.kvpin(start.sims(4), "--parent-header", "X-Parent-Session-Id")
    client = start.client(kvpin)
    for i in range(4):
        owner = by_header(client, f"parent{i}")
        for call in range(3):
            assert server(client, headers={"X-Session-Id": f"side{i}.{call}",
                                           "X-Parent-Session-Id": f"parent{i}"}) == owner
        assert by_header(client, f"parent{i}") == owner
    assert sum(b["sessions"] for b in kvpin.status("backends")["backends"]) == 4


def test_a_sidecar_call_avoids_its_parent(start):
    sims = start.sims(3)
    kvpin = start.kvpin(sims, "--parent-header", "X-Parent-Session-Id", "--sidecar", "avoid",
                        *NO_CHECKS)
    client = start.client(kvpin)
    for i in range(3):
        owner = by_header(client, f"parent{i}")
        parent = {"X-Parent-Session-Id": f"parent{i}"}
        for call in range(4):
            assert server(client, headers={"X-Session-Id": f"side{i}.{call}", **parent}) != owner
            assert server(client, headers=parent) != owner  # without a key of its own
        # A call that is its own parent stays where it is.
        assert server(client, headers={"X-Session-Id": f"parent{i}", **parent}) == owner
    # With one server left there is nothing to avoid.
    owner = by_header(client, "parent0")
    for sim in sims:
        if sim.name != owner:
            sim.stop()
    assert server(client, headers={"X-Session-Id": "x", "X-Parent-Session-Id": "parent0"}) == owner


@pytest.mark.slow
def test_keyless_traffic_and_keys_seen_once_are_warned_of(start):
    kvpin = start.kvpin(start.sims(2), log_requests=False)
    client = start.client(kvpin)
    assert kvpin.status()["advice"] == ""
    for _ in range(150):
        server(client)
    kvpin.wait_line(r"level=warn .*most requests have no session key", 10)
    status = kvpin.status()
    assert status["keyless"]["balance"] == 150
    assert "no session key" in status["advice"]
    for i in range(1200):
        by_header(client, f"request-{i}")
    kvpin.wait_line(r"level=warn .*no session key is ever seen twice", 10)
    assert "seen twice" in kvpin.status()["advice"]
    for i in range(600):
        by_header(client, f"session-{i % 5}")
    end = time.monotonic() + 10
    while kvpin.status()["advice"] and time.monotonic() < end:
        time.sleep(0.2)
    assert kvpin.status()["advice"] == ""
    # Each warning once: they are rate-limited.
    assert kvpin.output().count("no session key is ever seen twice") == 1


@pytest.mark.steer_only
def test_the_kernel_carries_what_a_header_decides_and_nothing_else(start):
    kvpin = start.kvpin(start.sims(2, "uvicorn"), *keys("header=X-Session-Id", "json=user", "prefix"))
    client = start.client(kvpin)
    owners = {key: by_header(client, key) for key in "ab"}
    for _ in range(30):
        assert by_header(client, "a") == owners["a"]
    steered = kvpin.status()["requests_steer"]
    assert steered > 20
    for key in "abab":
        assert server(client, "/sink", (), {"user": key}) == owners[key]
    assert by_header(client, "b") == owners["b"]
    # Where a field outranks a header, the kernel must not look at the header.
    kvpin = start.kvpin(start.sims(2, "uvicorn"), *keys("json=user", "header=X-Session-Id"))
    client = start.client(kvpin)
    owners = {key: by_header(client, key) for key in "ab"}
    for key in "abab" * 5:
        assert server(client, "/sink", {"X-Session-Id": "a"}, {"user": key}) == owners[key]
        assert by_header(client, key) == owners[key]
    status = kvpin.status()
    assert status["requests_steer"] == 0
    assert status["path_refused"]["requests_off"] > 0
