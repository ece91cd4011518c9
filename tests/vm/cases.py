# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What must hold on every kernel; runs in the guest of tests/vm/run (or, as root, on this machine).

usage: cases.py [--paths "relay steer splice auto"] [--only WORD] [--churn COUNT]

`kvpin doctor` decides whether steer and splice are among the paths. Each path gets one kvpin before two
simulated servers (gpu0 like llama-server, gpu1 like uvicorn); every case runs against it, and after
every case the kernel's log must be silent. At the end of a path the daemon has exited with 0, TCP
has as many sockets as before, nothing is pinned and nothing stands at tc. The last line sums up for tests/vm/check.
"""
import argparse
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import threading
import time
import traceback

from rig import (PATIENCE, PIN, KernelLog, Rig, ask, attachments, doctor, harness, pins,
                 sockets)
from harness import VERIFY, checksum, pattern, request, wait_until  # found by way of rig
from rawserver import chunked

CHURN = os.path.join(harness.BUILD, "tests", "kvpin-churn")
CASES = []


def case(function):
    CASES.append(function)
    return function


def get(target, session=None, method="GET", *fields):
    return request(target, session, VERIFY, *fields, method=method)


def bulk(client, count, seed, session, more=""):
    server, body = ask(client, f"/bytes/{count}?seed={seed}{more}", session)
    assert checksum(body) == checksum(pattern(count, seed)), (count, seed, more, len(body))
    return server


def events(body, count):
    found = [int(n) for n in re.findall(rb'data: \{"i":(\d+)', body)]
    assert found == list(range(count)), found


def side_by_side(work, count):
    """work(0) to work(count - 1) in a thread each; all must succeed."""
    errors = []

    def run(number):
        try:
            work(number)
        except Exception as error:  # pylint: disable=broad-except # given to the main thread
            errors.append(repr(error))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors


# ---- the cases

@case
def sessions_stay_on_their_servers_over_shared_connections(rig):
    clients = [rig.client() for _ in range(3)]
    owners, chosen = {}, random.Random(1)
    for turn in range(6):
        for number in range(10):
            session = f"stay-{number}"
            size = chosen.choice((0, 1, 100, 1500, 20000))
            server = bulk(chosen.choice(clients), size, number + turn, session)
            assert owners.setdefault(session, server) == server, (session, turn)
    assert set(owners.values()) == {"gpu0", "gpu1"}, owners


@case
def bodies_arrive_whole_in_every_framing_both_ways(rig):
    client = rig.client()
    for server in rig.sims:
        session = rig.session(server)
        for count in (1, 4096, 65537, 500000):
            bulk(client, count, count, session)
            bulk(client, count, 7, session, "&manner=chunked&chunk=3000")
        for count in (1, 5000, 200000):
            data = pattern(count, 3)
            told = [ask(client, "/sink", session, "POST", body=data)]
            client.send(get("/sink", session, "POST", "Transfer-Encoding: chunked")
                        + chunked(*(data[i:i + 7000] for i in range(0, count, 7000))))
            status, fields, body = client.answer()
            told.append((fields["x-sim-server"], body))
            for name, body in told:
                assert name == server.name
                assert json.loads(body)["bytes"] == count
                assert json.loads(body)["xxh64"] == checksum(data)


@case
def streams_are_in_order_and_complete(rig):
    for server in rig.sims:
        session = rig.session(server)
        client = rig.client()
        for gap_us in (0, 2000):
            _, body = ask(client, f"/sse/60/{gap_us}/200", session)
            events(body, 60)
            assert bulk(client, 3000, 5, session) == server.name
        question = json.dumps({"messages": [{"role": "user", "content": "hello"}],
                               "stream": True, "max_tokens": 24}).encode()
        name, body = ask(client, "/v1/chat/completions", session, "POST",
                         {"Content-Type": "application/json"}, question)
        assert name == server.name
        assert body.rstrip().endswith(b"data: [DONE]"), body[-100:]


@case
def sessions_stream_side_by_side(rig):
    def work(number):
        client = rig.client()
        for turn in range(4):
            _, body = ask(client, "/sse/30/1000/150", f"side-{number}-{turn % 2}")
            events(body, 30)
            bulk(client, 30000, number, f"side-{number}-{turn % 2}")

    side_by_side(work, 6)


@case
def a_half_closed_client_is_answered(rig):
    session = rig.session(rig.sims[0])
    for reused in False, True:
        client = rig.client()
        if reused:
            bulk(client, 2000, 1, session)
        client.send(get("/slowhead?ms=150", session))
        client.half_close()
        status, _, body = client.answer()
        assert (status, len(body)) == (200, 300)
        assert client.ended(PATIENCE) == "fin"


@case
def an_abort_reaches_the_server_at_once(rig):
    for server in rig.sims:
        session = rig.session(server)
        for how in "reset", "close":
            before = server.aborts()
            client = rig.client()
            bulk(client, 1000, 1, session)
            client.send(get("/sse/10000/5000/100", session))
            client.until(b'"i":5,')
            getattr(client, how)()
            wait_until(lambda: server.aborts() == before + 1, 5.0)


@case
def a_truncated_answer_is_no_clean_end(rig):
    for server in rig.sims:
        session = rig.session(server)
        for ending in "trunc", "rst":
            client = rig.client()
            bulk(client, 1000, 1, session)
            client.send(get(f"/sse/50/1000/100?{ending}=20", session))
            assert client.ended(PATIENCE) == "rst"
            assert b"\r\n0\r\n\r\n" not in client.buf


@case
def pipelined_requests_are_answered_in_order(rig):
    names = [rig.session(server) for server in rig.sims for _ in range(2)]
    client = rig.client()
    bulk(client, 100, 0, names[0])
    for target in "/bytes/{}?seed={}", "/bytes/{}?seed={}&manner=chunked&chunk=1000":
        asked = [(1 + 3000 * i, i, names[i % len(names)]) for i in range(12)]
        client.send(b"".join(get(target.format(count, seed), name) for count, seed, name in asked))
        for count, seed, name in asked:
            status, fields, body = client.answer()
            assert (status, fields["x-sim-server"]) == (200, f"gpu{names.index(name) // 2}")
            assert checksum(body) == checksum(pattern(count, seed)), (count, seed)


@case
def a_slow_reader_loses_nothing_and_holds_up_nobody(rig):
    count = 4000000
    for server in rig.sims:
        session = rig.session(server)
        slow, other = rig.client(rcvbuf=8192), rig.client()
        bulk(slow, 500, 2, session)
        slow.send(get(f"/bytes/{count}?seed=9", session))
        assert slow.head()[0] == 200
        for _ in range(8):
            time.sleep(0.05)
            slow.more()
            assert bulk(other, 5000, 3, session) == server.name
        assert checksum(slow.exactly(count)) == checksum(pattern(count, 9))
        assert bulk(slow, 500, 2, session) == server.name


@case
def a_connection_goes_back_and_forth_between_plain_and_odd_requests(rig):
    """The odd ones need the daemon: a path that had the connection gives it back, and takes it
    again for the next plain one."""
    for server in rig.sims:
        session, elsewhere = rig.session(server), rig.session(rig.sims[1 - rig.sims.index(server)])
        client = rig.client()

        def expect(name=server.name, status=200, method="GET"):
            got, fields, body = client.answer(method)
            assert (got, fields["x-sim-server"]) == (status, name)
            return body

        def plain():
            for count in 10, 3000:
                assert bulk(client, count, 4, session) == server.name

        plain()
        client.send(get("/bytes/700", session, "GET", "X-Long: " + "y" * 6000))
        expect()
        plain()
        client.send(get("/bytes/100000", session, "HEAD"))
        expect(method="HEAD")
        plain()
        client.send(get("/status/204", session))
        expect(status=204)
        plain()
        for part in get("/bytes/700?seed=1", session).partition(b"HTTP"):
            client.send(part)  # a head in three pieces
            time.sleep(0.02)
        assert expect() == pattern(700, 1)
        plain()
        client.send(get("/sink", session, "POST", "Content-Length: 5", "Expect: 100-continue"))
        client.send(b"hello")
        assert json.loads(expect())["bytes"] == 5
        plain()
        client.send(get("/sink", session, "POST", "Transfer-Encoding: chunked")
                    + b"5;ext=1\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n")
        assert json.loads(expect())["bytes"] == 5
        plain()
        assert bulk(client, 2000, 5, elsewhere) != server.name
        client.send(get("/bytes/900?seed=2"))  # no session at all
        assert client.answer()[2] == pattern(900, 2)
        plain()


@case
def large_transfers_both_ways_flip_under_load(rig):
    """Several bulk answers at once run into whatever budget there is and out of it again."""
    def work(number):
        client = rig.client(rcvbuf=65536)
        for turn in range(3):
            bulk(client, 800000, number + turn, f"flip-{number}")
            data = pattern(300000, turn)
            _, body = ask(client, "/sink", f"flip-{number}", "POST", body=data)
            assert json.loads(body)["xxh64"] == checksum(data)

    side_by_side(work, 4)


@case
def clients_that_leave_in_every_way_upset_no_kernel(rig):
    """Short connections: silent, FIN, RST at every moment, half-closed, killed with -9."""
    ran = subprocess.run([CHURN, rig.kvpin.addr[0], str(rig.kvpin.addr[1]), str(rig.churn), "4"],
                         capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    wait_until(rig.idle, PATIENCE, "connections are left")
    bulk(rig.client(), 10000, 1, "after-churn")


@case
def answers_are_right_under_load(rig):
    for mode in (["requests", "-c", "8", "--sessions", "16", "-n", "600"],
                 ["conns", "-c", "8", "-n", "300"],
                 ["sse", "-c", "8", "-n", "60", "--events", "20", "--gap-us", "500"]):
        ran = subprocess.run([harness.LOAD, mode[0], "--to", rig.kvpin.text, *mode[1:],
                              "--stall-s", str(int(PATIENCE))],
                             capture_output=True, text=True, timeout=120)
        assert ran.returncode == 0, (mode, ran.stdout, ran.stderr)


@case
def streams_follow_each_other_at_once(rig):
    """The next request leaves with the last byte in hand; three are written at once."""
    client = rig.client()
    names = [rig.session(server) for server in rig.sims]
    for number in range(30):
        _, body = ask(client, "/sse/10/1000/150", names[number % 2])
        events(body, 10)
    for number in range(5):
        client.send(b"".join(get("/sse/12/1000/150", names[(number + i) % 2]) for i in range(3)))
        for _ in range(3):
            status, _, body = client.answer()
            assert status == 200
            events(body, 12)


@case
def a_large_body_comes_whole(rig):
    for server in rig.sims:
        client, session = rig.client(), rig.session(server)
        for count in 3000000, 12000000:
            assert bulk(client, count, 11, session) == server.name
            assert bulk(client, count, 5, session, "&manner=chunked&chunk=20000") == server.name
            assert bulk(client, 500, 2, session) == server.name


@case
def a_server_that_dies_in_mid_stream_breaks_its_streams_only(rig):
    one, other = rig.client(), rig.client()
    one.send(get("/sse/100000/5000/100", rig.session(rig.sims[1])))
    one.until(b'"i":20,')
    other.send(get("/sse/200/5000/100", rig.session(rig.sims[0])))
    assert other.head()[0] == 200
    rig.sims[1].stop(signal.SIGKILL)
    assert one.ended(PATIENCE) == "rst"
    events(b"".join(other.chunks()), 200)
    rig.sims[1] = rig.start_sim("gpu1", "uvicorn", rig.sims[1].addr[1])

    def serves():
        return all(b["state"] == "up" for b in rig.kvpin.status("backends")["backends"])

    wait_until(serves, PATIENCE, lambda: str(rig.kvpin.status("backends")))


@case
def ipv6_sockets_do_as_well(rig):
    if not os.path.exists("/proc/net/if_inet6"):
        return  # a kernel without it
    six = Rig(rig.path, address="[::1]", pin=f"{PIN}-six")
    try:
        names = [six.session(server) for server in six.sims]
        client = six.client()
        for number in range(20):
            _, body = ask(client, "/sse/30/1000/150", names[number % 2])
            events(body, 30)
            bulk(client, 300000, number, names[number % 2])
        if rig.path in ("steer", "splice"):
            moved_something(six, [rig.path])
    finally:
        six.stop()


@case
def streams_outlive_a_killed_kvpin(rig):
    """Those that are past the daemon; another kvpin begins beside them and clears up."""
    if rig.path != "splice":
        return
    streams = [rig.client() for _ in range(8)]
    for number, client in enumerate(streams):
        client.send(get("/sse/150/20000/100", f"outlive-{number}"))
        client.until(b'"i":5,')
    wait_until(lambda: rig.spliced() == 8, PATIENCE, lambda: str(rig.kvpin.status()))
    rig.kvpin.stop(signal.SIGKILL)
    rig.kvpin = rig.start_kvpin()
    fresh = rig.client()
    for number in range(10):
        events(ask(fresh, "/sse/30/1000/100", f"outlive-{number}")[1], 30)
    for client in streams:
        body = client.until(b"0\r\n\r\n")
        assert body.count(b"data: ") == 144, body.count(b"data: ")
        assert client.ended(PATIENCE), "the connection of a dead kvpin stays open"
    assert rig.moved("splice") > 0
    rig.close_clients()
    wait_alone()


def wait_alone():
    """Nobody uses the program of a dead one any more: it is taken down."""
    wait_until(lambda: len([p for p in pins() if f"{PIN.name}-splice" in p.rpartition("/")[2]]) < 2,
               2 * PATIENCE, lambda: f"a dead kvpin's program stays: {pins()}")


@case
def a_killed_kvpin_does_not_hinder_the_next(rig):
    client = rig.client()
    for number in range(4):
        bulk(client, 1000, number, f"killed-{number}")
    streaming = rig.client()
    streaming.send(get("/sse/10000/2000/100", "killed-0"))
    streaming.until(b"data: ")
    rig.kvpin.stop(signal.SIGKILL)
    rig.close_clients()
    rig.kvpin = rig.start_kvpin()
    client = rig.client()
    for number in range(4):
        bulk(client, 1000, number, f"killed-{number}")

    def moves():  # a client that is faster than a hand-over keeps the relay
        bulk(client, 1000, 1, "killed-0")
        if rig.path == "splice":
            events(ask(client, "/sse/30/1000/100", "killed-0")[1], 30)
        return rig.moved(rig.path) > 0

    if rig.path != "auto":
        wait_until(moves, PATIENCE, "all bytes went another way")
    wait_alone()


# ---- running them

class Runner:
    def __init__(self, only, churn):
        self.only, self.churn, self.log = only, churn, KernelLog()
        self.passed = self.failed = 0
        self.log.trouble()  # what the boot said is not ours

    def run(self, name, function, *args):
        """One case; its result, or None when it failed."""
        begin, problem, result = time.monotonic(), None, None
        try:
            result = function(*args)
        except Exception:  # pylint: disable=broad-except # the next case runs all the same
            problem = traceback.format_exc()
        trouble = self.log.trouble()
        if trouble:
            problem = (problem or "") + f"the kernel said:\n{trouble}"
        if problem:
            self.failed += 1
        else:
            self.passed += 1
        print(f"{'FAIL' if problem else 'ok  '} {name}  {time.monotonic() - begin:.1f} s"
              + (f"\n{problem}" if problem else ""), flush=True)
        return result

    def path(self, path):
        level, pinned, hooked = sockets(), pins(), attachments()
        rig = self.run(f"{path}: kvpin starts", Rig, path)
        if not rig:
            return
        rig.churn = self.churn
        for function in CASES:
            if self.only and self.only not in function.__name__:
                continue
            self.run(f"{path}: {function.__name__.replace('_', ' ')}", function, rig)
            rig.close_clients()
            if function is clients_that_leave_in_every_way_upset_no_kernel and path != "relay":
                self.run(f"{path}: it was {path} that moved bytes", moved_something, rig,
                         [p for p in ("steer", "splice") if p == path or path == "auto"
                          and not self.refused[p]])
        self.run(f"{path}: kvpin exits with 0", rig.stop)
        self.run(f"{path}: no socket is left", left_sockets, level)
        self.run(f"{path}: no pin is left", left_pins, pinned)
        self.run(f"{path}: nothing is left at tc", left_attachments, hooked)


def moved_something(rig, paths):
    assert all(rig.moved(path) > 0 for path in paths), f"all bytes went another way than {paths}"


def left_sockets(level):
    """A socket that leaks is allocated for ever; timers of dying ones run out."""
    wait_until(lambda: all(now <= then for now, then in zip(sockets(), level)), PATIENCE,
               lambda: f"TCP (in use, allocated besides) was {level}, is {sockets()}:\n"
               + "".join(pathlib.Path(f"/proc/net/{name}").read_text() for name in
                         ("tcp", "tcp6") if os.path.exists(f"/proc/net/{name}")))


def left_pins(before):
    assert pins() <= before, pins() - before


def left_attachments(before):
    wait_until(lambda: attachments() == before, PATIENCE,
               lambda: f"at tc was {before}, is {attachments()}")


def serves_by_relay_and_says_so(why, env=None):
    rig = Rig("auto", env)
    try:
        bulk(rig.client(), 10000, 1, "auto")
        assert rig.moved("relay") > 0
        log = rig.kvpin.output()
        assert re.search(r"cannot steer here.*reason=.*" + re.escape(why.partition(":")[0]), log), \
            f"steer is refused ({why}), and kvpin does not say so:\n{log}"
    finally:
        rig.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--paths", default="relay steer splice auto")
    parser.add_argument("--only", default="")
    parser.add_argument("--churn", type=int, default=2000)
    args = parser.parse_args()
    runner = Runner(args.only, args.churn)
    refused, tc = runner.run("kvpin doctor says which paths can be used", doctor) or (
        dict.fromkeys(("steer", "splice"), "kvpin doctor failed"), "")
    runner.refused = {**refused, "auto": None}
    if refused["steer"]:
        runner.run("without steer, auto serves by relay and says so",
                   serves_by_relay_and_says_so, refused["steer"])
    else:
        runner.run("were steer refused, auto would serve by relay and say so",
                   serves_by_relay_and_says_so, "redirect:", {"KVPIN_SELFTEST_FAIL": "redirect"})
    for path in args.paths.split():
        if not runner.refused[path]:
            runner.path(path)
    said = "; ".join(f"{path}={'no (' + why + ')' if why else 'yes'}"
                     for path, why in refused.items() if path != "relay")
    print(f"summary {said}; {tc}; {runner.passed} passed, {runner.failed} failed")
    return 1 if runner.failed else 0


if __name__ == "__main__":
    sys.exit(main())
