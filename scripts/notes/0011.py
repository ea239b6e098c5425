#!/usr/bin/env python3
"""May the kernel join the two sockets by itself, with a sockmap?"""

import ctypes
import errno
import os
import platform
import re
import select
import socket
import struct
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
from note import Block, attempt, libc, pipe, splice, tcp_pair, until  # noqa: E402

MB = 1 << 20
# The script's own bounds: more would only be more of the same.
SENT_MAX, SECONDS_MAX, SILENCE = 400 * MB, 10, 1.0
STALLED, BACKLOG = 300, 256 << 10
SYSCALLS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
MAP_CREATE, MAP_UPDATE, PROG_LOAD, PROG_ATTACH = 0, 2, 5, 8
SOCKMAP, SK_SKB, SK_SKB_VERDICT, REDIRECT = 15, 14, 38, 52


def bpf(command, layout, *values):
    attribute = ctypes.create_string_buffer(struct.pack(layout, *values), 144)
    answer = libc.syscall(SYSCALLS[platform.machine()], command, attribute, len(attribute))
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer


def new_map():
    return bpf(MAP_CREATE, "=5I", SOCKMAP, 4, 4, 1, 0)


def put(to, end):
    key, value = ctypes.c_uint32(0), ctypes.c_uint32(end.fileno())
    bpf(MAP_UPDATE, "=IIQQQ", to, 0, ctypes.addressof(key), ctypes.addressof(value), 0)


def verdict(sinks):
    """Redirects every packet into socket 0 of `sinks`, and drops the empty one of an end."""
    instructions = b"".join(struct.pack("=BBhi", *one) for one in (
        (0x61, 0x16, 0, 0),             # r6 = skb->len
        (0x15, 0x06, 6, 0),             # if r6 == 0 goto out, where r0 is SK_DROP
        (0x18, 0x12, 0, sinks),         # r2 = the map, in two halves
        (0x00, 0x00, 0, 0),
        (0xb7, 0x03, 0, 0),             # r3 = key 0
        (0xb7, 0x04, 0, 0),             # r4 = no flags
        (0x85, 0x00, 0, REDIRECT),      # r0 = bpf_sk_redirect_map(r1, r2, r3, r4)
        (0x95, 0x00, 0, 0),             # exit
        (0xb7, 0x00, 0, 0),             # out: r0 = SK_DROP
        (0x95, 0x00, 0, 0)))
    text, license_text = ctypes.create_string_buffer(instructions), ctypes.c_char_p(b"GPL")
    return bpf(PROG_LOAD, "=IIQQ", SK_SKB, len(instructions) // 8, ctypes.addressof(text),
               ctypes.cast(license_text, ctypes.c_void_p).value)


class Joined:
    """client → source, joined by a sockmap to sink → backend: nobody else moves anything."""

    def __init__(self, receive_buffer=None, send_buffer=None):
        self.client, self.source = tcp_pair()
        self.sink, self.backend = tcp_pair(receive_buffer, send_buffer)
        self.descriptors = []

    def join(self):
        self.descriptors = [new_map(), new_map()]
        sources, sinks = self.descriptors
        self.descriptors.append(verdict(sinks))
        bpf(PROG_ATTACH, "=4I", sources, self.descriptors[2], SK_SKB_VERDICT, 0)
        put(sinks, self.sink)
        put(sources, self.source)
        return self

    def step(self):
        """What the relay has to do for each byte: nothing."""

    def close(self):
        for end in (self.client, self.source, self.sink, self.backend):
            end.close()
        for descriptor in self.descriptors:
            os.close(descriptor)


class Spliced(Joined):
    """The same two connections, joined by a loop of splice."""

    def join(self):
        self.descriptors, self.held = list(pipe()), 0
        return self

    def step(self):
        read, write = self.descriptors
        if not self.held:
            moved = splice(self.source, write)
            self.held = moved if isinstance(moved, int) else 0
        if self.held:
            moved = splice(read, self.sink, self.held)
            self.held -= moved if isinstance(moved, int) else 0


def available():
    found = re.search(r"MemAvailable: *(\d+)", Path("/proc/meminfo").read_text())
    return int(found[1]) * 1024


def tcp_memory():
    found = re.search(r"TCP:.* mem (\d+)", Path("/proc/net/sockstat").read_text())
    return int(found[1]) * os.sysconf("SC_PAGE_SIZE")


def push(pair, size, silence=SILENCE):
    """How much the client can send before it is held up, or has sent `size`; bounded in time."""
    chunk, sent, start = bytes(MB), 0, time.monotonic()
    last = start
    while sent < size and time.monotonic() < min(start + SECONDS_MAX, last + silence):
        taken = attempt(pair.client.send, chunk[:size - sent])
        if isinstance(taken, int):
            sent, last = sent + taken, time.monotonic()
        pair.step()
    return sent


