# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""TCP that is not the usual one, on the splice path: options that one side or none has, keepalive
probes, packets larger than 64 KiB, a path MTU that shrinks."""
import os
import socket
import subprocess
import time

import pytest

import netrig
from harness import Client, checksum, pattern
from splice_help import STREAM, request, same

pytestmark = [pytest.mark.splice_only,
              pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")]


@pytest.fixture
def rig():
    one = netrig.Rig()
    yield one
    one.close()


def sysctl(namespace, **values):
    with netrig.inside(namespace):
        for name, value in values.items():
            with open(f"/proc/sys/net/ipv4/{name}", "w") as f:
                f.write(str(value))


def remote(rig, start, splices, family=4):
    """(splices, client's peer, server's peer): both on other hosts."""
    client, server = rig.peer("c"), rig.peer("s")
    sims = [server.sim(start, f"gpu{i}", family=family) for i in range(2)]
    return splices(sims, listen=f"{client.kvpin[family]}:0"), client, server


def use(client, count):
    for i in range(count):
        client.send(request("/sse/12/1000/150", f"s{i % 4}"))
        status, _, body = client.answer()
        assert (status, len(body), body.count(b"data: ")) == (200, 12 * 150, 12)
        if i % 4 == 3:
            client.send(request(f"/bytes/{300000 + i}?seed={i}", f"s{i % 4}"))
            same(client.answer()[2], pattern(300000 + i, i))


# ---- options

OPTIONS = {
    "timestamps-off": {"tcp_timestamps": 0},
    "sack-off": {"tcp_sack": 0},
    "window-scale-off": {"tcp_window_scaling": 0},
    "ecn": {"tcp_ecn": 1},
    "none": {"tcp_timestamps": 0, "tcp_sack": 0, "tcp_window_scaling": 0},
}


@pytest.mark.parametrize("who", ["client", "server", "both"])
@pytest.mark.parametrize("options", OPTIONS)
def test_options_that_one_side_or_none_has(rig, start, splices, options, who):
    splice, client, server = remote(rig, start, splices)
    for peer in {"client": [client], "server": [server], "both": [client, server]}[who]:
        sysctl(peer.name, **OPTIONS[options])
    with open("/proc/sys/net/ipv4/tcp_ecn") as f:
        before = f.read()
    if options == "ecn":
        sysctl(None, tcp_ecn=1)
    try:
        one = client.client(splice.kvpin)
        start.clients.append(one)
        use(one, 40)
    finally:
        sysctl(None, tcp_ecn=before)
    # A client that agreed on timestamps may drop what has none; ECN must be on both sides or none,
    # and kvpin, which asks servers for it here, gets it from both.
    refused = (options in ("timestamps-off", "none") and who == "server") or \
        (options == "ecn" and who == "server")
    if refused:
        assert splice.taken() == 0
        assert splice.status()["splice_refused"]["tcp_options"] > 0
    else:
        assert splice.taken() >= 35, splice.status()
    one.close()
    splice.wait_idle()


# ---- keepalive

def keepalive(sock, count=3):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1),
                          (socket.TCP_KEEPCNT, count)):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


@pytest.mark.slow
def test_keepalive_probes_in_a_pause_and_behind_it(start, splices):
    """Nothing comes for six probes, in mid-stream and then between requests, with the sequence
    numbers shifted; peers that get no answer to three probes give up. IPv4 and IPv6 side by side."""
    def serve(conn):
        keepalive(conn.sock)
        while conn.read():
            conn.send(STREAM)
            for i in range(20):
                time.sleep(6.5 if i == 10 else 0.005)
                conn.send(b"4\r\n%04d\r\n" % i)
            conn.send(b"0\r\n\r\n")

    hosts = "127.0.0.1", "::1"
    both = [splices([start.raw(serve, f"raw{i}", host=host)], listen=f"{listen}:0")
            for i, (host, listen) in enumerate(zip(hosts, ("127.0.0.1", "[::1]")))]
    clients = [start.client(splice.kvpin) for splice in both]
    for client in clients:
        keepalive(client.sock)
    for _ in range(2):
        for client in clients:
            client.send(request("/", "s"))
        for client in clients:
            assert client.head()[0] == 200
            assert b"".join(client.chunks()) == b"".join(b"%04d" % i for i in range(20))
        time.sleep(6.5)
    for splice, client in zip(both, clients):
        assert splice.taken() == 2
        client.close()
        splice.wait_idle()


@pytest.mark.slow
def test_keepalive_probes_of_an_idle_offset_connection(start, splices):
    """The same for connections that were spliced before, with nothing under way."""
    splice = splices(start.sims(2, "uvicorn", idle_ms=60000))
    clients = [start.client(splice.kvpin) for _ in range(4)]
    for client in clients:
        keepalive(client.sock)
    for _ in range(2):
        for client in clients:
            for i in range(3):
                client.send(request("/sse/12/1000/150", f"s{i}"))
                assert client.answer()[2].count(b"data: ") == 12
        time.sleep(5)
    assert splice.taken() >= 20, splice.status()


# ---- packets larger than 64 KiB

@pytest.fixture
def large_packets():
    """lo with BIG TCP."""
    words = ["gso_max_size", "262144", "gro_max_size", "262144"]
    done = subprocess.run(["ip", "link", "set", "dev", "lo", *words], capture_output=True,
                          text=True)
    if done.returncode:
        pytest.skip(f"no BIG TCP on lo: {done.stderr.strip()}")
    # iproute2 may be too old to name IPv4's.
    subprocess.run(["ip", "link", "set", "dev", "lo", "gso_ipv4_max_size", "262144",
                    "gro_ipv4_max_size", "262144"], capture_output=True)
    yield
    subprocess.run(["ip", "link", "set", "dev", "lo", "gso_max_size", "65536", "gro_max_size",
                    "65536"], check=True, capture_output=True)


@pytest.mark.parametrize("where", ["near", "far"])
@pytest.mark.parametrize("address, family", [("127.0.0.1", 4), ("[::1]", 6)], ids=["v4", "v6"])
def test_packets_larger_than_64_kib(rig, start, splices, large_packets, address, family, where):
    size = 20_000_000
    sims = [start.sim(f"gpu{i}", "uvicorn", listen=f"{address}:0") for i in range(2)]
    if where == "far":
        peer = rig.peer("c")
        splice = splices(sims, listen=f"{peer.kvpin[family]}:0")
        client = peer.client(splice.kvpin, family)
    else:
        splice = splices(sims, listen=f"{address}:0")
        client = Client((address.strip("[]"), splice.kvpin.addr[1]))
    start.clients.append(client)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)) as eye:
        eye.bind(("lo", 3))
        longest = 0
        for manner in ("", "&manner=chunked&chunk=300000", ""):
            client.send(request(f"/bytes/{size}?seed=3{manner}", "s"))
            status, _, body = client.answer()
            assert (status, len(body)) == (200, size)
            assert checksum(body) == checksum(pattern(size, 3))
            eye.setblocking(False)
            try:
                while True:
                    longest = max(longest, eye.recv_into(bytearray(1), 1, socket.MSG_TRUNC))
            except BlockingIOError:
                pass
            use(client, 4)
        # Requests of that size, too, while answers run.
        body = pattern(3_000_000, 1)
        client.send(request("/sse/200/2000/150", "s") + request("/sink", "s", body=body))
        assert client.answer()[2].count(b"data: ") == 200
        assert client.answer()[0] == 200
    print("longest packet", longest, splice.status())
    assert splice.taken() >= 10, splice.status()
    client.close()
    splice.wait_idle()


# ---- routes that change

@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
@pytest.mark.parametrize("where", ["near", "far"])
def test_routes_that_change_in_mid_stream(rig, start, splices, where, family):
    """Every change makes sockets forget the routes that they remember for what they receive; IPv4
    has none for what comes in from another host in the name of 127.0.0.1."""
    peer = rig.peer("c")
    if where == "far":
        server = rig.peer("s")
        sims = [server.sim(start, "gpu0", family=family)]
    else:
        sims = [start.sim("gpu0", "uvicorn", listen=("127.0.0.1:0", "[::1]:0")[family == 6])]
    splice = splices(sims, listen=f"{peer.kvpin[family]}:0")
    client = peer.client(splice.kvpin, family)
    start.clients.append(client)
    client.send(request("/sse/400/10000/150", "s"))
    assert client.head()[0] == 200
    splice.wait_running()
    begin, last, longest = time.monotonic(), time.monotonic(), 0
    chunks, changes = client.chunks(), 0
    for chunk in chunks:
        now = time.monotonic()
        longest, last = max(longest, now - last), now
        if now - begin > changes + 0.5:
            changes += 1
            netrig.ip("route", "add", f"192.0.2.{changes}/32", "dev", peer.device)
            netrig.ip("-6", "route", "add", f"2001:db8::{changes}/128", "dev", peer.device)
    print("changes", changes, "longest gap", longest)
    assert changes >= 3 and longest < 2.5
    client.close()
    splice.wait_idle()


# ---- a path MTU that shrinks

def behind_router(rig, what, number):
    """A namespace two hops away: kvpin - router - it. Returns (namespace, the router's, the far
    device there, its address, kvpin's, by family)."""
    near = rig.peer(what)
    router, far = near.name, rig.namespace(f"{what}far")
    a, b = f"kv{rig.mark}{what}x", f"kv{rig.mark}{what}y"
    rig.link(router, a, far, b)
    net, net6 = f"10.25{number}.0", f"fd25:{number}:"
    netrig.ip("-n", router, "addr", "add", f"{net}.1/24", "dev", a)
    netrig.ip("-n", router, "addr", "add", f"{net6}:1/64", "dev", a, "nodad")
    netrig.ip("-n", far, "addr", "add", f"{net}.2/24", "dev", b)
    netrig.ip("-n", far, "addr", "add", f"{net6}:2/64", "dev", b, "nodad")
    netrig.ip("-n", far, "route", "add", "default", "via", f"{net}.1")
    netrig.ip("-n", far, "-6", "route", "add", "default", "via", f"{net6}:1")
    sysctl(router, ip_forward=1)
    with netrig.inside(router), open("/proc/sys/net/ipv6/conf/all/forwarding", "w") as f:
        f.write("1")
    netrig.ip("route", "add", f"{net}.0/24", "via", near.own[4])
    netrig.ip("-6", "route", "add", f"{net6}:/64", "via", near.own[6].strip("[]"))
    return netrig.Peer(far, {4: f"{net}.2", 6: f"[{net6}:2]"}, near.kvpin, near.device), router, a


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("where", ["near", "far"])
def test_a_path_to_the_client_that_becomes_narrow(rig, start, splices, where, framing, family):
    """In mid-answer a router begins to say that packets are too big: nothing stalls, and what
    follows on the connection, with its numbers shifted, does not either."""
    peer, router, device = behind_router(rig, "c", 1)
    total = 3_000_000

    def serve(conn):
        while conn.read():
            body = pattern(total, 7)
            conn.send({"length": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total,
                       "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"}[framing])
            for at in range(0, total, 30000):
                time.sleep(0.003)
                piece = body[at:at + 30000]
                conn.send(b"%x\r\n%s\r\n" % (len(piece), piece) if framing == "chunked" else piece)
            if framing == "chunked":
                conn.send(b"0\r\n\r\n")

    if where == "far":
        server = rig.peer("s")
        with netrig.inside(server.name):
            one = start.raw(serve, "gpu0", host=server.own[family].strip("[]"))
    else:
        one = start.raw(serve, "gpu0", host="127.0.0.1" if family == 4 else "::1")
    splice = splices([one], listen=f"{peer.kvpin[family]}:0")
    with netrig.inside(peer.name):
        client = Client((peer.kvpin[family].strip("[]"), splice.kvpin.addr[1]))
    start.clients.append(client)
    for turn, mtu in enumerate((None, 1400, 1300)):
        client.send(request("/", "s"))
        assert client.head()[0] == 200
        client.more()
        begin = time.monotonic()
        if turn == 1:
            splice.wait_running()
        if mtu:
            netrig.ip("-n", router, "link", "set", device, "mtu", str(mtu))
        body = b"".join(client.chunks()) if framing == "chunked" else client.exactly(total)
        took = time.monotonic() - begin
        same(body, pattern(total, 7))
        assert took < 5, (took, splice.status())
        print(mtu, took)
    print(splice.status())
    client.close()
    splice.wait_idle()


@pytest.mark.parametrize("rcvbuf", [8192, 16384, 32768])
def test_a_client_on_this_host_with_less_room_than_a_segment_is_the_relays(rig, start, splices,
                                                                           rcvbuf):
    """Linux, when it does not scale its window, offers no more room once it has taken more than it
    keeps free; a server that was told of the relay's room sends so much."""
    # In a namespace of its own no other case has made lo's segments smaller.
    with netrig.inside(rig.namespace("k")):
        splice = splices(start.sims(1, "uvicorn"))
        for i in range(20):
            client = Client(splice.kvpin.addr, rcvbuf=rcvbuf)
            start.clients.append(client)
            client.send(request(f"/bytes/300000?seed={i}&manner=chunked", "s"))
            same(client.answer()[2], pattern(300000, i))
            client.send(request("/sse/20/1000/150", "s"))
            assert client.answer()[2].count(b"data: ") == 20
            client.close()
    assert splice.taken() == 0
    assert splice.status()["splice_refused"]["segment_size"] >= 20
    splice.wait_idle()
