# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""`path: auto`: requests and short answers by steer, streams and long bodies by splice, on the same
connection."""
import random
import threading

import pytest

from harness import pattern
from splice_help import Splices, request, same
from steer_help import Kernel
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
    # A body whose length is not known goes by steer until the client falls behind.
    least = 1 if manner == "chunked" else size // 2
    assert spliced_bytes(splice) > least, (spliced_bytes(splice) / size, splice.status())
    client.close()
    splice.wait_idle()
