# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Clients and servers in network namespaces of their own, on veth pairs without offloads, and wires
between them that lose, double and reorder packets.

kvpin itself runs where the test runs, or in a namespace too (Rig.home). Everything is named by the
process id and removed at the end.
"""
import ctypes
import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import threading

import harness

WIRE = os.path.join(harness.BUILD, "tests", "kvpin-wire")
CLONE_NEWNET = 0x40000000
SIOCETHTOOL = 0x8946
# include/uapi/linux/if_tun.h
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454ca, 1, 0x1000
# ETHTOOL_SRXCSUM, _STXCSUM, _SSG, _STSO, _SGSO, _SGRO of include/uapi/linux/ethtool.h
OFFLOADS = (0x15, 0x17, 0x19, 0x1f, 0x24, 0x2c)
libc = ctypes.CDLL(None, use_errno=True)


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


class inside:
    """Within the block this thread is in that namespace; None: nothing changes."""

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        if self.name:
            self.before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            self.enter(f"/run/netns/{self.name}")

    def __exit__(self, *_):
        if self.name:
            self.enter(f"/proc/self/fd/{self.before}")
            os.close(self.before)

    @staticmethod
    def enter(path):
        fd = os.open(path, os.O_RDONLY)
        failed = libc.setns(fd, CLONE_NEWNET)
        os.close(fd)
        assert not failed, os.strerror(ctypes.get_errno())


def offloads_off(device):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for command in OFFLOADS:
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))
            request = struct.pack("16sP", device.encode(), ctypes.addressof(value))
            try:
                fcntl.ioctl(s, SIOCETHTOOL, request)
            except OSError:
                pass  # one that the device does not have


class Rig:
    """Peers of kvpin's namespace: each on a link of its own."""

    def __init__(self):
        self.mark = f"{os.getpid() % 100000}"
        self.names, self.devices, self.wires, self.links = [], [], [], 0
        self.tuns = []
        self.home = None  # kvpin's namespace; None: the test's

    def move(self, rules):
        """From here on kvpin is at home in a namespace of its own, behind these rules of nft."""
        self.home = self.namespace("k")
        with inside(self.home):
            subprocess.run(["nft", "-f", "-"], input=rules, check=True, text=True)

    def counters(self):
        """Packets that each named counter of those rules has counted."""
        with inside(self.home):
            text = subprocess.run(["nft", "-j", "list", "counters"], check=True,
                                  capture_output=True, text=True).stdout
        return {one["counter"]["name"]: one["counter"]["packets"]
                for one in json.loads(text)["nftables"] if "counter" in one}

    def namespace(self, what):
        name = f"kvpin{self.mark}{what}"
        ip("netns", "add", name)
        self.names.append(name)
        ip("-n", name, "link", "set", "lo", "up")
        return name

    def link(self, a, device_a, b, device_b):
        """A veth pair between two namespaces; None is kvpin's."""
        ip("link", "add", device_a, "type", "veth", "peer", "name", device_b)
        for name, device in ((a, device_a), (b, device_b)):
            if name:
                ip("link", "set", device, "netns", name)
            else:
                self.devices.append(device)
            with inside(name):
                ip("link", "set", device, "up")
                offloads_off(device)

    def peer(self, what, wire=None):
        """A namespace with a link to kvpin's; wire: (drop, dup, reorder) in percent. Returns
        (its name, its address, kvpin's address on that link), IPv4 and IPv6 alike in form."""
        self.links += 1
        n, octet = self.links, int(self.mark) % 200 + 20
        name = self.namespace(what)
        here, there = f"kv{self.mark}h{n}", f"kv{self.mark}p{n}"
        if wire:
            middle = self.namespace(f"{what}w")
            inner, outer = f"kv{self.mark}i{n}", f"kv{self.mark}o{n}"
            self.link(self.home, here, middle, inner)
            self.link(name, there, middle, outer)
            with inside(middle):
                process = subprocess.Popen([WIRE, inner, outer, *map(str, wire), str(n)],
                                           stdout=subprocess.PIPE, text=True)
            assert process.stdout.readline() == "ready\n"
            self.wires.append(process)
        else:
            self.link(self.home, here, name, there)
        net = f"10.{octet}.{n}"
        net6 = f"fd00:{octet:x}:{n}:"
        with inside(self.home):
            ip("addr", "add", f"{net}.1/24", "dev", here)
            ip("addr", "add", f"{net6}:1/64", "dev", here, "nodad")
        ip("-n", name, "addr", "add", f"{net}.2/24", "dev", there)
        ip("-n", name, "addr", "add", f"{net6}:2/64", "dev", there, "nodad")
        ip("-n", name, "route", "add", "default", "via", f"{net}.1")
        return Peer(name, {4: f"{net}.2", 6: f"[{net6}:2]"}, {4: f"{net}.1", 6: f"[{net6}:1]"},
                    here)

    def tunnel(self, peer):
        """The same peer behind a VXLAN whose outer packets have checksums: a received one's inner
        packet then comes with the sum of all its bytes (CHECKSUM_COMPLETE)."""
        self.links += 1
        n, octet = self.links, int(self.mark) % 200 + 20
        here, there = f"kv{self.mark}v{n}", f"kv{self.mark}u{n}"
        net, net6 = f"10.{octet}.{n}", f"fd00:{octet:x}:{n}:"
        for name, device, own, other, last in ((None, here, peer.kvpin[4], peer.own[4], 1),
                                               (peer.name, there, peer.own[4], peer.kvpin[4], 2)):
            with inside(name):
                ip("link", "add", device, "type", "vxlan", "id", str(n), "dstport", "4789",
                   "local", own, "remote", other, "udpcsum")
                offloads_off(device)
                ip("link", "set", device, "mtu", "1400", "up")
                ip("addr", "add", f"{net}.{last}/24", "dev", device)
                ip("addr", "add", f"{net6}:{last}/64", "dev", device, "nodad")
        self.devices.append(here)
        return Peer(peer.name, {4: f"{net}.2", 6: f"[{net6}:2]"},
                    {4: f"{net}.1", 6: f"[{net6}:1]"}, here)

    def headless(self, what):
        """A peer on a link without Ethernet heads: tun devices, which a thread carries the packets
        between."""
        self.links += 1
        n, octet = self.links, int(self.mark) % 200 + 20
        name = self.namespace(what)
        here, there = f"kv{self.mark}t{n}", f"kv{self.mark}n{n}"
        self.tuns.append(Tuns((self.home, here), (name, there)))
        for where, device, last in ((self.home, here, 1), (name, there, 2)):
            with inside(where):
                ip("addr", "add", f"10.{octet}.{n}.{last}/24", "dev", device)
                ip("link", "set", device, "up")
        return Peer(name, {4: f"10.{octet}.{n}.2"}, {4: f"10.{octet}.{n}.1"}, here)

    def behind(self, peer, family=4):
        """A namespace that only the peer, its router, is linked to; family: of the address by which
        kvpin's host knows the router for IPv4 (RTA_GATEWAY, RTA_VIA)."""
        self.links += 1
        n, octet = self.links, int(self.mark) % 200 + 20
        name = self.namespace(f"b{n}")
        here, there = f"kv{self.mark}b{n}", f"kv{self.mark}f{n}"
        self.link(peer.name, here, name, there)
        net, net6 = f"10.{octet}.{n}", f"fd00:{octet:x}:{n}:"
        with inside(peer.name):
            ip("addr", "add", f"{net}.1/24", "dev", here)
            ip("addr", "add", f"{net6}:1/64", "dev", here, "nodad")
            for setting in ("ipv4/conf/all/forwarding", "ipv6/conf/all/forwarding"):
                with open(f"/proc/sys/net/{setting}", "w") as f:
                    f.write("1")
        for address in (f"{net}.2/24", f"{net6}:2/64"):
            ip("-n", name, "addr", "add", address, "dev", there,
               *["nodad"] * (":" in address))
        ip("-n", name, "route", "add", "default", "via", f"{net}.1")
        ip("-n", name, "-6", "route", "add", "default", "via", f"{net6}:1")
        ip("-n", peer.name, "-6", "route", "add", "default", "via", peer.kvpin[6].strip("[]"))
        with inside(self.home):
            via = peer.own[4] if family == 4 else peer.own[6].strip("[]")
            ip("route", "add", f"{net}.0/24", "via", *["inet6"] * (family == 6), via)
            ip("route", "add", f"{net6}:/64", "via", peer.own[6].strip("[]"))
        return Peer(name, {4: f"{net}.2", 6: f"[{net6}:2]"}, peer.kvpin, peer.device)

    def close(self):
        """Returns what the wires counted."""
        counts = []
        for process in self.wires:
            process.terminate()
            counts.append(process.communicate(timeout=10)[0].strip())
        for tuns in self.tuns:
            tuns.close()
        for device in self.devices:
            subprocess.run(["ip", "link", "del", device], capture_output=True)
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        self.wires, self.devices, self.names, self.tuns = [], [], [], []
        return counts


