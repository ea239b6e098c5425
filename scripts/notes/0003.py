#!/usr/bin/env python3
"""How long may a drain be?"""

import fcntl
import os
import sys
import time

sys.dont_write_bytecode = True
from note import F_SETPIPE_SZ, Block, delivered, median, pipe, splice, tcp_pair  # noqa: E402

RUNS, MESSAGE = 5, b"x" * 100
SLOTS = (1, 8, 15, 16, 17, 20, 32, 33)
OVER_LONG = 1 << 20


def drain(read, sink, held, length):
    """Empties the pipe; `length` None asks for exactly what it holds."""
    while held:
        held -= splice(read, sink, length or held)


def milliseconds_until(end, size):
    """How long until `size` bytes have arrived; the end does not block."""
    start, got = time.monotonic(), 0
    while got < size and time.monotonic() - start < 2:
        try:
            got += len(end.recv(1 << 16))
        except BlockingIOError:
            pass
    return (time.monotonic() - start) * 1000 if got == size else float("inf")


def full_slots(count, length):
    """A pipe with `count` occupied slots, drained into a socket; until the last byte arrived."""
    sink, end = tcp_pair()
    # With O_DIRECT every write is a slot of its own.
    read, write = pipe(os.O_DIRECT)
    fcntl.fcntl(write, F_SETPIPE_SZ, 1 << 18)
    for _ in range(count):
        os.write(write, MESSAGE)
    drain(read, sink, count * len(MESSAGE), length)
    took = milliseconds_until(end, count * len(MESSAGE))
    close(sink, end, read, write)
    return took


def whole_way(length):
    """32 small messages: socket, pipe of the default size, socket."""
    client, source = tcp_pair()
    sink, end = tcp_pair()
    read, write = pipe()
    for _ in range(32):
        client.send(MESSAGE)
    delivered(client)
    moved = 0
    while moved < 32 * len(MESSAGE):
        held = splice(source, write)
        moved += held
        drain(read, sink, held, length)
    took = milliseconds_until(end, moved)
    close(client, source, sink, end, read, write)
    return took


def close(*ends):
    for end in ends:
        os.close(end) if isinstance(end, int) else end.close()


def both(block, what, run):
    """The two lengths, interleaved."""
    found = {"exact": [], "over-long": []}
    for _ in range(RUNS):
        found["exact"].append(run(None))
        found["over-long"].append(run(OVER_LONG))
    times = {length: median(took) for length, took in found.items()}
    block.row(what, "exact %6.1f ms, over-long %6.1f ms" % (times["exact"], times["over-long"]))
    return times


block = Block("0003")
block.say("from the last drain until the last byte arrived, median of %d; messages of %d B" % (
    RUNS, len(MESSAGE)))
slots = {count: both(block, "pipe of %d slots in use" % count, lambda length: full_slots(
    count, length)) for count in SLOTS}
way = both(block, "burst of 32 messages through socket and pipe", whole_way)
block.claim(slots[16]["over-long"] > 100,
            "16 slots and a length past what the pipe holds: the kernel expects more, and corks.")
block.claim(all(times["exact"] < 50 for times in [*slots.values(), way]),
            "A drain of exactly what the pipe holds is never corked.")
block.claim(all(times["over-long"] < 50 for count, times in slots.items() if count != 16),
            "Every other number of slots that was tried hides the mistake.")
block.claim(way["over-long"] > 100, "A burst of 32 small messages is enough to meet it.")
block.finish()
