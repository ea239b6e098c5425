#!/usr/bin/env python3
"""What does the sandbox cost?"""

import json
import os
import subprocess
import sys

sys.dont_write_bytecode = True
from note import ROOT, median  # noqa: E402
from variants import Comparison, Variant, build, long_block, winners  # noqa: E402

ROWS = "echo64,echo64x100,bulk1-up,upgrades"
ROUNDS, COUNT = 60, 20000
# What an echo may cost more.
PART_MAX = 0.02


def program(name):
    """The path of a program of benches/."""
    argv = ["cargo", "bench", "--quiet", "--bench", name, "--no-run", "--profile", "release",
            "--message-format", "json-render-diagnostics"]
    done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
                          env=dict(os.environ, CARGO_PROFILE_RELEASE_LTO="off"))
    messages = map(json.loads, done.stdout.splitlines())
    return [message["executable"] for message in messages
            if message.get("executable") and message["target"]["name"] == name][-1]


def calls_per_round_trip(row):
    """What an echo by copy makes, as 0014 has counted it for a message."""
    [note] = (ROOT / "kernel-notes").glob("0014-*.md")
    table = note.read_text(encoding="utf-8").split("    %s, per message " % row)[1].splitlines()
    column = table[0].split().index("copy")
    return 2 * float(table[1].split()[1 + column])


def calls(block):
    """How many nanoseconds more a call takes inside."""
    argv = [program("sandbox"), str(ROUNDS), str(COUNT)]
    said = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout
    block.say("%-30s %-18s %9s %9s %9s" % ("to the filter", "call", "outside", "inside", "more"))
    more = {}
    for line in said.splitlines():
        what, call, outside, inside = line.split("\t")
        more[call] = float(inside) - float(outside)
        block.say("%-30s %-18s %6.0f ns %6.0f ns %6.0f ns" % (
            what, call, float(outside), float(inside), more[call]))
    return more


block = long_block("0025")
block.say("the least of %d rounds of %d calls each, in turn" % (ROUNDS, COUNT))
more = calls(block)
data_path = more["recvfrom, EAGAIN"]
block.claim(data_path < more["ioctl FIONBIO"],
            "A call of the data path costs less than one for which the filter has to run.")
binary = build()
found = Comparison(block.options, [
    Variant("no sandbox", binary, "auto", UPSPLICE_NO_SANDBOX="true"),
    Variant("the same once more", binary, "auto", UPSPLICE_NO_SANDBOX="true"),
    Variant("sandbox", binary, "auto"),
], ROWS).run()
block.say()
block.say("%d rounds of %.1f s; above 1 is better than without" % (found.rounds, found.seconds))
found.print(block)
block.say()
winners(block, found)
parts = {}
for row in found.rows:
    if row.workload != "echo":
        continue
    items = [item["cost"] for item in found.found[row.name]["no sandbox"] if "error" not in item]
    calls_made, cost = calls_per_round_trip(row.name), 1e9 * median(items)
    parts[row.name] = calls_made * data_path / cost
    block.say("%s: %.1f calls per round trip (0014) × %.0f ns of %.1f µs: %.1f %%" % (
        row.name, calls_made, data_path, cost / 1e3, 100 * parts[row.name]))
block.claim(max(parts.values()) < PART_MAX,
            "The calls of an echo cost it less than %d %% more CPU." % (100 * PART_MAX))
block.finish()
