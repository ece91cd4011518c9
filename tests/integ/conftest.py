# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Fixtures. Every traffic case runs once per data path named by --path (default: relay)."""
import json
import os
import shutil
import subprocess

import pytest

import harness
import rawserver
import splice_help
import steer_help


def pytest_addoption(parser):
    parser.addoption("--path", action="append", default=None,
                     help="data path to test: relay (repeatable)")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes seconds; runs after all others")
    config.addinivalue_line("markers", "steer_only: looks into the kernel; runs with --path steer")
    config.addinivalue_line("markers", "splice_only: likewise with --path splice")


def pytest_collection_modifyitems(config, items):
    other = [item for item in items for path in ("steer", "splice")
             if item.get_closest_marker(f"{path}_only") and item.callspec.params["path"] != path]
    if other:
        config.hook.pytest_deselected(items=other)
        items[:] = [item for item in items if item not in other]
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


def pytest_generate_tests(metafunc):
    if "path" in metafunc.fixturenames:
        metafunc.parametrize("path", metafunc.config.getoption("--path") or ["relay"])


class Started:
    """Starts processes for one test, and ends and checks them afterwards."""

    def __init__(self, tmp, path):
        self.tmp, self.path, self.all, self.clients = tmp, path, [], []

    def keep(self, process):
        self.all.append(process)
        return process

    def sim(self, name="gpu0", manner="llama", **options):
        return self.keep(harness.Sim(self.tmp, name, manner, **options))

    def sims(self, count=2, manner="llama", **options):
        return [self.sim(f"gpu{i}", manner, **options) for i in range(count)]

    def uvicorn(self, name="gpu0", http="h11", args=()):
        return self.keep(harness.Uvicorn(self.tmp, name, http, args))

    def raw(self, script=rawserver.serve_ok, name="raw0", **options):
        """A server that answers with raw bytes; see rawserver.py."""
        return self.keep(rawserver.RawServer(script, name, **options))

    def client(self, kvpin, **options):
        """A raw client that is closed before kvpin is told to drain."""
        client = harness.Client(kvpin.addr, **options)
        self.clients.append(client)
        return client

    def kvpin(self, backends, *args, **options):
        return self.keep(harness.Kvpin(self.tmp, backends, self.path, args, **options))

    def finish(self):
        problems = []
        for client in self.clients:
            client.close()
        for process in reversed(self.all):
            expected = isinstance(process, harness.Kvpin) and process.alive()
            try:
                code = process.stop()
            except (AssertionError, subprocess.TimeoutExpired) as error:
                problems.append(f"{process.name}: {error}")
                if isinstance(process, harness.Kvpin):
                    process.unpin()  # or the cases behind this one fail as well
                continue
            text = process.output()
            if expected and code != 0:
                problems.append(f"kvpin exited with {code}:\n{text}")
            if isinstance(process, harness.Kvpin):
                process.unpin()
            if "Sanitizer" in text or "runtime error:" in text:
                problems.append(f"sanitizer report:\n{text}")
        assert not problems, "\n".join(problems)


@pytest.fixture
def start(tmp_path, path):
    """start.sim(), start.kvpin([...]), ...: processes that live as long as the test."""
    started = Started(tmp_path, path)
    yield started
    started.finish()


@pytest.fixture
def kernel(start):
    """kernel(servers, ...): a kvpin with few slots, and a look into its maps."""
    opened = []

    def run(backends, *args, checks=steer_help.NO_CHECKS, **options):
        args = (*(() if "--limit-connections" in args else ("--limit-connections", "64")),
                *checks, *args)
        options = {"log_requests": False, **options}
        opened.append(steer_help.Kernel(start.kvpin(backends, *args, **options)))
        return opened[-1]
    yield run
    for one in opened:
        one.close()


@pytest.fixture
def splices(start):
    """splices(servers, ...): a kvpin that splices, and what it did."""
    def run(backends, *args, checks=harness.NO_CHECKS, **options):
        return splice_help.Splices(start.kvpin(backends, *checks, *args, **options))
    return run


@pytest.fixture(scope="session")
def uvicorns(tmp_path_factory):
    """Two real uvicorns, one per HTTP implementation, shared by all tests of the run: starting
    one takes half a second. Their counters only grow; take differences."""
    tmp = tmp_path_factory.mktemp("uvicorns")
    both = []
    try:
        for name, http in ("gpu0", "h11"), ("gpu1", "httptools"):
            both.append(harness.Uvicorn(tmp, name, http))
        yield both
    finally:
        for process in both:
            process.stop()
    # A traceback of the application would otherwise pass for a closed connection.
    assert not [p.output() for p in both if "Traceback" in p.output()]


@pytest.fixture
def servers(start, request):
    """servers(kind): gpu0 and gpu1, simulated in the manner "llama" or "uvicorn", or "real"."""
    def get(kind, **options):
        if kind == "real":
            return request.getfixturevalue("uvicorns")
        return start.sims(2, kind, **options)
    return get


@pytest.fixture(scope="session")
def node():
    """node("undici", "bodies", kvpin, ...): run a scenario of a script in tests/integ/node; what
    it returned. The packages are installed by the first test of the tree that needs them."""
    if not shutil.which("npm"):
        pytest.skip("no npm")
    script = os.path.join(harness.ROOT, "scripts", "install-node-clients")
    done = subprocess.run([script], capture_output=True, text=True, timeout=310)
    if done.returncode:
        pytest.skip("the Node clients cannot be installed: " + done.stderr[-300:])
    directory = done.stdout.strip()

    def run(client, scenario, kvpin, **options):
        argv = [os.path.join(directory, "node"), os.path.join(directory, client + ".mjs"),
                scenario, kvpin.url, json.dumps(options)]
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=120)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)
    return run
