#!/usr/bin/env python3
"""How many upgrades per second can a proxy do at all?"""

import argparse
import collections
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True
from note import ROOT, Block, median  # noqa: E402

sys.path.insert(0, str(ROOT / "scripts/lab.d"))
from peers import Haproxy, Nginx  # noqa: E402
from processes import Failure  # noqa: E402
from rounds import Cores, Lab, Site  # noqa: E402
from rows import parse_rows  # noqa: E402
from shapes import all_shapes  # noqa: E402
from targets import Proxy, Upsplice  # noqa: E402

ROUNDS, SECONDS = 7, 0.8
# Building is not part of it; the whole run ends before this.
SECONDS_MAX = 340
FLOORS = {"floor-epoll": "epoll", "floor-watching": "epoll-all", "floor-ring": "ring"}
COUNTED = "instructions:u,instructions:k,cycles:u,cycles:k"
GOAL = 1.5


class Floor(Proxy):
    """scripts/notes/floor.c in one of its forms."""

    def __init__(self, name, program):
        super().__init__(name)
        self.program, self.form = program, FLOORS[name]

    def command(self, backend):
        return [self.program, self.form, self.address.split(":")[1], backend.split(":")[1]]


def built(directory):
    """The floor, the lab's program and upsplice."""
    floor = str(directory / "floor")
    subprocess.run(["cc", "-O2", "-o", floor, str(ROOT / "scripts/notes/floor.c")], check=True)
    found = {}
    for argv in (["bench", "--bench", "lab", "--no-run", "--profile", "release"],
                 ["build", "--bin", "upsplice", "--release"]):
        argv = ["cargo", *argv, "--message-format", "json-render-diagnostics"]
        done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        for line in map(json.loads, done.stdout.splitlines()):
            if line.get("executable"):
                found[line["target"]["name"]] = line["executable"]
    return floor, found["lab"], found["upsplice"]


def counted(lab, site, row, target, argv):
    """One more run under a counting program: what it wrote, and the upgrades meanwhile."""
    output = site.directory / "counted"
    output.parent.mkdir(parents=True, exist_ok=True)
    if not target.running():
        target.start(site.place)
    pid = str(target.pids[-1])
    watching = subprocess.Popen([*argv, "-o", str(output), "-p", pid], stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.3)
        units = lab.load(row, target, site)["units"]
    finally:
        watching.send_signal(signal.SIGINT)
        watching.wait(10)
    return output.read_text(), units


def costs(lab, site, row, target):
    """Counts of the processor per upgrade; nothing where perf(1) or the counters are missing."""
    text, units = counted(lab, site, row, target, ["perf", "stat", "-x,", "-e", COUNTED])
    fields = (line.split(",") for line in text.splitlines() if line[:1].isdigit())
    return {field[2]: int(field[0]) / units for field in fields}


def calls(lab, site, row, target):
    """System calls per upgrade by name; of several processes the last, which is nginx's worker."""
    text, units = counted(lab, site, row, target, ["strace", "-f", "-c"])
    found = collections.Counter()
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
            found[fields[-1]] = int(fields[3]) / units
    return found


def timed(lab, rows):
    """Microseconds of CPU per upgrade and upgrades per second, by target and round."""
    micros, rates = collections.defaultdict(dict), collections.defaultdict(dict)
    failed = []
    for line in lab.run(rows):
        if line["error"]:
            failed.append("%s, round %d: %s" % (line["target"], line["round"], line["error"]))
            continue
        micros[line["target"]][line["round"]] = line["cpu_seconds"] / line["units"] * 1e6
        rates[line["target"]][line["round"]] = line["units"] / line["seconds"]
    return micros, rates, failed


def paired(above, below):
    """The median ratio over the rounds that both have."""
    ratios = [above[turn] / below[turn] for turn in above if turn in below]
    return median(ratios) if ratios else float("nan")


