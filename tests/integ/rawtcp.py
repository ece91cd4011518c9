# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""A TCP client, and a server, whose segments a test cuts as it likes: bytes sent twice, ahead, with
a FIN, or beside what they should not stand with; sequence numbers that wrap; ACKs withheld.

They speak from an address that nobody has, over a packet socket in a peer's namespace, so that no
kernel answers for them. No options, no retransmission: the link loses nothing.
"""
import socket
import struct
import subprocess

import netrig
from harness import Client

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
ETH_P_IP = 0x0800
SO_RCVBUFFORCE = 33
WINDOW = 65535
MASK = 0xffffffff


def ones(data):
    """The Internet checksum."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def near(number, seq):
    """The number next to `number` whose low half is `seq`."""
    return number + ((seq - number + (1 << 31)) & MASK) - (1 << 31)


class RawTcp(Client):
    """One end of a connection; harness.Client's reading half. send() is one segment behind all that
    was sent. Positions count the stream's bytes from 0; base: the first one's sequence number;
    wrap: (least, most) bytes from the peer's first one to where its numbers wrap, for which many a
    connection is tried."""

    def __init__(self, peer, kvpin, timeout=10.0, base=1000, wrap=None):  # pylint: disable=W0231
        self.open(peer, timeout, base)
        for port in range(20000, 65536):
            self.ports = port, kvpin.addr[1]
            self.put(b"", SYN, -1)
            self.more()
            if not wrap or wrap[0] <= -self.first & MASK <= wrap[1]:
                return
            self.reset()
            self.got = None
        raise AssertionError("no connection's numbers wrap soon")

    def open(self, peer, timeout, base):
        own, there = peer.own[4].rpartition(".")[0] + ".77", peer.kvpin[4]
        self.host, self.ends = own, (socket.inet_aton(own), socket.inet_aton(there))
        with netrig.inside(peer.name):
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
            self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
            with open("/proc/sys/net/ipv4/ip_forward", "w") as f:
                f.write("0")
            device, mac = next((name, self.mac(name)) for _, name in socket.if_nameindex()
                               if name.startswith("kv"))
        self.sock.settimeout(timeout)
        self.to = device, ETH_P_IP, 0, 0, self.mac(peer.device)
        netrig.ip("neigh", "replace", own, "lladdr", mac.hex(":"), "dev", peer.device)
        self.buf, self.sent, self.got, self.base, self.over = b"", 0, None, base, False
        self.acked = self.first = 0  # of ours; the peer's first number
        self.was_reset = False

    @staticmethod
    def mac(device):
        out = subprocess.run(["ip", "-o", "link", "show", device], check=True, capture_output=True,
                             text=True).stdout
        return bytes.fromhex(out.partition("link/ether ")[2].split()[0].replace(":", ""))

    def put(self, data, flags, at):
        """One segment whose first byte is that of the stream's position `at`."""
        tcp = struct.pack(">HHIIBBHHH", *self.ports, (self.base + at) & MASK, self.got or 0,
                          5 << 4, flags | (ACK if self.got is not None else 0), WINDOW, 0, 0) + data
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

    def ack(self):
        self.put(b"", ACK, self.sent)

    def reset(self, at=None, bare=False):
        """bare: without an acknowledgement, as that of a socket which is gone."""
        got, self.got = self.got, None if bare else self.got
        self.put(b"", RST, self.sent if at is None else at)
        self.got = got

    def segment(self):
        """(sequence number, flags, data) of the next one that comes; nothing is acknowledged."""
        while True:
            packet = self.sock.recv(65536)
            head = (packet[0] & 15) * 4
            if packet[9] != 6 or packet[12:20] != self.ends[1] + self.ends[0]:
                continue
            ports, seq, ack, offset, flags = struct.unpack(">4sIIBB", packet[head:head + 14])
            if not self.ports and flags & (SYN | ACK) == SYN:
                self.ports = struct.unpack(">HH", ports)[::-1]
            if not self.ports or ports != struct.pack(">HH", *reversed(self.ports)):
                continue
            self.was_reset |= bool(flags & RST)
            if flags & ACK:
                self.acked = max(self.acked, near(self.acked, (ack - self.base) & MASK))
            return seq, flags, packet[head + (offset >> 4) * 4:
                                      struct.unpack(">H", packet[2:4])[0]]

    def more(self):
        """One segment with data, acknowledged; False at FIN, an error at RST."""
        while not self.over:
            seq, flags, data = self.segment()
            if flags & RST:
                self.challenge(seq)
            elif flags & SYN:
                self.first = self.got = (seq + 1) & MASK
                self.put(b"", SYN if not flags & ACK else ACK, -1 if not flags & ACK else 0)
                return True
            elif seq == self.got and (data or flags & FIN):
                self.buf += data
                self.got = (self.got + len(data) + (flags & FIN)) & MASK
                self.ack()
                self.over = bool(flags & FIN)
                if data:
                    return True
        return False

    def close(self):
        """What is still open ends at once."""
        if self.got is not None and not self.over and self.sock.fileno() >= 0:
            self.reset()
        self.sock.close()

    def challenge(self, seq):
        """A RST counts where the next byte is; elsewhere in the window whoever means it is asked
        to repeat it there (RFC 9293 3.10.7.4)."""
        if self.got is None or seq == self.got:
            raise ConnectionResetError
        if (seq - self.got) & MASK < WINDOW:
            self.ack()


class RawServer(RawTcp):
    """The other side, of one connection; .name and .text as kvpin's backend."""

    def __init__(self, peer, timeout=10.0, port=9000, base=1000):  # pylint: disable=W0231
        self.open(peer, timeout, base)
        self.ports, self.name, self.text = None, "gpu0", f"{self.host}:{port}"

    def accept(self):
        self.more()

    def take_request(self):
        """A request without a body, acknowledged."""
        return self.until(b"\r\n\r\n")
