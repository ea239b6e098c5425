"""Raw connections: every byte that came is kept, every wait is bounded."""

import re
import socket
import struct
import time

WAIT = 6.0  # longest wait for anything; above the proxies' own handshake timers (config/)
QUIET = 0.25  # how long "nothing came" is watched before it is believed


class Timeout(Exception):
    """The other side neither sent nor closed within the wait."""


class Ended(Exception):
    """The connection ended before what was waited for had come."""


class Head:
    """A request or response head, read as a lenient backend would read it."""

    def __init__(self, raw):
        self.raw = bytes(raw)
        lines = re.split(rb"\r?\n", self.raw.rstrip(b"\r\n"))
        self.start = lines[0]
        self.fields = []
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            self.fields.append((name.decode("latin-1").lower(), value.strip().decode("latin-1")))

    def get(self, name):
        """All values of a field, one per line it came in."""
        return [value for field, value in self.fields if field == name.lower()]

    def tokens(self, name):
        """The members of a list field, lower case."""
        members = ",".join(self.get(name)).split(",")
        return [member.strip().lower() for member in members if member.strip()]

    @property
    def status(self):
        """The status of a response, or None for what is no status line."""
        found = re.match(rb"HTTP/1\.[01] (\d{3})(?: |$)", self.start)
        return int(found.group(1)) if found else None

    @property
    def target(self):
        """The request target as received."""
        parts = self.start.split(b" ")
        return parts[1] if len(parts) > 1 else b""


class Peer:
    """One end of a connection."""

    def __init__(self, sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.received = bytearray()
        self.used = 0  # bytes of `received` that a head or a body has taken
        self.ended = None  # "eof" or "reset"

    @classmethod
    def connect(cls, port):
        return cls(socket.create_connection(("127.0.0.1", port), timeout=WAIT))

    def send(self, data):
        self.sock.settimeout(WAIT)
        try:
            self.sock.sendall(data)
        except TimeoutError as error:
            raise Timeout() from error
        except OSError as error:
            raise Ended() from error

    def send_pieces(self, data, at):
        """Two writes that the other side cannot but see as two reads."""
        self.send(data[:at])
        time.sleep(0.004)
        self.send(data[at:])

    def _fill(self, deadline):
        """One read into `received`; False at the end or when the deadline has passed."""
        left = deadline - time.monotonic()
        if self.ended or left <= 0:
            return False
        try:
            self.sock.settimeout(left)
            piece = self.sock.recv(262144)
        except TimeoutError:
            return False
        except ConnectionResetError:
            self.ended = "reset"
            return False
        except OSError:
            self.ended = "eof"
            return False
        if not piece:
            self.ended = "eof"
            return False
        self.received += piece
        return True

    def _until(self, ready, wait):
        deadline = time.monotonic() + wait
        while not ready():
            if not self._fill(deadline) and not ready():
                raise Ended() if self.ended else Timeout()

    @property
    def rest(self):
        """What came and has not been taken."""
        return bytes(self.received[self.used :])

    def head(self, wait=WAIT):
        """The next head. Raises `Ended` when the connection ends before it is whole."""
        blank = re.compile(rb"\r?\n\r?\n")
        self._until(lambda: blank.search(self.received, self.used), wait)
        end = blank.search(self.received, self.used).end()
        raw, self.used = self.received[self.used : end], end
        return Head(raw)

    def take(self, count, wait=WAIT):
        """The next `count` bytes."""
        self._until(lambda: len(self.received) - self.used >= count, wait)
        piece = bytes(self.received[self.used : self.used + count])
        self.used += count
        return piece

    def listen(self, seconds=QUIET):
        """Reads whatever comes for that long."""
        deadline = time.monotonic() + seconds
        while self._fill(deadline):
            pass

    def read_to_end(self, wait=WAIT):
        """Reads to the end of the connection: "eof" or "reset", or `Timeout`."""
        self._until(lambda: self.ended is not None, wait)
        return self.ended

    def finish(self):
        """FIN: no more from here, still reading."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise Ended() from error

    def reset(self):
        """RST instead of FIN; nothing on a socket that is closed already."""
        if self.sock.fileno() >= 0:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.sock.close()

    def close(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()