def report(block, lab, site, row):
    micros, rates, failed = timed(lab, [row])
    names = [target.name for target in site.targets if target.name in micros]
    peers = [name for name in names if name in ("haproxy", "nginx")]
    best = min(peers, key=lambda name: median(micros[name].values()), default=None)
    block.say("accept, 101, one echo, close; %d in parallel; medians of %d interleaved rounds" % (
        row.sessions, ROUNDS))
    ratio = {name: paired(micros[best], micros[name]) for name in names} if best else {}
    block.say("%-18s %6s %9s %9s   %s" % ("", "rounds", "per s", "CPU, µs", "CPU of best peer / its"))
    for name in names:
        block.say("%-18s %6d %9.0f %9.1f   %.2f" % (
            name, len(micros[name]), median(rates[name].values()), median(micros[name].values()),
            ratio.get(name, float("nan"))))
    for line in failed:
        block.say("failed: " + line)
    if "floor-ring" in names and "floor-epoll" in names:
        block.say("CPU of floor-ring / floor-epoll: %.2f" % paired(
            micros["floor-ring"], micros["floor-epoll"]))
    block.say()

    kernel = {}
    if shutil.which("perf"):
        block.say("per upgrade, thousands (perf stat)")
        block.say("%-18s %s" % ("", "  ".join("%15s" % name for name in COUNTED.split(","))))
        for target in site.targets:
            if target.name in names:
                found = costs(lab, site, row, target)
                kernel[target.name] = found.get("instructions:k", 0)
                block.say("%-18s %s" % (target.name, "  ".join(
                    "%15.1f" % (found[name] / 1e3) if name in found else " " * 15
                    for name in COUNTED.split(","))))
        block.say()
    total = {}
    if shutil.which("strace"):
        block.say("system calls per upgrade (strace -c, which slows everybody down)")
        for target in site.targets:
            if target.name in names:
                found = calls(lab, site, row, target)
                total[target.name] = sum(found.values())
                often = ", ".join("%s %.1f" % pair for pair in found.most_common() if
                                  pair[1] >= 0.05)
                block.say("%-16s %5.1f: %s" % (target.name, total[target.name], often))
        block.say()
    claims(block, ratio, kernel, total)


def claims(block, ratio, kernel, total):
    floors = [ratio[name] for name in FLOORS if name in ratio]
    if floors:
        block.claim(max(floors) < GOAL,
                    "No floor reaches %.1f times the best peer; the best one has %.2f." % (
                        GOAL, max(floors)))
    if kernel.get("floor-epoll") and kernel.get("upsplice-copy"):
        more = kernel["upsplice-copy"] / kernel["floor-epoll"]
        block.claim(more < 1.1, "The kernel does %.2f times the floor's work for upsplice." % more)
    if "floor-epoll" in total and "upsplice-copy" in total:
        more = total["upsplice-copy"] - total["floor-epoll"]
        block.claim(more < 3.5, "upsplice makes %.1f calls more than the floor." % more)


def main():
    os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin"
    block = Block("0019")
    # The building may take minutes, and has its own end.
    signal.alarm(0)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        floor, program, binary = built(directory)
        signal.alarm(SECONDS_MAX)
        targets = [*(Floor(name, floor) for name in FLOORS),
                   Upsplice("upsplice-copy", binary, "copy"),
                   Upsplice("upsplice-splice", binary, "splice"),
                   Haproxy("haproxy"), Nginx("nginx")]
        cores = Cores(1)
        site = Site(all_shapes()["loopback"], targets, program, directory, cores, 1)
        options = argparse.Namespace(rounds=ROUNDS, seconds=SECONDS, settle=1, again=0,
                                     thin=False, workers=1)
        try:
            with Lab(options, [site], cores) as lab:
                report(block, lab, site, parse_rows("upgrades", 1)[0])
        except Failure as failure:
            raise SystemExit("0019: %s" % failure) from None
    block.finish()


main()
