#!/usr/bin/env python3
"""What does an idle session cost in memory?"""

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
BYTES_MAX = 1024
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
    """Which heap blocks a session takes; nothing without a C compiler."""
    compiler = shutil.which("cc")
    if not compiler:
        return block.say("heap blocks: not measured, there is no C compiler")
    with tempfile.TemporaryDirectory() as folder:
        library = folder + "/heap.so"
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library,
                        ROOT / "scripts/notes/heap.c"], check=True)
        with Gateway(binary, "epoll", "auto", library) as gateway:
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


def slab():
    """Bytes of kernel memory in slabs; None where only root may know."""
    try:
        lines = Path("/proc/slabinfo").read_text().splitlines()[2:]
    except OSError:
        return None
    # name, active objects, all objects, bytes of each
    return sum(int(active) * int(size) for _, active, _, size, *_ in map(str.split, lines))


def direct_pairs():
    """Kernel memory of a connection that no proxy carries: two sockets of this process."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    pairs, sizes = [], []
    for count in (FEW, MANY):
        while len(pairs) < count:
            client = socket.create_connection(listener.getsockname())
            pairs.append((client, listener.accept()[0]))
        time.sleep(0.3)
        sizes.append(slab())
    for end in [listener, *(end for pair in pairs for end in pair)]:
        end.close()
    return (sizes[1] - sizes[0]) / (MANY - FEW)


def carried_pairs(binary):
    """The same with a gateway in between, whose sockets are two more."""
    sizes = []
    with Gateway(binary, "epoll", "auto") as gateway:
        for count in (FEW, MANY):
            gateway.open(count)
            time.sleep(0.3)
            sizes.append(slab())
    return (sizes[1] - sizes[0]) / (MANY - FEW)


def kernel(block, binary):
    """Kernel memory per session: two connections less the one that there would be anyway."""
    if slab() is None:
        return block.say("kernel memory: not measured, /proc/slabinfo is for root")
    direct, carried = direct_pairs(), carried_pairs(binary)
    block.row("kernel slabs, a connection without proxy", "%.0f B" % direct)
    block.row("kernel slabs, a session of the gateway", "%.0f B, so %.0f B of its own" % (
        carried, carried - direct))


block = Block("0004", [("--upsplice", str(ROOT / "target/release/upsplice"), "the binary")])
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
block.say("PSS of the process with %d idle sessions less that with %d, per session; one worker" % (
    MANY, FEW))
binary = block.options.upsplice
found = {(runtime, engine): slope(block, binary, runtime, engine)
         for runtime, engine in (("epoll", "auto"), ("epoll", "splice"), ("epoll", "copy"),
                                 ("epoll", "uring"), ("uring", "splice"))}
blocks(block, binary)
kernel(block, binary)
# A session on a ring has operations in flight, and what they refer to.
idle = {key: value for key, value in found.items() if key[1] != "uring"}
block.claim(all(per[0] < BYTES_MAX for per, *_ in idle.values()),
            "An idle session costs less than %d B: it holds no buffer." % BYTES_MAX)
block.claim(all(per[1] < per[0] + 128 for per, *_ in idle.values()),
            "What it has carried does not matter.")
block.claim(all(pipes[0] == pipes[1] for *_, pipes in found.values()),
            "Idle sessions hold no pipe: there are as many with %d as with %d." % (FEW, MANY))
block.claim(all(pipes[2] - pipes[1] <= 256 for *_, pipes in found.values()),
            "Nor do sessions that have carried bytes: a few pipes are kept by the worker.")
block.claim(all(more == 2 for _, more, _ in found.values()), "Two sockets are all it holds open.")
block.finish()
