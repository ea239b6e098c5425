"""U6, U7: which upgrades pass at all, and how a refusal ends."""

from cases import (
    POLICY,
    Attempt,
    NotApplicable,
    Wrong,
    case,
    head,
    second_request,
    upgrade,
    websocket,
)

SETTINGS = ("HTTP2-Settings", "AAMAAABkAAQCAAAAAAIAAAAA")


def h2c_stays_out(attempt):
    """No tunnel, and no trace of the offer at the backend."""
    attempt.no_tunnel()
    return (
        attempt.word if attempt.forwarded is None else without_h2c(attempt.forwarded, attempt.word)
    )


def without_h2c(forwarded, word):
    offered = ",".join(forwarded.get("upgrade")).lower()
    if "h2c" in offered or "http/2" in offered or forwarded.get("http2-settings"):
        raise Wrong("h2c offer reached the backend")
    return f"h2c filtered, {word}"


for name, line in {
    "h2c": "Upgrade: h2c",
    "upper": "Upgrade: H2C",
    "space": "Upgrade:   h2c  ",
    "tab": "Upgrade:\th2c\t",
    "version": "Upgrade: h2c/2",
    "http2": "Upgrade: HTTP/2.0",
    "comma": "Upgrade: , h2c,",
    "inner-tab": "Upgrade: h2c\tx",
}.items():

    @case(
        f"U6.{name}",
        POLICY,
        f"`{line!r}` on a websocket route opens no tunnel",
        smoke=name == "h2c",
    )
    def _(slot, line=line):
        connection = ("Connection", "Upgrade, HTTP2-Settings")
        return h2c_stays_out(Attempt(slot, head(fields=[connection, line, SETTINGS])))


for name, lines in {
    "websocket-h2c": ["Upgrade: websocket, h2c"],
    "h2c-websocket": ["Upgrade: h2c, websocket"],
    "two-lines": ["Upgrade: websocket", "Upgrade: h2c"],
    "two-lines-h2c-first": ["Upgrade: h2c", "Upgrade: websocket"],
}.items():

    @case(f"U6.{name}", POLICY, f"{lines}: h2c is filtered out or the offer refused", smoke=True)
    def _(slot, lines=lines):
        request = websocket(
            without=("Upgrade", "Connection"),
            extra=["Connection: Upgrade, HTTP2-Settings", *lines, SETTINGS],
        )
        attempt = Attempt(slot, request)
        if attempt.forwarded is None:
            return attempt.refused()
        return without_h2c(attempt.forwarded, attempt.word)


for token in ("tcp", "TLS/1.0", "foo/1"):

    @case(
        f"U6.{token.lower().replace('/', '-')}",
        POLICY,
        f"`{token}` on a websocket route opens no tunnel",
    )
    def _(slot, token=token):
        return Attempt(slot, upgrade(token, target="/")).no_tunnel()


@case("U6.any-h2c", POLICY, "on an `any` route h2c still has to be named", smoke=True)
def _(slot):
    return h2c_stays_out(
        Attempt(slot, upgrade("h2c", connection="Upgrade, HTTP2-Settings", extra=[SETTINGS]))
    )


@case("U6.any-tcp", POLICY, "`tcp` on an `any` route opens the tunnel", smoke=True)
def _(slot):
    return Attempt(slot, upgrade("tcp", method="POST")).opens()


@case("U6.h2c-route", POLICY, "h2c on a route that names it opens the tunnel", smoke=True)
def _(slot):
    request = upgrade("h2c", target="/h2c", connection="Upgrade, HTTP2-Settings", extra=[SETTINGS])
    return Attempt(slot, request).opens()


@case("U6.settings-alone", "RFC 9110 §7.6.1", "HTTP2-Settings named by Connection does not pass")
def _(slot):
    attempt = Attempt(slot, websocket(connection="Upgrade, HTTP2-Settings", extra=[SETTINGS]))
    return attempt.refused_or(lambda head: not head.get("http2-settings"))


for name, token in {
    "control": "web\x01socket",
    "empty": "",
    "slash": "websocket/",
    "quoted": '"websocket"',
}.items():

    @case(f"U6.token-{name}", POLICY, f"Upgrade token {token!r} opens no tunnel")
    def _(slot, token=token):
        return Attempt(slot, websocket(upgrade=token)).no_tunnel()


def _refused_and_closed(attempt):
    """One answer by the proxy, then the end, and nothing of the second request at the backend."""
    attempt.client.listen(2)
    if attempt.backend.saw(b"/first"):
        raise NotApplicable("not refused")
    if attempt.backend.saw(b"/second"):
        raise Wrong("second request reached the backend")
    if not attempt.client.ended:
        raise Wrong(f"{attempt.word}, kept open")
    answers = bytes(attempt.client.received).count(b"HTTP/1.1 ")
    if answers > 1:
        raise Wrong(f"{answers} answers")
    return f"{attempt.word}, then end"


for name, first in {
    "no-host": lambda: websocket(host=None, target="/first"),
    "version": lambda: websocket(
        target="/first", without=("Sec-WebSocket-Version",), extra=[("Sec-WebSocket-Version", "12")]
    ),
    "no-key": lambda: websocket(target="/first", without=("Sec-WebSocket-Key",)),
    "h2c": lambda: upgrade("h2c", target="/first"),
    "space-before-colon": lambda: websocket(target="/first", extra=["X-Odd : 1"]),
}.items():

    @case(
        f"U7.{name}",
        POLICY,
        f"refused ({name}) with a request behind it: one answer, then the end",
        smoke=name == "version",
    )
    def _(slot, first=first):
        return _refused_and_closed(Attempt(slot, first() + second_request()))
