"""U8: interim answers before the 101, and framing fields in it."""

import time

from backend import response, switching
from cases import POLICY, Attempt, NotApplicable, Wrong, case, upgrade, websocket

INTERIM = "RFC 9110 §15.2"
EXPECT = [("Expect", "100-continue")]


def after(interim, **change):
    """An answer that says something interim first."""
    return lambda head: interim + switching(head, **change)


def apart(interim):
    """A backend whose interim answer comes well before its 101."""

    def script(peer):
        peer.heads.append(peer.head())
        peer.send(interim)
        time.sleep(0.05)
        peer.send(switching(peer.heads[0]))
        peer.read_to_end()

    return script


for name, interim in {
    "100-unasked": response(100),
    "102": response(102),
    "103": response(103, [("Link", "</a.css>; rel=preload")]),
}.items():

    @case(f"U8.{name}", INTERIM, f"{name}, later 101: the tunnel opens", smoke=name == "103")
    def _(slot, interim=interim):
        return Attempt(slot, websocket(), script=apart(interim)).opens()

    @case(f"U8.{name}-glued", INTERIM, f"{name} and 101 in one segment: the tunnel opens")
    def _(slot, interim=interim):
        return Attempt(slot, websocket(), after(interim)).opens()


@case("U8.8-times-103", POLICY, "eight 103, then 101: the tunnel opens")
def _(slot):
    return Attempt(slot, websocket(), after(response(103) * 8)).opens()


@case(
    "U8.expect",
    "RFC 9110 §7.8",
    "Expect: 100-continue, answered 100 and 101: the tunnel opens",
    smoke=True,
)
def _(slot):
    if Attempt(slot, upgrade("foo/1")).status != 101:
        raise NotApplicable("carries websocket only")
    request = upgrade("foo/1", method="POST", extra=[*EXPECT, ("Content-Length", "0")])
    return Attempt(slot, request, after(response(100))).opens()


@case("U8.100-times-103", POLICY, "one hundred 103 before the 101: 502, the wait is bounded")
def _(slot):
    return Attempt(slot, websocket(), after(response(103) * 100)).bad_gateway()


for name, field in {
    "length-5": ("Content-Length", "5"),
    "chunked": ("Transfer-Encoding", "chunked"),
}.items():

    @case(f"U8.{name}", POLICY, f"a 101 with {field[0]}: {field[1]}: 502", smoke=True)
    def _(slot, field=field):
        return Attempt(slot, websocket(), lambda head: switching(head, extra=[field])).bad_gateway()


@case(
    "U8.length-0",
    POLICY,
    "a 101 with Content-Length: 0 (CUPS) opens the tunnel, without the field",
    smoke=True,
)
def _(slot):
    attempt = Attempt(
        slot, websocket(), lambda head: switching(head, extra=[("Content-Length", "0")])
    )
    attempt.opens()
    if attempt.response.get("content-length"):
        raise Wrong("tunnel opened, Content-Length passed on")
    return "tunnel opened, field dropped"


@case("U8.no-framing", "RFC 9112 §6.1", "the proxy adds no framing field to a 101", smoke=True)
def _(slot):
    attempt = Attempt(slot, websocket())
    attempt.opens()
    added = attempt.response.get("transfer-encoding") + attempt.response.get("content-length")
    if added:
        raise Wrong(f"added {added}")
    return "none added"


@case(
    "U8.fields",
    "RFC 9110 §7.8",
    "the 101 reaches the client with Connection: upgrade and its Upgrade",
    smoke=True,
)
def _(slot):
    attempt = Attempt(slot, websocket())
    attempt.opens()
    if "upgrade" not in attempt.response.tokens("connection"):
        raise Wrong("no Connection: upgrade")
    if attempt.response.tokens("upgrade") != ["websocket"]:
        raise Wrong(f"Upgrade: {attempt.response.get('upgrade')}")
    return "both there"
