# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What the cases of running it share: a configuration file, a reload, a stream that goes on."""
import collections
import ctypes
import os
import re
import signal
import subprocess
import threading

import pytest

import harness
from harness import wait_until


def server_of(client, session=None, header="X-Session-Id"):
    """Which simulated server answers that session; without one, anybody."""
    status, fields, _ = client.request("GET", "/json", {
        "x-sim-verify": "1", **({header: session} if session else {})})
    assert status == 200
    return fields["x-sim-server"]


# A server by another name.
Alias = collections.namedtuple("Alias", "name text")


class Config:
    """A configuration file; the addresses come as flags."""

    def __init__(self, start, backends, text=""):
        self.path = start.tmp / "kvpin.yaml"
        self.write(backends, text)

    def write(self, backends, text=""):
        rows = [f'  - {{name: {b.name}, address: "{b.text}", weight: {weight}}}\n'
                for b, weight in backends.items()]
        self.path.write_text("backends:\n" + "".join(rows) + text)

    def start(self, start, *args):
        return start.kvpin([], "--config", str(self.path), *args)


def reload(kvpin, how="command"):
    if how == "command":
        return subprocess.run([harness.KVPIN, "reload", "--control", kvpin.control],
                              capture_output=True, text=True, timeout=20)
    before = kvpin.output().count("reload")
    kvpin.kill(signal.SIGHUP)
    wait_until(lambda: kvpin.output().count("reload") > before)
    return None


class OnlyMain:
    """Within the block all threads of a process but its main one stand still. None of its methods
    may be called by another thread than the first."""

    SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17  # PTRACE_*
    WALL = 0x40000000

    def __init__(self, process):
        self.main, self.libc = process.pid, ctypes.CDLL(None, use_errno=True)
        self.libc.ptrace.argtypes = [ctypes.c_long] * 4
        self.others = [int(tid) for tid in os.listdir(f"/proc/{self.main}/task")
                       if int(tid) != self.main]

    def ask(self, what, tid):
        if self.libc.ptrace(what, tid, 0, 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def __enter__(self):
        for tid in self.others:
            try:
                self.ask(self.SEIZE, tid)
            except PermissionError:
                pytest.skip("threads of other processes must not be traced here")
            self.ask(self.INTERRUPT, tid)
            os.waitpid(tid, self.WALL)
        return self

    def __exit__(self, *_):
        for tid in self.others:
            self.ask(self.DETACH, tid)

    def slept(self):
        """How often the main thread has waited for something."""
        with open(f"/proc/{self.main}/task/{self.main}/status") as f:
            return int(re.search(r"\nvoluntary_ctxt_switches:\s+(\d+)", f.read()).group(1))


class Stream(threading.Thread):
    """One event stream; .result tells how it ended."""

    def __init__(self, client, session, events=100, gap_us=10000):
        super().__init__(daemon=True)
        self.client, self.events = client, events
        client.send(f"GET /sse/{events}/{gap_us}/100 HTTP/1.1\r\nHost: t\r\n"
                    f"X-Session-Id: {session}\r\nx-sim-verify: 1\r\n\r\n")
        status, self.fields, _ = client.head()
        assert status == 200
        self.result = None
        self.start()

    def run(self):
        try:
            body = b"".join(self.client.chunks())
            found = [int(n) for n in re.findall(rb'"i":(\d+)', body)]
            self.result = "whole" if found == list(range(self.events)) else found
        except (OSError, EOFError) as error:
            self.result = repr(error)
