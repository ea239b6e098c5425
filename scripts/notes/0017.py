#!/usr/bin/env python3
"""How are connections dealt out to workers?"""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from math import factorial
from pathlib import Path

sys.dont_write_bytecode = True
from note import ROOT, Block, median  # noqa: E402

sys.path.insert(0, str(ROOT / "scripts/lab.d"))
from processes import spawn, stop_process  # noqa: E402

SECONDS_MAX = 175
WORKERS, DEALS = 4, 25
LAB_ROWS, LAB_TARGETS = "echo64x100,bulk16-down", "upsplice-auto,haproxy,nginx"
LAB_WORKERS = (1, 2, 3)
# Sessions, seconds of a measurement, and how many pairs of them, each with balance and without.
BULK, UPGRADES = ((2, 0.4, 10), (4, 0.4, 10)), (32, 1.0, 7)
# With splice a worker carries more than client and backend can on two cores.
ENGINES = ("copy", "auto")
# A fair coin is this far off by chance once in sixteen thousand deals.
SIGMAS = 4
CONFIG = """
[gateway]
workers = %d
balance = %s
access_log = %s

[[listener]]
address = "127.0.0.1:0"

[[route]]
name = "balance"
protocols = ["any"]
engine = "%s"
to = ["%s"]
"""
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"
ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"


def hash_law(sessions, workers):
    """Mean of the largest number of sessions in one worker, and of the share of idle workers, when
    each session falls into any worker with the same chance. Exact, but for the last division."""
    total = workers ** sessions

    def within(most):
        """In how many of all cases no worker has more than `most`."""
        ways = [Fraction(1)] + [Fraction(0)] * sessions
        for _ in range(workers):
            ways = [sum(ways[n - k] / factorial(k) for k in range(min(n, most) + 1))
                    for n in range(sessions + 1)]
        return ways[sessions] * factorial(sessions)

    largest = sum(1 - within(most) / total for most in range(sessions))
    idle = Fraction(workers - 1, workers) ** sessions
    # Two workers are both idle with this chance, from which the variance of the share follows.
    both = Fraction(workers - 2, workers) ** sessions
    variance = (idle * (1 - idle) + (workers - 1) * (both - idle ** 2)) / workers
    return float(largest), float(idle), float(variance) ** 0.5


class Gateway:
    """A running upsplice with its workers on `cpus`."""

    def __init__(self, binary, workers, balance, backend, log=False, cpus=None, engine="auto"):
        switch = {True: "true", False: "false"}
        self.file = tempfile.NamedTemporaryFile("w", suffix=".toml")
        self.file.write(CONFIG % (workers, switch[balance], switch[log], engine, backend))
        self.file.flush()
        self.process = spawn([binary, "run", "--config", self.file.name],
                             cpus or os.sched_getaffinity(0), text=True,
                             stdout=subprocess.PIPE if log else subprocess.DEVNULL,
                             stderr=subprocess.PIPE)
        for line in self.process.stderr:
            if found := re.search(r"listening on ([0-9.]+):(\d+)", line):
                self.address = found[1], int(found[2])
                return
        raise SystemExit("upsplice did not start")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        stop_process(self.process)
        self.file.close()

    def counters(self):
        self.process.send_signal(signal.SIGUSR1)
        for line in self.process.stderr:
            if line.startswith("counters "):
                return json.loads(line[len("counters "):])
        raise SystemExit("upsplice ended")


def read_head(end):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += end.recv(4096)


def deal(gateway, listener, sessions):
    """Opens so many sessions and ends them; in how many of the workers there were how many."""
    ends = []
    for _ in range(sessions):
        client = socket.create_connection(gateway.address, timeout=5)
        client.sendall(REQUEST)
        backend, _ = listener.accept()
        backend.settimeout(5)
        read_head(backend)
        backend.sendall(ANSWER)
        read_head(client)
        ends += [client, backend]
    for end in ends:
        end.close()
    counts = [0] * WORKERS
    for _ in range(sessions):
        counts[json.loads(gateway.process.stdout.readline())["worker"]] += 1
    # The next deal begins with nothing open; a line is written before the sockets are closed.
    while gateway.counters()["connections_open"]:
        time.sleep(0.001)
    return counts


