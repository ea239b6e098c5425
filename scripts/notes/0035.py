#!/usr/bin/env python3
"""How fast can a relay be at all, row by row?"""

import argparse
import collections
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True
from note import ROOT, Block, median  # noqa: E402

sys.path.insert(0, str(ROOT / "scripts/lab.d"))
from peers import Haproxy, Nginx  # noqa: E402
from processes import Failure  # noqa: E402
from rounds import Cores, Lab, Site  # noqa: E402
from rows import parse_rows  # noqa: E402
from shapes import all_shapes  # noqa: E402
from targets import Direct, Proxy, Upsplice  # noqa: E402

ROUNDS, SECONDS = 5, 0.5
SECONDS_MAX = 480
ROWS = "bulk1,bulk16,echo64,echo16k,echo128k,echo16kx100"
FLOORS = ("floor-copy", "floor-splice")
PEERS = ("haproxy", "haproxy-splice", "nginx")
OURS = "upsplice-auto"
# Goals of rate by row, as a multiple of the best peer's; of CPU there is one for bulk.
RATE = {"bulk1-up": 1.2, "bulk1-down": 1.2, "bulk16-up": 2, "bulk16-down": 2, "echo64": 1,
        "echo16k": 1.3, "echo128k": 1.3, "echo16kx100": 1.3}
CPU = 1 / 0.6


class Floor(Proxy):
    """scripts/notes/relay_floor.c in one of its forms."""

    def __init__(self, name, program):
        super().__init__(name)
        self.program = program

    def command(self, backend):
        form = self.name.removeprefix("floor-")
        return [self.program, form, self.address.split(":")[1], backend.split(":")[1]]


def built(directory, upsplice):
    """The floor, the lab's program and upsplice."""
    floor = str(directory / "floor")
    source = str(ROOT / "scripts/notes/relay_floor.c")
    subprocess.run(["cc", "-O2", "-o", floor, source], check=True)
    found = {"upsplice": upsplice}
    for argv in (["bench", "--bench", "lab", "--no-run", "--profile", "release"],
                 ["build", "--bin", "upsplice", "--release"]):
        if argv[0] == "build" and upsplice:
            continue
        argv = ["cargo", *argv, "--message-format", "json-render-diagnostics"]
        done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        for line in map(json.loads, done.stdout.splitlines()):
            if line.get("executable"):
                found[line["target"]["name"]] = line["executable"]
    return floor, found["lab"], found["upsplice"]


def work(line):
    """What was carried: bytes in bulk, round trips of an echo."""
    return line["payload_bytes"] if line["row"].startswith("bulk") else line["units"]


def measured(lab, rows):
    """Rate, and work per second of CPU, by row, target and round."""
    rates = collections.defaultdict(lambda: collections.defaultdict(dict))
    frugal = collections.defaultdict(lambda: collections.defaultdict(dict))
    failed = []
    for line in lab.run(rows):
        if line["error"]:
            failed.append("%s, %s: %s" % (line["row"], line["target"], line["error"]))
            continue
        place = line["row"], line["target"], line["round"]
        rates[place[0]][place[1]][place[2]] = work(line) / line["seconds"]
        if line["cpu_seconds"]:
            frugal[place[0]][place[1]][place[2]] = work(line) / line["cpu_seconds"]
    return rates, frugal, failed


def paired(above, below):
    """The median ratio over the rounds that both have."""
    ratios = [above[turn] / below[turn] for turn in above if turn in below]
    return median(ratios) if ratios else float("nan")


def best(by_target, names):
    return max((name for name in names if name in by_target),
               key=lambda name: median(by_target[name].values()), default=None)


def report(block, lab, rows):
    rates, frugal, failed = measured(lab, rows)
    for what, found in (("rate", rates), ("work per second of CPU", frugal)):
        block.say("%s, as a multiple of the best peer's; medians of %d interleaved rounds" % (
            what, ROUNDS))
        block.say("%-12s %8s %8s %8s %8s   %s" % ("", "goal", "direct", "floor", "upsplice",
                                                  "best peer, best floor"))
        for row in (row.name for row in rows):
            by_target = found[row]
            peer, floor = best(by_target, PEERS), best(by_target, FLOORS)
            if not peer or not floor or OURS not in by_target:
                continue
            bulk = CPU if row.startswith("bulk") else None
            goal = RATE.get(row) if what == "rate" else bulk
            ratio = {name: paired(by_target[name], by_target[peer])
                     for name in ("direct", floor, OURS) if name in by_target}
            block.say("%-12s %8s %8s %8.2f %8.2f   %s, %s" % (
                row, "%.2f" % goal if goal else "", "%.2f" % ratio["direct"]
                if "direct" in ratio else "", ratio[floor], ratio[OURS], peer, floor))
            block.figures[what, row] = goal, ratio[floor], ratio[OURS]
        block.say()
    for line in failed:
        block.say("failed: " + line)
    claims(block)


def claims(block):
    for (what, row), (goal, floor, ours) in sorted(block.figures.items()):
        if goal and ours < goal:
            block.claim(floor < goal or ours > 0.9 * floor,
                        "%s, %s: %.2f of the goal of %.2f; the floor has %.2f." % (
                            row, what, ours, goal, floor))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upsplice", help="measure this binary instead of building one")
    options, rest = parser.parse_known_args()
    sys.argv[1:] = rest
    os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin"
    block = Block("0035")
    block.figures = {}
    # The building may take minutes, and has its own end.
    signal.alarm(0)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        floor, program, binary = built(directory, options.upsplice)
        signal.alarm(SECONDS_MAX)
        targets = [Direct("direct"), *(Floor(name, floor) for name in FLOORS),
                   Upsplice(OURS, binary, "auto"), Haproxy("haproxy"),
                   Haproxy("haproxy-splice", splice=("request", "response")), Nginx("nginx")]
        cores = Cores(1)
        site = Site(all_shapes()["loopback"], targets, program, directory, cores, 1)
        run = argparse.Namespace(rounds=ROUNDS, seconds=SECONDS, settle=1, again=0, thin=False,
                                 workers=1)
        try:
            with Lab(run, [site], cores) as lab:
                report(block, lab, parse_rows(ROWS, 1))
        except Failure as failure:
            raise SystemExit("0035: %s" % failure) from None
    block.finish()


main()
