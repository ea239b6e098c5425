"""H1: Content-Length and Transfer-Encoding, on a request that may have a body (POST, Upgrade: foo/1)."""

from cases import POLICY, Attempt, Wrong, case, head

CHUNKED = b"5\r\nhello\r\n0\r\n\r\n"
INVALID_LENGTH = "RFC 9112 §6.3"


def request(fields, body, version="1.1"):
    upgrade = ["Connection: Upgrade", "Upgrade: foo/1"]
    return head(method="POST", target="/any", fields=upgrade + fields, version=version) + body


def one_framing(seen):
    """What a backend cannot read in two ways."""
    lengths, codings = seen.get("content-length"), seen.get("transfer-encoding")
    if lengths and codings:
        return "both fields passed on"
    if codings:
        return codings == ["chunked"] or f"passed on {codings}"
    return (
        len(lengths) <= 1
        and all(one.isascii() and one.isdigit() for one in lengths)
        or f"passed on {lengths}"
    )


for name, lengths in {
    "unequal": ["5", "6"],
    "list-unequal": ["5, 6"],
    "plus": ["+5"],
    "minus": ["-5"],
    "empty": [""],
    "empty-and-5": ["", "5"],
    "hex": ["0x5"],
    "space": ["5 5"],
    "float": ["5.0"],
    "overflow": ["18446744073709551621"],
    "trailing": ["5;"],
}.items():

    @case(
        f"H1.length-{name}",
        INVALID_LENGTH,
        f"Content-Length {lengths} is refused",
        smoke=name in ("unequal", "plus", "empty"),
    )
    def _(slot, lengths=lengths):
        fields = [("Content-Length", length) for length in lengths]
        return Attempt(slot, request(fields, b"hello")).refused()


for name, lengths in {"twice": ["5", "5"], "list-twice": ["5, 5"]}.items():

    @case(f"H1.length-{name}", INVALID_LENGTH, f"Content-Length {lengths} is refused or made one")
    def _(slot, lengths=lengths):
        fields = [("Content-Length", length) for length in lengths]
        return Attempt(slot, request(fields, b"hello")).refused_or(one_framing)


for name, fields in {
    "length-te": ["Content-Length: 5", "Transfer-Encoding: chunked"],
    "te-length": ["Transfer-Encoding: chunked", "Content-Length: 5"],
    "te-length-0": ["Transfer-Encoding: chunked", "Content-Length: 0"],
}.items():

    @case(
        f"H1.{name}",
        INVALID_LENGTH,
        f"{fields}: refused, or only one of them passed on",
        smoke=True,
    )
    def _(slot, fields=fields):
        return Attempt(slot, request(fields, CHUNKED)).refused_or(one_framing)


@case("H1.length-4-gib", POLICY, "a Content-Length of 4 GiB on a request with Upgrade is refused")
def _(slot):
    return Attempt(slot, request([("Content-Length", "4294967301")], b"hello")).refused()


@case("H1.te", POLICY, "Transfer-Encoding on a request with Upgrade is refused", smoke=True)
def _(slot):
    return Attempt(slot, request(["Transfer-Encoding: chunked"], CHUNKED)).refused()


@case(
    "H1.te-http10",
    "RFC 9110 §7.8",
    "Transfer-Encoding in HTTP/1.0: refused, or not passed on with the Upgrade",
)
def _(slot):
    attempt = Attempt(slot, request(["Transfer-Encoding: chunked"], CHUNKED, version="1.0"))
    return attempt.refused_or(
        lambda seen: one_framing(seen) if not seen.get("upgrade") else "Upgrade passed on"
    )


for name, fields in {
    "not-final": ["Transfer-Encoding: chunked, identity"],
    "identity": ["Transfer-Encoding: identity"],
    "unknown": ["Transfer-Encoding: xchunked"],
    "twice": ["Transfer-Encoding: chunked, chunked"],
    "two-lines": ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
    "vertical-tab": ["Transfer-Encoding: \x0bchunked"],
    "quoted": ['Transfer-Encoding: "chunked"'],
    "empty": ["Transfer-Encoding: "],
    "name-space": ["Transfer-Encoding : chunked"],
}.items():

    @case(
        f"H1.te-{name}",
        INVALID_LENGTH,
        f"{fields} is refused",
        smoke=name in ("not-final", "unknown"),
    )
    def _(slot, fields=fields):
        return Attempt(slot, request(fields, CHUNKED)).refused()


@case(
    "H1.smuggled",
    INVALID_LENGTH,
    "Content-Length against Transfer-Encoding smuggles no second request",
    smoke=True,
)
def _(slot):
    body = b"0\r\n\r\n" + head(target="/smuggled")
    fields = [f"Content-Length: {len(body)}", "Transfer-Encoding: chunked"]
    attempt = Attempt(slot, request(fields, body))
    attempt.client.listen(0.3)
    early = [peer for peer in attempt.backend.peers if b"/smuggled" in bytes(peer.received)]
    if early and any(peer.received.startswith(b"POST") for peer in early):
        raise Wrong("smuggled on one connection")
    return attempt.word if not early else f"served as a request of its own, {attempt.word}"


@case(
    "H1.body",
    POLICY,
    "a POST with 5 bytes of body and Upgrade: body first, then the tunnel",
    smoke=True,
)
def _(slot):
    attempt = Attempt(slot, request(["Content-Length: 5"], b"hello"))
    if attempt.status != 101:
        raise Wrong(attempt.word)
    attempt.upstream_gets(b"\r\n\r\nhello")
    return attempt.opens()
