#!/usr/bin/env python3
"""From which fill size on is splice cheaper than copy?"""

import ctypes
import fcntl
import json
import os
import subprocess
import sys
import time

sys.dont_write_bytecode = True
from note import (F_SETPIPE_SZ, NONBLOCK, ROOT, SIOCINQ, Block, ask, libc, median,  # noqa: E402
                  pipe, tcp_pair)

FILLS = [64, 256, 1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10]
PIPES = [64 << 10, 256 << 10, 1 << 20]
BUFFER = 64 << 10
SESSIONS = (1, 100)
ROUNDS, TIMES = 7, 20


def arrive(source, size):
    """Waits until it all waits in the source, or as much as its window lets in. (That it is confirmed
    would not do: without a reader the kernel delays that by 40 ms.)"""
    deadline = time.perf_counter_ns() + 2_000_000
    while ask(source, SIOCINQ) < size and time.perf_counter_ns() < deadline:
        pass


def calls(size, room):
    """Nanoseconds of the two calls that move one fill: by copy, by splice; medians, and the ratio's."""
    client, source = tcp_pair()
    sink, end = tcp_pair()
    read, write = pipe()
    fcntl.fcntl(write, F_SETPIPE_SZ, room)
    message, buffer = b"x" * size, ctypes.create_string_buffer(BUFFER)
    fd, out = source.fileno(), sink.fileno()

    def copy():
        return libc.send(out, buffer, libc.recv(fd, buffer, BUFFER, 0), 0)

    def splice():
        taken = libc.splice(fd, None, write, None, 1 << 20, NONBLOCK)
        return libc.splice(read, None, out, None, taken, NONBLOCK)

    def one(move):
        client.sendall(message)
        arrive(source, size)
        began, moved = time.perf_counter_ns(), move()
        took = time.perf_counter_ns() - began
        while moved < size:  # More than one fill: its time is not this one's.
            moved += max(move(), 0)
            took = None
        left = size
        while left:
            left -= len(end.recv(1 << 20))
        return took

    end.setblocking(True)
    end.settimeout(5)
    client.settimeout(5)
    found = {copy: [], splice: []}
    for _ in range(ROUNDS):
        for move in found:
            times = [took for took in (one(move) for _ in range(TIMES)) if took]
            found[move].append(median(times) if times else None)
    for descriptor in (read, write):
        os.close(descriptor)
    for connection in (client, source, sink, end):
        connection.close()
    pairs = [(a, b) for a, b in zip(found[copy], found[splice]) if a and b]
    if not pairs:
        return None
    return (median([a for a, _ in pairs]), median([b for _, b in pairs]),
            median([b / a for a, b in pairs]))


def crossover(ratios):
    """The least size from which on splice is cheaper at every size."""
    at = None
    for size in sorted(ratios, reverse=True):
        if ratios[size] >= 1:
            break
        at = size
    return at


def size_of(size):
    if size is None:
        return "no size"
    return "%d KiB" % (size >> 10) if size >= 1024 else "%d B" % size


def bench(program, sessions):
    command = [program, "probe", "--bench", "--json", "--sessions", str(sessions)]
    output = subprocess.run(command, check=True, capture_output=True, timeout=40)
    return json.loads(output.stdout)["bench"]


block = Block("0018", [("--upsplice", os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
                        + "/release/upsplice", "the program, optimised")])
block.say("two calls that move one fill, median of %d rounds; copy has a buffer of 64 KiB" % ROUNDS)
at = {}
for room in PIPES:
    ratios = {}
    for size in FILLS:
        found = calls(size, room)
        if not found:
            block.row("%8s, pipe of %4d KiB" % (size_of(size), room >> 10), "never in one fill")
            continue
        ratios[size] = found[2]
        block.row("%8s, pipe of %4d KiB" % (size_of(size), room >> 10),
                  "copy %6.1f µs, splice %6.1f µs, splice/copy %.2f" % (
                      found[0] / 1000, found[1] / 1000, found[2]))
    at[room] = crossover(ratios)
for sessions in SESSIONS:
    found = bench(block.options.upsplice, sessions)
    block.say()
    block.say("gateway, echo by %d sessions, splice/copy, %d rounds" % (sessions, found["rounds"]))
    for row in found["rows"]:
        [figure] = [figure for figure in row["figures"] if figure["engine"] == "splice"]
        cpu, wall = figure["cpu_against_copy"], figure["time_against_copy"]
        block.row("%s %s" % (row["load"], size_of(row["bytes"])),
                  "CPU %.2f (%.2f to %.2f, %s), time %.2f (%s)" % (
                      cpu["ratio"], cpu["least"], cpu["most"], cpu["verdict"],
                      wall["ratio"], wall["verdict"]))
    block.say(found["sentences"][0])
block.say()
block.say("splice pays from, by the calls alone: " + ", ".join(
    "%s (pipe %d KiB)" % (size_of(size), room >> 10) for room, size in at.items()))
block.claim(all(at.values()), "With every pipe there is a fill size from which on splice is cheaper.")
block.finish()
