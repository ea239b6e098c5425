#!/usr/bin/env python3
"""When do pipes shrink?"""

import fcntl
import os
import resource
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
from note import (F_SETPIPE_SZ, Block, attempt, nanoseconds, pipe, pipe_size, splice,  # noqa: E402
                  tcp_pair)

NOBODY = 65534
DEFAULT = 64 << 10
SIZES = (64 << 10, 128 << 10, 256 << 10, 1 << 20)
BULK = 128 << 20
SOFT, HARD, LARGEST = ("pipe-user-pages-soft", "pipe-user-pages-hard", "pipe-max-size")


def setting(name):
    return int(Path("/proc/sys/fs", name).read_text())


def unprivileged(ask):
    """What `ask` returns in a child that is held to the limits: root is not."""
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        with open(read) as file:
            answer = file.read()
        os.waitpid(child, 0)
        return answer
    try:
        if os.getuid() == 0:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        answer = ask()
    except Exception as error:
        answer = "failed: %r" % error
    os.write(write, answer.encode())
    os._exit(0)


def first_small(size):
    """Makes pipes of `size` until the kernel gives less; `index, size, growing says`."""
    pipes = []
    for index in range(2000):
        pipes.append(pipe())
        write = pipes[-1][1]
        fresh = pipe_size(write)
        grown = attempt(fcntl.fcntl, write, F_SETPIPE_SZ, size) if size > fresh else fresh
        if isinstance(grown, str) or grown < size:
            back = attempt(fcntl.fcntl, write, F_SETPIPE_SZ, DEFAULT)
            return "%d %d %s %s" % (index, fresh, grown, back)
    return "none 0 0 0"


class Splicing:
    """Through a pipe of `size`; growing it needs no right while the user is under the limit."""

    def __init__(self, size):
        self.read, self.write = pipe()
        fcntl.fcntl(self.write, F_SETPIPE_SZ, size)

    def take(self, source):
        return splice(source, self.write)

    def give(self, sink, held):
        return splice(self.read, sink, held)


class Copying:
    """Through a buffer of `size`."""

    def __init__(self, size):
        self.buffer, self.end = memoryview(bytearray(size)), 0

    def take(self, source):
        self.end = attempt(source.recv_into, self.buffer)
        return self.end

    def give(self, sink, held):
        return attempt(sink.send, self.buffer[self.end - held:self.end])


def moved(way, source, sink, end):
    """Moves what `source` has, as far as `sink` takes it; `bytes, calls, CPU seconds` of that."""
    size = calls = 0
    pauses, start = 0.0, time.thread_time()
    while isinstance(held := way.take(source), int):
        calls, size = calls + 1, size + held
        while held:
            gone = way.give(sink, held)
            calls += 1
            if isinstance(gone, int):
                held -= gone
            else:
                pause = time.thread_time()
                empty(end)
                pauses += time.thread_time() - pause
    return size, calls + 1, time.thread_time() - start - pauses


def cost_of(make, size):
    """CPU seconds and calls per GB, of BULK bytes from socket to socket."""
    client, source = tcp_pair()
    sink, end = tcp_pair()
    way, chunk, sums = make(size), bytes(256 << 10), [0, 0, 0.0]
    deadline = time.monotonic() + 4
    while sums[0] < BULK and time.monotonic() < deadline:
        attempt(client.send, chunk)
        sums = [old + new for old, new in zip(sums, moved(way, source, sink, end))]
        empty(end)
    for socket in (client, source, sink, end):
        socket.close()
    return sums[2] / sums[0] * 1e9, sums[1] / sums[0] * 1e9


def empty(end):
    while isinstance(attempt(end.recv, 1 << 20), bytes):
        pass


def turn():
    for end in pipe():
        os.close(end)


def wide_turn():
    ends = pipe()
    fcntl.fcntl(ends[1], F_SETPIPE_SZ, 256 << 10)
    for end in ends:
        os.close(end)


block = Block("0005")
hard_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard_files, hard_files))
for name in (SOFT, HARD, LARGEST):
    block.row("fs." + name, setting(name))
page = resource.getpagesize()
first = {}
for size in SIZES:
    index, fresh, grown, back = unprivileged(lambda: first_small(size)).split()
    first[size] = (index, int(fresh), grown, back)
    block.row("as uid %d, pipes of %d KiB" % (NOBODY, size >> 10),
              "#%s is the first short one: fresh %d B, grow %s, to 64 KiB %s" % (
                  index, int(fresh), grown, back))
costs = nanoseconds({"pipe2 and 2 close": turn, "the same, and F_SETPIPE_SZ 256 KiB": wide_turn},
                    count=500)
for name, cost in costs.items():
    block.row(name, "%.1f µs" % (cost / 1000))
bulk = {}
for make, size in ((Splicing, 8 << 10), (Splicing, DEFAULT), (Splicing, 256 << 10),
                   (Copying, DEFAULT)):
    bulk[make, size] = min(cost_of(make, size) for _ in range(3))
    block.row("%s through %d KiB" % (make.__name__.lower(), size >> 10),
              "%.2f CPU s per GB, %.0f calls per MB" % (
                  bulk[make, size][0], bulk[make, size][1] / 1000))
small, usual, copy = (bulk[key][0] for key in (
    (Splicing, 8 << 10), (Splicing, DEFAULT), (Copying, DEFAULT)))
limit = setting(SOFT) * page
block.claim(all(abs(int(index) - limit // size) <= 2 for size, (index, *_) in first.items()),
            "The user's pipes share pipe-user-pages-soft; all pages count, used or not.")
block.claim(first[DEFAULT][1] == 2 * page,
            "Past it every new pipe has two slots, and pipe2 reports success.")
block.claim(all(back == "EPERM" for _, fresh, _, back in first.values() if fresh < DEFAULT),
            "Such a pipe cannot be grown back: EPERM.")
block.claim(small > copy and small > usual,
            "Splice through two slots costs %.1f times a copy, and %.1f times 64 KiB." % (
                small / copy, small / usual))
block.claim(usual < copy, "Through 64 KiB it costs %.2f times a copy." % (usual / copy))
block.finish()
