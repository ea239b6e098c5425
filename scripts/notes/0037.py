#!/usr/bin/env python3
"""How much may a session move that has its turn among others?"""

import sys

sys.dont_write_bytecode = True
from note import median  # noqa: E402
from variants import Comparison, Variant, Waits, build, long_block  # noqa: E402

ADVANCE, REGISTRY = "src/relay/advance.rs", "src/session/registry.rs"
SHARE = "Share::AmongOthers => 256 << 10,"
HEAVY = "const HEAVY_BYTES: u64 = Share::AmongOthers.bytes() as u64;"
ROWS = "bulk16,echo128kx100,mixed"


def share(kib, heavy=None):
    changes = [(ADVANCE, SHARE, SHARE.replace("256", str(kib)))]
    return changes + ([(REGISTRY, HEAVY, "const HEAVY_BYTES: u64 = %d << 10;" % heavy)]
                      if heavy else [])


block = long_block("0037")
variants = [Variant(name, build(changes), "auto") for name, changes in (
    ("256 KiB, as it is", ()),
    ("64 KiB", share(64)),
    ("128 KiB", share(128)),
    ("512 KiB", share(512)),
    # Whose turn was beyond 512 KiB had its next ones alone then, too.
    ("4 MiB, as it was", share(4096, heavy=512)))]
found = Comparison(block.options, variants, ROWS).run()
block.say("%d rounds of %.1f s; above 1 is better than the first; engine auto" % (
    found.rounds, found.seconds))
found.print(block)
waits = Waits(block.options, variants, "mixed", found.program)
waits.found = found.found
waits.print(block)
block.say()
waited = median(found.ratios("mixed", "4 MiB, as it was", "p99"))
block.claim(waited < 1, "First turns of 4 MiB have a p99 of mixed traffic %.2f times as good." % waited)
worst = max(median(found.ratios(row.name, "4 MiB, as it was", "cost")) for row in found.rows)
block.claim(worst < 1.1, "In CPU they are %.2f times as good in the best of all rows." % worst)
block.finish()
