#!/usr/bin/env python3
"""What does a reset look like to a relay?"""

import os
import select
import socket
import struct
import sys

sys.dont_write_bytecode = True
from note import (SIOCINQ, SIOCOUTQ, SIOCOUTQNSD, Block, ask, attempt, delivered, pipe,  # noqa: E402
                  poll, splice, tcp_pair, until)

LINGER_ZERO = struct.pack("ii", 1, 0)
ALWAYS = "POLLERR+POLLHUP"


def reset(end):
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    end.close()


def seen(source):
    """Waits for the reset, which poll reports whatever it was asked for."""
    until(lambda: ALWAYS in poll(source, events=0), "the reset is there")


def after(peer_sent, first=None):
    """A peer that sent and reset; `first` is done to the socket before it is spliced."""
    peer, source = tcp_pair()
    if peer_sent:
        peer.send(bytes(peer_sent))
        delivered(peer)
    reset(peer)
    seen(source)
    flags = poll(source)
    done = [first(source)] if first else []
    read, write = pipe()
    answers = [splice(source, write) for _ in range(4)]
    for end in (read, write):
        os.close(end)
    source.close()
    return flags, done, answers


def error_of(source):
    number = source.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return "SO_ERROR %s" % (os.strerror(number) if number else 0)


def full_pipe():
    """The source is reset while the pipe has no room."""
    peer, source = tcp_pair()
    read, write = pipe()
    while attempt(os.write, write, bytes(4096)) != "EAGAIN":
        pass
    reset(peer)
    seen(source)
    blocked = splice(source, write)
    os.read(read, 1 << 20)
    answers = blocked, splice(source, write), splice(source, write)
    for end in (read, write):
        os.close(end)
    source.close()
    return answers


def write_side():
    """Bytes in a pipe for a sink that was reset."""
    peer, sink = tcp_pair()
    peer.send(b"queued before the reset")
    delivered(peer)
    reset(peer)
    seen(sink)
    read, write = pipe()
    os.write(write, bytes(1000))
    writes = [splice(read, sink, 1000) for _ in range(2)]
    left = ask(read, SIOCINQ)
    back_read, back_write = pipe()
    reads = [splice(sink, back_write) for _ in range(3)]
    for end in (read, write, back_read, back_write):
        os.close(end)
    sink.close()
    return writes, left, reads


def epoll_flags():
    """A socket that is not read, watched for writing only and edge-triggered, as a paused relay does."""
    peer, source = tcp_pair(receive_buffer=8192)
    while attempt(peer.send, bytes(4096)) != "EAGAIN":
        pass
    with select.epoll() as watcher:
        watcher.register(source, select.EPOLLOUT | select.EPOLLET)
        watcher.poll(0)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
        peer.close()
        [(_, flags)] = watcher.poll(2)
    source.close()
    return [name for name in ("EPOLLERR", "EPOLLHUP") if flags & getattr(select, name)]


def unsent(size):
    """Bytes handed to a socket that is then reset: who gets them?"""
    sink, client = tcp_pair(receive_buffer=8192)
    given = 0
    while given < size:
        sent = attempt(sink.send, bytes(min(4096, size - given)))
        if not isinstance(sent, int):
            break
        given += sent
    queued, never = ask(sink, SIOCOUTQ), ask(sink, SIOCOUTQNSD)
    reset(sink)
    seen(client)
    got, last = 0, None
    while not isinstance(last := attempt(client.recv, 1 << 16), str) and last:
        got += len(last)
    client.close()
    return given, queued, never, got, last


block = Block("0006")
plain = after(0)
block.row("reset, nothing queued", "%s; splice %s" % (plain[0], plain[2]))
queued = after(1000)
block.row("1000 B queued, then reset", "%s; splice %s" % (queued[0], queued[2]))
taken = after(1000, error_of)
block.row("the same, SO_ERROR asked first", "%s; splice %s" % (taken[1][0], taken[2]))
full = full_pipe()
block.row("reset while the pipe is full", "splice %s, pipe emptied: %s" % (full[0], list(full[1:])))
writes, left, reads = write_side()
block.row("23 B queued, reset, then drain 1000 B into it", "splice %s, %d B stay in the pipe" % (
    writes, left))
block.row("    and then fill from it", "splice %s" % reads)
flags = epoll_flags()
block.row("paused: not read, EPOLLOUT|EPOLLET only", "+".join(flags))
small, large = unsent(1000), unsent(1 << 24)
for given, waiting, never, got, last in (small, large):
    block.row("%d B given, SO_LINGER 0, close" % given,
              "SIOCOUTQ %d, SIOCOUTQNSD %d; client gets %d, then %s" % (waiting, never, got, last))
block.claim(queued[2] == [1000, "ECONNRESET", 0, 0],
            "Queued bytes come first, then ECONNRESET once, then 0 for ever.")
block.claim(taken[2] == [1000, 0, 0, 0],
            "Whoever asks SO_ERROR first turns the reset into what looks like an end.")
block.claim(full[0] == "EAGAIN", "A full pipe hides the reset: splice looks at the pipe first.")
block.claim(writes[0] in ("ECONNRESET", "EPIPE") and "ECONNRESET" not in reads,
            "A drain into the socket takes the error as well: the fill after it says 0, not reset.")
block.claim(left == 1000, "What was to be drained stays in the pipe.")
block.claim(reads[0] == 23, "What the reset side sent before can still be taken after the failed drain.")
block.claim(flags == ["EPOLLERR", "EPOLLHUP"],
            "A side that is not read still reports its reset as an edge.")
block.claim(small[3] == small[0] and large[3] <= large[0] - large[2] and large[2] > 0,
            "Reset on close destroys what was never sent (SIOCOUTQNSD), and nothing that was received.")
block.finish()
