#!/usr/bin/env python3
"""Does a list of ten thousand sessions disturb the others?"""

import base64
import collections
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

IDLE, ECHOES, BYTES = 10_000, 10, 64
ROUNDS, SECONDS = 15, 0.8
PAGE = 1000
# Building is not part of it; the whole run ends before this.
SECONDS_MAX = 180
# The worker and the admin thread; what loads and answers them; who asks.
CORES = {"gateway": {0, 1}, "load": {2}, "asks": {3}}
CONFIG = """
[gateway]
workers = 1
access_log = false
admin = "unix:%s"
[[listener]]
address = "127.0.0.1:0"
[[route]]
name = "echo"
to = ["%s"]
"""
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\n\r\n"
)


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


class Asks:
    """Asks the gateway again and again, in a thread of its own."""

    def __init__(self, path, question, pause):
        self.path, self.question, self.pause = path, question, pause
        self.times, self.over = [], threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def run(self):
        os.sched_setaffinity(0, CORES["asks"])
        while not self.over.is_set():
            began = time.monotonic()
            self.question(self.path)
            self.times.append(time.monotonic() - began)
            self.over.wait(self.pause)


def get(connection, target):
    connection.request("GET", target)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise SystemExit("%s: %d %s" % (target, answer.status, body))
    return body


def list_all(path):
    """Every session, page by page; how many there were."""
    connection, cursor, count = Unix(path), "", 0
    while True:
        page = json.loads(get(connection, "/v1/sessions?limit=%d%s" % (PAGE, cursor)))
        count += len(page["sessions"])
        if "cursor" not in page:
            connection.close()
            return count
        cursor = "&cursor=" + page["cursor"]


def scrape(path):
    connection = Unix(path)
    get(connection, "/metrics")
    connection.close()


def find_nobody(path):
    """A session that is not there is looked for everywhere."""
    connection = Unix(path)
    connection.request("GET", "/v1/sessions/" + "0" * 26)
    connection.getresponse().read()
    connection.close()


def load(lab, address):
    argv = [lab, "load", "--to", address, "--workload", "echo", "--sessions", str(ECHOES),
            "--size", str(BYTES), "--seconds", str(SECONDS)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True,
                          preexec_fn=lambda: os.sched_setaffinity(0, CORES["load"]))
    return json.loads(done.stdout)


def measure(lab, address, path):
    """Latencies by way and round, and what the asking took."""
    ways = {
        "nobody asks": None,
        "the same once more": None,
        "all listed, once a second": (list_all, 1),
        "all listed, again and again": (list_all, 0),
        "one searched for, again and again": (find_nobody, 0),
        "metrics, again and again": (scrape, 0),
    }
    found, asked = collections.defaultdict(list), collections.defaultdict(list)
    for turn in range(ROUNDS):
        names = list(ways)
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            if ways[name] is None:
                found[name].append(load(lab, address))
                continue
            with Asks(path, *ways[name]) as asks:
                found[name].append(load(lab, address))
            asked[name] += asks.times
    return found, asked


def report(block, found, asked):
    base = found["nobody asks"]
    block.say("%-36s %16s %16s   × nobody asks" % ("", "p50, µs", "p99, µs"))
    ratios = {}
    for name, rounds in found.items():
        row = []
        for key in ("p50_us", "p99_us"):
            row.append(median([measured[key] for measured in rounds]))
            pairs = zip(rounds, base, strict=True)
            ratios[name, key] = median([own[key] / other[key] for own, other in pairs])
        block.say("%-36s %16.0f %16.0f   %.2f, %.2f"
                  % (name, *row, ratios[name, "p50_us"], ratios[name, "p99_us"]))
    block.say()
    for name, times in asked.items():
        block.say("%-36s %5d times, %.1f ms each, the longest %.1f ms"
                  % (name, len(times), median(times) * 1e3, max(times) * 1e3))
    block.say()
    same = ratios["the same once more", "p99_us"]
    often = "all listed, once a second"
    block.claim(ratios[often, "p50_us"] < 1.1 and ratios[often, "p99_us"] < max(1.25, 1.1 * same),
                "A list of all sessions once a second is not felt by the others.")
    always = "all listed, again and again"
    block.claim(ratios[always, "p50_us"] < 2 and ratios[always, "p99_us"] < 2,
                "Without any pause it costs them less than their time once more.")


def main():
    block = Block("0023")
    signal.alarm(0)
    lab, upsplice = built()
    signal.alarm(SECONDS_MAX)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Two descriptors each, and some for all the rest.
    idle = min(IDLE, (most - 200) // 200 * 100)
    ends = []
    with tempfile.TemporaryDirectory(prefix="upsplice-0023-") as folder:
        path = str(Path(folder) / "admin.sock")
        try:
            backend, address = started([lab, "backend"], CORES["load"], "listening on ")
            ends.append(backend)
            config = Path(folder) / "upsplice.toml"
            config.write_text(CONFIG % (path, address))
            gateway, address = started([upsplice, "run", "--config", str(config)],
                                       CORES["gateway"], "listening on ")
            ends.append(gateway)
            select.select([], [], [], 0.2)
            held = idle_sessions(address, idle)
            block.say("%d idle sessions in one worker, %d more echo %d bytes; medians of %d rounds"
                      % (list_all(path), ECHOES, BYTES, ROUNDS))
            block.say()
            report(block, *measure(lab, address, path))
            del held
        finally:
            for process in reversed(ends):
                process.terminate()
                process.wait(60)
    block.finish()


main()
