"""The controlled backend: records what reaches it, answers by the script of the case."""

import base64
import hashlib
import re
import socket
import threading

from wire import Ended, Peer, Timeout

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BODY = b"backend said so\n"


def accept_of(head):
    """The `Sec-WebSocket-Accept` that answers this request."""
    key = (head.get("sec-websocket-key") or [""])[0].encode("latin-1")
    return base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()


def response(status, fields=(), body=BODY, version="1.1"):
    """An ordinary response, framed by Content-Length where it may have a body."""
    lines = [f"HTTP/{version} {status} Said"]
    lines += [f"{name}: {value}" for name, value in fields]
    if status >= 200 and status not in (204, 304):
        lines.append(f"Content-Length: {len(body)}")
    else:
        body = b""
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def switching(head, protocol=None, accept=None, extra=(), connection="Upgrade", version="1.1"):
    """A 101. `protocol` and `connection` default to what was asked, "" leaves the field out."""
    offered = ",".join(head.get("upgrade")).split(",")[0].strip() or "websocket"
    protocol = offered if protocol is None else protocol
    fields = [("Connection", connection)] if connection else []
    if protocol:
        fields.append(("Upgrade", protocol))
    if accept is None and head.get("sec-websocket-key"):
        accept = [accept_of(head)]
    fields += [("Sec-WebSocket-Accept", value) for value in accept or []]
    return response(101, fields + list(extra), version=version)


def willing(head):
    """The answer of a backend that switches to whatever it is offered."""
    return switching(head) if head.get("upgrade") else response(200)


def answering(answer, hold=0.0):
    """A script: each request gets `answer(head)`, after `hold` seconds in which early bytes are noted."""

    def script(peer):
        while True:
            head = peer.head()
            peer.heads.append(head)
            peer.listen(hold)
            peer.early = peer.rest
            peer.send(answer(head))
            if peer.heads[-1].get("upgrade"):
                peer.read_to_end()

    return script


class Backend:
    """A listener whose connections belong to the case that runs now.

    A proxy may still deliver a request of the case before; its `X-Case` tells, and it does not count.
    """

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.accepted = []
        self.script = None
        self.tag = b""
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            peer = Peer(sock)
            peer.heads, peer.early = [], b""
            with self.lock:
                script = self.script
                self.accepted.append(peer)
            threading.Thread(target=self._serve, args=(peer, script), daemon=True).start()

    @staticmethod
    def _serve(peer, script):
        try:
            if script:
                script(peer)
        except (Timeout, Ended, OSError):
            pass

    def begin(self, script):
        """From here on connections are served by `script`; what came before is closed."""
        with self.lock:
            before, self.accepted, self.script = self.accepted, [], script
        for peer in before:
            peer.close()

    def end(self):
        """Closes what the case left open, so that no proxy can reuse it for the next one."""
        self.begin(None)

    @property
    def peers(self):
        """The connections of this case, in the order they came."""
        with self.lock:
            return [peer for peer in self.accepted if self._mine(peer)]

    def _mine(self, peer):
        found = re.search(rb"(?i)\nX-Case: *(\w+)", bytes(peer.received))
        return found is None or found.group(1) == self.tag

    @property
    def heads(self):
        """Every request the scripts have read, on all connections."""
        return [head for peer in self.peers for head in peer.heads]

    def saw(self, needle):
        return any(needle in bytes(peer.received) for peer in self.peers)

    def close(self):
        self.listener.close()
