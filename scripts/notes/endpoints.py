#!/usr/bin/env python3
"""Endpoints that are processes and can be made to fail, and traffic that is compared byte by byte.

    scripts/notes/endpoints.py PORT    an endpoint, as `Endpoint` starts it
"""

import collections
import random
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time

# Each session has one piece on its way; so many pieces begin theirs in a moment.
PIECE, MOMENT, PIECES = 1024, 0.02, 60
PATTERN = random.Random(33).randbytes(1 << 20)


def endpoint(port):
    """Answers checks as signals say, grants every upgrade, and gives every byte back."""
    most_descriptors()
    passes = [True]
    signal.signal(signal.SIGUSR1, lambda *_: passes.__setitem__(0, False))
    signal.signal(signal.SIGUSR2, lambda *_: passes.__setitem__(0, True))
    listener = reserved(port)
    listener.listen(1024)
    print("ready", flush=True)
    poll, peers, granted = select.epoll(), {}, set()
    poll.register(listener, select.EPOLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                peer, _ = listener.accept()
                peers[peer.fileno()] = peer
                poll.register(peer, select.EPOLLIN)
                continue
            peer = peers[fd]
            if not serve(peer, port, passes[0], granted):
                poll.unregister(peer)
                granted.discard(fd)
                del peers[fd]
                peer.close()


def serve(peer, port, passes, granted):
    """Answers what has come; false at the end."""
    try:
        data = peer.recv(65536)
        if data.startswith(b"GET /health ") and peer.fileno() not in granted:
            status = "204 No Content" if passes else "503 Service Unavailable"
            peer.sendall(("HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % status).encode())
            return False
        if data and peer.fileno() not in granted:
            granted.add(peer.fileno())
            data = (b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: raw\r\n"
                    b"Endpoint: %d\r\n\r\n" % port)
        peer.sendall(data)
        return bool(data)
    except OSError:
        return False


def reserved(port):
    """A socket of this port that does not listen: others may, and where none does it is refused."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", port))
    return held


def most_descriptors():
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Endpoint:
    """A process on a port of its own, which it may lose and get again."""

    def __init__(self):
        self.held = reserved(0)
        self.port = self.held.getsockname()[1]
        self.begin()

    def begin(self):
        self.process = subprocess.Popen([sys.executable, __file__, str(self.port)],
                                        stdout=subprocess.PIPE)
        self.process.stdout.readline()

    def name(self):
        return "127.0.0.1:%d" % self.port

    def end(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Session:
    """A client, and how much of its stream has come back."""

    def __init__(self, sock, route, port, number):
        self.sock, self.route, self.port = sock, route, port
        self.at = number * 7919 % len(PATTERN)
        self.left = b""
        self.came, self.is_exact, self.ended = 0, True, None
        sock.setblocking(False)

    def send(self):
        self.at = (self.at + PIECE) % (len(PATTERN) - PIECE)
        self.left = PATTERN[self.at:self.at + PIECE]
        self.sock.sendall(self.left)

    def receive(self):
        """False when it has ended."""
        data = self.sock.recv(65536)
        self.is_exact = self.is_exact and self.left.startswith(data)
        self.left = self.left[len(data):]
        self.came += len(data)
        return bool(data)


class Traffic(threading.Thread):
    """Sends to all sessions in turn, and compares what comes back with what was sent."""

    def __init__(self):
        super().__init__(daemon=True)
        self.lock, self.poll = threading.Lock(), select.epoll()
        self.live, self.row, self.failed = {}, collections.deque(), None
        self.inexact = 0

    def add(self, session):
        with self.lock:
            self.live[session.sock.fileno()] = session
            self.poll.register(session.sock, select.EPOLLIN)
            self.row.append(session)

    def end(self, session):
        """The session has ended, or is to."""
        if session.ended is None:
            session.ended = time.monotonic()
            self.poll.unregister(session.sock)
            del self.live[session.sock.fileno()]
            self.inexact += not session.is_exact
            session.sock.close()

    def close(self, sessions):
        with self.lock:
            for session in sessions:
                self.end(session)

    def run(self):
        begin = 0
        while True:
            events = self.poll.poll(MOMENT)
            with self.lock:
                for fd, _ in events:
                    if fd in self.live:
                        self.hear(self.live[fd])
                if time.monotonic() >= begin + MOMENT:
                    begin = time.monotonic()
                    for _ in range(min(PIECES, len(self.row))):
                        self.tell(self.row.popleft())

    def hear(self, session):
        try:
            goes_on = session.receive()
        except BlockingIOError:
            # It was another one's descriptor when this was reported.
            return
        except OSError:
            goes_on = False
        if not goes_on:
            self.end(session)
        elif not session.left:
            self.row.append(session)

    def tell(self, session):
        try:
            if session.ended is None:
                session.send()
        except OSError:
            self.end(session)

    def sessions(self, **wanted):
        with self.lock:
            return [session for session in self.live.values()
                    if all(getattr(session, name) == value for name, value in wanted.items())]

    def comes_back(self, sessions):
        """Whether each of them gets a piece back that is sent from now on."""
        before = {session: session.came for session in sessions}
        return waited(20, lambda: all(
            session.ended is None and session.is_exact and session.came >= came + 2 * PIECE
            for session, came in before.items()))


def waited(seconds, condition):
    """Whether it came about in this time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


if __name__ == "__main__":
    endpoint(int(sys.argv[1]))
