# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Processes for scripts/demo: simulated llama-servers with kvpin in front of them.

Everything listens on loopback, on ports of the kernel's choosing, and is ended by its pid; what
is not ended, because the demo itself was killed, gets SIGTERM from the kernel. Sends no traffic.
"""
import ctypes
import json
import os
import re
import signal
import subprocess
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("KVPIN_BUILD") or os.path.join(ROOT, "build")
KVPIN = os.path.join(BUILD, "kvpin")
SIM = os.path.join(BUILD, "tests", "kvpin-sim")

START_LIMIT_S = 15
STOP_S = 5  # between SIGTERM and SIGKILL
COMMAND_LIMIT_S = 10
PR_SET_PDEATHSIG = 1


class Trouble(Exception):
    """The demo cannot go on; the text says why."""


class Processes:
    """All that the demo starts, each with its log."""

    def __init__(self, directory):
        self.directory, self.all = directory, []

    def start(self, name, argv, ready):
        """Starts argv; returns (process, the match of the line that says it is ready)."""
        path = os.path.join(self.directory, f"{len(self.all):02}-{name}.log")
        libc, parent = ctypes.CDLL(None), os.getpid()

        def child():  # a demo that is killed takes its children along
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

        with open(path, "wb") as log:
            # Its own session: Ctrl-C reaches the demo alone, which ends its children in order.
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       start_new_session=True, preexec_fn=child)
        process.label, process.log_path = name, path
        self.all.append(process)
        end = time.monotonic() + START_LIMIT_S
        while True:
            found = re.search(ready, self.log(process), re.M)
            if found:
                return process, found
            if process.poll() is not None or time.monotonic() > end:
                raise Trouble(f"{name} did not start:\n" + self.log(process)[-2000:])
            time.sleep(0.01)

    def log(self, process):
        with open(process.log_path, errors="replace") as log:
            return log.read()

    def stop(self, processes):
        """SIGTERM, then SIGKILL; returns what ended otherwise than well."""
        problems, end = [], time.monotonic() + STOP_S
        early = [p for p in processes if p.poll() is not None]
        for process in processes:
            if process not in early:
                process.terminate()
        for process in processes:
            try:
                process.wait(max(0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process in early or process.returncode:
                problems.append(f"{process.label} (pid {process.pid}) ended "
                                f"{'early ' if process in early else ''}with status "
                                f"{process.returncode}:\n{self.log(process)[-2000:]}")
            self.all.remove(process)
        return problems


class Setup:
    """Fresh servers with kvpin in front of them."""

    def __init__(self, processes, options, label, args=()):
        self.processes, self.label, self.sims = processes, label, []
        self.mine = []
        for i in range(options.servers):
            argv = [SIM, "--listen", "127.0.0.1:0", "--name", f"gpu{i}", "--manner", "llama",
                    "--slots", options.slots, "--ctx", 32768, "--prefill-tps", options.prefill,
                    "--decode-tps", options.decode, "--quiet"]
            process, found = processes.start(f"gpu{i}", list(map(str, argv)),
                                             r"^listening (\S+)$")
            self.mine.append(process)
            self.sims.append((f"gpu{i}", found.group(1)))
        self.control = os.path.join(processes.directory, f"{label}.sock")
        # Two of them may run side by side, and beside one that is no demo.
        self.pin = f"/sys/fs/bpf/kvpin-demo-{os.getpid()}-{label}"
        argv = [KVPIN, "run", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0",
                "--control", self.control, "--path", options.path, "--steer-pin", self.pin,
                "--drain", "2s",
                "--limit-connections", "256", *args]
        for name, address in self.sims:
            argv += ["--backend", f"{name}={address},slots={options.slots}"]
        process, found = processes.start(
            "kvpin", argv, r'msg="kvpin ready".* listen="?([^ ,"]+).* metrics="?([^ "]+)')
        self.mine.append(process)
        self.address, self.metrics_address = found.groups()
        self.wait_up()

    def wait_up(self):
        end = time.monotonic() + START_LIMIT_S
        while any(b["state"] != "up"
                  for b in json.loads(self.command("backends", "--json"))["backends"]):
            if time.monotonic() > end:
                raise Trouble("servers are not up:\n" + self.command("backends"))
            time.sleep(0.05)

    def command(self, *args):
        out = subprocess.run([KVPIN, *args, "--control", self.control], text=True,
                             capture_output=True, timeout=COMMAND_LIMIT_S)
        if out.returncode:
            raise Trouble(f"kvpin {' '.join(args)} failed: {out.stderr}")
        return out.stdout

    def metrics(self):
        url = f"http://{self.metrics_address}/metrics"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=COMMAND_LIMIT_S) as answer:
            return answer.read().decode()

    def stop(self):
        return self.processes.stop(self.mine)
