#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""An independent guard: written from the comments in user/core/guard.h and user/core/decide.h, not
from the C code, with whole numbers of any size where C saturates.

Prints random cases with what is expected, one a line; tests/unit/test_guard_oracle.c reads them and
compares. Never looks at the C code's answers.

Usage: guard_oracle.py SEED NR_CASES     exit 77: python3-xxhash is not there

Lines:
  wait  slots inflight queued exchange_ms  ms
  cold  bytes rate  ms
  rate  bytes ttft_ns  rate
  turn  first context request ttft_ns rate  class recomputed
  over  inflight least abs rel_milli  0|1
  arm   session milli  0|1
  full  busy elsewhere stay go cheapest room fresh waited go_now  verdict
  decide placement keyed session turn excluded pin busy queue abs rel context cold idle fresh waited
         go_now late control nr_views {id state weight inflight sessions name_hash slots queued cheapest
         exchange rate drain_idle draining drained}...
         backend reason guard stay go
"""
import math
import random
import sys
from fractions import Fraction

try:
    import xxhash
except ImportError:
    sys.exit(77)

UNKNOWN = 2**32 - 1
LONGEST = UNKNOWN - 1
NOBODY = 2**32 - 1
UP, DOWN, REMOVED = 1, 2, 3
PLACEMENTS = ["balanced", "hash", "least-inflight", "round-robin"]
BUSY = ["prefer_idle_slot", "prefer_owning_slot_with_wait", "stick"]


def wait_ms(slots, inflight, queued, exchange_ms):
    busy = inflight + queued
    if not slots or busy < slots:
        return 0
    if not exchange_ms:
        return UNKNOWN
    return min(LONGEST, (busy - slots + 1) * exchange_ms // slots)


def cold_ms(size, rate):
    if not rate or not size:
        return UNKNOWN
    return min(LONGEST, max(1, size * 1000 // rate))


def rate_sample(size, ttft_ns):
    us = ttft_ns // 1000
    if size < 2048 or not us or size * 10**6 >= 2**64:
        return 0
    return size * 10**6 // us


def classify(first, context, request, ttft_ns, rate):
    if first:
        return "first", 0
    if ttft_ns < 20 * 10**6:
        return "warm", 0
    if not rate:
        return "unknown", 0
    old = min(request, context)
    product = ttft_ns // 1000 * rate
    computed = min(product, 2**64 - 1) // 10**6
    again = min(old, max(0, computed - (request - old)))
    if not old or again < old // 4:
        return "warm", again
    return ("partial" if again < old - old // 4 else "cold"), again


def over_threshold(inflight, least, abs_, rel_milli):
    return bool(abs_ and inflight > least + abs_ or
                rel_milli and inflight > Fraction(least * rel_milli, 1000) + 1)


def control(session, milli):
    h = xxhash.xxh64_intdigest(session.to_bytes(8, "little"), seed=int.from_bytes(b"control"))
    return Fraction(h >> 32, 2**32) < Fraction(milli, 1000)


def full(f):
    if f["busy"] == "stick":
        return "over"
    if f["elsewhere"] and (f["go_now"] or f["waited"]):
        return "spill"
    both = f["stay"] != UNKNOWN and f["go"] != UNKNOWN
    cheaper = f["go"] < f["stay"] if both else f["busy"] == "prefer_idle_slot"
    if f["elsewhere"] and cheaper:
        if f["fresh"] and f["room"]:
            return "wait"
        dearer = f["go"] != UNKNOWN and f["cheapest"] != UNKNOWN and f["cheapest"] < f["go"]
        return "displace" if dearer and f["room"] else "spill"
    if f["waited"] or not f["room"]:
        return "over" if f["busy"] == "prefer_idle_slot" else "refuse"
    return "wait"


# ---- decide() ----

def rendezvous(session, s):
    h = xxhash.xxh64_intdigest(session.to_bytes(8, "little"), seed=s["name_hash"])
    return s["weight"] / -math.log((h // 4096 + 0.5) / 2**52)


def in_turn(servers, turn):
    visits = []
    for lap in range(max(s["weight"] for s in servers)):
        visits += [s for s in servers if s["weight"] > lap]
    return visits[turn % len(visits)]


def has_free(s):
    return not s["slots"] or s["inflight"] + s["queued"] < s["slots"]


def by_weight(s, what):
    return Fraction(s[what], s["weight"])


def choose(case, servers, placement=None):
    placement = placement or case["placement"]
    if placement == "round-robin" or case["keyed"] and case["control"]:
        return in_turn(servers, case["turn"])
    if not case["keyed"]:
        least = min(by_weight(s, "inflight") for s in servers)
        return in_turn([s for s in servers if by_weight(s, "inflight") == least], case["turn"])
    loads = {"balanced": ["sessions", "inflight"], "least-inflight": ["inflight", "sessions"],
             "hash": []}[placement]
    return min(servers, key=lambda s: ([by_weight(s, load) for load in loads],
                                       -rendezvous(case["session"], s), s["id"]))


def mean(values):
    known = [v for v in values if v]
    return sum(known) // len(known) if known else 0


def eligible(case, s):
    return (s["state"] == UP and s["weight"] and not s["draining"] and
            not case["excluded"] & 1 << s["id"])


def why_no_pin(case):
    if not case["keyed"]:
        return "keyless"
    if case["control"]:
        return "control"
    if case["placement"] == "hash":
        return "hashed"
    if case["pin"] == NOBODY:
        return "placed"
    if case["excluded"] & 1 << case["pin"]:
        return "moved_failed"
    owner = {s["id"]: s for s in case["servers"]}.get(case["pin"])
    if owner is None or owner["state"] == REMOVED or not owner["weight"]:
        return "moved_removed"
    if owner["state"] == DOWN:
        return "moved_down"
    if owner["draining"] and (owner["drained"] or case["idle"] > owner["drain_idle"]):
        return "moved_drain"
    return None


def decide(case):
    """(backend, reason, guard, stay, go)"""
    servers = [s for s in case["servers"] if eligible(case, s)]
    exchange = mean([s["exchange"] for s in case["servers"]])
    # The mean is taken of rates in units of 64 bytes a second.
    known = [s["rate"] // 64 for s in case["servers"] if s["rate"]]
    rate = sum(known) // len(known) * 64 if known else 0

    def wait_of(s):
        return wait_ms(s["slots"], s["inflight"], s["queued"], s["exchange"] or exchange)

    def cold_of(s):
        return cold_ms(case["context"], s["rate"] or rate)

    def loaded(s):
        if s["slots"]:
            return False
        least = min([t["inflight"] for t in servers] + [s["inflight"]])
        return over_threshold(s["inflight"], least, case["abs"], case["rel"])

    reason = why_no_pin(case)
    owner = None
    if reason is None:
        reason = "pinned"
        owner = {s["id"]: s for s in case["servers"]}[case["pin"]]
        if has_free(owner) and not loaded(owner):
            return owner["id"], reason, "free_slot" if owner["slots"] else "unlimited", UNKNOWN, UNKNOWN
    elif not servers:
        return NOBODY, "no_server", "none", UNKNOWN, UNKNOWN
    if reason == "hashed":
        best = choose(case, servers, "hash")
        owner = None if has_free(best) else best

    if owner is None:
        free = [s for s in servers if has_free(s)]
        if free:
            s = choose(case, free)
            return s["id"], reason, "free_slot" if s["slots"] else "unlimited", UNKNOWN, UNKNOWN
        least = min(Fraction(s["inflight"] + s["queued"], s["slots"]) for s in servers)
        s = choose(case, [s for s in servers
                          if Fraction(s["inflight"] + s["queued"], s["slots"]) == least])
        verdict = full({"busy": case["busy"], "elsewhere": False, "stay": UNKNOWN, "go": UNKNOWN,
                        "cheapest": UNKNOWN, "room": s["queued"] < case["queue"],
                        "fresh": False, "waited": case["waited"], "go_now": False})
        return s["id"], reason, verdict, UNKNOWN, UNKNOWN

    if has_free(owner):  # over a threshold
        near = [s for s in servers if not loaded(s) and has_free(s)]
        if not near:
            return owner["id"], reason, "unlimited", UNKNOWN, UNKNOWN
        return choose(case, near)["id"], "moved_guard", "threshold", UNKNOWN, UNKNOWN

    stay, go = wait_of(owner), UNKNOWN
    if case["late"]:
        stay = case["late"] if stay == UNKNOWN else max(stay, case["late"])
    if case["cold"]:
        here = cold_of(owner)
        stay = UNKNOWN if UNKNOWN in (stay, here) else min(LONGEST, stay + here)
    free = [s for s in servers if s is not owner and has_free(s)]
    if free:
        go = min(cold_of(s) for s in free)
        free = [s for s in free if cold_of(s) == go]
    verdict = full({"busy": case["busy"], "elsewhere": bool(free), "stay": stay, "go": go,
                    "cheapest": owner["cheapest"] or UNKNOWN,
                    "room": owner["queued"] < case["queue"], "fresh": case["fresh"], "waited": case["waited"],
                    "go_now": case["go_now"]})
    if verdict == "spill":
        return choose(case, free)["id"], "moved_busy", verdict, stay, go
    return owner["id"], reason, verdict, stay, go


# ---- cases ----

def number(rng, bits):
    """Small numbers, round ones, and the edges."""
    return rng.choice([0, 1, rng.randrange(5), rng.randrange(100), rng.randrange(10**4),
                       rng.getrandbits(rng.randrange(1, bits + 1)), 2**bits - 1 - rng.randrange(3)])


def random_server(rng, slot):
    slots = rng.choice([0, 1, 1, 2, 4, 4, 1024])
    inflight = rng.choice([0, slots, slots, max(0, slots - 1), slots + 1, rng.randrange(6)])
    full_up = slots and inflight >= slots
    draining = rng.random() < 0.15
    return {"id": slot, "state": rng.choice([UP, UP, UP, UP, UP, DOWN, REMOVED]),
            "weight": rng.choice([0, 1, 1, 1, 1, 2, 3, 256]), "inflight": inflight,
            "sessions": rng.choice([0, 1, 2, rng.randrange(100)]),
            "name_hash": rng.getrandbits(64), "slots": slots,
            "queued": rng.choice([0, 0, 1, 1, 3, 64]) if full_up else 0,
            "cheapest": rng.choice([0, UNKNOWN, 1, 1, 1, rng.randrange(1, 10000)]),
            "exchange": rng.choice([0, 1, 500, 3000, 60000, rng.randrange(60000)]),
            "rate": rng.choice([0, 4000, 8000, 8000, rng.randrange(1, 10**6)]),
            "drain_idle": rng.choice([1, 1000, 60000]), "draining": draining,
            "drained": draining and rng.random() < 0.4}


def random_case(rng):
    servers = [random_server(rng, slot)
               for slot in sorted(rng.sample(range(64), rng.choice([1, 2, 2, 3, 4, 8])))]
    if rng.random() < 0.4:  # all the same, so that ties decide
        for s in servers[1:]:
            s.update({k: servers[0][k] for k in ("slots", "rate", "exchange", "sessions")})
    excluded = sum((rng.random() < 0.1) << s["id"] for s in servers)
    return {"placement": rng.choice(PLACEMENTS), "keyed": rng.random() < 0.85,
            "session": rng.getrandbits(64), "turn": rng.randrange(100), "excluded": excluded,
            "pin": rng.choice([NOBODY] + 4 * [s["id"] for s in servers]),
            "busy": rng.choice(BUSY), "queue": rng.choice([0, 1, 64, 64, 64]),
            "abs": rng.choice([0, 0, 1, 2]), "rel": rng.choice([0, 0, 1000, 1500, 2250]),
            "context": rng.choice([0, 1, 10000, 10000, rng.randrange(10**6)]),
            "cold": rng.random() < 0.2, "idle": rng.choice([0, 500, 1001, 60001]),
            "fresh": rng.random() < 0.15, "waited": rng.random() < 0.2, "go_now": rng.random() < 0.1,
            "late": rng.choice([0, 0, 0, 1, 100, 5000, rng.randrange(10**6)]),
            "control": rng.random() < 0.05, "servers": servers}


def flat(value):
    return str(int(value)) if isinstance(value, (bool, int)) else str(value)


def emit(*words):
    print(*[flat(w) for w in words])


def main():
    rng = random.Random(int(sys.argv[1]))
    for _ in range(int(sys.argv[2])):
        a = [number(rng, 32) for _ in range(4)]
        emit("wait", *a, wait_ms(*a))
        a = [number(rng, 63), number(rng, 63)]
        emit("cold", *a, cold_ms(*a) if a[0] * 1000 < 2**64 else LONGEST if a[1] else UNKNOWN)
        a = [number(rng, 50), number(rng, 50)]
        emit("rate", *a, rate_sample(*a))
        context, rate = number(rng, 30), rng.choice([0, 4000, 10**5, 10**5, rng.getrandbits(40)])
        request = context + rng.choice([0, 1, 100, 5000, -min(context, 7)])
        # Mostly a time that stands for some share of the context.
        share = request - context + rng.random() * 1.2 * context
        ttft = rng.choice([rng.randrange(60000) * 10**6, max(0, int(share * 10**9 / (rate or 1)))])
        a = [rng.random() < 0.1, context, request, min(ttft, 2**63), rate]
        emit("turn", *a, *classify(*a))
        a = [rng.randrange(20), rng.randrange(20), rng.randrange(4),
             rng.choice([0, 1000, 1500, 3333])]
        emit("over", *a, over_threshold(*a))
        a = [rng.getrandbits(64), rng.randrange(501)]
        emit("arm", *a, control(*a))
        ms = lambda: rng.choice([UNKNOWN, rng.randrange(10), rng.randrange(10)])
        f = {"busy": rng.choice(BUSY), "elsewhere": rng.random() < 0.7, "stay": ms(), "go": ms(),
             "cheapest": ms(), "room": rng.random() < 0.7,
             "fresh": rng.random() < 0.15, "waited": rng.random() < 0.2,
             "go_now": rng.random() < 0.2}
        emit("full", *f.values(), full(f))
        case = random_case(rng)
        emit("decide", *[v for k, v in case.items() if k != "servers"], len(case["servers"]),
             *[v for s in case["servers"] for v in s.values()], *decide(case))


main()
