# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Connections that end in every way, at every step of an exchange, on every data path: whoever waits
is told, and nothing is left behind. KVPIN_CHURN_S=60 makes it last longer.

The servers are scripts: a request's target says what becomes of it, step by step. The step that
matters is 'w': the server is silent until it hears of the client's end. Nothing else ends it within
the test's time, so an end that somebody forgets is a connection that stays."""
import os
import random
import threading
import time
import traceback

import pytest

from harness import NO_CHECKS, Client, request, wait_until
from rawserver import reply

pytestmark = pytest.mark.slow
LAST_S = float(os.environ.get("KVPIN_CHURN_S", "6"))
THREADS = 6
TOLD_S = 20
JSON = reply(b"{}")
HEADS = {"H": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
         "S": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
              b"Transfer-Encoding: chunked\r\n\r\n"}
EVENT = b"data: 0123456789\n\n"
BULK = b"x" * 65536
# What a server does. Those in the first line wait for the client's end, and say no more.
SILENT = ["w", "iw", "Hw", "Sw", "Hew", "Sew", "HEw", "SEw", "SEbw", "Hbbbbw", "SE.Ew", "HE.Ew"]
ANSWERS = ["j", "Hez", "SEz", "HEbz", "SE.Ez", "HbbbbE.z"]
BREAKS = ["F", "R", "HF", "SEF", "SER", "HbbbbF", "HE.R", "jF", "SEzF"]


class Servers:
    """The script of all servers, and what each of their connections is at."""

    def __init__(self):
        self.at = {}

    def __call__(self, conn):
        try:
            while (got := conn.request_head()):
                self.at[id(conn)] = (got.target, conn.sock.getpeername())
                conn.body_of(got)
                if not self.steps(conn, got.target.rpartition("/")[2]):
                    return
                self.at.pop(id(conn))
        finally:
            conn.close()
            self.at.pop(id(conn), None)

    def steps(self, conn, steps):
        """Returns whether the connection goes on."""
        for step in steps:
            if step == "j":
                conn.send(JSON)
            elif step == "i":
                conn.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            elif step in "HS":
                conn.send(HEADS[step])
            elif step in "eE":
                for _ in range(1 if step == "e" else 12):
                    conn.send(b"%x\r\n%s\r\n" % (len(EVENT), EVENT))
                    time.sleep(0.0005)
            elif step == "b":
                conn.send(b"%x\r\n%s\r\n" % (len(BULK), BULK))
            elif step == ".":
                time.sleep(0.003)
            elif step == "w":
                conn.sock.settimeout(None)
                while conn.more():
                    pass
                return False
            elif step == "z":
                conn.send(b"0\r\n\r\n")
            elif step == "R":
                conn.reset()
                return False
            else:
                return False
        return True


def leave(client, pick):
    pick.choice([client.close, client.reset])()


def silent(client, pick, session):
    """Its request is not answered to the end; it leaves."""
    steps, how = pick.choice(SILENT), pick.randrange(8)
    data = request(f"/silent-{how}/{steps}", session)
    if how == 0:  # behind the answer would have been another one: only a RST tells
        client.send(data + request("/j", session)[:pick.choice([60, 1000])])
        return client.reset()
    elif how == 1:  # the FIN right behind the request
        client.send(data)
        client.half_close()
        if pick.random() < 0.5:
            client.sock.recv(1)  # the first byte, or the end
    elif how == 2:
        client.send(data)
    elif how == 3:  # in the moment when the answer begins
        client.send(data)
        if steps[0] in "HS":
            client.more()
        client.half_close()
        time.sleep(pick.choice([0, 0.001]))
    elif how == 4:
        client.send(request("/" + steps, session, body=BULK[:pick.choice([10, 9000, 60000])]))
        time.sleep(pick.choice([0, 0.001]))
    elif how == 5:  # what can be no request any more
        client.send(data + pick.choice([b"\r\n", b"GET / HT"]))
        client.half_close()
        time.sleep(pick.choice([0, 0.001]))
    else:  # some way into the answer
        client.send(data)
        for _ in range(pick.randrange(13) if "E" in steps else 0):
            client.until(EVENT)
        time.sleep(pick.choice([0, 0.001, 0.005]))
    return leave(client, pick)


def answered(client, pick, session):
    """The server answers all."""
    steps, how = pick.choice(ANSWERS), pick.randrange(5)
    data = request("/" + steps, session)
    if how == 0:  # half-closed, and answered: or, while it waits for a slot, taken for one that left
        client.send(data)
        client.half_close()
        client.answer()
    elif how == 1:
        client.send(data + request("/j", session))
        client.half_close()
        if client.answer()[0] == 200 and client.answer()[2] != b"{}":
            raise AssertionError("answer")
    elif how == 2:
        client.send(data)
        client.more()
    elif how == 3:  # half of something
        body = request("/" + steps, session, body=BULK[:9000])
        client.send(body[:pick.randrange(1, len(body))])
    else:
        client.send(request("/" + steps, session, "Connection: close"))
        client.answer()
        assert client.ended() in ("fin", "rst")
    leave(client, pick)


def broken(client, pick, session):
    """The server ends: the client hears of it."""
    client.send(request("/" + pick.choice(BREAKS), session))
    client.answer()
    leave(client, pick)


def connection(kvpin, pick):
    session = f"s{pick.randrange(40)}"
    way = pick.choice([silent, silent, answered, broken])
    small = pick.random() < 0.3
    client = Client(kvpin.addr, TOLD_S, 8192 if small else 0)
    try:
        for _ in range(pick.randrange(5)):
            client.send(request("/j", session))
            assert client.answer()[2] == b"{}"
        way(client, pick, session)
    except TimeoutError:
        raise
    except (EOFError, OSError):
        pass  # the server's end, or kvpin's
    finally:
        client.close()


def run_many(kvpin, seed, until, counts, problems):
    pick = random.Random(seed)
    while time.monotonic() < until and not problems:
        try:
            connection(kvpin, pick)
        except (AssertionError, OSError) as error:
            problems.append((seed, counts[seed], traceback.format_exc()))
        counts[seed] += 1


@pytest.mark.parametrize("slots", ["", ",slots=3"], ids=["unlimited", "slots"])
def test_an_end_at_any_step_is_told_to_whoever_waits(start, slots):
    servers, counts, problems = Servers(), [0] * THREADS, []
    raws = [start.raw(servers, f"raw{i}") for i in range(2)]
    kvpin = start.kvpin([f"{raw.name}={raw.text}{slots}" for raw in raws], "--workers", "2",
                        "--health-fall", "100", "--limit-connections", "512", *NO_CHECKS,
                        log_requests=False)
    threads = [threading.Thread(target=run_many, args=(kvpin, seed, time.monotonic() + LAST_S,
                                                       counts, problems))
               for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LAST_S + 2 * TOLD_S)
        assert not thread.is_alive()
    assert problems == []
    print("connections", sum(counts))
    wait_until(lambda: kvpin.status()["connections"] == 0, TOLD_S,
               lambda: f"{kvpin.status()} {servers.at}")
    wait_until(lambda: not servers.at, TOLD_S, lambda: str(servers.at))
    wait_until(lambda: not any(row["inflight"] for row in kvpin.status("backends")["backends"]))
