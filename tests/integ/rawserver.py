# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""A model server of raw sockets: answers with whatever bytes a test wants, and counts.

A test gives it a script, a function that is called in a thread of its own for each connection.
What a script asserts fails the test that started the server.
"""
import select
import socket
import threading
import traceback

from harness import Client, pattern  # the latter for scripts, which take all from here


def reply(body=b"", status="200 OK", *fields):
    """A whole answer with a Content-Length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def chunked(*parts):
    """Parts as chunks, with the last one."""
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


class Request:
    def __init__(self, raw):
        self.raw = raw
        lines = raw[:-4].decode("latin-1").split("\r\n")
        self.line = lines[0]
        self.method, self.target, self.version = lines[0].split(" ")
        self.list = [tuple(p.strip() for p in line.split(":", 1)) for line in lines[1:]]
        self.fields = {name.lower(): value for name, value in self.list}
        self.body = b""


class RawConn(Client):
    """The server's side of one connection; the reading half of harness.Client."""

    def __init__(self, server, sock):  # pylint: disable=super-init-not-called
        self.server, self.sock, self.buf = server, sock, b""
        sock.settimeout(20)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def request_head(self):
        """The next request's head, counted; None at the connection's end."""
        if not self.buf and not self.more():
            return None
        request = Request(self.until(b"\r\n\r\n"))
        with self.server.lock:
            self.server.requests.append(request)
        request.index = len(self.server.requests) - 1
        return request

    def body_of(self, request):
        if request.fields.get("transfer-encoding") == "chunked":
            request.body = b"".join(self.chunks())
        else:
            request.body = self.exactly(int(request.fields.get("content-length", 0)))
        return request

    def read(self):
        """The next whole request; None at the connection's end."""
        request = self.request_head()
        return self.body_of(request) if request else None

    def silent(self, seconds):
        """Does nothing come for so long? Neither bytes nor an end."""
        return not self.buf and not select.select([self.sock], [], [], seconds)[0]


def serve_ok(conn):
    """The default script: every request is answered, the server's name is the body."""
    while conn.read():
        conn.send(reply(conn.server.name.encode()))


class RawServer:
    """.text and .name as kvpin's backend; .connections and .requests are what came."""

    def __init__(self, script=serve_ok, name="raw0", port=0, backlog=128, rcvbuf=0,
                 host="127.0.0.1"):
        self.name, self.script = name, script
        self.lock = threading.Lock()
        self.connections, self.requests, self.problems = 0, [], []
        self.conns, self.threads, self.stopping = [], [], False
        self.listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if rcvbuf:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.listener.bind((host, port))
        self.listener.listen(backlog)
        self.addr = self.listener.getsockname()[:2]
        self.text = ("[%s]:%d" if ":" in host else "%s:%d") % self.addr
        self.accepting = threading.Thread(target=self.accept, daemon=True)
        self.accepting.start()

    def accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            if self.stopping:
                sock.close()
                return
            with self.lock:
                self.connections += 1
            conn = RawConn(self, sock)
            thread = threading.Thread(target=self.run, args=(conn,), daemon=True)
            self.conns.append(conn)
            self.threads.append(thread)
            thread.start()

    def run(self, conn):
        try:
            self.script(conn)
        except (EOFError, OSError):
            pass  # kvpin ended the connection: a test that cares looks itself
        except BaseException:  # pylint: disable=broad-except
            self.problems.append(traceback.format_exc())
        conn.close()

    def refuse(self):
        """Stop listening; open connections go on."""
        self.stopping = True
        try:
            socket.create_connection(self.addr, 1).close()  # wakes accept()
        except OSError:
            pass
        self.accepting.join(5)
        self.listener.close()

    # What Started.finish() asks of a process.
    def alive(self):
        return not self.stopping

    def output(self):
        return ""

    def stop(self):
        if not self.stopping:
            self.refuse()
        for conn in self.conns:
            try:
                conn.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self.threads:
            thread.join(5)
        assert not self.problems, "\n".join(self.problems)
        return 0
