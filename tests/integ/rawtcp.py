# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""A TCP client whose segments a test cuts as it likes: it sends bytes twice, ahead, or with a FIN.

It speaks from an address that nobody has, over a packet socket in a peer's namespace, so that no
kernel answers for it. No options, no retransmission: the link loses nothing.
"""
import socket
import struct
import subprocess

import netrig
from harness import Client

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
ETH_P_IP = 0x0800


def ones(data):
    """The Internet checksum."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


class RawTcp(Client):
    """harness.Client's reading half; send() is one segment behind all that was sent."""

    def __init__(self, peer, kvpin, timeout=10.0, port=40000):  # pylint: disable=W0231
        own, there = peer.own[4].rpartition(".")[0] + ".77", peer.kvpin[4]
        self.ends = socket.inet_aton(own), socket.inet_aton(there)
        self.ports = port, kvpin.addr[1]
        with netrig.inside(peer.name):
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
            with open("/proc/sys/net/ipv4/ip_forward", "w") as f:
                f.write("0")
            device, mac = next((name, self.mac(name)) for _, name in socket.if_nameindex()
                               if name.startswith("kv"))
        self.sock.settimeout(timeout)
        self.to = device, ETH_P_IP, 0, 0, self.mac(peer.device)
        netrig.ip("neigh", "replace", own, "lladdr", mac.hex(":"), "dev", peer.device)
        self.buf, self.sent, self.got, self.base, self.over = b"", 0, None, 1000, False
        self.put(b"", SYN, -1)
        self.more()

    @staticmethod
    def mac(device):
        out = subprocess.run(["ip", "-o", "link", "show", device], check=True, capture_output=True,
                             text=True).stdout
        return bytes.fromhex(out.partition("link/ether ")[2].split()[0].replace(":", ""))

    def put(self, data, flags, at):
        """One segment whose first byte is that of the stream's position `at`."""
        tcp = struct.pack(">HHIIBBHHH", *self.ports, (self.base + at) & 0xffffffff, self.got or 0,
                          5 << 4, flags | (ACK if self.got is not None else 0), 65535, 0, 0) + data
        pseudo = b"".join(self.ends) + struct.pack(">HH", 6, len(tcp))
        tcp = tcp[:16] + struct.pack(">H", ones(pseudo + tcp)) + tcp[18:]
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0) + b"".join(
            self.ends)
        ip = ip[:10] + struct.pack(">H", ones(ip)) + ip[12:]
        self.sock.sendto(ip + tcp, self.to)

    def send(self, data, at=None, fin=False):
        """data: bytes from position `at` on; None: behind all that was sent."""
        at = self.sent if at is None else at
        self.put(data, PSH | (FIN if fin else 0), at)
        self.sent = max(self.sent, at + len(data)) + fin

    def more(self):
        """One segment with data, acknowledged; False at FIN, an error at RST."""
        while not self.over:
            packet = self.sock.recv(65536)
            head = (packet[0] & 15) * 4
            if packet[9] != 6 or packet[12:20] != self.ends[1] + self.ends[0]:
                continue
            ports, seq, _, offset, flags = struct.unpack(">4sIIBB", packet[head:head + 14])
            if ports != struct.pack(">HH", *reversed(self.ports)):
                continue
            if flags & RST:
                raise ConnectionResetError
            data = packet[head + (offset >> 4) * 4:struct.unpack(">H", packet[2:4])[0]]
            if flags & SYN:
                self.got = (seq + 1) & 0xffffffff
                self.put(b"", ACK, 0)
                return True
            if seq != self.got or not (data or flags & FIN):
                continue
            self.buf += data
            self.got = (self.got + len(data) + (flags & FIN)) & 0xffffffff
            self.put(b"", ACK, self.sent)
            self.over = bool(flags & FIN)
            if data:
                return True
        return False
