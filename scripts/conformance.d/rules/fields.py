"""H4: hop-by-hop fields stay on their hop, and Connection cannot be used to strip others."""

from backend import switching
from cases import POLICY, Attempt, NotApplicable, Wrong, case, upgrade, websocket

HOP = "RFC 9110 §7.6.1"
PROTECTED = {
    "Authorization": "Basic c2VjcmV0",
    "Cookie": "id=secret",
    "Origin": "http://gateway.test",
    "Cache-Control": "no-store",
    "Sec-WebSocket-Protocol": "chat",
    "Forwarded": None,
    "X-Forwarded-For": None,
    "X-Forwarded-Proto": None,
    "X-Forwarded-Host": None,
    "X-Real-IP": None,
    "Via": None,
    "Host": None,
    "Sec-WebSocket-Key": None,
    "Sec-WebSocket-Version": None,
}


def lost(attempt, name):
    """The same request without the trick shows which fields this proxy sends at all."""
    seen = {field for field, _ in attempt.forwarded.fields} if attempt.forwarded else set()
    return name.lower() not in seen


for name, value in PROTECTED.items():

    @case(
        f"H4.protect-{name.lower()}",
        POLICY,
        f"`Connection: {name}` cannot strip it: refused, or it still arrives",
        smoke=name in ("Cookie", "X-Forwarded-For"),
    )
    def _(slot, name=name, value=value):
        extra = [(name, value)] if value else []
        if lost(Attempt(slot, websocket(extra=extra)), name):
            raise NotApplicable("never sent by this proxy")
        attempt = Attempt(slot, websocket(connection=f"Upgrade, {name.lower()}", extra=extra))
        return attempt.refused_or(lambda seen: bool(seen.get(name)) or f"{name} stripped")


@case(
    "H4.protect-content-length",
    POLICY,
    "`Connection: Content-Length` cannot strip it: refused, or it still arrives",
)
def _(slot):
    length = [("Content-Length", "5")]
    request = (
        upgrade("foo/1", method="POST", connection="Upgrade, Content-Length", extra=length)
        + b"hello"
    )
    framed = (
        lambda seen: bool(seen.get("content-length") or seen.get("transfer-encoding")) or "stripped"
    )
    return Attempt(slot, request).refused_or(framed)


for name, lines in {
    "nominated": ["Connection: Upgrade, X-Hop"],
    "nominated-case": ["Connection: upgrade,x-hOP"],
    "nominated-two-lines": ["Connection: X-Hop", "Connection: Upgrade"],
    "nominated-empty-members": ["Connection: , ,Upgrade,,\tX-Hop ,"],
}.items():

    @case(f"H4.{name}", HOP, f"{lines}: X-Hop does not reach the backend", smoke=True)
    def _(slot, lines=lines):
        request = websocket(
            without=("Connection",), extra=[*lines, ("X-Hop", "leaks"), ("X-End", "stays")]
        )
        attempt = Attempt(slot, request)

        def clean(seen):
            if seen.get("x-hop") or "x-hop" in seen.tokens("connection"):
                return "X-Hop leaked"
            return bool(seen.get("x-end")) or "X-End lost"

        return attempt.refused_or(clean)


for name, value in {
    "Keep-Alive": "timeout=5",
    "Proxy-Connection": "keep-alive",
    "TE": "trailers",
    "Proxy-Authorization": "Basic c2VjcmV0",
    "Trailer": "X-Sum",
}.items():

    @case(
        f"H4.drop-{name.lower()}",
        POLICY,
        f"{name}, not named by Connection, does not reach the backend",
        smoke=name == "Keep-Alive",
    )
    def _(slot, name=name, value=value):
        attempt = Attempt(slot, websocket(extra=[(name, value)]))
        return attempt.refused_or(lambda seen: not seen.get(name) or f"{name} leaked")


@case("H4.connection-out", POLICY, "the backend gets exactly one `Connection: Upgrade`", smoke=True)
def _(slot):
    attempt = Attempt(slot, websocket(connection="keep-alive, Upgrade"))

    def exact(seen):
        return [one.lower() for one in seen.get("connection")] == [
            "upgrade"
        ] or f"Connection: {seen.get('connection')}"

    return attempt.refused_or(exact)


def answered(slot, extra, connection="Upgrade"):
    attempt = Attempt(
        slot, websocket(), lambda head: switching(head, extra=extra, connection=connection)
    )
    attempt.opens()
    return attempt.response


@case(
    "H4.answer-nominated",
    HOP,
    "a field named by the 101's Connection does not reach the client",
    smoke=True,
)
def _(slot):
    seen = answered(slot, [("X-Hop", "leaks")], connection="Upgrade, X-Hop")
    if seen.get("x-hop"):
        raise Wrong("X-Hop leaked")
    return "tunnel opened, X-Hop dropped"


for name, value in {
    "Keep-Alive": "timeout=5",
    "Proxy-Connection": "keep-alive",
    "Proxy-Authenticate": "Basic",
    "Trailer": "X-Sum",
}.items():

    @case(f"H4.answer-{name.lower()}", POLICY, f"{name} in the 101 does not reach the client")
    def _(slot, name=name, value=value):
        if answered(slot, [(name, value)]).get(name):
            raise Wrong(f"{name} leaked")
        return "tunnel opened, dropped"


@case(
    "H4.answer-end-to-end",
    "RFC 9110 §5.3",
    "Set-Cookie lines and others in the 101 arrive, in order",
    smoke=True,
)
def _(slot):
    cookies = [
        ("Set-Cookie", "a=1"),
        ("X-Stream-Protocol-Version", "v4"),
        ("Set-Cookie", "b=2"),
        ("X-Stream-Protocol-Version", "v3"),
    ]
    seen = answered(slot, cookies)
    if seen.get("set-cookie") != ["a=1", "b=2"]:
        raise Wrong(f"Set-Cookie {seen.get('set-cookie')}")
    if seen.tokens("x-stream-protocol-version") != ["v4", "v3"]:
        raise Wrong("order of X-Stream-Protocol-Version lost")
    return "all, in order"


@case("H4.repeated", "RFC 9110 §5.3", "repeated request fields arrive in order", smoke=True)
def _(slot):
    attempt = Attempt(slot, websocket(extra=[("X-Part", "1"), ("X-Other", "x"), ("X-Part", "2")]))
    attempt.opens()
    if attempt.forwarded.tokens("x-part") != ["1", "2"]:
        raise Wrong(f"X-Part {attempt.forwarded.get('x-part')}")
    return "in order"
