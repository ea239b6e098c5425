#!/usr/bin/env python3
"""How evenly do five thousand sessions leave, and what do the others notice?"""

import base64
import http.client
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True
from note import ROOT, Block, median  # noqa: E402

IDLE, ECHOES, BYTES = 5000, 10, 64
ROUNDS, SECONDS = 3, 4
RATE = 1000
# Building is not part of it; the whole run ends before this.
SECONDS_MAX = 180
CORES = {"gateway": {0, 1}, "load": {2}, "watches": {3}}
CONFIG = """
[gateway]
workers = 1
access_log = false
admin = "unix:%s"
[[listener]]
address = "127.0.0.1:0"
[[route]]
name = "leaves"
path = "/leaves"
mode = "%s"
to = ["%s"]
[[route]]
name = "stays"
to = ["%s"]
"""
HANDSHAKE = (
    b"GET /leaves HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\n\r\n"
)
WAYS = {
    "over %d s, any number per second" % SECONDS: "over=%ds&rate=off" % SECONDS,
    "at once, at most %d per second" % RATE: "over=0&rate=%d/s" % RATE,
}


def built():
    """The lab's program and upsplice."""
    found = {}
    for argv in (["bench", "--bench", "lab", "--no-run", "--profile", "release"],
                 ["build", "--bin", "upsplice", "--release"]):
        argv = ["cargo", *argv, "--message-format", "json-render-diagnostics"]
        done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        for line in map(json.loads, done.stdout.splitlines()):
            if line.get("executable"):
                found[line["target"]["name"]] = line["executable"]
    return found["lab"], found["upsplice"]


def started(argv, cores, marker):
    """A process on these cores, and the address that it says it listens on."""
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               preexec_fn=lambda: os.sched_setaffinity(0, cores))
    for line in process.stdout:
        if marker in line:
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return process, line.rsplit(marker, 1)[1].split()[0]
    raise SystemExit("%s ended with %s" % (argv[0], process.wait()))


def idle_sessions(address, count):
    """So many sessions that say nothing, a hundred handshakes at a time."""
    host, port = address.rsplit(":", 1)
    sessions = []
    while len(sessions) < count:
        some = [socket.create_connection((host, int(port))) for _ in range(100)]
        for session in some:
            session.sendall(HANDSHAKE)
        for session in some:
            if not session.recv(4096).startswith(b"HTTP/1.1 101"):
                raise SystemExit("a session was refused")
        sessions += some
    return sessions


class Unix(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path):
        super().__init__("upsplice", timeout=20)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(path, method, query):
    connection = Unix(path)
    connection.request(method, "/v1/drain?" + query)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.status not in (200, 202):
        raise SystemExit("%s: %d %s" % (query, answer.status, body))


class Leaves(threading.Thread):
    """Closes sessions as their ends come, and notes when that was."""

    def __init__(self, sessions):
        super().__init__()
        self.left = {session.fileno(): session for session in sessions}
        self.times, self.began = [], time.monotonic()

    def run(self):
        os.sched_setaffinity(0, CORES["watches"])
        poll = select.epoll()
        for descriptor in self.left:
            poll.register(descriptor, select.EPOLLIN)
        while self.left:
            for descriptor, _ in poll.poll(30):
                # An end, or a Close and then one: the first thing that comes counts.
                self.times.append(time.monotonic() - self.began)
                poll.unregister(descriptor)
                self.left.pop(descriptor).close()


def load(lab, address, seconds):
    argv = [lab, "load", "--to", address, "--workload", "echo", "--sessions", str(ECHOES),
            "--size", str(BYTES), "--seconds", str(seconds)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True,
                          preexec_fn=lambda: os.sched_setaffinity(0, CORES["load"]))
    return json.loads(done.stdout)


def most_in_a_second(times):
    """The most ends within any second."""
    most = first = 0
    for last, moment in enumerate(times):
        while moment - times[first] >= 1:
            first += 1
        most = max(most, last - first + 1)
    return most


def distance(times, seconds):
    """How far the ends are from a uniform spread: the largest difference of the two distributions."""
    count = len(times)
    return max(abs((at + 0.5) / count - min(moment / seconds, 1))
               for at, moment in enumerate(times))


def measure(lab, address, path):
    """Echo latencies and times of the ends, by way and round."""
    found = {name: [] for name in WAYS}
    for _ in range(ROUNDS):
        for name, query in WAYS.items():
            sessions = idle_sessions(address, IDLE)
            quiet = load(lab, address, 1.5)
            leaves = Leaves(sessions)
            ask(path, "POST", "route=leaves&" + query)
            leaves.start()
            busy = load(lab, address, SECONDS)
            leaves.join()
            ask(path, "DELETE", "route=leaves")
            found[name].append((quiet, busy, sorted(leaves.times)))
    return found


def report(block, modes):
    block.say("%-10s %-34s %12s %8s %12s   %s"
              % ("mode", "", "most in 1 s", "last, s", "not uniform", "others: × p50; p99, µs"))
    for mode, found in modes.items():
        for name, rounds in found.items():
            most = max(most_in_a_second(times) for _, _, times in rounds)
            last = max(times[-1] for _, _, times in rounds)
            spread = median([distance(times, times[-1]) for _, _, times in rounds])
            p50 = median([busy["p50_us"] / quiet["p50_us"] for quiet, busy, _ in rounds])
            before, during = (median([pair[at]["p99_us"] for pair in rounds]) for at in (0, 1))
            block.say("%-10s %-34s %12d %8.2f %10.1f %%   %.2f; %.0f before, %.0f during"
                      % (mode, name, most, last, 100 * spread, p50, before, during))
            modes[mode][name] = (most, spread, p50, during)
    block.say()
    over, capped = zip(*(found.values() for found in modes.values()), strict=True)
    block.claim(all(spread < 0.03 for _, spread, _, _ in over),
                "Sessions leave uniformly over the time.")
    block.claim(all(most <= RATE for most, _, _, _ in capped),
                "In no second more leave than the rate allows.")
    block.claim(all(p50 < 1.1 and p99 < 5000 for ways in (over, capped) for _, _, p50, p99 in ways),
                "Most echoes of other sessions take no longer meanwhile; one in a hundred may, by less "
                "than 5 ms.")


def main():
    block = Block("0030")
    signal.alarm(0)
    lab, upsplice = built()
    signal.alarm(SECONDS_MAX)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    block.say("%d idle sessions of one route leave one worker, %d of another echo %d bytes; %d rounds"
              % (IDLE, ECHOES, BYTES, ROUNDS))
    block.say()
    modes, ends = {}, []
    with tempfile.TemporaryDirectory(prefix="upsplice-0030-") as folder:
        try:
            backend, address = started([lab, "backend"], CORES["load"], "listening on ")
            ends.append(backend)
            for mode in ("zero-copy", "inspect"):
                path = str(Path(folder) / (mode + ".sock"))
                config = Path(folder) / (mode + ".toml")
                config.write_text(CONFIG % (path, mode, address, address))
                gateway, door = started([upsplice, "run", "--config", str(config)],
                                        CORES["gateway"], "listening on ")
                ends.append(gateway)
                modes[mode] = measure(lab, door, path)
        finally:
            for process in reversed(ends):
                process.terminate()
                process.wait(60)
    report(block, modes)
    block.finish()


main()