def distribution(block, binary):
    """The hash, as it should be and as it is, and what balance makes of it."""
    block.say("%d workers; the largest number of sessions in one, and the share of idle workers" %
              WORKERS)
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    listener.settimeout(5)
    backend = "127.0.0.1:%d" % listener.getsockname()[1]
    fair = even = True
    for sessions in (WORKERS, 2 * WORKERS, 4 * WORKERS):
        largest, idle, spread = hash_law(sessions, WORKERS)
        # New ones each time: all deals together shall be no storm.
        with Gateway(binary, WORKERS, False, backend, log=True) as off, \
                Gateway(binary, WORKERS, True, backend, log=True) as on:
            seen = {gateway: [deal(gateway, listener, sessions) for _ in range(DEALS)]
                    for gateway in (off, on)}
            means = {gateway: (sum(map(max, deals)) / DEALS,
                               sum(each.count(0) for each in deals) / DEALS / WORKERS)
                     for gateway, deals in seen.items()}
            block.row("%2d sessions, by the arithmetic of a hash" % sessions,
                      "%5.2f, %4.1f %%" % (largest, 100 * idle))
            for gateway, name in ((off, "balance = false"), (on, "balance = true")):
                block.row("   measured %d times, %s" % (DEALS, name),
                          "%5.2f, %4.1f %%" % (means[gateway][0], 100 * means[gateway][1]))
            fair &= abs(means[off][1] - idle) <= SIGMAS * spread / DEALS ** 0.5
            even &= all(max(each) - min(each) == 0 for each in seen[on])
    listener.close()
    block.claim(fair, "SO_REUSEPORT deals connections out as independent throws of a fair die.")
    block.claim(even, "With balance every worker has the same number of sessions, every time.")


