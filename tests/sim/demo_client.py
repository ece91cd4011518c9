# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Chat traffic for scripts/demo: multi-turn sessions over one shared keep-alive pool.

Owns what is said (a Plan: the same words, limits and pauses in every run), how it is sent, and
what was measured. Starts no server, prints nothing.
"""
import collections
import dataclasses
import http.client
import json
import math
import random
import socket
import threading
import time

REQUEST_TIMEOUT_S = 30.0  # no byte for so long: that request failed
TICK_S = 0.05

WORDS = """the of to in and a request answer server cache token prompt session queue worker log
line build test failed passed retry timeout socket buffer reads writes before after while because
function returns module file patch review branch merge deploy metric latency mean slow fast warm
cold memory page kernel thread lock waits model layer context window user agent tool call result
step plan check error warning config value limit default option note""".split()

SYSTEM_TOKENS = 260  # what all sessions share, as the instructions of one application are


def text(rng, tokens):
    """Words for about that many tokens, at four bytes each."""
    words, size = [], 0
    while size < tokens * 4:
        words.append(rng.choice(WORDS))
        size += len(words[-1]) + 1
    return " ".join(words)


@dataclasses.dataclass
class Pace:
    """How long things are and how long people think; tokens and seconds, (least, most)."""
    start_gap_s: tuple = (0.2, 0.5)
    think_s: tuple = (1.5, 4.0)
    document: tuple = (2200, 3400)
    message: tuple = (70, 200)
    answer: tuple = (36, 64)


QUICK = Pace(start_gap_s=(0.01, 0.04), think_s=(0.02, 0.12), answer=(12, 24))


@dataclasses.dataclass
class Said:
    message: str
    answer_tokens: int
    think_s: float  # before it is sent


@dataclasses.dataclass
class Script:
    name: str
    id: str
    turns: list


class Plan:
    """What every session says and when, fixed by the seed."""

    def __init__(self, sessions, turns, pace, seed=1):
        rng = random.Random(seed)
        self.system = text(rng, SYSTEM_TOKENS)
        self.sessions, self.turns, self.scripts = sessions, turns, []
        start_s = 0.0
        for i in range(sessions):
            said = []
            for turn in range(turns):
                size = rng.randint(*(pace.message if turn else pace.document))
                said.append(Said(text(rng, size), rng.randint(*pace.answer),
                                 rng.uniform(*pace.think_s) if turn else start_s))
            name = f"chat-{i + 1}"
            self.scripts.append(Script(name, f"{name}-{rng.getrandbits(48):012x}", said))
            start_s += rng.uniform(*pace.start_gap_s)


class Pool:
    """Keep-alive connections to one address, whoever needs one: the last used goes first."""

    def __init__(self, host, port):
        self.host, self.port = host, port
        self.lock = threading.Lock()
        self.idle, self.all = [], []
        self.users = collections.defaultdict(set)  # connection -> the sessions it carried

    def take(self, user):
        with self.lock:
            if self.idle:
                connection = self.idle.pop()
            else:
                connection = http.client.HTTPConnection(self.host, self.port,
                                                        timeout=REQUEST_TIMEOUT_S)
                self.all.append(connection)
            self.users[connection].add(user)
            return connection

    def give(self, connection):
        with self.lock:
            self.idle.append(connection)

    def shut(self):
        """Ends every connection, also those that a thread is reading from."""
        with self.lock:
            for connection in self.all:
                try:
                    connection.sock.shutdown(socket.SHUT_RDWR)
                except (OSError, AttributeError):
                    pass


class Failed(Exception):
    pass


@dataclasses.dataclass
class Turn:
    """One request, measured by the client; token counts are the server's own."""
    server: str
    ttft_ms: float
    prompt_tokens: int
    cached_tokens: int
    recomputed_tokens: int
    answer: str = dataclasses.field(repr=False)


def read_answer(answer, started_s, tokens):
    """Reads a chat completion's event stream to its end."""
    ttft_s, server, said, usage, timings, done = None, None, [], None, None, False
    while True:
        line = answer.readline()
        if not line:
            break
        if not line.startswith(b"data: "):
            continue
        if line.strip() == b"data: [DONE]":
            done = True
            continue
        event = json.loads(line[6:])
        content = event["choices"] and event["choices"][0]["delta"].get("content")
        if content:
            if ttft_s is None:
                ttft_s = time.monotonic() - started_s
                server = event["system_fingerprint"]
            said.append(content)
        usage, timings = event.get("usage", usage), event.get("timings", timings)
    if not done or not usage or not timings or ttft_s is None:
        raise Failed(f"the stream ended early, after {len(said)} of {tokens} tokens")
    cached, fresh = usage["prompt_tokens_details"]["cached_tokens"], timings["prompt_n"]
    if len(said) != tokens or cached + fresh != usage["prompt_tokens"]:
        raise Failed(f"{len(said)} tokens for {tokens}, usage {usage}")
    return Turn(server, ttft_s * 1e3, usage["prompt_tokens"], cached, fresh, "".join(said))


