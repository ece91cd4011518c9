# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""kvpin-sim as an engine: slots, queue and prefix cache counted in tokens, conversations, health,
loading, shutdown.
"""
import select
import signal
import time

import httpx
import pytest

from sim_help import END, GET_HEALTH, WORDS, Sim, chat, dechunk, post_bytes, recv_for, recv_until


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
            waiting.append(sim.raw(post_bytes("/v1/chat/completions", chat(f"{i}", 16 if i else 150))))
            assert sim.until("queued", i)
        m = sim.get("/metrics").text
        assert "llamacpp:requests_processing 1\n" in m and "llamacpp:requests_deferred 3\n" in m
        assert [s["is_processing"] for s in sim.get("/slots").json()] == [True]
        order = []
        while waiting:
            for s in select.select(waiting, [], [], END)[0]:
                recv_until(s, b"}}")
                order.append(s.fileno())
                waiting.remove(s)
                s.close()
        assert len(order) == 4 and order == sorted(order) and sim.stats()["queued"] == 0


def test_prefill_and_decode_take_their_time():
    with Sim("--prefill-tps", 2000, "--decode-tps", 100) as sim:
        r = sim.post("/v1/chat/completions", chat("x" * 780, 6)).json()
        assert 95 < r["timings"]["prompt_ms"] < 600 and 49 < r["timings"]["predicted_ms"] < 600
        again = sim.post("/v1/chat/completions", chat("x" * 780, 1)).json()
        assert again["timings"]["prompt_n"] == 1 and again["timings"]["prompt_ms"] == pytest.approx(0.5)


def test_context_limit():
    with Sim("--ctx", 100) as sim:
        r = sim.post("/v1/chat/completions", chat("x" * 500))
        assert r.status_code == 400 and r.json()["error"]["type"] == "exceed_context_size_error"
        assert sim.post("/v1/chat/completions", chat("x" * 300, 1000)).json()["usage"]["total_tokens"] == 100


def test_conversation_outlives_its_client_and_resumes():
    with Sim("--decode-tps", 200) as sim:
        s = sim.raw(post_bytes("/v1/chat/completions", chat("x", 40, True), "X-Conversation-Id: c1\r\n"))
        recv_until(s, b"data: ")
        s.close()
        late = sim.raw(b"GET /v1/stream?conv_id=c1&from=0 HTTP/1.1\r\nHost: x\r\n\r\n")
        got, end = recv_for(late, END)
        chunks, clean = dechunk(got.partition(b"\r\n\r\n")[2])
        whole = b"".join(chunks)
        assert end == "eof" and clean and whole.count(b"data: ") == 1 + 40 + 1 + 1
        found = sim.post("/v1/streams/lookup", {"conversation_ids": ["c1", "nope"]}).json()
        assert [(f["conversation_id"], f["is_done"], f["total_bytes"]) for f in found] == [("c1", True, len(whole))]
        assert sim.get("/v1/stream?conv_id=c1&from=100").content == whole[100:]
        assert httpx.delete(sim.url + "/v1/stream?conv_id=c1").status_code == 204
        assert sim.get("/v1/stream?conv_id=c1").status_code == 404
        assert sim.stats()["aborts"] == 0


def test_control_changes_health():
    with Sim() as sim:
        sim.post("/control", {"health": "503"})
        assert sim.get("/health").status_code == 503
        sim.post("/control", {"health": "hang"})
        with pytest.raises(httpx.ReadTimeout):
            sim.get("/health", timeout=0.1)
        sim.post("/control", {"health": "refuse", "for_ms": 700})
        with pytest.raises(httpx.ConnectError):
            sim.get("/health")
        end = time.monotonic() + END
        while True:
            try:
                assert sim.get("/health").status_code == 200
                break
            except httpx.ConnectError:
                assert time.monotonic() < end
                time.sleep(0.02)
        assert sim.post("/control", {"health": "typo"}).status_code == 400


def test_loading_refuses_then_503_then_ok():
    with Sim("--load-ms", 1500, wait=False) as sim:
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
        got, end = recv_for(sim.raw(post_bytes("/v1/chat/completions", chat("x", 9, True))), END)
        assert end == "eof" and not got.endswith(b"0\r\n\r\n") and got.count(b"data: ") == 3
        sim.post("/control", {"fail_cut_after": 0, "fail_rst_after": 2})
        assert recv_for(sim.raw(post_bytes("/v1/chat/completions", chat("x", 9, True))), END)[1] == "rst"
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
        assert recv_for(idle, END) == (b"", "eof")
        with pytest.raises(ConnectionRefusedError):
            sim.raw()
        got, end = recv_for(s, END)
        assert end == "eof" and got.endswith(b"3\r\n:\n\n\r\n") and 1.9 < time.monotonic() - t < 4


def test_sigterm_uvicorn_finishes_what_runs():
    with Sim("--decode-tps", 100, manner="uvicorn") as sim:
        s = sim.raw(post_bytes("/v1/chat/completions", chat("x", 20, True)))
        recv_until(s, b"data: ")
        sim.p.send_signal(signal.SIGTERM)
        got, end = recv_for(s, END)
        assert end == "eof" and got.endswith(b"0\r\n\r\n")
