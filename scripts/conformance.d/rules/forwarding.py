"""H5: what the backend is told about the client, when the client is not trusted to say it."""

from cases import POLICY, Attempt, NotApplicable, Wrong, case, websocket

SPOOF = "203.0.113.66"

for name, value in {
    "X-Forwarded-For": SPOOF,
    "Forwarded": f"for={SPOOF}",
    "X-Real-IP": SPOOF,
    "X-Forwarded-Host": SPOOF,
    "X-Forwarded-Proto": SPOOF,
    "X-Forwarded-Port": SPOOF,
    "X-Forwarded-Prefix": "/" + SPOOF,
    "X_Forwarded_For": SPOOF,
    "X-Forwarded_For": SPOOF,
    "X_Real_IP": SPOOF,
}.items():

    @case(
        f"H5.spoof-{name.lower()}",
        POLICY,
        f"a client's `{name}` does not reach the backend",
        smoke=name in ("X-Forwarded-For", "X_Forwarded_For"),
    )
    def _(slot, name=name, value=value):
        attempt = Attempt(slot, websocket(extra=[(name, value)]))
        return attempt.refused_or(lambda seen: SPOOF.encode() not in seen.raw or f"{name} believed")


@case("H5.spoof-twice", POLICY, "two X-Forwarded-For lines of the client do not reach the backend")
def _(slot):
    attempt = Attempt(
        slot, websocket(extra=[("X-Forwarded-For", SPOOF), ("x-forwarded-for", SPOOF)])
    )
    return attempt.refused_or(lambda seen: SPOOF.encode() not in seen.raw or "believed")


@case(
    "H5.address",
    POLICY,
    "X-Forwarded-For or Forwarded tells the backend the client's address",
    smoke=True,
)
def _(slot):
    attempt = Attempt(slot, websocket())
    attempt.opens()
    told = attempt.forwarded.get("x-forwarded-for") + attempt.forwarded.get("forwarded")
    if not any("127.0.0.1" in one for one in told):
        raise Wrong("not told")
    return "told"


@case("H5.via", "RFC 9110 §7.6.3", "the gateway adds Via to the request", smoke=True)
def _(slot):
    attempt = Attempt(slot, websocket())
    attempt.opens()
    if not attempt.forwarded.get("via"):
        raise Wrong("no Via")
    return f"Via: {attempt.forwarded.get('via')[0]}"


@case("H5.via-kept", "RFC 9110 §7.6.3", "a Via that was there is kept, ours comes after it")
def _(slot):
    attempt = Attempt(slot, websocket(extra=[("Via", "1.1 front")]))
    attempt.opens()
    members = attempt.forwarded.tokens("via")
    if not members or members[0] != "1.1 front":
        raise Wrong(f"Via {members}")
    if len(members) < 2:
        raise Wrong("no Via of its own")
    return "kept, then its own"


@case(
    "H5.loop",
    POLICY,
    "a request that has been here before (own Via) is not passed on: 508",
    smoke=True,
)
def _(slot):
    first = Attempt(slot, websocket())
    own = first.forwarded.get("via") if first.forwarded else []
    if not own:
        raise NotApplicable("sends no Via")
    return Attempt(slot, websocket(extra=[("Via", own[0])])).refused(statuses=(508,))
