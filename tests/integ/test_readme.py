# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What README.md and include/ABI.md list is what the program has: settings and their defaults,
flags, commands, metrics and their labels, reasons, the request log's fields, maps and versions."""
import json
import os
import re
import subprocess

import pytest

from harness import KVPIN, NO_CHECKS, ROOT

MINIMAL = ["--listen", "127.0.0.1:80", "--backend", "a=127.0.0.1:81"]


def read(name):
    with open(os.path.join(ROOT, name)) as f:
        return f.read()


README, ABI = read("README.md"), read("include/ABI.md")


def table(text, first_cells):
    """The rows, as lists of cells, of all tables whose header begins so."""
    rows = []
    for part in text.split(f"\n| {first_cells} |")[1:]:
        for line in part.splitlines()[2:]:
            if not line.startswith("|"):
                break
            rows.append([cell.strip() for cell in line[1:].rstrip().removesuffix("|").split("|")])
    assert rows, first_cells
    return rows


def code(cell):
    return re.findall(r"`([^`]+)`", cell)


def run(*args):
    done = subprocess.run([KVPIN, *args], capture_output=True, text=True, timeout=10)
    assert done.returncode == 0, done
    return done.stdout


def settings(*args):
    return json.loads(run("check", "--json", *args))["settings"]


def test_the_tables_of_settings_have_all_of_them_with_their_defaults():
    real = settings(*MINIMAL)
    told, shown = set(), re.findall(r"`((?:[a-z_]+\.)?[a-z_]+)`", README)
    for keys, defaults, _ in table(README, "key | default"):
        names = [key for key in code(keys) if "[]" not in key]
        told.update(names)
        values = code(defaults)
        if len(values) == 1:
            values *= len(names)
        for name, value in zip(names, values):
            if name == "sessions.state":
                assert value == "auto"
            else:
                assert real[name] == value, name
    groups = {name[:-2] for name in told if name.endswith(".*")}
    assert {name for name in real if name not in told and name.partition(".")[0] not in groups} \
        == {"backends", "placement", "metrics", "control"}
    assert {name for name in told if not name.endswith(".*")} <= real.keys()
    for name in "placement", "metrics", "control":  # in the reference, and described elsewhere
        assert name in shown


def test_the_reference_is_the_default_written_out(tmp_path):
    reference = next(block for block in re.findall(r"```yaml\n(.*?)```", README, re.S)
                     if "timeouts: " in block)
    file = tmp_path / "reference.yaml"
    file.write_text(reference)
    written, real = settings(str(file)), settings(*MINIMAL)
    for name in "listen", "backends", "workers":
        del written[name], real[name]
    assert written == real


def test_the_other_files_of_the_readme_are_good(tmp_path):
    blocks = re.findall(r"```yaml\n(.*?)```", README, re.S)
    assert len(blocks) == 3
    for number, block in enumerate(blocks):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block)
        run("check", str(file), *MINIMAL)


def test_flags_and_commands_of_the_readme_exist():
    listed = re.findall(r"^  (?!kvpin)([a-z]+) ", run("help"), re.M)
    told = {word for row in table(README, "command |") for word in code(row[0])}
    told = {word.removeprefix("kvpin ").split()[0] for word in told}
    assert set(listed) - told == {"version", "help"}
    assert told <= set(listed)
    flags = set(re.findall(r"--[a-z-]+", "".join(run(name, "--help") for name in listed
                                                 if name not in ("version", "help"))))
    own = re.sub(r"(?m)^.*(llama-server|scripts/|setcap|apt|curl|mount|bpftool).*$", "", README)
    used = set(re.findall(r"(?<![\w|-])--[a-z][a-z-]*", own)) - {"--veth"}
    assert used and used <= flags, used - flags


def expand(names):
    """`kvpin_a_b`, `_c` -> kvpin_a_b and what `_c` stands for: one of kvpin_a_c, kvpin_a_b_c."""
    first = names[0].split("_")
    for name in names:
        if name.startswith("_"):
            yield {"_".join(first[:n]) + name for n in range(1, len(first) + 1)}
        else:
            yield {name}


