# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What the cases in the guest stand on: the machine's own view of what happened, and two simulated
servers with a kvpin before them.
"""
import ctypes
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integ"))
import harness  # noqa: E402
from harness import Client  # noqa: E402

BPFFS = pathlib.Path("/sys/fs/bpf")
PIN = BPFFS / f"kvpin-vm-{os.getpid()}"  # the same for a killed kvpin and the next
GUEST = "KVPIN_VM" in os.environ  # else this is some machine: its warn-once stays
WARN_ONCE = "/sys/kernel/debug/clear_warn_once"
PATIENCE = 30.0  # a guest without hardware help
STALL = "10s"  # for so long a dead kvpin's program stays after its last packet
TROUBLE = re.compile(r"WARNING:|BUG:|Oops|general protection|refcount_t|RIP:|rcu:.*stall|"
                     r"blocked for more than|leak", re.I)


# ---- the machine

class KernelLog:
    """What the kernel said since the last look."""

    def __init__(self):
        self.fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.fd, 0, os.SEEK_END)

    def trouble(self):
        """Everything said since the last look, if a line of it is a complaint; else None.
        Warnings that the kernel gives once per boot may be given again."""
        lines = []
        while True:
            try:
                lines.append(os.read(self.fd, 8192).decode(errors="replace").partition(";")[2])
            except BlockingIOError:
                break
            except BrokenPipeError:
                continue  # the ring overtook this reader
        if GUEST:
            with open(WARN_ONCE, "w") as f:
                f.write("1")
        text = "".join(lines)
        return text if TROUBLE.search(text) else None


def sockets():
    """(in use, allocated but not in use) of TCP: the second one grows by what leaks."""
    with open("/proc/net/sockstat") as f:
        found = re.search(r"^TCP: inuse (\d+) orphan \d+ tw \d+ alloc (\d+)", f.read(), re.M)
    inuse, alloc = int(found.group(1)), int(found.group(2))
    return inuse, alloc - inuse


def pins():
    """Everything in bpffs, also empty directories; on a shared machine only what is ours."""
    found = [os.path.join(at, name) for at, dirs, files in os.walk(BPFFS) for name in dirs + files]
    return {path for path in found if GUEST or PIN.name in path}


def attachments():
    """What stands at tc: (programs by tcx, clsact qdiscs and their filters as tc prints them)."""
    libbpf, tcx = ctypes.CDLL("libbpf.so.1"), 0
    for index, _ in socket.if_nameindex():
        for attach_type in (46, 47):  # BPF_TCX_INGRESS, _EGRESS
            ids, count = (ctypes.c_uint32 * 64)(), ctypes.c_uint32(64)
            if not libbpf.bpf_prog_query(index, attach_type, 0, ctypes.byref(ctypes.c_uint32(0)),
                                         ids, ctypes.byref(count)):
                tcx += count.value
    found = [line for line in tc("qdisc", "show").splitlines() if "clsact" in line]
    for line in found[:]:
        for hook in "ingress", "egress":
            device = line.split("dev ")[1].split()[0]
            found += tc("filter", "show", "dev", device, hook).splitlines()
    return tcx, found


def tc(*words):
    return subprocess.run(["tc", *words], check=True, capture_output=True, text=True).stdout


def doctor():
    """{path: why it cannot be used; None: it can}, as `kvpin doctor` says."""
    ran = subprocess.run([harness.KVPIN, "doctor", "--json"], capture_output=True, text=True,
                         timeout=PATIENCE)
    assert "unknown command" not in ran.stderr, "kvpin has no doctor command yet"
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    found = json.loads(ran.stdout)
    said = {"relay": None}
    for path in "steer", "splice":
        row = found["paths"][path]
        said[path] = None if row["available"] else f"{row['check']}: {row['why']}"
        assert row["available"] or (row["check"] and row["why"]), ran.stdout
    how = [row["why"] for row in found["checks"] if row["name"] == "tc"]
    return said, how[0]


# ---- two servers and one kvpin

def ask(client, target, session, method="GET", fields=None, body=b""):
    """A request over a connection that may be used again: (server, body)."""
    status, seen, answer = client.request(method, target, {
        "X-Session-Id": session, "x-sim-verify": "1", **(fields or {})}, body)
    assert status == 200, (target, status, answer[:200])
    return seen["x-sim-server"], answer


class Patient(harness.Process):
    """A kvpin whose self-test has its say, unlike in the integration tests: nobody has seen this
    kernel before. It may take its time."""

    def __init__(self, argv, log, ready, env=None, **options):
        env = {k: v for k, v in (env or {}).items() if k != "KVPIN_SELFTEST_SKIP"}
        super().__init__(argv, log, ready, **{"timeout": PATIENCE, **options}, env=env)


class Kvpin(harness.Kvpin, Patient):
    """harness.Kvpin's constructor calls Patient's."""


class Rig:
    def __init__(self, path, env=None, address="127.0.0.1", pin=PIN):
        self.path, self.tmp = path, pathlib.Path(tempfile.mkdtemp())
        self.env, self.address, self.pin = env, address, str(pin)
        self.fresh, self.churn, self.clients = 0, 0, []
        self.sims = [self.start_sim("gpu0", "llama"), self.start_sim("gpu1", "uvicorn")]
        try:
            self.kvpin = self.start_kvpin()
        except Exception:
            for sim in self.sims:
                sim.stop()
            raise

    def start_sim(self, name, manner, port=0):
        return harness.Sim(self.tmp, name, manner, f"{self.address}:{port}", idle_ms=60000,
                           slots=64)

    def start_kvpin(self):
        return Kvpin(self.tmp, self.sims, self.path, log_requests=False, env=self.env,
                     listen=f"{self.address}:0", args=(
                         "--workers", "2", "--drain", "10s", "--log-level", "info",
                         "--timeout-stall", STALL, "--steer-pin", self.pin))

    def client(self, rcvbuf=0):
        client = Client(self.kvpin.addr, PATIENCE, rcvbuf)
        self.clients.append(client)
        return client

    def session(self, server):
        """A new session that lives on that server."""
        client = self.client()
        try:
            for _ in range(64):
                self.fresh += 1
                name = f"vm-{self.path}-{self.fresh}"
                if ask(client, "/json", name)[0] == server.name:
                    return name
        finally:
            client.close()
        raise AssertionError(f"no session came to {server.name}")

    def moved(self, path):
        """Bytes that the path has moved so far, by kvpin's own count."""
        return sum(v for k, v in self.kvpin.metrics().items()
                   if k.startswith("kvpin_bytes_total{") and f'path="{path}"' in k)

    def spliced(self):
        """Answers that go past the daemon now."""
        status = self.kvpin.status()
        return status["splice_taken"] - status["splice_back"]

    def close_clients(self):
        for client in self.clients:
            client.close()
        self.clients = []

    def idle(self):
        return self.kvpin.status()["connections"] == 0

    def stop(self):
        self.close_clients()
        try:
            code = self.kvpin.stop()
            assert code == 0, f"kvpin exited with {code}:\n{self.kvpin.output()[-3000:]}"
        finally:
            for sim in self.sims:
                sim.stop()
        shutil.rmtree(self.tmp)  # kept when something went wrong
