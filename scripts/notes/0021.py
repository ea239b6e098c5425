#!/usr/bin/env python3
"""What does an inflater cost?"""

import os
import subprocess
import sys

sys.dont_write_bytecode = True
from note import ROOT, Block, median  # noqa: E402

ROUNDS = 9
# What src/ws/deflate.rs says of one inflater.
KILOBYTES = 48
TARGET = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))


def newest():
    """The program that `cargo bench --no-run --bench deflate` made last."""
    found = [path for path in os.scandir(TARGET + "/release/deps")
             if path.name.startswith("deflate-") and "." not in path.name]
    if not found:
        raise SystemExit("first: cargo bench --no-run --bench deflate")
    return max(found, key=lambda entry: entry.stat().st_mtime).path


block = Block("0021", [("--bench", None, "the program; default: the newest in the target directory")])
output = subprocess.run([block.options.bench or newest(), str(ROUNDS)], check=True, text=True,
                        stdout=subprocess.PIPE, timeout=50).stdout
resident, times = {}, {}
for line in output.splitlines():
    what, *words = line.split()
    if what == "resident":
        resident[int(words[0])] = int(words[1])
    else:
        size, context, wire, nanoseconds = words
        times.setdefault((int(size), context, int(wire)), []).append(int(nanoseconds))

[(count, each)] = resident.items()
block.row("resident memory of one, over %d" % count, "%d bytes" % each)
block.say()
block.say("one message inflated, median of %d rounds (least to most)" % ROUNDS)
cost = {}
for (size, context, wire), found in sorted(times.items()):
    cost[size, context] = median(found)
    block.row("%6d bytes, %d on the wire, context %s" % (size, wire, context),
              "%7.2f µs (%.2f to %.2f), %.2f GB/s out"
              % (median(found) / 1000, min(found) / 1000, max(found) / 1000,
                 size / median(found)))
block.say()
block.claim(0.8 * KILOBYTES < each / 1000 < 1.2 * KILOBYTES,
            "an inflater takes about %d KB" % KILOBYTES)
small, large = (cost[size, "kept"] / size for size in (256, 65536))
block.claim(small > 2 * large, "a byte of a small message costs more than twice that of a large one")
block.finish()
