#!/usr/bin/env python3
"""What does an idle session cost in memory?"""

import ctypes
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True
from note import ROOT, Block  # noqa: E402

FEW, MANY = 1000, 4000
# What glibc gives for the chunks of src/sys/alloc.rs.
CHUNK = "32776"
# The bound of tests/memory.rs for optimised code.
BYTES_MAX = 1536
CONFIG = """
[gateway]
workers = 1
runtime = "%s"
access_log = false

[[listener]]
address = "127.0.0.1:0"

[[route]]
name = "idle"
path = "/"
protocols = ["websocket"]
engine = "%s"
to = ["127.0.0.1:%d"]
"""
REQUEST = (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
           b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
ANSWER = (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
          b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")


class Gateway:
    """A running upsplice, and the sessions opened through it: one thread plays client and backend."""

    def __init__(self, binary, runtime, engine, preload=None):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.listener.settimeout(5)
        self.sessions = []
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(CONFIG % (runtime, engine, self.listener.getsockname()[1]))
            file.flush()
            self.process = subprocess.Popen(
                [binary, "run", "--config", file.name], stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, text=True,
                env=dict(os.environ, LD_PRELOAD=preload) if preload else None)
            for line in self.process.stderr:
                if found := re.search(r"listening on ([0-9.]+):(\d+)", line):
                    self.address = found[1], int(found[2])
                    break
            else:
                raise SystemExit("upsplice did not start")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        for end in [self.listener, *(end for session in self.sessions for end in session)]:
            end.close()

    def open(self, count):
        while len(self.sessions) < count:
            client = socket.create_connection(self.address, timeout=5)
            client.sendall(REQUEST)
            backend, _ = self.listener.accept()
            backend.settimeout(5)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += backend.recv(4096)
            backend.sendall(ANSWER)
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                answer += client.recv(4096)
            self.sessions.append((client, backend))

    def exchange(self, size):
        """Every session carries `size` bytes each way."""
        for client, backend in self.sessions:
            for source, sink in ((client, backend), (backend, client)):
                source.sendall(bytes(size))
                left = size
                while left:
                    left -= len(sink.recv(left))

    def pss(self):
        """Proportional set size once nothing is going on."""
        time.sleep(0.3)
        text = Path("/proc/%d/smaps_rollup" % self.process.pid).read_text()
        return int(re.search(r"(?m)^Pss:\s+(\d+) kB", text)[1]) * 1024

    def heap(self):
        """Live blocks by size, as heap.c prints them; the size is a word for the larger ones."""
        self.process.send_signal(signal.SIGUSR2)
        counts = {}
        for line in self.process.stderr:
            words = line.split()
            if words == ["heap", "end"]:
                return counts
            if words[:1] == ["heap"]:
                counts[words[1]] = int(words[2])
        raise SystemExit("upsplice ended")

    def descriptors(self):
        """How many sockets, and how many ends of pipes."""
        folder = "/proc/%d/fd" % self.process.pid
        kinds = [os.readlink("%s/%s" % (folder, name)).split(":")[0] for name in os.listdir(folder)]
        return kinds.count("socket"), kinds.count("pipe")


def slope(block, binary, runtime, engine):
    with Gateway(binary, runtime, engine) as gateway:
        gateway.open(FEW)
        few, (sockets_few, pipes_few) = gateway.pss(), gateway.descriptors()
        gateway.open(MANY)
        many, (sockets, pipes) = gateway.pss(), gateway.descriptors()
        gateway.exchange(4096)
        used, (_, pipes_used) = gateway.pss(), gateway.descriptors()
    per = [(size - few) / (MANY - FEW) for size in (many, used)]
    more = (sockets - sockets_few) / (MANY - FEW)
    block.row("%s, %s" % (runtime, engine), "%.0f B each; after 4 KiB each way %.0f B; "
              "%g sockets each; ends of pipes %d, %d, %d" % (
                  per[0], per[1], more, pipes_few, pipes, pipes_used))
    return per, more, (pipes_few, pipes, pipes_used)


def blocks(block, binary):
    """Which heap blocks a session takes; nothing without a C compiler. Returns the chunks' share."""
    compiler = shutil.which("cc")
    if not compiler:
        return block.say("heap blocks: not measured, there is no C compiler")
    with tempfile.TemporaryDirectory() as folder:
        library = folder + "/heap.so"
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library,
                        ROOT / "scripts/notes/heap.c"], check=True)
        with Gateway(binary, "epoll", "splice", library) as gateway:
            gateway.open(FEW)
            few = gateway.heap()
            gateway.open(MANY)
            many = gateway.heap()
    shares = {}
    for size, count in many.items():
        more = (count - few.get(size, 0)) / (MANY - FEW)
        shares[size] = more if size == "large" else more * int(size)
        if shares[size] >= 1 and size == "large":
            block.row("heap blocks of more than 64 KiB", "%.0f B each" % shares[size])
        elif shares[size] >= 1:
            name = "%s B" % size + (" (chunks cut into blocks)" if size == CHUNK else "")
            block.row("heap blocks of " + name, "%.3f, %.0f B each" % (more, shares[size]))
    return shares.get(CHUNK, 0)


class Mallinfo(ctypes.Structure):
    """glibc's mallinfo2."""
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split())]


def aligned_waste(count=20000):
    """Heap that glibc takes for the three blocks of a session, aligned and not. None without glibc."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return None
    libc.mallinfo2.restype = Mallinfo
    libc.aligned_alloc.restype = libc.malloc.restype = ctypes.c_void_p
    libc.aligned_alloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
    libc.malloc.argtypes = [ctypes.c_size_t]
    taken = {}
    for name, get in {
        "malloc": libc.malloc, "aligned_alloc": lambda size: libc.aligned_alloc(128, size),
    }.items():
        before = libc.mallinfo2().arena
        for _ in range(count):
            for size in (256, 256, 384):
                get(size)
        taken[name] = (libc.mallinfo2().arena - before) / count
    return taken


block = Block("0004", [("--upsplice", str(ROOT / "target/release/upsplice"), "the binary")])
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
block.say("PSS of the process with %d idle sessions less that with %d, per session; one worker" % (
    MANY, FEW))
binary = block.options.upsplice
found = {(runtime, engine): slope(block, binary, runtime, engine)
         for runtime, engine in (("epoll", "splice"), ("epoll", "copy"), ("uring", "splice"))}
chunks = blocks(block, binary)
waste = aligned_waste()
for name, size in (waste or {}).items():
    block.row("glibc %s: 256 + 256 + 384 B" % name, "%.0f B of heap" % size)
block.claim(all(per[0] < BYTES_MAX for per, *_ in found.values()),
            "An idle session costs less than %d B: it holds no buffer." % BYTES_MAX)
block.claim(all(per[1] < per[0] + 128 for per, *_ in found.values()),
            "What it has carried does not matter.")
block.claim(all(pipes[0] == pipes[1] for *_, pipes in found.values()),
            "Idle sessions hold no pipe: there are as many with %d as with %d." % (FEW, MANY))
block.claim(all(pipes[2] - pipes[1] <= 256 for *_, pipes in found.values()),
            "Nor do sessions that have carried bytes: a few pipes are kept by the worker.")
block.claim(all(more == 2 for _, more, _ in found.values()), "Two sockets are all it holds open.")
if waste:
    block.claim(waste["aligned_alloc"] > 1.3 * waste["malloc"],
                "glibc takes %.0f B more for the three blocks when they are aligned to 128." % (
                    waste["aligned_alloc"] - waste["malloc"]))
block.finish()