def stopped_reader(pair):
    """The backend reads nothing, the client sends what it can."""
    free, accounted = available(), tcp_memory()
    pair.join()
    try:
        sent = push(pair, SENT_MAX)
        return sent, free - available(), tcp_memory() - accounted
    finally:
        pair.close()


def half_close():
    """20 MB and an end; the relay passes the end on at once, then the backend reads."""
    pair = Joined().join()
    try:
        sent = push(pair, 20 * MB)
        pair.client.shutdown(socket.SHUT_WR)
        poller = select.poll()
        poller.register(pair.source, select.POLLRDHUP)
        poller.poll(5000)
        pair.sink.shutdown(socket.SHUT_WR)
        return sent, len(read_all(pair.backend))
    finally:
        pair.close()


def read_all(end, seconds=5):
    """All bytes until the end, or until none has come for that long."""
    end.settimeout(seconds)
    parts = []
    try:
        while part := end.recv(MB):
            parts.append(part)
    except OSError:
        pass
    return b"".join(parts)


def partly_read():
    """The relay has read a head out of a packet before it joins: what does the backend get?"""
    pair = Joined()
    try:
        pair.client.send(b"h" * 60 + b"p" * 40)
        until(lambda: attempt(pair.source.recv, 1, socket.MSG_PEEK) == b"h", "the packet is there")
        pair.source.recv(60)
        pair.join()
        # Queued bytes wait for the program until something asks for them.
        attempt(pair.source.recv, 1, socket.MSG_PEEK)
        return read_all(pair.backend, 0.5)
    finally:
        pair.close()


def kernel_threads_seconds(seconds):
    """CPU time of all kernel workers over some seconds."""

    def total():
        ran = 0
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and (entry / "comm").read_text().startswith("kworker"):
                    ran += int((entry / "schedstat").read_text().split()[0])
            except OSError:
                pass
        return ran / 1e9

    before = total()
    time.sleep(seconds)
    return total() - before


def stalled_cpu():
    """Kernel workers' share of a core, before and with sessions whose backends read nothing."""
    before, pairs = kernel_threads_seconds(1), []
    try:
        for _ in range(STALLED):
            pairs.append(Joined(receive_buffer=4096, send_buffer=4096).join())
            push(pairs[-1], BACKLOG, 0.05)
        return before, kernel_threads_seconds(1)
    finally:
        for pair in pairs:
            pair.close()


block = Block("0011")
try:
    if platform.machine() not in SYSCALLS:
        raise OSError(errno.ENOSYS, "the number of bpf(2) is not known here")
    Joined().join().close()
except OSError as error:
    block.say("SKIPPED: bpf: %s (CAP_BPF and CAP_NET_ADMIN are needed)" % error)
    sys.exit(0)
if available() < 4 * SENT_MAX:
    block.say("SKIPPED: less than %d MB are available" % (4 * SENT_MAX // MB))
    sys.exit(0)
block.say("a backend that reads nothing, a client that sends up to %d MB" % (SENT_MAX // MB))
found = {}
for name, kind in (("splice", Spliced), ("sockmap", Joined)):
    found[name] = sent, memory, accounted = stopped_reader(kind())
    block.row(name, "client sent %4d MB; MemAvailable -%d MB, TCP mem +%d MB" % (
        sent // MB, max(memory, 0) // MB, max(accounted, 0) // MB))
    time.sleep(1)
sent, got = half_close()
block.row("sockmap, the end passed on at once", "sent %.1f MB, backend got %.1f MB" % (
    sent / MB, got / MB))
data = partly_read()
block.row("sockmap, 60 of 100 B read before the join", "backend got %d B, %d of them read already" % (
    len(data), data.count(b"h")))
before, stalled = stalled_cpu()
block.row("kernel workers, before", "%.1f %% of a core" % (100 * before))
block.row("kernel workers, %d stalled sessions" % STALLED, "%.1f %% of a core" % (100 * stalled))
sent, memory, accounted = found["sockmap"]
block.claim(sent >= SENT_MAX and memory > SENT_MAX // 2,
            "Behind a stopped reader a sockmap takes all that is sent, into memory of the kernel.")
block.claim(accounted < 32 * MB, "No limit on TCP memory sees it: it is charged to no socket.")
block.claim(found["splice"][0] < 32 * MB,
            "A relay by splice stops its sender at what sockets and pipe hold.")
block.claim(got < 20 * MB, "An end that is passed on at once overtakes data: they are lost.")
block.claim(b"h" in data,
            "A packet that was read in part is delivered whole: a head would be repeated.")
block.claim(stalled > before + 0.01, "Stalled sessions cost CPU for as long as they stall.")
block.finish()
