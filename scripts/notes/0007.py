#!/usr/bin/env python3
"""Is a fill that was short a proof that the source is empty?"""

import ctypes
import fcntl
import os
import socket
import sys

sys.dont_write_bytecode = True
from note import (F_SETPIPE_SZ, NONBLOCK, SIOCINQ, Block, ask, delivered, libc,  # noqa: E402
                  nanoseconds, pipe, pipe_size, splice, tcp_pair)

# As many as the first window of a connection takes at once.
MESSAGES = 40
SIZES = (16, 125, 256, 512, 1000, 1448)
PIPES = (64 << 10, 256 << 10)


def queue(size):
    """A source that holds MESSAGES messages, each in a packet of its own."""
    client, source = tcp_pair()
    for _ in range(MESSAGES):
        client.send(bytes(size))
    delivered(client)
    return client, source


def fills(size, room):
    """The first fill, what it left, and how many it took in all."""
    client, source = queue(size)
    read, write = pipe()
    fcntl.fcntl(write, F_SETPIPE_SZ, room)
    first = splice(source, write, pipe_size(write))
    left, count, answer = ask(source, SIOCINQ), 1, first
    while True:
        os.read(read, 1 << 20)
        answer = splice(source, write, pipe_size(write))
        if answer == "EAGAIN":
            break
        count += 1
    close(client, source, read, write)
    return first, left, count


def receives(size):
    client, source = queue(size)
    first = len(source.recv(1 << 20))
    left = ask(source, SIOCINQ)
    close(client, source)
    return first, left


def costs():
    """One probe more: a splice that says EAGAIN, against one that moves a message and its drain."""
    client, source = tcp_pair()
    sink, end = tcp_pair()
    read, write = pipe()
    fd, out, buffer = source.fileno(), sink.fileno(), ctypes.create_string_buffer(4096)

    def message():
        client.send(b"x" * 64)
        libc.splice(fd, None, write, None, 1 << 16, NONBLOCK)
        libc.splice(read, None, out, None, 64, NONBLOCK)
        libc.recv(end.fileno(), buffer, 4096, socket.MSG_DONTWAIT)

    found = nanoseconds({
        "send, fill, drain, recv of one message": message,
        "the probe: splice that says EAGAIN":
            lambda: libc.splice(fd, None, write, None, 1 << 16, NONBLOCK),
    }, count=4000)
    close(client, source, sink, end, read, write)
    return found


def close(*ends):
    for end in ends:
        os.close(end) if isinstance(end, int) else end.close()


block = Block("0007")
block.say("%d messages queued, one fill into an empty pipe, then fills until EAGAIN" % MESSAGES)
short_with_more = {}
for room in PIPES:
    for size in SIZES:
        first, left, count = fills(size, room)
        short_with_more[room, size] = first < room and left > 0
        block.row("%4d B each, pipe of %d KiB" % (size, room >> 10),
                  "fill %6d of %6d, left %6d, fills %d" % (first, MESSAGES * size, left, count))
received = {size: receives(size) for size in SIZES}
for size, (first, left) in received.items():
    block.row("%4d B each, recv of 1 MiB" % size, "recv %6d of %6d, left %6d" % (
        first, MESSAGES * size, left))
found = costs()
for name, cost in found.items():
    block.row(name, "%.1f µs" % (cost / 1000))
block.claim(any(short_with_more.values()),
            "A fill shorter than the pipe left bytes behind: slots run out before bytes do.")
block.claim(not any(left for _, left in received.values()),
            "A recv shorter than its buffer left nothing.")
share = 100 * found["the probe: splice that says EAGAIN"] / found[
    "send, fill, drain, recv of one message"]
block.claim(share < 25, "The probe is %.0f %% of what one small message costs end to end." % share)
block.finish()
