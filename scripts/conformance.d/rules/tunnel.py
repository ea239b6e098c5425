"""U1-U3: when a tunnel opens, and what may not pass before it does."""

import time

from backend import response, switching
from cases import POLICY, Attempt, Wrong, case, head, second_request, upgrade, websocket

SWITCH = "RFC 9110 §7.8"
FOLLOWER = b"/second"


def early_bytes_of(attempt):
    """Bytes beyond the head that the backend had before it answered."""
    return max((len(peer.early) for peer in attempt.backend.peers), default=0)


for status in (200, 400, 404, 426):

    @case(
        f"U1.early-{status}",
        SWITCH,
        f"a request pipelined behind an Upgrade is not passed on before the answer ({status})",
        smoke=status == 404,
    )
    def _(slot, status=status):
        request = websocket() + second_request()
        attempt = Attempt(slot, request, lambda head: response(status), hold=0.3)
        early = early_bytes_of(attempt)
        if early:
            raise Wrong(f"{early} bytes before the answer")
        if attempt.forwarded is None:
            return f"not forwarded, {attempt.word}"
        return f"0 bytes before the answer, {attempt.word}"

    @case(
        f"U1.second-{status}",
        POLICY,
        f"after an Upgrade answered {status} the pipelined request is dropped: the backend sees 1 request",
        smoke=status == 404,
    )
    def _(slot, status=status):
        attempt = Attempt(slot, websocket() + second_request(), lambda head: response(status))
        attempt.client.listen(0.4)
        if attempt.backend.saw(FOLLOWER):
            raise Wrong("2 requests reached the backend")
        return f"1 request, {attempt.word}"


@case(
    "U1.101",
    POLICY,
    "bytes sent before the 101 are held, then arrive in order after the head",
    smoke=True,
)
def _(slot):
    attempt = Attempt(slot, websocket() + second_request(), switching, hold=0.3)
    if early_bytes_of(attempt):
        raise Wrong("passed on before the 101")
    if attempt.status != 101:
        raise Wrong(attempt.word)
    attempt.upstream_gets(FOLLOWER)
    attempt.client.send(b"and more")
    attempt.upstream_gets(b"\r\n\r\nand more")
    return "in order after the 101"


UPGRADE_FIELDS = [("Connection", "Upgrade"), ("Upgrade", "websocket")]

for status in (200, 204, 302, 400, 401, 404, 426, 500):
    for dressed in (False, True):
        if dressed and status not in (200, 204, 426):
            continue

        @case(
            f"U2.{status}" + ("-upgrade" if dressed else ""),
            SWITCH,
            f"{status}{' with Upgrade fields' if dressed else ''} is relayed and opens no tunnel",
            smoke=status in (200, 426),
        )
        def _(slot, status=status, fields=UPGRADE_FIELDS if dressed else []):
            attempt = Attempt(slot, websocket(), lambda head: response(status, fields))
            attempt.no_tunnel(statuses=(status,))
            return f"{status} relayed"


@case("U2.closed", POLICY, "after the relayed 404 the client's connection ends", smoke=True)
def _(slot):
    attempt = Attempt(slot, websocket(), lambda head: response(404))
    attempt.client.listen(2)
    if not attempt.client.ended:
        raise Wrong(f"{attempt.word}, kept open")
    return f"{attempt.word}, then end"


@case(
    "U2.reset",
    POLICY,
    "ten clients that reset after the relayed 404 harm nobody else: the next request is served",
    smoke=True,
)
def _(slot):
    for _ in range(10):
        Attempt(slot, websocket(), lambda head: response(404)).client.reset()
    time.sleep(0.1)
    return Attempt(slot, websocket()).opens()


for status in (102, 103):

    @case(
        f"U2.{status}-200",
        "RFC 9110 §15.2",
        f"{status}, then 200: the 200 is relayed and opens no tunnel",
    )
    def _(slot, status=status):
        attempt = Attempt(slot, websocket(), lambda head: response(status) + response(200))
        return attempt.no_tunnel(statuses=(200,)) + " relayed"


