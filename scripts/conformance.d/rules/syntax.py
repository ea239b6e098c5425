"""H2: what is no HTTP head, from the client and from the backend."""

import re

from backend import switching
from cases import POLICY, Attempt, Wrong, case, websocket

VALUE = "RFC 9110 §5.5"
GRAMMAR = "RFC 9110 §2.2"  # a sender, so a proxy too, generates nothing outside the grammar


def odd(line):
    """A good request with one odd line before the end of its head."""
    return websocket()[:-2] + line + b"\r\n\r\n"


for name, change in {
    "bare-lf": lambda good: good.replace(b"\r\n", b"\n"),
    "one-bare-lf": lambda good: good.replace(b"\r\nUpgrade", b"\nUpgrade"),
    "bare-lf-end": lambda good: good[:-2] + b"\n",
    "cr-cr-lf": lambda good: good.replace(b"\r\nUpgrade", b"\r\r\nUpgrade"),
}.items():

    @case(
        f"H2.{name}",
        POLICY,
        f"line ends ({name}) other than CRLF are refused",
        smoke=name == "one-bare-lf",
    )
    def _(slot, change=change):
        return Attempt(slot, change(websocket())).refused()


for name, basis, line, trace in [
    ("bare-cr", "RFC 9112 §2.2", b"X-Odd: one\rtwo: 2", b"\rtwo"),
    ("nul", VALUE, b"X-Odd: one\0two", b"\0"),
    ("obs-fold", "RFC 9112 §5.2", b"X-Odd: one\r\n two: 2", b"\r\n two"),
    ("obs-fold-tab", "RFC 9112 §5.2", b"X-Odd: one\r\n\ttwo: 2", b"\r\n\ttwo"),
    ("control", POLICY, b"X-Odd: one\x01two", b"\x01"),
    ("delete", POLICY, b"X-Odd: one\x7ftwo", b"\x7f"),
]:

    @case(f"H2.{name}", basis, f"{name} in a field value is refused or made harmless", smoke=True)
    def _(slot, line=line, trace=trace):
        return Attempt(slot, odd(line)).refused_or(lambda seen: trace not in seen.raw)


for name, basis, line in [
    ("space-before-colon", "RFC 9112 §5.1", b"X-Odd : 1"),
    ("tab-before-colon", "RFC 9112 §5.1", b"X-Odd\t: 1"),
    ("empty-name", GRAMMAR, b": 1"),
    ("name-space", GRAMMAR, b"X Odd: 1"),
    ("name-brace", GRAMMAR, b"X{Odd}: 1"),
    ("name-8-bit", GRAMMAR, b"X-\xd6dd: 1"),
    ("name-nul", GRAMMAR, b"X-\0dd: 1"),
    ("no-colon", GRAMMAR, b"\r\nX-Odd\r\n"),
]:

    @case(
        f"H2.{name}",
        basis,
        f"{name} in a field line is refused, or the line does not pass",
        smoke=name == "space-before-colon",
    )
    def _(slot, line=line):
        return Attempt(slot, odd(line.strip(b"\r\n"))).refused_or(lambda seen: line not in seen.raw)


@case(
    "H2.first-line-space",
    "RFC 9112 §2.2",
    "whitespace before the first field is refused or dropped",
    smoke=True,
)
def _(slot):
    request = websocket().replace(b"\r\nHost", b"\r\n X-Odd: 1\r\nHost")
    return Attempt(slot, request).refused_or(lambda seen: b"\n X-Odd" not in seen.raw)


@case("H2.leading-blank", "RFC 9112 §2.2", "blank lines before the request are refused or dropped")
def _(slot):
    return Attempt(slot, b"\r\n\r\n" + websocket()).refused_or(
        lambda seen: seen.start.startswith(b"GET ")
    )


for name, basis, line in [
    ("target-8-bit", POLICY, b"GET /\xc3\xa4 HTTP/1.1"),
    ("target-nul", GRAMMAR, b"GET /a\0b HTTP/1.1"),
    ("target-control", GRAMMAR, b"GET /a\x01b HTTP/1.1"),
    ("target-space", GRAMMAR, b"GET /a b HTTP/1.1"),
    ("target-tab", GRAMMAR, b"GET /a\tb HTTP/1.1"),
    ("target-fragment", POLICY, b"GET /a#b HTTP/1.1"),
    ("target-quote", POLICY, b'GET /a"b HTTP/1.1'),
    ("target-empty", GRAMMAR, b"GET  HTTP/1.1"),
    ("double-space", POLICY, b"GET  / HTTP/1.1"),
    ("tabs", POLICY, b"GET\t/\tHTTP/1.1"),
    ("method-brace", GRAMMAR, b"G{T / HTTP/1.1"),
    ("version-2", POLICY, b"GET / HTTP/2.0"),
    ("version-0.9", POLICY, b"GET /"),
    ("version-junk", GRAMMAR, b"GET / HTTP/1.1x"),
    ("version-lower", GRAMMAR, b"GET / http/1.1"),
    ("preface", POLICY, b"PRI * HTTP/2.0"),
]:

    @case(
        f"H2.{name}",
        basis,
        f"request line {line!r} is refused",
        smoke=name in ("target-nul", "version-2"),
    )
    def _(slot, line=line):
        request = websocket().replace(b"GET / HTTP/1.1", line)
        attempt = Attempt(slot, request)
        if attempt.forwarded is None:
            return attempt.refused()
        raise Wrong(
            f"forwarded as {attempt.forwarded.start[:40].decode('latin-1')!r}, {attempt.word}"
        )


for name, basis, line, trace in [
    ("bare-lf", POLICY, None, rb"(?<!\r)\n"),
    ("bare-cr", "RFC 9112 §2.2", b"X-Odd: one\rtwo: 2", rb"\rtwo"),
    ("nul", VALUE, b"X-Odd: one\0two", rb"\0"),
    ("obs-fold", "RFC 9112 §5.2", b"X-Odd: one\r\n two: 2", rb"\r\n two"),
    ("space-before-colon", "RFC 9112 §5.1", b"X-Odd : 1", rb"X-Odd +:"),
    ("empty-name", GRAMMAR, b": 1", rb"\n:"),
]:

    @case(
        f"H2.answer-{name}",
        basis,
        f"{name} in the backend's 101: 502, or it does not pass",
        smoke=True,
    )
    def _(slot, line=line, trace=trace):
        def answer(head):
            good = switching(head)
            return good[:-2] + line + b"\r\n\r\n" if line else good.replace(b"\r\n", b"\n")

        attempt = Attempt(slot, websocket(), answer)
        if attempt.response and re.search(trace, attempt.response.raw):
            raise Wrong(f"{attempt.word}, passed on as it was")
        return attempt.word
