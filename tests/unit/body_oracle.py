#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What a request's body says, by Python's json module and the comments in user/core/body_scan.h:
the session's id, and the chains of the canonical prompt. Prints random bodies with both.

Usage: body_oracle.py SEED NR     exit 77: python3-xxhash is not there

B body_hex model|- found id nr hash... nr_plain hash...
The sources are json=metadata.session_id, json=user, prefix; found: 0, 1, or - (then the chains are
of the first 8 windows).
"""
import json
import random
import sys

try:
    import xxhash
except ImportError:
    sys.exit(77)

WINDOW, WINDOWS, PADDED = 256, 8, 256


def chain(salt, text):
    hashes, before = [], salt
    for at in range(0, len(text) // WINDOW * WINDOW, WINDOW):
        hashes.append(xxhash.xxh64_intdigest(before + text[at:at + WINDOW], seed=0))
        before = hashes[-1].to_bytes(8, "little")
    return hashes[:WINDOWS]


def content_text(value, name=None, in_array=True):
    if isinstance(value, str):
        return value if in_array or name in ("text", "content", "url", "data") else ""
    if isinstance(value, list):
        return "".join(content_text(v) for v in value)
    if isinstance(value, dict):
        return "".join(content_text(v, k, False) for k, v in value.items())
    return ""


def message(role, text):
    return "\x1e" + role + "\x1f" + text


def canonical(body):
    """The prompt, or None; and whether the model comes behind its beginning."""
    text, begun, model_late = "", False, False
    whole = False
    for name, value in body.items():
        if name == "model" and isinstance(value, str):
            model_late = begun
        if whole:
            continue
        if name in ("system", "instructions") and isinstance(value, (str, list)):
            text += message("system", content_text(value))
            begun = True
        elif name in ("messages", "input"):
            if isinstance(value, str):
                text += message("user", value)
                begun = whole = True
            elif isinstance(value, list):
                for one in value:
                    if isinstance(one, dict):
                        role = one.get("role", "")
                        text += message(role, content_text(one.get("content")))
                        begun = True
                whole = begun
        elif name == "prompt" and isinstance(value, str):
            text += value
            begun = whole = True
    return (text if begun else None), model_late


def key_text(value):
    if value is None or isinstance(value, (dict, list)):
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def session(text):
    raw = text.encode("utf-8")
    if not raw or b"\0" in raw:
        return None
    return xxhash.xxh64_intdigest(raw.ljust(PADDED, b"\0") if len(raw) <= PADDED else raw, seed=0)


def word(rng):
    return rng.choice(["hello", "a \"quoted\" word", "back\\slash", "\n\t", "\u00fcml\u00e4ut",
                       "\U0001f600", "\u2028", "x" * rng.randrange(400), "", "/"])


def words(rng):
    return "".join(word(rng) for _ in range(rng.randrange(8)))


def shuffled(rng, pairs):
    pairs = list(pairs)
    rng.shuffle(pairs)
    return dict(pairs)


def random_content(rng):
    kind = rng.random()
    if kind < 0.6:
        return words(rng)
    if kind < 0.9:
        return [rng.choice([{"type": "text", "text": words(rng)},
                            shuffled(rng, {"type": "image_url",
                                           "image_url": {"url": words(rng), "detail": "low"}}.items()),
                            {"type": "tool_result", "content": [{"type": "text", "text": words(rng)}]},
                            words(rng), 7])
                for _ in range(rng.randrange(4))]
    return rng.choice([None, 3, {}])


def random_messages(rng):
    made = []
    for _ in range(rng.randrange(7)):
        one = {"role": rng.choice(["user", "assistant", "system"]), "content": random_content(rng)}
        if rng.random() < 0.2:
            one["name"] = words(rng)
        if rng.random() < 0.1:
            del one["role"]
        made.append(shuffled(rng, one.items()) if rng.random() < 0.3 else one)
    return made


def random_body(rng):
    pairs = [("stream", True), ("temperature", -1.5e-3), ("tools", [{"role": "x", "content": "no"}])]
    if rng.random() < 0.9:
        pairs.append(("model", words(rng)[:60] or "m"))
    kind = rng.random()
    if kind < 0.7:
        pairs.append(("messages", random_messages(rng)))
    elif kind < 0.8:
        pairs.append(("input", rng.choice([words(rng), random_messages(rng)])))
    else:
        pairs.append(("prompt", rng.choice([words(rng), words(rng) * 9, [1, 2, 3]])))
    if rng.random() < 0.3:
        pairs.append((rng.choice(["system", "instructions"]),
                      rng.choice([words(rng), [{"type": "text", "text": words(rng)}]])))
    if rng.random() < 0.25:
        pairs.append(("user", rng.choice([words(rng), 42, None, True, {"a": 1}])))
    if rng.random() < 0.25:
        pairs.append(("metadata", rng.choice([{"session_id": words(rng)}, {"a": {"session_id": "x"}},
                                              [{"session_id": "x"}], "session_id",
                                              {"b": [1], "session_id": 1.25}])))
    return shuffled(rng, pairs)


def main():
    rng = random.Random(int(sys.argv[1]))
    for _ in range(int(sys.argv[2])):
        body = random_body(rng)
        text = json.dumps(body, ensure_ascii=rng.random() < 0.5,
                          indent=rng.choice([None, None, 1])).encode("utf-8")
        metadata = body.get("metadata")
        ids = [session(key_text(metadata.get("session_id") if isinstance(metadata, dict) else None)),
               session(key_text(body.get("user")))]
        found = next((i for i, s in enumerate(ids) if s is not None), None)
        prompt, late = canonical(body)
        salted = plain = []
        if prompt is not None:
            model = body.get("model", "").encode("utf-8")[:256]
            salted = chain(model, prompt.encode("utf-8"))
            plain = chain(b"", prompt.encode("utf-8")) if late else []
        print("B", text.hex(), "-" if found is None else found, 0 if found is None else ids[found],
              len(salted), *salted, len(plain), *plain)


main()
