#!/usr/bin/env python3
"""Which settings of the runtime, and which allocator, does a worker want?"""

import glob
import sys
from pathlib import Path

sys.dont_write_bytecode = True
from note import ROOT  # noqa: E402
from variants import (BesideBulk, Comparison, NotApplicable, Variant, build,  # noqa: E402
                      long_block, winners)

ROWS = "bulk16-up,echo64,echo64x100,echo16kx100,upgrades"
WORKER, MAIN, REACTOR = "src/server/worker.rs", "src/main.rs", "src/sys/reactor/mod.rs"
BUILDER = "        .on_thread_park(park_current)\n"


def setting(text):
    return WORKER, BUILDER, BUILDER + "        .%s\n" % text


def events(count):
    """How many events a wait may bring: a constant of ours, or else a setting of tokio's."""
    line = "const EVENTS_MAX: usize = 256;"
    path = ROOT / REACTOR
    if path.exists() and line in path.read_text(encoding="utf-8"):
        return REACTOR, line, line.replace("256", str(count))
    return setting("max_io_events_per_tick(%d)" % count)


ALLOCATOR = "#[global_allocator]\n"
CHANGES = {
    "as it is": (),
    "the same once more": (),
    "event_interval 1": (setting("event_interval(1)"),),
    "event_interval 255": (setting("event_interval(255)"),),
    "global_queue_interval 1": (setting("global_queue_interval(1)"),),
    "global_queue_interval 255": (setting("global_queue_interval(255)"),),
    "16 events a wait": (events(16),),
    "64 events a wait": (events(64),),
    "4096 events a wait": (events(4096),),
    # The static stays: without its attribute the program's blocks come from glibc.
    "glibc alone": ((MAIN, ALLOCATOR, ""),),
}
# Preloaded, in place of glibc's; our own blocks of 128 bytes stay.
ALLOCATORS = {"jemalloc": "libjemalloc.so.2", "mimalloc": "libmimalloc.so.2*"}


def library(pattern):
    """The first library of that name where distributions put them."""
    found = [path for place in ("/usr/lib", "/usr/lib/*-linux-gnu", "/usr/lib64")
             for path in sorted(glob.glob(str(Path(place) / pattern)))]
    return found[0] if found else None


def variants(block):
    only = block.options.only and block.options.only.split(",")
    for name, changes in CHANGES.items():
        if only and name not in ("as it is", *only):
            continue
        try:
            yield Variant(name, build(changes))
        except NotApplicable as reason:
            block.row(name, "not built: %s" % reason)
    for name, pattern in ALLOCATORS.items():
        if path := library(pattern):
            yield Variant(name, build(), LD_PRELOAD=path)
        else:
            block.row(name, "not installed (lib%s)" % name)


block = long_block("0016")
found = Comparison(block.options, list(variants(block)), ROWS).run()
block.say("%d rounds of %.1f s; the first is what the program does" % (found.rounds, found.seconds))
found.print(block)
block.say()
winners(block, found)
turns = [variant for variant in found.variants if variant.name.startswith(("as it", "event_"))]
block.options.rows = None
BesideBulk(block.options, turns, "echo64").run().print(block)
block.finish()
