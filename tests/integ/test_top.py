# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""`kvpin top`: what it counts is what was done, since the start and between two screens."""
import json
import signal
import subprocess

from harness import KVPIN
from slots_help import backends, owner, pair, run


def top(kvpin, *args):
    out = subprocess.run([KVPIN, "top", *args, "--control", kvpin.control], capture_output=True,
                         text=True, timeout=20)
    assert out.returncode == 0, out.stderr
    return out.stdout


def test_one_screen_counts_since_the_start(start):
    _, kvpin = pair(start, prefill_tps=4000)
    assert "SERVER" in top(kvpin, "--once")  # nothing was ever done
    for i in range(3):
        for _ in range(3 + i):
            run(kvpin, f"s{i}", words=800, tokens=20)
    screen = json.loads(top(kvpin, "--once", "--json"))
    rows = {row["name"]: row for row in screen["backends"]}
    assert sum(row["requests"] for row in rows.values()) == 12
    assert sum(row["sessions"] for row in rows.values()) == screen["sessions_total"] == 3
    told = sum(row["tokens_per_s"] for row in rows.values()) * screen["over_s"]
    # Twenty tokens have nineteen gaps, those that came together none; what ends a stream is an
    # event, too.
    assert 12 * 10 < told <= 12 * 22, told
    for row in rows.values():
        assert 0 < row["ttft_p50_ms"] <= row["ttft_p90_ms"] < 1000
        assert row["warm_percent"] == 100
    # Cold first turns of some 200 ms are 1 in 4 at least: p90 shows them, p50 does not.
    assert max(row["ttft_p90_ms"] for row in rows.values()) > 100
    assert min(row["ttft_p50_ms"] for row in rows.values()) < 100
    hot = screen["sessions"]
    assert [s["turns"] for s in hot] == [5, 4, 3]
    assert hot[0]["backend"] == owner(kvpin, "s2")
    text = top(kvpin, "--once")
    assert "since the start" in text and hot[0]["session"] in text and "TTFT P50" in text


def test_later_screens_count_since_the_one_before(start):
    _, kvpin = pair(start, prefill_tps=100000)
    run(kvpin, "before")
    with subprocess.Popen([KVPIN, "top", "--json", "--interval", "1s", "--control", kvpin.control],
                          stdout=subprocess.PIPE, text=True) as process:
        try:
            first = json.loads(process.stdout.readline())
            for _ in range(4):
                run(kvpin, "after")
            screens = []
            while sum(round(row["requests_per_s"] * s["over_s"]) for s in screens
                      for row in s["backends"]) < 4:
                screens.append(json.loads(process.stdout.readline()))
                assert len(screens) < 10
        finally:
            process.send_signal(signal.SIGINT)
    assert [s["turns"] for s in first["sessions"]] == [1]
    assert all(0.9 < s["over_s"] < 3 for s in screens), screens
    assert max(s["new_turns"] for screen in screens for s in screen["sessions"]
               if s["turns"] >= 2) >= 1
    assert screens[-1]["sessions"][0]["turns"] == 4
    # Silence has no quantiles.
    assert all("ttft_p50_ms" not in row or row["requests_per_s"] > 0
               for s in screens for row in s["backends"])


def test_it_ends_with_the_daemon(start):
    _, kvpin = pair(start)
    assert len(backends(kvpin)) == 2
    with subprocess.Popen([KVPIN, "top", "--interval", "100ms", "--control", kvpin.control],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        kvpin.stop()
        _, err = process.communicate(timeout=20)
        assert process.returncode == 1
        # Between two questions, or within one.
        assert "kvpin is not running" in err or "cannot talk to kvpin" in err, err
