#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""An independent prefix index: a tree of dicts, searched and counted by walking all of it. Written
from the comments in user/core/prefix.h, not from the C code.

Prints random operations with what they should give, one a line; tests/unit/test_prefix.c reads
them and compares.

Usage: prefix_oracle.py SEED NR_OPERATIONS     exit 77: python3-xxhash is not there

C salt text nr hash...                                        (hex; "-": empty)
N max ttl_ms                                                  a new index
I now slot generation nr hash... count                        insert
L now common nr hash... generation*8 shared depth*8 weight*8  look up
S now gone count                                              sweep, with budget enough
"""
import random
import sys

try:
    import xxhash
except ImportError:
    sys.exit(77)

WINDOW, HALF_LIFE, SLOTS = 256, 120000, 8


def chain(salt, text, most):
    hashes, before = [], salt
    for at in range(0, len(text) // WINDOW * WINDOW, WINDOW):
        digest = xxhash.xxh64_intdigest(before + text[at:at + WINDOW], seed=0)
        hashes.append(digest)
        before = digest.to_bytes(8, "little")
    return hashes[:most]


class Node:
    def __init__(self, parent, depth):
        self.parent, self.depth, self.children = parent, depth, {}
        self.used, self.order, self.slot, self.generation = 0, 0, 0, 0


class Index:
    def __init__(self, most, ttl):
        self.most, self.ttl, self.root = most, ttl, Node(None, 0)
        self.operation, self.next_sweep, self.known = 0, 0, [0] * SLOTS

    def all(self, node=None):
        for child in (node or self.root).children.values():
            yield child
            yield from self.all(child)

    def count(self):
        return sum(1 for _ in self.all())

    def leaves(self, node):
        return 1 if not node.children else sum(map(self.leaves, node.children.values()))

    def expired(self, node, now):
        return now - node.used > self.ttl

    def oldest(self):
        """Longest unused; of one insert the deepest."""
        return min(self.all(), key=lambda n: (n.order, -n.depth))

    def remove(self, node):
        assert not node.children
        siblings = node.parent.children
        del siblings[next(k for k, v in siblings.items() if v is node)]
        return node.parent

    def evict(self, now):
        node = self.remove(self.oldest())
        while node is not self.root and not node.children and (
                self.expired(node, now) or node.generation != self.known[node.slot]):
            node = self.remove(node)

    def insert(self, hashes, slot, generation, now):
        self.operation += 1
        if not hashes:
            return
        self.known[slot] = max(self.known[slot], generation)
        node, new = self.root, 0
        for h in hashes:
            if h in node.children:
                node = node.children[h]
                node.used, node.slot, node.generation = now, slot, generation
                node.order = self.operation
            else:
                new = 1
                break
        depth = node.depth
        for h in hashes[depth:] if new else []:
            while self.count() >= self.most:
                self.evict(now)
            node.children[h] = Node(node, node.depth + 1)
            node = node.children[h]
            node.used, node.slot, node.generation = now, slot, generation
            node.order = self.operation

    def look_up(self, hashes, generations, common, now):
        shared, depth, node = 0, [0] * SLOTS, self.root
        for h in hashes:
            node = node.children.get(h)
            if node is None or self.expired(node, now):
                break
            if common and self.leaves(node) >= common:
                shared = node.depth
            elif node.generation == generations[node.slot]:
                depth[node.slot] = node.depth
        weight = [0.0] * SLOTS
        for n in self.all():
            if n.generation == generations[n.slot] == self.known[n.slot]:
                weight[n.slot] += 2.0 ** (-(now - n.used) / HALF_LIFE)
        return shared, depth, weight

    def sweep(self, now):
        if now < self.next_sweep:
            return 0
        self.next_sweep = now + self.ttl // 2
        gone = 0
        while self.count() and self.expired(self.oldest(), now):
            self.remove(self.oldest())
            gone += 1
        return gone


def print_chain(rng):
    salt = rng.randbytes(rng.choice([0, 1, 12, 256]))
    text = rng.randbytes(rng.choice([0, 255, 256, 257, 511, 1024, 20000]))
    hashes = chain(salt, text, 64)
    print("C", salt.hex() or "-", text.hex() or "-", len(hashes), *hashes)


def random_chain(rng, heads):
    """Chains that share heads of other chains."""
    base = rng.choice(heads)
    cut = rng.randrange(len(base) + 1)
    made = base[:cut] + [rng.getrandbits(64) for _ in range(rng.randrange(6))]
    if rng.random() < 0.3 and made:
        heads[rng.randrange(len(heads))] = made[:10]
    return made[:12]


def main():
    rng = random.Random(int(sys.argv[1]))
    now, index, generations = 1000, None, [0] * SLOTS
    heads = [[rng.getrandbits(64) for _ in range(8)] for _ in range(5)]
    for step in range(int(sys.argv[2])):
        if step % 500 == 0:
            most, ttl = rng.choice([(40, 1000), (40, 100000), (1000, 5000)])
            index, generations = Index(most, ttl), [0] * SLOTS
            print("N", most, ttl)
        now += rng.choice([0, 1, 5, 50, 300, 1000])
        kind = rng.random()
        hashes = random_chain(rng, heads)
        if kind < 0.02:
            print_chain(rng)
        elif kind < 0.05:
            generations[rng.randrange(SLOTS)] += 1
        elif kind < 0.1:
            gone = index.sweep(now)
            print("S", now, gone, index.count())
        elif kind < 0.55:
            slot = rng.randrange(SLOTS)
            index.insert(hashes, slot, generations[slot], now)
            print("I", now, slot, generations[slot], len(hashes), *hashes, index.count())
        else:
            common = rng.choice([0, 2, 3, 8])
            shared, depth, weight = index.look_up(hashes, generations, common, now)
            print("L", now, common, len(hashes), *hashes, *generations, shared, *depth,
                  *[w.hex() for w in weight])


main()
