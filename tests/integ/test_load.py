# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Many at once, for long: nothing lost, nothing mixed up, nothing left behind."""
import json
import random
import re
import subprocess
import threading

import pytest

from harness import BUILD, LOAD, Client, wait_until

pytestmark = pytest.mark.slow
# A sanitizer makes everything several times slower, and keeps memory.
SANITIZED = "san" in BUILD
SCALE = 10 if SANITIZED else 1


def load(kvpin, mode, *args):
    """kvpin-load's report; it checks bodies, order, framing and servers itself."""
    out = subprocess.run([LOAD, mode, "--to", kvpin.text, *map(str, args)], capture_output=True,
                         text=True, timeout=110)
    assert out.returncode == 0, out.stdout + out.stderr
    report = json.loads(out.stdout)
    assert (report["errors_total"], report["gave_up"]) == (0, False)
    return report


def settled(kvpin, fds):
    """No client is left, and every descriptor was given back."""
    wait_until(lambda: kvpin.status()["connections"] == 0)
    wait_until(lambda: kvpin.fds() <= fds)
    assert [b["inflight"] for b in kvpin.status("backends")["backends"]] == [0] * len(
        kvpin.status("backends")["backends"])


def test_a_thousand_streams_at_once_on_one_worker_arrive_whole_and_in_order(start):
    kvpin = start.kvpin(start.sims(2, "uvicorn"), "--workers", "1", log_requests=False)
    fds = kvpin.fds()
    report = load(kvpin, "sse", "-c", 1000, "-n", 1000, "--events", 100, "--gap-us", 30000)
    assert (report["ok"], report["tokens"], report["truncated"]) == (1000, 100000, 0)
    settled(kvpin, fds)
    # The streams were interleaved, not one after the other.
    assert report["wall_s"] < 20 * SCALE


@pytest.mark.parametrize("pipeline", [1, 8])
def test_fragmented_requests_of_mixed_sessions_all_reach_their_own_server(start, pipeline):
    """100,000 in both cases together."""
    count = {1: 80000, 8: 20000}[pipeline] // SCALE
    sims = start.sims(4, "uvicorn")
    kvpin = start.kvpin(sims, "--workers", "2", log_requests=False)
    fds = kvpin.fds()
    report = load(kvpin, "requests", "-c", 24, "-n", count, "--sessions", 200, "--fragment",
                  "--framing", "random", "--body-bytes", "0:2000", "--pipeline", pipeline)
    assert report["ok"] == count
    assert (report["errors"]["wrong-server"], report["errors"]["body-mismatch"]) == (0, 0)
    assert sum(report["servers"].values()) == count and len(report["servers"]) == 4
    metrics = kvpin.metrics()
    assert sum(v for k, v in metrics.items() if k.startswith("kvpin_requests_total")
               and 'outcome="ok"' in k) == count
    assert sum(v for k, v in metrics.items() if k.startswith("kvpin_session_moves_total")) == 0
    assert [metrics[f'kvpin_sessions{{backend="gpu{i}"}}'] for i in range(4)] == [50] * 4
    # Every session at every server: each was seen by one server only.
    seen = [set(sim.get("/stats")["sessions"]) for sim in sims]
    assert sum(len(s) for s in seen) == len(set.union(*seen)) == 200
    settled(kvpin, fds)


