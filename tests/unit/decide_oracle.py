#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""An independent decide(): written from the comments in user/core/decide.h and
include/kvpin_key.h, not from the C code, with fractions where C multiplies crosswise.

Prints random cases with their expected decisions, one a line; tests/unit/test_decide.c reads them
and compares. Never looks at the C code's answers.

Usage: decide_oracle.py SEED NR_CASES     exit 77: python3-xxhash is not there

Line: placement keyed key_hex session turn excluded pin nr_views
      {id state weight inflight sessions name name_hash}...
      backend reason nr_candidates {id sessions_by_weight inflight_by_weight rendezvous}...
"""
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
    return "pinned"


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
    """(backend, reason, candidates)"""
    reason = reason_to_place(case)
    if reason == "pinned":
        return case["pin"], reason, []
    servers = [s for s in case["servers"]
               if s["state"] == UP and s["weight"] and not case["excluded"] & 1 << s["id"]]
    if not servers:
        return NO_BACKEND, "no_server", []
    return place(case, servers), reason, servers


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
    key = rng.randbytes(rng.choice([1, 8, 36, 255, 256, 257, 400]))
    pin = NO_BACKEND
    if rng.random() < 0.6:
        pin = rng.choice([s["id"] for s in servers] + [rng.randrange(64)])
    return {"placement": rng.choice(PLACEMENTS), "keyed": rng.random() < 0.8, "key": key,
            "session": key_hash(key), "turn": rng.choice([rng.randrange(100), rng.getrandbits(64)]),
            "excluded": excluded, "pin": pin, "servers": servers}


def print_case(case):
    words = [case["placement"], int(case["keyed"]), case["key"].hex(), case["session"],
             case["turn"], case["excluded"], case["pin"], len(case["servers"])]
    for s in case["servers"]:
        words += [s[k] for k in ("id", "state", "weight", "inflight", "sessions", "name",
                                 "name_hash")]
    backend, reason, candidates = decide(case)
    words += [backend, reason, len(candidates)]
    for s in candidates:
        words += [s["id"], (s["sessions"] / s["weight"]).hex(), (s["inflight"] / s["weight"]).hex(),
                  (rendezvous(case["session"], s) if case["keyed"] else 0.0).hex()]
    print(*words)


def main():
    rng = random.Random(int(sys.argv[1]))
    for _ in range(int(sys.argv[2])):
        print_case(random_case(rng))


main()
