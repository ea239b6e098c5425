#!/usr/bin/env python3
"""How large should a pipe be, when should it grow, and how many should be kept?"""

import sys

sys.dont_write_bytecode = True
from variants import (BesideBulk, Comparison, Haproxy, NotApplicable, Variant,  # noqa: E402
                      build, long_block, winners)

ROWS = "bulk1,bulk16"
POOL, SPLICE, ADVANCE = "src/relay/pool.rs", "src/relay/splice.rs", "src/relay/advance.rs"
WIDE = "pub const WIDE_PIPE_BYTES: u32 = 1024 * 1024;"
WISH = "let wide = way.full_fills >= FULL_FILLS_FOR_WIDE;"
FILL = "let answer = splice(source.as_fd(), pipe.pipe.write_end(), FILL_BYTES_MAX);"
BUDGET = "const BYTES_PER_POLL: usize = 1 << 20;"
KEPT = "const FREE_WIDE_MAX: usize = 4;"
KEPT_NARROW = "const FREE_MAX: usize = 64;"
PAUSED = "            way.full_fills = 0;\n            self.kit"
DRAIN = "len.min(FILL_BYTES_MAX)"
# A reset that the second fill meets is lost here, which is no matter for a measurement.
AGAIN = """let mut answer = splice(source.as_fd(), pipe.pipe.write_end(), FILL_BYTES_MAX);
    for _ in 1..%d {
        let Ok(held) = answer else { break };
        if held < 1 << 15 {
            break;
        }
        match splice(source.as_fd(), pipe.pipe.write_end(), FILL_BYTES_MAX) {
            Ok(more) if more > 0 => answer = Ok(held + more),
            _ => break,
        }
    }"""


def wide(kib):
    return POOL, WIDE, WIDE.replace("1024 * 1024", "%d * 1024" % kib)


def fill_at_most(kib):
    return SPLICE, FILL, FILL.replace("FILL_BYTES_MAX", "%d << 10" % kib)


def keep(count):
    return POOL, KEPT, KEPT.replace("4", str(count))


def budget(kib):
    return ADVANCE, BUDGET, BUDGET.replace("1 << 20", "%d << 10" % kib)


NARROW = SPLICE, WISH, "let wide = false;\n    let _ = (way.full_fills, FULL_FILLS_FOR_WIDE);"
AT_ONCE = SPLICE, WISH, "let wide = true;\n    let _ = FULL_FILLS_FOR_WIDE;"
# A short fill takes one from what full fills have earned, instead of all.
EARNED = """way.full_fills.saturating_add(1)
        } else {
            0
        };"""
STICKY = SPLICE, EARNED, """way.full_fills.saturating_add(1).min(16)
        } else {
            way.full_fills.saturating_sub(1)
        };"""
WORKER, INTERVAL = "src/server/worker.rs", "const EVENT_INTERVAL: u32 = 31;"
LOOK = WORKER, INTERVAL, INTERVAL.replace("31", "4")
STAYS = ADVANCE, PAUSED, "            self.kit"
CHANGES = {
    "as it is": (),
    "the same once more": (),
    "pipes of 64 KiB only": (NARROW,),
    "wide 128 KiB": (wide(128),),
    "wide 256 KiB": (wide(256),),
    "wide 512 KiB": (wide(512),),
    "1 MiB by fills of 256 KiB": (fill_at_most(256),),
    "1 MiB by fills of 512 KiB": (fill_at_most(512),),
    "wide from the first fill": (AT_ONCE,),
    "wide though the sink pauses": (STAYS,),
    "wide though fills are short": (STICKY,),
    "64 KiB filled 2 times": (NARROW, (SPLICE, FILL, AGAIN % 2)),
    "64 KiB filled 4 times": (NARROW, (SPLICE, FILL, AGAIN % 4)),
    "keep 16 wide pipes": (keep(16),),
    "keep no wide pipe": (keep(0),),
    "keep no pipe": (keep(0), (POOL, KEPT_NARROW, KEPT_NARROW.replace("64", "0"))),
    "256 KiB per turn": (budget(256),),
    "2 MiB per turn": (budget(2048),),
    "4 MiB per turn": (budget(4096),),
    "16 MiB per turn": (budget(16384),),
    "a look after 4 turns": (LOOK,),
    "4 MiB and a look after 4": (budget(4096), LOOK),
    "both and 4 MiB per turn": (STAYS, STICKY, budget(4096)),
    "both and 4 MiB and keep 16": (STAYS, STICKY, budget(4096), keep(16)),
    "over-long drains": ((SPLICE, DRAIN, "len.max(FILL_BYTES_MAX)"),),
}
PEERS = [Haproxy("haproxy-splice", splice=True),
         Haproxy("haproxy-splice-256k", splice=True, tune="tune.pipesize 262144"),
         Haproxy("haproxy-splice-1m", splice=True, tune="tune.pipesize 1048576")]
# What a message of a neighbour waits depends on how long a turn may be.
TURNS = ("as it is", "256 KiB per turn", "4 MiB per turn", "16 MiB per turn",
         "a look after 4 turns", "4 MiB and a look after 4")


def variants(block):
    for name, changes in CHANGES.items():
        try:
            yield Variant(name, build(changes))
        except NotApplicable as reason:
            block.row(name, "not built: %s" % reason)


block = long_block("0015")
ours = list(variants(block))
found = Comparison(block.options, ours + PEERS, ROWS).run()
block.say("%d rounds of %.1f s; the first is what the program does" % (found.rounds, found.seconds))
found.print(block)
block.say()
winners(block, found)
# Other rows than bulk are of no use here.
block.options.rows = None
turns = [variant for variant in ours if variant.name in TURNS]
BesideBulk(block.options, turns, "echo64").run().print(block)
block.finish()
