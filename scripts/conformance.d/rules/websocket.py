"""U4, U5: what makes a WebSocket handshake, on both sides."""

from backend import accept_of, switching
from cases import POLICY, Attempt, Wrong, case, new_key, websocket
from wire import Head


def no_switch(attempt):
    """The backend of U4 grants anything, so a 101 here means that the proxy asked and believed."""
    return attempt.no_tunnel()


LENGTH = [("Content-Length", "5")]

for name, request in {
    "post": lambda: websocket(method="POST", extra=[("Content-Length", "0")]),
    "get-body": lambda: websocket(extra=LENGTH) + b"hello",
    "post-body": lambda: websocket(method="POST", extra=LENGTH) + b"hello",
}.items():

    @case(f"U4.{name}", POLICY, f"a websocket handshake by {name} opens no tunnel", smoke=True)
    def _(slot, request=request):
        return no_switch(Attempt(slot, request()))


@case(
    "U4.http10", "RFC 9110 §7.8", "Upgrade in an HTTP/1.0 request is ignored: no tunnel", smoke=True
)
def _(slot):
    return no_switch(Attempt(slot, websocket(version="1.0")))


@case("U4.length-0", POLICY, "a GET with Content-Length: 0 opens the tunnel")
def _(slot):
    return Attempt(slot, websocket(extra=[("Content-Length", "0")])).opens()


@case(
    "U4.accept",
    "RFC 6455 §4.2.2",
    "the right Accept reaches the client and the tunnel opens",
    smoke=True,
)
def _(slot):
    request = websocket()
    attempt = Attempt(slot, request)
    attempt.opens()
    if attempt.response.get("sec-websocket-accept") != [accept_of(Head(request))]:
        raise Wrong("Accept changed or lost")
    return "tunnel opened"


for name, accept in {
    "wrong": lambda head: ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="],
    "missing": lambda head: [],
    "empty": lambda head: [""],
    "two": lambda head: [accept_of(head), accept_of(head)],
    "right-then-wrong": lambda head: [accept_of(head), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="],
    "case": lambda head: [accept_of(head).swapcase()],
    "key-reflected": lambda head: head.get("sec-websocket-key"),
}.items():

    @case(
        f"U4.accept-{name}",
        POLICY,
        f"Sec-WebSocket-Accept {name}: 502",
        smoke=name in ("wrong", "missing"),
    )
    def _(slot, accept=accept):
        return Attempt(
            slot, websocket(), lambda head: switching(head, accept=accept(head))
        ).bad_gateway()


for name, versions in {
    "12": ["12"],
    "none": [],
    "junk": ["13x"],
    "twice": ["13", "13"],
    "list": ["13, 8"],
}.items():

    @case(
        f"U5.version-{name}",
        POLICY,
        f"Sec-WebSocket-Version {versions}: refused by the proxy",
        smoke=name == "12",
    )
    def _(slot, versions=versions):
        fields = [("Sec-WebSocket-Version", version) for version in versions]
        request = websocket(without=("Sec-WebSocket-Version",), extra=fields)
        return Attempt(slot, request).refused(statuses=(400, 426))


@case(
    "U5.version-named",
    POLICY,
    "the refusal of version 12 is a 426 that names version 13",
    smoke=True,
)
def _(slot):
    request = websocket(without=("Sec-WebSocket-Version",), extra=[("Sec-WebSocket-Version", "12")])
    attempt = Attempt(slot, request)
    attempt.refused(statuses=(426,))
    if attempt.response.get("sec-websocket-version") != ["13"]:
        raise Wrong("426 without the version")
    return "426, version 13"


for name, keys in {
    "missing": lambda: [],
    "empty": lambda: [""],
    "15-bytes": lambda: ["AAAAAAAAAAAAAAAAAAAA"],
    "17-bytes": lambda: ["AAAAAAAAAAAAAAAAAAAAAAA="],
    "no-base64": lambda: ["!!!!!!!!!!!!!!!!!!!!!!=="],
    "twice": lambda: [new_key(), new_key()],
}.items():

    @case(
        f"U5.key-{name}",
        POLICY,
        f"Sec-WebSocket-Key {name}: 400 by the proxy",
        smoke=name in ("missing", "twice"),
    )
    def _(slot, keys=keys):
        fields = [("Sec-WebSocket-Key", key) for key in keys()]
        return Attempt(slot, websocket(without=("Sec-WebSocket-Key",), extra=fields)).refused(
            statuses=(400,)
        )
