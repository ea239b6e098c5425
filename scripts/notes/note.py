"""What the kernel notes' scripts share: a block of results, and the way into its note.

    scripts/notes/NNNN.py            print the block
    scripts/notes/NNNN.py --write    print it, and put it into kernel-notes/NNNN-*.md

A claim is checked before it is printed: one that does not hold is printed as `=> REFUTED`, and the
exit status is 1. So a `=>` line in a note is never older than the numbers above it.
"""

import argparse
import ctypes
import datetime
import errno
import fcntl
import os
import platform
import re
import select
import signal
import socket
import statistics
import struct
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
NOTES = ROOT / "kernel-notes"
BEGIN, END = "<!-- result:begin -->", "<!-- result:end -->"
SECONDS_MAX = 60

NONBLOCK = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
SIOCINQ, SIOCOUTQ, SIOCOUTQNSD, SIOCATMARK = 0x541B, 0x5411, 0x894B, 0x8905
F_SETPIPE_SZ, F_GETPIPE_SZ = 1031, 1032
POLL_NAMES = [(name, getattr(select, name))
              for name in "POLLIN POLLOUT POLLPRI POLLERR POLLHUP POLLRDHUP".split()]

libc = ctypes.CDLL(None, use_errno=True)
libc.recv.restype = libc.splice.restype = ctypes.c_ssize_t
libc.splice.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p,
                        ctypes.c_size_t, ctypes.c_uint]
libc.recv.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]


class Block:
    """The lines of one run."""

    def __init__(self, number, options=None):
        self.number, self.lines, self.holds = number, [], True
        parser = argparse.ArgumentParser(prog="scripts/notes/%s.py" % number)
        parser.add_argument("--write", action="store_true", help="put the block into its note")
        for flag, default, text in options or ():
            parser.add_argument(flag, default=default, help=text)
        self.options = parser.parse_args()
        # Nothing here may hang: a wait without a bound ends the run.
        signal.alarm(SECONDS_MAX)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        self.say("%s, Linux %s, %s" % (datetime.date.today(), platform.release(), cpu()))
        self.say("$ scripts/notes/%s.py --write" % number)
        self.say()

    def say(self, text=""):
        print(text, flush=True)
        self.lines.append(text.rstrip())

    def row(self, what, saw):
        self.say("%-46s %s" % (what, saw))

    def claim(self, holds, text):
        """An interpretation, with the condition under which it is one."""
        self.holds = self.holds and bool(holds)
        self.say("=> %s%s" % ("" if holds else "REFUTED: ", text))

    def finish(self):
        """Writes when asked to, and ends the program."""
        if self.options.write:
            [path] = NOTES.glob(self.number + "-*.md")
            block = "".join(("    " + line).rstrip() + "\n" for line in self.lines)
            replace(path, r"(?s)(%s\n).*(%s)" % (BEGIN, END), r"\g<1>%s\g<2>" % quoted(block))
            row = r"(?m)^(\| \[%s\].*\| )[^|]*( \|[^|]*\|)$" % self.number
            replace(NOTES / "README.md", row, r"\g<1>%s\g<2>" % quoted(platform.release()))
        sys.exit(0 if self.holds else 1)


def quoted(text):
    return text.replace("\\", r"\\")


def replace(path, pattern, replacement):
    text, count = re.subn(pattern, replacement, path.read_text(encoding="utf-8"))
    if count != 1:
        raise SystemExit("%s: %d places for the result" % (path.name, count))
    path.write_text(text, encoding="utf-8")


def cpu():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return "%d × %s" % (os.cpu_count(), line.split(":", 1)[1].strip())
    return "%d × %s" % (os.cpu_count(), platform.machine())


def tcp_pair(receive_buffer=None, send_buffer=None):
    """Two ends of one loopback connection, both non-blocking and without Nagle's delay."""
    with socket.socket() as listener:
        if receive_buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        client = socket.socket()
        if send_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
    for end in (client, accepted):
        end.setblocking(False)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client, accepted


def pipe(flags=0):
    return os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC | flags)


def pipe_size(end):
    return fcntl.fcntl(end, F_GETPIPE_SZ)


def attempt(call, *arguments):
    """What a call returned, or the name of its error."""
    try:
        return call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]


def splice(source, sink, length=1 << 20):
    return attempt(os.splice, number(source), number(sink), length, None, None, NONBLOCK)


def number(end):
    return end if isinstance(end, int) else end.fileno()


def ask(end, request):
    """An ioctl that answers with one int."""
    return struct.unpack("i", fcntl.ioctl(number(end), request, bytes(4)))[0]


def poll(end, milliseconds=0, events=select.POLLIN | select.POLLPRI | select.POLLRDHUP):
    """Readiness by name, after at most that long."""
    poller = select.poll()
    poller.register(end, events)
    seen = dict(poller.poll(milliseconds)).get(number(end), 0)
    return "+".join(name for name, bit in POLL_NAMES if seen & bit) or "nothing"


def until(condition, what):
    """Waits for something that loopback does at once; bounded."""
    deadline = time.monotonic() + 5
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("waited in vain until " + what)
        time.sleep(0.0005)


def delivered(sender):
    """Waits until the other side's kernel has confirmed all that was sent, an end included."""
    until(lambda: ask(sender, SIOCOUTQ) == 0, "all is delivered")


def nanoseconds(calls, count=20000, rounds=7):
    """Name → the least of several averages of one call, the loop around it included; interleaved."""
    averages = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter_ns()
            for _ in range(count):
                call()
            averages[name].append((time.perf_counter_ns() - start) / count)
    return {name: min(found) for name, found in averages.items()}


def median(values):
    return statistics.median(values)
