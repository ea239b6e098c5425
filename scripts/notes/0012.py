#!/usr/bin/env python3
"""When is a ring of our own cheaper than readiness, and how must it be made?"""

import ctypes
import json
import mmap
import os
import select
import struct
import subprocess
import sys

sys.dont_write_bytecode = True
from note import ROOT, Block, libc, median, tcp_pair  # noqa: E402

SETUP, ENTER, GETEVENTS = 425, 426, 1
RECEIVE = 27
COOPERATIVE, SINGLE_ISSUER, DEFERRED = 1 << 8, 1 << 12, 1 << 13
SUBMISSIONS_AT = 0x10000000
ARRIVALS, ROUNDS, MILLISECONDS = 40, 5, 250
# Sessions, size of a message, and what carries it: engine, buffers, bytes of each, credit.
COPY, SPLICE, OURS = ("copy",), ("splice",), ("uring", 256, 16384, 65536)
VARIANTS = [
    (100, 64, COPY), (100, 64, SPLICE), (100, 64, OURS),
    (100, 64, ("uring", 256, 4096, 65536)), (100, 64, ("uring", 64, 16384, 65536)),
    (100, 1024, COPY), (100, 1024, OURS), (100, 1024, ("uring", 256, 4096, 65536)),
    (100, 16384, COPY), (100, 16384, SPLICE), (100, 16384, OURS),
    (100, 16384, ("uring", 256, 4096, 65536)),
    (1, 64, COPY), (1, 64, OURS),
]


class Ring:
    """A ring of eight entries, as bare as can be."""

    def __init__(self, flags):
        params = bytearray(120)
        struct.pack_into("I", params, 8, flags)
        self.fd = libc.syscall(SETUP, 8, (ctypes.c_char * 120).from_buffer(params))
        if self.fd < 0:
            raise SystemExit("io_uring_setup: " + os.strerror(ctypes.get_errno()))
        sq = struct.unpack_from("7I", params, 40)
        cq = struct.unpack_from("7I", params, 80)
        self.sq_tail, self.sq_mask, self.array = sq[1], sq[2], sq[6]
        self.cq_head, self.cq_tail = cq[0], cq[1]
        entries = struct.unpack_from("2I", params, 0)
        size = max(self.array + 4 * entries[0], cq[5] + 16 * entries[1])
        self.rings = mmap.mmap(self.fd, size)
        self.entries = mmap.mmap(self.fd, 64 * entries[0], offset=SUBMISSIONS_AT)
        self.buffer = ctypes.create_string_buffer(64)

    def word(self, at):
        return struct.unpack_from("I", self.rings, at)[0]

    def receive(self, socket):
        tail = self.word(self.sq_tail)
        at = tail & self.word(self.sq_mask)
        entry = struct.pack("BBHiQQI", RECEIVE, 0, 0, socket.fileno(), 0,
                            ctypes.addressof(self.buffer), 64)
        self.entries[64 * at:64 * at + 64] = entry.ljust(64, b"\0")
        struct.pack_into("I", self.rings, self.array + 4 * at, at)
        struct.pack_into("I", self.rings, self.sq_tail, tail + 1)
        self.enter(1)

    def enter(self, count):
        libc.syscall(ENTER, self.fd, count, 0, GETEVENTS, None, 0)

    def completions(self):
        """How many have come since the last time."""
        tail = self.word(self.cq_tail)
        came = tail - self.word(self.cq_head)
        struct.pack_into("I", self.rings, self.cq_head, tail)
        return came


def woken(flags):
    """How many of some arrivals woke an epoll that watches the ring's descriptor."""
    ring, (near, far) = Ring(flags), tcp_pair()
    with select.epoll() as watch:
        watch.register(ring.fd, select.EPOLLIN | select.EPOLLET)
        wakes = completed = 0
        for _ in range(ARRIVALS):
            ring.receive(far)
            # What our own call did is no news.
            watch.poll(0)
            near.send(b"x")
            wakes += bool(watch.poll(0.05))
            ring.enter(0)
            completed += ring.completions()
    os.close(ring.fd)
    return wakes, completed


def build():
    argv = ["cargo", "bench", "--bench", "ring", "--no-run", "--profile", "release",
            "--message-format", "json-render-diagnostics"]
    done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    messages = (json.loads(line) for line in done.stdout.splitlines())
    [path] = [m["executable"] for m in messages
              if m.get("executable") and m["target"]["name"] == "ring"]
    return path


def microseconds(program, sessions, size, what):
    """CPU of the relay's thread per round trip."""
    engine, *ring = what
    ring = ring or OURS[1:]
    argv = [program, engine, sessions, size, *ring, MILLISECONDS]
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=True,
                          timeout=20)
    return float(done.stdout.split()[0])


def main():
    program = build()
    block = Block("0012")
    wakes = {}
    for name, flags in (("COOP_TASKRUN", COOPERATIVE | SINGLE_ISSUER),
                        ("DEFER_TASKRUN", DEFERRED | SINGLE_ISSUER)):
        wakes[name], completed = woken(flags)
        block.row("epoll on a ring with " + name, "%d of %d arrivals wake it, %d completed"
                  % (wakes[name], ARRIVALS, completed))
    found = {variant: [] for variant in VARIANTS}
    for _ in range(ROUNDS):
        for variant, values in found.items():
            values.append(microseconds(program, *variant))
    for (sessions, size, what), values in found.items():
        name = "%d B × %d, %s" % (size, sessions, " ".join(map(str, what)))
        block.row(name, "%.1f µs (%.1f to %.1f)" % (median(values), min(values), max(values)))

    def ratio(sessions, size, one, other):
        pairs = zip(found[sessions, size, one], found[sessions, size, other])
        return median([a / b for a, b in pairs])

    small, middle, large, single = (ratio(*row, OURS, COPY) for row in
                                    ((100, 64), (100, 1024), (100, 16384), (1, 64)))
    pages = ratio(100, 16384, ("uring", 256, 4096, 65536), OURS)
    hot = ratio(100, 64, ("uring", 64, 16384, 65536), OURS)
    block.claim(wakes["COOP_TASKRUN"] == ARRIVALS, "With COOP_TASKRUN every arrival wakes the task.")
    block.claim(wakes["DEFER_TASKRUN"] < ARRIVALS, "With DEFER_TASKRUN some do not: it is of no use "
                "to a runtime that sleeps in epoll.")
    block.claim(small < 0.9, "64 B over 100 sessions cost %.2f of what engine copy takes." % small)
    block.claim(middle < 0.9, "1 KiB over 100 sessions cost %.2f." % middle)
    block.claim(pages > 1.2, "16 KiB messages in buffers of 4 KiB cost %.2f times those in 16 KiB: "
                "one send each." % pages)
    block.claim(single > 0.95, "One session alone gains nothing: %.2f." % single)
    block.say("16 KiB over 100 sessions cost %.2f of copy; 64 buffers instead of 256 cost %.2f at 64 B."
              % (large, hot))
    block.finish()


main()
