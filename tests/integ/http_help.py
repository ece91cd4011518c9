# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What the cases of HTTP itself share: requests, and how they are sent and judged."""
import json
import time

from harness import checksum

# A segment of its own: long enough that kvpin has read what came before.
GAP = 0.0015


def post(path, body, *fields, framing="cl"):
    lines = [f"POST {path} HTTP/1.1", "Host: test", *fields]
    if framing == "cl":
        lines.append(f"Content-Length: {len(body)}")
    else:
        lines.append("Transfer-Encoding: chunked")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def get(path, *fields, method="GET"):
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: test", *fields]).encode() + b"\r\n\r\n"


def send_in_two(client, data, at):
    client.send(data[:at])
    time.sleep(GAP)
    client.send(data[at:])


def check_sink(answer, body):
    status, _, text = answer
    assert status == 200
    assert json.loads(text)["bytes"] == len(body)
    assert json.loads(text)["xxh64"] == checksum(body)


# How a chunked body can be wrong: (bytes, the error's code; None: it breaks off).
BAD_CHUNKS = {
    **{f"chunk size {size!r}": (size + b"\r\nhello\r\n0\r\n\r\n", "bad_chunk_size")
       for size in (b"g", b"", b" 5", b"5 ", b"0x5", b"-5", b"+5", b"5\t", b"5,5",
                    b"0" * 15 + b"5", b"f" * 16, b"5\0", b"\xb5")},
    "a chunk size that ends in LF": (b"5\nhello\r\n0\r\n\r\n", "bad_chunk_size"),
    "a chunk size that ends in CR": (b"5\rhello\r\n0\r\n\r\n", "bad_chunk_size"),
    "a chunk longer than its size": (b"4\r\nhello\r\n0\r\n\r\n", "bad_chunk_end"),
    "a chunk that ends in LF": (b"5\r\nhello\n0\r\n\r\n", "bad_chunk_end"),
    "a chunk without an end": (b"5\r\nhello0\r\n\r\n", "bad_chunk_end"),
    "LF in an extension": (b"5;a\nb\r\nhello\r\n0\r\n\r\n", "bad_chunk_extension"),
    "NUL in an extension": (b"5;a\0\r\nhello\r\n0\r\n\r\n", "bad_chunk_extension"),
    "an endless extension": (b"5;" + b"a" * 1100 + b"\r\nhello\r\n0\r\n\r\n",
                             "bad_chunk_extension"),
    "a trailer without a colon": (b"0\r\nX\r\n\r\n", "bad_trailer"),
    "a folded trailer": (b"0\r\nX: a\r\n b\r\n\r\n", "bad_trailer"),
    "NUL in a trailer": (b"0\r\nX: a\0\r\n\r\n", "bad_trailer"),
    "a trailer that ends in LF": (b"0\r\nX: a\n\r\n", "bad_trailer"),
    "endless trailers": (b"0\r\n" + b"X: aaaaaaaaaaaa\r\n" * 600 + b"\r\n", "bad_trailer"),
    "a last chunk that ends in LF": (b"0\r\n\n", None),
}
