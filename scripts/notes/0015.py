#!/usr/bin/env python3
"""How large should a pipe be, when should it grow, and how many should be kept?"""

import sys

sys.dont_write_bytecode = True
from variants import (BesideBulk, Comparison, Haproxy, NotApplicable, Variant,  # noqa: E402
                      Waits, build, long_block, winners)

ROWS = "bulk1,bulk16"
POOL, SPLICE, ADVANCE = "src/relay/pool.rs", "src/relay/splice.rs", "src/relay/advance.rs"
WIDE = "pub const WIDE_PIPE_BYTES: u32 = 1024 * 1024;"
WISH = "let wide = way.full_fills >= FULL_FILLS_FOR_WIDE;"
FILL = "let answer = splice(source.as_fd(), pipe.pipe.write_end(), FILL_BYTES_MAX);"
ALONE, AMONG_OTHERS = "Share::Alone => 4 << 20,", "Share::AmongOthers => 256 << 10,"
KEPT = "const FREE_WIDE_MAX: usize = 8;"
KEPT_NARROW = "const FREE_MAX: usize = 64;"
PAUSED = "            way.full_fills /= 2;\n"
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
    return POOL, KEPT, KEPT.replace("8", str(count))


def alone(kib):
    return ADVANCE, ALONE, ALONE.replace("4 << 20", "%d << 10" % kib)


def among_others(kib):
    return ADVANCE, AMONG_OTHERS, AMONG_OTHERS.replace("256", str(kib))


NARROW = SPLICE, WISH, "let wide = false;\n    let _ = (way.full_fills, FULL_FILLS_FOR_WIDE);"
AT_ONCE = SPLICE, WISH, "let wide = true;\n    let _ = FULL_FILLS_FOR_WIDE;"
# A short fill takes one from what full fills have earned; it took all of it once, as did a pause.
EARNED = "way.full_fills.saturating_sub(1)"
LOSES_ALL = SPLICE, EARNED, "0"
PAUSE_LOSES_ALL = ADVANCE, PAUSED, PAUSED.replace("/= 2", "= 0")
STAYS = ADVANCE, PAUSED, ""
REGISTRY = "src/session/registry.rs"
HEAVY = "const HEAVY_BYTES: u64 = Share::AmongOthers.bytes() as u64;"


def heavy(bytes):
    return REGISTRY, HEAVY, "const HEAVY_BYTES: u64 = %s;" % bytes


# Who has a long turn is known by its last one alone, so whoever begins has one beside the others.
FIRST_LONG = among_others(4096), heavy("512 * 1024")
TOGETHER = among_others(4096), heavy("u64::MAX")
CHANGES = {
    "as it is": (),
    "the same once more": (),
    "pipes of 64 KiB only": (NARROW,),
    "wide 256 KiB": (wide(256),),
    "wide 512 KiB": (wide(512),),
    "1 MiB by fills of 512 KiB": (fill_at_most(512),),
    "wide from the first fill": (AT_ONCE,),
    "wide though the sink pauses": (STAYS,),
    "a short fill loses all": (LOSES_ALL, PAUSE_LOSES_ALL),
    "64 KiB filled 2 times": (NARROW, (SPLICE, FILL, AGAIN % 2)),
    "keep 4 wide pipes": (keep(4),),
    "keep 16 wide pipes": (keep(16),),
    "keep no pipe": (keep(0), (POOL, KEPT_NARROW, KEPT_NARROW.replace("64", "0"))),
    "1 MiB per turn": (alone(1024),),
    "16 MiB per turn": (alone(16384),),
    "128 KiB among others": (among_others(128),),
    "512 KiB among others": (among_others(512),),
    "first turns as long": FIRST_LONG,
    "long turns not one at a time": TOGETHER,
    "over-long drains": ((SPLICE, DRAIN, "len.max(FILL_BYTES_MAX)"),),
}
BOTH_WAYS = "request", "response"
PEERS = [Haproxy("haproxy-splice", splice=BOTH_WAYS),
         Haproxy("haproxy-splice-256k", splice=BOTH_WAYS, tune="tune.pipesize 262144"),
         Haproxy("haproxy-splice-1m", splice=BOTH_WAYS, tune="tune.pipesize 1048576")]
# What a message of a neighbour waits depends on how long a turn may be.
TURNS = ("as it is", "1 MiB per turn", "16 MiB per turn", "128 KiB among others",
         "512 KiB among others", "first turns as long", "long turns not one at a time")


def variants(block):
    only = block.options.only and block.options.only.split(",")
    for name, changes in CHANGES.items():
        if only and name not in ("as it is", *only):
            continue
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
Waits(block.options, turns, "mixed").run().print(block)
block.finish()
