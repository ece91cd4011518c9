# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Processes for the integration tests: simulated servers, a real uvicorn, kvpin itself.

Every program listens on a port of its own choosing (port 0) and is ended by its pid. A test that
leaves a process, or a kvpin that exits with an error or a sanitizer report, fails.
"""
import contextlib
import fcntl
import glob
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import termios
import time
import urllib.error
import urllib.request

import xxhash

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("KVPIN_BUILD", os.path.join(ROOT, "build"))
KVPIN = os.path.join(BUILD, "kvpin")
SIM = os.path.join(BUILD, "tests", "kvpin-sim")
LOAD = os.path.join(BUILD, "tests", "kvpin-load")
PYTHON = "/usr/bin/python3"  # Debian's, where the clients' packages are


class Process:
    """A child whose output goes to a file, with a line of it awaited at the start."""

    def __init__(self, argv, log, ready, timeout=15.0, env=None, stdin=None):
        self.argv, self.log_path = argv, str(log)
        self.log = open(self.log_path, "wb")
        self.popen = subprocess.Popen(argv, stdout=self.log, stderr=subprocess.STDOUT,
                                      stdin=stdin or subprocess.DEVNULL,
                                      env={**os.environ, **(env or {})})
        self.pid = self.popen.pid
        self.match = self.wait_line(ready, timeout)

    def output(self):
        with open(self.log_path, "r", errors="replace") as f:
            return f.read()

    def wait_line(self, pattern, timeout=10.0):
        """Wait until the output holds a line that matches; returns the match."""
        end = time.monotonic() + timeout
        while True:
            found = re.search(pattern, self.output(), re.M)
            if found:
                return found
            if self.popen.poll() is not None:
                raise RuntimeError(f"{self.argv[0]} ended early ({self.popen.returncode}):\n"
                                   + self.output())
            if time.monotonic() > end:
                self.popen.kill()
                raise TimeoutError(f"{self.argv[0]}: no {pattern!r} in:\n{self.output()}")
            time.sleep(0.005)

    def alive(self):
        return self.popen.poll() is None

    def kill(self, sig=signal.SIGKILL):
        self.popen.send_signal(sig)

    def suspend(self):
        """SIGSTOP, and wait until every thread has stopped: the signal takes its time."""
        self.kill(signal.SIGSTOP)
        end = time.monotonic() + 5
        tasks = f"/proc/{self.pid}/task"
        while not all(open(f"{tasks}/{tid}/stat").read().rpartition(")")[2].split()[0] == "T"
                      for tid in os.listdir(tasks)):
            assert time.monotonic() < end
            time.sleep(0.001)

    def wait(self, timeout=20.0):
        code = self.popen.wait(timeout)
        self.log.close()
        return code

    def stop(self, sig=signal.SIGTERM, timeout=20.0):
        if self.alive():
            self.kill(sig)
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise

    def rss_kib(self):
        with open(f"/proc/{self.pid}/status") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu_seconds(self):
        with open(f"/proc/{self.pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pattern(count, seed=0):
    """The bytes that a server's /bytes/COUNT?seed=SEED sends."""
    period = bytes(range(251))
    at = seed % 251
    return (period * ((count + at) // 251 + 1))[at:at + count]


def checksum(data):
    """XXH64 as the servers write it."""
    return xxhash.xxh64_hexdigest(data)


def wait_until(what, timeout=10.0, why="it did not come about"):
    end = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < end, why() if callable(why) else why
        time.sleep(0.005)


def split_addr(text):
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


class Server(Process):
    """What simulated and real servers have in common."""

    def get(self, path, data=None, method=None):
        """A request straight to the server, past kvpin; returns the parsed JSON."""
        url = f"http://{self.text}{path}"
        request = urllib.request.Request(url, data=data, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())

    def wait_aborts(self, count, timeout=5.0):
        """Wait until the server has noticed that many clients leave."""
        end = time.monotonic() + timeout
        while self.aborts() < count and time.monotonic() < end:
            time.sleep(0.01)
        assert self.aborts() == count


class Sim(Server):
    """kvpin-sim; .addr is (host, port)."""

    def __init__(self, tmp, name="gpu0", manner="llama", listen="127.0.0.1:0", **options):
        argv = [SIM, "--listen", listen, "--name", name, "--manner", manner, "--quiet"]
        for key, value in options.items():
            argv += ["--" + key.replace("_", "-"), str(value)]
        self.name = name
        super().__init__(argv, tmp / f"sim-{name}-{time.monotonic_ns()}.log", r"^listening (\S+)$")
        self.text = self.match.group(1)
        self.addr = split_addr(self.text)

    def aborts(self):
        """Clients that left before their answer was complete, as the server saw it."""
        return self.get("/stats")["aborts"]


class Uvicorn(Server):
    """A real uvicorn with tests/integ/uvicorn_app.py; implementation h11 or httptools."""

    def __init__(self, tmp, name="gpu0", http="h11", args=()):
        with socket.socket() as s:  # uvicorn 0.17 does not tell its port: hand it a socket
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        argv = [PYTHON, "-m", "uvicorn", "--app-dir", os.path.join(ROOT, "tests", "integ"),
                "--host", "127.0.0.1", "--port", str(port), "--http", http, "--log-level",
                "warning", *args, "uvicorn_app:app"]
        self.name = name
        self.text = f"127.0.0.1:{port}"
        self.addr = ("127.0.0.1", port)
        super().__init__(argv, tmp / f"uvicorn-{name}-{time.monotonic_ns()}.log", r"",
                         env={"SERVER_NAME": name})
        end = time.monotonic() + 15
        while True:
            try:
                socket.create_connection(self.addr, 0.2).close()
                return
            except OSError:
                if not self.alive() or time.monotonic() > end:
                    raise RuntimeError("uvicorn did not start:\n" + self.output())
                time.sleep(0.02)

    def aborts(self):
        """Clients that left before their answer was complete, as the server saw it."""
        return self.get("/disconnects")["disconnects"]


class Kvpin(Process):
    """kvpin run; .addr is where it listens, .url the same as a URL."""

    name = "kvpin"

    def __init__(self, tmp, backends, path="relay", args=(), listen="127.0.0.1:0",
                 metrics="127.0.0.1:0", log_requests=True, env=None):
        self.path = path
        self.pin = f"/sys/fs/bpf/kvpin-test-{os.getpid()}-{time.monotonic_ns()}"
        self.control = str(tmp / f"control-{time.monotonic_ns()}.sock")
        argv = [KVPIN, "run", "--path", path, "--control", self.control, "--metrics", metrics,
                "--log-level", "debug"]
        if "--steer-pin" in args:
            self.pin = args[args.index("--steer-pin") + 1]
        else:
            argv += ["--steer-pin", self.pin]
        if path == "splice":  # whatever can be spliced, is
            argv += [word for flag in ("--splice-events", "--splice-body") if flag not in args
                     for word in (flag, "0")]
        for text in [listen] if isinstance(listen, str) else listen:
            argv += ["--listen", text]
        for backend in backends:
            if not isinstance(backend, str):
                backend = f"{backend.name}={backend.text}"
            argv += ["--backend", backend]
        if log_requests:
            argv.append("--log-requests")
        argv += list(args)
        super().__init__(argv, tmp / f"kvpin-{time.monotonic_ns()}.log",
                         r'msg="kvpin ready".* listen="?([^ "]+)"?',
                         env={"KVPIN_SELFTEST_SKIP": "1", **(env or {})})
        self.texts = self.match.group(1).split(",")
        self.text = self.texts[0]
        self.addr = split_addr(self.text)
        self.url = f"http://{self.text}"

    def unpin(self):
        """Take away what a kvpin that was killed left to its successor."""
        for directory in glob.glob(self.pin) + glob.glob(f"{self.pin}-splice*"):
            shutil.rmtree(directory)

    def at_rest(self, timeout=1.0):
        """Wait until each thread has slept, if it does: a client has its answer before the worker
        has written it into the books, and the worker sleeps when it has."""
        end = time.monotonic() + timeout
        for path in glob.glob(f"/proc/{self.pid}/task/*/stat"):
            with contextlib.suppress(OSError):
                while open(path).read().rpartition(")")[2].split()[0] == "R":
                    if time.monotonic() > end:
                        return
                    time.sleep(0.0005)

    def status(self, what="status"):
        """The control socket's answer, through kvpin's own command."""
        self.at_rest()
        out = subprocess.run([KVPIN, what, "--json", "--control", self.control],
                             capture_output=True, text=True, timeout=20)
        assert out.returncode == 0, out.stderr
        return json.loads(out.stdout)

    def exporter(self, path="/metrics"):
        """(status, text) of one of the exporter's pages."""
        self.at_rest()
        found = self.wait_line(r'msg="kvpin ready".* metrics="?([^ "]+)"?')
        try:
            with urllib.request.urlopen(f"http://{found.group(1)}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self):
        """{'name{labels}': value} from the exporter."""
        status, text = self.exporter()
        assert status == 200, text
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
                for line in text.splitlines() if line and not line.startswith("#")}

    def requests(self):
        """The request log: a list of dicts, in order."""
        self.at_rest()
        rows = []
        for line in self.output().splitlines():
            if " msg=request " in line:
                rows.append({k: v.strip('"') for k, v in
                             re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)', line)})
        return rows

    def wait_requests(self, count, timeout=5.0):
        """The request log, once it has that many rows."""
        end = time.monotonic() + timeout
        while len(self.requests()) < count and time.monotonic() < end:
            time.sleep(0.01)
        rows = self.requests()
        assert len(rows) >= count, self.output()
        return rows


NO_CHECKS = ("--health-interval", "off")
VERIFY = "x-sim-verify: 1"  # the simulated server checks the request's body


def request(path, session=None, *fields, body=b"", method=None):
    """The bytes of a request; one that the kernel can steer, when it has a session."""
    lines = [f"{method or ('POST' if body else 'GET')} {path} HTTP/1.1", "Host: t", *fields]
    if session:
        lines.append(f"X-Session-Id: {session}")
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def unacked(sock):
    """Bytes sent that the peer's TCP has not acknowledged."""
    return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4))[0]


def taken(sock):
    """Has the peer's process read all that was sent? The peer is in this network namespace."""
    def spell(address):
        packed = socket.inet_pton(sock.family, address[0])
        words = struct.unpack(f"={len(packed) // 4}I", packed)
        return "".join(f"{word:08X}" for word in words) + f":{address[1]:04X}"

    if unacked(sock):
        return False
    ends = [spell(sock.getpeername()), spell(sock.getsockname())]
    with open(f"/proc/thread-self/net/tcp{'6' * (sock.family == socket.AF_INET6)}") as f:
        rows = [row for row in map(str.split, f) if row[1:3] == ends]
    return not any(int(row[4].partition(":")[2], 16) for row in rows)


class Client:
    """A raw HTTP/1.1 client connection: sends bytes as given, reads answers strictly."""

    def __init__(self, addr, timeout=10.0, rcvbuf=0):
        """rcvbuf: bytes of the receive buffer; 0: the system's choice."""
        self.sock = socket.socket(socket.AF_INET6 if ":" in addr[0] else socket.AF_INET)
        self.sock.settimeout(timeout)
        if rcvbuf:  # before connect(): the window's scale depends on it
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.connect(addr)
        self.buf = b""

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode("latin-1"))

    def more(self):
        """Read once; False at EOF."""
        data = self.sock.recv(65536)
        self.buf += data
        return bool(data)

    def until(self, mark):
        while mark not in self.buf:
            if not self.more():
                raise EOFError(f"connection ended; had {self.buf[:500]!r}")
        head, _, self.buf = self.buf.partition(mark)
        return head + mark

    def exactly(self, n):
        while len(self.buf) < n:
            if not self.more():
                raise EOFError(f"connection ended {n - len(self.buf)} bytes early")
        data, self.buf = self.buf[:n], self.buf[n:]
        return data

    def head(self):
        """(status, {lower-case name: value}, raw head)"""
        raw = self.until(b"\r\n\r\n")
        lines = raw[:-4].decode("latin-1").split("\r\n")
        fields = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            name = name.lower()
            assert name not in fields or name in ("set-cookie", "x-forwarded-for"), raw
            fields[name] = value.strip()
        return int(lines[0].split()[1]), fields, raw

    def chunks(self):
        """Yield the payload of each chunk; .trailers afterwards."""
        while True:
            size = int(self.until(b"\r\n").split(b";")[0], 16)
            if size == 0:
                self.trailers = []
                while True:
                    line = self.until(b"\r\n")
                    if line == b"\r\n":
                        return
                    self.trailers.append(line.strip())
            data = self.exactly(size)
            assert self.exactly(2) == b"\r\n"
            yield data

    def answer(self, method="GET"):
        """One whole answer: (status, fields, body); interim answers are skipped."""
        while True:
            status, fields, _ = self.head()
            if status >= 200 or status == 101:
                break
        if method == "HEAD" or status in (204, 304, 101):
            return status, fields, b""
        if fields.get("transfer-encoding") == "chunked":
            return status, fields, b"".join(self.chunks())
        if "content-length" in fields:
            return status, fields, self.exactly(int(fields["content-length"]))
        while self.more():
            pass
        data, self.buf = self.buf, b""
        return status, fields, data

    def request(self, method, path, headers=(), body=b""):
        lines = [f"{method} {path} HTTP/1.1", "Host: test"]
        lines += [f"{k}: {v}" for k, v in (headers.items() if hasattr(headers, "items")
                                           else headers)]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        return self.answer(method)

    def ended(self, timeout=5.0):
        """How the peer ended the connection: 'fin', 'rst', or None if it is open after that
        time. Bytes that come before are kept."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            ready, _, _ = select.select([self.sock], [], [], max(0, end - time.monotonic()))
            if not ready:
                return None
            try:
                if not self.more():
                    return "fin"
            except ConnectionResetError:
                return "rst"
        return None

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    def close(self):
        self.sock.close()
