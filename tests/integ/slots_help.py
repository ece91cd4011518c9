# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What the cases of slots share: servers with a prefix cache per slot, in real time, and one chat
request at a time."""
import json
import socket
import subprocess
import threading
import time

from harness import KVPIN, NO_CHECKS, Client

PREFILL = 20000  # tokens a second
DECODE = 200


class Turn(threading.Thread):
    """One streamed chat request of a session, or of none, on a connection of its own or on
    `client`."""

    def __init__(self, kvpin, session, words=20, tokens=2, client=None, timeout=20.0, prompt=None,
                 headers=(), **more):
        super().__init__()
        self.headers = {"Content-Type": "application/json", **dict(headers)}
        if session:
            self.headers["X-Session-Id"] = session
        self.timeout = timeout
        self.client = client or Client(kvpin.addr, timeout)
        self.keep = client is not None
        # The first word makes each session's prompt its own.
        prompt = prompt or f"{session} " + "word " * words
        self.body = json.dumps({"stream": True, "max_tokens": tokens, **more, "messages": [
            {"role": "user", "content": prompt}]}).encode()
        self.begun = time.monotonic()
        self.start()

    def run(self):
        try:
            self.status, self.fields, self.answer = self.client.request(
                "POST", "/v1/chat/completions", self.headers, self.body)
        except (EOFError, OSError) as error:
            self.status = error
        self.took = time.monotonic() - self.begun
        if not self.keep:
            self.client.close()

    def leave(self):
        """The client goes, whatever it waits for."""
        self.client.sock.shutdown(socket.SHUT_RDWR)
        self.join(self.timeout)

    @property
    def ended(self):
        return self.begun + self.took

    def done(self, status=200):
        self.join(self.timeout)
        assert self.status == status, (self.status, getattr(self, "answer", b"")[:300])
        return self


def run(kvpin, session, **options):
    return Turn(kvpin, session, **options).done()


def backends(kvpin):
    return {row["name"]: row for row in kvpin.status("backends")["backends"]}


def owner(kvpin, key):
    last = explain(kvpin, key)
    return last[0]["backend"]


def explain(kvpin, key=None, last=1):
    """The latest decisions, of one session or of all."""
    which = ["--session", key] if key else []
    out = subprocess.run([KVPIN, "explain", *which, "--last", str(last), "--json",
                          "--control", kvpin.control], capture_output=True, text=True, timeout=20)
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout)["decisions"]


def pair(start, slots=1, known=True, servers=2, args=(), **options):
    options = {"prefill_tps": PREFILL, "decode_tps": DECODE, "slots": slots, **options}
    sims = [start.sim(f"gpu{i}", **options) for i in range(servers)]
    tail = f",slots={slots}" if known is True else f",slots={known}" if known else ""
    kvpin = start.kvpin([f"{s.name}={s.text}{tail}" for s in sims], *NO_CHECKS, *args)
    return sims, kvpin


def stats(sims):
    return {sim.name: sim.get("/stats") for sim in sims}


def kvpin_pin(kvpin, key, name):
    out = subprocess.run([KVPIN, "pin", key, name, "--control", kvpin.control],
                         capture_output=True, text=True, timeout=20)
    assert out.returncode == 0, out.stderr
    return out.stdout
