#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""An independent decide(): written from the comments in user/core/decide.h,
user/core/decide_prefix.h and include/kvpin_key.h, not from the C code, with fractions where C multiplies crosswise.

Prints random cases with their expected decisions, one a line; tests/unit/test_decide_oracle.c reads them
and compares. Never looks at the C code's answers.

Usage: decide_oracle.py SEED NR_CASES     exit 77: python3-xxhash is not there

Line: placement keyed key_hex session turn excluded avoided pin nr_views
      {id state weight inflight sessions name name_hash depth recency}...
      windows shared min_match abs rel
      backend reason disturbed nr_candidates {id sessions_by_weight inflight_by_weight rendezvous}...
"""
import functools
import math
import random
import sys
from fractions import Fraction

try:
    import xxhash
except ImportError:
    sys.exit(77)

NO_BACKEND = 2**32 - 1
FREE, UP, DOWN, REMOVED = range(4)
PLACEMENTS = ["balanced", "hash", "least-inflight", "round-robin"]


def key_hash(key):
    """Session id: XXH64, seed 0, of the key zero-padded to 256 bytes; longer ones whole."""
    return xxhash.xxh64_intdigest(key.ljust(256, b"\0"), seed=0)


def rendezvous(session, server):
    h = xxhash.xxh64_intdigest(session.to_bytes(8, "little"), seed=server["name_hash"])
    u = (h // 4096 + 0.5) / 2**52
    return server["weight"] / -math.log(u)


def in_turn(servers, turn):
    """Rounds: the first visits all, the second those of weight 2 and more, and so on."""
    visits = []
    for lap in range(max(s["weight"] for s in servers)):
        visits += [s for s in servers if s["weight"] > lap]
    return visits[turn % len(visits)]["id"]


def by_weight(server, what):
    return Fraction(server[what], server["weight"])


def reason_to_place(case):
    if not case["keyed"]:
        return "keyless"
    if case["placement"] == "hash":
        return "hashed"
    if case["pin"] == NO_BACKEND:
        return "placed"
    owner = {s["id"]: s for s in case["servers"]}.get(case["pin"])
    if case["excluded"] & 1 << case["pin"]:
        return "moved_failed"
    if owner is None or owner["state"] == REMOVED or owner["weight"] == 0:
        return "moved_removed"
    if owner["state"] == DOWN:
        return "moved_down"
    if case["avoided"] & 1 << case["pin"]:
        return "moved_avoid"
    return "pinned"


def place_by_prefix(rules, servers):
    """(backend, reason, disturbed): the rules of user/core/decide_prefix.h"""
    least = min(s["inflight"] for s in servers)
    within = [s for s in servers if s["inflight"] <= least + rules["abs"] and
              (rules["rel"] == 0 or s["inflight"] <= least * Fraction(rules["rel"]) + 1)]
    beyond = rules["windows"] - rules["shared"]

    def depth(server):
        return max(0, server["depth"] - rules["shared"])

    def before(a, b):  # by weight, crosswise as floats: quotients would round differently
        left, right = a["recency"] * b["weight"], b["recency"] * a["weight"]
        return (left > right) - (left < right) or (a["name"] > b["name"]) - (a["name"] < b["name"])

    coldest = sorted(within, key=functools.cmp_to_key(before))[0]
    owner = max(servers, key=depth)
    if beyond <= 0 or depth(owner) == 0 or depth(owner) < rules["min_match"] * beyond:
        return coldest["id"], "prefix_cold", NO_BACKEND
    if owner in within:
        return owner["id"], "prefix", NO_BACKEND
    second = max(within, key=depth)
    return (second if depth(second) else coldest)["id"], "prefix_guarded", owner["id"]


def place(case, servers):
    if case["placement"] == "round-robin":
        return in_turn(servers, case["turn"])
    if not case["keyed"]:
        least = min(by_weight(s, "inflight") for s in servers)
        return in_turn([s for s in servers if by_weight(s, "inflight") == least], case["turn"])
    loads = {"balanced": ["sessions", "inflight"], "least-inflight": ["inflight", "sessions"],
             "hash": []}[case["placement"]]
    return min(servers, key=lambda s: ([by_weight(s, load) for load in loads],
                                       -rendezvous(case["session"], s), s["id"]))["id"]


def decide(case):
    """(backend, reason, disturbed, candidates)"""
    reason = reason_to_place(case)
    if reason == "pinned":
        return case["pin"], reason, NO_BACKEND, []
    every = [s for s in case["servers"]
             if s["state"] == UP and s["weight"] and not case["excluded"] & 1 << s["id"]]
    servers = [s for s in every if not case["avoided"] & 1 << s["id"]] or every
    if not servers:
        return NO_BACKEND, "no_server", NO_BACKEND, []
    if reason == "moved_avoid" and servers is every:
        return case["pin"], "pinned", NO_BACKEND, []
    if not case["keyed"] and case["prefix"]["windows"]:
        return (*place_by_prefix(case["prefix"], servers), servers)
    return place(case, servers), reason, NO_BACKEND, servers


def random_prefix(rng, servers):
    """Rules of one request; depths and recency weights are put into the servers."""
    windows = rng.choice([0, 1, 5, 64, 64])
    for s in servers:
        s["depth"] = rng.choice([0, rng.randrange(windows + 1)])
        s["recency"] = rng.choice([0.0, 1.0, 3.0, rng.random() * 100])
    return {"windows": windows, "shared": rng.choice([0, 0, rng.randrange(windows + 1)]),
            "min_match": rng.choice([0.0, 0.3, 0.3, 1.0, rng.random()]),
            "abs": rng.choice([0, 2, 2, 100, 2**32 - 1]), "rel": rng.choice([0.0, 1.0, 1.5, 7.25])}


def random_load(rng):
    # Mostly small, so that ties are frequent; sometimes at the edge of 32 bits.
    return rng.choice([0, rng.randrange(3), rng.randrange(20), rng.randrange(2**32),
                       2**32 - 1 - rng.randrange(3)])


def random_case(rng):
    nr = rng.choice([0, 1, 2, 2, 3, 4, 5, 8, 16, 64])
    common_weight = rng.choice([None, 1, 1, 4])
    servers = []
    for slot in sorted(rng.sample(range(64), nr)):
        name = rng.choice(["gpu%d", "node-%d.rack_B", "x%d"]) % slot
        weight = rng.choice([0, 1, 1, 2, 3, 5, 7, 256, rng.randrange(257)])
        if common_weight and rng.random() < 0.9:
            weight = common_weight
        servers.append({
            "id": slot, "name": name, "name_hash": xxhash.xxh64_intdigest(name.encode(), seed=0),
            "state": rng.choice([UP, UP, UP, UP, DOWN, REMOVED]), "weight": weight,
            "inflight": random_load(rng), "sessions": random_load(rng)})
    if servers and rng.random() < 0.3:  # all the same: only rendezvous, or the turn, decides
        for s in servers:
            s.update(inflight=servers[0]["inflight"], sessions=servers[0]["sessions"])
    excluded = 0
    if rng.random() < 0.5:
        for s in servers:
            excluded |= (rng.random() < 0.3) << s["id"]
    avoided = 0
    if rng.random() < 0.3:
        for s in servers:
            avoided |= (rng.random() < 0.5) << s["id"]
    key = rng.randbytes(rng.choice([1, 8, 36, 255, 256, 257, 400]))
    pin = NO_BACKEND
    if rng.random() < 0.6:
        pin = rng.choice([s["id"] for s in servers] + [rng.randrange(64)])
    return {"placement": rng.choice(PLACEMENTS), "keyed": rng.random() < 0.6, "key": key,
            "session": key_hash(key), "turn": rng.choice([rng.randrange(100), rng.getrandbits(64)]),
            "excluded": excluded, "avoided": avoided, "pin": pin, "servers": servers,
            "prefix": random_prefix(rng, servers)}


def print_case(case):
    words = [case["placement"], int(case["keyed"]), case["key"].hex(), case["session"],
             case["turn"], case["excluded"], case["avoided"], case["pin"], len(case["servers"])]
    for s in case["servers"]:
        words += [s[k] for k in ("id", "state", "weight", "inflight", "sessions", "name",
                                 "name_hash", "depth")] + [s["recency"].hex()]
    rules = case["prefix"]
    words += [rules["windows"], rules["shared"], rules["min_match"].hex(), rules["abs"],
              rules["rel"].hex()]
    backend, reason, disturbed, candidates = decide(case)
    words += [backend, reason, disturbed, len(candidates)]
    for s in candidates:
        words += [s["id"], (s["sessions"] / s["weight"]).hex(), (s["inflight"] / s["weight"]).hex(),
                  (rendezvous(case["session"], s) if case["keyed"] else 0.0).hex()]
    print(*words)


def main():
    rng = random.Random(int(sys.argv[1]))
    for _ in range(int(sys.argv[2])):
        print_case(random_case(rng))


main()
