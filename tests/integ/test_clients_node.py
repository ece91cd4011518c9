# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Node's HTTP clients and SDKs against kvpin. The scripts are in node/, the judgement is here."""
import json

import pytest

from harness import checksum, pattern

KINDS = ["llama", "uvicorn", "real"]
SDKS = ["openai", "anthropic"]
# One is longer than a segment, one longer than what kvpin reads at once.
PROMPTS = ["hello", "what is the weather in Rome?", "list three primes", "a longer story: " * 9,
           "naïve café 東京", "word " * 600, "word " * 8000, "the end"]


def assert_affinity(rows, servers=("gpu0", "gpu1")):
    """Every answer is a 200, each session has one server, and all servers had sessions."""
    owner = {}
    for row in rows:
        assert row["status"] == 200, row
        assert row["server"] in servers, row
        assert owner.setdefault(row["session"], row["server"]) == row["server"], row
    assert set(owner.values()) == set(servers)


def assert_bodies(rows):
    assert_affinity(rows)
    for row in rows:
        if "answer" in row:
            sent = pattern(row["count"], row["seed"])
            assert row["answer"]["bytes"] == len(sent)
            assert row["answer"]["xxh64"] == checksum(sent)


def texts_of(server, path, prompts=PROMPTS):
    """What the server itself, asked past kvpin, says to each prompt."""
    texts = []
    for prompt in prompts:
        body = {"max_tokens": 8, "messages": [{"role": "user", "content": prompt}],
                "prompt": prompt}
        answer = server.get(path, json.dumps(body).encode())
        if "content" in answer:
            texts.append(answer["content"][0]["text"])
        elif "text" in answer["choices"][0]:
            texts.append(answer["choices"][0]["text"])
        else:
            texts.append(answer["choices"][0]["message"]["content"])
    return texts


def path_of(sdk):
    return "/v1/chat/completions" if sdk == "openai" else "/v1/messages"


# ---- undici and fetch


@pytest.mark.parametrize("kind", KINDS)
def test_undici_moves_bodies_of_8_sessions_over_2_connections(start, servers, node, kind):
    kvpin = start.kvpin(servers(kind))
    assert_bodies(node("undici", "bodies", kvpin))


@pytest.mark.parametrize("kind", KINDS)
def test_undici_pipelines_and_every_answer_is_its_own(start, servers, node, kind):
    """llama-server loses a request that comes before the answer to the one before is complete."""
    kvpin = start.kvpin(servers(kind))
    got = node("undici", "pipeline", kvpin)
    assert got["running"] > 4, "hardly anything was pipelined"
    assert len(got["rows"]) == 400
    assert_affinity(got["rows"])


@pytest.mark.parametrize("client", ["undici", "fetch"])
@pytest.mark.parametrize("kind", KINDS)
def test_aborted_streams_reach_the_server_and_spoil_nothing(start, servers, node, client, kind):
    pair = servers(kind)
    kvpin = start.kvpin(pair)
    before = [server.aborts() for server in pair]
    rows = node(client, "abort", kvpin, count=8)
    assert len(rows) == 16
    assert_affinity(rows)
    for server, count in zip(pair, before):
        server.wait_aborts(count + 4)


@pytest.mark.parametrize("kind", ["llama", "real"])
def test_undicis_timeouts_reach_the_server_and_spoil_nothing(start, servers, node, kind):
    pair = servers(kind)
    kvpin = start.kvpin(pair[:1])
    before = pair[0].aborts()
    got = node("undici", "timeouts", kvpin)
    assert got["codes"] == ["UND_ERR_HEADERS_TIMEOUT", "UND_ERR_BODY_TIMEOUT"]
    assert got["row"]["status"] == 200
    pair[0].wait_aborts(before + 2)


@pytest.mark.parametrize("kind", ["llama", "real"])
def test_undici_echo_answers_while_the_upload_still_runs(start, servers, node, kind):
    kvpin = start.kvpin(servers(kind))
    assert node("undici", "echo", kvpin, count=20)["parts"] == 20


@pytest.mark.parametrize("kind", KINDS)
def test_fetch_moves_bodies_of_8_sessions(start, servers, node, kind):
    kvpin = start.kvpin(servers(kind))
    assert_bodies(node("fetch", "bodies", kvpin))


def test_a_timed_out_fetch_reaches_the_server(start, servers, node):
    pair = servers("uvicorn")
    kvpin = start.kvpin(pair[:1])
    got = node("fetch", "timeout", kvpin)
    assert got["row"]["status"] == 200
    pair[0].wait_aborts(1)


# ---- SDKs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sdk", SDKS)
def test_sdk_chats_of_8_sessions_stay_with_their_servers(start, servers, node, sdk, kind):
    """Whole answers and streams, by turns; each text must be what the server itself says. First
    one client with the session named per request, then a client per session over one agent."""
    pair = servers(kind)
    kvpin = start.kvpin(pair)
    wanted = texts_of(pair[0], path_of(sdk))
    per_request, per_client = node(sdk, "sessions", kvpin, prompts=PROMPTS, count=48)
    assert len(per_request) == len(per_client) == 48
    assert_affinity(per_request + per_client)
    for row in per_request + per_client:
        assert row["text"] == wanted[row["session"]], row
        assert row["finish"] == ("length" if sdk == "openai" else "max_tokens")


@pytest.mark.parametrize("kind", KINDS)
def test_openai_completions_stay_with_their_servers(start, servers, node, kind):
    pair = servers(kind)
    kvpin = start.kvpin(pair)
    wanted = texts_of(pair[0], "/v1/completions")
    rows = node("openai", "completions", kvpin, prompts=PROMPTS)
    assert_affinity(rows)
    assert [row["text"] for row in rows] == wanted * 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sdk", SDKS)
def test_an_sdks_aborted_stream_reaches_the_server(start, servers, node, sdk, kind):
    pair = servers(kind, decode_tps=500)
    kvpin = start.kvpin(pair)
    before = [server.aborts() for server in pair]
    rows = node(sdk, "abort", kvpin, count=4)
    assert_affinity(rows)
    assert all(row["chunks"] >= 10 for row in rows[::2])
    for server, count in zip(pair, before):
        server.wait_aborts(count + 2)


@pytest.mark.parametrize("sdk, kind", [("openai", "llama"), ("openai", "real"),
                                       ("anthropic", "uvicorn")])
def test_an_sdks_timeout_reaches_the_server(start, servers, node, sdk, kind):
    pair = servers(kind, prefill_tps=1)
    kvpin = start.kvpin(pair[:1])
    before = pair[0].aborts()
    assert node(sdk, "timeout", kvpin)["error"] == "APIConnectionTimeoutError"
    pair[0].wait_aborts(before + 1)