@case("U2.100-only", POLICY, "a 100 and then nothing but the end: 502", smoke=True)
def _(slot):
    return Attempt(slot, websocket(), script=_says_and_closes(response(100))).bad_gateway()


@case("U2.101-http10", POLICY, "a 101 of HTTP/1.0 opens no tunnel: 502", smoke=True)
def _(slot):
    return Attempt(slot, websocket(), lambda head: switching(head, version="1.0")).bad_gateway()


def _says_and_closes(text):
    def script(peer):
        peer.heads.append(peer.head())
        peer.send(text)
        peer.close()

    return script


for name, text in {
    "garbage": b"\x16\x03\x01\x02\x00 this is no HTTP\r\n\r\n",
    "eof": b"",
    "half-head": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConn",
    "status-junk": b"HTTP/1.1 1O1 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "status-4-digits": b"HTTP/1.1 1010 No\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
}.items():

    @case(
        f"U2.{name}",
        POLICY,
        f"the backend answers with {name} and closes: 502",
        smoke=name == "eof",
    )
    def _(slot, text=text):
        return Attempt(slot, websocket(), script=_says_and_closes(text)).bad_gateway()


@case("U2.slow-head", SWITCH, "a 101 head that trickles in over 0.8 s opens the tunnel", smoke=True)
def _(slot):
    def script(peer):
        peer.heads.append(peer.head())
        answer = switching(peer.heads[0])
        step = len(answer) // 16 + 1
        for at in range(0, len(answer), step):
            time.sleep(0.05)
            peer.send(answer[at : at + step])
        peer.read_to_end()

    return Attempt(slot, websocket(), script=script).opens()


@case("U2.stalled-head", POLICY, "a backend that stalls in its head: 504 when the timer ends")
def _(slot):
    def script(peer):
        peer.heads.append(peer.head())
        peer.send(b"HTTP/1.1 101 Swit")
        peer.read_to_end()

    return Attempt(slot, websocket(), script=script).no_tunnel(statuses=(504,))


@case(
    "U3.case",
    SWITCH,
    "`upgrade: WebSocket`, `connection: UPGRADE` in request and 101: tunnel opens",
    smoke=True,
)
def _(slot):
    request = websocket(upgrade="WebSocket", connection="UPGRADE")
    answer = lambda head: switching(head, protocol="WEBSOCKET", connection="uPGRADE")
    return Attempt(slot, request, answer).opens()


for name, change in {
    "wrong-protocol": {"protocol": "chat"},
    "no-upgrade": {"protocol": ""},
    "no-connection": {"connection": ""},
    "connection-close": {"connection": "close"},
    "one-too-many": {"protocol": "websocket, chat"},
}.items():

    @case(f"U3.{name}", POLICY, f"asked for websocket, the 101 has {change}: 502", smoke=True)
    def _(slot, change=change):
        return Attempt(slot, websocket(), lambda head: switching(head, **change)).bad_gateway()


@case("U3.version", POLICY, "asked for `foo/1`, the 101 says `foo/2`: 502")
def _(slot):
    return Attempt(
        slot, upgrade("foo/1"), lambda head: switching(head, protocol="foo/2")
    ).bad_gateway()


@case("U3.unsolicited", SWITCH, "a 101 to a request without Upgrade opens no tunnel", smoke=True)
def _(slot):
    answer = lambda head: switching(head, protocol="websocket")
    attempt = Attempt(slot, head(), answer)
    return attempt.no_tunnel()


@case("U3.unsolicited-post", SWITCH, "a 101 to a POST without Upgrade opens no tunnel")
def _(slot):
    request = head(method="POST", target="/any", fields=[("Content-Length", "2")]) + b"ok"
    return Attempt(slot, request, lambda head: switching(head, protocol="foo/1")).no_tunnel()
