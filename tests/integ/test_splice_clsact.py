# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The splice path where the kernel has no tcx (before 6.6): filters of a clsact qdisc, which outlive
a daemon that gave up its privileges; others have filters there too."""
import glob
import os
import signal
import subprocess

import pytest

import netrig
from harness import wait_until
from splice_help import request
from test_splice_crash import many, whole

pytestmark = [pytest.mark.splice_only,
              pytest.mark.skipif(os.geteuid() != 0, reason="needs root for tc")]
CLSACT = {"KVPIN_SPLICE_HOOK": "clsact"}


def tc(*words):
    done = subprocess.run(["tc", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def qdiscs(device="lo"):
    return tc("qdisc", "show", "dev", device).count("clsact")


def filters(device="lo", hook="egress"):
    """Ours there."""
    if not qdiscs(device):
        return 0
    return tc("filter", "show", "dev", device, hook).count("name splice_packet")


@pytest.fixture(autouse=True)
def namespace():
    """lo must be this test's own."""
    if qdiscs():
        pytest.skip("lo has a clsact qdisc: run it in a network namespace of its own")
    yield
    subprocess.run(["tc", "qdisc", "del", "dev", "lo", "clsact"], capture_output=True)


def streams(splice, start, count, events=12):
    client = start.client(splice.kvpin)
    for i in range(count):
        client.send(request(f"/sse/{events}/1000/150", f"s{i % 4}"))
        status, _, body = client.answer()
        assert (status, body.count(b"data: ")) == (200, events)
    client.close()


@pytest.mark.parametrize("user", [None, "nobody"])
def test_nothing_is_left_behind(start, splices, user):
    splice = splices(start.sims(2, "uvicorn"), *(("--user", user) if user else ()), env=CLSACT)
    assert (qdiscs(), filters()) == (1, 1)
    streams(splice, start, 40)
    assert splice.taken() >= 35, splice.status()
    splice.wait_idle()
    assert splice.kvpin.stop() == 0
    assert qdiscs() == 0
    assert not glob.glob(f"{splice.kvpin.pin}-splice*")


def test_the_filters_and_qdiscs_of_others_stay(start, splices):
    tc("qdisc", "add", "dev", "lo", "clsact")
    tc("filter", "add", "dev", "lo", "egress", "prio", "7", "protocol", "ip", "u32", "match", "ip",
       "dport", "9", "0xffff", "flowid", "1:1")
    before = tc("filter", "show", "dev", "lo", "egress")
    splice = splices(start.sims(2, "uvicorn"), env=CLSACT)
    streams(splice, start, 20)
    assert splice.taken() >= 15, splice.status()
    splice.wait_idle()
    assert splice.kvpin.stop() == 0
    assert (qdiscs(), filters()) == (1, 0)
    assert tc("filter", "show", "dev", "lo", "egress") == before


def test_a_qdisc_that_others_use_meanwhile_stays(start, splices):
    splice = splices(start.sims(1, "uvicorn"), env=CLSACT)
    tc("filter", "add", "dev", "lo", "ingress", "prio", "7", "protocol", "ip", "u32", "match", "ip",
       "dport", "9", "0xffff", "flowid", "1:1")
    assert splice.kvpin.stop() == 0
    assert (qdiscs(), filters()) == (1, 0)
    assert "u32" in tc("filter", "show", "dev", "lo", "ingress")


def test_an_ingress_qdisc_in_its_place_is_said(start, splices):
    tc("qdisc", "add", "dev", "lo", "ingress")
    try:
        with pytest.raises(RuntimeError, match="has an ingress qdisc"):
            splices(start.sims(1, "uvicorn"), env=CLSACT)
        assert "splice_packet" not in tc("filter", "show", "dev", "lo", "ingress")
    finally:
        tc("qdisc", "del", "dev", "lo", "ingress")


@pytest.mark.parametrize("hook", ["clsact", "tcx"])
def test_two_kvpins_stand_side_by_side(start, splices, hook):
    """The second one always by a filter, the first one by what the kernel has."""
    sims = start.sims(2, "uvicorn")
    one = splices(sims, env=CLSACT if hook == "clsact" else None)
    mine = filters()
    two = splices(sims, env=CLSACT)
    assert filters() == mine + 1
    streams(one, start, 10)
    streams(two, start, 10)
    assert one.taken() >= 7 and two.taken() >= 7
    for splice in two, one:
        splice.wait_idle()
        assert splice.kvpin.stop() == 0
        assert filters() == (mine if splice is two else 0)
    assert qdiscs() == 0


def test_streams_outlive_a_killed_daemon_and_the_next_one_clears_up(start, splices):
    sims = start.sims(2, "uvicorn", slots=100)
    options = ("--timeout-stall", "1500ms")
    splice = splices(sims, *options, env=CLSACT)
    pin = splice.kvpin.pin
    clients = many(start, splice, 20, 200)
    splice.kvpin.kill(signal.SIGKILL)
    splice.kvpin.wait()
    second = splices(sims, "--steer-pin", pin, *options, env=CLSACT)
    assert filters() == 2
    streams(second, start, 40)
    assert second.taken() >= 35, second.status()
    assert whole(clients, 200) <= {"fin", "rst"}
    for client in clients:
        client.close()
    wait_until(lambda: filters() == 1, 10)
    assert glob.glob(f"{pin}-splice*") == [f"{pin}-splice"]
    second.wait_idle()
    assert second.kvpin.stop() == 0
    assert qdiscs() == 0 and not glob.glob(f"{pin}-splice*")


def test_a_start_that_fails_leaves_nothing(start, splices):
    sims = start.sims(1, "uvicorn")
    taken = splices(sims, env=CLSACT)
    with pytest.raises(RuntimeError):
        splices(sims, env=CLSACT, metrics=taken.kvpin.text)
    assert (qdiscs(), filters()) == (1, 1)
    assert taken.kvpin.stop() == 0
    assert qdiscs() == 0


@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_peers_on_other_hosts(start, splices, family):
    rig = netrig.Rig()
    try:
        client, server = rig.peer("c"), rig.peer("s")
        sims = [server.sim(start, f"gpu{i}", family=family) for i in range(2)]
        splice = splices(sims, listen=f"{client.kvpin[family]}:0", env=CLSACT)
        for device in client.device, server.device:
            assert (qdiscs(device), filters(device), filters(device, "ingress")) == (1, 1, 1)
        one = client.client(splice.kvpin, family)
        for i in range(40):
            one.send(request("/sse/12/1000/150", f"s{i % 4}"))
            assert one.answer()[2].count(b"data: ") == 12
        assert splice.taken() >= 35, splice.status()
        one.close()
        splice.wait_idle()
        assert splice.kvpin.stop() == 0
        assert not any(qdiscs(device) for device in ("lo", client.device, server.device))
    finally:
        rig.close()