def ask(pool, script, messages, tokens):
    body = json.dumps({"model": "sim", "messages": messages, "max_tokens": tokens,
                       "stream": True, "stream_options": {"include_usage": True}}).encode()
    started_s = time.monotonic()
    connection = pool.take(script.id)
    try:
        connection.request("POST", "/v1/chat/completions", body,
                           {"Content-Type": "application/json", "X-Session-Id": script.id})
        answer = connection.getresponse()
        if answer.status != 200:
            raise Failed(f"status {answer.status}: {answer.read(200)!r}")
        turn = read_answer(answer, started_s, tokens)
    except BaseException:
        connection.close()
        raise
    pool.give(connection)
    return turn


class Run:
    """The plan sent once through one address. `rows` has a list of Turns per session."""

    def __init__(self, plan, host, port):
        self.plan, self.pool = plan, Pool(host, port)
        self.rows = [[] for _ in plan.scripts]
        self.failures = []
        self.stopping = threading.Event()

    def converse(self, script, row):
        messages = [{"role": "system", "content": self.plan.system}]
        try:
            for said in script.turns:
                if self.stopping.wait(said.think_s):
                    raise Failed("stopped, the time was up")
                messages.append({"role": "user", "content": said.message})
                row.append(ask(self.pool, script, messages, said.answer_tokens))
                messages.append({"role": "assistant", "content": row[-1].answer})
        except Exception as e:  # whatever it is, this session is over and the run has failed
            self.failures.append(f"{script.name}, turn {len(row) + 1}: "
                                 f"{type(e).__name__}: {e}")

    def done(self):
        return sum(len(row) for row in self.rows)

    def drive(self, limit_s, tick):
        """Sends it all; calls tick(self) now and then; gives up after limit_s."""
        end_s = time.monotonic() + limit_s
        threads = [threading.Thread(target=self.converse, args=pair, daemon=True)
                   for pair in zip(self.plan.scripts, self.rows)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if time.monotonic() > end_s:
                self.stopping.set()
                self.pool.shut()
            tick(self)
            time.sleep(TICK_S)
        self.pool.shut()

    def results(self):
        """All that was measured, as plain data. A session's first turn is cold by nature:
        `recomputed_tokens` sums the turns after it."""
        rows = [{"name": script.name,
                 "servers": [t.server for t in row],
                 "server_changes": changes(row),
                 "ttft_first_ms": row[0].ttft_ms if row else None,
                 "ttft_later_ms_mean": mean([t.ttft_ms for t in row[1:]]),
                 "recomputed_tokens": sum(t.recomputed_tokens for t in row[1:]),
                 "turns": [{k: v for k, v in vars(t).items() if k != "answer"} for t in row]}
                for script, row in zip(self.plan.scripts, self.rows)]
        later = [t for row in self.rows for t in row[1:]]
        totals = {"requests": self.done(),
                  "later_turns": len(later),
                  "connections": len(self.pool.all),
                  "sessions_per_connection_max": max(map(len, self.pool.users.values()),
                                                     default=0),
                  "ttft_first_ms_mean": mean([row[0].ttft_ms for row in self.rows if row]),
                  "ttft_later_ms_mean": mean([t.ttft_ms for t in later]),
                  "ttft_later_ms_p90": p90([t.ttft_ms for t in later]),
                  "prompt_tokens": sum(t.prompt_tokens for t in later),
                  "recomputed_tokens": sum(t.recomputed_tokens for t in later),
                  "server_changes": sum(changes(row) for row in self.rows)}
        return {"sessions": rows, "totals": totals, "failures": list(self.failures)}

    def answers(self):
        return [[t.answer for t in row] for row in self.rows]


def changes(row):
    return sum(a.server != b.server for a, b in zip(row, row[1:]))


def mean(values):
    return sum(values) / len(values) if values else None


def p90(values):
    return sorted(values)[math.ceil(0.9 * len(values)) - 1] if values else None
