# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The application that the tests' real uvicorn serves: plain ASGI, no framework.

Model endpoints answer in vLLM's shape, the others are those of kvpin-sim. An answer's text depends
on nothing but the prompt, so a test can ask the server itself for what must come through kvpin.
Two members of a JSON body serve tests alone: test_gap_ms (between two tokens, default 1) and
test_prefill_ms (before the first byte, default 0). Never logs, never keeps a body longer than its
request.

The happy path of a request: its endpoint reads the body, sends a head, parts, the end. The client
leaves: Gone is raised wherever the endpoint waits, and counted once. The close is uvicorn's.
"""
import asyncio
import json
import os
import time
import urllib.parse

import xxhash

NAME = os.environ.get("SERVER_NAME", "uvicorn")
MODEL = "m"
PERIOD = 251  # of the pattern that /bytes sends: a prime, so that a shifted block shows
PART_BYTES = 65536
PATTERN = bytes(range(PERIOD)) * (PART_BYTES // PERIOD + 2)

disconnects = 0


class Gone(Exception):
    """The client left before its answer was complete."""


class Exchange:
    def __init__(self, scope, receive, send):
        self.scope, self.receive, self.send = scope, receive, send
        self.path = scope["path"]
        self.query = dict(urllib.parse.parse_qsl(scope["query_string"].decode()))
        self.hash = xxhash.xxh64()
        self.bytes = 0
        self.watch = None

    async def parts(self):
        """The request's body as it comes."""
        more = True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise Gone
            more = message.get("more_body", False)
            data = message.get("body", b"")
            self.hash.update(data)
            self.bytes += len(data)
            yield data
        self.watch = asyncio.ensure_future(self.receive())

    async def body(self):
        return b"".join([data async for data in self.parts()])

    async def pause(self, seconds):
        """Wait, or find out that nobody waits for the answer any more. Only behind the body."""
        if seconds > 0:
            await asyncio.wait({self.watch}, timeout=seconds)
        else:
            await asyncio.sleep(0)
        if self.watch.done():
            raise Gone

    async def start(self, status, kind, length=None):
        fields = [(b"x-sim-server", NAME.encode())]
        if self.watch:
            fields.append((b"x-sim-body", self.hash.hexdigest().encode()))
        if kind:
            fields.append((b"content-type", kind.encode()))
        if length is not None:
            fields.append((b"content-length", str(length).encode()))
        await self.send({"type": "http.response.start", "status": status, "headers": fields})

    async def part(self, data, more=True):
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def whole(self, status, kind, data):
        await self.start(status, kind, len(data))
        await self.part(data, more=False)

    async def json(self, value, status=200):
        await self.whole(status, "application/json", json.dumps(value).encode())


# ---- the model's endpoints


class Job:
    """What a completion request asks for."""

    def __init__(self, body, prompt):
        self.stream = bool(body.get("stream"))
        self.max_tokens = int(body.get("max_completion_tokens") or body.get("max_tokens") or 16)
        self.gap_s = float(body.get("test_gap_ms", 1)) / 1e3
        self.prefill_s = float(body.get("test_prefill_ms", 0)) / 1e3
        self.usage_wanted = bool((body.get("stream_options") or {}).get("include_usage"))
        digest = xxhash.xxh64_hexdigest(prompt.encode())
        self.id = "cmpl-" + digest
        self.tokens = [f" {digest[i % 16]}{i}" for i in range(self.max_tokens)]
        self.prompt_tokens = (len(prompt.encode()) + 3) // 4
        self.usage = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.max_tokens,
                      "total_tokens": self.prompt_tokens + self.max_tokens}


def text_of(content):
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def prompt_of(messages):
    return "".join(f"{m['role']}: {text_of(m.get('content'))}\n" for m in messages)


async def job_of(x, prompt):
    body = json.loads(await x.body())
    job = Job(body, prompt(body))
    await x.pause(job.prefill_s)
    return job


async def events(x, job, first, token, last):
    """An event stream: lists of events before, per token (its text and whether it is the last
    one), and behind."""
    await x.start(200, "text/event-stream; charset=utf-8")
    for event in first:
        await x.part(event)
    for i, text in enumerate(job.tokens):
        await x.part(token(text, i + 1 == job.max_tokens))
        await x.pause(job.gap_s)
    for event in last:
        await x.part(event)
    await x.part(b"", more=False)


def data_event(value):
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def named_event(value):
    return b"event: " + value["type"].encode() + b"\n" + data_event(value)


async def openai(x, job, kind, choice, full):
    head = {"id": job.id, "created": int(time.time()), "model": MODEL, "system_fingerprint": NAME}
    chunk = {**head, "object": kind + (".chunk" if kind == "chat.completion" else "")}
    if not job.stream:
        done = {"index": 0, **full("".join(job.tokens)), "finish_reason": "length"}
        await x.json({**head, "object": kind, "choices": [done], "usage": job.usage})
        return

    def token(text, is_last):
        reason = "length" if is_last else None
        return data_event({**chunk, "choices": [{"index": 0, **choice(text), "logprobs": None,
                                                 "finish_reason": reason}]})

    first, last = [], [b"data: [DONE]\n\n"]
    if kind == "chat.completion":
        delta = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None,
                 "finish_reason": None}
        first = [data_event({**chunk, "choices": [delta]})]
    if job.usage_wanted:
        last.insert(0, data_event({**chunk, "choices": [], "usage": job.usage}))
    await events(x, job, first, token, last)


