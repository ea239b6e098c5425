"""U9: bytes glued to a head are owed to the other side: once, whole, first."""

import time

from backend import switching
from cases import POLICY, Attempt, Wrong, case, websocket
from wire import Ended, Head, Timeout

PROTOCOL = "RFC 9110 §7.8"
SIZES = (0, 1, 1500, 65536)


def filler(size, salt):
    """Bytes in which every loss, repeat or swap shows."""
    return b"".join(b"%c%07d" % (salt, at) for at in range(size // 8 + 1))[:size]


def granting(glued, pieces=None):
    """A backend that greets in the same write as its 101; `pieces` cuts that write at an offset."""

    def script(peer):
        peer.heads.append(peer.head())
        peer.sent = switching(peer.heads[0]) + glued
        peer.send_pieces(peer.sent, pieces) if pieces else peer.send(peer.sent)
        peer.read_to_end()

    return script


def both_in_order(attempt, from_backend, from_client):
    """The glued bytes first, then what follows, on both sides and not a byte more."""
    if attempt.status != 101:
        raise Wrong(attempt.word)
    attempt.client.send(b"<client>")
    attempt.upstream_gets(b"<client>")
    attempt.upstream.send(b"<backend>")
    seen = attempt.client.take(len(from_backend) + 9)
    if seen != from_backend + b"<backend>":
        raise Wrong("other bytes at the client")
    arrived = attempt.upstream.rest
    if arrived != from_client + b"<client>":
        raise Wrong(f"{len(arrived) - 8} of {len(from_client)} bytes at the backend")
    return f"{len(from_backend)} and {len(from_client)} bytes in order"


for size in SIZES:

    @case(
        f"U9.backend-{size}",
        PROTOCOL,
        f"{size} bytes glued to the 101 reach the client first",
        smoke=True,
    )
    def _(slot, size=size):
        glued = filler(size, ord("b"))
        return both_in_order(Attempt(slot, websocket(), script=granting(glued)), glued, b"")

    @case(
        f"U9.client-{size}",
        POLICY,
        f"{size} bytes glued to the request reach the backend after the 101",
        smoke=True,
    )
    def _(slot, size=size):
        glued = filler(size, ord("c"))
        return both_in_order(Attempt(slot, websocket() + glued, script=granting(b"")), b"", glued)

    @case(f"U9.both-{size}", POLICY, f"{size} bytes glued on either side: both arrive", smoke=True)
    def _(slot, size=size):
        there, here = filler(size, ord("b")), filler(size, ord("c"))
        return both_in_order(Attempt(slot, websocket() + here, script=granting(there)), there, here)


def splits(length):
    """Offsets to cut at: every byte of the head, and through the glued bytes."""
    return range(1, length + 5)


@case(
    "U9.split-101",
    PROTOCOL,
    "a 101 with 5 bytes glued, cut in two at every place, arrives whole",
    smoke=True,
)
def _(slot):
    length = len(switching(Head(websocket())))
    for at in splits(length):
        attempt = Attempt(slot, websocket(), script=granting(b"hello", pieces=at))
        try:
            both_in_order(attempt, b"hello", b"")
        except (Timeout, Ended, Wrong) as error:
            raise Wrong(f"cut at {at} of {length}: {error or 'timeout'}") from error
        attempt.client.close()
    return f"{len(splits(length))} cuts, all whole"


@case(
    "U9.split-request",
    POLICY,
    "a request with 5 bytes glued, cut in two at every place, arrives whole",
    smoke=True,
)
def _(slot):
    length = len(websocket())
    for at in splits(length):
        request = websocket() + b"howdy"
        attempt = Attempt(slot, [request[:at], request[at:]], script=granting(b""))
        try:
            both_in_order(attempt, b"", b"howdy")
        except (Timeout, Ended, Wrong) as error:
            raise Wrong(f"cut at {at} of {length}: {error or 'timeout'}") from error
        attempt.client.close()
    return f"{len(splits(length))} cuts, all whole"


def words_and_fin(slot):
    """A client that says all it has to say, and ends, before anything is answered."""

    def script(peer):
        peer.heads.append(peer.head())
        time.sleep(0.1)
        peer.send(switching(peer.heads[0]))
        peer.read_to_end()
        peer.send(b"late reply")
        peer.close()

    slot.backend.begin(script)
    client = slot.connect()
    client.send(websocket() + b"only words")
    client.finish()
    try:
        answer = client.head()
        reply = client.take(10)
    except Ended as error:
        raise Wrong("closed, no answer" if not client.received else "reply lost") from error
    if answer.status != 101 or reply != b"late reply":
        raise Wrong(str(answer.status))
    if slot.backend.peers[0].rest != b"only words":
        raise Wrong("glued bytes lost")


@case(
    "U9.client-fin",
    POLICY,
    "glued bytes and FIN at once, ten times: they arrive, then the end, and the reply comes back",
    smoke=True,
)
def _(slot):
    for turn in range(10):
        try:
            words_and_fin(slot)
        except Wrong as error:
            raise Wrong(f"turn {turn + 1}: {error}") from error
    return "10 times bytes, end, reply"


@case(
    "U9.backend-fin",
    PROTOCOL,
    "a 101 with glued bytes and FIN at once: the client gets them, then the end",
    smoke=True,
)
def _(slot):
    def script(peer):
        peer.heads.append(peer.head())
        peer.send(switching(peer.heads[0]) + b"farewell")
        peer.finish()
        peer.read_to_end()

    attempt = Attempt(slot, websocket(), script=script)
    if attempt.status != 101:
        raise Wrong(attempt.word)
    try:
        attempt.client.take(8)
    except Ended as error:
        raise Wrong("glued bytes lost") from error
    return "bytes, then " + attempt.client.read_to_end()
