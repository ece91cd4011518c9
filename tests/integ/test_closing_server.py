# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""llama-server ends its connection after every stream, though it says keep-alive: one pool of
clients' connections sees nothing of it. KVPIN_CLOSING=10000 makes it thorough."""
import json
import os
import subprocess
import threading

import pytest

from harness import BUILD, LOAD, Client, checksum, pattern, request, wait_until

pytestmark = pytest.mark.slow
COUNT = int(os.environ.get("KVPIN_CLOSING", "200" if "san" in BUILD else "1500"))
THREADS = 8
EVENTS = 24
QUESTION = json.dumps({"messages": [{"role": "user", "content": "hello"}], "stream": True,
                       "max_tokens": EVENTS}).encode()


def alternate(kvpin, number, count, problems):
    """Streams and plain answers of changing sessions over one connection, one at once after the
    other: the server's FIN of the stream and the next request cross."""
    client = Client(kvpin.addr, 30)
    try:
        for turn in range(count):
            session = f"s{(number + turn) % 16}"
            if turn % 3 < 2:
                client.send(request("/v1/chat/completions", session,
                                    "Content-Type: application/json", body=QUESTION))
                status, _, body = client.answer()
                assert (status, body.rstrip().endswith(b"data: [DONE]")) == (200, True), body[-99:]
            else:
                client.send(request(f"/bytes/5000?seed={turn}", session))
                status, _, body = client.answer()
                assert (status, checksum(body)) == (200, checksum(pattern(5000, turn)))
    except (OSError, EOFError, AssertionError) as error:
        problems.append((number, turn, repr(error)))
    client.close()


def test_streams_over_one_pool_before_a_server_that_closes_after_each(start):
    sims = start.sims(2, "llama", slots=64, decode_tps=400)
    kvpin = start.kvpin(sims, "--health-interval", "off", log_requests=False)
    fds, problems = kvpin.fds(), []
    threads = [threading.Thread(target=alternate, args=(kvpin, i, COUNT // THREADS // 2, problems))
               for i in range(THREADS)]
    for thread in threads:
        thread.start()
    ran = subprocess.run([LOAD, "chat", "--to", kvpin.text, "-c", "32", "-n", str(COUNT // 2),
                          "--events", str(EVENTS), "--sessions", "64", "--deadline-s", "280"],
                         capture_output=True, text=True, timeout=300)
    for thread in threads:
        thread.join(300)
        assert not thread.is_alive()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    report = json.loads(ran.stdout)
    assert (report["ok"], report["errors_total"], report["truncated"]) == (COUNT // 2, 0, 0)
    assert problems == []
    metrics = kvpin.metrics()
    refused = {k: v for k, v in metrics.items() if k.startswith("kvpin_path_refused_total")}
    spliced = kvpin.status().get("splice_taken", 0)
    print("spliced", spliced, "of", COUNT, {k: v for k, v in refused.items() if v})
    if kvpin.path in ("splice", "auto"):
        assert spliced > COUNT // 4
    assert not [k for k, v in metrics.items() if k.startswith("kvpin_requests_total")
                and 'outcome="ok"' not in k and v]
    wait_until(lambda: kvpin.status()["connections"] == 0)
    wait_until(lambda: kvpin.fds() <= fds, 10, lambda: f"{kvpin.fds()} of {fds}")
