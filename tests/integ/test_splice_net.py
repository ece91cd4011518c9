# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The splice path between hosts: clients and servers behind veth pairs without offloads, where a
wrong checksum shows, and behind wires that lose, double and reorder packets."""
import contextlib
import os
import signal
import subprocess
import threading

import pytest

import netrig
import test_splice_cut
from splice_help import STREAM, attached, request, same
from harness import pattern
from rawserver import chunked

pytestmark = [pytest.mark.splice_only,
              pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")]

LOSSY = (2, 1, 1)  # percent dropped, doubled, reordered


@pytest.fixture
def rig():
    one = netrig.Rig()
    yield one
    counts = one.close()
    assert not any("long 0" not in count for count in counts), counts


def use(client, family, count, pieces=12, gap_us=1000, size=150):
    """Streams and bodies in turn, sessions in turn; every one whole."""
    for i in range(count):
        client.send(request(f"/sse/{pieces}/{gap_us}/{size}", f"s{i % 4}"))
        status, _, body = client.answer()
        assert (status, len(body), body.count(b"data: ")) == (200, pieces * size, pieces)
        if i % 5 == 4:
            client.send(request(f"/bytes/{70000 + i}?seed={i}", f"s{i % 4}"))
            status, _, body = client.answer()
            assert status == 200
            same(body, pattern(70000 + i, i))


def topology(rig, start, splices, where, family, wire=None, options=(), tunnels=False):
    """(splices, make a client). where: "client", "server" or "both" are on other hosts."""
    near = "127.0.0.1:0" if family == 4 else "[::1]:0"
    client = rig.peer("c", wire) if where != "server" else None
    server = rig.peer("s", wire) if where != "client" else None
    if tunnels:
        client, server = client and rig.tunnel(client), server and rig.tunnel(server)
    if server:
        sims = [server.sim(start, f"gpu{i}", family=family) for i in range(2)]
    else:
        with netrig.inside(rig.home):
            sims = [start.sim(f"gpu{i}", "uvicorn", listen=near) for i in range(2)]
    listen = f"{client.kvpin[family]}:0" if client else near
    with netrig.inside(rig.home):
        splice = splices(sims, *options, listen=listen, checks=("--health-interval", "off"))

    def connect(**options):
        if client:
            one = client.client(splice.kvpin, family, **options)
        else:
            with netrig.inside(rig.home):
                one = netrig.harness.Client((near.rpartition(":")[0].strip("[]"),
                                             splice.kvpin.addr[1]), **options)
        start.clients.append(one)
        return one
    return splice, connect


def checksum_faults():
    """Has the kernel found that a packet's own sum (CHECKSUM_COMPLETE) was wrong? It says so once
    (netdev_rx_csum_fault())."""
    return subprocess.run(["dmesg"], capture_output=True, text=True,
                          check=True).stdout.count("hw csum failure")


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
@pytest.mark.parametrize("where", ["client", "server", "both"])
def test_packets_that_bring_their_sum_along(rig, start, splices, where, family):
    """Tunnels with checksums, and some network cards, hand packets over with a sum of all bytes,
    which has to follow what the program changes."""
    try:
        rig.tunnel(rig.peer("t"))
    except subprocess.CalledProcessError:
        pytest.skip("this kernel has no vxlan")
    faults = checksum_faults()
    splice, connect = topology(rig, start, splices, where, family, tunnels=True)
    client = connect(timeout=30)
    use(client, family, 30)
    client.send(request("/bytes/3000000?seed=3", "s"))
    status, _, body = client.answer()
    assert status == 200
    same(body, pattern(3000000, 3))
    # A request behind one under way: packets with payload, of which only the ACK goes on.
    client.send(request("/sse/40/5000/150", "s0"))
    assert client.head()[0] == 200
    splice.wait_running()
    client.send(request("/json", "s1"))
    assert b"".join(client.chunks()).count(b"data: ") == 40
    assert client.answer()[0] == 200
    assert splice.taken() >= 30, splice.status()
    assert len(splice.status()["splice_devices"]) >= 2, splice.status()
    assert checksum_faults() == faults


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
@pytest.mark.parametrize("where", ["client", "server", "both"])
def test_peers_on_other_hosts(rig, start, splices, where, family):
    splice, connect = topology(rig, start, splices, where, family)
    use(connect(), family, 60)
    assert splice.taken() >= 50, splice.status()
    devices = splice.status()["splice_devices"]
    assert len(devices) == (3 if where == "both" else 2)
    assert {device for device, _ in attached()} == set(devices)
    for client in start.clients:
        client.close()
    splice.wait_idle()
    splice.kvpin.stop()
    assert not attached()


def beside(rig, start, splices, where):
    """Two kvpin before the same servers, with the same client's host: their programs stand on the
    same devices. Returns (both, make a client of either)."""
    client, server = rig.peer("c"), rig.peer("s") if where == "both" else None
    if server:
        sims = [server.sim(start, f"gpu{i}") for i in range(2)]
    else:
        sims = start.sims(2, "uvicorn")
    both = [splices(sims, listen=f"{client.kvpin[4]}:0") for _ in range(2)]

    def connect(splice):
        start.clients.append(client.client(splice.kvpin, 4))
        return start.clients[-1]
    return both, connect


@pytest.mark.parametrize("where", ["client", "both"])
def test_two_kvpin_beside_each_other(rig, start, splices, where):
    both, connect = beside(rig, start, splices, where)
    clients = [connect(splice) for splice in both]
    for _ in range(10):  # whichever program a packet meets first
        for client in clients:
            use(client, 4, 5)
    for splice in both:
        assert splice.taken() >= 40, splice.status()


@pytest.mark.parametrize("where", ["client", "both"])
def test_a_successor_leaves_the_streams_of_a_dead_daemon_alone(rig, start, splices, where):
    (dying, other), connect = beside(rig, start, splices, where)
    old = connect(dying)
    old.send(request("/sse/300/5000/150", "s"))
    assert old.head()[0] == 200
    dying.wait_running()
    dying.kvpin.kill(signal.SIGKILL)
    dying.kvpin.wait()
    use(connect(other), 4, 20)
    assert b"".join(old.chunks()).count(b"data: ") == 300
    assert old.ended(20) in ("fin", "rst")
    dying.kvpin.unpin()


FIREWALL = """
table inet guard {
  counter bad_in { }
  counter bad_out { }
  chain input {
    type filter hook input priority 0; policy drop;
    iif "lo" accept
    ct state invalid counter name bad_in drop
    ct state established,related accept
    meta l4proto ipv6-icmp accept
    ct state new accept
  }
  chain output {
    type filter hook output priority 0; policy accept;
    oif "lo" accept
    ct state invalid counter name bad_out drop
  }
  chain source {
    type nat hook postrouting priority 100;
    oif != "lo" masquerade
  }
}
"""


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
@pytest.mark.parametrize("where", ["client", "server", "both"])
def test_a_firewall_that_looks_at_sequence_numbers(rig, start, splices, where, family):
    """Connection tracking sees only what the daemon's sockets would have sent and got, but on lo,
    which a firewall accepts first (README)."""
    rig.move(FIREWALL)
    splice, connect = topology(rig, start, splices, where, family)
    use(connect(), family, 60)
    assert splice.taken() >= 50, splice.status()
    assert rig.counters() == {"bad_in": 0, "bad_out": 0}


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("where", ["client", "both"])
def test_a_client_on_another_host_that_leaves(rig, start, splices, where, how):
    splice, connect = topology(rig, start, splices, where, 4)
    for i in range(5):
        client = connect()
        client.send(request("/sse/1000/2000/150", "s"))
        assert client.head()[0] == 200
        splice.wait_running()
        client.sock.close() if how == "close" else client.reset()
        splice.wait_idle()


def test_segments_that_the_host_itself_drops_end_no_splicing(rig, start, splices):
    """TCP has counted them as sent all the same."""
    peer = rig.peer("c")
    netrig.narrow(peer.device)
    splice = splices(start.sims(1, "uvicorn"), "--splice-body", "100MB",
                     listen=f"{peer.kvpin[4]}:0")
    client = peer.client(splice.kvpin)
    start.clients.append(client)
    client.send(request("/bytes/2000000", "s"))
    same(client.answer()[2], pattern(2000000))
    assert netrig.dropped(peer.device) > 100 and not splice.taken()
    use(client, 4, 20)
    assert splice.taken() >= 15, splice.status()


@pytest.mark.slow
@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
@pytest.mark.parametrize("where", ["client", "server", "both"])
def test_lossy_wires(rig, start, splices, where, family):
    splice, connect = topology(rig, start, splices, where, family, LOSSY)
    problems = []

    def one():
        try:
            use(connect(timeout=60), family, 40)
        except BaseException as error:  # pylint: disable=broad-except
            problems.append(repr(error))

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(200)
    assert not problems, (problems, splice.status())
    assert splice.taken() >= 200, splice.status()
    for client in start.clients:
        client.close()
    splice.wait(lambda: splice.status()["connections"] == 0, 60)
    splice.wait_idle()


def ended(client):
    """How the connection ended. A RST that is lost is not sent again: what the client says then
    brings another."""
    for _ in range(30):
        how = client.ended(2)
        if how:
            return how
        with contextlib.suppress(OSError):
            client.send(b"?")
    return None


@pytest.mark.slow
@pytest.mark.parametrize("where", ["client", "server", "both"])
def test_next_requests_and_ends_over_lossy_wires(rig, start, splices, where):
    """Requests written at once and in pieces, answers that break off, clients that leave."""
    splice, connect = topology(rig, start, splices, where, 4, LOSSY)
    client = connect(timeout=60)
    for i in range(15):
        client.send(b"".join(request("/sse/8/1000/150", f"s{(i + k) % 4}") for k in range(3)))
        for _ in range(3):
            status, _, body = client.answer()
            assert (status, body.count(b"data: ")) == (200, 8)
        following = request("/sse/8/1000/150", "s1")
        client.send(request("/sse/20/1000/150", "s0"))
        assert client.head()[0] == 200
        for part in (following[:11], following[11:40], following[40:]):
            client.send(part)
        assert b"".join(client.chunks()).count(b"data: ") == 20
        status, _, body = client.answer()
        assert (status, body.count(b"data: ")) == (200, 8)
    for i in range(8):
        client = connect(timeout=60)
        client.send(request("/sse/20/2000/150?trunc=10", f"s{i}"))
        assert client.head()[0] == 200
        assert ended(client) == "rst"
        assert client.buf.count(b"data: ") <= 10 and not client.buf.endswith(b"0\r\n\r\n")
        client.close()
    for i in range(4):
        client = connect(timeout=60)
        client.send(request("/sse/100000/2000/150", f"s{i}"))
        assert client.head()[0] == 200
        client.close()
    splice.wait(lambda: all(row["inflight"] == 0 for row in splice.kvpin.status(
        "backends")["backends"]), 60)
    assert splice.taken() >= 50, splice.status()


@pytest.mark.slow
@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
@pytest.mark.parametrize("where", ["client", "server", "both"])
def test_streams_without_pause_over_lossy_wires(rig, start, splices, where, family):
    """Taken in the middle, while packets of before are lost and repeated."""
    splice, connect = topology(rig, start, splices, where, family, LOSSY, test_splice_cut.LATE)
    problems = []

    def one(k):
        try:
            client = connect(timeout=60)
            for n in range(6):
                manner = test_splice_cut.MANNERS[(k + n) % 2]
                size = 1500_000 + 1000 * n
                client.send(test_splice_cut.ask(manner, size, f"s{n % 4}", seed=n))
                test_splice_cut.take_answer(client, size, manner, seed=n)
        except BaseException as error:  # pylint: disable=broad-except
            problems.append(repr(error))

    threads = [threading.Thread(target=one, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(200)
    assert not problems, (problems, splice.status())
    assert splice.taken() >= 12, splice.status()


def test_a_way_that_became_narrow_is_not_spliced(rig, start, splices):
    """A server on this host that was told of long segments, and a client whose path MTU shrank."""
    splice, connect = topology(rig, start, splices, "client", 4)
    client = connect()
    use(client, 4, 5)
    before = splice.taken()
    assert before >= 4
    device = next(d for d in splice.status()["splice_devices"] if d != "lo")
    netrig.ip("link", "set", device, "mtu", "1000")
    use(client, 4, 10)
    assert splice.taken() <= before + 1
    assert splice.status()["splice_refused"]["segment_size"] > 0


def test_a_device_that_came_after_the_start(rig, start, splices):
    """A network that is plugged in later is spliced over too, and let go when nobody needs it."""
    splice = splices([start.sim("gpu0", "uvicorn")], "--drain", "200ms", listen="0.0.0.0:0")
    first = splice.status()["splice_devices"]
    peer = rig.peer("late")
    client = peer.client(splice.kvpin, 4)
    start.clients.append(client)
    use(client, 4, 10)
    assert splice.taken() >= 8, splice.status()
    assert set(splice.status()["splice_devices"]) - set(first) == {peer.device}
    assert {(peer.device, "ingress"), (peer.device, "egress")} <= attached()
    # One that nobody needs any more; a connection that was spliced needs it through TIME_WAIT.
    other = rig.peer("other")
    idle = other.client(splice.kvpin, 4)
    splice.wait(lambda: other.device in splice.status()["splice_devices"])
    idle.close()
    splice.wait(lambda: other.device not in splice.status()["splice_devices"])
    assert not [1 for device, _ in attached() if device == other.device]
    # Unplugged in the middle of an answer: that client is gone, and nothing else.
    client.send(request("/sse/1000/5000/150", "s"))
    assert client.head()[0] == 200
    splice.wait_running()
    netrig.ip("link", "del", peer.device)
    splice.wait(lambda: splice.status()["splice_devices"] == first)
    near = netrig.harness.Client(("127.0.0.1", splice.kvpin.addr[1]))
    start.clients.append(near)
    use(near, 4, 5)


def test_a_client_whose_way_changes_to_another_device(rig, start, splices):
    splice = splices([start.sim("gpu0", "uvicorn")], listen="0.0.0.0:0")
    one = rig.peer("way")
    client = one.client(splice.kvpin, 4, timeout=30)
    start.clients.append(client)
    use(client, 4, 10)
    before = splice.taken()
    # A second link between the same two, and both ends send over it from now on.
    rig.link(None, f"kv{rig.mark}x", one.name, f"kv{rig.mark}y")
    here, there = one.kvpin[4], one.own[4]
    for device, name in ((f"kv{rig.mark}x", None), (f"kv{rig.mark}y", one.name)):
        with netrig.inside(name):
            for setting in ("all", device):
                with open(f"/proc/sys/net/ipv4/conf/{setting}/rp_filter", "w") as f:
                    f.write("0")
    netrig.ip("route", "add", f"{there}/32", "dev", f"kv{rig.mark}x")
    netrig.ip("-n", one.name, "route", "add", f"{here}/32", "dev", f"kv{rig.mark}y")
    splice.wait(lambda: f"kv{rig.mark}x" in splice.status()["splice_devices"])
    use(client, 4, 20)
    assert splice.taken() - before >= 15, splice.status()


@pytest.mark.parametrize("via", [4, 6], ids=["via-v4", "via-v6"])
@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_a_client_behind_a_router(rig, start, splices, family, via):
    near = rig.peer("r")
    client = rig.behind(near, via)
    sim = start.sim("gpu0", "uvicorn", listen="127.0.0.1:0" if family == 4 else "[::1]:0")
    splice = splices([sim], listen=f"{near.kvpin[family]}:0")
    one = client.client(splice.kvpin, family)
    start.clients.append(one)
    use(one, family, 15)
    assert splice.taken() >= 12, splice.status()


@pytest.mark.parametrize("who, family", [("daemon", 4), ("successor", 4), ("successor", 6),
                                         ("successor-late", 4)])
def test_a_client_whose_router_changes(rig, start, splices, who, family):
    """The rest of the stream goes by the new one; that of a dead daemon too when another has
    started, before the change or behind it."""
    go, pieces = threading.Event(), [pattern(1000, i) for i in range(100)]

    def serve(conn):
        conn.read()
        conn.send(STREAM + b"5\r\nhello\r\n")
        go.wait(30)
        conn.send(chunked(*pieces))

    near = rig.peer("r")
    client = rig.behind(near)
    # To 127.0.0.1 no client's ACK finds its way behind a change of routes when nobody probes.
    far = rig.peer("s") if who != "daemon" else None
    with netrig.inside(far and far.name):
        raw = start.raw(serve, host=far.own[family].strip("[]") if far else "127.0.0.1")
    splice = splices([raw], listen=f"{near.kvpin[family]}:0")
    one = client.client(splice.kvpin, family, timeout=30)
    start.clients.append(one)
    one.send(request("/", "s"))
    assert one.head()[0] == 200
    splice.wait_running()
    if who != "daemon":
        splice.kvpin.kill()
        splice.kvpin.wait()
    if who == "successor":
        splices([raw], "--steer-pin", splice.kvpin.pin)
    # Another address of the same link, of a device with a MAC of its own, is the router from now
    # on; who goes on sending to the old one sends to nobody.
    old = near.own[family].strip("[]")
    new, bits = old[:-1] + "3", ("24", "64")[family == 6]
    base, other = near.device.replace("h", "p"), f"kv{rig.mark}m"
    ns = ("-n", near.name)
    netrig.ip(*ns, "link", "add", other, "link", base, "type", "macvlan", "mode", "bridge")
    netrig.ip(*ns, "addr", "add", f"{new}/{bits}", "dev", other, *["nodad"] * (family == 6))
    netrig.ip(*ns, "link", "set", other, "up")
    net = client.own[family].strip("[]")[:-1] + f"{'' if family == 6 else '0'}/{bits}"
    netrig.ip("route", "replace", net, "via", new)
    netrig.ip(*ns, "link", "set", base, "address", "02:00:00:00:00:99")
    netrig.ip(*ns, "addr", "del", f"{old}/{bits}", "dev", base)
    if who == "successor-late":
        splices([raw], "--steer-pin", splice.kvpin.pin)
    go.set()
    assert b"".join(one.chunks()) == b"hello" + b"".join(pieces)
    assert who != "daemon" or splice.taken() == 1


@pytest.mark.parametrize("listen", ["wildcard", "address"])
@pytest.mark.parametrize("where", ["client", "server"])
def test_a_link_without_ethernet_heads_is_the_relays(rig, start, splices, where, listen):
    """The program could not read its packets; nothing is lost, and the reason is counted."""
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("no /dev/net/tun")
    peer = rig.headless("t")
    if where == "client":
        sims = [start.sim("gpu0", "uvicorn")]
        splice = splices(sims, listen=f"{peer.kvpin[4]}:0" if listen == "address" else "0.0.0.0:0")
        client = peer.client(splice.kvpin)
        start.clients.append(client)
    else:
        splice = splices([peer.sim(start, "gpu0")],
                         listen="127.0.0.1:0" if listen == "address" else "0.0.0.0:0")
        client = start.client(splice.kvpin)
    use(client, 4, 10)
    client.send(request("/bytes/1000000?seed=7", "s"))
    same(client.answer()[2], pattern(1000000, 7))
    assert peer.device not in splice.status()["splice_devices"]
    assert peer.device not in {device for device, _ in attached()}
    assert not splice.taken() and splice.status()["splice_refused"]["no_device"]


class Chained:
    """A kvpin as another's server."""

    def __init__(self, kvpin):
        self.name, self.text = "kvpin", kvpin.text


@pytest.mark.parametrize("first", ["near", "far"])
def test_a_kvpin_before_a_kvpin_on_one_host(start, splices, first):
    """Every packet between them passes both programs, whichever of the two comes first."""
    sims = start.sims(2, "uvicorn")
    near = splices(sims)
    if first == "far":
        near.kvpin.stop()
    far = splices([Chained(near.kvpin)])
    if first == "far":
        near = splices(sims, listen=near.kvpin.text)
    clients = [start.client(splice.kvpin) for splice in (far, far, near)]
    for _ in range(5):
        for client in clients:
            use(client, 4, 10)
    # Of the answers to far's clients one of the two takes all, of the 60 to near's own near.
    if first == "near":
        assert far.taken() == 0 and near.taken() > 60
    else:
        assert far.taken() > 60 and near.taken() <= 60
    assert (far if first == "near" else near).status()["splice_refused"]["other_kvpin"] > 0