class Ends:
    """The lab's backend, and its load generator on the cores that the workers leave."""

    def __init__(self, program, cpus):
        self.program, self.cpus = program, cpus
        self.backend = spawn([program, "backend", "--threads", "2"], cpus, stdout=subprocess.PIPE,
                             text=True)
        self.address = self.backend.stdout.readline().split()[-1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        stop_process(self.backend)

    def measure(self, gateway, workload, sessions, seconds):
        """Units per second, and CPU seconds of the gateway per unit."""
        argv = [self.program, "load", "--to", "%s:%d" % gateway.address, "--workload", workload,
                "--sessions", str(sessions), "--size", "65536" if "bulk" in workload else "64",
                "--seconds", str(seconds), "--threads", "2", "--pids", str(gateway.process.pid)]
        process = spawn(argv, self.cpus, stdout=subprocess.PIPE, text=True)
        line = json.loads(process.communicate(timeout=SECONDS_MAX)[0])
        return line["units"] / line["seconds"], line["cpu_seconds"] / line["units"]


def on_and_off(block, binary, program):
    """Two gateways with two workers each, measured in turn."""
    cpus = sorted(os.sched_getaffinity(0))
    proxy, others = set(cpus[-2:]), set(cpus[:-2] or cpus)
    block.say()
    block.say("2 workers with a core each, if there are enough; median and mean of balance = true,")
    block.say("of false, and of their ratio by pairs")
    for engine in ENGINES:
        with Ends(program, others) as ends, \
                Gateway(binary, 2, True, ends.address, cpus=proxy, engine=engine) as on, \
                Gateway(binary, 2, False, ends.address, cpus=proxy, engine=engine) as off:
            bulk(block, ends, on, off, engine)
            if engine == ENGINES[-1]:
                upgrades(block, ends, on, off)


def bulk(block, ends, on, off, engine):
    for sessions, seconds, pairs in BULK:
        rates, _ = measured(ends, on, off, "bulk-down", sessions, seconds, pairs)
        show(block, "%d bulk sessions, %s, MB/s" % (sessions, engine), rates, 1e6)
        ratio = sum(rates[on]) / sum(rates[off])
        if (engine, sessions) == ("copy", 2):
            # Half of the deals leave one of the two workers idle.
            block.claim(ratio > 1, "Two sessions that are copied carry %.2f of what they do "
                        "without balance, on average." % ratio)
        else:
            block.claim(ratio > 0.9, "%d sessions, %s, lose nothing by it: %.2f." % (
                sessions, engine, ratio))


def upgrades(block, ends, on, off):
    before = on.counters()
    rates, costs = measured(ends, on, off, "upgrades", *UPGRADES)
    after = on.counters()
    show(block, "upgrades per second, %d at a time" % UPGRADES[0], rates, 1)
    ratio = show(block, "CPU per upgrade, µs", costs, 1e-6)
    handed, accepted = (after[name] - before[name] for name in ("handed_over", "accepted"))
    block.row("of these handed over with balance", "%d of %d, %.1f %%" % (
        handed, accepted, 100 * handed / accepted))
    block.claim(handed < accepted / 20, "Of short connections few change hands, at the beginning "
                "of each measurement.")
    block.claim(ratio < 1.05, "Upgrades cost no more by it: %.2f of the CPU time." % ratio)


def measured(ends, on, off, workload, sessions, seconds, pairs):
    """Rates by gateway, then costs, in turns that begin with the other one each time."""
    found = {on: [], off: []}
    for pair in range(pairs):
        for gateway in ((on, off), (off, on))[pair % 2]:
            found[gateway].append(ends.measure(gateway, workload, sessions, seconds))
            if workload == "upgrades":
                # Ports in TIME_WAIT may be taken again after a second: see scripts/lab.d/rounds.py.
                time.sleep(1.2)
    return [{gateway: [each[at] for each in all_of] for gateway, all_of in found.items()}
            for at in (0, 1)]


def show(block, what, rates, unit):
    on, off = rates.values()
    ratios = [a / b for a, b in zip(on, off)]
    numbers = [number for values, scale in ((on, unit), (off, unit), (ratios, 1))
               for number in (median(values) / scale, sum(values) / len(values) / scale)]
    block.row(what, "true %.0f and %.0f, false %.0f and %.0f, ratio %.2f and %.2f (%.2f to %.2f)"
              % (*numbers, min(ratios), max(ratios)))
    return median(ratios)


def scaling(block, binary):
    """What the lab says with one worker, two and three."""
    block.say()
    block.say("scripts/lab --workers N --rounds 3 --seconds 1 --rows %s: median rates" % LAB_ROWS)
    found = {}
    for workers in LAB_WORKERS:
        if workers > 1 and workers >= len(os.sched_getaffinity(0)):
            block.say("%d workers: not measured, too few cores" % workers)
            continue
        command = [sys.executable, ROOT / "scripts/lab", "--workers", str(workers), "--rounds", "3",
                   "--seconds", "1", "--rows", LAB_ROWS, "--targets", LAB_TARGETS,
                   "--upsplice", binary]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        directory = Path(done.stderr.strip().splitlines()[-1].rsplit(":", 1)[0])
        with open(directory / "raw.csv", newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                key = line["row"], line["target"], workers
                rate = None if line["error"] else float(line["units"]) / float(line["seconds"])
                found.setdefault(key, []).append((rate, line))
    for row, target in dict.fromkeys((row, target) for row, target, _ in found):
        block.row("%s, %s" % (row, target), ", ".join(
            "%d: %s" % (workers, of_lab(found.get((row, target, workers), []), row))
            for workers in LAB_WORKERS))
    limits = {workers for (*_, workers), lines in found.items() for rate, line in lines if rate
              and max(float(line["load_busy"] or 0), float(line["backend_busy"] or 0)) > 0.9}
    block.say("workers with which an end, not the proxy, was at its limit at least once: %s" % (
        ", ".join(map(str, sorted(limits))) or "none"))


def of_lab(lines, row):
    rates = [rate for rate, _ in lines if rate]
    if not rates:
        return lines[0][1]["error"] if lines else "not measured"
    return "%.2f GB/s" % (median(rates) / 1e9) if "bulk" in row else "%.0f/s" % median(rates)


def lab_program():
    """The load generator, built with the release profile before any time counts."""
    command = ["cargo", "bench", "--bench", "lab", "--bench", "messages", "--no-run",
               "--profile", "release", "--message-format", "json-render-diagnostics"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    messages = map(json.loads, done.stdout.splitlines())
    return {m["target"]["name"]: m["executable"] for m in messages if m.get("executable")}["lab"]


def main():
    block = Block("0017", [("--upsplice", os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
                            + "/release/upsplice", "the program, optimised")])
    signal.alarm(0)
    program, binary = lab_program(), block.options.upsplice
    signal.alarm(SECONDS_MAX)
    distribution(block, binary)
    on_and_off(block, binary, program)
    scaling(block, binary)
    block.finish()


main()
