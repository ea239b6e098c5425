"""U10: the end of one direction is the end of one direction; a reset stays a reset."""

import hashlib
import threading
import time

from cases import POLICY, Attempt, Wrong, case, websocket
from backend import switching
from wire import WAIT, Ended, Timeout

BULK = 10 * 1024 * 1024


def bulk(salt):
    """10 MiB that compress to nothing and repeat nowhere."""
    block = hashlib.shake_256(salt).digest(65536)
    return b"".join(block[at:] + block[:at] for at in range(BULK // 65536))


def joined(slot, script):
    """A tunnel; `script(peer)` is what the backend does in it."""

    def whole(peer):
        peer.heads.append(peer.head())
        peer.send(switching(peer.heads[0]))
        script(peer)

    attempt = Attempt(slot, websocket(), script=whole)
    if attempt.status != 101:
        raise Wrong(attempt.word)
    return attempt


def eventually(true, wait=WAIT):
    """Polls for what another thread notes."""
    deadline = time.monotonic() + wait
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def whole_to_the_end(peer, data):
    """All of `data`, then the end of the connection, whatever kind."""
    try:
        got = peer.take(len(data), wait=15)
    except Ended as error:
        raise Wrong(f"cut after {len(peer.rest)} of {len(data)} bytes") from error
    if got != data:
        raise Wrong("other bytes")
    return peer.read_to_end()


@case(
    "U10.client-first",
    POLICY,
    "client ends first; the backend sees it and its late 10 MiB reply arrives whole",
    smoke=True,
)
def _(slot):
    reply, noted = bulk(b"reply"), []

    def script(peer):
        noted.append(peer.read_to_end())
        time.sleep(0.25)
        peer.send(reply)
        peer.finish()

    attempt = joined(slot, script)
    attempt.client.send(b"question")
    attempt.client.finish()
    ended = whole_to_the_end(attempt.client, reply)
    if noted != ["eof"]:
        raise Wrong("backend saw no end")
    return f"10 MiB, then {ended}"


@case(
    "U10.backend-first",
    POLICY,
    "backend ends first; the client sees it and its late 10 MiB arrive whole",
    smoke=True,
)
def _(slot):
    data, got = bulk(b"data"), []

    def script(peer):
        peer.send(b"greeting")
        peer.finish()
        try:
            peer.take(len(data), wait=15)
            got.append("whole" if bytes(peer.received[-len(data) :]) == data else "other bytes")
        except (Ended, Timeout):
            got.append(f"cut after {len(peer.rest)} bytes")

    attempt = joined(slot, script)
    attempt.client.take(8)
    attempt.client.read_to_end()
    time.sleep(0.25)
    try:
        attempt.client.send(data)
        attempt.client.finish()
    except Ended as error:
        raise Wrong("the client's direction was cut") from error
    if not eventually(lambda: got, 16) or got != ["whole"]:
        raise Wrong(got[0] if got else "timeout")
    return "end seen, 10 MiB whole"


@case(
    "U10.idle-half-open",
    POLICY,
    "client ends, 1.5 s of silence, then the backend speaks: it is heard",
    smoke=True,
)
def _(slot):
    def script(peer):
        peer.read_to_end()
        time.sleep(1.5)
        peer.send(b"still here")
        peer.finish()

    attempt = joined(slot, script)
    attempt.client.finish()
    return "heard, then " + whole_to_the_end(attempt.client, b"still here")


@case(
    "U10.idle-half-open-backend",
    POLICY,
    "backend ends, 1.5 s of silence, then the client speaks: it is heard",
)
def _(slot):
    attempt = joined(slot, lambda peer: (peer.finish(), peer.read_to_end()))
    attempt.client.read_to_end()
    time.sleep(1.5)
    try:
        attempt.client.send(b"still here")
    except Ended as error:
        raise Wrong("the client's direction was cut") from error
    if not eventually(lambda: b"still here" in bytes(attempt.upstream.received), 2):
        raise Wrong("not heard")
    return "heard"


def both_ways_at_once(slot, data):
    """Each side sends `data` and FIN without a look at the other; both must arrive whole."""
    got = []

    def read(peer):
        try:
            peer.take(len(data), wait=15)
            got.append("whole")
        except (Ended, Timeout):
            got.append(f"backend: cut after {len(peer.rest)} bytes")

    def write(peer):
        try:
            peer.send(data)
            peer.finish()
        except (Ended, Timeout):
            pass

    def script(peer):
        threading.Thread(target=read, args=(peer,), daemon=True).start()
        write(peer)

    attempt = joined(slot, script)
    threading.Thread(target=write, args=(attempt.client,), daemon=True).start()
    whole_to_the_end(attempt.client, data)
    if not eventually(lambda: got, 16) or got != ["whole"]:
        raise Wrong(got[0] if got else "timeout")


@case(
    "U10.both",
    POLICY,
    "both end at once with 10 MiB in flight each way, ten times: all arrive whole",
    smoke=True,
)
def _(slot):
    data = bulk(b"data")
    for turn in range(10):
        try:
            both_ways_at_once(slot, data)
        except (Wrong, Timeout) as error:
            raise Wrong(f"turn {turn + 1}: {error or 'timeout'}") from error
    return "10 times whole"


@case(
    "U10.end-passes",
    POLICY,
    "after both directions have ended, both connections end with FIN",
    smoke=True,
)
def _(slot):
    noted = []

    def script(peer):
        noted.append(peer.read_to_end())
        peer.finish()

    attempt = joined(slot, script)
    attempt.client.finish()
    ended = attempt.client.read_to_end()
    eventually(lambda: noted)
    if noted != ["eof"] or ended != "eof":
        raise Wrong(f"backend {noted}, client {ended}")
    return "FIN and FIN"


@case("U10.client-reset", POLICY, "the client's reset reaches the backend as a reset", smoke=True)
def _(slot):
    noted = []
    attempt = joined(slot, lambda peer: noted.append(peer.read_to_end()))
    attempt.opens()
    attempt.client.reset()
    if not eventually(lambda: noted):
        raise Wrong("timeout")
    if noted != ["reset"]:
        raise Wrong("FIN instead of RST")
    return "RST"


@case("U10.backend-reset", POLICY, "the backend's reset reaches the client as a reset", smoke=True)
def _(slot):
    def script(peer):
        peer.take(2)
        peer.reset()

    attempt = joined(slot, script)
    attempt.client.send(b"go")
    if attempt.client.read_to_end() != "reset":
        raise Wrong("FIN instead of RST")
    return "RST"