@pytest.fixture
def page(start, tmp_path):
    """A page of /metrics on which every family is, and each with a sample if it has one ever."""
    secret = tmp_path / "secret"
    secret.write_text("balancers-of-one-house\n")
    kvpin = start.kvpin(start.sims(1), *NO_CHECKS, "--peers", "127.0.0.1:9", "--peer-secret",
                        str(secret))
    client = start.client(kvpin)
    for _ in range(2):
        assert client.request("GET", "/json", {"X-Session-Id": "s"})[0] == 200
    kvpin.wait_requests(2)
    return kvpin.exporter()[1]


def test_the_table_of_metrics_has_all_of_them_with_their_labels(page):
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.M))
    helps = dict(re.findall(r"^# HELP (\S+) (.+)$", page, re.M))
    assert types.keys() == helps.keys()
    labels = {}
    for name, inside in re.findall(r"^(\w+?)(?:_bucket|_sum|_count)?(?:\{(.*)\})? \S+$", page,
                                   re.M):
        labels.setdefault(name, set()).update(re.findall(r'(\w+)="', inside or ""))
    told = set()
    for names, label, _ in table(README, "metric | labels"):
        if "process_*" in names:
            names = names.replace("`process_*`", "")
        for candidates in expand(code(names)):
            found = candidates & types.keys()
            assert len(found) == 1, (names, candidates)
            told |= found
            for name in found & labels.keys() - {"kvpin_build_info"}:
                assert labels[name] - {"le"} == set(code(label)), name
    assert {name for name in types if not name.startswith("process_")} == told


def test_the_tables_of_reasons_have_all_of_them(page):
    for path, first in ("steer", "reason |"), ("splice", "reason that an answer was not spliced (yet)"):
        real = set(re.findall(rf'kvpin_path_refused_total{{path="{path}",reason="(\w+)"}}', page))
        told = {word for row in table(README, first) for word in code(row[0])}
        assert told == real, path


def test_the_fields_of_the_request_log_are_told(start):
    kvpin = start.kvpin(start.sims(1), *NO_CHECKS)
    client = start.client(kvpin)
    assert client.request("GET", "/json", {"X-Session-Id": "s"})[0] == 200
    bad = start.client(kvpin)
    bad.send("GET HTTP/1.1\r\n\r\n")
    bad.answer()
    fields = {key for row in kvpin.wait_requests(2) for key in row}
    assert fields - {"ts", "level", "msg"} == {
        word for row in table(README, "field of `msg=request`") for word in code(row[0])}


def test_the_abi_text_has_the_versions_and_the_numbers():
    assert f"now {re.search('KVPIN_ABI_VERSION ([0-9]+)', read('include/kvpin_abi.h'))[1]}." in ABI
    version = re.search("KVPIN_SPLICE_VERSION ([0-9]+)", read("include/kvpin_splice_abi.h"))[1]
    assert f"`KVPIN_SPLICE_VERSION`, now {version}." in ABI
    declared = "".join(read(os.path.join("bpf", name)) for name in os.listdir(f"{ROOT}/bpf"))
    told = {word for row in table(ABI, "map | type") for word in code(row[0])}
    assert {name for name in told if name.startswith("splice_")} == set(
        re.findall(r'\} (splice_\w+) SEC\("\.maps"\)', declared))



def test_the_abi_text_has_all_that_is_pinned_with_its_size(start, path):
    if path not in ("steer", "auto"):
        return
    kvpin = start.kvpin(start.sims(1), *NO_CHECKS, "--limit-connections", "64", "--max-sessions",
                        "1000", "--steer-holds", "32")
    sizes = {"conns": 64, "2 × conns": 128, "3 × conns": 192, "sessions": 1000, "holds": 32,
             "workers": len(os.sched_getaffinity(0))}
    maps = {code(row[0])[0]: row[3] for row in table(ABI, "map | type")
            if row[0].startswith("`") and not row[0].startswith("`splice_")}
    programs = {"steer_verdict", "steer_request", "steer_answer"}
    assert set(os.listdir(kvpin.pin)) == maps.keys() | programs
    for name, size in maps.items():
        done = subprocess.run(["bpftool", "-j", "map", "show", "pinned", f"{kvpin.pin}/{name}"],
                              capture_output=True, text=True, timeout=10)
        real = json.loads(done.stdout)["max_entries"]
        assert real == (sizes[size] if size in sizes else int(size)), name
