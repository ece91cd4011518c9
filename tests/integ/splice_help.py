# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What the splice path's cases share: what the program counted, and what is left in the kernel."""
import ctypes
import json
import socket
import subprocess
import time

from harness import checksum

PROGRAM = "splice_packet"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM = (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
          b"Transfer-Encoding: chunked\r\n\r\n")


class Splices:
    """What a kvpin with `path: splice` did."""

    def __init__(self, kvpin):
        self.kvpin = kvpin

    def status(self):
        return self.kvpin.status()

    def taken(self):
        return self.status()["splice_taken"]

    def running(self):
        status = self.status()
        return status["splice_taken"] - status["splice_back"]

    def wait(self, condition, timeout=5.0):
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, self.status()
            time.sleep(0.005)

    @staticmethod
    def wait_for(condition, timeout=5.0):
        """Without asking kvpin, which may be dead."""
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.005)

    def wait_running(self, count=1):
        self.wait(lambda: self.running() == count)

    def wait_idle(self):
        """No connection, no answer under way, nothing in flight."""
        self.wait(lambda: self.status()["connections"] == 0)
        assert self.running() == 0
        backends = self.kvpin.status("backends")["backends"]
        assert sum(b["inflight"] for b in backends) == 0


def programs():
    """Ids of the programs of the splice path that are loaded anywhere."""
    out = subprocess.run(["bpftool", "-j", "prog", "show"], capture_output=True, check=True)
    return {p["id"] for p in json.loads(out.stdout) if p.get("name") == PROGRAM}


def bpftool(*words):
    return json.loads(subprocess.run(["bpftool", "-j", *words], capture_output=True,
                                     check=True).stdout)


def map_id(kvpin, *names):
    """Of a map of kvpin's program that has one of these names."""
    config = bpftool("map", "show", "pinned", f"{kvpin.pin}-splice/config")["id"]
    used = next(p["map_ids"] for p in bpftool("prog", "show") if config in p.get("map_ids", ()))
    return next(m["id"] for m in bpftool("map", "show")
                if m["id"] in used and m.get("name") in names)


class InFlight:
    """What kvpin and its program count in flight, read past the daemon."""

    def __init__(self, kvpin):
        self.id = map_id(kvpin, "backends", "splice_backends")

    def first(self):
        """Of the first server."""
        entry = bpftool("map", "dump", "id", str(self.id))[0]
        return entry.get("formatted", entry)["value"]["inflight"]


def attached():
    """{(device, "ingress" or "egress")} of this network namespace where a program of the splice
    path is."""
    libbpf, ours, found = ctypes.CDLL("libbpf.so.1"), programs(), set()
    for index, device in socket.if_nameindex():
        for hook, attach_type in (("ingress", 46), ("egress", 47)):  # BPF_TCX_*
            ids, count = (ctypes.c_uint32 * 16)(), ctypes.c_uint32(16)
            flags = ctypes.c_uint32(0)
            if not libbpf.bpf_prog_query(index, attach_type, 0, ctypes.byref(flags), ids,
                                         ctypes.byref(count)):
                found |= {(device, hook) for i in ids[:count.value] if i in ours}
    return found


def request(path, session, *fields, body=b"", method=None):
    lines = [f"{method or ('POST' if body else 'GET')} {path} HTTP/1.1", "Host: t",
             f"X-Session-Id: {session}", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def same(got, wanted):
    """Bytes that are long: checksums, so that a failure is readable."""
    assert (len(got), checksum(got)) == (len(wanted), checksum(wanted))
