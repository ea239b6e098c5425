#!/usr/bin/env python3
"""What is a lost row made of: more work, dearer work, or neither?"""

import shutil
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
from note import median  # noqa: E402
from variants import Comparison, Failure, Haproxy, Nginx, Variant, build, long_block  # noqa: E402

ROWS = "bulk1-up,bulk1-down,echo64,echo64x100,echo16kx100,mixed,upgrades"
# As perf(1) names them, and as the table does.
EVENTS = {"raw_syscalls:sys_enter": "calls", "instructions:u": "instr, user",
          "instructions:k": "instr, kernel", "cycles:u": "cycles, user",
          "cycles:k": "cycles, kernel", "cache-misses": "cache misses"}
MIB = 1 << 20
BOTH_WAYS = "request", "response"


class Counting(Comparison):
    """Counts what the processor does for a proxy, beside the load."""

    def load(self, variant, row):
        pids = ",".join(map(str, variant.pids))
        argv = ["perf", "stat", "-x;", "-e", ",".join(EVENTS), "-p", pids]
        perf = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
        try:
            # It says nothing when it has attached; what it misses are parts of the handshakes.
            time.sleep(0.2)
            item = super().load(variant, row)
        finally:
            perf.send_signal(signal.SIGINT)
            _, said = perf.communicate(timeout=20)
        counts = {}
        for line in said.splitlines():
            value, _, name, *_ = [*line.split(";"), "", "", ""]
            if name in EVENTS and value.isdigit():
                counts[name] = int(value) / item["units"]
        if len(counts) != len(EVENTS):
            raise Failure("perf said: " + said.strip()[:200])
        return dict(item, **counts)

    def least(self, row, names, of):
        """The best of `names`, and what it needs."""
        found = {name: median([item[of] for item in self.items(row, name)])
                 for name in names if self.items(row, name)}
        name = min(found, key=found.get)
        return name, found[name]

    def items(self, row, name):
        return [item for item in self.found[row.name].get(name, ()) if "error" not in item]


def table(block, found, row):
    bulk = row.workload.startswith("bulk")
    unit, scale = ("MiB", MIB) if bulk else (
        "upgrade" if row.workload == "upgrades" else "unit", 1)
    block.say()
    block.say("%-20s %8s %8s %s" % ("%s, per %s" % (row.name, unit), "CPU µs", "calls", " ".join(
        "%14s" % EVENTS[event] for event in list(EVENTS)[1:])))
    for variant in found.variants:
        items = found.items(row, variant.name)
        if not items:
            block.say("  %-18s not measured" % variant.name)
            continue
        middle = {of: median([item[of] for item in items]) * scale for of in ("cost", *EVENTS)}
        calls, *rest = [middle[event] for event in EVENTS]
        block.say("  %-18s %8.1f %8.1f %s" % (
            variant.name, middle["cost"] * 1e6, calls, " ".join("%14.0f" % n for n in rest)))


def compared(block, found):
    """Ours beside the least of the peers, count by count: above 1 the peer needs more."""
    names = [variant.name for variant in found.variants[1:]]
    ours = found.variants[0].name
    block.say()
    block.say("the least of the peers / upsplice: below 1 upsplice needs more")
    block.say("%-14s %8s %8s %s" % ("", "CPU", "calls", " ".join(
        "%14s" % EVENTS[event] for event in list(EVENTS)[1:])))
    kernel = {}
    for row in found.rows:
        if not found.items(row, ours) or not any(found.items(row, name) for name in names):
            continue
        best, _ = found.least(row, names, "cost")
        ratios = {of: found.least(row, [best], of)[1] / found.least(row, [ours], of)[1]
                  for of in ("cost", *EVENTS)}
        kernel[row.name] = ratios
        block.say("%-14s %8.2f %8.2f %s   %s" % (
            row.name, ratios["cost"], ratios["raw_syscalls:sys_enter"],
            " ".join("%14.2f" % ratios[event] for event in list(EVENTS)[1:]), best))
    return kernel


def claims(block, found, ratios):
    more = {name: 1 / row["instructions:k"] for name, row in ratios.items()}
    worst = max(more, key=more.get)
    block.say()
    block.claim(more[worst] < 1.1,
                "The kernel does at most %.2f times the work for upsplice that it does for the best "
                "peer of a row (%s)." % (more[worst], worst))
    for row in found.rows:
        own = {name: found.least(row, [name], "instructions:u")[1]
               for name in ("upsplice", "haproxy", "nginx") if found.items(row, name)}
        if row.workload == "upgrades" and len(own) == 3:
            block.claim(own["upsplice"] < 1.25 * own["haproxy"],
                        "For an upgrade it computes %.2f times what HAProxy does, and %.2f times "
                        "what nginx does." % (own["upsplice"] / own["haproxy"],
                                              own["upsplice"] / own["nginx"]))


block = long_block("0036")
block.options.rounds = block.options.rounds or 5
if not shutil.which("perf"):
    block.say("SKIPPED: perf(1) is not here")
    sys.exit(0)
found = Counting(block.options, [
    Variant("upsplice", build(), "auto"), Haproxy("haproxy"),
    Haproxy("haproxy-splice", splice=BOTH_WAYS),
    Haproxy("haproxy-splice-1m", splice=BOTH_WAYS, tune="tune.pipesize 1048576"),
    Nginx("nginx")], ROWS).run()
block.say("%d rounds of %.1f s, medians; upsplice with engine auto" % (found.rounds, found.seconds))
for line in found.rows:
    table(block, found, line)
claims(block, found, compared(block, found))
block.finish()