def test_a_server_that_closes_after_each_stream_costs_no_stream_under_load(start):
    kvpin = start.kvpin(start.sims(2, "llama", slots=64), log_requests=False)
    fds = kvpin.fds()
    report = load(kvpin, "chat", "-c", 32, "-n", 4000 // SCALE, "--events", 8, "--sessions", 64)
    assert report["ok"] == 4000 // SCALE
    settled(kvpin, fds)


def data_kib(kvpin):
    """What the process has allocated, touched or not."""
    with open(f"/proc/{kvpin.pid}/status") as f:
        return int(re.search(r"VmData:\s+(\d+)", f.read()).group(1))


def test_memory_and_descriptors_do_not_grow_from_wave_to_wave(start):
    """A leak shows in what is allocated. What is resident rises longer (20 to 34 MB in 30 waves,
    ever slower): pooled buffers of four sizes are touched in new places of a heap that does not
    grow. A fixed M_MMAP_THRESHOLD avoids that, but costs a third more CPU per 100 KB request."""
    kvpin = start.kvpin(start.sims(2, "uvicorn"), "--workers", "1", log_requests=False)
    fds = kvpin.fds()

    def wave(seed, clients, streams):
        load(kvpin, "conns", "-c", clients, "-n", 2000 // SCALE)
        load(kvpin, "sse", "-c", streams // SCALE, "-n", streams // SCALE, "--events", 20,
             "--gap-us", 5000)
        load(kvpin, "requests", "-c", clients, "-n", 2000 // SCALE, "--sessions", 50,
             "--body-bytes", "0:100000", "--fragment", "--seed", seed)
        load(kvpin, "download", "-c", 8, "-n", 16, "--bytes", 3000000)
        load(kvpin, "upload", "-c", 8, "-n", 16, "--body-bytes", 3000000)
        settled(kvpin, fds)
        return kvpin.rss_kib(), data_kib(kvpin)

    wave(99, 200, 600)  # the pools fill
    rss, data = zip(*[wave(seed, 64, 300) for seed in range(5)])
    print("KiB after each wave: resident", rss, "allocated", data)
    if not SANITIZED:
        assert data[4] - data[0] < 1024, data
        assert rss[4] - rss[0] < 6 * 1024, rss
        # The kernel paths' arrays are mapped: they count where they were touched.
        assert rss[4] < (64 if kvpin.path == "relay" else 96) * 1024, rss


def churn(kvpin, seed, count, problems):
    """Connections that end in every way a client can think of."""
    pick = random.Random(seed)
    get = b"GET /bytes/3000 HTTP/1.1\r\nHost: t\r\nX-Session-Id: s%d\r\n\r\n" % (seed % 50)
    post = b"POST /sink HTTP/1.1\r\nHost: t\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000
    for _ in range(count):
        client = Client(kvpin.addr)
        way = pick.randrange(8)
        try:
            if way == 0:  # an empty probe
                pass
            elif way == 1:  # half a head
                client.send(get[:pick.randrange(1, len(get))])
            elif way == 2:  # gone at once
                client.send(get)
            elif way == 3:  # half a body
                client.send(post[:pick.randrange(80, len(post))])
            elif way == 4:  # half-closed, answered
                client.send(get)
                client.half_close()
                if len(client.answer()[2]) != 3000:
                    problems.append("half-close")
            elif way == 5:  # gone in mid-answer
                client.send(get.replace(b"3000", b"300000"))
                client.more()
            elif way == 6:  # refused
                client.send(b"GET / HTTP/1.1\r\nHost : t\r\n\r\n")
                if client.answer()[0] != 400:
                    problems.append("refusal")
            else:  # well-behaved
                client.send(post)
                if client.answer()[0] != 200:
                    problems.append("post")
                client.send(get)
                if len(client.answer()[2]) != 3000:
                    problems.append("get")
        except (OSError, EOFError) as error:
            problems.append((way, repr(error)))
        if pick.random() < 0.5:
            client.reset()
        else:
            client.close()


def test_20000_connections_that_come_and_go_in_all_ways_leave_nothing_behind(start):
    sims = start.sims(2, "llama")  # which answers a half-closed client
    kvpin = start.kvpin(sims, "--workers", "2", log_requests=False)
    fds, problems = kvpin.fds(), []
    count = 20000 // SCALE
    background = threading.Thread(target=load, args=(kvpin, "conns", "-c", 8, "-n", count // 2))
    background.start()
    threads = [threading.Thread(target=churn, args=(kvpin, seed, count // 8, problems))
               for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    background.join(60)
    assert problems == []
    assert kvpin.metrics()["kvpin_connections_accepted_total"] == count
    settled(kvpin, fds)
    wait_until(lambda: all(sim.get("/stats")["connections_open"] <= 1 for sim in sims))
    load(kvpin, "requests", "-c", 4, "-n", 100)
