# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""kvpin doctor: what it says, to people and to programs, with and without privileges."""
import json
import os
import subprocess

import pytest

import netrig
from harness import KVPIN, Process

NOBODY = 65534
CHECKS = {"loopback", "kernel", "privileges", "bpffs", "btf", "programs", "redirect",
          "slow-target", "queued-before", "passed-bytes", "copy-and-drop", "hand-over", "fin",
          "drop-fin", "not-established", "close"}
STEER_CAPS = ["bpf", "net_admin", "perfmon"]


def doctor(*args, user=0, **env):
    """Run it in a mount namespace that has a bpffs; returns (exit status, stdout)."""
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
    argv = ["unshare", "--mount", "sh", "-c",
            'mount -t bpf -o mode=1777 bpf /sys/fs/bpf && exec "$@"', "sh",
            *become, KVPIN, "doctor", *args]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30,
                          env={**os.environ, **env})
    assert done.stderr == "", done.stderr
    return done.returncode, done.stdout


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@needs_root
def test_root_may_relay_and_steer():
    code, text = doctor()
    lines = text.splitlines()
    assert lines[-3:] == ["relay: yes", "steer: yes", "splice: yes"], text
    assert code == 0
    assert lines[0].split() == ["CHECK", "FOR", "RESULT", "MS", "DETAIL"]
    assert {line.split()[0] for line in lines[1:-4]} >= CHECKS


@needs_root
def test_json_has_every_check_and_both_paths():
    code, text = doctor("--json")
    data = json.loads(text)
    assert code == 0 and data["ok"] is True, text
    assert data["paths"] == {path: {"available": True} for path in ("relay", "steer", "splice")}
    rows = {row["name"]: row for row in data["checks"]}
    assert rows.keys() >= CHECKS
    for row in rows.values():
        assert row["result"] == "ok" and row["why"] and row["fix"] == "", row
        assert row["needed_for"] in ("all", "kernel", "steer", "splice", "info")
    assert sum(row["ms"] for row in rows.values()) < 5000


@needs_root
def test_nobody_may_relay_only_and_is_told_what_is_missing():
    code, text = doctor(user=NOBODY)
    lines = text.splitlines()
    assert code == 1
    assert lines[-3] == "relay: yes"
    for line, path in zip(lines[-2:], ("steer", "splice")):
        assert line.startswith(f"{path}: no: privileges: CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON are "
                               "missing: "), text
        assert "; fix: run as root" in line

    code, text = doctor("--json", user=NOBODY)
    data = json.loads(text)
    assert code == 1 and data["ok"] is False
    assert data["paths"]["relay"] == {"available": True}
    for path in "steer", "splice":
        assert data["paths"][path]["available"] is False
        assert data["paths"][path]["check"] == "privileges"
    results = {row["name"]: row["result"] for row in data["checks"]}
    assert results["privileges"] == "failed"
    assert results["redirect"] == results["programs"] == "skipped"


@needs_root
def test_three_capabilities_are_enough():
    caps = ",".join("+" + cap for cap in STEER_CAPS)
    argv = ["unshare", "--mount", "sh", "-c",
            'mount -t bpf -o mode=1777 bpf /sys/fs/bpf && exec "$@"', "sh",
            "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
            "--inh-caps=-all," + caps, "--ambient-caps=-all," + caps, "--bounding-set=-all," + caps,
            KVPIN, "doctor"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("relay: yes\nsteer: yes\nsplice: yes\n")


@needs_root
@pytest.mark.parametrize("check", ["programs", "slow-target"])
def test_a_failed_check_makes_steer_unavailable_and_is_named(check):
    code, text = doctor(KVPIN_SELFTEST_FAIL=check)
    lines = text.splitlines()
    assert code == 1
    assert lines[-3:] == ["relay: yes",
                          f"steer: no: {check}: forced by KVPIN_SELFTEST_FAIL; "
                          "fix: unset KVPIN_SELFTEST_FAIL", "splice: yes"]


@needs_root
def test_what_needs_a_failed_check_is_skipped_and_says_so():
    code, text = doctor(KVPIN_SELFTEST_FAIL="btf")
    rows = {line.split()[0]: line for line in text.split("\n\n")[0].splitlines()}
    assert code == 1
    assert "skipped" in rows["programs"] and rows["programs"].endswith('needs "btf"')
    assert "skipped" in rows["redirect"]
    assert [line for line in text.splitlines() if line.startswith("steer: ")] == [
        "steer: no: btf: forced by KVPIN_SELFTEST_FAIL; fix: unset KVPIN_SELFTEST_FAIL"]


@needs_root
def test_a_failed_check_of_tc_makes_splice_unavailable():
    code, text = doctor(KVPIN_SELFTEST_FAIL="tc")
    assert code == 1
    assert text.splitlines()[-2:] == ["steer: yes",
                                      "splice: no: tc: forced by KVPIN_SELFTEST_FAIL; "
                                      "fix: unset KVPIN_SELFTEST_FAIL"]


SPOILED = {
    "ipsec": (["ip", "xfrm", "policy", "add", "dir", "out", "src", "10.0.0.1", "dst", "10.0.0.2",
               "tmpl", "proto", "esp", "mode", "transport"],
              "1 IPsec policies: what goes past the sockets would leave in clear"),
    "early-demux": (["sysctl", "-qw", "net.ipv4.tcp_early_demux=0"],
                    "net.ipv4.tcp_early_demux = 0"),
}


@needs_root
@pytest.mark.parametrize("check", SPOILED)
def test_what_would_spoil_spliced_streams_is_found(check, tmp_path):
    """By doctor, and by run, which does without splice or, where it was asked for, refuses."""
    command, found = SPOILED[check]
    pin = f"/sys/fs/bpf/kvpin-test-{os.getpid()}-{check}"
    rig = netrig.Rig()
    try:
        with netrig.inside(rig.namespace("d")):
            code, text = doctor()
            assert code == 0, text
            subprocess.run(command, check=True)
            code, text = doctor()
            assert code == 1
            assert text.splitlines()[-1].startswith(f"splice: no: {check}: {found}; fix: ")
            done = subprocess.run([KVPIN, "run", "--path", "splice", "--listen", "127.0.0.1:0",
                                   "--backend", "a=127.0.0.1:9", "--control", "off",
                                   "--steer-pin", pin],
                                  capture_output=True, text=True, timeout=30)
            assert done.returncode == 1 and f"{check}: {found}" in done.stderr, done
            auto = Process([KVPIN, "run", "--path", "auto", "--listen", "127.0.0.1:0", "--backend",
                            "a=127.0.0.1:9", "--control", "off", "--steer-pin", pin],
                           tmp_path / "auto.log", r'msg="kvpin ready".* path=(\S+)')
            assert auto.stop() == 0
            assert auto.match.group(1) == "steer"
            assert f"{check}: {found}" in auto.output()
    finally:
        rig.close()


def test_usage():
    for args, code in (["--help"], 0), (["--jsn"], 2), (["now"], 2):
        done = subprocess.run([KVPIN, "doctor", *args], capture_output=True, text=True, timeout=10)
        assert done.returncode == code, done
    assert "Exit status: 0 every data path is available" in subprocess.run(
        [KVPIN, "doctor", "--help"], capture_output=True, text=True, timeout=10).stdout