async def chat(x):
    job = await job_of(x, lambda body: prompt_of(body["messages"]))
    await openai(x, job, "chat.completion", lambda text: {"delta": {"content": text}},
                 lambda text: {"message": {"role": "assistant", "content": text}})


async def completions(x):
    job = await job_of(x, lambda body: text_of(body["prompt"]))
    await openai(x, job, "text_completion", lambda text: {"text": text},
                 lambda text: {"text": text})


async def messages(x):
    job = await job_of(x, lambda body: text_of(body.get("system"))
                       + prompt_of(body["messages"]))
    usage = {"input_tokens": job.prompt_tokens, "output_tokens": job.max_tokens}
    message = {"id": job.id, "type": "message", "role": "assistant", "model": MODEL,
               "system_fingerprint": NAME, "stop_sequence": None}
    if not job.stream:
        await x.json({**message, "content": [{"type": "text", "text": "".join(job.tokens)}],
                      "stop_reason": "max_tokens", "usage": usage})
        return
    first = [
        {"type": "message_start", "message": {**message, "content": [], "stop_reason": None,
                                              "usage": {**usage, "output_tokens": 0}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text",
                                                                     "text": ""}},
    ]
    last = [
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens", "stop_sequence": None},
         "usage": {"output_tokens": job.max_tokens}},
        {"type": "message_stop"},
    ]
    await events(x, job, [named_event(e) for e in first],
                 lambda text, _: named_event({"type": "content_block_delta", "index": 0,
                                              "delta": {"type": "text_delta", "text": text}}),
                 [named_event(e) for e in last])


# ---- the load endpoints, as kvpin-sim has them


async def load_json(x):
    await x.body()
    start = f'{{"system_fingerprint":"{NAME}","pad":"'.encode()
    pad = int(x.query.get("size", 300)) - len(start) - 2
    await x.whole(200, "application/json", start + b"x" * max(pad, 0) + b'"}')


async def load_bytes(x):
    await x.body()
    left, at = int(x.path.rpartition("/")[2]), int(x.query.get("seed", 0))
    chunked = x.query.get("manner") == "chunked"
    await x.start(200, "application/octet-stream", None if chunked else left)
    while left:
        n = min(left, PART_BYTES)
        await x.part(PATTERN[at % PERIOD:][:n])
        at, left = at + n, left - n
    await x.part(b"", more=False)


async def sink(x):
    async for _ in x.parts():
        pass
    await x.json({"bytes": x.bytes, "xxh64": x.hash.hexdigest(), "system_fingerprint": NAME})


async def echo(x):
    await x.start(200, "application/octet-stream")
    async for data in x.parts():
        await x.part(data)
    await x.part(b"", more=False)


async def sse(x):
    await x.body()
    count, gap_us, size = (int(n) for n in x.path.split("/")[2:5])
    await x.start(200, "text/event-stream")
    for i in range(count):
        text = f'data: {{"i":{i},"t":{time.monotonic_ns()},"pad":"'
        await x.part((text + "x" * max(size - len(text) - 4, 0) + '"}\n\n').encode())
        await x.pause(gap_us / 1e6)
    await x.part(b"", more=False)


async def status(x):
    code = int(x.path.rpartition("/")[2])
    await x.body()
    if code in (204, 304):
        await x.start(code, None)
        await x.part(b"", more=False)
    else:
        await x.json({"status": code, "system_fingerprint": NAME}, code)


async def hang(x):
    """Never answers; ends with the client."""
    await x.body()
    await x.pause(3600)


async def health(x):
    await x.body()
    await x.whole(200, None, b"")


async def report_disconnects(x):
    await x.body()
    await x.json({"disconnects": disconnects})


async def not_found(x):
    await x.body()
    await x.json({"detail": "Not Found"}, 404)


EXACT = {
    "/v1/chat/completions": chat, "/v1/completions": completions, "/v1/messages": messages,
    "/json": load_json, "/sink": sink, "/echo": echo, "/hang": hang, "/health": health,
    "/disconnects": report_disconnects,
}
PREFIX = {"/bytes/": load_bytes, "/sse/": sse, "/status/": status}


def endpoint_of(path):
    for prefix, run in PREFIX.items():
        if path.startswith(prefix):
            return run
    return EXACT.get(path, not_found)


async def lifespan(receive, send):
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def app(scope, receive, send):
    global disconnects
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    x = Exchange(scope, receive, send)
    try:
        await endpoint_of(x.path)(x)
    except Gone:
        disconnects += 1
    finally:
        if x.watch:
            x.watch.cancel()