class Tuns(threading.Thread):
    """Two tun devices; what leaves by one comes in by the other."""

    def __init__(self, *ends):
        super().__init__(daemon=True)
        self.fds = [self.make(*end) for end in ends]
        self.stop = os.pipe()
        self.start()

    @staticmethod
    def make(namespace, device):
        with inside(namespace):
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", device.encode(),
                                                   IFF_TUN | IFF_NO_PI))
        return fd

    def run(self):
        while True:
            ready = select.select([*self.fds, self.stop[0]], [], [])[0]
            if self.stop[0] in ready:
                return
            for fd in ready:
                try:
                    os.write(self.fds[fd == self.fds[0]], os.read(fd, 65536))
                except OSError:
                    pass  # a device that is not up yet

    def close(self):
        """The devices go with their descriptors."""
        os.close(self.stop[1])
        self.join()
        for fd in (*self.fds, self.stop[0]):
            os.close(fd)


class Peer:
    def __init__(self, name, own, kvpin, device):
        self.name, self.own, self.kvpin, self.device = name, own, kvpin, device

    def client(self, kvpin, family=4, **options):
        """A raw client in this namespace."""
        with inside(self.name):
            return harness.Client((self.kvpin[family].strip("[]"), kvpin.addr[1]), **options)

    def sim(self, start, name, manner="uvicorn", family=4, **options):
        """A simulated server in this namespace."""
        with inside(self.name):
            return start.sim(name, manner, listen=f"{self.own[family]}:0", **options)


def narrow(device):
    """A short queue that drops much of what this host sends there; TCP is told so."""
    subprocess.run(["tc", "qdisc", "add", "dev", device, "root", "tbf", "rate", "100mbit", "burst",
                    "16k", "limit", "24k"], check=True, capture_output=True)


def dropped(device):
    """Packets that the device's queue has dropped."""
    text = subprocess.run(["tc", "-s", "qdisc", "show", "dev", device], check=True,
                          capture_output=True, text=True).stdout
    return int(text.partition("dropped ")[2].partition(",")[0])
