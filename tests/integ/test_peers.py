# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Several balancers in front of the same servers: each honours the pins that the others made."""
import itertools
import json
import shutil
import socket
import subprocess
import threading
import time

import pytest

from harness import KVPIN, NO_CHECKS, Client, wait_until
from slots_help import explain, kvpin_pin
from test_restart import turn


def free_ports(count):
    """Ports of 127.0.0.1 that nobody has; bound until all are known."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


class Group:
    """Balancers that know each other, by number."""

    def __init__(self, start, backends, count=2):
        self.start, self.backends = start, backends
        self.addrs = [f"127.0.0.1:{port}" for port in free_ports(count)]
        self.secret = start.tmp / "secret"
        self.secret.write_text("let-me-in-please\n")
        self.one = {}

    def run(self, i, *args, secret=None, backends=None):
        others = ",".join(a for k, a in enumerate(self.addrs) if k != i)
        self.one[i] = self.start.kvpin(
            backends or self.backends, *NO_CHECKS, "--peer-listen", self.addrs[i], "--peers",
            others, "--peer-secret", str(secret or self.secret),
            "--session-state", str(self.start.tmp / f"state-{i}"), *args)
        return self.one[i]

    def wait_up(self):
        for kvpin in self.one.values():
            wait_until(lambda: up(kvpin) == [1] * (len(self.addrs) - 1))


def up(kvpin):
    return [int(v) for k, v in kvpin.metrics().items() if k.startswith("kvpin_peer_up{")]


def total(kvpin, name):
    return sum(v for k, v in kvpin.metrics().items() if k.startswith(name))


@pytest.fixture
def group(start):
    def make(count=2, servers=4):
        return Group(start, start.sims(servers), count)
    return make


def pins(kvpin):
    out = subprocess.run([KVPIN, "sessions", "--json", "--limit", "10000", "--control",
                          kvpin.control], capture_output=True, text=True, timeout=20)
    assert out.returncode == 0, out.stderr
    return {row["session"]: row for row in json.loads(out.stdout)["sessions"]}


def unpin(kvpin, key):
    out = subprocess.run([KVPIN, "unpin", key, "--control", kvpin.control], capture_output=True,
                         text=True, timeout=20)
    assert out.returncode == 0, out.stderr


def test_a_pin_made_at_one_is_honoured_at_the_other_within_a_second(group):
    g = group(3)
    balancers = [g.run(i) for i in range(3)]
    g.wait_up()
    assert balancers[0].status()["peers"] == [f"{a} up" for a in g.addrs[1:]]
    took = []
    for i in range(12):
        key, maker = f"chat-{i}", balancers[i % 3]
        home = turn(maker, key)
        made = time.monotonic()
        for other in balancers:
            wait_until(lambda: total(other, "kvpin_sessions{") == i + 1)
        took.append(time.monotonic() - made)
        for other in balancers:
            assert turn(other, key) == home
            assert explain(other, key)[0]["reason"] == "pinned"
    assert sorted(took)[6] < 1, took  # most: the machine may stand still
    assert all(total(b, "kvpin_session_moves_total") == 0 for b in balancers)
    assert all(total(b, "kvpin_peer_conflicts_total") == 0 for b in balancers)
    # They are counted for placement everywhere: twelve on four servers.
    for balancer in balancers:
        assert [row["sessions"] for row in balancer.status("backends")["backends"]] == [3] * 4


def test_one_that_was_killed_hears_of_everything_when_it_is_back(group):
    g = group()
    a, b = g.run(0), g.run(1)
    g.wait_up()
    names = [f"chat-{i}" for i in range(300)]
    homes = {name: turn(a if i % 2 else b, name) for i, name in enumerate(names)}
    wait_until(lambda: len(pins(a)) == len(pins(b)) == len(names))
    a.kill()
    a.wait()
    wait_until(lambda: up(b) == [0])
    # Meanwhile b goes on, and pays nothing for the one that is away.
    homes.update({f"late-{i}": turn(b, f"late-{i}") for i in range(20)})
    assert total(b, "kvpin_peer_failures_total") >= 1
    # Neither a file nor the kernel tells it: the other one does.
    (g.start.tmp / "state-0").unlink(missing_ok=True)
    shutil.rmtree(a.pin, ignore_errors=True)
    a = g.run(0)
    g.wait_up()
    wait_until(lambda: len(pins(a)) == len(homes))
    assert {name: turn(a, name) for name in homes} == homes


def test_a_move_and_a_removal_are_told(group):
    g = group()
    a, b = g.run(0), g.run(1)
    g.wait_up()
    turn(a, "chat")
    wait_until(lambda: len(pins(b)) == 1)
    for name in "gpu3", "gpu1", "gpu2":
        kvpin_pin(b, "chat", name)
        wait_until(lambda: [row["backend"] for row in pins(a).values()] == [name])
    assert turn(a, "chat") == "gpu2"
    unpin(a, "chat")
    wait_until(lambda: not pins(b))
    assert not pins(a)


def test_pins_made_apart_converge_on_one_owner(group):
    """Both place the same sessions while they cannot hear each other: the later choice wins, at both."""
    g = group()
    a = g.run(0)
    names = [f"chat-{i}" for i in range(40)]
    for name in names:
        turn(a, name)
    alone = {name: row["backend"] for name, row in pins(a).items()}
    # Another balancer, which has placed them in another order, and later.
    b = g.run(1, "--peers", "127.0.0.1:1")
    for name in names[::-1]:
        turn(b, name)
    later = {name: row["backend"] for name, row in pins(b).items()}
    assert alone != later
    b.stop()
    b = g.run(1)
    g.wait_up()
    wait_until(lambda: {k: r["backend"] for k, r in pins(a).items()} ==
               {k: r["backend"] for k, r in pins(b).items()})
    assert total(a, "kvpin_peer_conflicts_total") + total(b, "kvpin_peer_conflicts_total") > 0
    # And it stays so.
    settled = {k: r["backend"] for k, r in pins(a).items()}
    for name in names:
        assert turn(a, name) == turn(b, name)
    assert {k: r["backend"] for k, r in pins(b).items()} == settled


def test_choices_of_one_moment_converge(group):
    g = group()
    a, b = g.run(0), g.run(1)
    g.wait_up()
    for i in range(20):
        procs = [subprocess.Popen([KVPIN, "pin", f"chat-{i}", name, "--control", one.control],
                                  stdout=subprocess.DEVNULL)
                 for one, name in ((a, f"gpu{i % 4}"), (b, f"gpu{(i + 1) % 4}"))]
        assert [p.wait(20) for p in procs] == [0, 0]
    wait_until(lambda: len(pins(a)) == len(pins(b)) == 20 and
               {k: r["backend"] for k, r in pins(a).items()} ==
               {k: r["backend"] for k, r in pins(b).items()})


@pytest.mark.parametrize("wrong", ["secret", "stranger", "version"])
def test_strangers_are_refused(group, wrong):
    g = group()
    a = g.run(0)
    turn(a, "chat")
    if wrong == "secret":
        other = g.start.tmp / "other"
        other.write_text("let-me-in-pleas3\n")
        b = g.run(1, secret=other)
        assert "refuses us" in b.wait_line(r'msg="peer is away".*').group()
        assert not pins(b)
    else:
        source, hello = {"stranger": ("127.0.0.2", "kvpin-peer 1 let-me-in-please\n"),
                         "version": ("127.0.0.1", "kvpin-peer 2 let-me-in-please\n")}[wrong]
        host, port = g.addrs[0].split(":")
        with socket.create_connection((host, int(port)), 5, (source, 0)) as s:
            s.sendall(f"{hello}d 0123456789abcdef 4294967295\n".encode())
            try:
                assert s.recv(100) == b""
            except ConnectionResetError:
                pass
    wait_until(lambda: total(a, "kvpin_peer_refused_total") >= 1)
    assert 'msg="refused a peer"' in a.output()
    assert len(pins(a)) == 1


@pytest.mark.parametrize("rubbish", [b"x\n", b"p 1\n", b"p " + b"0" * 500, b"s 0 a b\n",
                                     b"d 0123456789abcdef 4294967296\n"],
                         ids=["kind", "short", "long", "tag", "stamp"])
def test_rubbish_ends_the_connection_and_nothing_else(group, rubbish):
    g = group()
    a = g.run(0)
    turn(a, "chat")
    host, port = g.addrs[0].split(":")
    with socket.create_connection((host, int(port)), 5, ("127.0.0.1", 0)) as s:
        s.sendall(b"kvpin-peer 1 let-me-in-please\n")
        assert s.recv(3, socket.MSG_WAITALL) == b"ok\n"
        s.sendall(b".\n" + rubbish)
        try:
            assert s.recv(100) == b""
        except ConnectionResetError:
            pass
    assert total(a, "kvpin_peer_refused_total") == 1
    assert len(pins(a)) == 1


def test_a_server_is_known_by_name_and_address(group):
    """What the other one has, and this one has not, is passed over."""
    g = group()
    sims = g.backends
    strange = g.start.sim("gpu0")
    a, b = g.run(0), g.run(1, backends=[strange, *sims[:0:-1]])
    g.wait_up()
    for name in "gpu0", "gpu1", "gpu2":
        kvpin_pin(a, f"on-{name}", name)
    wait_until(lambda: len(pins(b)) == 2)
    assert sorted(row["backend"] for row in pins(b).values()) == ["gpu1", "gpu2"]
    assert total(b, "kvpin_peer_unknown_total") >= 1
    assert turn(b, "on-gpu2") == "gpu2"


def test_pins_on_a_new_server_are_told_behind_the_server(start):
    """A reload hands out the slot, and requests come to it, before the reload is over; the other
    balancer would not know whom the pins mean, and for a minute nobody would tell it again."""
    port = start.sim("all", listen="0.0.0.0:0").addr[1]
    rows = [f'  - {{name: g{i}, address: "127.0.0.{i + 1}:{port}"}}\n' for i in range(20)]
    g = Group(start, [])
    files = [start.tmp / "a.yaml", start.tmp / "b.yaml"]
    files[0].write_text("backends:\n" + rows[0])
    files[1].write_text("backends:\n" + "".join(rows))
    a, b = (g.run(i, "--config", str(files[i])) for i in range(2))
    g.wait_up()
    over = threading.Event()

    def sessions():
        client = Client(a.addr)
        for i in itertools.count():
            if over.is_set():
                break
            assert client.request("GET", "/json", {"X-Session-Id": f"s{i}"})[0] == 200
        client.close()

    thread = threading.Thread(target=sessions, daemon=True)
    thread.start()
    for nr in range(2, len(rows) + 1):
        files[0].write_text("backends:\n" + "".join(rows[:nr]))
        out = subprocess.run([KVPIN, "reload", "--control", a.control], capture_output=True,
                             text=True, timeout=20)
        assert out.returncode == 0, out.stderr
        wait_until(lambda: b.status("backends")["backends"][nr - 1]["sessions"] > 0)
    over.set()
    thread.join(10)
    assert total(b, "kvpin_peer_unknown_total") == 0


def test_a_use_at_one_keeps_the_pin_alive_at_the_other(group):
    g = group()
    a, b = g.run(0, "--ttl", "2s"), g.run(1, "--ttl", "2s")
    g.wait_up()
    client = Client(a.addr)
    end = time.monotonic() + 5
    while time.monotonic() < end:
        client.request("GET", "/json", {"X-Session-Id": "chat"})
        assert time.monotonic() + 4 < end or len(pins(b)) == 1
        time.sleep(0.1)  # paced use, not a wait for anything
    client.close()
    wait_until(lambda: not pins(b) and not pins(a))


@pytest.mark.steer_only
def test_the_kernel_steers_by_a_pin_made_elsewhere(group, kernel):
    g = group(servers=2)
    a = g.run(0)
    home = turn(a, "chat")
    others = ",".join(a for k, a in enumerate(g.addrs) if k != 1)
    look = kernel(g.backends, "--peer-listen", g.addrs[1], "--peers", others, "--peer-secret",
                  str(g.secret))
    b = look.kvpin
    wait_until(lambda: len(pins(b)) == 1)
    assert any(value["backend"] == [n for s, n in look.servers().items()].index(home)
               for _, value in look.dump("sessions"))
    client = Client(b.addr)
    for _ in range(3):
        status, fields, _ = client.request("GET", "/json", {"x-sim-verify": "1",
                                                            "X-Session-Id": "chat"})
        assert (status, fields["x-sim-server"]) == (200, home)
    client.close()


def test_a_reload_keeps_the_peers(group):
    g = group()
    a, b = g.run(0), g.run(1)
    g.wait_up()
    out = subprocess.run([KVPIN, "reload", "--control", b.control], capture_output=True, text=True,
                         timeout=20)
    assert out.returncode == 0, out.stderr
    turn(a, "chat")
    wait_until(lambda: len(pins(b)) == 1)


def test_without_a_secret_it_does_not_start(start):
    sims = start.sims(1)
    for args, text in ((("--peers", "127.0.0.1:1"), "peers.secret is not set"),
                       (("--peers", "127.0.0.1:1", "--peer-secret", "/nowhere/secret"),
                        "cannot read /nowhere/secret")):
        out = subprocess.run([KVPIN, "run", "--listen", "127.0.0.1:0", "--metrics", "off",
                              "--control", "off", "--path", "relay", "--backend",
                              f"gpu0={sims[0].text}", *args], capture_output=True, text=True,
                             timeout=20)
        assert out.returncode != 0 and text in out.stderr, out.stderr
