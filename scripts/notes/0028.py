#!/usr/bin/env python3
"""What does it cost to look at the frames of a session?"""

import json
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True
from note import ROOT, median  # noqa: E402
from variants import Comparison, Upsplice, long_block, parse_rows, spread  # noqa: E402
from peers import Messages  # noqa: E402

SIZES = "64 1k 4k 16k 64k 256k 1024k".split()
LOADS = {
    "bulk1-up-%s": SIZES, "bulk16-up-%s": SIZES, "bulk1-down-%s": ["16k", "64k"],
    "bulk1-up-%s-text": ["64", "1k", "16k", "64k", "1024k"],
    "echo%s": ["64", "1k", "16k", "128k", "1024k"], "echo%sx16": ["64", "1k", "16k", "128k"],
    "echo%s-text": ["64", "16k", "128k"],
}
ROWS = ",".join(load % size for load, sizes in LOADS.items() for size in sizes)
# From this frame size on the goal of DESIGN §7 holds, and there is no more to pay than this.
LARGE, GOAL = 16 << 10, 1.3
# What the looks amount to where a call of zero-copy brings the most.
CROWDED = 1.6
FLAGS = [("--found", None, "a file that keeps the measurements; later runs add theirs"),
         ("--programs", None, "paths of upsplice, lab and messages, instead of building them")]


def programs():
    """Paths of upsplice and of the lab's programs, with the profile's own LTO."""
    if block.options.programs:
        return dict(zip(("upsplice", "lab", "messages"), block.options.programs.split(",")))
    found = {}
    for argv in (["build", "--bin", "upsplice", "--release"],
                 ["bench", "--bench", "lab", "--bench", "messages", "--no-run", "--profile",
                  "release"]):
        done = subprocess.run(
            ["cargo", *argv, "--quiet", "--message-format", "json-render-diagnostics"], cwd=ROOT,
            stdout=subprocess.PIPE, text=True, check=True)
        found |= {message["target"]["name"]: message["executable"]
                  for message in map(json.loads, done.stdout.splitlines())
                  if message.get("executable")}
    return found


class Measured:
    """What runs have found: row → variant → one measurement per round, failures left out."""

    def __init__(self, path):
        self.path, self.found = path and Path(path), {}
        if self.path and self.path.exists():
            self.found = json.loads(self.path.read_text())

    def add(self, found, names):
        """Rounds in which all of `names` were measured: a run may have ended early."""
        for row, variants in found.items():
            for items in zip(*(variants.get(name, []) for name in names)):
                if all("error" not in item for item in items):
                    for name, item in zip(names, items):
                        self.found.setdefault(row, {}).setdefault(name, []).append(item)
        if self.path:
            self.path.write_text(json.dumps(self.found))

    def cost(self, row, name):
        return median([item["cost"] for item in self.found[row][name]])

    def ratios(self, row, name, base):
        """How much dearer than the base, round by round."""
        return [item["cost"] / first["cost"]
                for first, item in zip(self.found[row][base], self.found[row][name])]


def table(block, measured, rows, names):
    base, others = names[0], names[1:]
    block.say()
    block.say("%-22s %9s %7s  %s" % (rows[0].title.split(",")[0] + (
        ", %d sessions" % rows[0].sessions if rows[0].sessions > 1 else ""), "µs/frame", "s/GB",
        "  ".join("%-18s" % ("× " + name) for name in others)))
    for row in rows:
        cost = measured.cost(row.name, base)
        # Seconds of a byte, or of a round trip of two frames.
        frame = cost * row.size if row.workload.startswith("bulk") else cost / 2
        block.say("  %-20s %9.2f %7.3f  %s" % (
            row.name, 1e6 * frame, 1e9 * frame / row.size,
            "  ".join("%-18s" % spread(measured.ratios(row.name, name, base))
                      for name in others)))


def claims(block, measured, rows):
    """What the numbers have to say for the note's answer to hold."""
    def middles(name, wanted):
        return [median(measured.ratios(row.name, name, "zero-copy"))
                for row in rows if wanted(row)]

    large = middles("frames", lambda row: row.size >= LARGE)
    crowded = middles("frames", lambda row: row.size >= LARGE and row.name.startswith("bulk16"))
    others = middles("frames", lambda row: row.size >= LARGE and not row.name.startswith("bulk16"))
    small = middles("frames", lambda row: row.size < LARGE)
    read = middles("payload", lambda row: row.size >= LARGE and row.name.endswith("-text"))
    opaque = [median(measured.ratios(row.name, "payload", "frames")) for row in rows
              if not row.name.endswith("-text")]
    parsed = [median(measured.ratios(row.name, "messages", "frames")) for row in rows
              if row.size >= LARGE]
    block.say()
    block.say("frames of 16 KiB and more: %.2f of zero-copy (%.2f to %.2f over the rows); smaller: "
              "%.2f (%.2f to %.2f)" % (median(large), min(large), max(large), median(small),
                                       min(small), max(small)))
    block.say("text of 16 KiB and more at the depth payload: %.2f (%.2f to %.2f)" % (
        median(read), min(read), max(read)))
    block.say("messages relay against frames, from 16 KiB on: %.2f (%.2f to %.2f)" % (
        median(parsed), min(parsed), max(parsed)))
    block.claim(median(large) <= GOAL and max(others) <= GOAL,
                "Frames of 16 KiB and more cost at most %.1f times what zero-copy does, in every row "
                "but bulk of sixteen sessions at once." % GOAL)
    block.claim(GOAL < max(crowded) <= CROWDED,
                "There it is more, up to %.1f times: zero-copy takes a mebibyte with one call, and "
                "two more per header are all that is left." % CROWDED)
    block.claim(median(opaque) < 1.1, "Binary messages cost the depth payload no more than frames: "
                "nobody has to read them.")
    block.claim(min(parsed) > 1, "From there on the relay that parses every message is dearer in every row.")


block = long_block("0028", FLAGS)
binaries = programs()
binary = binaries["upsplice"]
variants = [Upsplice("zero-copy", binary, "auto"),
            Upsplice("frames", binary, "auto", depth="frames"),
            Upsplice("payload", binary, "auto", depth="payload"),
            Messages("messages", binaries["messages"])]
names = [variant.name for variant in variants]
measured = Measured(block.options.found)
if block.options.rounds != "0":
    comparison = Comparison(block.options, variants, ROWS, binaries["lab"])
    measured.add(comparison.run().found, names)
rows = [row for row in parse_rows(ROWS, 0) if row.name in measured.found]
counts = [len(measured.found[row.name]["zero-copy"]) for row in rows]
block.say("CPU of the proxy's only worker; %d to %d rounds of %s s; medians, and p10–p90 "
          "of the ratios" % (min(counts), max(counts), block.options.seconds))
block.say("frames, payload: mode inspect at that depth, engine auto; messages: benches/messages")
for load, sizes in LOADS.items():
    if of_load := [row for row in rows if row.name in {load % size for size in sizes}]:
        table(block, measured, of_load, names)
claims(block, measured, rows)
block.finish()
