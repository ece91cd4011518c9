# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Looks into the kernel's maps of a running kvpin: proves that traffic was really steered, and
tells why where it was not."""
import contextlib
import ctypes
import glob
import json
import mmap
import os
import re
import signal
import statistics
import struct
import subprocess
import threading

import netrig
from harness import NO_CHECKS, ROOT, VERIFY, checksum, request, wait_until
from rawserver import reply

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
REDIRECT = 1 << 63
LANE = 1 << 62
# struct kvpin_conn begins with the flow, whose first member is the word; then comes the cookie.
COOKIE_OFFSET = 64


def refusal_names():
    with open(os.path.join(ROOT, "include", "kvpin_abi.h")) as f:
        table = re.search(r"#define KVPIN_REFUSALS\(X\)(.*?)\n\n", f.read(), re.S).group(1)
    return ["none"] + re.findall(r'X\(\w+, "(\w+)"\)', table)


REFUSALS = refusal_names()


def abi_version():
    with open(os.path.join(ROOT, "include", "kvpin_abi.h")) as f:
        return int(re.search(r"#define KVPIN_ABI_VERSION (\d+)", f.read()).group(1))


def map_at(path, prot):
    """A pinned array's memory, and the bytes of one value."""
    info = json.loads(subprocess.run(["bpftool", "-j", "map", "show", "pinned", path],
                                     capture_output=True, check=True).stdout)
    libbpf = ctypes.CDLL("libbpf.so.1")
    fd = libbpf.bpf_obj_get(path.encode())
    assert fd >= 0
    memory = mmap.mmap(fd, info["max_entries"] * info["bytes_value"], prot=prot)
    os.close(fd)
    return memory, info["bytes_value"]


class Kernel:
    """The maps of one kvpin, by bpftool; the words of its connections by mmap()."""

    def __init__(self, kvpin):
        self.kvpin, self.conns = kvpin, None

    def dump(self, name):
        """[(key, value)] of a map as its BTF describes it."""
        out = subprocess.run(["bpftool", "-j", "map", "dump", "pinned", f"{self.kvpin.pin}/{name}"],
                             capture_output=True, text=True, timeout=60)
        assert out.returncode == 0, out.stdout + out.stderr
        rows = [row.get("formatted", row) for row in json.loads(out.stdout)]
        return [(row["key"], row.get("value", row.get("values"))) for row in rows]

    def array(self, name):
        """A per-CPU array's values, added up: a list."""
        return [sum(cpu["value"] for cpu in values) for _, values in self.dump(name)]

    def refusals(self):
        """{reason: times} of what the kernel passed up; only those that happened."""
        return {REFUSALS[i]: n for i, n in enumerate(self.array("refusals")) if n}

    def gates(self):
        """{reason: times} of all, the daemon's own included."""
        return self.kvpin.status()["path_refused"]

    def counters(self):
        """{server: {"requests", "bytes_up", "bytes_down"}} of what the kernel carried."""
        rows = self.dump("counters")
        return {name: {what: sum(cpu["value"][what] for cpu in rows[slot][1])
                       for what in ("requests", "bytes_up", "bytes_down")}
                for slot, name in self.servers().items()}

    def total(self, what="requests"):
        return sum(row[what] for row in self.counters().values())

    def servers(self):
        """{slot: name}"""
        return {slot: text(row["name"]) for slot, row in self.dump("backends") if text(row["name"])}

    def config(self):
        return self.dump("config")[0][1]

    def sessions(self):
        """{id in hex: (server, turns, moves)}"""
        servers = self.servers()
        return {"%016x" % key: (servers[row["backend"]], row["turns"], row["moves"])
                for key, row in self.dump("sessions")}

    def inflight(self):
        return sum(row["inflight"] for _, row in self.dump("backends"))

    def free_holds(self):
        """Takes every free hold out of the queue: kvpin steers no request afterwards."""
        taken = []
        while True:
            out = subprocess.run(["bpftool", "-j", "map", "pop", "pinned",
                                  f"{self.kvpin.pin}/free_holds"], capture_output=True, text=True)
            row = json.loads(out.stdout) if out.returncode == 0 and out.stdout else {}
            if "value" not in row:
                return taken
            taken.append(int.from_bytes(bytes(int(b, 16) for b in row["value"]), "little"))

    def map(self, name, prot):
        """An array's memory, and the bytes of one value."""
        return map_at(f"{self.kvpin.pin}/{name}", prot)

    def writable(self, name):
        """To write what the programs write when memory is short."""
        return self.map(name, mmap.PROT_READ | mmap.PROT_WRITE)[0]

    def words(self):
        """The hand-over words of the slots that were ever used, without a system call."""
        if not self.conns:
            self.conns, self.bytes_value = self.map("conns", mmap.PROT_READ)
        words = []
        for at in range(0, len(self.conns), self.bytes_value):
            if not struct.unpack_from("Q", self.conns, at + COOKIE_OFFSET)[0]:
                break  # the lowest are given first
            words.append(struct.unpack_from("Q", self.conns, at)[0])
        return words

    def armed(self):
        """Client connections that the kernel has now."""
        return sum(1 for word in self.words() if word & REDIRECT)

    def wait_armed(self, count=1, timeout=5.0):
        wait_until(lambda: self.armed() >= count, timeout,
                   lambda: f"armed {self.armed()} of {count}; {self.gates()}")

    def wait_idle(self, timeout=5.0):
        """No connection, nothing in flight, nothing queued."""
        wait_until(lambda: self.kvpin.status()["connections"] == 0, timeout,
                   lambda: str(self.kvpin.status()))
        wait_until(lambda: self.inflight() == 0, timeout, lambda: f"in flight {self.inflight()}")
        wait_until(lambda: self.config()["queued"] == 0, timeout,
                   lambda: f"queued {self.config()['queued']}")

    def close(self):
        if self.conns:
            self.conns.close()
            self.conns = None

    @contextlib.contextmanager
    def steers(self, count, passed=None):
        """What happens within is `count` requests carried whole by the kernel, and `passed`
        ({reason: times}) passed up, neither more nor less."""
        before, refused = self.total(), self.refusals()
        yield
        # The last answer's verdict counts after it has aimed it.
        wait_until(lambda: self.total() >= before + count, 2,
                   lambda: f"steered {self.total() - before} of {count}: {self.gates()}")
        now = self.refusals()
        assert self.total() - before == count, self.gates()
        assert {reason: n - refused.get(reason, 0) for reason, n in now.items()
                if n != refused.get(reason, 0)} == (passed or {})


