# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Starts kvpin-sim, and speaks to it byte by byte. KVPIN_SIM names another program than
build/tests/kvpin-sim."""
import http.client
import json
import os
import re
import select
import socket
import subprocess
import time
from pathlib import Path

import httpx

HERE = Path(__file__).parent
PROGRAM = os.environ.get("KVPIN_SIM", str(HERE.parents[1] / "build/tests/kvpin-sim"))
WORDS = "gamma forest beta kernel beta memory river packet delta stone "


class Sim:
    def __init__(self, *args, manner="llama", listen="127.0.0.1:0", wait=True):
        self.p = subprocess.Popen(
            [PROGRAM, "--listen", listen, "--manner", manner, "--name", "gpu0", "--quiet", *map(str, args)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        word, addr = self.p.stdout.readline().split()
        assert word == ("listening" if wait else "bound")
        host, port = addr.rsplit(":", 1)
        self.addr = (host.strip("[]"), int(port))
        self.url = "http://" + addr

    def raw(self, data=b"", timeout=5):
        s = socket.create_connection(self.addr, timeout=timeout)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if data:
            s.sendall(data)
        return s

    def get(self, path, **kw):
        return httpx.get(self.url + path, verify=False, trust_env=False, **kw)

    def post(self, path, body=None, **kw):
        return httpx.post(self.url + path, json=body, verify=False, trust_env=False, **kw)

    def stats(self):  # http.client: polls faster than httpx can set up
        c = http.client.HTTPConnection(*self.addr, timeout=5)
        c.request("GET", "/stats")
        try:
            return json.loads(c.getresponse().read())
        finally:
            c.close()

    def until(self, key, value, timeout=5):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.stats()[key] == value:
                return True
            time.sleep(0.005)
        return False

    def close(self):
        if self.p.poll() is None:
            self.p.terminate()
            try:
                self.p.wait(6)
            except subprocess.TimeoutExpired:
                self.p.kill()
                self.p.wait()
        err = self.p.stderr.read()
        self.p.stdout.close()
        self.p.stderr.close()
        assert self.p.returncode == 0 and not err, (self.p.returncode, err)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def chat(text, n=4, stream=False, **more):
    return {"messages": [{"role": "user", "content": text}], "max_tokens": n, "stream": stream, **more}


def post_bytes(path, body, extra="", version="1.1"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return (f"POST {path} HTTP/{version}\r\nHost: x\r\n{extra}Content-Length: {len(data)}\r\n\r\n").encode() + data


GET_HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


# Where an end is awaited: the machine may be busy.
END = 10


def recv_for(s, seconds, first=END):
    """Bytes until EOF or `seconds` of silence; (bytes, 'eof' | 'rst' | 'open'). `first`: how long
    the first byte is waited for."""
    out = b""
    while select.select([s], [], [], seconds if out else first)[0]:
        try:
            part = s.recv(1 << 20)
        except ConnectionResetError:
            return out, "rst"
        if not part:
            return out, "eof"
        out += part
    return out, "open"


def recv_until(s, mark):
    out = b""
    while mark not in out:
        part = s.recv(65536)
        assert part, out
        out += part
    return out


def dechunk(data):
    out, clean = [], False
    while data:
        size, _, data = data.partition(b"\r\n")
        n = int(size, 16)
        if not n:
            assert data == b"\r\n"
            clean = True
            break
        out.append(data[:n])
        assert data[n:n + 2] == b"\r\n"
        data = data[n + 2:]
    return out, clean


def normal(head):
    head = re.sub(r"(?i)(content-length: )\d+", r"\1N", head)
    return re.sub(r"(date: ).*", r"\1D", head)


def pattern(seed, n):
    return bytes((seed + i) % 251 for i in range(n))
