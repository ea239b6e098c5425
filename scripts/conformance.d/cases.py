"""What a case is: an id, the rule it belongs to, where the expectation comes from, and a judge."""

import base64
import os
import threading
import time

from backend import answering, willing
from wire import QUIET, Ended

CASES = []
POLICY = "policy"  # upsplice's own rule; a proxy that does otherwise breaks no RFC
PROBE = b"\x81\x85\x01\x02\x03\x04QRSTU"  # what a client would send in a tunnel


class Wrong(Exception):
    """The expectation does not hold; the text is what was seen."""


class NotApplicable(Exception):
    """The proxy never comes into the situation the case is about."""


class Case:
    def __init__(self, name, basis, expects, judge, smoke):
        self.name, self.basis, self.expects = name, basis, expects
        self.judge, self.smoke = judge, smoke

    @property
    def rule(self):
        return self.name.split(".")[0]

    @property
    def must(self):
        """Whether an RFC demands it of a proxy."""
        return self.basis != POLICY


def case(name, basis, expects, smoke=False):
    """Registers the function below: it gets a slot, returns the word seen, or raises `Wrong`."""

    def register(judge):
        CASES.append(Case(name, basis, expects, judge, smoke))
        return judge

    return register


def new_key():
    return base64.b64encode(os.urandom(16)).decode()


RUNNING = (
    threading.local()
)  # `tag`: the case this thread runs, for the backend to know its requests


def head(method="GET", target="/", host="gateway.test", fields=(), version="1.1"):
    """A request head from its parts; nothing is checked or escaped."""
    lines = [f"{method} {target} HTTP/{version}"]
    lines += [f"Host: {host}"] if host is not None else []
    lines += [f"X-Case: {RUNNING.tag}"]
    lines += [line if isinstance(line, str) else f"{line[0]}: {line[1]}" for line in fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def websocket(extra=(), without=(), connection="Upgrade", upgrade="websocket", **parts):
    """A correct WebSocket request, but for what is named."""
    fields = [
        ("Connection", connection),
        ("Upgrade", upgrade),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", new_key()),
    ]
    kept = [field for field in fields if field[0] not in without]
    return head(fields=kept + list(extra), **parts)


def upgrade(token, target="/any", connection="Upgrade", extra=(), **parts):
    """A request for any other protocol."""
    fields = [("Connection", connection), ("Upgrade", token), *extra]
    return head(target=target, fields=fields, **parts)


class Attempt:
    """One request sent to the proxy, and what came of it on both sides."""

    def __init__(self, slot, request, answer=willing, hold=0.0, script=None):
        self.backend = slot.backend
        self.backend.begin(script or answering(answer, hold))
        self.client = slot.connect()
        self.interim = []
        self.response = None
        try:
            pieces = [request] if isinstance(request, bytes) else request
            for piece in pieces:
                self.client.send(piece)
                if len(pieces) > 1:
                    time.sleep(0.004)  # so that the pieces are read apart
            self.response = self._final()
        except Ended:
            pass  # no response: the connection ended first

    def _final(self):
        while True:
            found = self.client.head()
            if found.status is None:
                raise Wrong("an answer that is no HTTP")
            if found.status == 101 or found.status >= 200:
                return found
            self.interim.append(found)

    @property
    def status(self):
        return self.response.status if self.response else None

    @property
    def word(self):
        """What the client saw, in a word."""
        if self.response:
            return str(self.status)
        if self.interim:
            return f"{self.interim[-1].status}, then closed"
        return "closed, no answer"

    @property
    def forwarded(self):
        """The first request that reached the backend, or None."""
        return self.backend.heads[0] if self.backend.heads else None

    @property
    def upstream(self):
        """The backend's end of the first connection."""
        return self.backend.peers[0]

    # Expectations that several tables share.

    def opens(self):
        """A tunnel that carries bytes both ways."""
        if self.status != 101:
            raise Wrong(self.word)
        self.client.send(PROBE)
        self.upstream_gets(PROBE)
        self.upstream.send(PROBE)
        if self.client.take(len(PROBE)) != PROBE:
            raise Wrong("other bytes in the tunnel")
        return "tunnel opened"

    def upstream_gets(self, wanted, wait=3.0):
        """Waits until the backend's script thread has recorded these bytes."""
        deadline = time.monotonic() + wait
        while wanted not in bytes(self.upstream.received):
            if time.monotonic() > deadline:
                raise Wrong("bytes lost on the way to the backend")
            time.sleep(0.005)

    def no_tunnel(self, statuses=None):
        """No 101, and nothing the client sends afterwards reaches the backend."""
        if self.response and not self.client.ended:
            try:
                self.client.send(PROBE)
            except Ended:
                pass
            self.client.listen(QUIET)
        if self.backend.saw(PROBE):
            raise Wrong(
                "tunnel opened" if self.status == 101 else f"{self.word}, then tunnel opened"
            )
        if self.status == 101:
            raise Wrong("101 passed on")
        if statuses and self.status not in statuses:
            raise Wrong(self.word)
        return self.word

    def bad_gateway(self):
        """The backend's fault, told as such."""
        return self.no_tunnel(statuses=(502,))

    def refused(self, statuses=None):
        """Refused by the proxy itself: the backend saw nothing."""
        if self.backend.saw(b" HTTP/1."):
            raise Wrong(f"forwarded, {self.word}")
        if self.status is not None and self.status < 400:
            raise Wrong(self.word)
        if statuses and self.status not in statuses:
            raise Wrong(self.word)
        return self.word

    def refused_or(self, harmless):
        """Refused, or forwarded in a shape that `harmless(head)` accepts; it may also name the fault."""
        if self.forwarded is None:
            return self.refused()
        verdict = harmless(self.forwarded)
        if verdict is not True:
            raise Wrong(verdict or "forwarded as it was")
        return f"forwarded clean, {self.word}"


def second_request(target="/second"):
    """A whole request to follow another; its target is looked for at the backend."""
    return head(target=target)
