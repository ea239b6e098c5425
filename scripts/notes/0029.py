#!/usr/bin/env python3
"""What do a thousand reloads do to five thousand live sessions?"""

import http.client
import json
import multiprocessing
import random
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

sys.dont_write_bytecode = True
from note import ROOT, Block, median  # noqa: E402

SESSIONS, RELOADS = 5000, 1000
# Sessions that have to give back what they are sent after each reload, picked anew each time.
ASKED, PIECE = 20, 2000
SECONDS_MAX = 280
CONFIG = """
[gateway]
workers = 2
access_log = false
admin = "unix:%(folder)s/admin.sock"
[[listener]]
address = "127.0.0.1:0"
%(listener)s
[[route]]
name = "kept"
path = "/kept"
protocols = ["any"]
engine = "splice"
to = ["%(to)s"]
[[route]]
name = "turns"
path = "/turns"
protocols = ["any"]
to = ["%(to)s"]
rekey = %(rekey)s
"""
SECOND = """[[listener]]
address = "unix:%(folder)s/second.sock"
"""
THIRD = """[[route]]
name = "comes-and-goes"
path = "/third"
to = ["%(to)s"]
"""


def head(path):
    return ("GET %s HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n"
            % path).encode()


def echo(listener):
    """Grants every upgrade, and gives every byte back."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    poll, peers = select.epoll(), {}
    poll.register(listener, select.EPOLLIN)
    granted = set()
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                peer, _ = listener.accept()
                peers[peer.fileno()] = peer
                poll.register(peer, select.EPOLLIN)
                continue
            peer = peers[fd]
            try:
                data = peer.recv(65536)
                if data and fd not in granted:
                    granted.add(fd)
                    data = (b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n"
                            b"Upgrade: raw\r\n\r\n")
                peer.sendall(data)
            except OSError:
                data = b""
            if not data:
                poll.unregister(peer)
                granted.discard(fd)
                del peers[fd]
                peer.close()


def program():
    done = subprocess.run(
        ["cargo", "build", "--bin", "upsplice", "--release", "--message-format",
         "json-render-diagnostics"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return next(line["executable"] for line in lines if line.get("executable"))


class Gateway:
    """The program, and the ways to speak to it."""

    def __init__(self, binary, folder, to):
        self.folder, self.to = folder, to
        self.file = Path(folder) / "upsplice.toml"
        self.write(0)
        self.process = subprocess.Popen([binary, "run", "--config", str(self.file)],
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in self.process.stdout:
            if "listening on 127" in line:
                host, port = line.rsplit(" ", 1)[1].strip().rsplit(":", 1)
                self.address = (host, int(port))
                break
        # What it says must not hold it up.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def write(self, turn):
        """One of twelve files: a route that changes, one that comes and goes, and so a listener."""
        values = {"folder": self.folder, "to": self.to}
        listener = SECOND % values if turn % 3 == 0 else ""
        text = CONFIG % {**values, "listener": listener, "rekey": "true" if turn % 2 else "false"}
        self.file.write_text(text + (THIRD % values if turn % 4 < 2 else ""))

    def ask(self, method, target):
        connection = http.client.HTTPConnection("upsplice", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(20)
        connection.sock.connect(self.folder + "/admin.sock")
        connection.request(method, target)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        if answer.status != 200:
            raise SystemExit("%s %s: %d %s" % (method, target, answer.status, body))
        return body

    def metric(self, name):
        lines = self.ask("GET", "/metrics").decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines
                   if line.startswith((name + " ", name + "{")))

    def memory(self):
        """Anonymous memory of its own, in KB."""
        for line in Path("/proc/%d/smaps_rollup" % self.process.pid).read_text().splitlines():
            if line.startswith("Pss_Anon:"):
                return int(line.split()[1])
        raise SystemExit("no Pss_Anon in smaps_rollup")

    def descriptors(self):
        return len(list(Path("/proc/%d/fd" % self.process.pid).iterdir()))


def opened(address, path, count):
    sessions = []
    while len(sessions) < count:
        some = [socket.create_connection(address) for _ in range(min(100, count - len(sessions)))]
        for session in some:
            session.settimeout(20)
            session.sendall(head(path))
        for session in some:
            if not session.recv(4096).startswith(b"HTTP/1.1 101"):
                raise SystemExit("a session was refused")
        sessions += some
    return sessions


def gives_back(sessions, chance):
    """Sends each a piece of its own; fails unless it comes back as it was."""
    pieces = [(session, chance.randbytes(PIECE)) for session in sessions]
    for session, piece in pieces:
        session.sendall(piece)
    for session, piece in pieces:
        came = b""
        while len(came) < PIECE:
            more = session.recv(PIECE - len(came))
            if not more:
                return False
            came += more
        if came != piece:
            return False
    return True


def run(block, gateway):
    count = min(SESSIONS, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500) // 2)
    chance = random.Random(29)
    kept = opened(gateway.address, "/kept", count - count // 10)
    turns = opened(gateway.address, "/turns", count // 10)
    sessions = kept + turns
    exact = gives_back(sessions, chance)
    # What the first twelve files need is no growth.
    for turn in range(12):
        gateway.write(turn)
        gateway.ask("POST", "/v1/reload")
    ended = gateway.metric("upsplice_sessions_total")
    before, held = gateway.memory(), gateway.descriptors()
    samples = []
    for turn in range(RELOADS):
        gateway.write(turn)
        answer = json.loads(gateway.ask("POST", "/v1/reload"))
        exact = gives_back(chance.sample(sessions, ASKED), chance) and exact
        if turn % 10 == 0:
            samples.append(gateway.memory())
    exact = gives_back(sessions, chance) and exact
    after, left = gateway.memory(), gateway.descriptors()
    closed = gateway.metric("upsplice_sessions_total") - ended
    open_now = gateway.metric("upsplice_sessions_open")
    generations = gateway.metric("upsplice_config_generations_live")
    block.say("%d sessions, a tenth of them of a route that every reload changes; generation %d"
              % (count, answer["generation"]))
    block.say("%d bytes to and fro after every reload, over %d sessions picked anew; all of them at "
              "the end" % (ASKED * PIECE, ASKED))
    block.say()
    block.say("closed %d, open %d; byte-exact: %s" % (closed, open_now, "yes" if exact else "NO"))
    block.say("memory %d KB before, %d KB after, %d KB at most (median %d KB)"
              % (before, after, max(samples), median(samples)))
    block.say("descriptors %d before, %d after; plans alive %d" % (held, left, generations))
    block.say()
    block.claim(closed == 0 and open_now == count and exact,
                "No session was closed, and every byte came back as it was.")
    block.claim(after < 1.03 * before and max(samples) < 1.1 * before, "Memory stays what it is.")
    # The last file may have the second listener, the one before it not: one per worker.
    block.claim(abs(left - held) <= 2 and generations == 1, "Nothing of an old file stays.")
    for session in sessions:
        session.close()


def main():
    block = Block("0029")
    signal.alarm(0)
    binary = program()
    signal.alarm(SECONDS_MAX)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    backend = multiprocessing.Process(target=echo, args=(listener,), daemon=True)
    backend.start()
    with tempfile.TemporaryDirectory(prefix="upsplice-0029-") as folder:
        gateway = Gateway(binary, folder, "127.0.0.1:%d" % listener.getsockname()[1])
        try:
            run(block, gateway)
        finally:
            gateway.process.terminate()
            gateway.process.wait(60)
            backend.terminate()
    block.finish()


main()
