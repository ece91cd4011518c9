# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Races that a review found: made certain by stopping kvpin while both sides act."""
import os
import signal
import threading
import time

import pytest

import netrig
from harness import NO_CHECKS, Client, unacked, wait_until
from rawserver import reply

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"


def get(target, *fields):
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: test", *fields]) + "\r\n\r\n"


def slow_client(kvpin):
    """A client whose receive buffer is small: most of a large answer waits on kvpin's side."""
    return Client(kvpin.addr, rcvbuf=8192)


def test_a_tunnel_whose_server_is_gone_ends_with_the_client(start):
    def script(conn):
        conn.read()
        conn.send(SWITCHED)

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS)
    client = start.client(kvpin)
    client.send(get("/", "Connection: upgrade", "Upgrade: x"))
    assert client.head()[0] == 101
    assert client.ended() == "fin"
    for word in (b"one", b"two"):  # the first is answered with a RST, the second fails
        client.send(word)
        time.sleep(0.1)
    client.half_close()
    end = time.monotonic() + 5
    while kvpin.status()["connections"] and time.monotonic() < end:
        time.sleep(0.02)
    assert kvpin.status()["connections"] == 0
    assert kvpin.status("backends")["backends"][0]["inflight"] == 0


def breaks_off(conn):
    """A large answer that lasts until the close, and a RST in the middle of it."""
    conn.read()
    conn.send(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 3000000)
    time.sleep(0.1)
    conn.reset()


def test_a_broken_answer_ends_in_a_reset_even_when_kvpin_is_told_to_stop(start):
    kvpin = start.kvpin([start.raw(breaks_off)], *NO_CHECKS)
    client = slow_client(kvpin)
    client.send(get("/"))
    read, end, ended = 0, time.monotonic() + 1, None
    while read < 1500000 and time.monotonic() < end:  # slowly: it is in BREAK for a while
        try:
            read += len(client.sock.recv(65536))
        except ConnectionResetError:  # spliced: what the server had not yet sent is lost at once
            ended = "rst"
            break
        time.sleep(0.0005)
    kvpin.kill(signal.SIGTERM)
    time.sleep(0.15)
    kvpin.kill(signal.SIGTERM)
    assert (ended or client.ended()) == "rst"
    assert kvpin.wait() == 0


def test_a_reset_reaches_a_client_that_has_no_room_for_what_came_before(start):
    """A RST beyond the receiver's window is none: many servers break off with more under way."""
    kvpin = start.kvpin([start.raw(breaks_off)], *NO_CHECKS)
    ends = []

    def ask():
        client = Client(kvpin.addr, rcvbuf=8192)
        client.send(get("/"))
        try:
            while client.sock.recv(65536):
                time.sleep(0.0005)
            ends.append("fin")
        except ConnectionResetError:
            ends.append("rst")
        except TimeoutError:
            ends.append("nothing")
        client.close()

    for _ in range(5):
        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert ends == ["rst"] * 80


def test_a_last_answer_survives_what_the_client_sends_behind_its_request(start):
    stopped, go = threading.Event(), threading.Event()

    def script(conn):
        conn.read()
        conn.send(reply(b"y" * 45000)[:-45000])
        stopped.wait(5)
        conn.send(b"y" * 45000)
        go.set()

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS, "--workers", "1")
    client = slow_client(kvpin)
    client.send(get("/", "Connection: close"))
    assert client.head()[0] == 200
    kvpin.suspend()
    stopped.set()
    assert go.wait(5)
    client.send(get("/too-late"))
    wait_until(lambda: unacked(client.sock) == 0)
    kvpin.kill(signal.SIGCONT)
    time.sleep(0.2)  # the client reads late
    assert client.exactly(45000) == b"y" * 45000
    assert client.ended() == "fin"


def test_what_a_server_says_unasked_is_nobodys_answer(start):
    speak, spoken = threading.Event(), threading.Event()

    def script(conn):
        while conn.read():
            conn.send(reply(b"good"))
            if conn.server.connections == 1:
                speak.wait(5)
                conn.send(reply(b"evil"))
                spoken.set()

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS, "--workers", "1")
    client = start.client(kvpin)
    assert client.request("GET", "/")[2] == b"good"
    kvpin.suspend()
    client.send(get("/next"))
    speak.set()
    assert spoken.wait(5)
    wait_until(lambda: unacked(client.sock) == 0)
    kvpin.kill(signal.SIGCONT)
    assert client.answer()[2] == b"good"


# What kvpin asks of a socket at once while little has come, and how often in a row (user/net/relay.c).
FIRST_READ = 16384 - 512
ROUNDS = 16


@pytest.fixture
def roomy():
    """Within it all is in a namespace in which much fits a socket's receive buffer."""
    rig = netrig.Rig()
    with netrig.inside(rig.namespace("k")):
        with open("/proc/sys/net/ipv4/tcp_rmem", "w") as f:
            f.write("4096 2097152 4194304")
        yield
    rig.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")
def test_an_end_that_is_all_of_the_last_read_in_a_row_is_seen(roomy, start):
    """An HTTP/1.0 client is given no chunk framing: nothing of that read is left to be sent."""
    got, resume, queued, rest = threading.Event(), threading.Event(), threading.Event(), []

    def script(conn):
        conn.read()
        got.set()
        resume.wait(20)
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunk = b"1;%s\r\nx\r\n" % (b"e" * 1000)
        size = (ROUNDS - 1) * FIRST_READ - len(head)
        data = chunk * (size // len(chunk) - 1)
        left = size - len(data)  # two chunks, shorter ones
        for part in (left // 2, left - left // 2):
            data += b"1;%s\r\nx\r\n" % (b"e" * (part - 7))
        conn.send(head + data + b"0\r\n\r\n" + b"j" * FIRST_READ)
        wait_until(lambda: unacked(conn.sock) == 0)
        rest.append(data.count(b"x\r\n"))
        queued.set()
        conn.more()

    kvpin = start.kvpin([start.raw(script)], *NO_CHECKS)
    client = start.client(kvpin)
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    assert got.wait(10)
    kvpin.suspend()
    resume.set()
    assert queued.wait(10)
    kvpin.kill(signal.SIGCONT)
    assert client.answer()[2] == b"x" * rest[0]
