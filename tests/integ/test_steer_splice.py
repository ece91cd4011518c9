# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""`path: auto`: requests and short answers by steer, streams and long bodies by splice, on the same
connection."""
import random
import threading

import pytest

from harness import pattern
from rawserver import reply
from splice_help import CHUNKED, Splices, request, same
from steer_help import ENTERS_AFTER, Kernel
from test_splice import owner, two_drips
from test_splice_cut import MANNERS, ask, spliced_bytes, take_answer

pytestmark = pytest.mark.steer_only

AUTO = ("--path", "auto", "--health-interval", "off", "--splice-events", "2")
# What is asked for, and for how many pieces of how many bytes.
KINDS = {
    "short": ("/drip/1/{n}/0?length", 1),
    "chunked": ("/drip/2/{n}/0?chunked", 2),
    "stream": ("/drip/12/{n}/2?stream", 12),
    "long": ("/drip/6/{n}000/1?length", 6),
}


def use(client, seeds, rng, count):
    for _ in range(count):
        session = rng.choice(sorted(seeds))
        kind = rng.choice(["short", "short", "chunked", "stream", "stream", "long"])
        path, pieces = KINDS[kind]
        n = rng.randrange(60, 200)
        client.send(request(path.format(n=n), session))
        status, _, body = client.answer()
        assert status == 200
        same(body, pattern(pieces * n * (1000 if kind == "long" else 1), seeds[session]))


def test_one_connection_has_both(start):
    kvpin = start.kvpin(two_drips(start), *AUTO)
    splice, kernel = Splices(kvpin), Kernel(kvpin)
    client = start.client(kvpin)
    seeds = {s: owner(client, s) for s in ("a", "b")}
    assert sorted(seeds.values()) == [1, 2]
    use(client, seeds, random.Random(1), 300)
    assert kernel.total() > 60, kvpin.status()
    assert splice.taken() > 60, kvpin.status()
    assert kvpin.status()["path_in_use"] == "steer, splice"
    client.close()
    splice.wait_idle()


def test_many_connections_have_both(start):
    kvpin = start.kvpin(two_drips(start), *AUTO)
    splice, kernel = Splices(kvpin), Kernel(kvpin)
    first = start.client(kvpin)
    seeds = {s: owner(first, s) for s in ("a", "b")}
    clients, failed = [start.client(kvpin) for _ in range(8)], []

    def run(i):
        try:
            use(clients[i], seeds, random.Random(i), 80)
        except Exception as error:  # told below, in the test's thread
            failed.append(repr(error))

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert kernel.total() > 60 and splice.taken() > 60, kvpin.status()
    for client in (first, *clients):
        client.close()
    splice.wait_idle()


@pytest.mark.parametrize("manner", MANNERS)
def test_most_of_a_stream_without_pause_is_spliced(start, manner):
    size = (20 if manner == "sse" else 110) << 20
    kvpin = start.kvpin([start.sim("gpu0", "uvicorn")], "--path", "auto", "--health-interval", "off")
    splice = Splices(kvpin)
    client = start.client(kvpin, timeout=60)
    client.send(ask(manner, size, "s"))
    take_answer(client, size, manner)
    splice.wait(lambda: splice.running() == 0)
    assert spliced_bytes(splice) > size // 2, (spliced_bytes(splice) / size, splice.status())
    client.close()
    splice.wait_idle()


def test_the_stream_of_a_steered_request_is_not_steered(start):
    kvpin = start.kvpin([start.sim("gpu0", "uvicorn")], "--path", "auto", "--health-interval", "off")
    kernel = Kernel(kvpin)
    client = start.client(kvpin)
    for _ in range(ENTERS_AFTER):
        client.send(request("/json", "s"))
        assert client.answer()[0] == 200
    kernel.wait_armed()
    client.send(request("/sse/20/1000/150", "s"))
    assert client.answer()[0] == 200
    assert kernel.refusals() == {"answer_streams": 1}
    client.close()
    kernel.close()


def test_a_body_of_unknown_length_is_steered_until_it_is_long(start):
    """One part at a time, so that nothing is queued: no budget takes it away from the kernel."""
    turns, size = threading.Semaphore(0), 16384

    def script(conn):
        while (got := conn.read()):
            if got.target == "/json":
                conn.send(reply(b"{}"))
                continue
            conn.send(CHUNKED)
            for _ in range(int(got.target[1:])):
                turns.acquire(timeout=20)
                conn.send(b"%x\r\n%s\r\n" % (size, pattern(size)))
            conn.send(b"0\r\n\r\n")

    def take(client, parts):
        """The answer's parts so far."""
        for _ in range(parts):
            turns.release()
            assert client.until(b"\r\n") == b"4000\r\n"
            assert client.exactly(size + 2) == pattern(size) + b"\r\n"

    kvpin = start.kvpin([start.raw(script)], "--path", "auto", "--health-interval", "off",
                        "--splice-body", "256KiB")
    splice, kernel = Splices(kvpin), Kernel(kvpin)
    client = start.client(kvpin)
    for _ in range(ENTERS_AFTER):
        client.send(request("/json", "s"))
        assert client.answer()[0] == 200
    kernel.wait_armed()
    with kernel.steers(3):
        for parts in (1, 8, 16):  # whose end comes with, or before, the last of 256 KiB
            client.send(request(f"/{parts - 1}", "s"))
            assert client.head()[0] == 200
            take(client, parts - 1)
            assert client.until(b"0\r\n\r\n") == b"0\r\n\r\n"
    client.send(request("/200", "s"))
    assert client.head()[0] == 200
    take(client, 15)
    assert "answer_long" not in kernel.refusals()
    take(client, 1)
    assert kernel.refusals()["answer_long"] == 1
    take(client, 184)
    assert client.until(b"0\r\n\r\n") == b"0\r\n\r\n"
    splice.wait(lambda: splice.running() == 0)
    assert splice.taken() == 1 and spliced_bytes(splice) > 150 * size, splice.status()
    kernel.wait_armed()
    with kernel.steers(1):  # the next one is steered again
        client.send(request("/json", "s"))
        assert client.answer()[0] == 200
    client.close()
    splice.wait_idle()
    kernel.close()