def text(value):
    """A char array, as bpftool shows it."""
    if isinstance(value, list):
        value = "".join(c if isinstance(c, str) else chr(c) for c in value)
    return value.partition("\0")[0]


@contextlib.contextmanager
def frozen(process):
    """The process does nothing meanwhile; the kernel does."""
    process.kill(signal.SIGSTOP)
    for path in glob.glob(f"/proc/{process.pid}/task/*/stat"):
        wait_until(lambda: state_of(path) == "T")  # pylint: disable=cell-var-from-loop
    try:
        yield
    finally:
        process.kill(signal.SIGCONT)


def state_of(path):
    with open(path) as f:
        return f.read().rpartition(")")[2].split()[0]


def switches(process):
    """Times that the process's threads went to sleep: once per wake-up of a worker."""
    count = 0
    for path in glob.glob(f"/proc/{process.pid}/task/*/status"):
        with open(path) as f:
            count += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", f.read(), re.M).group(1))
    return count


def memory_kib():
    """What is taken of this machine's memory, in two ways: what is not available, which others'
    processes move too, and what the kernel has taken for what no other count tells of. Packets are
    in both."""
    with open("/proc/meminfo") as f:
        has = {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+)", f.read(), re.M)}
    told = sum(has[name] for name in ("MemFree", "Buffers", "Cached", "AnonPages", "SReclaimable",
                                      "PageTables", "Percpu", "VmallocUsed"))
    return -has["MemAvailable"], has["MemTotal"] - told


def memory_taken_kib(before):
    """Since @before, of memory_kib(): not more than this."""
    return min(now - then for now, then in zip(memory_kib(), before))


def sockstat(path="/proc/thread-self/net/sockstat"):
    """(inuse, orphan, alloc) of TCP; the first is the namespace's, the others the machine's."""
    with open(path) as f:
        found = re.search(r"TCP: inuse (\d+) orphan (\d+) tw \d+ alloc (\d+)", f.read())
    return tuple(map(int, found.groups()))


def tcp_unowned():
    """(TCP sockets of this machine that no namespace has and that are not on their way out, how many
    more there were at the end of the count than at its beginning). The counts are not of one
    moment: what others open and close in between makes the first too high or too low."""
    inuse, before = {}, sockstat()[2]
    for process in glob.glob("/proc/[0-9]*"):
        with contextlib.suppress(OSError):
            number = os.stat(f"{process}/ns/net").st_ino
            if number not in inuse:
                inuse[number] = sockstat(f"{process}/net/sockstat")[0]
    for ns in glob.glob("/run/netns/*"):
        with contextlib.suppress(OSError):
            if (number := os.stat(ns).st_ino) not in inuse:
                with netrig.inside(os.path.basename(ns)):
                    inuse[number] = sockstat()[0]
    _, orphans, alloc = sockstat()
    return alloc - orphans - sum(inuse.values()), alloc - before


def tcp_leaked():
    """TCP sockets that are leaked count here for ever. The middle one of those counts during which
    the least changed."""
    counts = sorted((tcp_unowned() for _ in range(25)), key=lambda count: abs(count[1]))
    return statistics.median(found for found, _ in counts[:9])


def warnings():
    """Lines of the kernel's log that tell of a bug of it."""
    out = subprocess.run(["dmesg"], capture_output=True, text=True).stdout
    return [line for line in out.splitlines() if "WARNING:" in line or "BUG:" in line]


def small_client(start, kernel, rcvbuf=8192, timeout=20):
    """A client whose receive buffer is small."""
    return start.client(kernel.kvpin, timeout=timeout, rcvbuf=rcvbuf)


# A connection enters the kernel's maps when its client has asked so often (user/net/steer.c).
ENTERS_AFTER = 2


def steered_client(start, kernel, *sessions, client=None, path="/json"):
    """A client whose sessions have a connection each, in the kernel's hands. One client only may
    be connected. The first session asks ENTERS_AFTER times, all others once."""
    client = client or start.client(kernel.kvpin)
    for i, session in enumerate(sessions or ("s",)):
        for _ in range(1 if i else ENTERS_AFTER):
            client.send(request(path, session))
            assert client.answer()[0] == 200
        kernel.wait_armed(1)
    return client


def ask_to_enter(client, *sessions, path="/json"):
    """Whole answers, one after the other, until the connection enters the kernel's maps; all the
    sessions in turn. Returns the last answer."""
    for i in range(max(ENTERS_AFTER, len(sessions))):
        client.send(request(path, sessions[i % len(sessions)], VERIFY))
        last = client.answer()
        assert last[0] == 200
    return last


def answer_of(client, name, body=None):
    """The next answer, from that server; with the body's checksum as the server saw it."""
    status, fields, got = client.answer()
    assert (status, fields["x-sim-server"]) == (200, name)
    if body is not None:
        assert fields["x-sim-body"] == checksum(body)
    return got


def owners(start, kernel, sims, count):
    """A client in the kernel's hands with `count` sessions, placed evenly, and a connection to
    each server: (client, {session: server})."""
    client, names = start.client(kernel.kvpin), {}
    for i in range(max(count, ENTERS_AFTER)):
        client.send(request("/json", f"s{i % count}", VERIFY))
        status, fields, _ = client.answer()
        assert status == 200
        assert names.setdefault(f"s{i % count}", fields["x-sim-server"]) == fields["x-sim-server"]
    assert set(names.values()) == {sim.name for sim in sims}
    if count > 4:  # too many new sessions in a row: kvpin left this connection to the relay
        client.close()
        wait_until(lambda: kernel.kvpin.status()["connections"] == 0)
        client = start.client(kernel.kvpin)
        ask_to_enter(client, *{name: session for session, name in names.items()}.values())
    kernel.wait_armed()
    return client, names


class Script:
    """A server's connections: "/json" is answered at once, every other request as `then` does."""

    def __init__(self, then):
        self.then, self.go, self.done, self.seen = then, threading.Event(), threading.Event(), []

    def __call__(self, conn):
        while (got := conn.read()):
            if got.target == "/json":
                conn.send(reply(conn.server.name.encode()))
                continue
            self.then(self, conn, got)
            if conn.sock.fileno() < 0:
                return
